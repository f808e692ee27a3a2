"""Estimates of seeds and numbers: what they equal, what they leave alone, and what they refuse."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.core.rng import Key, keyed_generators
from zoo.nn.descent import Descent, apply_
from zoo.nn.seeded import Seeded


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    with keyed_generators(Key(0)):
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)


def squares(model: nn.Module):
    parameter = next(model.parameters())
    x = Key(1).normal(0, 6, 5, like=parameter.detach())
    return lambda: model(x).square().mean()


def test_seeded_estimate_is_the_dense_mean() -> None:
    model = network()
    closure = squares(model)
    estimate = Seeded(num_directions=5).estimate(model, closure, Key(0), 3)
    dense: list[Tensor] = [torch.zeros_like(p) for p in model.parameters()]
    parameters = list(model.parameters())
    before = [p.detach().clone() for p in parameters]
    for number in range(5):
        z = estimate.direction(model, number)
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, b, u in zip(parameters, before, z, strict=True):
                    p.copy_(b + sign * 1e-3 * u)
                losses.append(float(closure()))
        for total, u in zip(dense, z, strict=True):
            total += (losses[0] - losses[1]) / 2e-3 / 5 * u
    with torch.no_grad():
        for p, b in zip(parameters, before, strict=True):
            p.copy_(b)
    for ours, theirs in zip(estimate.dense(model), dense, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    apply_(model, estimate, Descent(0.5))
    for p, b, g in zip(parameters, before, dense, strict=True):
        torch.testing.assert_close(p.detach(), b - 0.5 * g, rtol=1e-6, atol=1e-6)
    assert estimate.queries == 10
