"""One step of the particles about a consensus point that is held still: the schemes, and their stability.

Offsets v = x - c from the consensus point, xi standard normal, a = drift * dt, u = sigma * sqrt(dt):

    anisotropic   Euler-Maruyama   v_j  <-  v_j (1 - a + u xi_j)
                  exponential      v_j  <-  v_j exp(-a - u^2 / 2 + u xi_j)       (exact for still c)
    isotropic     Euler-Maruyama   v    <-  v (1 - a) + u |v| xi
                  exponential      v    <-  v exp(-a) + u |v| xi

Some papers write sqrt(2) sigma for what is sigma here: their 0.7 is our 1.

The published settings with which difficult functions are solved have sigma^2 > 2 drift, where the mean square
of v grows. What holds is that log |v| falls on average, so that almost every particle ends up at c, after
excursions that are the search. That average, E log |1 - a + u xi| for anisotropic noise, is least near
u = 0.75 and turns positive near u = 1.57: then swarms fly apart.
"""

from __future__ import annotations

import math

import numpy as np

from zoo.core.device import Array, array_module

NOISES = ("anisotropic", "isotropic")
INTEGRATORS = ("euler-maruyama", "exponential")

LARGE_NOISE = 1.2  # sigma sqrt(dt) above which swarms take very long to contract
LARGEST_NOISE = 1.5  # above which they may not contract at all


def move(
    v: Array,
    xi: Array,
    a: float,
    u: float,
    noise: str,
    integrator: str,
    truncation: float = math.inf,
    out: Array | None = None,
) -> Array:
    """Return offsets from the consensus point after one step.

    Args:
        v: Offsets before it, shape (m, n, dim).
        xi: Standard normal numbers of the same shape; neither is written to.
        a: drift * dt.
        u: sigma * sqrt(dt).
        noise: One of `NOISES`.
        integrator: One of `INTEGRATORS`.
        truncation: Distance at which noise stops growing.
        out: Where to write the result, or None for new memory.

    Example:
        >>> v, xi = np.full((1, 1, 2), 2.0), np.array([[[1.0, -1.0]]])
        >>> move(v, xi, 0.5, 0.25, "anisotropic", "euler-maruyama").tolist()
        [[[1.5, 0.5]]]
    """
    xp = array_module(v)
    if out is None:
        out = xp.empty_like(v)
    kept = math.exp(-a) if integrator == "exponential" else 1 - a
    # One operation after the other, none fused: processors round fused ones in another way at the end of an
    # array than before it, and a particle would depend on who is worked on together with it.
    if xi.dtype == out.dtype:
        xp.multiply(xi, u, out=out)
    else:
        out[...] = xi
        out *= u
    if noise == "isotropic":
        size = xp.sqrt((v * v).sum(-1))[..., None]
        out *= size if math.isinf(truncation) else size.clip(max=truncation)
        out += v * kept
    elif not math.isinf(truncation):
        out *= v.clip(-truncation, truncation)
        out += v * kept
    elif integrator == "exponential":
        out -= a + u * u / 2
        xp.exp(out, out=out)
        out *= v
    else:
        out += kept
        out *= v
    return out


def contraction(a: float, u: float, noise: str = "anisotropic", dim: int = 1) -> float:
    """Return E log of the factor by which a step changes the distance from a still consensus point.

    Negative where almost every particle converges; for the Euler-Maruyama scheme.

    Args:
        a: drift * dt.
        u: sigma * sqrt(dt).
        noise: "anisotropic", for a coordinate, or "isotropic", for the whole distance.
        dim: Coordinates; they matter to isotropic noise only.

    Example:
        >>> round(contraction(0.01, 0.51), 3), contraction(0.01, 1.7) > 0
        (-0.191, True)
    """
    if u == 0:
        return math.log(abs(1 - a)) if a != 1 else -math.inf
    # xi by its quantiles: the singularity of the logarithm is integrable, and misses the midpoints.
    from scipy.special import ndtri

    count = 2**18
    z = ndtri((np.arange(count) + 0.5) / count)
    along = 1 - a + u * z
    if noise == "anisotropic" or dim == 1:
        return float(np.log(np.abs(along)).mean())
    from scipy.special import gammaincinv

    # The other coordinates: u^2 chi^2 with dim - 1 degrees of freedom, its quantiles in another order.
    order = (np.arange(count) * 103_993) % count
    across = u * u * 2 * gammaincinv((dim - 1) / 2, (order + 0.5) / count)
    return float(np.log(along**2 + across).mean() / 2)
