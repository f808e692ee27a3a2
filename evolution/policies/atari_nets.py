"""Networks for Atari games, by the names that papers and code know them by."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from evolution.environments.environment import Environment
from evolution.environments.spaces import Discrete, Image, Spaces
from evolution.policies.actions import outputs_of
from evolution.policies.torch_policy import TorchPolicy
from zoo.core.rng import Key, keyed_generators
from zoo.core.validation import check_count

Array = np.ndarray[Any, Any]
Moments: TypeAlias = tuple[torch.Tensor, torch.Tensor]

_LAST = 0.1
_FLOOR = 1e-3
_TAKEN = 1 / 8


class Convolutions(nn.Module):
    """Convolutions, a hidden layer and a linear one, with max(0, x) between them.

    Args:
        spaces: What it sees, pictures, and what it does.
        layers: Of each convolution: channels, width of the square, steps from one to the next.
        hidden: Size of the hidden layer.
        same: Whether pictures are padded with zeros so that a convolution of step s makes a picture of n
            points one of n / s, rounded up: what is odd goes to the right and the bottom, as in TensorFlow.
            Else they are not padded.
    """

    def __init__(
        self, spaces: Spaces, layers: Sequence[tuple[int, int, int]], hidden: int, same: bool
    ) -> None:
        super().__init__()
        channels, height, width = _picture(spaces)
        self.paddings: list[tuple[int, int, int, int]] = []
        self.convolutions = nn.ModuleList()
        for outputs, size, stride in layers:
            (top, bottom, height), (left, right, width) = (
                _extent(extent, size, stride, same) for extent in (height, width)
            )
            # Padding that is the same on both sides is done by the convolution itself, which is quicker.
            is_even = (top, left) == (bottom, right)
            self.paddings.append((0, 0, 0, 0) if is_even else (left, right, top, bottom))
            self.convolutions.append(
                nn.Conv2d(channels, outputs, size, stride, padding=(top, left) if is_even else 0)
            )
            channels = outputs
        self.hidden = nn.Linear(channels * height * width, hidden)
        self.output = nn.Linear(hidden, outputs_of(spaces.actions))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        values = pictures
        for convolution, padding in zip(self.convolutions, self.paddings, strict=True):
            values = functional.relu(convolution(functional.pad(values, padding) if any(padding) else values))
        values = functional.relu(self.hidden(values.flatten(1)))
        outputs: torch.Tensor = self.output(values)
        return outputs


class _Named(TorchPolicy):
    """A network that has a name.

    Args:
        spaces: What it is for: pictures of any size.
        device: Where it computes: "cpu" or "cuda".

    Raises:
        ValueError: Observations are no pictures, or too small, or torch knows no such device.
    """

    name: str
    layers: tuple[tuple[int, int, int], ...]
    hidden: int
    same: bool

    def __init__(self, spaces: Spaces, *, device: str = "cpu") -> None:
        with keyed_generators(Key(0)):  # layers of torch draw first numbers, which are not used
            network = Convolutions(spaces, self.layers, self.hidden, self.same)
        super().__init__(network, spaces, gains={"output.weight": _LAST}, device=device)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "name": self.name}


class Large(_Named):
    """The network of "Deep Neuroevolution": 4,052,658 parameters at 18 actions.

    32 filters of 8 x 8 at every 4th point, 64 of 4 x 4 at every 2nd, 64 of 3 x 3, a hidden layer of 512, all
    with max(0, x); pictures are padded, so 84 points become 21, 11 and 11. A first policy has weights
    ~ N(0, 1 / fan_in), of a tenth of that deviation in the last layer, and biases of 0.

    Such et al., "Deep Neuroevolution: Genetic Algorithms Are a Competitive Alternative for Training Deep
    Neural Networks for Reinforcement Learning", 2017, https://arxiv.org/abs/1712.06567.

    Args:
        spaces: What it is for: pictures of any size.
        device: Where it computes: "cpu" or "cuda".

    Raises:
        ValueError: Observations are no pictures, or torch knows no such device.

    Example:
        >>> from evolution.environments.spaces import Discrete
        >>> Large(Spaces(Image(4, 84, 84), Discrete(18))).dim
        4052658
    """

    name = "atari-large"
    layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    hidden, same = 512, True


class Nature(_Named):
    """The network of deep Q-learning: 1,693,362 parameters at 18 actions.

    As `Large`, without padding, so 84 points become 20, 9 and 7.

    Mnih et al., "Human-level control through deep reinforcement learning", 2015,
    https://doi.org/10.1038/nature14236.

    Args:
        spaces: What it is for: pictures.
        device: Where it computes: "cpu" or "cuda".

    Raises:
        ValueError: Observations are no pictures, or too small, or torch knows no such device.

    Example:
        >>> from evolution.environments.spaces import Discrete
        >>> Nature(Spaces(Image(4, 84, 84), Discrete(18))).dim
        1693362
    """

    name = "atari-nature"
    layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    hidden, same = 512, False


class Small(_Named):
    """The network that evolution strategies and A3C have: 1,008,450 parameters at 18 actions.

    16 filters of 8 x 8 at every 4th point, 32 of 4 x 4 at every 2nd, a hidden layer of 256; pictures are
    padded, so 84 points become 21 and 11. First policies are as in `Large`.

    Mnih et al., "Asynchronous Methods for Deep Reinforcement Learning", 2016,
    https://arxiv.org/abs/1602.01783.

    A step takes 7.6 million floating-point operations and reads 4 MB of weights, nearly all of the hidden
    layer. The latter is what a single episode waits for; several of one member share it.

    Args:
        spaces: What it is for: pictures of any size.
        device: Where it computes: "cpu" or "cuda".

    Raises:
        ValueError: Observations are no pictures, or torch knows no such device.

    Example:
        >>> from evolution.environments.spaces import Discrete
        >>> Small(Spaces(Image(4, 84, 84), Discrete(18))).dim
        1008450
    """

    name = "atari-small"
    layers = ((16, 8, 4), (32, 4, 2))
    hidden, same = 256, True


class ReferenceNormalized(nn.Module):
    """The layers of `Small`, each normalized by its moments over a fixed batch of pictures.

        y = gain (W x - mean) / sqrt(var + 1e-3) + shift

    where mean and var are those of W x, channel by channel, over the reference batch, itself normalized in
    the layers before. They are a function of the weights alone: computed in the first step of an episode, and
    carried along as what the network remembers, shape (k, 2 x numbers of all layers).

    Args:
        spaces: What it sees, pictures, and what it does.
        reference: The batch, uint8, shape (n, channels, height, width).
    """

    reference: torch.Tensor

    def __init__(self, spaces: Spaces, reference: Array) -> None:
        super().__init__()
        channels, height, width = _picture(spaces)
        self.paddings: list[tuple[int, int, int, int]] = []
        self.layers, self.gains, self.shifts = nn.ModuleList(), nn.ParameterList(), nn.ParameterList()
        for outputs, size, stride in Small.layers:
            (top, bottom, height), (left, right, width) = (
                _extent(extent, size, stride, Small.same) for extent in (height, width)
            )
            self.paddings.append((left, right, top, bottom))
            self.layers.append(nn.Conv2d(channels, outputs, size, stride, bias=False))
            channels = outputs
        self.layers.append(nn.Linear(channels * height * width, Small.hidden, bias=False))
        self.sizes = [*(outputs for outputs, _, _ in Small.layers), Small.hidden]
        for size in self.sizes:
            self.gains.append(nn.Parameter(torch.ones(size)))
            self.shifts.append(nn.Parameter(torch.zeros(size)))
        self.output = nn.Linear(Small.hidden, outputs_of(spaces.actions))
        self.register_buffer("reference", torch.from_numpy(np.array(reference)))

    def forward(
        self, pictures: torch.Tensor, state: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if state is None:
            state = self.moments().expand(len(pictures), -1)
        parts = torch.split(state, self.sizes * 2, dim=1)
        count = len(self.sizes)
        values, _ = self._values(pictures, list(zip(parts[:count], parts[count:], strict=True)))
        return self.output(values), state

    def moments(self) -> torch.Tensor:
        """Return means and variances of all layers over the reference batch, shape (1, 2 x numbers)."""
        _, found = self._values(self.reference.to(torch.float32) / 255, None)
        return torch.cat([*(mean for mean, _ in found), *(var for _, var in found)], dim=1)

    def _values(
        self, values: torch.Tensor, moments: list[Moments] | None
    ) -> tuple[torch.Tensor, list[Moments]]:
        """Return what the last layer sees, and the moments: those given, or else of the values themselves."""
        used: list[Moments] = []
        for i, (layer, gain, shift) in enumerate(zip(self.layers, self.gains, self.shifts, strict=True)):
            is_flat = i == len(self.layers) - 1
            values = layer(values.flatten(1) if is_flat else functional.pad(values, self.paddings[i]))
            if moments is None:
                axes = (0,) if is_flat else (0, 2, 3)
                used.append((values.mean(axes)[None], values.var(axes, correction=0)[None]))
            else:
                used.append(moments[i])
            mean, var = used[-1]
            shape = (-1, self.sizes[i]) if is_flat else (-1, self.sizes[i], 1, 1)
            scale = gain / torch.sqrt(var + _FLOOR)
            values = functional.relu((values - mean.view(shape)) * scale.view(shape) + shift.view(shape))
        return values, used


class VirtualBatchNorm(TorchPolicy):
    """`Small` with virtual batch normalization: the network of evolution strategies on Atari games.

    Layers have no bias in front of the normalization, and a gain and a shift after it, which start as 1 and
    0. Each candidate's moments are those over the same reference batch, computed when its weights are new and
    then fixed; without it, most perturbations of a network change no action.

    Salimans et al., "Evolution Strategies as a Scalable Alternative to Reinforcement Learning", 2017,
    https://arxiv.org/abs/1703.03864; of the normalization: Salimans et al., "Improved Techniques for Training
    GANs", 2016, https://arxiv.org/abs/1606.03498.

    Args:
        spaces: What it is for: pictures.
        reference: Observations of a random policy, uint8 of shape (n, channels, height, width), such as
            `collect_reference` returns; the papers take 128. Or a game such as "ALE/Frostbite-v5", of which
            it collects as many, always the same.
        device: Where it computes: "cpu" or "cuda".

    Raises:
        ValueError: Observations are no pictures, or the reference is none of them, or no game of theirs.

    Example:
        >>> from evolution.environments.spaces import Discrete
        >>> pictures = np.arange(2 * 4 * 84 * 84, dtype=np.uint8).reshape(2, 4, 84, 84)
        >>> VirtualBatchNorm(Spaces(Image(4, 84, 84), Discrete(18)), pictures).dim
        1008754
    """

    def __init__(self, spaces: Spaces, reference: Array | str, *, device: str = "cpu") -> None:
        shape = _picture(spaces)
        given = _played(reference, spaces) if isinstance(reference, str) else np.asarray(reference)
        if given.dtype != np.uint8 or given.shape[1:] != shape or len(given) < 2:
            raise ValueError(
                f"`reference` must be uint8 of shape (n, {', '.join(map(str, shape))}), n at least 2, got "
                f"{given.dtype} of shape {given.shape}."
            )
        with keyed_generators(Key(0)):
            network = ReferenceNormalized(spaces, given)
        super().__init__(network, spaces, gains={"output.weight": _LAST}, device=device)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "name": "atari-virtual-batch-norm"}


def collect_reference(environment: Environment, key: Key, count: int = 128) -> Array:
    """Return observations of a policy that chooses at random.

    One in about eight of what it sees, episode after episode, so that they are of many places.

    Args:
        environment: It shows pictures, and takes one of some actions.
        key: Randomness: seeds of the episodes, actions, and what is taken.
        count: How many.

    Returns:
        uint8, shape (count, channels, height, width).

    Raises:
        ValueError: It shows no pictures, or takes other actions.
    """
    check_count("count", count)
    _picture(environment.spaces)
    actions = environment.spaces.actions
    if not isinstance(actions, Discrete):
        raise ValueError(f"`environment` must take one of some actions, got {actions}.")
    found: list[Array] = []
    for episode in itertools.count():
        own = key.fold("reference", episode)
        seen = environment.begin([own.seed(32)])
        drawn = own.fold("actions").integers(0, environment.max_steps, 1, high=actions.count)
        taken = own.fold("taken").uniform(0, environment.max_steps, 1)[:, 0] < _TAKEN
        for action, is_taken in zip(drawn, taken, strict=True):
            if is_taken:
                found.append(seen[0].copy())
                if len(found) == count:
                    return np.stack(found)
            step = environment.step(action)
            if step.ended[0]:
                break
            seen = step.observations
    raise AssertionError("not reached")


def _played(game: str, spaces: Spaces) -> Array:
    """Return a reference batch of a game of these spaces."""
    from evolution.environments.atari import AtariEnvironment

    for full_action_space in (False, True):
        stack = _picture(spaces)[0]
        environment = AtariEnvironment(game, stack=stack, full_action_space=full_action_space)
        if environment.spaces == spaces:
            return collect_reference(environment, Key(0))
    raise ValueError(f"`reference` must be a game of the spaces {spaces}; {game!r} has {environment.spaces}.")


def _picture(spaces: Spaces) -> tuple[int, int, int]:
    space = spaces.observations
    if not isinstance(space, Image):
        raise ValueError(
            f"`spaces` must have pictures as observations for a network of convolutions, got {space}: use "
            '"mlp" for numbers.'
        )
    return space.channels, space.height, space.width


def _extent(extent: int, size: int, stride: int, same: bool) -> tuple[int, int, int]:
    """Return how many zeros go before and after, and how many points come out."""
    if same:
        out = math.ceil(extent / stride)
        missing = max((out - 1) * stride + size - extent, 0)
        return missing // 2, missing - missing // 2, out
    if extent < size:
        raise ValueError(f"`spaces` must have larger pictures: {extent} points do not hold one of {size}.")
    return 0, 0, (extent - size) // stride + 1
