"""The table of methods: one row each, and the row buys every test of `tests/contracts`.

A new method needs its file, its entry in `zoo.registry`, and its row here.

Traits, each a promise that is tested:

* "translation": moving the problem moves the search along.
* "scaling": the search is the same for a f + b, a > 0, up to rounding.
* "deterministic": as long as the method does not start again, its key changes nothing.
* "monotone": the search is the same, to the last bit, for any increasing function of f.

And one that takes promises back:

* "manifold": candidates stay on a surface through x0. Bounds are refused, and one variable alone has no room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.core.types import Optimizer
from zoo.registry import find

Function = Callable[[np.ndarray[Any, Any]], float]


@dataclass(frozen=True)
class Problem:
    """Something on which a method has to do better than chance.

    Attributes:
        fun: Name of a function in `zoo.problems`.
        x0: Start.
        budget: Evaluations.
    """

    fun: str
    x0: tuple[float, ...]
    budget: int


SPHERE = Problem("sphere", (1.0, -2.0, 1.5, 0.5, -1.0, 2.0, 1.0, -0.5), 400)
ELLIPSOID = Problem("ellipsoid", (1.0, -2.0, 1.5, 0.5, -1.0), 600)
ROSENBROCK = Problem("rosenbrock", (-1.2, 1.0, -0.5, 0.5), 800)
SPHERICAL = Problem("rosenbrock", (-1.0, 1.0, -1.0, 1.0), 800)  # the optimum is as far from 0 as the start
EXPENSIVE = Problem("rosenbrock", (-1.2, 1.0, -0.5), 40)


@dataclass(frozen=True)
class Case:
    """One method.

    Attributes:
        method: Its name in the registry.
        traits: What it promises beyond the contract, see above.
        problem: Where it has to beat random search; None for random search itself.
        options: Options that the tests build it with.
    """

    method: str
    traits: frozenset[str]
    problem: Problem | None
    options: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Optimizer[Any]:
        """Return the method."""
        return find(self.method).build(self.options)


_RANKS = frozenset({"translation", "scaling", "monotone"})
_DESCENT = frozenset({"translation", "scaling"})
_FIXED = frozenset({"translation", "scaling", "deterministic"})

CASES = (
    Case("cma", _RANKS, ROSENBROCK),
    # Their stopping rules, and so their restarts, look at values and not at ranks alone.
    Case("bipop-cma", frozenset({"translation"}), ROSENBROCK),
    Case("ipop-cma", frozenset({"translation"}), ROSENBROCK),
    Case("lq-cma", _DESCENT, ROSENBROCK),
    Case("lm-ma-es", _RANKS, SPHERE),
    Case("sep-cma", _RANKS, ELLIPSOID),
    Case("xnes", _RANKS, ROSENBROCK),
    Case("snes", _RANKS, ELLIPSOID),
    Case("pgpe", _RANKS, ELLIPSOID),
    Case("openai-es", _RANKS, SPHERE),
    Case("pycma", _RANKS, ROSENBROCK),
    Case("zo-sgd", _DESCENT, SPHERE),
    Case("zo-adam", _DESCENT, SPHERE),
    Case("zo-adamm", _DESCENT, SPHERE),
    Case("zo-sign", _DESCENT, SPHERE),
    Case("spsa", _DESCENT, SPHERE),
    Case("coordinate-descent", _DESCENT, SPHERE),
    Case("hizoo", _DESCENT, ELLIPSOID),
    Case("random-descent", _DESCENT, SPHERE),
    Case("de", _RANKS, ROSENBROCK),
    Case(
        "gp",
        frozenset(),
        EXPENSIVE,
        {"batch_size": 5, "num_candidates": 100, "num_refined": 1, "max_points": 40},
    ),
    Case("pso", _RANKS, ROSENBROCK),
    Case("ch", frozenset({"translation", "scaling"}), SPHERE, {"num_particles": 20}),
    Case("cbo-pso", _RANKS, ROSENBROCK, {"num_particles": 20}),
    Case("cbo-adam", _DESCENT, ROSENBROCK),
    Case("cbs", _DESCENT, ELLIPSOID),
    Case("cbo-frozen", _DESCENT, SPHERE),
    Case("cbo", _RANKS, SPHERE),
    Case("cbo-curvature", frozenset(), SPHERE),
    # The default noise is for budgets a hundred times as large.
    Case("cbo-textbook", frozenset({"translation"}), SPHERE, {"sigma": 5.0}),
    Case("nelder-mead", _FIXED | {"monotone"}, ROSENBROCK, {"restarts": True}),
    Case("powell", _FIXED, ROSENBROCK, {"restarts": True}),
    Case("cobyqa", _FIXED, EXPENSIVE, {"restarts": True}),
    Case("lbfgs", _FIXED, ROSENBROCK, {"restarts": True}),
    Case("l-bfgs-b", _FIXED - {"scaling"}, ROSENBROCK, {"restarts": True}),
    Case("bfgs", _FIXED - {"scaling"}, ROSENBROCK, {"restarts": True}),
    Case("scipy-de", _RANKS, SPHERE, {"popsize": 3}),
    Case("dual-annealing", frozenset({"translation"}), ELLIPSOID),
    Case("direct", _FIXED, SPHERE),
    Case("nsga2", _RANKS, SPHERE, {"population_size": 20}),
    Case("cbo-polarized", _DESCENT, SPHERE, {"num_particles": 12}),
    Case("cbo-pareto", _DESCENT, SPHERE, {"num_particles": 20}),
    Case("cbo-manifold", frozenset({"scaling", "monotone", "manifold"}), SPHERICAL),
    Case("cbo-mirror", _RANKS, SPHERE),
    Case("cbo-penalty", _RANKS, SPHERE),
    Case("random", _RANKS, None),
)
