"""Tasks in boxes of any size."""

import numpy as np
import pytest

import federated
from federated.boxed import Boxed, boxed
from federated.task import Task
from federated.tasks.functions import FunctionTask
from federated.tasks.synthetic import Quadratic
from zoo.core.bounds import Bounds
from zoo.core.rng import Key


class Wide(Task):
    """Bowls in a box of any size, the same functions of where x is in the box."""

    num_clients, dim, measures = 3, 4, ("least",)

    def __init__(self, width: float = 1.0, lower: float = 0.0) -> None:
        self.width, self.lower = width, lower
        self.bounds = Bounds(np.full(4, lower), np.full(4, lower + width))

    def start(self, key: Key) -> np.ndarray:
        return self.lower + self.width * key.uniform(0, 1, 4)[0]

    def values(self, client: int, x: np.ndarray, *, key: Key) -> np.ndarray:
        assert self.bounds.contains(x)
        return (((x - self.lower) / self.width - 0.1 * (1 + client)) ** 2).sum(1)

    def gradient(self, client: int, x: np.ndarray) -> np.ndarray:
        return 2 * ((x - self.lower) / self.width - 0.1 * (1 + client)) / self.width

    def measure(self, client: int, x: np.ndarray) -> dict[str, float]:
        return {"value": float(self.values(client, x[None], key=Key(0))[0]), "least": float(x.min())}


@pytest.mark.parametrize("method", ["fzoos", "fedzo", "fedavg", "decomfl"])
def test_the_size_of_a_box_makes_no_difference(method: str) -> None:
    one, wide = (federated.federate(task, method, rounds=4, rng=0) for task in (Wide(), Wide(width=2.0**12)))
    assert one.value < 0.5 * one.history["value"][0]
    np.testing.assert_allclose(wide.history["value"], one.history["value"], rtol=1e-9)
    np.testing.assert_allclose(wide.x, one.x * 2.0**12, rtol=1e-9)
    np.testing.assert_allclose(wide.history["least"], one.history["least"] * 2.0**12, rtol=1e-9)


def test_callbacks_are_told_the_x_of_the_task() -> None:
    told = []
    found = federated.federate(Wide(20.0, -10.0), "fedzo", rounds=2, rng=0, callback=told.append)
    assert told[-1].x.tolist() == found.x.tolist()
    assert abs(found.x).max() > 1


def test_a_unit_box_and_none_stay_as_they_are() -> None:
    for task in (
        Quadratic(3, 2),
        FunctionTask(lambda client, x: float(x @ x), 2, x0=np.ones(3)),
        FunctionTask(lambda client, x: float(x @ x), 2, x0=np.ones(1), bounds=[(0, None)]),
    ):
        assert boxed(task) is task


def test_points_gradients_and_fixed_coordinates() -> None:
    task = Wide(8.0, -2.0)
    task.bounds = Bounds(np.full(4, -2.0), np.array([6.0, 6.0, 6.0, -2.0]))
    seen = boxed(task)
    assert isinstance(seen, Boxed)
    u = np.array([0.0, 0.25, 1.0, 0.0])
    x = seen.outward(u)
    assert x.tolist() == [-2.0, 0.0, 6.0, -2.0]
    assert seen.inward(x).tolist() == u.tolist()
    assert seen.bounds is not None
    assert seen.bounds.upper.tolist() == [1, 1, 1, 0]
    assert seen.gradient(1, u)[:3].tolist() == (8.0 * task.gradient(1, x))[:3].tolist()
    assert seen.identity() == task.identity()


def test_points_stay_inside_whatever_rounding_does() -> None:
    task = Wide(0.3, 0.1)
    seen = boxed(task)
    assert isinstance(seen, Boxed)
    assert task.bounds.contains(seen.outward(np.array([0.0, 1.0, 1 - 2**-53, 1 / 3])))
    huge = Wide(1.0)
    huge.bounds = Bounds(np.full(4, -1.7e308), np.full(4, 1.7e308))
    wide = boxed(huge)
    assert isinstance(wide, Boxed)
    assert wide.outward(np.array([0.0, 0.5, 1.0, 0.5])).tolist() == [-1.7e308, 0.0, 1.7e308, 0.0]
