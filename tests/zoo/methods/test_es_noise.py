"""Noise made again, sums over it, and candidates made of it: the same whether held, drawn, or read."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from zoo.core.bounds import Bounds
from zoo.core.device import NUMPY, Like, to_numpy
from zoo.core.rng import Key, NoiseTable
from zoo.methods import es_noise
from zoo.methods.es_base import without_halves
from zoo.methods.es_noise import Noise, Sampled, moments

FULL = [Like(kind, dtype) for kind in ("numpy", "torch") for dtype in ("float32", "float64")]
GPU = pytest.param(Like("torch", "float32", "cuda:0"), marks=pytest.mark.gpu)
DIMS = (1, 7, 100, 3000, 40_000, 70_001)
NAN = np.nan


def noise_of(like: Like, dim: int, count: int = 6, *, table: bool = False) -> Noise:
    return Noise(Key(2), 5, count, dim, like, NoiseTable(1, 3 * dim + 50) if table else None)


def candidates(like: Like, dim: int, *, mirrored: bool, table: bool = False, **options: Any) -> Sampled:
    noise = noise_of(options.get("work", like), dim, table=table)
    work = noise.like
    mean = work.asarray(np.linspace(-1, 1, dim))
    spread = work.asarray(np.linspace(0.5, 2, dim))
    count = options.get("count", 12 if mirrored else 6)
    return Sampled(
        mean,
        options.get("spread", spread),
        noise,
        count,
        mirrored=mirrored,
        bounds=options.get("bounds"),
        boundary="smooth",
        like=like,
    )


@pytest.fixture
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(es_noise, "_HELD", 0)
    es_noise.clear_cache()


def dense(noise: Noise) -> np.ndarray[Any, Any]:
    whole = np.empty((noise.count, noise.dim))
    for rows, columns, z in noise.blocks(0, noise.count):
        whole[rows, columns] = to_numpy(z)
    return whole


@pytest.mark.parametrize("table", [False, True], ids=["drawn", "table"])
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("like", [*FULL, GPU], ids=str)
def test_sums_are_those_of_the_dense_matrix(
    like: Like, dim: int, table: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = noise_of(like, dim, table=table)
    z = to_numpy(noise.held()).astype(np.float64)
    np.testing.assert_array_equal(dense(noise), z)
    a, b = np.array([0.5, -1.0, 0.0, 2.0, -0.25, 1.0]), np.array([-0.5, 0.25, 1.0, 0.0, 2.0, -1.0])
    for held in (2**20, 0):
        monkeypatch.setattr(es_noise, "_HELD", held)
        first, second = moments(noise, a, b)
        assert second is not None
        assert Like.of(first) == Like.of(second) == like
        close = {"rtol": 0, "atol": 200 * like.epsilon}
        np.testing.assert_allclose(to_numpy(first), a @ z, **close)
        np.testing.assert_allclose(to_numpy(second), b @ z**2, **close)
        alone, none = moments(noise, a, None)
        assert none is None
        assert to_numpy(alone).tobytes() == to_numpy(first).tobytes()


@pytest.mark.parametrize("mirrored", [False, True], ids=["plain", "mirrored"])
@pytest.mark.parametrize("table", [False, True], ids=["drawn", "table"])
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("like", FULL, ids=str)
def test_rows_made_again_are_those_held(
    like: Like, dim: int, table: bool, mirrored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = candidates(like, dim, mirrored=mirrored, table=table)
    n = len(asked)
    whole = to_numpy(asked.rows(0, n)).copy()
    monkeypatch.setattr(es_noise, "_HELD", 0)
    assert to_numpy(asked.rows(0, n)).tobytes() == whole.tobytes()
    for start, stop in [(0, 1), (1, 2), (3, 4), (2, 3), (1, 4), (2, 6), (5, 5), (4, n), (n - 1, n)]:
        rows = asked.rows(start, stop)
        assert Like.of(rows) == like
        assert to_numpy(rows).tobytes() == whole[start:stop].tobytes()
        rows += 1  # the caller's own
    z, mean, spread = dense(asked.source), to_numpy(asked.mean), to_numpy(asked.spread)
    expected = (
        np.stack([mean + spread * z, mean - spread * z], 1).reshape(-1, dim)
        if mirrored
        else mean + spread * z
    )
    np.testing.assert_allclose(whole, expected, rtol=0, atol=20 * like.epsilon)


@pytest.mark.parametrize("like", FULL, ids=str)
@pytest.mark.usefixtures("nothing_held")
def test_one_spread_for_all_is_that_spread_everywhere(like: Like) -> None:
    for dim in (7, 70_001):
        one = candidates(like, dim, mirrored=False, spread=0.25).rows(0, 6)
        each = candidates(like, dim, mirrored=False, spread=like.asarray(np.full(dim, 0.25))).rows(0, 6)
        assert to_numpy(one).tobytes() == to_numpy(each).tobytes()


@pytest.mark.usefixtures("nothing_held")
def test_the_other_half_of_a_pair_is_not_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = candidates(NUMPY, 70_001, mirrored=True)
    whole = asked.rows(0, 12).copy()
    calls = []
    blocks = Key.normal_blocks
    monkeypatch.setattr(
        Key, "normal_blocks", lambda *args, **rest: calls.append(args[1:3]) or blocks(*args, **rest)
    )
    for row in (*range(12), 5, 4, 4, 7):
        mine = asked.rows(row, row + 1)
        assert mine.tobytes() == whole[row].tobytes()
        mine[:] = 0
    assert calls == [(pair, pair + 1) for pair in (0, 1, 2, 3, 4, 5, 2, 2, 3)]


@pytest.mark.usefixtures("nothing_held")
def test_what_travels_is_a_description() -> None:
    asked = candidates(Like("torch", "float32"), 1000, mirrored=True, table=True)
    whole = to_numpy(asked.rows(0, 12))
    asked.rows(0, 1)  # which keeps the other half of the pair
    sent = pickle.dumps(asked)
    assert len(sent) < 2 * 4 * 1000 + 2000, "the mean, the spread, and little more"
    assert to_numpy(pickle.loads(sent).rows(0, 12)).tobytes() == whole.tobytes()


def test_an_odd_number_of_rows_ends_with_half_a_pair() -> None:
    for dim in (7, 300_000):
        noise = Noise(Key(2), 5, 4, dim, NUMPY, None)
        odd, even = (
            Sampled(
                np.zeros(dim),
                np.ones(dim),
                noise,
                count,
                mirrored=True,
                bounds=None,
                boundary="smooth",
                like=NUMPY,
            )
            for count in (7, 8)
        )
        assert len(odd) == 7
        assert odd.rows(0, 7).tobytes() == even.rows(0, 7).tobytes()
        assert odd.rows(6, 7).tobytes() == even.rows(6, 7).tobytes()


def test_a_table_gives_the_same_rows_to_every_kind_of_array() -> None:
    rows = [candidates(like, 500, mirrored=True, table=True).rows(0, 12) for like in FULL[::2]]
    assert rows[0].tobytes() == to_numpy(rows[1]).tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_rows_are_mapped_into_the_box(kind: str, dtype: str) -> None:
    like, dim = Like(kind, dtype), 50
    work = Like(kind, like.working_dtype)
    box = Bounds(np.full(dim, -0.7), np.full(dim, 0.3))
    inside = candidates(like, dim, mirrored=True, bounds=box, work=work).rows(0, 12)
    free = candidates(work, dim, mirrored=True).rows(0, 12)
    assert Like.of(inside) == like
    wide = to_numpy(inside).astype(np.float64)
    assert ((wide >= -0.7) & (wide <= 0.3)).all()
    np.testing.assert_allclose(wide, to_numpy(box.map(free, "smooth")), rtol=0, atol=2 * like.epsilon)


def test_pairs_lose_both_partners() -> None:
    values = np.array([1.0, 2.0, NAN, 3.0, 4.0, NAN, NAN, NAN, 5.0, 6.0])
    expected = [1.0, 2.0, NAN, NAN, NAN, NAN, NAN, NAN, 5.0, 6.0]
    kept = values.copy()
    np.testing.assert_array_equal(without_halves(values), expected)
    np.testing.assert_array_equal(values, kept)
    np.testing.assert_array_equal(without_halves(np.array([1.0, 2.0, 3.0])), [1.0, 2.0, NAN])
    np.testing.assert_array_equal(without_halves(np.array([1.0])), [NAN])
    whole = np.array([1.0, 2.0])
    assert without_halves(whole) is whole
