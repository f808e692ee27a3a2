"""Noise of swarms: a function of key, step and particle, whatever else is drawn, kept or forgotten."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from zoo.consensus import noise
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key

KEYS = tuple(Key(seed) for seed in range(5))
# Steps drawn together, steps drawn one by one, short rows, and rows longer than torch's blocks.
SIZES = [(7, 3), (100, 20), (1, 1), (8192, 1), (3000, 7), (700, 33), (90, 1000), (3, 40_001), (2, 70_000)]
KINDS = [
    Like("numpy", "float64"),
    Like("numpy", "float32"),
    Like("torch", "float32"),
    Like("torch", "float64"),
]


@pytest.fixture(autouse=True)
def _forget() -> Any:
    noise.clear_cache()
    yield
    noise.clear_cache()


def drawn(keys: Any, step: int, start: int, stop: int, count: int, dim: int, like: Like) -> np.ndarray:
    return to_numpy(noise.normal(keys, step, start, stop, count, dim, like))


@pytest.mark.parametrize("like", KINDS, ids=str)
@pytest.mark.parametrize(("count", "dim"), SIZES)
def test_numbers_of_a_particle_do_not_depend_on_what_else_is_drawn(count: int, dim: int, like: Like) -> None:
    whole = drawn(KEYS[:3], 5, 0, count, count, dim, like)
    assert whole.shape == (3, count, dim)
    assert whole.dtype == like.dtype
    for swarm, key in enumerate(KEYS[:3]):
        noise.clear_cache()
        assert (drawn((key,), 5, 0, count, count, dim, like)[0] == whole[swarm]).all()
        for start, stop in ((0, 1), (count // 3, count), (count // 2, count // 2 + 1), (0, 0)):
            part = drawn([key], 5, start, stop, count, dim, like)
            assert part.shape == (1, stop - start, dim)
            assert (part[0] == whole[swarm, start:stop]).all()


@pytest.mark.parametrize("like", KINDS, ids=str)
def test_steps_and_swarms_differ(like: Like) -> None:
    seen = [drawn(KEYS, step, 0, 10, 10, 20, like) for step in range(200)]
    seen += [drawn(KEYS, step, 0, 600, 600, 20, like)[:, :10] for step in range(3)]
    numbers = np.concatenate([block.ravel() for block in seen])
    assert len(np.unique(numbers)) > 0.99 * len(numbers)  # single precision has some twice
    # Mean and variance of 203,000 numbers, five standard errors of them.
    assert abs(numbers.mean()) < 5 / len(numbers) ** 0.5
    assert abs(numbers.var() - 1) < 5 * (2 / len(numbers)) ** 0.5


@pytest.mark.parametrize("like", KINDS, ids=str)
def test_steps_may_come_in_any_order(like: Like) -> None:
    forth = [drawn(KEYS, step, 0, 50, 50, 20, like) for step in range(40)]
    for step in (39, 0, 17, 17, 38):
        assert (drawn(KEYS, step, 0, 50, 50, 20, like) == forth[step]).all()


def test_what_is_returned_is_the_callers() -> None:
    first = noise.normal(KEYS, 0, 0, 4, 4, 3, Like("numpy", "float64"))
    kept = first.copy()
    first[...] = 0
    assert (drawn(KEYS, 0, 0, 4, 4, 3, Like("numpy", "float64")) == kept).all()


@pytest.mark.parametrize("like", KINDS[1:3], ids=str)
def test_many_swarms_keep_fewer_steps_and_get_the_same_numbers(
    like: Like, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [drawn(KEYS, step, 0, 40, 40, 20, like) for step in range(45)]
    held = 40 * 20 * 4 * len(KEYS)
    for most in (7 * held, held, 1):
        noise.clear_cache()
        monkeypatch.setattr(noise, "_MOST", most)
        for step in range(45):
            assert (drawn(KEYS, step, 0, 40, 40, 20, like) == free[step]).all()
            assert noise._local.size <= max(most, held)


def test_what_is_kept_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_KEPT", 10**6)
    like = Like("torch", "float32")
    first = drawn(KEYS[:1], 0, 0, 40, 40, 20, like)
    for seed in range(20):
        for step in (0, 50):
            drawn((Key(100 + seed),), step, 0, 40, 40, 20, like)
            assert (
                noise._local.size == sum(block.nbytes for _, block, _ in noise._local.drawn.values()) <= 10**6
            )
    assert (drawn(KEYS[:1], 0, 0, 40, 40, 20, like) == first).all()


@pytest.mark.parametrize("like", KINDS, ids=str)
@pytest.mark.parametrize(("count", "dim"), SIZES)
def test_pieces_cover_every_particle_once(count: int, dim: int, like: Like) -> None:
    start, stop = count // 5, count - count // 7
    seen = np.zeros((3, stop - start, dim), int)
    whole = drawn(KEYS[:3], 2, 0, count, count, dim, like)
    for swarms, rows, columns, numbers in noise.blocks(KEYS[:3], 2, start, stop, count, dim, like):
        seen[swarms, rows, columns] += 1
        assert (to_numpy(numbers) == whole[swarms, start:stop][:, rows, columns]).all()
    assert (seen == 1).all()


@pytest.mark.parametrize("like", KINDS, ids=str)
@pytest.mark.parametrize(("count", "dim"), SIZES)
def test_factors_of_a_particle_do_not_depend_on_what_else_is_drawn(count: int, dim: int, like: Like) -> None:
    def factors(keys: Any, start: int, stop: int) -> np.ndarray:
        out = np.zeros((len(keys), stop - start, dim))
        pieces = noise.blocks(keys, 4, start, stop, count, dim, like, moments=(0.75, 0.5))
        for swarms, rows, columns, numbers in pieces:
            out[swarms, rows, columns] = to_numpy(numbers)
        return out

    plain, whole = drawn(KEYS[:3], 4, 0, count, count, dim, like), factors(KEYS[:3], 0, count)
    # Products and sums of numbers below 6 are rounded, to single precision at worst.
    np.testing.assert_allclose(whole, 0.75 + 0.5 * plain.astype(np.float64), rtol=0, atol=1e-6)
    for start, stop in ((0, 1), (count // 3, count), (count // 2, count // 2 + 1), (0, 0)):
        noise.clear_cache()
        assert (factors(KEYS[1:2], start, stop)[0] == whole[1, start:stop]).all()
    assert (drawn(KEYS[:3], 4, 0, count, count, dim, like) == plain).all()


SINGLE = Like("torch", "float32")


def stretch(key: Key, size: int) -> np.ndarray:
    out = torch.empty(size)
    key.fill_quick(out, size=size)
    return out.numpy()


@pytest.mark.parametrize("like", KINDS[1:], ids=str)
def test_numbers_are_those_the_law_says(like: Like) -> None:
    key, step = KEYS[1], 37
    few = stretch(key.fold("noise", "steps", 37 // 16), 32_000).reshape(16, 100, 20)[37 % 16]
    assert (drawn([key], step, 0, 100, 100, 20, like)[0] == few).all()
    law = key.fold("noise", step)
    groups = [stretch(law.fold(group), 500 * 100).reshape(500, 100) for group in range(2)]
    assert (drawn([key], step, 0, 1000, 1000, 100, like)[0] == np.concatenate(groups)).all()
    # Three groups are needed for 3001 particles of 50, 1001 of them in each.
    groups = [stretch(law.fold(group), 1001 * 50).reshape(1001, 50) for group in range(3)]
    assert (drawn([key], step, 900, 3001, 3001, 50, like)[0] == np.concatenate(groups)[900:3001]).all()
    row = to_numpy(law.normal(2, 3, 70_000, like=SINGLE))
    assert (drawn([key], step, 2, 3, 4, 70_000, like)[0] == row).all()


def test_numbers_do_not_depend_on_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    seen = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            noise.clear_cache()
            seen.append(
                [
                    drawn(KEYS[:2], 3, start, stop, count, dim, SINGLE)
                    for count, dim in SIZES
                    for start, stop in ((0, count), (count // 3, count // 2))
                ]
            )
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all((a == b).all() for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize("like", KINDS, ids=str)
def test_pieces_are_there_while_others_are_drawn(like: Like) -> None:
    whole = [drawn([key], 1, 0, 1500, 1500, 100, like)[0] for key in KEYS[:2]]
    pairs = zip(*(noise.blocks([key], 1, 0, 1500, 1500, 100, like) for key in KEYS[:2]), strict=True)
    for one, other in pairs:
        inner = noise.normal([KEYS[2]], 1, 0, 1500, 1500, 100, like)
        assert inner.shape == (1, 1500, 100)
        for (_, rows, _, numbers), expected in ((one, whole[0]), (other, whole[1])):
            assert (to_numpy(numbers)[0] == expected[rows]).all()
    # A loop that is left early leaves nothing behind that a later one could read.
    next(iter(noise.blocks([KEYS[0]], 1, 0, 1500, 1500, 100, like)))
    assert (drawn([KEYS[0]], 1, 0, 1500, 1500, 100, like)[0] == whole[0]).all()


@pytest.mark.parametrize(("count", "dim"), [(100, 20), (1000, 100)])
def test_steps_swarms_and_groups_have_nothing_to_do_with_each_other(count: int, dim: int) -> None:
    """Products of numbers, and of their squares, are 0 on average, within five standard errors."""
    z = np.stack([drawn(KEYS, step, 0, count, count, dim, SINGLE) for step in range(20)]).astype(float)
    half = count // 2
    for one, other in (
        (z[1:], z[:-1]),  # steps
        (z[16:], z[:-16]),  # those drawn together are sixteen
        (z[:, 1:], z[:, :-1]),  # swarms
        (z[:, :, :half], z[:, :, half:]),  # groups, or the two halves of one
        (z[:, :, 1:], z[:, :, :-1]),
        (z[..., 1:], z[..., :-1]),
    ):
        for a, b in ((one, other), (one**2 - 1, other**2 - 1), (one, other**2 - 1), (one**2 - 1, other)):
            product = a * b
            assert abs(product.mean()) < 5 * product.std() / product.size**0.5
    assert abs((z**4).mean() - 3) < 5 * (96 / z.size) ** 0.5
