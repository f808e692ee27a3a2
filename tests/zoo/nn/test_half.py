"""Stochastic rounding: right in the mean, the same under the same key, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch

from zoo.core.rng import Key
from zoo.nn.descent import Descent, apply_
from zoo.nn.half import round_stochastically
from zoo.nn.seeded import Seeded

HALF = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("value", [1.001, -0.3337, 123.4567, 7e-5, 3.3e-6, -1.7e-7])
def test_rounding_is_unbiased_between_neighbours(dtype: torch.dtype, value: float) -> None:
    n = 100_000
    x = torch.full((n,), value, dtype=torch.float32)
    rounded = round_stochastically(x, dtype, Key(0))
    found = rounded.unique().double()
    nearest = x[:1].to(dtype)
    outwards = 1 if nearest.float().abs() < x[0].abs() else -1
    away = (nearest.view(torch.int16) + outwards).view(dtype)  # half precision counts as integers do
    assert found.tolist() == sorted([float(nearest), float(away)])
    spacing = float((found[1] - found[0]).abs())
    share = abs(float(x[0].double() - found[0])) / spacing
    band = 5 * spacing * math.sqrt(share * (1 - share) / n) + spacing * 2.0**-16
    assert abs(float(rounded.double().mean() - x[0].double())) < band


@pytest.mark.parametrize("dtype", HALF)
def test_what_fits_stays(dtype: torch.dtype) -> None:
    fits = Key(0).normal(0, 1, 10_000, like=torch.zeros(1))[0].to(dtype)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, 6e-8, -1.0]).to(dtype)
    x = torch.cat([fits, special])
    rounded = round_stochastically(x.float(), dtype, Key(1))
    assert torch.equal(rounded.view(torch.int16), x.view(torch.int16))
    assert round_stochastically(torch.tensor([math.nan]), dtype, Key(1)).isnan().all()


def test_every_number_of_float16_stays_whatever_the_chance() -> None:
    """Also where the sum of a number of steps and a chance has no place in single precision."""
    every = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    every = every[every.isfinite()]
    for number in range(20):
        rounded = round_stochastically(every.float(), torch.float16, Key(0).fold(number))
        assert torch.equal(rounded.view(torch.int16), every.view(torch.int16))
    largest = torch.full((2**20,), 1000 * 2.0**-24)
    assert (round_stochastically(largest, torch.float16, Key(1)).float() == largest).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a CUDA device")
@pytest.mark.parametrize("dtype", HALF)
def test_devices_round_without_bias(dtype: torch.dtype) -> None:
    n = 100_000
    x = torch.full((n,), 1 + 2.0**-12, device="cuda")
    rounded = round_stochastically(x, dtype, Key(0))
    assert torch.equal(rounded, round_stochastically(x, dtype, Key(0)))
    spacing = torch.finfo(dtype).eps
    share = 2.0**-12 / spacing
    assert abs(float(rounded.double().mean() - 1) - 2.0**-12) < 5 * spacing * math.sqrt(share / n)
    assert sorted(rounded.double().unique().tolist()) == [1.0, 1 + spacing]


def test_a_key_rounds_one_way() -> None:
    x = Key(0).normal(0, 1, 1000, like=torch.zeros(1))[0]
    one, two = (round_stochastically(x, torch.bfloat16, Key(0)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, round_stochastically(x, torch.bfloat16, Key(1)))


def test_only_single_precision_is_rounded_to_half() -> None:
    with pytest.raises(TypeError, match="dtype"):
        round_stochastically(torch.ones(1), torch.float32, Key(0))
    with pytest.raises(TypeError, match="values"):
        round_stochastically(torch.ones(1, dtype=torch.float64), torch.float16, Key(0))


def test_small_steps_move_half_weights_in_the_mean() -> None:
    """Steps of a fiftieth of the spacing: to the nearest, nothing would ever move."""
    weight = torch.nn.Parameter(torch.ones(20_000, dtype=torch.bfloat16))
    update = Descent(2.0**-7 / 50, sign=True)
    moved = []
    for step in range(50):
        estimate = Seeded(smoothing=1.0).estimate([weight], lambda: weight.float().sum(), Key(0), 2 + step)
        # All entries of sign(c z) against c > 0 and c < 0 alike: half of them up, half of them down.
        moved.append(apply_([weight], estimate, update).moved)
    # Up from 1 the spacing is 2^-7, down from it 2^-8.
    assert abs(sum(moved[:1]) - 1.5 / 50) < 0.01
    spread = float((weight.detach().double() - 1).std())
    # A walk of 50 steps of +-a, rounded: a^2 from the step and about a * spacing from rounding, each time.
    assert 2.0**-7 / 50 * math.sqrt(50) < spread < 2.0**-7 * 2
    assert abs(float(weight.detach().double().mean()) - 1) < 5 * spread / math.sqrt(20_000)
