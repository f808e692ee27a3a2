"""Losses of networks with one parameter changed are those of whole forward passes."""

from __future__ import annotations

import copy
import itertools
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.core.rng import Key, keyed_generators
from zoo.nn.coordinates import Cached, Coordinates
from zoo.nn.coordinates.changes import Columns
from zoo.nn.coordinates.losses import Judge, judge_of
from zoo.nn.coordinates.rules import rule_of
from zoo.nn.coordinates.rules.normalization import normalized_together
from zoo.nn.isolation import isolated
from zoo.nn.losses import Loss, absolute_error, cross_entropy, errors, squared_error
from zoo.nn.models.cnn import cnn, deepzero_cnn
from zoo.nn.models.mlp import mlp
from zoo.nn.models.resnet import resnet20
from zoo.nn.models.transformer import transformer
from zoo.nn.parameters import Parameters
from zoo.nn.stages import Residual, Stages

KEY = Key(3)


@pytest.fixture(autouse=True)
def _keyed() -> Iterator[None]:
    """Let layers draw the weights that they begin with from a key."""
    with keyed_generators(Key(0)):
        yield


def whole_passes(
    model: nn.Module, loss: Loss, batch: tuple[Tensor, Tensor], indices: Tensor, step: float
) -> tuple[float, Tensor]:
    """Return the loss, and that of one full forward pass for each coordinate."""
    params, found = Parameters(model), []
    with isolated(KEY) as isolation:

        def mean() -> float:
            return float(loss(model(batch[0]), batch[1]).double().mean())

        base = isolation.call(mean)
        for index in indices.tolist():
            owner = next(k for k, end in enumerate(params.offsets[1:]) if index < end)
            tensor = params.tensors[owner].detach()
            kept = tensor.clone()
            tensor.view(-1)[index - params.offsets[owner]] += step
            found.append(isolation.call(mean))
            tensor.copy_(kept)
    return base, torch.tensor(found, dtype=torch.float64)


def some(params: Parameters, each: int) -> Tensor:
    """Return some coordinates of each parameter, the first and the last among them."""
    found: list[int] = []
    for start, stop in itertools.pairwise(params.offsets):
        drawn = Key(start).integers(0, 1, each, high=stop - start)[0].tolist()
        found += sorted({start, stop - 1, *(start + place for place in drawn)})
    return torch.tensor(found)


def batch_of(n: int, *shape: int, words: int | None = None) -> tuple[Tensor, Tensor]:
    """Return inputs and labels of ten classes."""
    size = 1
    for length in shape:
        size *= length
    if words:
        inputs = torch.from_numpy(Key(1).integers(0, n, size, high=words)).view(n, *shape)
    else:
        inputs = Key(1).normal(0, n, size, like=torch.zeros(0, dtype=torch.float64)).view(n, *shape)
    return inputs, torch.from_numpy(Key(2).integers(0, 1, n, high=10)[0])


def assert_same(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    loss: Loss = cross_entropy,
    *,
    dtype: torch.dtype = torch.float64,
    each: int = 4,
    modules: Sequence[nn.Module] | None = None,
) -> None:
    """Compare losses with those of whole passes, and see that the network is left as it is."""
    model = model.to(dtype)
    inputs, targets = (part.to(dtype) if part.is_floating_point() else part for part in batch)
    engine = Coordinates(Stages(model, modules), loss)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    cached = engine.prepare(inputs, targets, KEY)
    indices = some(engine.parameters, each)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    for step in (0.01, -0.3):
        found = engine.losses(cached, indices, step)
        assert found.dtype == torch.float64
        assert torch.equal(torch.get_rng_state(), generator)
        base, expected = whole_passes(model, loss, (inputs, targets), indices, step)
        assert cached.loss == pytest.approx(base, rel=tolerance)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=0)
        assert (expected != base).float().mean() > 0.2  # most changes do change something
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["mlp", "cnn", "deepzero_cnn"])
def test_losses_are_those_of_whole_passes(name: str, training: bool, dtype: torch.dtype) -> None:
    if name == "mlp":
        model, batch = mlp([64, 24, 12, 10], key=Key(0)), batch_of(32, 64)
    elif name == "cnn":
        model, batch = cnn(key=Key(0)), batch_of(32, 1, 8, 8)
    else:
        model, batch = deepzero_cnn(4, key=Key(0), halve_after=(2,)), batch_of(16, 3, 8, 8)
    assert_same(model.train(training), batch, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shortcut", ["pad", "conv"])
def test_residual_networks_with_strides_and_shortcuts(
    shortcut: str, training: bool, dtype: torch.dtype
) -> None:
    model = resnet20(key=Key(0), width=4, blocks=(1, 2), shortcut=shortcut)
    assert_same(model.train(training), batch_of(32, 3, 8, 8), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pooled", [True, False])
def test_transformers_with_dropout(pooled: bool, training: bool, dtype: torch.dtype) -> None:
    if pooled:
        model = transformer(key=Key(0), length=6, features=5, num_outputs=10, width=8, dropout=0.2)
        batch = batch_of(16, 6, 5)
    else:
        model = transformer(
            key=Key(0), length=6, vocabulary=10, num_outputs=10, width=8, pooled=False, causal=True
        )
        batch = batch_of(16, 6, words=10)
        batch = batch[0], batch[0].flip(1)
    assert_same(model.train(training), batch, dtype=dtype)


class Centred(nn.Module):
    """Mixes the examples of a batch, draws numbers, writes to a buffer and has a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return (x - x.mean(0)) * self.weight + 0.1 * torch.rand_like(x)


class Scaled(nn.Module):
    """Treats examples one by one, and says so."""

    row_wise = True

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((6,), 0.7))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


ODD = {
    "mixed": lambda: [
        nn.Conv2d(3, 6, 3, padding="same", dilation=2),
        nn.Dropout2d(0.3),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.GELU(),
        nn.Dropout(0.2),
        nn.Conv2d(6, 8, (3, 2), groups=2, stride=2, padding=1, padding_mode="reflect"),
        nn.AvgPool2d(2, padding=1),
        nn.Flatten(),
        nn.Linear(48, 12),
        nn.BatchNorm1d(12),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Dropout(0.5),
        nn.Linear(12, 10),
    ],
    "signals": lambda: [
        nn.Flatten(2),
        nn.Conv1d(3, 6, 3, stride=2, padding=2, dilation=2),
        nn.BatchNorm1d(6, affine=False),
        nn.ReLU(),
        nn.Conv1d(6, 4, 2, padding_mode="circular", padding=1, bias=False),
        nn.GroupNorm(2, 4),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.LayerNorm(64),
        nn.Linear(64, 10, bias=False),
    ],
    "last dimension": lambda: [
        nn.Linear(8, 5),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.Tanh(),
        nn.Conv2d(3, 4, 2, bias=False),
        nn.PReLU(4),
        nn.Linear(4, 3),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(84, 10),
    ],
    "unknown": lambda: [
        nn.Flatten(),
        nn.Linear(192, 6),
        Centred(),
        nn.ReLU(),
        Scaled(),
        nn.Dropout(0.3),
        Residual([nn.ReLU(inplace=True), nn.Linear(6, 6), Residual([nn.Tanh(), nn.Linear(6, 6)])]),
        nn.Linear(6, 10),
    ],
    "residual": lambda: [
        Residual([nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1)], nn.Dropout(0.4)),
        Residual([nn.Identity()], nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())),
        Residual([nn.AdaptiveMaxPool2d(1)], nn.BatchNorm2d(3)),
        Residual([nn.Conv2d(3, 4, 1)], nn.Conv2d(3, 4, 1)),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 10),
    ],
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ODD)
def test_layers_of_all_kinds(name: str, training: bool) -> None:
    assert_same(nn.Sequential(*ODD[name]()).train(training), batch_of(12, 3, 8, 8), each=6)


def test_images_pixel_by_pixel_have_the_masks_of_the_network() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(216, 10))
    inputs, labels = batch_of(8, 3, 8, 8)
    assert_same(model, (inputs.contiguous(memory_format=torch.channels_last), labels))


@pytest.mark.parametrize("loss", [squared_error, absolute_error, errors, lambda y, t: (y * t).sum(1).tanh()])
def test_losses_of_all_kinds(loss: Loss) -> None:
    inputs, labels = batch_of(16, 12)
    model = mlp([12, 7, 10], key=Key(0))
    if loss is errors:
        engine = Coordinates(Stages(model.double()), loss)
        found = engine.losses(engine.prepare(inputs, labels, KEY), torch.arange(engine.parameters.dim), 1.5)
        _, expected = whole_passes(model, loss, (inputs, labels), torch.arange(engine.parameters.dim), 1.5)
        assert torch.equal(found, expected)
        assert len(expected.unique()) > 2
        return
    assert_same(model, (inputs, nn.functional.one_hot(labels, 10).double() - 0.3), loss)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_outputs_may_be_flattened_images(count: int) -> None:
    # A changed column is then a run of nine classes.
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    inputs, labels = batch_of(count, 1, 5, 5)
    assert_same(model, (inputs, labels), each=18)


def test_labels_that_are_to_be_ignored_count_nothing() -> None:
    inputs, labels = batch_of(8, 12)
    labels[::3] = -100
    assert_same(mlp([12, 5, 10], key=Key(0)), (inputs, labels))


def test_a_loss_may_write_to_the_outputs() -> None:
    def written(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sub_(targets).square_().mean(1)

    inputs, labels = batch_of(16, 12)
    targets = nn.functional.one_hot(labels, 10).double()
    assert_same(mlp([12, 7, 10], key=Key(0)), (inputs, targets), written)


def test_losses_that_mix_examples_or_write_to_targets_are_refused() -> None:
    def centred(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - outputs.mean(0)).square().mean(1)

    def noisy(outputs: Tensor, targets: Tensor) -> Tensor:
        return squared_error(outputs, targets) * torch.rand(len(outputs))

    def written(outputs: Tensor, targets: Tensor) -> Tensor:
        return targets.sub_(outputs).square().mean(1)

    inputs, labels = batch_of(16, 12)
    targets = nn.functional.one_hot(labels, 10).double()
    stages = Stages(mlp([12, 7, 10], key=Key(0)).double())
    for loss in (centred, noisy):
        with pytest.raises(ValueError, match="depends on it alone"):
            Coordinates(stages, loss).prepare(inputs, targets, KEY)
    with pytest.raises(ValueError, match="must not write to the targets"):
        Coordinates(stages, written).prepare(inputs, targets, KEY)
    targets[0] = torch.nan
    cached = Coordinates(stages, lambda y, t: squared_error(y, t)).prepare(inputs, targets, KEY)
    assert math.isnan(cached.loss)


def test_what_was_prepared_for_other_weights_is_refused() -> None:
    def prepared(model: nn.Module) -> tuple[Coordinates, Cached]:
        engine = Coordinates(Stages(model.double()), cross_entropy)
        return engine, engine.prepare(*batch_of(8, 12), KEY)

    model = mlp([12, 7, 10], key=Key(0))
    model[-1].requires_grad_(False)
    engine, cached = prepared(model)
    index = torch.tensor([0])
    before = engine.losses(cached, index, 0.1)
    model[1].weight.data.mul_(2)
    with pytest.raises(ValueError, match="prepare"):
        engine.losses(cached, index, 0.1)
    model[1].weight.data.div_(2)  # as it was
    assert torch.equal(engine.losses(cached, index, 0.1), before)
    model[-1].weight.mul_(2)  # frozen
    with pytest.raises(ValueError, match="prepare"):
        engine.losses(cached, index, 0.1)
    with pytest.raises(ValueError, match="of another"):
        prepared(mlp([12, 7, 10], key=Key(0)))[0].losses(cached, index, 0.1)


@pytest.mark.parametrize("loss", [cross_entropy, lambda y, t: cross_entropy(y, t)])
def test_threads_may_judge_different_numbers_of_copies(loss: Loss) -> None:
    outputs, labels = batch_of(4, 10)

    class Other(Judge):
        """Lets another thread ask for another number of copies whenever something is kept."""

        busy = False

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "_repeated" and value and not self.busy:
                self.busy = True
                self.of_whole(outputs.repeat(3, 1), 3)
                self.busy = False

    kind = type(judge_of(loss, outputs, labels))
    judge = type("Both", (Other, kind), {})(loss, outputs, labels)
    expected = loss(outputs, labels).mean()
    torch.testing.assert_close(judge.of_whole(outputs.repeat(2, 1), 2), expected.repeat(2))


def test_a_hook_or_a_type_of_ones_own_is_heeded() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), Doubled(8, 8), nn.Linear(8, 10))
    model[0].register_forward_hook(lambda module, inputs, y: y.square())
    assert_same(model, batch_of(8, 12))


def test_any_module_can_be_a_network_of_given_stages() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body, self.frozen = nn.Linear(6, 10), nn.Linear(12, 6), nn.Linear(6, 6)
            self.frozen.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.frozen(self.body(x)).relu())

    model = Network()
    stages = [model.body, model.frozen, nn.ReLU(), model.head]
    assert_same(model, batch_of(8, 12), modules=stages)
    with pytest.raises(ValueError, match="stages in their order"):
        Coordinates(Stages(model, [model.body, model.frozen, model.head]), cross_entropy).prepare(
            *batch_of(8, 12), KEY
        )


def test_branches_that_begin_in_place_are_of_what_the_shortcut_is_of() -> None:
    branches = [nn.ReLU(inplace=True), nn.Linear(6, 6)], [nn.Dropout(0.4, inplace=True), nn.Linear(6, 6)]
    blocks = [Residual([nn.LayerNorm(6), Residual(branches[0])]), Residual(branches[1])]
    assert_same(nn.Sequential(nn.Linear(12, 6), *blocks, nn.Linear(6, 10)), batch_of(8, 12))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_torchscript_is_evaluated_like_any_module() -> None:
    script = torch.jit.script(nn.Linear(6, 6).double())
    model = nn.Sequential(nn.Linear(12, 6), Residual([script]), nn.Dropout(0.3), nn.Linear(6, 10))
    assert_same(model, batch_of(8, 12))


@pytest.mark.parametrize("plain", [True, False])
def test_a_module_that_draws_as_many_numbers_as_it_likes_is_followed_copy_by_copy(plain: bool) -> None:
    block = Residual([nn.Linear(6, 6), nn.RReLU(), nn.Dropout(0.3)])
    model = nn.Sequential(nn.Linear(12, 6), nn.ReLU(), block, nn.Linear(6, 10), nn.Dropout(0.3)).double()
    batch = batch_of(8, 12)
    engine = Coordinates(Stages(model), cross_entropy, plain=plain)
    everything = torch.arange(0, engine.parameters.dim, 3)
    found = engine.losses(engine.prepare(*batch, KEY), everything, 0.5)
    _, expected = whole_passes(model, cross_entropy, batch, everything, 0.5)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_one_channel_convolutions_need_no_more_memory_than_columns() -> None:
    # The kernel has 49 offsets; nothing of that many times the size of the columns may be made.
    layer = nn.Conv2d(2, 2, 7, padding=3, groups=2).double()
    convolution = rule_of(layer)
    x = batch_of(4, 2, 16, 16)[0]
    seen = convolution.see(layer, x, False)
    columns = Columns(x[:, :1].repeat(8, 1, 1, 1, 1)[:, :, 0], torch.zeros(8, dtype=torch.int64), (0,) * 8)
    sizes: list[int] = []

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            sizes.extend(part.untyped_storage().nbytes() // part.element_size() for part in tree_leaves(made))
            return made

    with torch.no_grad(), Largest():
        found = convolution.columns(seen, columns)
    assert found is not None
    torch.testing.assert_close(found.values[0], layer(x)[:, 0])
    assert max(sizes) < 3 * columns.values.numel()


def test_a_residual_block_that_uses_a_layer_twice_stays_whole() -> None:
    layer = nn.Linear(6, 6)
    model = nn.Sequential(nn.Linear(12, 6), Residual([layer, nn.Tanh(), layer]), nn.Linear(6, 10))
    assert_same(model, batch_of(8, 12))


def test_modules_are_called_as_often_as_they_come_after_a_change() -> None:
    # Row k of the reference's table: sum over stages of (stages from k on) times (coordinates of k).
    model = mlp([12, 8, 8, 8, 10], key=Key(0), activation=nn.Tanh).double()
    batch = batch_of(16, 12)
    calls = []
    for module in model:
        module.register_forward_hook(lambda module, inputs, y: calls.append(module))
    stages = Stages(nn.Sequential(*model))
    plain = Coordinates(stages, cross_entropy, plain=True)
    cached = plain.prepare(*batch, KEY)
    assert len(calls) == len(model)
    calls.clear()
    everything = torch.arange(plain.parameters.dim)
    found = plain.losses(cached, everything, 0.01)
    counts = [sum(parameter.numel() for parameter in module.parameters()) for module in model]
    assert len(calls) == sum((len(model) - k) * count for k, count in enumerate(counts))
    _, expected = whole_passes(model, cross_entropy, batch, everything, 0.01)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_the_bytes_of_a_unit_depend_on_the_unit_alone() -> None:
    engine = Coordinates(Stages(resnet20(key=Key(0), width=4, blocks=(1, 1))), cross_entropy)
    inputs, labels = batch_of(8, 3, 8, 8)
    cached = engine.prepare(inputs.float(), labels, KEY)
    indices = torch.arange(0, engine.parameters.dim, 3)
    cuts = engine.boundaries(indices)
    assert cuts[0] == 0
    assert cuts[-1] == len(indices)
    assert all(start < stop for start, stop in itertools.pairwise(cuts))
    steps = torch.linspace(-0.1, 0.1, len(indices), dtype=torch.float64)
    together = engine.losses(cached, indices, steps)
    again = engine.prepare(inputs.float(), labels, KEY)
    parts: dict[int, Tensor] = {}

    def work(units: list[tuple[int, int]]) -> None:
        for start, stop in units:
            assert engine.boundaries(indices[start:stop]) == [0, stop - start]
            parts[start] = engine.losses(again, indices[start:stop], steps[start:stop])

    units = list(itertools.pairwise(cuts))[::-1]
    threads = [threading.Thread(target=work, args=(units[k::2],)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.cat([parts[start] for start in cuts[:-1]]), together)


def test_no_indices_and_indices_in_any_order() -> None:
    engine = Coordinates(Stages(mlp([12, 5, 10], key=Key(0)).double()), cross_entropy)
    cached = engine.prepare(*batch_of(8, 12), KEY)
    nothing = torch.tensor([], dtype=torch.int64)
    assert engine.losses(cached, nothing, 0.1).shape == (0,)
    assert engine.boundaries(nothing) == [0]
    order = torch.tensor([100, 3, 3, 64, 0])
    found = engine.losses(cached, order, 0.1)
    torch.testing.assert_close(
        found, torch.stack([engine.losses(cached, order[k : k + 1], 0.1)[0] for k in range(5)])
    )


def test_costs_are_of_what_follows() -> None:
    engine = Coordinates(Stages(resnet20(key=Key(0), width=4, blocks=(1, 2))), cross_entropy)
    inputs, labels = batch_of(8, 3, 8, 8)
    params = engine.parameters
    costs = engine.costs(torch.tensor(params.offsets[:-1]), engine.prepare(inputs.float(), labels, KEY))
    weights = [cost for cost, tensor in zip(costs.tolist(), params.tensors, strict=True) if tensor.ndim == 4]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 3 * weights[-1] > 0


def test_bad_input_is_refused() -> None:
    model = mlp([12, 5, 10], key=Key(0))
    with pytest.raises(ValueError, match=r"0\.weight|1\.weight"):
        Coordinates(Stages(copy.deepcopy(model).half()), cross_entropy)
    engine = Coordinates(Stages(model), cross_entropy)
    inputs, labels = batch_of(8, 12)
    inputs = inputs.float()
    cached = engine.prepare(inputs, labels, KEY)
    for indices in (torch.tensor([0.5]), torch.tensor([[0]]), torch.tensor(0)):
        with pytest.raises(TypeError, match="indices"):
            engine.losses(cached, indices, 0.1)
    for index in (-1, engine.parameters.dim):
        with pytest.raises(ValueError, match="indices"):
            engine.losses(cached, torch.tensor([index]), 0.1)
    with pytest.raises(ValueError, match="each of 8 examples"):
        Coordinates(Stages(model), lambda y, t: cross_entropy(y, t).mean()).prepare(inputs, labels, KEY)
    with pytest.raises(ValueError, match="one output for each example"):
        Coordinates(Stages(nn.Sequential(model, nn.Flatten(0))), cross_entropy).prepare(inputs, labels, KEY)
    for smoothing, error, match in (
        (torch.ones(4), ValueError, r"one for each of 9 indices, got shape \(4,\)"),
        (torch.ones(9, 1), ValueError, r"got shape \(9, 1\)"),
        ("a", TypeError, "must be a number"),
        (float("nan"), ValueError, "must be finite"),
    ):
        with pytest.raises(error, match=match):
            engine.losses(cached, torch.arange(9), smoothing)
    with pytest.raises(ValueError, match="an example or more"):
        engine.prepare(inputs[:0], labels[:0], KEY)
    with pytest.raises(TypeError, match=r"`Stages\(model\)`, got Sequential"):
        Coordinates(model, cross_entropy)
    with torch.no_grad():
        model[-1].bias += 1
    with pytest.raises(ValueError, match="prepare"):
        engine.losses(cached, torch.tensor([0]), 0.1)


@pytest.mark.parametrize("size", [2, 3, (2, 1), (1, 3)])
def test_maxima_of_tiles_are_those_of_the_module(size: int | tuple[int, int]) -> None:
    pool = nn.MaxPool2d(size)
    planes = Key(0).normal(0, 6, 7 * 8, like=torch.zeros(0)).view(2, 3, 7, 8)
    planes[0, 0, 0, 0] = torch.nan
    columns = Columns(planes.clone(), torch.tensor([0, 1]), (0, 1))
    pooling = rule_of(pool)
    found = pooling.columns(pooling.see(pool, planes, False), columns)
    assert found is not None
    torch.testing.assert_close(found.values, pool(planes), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("affine", [True, False])
def test_copies_are_normalized_each_by_itself(affine: bool) -> None:
    # What is done on a device, where a call for each copy would take longer than its arithmetic.
    norm = nn.BatchNorm2d(3, affine=affine).double()
    if affine:
        norm.weight.data.copy_(torch.tensor([1.0, -2.0, 0.5]))
    x = Key(0).normal(0, 12, 3 * 4, like=torch.zeros(0, dtype=torch.float64)).view(12, 3, 2, 2)
    x[4:] *= 7
    expected = torch.cat(
        [nn.functional.batch_norm(part, None, None, norm.weight, norm.bias, True) for part in x.split(4)]
    )
    torch.testing.assert_close(normalized_together(norm, x, 3), expected, rtol=1e-12, atol=1e-12)


def test_outputs_of_modules_may_share_memory() -> None:
    class Spread(nn.Module):
        row_wise = True

        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1, keepdim=True).expand(-1, 6)

    assert_same(nn.Sequential(nn.Linear(12, 4), Spread(), nn.ReLU(), nn.Linear(6, 10)), batch_of(8, 12))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_gives_the_losses_of_the_cpu() -> None:
    model = resnet20(key=Key(0), width=4, blocks=(1, 2)).double()
    batch = batch_of(16, 3, 8, 8)
    found = []
    for device in ("cpu", "cuda"):
        engine = Coordinates(Stages(model.to(device)), cross_entropy)
        cached = engine.prepare(batch[0].to(device), batch[1].to(device), KEY)
        found.append(engine.losses(cached, some(engine.parameters, 8), 0.01).cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=0)
