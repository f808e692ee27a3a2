"""Telling one objective from another: what its name does not say.

A run directory holds no functions. So that it is not gone on with under another one, it holds digests of
the arguments, the code and the attributes of its own.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from zoo.core.device import is_torch, to_numpy


def describe(fun: Any, args: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Return what tells `fun(x, *args)` from other functions.

    Returns:
        "name", as module:name; "arguments", a digest of `args`, of what `functools.partial` has bound and of
        default values, where there are any; "code", where code can be looked at, of its instructions; and
        "attributes", by name, of the plain values in its closure and in the instance it belongs to (aside
        from names with an underscore in front, and from those that it sets itself, as counters are).

    Example:
        >>> from functools import partial
        >>> def shifted(x, by):
        ...     return abs(x - by)
        >>> describe(partial(shifted, by=1))["arguments"] == describe(partial(shifted, by=2))["arguments"]
        False
    """
    bound: list[Any] = [args] if args else []
    inner = fun
    while isinstance(inner, functools.partial):
        bound += [inner.args, inner.keywords]
        inner = inner.func
    identity: dict[str, Any] = {"name": name_of(inner)}
    owner = inner.__self__ if isinstance(inner, MethodType) else inner
    function = inner if isinstance(inner, (FunctionType, MethodType)) else type(inner).__call__
    code = getattr(function, "__code__", None)
    attributes = {}
    if code is not None:
        identity["code"] = digest(code)
        defaults = (function.__defaults__, function.__kwdefaults__)
        bound += [default for default in defaults if default]
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        attributes = {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}
    if not isinstance(owner, FunctionType):
        attributes |= getattr(owner, "__dict__", {})
    own = _set_by(code) if code is not None else set()
    told = {name: value for name, value in attributes.items() if not (name.startswith("_") or name in own)}
    plain = {name: digest(value) for name, value in told.items() if _is_plain(value)}
    if bound:
        identity["arguments"] = digest(bound)
    if plain:
        identity["attributes"] = plain
    return identity


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits that equal values share, in any process; other objects are their class."""
    total = hashlib.sha256()
    _add(value, total, set())
    return total.hexdigest()[:16]


def name_of(thing: Any) -> str:
    """Return module:name of a function or class, or of the class of an instance."""
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    return f"{getattr(thing, '__module__', None) or '?'}:{name}"


def _add(value: Any, total: Any, seen: set[int]) -> None:
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        total.update(f"{type(value).__name__} {value!r};".encode())
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, (np.ndarray, np.generic)) or is_torch(value):
        array = to_numpy(value)
        total.update(f"array {array.dtype.str} {array.shape};".encode())
        total.update(b"" if array.dtype.hasobject else array.tobytes())
    elif isinstance(value, (tuple, list)):
        total.update(f"row {len(value)};".encode())
        for item in value:
            _add(item, total, seen)
    elif isinstance(value, dict):
        total.update(f"table {len(value)};".encode())
        for name in sorted(value, key=repr):
            _add(name, total, seen)
            _add(value[name], total, seen)
    elif isinstance(value, (set, frozenset)):
        total.update(f"set {sorted(map(repr, value))};".encode())  # its order changes from process to process
    elif isinstance(value, CodeType):
        total.update(f"{sys.version_info[:2]} {value.co_names};".encode() + value.co_code)
        for constant in value.co_consts:
            _add(constant, total, seen)
    elif isinstance(value, functools.partial):
        _add([value.func, value.args, value.keywords], total, seen)
    else:
        total.update(f"{name_of(value)};".encode())
        if isinstance(value, (FunctionType, MethodType)):
            _add(value.__code__, total, seen)


def _set_by(code: CodeType) -> set[str]:
    """Return the names of outer variables and of attributes that a function assigns to."""
    return {
        step.argval for step in dis.get_instructions(code) if step.opname in ("STORE_DEREF", "STORE_ATTR")
    }


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _is_plain(value: Any) -> bool:
    return isinstance(
        value, (bool, int, float, complex, str, bytes, tuple, np.ndarray, np.generic)
    ) or is_torch(value)
