"""Laws of directions: their moments, and that a row is the same in any slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from zoo.core.device import Array, Like, to_numpy
from zoo.core.rng import Key
from zoo.estimators.directions import (
    LAWS,
    Axes,
    Directions,
    Draw,
    Gaussian,
    Guided,
    History,
    Masked,
    Orthonormal,
    Rademacher,
    Sphere,
    Subspace,
    as_directions,
)

DOUBLE = Like("numpy", "float64")
KINDS = [Like(kind, dtype) for kind in ("numpy", "torch") for dtype in ("float32", "float64")]

all_kinds = pytest.mark.parametrize("like", KINDS, ids=lambda like: f"{like.kind}-{like.dtype}")


def drawn(
    law: Directions,
    count: int,
    dim: int,
    *,
    like: Like = DOUBLE,
    memory: Any = None,
    step: int = 0,
    seed: int = 0,
) -> Array:
    draw = Draw(Key(seed), step, count, dim, like)
    return law.draw(draw, 0, count, memory, law.plan(draw, memory))


@pytest.mark.parametrize("dim", [1, 7, 1300])
@pytest.mark.parametrize("name", [*LAWS, "masked", "guided with a history"])
@all_kinds
def test_rows_are_the_same_in_any_slice(name: str, dim: int, like: Like) -> None:
    memory = None
    if name == "masked":
        law: Directions = Masked(Sphere(), np.arange(dim) % 3 == 0)
    elif name == "guided with a history":
        law, memory = Guided(), like.asarray(np.eye(dim)[: min(3, dim)])
    else:
        law = as_directions(name)
    count = min(13, law.most(dim) or 13)
    draw = Draw(Key(3), 5, count, dim, like)
    whole = drawn(law, count, dim, like=like, memory=memory, step=5, seed=3)
    assert Like.of(whole) == like
    assert whole.shape == (count, dim)
    plan = law.plan(draw, memory)
    for start in range(count):
        for stop in {start + 1, (start + count + 1) // 2, count}:
            if stop > start:
                part = law.draw(draw, start, stop, memory, plan)
                assert to_numpy(part).tobytes() == to_numpy(whole[start:stop]).tobytes()


@pytest.mark.parametrize("law", [Gaussian(), Sphere(), Rademacher()])
def test_second_moment_is_the_identity(law: Directions) -> None:
    """Entries of the mean of u u^T have variance at most 2 / n (Gaussian diagonal): 6 of their deviations."""
    n, dim = 40_000, 4
    rows = drawn(law, n, dim)
    assert np.abs(rows.T @ rows / n - np.eye(dim)).max() < 6 * np.sqrt(2 / n)
    assert np.abs(rows.mean(0)).max() < 6 / np.sqrt(n)
    assert law.norm(dim) == 2
    assert law.factor(dim) == 1


def test_sphere_and_signs_have_one_length() -> None:
    for law in (Sphere(), Rademacher(), Orthonormal()):
        np.testing.assert_allclose((drawn(law, 9, 9) ** 2).sum(1), 9, rtol=1e-14)


@all_kinds
@pytest.mark.parametrize("count", [1, 4, 6])
def test_orthonormal_is_orthogonal(like: Like, count: int) -> None:
    rows = to_numpy(drawn(Orthonormal(), count, 6, like=like)).astype(np.float64)
    np.testing.assert_allclose(rows @ rows.T, 6 * np.eye(count), atol=20 * like.epsilon)
    assert Orthonormal().most(6) == 6


def test_orthonormal_is_uniformly_rotated() -> None:
    """First directions of many steps have the moments of the sphere: E[u u^T] = I within 6 deviations."""
    n, dim = 4000, 3
    rows = np.stack([drawn(Orthonormal(), 2, dim, seed=seed)[0] for seed in range(n)])
    assert np.abs(rows.T @ rows / n - np.eye(dim)).max() < 6 * np.sqrt(2 / n)
    assert np.abs(rows.mean(0)).max() < 6 / np.sqrt(n)


def test_axes_without_replacement() -> None:
    rows = drawn(Axes(), 4, 6)
    assert sorted(rows.argmax(1)) == sorted(set(rows.argmax(1)))
    assert (rows.sum(1) == 1).all()
    assert (np.sort(rows.ravel())[:-4] == 0).all()
    assert (drawn(Axes(), 6, 6).sum(0) == 1).all()
    assert Axes().factor(6) == 6
    assert Axes().most(6) == 6


def test_axes_are_drawn_evenly() -> None:
    """Each coordinate is in 1 of 3 steps: a binomial count, within 6 deviations."""
    n = 3000
    counts = sum(drawn(Axes(), 2, 6, seed=seed).sum(0) for seed in range(n))
    assert np.abs(counts - n / 3).max() < 6 * np.sqrt(n * 2 / 9)


def test_cyclic_axes_take_turns() -> None:
    law = Axes("cyclic")
    order = [int(row.argmax()) for step in range(3) for row in drawn(law, 2, 5, step=step)]
    assert order == [0, 1, 2, 3, 4, 0]


@pytest.mark.parametrize("inner", ["gaussian", "sphere", "axes", "orthonormal", "guided", "subspace"])
def test_masked_coordinates_never_move(inner: str) -> None:
    mask = np.array([True, False, True, True, False])
    law = Masked(as_directions(inner), mask)
    memory = law.init(np.zeros(5))
    for step in range(4):
        rows = drawn(law, 3, 5, memory=law.shipped(memory), step=step)
        assert (rows[:, ~mask] == 0).all()
        assert rows[:, mask].any()
        memory = law.learn(memory, rows[0], rows[1])
    assert (law.project(np.ones(5), memory)[~mask] == 0).all()
    assert law.size(5) == 3
    assert law.norm(5) == law.law.norm(3)
    assert law.factor(5) == law.law.factor(3)


@pytest.mark.parametrize("mask", [np.zeros(3, bool), np.ones(3), np.ones((2, 2), bool), "no"])
def test_masks_that_are_none(mask: Any) -> None:
    with pytest.raises(ValueError, match="`mask` must be one row of booleans"):
        Masked(Gaussian(), mask)


def test_mask_of_another_length() -> None:
    with pytest.raises(ValueError, match="`mask` must have one entry per coordinate, 3, got 2"):
        Masked(Gaussian(), np.ones(2, bool)).init(np.zeros(3))


def test_guided_covariance() -> None:
    """Covariance alpha I + (1 - alpha) d / k U^T U, entries within 6 deviations."""
    n, dim, alpha = 40_000, 4, 0.3
    law = Guided(alpha=alpha, history=2)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, 2)))[0].T
    rows = drawn(law, n, dim, memory=basis)
    expected = alpha * np.eye(dim) + (1 - alpha) * dim / 2 * basis.T @ basis
    assert np.abs(rows.T @ rows / n - expected).max() < 6 * np.sqrt(2 / n) * expected.max()
    assert np.trace(expected) == pytest.approx(dim)


@all_kinds
def test_guided_remembers_the_last_gradients(like: Like) -> None:
    law = Guided(history=3)
    x = like.asarray(np.zeros(5))
    memory = law.init(x)
    assert law.shipped(memory) is None
    gradients = np.random.default_rng(0).normal(size=(5, 5))
    for gradient in gradients:
        memory = law.learn(memory, x, like.asarray(gradient))
    memory = law.learn(memory, x, x)
    basis = to_numpy(law.shipped(memory)).astype(np.float64)
    assert basis.shape == (3, 5)
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=10 * like.epsilon)
    np.testing.assert_allclose(gradients[2:] @ basis.T @ basis, gradients[2:], atol=50 * like.epsilon)


def test_guided_has_no_more_history_than_coordinates() -> None:
    law = Guided(history=8)
    memory = law.init(np.zeros(2))
    for _ in range(5):
        memory = law.learn(memory, np.zeros(2), np.array([1.0, 2.0]))
    assert memory.basis is not None
    assert memory.basis.shape == (2, 2)
    assert np.isfinite(memory.basis).all()


def trajectory(dim: int = 40, signal: int = 3, steps: int = 60) -> tuple[Any, Any]:
    """Points that move in a few directions, with a little noise in all; and those directions."""
    rng = np.random.default_rng(1)
    span = np.linalg.qr(rng.normal(size=(dim, signal)))[0].T
    points = np.cumsum(rng.normal(size=(steps, signal)), 0) @ span + 1e-3 * rng.normal(size=(steps, dim))
    return points + 5, span


def learned(law: Directions, points: Any) -> Any:
    memory = law.init(points[0])
    for point in points:
        memory = law.learn(memory, point, point)
    return memory


@pytest.mark.parametrize("mode", ["drop", "keep", "published"])
@all_kinds
def test_subspace_gradient_takes_noise_out(mode: str, like: Like) -> None:
    points, span = trajectory()
    law = Subspace(history=60, mode=mode)
    memory = learned(law, like.asarray(points))
    basis = to_numpy(memory[0].basis).astype(np.float64)
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=50 * like.epsilon)
    rng = np.random.default_rng(2)
    signal = rng.normal(size=3) @ span
    noisy = signal + rng.normal(size=40) * np.linalg.norm(signal) / np.sqrt(40)
    cleaned = to_numpy(law.project(like.asarray(noisy), memory)).astype(np.float64)

    def cosine(estimate: Any) -> float:
        return float(estimate @ signal / np.linalg.norm(estimate) / np.linalg.norm(signal))

    # Axes of standardised points, applied to raw gradients, take some signal along: the published form.
    assert cosine(cleaned) > (1 if mode == "published" else 1.2) * cosine(noisy)
    if mode == "keep":
        assert len(basis) == 3
        np.testing.assert_allclose(cleaned @ basis.T @ basis, cleaned, atol=100 * like.epsilon)
    else:
        np.testing.assert_allclose(basis @ cleaned, 0, atol=100 * like.epsilon)
        assert len(basis) == 37


def test_subspace_keeps_what_lies_outside_the_history() -> None:
    points, _ = trajectory(steps=10)
    law = Subspace(history=10)
    memory = learned(law, points)
    assert len(memory[0].basis) == 9 - 3
    outside = np.linalg.svd(points - points.mean(0))[2][20]
    np.testing.assert_allclose(law.project(outside, memory), outside, atol=1e-12)


def test_subspace_starts_anew_after_each_history() -> None:
    points, _ = trajectory(steps=10)
    law = Subspace(history=5, mode="keep")
    memory = law.init(points[0])
    known = []
    for point in np.concatenate([points, points]):
        memory = law.learn(memory, point, point)
        known.append(memory[0].basis is not None)
    assert known == [False] * 4 + [True] * 5 + [False] * 5 + [True] * 5 + [False]
    still = learned(Subspace(history=5), np.ones((5, 4)))
    assert still[0].basis is None


def test_subspace_of_another_law() -> None:
    law = Subspace(Guided(history=2), history=4)
    memory = learned(law, np.random.default_rng(0).normal(size=(6, 5)))
    assert isinstance(memory[1], History)
    assert drawn(law, 3, 5, memory=law.shipped(memory)).tobytes() == (
        drawn(law.law, 3, 5, memory=memory[1].basis).tobytes()
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: as_directions("gausian"), "Did you mean 'gaussian'"),
        (lambda: Axes("sorted"), "`order` must be one of 'random', 'cyclic'"),
        (lambda: Guided(alpha=0.0), "`alpha` must be above 0 and at most 1"),
        (lambda: Guided(history=0), "`history` must be at least 1"),
        (lambda: Subspace(history=2), "`history` must be at least 3"),
        (lambda: Subspace(threshold=0.0), "`threshold` must be above 0"),
        (lambda: Subspace(threshold=1.0), "`threshold` must be at least 0 and below 1"),
        (lambda: Subspace(mode="mix"), "`mode` must be one of 'drop', 'published', 'keep'"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_law() -> None:
    with pytest.raises(TypeError, match="`directions` must be a name or a law of directions, got 3"):
        as_directions(3)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Given(Directions):
    """Directions given as they are, for the tests of estimators too."""

    rows: Any

    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        return draw.like.asarray(self.rows[start:stop])
