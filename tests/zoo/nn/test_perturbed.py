"""Perturbed copies in the place of weights: wherever weights are used, and nowhere else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from zoo.core.errors import ZooWarning
from zoo.core.rng import Key, keyed_generators
from zoo.nn.isolation import isolated
from zoo.nn.parameters import Parameters
from zoo.nn.perturbed import Perturbed
from zoo.nn.seeded import Seeded

X = Key(1).normal(0, 6, 8, like=torch.zeros(1, dtype=torch.float64)).view(2, 3, 8)


class Tied(nn.Module):
    """An embedding that is the output layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.out = nn.Linear(8, 7, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.embedding((x.abs() * 3).long().clamp(max=6))))


class Cells(nn.Module):
    """A recurrent cell that is called again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for part in x.unbind(1):
            state = self.cell(part, state)
        assert state is not None
        return state


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


def with_gradient(model: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        return torch.autograd.grad(model(x).square().sum(), x)[0]


# What is trained, and what is made of it.
USES: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], Tensor]]] = {
    "linear": (lambda: nn.Linear(8, 4), lambda m: m(X)),
    "convolution": (lambda: nn.Conv1d(3, 2, 3), lambda m: m(X)),
    "lstm": (lambda: nn.LSTM(8, 5, 2, batch_first=True), lambda m: m(X)[0]),
    "cells": (Cells, lambda m: m(X)),
    "attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), lambda m: m(X, X, X)[0]),
    "encoder": (encoder, lambda m: m.eval()(X).pow(3)),
    "encoder with dropout": (encoder, lambda m: m(X).pow(3)),
    "tied": (Tied, lambda m: m(X)),
    "checkpoint": (
        lambda: nn.Sequential(nn.Linear(8, 8), nn.Tanh()),
        lambda m: checkpoint(m, X, use_reentrant=False),
    ),
    "transposed": (
        lambda: nn.Linear(8, 4, bias=False),
        lambda m: functional.linear(m(X), m.weight.t()) + (m(X) @ m.weight.T.T),
    ),
    "data": (lambda: nn.Linear(8, 4, bias=False), lambda m: functional.linear(X, m.weight.data)),
    "detached to numpy": (
        lambda: nn.Linear(8, 4, bias=False),
        lambda m: torch.from_numpy(m.weight.detach().numpy() ** 3),
    ),
    "in a list": (
        lambda: nn.Linear(8, 4, bias=False),
        lambda m: torch.stack([m.weight, 2 * m.weight]).sin(),
    ),
    "weight norm": (
        lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 4)),
        lambda m: m(X),
    ),
    "batch norm": (lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(8, 4)), lambda m: m(X)),
    "vmap": (lambda: nn.Linear(8, 4), lambda m: torch.func.vmap(m)(X)),
    "jacobian": (
        lambda: nn.Linear(8, 4),
        lambda m: torch.func.jacrev(lambda x: m(x).square().sum())(X[0]),
    ),
    "gradient": (lambda: nn.Linear(8, 4), lambda m: with_gradient(m, X)),
    "functional": (
        lambda: nn.Linear(8, 4),
        lambda m: torch.func.functional_call(m, dict(m.named_parameters()), (X,)),
    ),
    "parameters as a vector": (
        lambda: nn.Linear(8, 4),
        lambda m: nn.utils.parameters_to_vector(m.parameters()).cos(),
    ),
}


def made(use: str) -> nn.Module:
    with keyed_generators(Key(0)):
        return USES[use][0]().double()


def linear(*, bias: bool = True) -> nn.Linear:
    with keyed_generators(Key(0)):
        return nn.Linear(8, 4, bias=bias)


@pytest.mark.parametrize("use", USES)
def test_copies_are_seen_as_weights_would_be(use: str) -> None:
    model, what = made(use), USES[use][1]

    def closure() -> Tensor:
        return what(model).square().mean()

    params = Parameters(model)
    before = params.flat()
    estimate = Seeded(smoothing=1e-2).estimate(model, closure, Key(0), 2)
    assert torch.equal(params.flat(), before)
    losses = []
    with params.restored(), isolated(Key(0).fold("closure", 2)) as isolation:
        directions = torch.cat([z.view(-1) for z in estimate.direction(model, 0)])
        for sign in (1, -1):
            params.write_(before + sign * 1e-2 * directions)
            losses.append(float(isolation.call(closure)))
    slope = (losses[0] - losses[1]) / 2e-2
    assert slope != 0
    assert estimate.coefficients[0] == pytest.approx(slope, rel=1e-6)


WRITES: dict[str, Callable[[nn.Linear], Any]] = {
    "mul_": lambda layer: layer.weight.mul_(2),
    "setitem": lambda layer: layer.weight.__setitem__(0, 1.0),
    "data": lambda layer: setattr(layer.weight, "data", layer.weight.data * 2),
    "iadd": lambda layer: layer.weight.__iadd__(1),
    "init": lambda layer: nn.init.zeros_(layer.weight),
    "out": lambda layer: torch.add(torch.ones(4, 8), 1, out=layer.weight),
    "foreach": lambda layer: torch._foreach_add_([layer.weight], 1.0),
    "vector": lambda layer: nn.utils.vector_to_parameters(torch.ones(36), layer.parameters()),
    "half": lambda layer: layer.half(),
    "relu": lambda layer: functional.relu(layer.weight, inplace=True),
}


@pytest.mark.parametrize("write", WRITES)
def test_writing_to_weights_is_refused(write: str) -> None:
    layer = linear()
    before = [p.detach().clone() for p in layer.parameters()]

    def closure() -> Tensor:
        loss = layer(X.float()).sum()
        WRITES[write](layer)
        return loss

    with pytest.raises(RuntimeError, match=r"the closure writes to the parameter '(weight|bias)'"):
        Seeded().estimate(layer, closure, Key(0), 0)
    for p, kept in zip(layer.parameters(), before, strict=True):
        assert torch.equal(p, kept)


def test_writing_through_an_alias_is_noticed() -> None:
    layer = linear(bias=False)
    alias = layer.weight.detach()

    def closure() -> Tensor:
        alias.add_(1)
        return layer(X.float()).sum()

    with pytest.raises(RuntimeError, match="the closure wrote to the parameter 'weight'"):
        Seeded().estimate(layer, closure, Key(0), 0)


def test_what_says_how_a_weight_is_draws_no_copy() -> None:
    layer = linear()

    def copy(number: int, made: Tensor) -> None:
        raise AssertionError("a copy was drawn")

    mode = Perturbed(list(layer.parameters()), ["weight", "bias"])
    mode.use(copy)
    with mode:
        w = layer.weight
        assert (w.shape, w.dtype, w.device.type, w.requires_grad) == ((4, 8), torch.float32, "cpu", True)
        assert (w.size(0), w.dim(), w.numel(), len(w), w.stride(), w.grad) == (4, 2, 32, 4, (8, 1), None)
        assert w.is_contiguous()
        assert hash(w) == id(w)
    assert mode.seen == set()


def test_one_memory_serves_all_large_copies() -> None:
    with keyed_generators(Key(0)):
        model = nn.Sequential(*(nn.Linear(n, m) for n, m in ((50, 40), (40, 60), (60, 20), (20, 10))))
    parameters = list(model.parameters())
    places: dict[int, int] = {}

    def copy(number: int, made: Tensor) -> None:
        assert made.shape == parameters[number].shape
        made.copy_(parameters[number])
        places[number] = made.untyped_storage().data_ptr()

    mode = Perturbed(parameters, [str(n) for n in range(8)])
    mode.use(copy)
    with torch.no_grad(), mode:
        model(torch.zeros(1, 50))
    assert mode.seen == set(range(8))
    assert places[0] == places[2] == places[4]
    # What is at most a quarter as long as the largest is kept beside it, up to a quarter in all.
    small = [number for number in range(8) if places[number] != places[0]]
    assert small == [1, 3, 5, 6, 7]
    assert sum(copy.numel() for n, copy in mode._kept.items() if n in small) <= 60 * 40 / 4


@pytest.mark.parametrize("hold", [lambda w: w.t(), lambda w: w.detach().numpy(), lambda w: w[1:]])
def test_a_copy_that_is_held_on_to_is_not_written_over(hold: Callable[[Tensor], Any]) -> None:
    layer = linear(bias=False)
    held = []

    def closure() -> Tensor:
        held.append(hold(layer.weight))
        return layer(X.float()).sum() + sum(float(part.sum()) for part in held)

    values = []
    for _ in range(2):
        held.clear()
        Seeded(num_directions=2, smoothing=0.1).estimate(layer, closure, Key(0), 2)
        values.append([float(part.sum()) for part in held])
    assert len(set(values[0])) == 4
    assert values[0] == values[1]


def test_small_copies_are_kept_for_the_next_use() -> None:
    layer = linear()
    draws = []

    mode = Perturbed(list(layer.parameters()), ["weight", "bias"])
    mode.use(lambda number, made: draws.append(number))
    with mode:
        for _ in range(3):
            layer(X.float())
        assert draws == [0, 1]
        mode.forget()
        layer(X.float())
    assert draws == [0, 1, 0, 1]


@pytest.mark.parametrize("stencil", ["central", "forward"])
@pytest.mark.parametrize("how", [lambda w: w.data.add_(1), lambda w: w.detach().add_(1)])
def test_the_base_is_a_copy_too(stencil: str, how: Callable[[Tensor], Tensor]) -> None:
    """What a closure writes to goes with the call, wherever the call is."""
    layer = linear()
    before = [p.detach().clone() for p in layer.parameters()]

    def closure() -> Tensor:
        how(layer.weight)
        return layer(X.float()).square().mean()

    Seeded(smoothing=0.1, stencil=stencil).estimate(layer, closure, Key(0), 0)
    assert all(torch.equal(p, b) for p, b in zip(layer.parameters(), before, strict=True))


def test_embeddings_that_limit_their_norms_are_left_as_they_are() -> None:
    with keyed_generators(Key(0)):
        model = nn.Embedding(6, 4, max_norm=1.0)
    before = model.weight.detach().clone()

    def closure() -> Tensor:
        return model(torch.arange(6)).square().mean() + model.weight.mean()

    for stencil in ("central", "forward"):
        Seeded(smoothing=0.1, stencil=stencil).estimate(model, closure, Key(0), 0)
        assert torch.equal(model.weight, before)


def test_views_that_were_made_before_are_said() -> None:
    layer = linear()
    view = layer.weight.detach().t()

    def closure() -> Tensor:
        return (layer(X.float()) @ view.t()).square().mean()

    with pytest.warns(ZooWarning, match="memory of the parameter 'weight'"):
        Seeded(smoothing=0.1).estimate(layer, closure, Key(0), 0)
    # Parts of the same memory that are not trained are nobody's.
    memory = torch.arange(20.0)
    before, part, rest = memory[:4], nn.Parameter(memory[4:12]), memory[12:]
    Seeded(smoothing=0.1).estimate([part], lambda: (part * rest).sum() + before.sum(), Key(0), 0)


def test_scripted_modules_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(linear())
    with pytest.raises(RuntimeError, match="TorchScript"):
        Seeded().estimate(scripted, lambda: scripted(X.float()).sum(), Key(0), 0)


def test_parameters_that_are_not_computed_with_are_named() -> None:
    layer = linear()
    with pytest.warns(ZooWarning, match="1 of 2 parameters, 'bias'"):
        Seeded().estimate(layer, lambda: (X.float() @ layer.weight.T).sum(), Key(0), 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using `torch.compile")  # torch's word on hooks that note buffers
def test_compiled_modules_run_as_they_were() -> None:
    model = made("linear")
    compiled = torch.compile(model, backend="eager")
    compiled(X)  # as one that has run before
    ours, theirs = (
        Seeded().estimate(model, lambda m=m: m(X).square().mean(), Key(0), 2).coefficients
        for m in (compiled, model)
    )
    assert ours == theirs != (0.0,)
