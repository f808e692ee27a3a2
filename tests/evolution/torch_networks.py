"""Networks that tests name as "tests.evolution.torch_networks:name"; importable without pytest."""

from typing import Any

import torch
from torch import nn

from evolution.environments.spaces import Image, Spaces, Vector
from evolution.policies.actions import outputs_of


def from_spaces(spaces: Spaces) -> nn.Module:
    """Return layers that fit."""
    assert isinstance(spaces.observations, Vector)
    return nn.Sequential(
        nn.Linear(spaces.observations.size, 8), nn.Tanh(), nn.Linear(8, outputs_of(spaces.actions))
    )


def fixed() -> nn.Module:
    """Return layers from 4 numbers to 2."""
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def pictures(spaces: Spaces) -> nn.Module:
    """Return a small network of convolutions that fits."""
    assert isinstance(spaces.observations, Image)
    return nn.Sequential(
        nn.Conv2d(spaces.observations.channels, 4, 8, 8),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(outputs_of(spaces.actions)),
    )


def no_network() -> int:
    """Return something else."""
    return 3


class Cell(nn.Module):
    """A cell that remembers, from 4 numbers to 2."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.kept, self.output = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, seen: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        if state is None:
            state = seen.new_zeros(len(seen), 5)
        state = torch.tanh(self.seen(seen) + self.kept(state))
        return self.output(state), state


class Counting(nn.Module):
    """It remembers in a dict how many steps there were, from where it was told to start."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def initial_state(self, count: int) -> dict[str, tuple[torch.Tensor]]:
        return {"time": (torch.full((count, 1), 10.0),)}

    def forward(self, seen: torch.Tensor, state: dict[str, tuple[torch.Tensor]]) -> tuple[torch.Tensor, Any]:
        (time,) = state["time"]
        return self.linear(seen) * 0 + torch.cat([time, 13 - time], 1), {"time": (time + 1,)}


class Layered(nn.Module):
    """An LSTM of torch, which `vmap` cannot take; its state has the episodes first."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.output = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, seen: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        own = None if state is None else tuple(one.transpose(0, 1).contiguous() for one in state)
        values, (h, c) = self.memory(seen[:, None], own)
        return self.output(values[:, 0]), (h.transpose(0, 1), c.transpose(0, 1))


class Branching(nn.Module):
    """It looks at its own numbers, which `vmap` cannot take."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.linear(seen)
        return -values if float(values.sum()) > 1e9 else values


class Tied(nn.Module):
    """One matrix in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.output = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.second.weight = self.first.weight

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.output(self.second(torch.tanh(self.first(seen))))
        return values


class Wide(nn.Sequential):
    """Layers from 4 numbers to 2, as wide as they are told to be."""

    def __init__(self, n: int = 8) -> None:
        super().__init__(nn.Linear(4, n), nn.Tanh(), nn.Linear(n, 2))


BUILT = Wide(3)
