"""Clients that end their worker, hang, or raise as they work."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from federated.algorithm import Local, Trip
from tests.federated.toys import At, Bowls, Client, Descent
from zoo.core.device import Array
from zoo.core.rng import Key


class Dying(Bowls):
    """Bowls, some of whose clients end the process, or hang, at the points of their second trip.

    Args:
        num_clients: How many.
        kills: Clients that end it.
        hangs: Clients that hang.
        marks: File that takes a line each time that one does.
    """

    def __init__(
        self, num_clients: int = 6, kills: Any = (), hangs: Any = (), *, marks: str | None = None
    ) -> None:
        super().__init__(num_clients)
        self.kills, self.hangs, self._marks = tuple(kills), tuple(hangs), marks

    def values(self, client: int, x: Array, *, key: Key) -> Any:
        found = super().values(client, x, key=key)
        if client in (*self.kills, *self.hangs) and len(x) == 1:
            if self._marks is not None:
                with Path(self._marks).open("a") as file:
                    file.write(f"{client}\n")
            if client in self.kills:
                os._exit(1)
            time.sleep(3600)
        return found


@dataclass(frozen=True)
class Stumbling(Descent):
    """Some clients raise in their second trip, from some round on; or all ask for a point too many.

    Args:
        clients: Who raises.
        since: The first round in which they do.
        too_many: Whether clients ask for a point more than `most_queries` says.
        spoils: "merge", "recommend", "shape" or "nan": what the server does wrong, empty for nothing.
    """

    clients: tuple[int, ...] = ()
    since: int = 0
    too_many: bool = False
    spoils: str = ""

    @property
    def trips(self) -> tuple[Trip, ...]:
        first, second = super().trips
        merge = (lambda server, answers: None) if self.spoils == "merge" else second.merge
        return first, Trip(second.request, self._stumble, merge)

    def _stumble(self, client: Client, message: Any, local: Local) -> Any:
        yield message.x[None]
        if self.too_many:
            yield np.stack([message.x] * 4)
        if local.client in self.clients and local.round >= self.since:
            raise RuntimeError("a bug")
        return Client(client.momentum, client.trips + 1), At(message.x - 0.1 * message.direction)

    def sound(self, client: Client, message: Any, local: Local) -> Any:
        yield message.x[None]
        return Client(client.momentum, client.trips + 1), At(message.x - 0.1 * message.direction)

    def recommend(self, server: Any) -> Any:
        x = super().recommend(server)
        spoilt = {"recommend": None, "shape": x[:2], "nan": x * np.nan}
        return spoilt.get(self.spoils, x) if server.merged else x
