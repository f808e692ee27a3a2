"""Tasks: what the clients of a federation have, and what they are to find together."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array
from zoo.core.fingerprint import describe
from zoo.core.named import code_of, is_of_others
from zoo.core.rng import Key


class Task(abc.ABC):
    """N clients, each with a function f_i of its own; wanted is the least F(x) = sum_i w_i f_i(x).

    w_i is the weight of client i divided by the sum of all weights. A client answers values of its own
    function and nothing else; each is a query. What `measure` says is for whoever looks on: no method sees
    it, and it counts for nothing.

    Subclasses define `num_clients`, `dim`, `start` and `values`, and what of the rest they can. Instances
    travel to workers, once to each, so they should hold what is needed to build expensive parts rather than
    those; and what they answer may depend on their arguments alone.

    Example:
        >>> class Bowls(Task):
        ...     num_clients, dim = 3, 2
        ...
        ...     def start(self, key):
        ...         return key.normal(0, 1, self.dim)[0]
        ...
        ...     def values(self, client, x, *, key):
        ...         return ((x - client) ** 2).sum(1)
        >>> Bowls().value(np.ones(2))
        1.3333333333333333
    """

    num_clients: int
    """How many clients there are."""

    dim: int
    """Length of x."""

    bounds: Bounds | None = None
    """Box that x is to stay in, or None."""

    unit: int | None = None
    """Points that `values` is given at most at once, such as 1 where one that raises must not take others
    along; None for no limit. It belongs to the experiment."""

    spacing: float = 0.01
    """How far apart points should lie, in a coordinate, for their values to tell a slope: what methods ask
    around x by, if they are not told otherwise. A staircase needs more than the width of its steps. Where the
    bounds are finite, it is a share of the width between them."""

    joint: bool = False
    """Whether `joint_values` evaluates points of several clients in one call."""

    measures: tuple[str, ...] = ()
    """What `measure` says beside "value", such as "accuracy": all of it, and nothing else."""

    shared_measures: tuple[str, ...] = ()
    """Those of `measures` that are the same at every client, as of data that no client has: reports leave
    them out of what they say client by client."""

    optimum: float | None = None
    """The least F, where it is known."""

    @abc.abstractmethod
    def start(self, key: Key) -> Array:
        """Return where to begin, shape (dim,): its kind, dtype and device are those of every point.

        Args:
            key: Randomness of the start.
        """

    @abc.abstractmethod
    def values(self, client: int, x: Array, *, key: Key) -> Any:
        """Return what a client answers to some points.

        Args:
            client: Its number, from 0.
            x: Points, shape (k, dim).
            key: Randomness of these answers, common to these points.

        Returns:
            Shape (k,), lower is better, NaN for failed.
        """

    def joint_values(self, clients: np.ndarray[Any, Any], x: Array, keys: Sequence[Key]) -> Any:
        """Return what several clients answer, in one go; wanted where `joint` is true.

        Which clients come together follows from the experiment, not from the workers.

        Args:
            clients: Whose point each row is, shape (k,), ascending.
            x: Points, shape (k, dim).
            keys: Randomness of each row, k of them.

        Returns:
            Shape (k,).
        """
        raise NotImplementedError(f"{type(self).__name__} says `joint`, and has no `joint_values`.")

    def gradient(self, client: int, x: Array) -> Array:
        """Return the exact gradient of f_i, shape (dim,), for methods of reference that go by it.

        Raises:
            NotImplementedError: The task has none.
        """
        raise NotImplementedError(f"{type(self).__name__} knows no exact gradients.")

    @property
    def has_gradient(self) -> bool:
        """Whether `gradient` is there."""
        return type(self).gradient is not Task.gradient

    def weight(self, client: int) -> float:
        """Return what a client counts for, above 0: the number of its examples, say."""
        return 1.0

    def measure(self, client: int, x: Array) -> dict[str, float]:
        """Return what is to be said of x at a client: "value", f_i(x) without noise, and all `measures`.

        Args:
            client: Its number.
            x: One point, shape (dim,).
        """
        return {"value": float(row_of(self.values(client, x[None], key=Key(0)), 1)[0])}

    def value(self, x: Array) -> float:
        """Return F(x), as `measure` has it."""
        weights = np.array([self.weight(client) for client in range(self.num_clients)])
        found = np.array([self.measure(client, x)["value"] for client in range(self.num_clients)])
        return float((weights * found).sum() / weights.sum())

    def identity(self) -> Mapping[str, Any]:
        """Return what tells this task from another one, as it is written to `config.json`.

        Attributes that are plain values, but for those with an underscore in front, and the code of classes
        that are the user's own.
        """
        own = type(self)
        return {**describe(self), **({} if is_of_others(own) else {"code": code_of(own)})}


def row_of(values: Any, count: int) -> Any:
    """Return values as they came, if there are as many as there are points.

    Raises:
        TypeError: There are not.
    """
    if values is None:
        raise TypeError(f"`values` must return shape ({count},) for {count} points, got None.")
    shape = tuple(getattr(values, "shape", np.shape(values)))
    if shape != (count,):
        instead = ""
        if shape == (count, 1):
            instead = ": leave out the last axis, as in values[:, 0]"
        elif shape == ():
            instead = ": x has shape (k, dim), a point in each row"
        raise TypeError(f"`values` must return shape ({count},) for {count} points, got {shape}{instead}.")
    return values
