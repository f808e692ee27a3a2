"""Gradients of networks from forward passes: exact identities, and what is left behind."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo.core.device import Array
from zoo.core.errors import ZooWarning
from zoo.core.rng import Key, keyed_generators
from zoo.estimators.directions import (
    LAWS,
    Axes,
    Blocks,
    Directions,
    Draw,
    Gaussian,
    Guided,
    Masked,
    Orthonormal,
    Rademacher,
    Subspace,
)
from zoo.estimators.finite_difference import FiniteDifference, GradientEstimate
from zoo.nn.closures import Calls
from zoo.nn.gradient import Estimator, _on_device, _Point, estimate_gradient_
from zoo.nn.parameters import Parameters

KEY = Key(7)
STEP = 5  # one in which nothing is checked


@pytest.fixture(autouse=True)
def _own_generators() -> Iterator[None]:
    """Networks are initialized from the global generators."""
    with keyed_generators(Key(0)):
        yield


class Quadratic:
    """1/2 x^T A x + b^T x over three tensors of a module."""

    def __init__(self, dim: int = 50, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        matrix = torch.randn(dim, dim, dtype=torch.float64, generator=draw)
        self.matrix = (matrix @ matrix.T / dim).to(dtype)
        self.linear = torch.randn(dim, dtype=torch.float64, generator=draw).to(dtype)
        first, second = dim // 3, dim // 5
        sizes = [(first,), (dim - first - second, 1), (second,)]
        self.module = nn.ParameterList(
            [nn.Parameter(torch.randn(size, dtype=torch.float64, generator=draw).to(dtype)) for size in sizes]
        )

    @property
    def x(self) -> Tensor:
        return torch.cat([parameter.reshape(-1) for parameter in self.module])

    def __call__(self) -> Tensor:
        x = self.x
        return x @ self.matrix @ x / 2 + self.linear @ x

    @property
    def gradient(self) -> Tensor:
        return (self.matrix @ self.x + self.linear).detach()

    def written(self) -> Tensor:
        return torch.cat([parameter.grad.reshape(-1) for parameter in self.module])  # type: ignore[union-attr]


def estimated(
    problem: Any, law: str | Directions, count: int | None = None, smoothing: float = 1e-2, **options: Any
) -> GradientEstimate:
    step = options.pop("step", STEP)
    key = options.pop("key", KEY)
    stencil = options.pop("stencil", "central")
    estimator = FiniteDifference(law, count, smoothing, stencil)
    return estimate_gradient_(problem.module, problem, estimator, key, step, **options)


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


# Row 1, 2, 3: coordinate-wise estimates.


@pytest.mark.parametrize("smoothing", [1e-3, 1e-2, 0.1, 1.0])
def test_central_coordinates_are_exact_on_quadratics(smoothing: float) -> None:
    problem = Quadratic()
    estimate = estimated(problem, "axes", smoothing=smoothing)
    assert relative(problem.written(), problem.gradient) < 1e-10
    assert estimate.num_valid == 50
    assert estimate.queries == 100


@pytest.mark.parametrize("smoothing", [1e-3, 0.1])
def test_forward_coordinates_are_off_by_the_curvature(smoothing: float) -> None:
    problem = Quadratic()
    estimate = estimated(problem, "axes", smoothing=smoothing, stencil="forward")
    expected = problem.gradient + smoothing / 2 * problem.matrix.diagonal()
    torch.testing.assert_close(problem.written(), expected, rtol=0, atol=1e-9)
    assert estimate.queries == 51
    assert estimate.value == problem().item()


class Smooth(Quadratic):
    def __call__(self) -> Tensor:
        x = self.x
        return torch.exp(x @ self.linear / 20) + torch.sin(x).sum()

    @property
    def gradient(self) -> Tensor:
        x = self.x.detach()
        return torch.exp(x @ self.linear / 20) * self.linear / 20 + torch.cos(x)


@pytest.mark.parametrize(("stencil", "order"), [("forward", 1), ("central", 2)])
@pytest.mark.parametrize("law", ["axes", "orthonormal"])
def test_order_of_convergence(law: str, stencil: str, order: int) -> None:
    problem = Smooth()
    errors = []
    for smoothing in (2e-2, 1e-2, 5e-3):
        estimated(problem, law, smoothing=smoothing / (7 if law == "orthonormal" else 1), stencil=stencil)
        errors.append(relative(problem.written(), problem.gradient))
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.02)


# Rows 4, 5, 6, 33: random directions. The whole design and projections are exact.


@dataclass(frozen=True)
class Given(Directions):
    rows: Any

    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        return draw.like.asarray(self.rows[start:stop])


@pytest.mark.parametrize("stencil", ["forward", "central"])
@pytest.mark.parametrize("smoothing", [1e-2, 1.0])
def test_all_sign_vectors_give_the_gradient(stencil: str, smoothing: float) -> None:
    problem = Quadratic(8)
    signs = Given(np.array(list(itertools.product([-1.0, 1.0], repeat=8))))
    estimated(problem, signs, 2**8, smoothing, stencil=stencil)
    torch.testing.assert_close(problem.written(), problem.gradient, rtol=0, atol=1e-11)


@pytest.mark.parametrize("count", [1, 7, 50])
def test_orthonormal_directions_give_the_projection(count: int) -> None:
    problem = Quadratic()
    estimated(problem, "orthonormal", count)
    like = Parameters(problem.module).like
    draw = Draw(KEY.fold("directions").fold(STEP), STEP, count, 50, like)
    span = Orthonormal().plan(draw, None) / math.sqrt(50)
    expected = 50 / count * (problem.gradient @ span.T) @ span
    torch.testing.assert_close(problem.written(), expected, rtol=1e-9, atol=1e-9)
    if count == 50:
        assert relative(problem.written(), problem.gradient) < 1e-9


def moments(law: str, count: int, steps: int) -> tuple[float, float]:
    """Return how far the mean of many estimates is from the gradient, and their second moment."""
    problem = Quadratic(20)
    target, total, square = problem.gradient, torch.zeros(20, dtype=torch.float64), 0.0
    estimator = FiniteDifference(law, count, 0.1)
    for step in range(2, steps + 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZooWarning)
            gradient = estimate_gradient_(problem.module, problem, estimator, KEY, step).gradient
        total += gradient
        square += float(gradient.square().sum())
    return relative(total / steps, target), square / steps / float(target.square().sum())


@pytest.mark.parametrize(
    ("law", "count", "second"),
    [
        ("gaussian", 4, (4 + 20 + 1) / 4),
        ("rademacher", 4, (4 + 20 - 1) / 4),
        ("sphere", 4, (4 + 20 - 1) / 4),
        ("orthonormal", 4, 20 / 4),
        ("axes", 4, 20 / 4),
    ],
)
def test_estimates_have_the_moments_of_their_law(law: str, count: int, second: float) -> None:
    """The mean of N estimates is off by sqrt((m2 - 1) / N), in the mean; 5 times that is the band.

    Orthonormal directions vary less than independent ones, (d / q) / ((q + d + 1) / q) = .8 here.
    """
    steps = 1000
    bias, found = moments(law, count, steps)
    assert bias < 5 * math.sqrt(second / steps)
    assert found == pytest.approx(second, rel=0.12)


# Row 7: single precision.


def test_error_over_smoothing_in_single_precision() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 5))
    inputs, targets = torch.randn(128, 16), torch.randint(5, (128,))

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(inputs), targets)

    loss().backward()
    exact = torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])  # type: ignore[union-attr]
    errors = {}
    for smoothing in (1e-1, 3e-2, 1e-2, 1e-3, 1e-5):
        estimate = estimate_gradient_(model, loss, FiniteDifference("axes", None, smoothing), KEY, STEP)
        errors[smoothing] = relative(estimate.gradient, exact)
    assert min(errors, key=errors.__getitem__) in (3e-2, 1e-2)
    assert min(errors.values()) < 3e-3
    assert errors[1e-5] > 0.3
    assert errors[1e-3] > errors[1e-2]


# Row 14: queries.


@pytest.mark.parametrize(
    ("law", "count", "stencil", "queries"),
    [
        (Axes(), None, "forward", 50 + 1),
        (Axes(), None, "central", 2 * 50),
        (Masked(Axes(), np.arange(50) % 5 == 0), None, "forward", 10 + 1),
        (Gaussian(), 1, "central", 2),
        (Rademacher(), 8, "forward", 8 + 1),
        (Blocks(10, Axes()), None, "central", 2 * 10),
        (Blocks((16, 24, 10), active=None), 6, "forward", 6 + 1),
    ],
)
def test_queries_are_calls_of_the_closure(law: Directions, count: Any, stencil: str, queries: int) -> None:
    problem, calls = Quadratic(), []

    def closure() -> Tensor:
        calls.append(1)
        return problem()

    holder = Estimator(FiniteDifference(law, count, 0.1, stencil))
    estimate = estimate_gradient_(problem.module, closure, holder, KEY, STEP)
    assert estimate.queries == len(calls) == queries == holder.queries
    # In the first two steps of a thousand the closure is called once more.
    for step, more in ((0, 1), (1, 1), (2, 0), (1000, 1), (1999, 0)):
        calls.clear()
        assert estimate_gradient_(problem.module, closure, holder, KEY, step).queries == len(calls)
        assert len(calls) == queries + more


# Row 18 and all that has to stay as it is.


class Everything(nn.Module):
    """Batch normalization, dropout, a frozen layer, three dtypes, another memory format, late buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.Linear(16, 6).requires_grad_(False)
        self.wide = nn.Linear(6, 6).double()
        self.narrow = nn.Linear(6, 3).bfloat16()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("table", None)

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1  # another tensor in its place
        if self.table is None:
            self.table = torch.rand(6)
            self.register_buffer("lazy", torch.ones(6), persistent=False)
        x = self.drop(self.norm(self.conv(x)).relu()).flatten(1)
        x = self.frozen(x) * self.table * self.lazy
        x = self.wide(x.double()).tanh()
        return self.narrow(x.bfloat16()).double()


def bits(module: nn.Module) -> dict[str, Any]:
    entries = itertools.chain(module.named_parameters(), module.named_buffers())
    return {
        name: tensor.detach().clone(memory_format=torch.contiguous_format).view(torch.uint8)
        if tensor.ndim
        else tensor.clone()
        for name, tensor in entries
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def generators() -> tuple[Any, ...]:
    import random

    kept = np.random.get_state()
    return torch.get_rng_state().tolist(), kept[1].tolist(), kept[2:], random.getstate()  # type: ignore[union-attr]


def everything() -> tuple[Everything, Callable[[], Tensor]]:
    torch.manual_seed(3)
    module, inputs = Everything(), torch.randn(5, 2, 4, 4)
    return module, lambda: module(inputs).square().mean()


LAW_CASES = [
    *((name, 3) for name in LAWS if name != "blocks"),
    ("blocks", 3),
    ("masked", 3),
    ("layers", 12),
    ("published", 3),
]


def law_of(name: str, params: Parameters) -> Directions | str:
    if name == "masked":
        return Masked(Axes(), params.mask({"wide.weight": torch.eye(6, dtype=torch.bool)}, others=False))
    if name == "layers":
        return Blocks(params.blocks(), ("gaussian", "axes", "orthonormal", "sphere"), active=None)
    return Subspace(history=3, mode="published") if name == "published" else name


@pytest.mark.parametrize("smoothing", [0.05, "auto"])
@pytest.mark.parametrize("stencil", ["forward", "central"])
@pytest.mark.parametrize(("name", "count"), LAW_CASES)
def test_without_a_learning_rate_every_bit_stays(name: str, count: int, stencil: str, smoothing: Any) -> None:
    module, closure = everything()
    np.random.seed(1)
    np.random.randn()  # leaves a second number in the generator
    estimator = Estimator(FiniteDifference(law_of(name, Parameters(module)), count, smoothing, stencil))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0, momentum=0.9)
    before, drawn = bits(module), generators()
    for step in range(5):
        estimate = estimate_gradient_(module, closure, estimator, KEY, step)
        assert estimate.num_valid
        optimizer.step()
        assert same(bits(module), before)
        assert generators() == drawn
    assert list(module._buffers) == ["calls", "table"]
    assert module._non_persistent_buffers_set == set()
    assert module.frozen.weight.grad is None
    for parameter in module.parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert parameter.grad.dtype == parameter.dtype
            assert parameter.grad.shape == parameter.shape


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["gaussian", "axes", "layers"])
def test_an_exception_leaves_every_bit(name: str, error: type[BaseException]) -> None:
    module, closure = everything()
    estimator = Estimator(FiniteDifference(law_of(name, Parameters(module)), 12, 0.1))
    before, drawn, calls = bits(module), generators(), itertools.count()

    def failing() -> Tensor:
        loss = closure()
        if next(calls) == 7:
            raise error
        return loss

    with pytest.raises(error):
        estimate_gradient_(module, failing, estimator, KEY, 0)
    assert same(bits(module), before)
    assert generators() == drawn
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not nn.modules.module._global_forward_pre_hooks


def test_dropout_is_the_same_within_a_step_and_another_in_the_next() -> None:
    layer, drop, masks = nn.Linear(4, 1), nn.Dropout(0.5), []

    def closure() -> Tensor:
        mask = drop(torch.ones(64))
        masks.append((mask, float(np.random.rand())))
        return (layer(torch.ones(4)) * mask).mean()

    for step in (3, 4):
        estimate_gradient_(layer, closure, FiniteDifference("gaussian", 2, 0.1), KEY, step)
    for first, other in itertools.pairwise(masks[:4]):
        assert torch.equal(first[0], other[0])
        assert first[1] == other[1]
    assert not torch.equal(masks[0][0], masks[4][0])
    assert masks[0][1] != masks[4][1]


def test_groups_frozen_parameters_and_names() -> None:
    one, two, ice = (nn.Parameter(torch.randn(size)) for size in (2, 3, 4))
    ice.requires_grad_(False)
    optimizer = torch.optim.SGD([{"params": [one], "lr": 1.0}, {"params": [two, ice], "lr": 0.5}])
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    start = [one.detach().clone(), two.detach().clone()]
    estimate_gradient_(
        optimizer.param_groups,
        lambda: one.square().sum() / 2 + two.sum() + ice.sum(),
        FiniteDifference("axes", None, 0.5),
        KEY,
        STEP,
    )
    optimizer.step()
    scheduler.step()
    torch.testing.assert_close(one.detach(), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(two.detach(), start[1] - 0.5, rtol=0, atol=1e-6)
    assert ice.grad is None


def test_a_run_is_resumed_from_state_dicts(tmp_path: Any) -> None:
    def made() -> tuple[Any, ...]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        return model, optimizer, scheduler, Estimator(FiniteDifference("guided", 3))

    inputs = torch.linspace(-1, 1, 24).view(8, 3)

    def steps(parts: tuple[Any, ...], start: int, stop: int) -> None:
        model, optimizer, scheduler, estimator = parts
        for step in range(start, stop):
            estimate_gradient_(model, lambda: (model(inputs) - 1).square().mean(), estimator, KEY, step)
            optimizer.step()
            scheduler.step()

    whole, first, second = made(), made(), made()
    steps(whole, 0, 6)
    steps(first, 0, 3)
    torch.save([part.state_dict() for part in first], tmp_path / "run.pt")
    for part, saved in zip(second, torch.load(tmp_path / "run.pt", weights_only=True), strict=True):
        part.load_state_dict(saved)
    steps(second, 3, 6)
    assert same(bits(whole[0]), bits(second[0]))
    assert whole[3].queries == second[3].queries
    assert whole[3].smoothing == second[3].smoothing


def test_a_state_goes_to_another_device() -> None:
    problem, holder = Quadratic(20), Estimator(FiniteDifference("guided", 3))
    estimate_gradient_(problem.module, problem, holder, KEY, 2)
    there = holder.state_dict()
    there["state"] = _on_device(there["state"], "cuda:0")  # as it is saved on one
    other = Estimator(FiniteDifference("guided", 3))
    other.load_state_dict(there)
    one, two = (estimate_gradient_(problem.module, problem, h, KEY, 3).gradient for h in (holder, other))
    assert torch.equal(one, two)


# Laws by block, by layer, with a mask, with a memory.


def test_estimates_by_layer_are_those_of_each_layer_alone() -> None:
    """Directions of one layer say nothing about another: full designs give every layer's gradient exactly."""
    problem = Quadratic()
    params = Parameters(problem.module)
    law = Blocks(params.blocks("tensor"), ("axes", "orthonormal", "axes"), active=None)
    estimate = estimated(problem, law)
    assert relative(problem.written(), problem.gradient) < 1e-10
    assert estimate.queries == 100


def test_a_block_at_a_time() -> None:
    problem = Quadratic()
    params = Parameters(problem.module)
    for step in range(2, 5):
        estimated(problem, Blocks(params.blocks("tensor"), "orthonormal"), step=step)
        start, stop = params.offsets[step % 3], params.offsets[step % 3 + 1]
        expected = torch.zeros(50, dtype=torch.float64)
        expected[start:stop] = problem.gradient[start:stop]
        torch.testing.assert_close(problem.written(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", ["rows", "scalar", "checkered"])
def test_masked_coordinates(shape: str) -> None:
    problem = Quadratic()
    params = Parameters(problem.module)
    given: Any = {
        "rows": torch.arange(24)[:, None] < 5,
        "scalar": False,
        "checkered": torch.arange(24)[:, None] % 2 == 0,
    }
    mask = params.mask({"1": given[shape]})
    estimate = estimated(problem, Masked(Axes(), mask))
    expected = torch.where(torch.from_numpy(mask), problem.gradient, 0)
    torch.testing.assert_close(problem.written(), expected, rtol=1e-9, atol=1e-9)
    assert estimate.queries == 2 * mask.sum()
    estimated(problem, Masked(Orthonormal(), mask))
    torch.testing.assert_close(problem.written(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["drop", "published", "keep"])
def test_subspace_gradient(mode: str) -> None:
    """Points that move in the span of a few directions: the noise across it is taken out."""
    problem = Quadratic(40)
    draw = torch.Generator().manual_seed(5)
    span = torch.linalg.qr(torch.randn(40, 3, dtype=torch.float64, generator=draw))[0].T
    weights = torch.randn(60, 3, dtype=torch.float64, generator=draw).cumsum(0)
    points = weights @ span + 1e-3 * torch.randn(60, 40, dtype=torch.float64, generator=draw)
    params = Parameters(problem.module)
    law = Subspace(history=60, mode=mode)
    holder = Estimator(FiniteDifference(law, 2, 0.1))

    def inside() -> Tensor:
        return (span @ problem.x).square().sum() / 2 + (span @ problem.x).sum()

    for step, point in enumerate(points):
        params.write_(point)
        estimate_gradient_(params, inside, holder, KEY, step)
    assert holder._state is not None
    basis = holder._state.memory[0].basis
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64), rtol=0, atol=1e-6)
    gradient = (span.T @ (span @ problem.x + 1)).detach()
    cosines = []
    for step in range(60, 100):
        noisy = estimate_gradient_(params, inside, FiniteDifference("gaussian", 2, 0.1), KEY, step).gradient
        saved = holder.state_dict()
        cleaned = estimate_gradient_(params, inside, holder, KEY, step).gradient
        holder.load_state_dict(saved)
        if mode == "keep":
            torch.testing.assert_close(cleaned @ basis.T @ basis, cleaned, rtol=0, atol=1e-6)
        else:
            assert float((basis @ cleaned).abs().max()) < 1e-6 * float(noisy.norm())
        cosines.append([float(g @ gradient / g.norm() / gradient.norm()) for g in (noisy, cleaned)])
    before, after = np.abs(cosines).mean(0)
    assert after > (1 if mode == "published" else 1.2) * before


def test_a_mask_that_lets_nothing_through() -> None:
    params = Parameters(Quadratic().module)
    with pytest.raises(ValueError, match="`mask` must be one row of booleans with a true one"):
        Masked(Axes(), params.mask({}, others=False))
    with pytest.raises(ValueError, match="`mask` must have one entry per coordinate, 50, got 49"):
        estimated(Quadratic(), Masked(Axes(), np.ones(49, bool)))
    with pytest.raises(ValueError, match="`sizes` must add up to the number of coordinates, 50, got 49"):
        estimated(Quadratic(), Blocks((40, 9)))


def test_a_memory_needs_a_holder() -> None:
    problem = Quadratic()
    for law in (Guided(), Masked(Guided(), np.arange(50) > 3), Blocks((20, 30), Subspace(), active=None)):
        with pytest.raises(
            ValueError, match=r"`estimator` must come in an `Estimator`, as the law .* learns"
        ):
            estimated(problem, law, 3)
    with pytest.raises(ValueError, match=r'as smoothing="auto" learns .* give a number as `smoothing`'):
        estimate_gradient_(problem.module, problem, FiniteDifference("gaussian", 1), KEY, STEP)


def test_another_network_needs_another_holder() -> None:
    holder = Estimator(FiniteDifference("guided", 1))
    problem = Quadratic(20)
    estimate_gradient_(problem.module, problem, holder, KEY, STEP)
    other = Quadratic(21)
    with pytest.raises(ValueError, match=r"there were 3 tensors with 20 entries.* and now 3 with 21"):
        estimate_gradient_(other.module, other, holder, KEY, STEP)
    single = Quadratic(20, torch.float32)
    with pytest.raises(ValueError, match="computed with in float64, and now 3 with 20 in float32"):
        estimate_gradient_(single.module, single, holder, KEY, STEP)
    with pytest.raises(ValueError, match=r"that of an estimator with the law Gaussian\(\), got Guided"):
        Estimator(FiniteDifference("gaussian", 1)).load_state_dict(holder.state_dict())
    with pytest.raises(ValueError, match=r"must be what `Estimator.state_dict` returned"):
        holder.load_state_dict({"queries": 3})


def _guided(mask: list[bool]) -> Directions:
    return Blocks((3, 2), (Masked(Guided(), np.array(mask)), "guided"), active=None)


@pytest.mark.parametrize(
    ("saved", "other", "message"),
    [
        (
            FiniteDifference("guided", 2, 0.1),
            FiniteDifference("guided", 2, 0.2),
            "the smoothing 0.2, got 0.1",
        ),
        (FiniteDifference("guided", 2), FiniteDifference("guided", 2, 0.2), "the smoothing 0.2, got auto"),
        (
            FiniteDifference("guided", 2, 0.1),
            FiniteDifference("guided", 3, 0.1),
            "the num_directions 3, got 2",
        ),
        (
            FiniteDifference("guided", 2, 0.1),
            FiniteDifference("guided", 2, 0.1, "forward"),
            "the stencil forward, got central",
        ),
        (
            FiniteDifference(_guided([True, True, False]), 2, 0.1),
            FiniteDifference(_guided([False, True, True]), 2, 0.1),
            "the masks ",
        ),
    ],
)
def test_a_state_of_other_arguments(saved: FiniteDifference, other: FiniteDifference, message: str) -> None:
    state = Estimator(saved).state_dict()
    Estimator(saved).load_state_dict(state)
    with pytest.raises(ValueError, match=f"must be that of an estimator with {message}"):
        Estimator(other).load_state_dict(state)


# Half and mixed precision.


@pytest.mark.parametrize("stencil", ["forward", "central"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_counts_the_displacement_that_was_made(dtype: torch.dtype, stencil: str) -> None:
    """A linear loss: a coordinate's slope is exact however its displacement was rounded."""
    weight = nn.Parameter(torch.tensor([1.0, 0.3, -2.0, 0.01]).to(dtype))
    slopes = torch.tensor([1.0, -2.0, 3.0, 4.0], dtype=torch.float64)
    estimator = FiniteDifference("axes", None, 0.02, stencil)
    estimate = estimate_gradient_([weight], lambda: (slopes * weight.double()).sum(), estimator, KEY, STEP)
    torch.testing.assert_close(estimate.gradient.double(), slopes, rtol=1e-6, atol=1e-6)
    assert weight.grad is not None
    assert weight.grad.dtype == dtype


def test_mixed_dtypes_have_the_gradient_of_all() -> None:
    torch.manual_seed(0)
    single, double = nn.Linear(4, 3), nn.Linear(3, 2).double()
    inputs = torch.randn(6, 4)

    def loss() -> Tensor:
        return double(single(inputs).double().tanh()).square().mean()

    loss().backward()
    params = Parameters([*single.parameters(), *double.parameters()])
    exact = [parameter.grad.clone() for parameter in params.tensors]  # type: ignore[union-attr]
    estimate_gradient_(params, loss, FiniteDifference("axes", None, 1e-3), KEY, STEP)
    for parameter, gradient in zip(params.tensors, exact, strict=True):
        assert parameter.grad is not None
        assert parameter.grad.dtype == parameter.dtype
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("stencil", ["forward", "central"])
@pytest.mark.parametrize("failed", [None, 0, 2])
def test_losses_that_are_not_waited_for(
    stencil: str, failed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device losses stay tensors until the end of a step; the estimate is that of numbers."""
    problem, call = Quadratic(), Calls.__call__

    def gradient() -> Tensor:
        calls = itertools.count()

        def closure() -> Any:
            return problem() * (math.nan if next(calls) == failed else 1)

        return estimate_gradient_(
            problem.module, closure, FiniteDifference("gaussian", 5, 0.1, stencil), KEY, STEP
        ).gradient

    expected = gradient()

    def waiting(self: Calls, **how: bool) -> Tensor:
        return torch.tensor(call(self, **how), dtype=torch.float64)

    monkeypatch.setattr(Calls, "__call__", waiting)
    torch.testing.assert_close(gradient(), expected, rtol=1e-12, atol=1e-12)


# Failures and bad input.


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("stencil", ["forward", "central"])
def test_failed_losses_drop_their_direction(stencil: str, bad: float) -> None:
    problem = Quadratic()
    calls = itertools.count()
    failing = 3 if stencil == "forward" else 4  # of coordinate 2: after the base; the first of its pair

    def closure() -> Any:
        return bad if next(calls) == failing else problem()

    estimator = FiniteDifference(Axes("cyclic"), None, 0.1, stencil)
    estimate = estimate_gradient_(problem.module, closure, estimator, KEY, 50)
    assert estimate.num_valid == 49
    expected = problem.gradient + (0.05 * problem.matrix.diagonal() if stencil == "forward" else 0)
    expected[2] = 0
    torch.testing.assert_close(problem.written(), expected * 50 / 49, rtol=1e-9, atol=1e-9)


def test_a_failed_base_is_made_up_for() -> None:
    """As `FiniteDifference` has it: the mean of the displaced values, times n / (n - 1)."""
    problem, calls = Quadratic(8), itertools.count()
    signs = Given(np.array(list(itertools.product([-1.0, 1.0], repeat=8))))

    def closure() -> Any:
        return math.nan if next(calls) == 0 else problem()

    estimator = FiniteDifference(signs, 2**8, 0.1, "forward")
    estimate = estimate_gradient_(problem.module, closure, estimator, KEY, STEP)
    assert math.isnan(estimate.value)
    torch.testing.assert_close(problem.written(), problem.gradient * 256 / 255, rtol=1e-9, atol=1e-9)


def test_when_all_fail_the_gradient_is_zero() -> None:
    problem = Quadratic()
    with pytest.warns(ZooWarning, match="every difference of the step failed"):
        estimate = estimate_gradient_(
            problem.module, lambda: math.nan, FiniteDifference("gaussian", 3, 0.1), KEY, STEP
        )
    assert estimate.num_valid == 0
    assert (problem.written() == 0).all()


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_losses_of_any_size(size: float) -> None:
    problem = Quadratic(dtype=torch.float32)
    for law in ("axes", "gaussian"):
        estimate_gradient_(
            problem.module, lambda: size * problem().item(), FiniteDifference(law, None, 0.1), KEY, STEP
        )
        assert problem.written().isfinite().all()


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda: None, TypeError, "got None; has it a `return`"),
        (lambda: "0.5", TypeError, "must return the loss, a number or a tensor of one, got '0.5'"),
        (lambda: True, TypeError, "must return the loss, a number or a tensor of one, got True"),
        (
            lambda: torch.tensor(3),
            TypeError,
            r"of floating point, got a tensor of torch.int64; convert it with `.double",
        ),
        (lambda: torch.tensor(1j), TypeError, "of floating point, got a tensor of torch.complex64"),
        (lambda: torch.ones(3), ValueError, r"a single number, got a tensor of shape \(3,\); take its mean"),
    ],
)
def test_what_is_no_loss(returned: Any, error: type[Exception], message: str) -> None:
    problem = Quadratic()
    before = bits(problem.module)
    with pytest.raises(error, match=message):
        estimate_gradient_(problem.module, returned, FiniteDifference("gaussian", 1, 0.1), KEY, STEP)
    assert same(bits(problem.module), before)


@pytest.mark.parametrize(
    "kind",
    [float, lambda x: np.float32(x), torch.tensor, lambda x: torch.tensor([x]), lambda x: int(100 * x)],
)
def test_what_is_a_loss(kind: Any) -> None:
    layer = nn.Linear(3, 1)
    estimate = estimate_gradient_(
        layer, lambda: kind(float(layer.weight.sum())), FiniteDifference("axes", None, 0.5), KEY, STEP
    )
    assert estimate.gradient[:3].sum() > 2.9


def test_a_closure_that_goes_backward() -> None:
    layer = nn.Linear(2, 1)

    def closure() -> Tensor:
        loss = layer(torch.ones(2)).sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError) as caught:
        estimate_gradient_(layer, closure, FiniteDifference("gaussian", 1, 0.1), KEY, STEP)
    assert "leave out `loss.backward()`" in caught.value.__notes__[0]


class _Bounded(nn.Linear):
    """Keeps its weights short in its forward pass, as networks for signals do."""

    def forward(self, inputs: Tensor) -> Tensor:
        self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=0.3)
        return super().forward(inputs)


class _Shifted(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        self.weight.data.add_(0.01)
        return super().forward(inputs)


@pytest.mark.parametrize("law", ["axes", "gaussian"])
@pytest.mark.parametrize("stencil", ["forward", "central"])
@pytest.mark.parametrize(
    ("layer", "step"),
    [
        (lambda: nn.Embedding(6, 4, max_norm=1.0), STEP),
        (lambda: nn.Embedding(6, 4, max_norm=1.0), 0),
        (lambda: _Bounded(4, 4), STEP),
        (lambda: _Shifted(4, 4), 0),
        (lambda: _Shifted(4, 4).bfloat16(), 0),
    ],
)
def test_a_closure_that_writes_to_a_parameter(
    layer: Callable[[], nn.Module], step: int, stencil: str, law: str
) -> None:
    model = layer()
    inputs = torch.arange(6) if isinstance(model, nn.Embedding) else torch.ones(2, 4)
    if next(model.parameters()).dtype == torch.bfloat16:
        inputs = inputs.bfloat16()
    before = {name: value.clone() for name, value in model.named_parameters()}
    places = [value.data_ptr() for value in model.parameters()]
    with pytest.raises(RuntimeError, match="the closure wrote to the parameter 'weight'"):
        estimate_gradient_(
            model,
            lambda: model(inputs).float().square().sum(),
            FiniteDifference(law, 2, 1e-2, stencil),
            KEY,
            step,
        )
    assert [value.data_ptr() for value in model.parameters()] == places
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name])
        assert value.grad is None


def test_memory_that_was_exchanged_is_put_back_when_a_closure_raises() -> None:
    layer = nn.Linear(3, 2)
    before, memory = layer.weight.detach().clone(), layer.weight.data_ptr()

    def closure() -> Any:
        layer.weight.data = torch.zeros(5, 7)
        raise KeyError("lost")

    with pytest.raises(KeyError):
        estimate_gradient_(layer, closure, FiniteDifference("gaussian", 1, 0.1), KEY, STEP)
    assert torch.equal(layer.weight, before)
    assert layer.weight.data_ptr() == memory


def test_an_interruption_while_parameters_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, put_back = nn.Linear(3, 2), _Point.put_back
    before, times = layer.weight.detach().clone(), itertools.count()

    def second(self: _Point) -> None:
        if not next(times):
            raise KeyboardInterrupt
        put_back(self)

    monkeypatch.setattr(_Point, "put_back", second)
    with pytest.raises(KeyboardInterrupt):
        estimate_gradient_(
            layer, lambda: layer(torch.ones(3)).sum(), FiniteDifference("gaussian", 1, 0.1), KEY, STEP
        )
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("law", ["axes", "gaussian"])
def test_an_autocast_around_is_as_one_inside(law: str) -> None:
    """It keeps casts of parameters, which do not see that these were moved."""
    model = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    inputs = torch.linspace(-1, 1, 10).view(2, 5)
    estimator = FiniteDifference(law, 20, 0.1)

    def loss() -> Tensor:
        return model(inputs).float().square().mean()

    def inside() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss()

    expected = estimate_gradient_(model, inside, estimator, KEY, STEP).gradient
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss()
        found = estimate_gradient_(model, loss, estimator, KEY, STEP).gradient
        there = loss()
    assert expected[:20].any()
    assert torch.equal(found, expected)
    assert torch.equal(there, inside())


def test_a_closure_may_use_gradients_of_its_own() -> None:
    """As a loss does that holds derivatives of the network by its inputs."""
    layer = nn.Linear(1, 1, bias=False).double()

    def closure() -> Tensor:
        with torch.enable_grad():
            inputs = torch.ones(1, requires_grad=True, dtype=torch.float64)
            (slope,) = torch.autograd.grad(layer(inputs).square().sum(), inputs, create_graph=True)
            return slope.square().sum()  # (2 w^2)^2

    estimate_gradient_(layer, closure, FiniteDifference("axes", None, 1e-4), KEY, STEP)
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, 16 * layer.weight.detach() ** 3, rtol=1e-6, atol=0)


def test_a_closure_that_is_not_deterministic() -> None:
    problem, source = Quadratic(), torch.Generator().manual_seed(0)

    def closure() -> Tensor:
        return problem() + torch.randn((), generator=source, dtype=torch.float64)

    for step in (0, 1, 1000):
        with pytest.warns(
            ZooWarning, match=r"the closure returned \S+ and then \S+ .* noise of \d\.\de[+-]\d\d"
        ):
            estimated_by(problem, closure, step)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimated_by(problem, closure, 2)
        estimated_by(problem, lambda: problem() + torch.randn((), dtype=torch.float64), 0)  # the global one


def estimated_by(problem: Quadratic, closure: Callable[[], Any], step: int, smoothing: float = 0.1) -> Any:
    return estimate_gradient_(
        problem.module, closure, FiniteDifference("rademacher", 2, smoothing), KEY, step
    )


def test_smoothing_lost_in_the_parameters() -> None:
    """The warning's own value is taken without one."""
    problem = Quadratic(dtype=torch.float32)
    slopes = problem.linear.double()

    def closure() -> Tensor:
        return (slopes * problem.x.double()).sum()

    with pytest.warns(ZooWarning, match="lost in the rounding of the parameters") as caught:
        estimated_by(problem, closure, 0, 1e-7)
    said = str(caught[0].message).split("smoothing=")[1].split(" ")[0]
    assert 1e-7 < float(said) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimated_by(problem, closure, 0, float(said))


def test_smoothing_lost_in_the_loss() -> None:
    problem = Quadratic(dtype=torch.float32)

    def closure() -> Tensor:
        return 1e3 + problem()

    with pytest.warns(ZooWarning, match="lost in the rounding of the loss") as caught:
        estimated_by(problem, closure, 0, 1e-5)
    said = str(caught[0].message).split("smoothing=")[1].split(" ")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimated_by(problem, closure, 0, 2 * float(said))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"estimator": "gaussian"}, TypeError, r"such as FiniteDifference\('gaussian', 1, smoothing=1e-3\)"),
        ({"closure": 3.0}, TypeError, "`closure` must be a function that returns the loss, got 3.0"),
        ({"key": 0}, TypeError, r"`key` must be a Key, such as Key\(0\), got 0"),
        ({"step": -1}, ValueError, "`step` must be at least 0, got -1"),
        ({"step": 1.5}, TypeError, "`step` must be an integer, got 1.5"),
        ({"params": torch.ones(3)}, TypeError, "must be a module or hold tensors, got a single tensor"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    problem = Quadratic()
    given = {
        "params": problem.module,
        "closure": problem,
        "estimator": FiniteDifference("gaussian", 1, 0.1),
        "key": KEY,
        "step": 0,
    }
    with pytest.raises(error, match=message):
        estimate_gradient_(**{**given, **arguments})
    with pytest.raises(TypeError, match="`estimator` must be a FiniteDifference"):
        Estimator("gaussian")  # type: ignore[arg-type]


# Rows 20 and 35: objectives without a gradient, and noise.


def test_an_objective_without_a_gradient() -> None:
    """The share of wrong answers, which is piecewise constant."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 10, generator=draw)
    labels = (inputs @ torch.randn(10, generator=draw) > 0).long()
    torch.manual_seed(1)
    model = nn.Linear(10, 2)

    def wrong() -> float:
        return float((model(inputs).argmax(1) != labels).double().mean())

    start = wrong()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(2, 152):
        estimate_gradient_(model, wrong, FiniteDifference("gaussian", 4, 0.05), KEY, step)
        optimizer.step()
    assert wrong() < start - 0.1


def test_noise_that_is_not_common_grows_with_one_over_smoothing_squared() -> None:
    """Variance of an estimate: sigma^2 / (2 h^2) d with noise of its own in each loss, none with the same."""
    problem = Quadratic(20)

    def variance(smoothing: float, *, common: bool) -> float:
        source = torch.Generator().manual_seed(0)
        total = 0.0
        for step in range(2, 102):

            def closure() -> Tensor:
                noise = torch.randn((), generator=None if common else source, dtype=torch.float64)
                return problem.linear @ problem.x + noise

            estimate = estimate_gradient_(
                problem.module, closure, FiniteDifference("axes", None, smoothing), KEY, step
            )
            total += float((estimate.gradient - problem.linear).square().sum()) / 100
        return total

    wide, narrow = (variance(h, common=False) for h in (1e-1, 1e-3))
    assert math.log10(narrow / wide) / 2 == pytest.approx(2, abs=0.2)
    assert narrow == pytest.approx(20 / (2 * 1e-3**2), rel=0.15)
    assert variance(1e-3, common=True) < 1e-20


# Memory.


def test_never_more_than_a_copy_a_direction_and_the_sum() -> None:
    """Counted by torch's own allocator, above what the parameters and a forward pass take."""
    layer = nn.Linear(1000, 1000, bias=False)
    inputs = torch.ones(1, 1000)

    def closure() -> Tensor:
        return layer(inputs).square().mean()

    def peak(run: Callable[[], Any]) -> int:
        with torch.profiler.profile(profile_memory=True) as profile:
            run()
        held, most = 0, 0
        for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
            if event.name() == "[memory]":
                held += event.nbytes()
                most = max(most, held)
        return most

    size = layer.weight.numel() * layer.weight.element_size()
    for count, vectors in ((1, 2), (4, 3)):
        estimator = FiniteDifference("gaussian", count, 1e-3)
        most = peak(lambda: estimate_gradient_(layer, closure, estimator, KEY, STEP))  # noqa: B023
        assert most < (vectors + 0.6) * size
    assert peak(closure) < 0.1 * size
