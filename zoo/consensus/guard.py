"""Warnings of noise so strong that swarms fly apart, and refusals."""

from __future__ import annotations

import functools
import math
import warnings

from zoo.consensus import dynamics
from zoo.core.errors import ZooWarning

WIDEST = 10.0  # units of `scale`; above it clouds of particles that truncated noise keeps apart are refused


def _remedy(what: str, allow: bool | None) -> str:
    return f"Take {what}." if allow is None else f"Take {what}, or say `allow_divergence=True`."


def check_drift(a: float, integrator: str, allow: bool | None, own: float = 0.0) -> None:
    """Refuse a drift that overshoots the consensus point by more than it came from.

    Args:
        a: drift * dt.
        integrator: Of the scheme.
        allow: Whether it is allowed; None where there is no such option.
        own: memory_drift * dt, which is added where a particle's own best point is at the consensus point.
    """
    if integrator == "euler-maruyama" and a + own >= 2 and not allow:
        sum_, remedy = "`drift`", "a smaller `drift` or `dt`"
        if own:
            sum_, remedy = "(`drift` + `memory_drift`)", "smaller drifts or a smaller `dt`"
        raise ValueError(
            f"{sum_} * dt must be below 2, got {a + own:.3g}: particles would overshoot further each step. "
            + _remedy(remedy, allow)
        )


def check_coordinates(u: float, allow: bool | None, stacklevel: int = 4) -> None:
    """Judge the noise of a coordinate, sigma sqrt(dt), in the Euler-Maruyama scheme."""
    u = round(u, 12)  # 15 * sqrt(.01) is not above 1.5
    if u > dynamics.LARGEST_NOISE and not allow:
        raise ValueError(
            f"`sigma` * sqrt(dt) must be at most {dynamics.LARGEST_NOISE}, got {u:.3g}: the swarm may fly "
            "apart. " + _remedy("a smaller `sigma` or `dt`", allow)
        )
    if u > dynamics.LARGE_NOISE:
        warnings.warn(
            f"`sigma` * sqrt(dt) is {u:.3g}; above {dynamics.LARGE_NOISE} swarms contract slowly, above 1.57 "
            "they fly apart.",
            ZooWarning,
            stacklevel=stacklevel + 1,
        )


def check_distance(a: float, u: float, dim: int, allow: bool | None, stacklevel: int = 3) -> None:
    """Judge isotropic noise, which is the stronger the more coordinates there are."""
    rate = _rate(a, u, dim)
    if rate < -1e-3:
        return
    what = f"`sigma` * sqrt(dt) of {u:.3g} with isotropic noise in {dim} variables"
    if rate > 0 and not allow:
        raise ValueError(
            f"{what} makes the swarm fly apart: distances grow by a factor of {math.exp(rate):.3g} a step. "
            + _remedy("`noise='anisotropic'` or a smaller `sigma` or `dt`", allow)
        )
    warnings.warn(
        f"{what} hardly lets the swarm contract, or not at all: distances change by a factor of "
        f"{math.exp(rate):.3g} a step.",
        ZooWarning,
        stacklevel=stacklevel + 1,
    )


def check_cloud(
    a: float, width: float, rate: float, scale: float, allow: bool | None, stacklevel: int = 3
) -> None:
    """Judge truncated noise, with which particles that cannot come together stay a cloud.

    Far from the consensus point it is u T xi, whatever the distance: with the drift, a cloud of standard
    deviation u T / sqrt(a (2 - a)) in every coordinate.

    Args:
        a: drift * dt.
        width: u T, sigma sqrt(dt) times the truncation.
        rate: How particles contract where noise is not truncated, as `dynamics.contraction` has it.
        scale: Distances that the search was begun with.
        allow: Whether a wide cloud is allowed.
        stacklevel: Of the warning.
    """
    cloud = width / math.sqrt(a * (2 - a)) if a < 2 else math.inf
    if rate <= 0 or cloud <= scale * (1 + 1e-9):
        return
    what = (
        f"`truncation` leaves noise that is too strong for the swarm to contract: it stays a cloud, "
        f"{cloud:.3g} wide where `scale` is {scale:.3g}"
    )
    remedy = "Take a smaller `truncation`, `sigma` or `dt`"
    if cloud > WIDEST * scale and not allow:
        raise ValueError(f"{what}. {remedy}, or say `allow_divergence=True`.")
    warnings.warn(f"{what}. {remedy}.", ZooWarning, stacklevel=stacklevel + 1)


def rate_of(a: float, u: float, noise: str, dim: int) -> float:
    """Return `dynamics.contraction`, computed once."""
    return _rate(a, u, dim if noise == "isotropic" else 1)


@functools.lru_cache(maxsize=64)
def _rate(a: float, u: float, dim: int) -> float:
    return dynamics.contraction(a, u, "isotropic", dim)
