"""Objectives: what is minimised, in every form a user may have it.

`as_objective` adapts a function of one point, a function of many, "module:name" imported where it is
evaluated, "module:name()" called there, and an external command. Write a subclass of `Objective` for
everything else, for instance to evaluate a batch on a device.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.core.device import Array, is_torch, to_numpy
from zoo.core.errors import Interrupt
from zoo.core.fingerprint import describe, digest
from zoo.core.rng import Key, keyed_generators
from zoo.core.space import Space
from zoo.core.types import Candidates, Evaluations, Failure, Reply, join_extras
from zoo.core.validation import hint

# Whose lines tell users nothing about what went wrong in a function of theirs.
_OWN = {str(Path(__file__).with_name(name)) for name in ("objective.py", "constraints.py", "front.py")}
_CHUNK = 2**18  # elements of candidates held at once while a function is called point by point


class Objective:
    """A black box of many points at a time.

    Subclasses define `__call__`; the rest may stay as it is. Instances travel to workers, so they
    should hold what is needed to build the expensive parts rather than those.

    Example:
        >>> class Sphere(Objective):
        ...     def __call__(self, x, *, key):
        ...         return (x**2).sum(1)
        >>> import zoo
        >>> zoo.minimize(Sphere(), np.ones(3), method="cma", budget=300, rng=0).fun < 1e-3
        True
    """

    unit: int | None = None
    """Rows per call, or None for max(64, ceil(n / 16)) of n candidates; an attribute of the class. It
    belongs to the experiment: a batch of another size may give other last bits."""

    def __call__(self, x: Array, *, key: Key) -> Any:
        """Return the values of some points.

        Args:
            x: Points, shape (k, dim).
            key: Randomness of this evaluation; the same for all points of one noise stream and step.

        Returns:
            Shape (k,), lower is better, NaN for failed; or `Evaluations`.
        """
        raise TypeError(f"{type(self).__name__} must define `__call__(self, x, *, key)`.")

    def units(self, candidates: Candidates) -> Sequence[int]:
        """Return the boundaries 0, ..., n between units: what is evaluated in one call, always whole."""
        return _boundaries(len(candidates), self.unit)

    def evaluate(self, candidates: Candidates, start: int, stop: int, *, key: Key, step: int) -> Evaluations:
        """Evaluate one unit: its rows grouped by noise stream, one call for each stream."""
        rows, streams = candidates.rows(start, stop), candidates.noise(start, stop)
        values = np.empty(stop - start)
        failures: list[Failure] = []
        extras: list[tuple[Any, Any]] = []
        for stream in np.unique(streams):
            chosen = np.flatnonzero(streams == stream)
            part = rows if len(chosen) == len(streams) else rows[chosen]
            done = _as_evaluations(self(part, key=key.fold(step, int(stream))), len(chosen))
            values[chosen] = done.values
            failures.extend(f._replace(row=start + int(chosen[f.row])) for f in done.failures)
            extras.append((chosen, done.extras))
        return Evaluations(values, tuple(failures), join_extras(extras, stop - start))

    def evaluate_units(
        self,
        candidates: Candidates,
        boundaries: Sequence[int],
        *,
        key: Key,
        step: int,
        limit: float = math.inf,
    ) -> Reply:
        """Evaluate consecutive units, a failing one not disturbing the others.

        Args:
            candidates: Where the points come from.
            boundaries: First row of each unit, and one past the last row.
            key: Randomness of the run's evaluations.
            step: Number of the step.
            limit: Seconds after which no further unit is begun, so that what is done can be put on
                record. The first unit is evaluated in any case.

        Returns:
            The values of all these units, or of the first of them where the time was over or a signal came.
        """
        began = time.perf_counter()
        values: list[np.ndarray[Any, Any]] = []
        failures: list[Failure] = []
        extras: list[tuple[Any, Any]] = []
        interrupted = False
        try:
            for start, stop in itertools.pairwise(boundaries):
                try:
                    done = _as_evaluations(
                        self.evaluate(candidates, start, stop, key=key, step=step), stop - start
                    )
                    failures.extend(done.failures)
                    if done.extras:
                        extras.append((slice(start - boundaries[0], stop - boundaries[0]), done.extras))
                    values.append(done.values.copy())  # which may be a buffer that the next call fills
                except (Exception, SystemExit) as error:
                    failures.extend(_failures_of(error, start, stop))
                    values.append(np.full(stop - start, np.nan))
                if time.perf_counter() - began > limit:
                    break
        except Interrupt:
            interrupted = True
        together = values[0] if len(values) == 1 else np.concatenate([np.empty(0), *values])
        found = join_extras(extras, boundaries[-1] - boundaries[0]) if extras else {}
        found = {name: extra[: len(together)] for name, extra in found.items()}
        return _reply(boundaries[0], together, failures, began, interrupted, found)

    def in_space(self, space: Space) -> Objective:
        """Return the objective of rows that stand for points of a space, where this one is of the points."""
        return InSpace(self, space)

    def identity(self) -> dict[str, Any]:
        """Return what tells this objective from another one, as it is written to `config.json`."""
        return describe(self)


class ScalarFunction(Objective):
    """A function of one point, called as `fun(x, *args)` and returning a number.

    Args:
        fun: The function; `x` has shape (dim,) and is the function's own to write to.
        args: Further arguments.
        noisy: Whether to run it under forked global generators keyed by the place in the run.
        space: What rows stand for, or None: `x` is then a point of it.
    """

    unit = 1

    def __init__(
        self,
        fun: Callable[..., Any],
        args: tuple[Any, ...] = (),
        noisy: bool = False,
        space: Space | None = None,
    ) -> None:
        self.fun, self.args, self.noisy, self.space = fun, args, noisy, space

    def __call__(self, x: Array, *, key: Key) -> np.ndarray[Any, Any]:
        points = x if self.space is None else self.space.points(x)
        with keyed_generators(key) if self.noisy else contextlib.nullcontext():
            return np.array([as_number(self.fun(point, *self.args)) for point in points])

    def evaluate_units(
        self,
        candidates: Candidates,
        boundaries: Sequence[int],
        *,
        key: Key,
        step: int,
        limit: float = math.inf,
    ) -> Reply:
        if self.noisy:
            return super().evaluate_units(candidates, boundaries, key=key, step=step, limit=limit)
        clock = time.perf_counter
        began = clock()
        over = began + limit
        start, stop = boundaries[0], boundaries[-1]
        values: list[float] = []
        failures: list[Failure] = []
        interrupted = False
        fun, args, height = self.fun, self.args, max(1, _CHUNK // candidates.dim)
        try:
            for first in range(start, stop, height):
                rows = candidates.rows(first, min(first + height, stop))
                for x in rows if self.space is None else self.space.points(rows):
                    try:
                        value = fun(x, *args)
                        values.append(value if isinstance(value, float) else as_number(value))
                    except (Exception, SystemExit) as error:
                        failures.append(failure_of(error, start + len(values)))
                        values.append(math.nan)
                    if clock() > over:
                        break
                else:
                    continue
                break
        except Interrupt:
            interrupted = True  # what there is, counts
        row = np.array(values, np.float64)
        if not failures and all(map(math.isfinite, values)):
            return Reply(start, row, (), clock() - began, interrupted)
        return _reply(start, row, failures, began, interrupted)

    def identity(self) -> dict[str, Any]:
        return describe(self.fun, self.args)


class VectorizedFunction(Objective):
    """A function of many points at once, called as `fun(x, *args)` with x of shape (k, dim).

    Args:
        fun: Returns shape (k,).
        args: Further arguments.
        noisy: Whether to run it under forked global generators keyed by the place in the run.
        space: What rows stand for, or None: `x` then holds arrays of shape (k,), see `Space.columns`.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        args: tuple[Any, ...] = (),
        noisy: bool = False,
        space: Space | None = None,
    ) -> None:
        self.fun, self.args, self.noisy, self.space = fun, args, noisy, space

    def __call__(self, x: Array, *, key: Key) -> Any:
        points = x if self.space is None else self.space.columns(x)
        with keyed_generators(key) if self.noisy else contextlib.nullcontext():
            return self.fun(points, *self.args)

    def evaluate_units(
        self,
        candidates: Candidates,
        boundaries: Sequence[int],
        *,
        key: Key,
        step: int,
        limit: float = math.inf,
    ) -> Reply:
        if self.noisy or len(boundaries) != 2:
            return super().evaluate_units(candidates, boundaries, key=key, step=step, limit=limit)
        # One unit, as small steps have, is not worth what the general way costs; and where no key is
        # used, there are no streams to tell apart.
        began = time.perf_counter()
        start, stop = boundaries
        failures: list[Failure] = []
        extras: Mapping[str, np.ndarray[Any, Any]] = {}
        interrupted = False
        try:
            rows = candidates.rows(start, stop)
            value = self.fun(rows if self.space is None else self.space.columns(rows), *self.args)
            if isinstance(value, Evaluations):
                done = _as_evaluations(value, stop - start)
                values, failures = done.values, [f._replace(row=start + f.row) for f in done.failures]
                extras = {name: extra.copy() for name, extra in done.extras.items()}
            else:
                values = _as_values(value, stop - start)
            values = values.copy()  # which may be a buffer that the next call fills
        except Interrupt:
            values, interrupted = np.empty(0), True
        except (Exception, SystemExit) as error:
            values, failures = np.full(stop - start, np.nan), _failures_of(error, start, stop)
        return _reply(start, values, failures, began, interrupted, extras)

    def identity(self) -> dict[str, Any]:
        return describe(self.fun, self.args)


class InSpace(Objective):
    """An objective of the points of a space, called with arrays as `Space.columns` returns them.

    Args:
        objective: What is called; what it says about units holds.
        space: What rows stand for.
    """

    def __init__(self, objective: Objective, space: Space) -> None:
        self.objective, self.space, self.unit = objective, space, objective.unit

    def __call__(self, x: Array, *, key: Key) -> Any:
        return self.objective(self.space.columns(x), key=key)

    def units(self, candidates: Candidates) -> Sequence[int]:
        return self.objective.units(candidates)

    def identity(self) -> dict[str, Any]:
        return self.objective.identity()


class Named(Objective):
    """An objective known by where it is to be found; a factory is called in the process that evaluates.

    The driver imports the module, to refuse a wrong name before anything starts, and calls a factory
    only where nothing else tells the units: not where it is a subclass of `Objective` that has the
    inherited `units`.

    Args:
        spec: "module:name" for a function or an `Objective`, "module:name()" for a factory of one.
        args: Further arguments of the function.
        vectorized: Whether the function takes many points at once.
        noisy: Whether to run it under forked global generators keyed by the place in the run.
        space: What rows stand for, or None.
        several: Whether the function returns a row of objectives.

    Raises:
        ValueError: `spec` has another form, its module cannot be imported or has nothing of that name.
    """

    def __init__(
        self,
        spec: str,
        args: tuple[Any, ...] = (),
        vectorized: bool = False,
        noisy: bool = False,
        space: Space | None = None,
        several: bool = False,
    ) -> None:
        self.spec, self.args, self.vectorized, self.noisy = spec, args, vectorized, noisy
        self.space, self.several = space, several
        self._built: Objective | None = None
        found = self._found()
        self.unit = getattr(found, "unit", None) if spec.endswith("()") else self.built.unit

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": None}

    @property
    def built(self) -> Objective:
        """The objective itself, imported or built at the first use in this process."""
        if self._built is None:
            found = self._found()
            made = found() if self.spec.endswith("()") else found
            self._built = as_objective(
                made,
                self.args,
                vectorized=self.vectorized,
                noise=self.noisy,
                space=self.space,
                several=self.several,
            )
        return self._built

    def __call__(self, x: Array, *, key: Key) -> Any:
        return self.built(x, key=key)

    def units(self, candidates: Candidates) -> Sequence[int]:
        # The class is asked even when an instance is there: units may not depend on who has built one.
        if self.spec.endswith("()"):
            factory = self._found()
            if (
                isinstance(factory, type)
                and issubclass(factory, Objective)
                and factory.units is Objective.units
            ):
                return _boundaries(len(candidates), factory.unit)
        return self.built.units(candidates)

    def _found(self) -> Any:
        module, _, name = self.spec.removesuffix("()").partition(":")
        if not module or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f'`fun` must have the form "module:name" or "module:name()", got {self.spec!r}.')
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"`fun` must name a module that can be imported, got {self.spec!r}: no module {error.name!r}."
            ) from error
        for part in name.split("."):
            if not hasattr(found, part):
                raise ValueError(
                    f"`fun` is {self.spec!r}, and {module!r} has no {name!r}.{hint(part, vars(found))}"
                )
            found = getattr(found, part)
        return found

    def evaluate(self, candidates: Candidates, start: int, stop: int, *, key: Key, step: int) -> Evaluations:
        return self.built.evaluate(candidates, start, stop, key=key, step=step)

    def evaluate_units(
        self,
        candidates: Candidates,
        boundaries: Sequence[int],
        *,
        key: Key,
        step: int,
        limit: float = math.inf,
    ) -> Reply:
        try:
            built = self.built
        except (Exception, SystemExit) as error:
            return reply_of(error, boundaries[0], boundaries[-1], time.perf_counter())
        return built.evaluate_units(candidates, boundaries, key=key, step=step, limit=limit)

    def identity(self) -> dict[str, Any]:
        return {"name": self.spec, **({"arguments": digest(self.args)} if self.args else {})}


def as_objective(
    fun: Any,
    args: tuple[Any, ...] = (),
    *,
    vectorized: bool = False,
    noise: bool = False,
    space: Space | None = None,
    several: bool = False,
) -> Objective:
    """Adapt whatever the user has to an `Objective` of rows.

    Args:
        fun: A function of one point (or of many, with `vectorized`), "module:name", "module:name()",
            a list of strings (see `zoo.Command`), or an `Objective`.
        args: Further arguments of the function.
        vectorized: Whether the function takes points of shape (k, dim) and returns shape (k,).
        noise: Whether to key the global generators around each call of a function. An `Objective` has
            its `key` to draw from, and the randomness of a command is its own.
        space: What rows stand for, or None. Functions and commands are then given points of it, an
            `Objective` is given what `Space.columns` returns.
        several: Whether functions return a row of objectives, see `zoo.core.front.SeveralObjectives`.

    Raises:
        TypeError: `fun` is none of these, or `args` or `vectorized` are given where they cannot be used.
    """
    if not isinstance(args, tuple):
        args = (args,)
    if isinstance(fun, str):
        return Named(fun, args, vectorized, noise, space, several)
    ready = fun
    if isinstance(fun, (list, tuple)):
        from zoo.core.command import Command  # which is an `Objective`, and so imports this file

        ready = Command(fun, space)
    if isinstance(ready, Objective):
        if args or (vectorized and not isinstance(fun, Objective)):
            raise TypeError(f"`args` and `vectorized` are for plain functions, and `fun` is {ready!r}.")
        return ready if space is None or ready is not fun else ready.in_space(space)
    if not callable(fun) or (isinstance(fun, type) and issubclass(fun, Objective)):
        raise TypeError(
            f'`fun` must be a function, "module:name", a list of strings or an Objective, got {fun!r}.'
        )
    if several:
        from zoo.core.front import SeveralObjectives  # as above

        return SeveralObjectives(fun, args, vectorized, noise, space)
    return (VectorizedFunction if vectorized else ScalarFunction)(fun, args, noise, space)


def as_number(value: Any) -> float:
    """Return one value of an objective as a float.

    Raises:
        TypeError: It is None, complex, text, or more than one number.
    """
    if value is None:
        raise TypeError("the objective must return a number, got None. Does it end without `return`?")
    if isinstance(value, (complex, np.complexfloating)):
        raise TypeError(f"the objective must return a real number, got {value!r}.")
    shape = getattr(value, "shape", ())
    if tuple(shape):
        raise TypeError(
            f"the objective must return one number, got an array of shape {tuple(shape)}. "
            "If it takes many points at once, say vectorized=True; for several objectives, take a method "
            'such as "nsga2".'
        )
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"the objective must return a number, got {value!r}.")
    return float(value.detach() if is_torch(value) else value)


def failure_of(error: BaseException, row: int, whose: str = "objective") -> Failure:
    """Return the failure that an exception of the objective, or of whatever `whose` names, stands for."""
    report = traceback.TracebackException.from_exception(error)
    frames = 0
    for link in _chain(report):
        own = [
            frame for frame in link.stack if frame.filename not in _OWN and "importlib" not in frame.filename
        ]
        link.stack = traceback.StackSummary.from_list(own)
        frames += len(own)
    # Without a line of the user's, it would only repeat the message.
    useful = frames or len(list(report.format_exception_only())) > 1
    text = "".join(report.format()) if useful else ""
    details = text.replace("Traceback (", f"Traceback of the {whose} (")
    return Failure(row, "raised", one_line(error), details)


def reply_of(error: BaseException, start: int, stop: int, began: float) -> Reply:
    """Return the reply in which an exception has failed all rows from `start` to `stop`."""
    return _reply(start, np.full(stop - start, np.nan), _failures_of(error, start, stop), began)


def one_line(error: BaseException) -> str:
    """Return an exception as its type and the first line of what it says, if it can say something."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # whoever wrote its `__str__` may have made a mistake there
        lines = []
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _chain(report: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield an exception's report and those of the exceptions it followed from."""
    link: traceback.TracebackException | None = report
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _failures_of(error: BaseException, start: int, stop: int) -> list[Failure]:
    failure = failure_of(error, start)
    return [failure._replace(row=row) for row in range(start, stop)]


@functools.lru_cache(16)
def _boundaries(n: int, unit: int | None) -> tuple[int, ...]:
    size = unit or max(64, -(-n // 16))
    return (*range(0, n, size), n)


def _as_evaluations(value: Any, n: int) -> Evaluations:
    if not isinstance(value, Evaluations):
        array = _as_values(value, n)
        return Evaluations(array, tuple(_returned(array)))
    if len(value) != n:
        raise TypeError(f"the objective must return {n} values for {n} points, got {len(value)}.")
    return value


def _as_values(value: Any, n: int) -> np.ndarray[Any, Any]:
    """Return what a function of many points returned as float64 numbers, none of them looked at yet."""
    if value is None:
        as_number(None)
    array = to_numpy(value) if is_torch(value) else np.asarray(value)
    if array.dtype.kind == "c":
        raise TypeError(f"the objective must return real numbers, got {array.dtype}.")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"the objective must return numbers, got an array of {array.dtype}.")
    if array.shape != (n,):
        raise TypeError(f"the objective must return shape ({n},) for {n} points, got {array.shape}.")
    return array.astype(np.float64, copy=False)


def _reply(
    start: int,
    values: np.ndarray[Any, Any],
    failures: list[Failure],
    began: float,
    interrupted: bool = False,
    extras: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> Reply:
    if interrupted:  # perhaps between a failure and its value
        failures = [failure for failure in failures if failure.row < start + len(values)]
    finite = np.isfinite(values)
    if not finite.all():
        known = {failure.row for failure in failures}
        failures += [failure for failure in _returned(values, start) if failure.row not in known]
        values = np.where(finite, values, np.nan)
    return Reply(start, values, tuple(failures), time.perf_counter() - began, interrupted, extras or {})


def _returned(values: np.ndarray[Any, Any], start: int = 0) -> list[Failure]:
    """Return a failure for every entry that is no finite number."""
    finite = np.isfinite(values)
    if finite.all():
        return []
    return [Failure(start + i, "returned", f"returned {values[i]}") for i in np.flatnonzero(~finite).tolist()]
