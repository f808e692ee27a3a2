"""Numbers that change from step to step, such as learning rates: functions of the step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from zoo.core.device import Array
from zoo.core.validation import check_count, check_number, check_positive


class Schedule(Protocol):
    """A frozen dataclass that says what a number is at step 0, 1, ...; nobody has to remember anything."""

    def value(self, step: int) -> float:
        """Return the number at a step, counted from 0."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same at every step.

    Args:
        peak: The number, a finite one of at least 0.

    Example:
        >>> Constant(0.1).value(1000)
        0.1
    """

    peak: float

    def __post_init__(self) -> None:
        _check_least("peak", self.peak)

    def value(self, step: int) -> float:
        """Return the number, whatever the step."""
        del step
        return self.peak


@dataclass(frozen=True)
class Cosine:
    """Half a wave of a cosine, from a peak at step 0 down to an end at step `steps`, which it keeps then.

        end + (peak - end) (1 + cos(pi step / steps)) / 2

    Args:
        peak: Where it starts, above 0.
        steps: Steps it takes, at least 1.
        end: Where it ends, at least 0 and at most `peak`.

    Raises:
        TypeError: An argument is no number, or `steps` no integer.
        ValueError: An argument is out of range.

    Example:
        >>> cosine = Cosine(0.2, 100)
        >>> [round(cosine.value(step), 6) for step in (0, 50, 100, 200)]
        [0.2, 0.1, 0.0, 0.0]

    References:
        Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
        https://arxiv.org/abs/1608.03983
    """

    peak: float
    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        check_positive("peak", self.peak)
        check_count("steps", self.steps)
        _check_least("end", self.end)
        if self.end > self.peak:
            raise ValueError(f"`end` must be at most `peak`, {self.peak!r}, got {self.end!r}.")

    def value(self, step: int) -> float:
        """Return the number at a step, counted from 0."""
        share = min(step, self.steps) / self.steps
        return self.end + (self.peak - self.end) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class StepDecay:
    """A number that is multiplied by a factor every so many steps: peak factor^floor(step / every).

    Args:
        peak: Where it starts, above 0.
        every: Steps between falls, at least 1.
        factor: What it is multiplied by, above 0 and at most 1.

    Example:
        >>> decay = StepDecay(1.0, 30, 0.1)
        >>> [round(decay.value(step), 6) for step in (0, 29, 30, 60)]
        [1.0, 1.0, 0.1, 0.01]
    """

    peak: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_positive("peak", self.peak)
        check_count("every", self.every)
        if not 0 < check_number("factor", self.factor) <= 1:
            raise ValueError(f"`factor` must be above 0 and at most 1, got {self.factor!r}.")

    def value(self, step: int) -> float:
        """Return the number at a step, counted from 0."""
        return self.peak * self.factor ** (step // self.every)


@dataclass(frozen=True)
class Warmup:
    """A straight way up to where another schedule begins, and then that schedule from its own step 0 on.

    Step s of the first n has the share (s + 1) / n of where the other one begins: the first step does
    something, and the last of the n has all of it.

    Args:
        steps: Steps of the way up, n; at least 0.
        then: What follows: a schedule, or a number for a constant one.

    Example:
        >>> warm = Warmup(4, Cosine(0.8, 10))
        >>> [round(warm.value(step), 6) for step in (0, 1, 3, 4, 9, 14)]
        [0.2, 0.4, 0.8, 0.8, 0.4, 0.0]

    References:
        Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017.
        https://arxiv.org/abs/1706.02677
    """

    steps: int
    then: Any
    after: Schedule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_count("steps", self.steps, minimum=0)
        object.__setattr__(self, "after", as_schedule("then", self.then))

    def value(self, step: int) -> float:
        """Return the number at a step, counted from 0."""
        if step < self.steps:
            return self.after.value(0) * ((step + 1) / self.steps)
        return self.after.value(step - self.steps)


@dataclass(frozen=True)
class Scheduled:
    """An update: gradient k, counted from 0, times the schedule's value at k.

    As the last part of a `zoo.updates.chain.Chain`, with a learning rate of 1, it gives a descent a learning
    rate that is a schedule.

    Args:
        schedule: A schedule, or a number for a constant one.

    Example:
        >>> import numpy as np
        >>> update = Scheduled(StepDecay(0.5, every=1, factor=0.1))
        >>> memory, first = update.update(update.init(np.zeros(1)), np.ones(1))
        >>> first.tolist(), update.update(memory, np.ones(1))[1].tolist()
        ([0.5], [0.05])
    """

    schedule: Any
    made: Schedule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "made", as_schedule("schedule", self.schedule))

    def init(self, x: Array) -> int:
        """Return the number of gradients so far, 0."""
        del x
        return 0

    def update(self, memory: int, gradient: Array) -> tuple[int, Array]:
        """Return the number of gradients so far, and the gradient as long as it is to be."""
        return memory + 1, gradient * self.made.value(memory)


def as_schedule(name: str, value: object) -> Schedule:
    """Return a schedule as it is, and a number as a constant one.

    Args:
        name: The argument that it was given as.
        value: A schedule, or a finite number of at least 0.

    Raises:
        TypeError: `value` is neither.
        ValueError: It is a number that is negative or not finite.

    Example:
        >>> as_schedule("learning_rate", 0.5).value(7)
        0.5
    """
    if callable(getattr(value, "value", None)):
        schedule: Any = value
        return schedule
    _check_least(name, value)
    return Constant(float(value))  # type: ignore[arg-type]


def _check_least(name: str, value: object) -> None:
    if not 0 <= check_number(name, value) < math.inf:
        raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r}.")
