"""Networks that ship as stages."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from zoo.core.rng import Key
from zoo.nn.initialize import initialize_, initialized
from zoo.nn.models.cnn import cnn, deepzero_cnn
from zoo.nn.models.mlp import mlp
from zoo.nn.models.resnet import Subsample, resnet20
from zoo.nn.models.transformer import Attend, Positions, transformer
from zoo.nn.stages import Stages

Case = tuple[Callable[[Key], nn.Sequential], Callable[[], Tensor], tuple[int, ...]]


def numbers(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape).sin()


CASES: dict[str, Case] = {
    "mlp": (lambda key: mlp((64, 16, 10), key=key, activation=nn.Tanh), lambda: numbers(3, 1, 8, 8), (3, 10)),
    "cnn": (lambda key: cnn(key=key), lambda: numbers(3, 1, 8, 8), (3, 10)),
    "cnn, normalised": (
        lambda key: cnn(key=key, in_channels=2, size=4, channels=(3,), hidden=5, num_classes=4, norm=True),
        lambda: numbers(3, 2, 4, 4),
        (3, 4),
    ),
    "deepzero": (lambda key: deepzero_cnn(3, key=key), lambda: numbers(3, 3, 8, 8), (3, 10)),
    "resnet, padded": (lambda key: resnet20(7, key=key, width=4), lambda: numbers(2, 3, 32, 32), (2, 7)),
    "resnet, convolved": (
        lambda key: resnet20(key=key, width=4, blocks=(1, 2), shortcut="conv"),
        lambda: numbers(2, 3, 16, 16),
        (2, 10),
    ),
    "transformer of rows": (
        lambda key: transformer(key=key, length=8, features=8, num_outputs=10, width=8, heads=2),
        lambda: numbers(3, 8, 8),
        (3, 10),
    ),
    "transformer of words": (
        lambda key: transformer(
            key=key,
            length=6,
            vocabulary=5,
            num_outputs=5,
            width=8,
            heads=2,
            hidden=8,
            causal=True,
            pooled=False,
            dropout=0.5,
        ),
        lambda: torch.arange(12).view(2, 6) % 5,
        (2, 6, 5),
    ),
}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_models_are_stages(name: str) -> None:
    build, inputs, shape = CASES[name]
    model = build(Key(0)).eval()
    Stages(model).check(inputs())
    assert tuple(model(inputs()).shape) == shape


@pytest.mark.parametrize("name", CASES)
def test_weights_follow_from_the_key(name: str) -> None:
    build = CASES[name][0]
    first, again, other = (list(build(Key(seed)).parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert any(not torch.equal(one, two) for one, two in zip(first, other, strict=True))


def test_published_numbers_of_parameters() -> None:
    key = Key(0)
    assert [count(deepzero_cnn(depth, key=key)) for depth in range(1, 6)] == [730, 3700, 6670, 9640, 12610]
    assert count(resnet20(key=key)) == 269_722
    assert count(resnet20(key=key, shortcut="conv")) == 272_474
    assert count(cnn(key=key)) == 4858
    assert count(cnn(key=key, norm=True)) == 5002


def test_resnet_has_twenty_layers() -> None:
    layers = [
        module for module in resnet20(key=Key(0)).modules() if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    assert len(layers) == 20


def test_a_layer_begins_the_same_whatever_else_there_is() -> None:
    one = initialized(lambda: nn.Sequential(nn.Linear(3, 2)), Key(3))
    two = initialized(lambda: nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 9)), Key(3))
    assert torch.equal(one[0].weight, two[0].weight)
    assert torch.equal(one[0].bias, two[0].bias)


def test_layers_of_equal_shape_begin_differently() -> None:
    model = mlp((4, 4, 4), key=Key(0))
    assert not torch.equal(model[1].weight, model[3].weight)


def test_he_weights_have_their_deviation() -> None:
    layer = initialized(lambda: nn.Conv2d(64, 256, 3), Key(0), law="he")
    # The standard error of the deviation of n normal numbers is 1 / sqrt(2 n) of it.
    band = 5 / (2 * layer.weight.numel()) ** 0.5
    assert float(layer.weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=band)
    assert not layer.bias.any()


def test_initial_statistics_begin_anew() -> None:
    layer = nn.BatchNorm1d(2)
    layer(numbers(4, 2))
    initialize_(layer, Key(0))
    assert layer.running_mean.tolist() == [0, 0]
    assert int(layer.num_batches_tracked) == 0


def test_attention_of_torch_is_reset() -> None:
    one, two = (initialized(lambda: nn.MultiheadAttention(4, 2), Key(0)) for _ in range(2))
    assert torch.equal(one.in_proj_weight, two.in_proj_weight)


def test_padded_shortcut_by_hand() -> None:
    x = numbers(2, 2, 4, 4)
    out = Subsample(6)(x)
    assert torch.equal(out[:, 2:4], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 4:].any()


def test_attention_by_hand() -> None:
    x = numbers(2, 5, 12).double()
    q, k, v = x.split(4, -1)
    expected = []
    for part in range(2):
        here = slice(2 * part, 2 * part + 2)
        scores = q[..., here] @ k[..., here].mT / 2**0.5
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        expected.append(scores.softmax(-1) @ v[..., here])
    assert torch.allclose(Attend(2, causal=True)(x), torch.cat(expected, -1), atol=1e-12)


def test_positions_begin_with_waves() -> None:
    weight = Positions(7, 5).weight.detach()
    for p in range(7):
        expected = [math.sin(p), math.cos(p)]
        expected += [math.sin(p / 10000**0.4), math.cos(p / 10000**0.4), math.sin(p / 10000**0.8)]
        assert weight[p].tolist() == pytest.approx(expected, abs=1e-6)


def test_causal_outputs_see_nothing_behind_them() -> None:
    model = CASES["transformer of words"][0](Key(0)).eval()
    words = torch.arange(6)[None] % 5
    changed = words.clone()
    changed[0, 4] = 0
    before, after = model(words), model(changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


def test_branches_come_after_their_normalization() -> None:
    model = CASES["transformer of rows"][0](Key(0))
    branches = [stage.branch for stage in model if hasattr(stage, "branch")]
    assert len(branches) == 4
    assert all(isinstance(branch[0], nn.LayerNorm) for branch in branches)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: mlp((4,), key=Key(0)), "`sizes` must name at least inputs and outputs"),
        (lambda: mlp((4, 0), key=Key(0)), "`sizes` must be at least 1"),
        (lambda: cnn(key=Key(0), channels=()), "`channels` must name at least one convolution"),
        (lambda: resnet20(key=Key(0), blocks=()), "`blocks` must name at least one group"),
        (lambda: deepzero_cnn(2, key=Key(0), halve_after=(2, 9)), "`halve_after` must .* there are 2, got"),
        (lambda: cnn(key=Key(0), size=3), "`size` must be at least 4 for 2 convolutions, got 3"),
        (lambda: cnn(key=Key(0), hidden=0), "`hidden` must be at least 1"),
        (lambda: deepzero_cnn(0, key=Key(0)), "`depth` must be at least 1"),
        (lambda: resnet20(key=Key(0), shortcut="none"), "`shortcut` must be one of 'pad', 'conv'"),
        (lambda: Subsample(2)(torch.zeros(1, 3, 4, 4)), "at most 2 channels, got 3"),
        (
            lambda: Positions(2, 3)(torch.zeros(1, 3, 3)),
            "at most 2 positions, got 3",
        ),
        (lambda: Attend(2)(torch.zeros(1, 3, 4)), "3 x 2 equal parts"),
        (
            lambda: transformer(key=Key(0), length=4, num_outputs=2),
            "exactly one of `vocabulary` and `features`",
        ),
        (
            lambda: transformer(key=Key(0), length=4, num_outputs=2, features=2, width=9, heads=2),
            "`width` must be a multiple of `heads`, got 9 and 2",
        ),
        (
            lambda: transformer(key=Key(0), length=4, num_outputs=2, features=2, dropout=1.0),
            "`dropout` must be at least 0 and below 1",
        ),
        (lambda: initialize_(nn.ReLU(), Key(0), law="she"), "Did you mean 'he'"),
    ],
)
def test_bad_input(call: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def test_a_layer_that_cannot_be_reset_is_named() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

    with pytest.raises(ValueError, match="got Own '1' with parameters"):
        initialize_(nn.Sequential(nn.ReLU(), Own()), Key(0))
