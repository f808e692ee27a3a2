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
    bounds: tuple[tuple[float, float], ...] | None = None
    dim: int | None = None
    minimum: float | None = None
    at: str = ""
    space: Any = None
    constraints: Any = ()
    vectorized: bool = False
    several: bool = False
    movable: bool = False


_BOXES = {  # half the width, or both ends, and where the minimum is
    "ackley": (32.768, "0"),
    "cigar": (5.0, "0"),
    "different_powers": (5.0, "0"),
    "discus": (5.0, "0"),
    "ellipsoid": (5.0, "0"),
    "griewank": (600.0, "0"),
    "levy": (10.0, "1"),
    "rastrigin": (5.12, "0"),
    "rosenbrock": (5.0, "1"),
    "schwefel": (500.0, "420.968746"),
    "sphere": (5.0, "0"),
}
_CONSTRAINED = {
    "G04": "quadratic, six limits",
    "G06": "cubic, the tip of a sickle between two circles",
    "G08": "many waves, lower values outside than inside",
    "G09": "polynomial of degree six, four limits",
    "G11": "quadratic, on a curve",
    "G24": "linear, two regions apart from each other",
}


def _said(fun: Any) -> str:
    """Return what a function computes, in the words of its docstring."""
    first = (inspect.getdoc(fun) or "").partition("\n\n")[0]
    return re.split(r"(?<!\.)\.(?:\s|$)", " ".join(first.split()).removeprefix("Return "))[0]


def _all() -> dict[str, Problem]:
    found = []
    for name, (half, at) in _BOXES.items():
        found.append(
            Problem(
                name,
                f"zoo.problems:{name}",
                _said(getattr(problems, name)),
                ((-half, half),),
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
                one.bounds,
                len(one.x),
                one.value,
                ", ".join(f"{value:.6g}" for value in one.x),
                constraints=one.constraints(),
            )
        )
    for name, task in mixed.PROBLEMS.items():
        found.append(
            Problem(
                f"mixed-{name}" if name in _BOXES else name,
                f"zoo.problems.mixed:{name.replace('-', '_')}",
                _said(task.fun),
                dim=len(task.space),
                minimum=task.minimum,
                at=_point(task.optimum),
                space=task.space,
            )
        )
    for fun in (several.zdt1, several.zdt2, several.zdt3, several.schaffer):
        box = (-4.0, 4.0) if fun is several.schaffer else (0.0, 1.0)
        name = fun.__name__
        found.append(Problem(name, f"zoo.problems.several:{name}", _said(fun), (box,), several=True))
    svm = tasks.SupportVectorTuning
    found.append(
        Problem("svm", "zoo.problems.tasks:SupportVectorTuning()", _said(svm), tuple(svm.bounds), dim=svm.dim)
    )
    return {one.name: one for one in found}


def _point(point: Any) -> str:
    items = point.items() if isinstance(point, dict) else enumerate(point)
    return ", ".join(f"{key}={f'{v:.6g}' if isinstance(v, float) else v}" for key, v in items)


PROBLEMS = _all()
"""All of them."""
