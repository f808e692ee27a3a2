"""Warnings of noise so strong that swarms fly apart, and refusals."""

from __future__ import annotations

import functools
import math
import warnings

from zoo.consensus import dynamics
from zoo.core.errors import ZooWarning

_REMEDY = "Take a smaller `sigma` or `dt`, or say `allow_divergence=True`."


def check_drift(a: float, integrator: str, allow: bool) -> None:
    """Refuse a drift that overshoots the consensus point by more than it came from."""
    if integrator == "euler-maruyama" and a >= 2 and not allow:
        raise ValueError(
            f"`drift` * dt must be below 2, got {a:.3g}: particles would overshoot further each step. Take a "
            "smaller `drift` or `dt`, or say `allow_divergence=True`."
        )


def check_coordinates(u: float, allow: bool, stacklevel: int = 4) -> None:
    """Judge the noise of a coordinate, sigma sqrt(dt), in the Euler-Maruyama scheme."""
    u = round(u, 12)  # 15 * sqrt(.01) is not above 1.5
    if u > dynamics.LARGEST_NOISE and not allow:
        raise ValueError(
            f"`sigma` * sqrt(dt) must be at most {dynamics.LARGEST_NOISE}, got {u:.3g}: the swarm may fly "
            f"apart. {_REMEDY}"
        )
    if u > dynamics.LARGE_NOISE:
        warnings.warn(
            f"`sigma` * sqrt(dt) is {u:.3g}; above {dynamics.LARGE_NOISE} swarms contract slowly, above 1.57 "
            "they fly apart.",
            ZooWarning,
            stacklevel=stacklevel + 1,
        )


def check_distance(a: float, u: float, dim: int, allow: bool, stacklevel: int = 3) -> None:
    """Judge isotropic noise, which is the stronger the more coordinates there are."""
    rate = _rate(a, u, dim)
    if rate < -1e-3:
        return
    what = f"`sigma` * sqrt(dt) of {u:.3g} with isotropic noise in {dim} variables"
    if rate > 0 and not allow:
        raise ValueError(
            f"{what} makes the swarm fly apart: distances grow by a factor of {math.exp(rate):.3g} a step. "
            f"Take `noise='anisotropic'`, a smaller `sigma` or `dt`, or say `allow_divergence=True`."
        )
    warnings.warn(
        f"{what} hardly lets the swarm contract, or not at all: distances change by a factor of "
        f"{math.exp(rate):.3g} a step.",
        ZooWarning,
        stacklevel=stacklevel + 1,
    )


@functools.lru_cache(maxsize=64)
def _rate(a: float, u: float, dim: int) -> float:
    return dynamics.contraction(a, u, "isotropic", dim)
