"""What a session is told, in the form of an objective: so it goes the way that all values go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from zoo.core.constraints import RAISED, ConstrainedObjective
from zoo.core.device import to_numpy
from zoo.core.errors import EvaluationError
from zoo.core.front import SeveralObjectives
from zoo.core.objective import Objective, as_number
from zoo.core.rng import Key
from zoo.core.types import Candidates, Evaluations, Failure, Reply

ABANDONED = "abandoned"
"""Kind of the failures of evaluations that were given up."""


class Told(Objective):
    """The objective of a session: what is made of the points, outside of the library.

    Attributes:
        answers: What was told, by row.
    """

    NAME = "what a zoo.Session is told"
    unit = 1

    def __init__(self) -> None:
        self.answers: Mapping[int, Evaluations] = {}

    def evaluate(self, candidates: Candidates, start: int, stop: int, *, key: Key, step: int) -> Evaluations:
        return self.answers[start]

    def identity(self) -> dict[str, Any]:
        return {"name": self.NAME}


def as_answer(
    number: int, row: int, value: Any, constraints: Any, objective: Objective, is_several: bool
) -> Evaluations:
    """Return what was told of a trial.

    Args:
        number: Its id.
        row: Its row in the step.
        value: Its value, or a row of objectives; NaN and infinities are failed.
        constraints: A row of what may not be above 0, or None; NaN and infinities are failed.
        objective: The session's, `Told` or a `ConstrainedObjective` around it.
        is_several: Whether there are several objectives.

    Raises:
        TypeError: `value` or `constraints` are no numbers, or missing, or too much.
    """
    kind = "a row of numbers" if is_several else "a number"
    try:
        if is_several:
            told = SeveralObjectives(lambda _: value)(np.zeros((1, 1)), key=Key(0))
        else:
            told = Evaluations(np.array([as_number(value)]))
    except TypeError:
        raise TypeError(f"the value of trial {number} must be {kind}, or NaN, got {value!r}.") from None
    is_constrained = isinstance(objective, ConstrainedObjective)
    if constraints is not None and not is_constrained:
        raise TypeError("`constraints` must be left out: this session was made without any.")
    if np.isnan(told.values[0]):
        return failed(row, "returned", f"told {value}")
    if constraints is None:
        if isinstance(objective, ConstrainedObjective) and not objective.constraints:
            raise TypeError(f"`constraints` of trial {number} must be told along with its value.")
        return told
    beside = np.atleast_1d(to_numpy(constraints))
    if beside.ndim != 1 or beside.dtype.kind not in "fiub":
        raise TypeError(f"`constraints` of trial {number} must be a row of numbers, got {constraints!r}.")
    if not np.isfinite(beside).all():
        return failed(row, "returned", f"told the constraints {beside.tolist()}")
    return Evaluations(told.values, extras={**told.extras, "constraints": beside[None]})


def failed(row: int, kind: str, message: str) -> Evaluations:
    """Return the answer for a trial that has no value."""
    return Evaluations(np.array([np.nan]), (Failure(row, kind, message),))


def replies_to(
    objective: Objective, candidates: Candidates, first_id: int, rows: list[int], key: Key, step: int
) -> list[Reply]:
    """Return the answers that an objective around `Told` holds, with the constraints that are functions.

    Args:
        objective: `Told`, or a `ConstrainedObjective` around it.
        candidates: Of the step.
        first_id: Id of row 0.
        rows: Which ones, in order.
        key: Randomness of the constraints.
        step: Number of the step.

    Raises:
        EvaluationError: A constraint raised.
    """
    replies = [
        objective.evaluate_units(candidates, range(start, stop + 1), key=key, step=step)
        for start, stop in runs(rows)
    ]
    for failure in (failure for reply in replies for failure in reply.failures):
        if failure.kind == "raised":
            number = first_id + failure.row
            raise EvaluationError(
                f"a constraint of trial {number} raised: {failure.message.removeprefix(RAISED)}",
                evaluation=number,
                details=failure.details,
            )
    return replies


def widths_of(before: Mapping[str, int], replies: list[Reply]) -> dict[str, int]:
    """Return how many numbers there are beside a value, by name.

    Raises:
        ValueError: A reply has another number of them than those before.
    """
    widths = dict(before)
    for name, extra in (entry for reply in replies for entry in reply.extras.items()):
        if widths.setdefault(name, extra.shape[1]) != extra.shape[1]:
            raise ValueError(
                f"all trials must have as many {name}, got {extra.shape[1]} where there were {widths[name]} "
                "before."
            )
    return widths


def runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the runs of consecutive numbers, as (first, one past the last).

    Example:
        >>> list(runs([1, 2, 5, 3]))
        [(1, 3), (5, 6), (3, 4)]
    """
    first = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            yield numbers[first], numbers[i - 1] + 1
            first = i
