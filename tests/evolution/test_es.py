"""Methods of the zoo for policies: how they are asked, what is tried again, and their gradient at scale.

What centred ranks are where values failed is tested in `tests/zoo/updates/test_shaping.py`, and the update of
`OpenAIES` against the dense formula in `tests/zoo/methods/test_openai_es.py`.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata

from evolution.es import AsMembers, Validated
from evolution.members import HeldMembers
from evolution.methods import find
from zoo.core.rng import Key
from zoo.core.types import Evaluations, Rows
from zoo.methods.cma_es import CMAES
from zoo.methods.openai_es import OpenAIES
from zoo.updates.shaping import centred_ranks

Array = np.ndarray[Any, Any]
NAN = np.nan
START = np.array([0.75, -1.5, 2.0], np.float32)


def told(method: Any, state: Any, values: Any = None) -> Any:
    members = method.ask(state)
    rows = members.rows(0, len(members)).astype(np.float64)
    return method.tell(state, Evaluations((rows**2).sum(1) if values is None else np.asarray(values, float)))


def test_members_are_the_candidates_in_single_precision() -> None:
    method = OpenAIES(population_size=100, sigma=0.1)
    candidates = method.ask(method.init(np.linspace(-1, 1, 5000), key=Key(0)))
    members = AsMembers(candidates, episodes=3)
    assert (len(members), members.dim, members.episodes) == (100, 5000, 3)
    rows = members.rows(10, 14)
    assert rows.dtype == np.float32
    assert np.array_equal(rows, candidates.rows(10, 14).astype(np.float32))
    assert len(pickle.dumps(members)) < 2 * 8 * 5000, "a mean, and not the rows"
    assert pickle.loads(pickle.dumps(members)).rows(10, 14).tobytes() == rows.tobytes()


def test_members_that_are_held_are_not_written_to() -> None:
    rows = Rows(np.ones((3, 2), np.float32))
    members = AsMembers(rows)
    taken = members.rows(0, 3)
    taken += 1
    assert (members.rows(0, 3) == 1).all()


@pytest.mark.gpu
def test_members_are_put_where_they_are_used() -> None:
    members = AsMembers(Rows(np.arange(6.0).reshape(3, 2)))
    there = members.rows_on("cuda:0", 1, 3)
    assert (str(there.device), str(there.dtype)) == ("cuda:0", "torch.float32")
    assert there.cpu().numpy().tolist() == [[2.0, 3.0], [4.0, 5.0]]


def test_what_is_recommended_is_tried_now_and_then() -> None:
    method = Validated(OpenAIES(population_size=6), validation_every=3, validation_episodes=7)
    state, plain = method.init(START, key=Key(0)), OpenAIES(population_size=6).init(START, key=Key(0))
    asked = []
    for _ in range(10):
        members = method.ask(state)
        asked.append((len(members), members.episodes))
        if members.episodes:
            assert isinstance(members, HeldMembers)
            assert np.array_equal(members.rows(0, 1)[0], OpenAIES(population_size=6).recommend(plain))
        else:  # the method is told nothing of the others
            plain = told(OpenAIES(population_size=6), plain)
        state = told(method, state)
    assert asked == [*[(6, None)] * 3, (1, 7), *[(6, None)] * 3, (1, 7), *[(6, None)] * 2]
    assert state.step == 8


def test_the_best_recommendation_is_kept_by_what_further_episodes_say() -> None:
    method = Validated(CMAES(), validation_every=1)
    state = method.init(START, key=Key(0))
    assert method.best(state) == (-1, np.inf)
    assert np.array_equal(method.recommend(state), START)
    best = START
    trials = [(5.0, True), (6.0, False), (NAN, False), (4.0, True), (4.0, False), (-np.inf, False)]
    for number, (value, better) in enumerate(trials):
        state = told(method, state)
        row = method.ask(state).rows(0, 1)[0]
        state = told(method, state, [value])
        best = row if better else best
        assert np.array_equal(method.recommend(state), best)
        assert np.isnan(value) or np.isinf(value) or method.diagnostics(state)["recommended"] == value
        if better:
            assert method.best(state) == (number + 1, value)


def test_a_method_that_ends_has_its_recommendation_tried() -> None:
    method = Validated(OpenAIES(population_size=4), validation_every=100)
    state = method.init(START, key=Key(0), budget=10)
    asked = []
    while method.finished(state) is None:
        asked.append(len(method.ask(state)))
        state = told(method, state)
    assert asked == [4, 4, 2, 1]
    assert "budget" in (method.finished(state) or "")
    assert method.best(state)[0] == 3


def test_a_budget_may_be_smaller_than_a_step() -> None:
    method = Validated(OpenAIES(population_size=20))
    state = method.init(START, key=Key(0), budget=6)
    assert len(method.ask(state)) == 6
    state = told(method, state)
    assert method.finished(state) is None
    assert method.finished(told(method, state)) == "the budget of 6 evaluations is used up"


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="`validation_every` must be at least 1, got 0"):
        Validated(CMAES(), 0)
    with pytest.raises(TypeError, match=r"`validation_episodes` must be an integer, got 2\.5"):
        Validated(CMAES(), 1, 2.5)  # type: ignore[arg-type]
    method = Validated(CMAES(), 1)
    state = told(method, method.init(START, key=Key(0)))
    with pytest.raises(ValueError, match="must hold the 1 value asked for, got 2"):
        told(method, state, [1.0, 2.0])


@pytest.mark.parametrize("count", [2, 3, 50, 1001])
def test_centred_ranks_are_those_of_scipy(count: int) -> None:
    draw = np.random.default_rng(count)
    for values in (draw.normal(size=count), draw.integers(0, 4, count) * 1.0, np.arange(count) % 2 * 1.0):
        found = centred_ranks(values)
        np.testing.assert_allclose(found, (rankdata(values) - 1) / (count - 1) - 0.5, rtol=0, atol=1e-12)
        assert abs(found.sum()) < 1e-6
        assert -0.5 <= found.min() <= found.max() <= 0.5
    assert (centred_ranks(np.full(count, 7.0)) == 0).all()


def test_where_all_is_equal_nothing_moves() -> None:
    method = find("openai-es").build({"weight_decay": 0.0, "population_size": 10})
    state = method.init(START, key=Key(0))
    for _ in range(3):
        state = told(method, state, np.full(10, 4.0))
    assert method.recommend(state).tobytes() == START.tobytes()


def gradient(x0: Array, values: Any, pairs: int) -> tuple[Array, Array]:
    """Return the direction of a step along raw values of so many pairs, and the rows themselves."""
    method = OpenAIES(2 * pairs, sigma=0.02, learning_rate=1.0, update="sgd", beta1=0.0)
    state = method.init(x0, key=Key(0))
    found = np.concatenate(
        [values(method.ask(state).rows(row, row + 4000)) for row in range(0, 2 * pairs, 4000)]
    )
    return x0 - method.moved(state, found, 2 * pairs, 1, 2 * pairs).mean, found


def test_the_gradient_of_a_quadratic_is_found() -> None:
    """20,000 pairs in 100 dimensions: a cosine of sqrt(n / (n + d)), by theory .9975."""
    centre = np.random.default_rng(0).normal(size=100)
    step, _ = gradient(np.zeros(100), lambda x: ((x - centre) ** 2).sum(1), 20_000)
    true = -2 * centre
    cosine = step @ true / np.linalg.norm(step) / np.linalg.norm(true)
    assert cosine >= 0.98
    assert np.linalg.norm(step) / 0.02 == pytest.approx(np.linalg.norm(true), rel=0.02)


def test_pairs_cancel_what_is_even() -> None:
    step, values = gradient(np.zeros(100), lambda x: np.cos(x).prod(1) + (x**4).sum(1), 2000)
    assert np.ptp(values) > 0
    assert (step == 0).all()
