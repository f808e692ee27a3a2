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
from typing import Any, TypeVar, dataclass_transform

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Like, is_torch
from zoo.core.rng import Key

T = TypeVar("T")

_CLASSES: dict[str, type[Any]] = {}


@dataclass_transform(frozen_default=True, eq_default=False)
def state(cls: type[T]) -> type[T]:
    """Make a class a state: a frozen dataclass with slots, known to `thaw` by its module and name.

    Fields may be numbers, strings, None, numpy arrays, torch tensors, `Key`, `Like`, `Log`, `Bounds`,
    tuples, dictionaries with string keys, and other states.

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
        added = np.asarray(values, np.float64)
        need = self._length + len(added)
        grown = Log.__new__(Log)
        grown._buffer, grown._used = self._buffer, self._used
        if self._used[0] != self._length or need > len(self._buffer):
            # Somebody else has grown this prefix already, or there is no room: start a buffer of our own.
            grown._buffer = np.empty(max(2 * need, 64))
            grown._buffer[: self._length] = self.array
            grown._used = [0]
        grown._buffer[self._length : need] = added
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


def freeze(value: Any) -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
    """Return `value` as (JSON tree, named arrays); floats survive to the last bit.

    Raises:
        TypeError: `value` holds something that is neither array, number nor state.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    return _freeze(value, "state", arrays), arrays


def thaw(tree: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """Rebuild what `freeze` took apart.

    Raises:
        ValueError: The tree names a class that is not a known state, or an array that is missing.
    """
    if not isinstance(tree, dict):
        return tuple(thaw(item, arrays) for item in tree) if isinstance(tree, list) else tree
    kind, body = next(iter(tree.items()))
    if kind == "float":
        return float(body)
    if kind == "dict":
        return {name: thaw(item, arrays) for name, item in body.items()}
    if kind == "key":
        return Key.parse(body)
    if kind == "like":
        return Like(**body)
    if kind in ("array", "log", "tensor"):
        name = body if kind != "tensor" else body["name"]
        if name not in arrays:
            raise ValueError(f"the array {name!r} is missing.")
        return _thaw_array(kind, body, arrays[name])
    if kind == "bounds":
        return Bounds(*(thaw({"array": f"{body}.{side}"}, arrays) for side in ("lower", "upper")))
    if kind == "state":
        known = _CLASSES.get(body["class"])
        if known is None:
            raise ValueError(f"no state of the name {body['class']!r} is known; import the module that defines it.")
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


def _freeze(value: Any, path: str, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, np.generic):
        return _freeze(value.item(), path, arrays)
    if isinstance(value, np.ndarray):
        arrays[path] = np.array(value, order="C")
        return {"array": path}
    if is_torch(value):
        like, plain = Like.of(value), value.detach().cpu().contiguous()
        if like.dtype == "bfloat16":
            import torch

            plain = plain.view(torch.int16)
        arrays[path] = plain.numpy().copy()
        return {"tensor": {"name": path, "dtype": like.dtype, "device": like.device}}
    if isinstance(value, Log):
        arrays[path] = np.array(value.array)
        return {"log": path}
    if isinstance(value, Key):
        return {"key": str(value)}
    if isinstance(value, Like):
        return {"like": dataclasses.asdict(value)}
    if isinstance(value, Bounds):
        arrays[f"{path}.lower"], arrays[f"{path}.upper"] = np.array(value.lower), np.array(value.upper)
        return {"bounds": path}
    if isinstance(value, (tuple, list)):
        return [_freeze(item, f"{path}.{index}", arrays) for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {"dict": {name: _freeze(item, f"{path}.{name}", arrays) for name, item in value.items()}}
    name = f"{type(value).__module__}:{type(value).__qualname__}"
    if _CLASSES.get(name) is not type(value):
        raise TypeError(f"`{path}` is a {name}, which no state can hold; mark its class with `@state`.")
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {
        "state": {
            "class": name,
            "fields": {field: _freeze(item, f"{path}.{field}", arrays) for field, item in fields.items()},
        }
    }


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
