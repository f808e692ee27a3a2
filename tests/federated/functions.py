"""What worker processes import by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def distance(client: int, x: np.ndarray) -> float:
    return float(((x - client) ** 2).sum())


def first(x: np.ndarray) -> float:
    return float(x[0])


def last(x: np.ndarray) -> float:
    return float(x[-1])


ENDS = [first, last]


def make_ends() -> list[Callable[[np.ndarray], float]]:
    return [first, last]


def make_network() -> object:
    import torch

    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))


def make_data() -> tuple[object, ...]:
    import torch

    from zoo.core.rng import Key

    inputs = torch.from_numpy(Key(5).normal(0, 30, 3)).float()
    return inputs, torch.arange(30) % 2, inputs[:10], torch.arange(10) % 2
