"""Explicit state: frozen dataclasses of arrays and numbers, and how they are written down.

A state is everything a method knows. `freeze` turns one into a JSON tree and named numpy arrays,
`thaw` turns those back into an equal one, `digest` is the sha256 of the two. Only classes marked
with `@state` are ever rebuilt: reading a checkpoint runs no code that the checkpoint names.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import weakref
from collections.abc import MutableMapping
from typing import Any, TypeVar, dataclass_transform

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Like, is_torch
from zoo.core.grid import Grid
from zoo.core.rng import Key
from zoo.core.validation import listed

T = TypeVar("T")

_CLASSES: dict[str, type[Any]] = {}
_SHARED: MutableMapping[str, Any] = weakref.WeakValueDictionary()  # arrays by what is in them
_GRID = ("counts", "ratios", "groups")


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(dataclasses.field,))
def state(cls: type[T]) -> type[T]:
    """Make a class a state: a frozen dataclass with slots, known to `thaw` by its module and name.

    Fields may be numbers, strings, None, numpy scalars and arrays, torch tensors, `Key`, `Like`, `Log`,
    `Bounds`, tuples, dictionaries with string keys, and other states.

    An array in a field with the metadata `SHARED` is written down once, however many states hold an equal one
    in such a field, and `thaw` has all of them hold the same object. Nobody may write to it.

    Example:
        >>> @state
        ... class Counter:
        ...     count: int
        >>> tree, arrays = freeze(Counter(3))
        >>> thaw(tree, arrays).count
        3
    """
    made = dataclasses.dataclass(frozen=True, slots=True, eq=False)(cls)
    _CLASSES[f"{made.__module__}:{made.__qualname__}"] = made
    return made


class Log:
    """An append-only row of float64 numbers whose prefixes are values.

    `append` returns a longer log and leaves this one as it was; logs grown one from another share
    one buffer, so a history of n numbers costs n numbers, not n² / 2.

    Example:
        >>> short = Log().append([1.0, 2.0])
        >>> long = short.append([3.0])
        >>> short.array.tolist(), long.array.tolist()
        ([1.0, 2.0], [1.0, 2.0, 3.0])
    """

    __slots__ = ("_buffer", "_length", "_used")

    def __init__(self, values: Any = ()) -> None:
        data = np.array(values, np.float64)
        self._buffer, self._length, self._used = data, len(data), [len(data)]

    def append(self, values: Any) -> Log:
        """Return the log with `values` at its end."""
        need = self._length + len(values)
        grown = Log.__new__(Log)
        grown._buffer, grown._used = self._buffer, self._used
        if self._used[0] != self._length or need > len(self._buffer):
            # Somebody else has grown this prefix already, or there is no room: start a buffer of our own.
            grown._buffer = np.empty(max(2 * need, 64))
            grown._buffer[: self._length] = self.array
            grown._used = [0]
        grown._buffer[self._length : need] = values
        grown._length = grown._used[0] = need
        return grown

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """The numbers, read-only."""
        view = self._buffer[: self._length]
        view.flags.writeable = False
        return view

    def __len__(self) -> int:
        return self._length

    def __reduce__(self) -> tuple[Any, ...]:
        return Log, (np.array(self.array),)


SHARED = {"shared": True}
"""Metadata of a field: `x: Array = dataclasses.field(metadata=SHARED)`, see `state`."""


class _Arrays(dict[str, "np.ndarray[Any, Any]"]):
    """Arrays by name, and the entries of shared ones by the identity of the object."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[int, Any] = {}


def freeze(value: Any) -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
    """Return `value` as (JSON tree, named arrays); numbers survive to the last bit, with their types.

    Raises:
        TypeError: `value` holds something that no state can hold; see `state` for what can be held.
        ValueError: Names in its dictionaries are such that two arrays would get the same one.
    """
    arrays = _Arrays()
    tree = _freeze(value, "state", arrays)
    return tree, dict(arrays)


def thaw(tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """Rebuild what `freeze` took apart.

    Raises:
        ValueError: The tree names a class that is not a known state, or one with other fields, or an
            array that is missing.
    """
    if not isinstance(tree, dict):
        return tuple(thaw(item, arrays) for item in tree) if isinstance(tree, list) else tree
    kind, body = next(iter(tree.items()))
    if kind == "float":
        return float(body)
    if kind == "scalar":
        return np.dtype(body["dtype"]).type(thaw(body["value"], arrays))
    if kind == "dict":
        return {name: thaw(item, arrays) for name, item in body.items()}
    if kind == "key":
        return Key.parse(body)
    if kind == "like":
        return Like(**body)
    if kind == "shared":
        made, name = thaw(body, arrays), json.dumps(body, sort_keys=True)
        return _SHARED.setdefault(name, made)
    if kind in ("array", "log", "tensor"):
        name = body if kind != "tensor" else body["name"]
        if name not in arrays:
            raise ValueError(f"the array {name!r} is missing.")
        return _thaw_array(kind, body, arrays[name])
    if kind == "bounds":
        lower, upper = (thaw({"array": f"{body}.{side}"}, arrays) for side in ("lower", "upper"))
        cut = f"{body}.grid.counts" in arrays
        return Bounds(lower, upper, Grid(*(arrays[f"{body}.grid.{part}"] for part in _GRID)) if cut else None)
    if kind == "state":
        known = _CLASSES.get(body["class"])
        if known is None:
            raise ValueError(
                f"no state of the name {body['class']!r} is known; import the module that defines it."
            )
        fields = {field.name for field in dataclasses.fields(known)}
        if fields != body["fields"].keys():
            raise ValueError(
                f"the state {body['class']!r} has the fields {listed(sorted(fields))}, "
                f"and not {listed(sorted(body['fields']))}."
            )
        return known(**{name: thaw(item, arrays) for name, item in body["fields"].items()})
    raise ValueError(f"unknown kind of entry {kind!r}.")


def digest(value: Any) -> str:
    """Return the sha256 of a state, as hexadecimal digits."""
    tree, arrays = freeze(value)
    return digest_of(tree, arrays)


def digest_of(tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> str:
    """Return the sha256 of a state that `freeze` took apart already."""
    total = hashlib.sha256(json.dumps(tree, sort_keys=True, allow_nan=False).encode())
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"{name} {array.dtype.str} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _freeze(value: Any, path: str, arrays: _Arrays) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.generic) and _is_kept(value.dtype):
        # Not as plain numbers: numpy's promote other arrays than Python's do.
        return {"scalar": {"dtype": value.dtype.name, "value": _freeze(value.item(), path, arrays)}}
    if isinstance(value, np.ndarray) and _is_kept(value.dtype):
        return {"array": _put(value, path, arrays)}
    if is_torch(value):
        like, plain = Like.of(value), value.detach().cpu().contiguous()
        if like.dtype == "bfloat16":
            import torch

            plain = plain.view(torch.int16)
        name = _put(plain.numpy(), path, arrays)
        return {"tensor": {"name": name, "dtype": like.dtype, "device": like.device}}
    if isinstance(value, Log):
        return {"log": _put(value.array, path, arrays)}
    if isinstance(value, Key):
        return {"key": str(value)}
    if isinstance(value, Like):
        return {"like": dataclasses.asdict(value)}
    if isinstance(value, Bounds):
        _put(value.lower, f"{path}.lower", arrays)
        _put(value.upper, f"{path}.upper", arrays)
        for part in _GRID if value.grid is not None else ():
            _put(getattr(value.grid, part), f"{path}.grid.{part}", arrays)
        return {"bounds": path}
    if type(value) is tuple:
        return [_freeze(item, f"{path}.{index}", arrays) for index, item in enumerate(value)]
    if type(value) is dict and all(isinstance(name, str) for name in value):
        return {"dict": {name: _freeze(item, f"{path}.{name}", arrays) for name, item in value.items()}}
    kind = f"{type(value).__module__}:{type(value).__qualname__}"
    if _CLASSES.get(kind) is not type(value):
        what = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"of type {kind}"
        raise TypeError(f"`{path}` is {what}, which no state can hold; `zoo.core.state.state` says what can.")
    fields = {}
    for field in dataclasses.fields(value):
        way = _freeze_shared if field.metadata.get("shared") else _freeze
        fields[field.name] = way(getattr(value, field.name), f"{path}.{field.name}", arrays)
    return {"state": {"class": kind, "fields": fields}}


def _freeze_shared(value: Any, path: str, arrays: _Arrays) -> Any:
    """Write down an array under a name that says what is in it, unless it has been already."""
    if not (isinstance(value, np.ndarray) or is_torch(value)):
        return _freeze(value, path, arrays)
    # All objects live as long as what is being written down does.
    if id(value) not in arrays.entries:
        own = _Arrays()
        entry = _freeze(value, "", own)
        array = own.pop("")
        name = f"shared.{digest_of(None, {'': array})}"
        arrays[name] = array
        body = name if "array" in entry else {**entry["tensor"], "name": name}
        arrays.entries[id(value)] = {"shared": {next(iter(entry)): body}}
    return arrays.entries[id(value)]


def _is_kept(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biuf" and dtype.itemsize <= 8


def _put(array: np.ndarray[Any, Any], path: str, arrays: dict[str, np.ndarray[Any, Any]]) -> str:
    if path in arrays:
        raise ValueError(f"two arrays of a state would both be named {path!r}; rename a key of a dictionary.")
    arrays[path] = np.array(array, order="C")
    return path


def _thaw_array(kind: str, body: Any, array: np.ndarray[Any, Any]) -> Any:
    if kind == "array":
        return np.array(array)
    if kind == "log":
        return Log(array)
    import torch

    tensor = torch.from_numpy(np.array(array))
    if body["dtype"] == "bfloat16":
        tensor = tensor.view(torch.bfloat16)
    return tensor.to(body["device"])
