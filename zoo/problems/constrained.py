"""Problems with constraints and known optima, most of them on the boundary of what is allowed.

Source: J. J. Liang, T. P. Runarsson, E. Mezura-Montes, M. Clerc, P. N. Suganthan, C. A. Coello Coello and
K. Deb, Problem Definitions and Evaluation Criteria for the CEC 2006 Special Session on Constrained
Real-Parameter Optimization, 2006, https://studylib.net/doc/18375378. Optima are more exact than those listed
there: conditions of optimality were solved with thirty digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.core.constraints import Constraint


@dataclass(frozen=True, eq=False)
class ConstrainedProblem:
    """A function, what its argument is to keep to, and the best that can be reached.

    Attributes:
        fun: Takes points x of shape (..., dim), returns values of shape (...).
        limits: Returns what may not be above 0, shape (..., m), or None.
        equalities: Returns what is to be 0, shape (..., k), or None.
        bounds: Pairs (lower, upper).
        x: Where the optimum is, shape (dim,).
        value: Its value.
    """

    fun: Callable[[Any], Any]
    limits: Callable[[Any], Any] | None
    equalities: Callable[[Any], Any] | None
    bounds: tuple[tuple[float, float], ...]
    x: tuple[float, ...]
    value: float

    def constraints(self, tol: float = 1e-6, *, vectorized: bool = False) -> list[Constraint]:
        """Return its constraints as `zoo.minimize` takes them.

        Args:
            tol: How far off equalities may be.
            vectorized: Whether they are to be given many points at once.

        Example:
            >>> import zoo
            >>> given = {"bounds": G24.bounds, "constraints": G24.constraints()}
            >>> best = zoo.minimize(G24.fun, **given, budget=300, rng=0)
            >>> bool(best.fun - G24.value < 1e-6), best.maxcv
            (True, 0.0)
        """
        limits = [] if self.limits is None else [Constraint(self.limits, upper=0, vectorized=vectorized)]
        if self.equalities is not None:
            limits.append(Constraint(self.equalities, 0, 0, tol=tol, vectorized=vectorized))
        return limits


def _variables(x: Any) -> Any:
    return (x[..., i] for i in range(x.shape[-1]))


def _row(*entries: Any) -> Any:
    if isinstance(entries[0], (np.ndarray, float)):
        return np.stack(entries, -1)
    import torch

    return torch.stack(entries, -1)


def _g04(x: Any) -> Any:
    a, _, c, _, e = _variables(x)
    return 5.3578547 * c**2 + 0.8356891 * a * e + 37.293239 * a - 40792.141


def _g04_limits(x: Any) -> Any:
    a, b, c, d, e = _variables(x)
    u = 85.334407 + 0.0056858 * b * e + 0.0006262 * a * d - 0.0022053 * c * e
    v = 80.51249 + 0.0071317 * b * e + 0.0029955 * a * b + 0.0021813 * c**2
    w = 9.300961 + 0.0047026 * c * e + 0.0012547 * a * c + 0.0019085 * c * d
    return _row(u - 92, -u, v - 110, 90 - v, w - 25, 20 - w)


def _g06(x: Any) -> Any:
    a, b = _variables(x)
    return (a - 10) ** 3 + (b - 20) ** 3


def _g06_limits(x: Any) -> Any:
    a, b = _variables(x)
    return _row(100 - (a - 5) ** 2 - (b - 5) ** 2, (a - 6) ** 2 + (b - 5) ** 2 - 82.81)


def _g08(x: Any) -> Any:
    a, b = _variables(x)
    sine = np.sin if isinstance(x, np.ndarray) else type(x).sin
    return -(sine(2 * math.pi * a) ** 3) * sine(2 * math.pi * b) / (a**3 * (a + b))


def _g08_limits(x: Any) -> Any:
    a, b = _variables(x)
    return _row(a**2 - b + 1, 1 - a + (b - 4) ** 2)


def _g09(x: Any) -> Any:
    a, b, c, d, e, f, g = _variables(x)
    first = (a - 10) ** 2 + 5 * (b - 12) ** 2 + c**4 + 3 * (d - 11) ** 2 + 10 * e**6
    return first + 7 * f**2 + g**4 - 4 * f * g - 10 * f - 8 * g


def _g09_limits(x: Any) -> Any:
    a, b, c, d, e, f, g = _variables(x)
    return _row(
        2 * a**2 + 3 * b**4 + c + 4 * d**2 + 5 * e - 127,
        7 * a + 3 * b + 10 * c**2 + d - e - 282,
        23 * a + b**2 + 6 * f**2 - 8 * g - 196,
        4 * a**2 + b**2 - 3 * a * b + 2 * c**2 + 5 * f - 11 * g,
    )


def _g11(x: Any) -> Any:
    a, b = _variables(x)
    return a**2 + (b - 1) ** 2


def _g11_equalities(x: Any) -> Any:
    a, b = _variables(x)
    return _row(b - a**2)


def _g24(x: Any) -> Any:
    a, b = _variables(x)
    return -a - b


def _g24_limits(x: Any) -> Any:
    a, b = _variables(x)
    return _row(
        b - 2 * a**4 + 8 * a**3 - 8 * a**2 - 2,
        b - 4 * a**4 + 32 * a**3 - 88 * a**2 + 96 * a - 36,
    )


G04 = ConstrainedProblem(
    _g04,
    _g04_limits,
    None,
    ((78.0, 102.0), (33.0, 45.0), (27.0, 45.0), (27.0, 45.0), (27.0, 45.0)),
    (78.0, 33.0, 29.9952560256816, 45.0, 36.77581290578821),
    -30665.53867178332,
)
"""Quadratic, 5 variables, 6 limits: a corner of three walls and two limits."""

G06 = ConstrainedProblem(
    _g06,
    _g06_limits,
    None,
    ((13.0, 100.0), (0.0, 100.0)),
    (14.095, 5 - math.sqrt(100 - 9.095**2)),
    4.095**3 - (15 + math.sqrt(100 - 9.095**2)) ** 3,
)
"""Cubic, 2 variables: the tip of a sickle between two circles that takes up .00007 of the box."""

G08 = ConstrainedProblem(
    _g08,
    _g08_limits,
    None,
    ((1e-9, 10.0), (1e-9, 10.0)),
    (1.2279713527638443, 4.2453733664584182),
    -0.0958250414180359,
)
"""Many waves, 2 variables: inside a region of .009 of the box, with far lower values outside."""

G09 = ConstrainedProblem(
    _g09,
    _g09_limits,
    None,
    ((-10.0, 10.0),) * 7,
    (
        2.33049937287957,
        1.951372372896889,
        -0.47754139238887163,
        4.3657262336558102,
        -0.62448697052681741,
        1.0381310186079583,
        1.5942267116118685,
    ),
    680.630057374402,
)
"""Powers of up to 6, 7 variables, 4 limits, two of them active."""

G11 = ConstrainedProblem(_g11, None, _g11_equalities, ((-1.0, 1.0), (-1.0, 1.0)), (math.sqrt(0.5), 0.5), 0.75)
"""Quadratic, 2 variables, one equality that is a parabola; the mirror image of `x` is an optimum, too."""

G24 = ConstrainedProblem(
    _g24,
    _g24_limits,
    None,
    ((0.0, 3.0), (0.0, 4.0)),
    (2.3295201974776055, 3.1784930741176684),
    -5.50801327159527391,
)
"""Linear, 2 variables, two regions that do not touch: the corner of the better one."""

PROBLEMS = {"G04": G04, "G06": G06, "G08": G08, "G09": G09, "G11": G11, "G24": G24}
"""By their names in CEC 2006."""
