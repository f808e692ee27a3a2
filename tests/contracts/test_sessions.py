"""What `zoo.Session` keeps to with every method; see `tests/cases.py` for who is tested."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import zoo
from tests.cases import Case
from tests.contracts.functions import bowl
from tests.contracts.test_contracts import START, all_methods, may_be_flat
from tests.contracts.test_runs import same


def value_of(trial: zoo.Trial) -> float:
    """A value by id: every eleventh evaluation fails."""
    return float("nan") if trial.id % 11 == 5 else bowl(trial.x)


def session(case: Case, **more: Any) -> zoo.Session:
    return zoo.Session(case.method, START, **{"options": case.options, "budget": 60, "rng": 3, **more})


@all_methods
@pytest.mark.parametrize("noise", [False, True])
def test_in_order_it_does_what_minimize_does(case: Case, noise: bool) -> None:
    found = session(case, noise=noise)
    while not found.done:
        trials = found.ask(4)
        assert trials
        for trial in trials:
            found.tell(trial.id, bowl(trial.x))
    arguments = {"method": case.method, "options": case.options, "budget": 60, "rng": 3, "noise": noise}
    assert same(found.result, zoo.minimize(bowl, START, **arguments))


@all_methods
@may_be_flat
def test_the_order_of_answers_changes_nothing(case: Case) -> None:
    results, points = [], []
    for seed in (None, 1, 2):
        rng, found = np.random.default_rng(seed), session(case)
        waiting: list[zoo.Trial] = []
        asked: dict[int, bytes] = {}
        while not found.done:
            new = found.ask(1 if seed is None else int(rng.integers(1, 7)))
            asked |= {trial.id: np.asarray(trial.x).tobytes() for trial in new}
            waiting += new
            late = 0 if seed is None else int(rng.integers(0, 4))
            if seed is not None:
                rng.shuffle(waiting)
            while waiting and (len(waiting) > late or not new):
                trial = waiting.pop()
                if np.isnan(value_of(trial)) and seed == 2:
                    found.abandon(trial.id)
                else:
                    found.tell(trial.id, value_of(trial))
        results.append(found.result)
        points.append(asked)
    assert points[0] == points[1] == points[2]
    assert same(results[0], results[1])
    assert same(results[0], results[2])
    assert results[0].num_failed == results[2].num_failed > 0
