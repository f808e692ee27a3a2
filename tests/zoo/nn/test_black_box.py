"""Networks trained through what gives no gradient."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.core.errors import RunDirectoryError
from zoo.core.rng import Key
from zoo.nn.batches import Batches
from zoo.nn.black_box import BlackBox
from zoo.nn.coordinates import Coordinates
from zoo.nn.initialize import initialized
from zoo.nn.losses import cross_entropy
from zoo.nn.models.cnn import cnn
from zoo.nn.models.denoiser import denoiser
from zoo.nn.parameters import Parameters
from zoo.nn.stages import Stages
from zoo.nn.training import train

IMAGES = Key(3).normal(0, 6, 64, like=torch.zeros(0, dtype=torch.float64)).view(6, 1, 8, 8)
LABELS = torch.arange(6)


def defended() -> nn.Sequential:
    """Return a denoiser that is not the identity, in front of a black box, in double precision."""
    front = denoiser(key=Key(0), channels=3, size=3)
    *_, weight, _ = front.parameters()
    nn.init.constant_(weight, 0.05)
    return nn.Sequential(*front, BlackBox(cnn(key=Key(1), channels=(3, 4), hidden=8, norm=True))).double()


def linear() -> nn.Linear:
    return initialized(lambda: nn.Linear(3, 2), Key(4))


def test_no_gradient_comes_through() -> None:
    inner = linear()
    box = BlackBox(inner)
    x = torch.ones(4, 3, requires_grad=True)
    assert not box(x).requires_grad
    assert torch.equal(box(x), inner(x))
    assert not BlackBox(lambda x: 2 * x)(x).requires_grad


def test_the_network_around_it_has_nothing_of_it() -> None:
    model = nn.Sequential(nn.Dropout(), BlackBox(nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9))))
    inner = model[1].function
    for mode in (True, False, True):
        model.train(mode)
        assert model[0].training is model[1].training is mode
        assert not any(module.training for module in inner.modules())
    assert not list(model.parameters())
    assert not model.state_dict()
    assert inner[0] not in model.modules()
    x = torch.arange(12.0).view(4, 3)
    assert torch.allclose(model[1](x), x, rtol=1e-4)
    assert int(inner[0].num_batches_tracked) == 0


def test_frozen_parameters_are_left_out() -> None:
    boxed = defended()
    frozen = boxed[1].function.requires_grad_(False)
    front = sum(parameter.numel() for parameter in boxed[0].parameters())
    for model in (boxed, nn.Sequential(boxed[0], *frozen)):
        params = Parameters(model)
        assert all(name.startswith("0.") for name in params.names)
        assert Coordinates(Stages(model), cross_entropy).parameters.dim == params.dim == front


def test_a_black_box_is_what_its_layers_are() -> None:
    boxed = defended()
    whole = nn.Sequential(boxed[0], *boxed[1].function.requires_grad_(False))
    found = []
    for model in (boxed, whole):
        engine = Coordinates(Stages(model), cross_entropy)
        cached = engine.prepare(IMAGES, LABELS, Key(0))
        found.append(engine.losses(cached, torch.arange(engine.parameters.dim), 0.1))
    assert torch.allclose(*found, rtol=1e-12)


@pytest.mark.parametrize("plain", [False, True])
def test_losses_of_changes_are_those_of_whole_passes(plain: bool) -> None:
    model = defended()
    engine = Coordinates(Stages(model), cross_entropy, plain=plain)
    cached = engine.prepare(IMAGES, LABELS, Key(0))
    dim = engine.parameters.dim
    found = engine.losses(cached, torch.arange(dim), 0.1)
    flat = engine.parameters.flat()
    expected = torch.empty(dim, dtype=torch.float64)
    with torch.no_grad(), engine.parameters.restored():
        for number in range(dim):
            moved = flat.clone()
            moved[number] += 0.1
            engine.parameters.write_(moved)
            expected[number] = nn.functional.cross_entropy(model(IMAGES), LABELS)
    assert torch.allclose(found, expected, rtol=1e-12)
    assert float(expected.std()) > 1e-4


def test_every_query_asks_about_the_whole_mini_batch() -> None:
    asked = []
    inner = cnn(key=Key(1), channels=(3,), hidden=8)

    def answer(x: Tensor) -> Tensor:
        asked.append(len(x))
        return inner(x)

    front = denoiser(key=Key(0), channels=2, size=3)
    model = nn.Sequential(*front, BlackBox(answer))
    batches = Batches(IMAGES.float(), LABELS, 4, key=Key(0))
    train(model, cross_entropy, batches, options={"sparsity": 0.0}, steps=1, rng=0)
    before = sum(asked)
    done = train(model, cross_entropy, batches, options={"sparsity": 0.0}, steps=3, rng=0)
    # What is looked at before the first step is asked about in both.
    assert sum(asked) - before == before + 2 * 4 * done.queries // 3
    assert done.queries == 3 * (Parameters(model).dim + 1)


def test_training_leaves_the_black_box_as_it_is() -> None:
    model = defended()
    inner = model[1].function
    before = [value.clone() for value in inner.state_dict().values()]  # with running statistics
    front = Parameters(model).flat()
    batches = Batches(IMAGES, LABELS, 6, key=Key(0))
    done = train(model, cross_entropy, batches, options={"sparsity": 0.5, "pruning": None}, steps=4, rng=0)
    assert all(torch.equal(one, two) for one, two in zip(before, inner.state_dict().values(), strict=True))
    assert not torch.equal(Parameters(model).flat(), front)
    assert done.history["loss"][-1] < done.history["loss"][0]


def test_a_training_is_not_resumed_with_another_black_box(tmp_path: Path) -> None:
    batches = Batches(IMAGES.float(), LABELS, 6, key=Key(0))

    def run(box: nn.Module) -> int:
        model = nn.Sequential(*denoiser(key=Key(0), channels=2, size=3), box)
        options = {"sparsity": 0.0}
        return train(
            model, cross_entropy, batches, options=options, steps=1, rng=0, out=tmp_path / "run"
        ).steps

    one, other = (cnn(key=Key(seed), channels=(3,), hidden=8) for seed in (1, 2))
    assert run(BlackBox(one)) == 1
    assert run(BlackBox(one)) == 1
    with pytest.raises(RunDirectoryError):
        run(BlackBox(other))


def test_it_travels() -> None:
    box = BlackBox(linear())
    again = pickle.loads(pickle.dumps(box))
    assert torch.equal(again(torch.ones(1, 3)), box(torch.ones(1, 3)))
    assert again.function is not box.function
    assert again.double().function.weight.dtype == torch.float64
    assert box.function.weight.dtype == torch.float32
    assert repr(box) != repr(again)
    assert repr(box) == repr(again.float())


@pytest.mark.parametrize("function", [None, 3, nn.Linear])
def test_bad_functions(function: Any) -> None:
    with pytest.raises(TypeError, match="`function` must be a module or a function of inputs"):
        BlackBox(function)


def test_bad_answers() -> None:
    with pytest.raises(TypeError, match="`function` must return a tensor, got list"):
        BlackBox(lambda x: x.tolist())(torch.ones(2))
    for answer in (lambda x: x.sum(), lambda x: x[1:]):
        with pytest.raises(ValueError, match="`function` must return one row for each of 2 inputs"):
            BlackBox(answer)(torch.ones(2, 3))


def test_a_denoiser_begins_as_the_identity() -> None:
    for arguments in ({}, {"channels": 5, "depth": 2, "size": 7}, {"depth": 4, "activation": nn.Tanh}):
        model = denoiser(key=Key(0), **arguments)
        images = IMAGES.float()
        assert torch.equal(model(images), images)
        *first, weight, bias = model.parameters()
        assert all(parameter.any() for parameter in first)
        assert not weight.any()
        assert not bias.any()
    assert sum(parameter.numel() for parameter in denoiser(key=Key(0)).parameters()) == 208 + 1608 + 201
    colours = denoiser(key=Key(0), in_channels=3)(torch.ones(2, 3, 5, 7))
    assert colours.shape == (2, 3, 5, 7)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"size": 4}, ValueError),
        ({"depth": 1}, ValueError),
        ({"channels": 0}, ValueError),
        ({"in_channels": 1.0}, TypeError),
    ],
)
def test_bad_denoisers(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=f"`{next(iter(arguments))}` must be"):
        denoiser(key=Key(0), **arguments)
