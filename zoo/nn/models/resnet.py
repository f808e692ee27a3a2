"""Residual networks for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from zoo.core.rng import Key
from zoo.core.validation import check_choice, check_count
from zoo.nn.initialize import initialized
from zoo.nn.stages import Residual


class Subsample(nn.Module):
    """Every second pixel, and channels of zeros up to a number: a shortcut without parameters.

    Args:
        channels: Channels of the outputs; at least those of the inputs.

    Raises:
        ValueError: Inputs have more channels.

    Example:
        >>> import torch
        >>> tuple(Subsample(4)(torch.ones(1, 2, 8, 8)).shape)
        (1, 4, 4, 4)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = check_count("channels", channels)

    def forward(self, x: Tensor) -> Tensor:
        missing = self.channels - x.shape[1]
        if missing < 0:
            raise ValueError(f"inputs must have at most {self.channels} channels, got {x.shape[1]}.")
        before = missing // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, missing - before))


def resnet20(
    num_classes: int = 10,
    *,
    key: Key,
    in_channels: int = 3,
    width: int = 16,
    blocks: Sequence[int] = (3, 3, 3),
    shortcut: str = "pad",
) -> nn.Sequential:
    """Return the residual network of 20 layers for images of 32 x 32 pixels: 269,722 parameters.

    A 3 x 3 convolution, three groups of three blocks of two convolutions each, of 16, 32 and 64 channels, the
    mean over the image and a linear layer. Batch normalization is behind every convolution, and the image is
    halved where a group begins, but the first.

    Args:
        num_classes: Outputs.
        key: Where the initial weights come from: N(0, 2 / n) for units with n inputs, biases of 0.
        in_channels: Channels of an image.
        width: Channels of the first group; those of each further group are twice as many.
        blocks: How many blocks each group has; at least one group.
        shortcut: What an image passes beside a block that halves it: "pad" for every second pixel, with
            channels of zeros added, as published for small images; "conv" for a 1 x 1 convolution with
            batch normalization, which makes 272,474 parameters.

    Returns:
        A network from (n, in_channels, height, width) to (n, num_classes).

    Raises:
        TypeError: A number is no integer.
        ValueError: A number is below 1, there is no group, or `shortcut` is none of the two.

    Example:
        >>> model = resnet20(key=Key(0))
        >>> sum(parameter.numel() for parameter in model.parameters())
        269722

    References:
        He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016.
        https://arxiv.org/abs/1512.03385
    """
    check_choice("shortcut", shortcut, ("pad", "conv"))
    check_count("num_classes", num_classes)
    check_count("in_channels", in_channels)
    check_count("width", width)
    if not len(blocks):
        raise ValueError(f"`blocks` must name at least one group, got {tuple(blocks)!r}.")
    counts = [check_count("blocks", count) for count in blocks]

    def build() -> nn.Sequential:
        modules: list[nn.Module] = _convolution(in_channels, width, 3, 1)
        modules.append(nn.ReLU())
        before = width
        for group, count in enumerate(counts):
            after = width * 2**group
            for number in range(count):
                stride = 2 if group and not number else 1
                beside: nn.Module | None = None
                if stride == 2 and shortcut == "pad":
                    beside = Subsample(after)
                elif stride == 2:
                    beside = nn.Sequential(*_convolution(before, after, 1, 2))
                branch = [
                    *_convolution(before, after, 3, stride),
                    nn.ReLU(),
                    *_convolution(after, after, 3, 1),
                ]
                modules += [Residual(branch, beside), nn.ReLU()]
                before = after
        modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes)]
        return nn.Sequential(*modules)

    return initialized(build, key, law="he")


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> list[nn.Module]:
    """Return a convolution that keeps the image's size but for the stride, and its normalization."""
    return [
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
