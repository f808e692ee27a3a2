"""Parts for workers to keep, and what they query; some of them misbehave."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import zoo

EVALUATED: list[tuple[str, bytes]] = []  # key and point of every evaluation in this process
HANDLED: list[tuple[int, int]] = []  # part and call of every message handled in this process
FAULTS: dict[tuple[int, int], Iterator[BaseException]] = {}  # by part and call: what to raise, in turn


class Noisy(zoo.Objective):
    """Values that tell which key they were evaluated under."""

    unit = 3

    def __call__(self, x, *, key):
        EVALUATED.extend((str(key), row.tobytes()) for row in x)
        return (x**2).sum(1) + key.normal(0, len(x), 1)[:, 0]


class Client(zoo.Part):
    """A point that moves by what it is told and by what it queries, and remembers where it was."""

    def __init__(self, index):
        self.index, self.calls, self.x, self.path = index, 0, np.full(3, float(index)), []

    def handle(self, message, key, query):
        HANDLED.append((self.index, message["call"]))
        self.calls += 1  # before anything can go wrong
        message["x"] += self.x  # its own to write to
        steps = key.normal(0, 2 + self.index % 3, 3)
        values = query(message["x"] + steps)
        raise_due(self.index, message["call"])
        self.x = self.x + steps[int(values.argmin())]
        self.path.append(query(self.x))
        return {"x": self.x, "values": values, "calls": self.calls}

    def snapshot(self):
        return {"calls": self.calls, "x": self.x, "path": self.path}

    def restore(self, snapshot):
        self.calls, self.x, self.path = snapshot["calls"], snapshot["x"], snapshot["path"]


def raise_due(part, call):
    error = next(FAULTS.get((part, call), iter(())), None)
    if error is not None:
        raise error


class Ends(zoo.Part):
    """Counts its messages, and misbehaves when told to."""

    def __init__(self, index):
        self.total = 0

    def handle(self, message, key, query):
        self.total += 1
        if message == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if message == "hang":
            time.sleep(60.0)
        return self.total

    def snapshot(self):
        return self.total

    def restore(self, snapshot):
        self.total = snapshot


class Counted(zoo.Objective):
    """Leaves a line in a file for every point."""

    def __init__(self, path):
        self.path = str(path)

    def __call__(self, x, *, key):
        with Path(self.path).open("a") as file:
            file.write("".join(f"{key} {row.tolist()}\n" for row in x))
        time.sleep(0.002)
        return (x**2).sum(1) + key.normal(0, len(x), 1)[:, 0]


class Own(Client):
    """A client that queries an objective of its own."""

    def __init__(self, index):
        super().__init__(index)
        self.objective = None if index == 1 else Scaled(1.0 + index)


class Scaled(zoo.Objective):
    def __init__(self, by):
        self.by = by

    def __call__(self, x, *, key):
        return self.by * (x**2).sum(1)
