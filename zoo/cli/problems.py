"""The problems of `zoo.problems` by name, with what is known of them."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from zoo import problems
from zoo.problems import constrained, mixed, several, tasks


@dataclass(frozen=True)
class Problem:
    """A problem that comes along.

    Attributes:
        name: Its name on the command line.
        spec: Its name as an objective.
        summary: One line.
        formula: What it computes.
        bounds: One pair for all variables, or one for each; None where there is a space.
        dim: Number of variables, None for any.
        minimum: The lowest value that keeps to its constraints, None where it is not known.
        at: Where that is, as text.
        space: What it is a function of, if that is not rows.
        constraints: What `constraints` is given.
        vectorized: Whether its function takes many points at once.
        several: Whether it has several objectives.
        movable: Whether it may be looked at in another box, with the same minimum.
    """

    name: str
    spec: str
    summary: str
    formula: str = ""
    bounds: tuple[tuple[float, float], ...] | None = None
    dim: int | None = None
    minimum: float | None = None
    at: str = ""
    space: Any = None
    constraints: Any = ()
    vectorized: bool = False
    several: bool = False
    movable: bool = False


_SYNTHETIC = {  # half the width of the box, and where the minimum is
    "ackley": (32.768, "0", "rough and nearly flat, with a funnel"),
    "calm_canyon": (8.0, "0", "a winding canyon"),
    "canyon": (8.0, "0", "a winding canyon with a rippled floor"),
    "cigar": (5.0, "0", "one long axis"),
    "different_powers": (5.0, "0", "ever flatter near its minimum"),
    "discus": (5.0, "0", "one short axis"),
    "ellipsoid": (5.0, "0", "axes of very different lengths"),
    "griewank": (600.0, "0", "many shallow minima"),
    "levy": (10.0, "1", "waves on parabolas"),
    "rastrigin": (5.12, "0", "minima near all whole numbers, in a bowl"),
    "rosenbrock": (5.0, "1", "a bent valley"),
    "schwefel": (500.0, "420.968746", "deep minima far from each other"),
    "sphere": (5.0, "0", "a round bowl"),
}
_CONSTRAINED = {
    "G04": "six limits, the minimum in a corner of walls",
    "G06": "two limits, the tip of a sickle",
    "G08": "two limits, waves that are lower outside",
    "G09": "four limits",
    "G11": "one equality, a curve",
    "G24": "two limits, two regions apart from each other",
}
_MIXED = {
    "ellipsoid": "five integers, five floats, axes of different lengths",
    "ackley": "integers, floats and two choices, many minima",
    "rosenbrock": "three integers, three floats, a bent valley",
    "one-max": "five floats, and five choices to be got right",
    "gear-train": "numbers of teeth for a ratio",
    "pressure-vessel": "the cost of a vessel that must hold",
}
_SEVERAL = {
    "zdt1": "two objectives, a convex front",
    "zdt2": "two objectives, a concave front",
    "zdt3": "two objectives, a front in five pieces",
    "schaffer": "two objectives, two round bowls",
}


def _said(fun: Any) -> str:
    """Return what a function computes, in the words of its docstring."""
    first = (inspect.getdoc(fun) or "").partition("\n\n")[0]
    return re.split(r"(?<!\.)\.(?:\s|$)", " ".join(first.split()).removeprefix("Return "))[0]


def _all() -> dict[str, Problem]:
    found = []
    for name, (half, at, summary) in _SYNTHETIC.items():
        found.append(
            Problem(
                name,
                f"zoo.problems:{name}",
                summary,
                _said(getattr(problems, name)),
                ((-half, half),),
                dim=2 if name.endswith("canyon") else None,
                minimum=0.0,
                at=f"all {at}",
                vectorized=True,
                movable=name != "schwefel",  # which is lower outside its box
            )
        )
    for name, summary in _CONSTRAINED.items():
        one = constrained.PROBLEMS[name]
        found.append(
            Problem(
                name.lower(),
                f"zoo.problems.constrained:{name}.fun",
                summary,
                bounds=one.bounds,
                dim=len(one.x),
                minimum=one.value,
                at=", ".join(f"{value:.6g}" for value in one.x),
                constraints=one.constraints(),
            )
        )
    for name, summary in _MIXED.items():
        task = mixed.PROBLEMS[name]
        found.append(
            Problem(
                f"mixed-{name}" if name in _SYNTHETIC else name,
                f"zoo.problems.mixed:{name.replace('-', '_')}",
                summary,
                _said(task.fun),
                dim=len(task.space),
                minimum=task.minimum,
                at=_point(task.optimum),
                space=task.space,
            )
        )
    for name, summary in _SEVERAL.items():
        box = (-4.0, 4.0) if name == "schaffer" else (0.0, 1.0)
        said = _said(getattr(several, name))
        found.append(Problem(name, f"zoo.problems.several:{name}", summary, said, (box,), several=True))
    svm = tasks.SupportVectorTuning
    words = "a support-vector machine on real data (needs scikit-learn)"
    spec = "zoo.problems.tasks:SupportVectorTuning()"
    found.append(Problem("svm", spec, words, _said(svm), bounds=svm.bounds, dim=svm.dim))
    return {one.name: one for one in found}


def _point(point: Any) -> str:
    items = point.items() if isinstance(point, dict) else enumerate(point)
    return ", ".join(f"{key}={f'{v:.6g}' if isinstance(v, float) else v}" for key, v in items)


PROBLEMS = _all()
"""All of them."""
