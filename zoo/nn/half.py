"""Half-precision weights that small steps still move: rounding up or down by chance.

A weight of bfloat16 is one of 256 values between two powers of two. A step of a thousandth of the weight is
less than half the distance to the next one, and rounding to the nearest would undo it each time. Rounded
stochastically, it moves the weight with just the probability that makes the mean right:

    round(x) = x_up with probability (x - x_down) / (x_up - x_down), else x_down

with x_down <= x <= x_up the neighbours of x that half precision has. The other way, a remainder of single
precision for each weight, would triple the memory of weights; a digit classifier fine-tuned by forward passes
ended with the same accuracy in bfloat16 rounded this way as in float32.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zoo.core.rng import Key

HALF = (torch.float16, torch.bfloat16)
_SPARE = {torch.bfloat16: 16, torch.float16: 13}  # binary digits that float32 has more
_SMALLEST = 2.0**-14  # normal number of float16; below, all are 2^-24 apart


def round_stochastically(values: Tensor, dtype: torch.dtype, key: Key) -> Tensor:
    """Return numbers rounded to half precision, up or down by chance, so that the mean is exact.

    What half precision can hold stays as it is, and infinity and NaN do. Numbers of float16 below 6e-5 are
    rounded up with a probability that is a multiple of 2^-16, all others with exactly the right one.

    Args:
        values: Numbers of single precision, any shape.
        dtype: `torch.bfloat16` or `torch.float16`.
        key: Where the chance comes from; the same key rounds the same way on the same kind of device.

    Raises:
        TypeError: `values` are not of single precision, or `dtype` is no half one.

    Example:
        >>> third = torch.full((30_000,), 1 + 2**-7 / 3)
        >>> rounded = round_stochastically(third, torch.bfloat16, Key(0)).double()
        >>> [round(x, 4) for x in rounded.unique().tolist()]
        [1.0, 1.0078]
        >>> abs(float(rounded.mean() - third.double().mean())) < 1e-4
        True

    References:
        Gupta, Agrawal, Gopalakrishnan and Narayanan, "Deep learning with limited numerical precision", 2015.
        https://arxiv.org/abs/1502.02551
    """
    if dtype not in _SPARE:
        raise TypeError(f"`dtype` must be torch.bfloat16 or torch.float16, got {dtype}.")
    if values.dtype != torch.float32:
        raise TypeError(f"`values` must be of torch.float32, got {values.dtype}.")
    spare = _SPARE[dtype]
    chance = _chance(key, values)
    bits = values.contiguous().view(torch.int32) + (chance >> (16 - spare))
    rounded = (bits & -(1 << spare)).view(torch.float32)
    if dtype == torch.float16:
        steps = values.abs() * 2.0**24
        whole = torch.floor(steps)
        # The sum of steps and chance would itself be rounded, and up to the next whole number at worst.
        below = (whole + (chance * 2.0**-16 >= 1 - (steps - whole))) * 2.0**-24
        rounded = torch.where(values.abs() < _SMALLEST, torch.copysign(below, values), rounded)
    # Carrying into a NaN's sign bit would give something else.
    return torch.where(values.isfinite(), rounded, values).to(dtype)


def _chance(key: Key, like: Tensor) -> Tensor:
    """Return integers of 16 bits in 32, of the shape and device of `like`."""
    if like.device.type != "cpu":
        drawn = key.uniform(0, 1, like.numel(), like=like)[0]
        return drawn.mul_(2.0**16).to(torch.int32).view(like.shape)
    words = key.generator().bit_generator.random_raw(-(-like.numel() // 4))
    halves = np.asarray(words, "<u8").view("<u2")[: like.numel()].astype(np.int32)
    return torch.from_numpy(halves).view(like.shape)
