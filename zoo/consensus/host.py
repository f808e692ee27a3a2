"""Torch's arrays on the host as numpy's, in the same memory: small operations take a fraction of the time."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.core.device import Array, Like, array_module

Matrix = np.ndarray[Any, Any]


def is_on_device(array: Array) -> bool:
    """Return whether an array is in a memory that numpy cannot work on."""
    return not isinstance(array, np.ndarray) and array.device.type != "cpu"


def on_host(array: Array) -> Array:
    """Return the numpy array that shares the memory of another one there; one on a device as it is."""
    return array.numpy() if not isinstance(array, np.ndarray) and array.device.type == "cpu" else array


def of_kind(array: Array, made: Array) -> Array:
    """Return a numpy array as the kind of another one on the host, sharing its memory; others as they are."""
    if isinstance(array, np.ndarray) or not isinstance(made, np.ndarray):
        return made
    return array_module(array).from_numpy(made)


def empty_like(array: Array) -> Array:
    """Return an array of the same kind, shape and dtype, with anything in it; on the host, numpy's memory."""
    if is_on_device(array):
        return array_module(array).empty_like(array)
    return of_kind(array, np.empty(array.shape, on_host(array).dtype))


def cast(array: Array, like: Like) -> Array:
    """Return an array in single or double precision, as `like` has it: `like.asarray` in half of its time.

    Example:
        >>> cast(np.ones(2), Like("numpy", "float32")).dtype.name
        'float32'
    """
    if isinstance(array, np.ndarray):
        return array.astype(like.dtype, copy=False)
    return array.float() if like.dtype == "float32" else array.double()
