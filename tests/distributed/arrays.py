"""Candidates and objectives that hold large arrays, and tasks that do."""

import numpy as np

from zoo.core.objective import Objective
from zoo.core.types import Candidates

SIZE = 2**17  # numbers, which make 1 MiB


def array_of(seed, size=SIZE):
    return np.random.default_rng(seed).random(size)


class Windows(Candidates):
    """Candidates that are parts of a large array, spread over all of it."""

    dim = 4

    def __init__(self, base, n=12):
        self.base, self.n = base, n

    def __len__(self):
        return self.n

    def rows(self, start, stop):
        at = [len(self.base) // self.n * row for row in range(start, stop)]
        return np.stack([np.asarray(self.base[i : i + self.dim]) for i in at])


class Greedy(Windows):
    """Candidates that write to what they share with others."""

    def rows(self, start, stop):
        self.base[:] += 1.0
        return super().rows(start, stop)


class Sums(Objective):
    unit = 2

    def __call__(self, x, *, key):
        return x.sum(1)


class Scratch(Objective):
    """Computes in a large array of its own, as a function that saves allocations does."""

    unit = 1

    def __init__(self, size=SIZE):
        self.weights, self.scratch = array_of(0, size), np.zeros(size)

    def __call__(self, x, *, key):
        np.multiply(self.weights, x[0, 0], out=self.scratch)
        self.scratch[0] += 1.0
        return self.scratch[None].sum(1)


class Spoil:
    """A task that writes to its array, and says what it found there."""

    def __init__(self, array):
        self.array = array

    def __call__(self, memory):
        found = float(self.array[0])
        self.array[:] = -1.0
        return found, self.array
