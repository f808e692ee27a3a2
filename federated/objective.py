"""The functions of all clients as one objective: each row is a point of one client."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np

from federated.task import Task, row_of
from zoo.core.device import Array, array_module
from zoo.core.objective import Objective, failure_of
from zoo.core.rng import Key
from zoo.core.types import Candidates, Evaluations
from zoo.core.validation import listed


class Request(NamedTuple):
    """Points of one client.

    Attributes:
        client: Its number.
        key: Randomness of their evaluation, common to them.
        points: Where they come from.
    """

    client: int
    key: Key
    points: Candidates


class ClientPoints(Candidates):
    """Points of several clients, those of each in a row.

    Args:
        requests: At least one, in the order of the clients.
    """

    __slots__ = ("requests", "starts")

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = tuple(requests)
        self.starts = [0, *accumulate(len(request.points) for request in requests)]

    @property
    def dim(self) -> int:
        return self.requests[0].points.dim

    def __len__(self) -> int:
        return self.starts[-1]

    def rows(self, start: int, stop: int) -> Array:
        parts = []
        while start < stop:
            number = bisect_right(self.starts, start) - 1
            first, end = self.starts[number], min(stop, self.starts[number + 1])
            parts.append(self.requests[number].points.rows(start - first, end - first))
            start = end
        return parts[0] if len(parts) == 1 else array_module(parts[0]).concatenate(parts)


class Look(Candidates):
    """One point at every client, to see what it is worth; what comes of it is no query.

    Args:
        x: Shape (dim,).
        num_clients: How many clients there are; row i is for client i.
    """

    __slots__ = ("num_clients", "x")

    def __init__(self, x: Array, num_clients: int) -> None:
        self.x, self.num_clients = x, num_clients

    @property
    def dim(self) -> int:
        return len(self.x)

    def __len__(self) -> int:
        return self.num_clients

    def rows(self, start: int, stop: int) -> Array:
        return array_module(self.x).stack([self.x] * (stop - start))


class ClientObjective(Objective):
    """What clients answer.

    Args:
        task: Whose clients they are.
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    def units(self, candidates: Candidates) -> Sequence[int]:
        """Return the boundaries between units: all at once, or those of each client apart."""
        if isinstance(candidates, Look):
            return range(len(candidates) + 1)
        assert isinstance(candidates, ClientPoints)
        starts = candidates.starts
        if self.task.joint:
            return [0, starts[-1]] if starts[-1] else [0]
        size = self.task.unit
        cuts = [
            cut
            for first, stop in pairwise(starts)
            for cut in range(first, stop, size or max(1, stop - first))
        ]
        return [*cuts, starts[-1]]

    def evaluate(self, candidates: Candidates, start: int, stop: int, *, key: Key, step: int) -> Evaluations:
        if isinstance(candidates, Look):
            return self._looked(candidates, start, stop)
        assert isinstance(candidates, ClientPoints)
        if self.task.joint:
            try:
                return self._together(candidates, start, stop)
            except Exception:  # of one client, perhaps: the others are to have their values
                return self._apart(candidates)
        return self._of_client(candidates, start, stop)

    def _of_client(self, candidates: ClientPoints, start: int, stop: int) -> Evaluations:
        """Evaluate points of one client; what it raises is told with its number."""
        request = candidates.requests[bisect_right(candidates.starts, start) - 1]
        try:
            values = self.task.values(request.client, candidates.rows(start, stop), key=request.key)
            return Evaluations(row_of(values, stop - start))
        except Exception as error:
            one = failure_of(error, start, "client")
            one = one._replace(message=f"client {request.client}: {one.message}")
            failures = [one._replace(row=row) for row in range(start, stop)]
            return Evaluations(np.full(stop - start, np.nan), tuple(failures))

    def _together(self, candidates: ClientPoints, start: int, stop: int) -> Evaluations:
        sizes = np.diff(candidates.starts)
        clients = np.repeat([request.client for request in candidates.requests], sizes)
        keys = [
            request.key for request, size in zip(candidates.requests, sizes, strict=True) for _ in range(size)
        ]
        values = self.task.joint_values(clients[start:stop], candidates.rows(start, stop), keys[start:stop])
        return Evaluations(row_of(values, stop - start))

    def _apart(self, candidates: ClientPoints) -> Evaluations:
        parts = [
            self._of_client(candidates, first, last)
            for first, last in pairwise(candidates.starts)
            if last > first
        ]
        failures = [failure for part in parts for failure in part.failures]
        return Evaluations(np.concatenate([part.values for part in parts]), tuple(failures))

    def _looked(self, candidates: Look, start: int, stop: int) -> Evaluations:
        found = [_measured(self.task, client, candidates.x) for client in range(start, stop)]
        extras = {name: np.array([[one[name]] for one in found]) for name in self.task.measures}
        return Evaluations(np.array([one["value"] for one in found]), (), extras)

    def identity(self) -> dict[str, Any]:
        return dict(self.task.identity())


def _measured(task: Task, client: int, x: Array) -> dict[str, float]:
    """Return what a task says of x at a client.

    Raises:
        TypeError: It says something else than it says that it does.
    """
    found, names = task.measure(client, x), ("value", *task.measures)
    if not isinstance(found, Mapping):
        raise TypeError(f'`measure` must return a dictionary with "value", got {found!r}.')
    for name in names:
        if name not in found:
            raise TypeError(
                f"`measure` must return {listed(names)}, got {listed(found)}: {name!r} is missing."
            )
    if extra := [name for name in found if name not in names]:
        raise TypeError(
            f"`measures` of the task must name all that `measure` returns: add {extra[0]!r}, as in "
            f"measures = {(*task.measures, extra[0])!r}."
        )
    numbers = {}
    for name in names:
        try:
            numbers[name] = float(found[name])
        except (TypeError, ValueError):
            raise TypeError(f"`measure` must return one number as {name!r}, got {found[name]!r}.") from None
    return numbers
