"""Sentences for bad input: which argument, what rule, what value, what to do instead."""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

MOST_VARIABLES = 10**8
"""Variables that VALUExDIM may ask for: lists of more do not fit into memory."""


def check_positive(name: str, value: object) -> float:
    """Return `value` as a float, or raise unless it is a finite number above 0."""
    number = check_number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"`{name}` must be a finite number above 0, got {value!r}.")
    return number


def check_number(name: str, value: object) -> float:
    """Return `value` as a float, or raise `TypeError` unless it is a real number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number, got {value!r}.")
    return float(value)


def check_count(name: str, value: object, *, minimum: int = 1) -> int:
    """Return `value` as an int, or raise unless it is an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        whole = isinstance(value, numbers.Real) and not isinstance(value, bool) and value == value // 1
        instead = f": write {int(value)}" if whole else ""  # type: ignore[call-overload]
        raise TypeError(f"`{name}` must be an integer, got {value!r}{instead}.")
    if value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}, got {value!r}.")
    return int(value)


def check_flag(name: str, value: object) -> bool:
    """Return `value`, or raise `TypeError` unless it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {value!r}.")
    return value


def check_fraction(name: str, value: object) -> float:
    """Return `value` as a float, or raise unless 0 <= value < 1."""
    number = check_number(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"`{name}` must be at least 0 and below 1, got {value!r}.")
    return number


def check_probability(name: str, value: object) -> float:
    """Return `value` as a float, or raise unless 0 <= value <= 1."""
    number = check_number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"`{name}` must be from 0 to 1, got {value!r}.")
    return number


def check_choice(name: str, value: object, valid: Iterable[str]) -> str:
    """Return `value`, or raise unless it is one of `valid`; the nearest one is suggested."""
    choices = list(valid)
    for choice in choices:
        if value == choice:
            return choice
    raise ValueError(f"`{name}` must be one of {listed(choices)}, got {value!r}.{hint(value, choices)}")


def check_known(what: str, names: Iterable[str], valid: Iterable[str]) -> None:
    """Raise `TypeError` for the first of `names` that is not in `valid`."""
    choices = sorted(valid)
    for name in names:
        if name not in choices:
            raise TypeError(f"unknown {what} {name!r}.{hint(name, choices)} Valid: {listed(choices)}.")


def hint(value: object, valid: Iterable[str], quote: str = "'", cutoff: float = 0.5) -> str:
    """Return " Did you mean ...?" when something in `valid` is near `value`, else nothing."""
    names = {name.casefold(): name for name in valid}  # scipy writes L-BFGS-B
    near = difflib.get_close_matches(str(value).casefold(), names, n=1, cutoff=cutoff)
    return f" Did you mean {quote}{names[near[0]]}{quote}?" if near else ""


def printable(text: object) -> str:
    """Return a text as one line that no terminal takes for commands.

    Example:
        >>> printable("learning" + chr(10) + "rate")
        'learning rate'
    """
    return "".join(
        c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in str(text)
    )


def listed(names: Iterable[Any]) -> str:
    """Return the names quoted and separated by commas, or `none`."""
    return ", ".join(repr(name) for name in names) or "none"
