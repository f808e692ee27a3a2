"""What algorithms hand over, looked at before anything is made of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from federated.algorithm import FederatedAlgorithm, Hidden, Trip
from federated.messages import Message
from zoo.core.device import Array, is_torch, to_numpy
from zoo.core.errors import EvaluationError
from zoo.core.types import Candidates, Rows


def check_trips(algorithm: FederatedAlgorithm[Any, Any]) -> None:
    """Raise where the trips of a round are none.

    Raises:
        TypeError: They are no tuple of `Trip`.
        ValueError: There are none.
    """
    trips = algorithm.trips
    if not isinstance(trips, tuple) or not all(isinstance(one, Trip) for one in trips):
        raise TypeError(f"`trips` of the method must be a tuple of Trip, got {trips!r}.")
    if not trips:
        raise ValueError("`trips` of the method must be at least one Trip, got an empty tuple.")


def points_of(wanted: Any, like: Array) -> Candidates:
    """Return the points that a client has yielded.

    Args:
        wanted: What it has yielded: an array of shape (k, dim), `Hidden`, or `Candidates`.
        like: An array of that kind, shape (dim,).

    Raises:
        TypeError: It is nothing of the kind, or of another kind than x0.
        ValueError: Its shape is another one.

    Example:
        >>> len(points_of(np.zeros((4, 3)), np.zeros(3)))
        4
    """
    given = wanted.points if isinstance(wanted, Hidden) else wanted
    dim = len(like)
    if isinstance(given, Candidates):
        if len(given) and given.dim != dim:
            raise ValueError(f"`reply` must yield points of shape (k, {dim}), got candidates of {given.dim}.")
        return given
    expected = "a tensor" if is_torch(like) else "an array"
    if not (is_torch(given) if is_torch(like) else isinstance(given, np.ndarray)):
        raise TypeError(
            f"`reply` must yield {expected} of points, shape (k, {dim}), of the kind of x0, got "
            f"{_said(given)}."
        )
    shape = tuple(given.shape)
    if shape == (dim,):
        raise ValueError(
            f"`reply` must yield points of shape (k, {dim}), got shape {shape}: yield x[None] for one point."
        )
    if len(shape) != 2 or shape[1] != dim:
        raise ValueError(f"`reply` must yield points of shape (k, {dim}), got shape {shape}.")
    return Rows(given)


def end_of(result: Any) -> tuple[Any, Message]:
    """Return what a client has come to.

    Raises:
        TypeError: It is not that.
    """
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Message)):
        raise TypeError(f"`reply` must return a client's new state and a Message, got {result!r}.")
    return result


def check_merged(server: Any, before: Any) -> None:
    """Raise `TypeError` where what a merge returned is no state of the server."""
    if not isinstance(server, type(before)):
        raise TypeError(
            f"`merge` must return the server's new state, a {type(before).__name__}, got {_said(server)}."
        )


def recommended(algorithm: FederatedAlgorithm[Any, Any], server: Any, like: Array) -> Array:
    """Return the point that the server has come to.

    Raises:
        TypeError: It is no array of the kind of x0.
        ValueError: It has another shape.
        EvaluationError: It is not finite.
    """
    x = algorithm.recommend(server)
    if not (is_torch(x) if is_torch(like) else isinstance(x, np.ndarray)):
        raise TypeError(f"`recommend` must return a point of the kind of x0, got {_said(x)}.")
    if tuple(x.shape) != tuple(like.shape):
        raise ValueError(
            f"`recommend` must return shape {tuple(like.shape)}, that of x0, got {tuple(x.shape)}."
        )
    if not np.isfinite(to_numpy(x)).all():
        raise EvaluationError(
            "x has become infinite or NaN on the server: what clients answered was finite, so steps are too "
            "large, or `merge` is wrong."
        )
    return x


def _said(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
