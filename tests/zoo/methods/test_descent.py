"""Descent: the textbook's iterations to the digit, and steps that know no scale."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest

import zoo
from zoo.core.bounds import Bounds
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import digest
from zoo.core.types import Evaluations
from zoo.estimators.directions import Axes, Masked, Sphere
from zoo.estimators.finite_difference import FiniteDifference
from zoo.methods.aliases import SPSA, ZOSGD, CoordinateDescent, RandomDescent, ZOAdam, ZOSign
from zoo.methods.descent import Descent, DescentState
from zoo.updates.adam import Adam
from zoo.updates.chain import Chain
from zoo.updates.clip import Clip
from zoo.updates.momentum import Momentum

NAMES = ("zo-sgd", "zo-adam", "zo-adamm", "zo-sign", "spsa", "coordinate-descent", "random-descent")
ALIASES = (ZOSGD, ZOAdam, ZOSign, SPSA, CoordinateDescent, RandomDescent)
START = np.array([1.0, -2.0, 0.5])
WEIGHTS = np.array([1.0, 3.0, 0.5])

all_aliases = pytest.mark.parametrize("alias", ALIASES, ids=lambda alias: alias.__name__)


def bowl(rows: Any) -> Any:
    return (WEIGHTS * rows**2).sum(1) / 2


def ellipsoid(rows: Any) -> Any:
    return (rows**2 * 10 ** np.linspace(0, 2, rows.shape[1])).sum(1)


def told(method: Descent, state: DescentState, fun: Any) -> tuple[Any, DescentState]:
    asked = method.ask(state)
    rows = asked.rows(0, len(asked))
    return rows, method.tell(state, Evaluations(fun(to_numpy(rows).astype(np.float64))))


def states(method: Descent, fun: Any, steps: int, x0: Any = START, **options: Any) -> list[DescentState]:
    found = [method.init(x0, key=options.pop("key", Key(0)), **options)]
    for _ in range(steps):
        found.append(told(method, found[-1], fun)[1])
    return found


def test_textbook_descent() -> None:
    """Central differences are exact on a quadratic, so the iterates are gradient descent's."""
    method = Descent(FiniteDifference("axes", smoothing=0.1), Chain(), 0.1)
    x = START
    for state in states(method, bowl, 6):
        np.testing.assert_allclose(state.x, x, rtol=1e-12)
        np.testing.assert_allclose(method.recommend(state), x, rtol=1e-12)
        x = x - 0.1 * WEIGHTS * x
    assert not method.recommends_evaluated
    assert state.nfev == 6 * 6


def test_textbook_momentum() -> None:
    method = CoordinateDescent(smoothing=0.1, learning_rate=0.1, momentum=0.5)
    x, m = START, np.zeros(3)
    for state in states(method, bowl, 6):
        np.testing.assert_allclose(state.x, x, rtol=1e-12)
        m = 0.5 * m + WEIGHTS * x
        x = x - 0.1 * m


def test_textbook_adam() -> None:
    update = Adam(0.8, 0.9, 1e-6)
    method = Descent(FiniteDifference("axes", smoothing=0.1), update, 0.1)
    x, memory = START, update.init(START)
    for state in states(method, bowl, 6):
        np.testing.assert_allclose(state.x, x, rtol=1e-9)
        memory, direction = update.update(memory, WEIGHTS * x)
        x = x - 0.1 * direction


def test_signs_move_every_coordinate_equally_far() -> None:
    method = ZOSign(smoothing=0.1, learning_rate=0.125)
    before, *after = states(method, bowl, 5)
    for state in after:
        assert (np.abs(state.x - before.x) == 0.125).all()
        before = state


def test_clipped_gradients() -> None:
    method = ZOSGD(directions="axes", smoothing=0.1, learning_rate=1.0, momentum=0.0, max_norm=0.01)
    first, second = states(method, bowl, 1)
    assert np.linalg.norm(second.x - first.x) == pytest.approx(0.01)
    assert method.update == Chain((Clip(0.01),))


def test_spalls_gains() -> None:
    """One pair a step, c / (k + 1)^.101 apart; a step is a / (k + 1 + A)^.602 times the difference."""
    method = SPSA(smoothing=0.2, learning_rate=0.3, delay=5)
    state = method.init(START, key=Key(0))
    for k in range(6):
        rows, after = told(method, state, bowl)
        assert rows.shape == (2, 3)
        c, a = 0.2 / (k + 1) ** 0.101, 0.3 / (k + 1 + 5) ** 0.602
        delta = (rows[0] - rows[1]) / (2 * c)
        np.testing.assert_allclose(np.abs(delta), 1, rtol=1e-12)
        above, below = bowl(rows)
        np.testing.assert_allclose(after.x, state.x - a * (above - below) / (2 * c) / delta, rtol=1e-10)
        state = after


def test_coordinates_take_turns() -> None:
    method = CoordinateDescent(
        num_directions=1, smoothing=0.1, learning_rate=0.1, order="cyclic", momentum=0.0
    )
    found = states(method, bowl, 6)
    moved = [int(np.flatnonzero(b.x != a.x)[0]) for a, b in itertools.pairwise(found)]
    assert moved == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("method", [ZOSGD(learning_rate=0.01), ZOSGD()], ids=["textbook", "auto"])
def test_masked_coordinates_never_move(method: Descent) -> None:
    mask = np.array([True, False, True])
    masked = Descent(FiniteDifference(Masked(Sphere(), mask), 4), method.update, method.learning_rate)
    for state in states(masked, bowl, 20):
        assert state.x[1] == START[1]
    assert bowl(state.x[None]) < bowl(START[None])


@all_aliases
def test_descends_at_once_with_a_number_too(alias: Any) -> None:
    method = alias(learning_rate=0.02)
    assert bowl(states(method, bowl, 40)[-1].x[None]) < 0.5 * bowl(START[None])


@all_aliases
def test_never_gets_worse(alias: Any) -> None:
    method = alias()
    assert method.recommends_evaluated
    state, evaluated = method.init(START, key=Key(1)), [START]
    value = bowl(START[None])[0]
    for _ in range(80):
        rows, state = told(method, state, bowl)
        evaluated.extend(rows)
        now = bowl(method.recommend(state)[None])[0]
        assert now <= value
        assert any((method.recommend(state) == row).all() for row in evaluated)
        value = now
    assert value < 1e-2 * bowl(START[None])[0]
    assert state.nfev == len(evaluated) - 1


def sphere(rows: Any) -> Any:
    return (rows**2).sum(1)


@cache
def median_of_five(fun: Any, method: str) -> float:
    runs = [
        zoo.minimize(fun, np.ones(10), method=method, budget=2000, rng=seed, vectorized=True).fun
        for seed in range(5)
    ]
    return float(np.median(runs))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fun", [sphere, ellipsoid])
def test_clearly_beats_random_search(name: str, fun: Any) -> None:
    assert median_of_five(fun, name) < 0.05 * median_of_five(fun, "random")


@pytest.mark.parametrize("factor", [1e-200, 1e-6, 1e6, 1e200])
@pytest.mark.parametrize("name", NAMES)
def test_scale_of_values_does_not_matter(name: str, factor: float) -> None:
    plain, scaled = (
        zoo.minimize(
            lambda r, a=a: a * ellipsoid(r), np.ones(6), method=name, budget=400, rng=0, vectorized=True
        )
        for a in (1.0, factor)
    )
    assert scaled.fun == pytest.approx(factor * plain.fun, rel=0.5, abs=factor * 1e-20)


@all_aliases
def test_powers_of_two_change_no_bit(alias: Any) -> None:
    plain, scaled = (states(alias(), lambda r, a=a: a * bowl(r), 30)[-1] for a in (1.0, 2.0**30))
    assert plain.x.tobytes() == scaled.x.tobytes()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@all_aliases
def test_scale_of_x_does_not_matter(alias: Any, scale: float) -> None:
    """Told how wide the problem is, the search is the same but for rounding."""
    plain = states(alias(), bowl, 10)
    wide = states(alias(), lambda r: bowl(r / scale), 10, START * scale, scale=scale)
    for a, b in zip(plain, wide, strict=True):
        np.testing.assert_allclose(b.x / scale, a.x, rtol=1e-5, atol=1e-7)


@all_aliases
def test_scale_per_coordinate(alias: Any) -> None:
    """A badly scaled problem whose scales are known is as easy as a well scaled one."""
    scale = np.array([1e-2, 1.0, 1e3])
    method, round_bowl = alias(), lambda r: ((r / scale) ** 2).sum(1)
    found = states(method, round_bowl, 120, scale * START, scale=scale)[-1]
    assert round_bowl(found.x[None]) < 1e-2 * round_bowl(scale[None] * START)
    free = states(alias(learning_rate=0.05), round_bowl, 60, scale * START, scale=scale)[-1]
    assert np.isfinite(free.x).all()


@all_aliases
@pytest.mark.parametrize(
    "like", [Like(k, d) for k in ("numpy", "torch") for d in ("float32", "float64")], ids=str
)
def test_kinds_of_arrays(alias: Any, like: Like) -> None:
    method = alias()
    found = states(method, bowl, 60, like.asarray(START))
    x = method.recommend(found[-1])
    assert Like.of(x) == like
    assert bowl(to_numpy(x).astype(np.float64)[None]) < 0.05 * bowl(START[None])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str) -> None:
    like = Like("torch", dtype)
    method = CoordinateDescent()
    bounds = Bounds(np.full(3, -2.1), np.full(3, 1.1))
    state = method.init(like.asarray(START), key=Key(0), bounds=bounds)
    for _ in range(40):
        rows, state = told(method, state, bowl)
        assert Like.of(rows) == like
        assert bounds.contains(rows)
    x = method.recommend(state)
    assert Like.of(x) == like
    assert bowl(to_numpy(x).astype(np.float64)[None]) < 0.05 * bowl(START[None])


@all_aliases
def test_finds_a_corner(alias: Any) -> None:
    """The optimum of the box is where two walls meet; the third coordinate is free."""
    bounds = Bounds(np.array([0.25, -3.0, -1.0]), np.array([2.0, -1.0, 1.0]))
    method = alias()
    state = method.init(START, key=Key(0), bounds=bounds)
    for _ in range(150):
        rows, state = told(method, state, bowl)
        assert bounds.contains(rows)
    np.testing.assert_allclose(method.recommend(state), [0.25, -1.0, 0.0], atol=0.05)


@all_aliases
def test_textbook_stays_in_bounds(alias: Any) -> None:
    bounds = Bounds(np.array([0.25, -3.0, -1.0]), np.array([2.0, -1.0, 1.0]))
    method = alias(learning_rate=0.5)
    state = method.init(START, key=Key(0), bounds=bounds)
    for _ in range(30):
        rows, state = told(method, state, bowl)
        assert bounds.contains(rows)
        assert bounds.contains(method.recommend(state))


@all_aliases
@pytest.mark.parametrize("rate", ["auto", 0.01])
@pytest.mark.parametrize("budget", [1, 2, 3, 5, 9, 23, 24, 25, 26, 57])
def test_budget_is_used_and_kept(alias: Any, rate: Any, budget: int) -> None:
    """The scale-free search uses all of it; the textbook ends when not even one direction fits."""
    method = alias(learning_rate=rate)
    state, used = method.init(START, key=Key(0), budget=budget), 0
    least = 1 if rate == "auto" else method.estimator.queries(1)
    while used + len(method.ask(state)) <= budget and used < budget:
        rows, state = told(method, state, bowl)
        used += len(rows)
    assert state.nfev == used
    assert used == budget if rate == "auto" else budget - used < least


@pytest.mark.parametrize("noise", ["common", "independent"])
@pytest.mark.parametrize("name", NAMES)
def test_noise(name: str, noise: str) -> None:
    """From a value of 10 under a deviation of .1; common noise, which pairs share, does not matter at all."""

    def noisy(rows: Any) -> Any:
        errors = np.random.standard_normal(len(rows) if noise == "independent" else 1)
        return sphere(rows) + 0.1 * errors

    found = [
        (
            zoo.minimize(noisy, np.ones(10), method=name, budget=1500, rng=s, vectorized=True, noise=True).x
            ** 2
        ).sum()
        for s in range(3)
    ]
    assert np.median(found) < (1e-3 if noise == "common" else 1.0)


def test_failures_shorten_the_step_and_move_nothing() -> None:
    method = ZOAdam()
    first, *_ = found = states(method, lambda r: np.full(len(r), np.nan), 5)
    for before, after in itertools.pairwise(found):
        assert after.x.tobytes() == START.tobytes()
        assert after.step_size == before.step_size / 2
        assert digest(after.update) == digest(first.update)
    assert method.finished(found[-1]) is None
    textbook = states(ZOAdam(learning_rate=0.1), lambda r: np.full(len(r), np.nan), 5)
    assert textbook[-1].x.tobytes() == START.tobytes()
    assert digest(textbook[-1].update) == digest(textbook[0].update)


def test_a_failing_half_space_is_left_alone() -> None:
    fun = lambda r: np.where(r[:, 0] < 0.5, np.nan, bowl(r))  # noqa: E731 - shorter than a function
    for alias in ALIASES:
        state = states(alias(), fun, 120)[-1]
        assert state.x[0] >= 0.5
        assert bowl(state.x[None]) < 0.6 * bowl(START[None])


def test_ends_when_steps_are_lost_in_rounding() -> None:
    method = CoordinateDescent()
    state, reason = method.init(START, key=Key(0)), None
    for _ in range(2000):
        _, state = told(method, state, lambda r: bowl(r - 1 / 3))
        reason = method.finished(state)
        if reason:
            break
    assert reason == "the step size is lost in the rounding of x"
    np.testing.assert_allclose(state.x, 1 / 3, atol=1e-7)


def test_no_end_is_no_overflow() -> None:
    for alias in ALIASES:
        state = states(alias(), lambda r: -r.sum(1), 400)[-1]
        assert np.isfinite(state.x).all()


def test_diagnostics() -> None:
    method = ZOSGD()
    known = method.diagnostics(states(method, bowl, 3)[-1])
    assert set(known) == {"current_value", "smoothing", "step_size", "noise"}
    textbook = ZOSGD(learning_rate=0.1, smoothing=0.1)
    assert set(textbook.diagnostics(states(textbook, bowl, 3)[-1])) == {"current_value", "smoothing"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Descent(learning_rate="fast"), "`learning_rate` must be one of 'auto'"),
        (lambda: Descent(learning_rate=0.0), "`learning_rate` must be a finite number above 0"),
        (lambda: Descent(learning_rate=0.1, decay=1.0), "`decay` must be at least 0 and below 1"),
        (lambda: Descent(learning_rate=0.1, delay=-1.0), "`delay` must be a finite number of at least 0"),
        (lambda: Descent(decay=0.5), "`decay` and `delay` need a number as `learning_rate`"),
        (lambda: SPSA(delay=3), "`decay` and `delay` need a number as `learning_rate`"),
        (lambda: ZOSGD(momentum=1.0), "`momentum` must be at least 0 and below 1"),
        (lambda: ZOSGD(max_norm=1.0), "`max_norm` needs a number as `learning_rate`"),
        (lambda: ZOSGD(max_norm=0.0, learning_rate=1.0), "`max_norm` must be a finite number above 0"),
        (lambda: ZOAdam(beta1=1.0), "`beta1` must be at least 0 and below 1"),
        (lambda: CoordinateDescent(order="none"), "`order` must be one of 'random', 'cyclic'"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_aliases_are_compositions() -> None:
    assert ZOSGD(momentum=0.0) == Descent(FiniteDifference("sphere", 8), Chain())
    assert ZOSGD().update == Chain((Momentum(0.9),))
    assert CoordinateDescent().estimator == FiniteDifference(Axes())
    assert RandomDescent().estimator == FiniteDifference("orthonormal", 8)
    assert SPSA().estimator == FiniteDifference("rademacher", 1)


@pytest.mark.parametrize(
    "directions", ["guided", "subspace", "gaussian", "rademacher", "orthonormal", "axes"]
)
@pytest.mark.parametrize("stencil", ["forward", "central"])
def test_every_law_descends(directions: str, stencil: str) -> None:
    result = zoo.minimize(
        ellipsoid,
        np.ones(8),
        method="zo-sgd",
        budget=1500,
        rng=0,
        vectorized=True,
        options={"directions": directions, "stencil": stencil, "num_directions": 4},
    )
    assert result.fun < 0.01 * ellipsoid(np.ones((1, 8)))
