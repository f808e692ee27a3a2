"""LM-MA-ES: steps against the paper's loops, the transformation, chunks, failures, ends."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.zoo.methods.strategies import NAN, after, bowl, rows_of, told
from zoo.core.bounds import Bounds
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Known
from zoo.methods import es_noise, lm_ma_es
from zoo.methods.lm_ma_es import LMMAES, Transformation, constants, longest, renewed, transformation
from zoo.problems import sphere

FULL = [Like(kind, dtype) for kind in ("numpy", "torch") for dtype in ("float32", "float64")]
SCALE = np.array([1.0, 0.5, 2.0, 1.0, 4.0, 1.0])


def start(method: LMMAES, like: Like = FULL[1], dim: int = 6, **options: Any) -> Any:
    return method.init(like.asarray(np.linspace(-1, 1, dim)), key=Key(0), **options)


def vectors(count: int, dim: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.asarray(Key(seed).fold("vectors").normal(0, count, dim))


# The transformation.


def one_by_one(
    z: np.ndarray[Any, Any], m: np.ndarray[Any, Any], c: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """The paper's loop over the vectors."""
    d = z.copy()
    for cj, mj in zip(c, m, strict=True):
        d = (1 - cj) * d + cj * np.outer(d @ mj, mj)
    return d


def test_no_vectors_change_nothing() -> None:
    z = vectors(4, 5)
    identity = transformation(np.zeros((0, 0)), np.zeros(0))
    assert identity.applied(z.copy(), np.zeros((3, 5))).tobytes() == z.tobytes()
    assert longest(identity, np.zeros((3, 3))) == 1


@pytest.mark.parametrize("like", FULL, ids=str)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_transformation_is_the_product_of_all_stretches(like: Like, count: int) -> None:
    m, z = vectors(count, 5, 1), vectors(9, 5, 2)
    c = 0.5 / 1.5 ** np.arange(count)
    found = transformation(m @ m.T, c)
    matrix = np.eye(5)
    for cj, mj in zip(c, m, strict=True):
        matrix = ((1 - cj) * np.eye(5) + cj * np.outer(mj, mj)) @ matrix
    np.testing.assert_allclose(
        found.shrink * (np.eye(5) + m.T @ found.mixing @ m), matrix, rtol=0, atol=1e-13 * matrix.max()
    )
    expected = one_by_one(z, m, c)
    np.testing.assert_allclose(z @ matrix.T, expected, rtol=0, atol=1e-13 * expected.max())
    applied = found.applied(like.asarray(z.copy()), like.asarray(m))
    assert Like.of(applied) == like
    np.testing.assert_allclose(
        to_numpy(applied), expected, rtol=0, atol=50 * like.epsilon * np.abs(expected).max()
    )
    assert longest(found, m @ m.T) == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=1e-9)


def test_vectors_of_the_usual_length_leave_steps_as_long_as_they_are() -> None:
    """|m|^2 = dim and c = 1 / dim: along m twice as long, less 1 / dim everywhere."""
    m = np.array([[2.0, 0.0, 0.0, 0.0]])
    found = transformation(m @ m.T, np.array([0.25]))
    along = found.applied(np.eye(4), m)
    np.testing.assert_allclose(along, np.diag([1.75, 0.75, 0.75, 0.75]))


def test_longest_says_when_numbers_do_not_reach() -> None:
    huge = np.full((2, 2), 1e200)
    assert math.isnan(longest(Transformation(np.array([[1.0, 0.0], [1e200, 1.0]]), 1.0), huge))


@pytest.mark.parametrize("by_row", [2**15, 0])
@pytest.mark.parametrize("like", FULL, ids=str)
def test_vectors_are_renewed_at_their_rates(like: Like, by_row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_ma_es, "_BY_ROW", by_row)
    m, z, rates = vectors(3, 5), vectors(1, 5, 1)[0], np.array([1.0, 0.25, 0.0625])
    new = renewed(like.asarray(m), rates, 3.0, like.asarray(z))
    assert Like.of(new) == like
    expected = (1 - rates)[:, None] * m + np.sqrt(3 * rates * (2 - rates))[:, None] * z
    np.testing.assert_allclose(to_numpy(new), expected, rtol=0, atol=10 * like.epsilon)


# The constants.


def test_constants_are_the_papers() -> None:
    c = constants(1000, 24, 24)
    w = np.log(12.5) - np.log(np.arange(1, 13))
    np.testing.assert_allclose(c.weights[:12], w / w.sum())
    assert (c.weights[12:] == 0).all()
    assert c.mass == pytest.approx(1 / ((w / w.sum()) ** 2).sum())
    assert c.path_sigma == pytest.approx(2 * 24 / 1000)
    np.testing.assert_allclose(c.stretches, [1 / (1.5**j * 1000) for j in range(24)])
    np.testing.assert_allclose(c.rates, [24 / (4**j * 1000) for j in range(24)])


@pytest.mark.parametrize(("dim", "size"), [(1, 4), (2, 2), (10, 1000), (3, 7)])
def test_constants_stay_rates_for_few_variables_and_many_candidates(dim: int, size: int) -> None:
    c = constants(dim, size, 8)
    assert 0 < c.path_sigma <= 1
    assert (c.stretches > 0).all()
    assert (c.stretches <= 0.5).all()
    assert (c.rates > 0).all()
    assert (c.rates <= 1).all()
    assert c.weights.sum() == pytest.approx(1)


# Steps.


@pytest.mark.parametrize("held", [2**20, 0], ids=["held", "drawn again"])
@pytest.mark.parametrize("table", [None, 5000])
@pytest.mark.parametrize("like", FULL, ids=str)
def test_a_step_is_the_papers(
    like: Like, table: int | None, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(es_noise, "_HELD", held)
    method = LMMAES(10, memory=3, sigma=0.5, noise_table=table)
    state = start(method, like, scale=SCALE)
    c = constants(6, 10, 3)
    close: dict[str, Any] = {"rtol": 0, "atol": 300 * like.epsilon}
    m, path = np.zeros((3, 6)), np.zeros(6)
    for t in range(6):
        x, mean, sigma = rows_of(method, state), to_numpy(state.mean), state.sigma
        d = (x - mean) / (sigma * 0.5 * SCALE)
        # Undo the stretches to find the noise, and do them again one by one.
        active = min(t, 3)
        matrix = one_by_one(np.eye(6), m[:active], c.stretches[:active])
        z = np.linalg.solve(matrix.T, d.T).T
        values = bowl(x)
        values[4] = NAN
        order = np.argsort(values)[:5]
        state = told(method, state, values)
        w = c.weights[:5]
        zw = w @ z[order]
        path = (1 - c.path_sigma) * path + math.sqrt(c.mass * c.path_sigma * (2 - c.path_sigma)) * zw
        m = np.array(
            [(1 - r) * mj + math.sqrt(c.mass * r * (2 - r)) * zw for r, mj in zip(c.rates, m, strict=True)]
        )
        assert Like.of(state.mean) == Like.of(state.memory) == like
        np.testing.assert_allclose(to_numpy(state.mean), mean + sigma * 0.5 * SCALE * (w @ d[order]), **close)
        np.testing.assert_allclose(to_numpy(state.path), path, **close)
        np.testing.assert_allclose(to_numpy(state.memory), m, **close)
        np.testing.assert_allclose(state.gram, m @ m.T, rtol=0, atol=3000 * like.epsilon)
        assert state.sigma == pytest.approx(
            sigma * math.exp(c.path_sigma / 2 * (path @ path / 6 - 1)), rel=1000 * like.epsilon
        )


def test_first_candidates_are_the_noise_itself() -> None:
    method = LMMAES(sigma=1.0)
    state = start(method)
    noise = method._noise(state, 9)
    np.testing.assert_allclose(rows_of(method, state) - to_numpy(state.mean), noise.held(), atol=1e-15)


@pytest.mark.parametrize("held", [2**20, 0], ids=["held", "drawn again"])
@pytest.mark.parametrize("dim", [6, 70_001])
def test_rows_are_the_same_in_any_slice_and_block(
    dim: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(es_noise, "_HELD", held)
    monkeypatch.setattr(lm_ma_es, "_BLOCK", 1)  # eight rows at a time
    like = Like("torch", "float32") if dim > 6 else FULL[1]
    method = LMMAES(19, memory=3)
    state = after(method, start(method, like, dim), 2)
    asked = method.ask(state)
    whole = to_numpy(asked.rows(0, 19))
    for first, last in ((0, 1), (7, 9), (3, 19), (8, 16), (18, 19)):
        lm_ma_es.clear_cache()
        assert to_numpy(asked.rows(first, last)).tobytes() == whole[first:last].tobytes()
    one_by_one = np.concatenate([to_numpy(asked.rows(i, i + 1)) for i in range(19)])
    assert one_by_one.tobytes() == whole.tobytes()


def test_large_populations_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(es_noise, "_HELD", 0)
    monkeypatch.setattr(lm_ma_es, "_BLOCK", 1)
    method = LMMAES(64)
    state = after(method, start(method), 1)
    asked = method.ask(state)
    asked.rows(0, 64)
    assert lm_ma_es._last is not None
    assert len(lm_ma_es._last[3]) == 8


# The search.


@pytest.mark.parametrize("like", [FULL[1], FULL[2]], ids=str)
def test_solves_the_sphere(like: Like) -> None:
    method, dim = LMMAES(), 100
    state = method.init(like.asarray(np.ones(dim)), key=Key(0))
    while state.nfev < 8000:
        state = told(method, state, sphere(rows_of(method, state)))
    assert sphere(to_numpy(state.mean)) < 1e-6


def test_learns_a_long_axis() -> None:
    """It takes 8100 evaluations; with a single vector, which cannot learn so slowly, more than 200,000."""
    method = LMMAES()
    state = method.init(np.ones(20), key=Key(0))
    best = math.inf
    while best > 1e-4:
        x = rows_of(method, state)
        values = x[:, 0] ** 2 + 1e3 * (x[:, 1:] ** 2).sum(1)
        state, best = told(method, state, values), min(best, values.min())
        assert state.nfev < 12_000
    assert method.diagnostics(state)["stretch"] > 20


def test_known_points_are_where_it_begins() -> None:
    known = Known([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], [5.0, 7.0])
    state = LMMAES().init(np.zeros(3), key=Key(0), known=known)
    assert state.mean.tolist() == [1.0, 2.0, 3.0]
    assert state.spread == 1.0
    many = Known(vectors(12, 3) * [1.0, 2.0, 4.0], np.arange(12.0))
    state = LMMAES().init(np.zeros(3), key=Key(0), known=many)
    points = many.points[:6]
    np.testing.assert_allclose(state.spread, np.sqrt(((points - points[0]) ** 2).mean(0)))


# Failures and limits.


def test_failed_rows_have_no_vote() -> None:
    method = LMMAES(8)
    state = after(method, start(method), 4)
    values = np.arange(8.0)
    values[[1, 3, 5, 6, 7]] = NAN
    w = constants(6, 8, len(state.memory)).weights
    d = rows_of(method, state) - to_numpy(state.mean)
    found = told(method, state, values)
    np.testing.assert_allclose(found.mean - state.mean, w[0] * d[0] + w[1] * d[2] + w[2] * d[4], atol=1e-14)


def test_a_step_that_fails_altogether() -> None:
    method = LMMAES(8)
    state = after(method, start(method), 4)
    failed = told(method, state, np.full(8, NAN))
    assert failed.sigma == 0.9 * state.sigma
    for name in ("mean", "path", "memory", "gram"):
        assert getattr(failed, name).tobytes() == getattr(state, name).tobytes()
    assert failed.nfev == state.nfev + 8
    for _ in range(4000):
        failed = told(method, failed, np.full(8, NAN))
    assert failed.sigma > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [4, 200, 2000])
def test_no_run_leaves_the_numbers(size: int, dtype: str) -> None:
    """On a slope every step is in one direction, and every vector the same."""
    method = LMMAES(size, tolx=0)
    state = start(method, Like("numpy", dtype), dim=3)
    for _ in range(150):
        x = rows_of(method, state)
        assert np.isfinite(x).all()
        # Flattened far out, so that the search may go no further than numbers do.
        state = told(method, state, np.arctan(x.sum(1) / 1e3))
        assert math.isfinite(state.sigma)
        assert np.isfinite(to_numpy(state.memory)).all()
        if state.sigma > 1e15:
            break


def test_vectors_that_stretch_too_far_are_forgotten() -> None:
    method = LMMAES(8, memory=4)
    state = after(method, start(method), 6)
    tree, arrays = freeze(state)
    arrays["state.memory"] = arrays["state.memory"] * 1e8
    arrays["state.gram"] = arrays["state.gram"] * 1e16
    mended = after(method, thaw(tree, arrays), 1)
    assert (mended.memory == 0).all()
    assert (mended.gram == 0).all()
    assert np.isfinite(mended.mean).all()


def test_stays_in_the_box() -> None:
    box = Bounds(np.zeros(6), np.full(6, 0.2))
    method = LMMAES()
    state = method.init(np.full(6, 0.1, np.float32), key=Key(0), bounds=box, scale=0.05)
    state = after(method, state, 100)
    assert box.contains(method.recommend(state))
    np.testing.assert_allclose(method.recommend(state), 0.2, atol=1e-2)


def test_last_step_is_cut_to_the_budget() -> None:
    method = LMMAES()
    state = start(method, budget=22)
    sizes = []
    while not method.finished(state):
        sizes.append(len(method.ask(state)))
        state = after(method, state, 1)
    assert sizes == [9, 9, 4]
    assert state.nfev == 22


def test_ends_when_steps_are_short() -> None:
    method = LMMAES(tolx=1e-3)
    state = method.init(np.ones(10), key=Key(0))
    while (reason := method.finished(state)) is None:
        state = told(method, state, sphere(rows_of(method, state)))
        assert state.nfev < 20_000
    assert reason.startswith("tolx")
    assert float(method._spread(state).max()) < 1e-3 * state.spread


def test_every_state_survives_a_checkpoint() -> None:
    method = LMMAES(8, memory=3)
    state = start(method)
    for _ in range(6):
        lm_ma_es.clear_cache()
        es_noise.clear_cache()
        revived = thaw(*freeze(state))
        assert digest(revived) == digest(state)
        assert rows_of(method, revived).tobytes() == rows_of(method, state).tobytes()
        state = after(method, state, 1)
        assert digest(after(method, revived, 1)) == digest(state)
