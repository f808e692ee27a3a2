"""Problems of floats, integers and categories, whose minimum is known.

Each is a `MixedProblem`, by name in `PROBLEMS`:

* "ellipsoid": five floats and five integers in turn, weights spread over a condition number of 10^4; the
  unconstrained minimum lies between the integers.
* "ackley": three floats, three integers and two categories, many local minima.
* "rosenbrock": three floats and three integers in turn along the bent valley.
* "one-max": five floats to be brought to 0, and five categories each to its one right choice.
* "gear-train": four numbers of teeth, whose ratio is to come close to 1 / 6.931.
* "pressure-vessel": two thicknesses in steps of 1/16 inch, a radius and a length; what breaks a rule is
  penalised.

Sources: ellipsoid and one-max in the manner of R. Hamano, S. Saito, M. Nomura and S. Shirakawa, CMA-ES
with Margin, 2022, https://arxiv.org/abs/2205.13482; gear train and pressure vessel: E. Sandgren, Nonlinear
Integer and Discrete Programming in Mechanical Design Optimization, Journal of Mechanical Design 112
(1990); the minimum of the vessel: X.-S. Yang, C. Huyck, M. Karamanoglu and N. Khan, True Global Optimality
of the Pressure Vessel Design Problem, 2013, https://arxiv.org/abs/1403.7793.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zoo.core.space import Categorical, Float, Integer, Space

Values = Mapping[str, Any]


@dataclass(frozen=True)
class MixedProblem:
    """A problem whose minimum is known.

    Attributes:
        fun: Takes a point of `space`, returns a number.
        space: Where it is defined.
        optimum: A point at which it is least.
        minimum: Its value there.

    Example:
        >>> problem = PROBLEMS["gear-train"]
        >>> problem.fun(problem.optimum) == problem.minimum
        True
    """

    fun: Callable[[Any], float]
    space: Space
    optimum: Any
    minimum: float


_OFFSETS = (1.3, -2.3, 3.1, 0.4, -0.7, 4.2, -3.6, -1.7, 2.4, 3.3)


def ellipsoid(x: tuple[Any, ...]) -> float:
    """Return sum 10^(4 (i - 1) / 9) (x_i - s_i)^2 for ten variables, s being no integers.

    Example:
        >>> ellipsoid((1.3, -2, 3.1, 0, -0.7, 4, -3.6, -2, 2.4, 3)) == PROBLEMS["ellipsoid"].minimum
        True
    """
    return sum(10 ** (4 * i / 9) * (x[i] - offset) ** 2 for i, offset in enumerate(_OFFSETS))


def ackley(x: Values) -> float:
    """Return Ackley's function of "a", ..., "f", and 1 or more for "mode" and "kind" not being right.

    Example:
        >>> round(ackley(PROBLEMS["ackley"].optimum), 9)
        0.0
    """
    moved = [x[name] - shift for name, shift in zip("abcdef", _SHIFTS[x["kind"]], strict=True)]
    square, wave = sum(z * z for z in moved) / 6, sum(math.cos(2 * math.pi * z) for z in moved) / 6
    value = 20 - 20 * math.exp(-0.2 * math.sqrt(square)) + math.e - math.exp(wave)
    return value + _MODES[x["mode"]] + (0.0 if x["kind"] == 3 else 0.5)


_MODES = {"slow": 2.0, "medium": 1.0, "fast": 0.0}
_SHIFTS = {  # the best point of a kind is another one for each
    1: (1.5, 0.5, -1.5, 2, -1, 1),
    2: (-2.5, 1.5, 0.5, -2, 1, 2),
    3: (1.25, -2.25, 0.75, 2, -1, -3),
    4: (0.5, -1.5, 2.5, 1, -3, 0),
}


def rosenbrock(x: Values) -> float:
    """Return sum 100 (z_{i+1} - z_i^2)^2 + (1 - z_i)^2 for z = a, i, b, j, c, k.

    Example:
        >>> rosenbrock(dict.fromkeys("aibjck", 1))
        0.0
    """
    z = [float(x[name]) for name in "aibjck"]
    return sum(100 * (z[i + 1] - z[i] ** 2) ** 2 + (1 - z[i]) ** 2 for i in range(5))


def one_max(x: Values) -> float:
    """Return how many of five choices are wrong, plus the sum of the squares of five floats.

    Example:
        >>> one_max({**dict.fromkeys("abcde", 0.0), **_RIGHT})
        0.0
    """
    wrong = sum(x[name] != choice for name, choice in _RIGHT.items())
    return float(wrong + sum(x[name] ** 2 for name in "abcde"))


_RIGHT = {"p": "red", "q": "blue", "r": "green", "s": "white", "t": "black"}


def gear_train(x: Values) -> float:
    """Return (1 / 6.931 - a b / (c d))^2 for numbers of teeth.

    Example:
        >>> f"{gear_train({'a': 19, 'b': 16, 'c': 43, 'd': 49}):.4g}"
        '2.701e-12'
    """
    return float((1 / 6.931 - x["a"] * x["b"] / (x["c"] * x["d"])) ** 2)


def pressure_vessel(x: Values) -> float:
    """Return the cost of a vessel in dollars, plus 10^5 times by how much it breaks each rule, relatively.

    Shell and head are as many sixteenths of an inch thick; radius and length in inches.

    Example:
        >>> optimum = PROBLEMS["pressure-vessel"].optimum
        >>> round(pressure_vessel(optimum), 3)
        6059.714
    """
    shell, head, radius, length = x["shell"] / 16, x["head"] / 16, x["radius"], x["length"]
    cost = 0.6224 * shell * radius * length + 1.7781 * head * radius**2
    cost += 3.1661 * shell**2 * length + 19.84 * shell**2 * radius
    volume = math.pi * radius**2 * (length + 4 / 3 * radius)
    broken = (0.0193 * radius / shell - 1, 0.00954 * radius / head - 1, 1 - volume / 1296000)
    return float(cost + 1e5 * sum(max(0.0, rule) for rule in broken))


_RADIUS = 0.8125 / 0.0193
_LENGTH = 1296000 / (math.pi * _RADIUS**2) - 4 / 3 * _RADIUS
_BEST_VESSEL = {"shell": 13, "head": 7, "radius": _RADIUS, "length": _LENGTH}
_BEST_ELLIPSOID = tuple(round(s) if i % 2 else s for i, s in enumerate(_OFFSETS))
_BEST_ACKLEY = {**dict(zip("abcdef", _SHIFTS[3], strict=True)), "mode": "fast", "kind": 3}
_BEST_GEARS = {"a": 19, "b": 16, "c": 43, "d": 49}
_COLOURS = Categorical(["green", "red", "black", "blue", "white"])
_TEETH = Integer(12, 60)

PROBLEMS = {
    "ellipsoid": MixedProblem(
        ellipsoid,
        Space([Integer(-10, 10) if i % 2 else Float(-10, 10) for i in range(10)]),
        _BEST_ELLIPSOID,
        ellipsoid(_BEST_ELLIPSOID),
    ),
    "ackley": MixedProblem(
        ackley,
        Space(
            {
                **{name: Float(-5, 5) for name in "abc"},
                **{name: Integer(-5, 5) for name in "def"},
                "mode": Categorical(list(_MODES)),
                "kind": Categorical(list(_SHIFTS)),
            }
        ),
        _BEST_ACKLEY,
        ackley(_BEST_ACKLEY),
    ),
    "rosenbrock": MixedProblem(
        rosenbrock,
        Space({name: Float(-4, 8) if name in "abc" else Integer(-4, 8) for name in "aibjck"}),
        {"a": 1.0, "i": 1, "b": 1.0, "j": 1, "c": 1.0, "k": 1},
        0.0,
    ),
    "one-max": MixedProblem(
        one_max,
        Space({**{name: Float(-3, 5) for name in "abcde"}, **dict.fromkeys(_RIGHT, _COLOURS)}),
        {**dict.fromkeys("abcde", 0.0), **_RIGHT},
        0.0,
    ),
    "gear-train": MixedProblem(
        gear_train, Space(dict.fromkeys("abcd", _TEETH)), _BEST_GEARS, gear_train(_BEST_GEARS)
    ),
    "pressure-vessel": MixedProblem(
        pressure_vessel,
        Space(
            {
                "shell": Integer(1, 99),
                "head": Integer(1, 99),
                "radius": Float(10, 200),
                "length": Float(10, 200),
            }
        ),
        _BEST_VESSEL,
        pressure_vessel(_BEST_VESSEL),
    ),
}
