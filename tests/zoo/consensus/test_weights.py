"""The consensus point: exact identities, extreme energies and temperatures, and sums of parts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from zoo.consensus import weights
from zoo.consensus.weights import alpha_of, block_sums, centre, consensus_point, gibbs_weights, merge

Matrix = np.ndarray[Any, Any]

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(50, 4))
ENERGIES = RNG.normal(size=50) ** 2
BEST = POINTS[ENERGIES.argmin()]


def naive(points: Matrix, energies: Matrix, alpha: float) -> Matrix:
    total, moment = 0.0, np.zeros(points.shape[1])
    for x, f in zip(points, energies, strict=True):
        w = math.exp(-alpha * (f - min(energies)))
        total, moment = total + w, moment + w * x
    return moment / total


@pytest.mark.parametrize("alpha", [0.0, 0.3, 7.0, 500.0])
def test_consensus_point_is_the_weighted_mean(alpha: float) -> None:
    found = consensus_point(POINTS, ENERGIES, alpha)
    np.testing.assert_allclose(found, naive(POINTS, ENERGIES, alpha), rtol=0, atol=1e-14)


@pytest.mark.parametrize("alpha", [1e6, 1e15, 1e300, np.inf])
@pytest.mark.parametrize(
    "case", ["plain", "offset", "huge", "tiny", "one infinite", "one failed", "one -inf"]
)
def test_cold_consensus_is_the_best_particle(alpha: float, case: str) -> None:
    energies = ENERGIES + 1
    if case == "offset":
        energies = energies + 1e6
    elif case == "huge":
        energies = np.where(np.arange(50) % 2, 1e308, -1e308) * (1 + ENERGIES / 100)
    elif case == "tiny":
        energies = energies * 1e-300
        alpha = min(alpha * 1e300, np.inf) if alpha < 1e7 else np.inf
    elif case != "plain":
        energies[3] = {"one infinite": np.inf, "one failed": np.nan, "one -inf": -np.inf}[case]
    best = int(np.where(np.isfinite(energies), energies, np.inf).argmin())
    np.testing.assert_allclose(consensus_point(POINTS, energies, alpha), POINTS[best], rtol=0, atol=1e-12)


def test_all_of_the_best_count_alike_at_infinite_alpha() -> None:
    energies = ENERGIES.copy()
    energies[[4, 9, 11]] = -1.0
    found = consensus_point(POINTS, energies, np.inf)
    np.testing.assert_allclose(found, POINTS[[4, 9, 11]].mean(0), rtol=0, atol=1e-15)


def test_all_that_have_a_value_count_alike_at_alpha_zero() -> None:
    energies = np.where(np.arange(50) < 40, 1e306 * np.arange(-99, 100, 4), np.nan)
    np.testing.assert_allclose(consensus_point(POINTS, energies, 0.0), POINTS[:40].mean(0), atol=1e-15)


def test_without_any_value_there_is_no_consensus_point() -> None:
    assert not gibbs_weights(np.full(5, np.nan), 3.0).any()
    with pytest.raises(ValueError, match="all evaluations failed"):
        consensus_point(POINTS, np.full(50, np.inf), 3.0)


def test_invariances() -> None:
    order = RNG.permutation(50)
    rotation = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    c = consensus_point(POINTS, ENERGIES, 3.0)
    for found, expected, tolerance in (
        (consensus_point(POINTS[order], ENERGIES[order], 3.0), c, 1e-12),
        (consensus_point(POINTS + 2.5, ENERGIES, 3.0), c + 2.5, 1e-12),
        (consensus_point(POINTS @ rotation, ENERGIES, 3.0), c @ rotation, 1e-12),
        (consensus_point(POINTS, ENERGIES * 17, 3.0 / 17), c, 1e-12),
        (consensus_point(POINTS, ENERGIES + 5, 3.0), c, 1e-12),
        (consensus_point(POINTS, ENERGIES + 1e6, 3.0), c, 1e-9),
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("alpha", "gap"), [(100.0, 0.0548), (1e3, 0.00663), (1e4, 0.000778)])
def test_gap_of_the_soft_minimum(alpha: float, gap: float) -> None:
    """Laplace's principle, by quadrature: how far -log(mean weight) / alpha is above the minimum."""
    x = -3 + 6 * (np.arange(400_000) + 0.5) / 400_000
    energies = x**2 + 2.5 * (1 - np.cos(2 * np.pi * x)) + 0.7
    sums = block_sums(energies[None], x[None, :, None], np.array([alpha]))
    # The grid misses the minimum by 1e-5, which its weights refer to.
    assert sums.lowest[0] - 0.7 < 1e-8
    assert -math.log(sums.total[0] / len(x)) / alpha == pytest.approx(gap, rel=0.02)
    curvature = 2 + 2.5 * 4 * math.pi**2
    assert gap == pytest.approx(math.log(alpha * curvature / (2 * math.pi / 36)) / (2 * alpha), rel=0.02)


@pytest.mark.parametrize("alpha", [0.0, 3.0, 1e5, np.inf])
def test_parts_merge_to_the_whole(alpha: float) -> None:
    energies = np.stack([ENERGIES, ENERGIES[::-1] + 1e3])
    energies[0, :7] = np.inf  # a whole part without a value
    points, alphas = np.stack([POINTS, POINTS + 1]), np.array([alpha, 2 * alpha])
    whole = block_sums(energies, points, alphas)
    for edges in ((0, 50), (0, 7, 50), (0, 7, 8, 30, 49, 50)):
        cuts = [slice(a, b) for a, b in itertools.pairwise(edges)]
        merged = merge([block_sums(energies[:, cut], points[:, cut], alphas) for cut in cuts], alphas)
        for one, other in zip(merged, whole, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(centre(merged), centre(whole), rtol=0, atol=1e-13)


def test_the_mean_of_parts_is_another_point() -> None:
    parts = [consensus_point(POINTS[cut], ENERGIES[cut], 50.0) for cut in (slice(0, 25), slice(25, 50))]
    assert abs(np.mean(parts, 0) - consensus_point(POINTS, ENERGIES, 50.0)).max() > 0.1


def test_nothing_has_no_weight() -> None:
    sums = merge([block_sums(np.full((1, 3), np.inf), POINTS[None, :3], np.ones(1))] * 2, np.ones(1))
    assert sums.total[0] == 0
    assert not centre(sums).any()


@pytest.mark.parametrize("scale", [1e-300, 1e-3, 1.0, 1e3, 1e8, 1e300])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_effective_sample_size_at_any_scale(scale: float, share: float) -> None:
    energies = scale * np.random.default_rng(1).random((3, 200))
    energies[1, :40] = np.inf
    energies[2] = scale * np.arange(200) ** 3
    alpha = alpha_of(energies, share, np.ones(3))
    found = [weights.effective_sample_size(gibbs_weights(f, a)) for f, a in zip(energies, alpha, strict=True)]
    np.testing.assert_allclose(np.array(found) / [200, 160, 200], share, rtol=0, atol=1e-3)


def test_energies_twice_as_large_have_half_the_alpha_to_the_last_bit() -> None:
    energies, before = np.random.default_rng(1).random((3, 50)), np.ones(3)
    for power in (-40, 1, 700):
        scaled = alpha_of(np.ldexp(energies, power), 0.3, before)
        assert (scaled == np.ldexp(alpha_of(energies, 0.3, before), -power)).all()


def test_each_swarm_has_the_alpha_that_it_has_alone() -> None:
    rng = np.random.default_rng(2)
    energies = np.exp(rng.normal(size=(30, 40)) * 5.0 ** rng.integers(-2, 4, (30, 1)))
    energies[4, 3:] = np.inf
    together = alpha_of(energies, 0.2, np.ones(30))
    assert [alpha_of(row[None], 0.2, np.ones(1))[0] for row in energies] == together.tolist()


def test_effective_sample_size_where_any_alpha_would_do_or_none() -> None:
    energies = np.stack([np.full(8, 3.0), np.full(8, np.inf), np.where(np.arange(8) < 1, 2.0, np.inf)])
    assert alpha_of(energies, 0.5, np.array([7.0, 8.0, np.inf])).tolist() == [7.0, 8.0, np.inf]
    # Six of eight are equally good: the sample size cannot fall below 6.
    tied = np.where(np.arange(8) < 6, 1.0, 2.0)[None]
    assert weights.effective_sample_size(gibbs_weights(tied, alpha_of(tied, 0.5, np.ones(1))[0])) == [6.0]


def test_torch_finds_the_same_point() -> None:
    torch = pytest.importorskip("torch")
    found = consensus_point(torch.from_numpy(POINTS), ENERGIES, 2.0)
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found.numpy(), consensus_point(POINTS, ENERGIES, 2.0), rtol=0, atol=1e-14)
