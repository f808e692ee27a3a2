"""Constraints: what a user may say of them, and an objective that evaluates them along with its values.

Inside the library there is one form, g(x) <= 0: a row of numbers for each point, none of which may be above
0, kept as `Evaluations.extras["constraints"]`. `as_constraints` reads all that scipy takes, and functions.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.core.device import Array, is_torch, to_numpy
from zoo.core.errors import ZooWarning
from zoo.core.fingerprint import describe, digest
from zoo.core.objective import Objective, failure_of
from zoo.core.rng import Key, keyed_generators
from zoo.core.space import Space
from zoo.core.types import Candidates, Evaluations, Failure
from zoo.core.validation import check_choice, check_flag, check_known, check_number, hint

RETURNED = "returned"
"""What users write for `constraints` where the objective returns them along with its values."""

RAISED = "a constraint raised "
"""How the message of a failure begins where it was no fault of the objective."""

_EQUAL = 1e-6  # how far from a side an equality may be


@dataclass(frozen=True, eq=False)
class Constraint:
    """A function of a point that is to stay between two sides: lower <= fun(x) <= upper.

    Where both sides are equal, the values may be `tol` off. Infinite sides constrain nothing.

    Args:
        fun: Called as `fun(x, *args)` with x of shape (dim,), of the same kind as the objective gets; returns
            a number or a row of them. It runs where the objective does, right after it, and with `noise=True`
            under generators seeded like the objective's. What it raises, and NaN or an infinity among its
            values, makes the evaluation a failed one.
        lower: Lower side: a number, or one for each value.
        upper: Upper side.
        args: Further arguments of `fun`.
        tol: How far off equalities may be, at least 0.
        vectorized: Whether `fun` takes points of shape (k, dim) and returns shape (k,) or (k, m); None for
            the same as the objective.

    Raises:
        TypeError: `fun` cannot be called, or another argument is of a type that it cannot be.
        ValueError: No side is given, one is NaN, a lower one is above its upper one, or `tol` is below 0.

    Example:
        >>> ring = Constraint(lambda x: (x**2).sum(), lower=1, upper=4)
        >>> ring.entries(np.array([[5.0], [2.0]])).tolist()  # the upper side, and the lower one
        [[1.0, -4.0], [-2.0, -1.0]]
    """

    fun: Callable[..., Any]
    lower: Any = -np.inf
    upper: Any = np.inf
    args: tuple[Any, ...] = ()
    tol: float = _EQUAL
    vectorized: bool | None = None
    _spec: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not callable(self.fun):
            raise TypeError(f"a constraint's `fun` must be a function, got {self.fun!r}.")
        lower, upper = _side("lower", self.lower), _side("upper", self.upper)
        if len(lower) != len(upper):
            if 1 not in (len(lower), len(upper)):
                raise ValueError(
                    f"`lower` and `upper` must be of one length, got {len(lower)} and {len(upper)} sides."
                )
            lower, upper = (side.copy() for side in np.broadcast_arrays(lower, upper))
        wrong = (lower > upper) | (lower == np.inf) | (upper == -np.inf)
        if wrong.any():
            index = int(wrong.argmax())
            raise ValueError(f"a constraint must have lower <= upper, got {lower[index]} and {upper[index]}.")
        if not (np.isfinite(lower).any() or np.isfinite(upper).any()):
            raise ValueError("a constraint must have a finite `lower` or `upper` side; neither is given.")
        if not 0 <= check_number("tol", self.tol) < np.inf:
            raise ValueError(f"`tol` must be a finite number of at least 0, got {self.tol!r}.")
        if self.vectorized is not None:
            check_flag("vectorized", self.vectorized)
        args = self.args if isinstance(self.args, tuple) else (self.args,)
        for name, value in (("lower", lower), ("upper", upper), ("args", args)):
            object.__setattr__(self, name, value)

    def entries(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return what may not be above 0: first v - upper, then lower - v, for the sides that are finite.

        Args:
            values: What `fun` returned for some points, shape (k, j).

        Raises:
            ValueError: There are not as many values as sides.
        """
        count = values.shape[1]
        if len(self.lower) not in (1, count):
            raise ValueError(
                f"a constraint has {len(self.lower)} sides, and its function returned {count} values."
            )
        lower, upper = (np.broadcast_to(side, (count,)) for side in (self.lower, self.upper))
        slack = np.where(lower == upper, self.tol, 0.0)
        above, below = np.isfinite(upper), np.isfinite(lower)
        over = values[:, above] - upper[above] - slack[above]
        under = lower[below] - values[:, below] - slack[below]
        return np.concatenate([over, under], 1)

    def evaluate(
        self, x: Array, key: Key | None = None, vectorized: bool = False, space: Space | None = None
    ) -> np.ndarray[Any, Any]:
        """Return the entries of some points, shape (k, m).

        Args:
            x: Points, shape (k, dim); they may be written to.
            key: What to seed the global generators from around each call, or None for leaving them.
            vectorized: Whether `fun` takes many points where the constraint itself does not say.
            space: What rows stand for, or None: `fun` is then given points of it.

        Raises:
            TypeError: `fun` returned something that is no row of real numbers.
            ValueError: It returned another number of values than there are sides, or points.
        """
        many = vectorized if self.vectorized is None else self.vectorized
        if many:
            points = x if space is None else space.columns(x)
            return self.entries(_as_rows(self._called(points, key), len(x), self.fun))
        points = x if space is None else space.points(x)
        rows = [_as_row(self._called(point, key), self.fun) for point in points]
        if len({len(row) for row in rows}) > 1:
            raise ValueError(f"{self.fun!r} must return as many values for one point as for another.")
        return self.entries(np.array(rows))

    def identity(self) -> dict[str, Any]:
        """Return what tells this constraint from another one, as it is written to `config.json`."""
        if self._spec is not None:
            return {"name": self._spec}
        sides = digest([self.lower, self.upper, float(self.tol)])
        return {**describe(self.fun, self.args), "sides": sides}

    def _called(self, x: Any, key: Key | None) -> Any:
        with contextlib.nullcontext() if key is None else keyed_generators(key):
            return self.fun(x, *self.args)


class ConstrainedObjective(Objective):
    """An objective whose evaluations come with constraints.

    Those that the objective returns itself stay in front. Points that have no value are not looked at. NaN
    or an infinity among the constraints, whoever returns it, makes an evaluation a failed one, and so does
    what a constraint raises, with a message that begins with `RAISED`.

    Args:
        objective: What is minimised.
        constraints: Evaluated in the same place, point after point or batch after batch.
        vectorized: Whether functions that do not say it themselves take many points at once.
        noisy: Whether to run them under forked global generators keyed by the place in the run, as the
            objective is.
        space: What rows stand for, or None.

    Example:
        >>> from zoo.core.objective import as_objective
        >>> from zoo.core.types import Rows
        >>> both = constrain(as_objective(lambda x: x[0]), lambda x: x[0] - 1)
        >>> done = both.evaluate(Rows(np.array([[3.0]])), 0, 1, key=Key(0), step=0)
        >>> done.values.tolist(), done.extras["constraints"].tolist()
        ([3.0], [[-2.0]])
    """

    def __init__(
        self,
        objective: Objective,
        constraints: Sequence[Constraint],
        vectorized: bool = False,
        noisy: bool = False,
        space: Space | None = None,
    ) -> None:
        self.objective, self.constraints, self.space = objective, tuple(constraints), space
        self.vectorized, self.noisy, self.unit = vectorized, noisy, objective.unit

    def units(self, candidates: Candidates) -> Sequence[int]:
        return self.objective.units(candidates)

    def evaluate(self, candidates: Candidates, start: int, stop: int, *, key: Key, step: int) -> Evaluations:
        done = self.objective.evaluate(candidates, start, stop, key=key, step=step)
        if not isinstance(done, Evaluations):
            done = Evaluations(done)
        if np.isnan(done.values).all():
            return done
        own = done.extras.get("constraints")
        if not self.constraints:
            if own is None:
                raise TypeError(
                    'with constraints="returned", the objective must return zoo.Evaluations(values, '
                    'extras={"constraints": g}); it returned values alone.'
                )
            found = np.empty((len(done), 0))
        else:
            try:
                found = self._entries(candidates, start, stop, key, step)
            except (Exception, SystemExit) as error:
                failure = failure_of(error, start, "constraint")
                failure = failure._replace(message=f"{RAISED}{failure.message}")
                rows = range(start, stop)
                return Evaluations(
                    np.full(len(rows), np.nan), tuple(failure._replace(row=row) for row in rows)
                )
        if own is not None:
            found = np.concatenate([own.reshape(len(own), -1), found], 1)
        missing = ~np.isfinite(found).all(1) & np.isfinite(done.values)
        failures = [
            Failure(start + i, "returned", "a constraint returned NaN or an infinity")
            for i in np.flatnonzero(missing).tolist()
        ]
        extras = {**done.extras, "constraints": found}
        return Evaluations(np.where(missing, np.nan, done.values), (*done.failures, *failures), extras)

    def identity(self) -> dict[str, Any]:
        return {
            **self.objective.identity(),
            "constraints": [constraint.identity() for constraint in self.constraints],
        }

    def _entries(
        self, candidates: Candidates, start: int, stop: int, key: Key, step: int
    ) -> np.ndarray[Any, Any]:
        """Return the entries of some rows, shape (stop - start, m); under noise, stream by stream."""
        rows, streams = candidates.rows(start, stop), candidates.noise(start, stop)
        if not self.noisy:
            streams = np.zeros_like(streams)
        order, parts = [], []
        for stream in np.unique(streams):
            chosen = np.flatnonzero(streams == stream)
            here = key.fold(step, int(stream)) if self.noisy else None
            found = [c.evaluate(rows[chosen], here, self.vectorized, self.space) for c in self.constraints]
            order.append(chosen)
            parts.append(np.concatenate(found, 1))
        return np.concatenate(parts)[np.concatenate(order).argsort()]


def constrain(
    objective: Objective,
    constraints: Any,
    *,
    vectorized: bool = False,
    noise: bool = False,
    space: Space | None = None,
    num_variables: int | None = None,
) -> Objective:
    """Return an objective whose evaluations come with constraints, or itself where there are none.

    Args:
        objective: What is minimised.
        constraints: See `as_constraints`; "returned", or a sequence that holds it, where the objective has
            some of its own.
        vectorized: Whether functions take many points at once.
        noise: Whether to key the global generators around each call of a function.
        space: What rows stand for, or None. Functions are then given points of it.
        num_variables: How many there are, where that is known: linear constraints must have as many columns.

    Raises:
        TypeError: See `as_constraints`.
        ValueError: See `as_constraints`; or a linear constraint is one of other variables.
    """
    given = list(constraints) if isinstance(constraints, (list, tuple)) else [constraints]
    others = [one for one in given if not (isinstance(one, str) and one == RETURNED) and one is not None]
    if not others and RETURNED not in given:
        return objective
    adapted = as_constraints(others)
    for one in adapted:
        if one.fun is linear and num_variables is not None:
            _check_columns(one.args[0], num_variables)
    return ConstrainedObjective(objective, adapted, vectorized, noise, space)


def as_constraints(constraints: Any) -> tuple[Constraint, ...]:
    """Adapt whatever the user has to a row of `Constraint`.

    Args:
        constraints: One of these, or a sequence of them:

            * a `Constraint`;
            * `scipy.optimize.NonlinearConstraint` or `LinearConstraint`;
            * a dictionary {"type": "ineq" or "eq", "fun": ..., "args": ...} as scipy has it: fun(x) >= 0, or
              fun(x) = 0;
            * a function, which stands for fun(x) >= 0 as well;
            * "module:name" of any of these.

    Raises:
        TypeError: It is something else.
        ValueError: It is one of these, with a value that it cannot have.

    Warns:
        ZooWarning: One asks for `keep_feasible`: points that violate it are evaluated all the same.
    """
    if isinstance(constraints, (list, tuple)):
        return tuple(_as_constraint(one) for one in constraints)
    return (_as_constraint(constraints),)


def _as_constraint(given: Any) -> Constraint:
    if isinstance(given, Constraint):
        return given
    if isinstance(given, str):
        return _named(given)
    if isinstance(given, Mapping):
        return _of_dictionary(given)
    if hasattr(given, "lb") and hasattr(given, "ub") and (hasattr(given, "A") or hasattr(given, "fun")):
        if np.any(getattr(given, "keep_feasible", False)):
            warnings.warn(
                "`keep_feasible` cannot be kept: points that violate a constraint are evaluated too. Return "
                "NaN where the objective cannot be evaluated, or use `bounds`.",
                ZooWarning,
                stacklevel=2,
            )
        if hasattr(given, "A"):
            matrix = np.atleast_2d(
                np.asarray(given.A.toarray() if hasattr(given.A, "toarray") else given.A, np.float64)
            )
            return Constraint(linear, given.lb, given.ub, (matrix,), vectorized=True)
        return Constraint(given.fun, given.lb, given.ub)
    if callable(given) and not isinstance(given, type):
        return Constraint(given, lower=0.0)
    raise TypeError(
        "`constraints` must be functions, dictionaries as scipy has them, NonlinearConstraint, "
        f'LinearConstraint or zoo.Constraint, or "module:name" of one, got {given!r}.'
    )


def linear(x: Any, matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return A x for some points x, shape (k, dim), or columns of the points of a space.

    Raises:
        TypeError: A variable of the space has other values than numbers.
        ValueError: The matrix has another number of columns than there are variables.
    """
    if isinstance(x, (dict, tuple)):
        columns = list(x.values() if isinstance(x, dict) else x)
        if any(column.dtype.kind == "O" for column in columns):
            raise TypeError("a linear constraint needs a space of numbers alone; give a function instead.")
        x = np.column_stack(columns)
    points = np.asarray(to_numpy(x), np.float64)
    _check_columns(matrix, points.shape[1])
    return points @ matrix.T


def _check_columns(matrix: np.ndarray[Any, Any], num_variables: int) -> None:
    if matrix.shape[1] != num_variables:
        raise ValueError(
            f"a linear constraint must have one column for each of the {num_variables} variables, got "
            f"{matrix.shape[1]}."
        )


def _of_dictionary(given: Mapping[str, Any]) -> Constraint:
    check_known("entry of a constraint:", given, ("type", "fun", "args", "jac"))
    if "fun" not in given or "type" not in given:
        raise ValueError(
            f'`constraints` must have "type" and "fun" where they are dictionaries, got {dict(given)!r}.'
        )
    kind = str(given["type"]).lower()
    check_choice("type", kind, ("ineq", "eq"))
    args = given.get("args", ())
    return Constraint(given["fun"], 0.0, np.inf if kind == "ineq" else 0.0, args)


def _named(spec: str) -> Constraint:
    module, _, name = spec.partition(":")
    if not module or not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f'`constraints` must be functions or of the form "module:name", got {spec!r}.')
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"`constraints` must name a module that can be imported, got {spec!r}: no module {error.name!r}."
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(
                f"`constraints` names {spec!r}, and {module!r} has no {name!r}.{hint(part, vars(found))}"
            )
        found = getattr(found, part)
    one = _as_constraint(found)
    return Constraint(one.fun, one.lower, one.upper, one.args, one.tol, one.vectorized, spec)


def _side(name: str, side: Any) -> np.ndarray[Any, Any]:
    array = np.atleast_1d(np.asarray(to_numpy(side) if is_torch(side) else side))
    if array.dtype.kind not in "fiu" or array.ndim != 1:
        raise TypeError(f"`{name}` must be a number or a row of numbers, got {side!r}.")
    if not len(array) or np.isnan(array).any():
        raise ValueError(f"`{name}` must hold numbers other than NaN, got {side!r}.")
    return array.astype(np.float64)


def _as_row(value: Any, fun: Any) -> np.ndarray[Any, Any]:
    array = np.atleast_1d(_as_array(value, fun))
    if array.ndim != 1:
        raise TypeError(
            f"the constraint {fun!r} must return a number or a row of numbers, got shape {array.shape}. If "
            "it takes many points at once, say Constraint(..., vectorized=True)."
        )
    if not len(array):
        raise ValueError(f"the constraint {fun!r} must return one number at least, got {value!r}.")
    return array


def _as_rows(value: Any, n: int, fun: Any) -> np.ndarray[Any, Any]:
    array = _as_array(value, fun)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or len(array) != n:
        raise ValueError(
            f"the constraint {fun!r} must return shape ({n},) or ({n}, m) for {n} points, got "
            f"{_as_array(value, fun).shape}."
        )
    if n and not array.shape[1]:
        raise ValueError(
            f"the constraint {fun!r} must return one number at least for each point, got shape {array.shape}."
        )
    return array


def _as_array(value: Any, fun: Any) -> np.ndarray[Any, Any]:
    array = to_numpy(value) if is_torch(value) else np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"the constraint {fun!r} must return real numbers, got {value!r}.")
    return array.astype(np.float64)
