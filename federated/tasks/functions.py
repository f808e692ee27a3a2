"""Functions of the user's, one on each client."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from federated.task import Task
from zoo.arguments import as_region
from zoo.core.device import Array, is_torch
from zoo.core.fingerprint import describe, digest
from zoo.core.named import named
from zoo.core.objective import as_number
from zoo.core.rng import Key, keyed_generators
from zoo.core.validation import check_count, check_flag, check_positive


class FunctionTask(Task):
    """Any functions at all, of which nothing is known but what they return.

    A function that raises has no value at that point, and the others keep theirs. With `vectorized`, the
    points of one call fail together.

    Whoever looks at how a run goes calls the functions too; those calls are not among the queries.

    Args:
        functions: One function of x for each client; or one function of the number of a client and x, for
            `num_clients` of them; or "module:name" of either, or "module:name()" of a function without
            arguments that returns either, which is imported, or called, where it is evaluated. x has shape
            (dim,), or (k, dim) with `vectorized`, and is the function's own to write to.
        num_clients: How many clients there are, where that is not the number of functions.
        x0: Where to begin, shape (dim,), numpy or torch: points are of the same kind, dtype and device. The
            centre of the bounds by default.
        bounds: Pairs (lower, upper), None for no limit; see `zoo.minimize`.
        vectorized: Whether a function takes many points at once and returns shape (k,).
        noise: Whether a function draws from the global generators of Python, numpy or torch. These then
            follow from the place in the run, and are the same for all points that a client is asked about at
            once.
        args: Further arguments of the functions, behind x.
        weights: What each client counts for, above 0; 1 by default.
        spacing: See `Task.spacing`; that of `Task` by default.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: There are no clients, or not as many as functions or weights; there is nowhere to begin;
            or nothing of that name.

    Example:
        >>> task = FunctionTask([lambda x: x @ x, lambda x: abs(x - 1).sum()], x0=np.zeros(2))
        >>> task.num_clients, task.value(np.zeros(2))
        (2, 1.0)
        >>> task = FunctionTask(lambda client, x: float(x[0] - client), 4, bounds=[(0, 1)])
        >>> task.start(Key(0)).tolist(), task.value(np.zeros(1))
        ([0.5], -1.5)
    """

    def __init__(
        self,
        functions: Sequence[Callable[..., Any]] | Callable[..., Any] | str,
        num_clients: int | None = None,
        *,
        x0: Any = None,
        bounds: Any = None,
        vectorized: bool = False,
        noise: bool = False,
        args: tuple[Any, ...] = (),
        weights: Sequence[float] | None = None,
        spacing: float | None = None,
    ) -> None:
        self._given, self._found = functions, None
        if num_clients is not None:
            check_count("num_clients", num_clients)
        found = self._functions()
        if callable(found):
            if num_clients is None:
                raise TypeError(
                    "`num_clients` must be given where there is one function of client and x for all clients."
                )
            self.num_clients = num_clients
        else:
            self.num_clients = len(found)
            if num_clients not in (None, len(found)):
                raise ValueError(
                    f"`num_clients` must be the number of functions, {len(found)}, or be left out, got "
                    f"{num_clients!r}."
                )
        if not isinstance(args, tuple):
            raise TypeError(f"`args` must be a tuple, got {args!r}: write ({args!r},).")
        self.vectorized, self.noise = check_flag("vectorized", vectorized), check_flag("noise", noise)
        self.args, self.unit = args, None if vectorized else 1
        if spacing is not None:
            self.spacing = check_positive("spacing", spacing)
        region = as_region(x0, bounds, None)
        self._start, self.bounds = region["start"], region["bounds"]
        self.dim = len(self._start)
        self._weights = None if weights is None else tuple(check_positive("weights", w) for w in weights)
        if self._weights is not None and len(self._weights) != self.num_clients:
            raise ValueError(
                f"`weights` must be one for each of {self.num_clients} clients, got {len(self._weights)}."
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_found": None}

    def start(self, key: Key) -> Array:
        """Return `x0`, whatever the key."""
        return _copy(self._start)

    def values(self, client: int, x: Array, *, key: Key) -> Any:
        found = self._functions()
        one = callable(found)
        function, before = (found, (client,)) if one else (found[client], ())

        def call(points: Array) -> Any:
            with keyed_generators(key) if self.noise else contextlib.nullcontext():
                return function(*before, _copy(points), *self.args)

        if self.vectorized:
            return call(x)
        return np.array([as_number(call(point)) for point in x], np.float64)

    def weight(self, client: int) -> float:
        return 1.0 if self._weights is None else self._weights[client]

    def identity(self) -> Mapping[str, Any]:
        found = self._functions()
        functions = [found] if callable(found) else found
        told = [sorted(describe(function, self.args).items()) for function in functions]
        walls = None if self.bounds is None else [self.bounds.lower, self.bounds.upper]
        return {
            **describe(self),
            "functions": digest(told),
            "start": digest(self._start),
            "bounds": digest(walls),
            "weights": digest(self._weights),
        }

    def _functions(self) -> Any:
        """Return the list of functions, or the one for all, imported once in this process."""
        if self._found is None:
            found: Any = self._given
            if isinstance(found, str):
                found = named("functions", found.removesuffix("()"))
                if str(self._given).endswith("()"):
                    found = found()
            if isinstance(found, (list, tuple)):
                if not found:
                    raise ValueError("`functions` must be at least one, got none.")
                for number, one in enumerate(found):
                    if not callable(one):
                        raise TypeError(f"`functions` must be functions, got functions[{number}] = {one!r}.")
            elif not callable(found):
                raise TypeError(
                    "`functions` must be a list of functions of x, or one function of client and x, got "
                    f"{found!r}."
                )
            self._found = found
        return self._found


def _copy(x: Array) -> Array:
    return x.clone() if is_torch(x) else np.array(x)
