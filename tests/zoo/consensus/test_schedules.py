"""How temperature, noise and the number of particles change, and what steps draw beside their noise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from zoo.consensus import choices, dynamics, schedules
from zoo.core.device import NUMPY, Like
from zoo.core.rng import Key

KEYS = (Key(0), Key(1), Key(2))


def test_alpha_multiplies_up_to_the_highest() -> None:
    alpha = np.array([1.0, 80.0, 300.0, np.inf, 0.5])
    assert schedules.multiplied(alpha, 2.0, 100.0).tolist() == [2.0, 100.0, 300.0, np.inf, 1.0]
    assert schedules.multiplied(np.array([1e308]), 1e5, 1e308).tolist() == [1e308]
    assert schedules.multiplied(np.array([8.0]), 0.5, 100.0).tolist() == [4.0]


def test_alpha_doubles_each_epoch() -> None:
    assert [schedules.doubled(50.0, epoch, 1e3) for epoch in range(6)] == [50, 100, 200, 400, 800, 1000]
    assert schedules.doubled(math.inf, 3, 1e3) == math.inf
    assert schedules.doubled(2e3, 3, 1e3) == 2e3
    assert schedules.doubled(1.0, 10**9, 1e15) == 1e15
    assert schedules.doubled(0.0, 10**9, 1e15) == 0
    assert schedules.doubled(1e8, 999, 1e15) == 1e15
    assert schedules.doubled(1e300, 26, 1.7e308) == 1e300 * 2**26
    assert schedules.doubled(1e300, 28, 1.7e308) == 1.7e308
    assert schedules.doubled(5e-324, 3, 1e15) == 4e-323


def test_noise_cools_as_the_paper_multiplies_it() -> None:
    sigma = 0.7
    for epoch in range(1, 40):
        assert schedules.cooled(0.7, epoch - 1) == pytest.approx(sigma, rel=1e-14)
        sigma *= math.log2(epoch + 1) / math.log2(epoch + 2)


def test_particles_are_reduced_by_the_fall_of_their_variance() -> None:
    for count, now in itertools.product((1, 7, 100, 1000), (0.0, 0.1, 0.5, 1.0, 3.0)):
        expected = math.ceil(round(count * min(max(0.2 * now + 0.8, 0.8), 1.0), 9))
        assert schedules.reduced(count, 1.0, now, 0.2) == expected
        assert schedules.reduced(count, 1e200, now * 1e200, 0.2) == expected
    assert schedules.reduced(100, 1.0, 0.0, 0.5, least=70) == 70
    assert schedules.reduced(40, 1.0, 0.0, 0.5, least=70) == 40
    for before in (0.0, math.inf, math.nan):
        assert schedules.reduced(100, before, 1.0, 0.2) == 100


@pytest.mark.parametrize(("u", "rate"), [(0.51, -0.1911), (0.70, -0.2526), (1.01, -0.2131)])
def test_almost_sure_contraction(u: float, rate: float) -> None:
    assert dynamics.contraction(0.01, u) == pytest.approx(rate, abs=2e-3)


def test_contraction_changes_its_sign() -> None:
    assert dynamics.contraction(0.01, 1.5) < 0 < dynamics.contraction(0.01, 1.6)
    # Isotropic noise in many variables: log of (1 - a)^2 + u^2 dim, half of it.
    found = dynamics.contraction(0.01, 0.2, "isotropic", 2000)
    assert found == pytest.approx(math.log(0.99**2 + 0.04 * 2000) / 2, abs=2e-3)
    assert dynamics.contraction(0.01, 0.3, "isotropic", 1) == dynamics.contraction(0.01, 0.3)


@pytest.mark.parametrize(("count", "size"), [(20, 6), (20, 20), (7, 1), (9, 3)])
def test_batches(count: int, size: int) -> None:
    walk = count // size
    steps = [choices.batches(KEYS, step, count, size) for step in range(3 * walk)]
    for batch in steps:
        assert batch.shape == (3, size)
        assert (np.diff(batch, axis=1) > 0).all()
    for first in range(0, 3 * walk, walk):
        for m in range(3):
            seen = np.concatenate([batch[m] for batch in steps[first : first + walk]])
            assert len(set(seen.tolist())) == walk * size
    if 1 < size < count:
        assert any((steps[0] != steps[walk]).ravel())
        assert (steps[0][0] != steps[0][1]).any()
    alone = choices.batches(KEYS[1:2], 1, count, size)
    choices.clear_cache()
    assert (alone[0] == choices.batches(KEYS, 1, count, size)[1]).all()


@pytest.mark.parametrize("dim", [3, 50_000])
def test_coordinates_that_move(dim: int) -> None:
    whole = choices.chosen(KEYS, 5, 0, 10, 10, dim, 0.25, NUMPY)
    assert whole.shape == (3, 10, dim)
    part = choices.chosen(KEYS[2:], 5, 4, 7, 10, dim, 0.25, NUMPY)
    assert (part[0] == whole[2, 4:7]).all()
    assert (choices.chosen(KEYS, 6, 0, 10, 10, dim, 0.25, NUMPY) != whole).any()
    if dim > 3:
        assert whole.mean() == pytest.approx(0.25, abs=6 * math.sqrt(0.25 * 0.75 / whole.size))
    assert not choices.chosen(KEYS, 5, 0, 10, 10, 3, 0.0, NUMPY).any()
    assert choices.chosen(KEYS, 5, 0, 10, 10, 3, 1.0, NUMPY).all()


def test_shapes_of_one_size_do_not_take_each_others_coordinates() -> None:
    wide, tall = (
        choices.chosen(KEYS, 0, 0, count, count, dim, 0.1, NUMPY) for count, dim in ((20, 20), (40, 10))
    )
    assert wide.shape == (3, 20, 20)
    assert tall.shape == (3, 40, 10)


def test_coordinates_are_the_same_in_torch() -> None:
    torch = pytest.importorskip("torch")
    found = choices.chosen(KEYS, 5, 2, 9, 10, 6, 0.5, Like("torch", "float32"))
    assert found.dtype == torch.bool
    assert (found.numpy() == choices.chosen(KEYS, 5, 2, 9, 10, 6, 0.5, Like("numpy", "float32"))).all()


@pytest.mark.parametrize("count", [10, 9000])
def test_uniform_numbers_of_particles(count: int) -> None:
    whole = choices.uniform(KEYS, "explorers", 3, 0, count, count, 5)
    assert whole.shape == (3, count, 5)
    assert (choices.uniform(KEYS[1:2], "explorers", 3, 4, 8, count, 5)[0] == whole[1, 4:8]).all()
    assert (choices.uniform(KEYS, "other", 3, 0, count, count, 5) != whole).any()


def test_keys_of_a_purpose() -> None:
    assert choices.folded(KEYS, "memory") == tuple(key.fold("memory") for key in KEYS)


def test_what_is_kept_of_draws_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    choices.clear_cache()
    monkeypatch.setattr(choices, "_KEPT", 100_000)
    for step in range(60):
        choices.batches(KEYS, step, 1000, 500)
    assert 0 < choices._local.size <= 100_000
    assert choices._local.size == sum(map(choices._size, choices._local.drawn.values()))
    choices.clear_cache()
    assert choices._local.size == 0
