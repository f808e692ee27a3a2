"""Tasks by name, and what is said of names and options that do not exist."""

from __future__ import annotations

import numpy as np
import pytest

from federated.task import Task
from federated.tasks.lookup import TASKS, as_task
from federated.tasks.synthetic import Quadratic
from zoo.core.rng import Key


class Bowl(Task):
    num_clients, dim = 2, 1

    def __init__(self, depth: float, key: Key | None = None) -> None:
        self.depth, self.key = depth, key

    def start(self, key: Key) -> np.ndarray:
        return np.zeros(1)

    def values(self, client: int, x: np.ndarray, *, key: Key) -> np.ndarray:
        return (x**2).sum(1) - self.depth


def test_names_options_and_keys() -> None:
    task = as_task("quadratic", {"dim": 10, "num_clients": 3, "heterogeneity": 5}, key=Key(4))
    assert isinstance(task, Quadratic)
    assert (task.dim, task.num_clients, task.heterogeneity, task.key) == (10, 3, 5.0, Key(4))
    assert as_task("ackley").identity()["key"] == str(Key(0))


def test_tasks_classes_and_functions_of_the_user() -> None:
    task = Bowl(1.0)
    assert as_task(task) is task
    assert as_task(Bowl, {"depth": 2.0}, key=Key(3)).key == Key(3)  # type: ignore[attr-defined]
    assert as_task(lambda: task) is task
    assert as_task("federated.tasks.synthetic:Levy", {"dim": 4}).dim == 4


def test_every_entry_says_its_options_with_num_clients_among_them() -> None:
    for name, entry in TASKS.items():
        assert entry.name == name
        assert "num_clients" in entry.options()
        assert "key" not in entry.options()
        assert entry.summary


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ("quadratc", {}, ValueError, "unknown task 'quadratc'. Did you mean 'quadratic'?"),
        ("quadratic", {"heterogenity": 1}, TypeError, "Did you mean 'heterogeneity'?"),
        ("quadratic", {"key": 1}, TypeError, "unknown option of task 'quadratic': 'key'"),
        ("quadratic", {"dim": 0}, ValueError, "`dim` must be at least 1, got 0"),
        ("quadratic", ["dim"], TypeError, "`options` must be a dictionary"),
        ("nowhere_at_all:task", {}, ValueError, "no module 'nowhere_at_all'"),
        ("federated.tasks.synthetic:Quadratc", {}, ValueError, "Did you mean 'Quadratic'?"),
        ("tasks/mine.py:task", {}, ValueError, "write 'tasks.mine:task'"),
        (":task", {}, ValueError, 'must have the form "module:name"'),
        ("math:pi", {}, TypeError, "`task` must be a name, a Task or a function"),
        ("zoo.core.rng:Key", {"seed": 1}, TypeError, "returned Key.parse"),
        (Bowl, {}, TypeError, "task 'Bowl' needs the option 'depth'"),
        (lambda client, x: 0.0, {}, TypeError, "needs the option 'client'. Functions that clients evaluate"),
        (Bowl(1.0), {"depth": 1.0}, TypeError, "`options` must be left out"),
        (3, {}, TypeError, "`task` must be a name"),
    ],
)
def test_what_is_no_task_is_refused(given: object, options: object, error: type, message: str) -> None:
    with pytest.raises(error) as caught:
        as_task(given, options)  # type: ignore[arg-type]
    assert message in str(caught.value)
