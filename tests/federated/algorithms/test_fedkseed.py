"""FedKSeed: x follows from a number for each direction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from federated.algorithm import Answer, Local, Problem
from federated.algorithms import fedkseed
from federated.algorithms.fedkseed import FedKSeed
from federated.network import Network
from federated.tasks.synthetic import Quadratic
from tests.federated.runs import federated, values
from zoo.core.bounds import Bounds
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import freeze, thaw

TASK = Quadratic(24, 4, heterogeneity=2.0)
METHOD = FedKSeed(num_seeds=32, num_steps=6)


@pytest.mark.parametrize(
    "like", [Like(kind, dtype) for kind in ("numpy", "torch") for dtype in ("float32", "float64")], ids=str
)
def test_x_follows_from_the_amounts(like: Like, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 15, on the server, and on a client that was never there before."""
    monkeypatch.setattr(fedkseed, "shared", lambda history, like, make: make())
    x0 = like.asarray(TASK.start(Key(0)))
    server = federated(METHOD, TASK, x0=x0, rounds=4, network=Network(participation=0.5)).optimizer
    key = Key(0).fold("shared")
    client = METHOD.client_init(x0, Problem(4, TASK.bounds, key), 3)
    message = METHOD.trips[0].request(server, [3])
    began = next(METHOD.trips[0].reply(client, message, Local(3, 0, Key(1), TASK))).inner.inner.base
    assert to_numpy(began).tobytes() == to_numpy(server.x).tobytes()
    z = to_numpy(key.fold("seeds").fold(0).normal(0, 32, 24, like=like)).astype(np.float64)
    expected = to_numpy(x0) - METHOD.learning_rate * server.amounts @ z
    np.testing.assert_allclose(
        to_numpy(server.x), expected.clip(0, 1), atol=1e-5 if "32" in like.dtype else 1e-13
    )
    assert np.count_nonzero(server.amounts) > 6


def test_one_client_goes_where_its_steps_have_led() -> None:
    method = FedKSeed(num_seeds=8, num_steps=1, bounded=False)
    state = federated(method, Quadratic(24, 1), rounds=1)
    step = state.x - TASK.start(Key(0))
    number = int(np.flatnonzero(state.optimizer.amounts)[0])
    z = Key(0).fold("shared").fold("seeds").fold(0).normal(0, 8, 24)[number]
    np.testing.assert_allclose(step, -0.01 * state.optimizer.amounts[number] * z, atol=1e-15)


def test_queries_and_bytes() -> None:
    state = federated(METHOD, TASK, rounds=3)
    assert state.queries.tolist() == [3 * 12] * 4
    assert METHOD.most_queries(24, True) == 12
    assert (state.up, state.down) == (3 * 4 * 6 * 8, 3 * 4 * 32 * 8)


def test_descends() -> None:
    method = FedKSeed(num_seeds=256, num_steps=30, learning_rate=0.005)
    found = values(federated(method, Quadratic(30, 3), rounds=10))
    assert found[-1] < 0.5 < 2.5 < found[0]


def test_failed_values() -> None:
    class Broken(Quadratic):
        def joint_values(self, clients: Any, x: Any, keys: Any) -> Any:
            return super().joint_values(clients, x, keys) * np.where(clients == 0, np.nan, 1)

    state = federated(METHOD, Broken(24, 1), rounds=2)
    assert (state.x == TASK.start(Key(0))).all()
    assert federated(METHOD, Broken(24, 2), rounds=1).up == 6 * 8 + 2


def test_client_without_values_has_no_vote() -> None:
    problem = Problem(2, TASK.bounds, Key(1))
    server = METHOD.server_init(TASK.start(Key(0)), problem)
    said = fedkseed.Walked(np.arange(6, dtype=np.int32), np.ones(6, np.float32))
    alone = METHOD.trips[0].merge(server, [Answer(0, said, 2.0)])
    both = METHOD.trips[0].merge(server, [Answer(0, said, 2.0), Answer(1, fedkseed.Walked(None, None), 5.0)])
    assert alone.x.tobytes() == both.x.tobytes() != server.x.tobytes()


def test_runs_in_other_boxes_share_nothing() -> None:
    x0 = TASK.start(Key(0))
    problems = [Problem(2, TASK.bounds, Key(1)), Problem(2, None, Key(1)), Problem(2, None, Key(2))]
    problems.append(Problem(2, Bounds(np.full(24, -1.0), np.ones(24)), Key(1)))
    assert len({METHOD.client_init(x0, problem, 0).root for problem in problems}) == 4
    assert METHOD.client_init(x0, problems[0], 0).start is METHOD.client_init(x0, problems[0], 1).start


def test_checkpoints_hold_the_start_once() -> None:
    problem = Problem(5, TASK.bounds, Key(1))
    tree, arrays = freeze(tuple(METHOD.client_init(TASK.start(Key(0)), problem, i) for i in range(5)))
    assert sum(array.size == 24 for array in arrays.values()) == 1
    assert len({id(client.start) for client in thaw(tree, arrays)}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_seeds": 0}, "`num_seeds` must be at least 1"),
        ({"learning_rate": 0.0}, "`learning_rate` must be"),
        ({"directions": "gauss"}, "`directions` must be one of"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FedKSeed(**options)
