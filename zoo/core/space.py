"""Spaces of points whose variables are floats, integers and categories, and how a method sees them.

A method searches the box [0, 1]^dim. `Space.decode` turns a row of that box into a point as the user
knows it, `Space.encode` a point into such a row.
"""

from __future__ import annotations

import abc
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.grid import Grid
from zoo.core.validation import check_flag, check_known, check_number, hint, listed

Point: TypeAlias = Any
"""A dictionary of values by name, or a tuple of values where the variables have no names."""

_MOST = 2**40  # values of an integer: with more, cells come near the spacing of the coordinates
_DIGITS = 12  # of a float on a logarithmic scale; its coordinate can tell that many apart, whatever its range


class Variable(abc.ABC):
    """A variable of a space: `Float`, `Integer` or `Categorical`."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def num_values(self) -> int:
        """How many values it has; 0 where it is continuous."""

    @property
    def dim(self) -> int:
        """How many coordinates of a row stand for it: none where it has one value only."""
        return 0 if self.num_values == 1 else 1

    @abc.abstractmethod
    def value(self, index: int) -> Any:
        """Return a value by number, where it has finitely many."""

    def from_unit(self, u: Sequence[float]) -> list[Any]:
        """Return the values of coordinates, where one coordinate stands for it."""
        count, most = self.num_values, self.num_values - 1
        return [self.value(min(max(math.ceil(share * count) - 1, 0), most)) for share in u]

    @abc.abstractmethod
    def index(self, value: Any) -> int:
        """Return the number of a value, where it has finitely many.

        Raises:
            TypeError: It is of another type than this variable's values.
            ValueError: It is none of them.
        """

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return it as JSON holds it."""


@dataclass(frozen=True, slots=True)
class Float(Variable):
    """A real number from `lower` to `upper`.

    Values have 12 significant digits where `log` is said, else as many decimals as leave 14 to the
    larger of the two ends: as many as a coordinate can tell apart, so that encoding and decoding are exact.

    Args:
        lower: Smallest value.
        upper: Largest value.
        log: Whether ratios count and not differences, as for learning rates; `lower` is then above 0.

    Raises:
        TypeError: An end is no number, or `log` neither True nor False.
        ValueError: The ends are not finite, in the wrong order, or not above 0 where they have to be.

    Example:
        >>> Float(1e-5, 1.0, log=True)
        Float(lower=1e-05, upper=1.0, log=True)
    """

    lower: float
    upper: float
    log: bool = False

    def __post_init__(self) -> None:
        lower, upper = check_number("lower", self.lower), check_number("upper", self.upper)
        check_flag("log", self.log)
        if not (math.isfinite(lower) and math.isfinite(upper) and math.isfinite(upper - lower)):
            raise ValueError(f"`lower` and `upper` must be finite, got {self.lower!r} and {self.upper!r}.")
        _check_order(lower, upper)
        if self.log and lower <= 0:
            raise ValueError(f"`lower` must be above 0 where `log` is True, got {self.lower!r}.")
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    @property
    def num_values(self) -> int:
        return 1 if self.lower == self.upper else 0

    def value(self, index: int) -> float:
        return self.lower

    def index(self, value: Any) -> int:
        self.check(value)
        return 0

    def check(self, value: Any) -> float:
        """Return a value as a float.

        Raises:
            TypeError: It is no number.
            ValueError: It is not between the two ends.
        """
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"must be a number, got {value!r}.")
        number = float(value)
        if not self.lower <= number <= self.upper:
            raise ValueError(f"must be from {self.lower} to {self.upper}, got {value!r}.")
        return number

    def to_unit(self, value: Any) -> float:
        """Return the coordinate of a value."""
        number = self.check(value)
        if self.log:
            least = math.log(self.lower)  # logarithms are subtracted, as the ratio may be no number
            return min(1.0, (math.log(number) - least) / (math.log(self.upper) - least))
        return min(1.0, (number - self.lower) / (self.upper - self.lower))

    def from_unit(self, u: Sequence[float]) -> list[float]:
        """Return the values of coordinates."""
        lower, upper = self.lower, self.upper
        if self.log:
            least, most = math.log(lower), math.log(upper)
            found = [float(f"{math.exp(least + share * (most - least)):.{_DIGITS - 1}e}") for share in u]
        else:
            width, decimals = upper - lower, 14 - math.ceil(math.log10(max(abs(lower), abs(upper))))
            found = [round(lower + share * width, decimals) for share in u]
        # The ends have all their digits.
        return [
            lower if share <= 0 else upper if share >= 1 else min(max(number, lower), upper)
            for share, number in zip(u, found, strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        return {"kind": "float", "lower": self.lower, "upper": self.upper, "log": self.log}


@dataclass(frozen=True, slots=True)
class Integer(Variable):
    """An integer from `lower` to `upper`, both included.

    Args:
        lower: Smallest value.
        upper: Largest value.
        log: Whether ratios count and not differences, as for widths; `lower` is then at least 1.

    Raises:
        TypeError: An end is no integer, or `log` neither True nor False.
        ValueError: The ends are in the wrong order, too far apart, or not above 0 where they have to be.

    Example:
        >>> Integer(1, 8).num_values
        8
    """

    lower: int
    upper: int
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            end = getattr(self, name)
            if isinstance(end, bool) or not isinstance(end, numbers.Integral):
                raise TypeError(f"`{name}` must be an integer, got {end!r}.")
            object.__setattr__(self, name, int(end))
        check_flag("log", self.log)
        _check_order(self.lower, self.upper)
        if self.log and self.lower < 1:
            raise ValueError(f"`lower` must be at least 1 where `log` is True, got {self.lower!r}.")
        if self.num_values > _MOST or (self.log and self.upper > _MOST):
            raise ValueError(
                f"`upper` must leave at most 2^40 values, got {self.lower} to {self.upper}: take a Float and "
                "round it."
            )

    @property
    def num_values(self) -> int:
        return self.upper - self.lower + 1

    def value(self, index: int) -> int:
        return self.lower + index

    def from_unit(self, u: Sequence[float]) -> list[int]:
        if not self.log:
            return Variable.from_unit(self, u)
        first = self.lower - 0.5
        span = math.log((self.upper + 0.5) / first)
        return [
            min(
                max(math.ceil(first * math.exp(share * span) - first) - 1 + self.lower, self.lower),
                self.upper,
            )
            for share in u
        ]

    def index(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"must be an integer, got {value!r}.")
        whole = isinstance(value, numbers.Integral) or float(value).is_integer()
        number = int(value if isinstance(value, numbers.Integral) else float(value)) if whole else None
        if number is None or not self.lower <= number <= self.upper:
            raise ValueError(f"must be an integer from {self.lower} to {self.upper}, got {value!r}.")
        return number - self.lower

    def describe(self) -> dict[str, Any]:
        return {"kind": "integer", "lower": self.lower, "upper": self.upper, "log": self.log}


@dataclass(frozen=True, slots=True)
class Categorical(Variable):
    """One of several values.

    Args:
        choices: The values: strings, numbers, True, False, None, and tuples of these. For anything else
            give names here, and look them up in the function.
        ordered: Whether their order means something, as for batch sizes or standard thicknesses:
            neighbours are then taken to be alike.

    Raises:
        TypeError: A choice is of another type, or `choices` is no sequence.
        ValueError: There is no choice, or two are equal.

    Example:
        >>> Categorical([0.0625, 0.125, 0.1875], ordered=True).num_values
        3
    """

    choices: Sequence[Any]
    ordered: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.choices, (str, bytes, Mapping)) or not isinstance(
            self.choices, (Sequence, np.ndarray)
        ):
            raise TypeError(f"`choices` must be a list of values, got {self.choices!r}.")
        check_flag("ordered", self.ordered)
        choices = tuple(_as_choice(choice) for choice in self.choices)
        if not choices:
            raise ValueError("`choices` must hold at least one value, got none.")
        for i, choice in enumerate(choices):
            if choice in choices[:i]:
                raise ValueError(f"`choices` must differ from each other, got {choice!r} twice.")
        object.__setattr__(self, "choices", choices)

    @property
    def num_values(self) -> int:
        return len(self.choices)

    @property
    def dim(self) -> int:
        if self.ordered or self.num_values <= 2:
            return min(1, self.num_values - 1)
        return self.num_values

    def value(self, index: int) -> Any:
        return self.choices[index]

    def index(self, value: Any) -> int:
        try:
            return self.choices.index(_as_choice(value))
        except (TypeError, ValueError):
            near = hint(value, [choice for choice in self.choices if isinstance(choice, str)])
            raise ValueError(f"must be one of {listed(self.choices)}, got {value!r}.{near}") from None

    def describe(self) -> dict[str, Any]:
        return {"kind": "categorical", "choices": list(self.choices), "ordered": self.ordered}


_KINDS: dict[str, type[Variable]] = {"float": Float, "integer": Integer, "categorical": Categorical}


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Variables that make up a point.

    Functions get points as dictionaries by name, or as tuples where the variables are given without
    names; functions of many points at once get arrays in the place of the values, one entry for each point.

    Methods see rows of the box [0, 1]^dim instead. A float is one coordinate of them, which `log`
    makes logarithmic. An integer is one coordinate cut into cells, one for each value: equally wide ones,
    or with `log` those of the logarithmic scale. Ordered choices, and two of any kind, are cells as well.
    Three or more choices without an order are one coordinate each, of which the largest one wins. A
    variable that can have one value only takes no coordinate. Where a row is uniform in the box, its point
    is uniform in the choices, the integers and the floats, or in their logarithms.

    Args:
        variables: By name, or a sequence of them without names.

    Raises:
        TypeError: Something in it is no variable, or a name no string.
        ValueError: There is nothing to vary.

    Attributes:
        names: Of the variables, None where they have none.
        dim: Length of a row.
        bounds: The box, with the discrete coordinates as its grid.

    Example:
        >>> space = Space({"lr": Float(1e-4, 1.0, log=True), "depth": Integer(1, 4)})
        >>> row = space.encode({"lr": 0.01, "depth": 3})
        >>> row.tolist()
        [0.5, 0.625]
        >>> space.decode(row)
        {'lr': 0.01, 'depth': 3}
    """

    variables: tuple[Variable, ...]
    names: tuple[str, ...] | None = field(init=False)
    dim: int = field(init=False)
    bounds: Bounds = field(init=False, repr=False)

    def __init__(self, variables: Mapping[str, Variable] | Sequence[Variable]) -> None:
        if isinstance(variables, Mapping):
            names, given = tuple(variables), tuple(variables.values())
        elif isinstance(variables, Sequence) and not isinstance(variables, str):
            names, given = None, tuple(variables)
        else:
            raise TypeError(f"`variables` must be a dictionary or a list of variables, got {variables!r}.")
        for i, variable in enumerate(given):
            where = f"variables[{i if names is None else repr(names[i])}]"
            if names is not None and not isinstance(names[i], str):
                raise TypeError(f"`variables` must have strings for names, got {names[i]!r}.")
            if not isinstance(variable, Variable):
                raise TypeError(
                    f"`{where}` must be a zoo.Float, a zoo.Integer or a zoo.Categorical, got {variable!r}."
                )
        dim = sum(variable.dim for variable in given)
        if not dim:
            raise ValueError("`variables` must hold one at least that has more than one value.")
        for name, value in (("variables", given), ("names", names), ("dim", dim)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "bounds", Bounds(np.zeros(dim), np.ones(dim), grid=_grid(given)))

    def __len__(self) -> int:
        return len(self.variables)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and repr(other) == repr(self)  # which tells 1 from 1.0 and True

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        inside = self.variables if self.names is None else dict(zip(self.names, self.variables, strict=True))
        return f"Space({list(inside) if self.names is None else inside!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Space.read, (self.describe(),)

    @property
    def grid(self) -> Grid | None:
        """The discrete coordinates, None where there are none."""
        return self.bounds.grid

    @property
    def choices(self) -> list[Any]:
        """All choices of all categories."""
        return [
            c for variable in self.variables if isinstance(variable, Categorical) for c in variable.choices
        ]

    @property
    def scale(self) -> np.ndarray[Any, Any]:
        """How far the first candidates of a search go from its start, per coordinate."""
        return np.full(self.dim, 0.3)

    @property
    def x0(self) -> np.ndarray[Any, Any]:
        """The row in the middle of all, which stands for the first of choices without an order."""
        return np.full(self.dim, 0.5)

    def encode(self, point: Point) -> np.ndarray[Any, Any]:
        """Return the row of a point, shape (dim,): the middle of a cell, a corner's neighbour of a group.

        Args:
            point: A dictionary with a value for each name, or a sequence of values where there are no names.

        Raises:
            TypeError: `point` is neither, has an unknown name, or a value is of the wrong type.
            ValueError: A name or a value is missing, or a value is none of its variable's.
        """
        values = self._values_of(point)
        row, index, at = np.empty(self.dim), np.zeros(self.dim, np.int64), 0
        for i, (variable, value) in enumerate(zip(self.variables, values, strict=True)):
            try:
                if isinstance(variable, Float):
                    row[at : at + variable.dim] = (
                        variable.to_unit(value) if variable.dim else variable.check(value)
                    )
                else:
                    found = variable.index(value)
                    if variable.dim > 1:
                        # Not the corner, from which no method would look at another choice.
                        row[at : at + variable.dim] = 0.25
                        row[at + found] = 0.75
                    index[at : at + variable.dim] = found
            except (TypeError, ValueError) as error:
                raise type(error)(f"{self._name(i)} {error}") from None
            at += variable.dim
        if self.grid is None:
            return row
        return np.where(self.grid.celled, self.grid.centre(index), row)

    def decode(self, row: Any) -> Point:
        """Return the point that a row stands for.

        Args:
            row: Shape (dim,), finite.

        Returns:
            A dictionary, or a tuple where the variables have no names, of floats, ints and choices.
        """
        return self.points(np.asarray(row, np.float64)[None])[0]

    def points(self, rows: np.ndarray[Any, Any]) -> list[Point]:
        """Return the points that rows stand for, shape (k, dim)."""
        values, names = self.values(rows), self.names
        return values if names is None else [dict(zip(names, value, strict=True)) for value in values]

    def values(self, rows: np.ndarray[Any, Any]) -> list[tuple[Any, ...]]:
        """Return the values of the points that rows stand for, in the order of the variables."""
        return list(zip(*self._decoded(rows), strict=True))

    def columns(self, rows: np.ndarray[Any, Any]) -> Point:
        """Return the points that rows stand for as one: an array of shape (k,) in the place of each value.

        Floats are float64, integers int64, choices objects.
        """
        kinds = {Float: np.float64, Integer: np.int64}
        arrays = []
        for variable, values in zip(self.variables, self._decoded(rows), strict=True):
            array = np.empty(len(rows), kinds.get(type(variable), object))
            array[:] = values
            arrays.append(array)
        return tuple(arrays) if self.names is None else dict(zip(self.names, arrays, strict=True))

    def describe(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "names": None if self.names is None else list(self.names),
            "variables": [variable.describe() for variable in self.variables],
        }

    @staticmethod
    def read(described: Mapping[str, Any]) -> Space:
        """Return what `describe` described, also after it went through JSON."""
        variables = []
        for entry in described["variables"]:
            kind = _KINDS[entry["kind"]]
            variables.append(kind(**{name: _as_tuples(v) for name, v in entry.items() if name != "kind"}))
        names = described["names"]
        return Space(variables if names is None else dict(zip(names, variables, strict=True)))

    def _name(self, i: int) -> str:
        return f"[{i}]" if self.names is None else repr(self.names[i])

    def _values_of(self, point: Point) -> list[Any]:
        if self.names is None:
            if isinstance(point, (str, bytes, Mapping)) or not isinstance(point, (Sequence, np.ndarray)):
                raise TypeError(f"a point of this space is a list of values, got {point!r}.")
            if len(point) != len(self):
                raise ValueError(
                    f"a point of this space has {len(self)} values, got {len(point)}: {point!r}."
                )
            return list(point)
        if not isinstance(point, Mapping):
            raise TypeError(f"a point of this space is a dictionary of {listed(self.names)}, got {point!r}.")
        check_known("variable", point, self.names)
        missing = [name for name in self.names if name not in point]
        if missing:
            raise ValueError(f"a point of this space must have a value for {listed(missing)}, got {point!r}.")
        return [point[name] for name in self.names]

    def _decoded(self, rows: np.ndarray[Any, Any]) -> list[list[Any]]:
        """Return the values of each variable at all rows."""
        rows = np.asarray(rows, np.float64)
        if rows.shape[1:] != (self.dim,):
            raise ValueError(f"rows of this space have {self.dim} coordinates, got shape {rows.shape}.")
        # Plain numbers: the rows of a step are too few for arrays to pay.
        coordinates, values, at = rows.T.tolist(), [], 0
        for variable in self.variables:
            dim = variable.dim
            if dim > 1:
                here = zip(*coordinates[at : at + dim], strict=True)
                values.append([variable.value(group.index(max(group))) for group in here])
            else:
                values.append(variable.from_unit(coordinates[at] if dim else [0.0] * len(rows)))
            at += dim
        return values


def _grid(variables: Sequence[Variable]) -> Grid | None:
    counts: list[int] = []
    ratios: list[float] = []
    groups: list[int] = []
    for number, variable in enumerate(variables):
        dim, grouped = variable.dim, variable.dim > 1
        counts += [0 if grouped else variable.num_values] * dim
        groups += [number if grouped else -1] * dim
        log = isinstance(variable, Integer) and variable.log
        ratios += [(variable.upper + 0.5) / (variable.lower - 0.5) if log else 1.0] * dim  # type: ignore[attr-defined]
    if not any(counts) and max(groups) < 0:
        return None
    return Grid(np.array(counts), np.array(ratios), np.array(groups))


def _check_order(lower: float, upper: float) -> None:
    if lower > upper:
        raise ValueError(f"`lower` must not be above `upper`, got {lower!r} and {upper!r}.")


def _as_choice(value: Any) -> Any:
    """Return a choice as JSON can hold it and give it back."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (tuple, list)):
        return tuple(_as_choice(item) for item in value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise ValueError(f"`choices` must be finite where they are numbers, got {value!r}.")
    raise TypeError(
        f"`choices` must be strings, numbers, True, False, None or tuples of these, got {value!r}: give "
        "names here, and look them up in the function."
    )


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
