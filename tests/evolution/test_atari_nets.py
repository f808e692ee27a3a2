"""Networks of the papers on Atari games: sizes, padding, first weights, normalization by a reference."""

import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional

from evolution.environments.atari import AtariEnvironment
from evolution.environments.spaces import Continuous, Discrete, Image, Spaces, Vector
from evolution.genome import Codec, Genome
from evolution.policies.atari_nets import Large, Nature, Small, VirtualBatchNorm, collect_reference
from evolution.policies.lookup import as_policy
from evolution.policies.torch_policy import _Mixed
from zoo.core.rng import Key, NoiseTable

GAME = Spaces(Image(4, 84, 84), Discrete(18))
TINY = Spaces(Image(2, 20, 18), Discrete(3))


def pictures(count, spaces=GAME, seed=0):
    space = spaces.observations
    shape = (count, space.channels, space.height, space.width)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def first(policy, count=1, seed=0):
    """Return rows drawn as a codec draws them."""
    numbers = np.random.default_rng(seed)
    return np.stack(
        [
            np.concatenate(
                [(p.mean + p.std * numbers.standard_normal(p.size)).astype(np.float32) for p in policy.pieces]
            )
            for _ in range(count)
        ]
    )


def same_padded(values, weight, bias, stride):
    """Return a convolution of which the point (i, j) sees a square around it: float64, sum by sum."""
    extent, size = values.shape[-1], weight.shape[-1]
    out = math.ceil(extent / stride)
    missing = (out - 1) * stride + size - extent
    before = missing // 2
    padded = np.pad(values, ((0, 0), (before, missing - before), (before, missing - before)))
    found = np.empty((len(weight), out, out))
    for i in range(out):
        for j in range(out):
            square = padded[:, i * stride : i * stride + size, j * stride : j * stride + size]
            found[:, i, j] = (weight * square).sum((1, 2, 3)) + bias
    return np.maximum(found, 0)


@pytest.mark.parametrize(
    ("kind", "size", "flat"),
    [(Large, 4_052_658, 7744), (Nature, 1_693_362, 3136), (Small, 1_008_450, 3872)],
    ids=["large", "nature", "small"],
)
def test_sizes_are_those_of_the_papers(kind, size, flat):
    policy = kind(GAME)
    shapes = {piece.name: piece.shape for piece in policy.pieces}
    assert policy.dim == size
    assert shapes["hidden.weight"][1] == flat
    assert policy.members == 1
    assert not policy.is_recurrent


@pytest.mark.parametrize("kind", [Large, Nature, Small], ids=["large", "nature", "small"])
def test_first_weights_have_the_deviation_of_their_inputs_and_biases_are_0(kind):
    policy = kind(GAME)
    for piece in policy.pieces:
        inputs = math.prod(piece.shape[1:])
        wanted = (
            0.0
            if piece.name.endswith("bias")
            else (0.1 if piece.name == "output.weight" else 1) / inputs**0.5
        )
        assert piece.std == pytest.approx(wanted, rel=1e-12)
        assert piece.mean == 0
    codec = Codec(NoiseTable(0, 2**17), policy.pieces[:2])
    tensor = codec.decode(Genome(np.array([3], np.uint64), np.ones(1, np.float32)))
    weights = tensor[: policy.pieces[0].size]
    assert weights.std() == pytest.approx(1 / 16, rel=0.05)
    assert (tensor[policy.pieces[0].size :] == 0).all()


def test_small_is_what_its_layers_are():
    """Against sums in float64 with padding by hand: 21 points of 84, then 11, the odd zero to the right."""
    policy = Small(GAME)
    row, seen = first(policy)[0], pictures(1)
    tensors = {name: values.astype(np.float64) for name, values in policy.tensors(row).items()}
    values = seen[0] / 255.0
    for i, stride in enumerate((4, 2)):
        values = same_padded(
            values, tensors[f"convolutions.{i}.weight"], tensors[f"convolutions.{i}.bias"], stride
        )
    assert values.shape == (32, 11, 11)
    hidden = np.maximum(tensors["hidden.weight"] @ values.ravel() + tensors["hidden.bias"], 0)
    expected = tensors["output.weight"] @ hidden + tensors["output.bias"]
    with torch.no_grad():
        found = policy.network(row)(torch.from_numpy(seen).float() / 255)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert policy.actor(row[None], np.array([0])).act(seen).tolist() == [int(expected.argmax())]


def test_nature_pads_nothing():
    policy = Nature(GAME)
    network = policy.network(first(policy)[0])
    values = torch.from_numpy(pictures(1)).float() / 255
    with torch.no_grad():
        expected = values
        for convolution, stride in zip(network.convolutions, (4, 2, 1), strict=True):
            expected = functional.relu(
                functional.conv2d(expected, convolution.weight, convolution.bias, stride)
            )
        assert expected.shape == (1, 64, 7, 7)
        expected = network.output(functional.relu(network.hidden(expected.flatten(1))))
        assert torch.equal(network(values), expected)


def test_members_side_by_side_are_as_one_by_one():
    policy = Small(TINY)
    parameters, seen = first(policy, 3), pictures(5, TINY)
    of = np.array([0, 0, 1, 1, 2])
    mixed = policy.actor(parameters, of)
    assert isinstance(mixed, _Mixed)
    with torch.no_grad():
        outputs = [
            policy.network(parameters[row])(torch.from_numpy(seen[i : i + 1]).float() / 255)[0].numpy()
            for i, row in enumerate(of)
        ]
    np.testing.assert_array_equal(mixed.act(seen), np.argmax(outputs, 1))


def test_networks_go_by_their_names():
    for name, kind in (("atari-large", Large), ("atari-nature", Nature), ("atari-small", Small)):
        policy = as_policy(name, GAME)
        assert isinstance(policy, kind)
        assert policy.describe()["name"] == name
    assert isinstance(as_policy(None, GAME), Large)


# Virtual batch normalization.


def test_the_reference_batch_is_normalized_in_every_layer():
    reference = pictures(12, TINY)
    policy = VirtualBatchNorm(TINY, reference)
    network = policy.network(first(policy)[0])
    values = network.reference.float() / 255
    with torch.no_grad():
        moments = network.moments()
        for i, layer in enumerate(network.layers):
            is_last = i == 2
            values = layer(values.flatten(1) if is_last else functional.pad(values, network.paddings[i]))
            axes = (0,) if is_last else (0, 2, 3)
            start = sum(network.sizes[:i])
            channels = slice(start, start + network.sizes[i])
            mean, var = values.mean(axes), values.var(axes, correction=0)
            torch.testing.assert_close(moments[0, channels], mean)
            torch.testing.assert_close(moments[0, 304:][channels], var)
            shape = (1, -1) if is_last else (1, -1, 1, 1)
            values = functional.relu((values - mean.view(shape)) / torch.sqrt(var.view(shape) + 1e-3))
    assert sum(network.sizes) == 304


def test_moments_are_of_the_reference_and_the_weights_and_not_of_what_is_seen():
    policy = VirtualBatchNorm(TINY, pictures(12, TINY))
    network = policy.network(first(policy)[0])
    one, other = (torch.from_numpy(pictures(3, TINY, seed)).float() / 255 for seed in (1, 2))
    with torch.no_grad():
        outputs, state = network(one, None)
        assert torch.equal(state, network.moments().expand(3, -1))
        again, kept = network(other, state)
        assert torch.equal(kept, state)
        fresh, _ = network(other, None)
    assert torch.equal(again, fresh)
    assert not torch.equal(outputs, again)
    moved = policy.network(first(policy, seed=1)[0])
    with torch.no_grad():
        assert not torch.equal(moved.moments(), network.moments())


def test_normalized_members_side_by_side_are_as_one_by_one():
    policy = VirtualBatchNorm(TINY, pictures(12, TINY))
    parameters, seen = first(policy, 2), pictures(3, TINY, 1)
    of = np.array([0, 1, 1])
    mixed = policy.actor(parameters, of)
    assert isinstance(mixed, _Mixed)
    alone = [policy.actor(parameters, of[i : i + 1]) for i in range(3)]
    for time in range(3):
        seen = pictures(3, TINY, time)
        expected = [actor.act(seen[i : i + 1])[0] for i, actor in enumerate(alone)]
        assert mixed.act(seen).tolist() == expected


def test_normalized_layers_have_no_bias_of_their_own():
    names = {piece.name: piece for piece in VirtualBatchNorm(GAME, pictures(2)).pieces}
    assert "layers.0.bias" not in names
    assert {(names[f"gains.{i}"].mean, names[f"gains.{i}"].std) for i in range(3)} == {(1.0, 0.0)}
    assert {(names[f"shifts.{i}"].mean, names[f"shifts.{i}"].std) for i in range(3)} == {(0.0, 0.0)}


def test_a_reference_is_a_function_of_its_key():
    pytest.importorskip("ale_py")
    environment = AtariEnvironment("ALE/Frostbite-v5", max_steps=60)
    one, again, other = (collect_reference(environment, Key(seed), 24) for seed in (0, 0, 1))
    assert (one.shape, one.dtype) == ((24, 4, 84, 84), np.uint8)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert len(np.unique(one.reshape(24, -1), axis=0)) == 24
    policy = VirtualBatchNorm(environment.spaces, one)
    actor = policy.actor(first(policy), np.array([0, 0]))
    assert actor.act(environment.begin([0, 1])).shape == (2,)


def test_a_game_can_stand_for_its_reference():
    pytest.importorskip("ale_py")
    environment = AtariEnvironment("breakout")
    policy = as_policy("atari-virtual-batch-norm", environment.spaces, {"reference": "ALE/Breakout-v5"})
    given = VirtualBatchNorm(environment.spaces, collect_reference(environment, Key(0), 128))
    assert policy.describe() == given.describe()
    with pytest.raises(ValueError, match="`reference` must be a game of the spaces"):
        VirtualBatchNorm(Spaces(Image(4, 84, 84), Discrete(5)), "ALE/Breakout-v5")


# Bad input.


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Small(Spaces(Vector(4), Discrete(2))), "must have pictures as observations"),
        (
            lambda: Nature(Spaces(Image(4, 40, 30), Discrete(2))),
            "must have larger pictures: 2 points do not hold one of 3",
        ),
        (lambda: VirtualBatchNorm(GAME, pictures(1)), "n at least 2, got uint8 of shape (1, 4, 84, 84)"),
        (lambda: VirtualBatchNorm(GAME, pictures(3) / 255), "got float64"),
        (
            lambda: VirtualBatchNorm(GAME, pictures(3, TINY)),
            "`reference` must be uint8 of shape (n, 4, 84, 84)",
        ),
        (lambda: as_policy("atari-smal", GAME), "Did you mean 'atari-small'?"),
        (
            lambda: as_policy("atari-virtual-batch-norm", GAME),
            "`policy_options` must have a `reference` for the policy 'atari-virtual-batch-norm'",
        ),
    ],
    ids=["numbers", "too-small", "one", "floats", "other-pictures", "unknown", "no-reference"],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


def test_a_reference_needs_choices():
    class Steered:
        spaces = Spaces(Image(4, 84, 84), Continuous((-1.0,), (1.0,)))

    with pytest.raises(ValueError, match="must take one of some actions"):
        collect_reference(Steered(), Key(0))
