"""A step of particles: its formula, and that no particle depends on who is moved along with it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from zoo.consensus import dynamics, noise, weights
from zoo.consensus.cbo import CBO
from zoo.core.bounds import Bounds
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.types import Evaluations

SCHEMES = list(itertools.product(dynamics.NOISES, dynamics.INTEGRATORS, (math.inf, 0.7)))
SIZES = [(1, 1), (2, 3), (7, 5), (33, 17), (13, 64), (5, 129), (3, 1001)]


def by_hand(v: Any, z: Any, a: float, u: float, noise: str, integrator: str, truncation: float) -> Any:
    """Return one particle after a step, coordinate by coordinate, as the papers write it."""
    kept = math.exp(-a) if integrator == "exponential" else 1 - a
    distance = min(math.sqrt(sum(x * x for x in v)), truncation)
    moved = []
    for x, xi in zip(v, z, strict=True):
        if noise == "isotropic":
            moved.append(x * kept + u * distance * xi)
        elif truncation < math.inf:
            moved.append(x * kept + u * min(max(x, -truncation), truncation) * xi)
        elif integrator == "exponential":
            moved.append(x * math.exp(-a - u * u / 2 + u * xi))
        else:
            moved.append(x * (1 - a + u * xi))
    return moved


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_formula(scheme: Any) -> None:
    rng = np.random.default_rng(0)
    v, xi = rng.normal(size=(2, 3, 4, 5))
    expected = [
        [by_hand(v[m, i], xi[m, i], 0.05, 0.6, *scheme) for i in range(v.shape[1])] for m in range(len(v))
    ]
    np.testing.assert_allclose(dynamics.move(v, xi, 0.05, 0.6, *scheme), expected, rtol=1e-12)
    moved = dynamics.move(torch.from_numpy(v), torch.from_numpy(xi), 0.05, 0.6, *scheme)
    np.testing.assert_allclose(moved.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("dtypes", [("float64", "float64"), ("float64", "float32"), ("float32", "float32")])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_particles_do_not_depend_on_who_is_beside_them(kind: str, dtypes: Any, scheme: Any) -> None:
    rng = np.random.default_rng(1)
    for count, dim in SIZES:
        v, xi = rng.normal(size=(2, 2, count, dim))
        v, xi = Like(kind, dtypes[0]).asarray(v), Like(kind, dtypes[1]).asarray(xi)
        before = v + 0, xi + 0
        whole = dynamics.move(v, xi, 0.01, 0.8, *scheme)
        assert whole.dtype == v.dtype
        assert all((one == other).all() for one, other in zip(before, (v, xi), strict=True))
        for start, stop in {(0, 1), (count // 2, count), (count // 3, count // 3 + 1), (0, count)}:
            part = dynamics.move(v[:, start:stop], xi[:, start:stop], 0.01, 0.8, *scheme)
            assert (part == whole[:, start:stop]).all()
            alone = dynamics.move(v[1:, start:stop] + 0, xi[1:, start:stop] + 0, 0.01, 0.8, *scheme)
            assert (alone == whole[1:, start:stop]).all()
        out = whole * 0
        assert dynamics.move(v, xi, 0.01, 0.8, *scheme, out=out) is out
        assert (out == whole).all()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_blocks_do_not_depend_on_what_is_beside_them(kind: str, dtype: str) -> None:
    rng = np.random.default_rng(2)
    for count, dim in ((1, 1), (65, 3), (100, 20), (300, 7), (1003, 33), (2000, 1)):
        edges, swarms = weights.boundaries(count), 3
        energies = rng.random((swarms, count)) * 100
        energies[rng.random(energies.shape) < 0.1] = np.inf
        points, alpha = Like(kind, dtype).asarray(rng.normal(size=(swarms, count, dim))), rng.random(swarms)
        whole = weights.sums_between(edges, energies, points, alpha)
        merged = weights.merge([whole], alpha)
        for m in range(swarms):
            one = slice(m, m + 1)
            parts = [
                weights.block_sums(energies[one, a:b].copy(), points[one, a:b] + 0, alpha[one])
                for a, b in itertools.pairwise(edges)
            ]
            for index, part in enumerate(parts):
                assert all((x[:, index][one] == y).all() for x, y in zip(whole, part, strict=True))
            cut = len(edges) // 2
            halves = [
                weights.sums_between(
                    [edge - some[0] for edge in some],
                    energies[one, some[0] : some[-1]],
                    points[one, some[0] : some[-1]],
                    alpha[one],
                )
                for some in (edges[: cut + 1], edges[cut:])
                if len(some) > 1
            ]
            for some in (parts, halves):
                again = weights.merge(some, alpha[one])
                assert all((x[one] == y).all() for x, y in zip(merged, again, strict=True))


def test_weights_are_0_where_they_would_be_next_to_0() -> None:
    found = weights.boltzmann(np.array([[0.0, 349.0, 351.0, 1e308, np.inf]]), np.zeros(1), np.ones(1))
    assert found.tolist() == [[1.0, math.exp(-349.0), 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    "options",
    [
        {"memory": "none", "num_coordinates": None, "explorers": 0.0},
        {"memory": "none", "num_coordinates": None, "explorers": 0.0, "noise": "isotropic", "sigma": 4e-3},
        {"memory": "none", "num_coordinates": None},
        {},
    ],
    ids=["plain", "isotropic", "with explorers", "default"],
)
@pytest.mark.parametrize("like", [Like("numpy", "float64"), Like("torch", "float32")], ids=str)
@pytest.mark.parametrize(("count", "dim"), [(70, 3), (700, 130), (2500, 130), (3, 70_001)])
def test_members_move_alike_in_any_company(count: int, dim: int, like: Like, options: Any) -> None:
    """A shard that holds some of the particles does to them what is done where all are."""
    precision = "single" if like.dtype == "float32" else "double"
    method = CBO(num_particles=count, precision=precision, differences=0.0, **options)
    x0 = like.asarray(np.linspace(-1, 1, dim))
    bounds = Bounds(np.full(dim, -3.0), np.full(dim, 2.5))
    state = method.init(x0, key=Key(0), bounds=bounds)
    rows = to_numpy(method.ask(state).rows(0, count))
    state = method.tell(state, Evaluations((rows**2).sum(1)))
    state, told = method.order(state, np.empty(0))
    whole = method.move(state.frame, state.members, told)
    for start, stop in ((0, 1), (count // 3, count), (count // 2, count // 2 + 1)):
        part = method.move(state.frame, state.members.cut(start, stop), told)
        assert (part.offsets == whole.offsets[:, start:stop]).all()
        assert (part.memory == whole.memory[:, start:stop]).all()
    noise.clear_cache()
    assert (method.move(state.frame, state.members, told).offsets == whole.offsets).all()
