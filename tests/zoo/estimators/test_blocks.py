"""Laws by blocks of coordinates, and directions given by the part that is not 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.zoo.estimators.test_finite_difference import (
    GRADIENT,
    LINEAR,
    MATRIX,
    X,
    estimated,
    linear,
    quadratic,
)
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations
from zoo.estimators.directions import (
    LAWS,
    Axes,
    Blocks,
    Directions,
    Draw,
    Gaussian,
    Guided,
    Masked,
    Orthonormal,
    Subspace,
    as_directions,
)
from zoo.estimators.finite_difference import FiniteDifference
from zoo.methods.descent import Descent

KINDS = [Like("numpy", "float64"), Like("torch", "float32"), Like("torch", "float64")]
kinds = pytest.mark.parametrize("like", KINDS, ids=lambda like: f"{like.kind}-{like.dtype}")


def drawn(
    law: Directions, count: int, dim: int, *, step: int = 0, like: Like = KINDS[0], memory: Any = None
) -> Any:
    draw = Draw(Key(0), step, count, dim, like)
    return law.draw(draw, 0, count, memory, law.plan(draw, memory))


def moving(law: Directions, steps: int, dim: int, count: int = 1) -> list[list[int]]:
    """Return which coordinates move in each step."""
    return [np.flatnonzero(abs(drawn(law, count, dim, step=step)).sum(0)).tolist() for step in range(steps)]


@kinds
@pytest.mark.parametrize("name", [*LAWS, "masked", "masked axes", "layers", "masked blocks"])
def test_parts_are_rows_without_their_zeros(name: str, like: Like) -> None:
    dim, count = 100, 6
    odd = np.arange(dim) % 2 == 1
    laws: dict[str, Directions] = {
        "masked": Masked(Gaussian(), odd),
        "masked axes": Masked(Axes(), odd),
        "layers": Blocks((40, 50, 10), ("sphere", "axes", "orthonormal"), active=None),
        "masked blocks": Masked(Blocks(20, active=None), odd),
    }
    law = laws[name] if name in laws else as_directions(name)
    draw = Draw(Key(1), 3, count, dim, like)
    plan = law.plan(draw, None)
    rows = to_numpy(law.draw(draw, 0, count, None, plan)).copy()
    for index in range(count):
        start, part = law.part(draw, index, None, plan)
        row = np.zeros(dim, like.dtype)
        row[start : start + len(part)] = to_numpy(part)
        assert row.tobytes() == rows[index].tobytes()
        part *= 0  # it is the caller's
    assert to_numpy(law.draw(draw, 0, count, None, plan)).tobytes() == rows.tobytes()
    if name in ("axes", "masked axes"):
        assert len(law.part(draw, 0, None, plan)[1]) == 1
    if name == "blocks":
        assert len(law.part(draw, 0, None, plan)[1]) == 36  # the second of 64 and 36


def test_blocks_take_turns() -> None:
    assert moving(Blocks((2, 1, 3)), 4, 6) == [[0, 1], [2], [3, 4, 5], [0, 1]]
    assert moving(Blocks(4), 3, 10, 3) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert moving(Blocks((2, 1, 3), active=2), 3, 6, 2) == [[0, 1, 2], [0, 1, 3, 4, 5], [2, 3, 4, 5]]
    assert moving(Blocks((2, 1, 3), active=None), 2, 6, 3) == [[0, 1, 2, 3, 4, 5]] * 2


def test_fewer_directions_than_active_blocks_take_turns() -> None:
    assert moving(Blocks((2, 1, 3), active=None), 4, 6, 1) == [[0, 1], [2], [3, 4, 5], [0, 1]]
    assert moving(Blocks((2, 1, 3), active=None), 3, 6, 2) == [[0, 1, 2], [0, 1, 3, 4, 5], [2, 3, 4, 5]]
    assert moving(Blocks((1, 1, 1, 1), active=2), 4, 4, 1) == [[0], [1], [2], [3]]
    law = Blocks((2, 1, 3), active=None, order="random")
    draws = [Draw(Key(0).fold(step), step, 1, 6, KINDS[0]) for step in range(30)]
    starts = {law.part(draw, 0, None, law.plan(draw, None))[0] for draw in draws}
    assert starts == {0, 2, 3}


def test_sizes_may_be_numbers_of_numpy() -> None:
    assert moving(Blocks(np.int64(4)), 3, 10, 3) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_blocks_at_random() -> None:
    """Each of 5 is active in 2 of 5 steps: a binomial count, within 6 deviations."""
    law, n = Blocks((1,) * 5, order="random", active=2), 1000
    draws = [Draw(Key(0).fold(step), step, 2, 5, KINDS[0]) for step in range(n)]
    rows = [abs(law.draw(draw, 0, 2, None, law.plan(draw, None))) > 0 for draw in draws]
    assert all((row.sum(0) <= 1).all() and row.sum() == 2 for row in rows)
    counts = np.sum(rows, (0, 1))
    assert np.abs(counts - n * 2 / 5).max() < 6 * np.sqrt(n * 2 / 5 * 3 / 5)


def test_blocks_draw_of_their_own() -> None:
    rows = drawn(Blocks((3, 3), active=None), 4, 6)
    assert (rows[:2, 3:] == 0).all()
    assert (rows[2:, :3] == 0).all()
    assert (rows[:2, :3] != rows[2:, 3:]).all()


def test_directions_are_dealt_out() -> None:
    """Evenly, up to what a block can take; the first blocks have one more."""

    def counts(law: Blocks, count: int, dim: int) -> list[int]:
        draw = Draw(Key(0), 0, count, dim, KINDS[0])
        return np.bincount(law.groups(draw, law.plan(draw, None))[0]).tolist()

    assert counts(Blocks((5, 5, 5), active=None), 7, 15) == [3, 2, 2]
    assert counts(Blocks((1, 2, 9), "axes", active=None), 9, 12) == [1, 2, 6]
    assert counts(Blocks((1, 2, 9), "axes", active=None), 99, 12) == [1, 2, 9]
    assert counts(Blocks((5, 5, 5), active=None), 2, 15) == [1, 1]
    assert counts(Blocks((5, 5), active=None), 4, 10) == [2, 2]
    assert counts(Blocks((1, 5, 5), "axes", active=None), 8, 11) == [1, 4, 3]
    draw = Draw(Key(0), 1, 99, 12, KINDS[0])
    assert Blocks((1, 2, 9), "axes").available(draw) == 2
    assert Blocks((1, 2, 9), "axes").most(12) == 9
    assert Blocks((1, 2, 9), ("axes", "gaussian", "axes")).most(12) is None
    assert Blocks((1, 2, 9), active=2).size(12) == 11
    assert Blocks((4, 16), active=None).norm(20) == pytest.approx(np.sqrt(10))


@pytest.mark.parametrize("stencil", ["forward", "central"])
@pytest.mark.parametrize("laws", ["orthonormal", "axes", ("axes", "orthonormal", "axes")])
def test_all_blocks_give_the_gradient_of_a_linear_function(laws: Any, stencil: str) -> None:
    law = Blocks((2, 3, 1), laws, active=None)
    _, estimate = estimated(FiniteDifference(law, None, 0.1, stencil), linear)
    np.testing.assert_allclose(estimate.gradient, LINEAR, rtol=1e-9, atol=1e-9)
    assert estimate.num_valid == 6


@pytest.mark.parametrize("step", range(4))
def test_a_block_has_its_own_gradient(step: int) -> None:
    law = Blocks((2, 3, 1), "axes")
    _, estimate = estimated(FiniteDifference(law, None, 0.1, "forward"), quadratic, step=step)
    expected = GRADIENT + 0.05 * np.diag(MATRIX)
    start, stop = [(0, 2), (2, 5), (5, 6)][step % 3]
    np.testing.assert_allclose(estimate.gradient[start:stop], expected[start:stop], rtol=1e-9)
    assert np.count_nonzero(estimate.gradient) == stop - start
    assert estimate.queries == 1 + stop - start


def test_second_moment_by_layer() -> None:
    """Of n directions for a block of m coordinates (m + n + 1) / n: within 6 % over 4000 steps."""
    law, total = Blocks((4, 2), active=None), np.zeros(2)
    estimator = FiniteDifference(law, 4, 0.1)
    for step in range(4000):
        _, estimate = estimated(estimator, linear, step=step)
        total += (estimate.gradient[:4] ** 2).sum(), (estimate.gradient[4:] ** 2).sum()
    expected = np.array([(LINEAR[:4] ** 2).sum() * 7 / 2, (LINEAR[4:] ** 2).sum() * 5 / 2])
    np.testing.assert_allclose(total / 4000, expected, rtol=0.06)


def test_a_failure_is_its_own_blocks_alone() -> None:
    """What is left of a block counts for more; other blocks do not notice."""
    estimator = FiniteDifference(Blocks((2, 4), Axes("cyclic"), active=None), None, 0.1)
    values = quadratic(estimator.ask(estimator.init(X), X, Key(0), 0).rows(0, 12))
    values[1] = np.nan
    _, estimate = estimated(estimator, None, values=values)
    expected = GRADIENT.copy()
    expected[0], expected[1] = 0, 2 * GRADIENT[1]
    np.testing.assert_allclose(estimate.gradient, expected, rtol=1e-9, atol=1e-9)
    assert estimate.num_valid == 5
    values[3] = np.inf
    _, estimate = estimated(estimator, None, values=values)
    expected[1] = 0
    np.testing.assert_allclose(estimate.gradient, expected, rtol=1e-9, atol=1e-9)


@kinds
def test_blocks_remember(like: Like) -> None:
    """Each learns from the steps in which it moved, and its memory goes through files."""
    law = Blocks((4, 2), (Guided(history=2), Subspace(history=3)))
    estimator, x = FiniteDifference(law, 2, 0.1), like.asarray(X)
    state = estimator.init(x)
    assert FiniteDifference(Blocks((4, 2)), 2, 0.1).init(x).memory is None
    for step in range(6):
        again = thaw(*freeze(state))
        after, one = estimated(estimator, quadratic, x, state=state, step=step)
        other, two = estimated(estimator, quadratic, x, state=again, step=step)
        assert digest(after) == digest(other)
        assert to_numpy(one.gradient).tobytes() == to_numpy(two.gradient).tobytes()
        state = after
    guided, subspace = state.memory
    assert len(guided.rows) == 2
    assert len(subspace[0].rows) == 0  # three points make a decomposition
    assert law.shipped(state.memory)[0] is guided.basis


@pytest.mark.parametrize("rate", ["auto", 0.02])
def test_descent_by_blocks(rate: Any) -> None:
    """Steps have as many rows as their block takes, also towards the end of a budget."""
    method = Descent(FiniteDifference(Blocks((2, 3, 1), "axes"), None, 1e-3), learning_rate=rate)
    state = method.init(X, key=Key(0), budget=301)
    used = 0
    while used + len(asked := method.ask(state)) <= 301:
        state = method.tell(state, Evaluations(quadratic(asked.rows(0, len(asked)))))
        used += len(asked)
    assert used > 290
    least = -LINEAR @ np.linalg.solve(MATRIX, LINEAR) / 2
    start, found = quadratic(X[None])[0], quadratic(method.recommend(state)[None])[0]
    assert found - least < 0.7 * (start - least)


def test_masked_blocks() -> None:
    mask = np.array([True, False, True, True, False, True])
    law = Masked(Blocks((1, 3), "axes"), mask)
    for step, chosen in enumerate([[0], [2, 3, 5]]):
        _, estimate = estimated(FiniteDifference(law, None, 0.1), quadratic, step=step)
        assert np.flatnonzero(estimate.gradient).tolist() == chosen
        np.testing.assert_allclose(estimate.gradient[chosen], GRADIENT[chosen], rtol=1e-9)


@kinds
def test_orthonormal_directions_have_the_length_to_the_last_digits(like: Like) -> None:
    rows = to_numpy(drawn(Orthonormal(), 3, 7, like=like)).astype(np.float64)
    np.testing.assert_allclose((rows**2).sum(1), 7, rtol=8 * like.epsilon)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blocks(()), "`sizes` must name one block at least"),
        (lambda: Blocks((3, 0)), "`sizes` must be at least 1, got 0"),
        (lambda: Blocks(0), "`sizes` must be at least 1, got 0"),
        (lambda: Blocks((1, 2), "gausian"), "Did you mean 'gaussian'"),
        (lambda: Blocks((1, 2), ("axes",)), "`law` must be one, or one for each of 2, got 1"),
        (lambda: Blocks(4, ("axes", "axes")), "`law` must be one, or one for each of as many `sizes`, got 2"),
        (lambda: Blocks((1, 2), active=3), "`active` must be at most the number of blocks, 2, got 3"),
        (lambda: Blocks((1, 2), active=0), "`active` must be at least 1, got 0"),
        (lambda: Blocks((1, 2), order="all"), "`order` must be one of 'cyclic', 'random'"),
        (
            lambda: Blocks((1, 2)).init(np.zeros(4)),
            "`sizes` must add up to the number of coordinates, 4, got 3",
        ),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
