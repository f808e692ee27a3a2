"""From the outputs of a network to actions: the same rules for all policies that are made of numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from evolution.environments.spaces import Actions, Continuous, Discrete, MultiDiscrete

Array = np.ndarray[Any, Any]
Rule: TypeAlias = Callable[[Array], Array]


def outputs_of(space: Actions) -> int:
    """Return how many numbers a network puts out for an action of this space.

    Example:
        >>> from evolution.environments.spaces import Discrete, MultiDiscrete
        >>> outputs_of(Discrete(4)), outputs_of(MultiDiscrete((2, 3)))
        (4, 5)
    """
    if isinstance(space, Discrete):
        return space.count
    if isinstance(space, MultiDiscrete):
        return sum(space.counts)
    return space.size


def rule_of(space: Actions) -> Rule:
    """Return a function from outputs, float32 of shape (outputs_of(space), k), to actions as `space` says.

    * One choice: the first of the largest outputs; 0 where one of them is NaN.
    * Several choices: the same in each group of outputs.
    * Switches: on where the output is above 0.
    * Numbers between two walls: middle + (high - low) / 2 output, not beyond the walls; so outputs from -1 to
      1 fill the box, and 0 is its middle. Where a wall is missing: the output itself, not beyond the other
      wall. What is not a number counts as 0.

    So an action is never NaN, whatever the outputs; it is infinite only where an output is and the wall is.

    Example:
        >>> import numpy as np
        >>> from evolution.environments.spaces import Continuous
        >>> rule_of(Continuous((0.0,), (1.0,)))(np.array([[-3.0, 0.0, 0.5]], np.float32))
        array([[0.  , 0.5 , 0.75]], dtype=float32)
    """
    if isinstance(space, Discrete):
        return _either if space.count == 2 else _largest
    if isinstance(space, MultiDiscrete):
        return _choices(space.counts)
    if isinstance(space, Continuous):
        return _numbers(space)
    return _switches


def _either(outputs: Array) -> Array:
    return (outputs[1] > outputs[0]).astype(np.int64)


def _largest(outputs: Array) -> Array:
    actions: Array = outputs.argmax(axis=0)
    if _has_nan(outputs):
        actions[np.isnan(outputs).any(axis=0)] = 0
    return actions


def _choices(counts: tuple[int, ...]) -> Rule:
    ends = np.cumsum(counts).tolist()
    groups = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]

    def rule(outputs: Array) -> Array:
        actions = np.empty((len(groups), outputs.shape[1]), np.int64)
        for i, group in enumerate(groups):
            actions[i] = _largest(outputs[group])
        return actions

    return rule


def _switches(outputs: Array) -> Array:
    return (outputs > 0).astype(np.int64)


def _numbers(space: Continuous) -> Rule:
    low = np.array(space.low, np.float32).reshape(-1, 1)
    high = np.array(space.high, np.float32).reshape(-1, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        width = high - low
    # A box of the largest float32 numbers is a way to write that there are no walls.
    is_box = np.isfinite(width)
    half = np.where(is_box, width / 2, np.float32(1))
    middle = np.where(is_box, low + half, np.float32(0))
    is_beyond = bool((is_box & ((middle + half > high) | (middle - half < low))).any())  # by rounding
    least, most = np.where(is_box, np.float32(-1), low), np.where(is_box, np.float32(1), high)
    is_unit = bool((half == 1).all() and (middle == 0).all())
    least, most, half, middle = map(_at_once, (least, most, half, middle))

    def rule(outputs: Array) -> Array:
        if _has_nan(outputs):
            outputs = np.where(np.isnan(outputs), np.float32(0), outputs)
        actions: Array = np.maximum(outputs, least)
        np.minimum(actions, most, out=actions)
        if not is_unit:
            actions *= half
            actions += middle
            if is_beyond:
                actions = np.minimum(np.maximum(actions, low), high)
        return actions

    return rule


def _at_once(column: Array) -> Array:
    """Return a single number where all are equal, which takes half the time."""
    return column[0, 0, ...] if (column == column[0]).all() else column


def _has_nan(values: Array) -> bool:
    """Return whether one is NaN: a sum of squares is so only then. A fifth of what `isnan` and `any` take."""
    total = np.vdot(values, values)
    return bool(total != total)
