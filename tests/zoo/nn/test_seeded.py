"""Estimates of seeds and numbers: what they equal, what they leave alone, and what they refuse."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.architecture.test_imports import ROOT
from zoo.core.errors import ZooWarning
from zoo.core.rng import Key, keyed_generators
from zoo.nn.descent import Descent, apply_
from zoo.nn.laws import Gaussian
from zoo.nn.seeded import Seeded

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LAWS = ("gaussian", "rademacher", "lozo", "subzero")


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    with keyed_generators(Key(0)):
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)


def squares(model: nn.Module) -> Callable[[], Tensor]:
    x = Key(1).normal(0, 6, 5, like=next(model.parameters()).detach())
    return lambda: model(x).float().square().mean()


def bits(model: nn.Module) -> list[bytes]:
    state = model.state_dict().values()
    return [tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() for tensor in state]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("stencil", ["central", "forward"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_seeded_estimate_is_the_dense_mean(law: str, stencil: str, dtype: torch.dtype) -> None:
    model = network(dtype)
    closure, parameters = squares(model), list(model.parameters())
    before = [p.detach().clone() for p in parameters]
    estimate = Seeded(law, 5, 1e-2, stencil).estimate(model, closure, Key(0), 3)

    def loss(distance: float, z: list[Tensor]) -> float:
        with torch.no_grad():
            for p, b, u in zip(parameters, before, z, strict=True):
                p.copy_(b + distance * u)
            return float(closure())

    dense = [torch.zeros_like(p) for p in parameters]
    for number in range(5):
        z = estimate.direction(model, number)
        back = -1e-2 if stencil == "central" else 0.0
        slope = (loss(1e-2, z) - loss(back, z)) / (1e-2 - back)
        for total, u in zip(dense, z, strict=True):
            total.add_(u, alpha=slope / 5)
    loss(0, z)
    for ours, theirs in zip(estimate.dense(model), dense, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    apply_(model, estimate, Descent(0.5))
    for p, b, g in zip(parameters, before, dense, strict=True):
        torch.testing.assert_close(p.detach(), b - 0.5 * g, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("law", LAWS)
def test_a_direction_of_a_tensor_is_the_same_wherever_it_is_drawn(law: str) -> None:
    """In the forward pass, in the step and in `direction`, whatever tensors come before or after."""
    weight = torch.zeros(300, 400, dtype=torch.float64, requires_grad=True)  # of two pieces
    seen: list[Tensor] = []

    def closure() -> Tensor:
        seen.append(weight.detach().clone())
        return (weight * torch.arange(400.0)).sum()

    estimate = Seeded(law, 2, 1.0).estimate([weight], closure, Key(0), 2)
    for number in range(2):
        z = estimate.direction([weight], number)[0]
        assert torch.equal(seen[2 * number], z)
        assert torch.equal(seen[2 * number + 1], -z)
    one = Seeded(law, 1, 1.0).estimate([weight], closure, Key(0), 2)
    assert torch.equal(one.direction([weight], 0)[0], seen[0])
    apply_([weight], one, Descent(1 / one.coefficients[0] if one.coefficients[0] > 0 else 1.0))
    if one.coefficients[0] > 0:
        torch.testing.assert_close(weight.detach(), -seen[0], rtol=1e-12, atol=0)


def test_queries_are_counted() -> None:
    model = network()
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        return squares(model)()

    for estimator, queries in (
        (Seeded(num_directions=3), 6),
        (Seeded("rademacher", 8, stencil="forward"), 9),
    ):
        # In the first two steps of a thousand one more is made, to see whether the closure can be trusted.
        for step, extra in ((0, 1), (1, 1), (2, 0), (999, 0), (1000, 1)):
            calls = 0
            estimate = estimator.estimate(model, closure, Key(0), step)
            assert estimate.queries == calls == queries + extra
        assert estimator.queries == queries


@pytest.mark.parametrize("dtype", DTYPES)
def test_estimates_and_steps_of_0_leave_every_bit(dtype: torch.dtype) -> None:
    model = nn.Sequential(network(dtype), nn.BatchNorm1d(3), nn.Dropout(0.5)).to(dtype)
    with torch.no_grad():
        model[0][0].weight[0] = -0.0  # type: ignore[index]
    before, closure = bits(model), squares(model)
    for law in LAWS:
        estimate = Seeded(law, 2, 0.1).estimate(model, closure, Key(0), 0)
        assert bits(model) == before
        for update in (Descent(0.0, 0.1), Descent(0.0, sign=True), Descent(0.0, normalised=True)):
            assert apply_(model, estimate, update).moved == 0
            assert bits(model) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_closure_that_fails_leaves_every_bit(dtype: torch.dtype, error: type[BaseException]) -> None:
    model = nn.Sequential(network(dtype), nn.BatchNorm1d(3)).to(dtype)
    before, loss = bits(model), squares(model)
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        value = loss()
        if calls == 2:
            raise error("stop")
        return value

    with pytest.raises(error, match="stop"):
        Seeded(num_directions=2, smoothing=0.1).estimate(model, closure, Key(0), 2)
    assert bits(model) == before
    with torch.no_grad():
        assert float(loss()) == float(loss())  # nothing is perturbed any more


def test_frozen_and_tied_parameters() -> None:
    with keyed_generators(Key(0)):
        model = nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 8), nn.Linear(8, 7, bias=False))
    model[2].weight = model[0].weight
    model[1].weight.requires_grad_(False)
    frozen = model[1].weight.clone()
    x = torch.arange(7)
    estimate = Seeded().estimate(model, lambda: model(x).square().mean(), Key(0), 0)
    assert len(estimate.direction(model, 0)) == 2  # the shared one, and a bias
    apply_(model, estimate, Descent(0.1))
    assert torch.equal(model[1].weight, frozen)
    assert model[2].weight is model[0].weight


def test_all_forward_passes_have_the_same_dropout() -> None:
    """A loss that dropout alone changes has no slope."""
    layer, dropout = network(torch.float32), nn.Dropout(0.5)
    closure = lambda: dropout(torch.ones(50)).sum() + 0 * layer(torch.ones(5)).sum()  # noqa: E731
    estimator = Seeded(num_directions=4, smoothing=0.1)
    estimates = [estimator.estimate(layer, closure, Key(0), step) for step in (2, 3)]
    assert estimates[0].coefficients == (0.0,) * 4
    assert estimates[0].value != estimates[1].value


def test_channels_last_weights_are_like_others() -> None:
    with keyed_generators(Key(0)):
        layer = nn.Conv2d(3, 4, 3).double().to(memory_format=torch.channels_last)
    x = Key(1).normal(0, 2, 75, like=torch.zeros(1, dtype=torch.float64)).view(2, 3, 5, 5)
    before = [p.detach().clone() for p in layer.parameters()]
    closure = lambda: layer(x).square().mean()  # noqa: E731
    estimate = Seeded("lozo", smoothing=1e-4).estimate(layer, closure, Key(0), 2)
    gradient = torch.autograd.grad(closure(), list(layer.parameters()))
    z = estimate.direction(layer, 0)
    slope = sum(float((g * u).sum()) for g, u in zip(gradient, z, strict=True))
    assert estimate.coefficients[0] == pytest.approx(slope, rel=1e-5)
    apply_(layer, estimate, Descent(0.1))
    for p, b, u in zip(layer.parameters(), before, z, strict=True):
        torch.testing.assert_close(p.detach(), b - 0.1 * estimate.coefficients[0] * u, rtol=1e-9, atol=1e-12)


def test_failed_directions_are_dropped() -> None:
    weight = torch.zeros(4, requires_grad=True)

    def closure() -> Tensor:
        value = weight.sum()
        return value if value > -1 else value * math.nan

    estimate = Seeded(num_directions=8, smoothing=0.5).estimate([weight], closure, Key(0), 2)
    dropped = [math.isnan(c) for c in estimate.coefficients]
    assert 0 < sum(dropped) == 8 - estimate.num_valid < 8
    dense = torch.zeros(4)
    for number, bad in enumerate(dropped):
        z = estimate.direction([weight], number)[0]
        if not bad:
            dense += z * z.sum() / estimate.num_valid
    torch.testing.assert_close(estimate.dense([weight])[0], dense)
    with pytest.warns(ZooWarning, match="every difference"):
        nothing = Seeded().estimate([weight], lambda: weight.sum() * math.nan, Key(0), 2)
    assert (nothing.num_valid, math.isnan(nothing.value)) == (0, True)
    assert apply_([weight], nothing, Descent(0.1, 0.1, "all")).moved == 0


def test_slopes_too_large_for_single_precision_are_cut() -> None:
    weight = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    estimate = Seeded().estimate([weight], lambda: 1e300 * weight.sum(), Key(0), 2)
    assert abs(estimate.coefficients[0]) == float(np.finfo(np.float32).max)


def test_there_are_as_many_directions_as_coefficients() -> None:
    model = network()
    estimate = Seeded(num_directions=2).estimate(model, squares(model), Key(0), 2)
    estimate.direction(model, 1)
    for number in (2, -1):
        with pytest.raises(ValueError, match="`number` must be"):
            estimate.direction(model, number)


def test_bad_arguments_are_refused() -> None:
    for arguments, error, match in (
        ({"law": "gausian"}, ValueError, "gaussian"),
        ({"law": 3}, TypeError, "law"),
        ({"num_directions": 0}, ValueError, "num_directions"),
        ({"smoothing": 0.0}, ValueError, "smoothing"),
        ({"stencil": "backward"}, ValueError, "stencil"),
    ):
        with pytest.raises(error, match=match):
            Seeded(**arguments)  # type: ignore[arg-type]
    model = network()
    closure = squares(model)
    with pytest.raises(ValueError, match="step"):
        Seeded().estimate(model, closure, Key(0), -1)
    with pytest.raises(TypeError, match="key"):
        Seeded().estimate(model, closure, 0, 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="closure"):
        Seeded().estimate(model, 1.0, Key(0), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("returned", "error"),
    [(lambda y: y, ValueError), (lambda y: None, TypeError), (lambda y: (y > 0).sum(), TypeError)],
)
def test_a_loss_is_one_number(returned: Callable[[Tensor], Any], error: type[Exception]) -> None:
    model = network()
    with pytest.raises(error, match="closure"):
        Seeded().estimate(model, lambda: returned(model(torch.ones(2, 5).double())), Key(0), 0)


def test_a_closure_that_is_not_deterministic_is_told_with_its_noise() -> None:
    model, loss, calls = network(), None, iter(range(100))
    loss = squares(model)
    with pytest.warns(ZooWarning, match=r"a noise of 1\.0e-02"):
        Seeded().estimate(model, lambda: loss() + 0.01 * next(calls), Key(0), 0)


def test_smoothing_lost_in_rounding_is_told_with_a_better_one() -> None:
    with keyed_generators(Key(0)):
        model = nn.Linear(4, 4).to(torch.bfloat16)
    x = torch.ones(1, 4, dtype=torch.bfloat16)
    closure = lambda: model(x).double().square().sum()  # noqa: E731
    with pytest.warns(ZooWarning) as told:
        Seeded(smoothing=1e-3).estimate(model, closure, Key(0), 0)
    text = str(next(w.message for w in told if "of the parameters" in str(w.message)))
    better = float(text.split("smoothing=")[1].split()[0])
    assert 5e-3 < better < 5e-2
    Seeded(smoothing=better).estimate(model, closure, Key(0), 0)  # warns of nothing

    weight = torch.ones(4, requires_grad=True)
    with pytest.warns(ZooWarning, match="rounding of the loss"):
        Seeded(smoothing=1e-6).estimate([weight], lambda: 1e3 + weight.sum(), Key(0), 0)


def test_an_estimate_is_of_its_parameters() -> None:
    model = network()
    estimate = Seeded().estimate(model, squares(model), Key(0), 0)
    other = nn.Sequential(network()[2], network()[0])  # type: ignore[index]
    with pytest.raises(ValueError, match="must be what the estimate was made of"):
        apply_(other, estimate, Descent(0.1))
    with pytest.raises(ValueError, match="must be what the estimate was made of"):
        estimate.dense(network(torch.float32))


def test_gaussian_directions_take_the_key_they_are_given() -> None:
    """A log of today is replayed tomorrow: the numbers of a law do not change."""
    weight = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    z = Seeded(Gaussian()).estimate([weight], weight.sum, Key(0), 2).direction([weight], 0)[0]
    assert torch.equal(z, Key(0).fold("direction", 2, 0, 0).fold(0).normal(0, 1, 3, like=z)[0])


MEMORY = """
import torch
from torch import nn
from zoo.core.rng import Key
from zoo.nn.descent import Descent, apply_
from zoo.nn.seeded import Seeded

torch.set_num_threads(1)
estimator, descent = Seeded("{law}", num_directions=2, smoothing=1e-2), Descent(1e-6, 0.1)

def peak():  # of this process in kilobytes; `ru_maxrss` may be that of its parent
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0])

def steps(width, depth):
    layers = (nn.Linear(width, width, dtype=torch.{dtype}) for _ in range(depth))
    model = nn.Sequential(*layers)
    x = torch.ones(1, width, dtype=torch.{dtype})
    closure = lambda: model(x).float().square().mean()
    with torch.inference_mode():
        closure()
    before = peak()
    for step in range(2, 4):
        apply_(model, estimator.estimate(model, closure, Key(0), step), descent)
    after = peak()
    return 1024 * (after - before) / (width * width * x.element_size())

steps(300, 2)  # loads what is needed
print(steps(2500, 3))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux says what the peak memory of a process is")
@pytest.mark.parametrize(
    ("law", "dtype"), [("gaussian", "float32"), ("rademacher", "bfloat16"), ("lozo", "float32")]
)
def test_a_step_takes_the_memory_of_one_weight(law: str, dtype: str) -> None:
    """Beyond a forward pass, in a fresh process; 1 is a copy of the largest weight."""
    code = MEMORY.format(law=law, dtype=dtype)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100, check=True
    )
    assert 0.9 < float(done.stdout) <= 1.5
