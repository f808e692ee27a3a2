"""The data that passes between methods, objectives and executors, and what a method is."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, to_numpy
from zoo.core.errors import EvaluationError
from zoo.core.rng import Key

S = TypeVar("S")


class Candidates(abc.ABC):
    """What a step wants evaluated: a description from which any worker rebuilds any row.

    Subclasses hold as little as they can (a base, seeds, a scale) and pickle as little as that.
    """

    __slots__ = ()

    @property
    def decisive(self) -> bool:
        """Whether the order of the values decides where the search goes, so that noise must not.

        It does not for the points of a finite difference, say.
        """
        return True

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Length of a row."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abc.abstractmethod
    def rows(self, start: int, stop: int) -> Array:
        """Return rows `start` to `stop`, shape (stop - start, dim).

        Pure, and the same bytes for a row whatever the slice. The caller may write to the result.
        """

    def noise(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return which noise stream each row's evaluation sees; 0, common to the whole step, by default."""
        return np.zeros(stop - start, np.int64)


class Rows(Candidates):
    """Candidates that are few or short enough to be held as they are.

    Args:
        array: Shape (n, dim); not copied, so not to be written to afterwards.
    """

    __slots__ = ("array",)

    def __init__(self, array: Array) -> None:
        self.array = array

    @property
    def dim(self) -> int:
        return int(self.array.shape[1])

    def __len__(self) -> int:
        return len(self.array)

    def rows(self, start: int, stop: int) -> Array:
        part = self.array[start:stop]
        return part.copy() if isinstance(part, np.ndarray) else part.clone()


class Failure(NamedTuple):
    """Why one evaluation has no value.

    Attributes:
        row: Its row among the step's candidates.
        kind: "raised" (the objective raised, or returned no number), "crashed" (it took its worker
            along, more than once), "hung" (it outlasted its deadline) or "returned" (NaN or an infinity).
        message: One line.
        details: Traceback as text, empty where there is none.
    """

    row: int
    kind: str
    message: str
    details: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluations:
    """Values of a step's candidates, lower is better, NaN is failed.

    Infinities count as failed too: they are made NaN here, so that no method can take -inf for best.

    Args:
        values: Shape (n,); anything that numpy or torch takes for a row of real numbers.
        failures: Why, for those failed entries whose reason is known.
        extras: By name, what else an evaluation found, shape (n, ...), float64; NaN where it failed.
            "constraints", shape (n, m): what may not be above 0. "objectives", shape (n, k): what a method
            for several objectives goes by instead of `values`.

    Raises:
        TypeError: `values` are no real numbers.
        ValueError: `values` have another number of dimensions than one, or an extra another length.

    Example:
        >>> Evaluations([1.0, float("-inf")]).values.tolist()
        [1.0, nan]
    """

    values: np.ndarray[Any, Any]
    failures: tuple[Failure, ...] = field(default=())
    extras: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = self.values
        if not isinstance(values, np.ndarray) or values.dtype.char != "d":
            values = to_numpy(values)
            if values.dtype.kind not in "fiub":
                raise TypeError(f"`values` must be real numbers, got an array of {values.dtype}.")
            values = np.asarray(values, np.float64)
        if values.ndim != 1:
            raise ValueError(f"`values` must have one dimension, got shape {values.shape}.")
        finite = np.isfinite(values)
        if np.count_nonzero(finite) < len(values):  # several times faster than `all` where there are few
            values = np.where(finite, values, np.nan)
        if values is not self.values:
            object.__setattr__(self, "values", values)
        if self.extras:
            extras = {name: np.asarray(to_numpy(extra), np.float64) for name, extra in self.extras.items()}
            for name, extra in extras.items():
                if not extra.ndim or len(extra) != len(values):
                    raise ValueError(
                        f"`extras` must have {len(values)} rows each, got {name!r} of shape {extra.shape}."
                    )
            object.__setattr__(self, "extras", extras)

    @property
    def violations(self) -> np.ndarray[Any, Any]:
        """By how much each row violates the constraint that it violates most; 0 where it keeps to all."""
        constraints = self.extras.get("constraints")
        if constraints is None:
            return np.zeros(len(self.values))
        above: np.ndarray[Any, Any] = np.maximum(constraints, 0.0).max(1, initial=0.0)
        return np.where(np.isnan(above), np.inf, above)

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What came of evaluating some whole units, in the process that did it.

    Attributes:
        start: First row.
        values: float64, NaN where the evaluation failed; row `start + i` is entry i.
        failures: One for every NaN.
        seconds: Time it took.
        interrupted: Whether it ends where `Interrupt` came; none of its values was touched by that.
        extras: As in `Evaluations`.
    """

    start: int
    values: np.ndarray[Any, Any]
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0
    interrupted: bool = False
    extras: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    @property
    def stop(self) -> int:
        """One past the last row."""
        return self.start + len(self.values)

    def __reduce__(self) -> tuple[Any, ...]:
        # By itself an array of one number pickles to some hundred bytes, and every evaluation has several.
        extras = [(name, extra.shape[1:], extra.tobytes()) for name, extra in self.extras.items()]
        values = self.values.tobytes()
        return arrived, (self.start, values, self.failures, self.seconds, self.interrupted, extras)


def arrived(
    start: int,
    values: bytes,
    failures: tuple[Failure, ...],
    seconds: float,
    interrupted: bool,
    extras: list[tuple[str, tuple[int, ...], bytes]],
) -> Reply:
    """Return a reply that travelled."""
    count = len(values) // 8
    found = {name: _numbers(data).reshape(count, *shape) for name, shape, data in extras}
    return Reply(start, _numbers(values), failures, seconds, interrupted, found)


def _numbers(data: bytes) -> np.ndarray[Any, Any]:
    return np.ndarray(len(data) // 8, np.float64, bytearray(data))


def join_extras(
    parts: Sequence[tuple[Any, Mapping[str, np.ndarray[Any, Any]]]], num_rows: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Put the extras of some rows together.

    Args:
        parts: Which rows, as an index into `num_rows`, and their extras.
        num_rows: How many there are of all.

    Returns:
        Extras of all rows, NaN where a part has none of that name.

    Raises:
        EvaluationError: Two parts have rows of different shapes under one name.
    """
    joined: dict[str, np.ndarray[Any, Any]] = {}
    for rows, extras in parts:
        for name, extra in extras.items():
            whole = joined.setdefault(name, np.full((num_rows, *extra.shape[1:]), np.nan))
            if whole.shape[1:] != extra.shape[1:]:
                raise EvaluationError(
                    f"all evaluations must have as many {name}, got {_counted(whole)} and {_counted(extra)}."
                )
            whole[rows] = extra
    return joined


def _counted(extra: np.ndarray[Any, Any]) -> str:
    return " x ".join(map(str, extra.shape[1:])) or "a single number"


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Points that were evaluated before the search, by whomever.

    Args:
        points: Shape (n, dim) with n of at least 1, in the coordinates of the search.
        values: Shape (n,), lower is better, NaN is failed; one at least is finite.

    Raises:
        ValueError: The shapes do not fit, points are not finite, or no value is.

    Example:
        >>> known = Known([[0.0, 1.0], [2.0, 3.0]], [5.0, 4.0])
        >>> known.best.tolist()
        [2.0, 3.0]
    """

    points: np.ndarray[Any, Any]
    values: np.ndarray[Any, Any]

    def __post_init__(self) -> None:
        points = np.array(to_numpy(self.points), np.float64)
        values = Evaluations(self.values).values.copy()
        if points.ndim != 2 or len(points) != len(values) or not len(points):
            raise ValueError(
                "`known` must hold points of shape (n, dim) and as many values, n of at least 1, got shapes "
                f"{points.shape} and {values.shape}."
            )
        if not np.isfinite(points).all():
            raise ValueError("`known` must hold finite points.")
        if np.isnan(values).all():
            raise ValueError("`known` must hold one finite value at least.")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def order(self) -> np.ndarray[Any, Any]:
        """Rows of the points that have a value, the best one first."""
        return np.argsort(self.values, kind="stable")[: int(np.isfinite(self.values).sum())]

    @property
    def best(self) -> np.ndarray[Any, Any]:
        """The point of the lowest value, shape (dim,)."""
        point: np.ndarray[Any, Any] = self.points[self.order[0]]
        return point


class Optimizer(Protocol[S]):
    """A method: a frozen dataclass of hyper-parameters with an explicit state and pure transitions.

    Attributes tell the rest of the library what it need not find out: `recommends_evaluated` is True
    when `recommend` returns a point that was among the candidates. A method that never compares a value with
    one of another step may say so by `compares_within_steps = True`: then what it is told, for f and its
    constraints together, may be another mixture in every step. One that looks for several minima has a
    method `minima(state)` that returns them, shape (k, dim), the best one first, and their values. One whose
    candidates keep to a set other than the box, a sphere say, tells by `keeps_to_set = True` that nobody is
    to add others to them, and by a method `check_known(x0, points)`, which raises ValueError, which points
    are not to be evaluated before it begins.
    """

    @property
    def recommends_evaluated(self) -> bool:
        """Whether what is recommended has been evaluated already."""
        ...

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> S:
        """Return the first state.

        Args:
            x0: Start, shape (dim,); its kind, dtype and device are those of every row asked for.
            key: Where all randomness of the run comes from.
            bounds: Box that no candidate may leave, or None.
            scale: How far from `x0` the first candidates go, per coordinate: a number or shape (dim,).
            budget: Evaluations there will be, or None; a method may plan with it, and may shorten its
                last step to it.
            known: Points whose values are known from elsewhere, or None. Methods with a population, a
                distribution or a model start from them; others may leave them aside.
        """
        ...

    def ask(self, state: S) -> Candidates:
        """Return what this state wants evaluated; asking twice gives the same."""
        ...

    def tell(self, state: S, evaluations: Evaluations) -> S:
        """Return the state after the values of everything asked for; `state` stays as it is."""
        ...

    def recommend(self, state: S) -> Array:
        """Return the point to use if the run ended here, shape (dim,)."""
        ...

    def finished(self, state: S) -> str | None:
        """Return why the method has nothing left to do, or None."""
        ...

    def diagnostics(self, state: S) -> dict[str, Any]:
        """Return numbers worth a line in the log, by name; arrays are allowed."""
        ...
