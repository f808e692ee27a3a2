"""A small convolutional denoiser."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from torch import nn

from zoo.core.rng import Key
from zoo.core.validation import check_count
from zoo.nn.initialize import initialized
from zoo.nn.stages import Residual


def denoiser(
    *,
    key: Key,
    in_channels: int = 1,
    channels: int = 8,
    depth: int = 3,
    size: int = 5,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Return convolutions whose sum with the image is the image without its noise.

    The last convolution begins with zeros, so that the network returns what it is given: put in front of a
    classifier, it changes nothing before it is trained. The published networks are deeper, 17 convolutions
    and more, and have batch normalization, whose mean over a batch would make the answer to an image depend
    on others.

    Args:
        key: Where the initial weights come from.
        in_channels: Channels of an image.
        channels: Between the convolutions.
        depth: Convolutions, at least 2.
        size: Width and height of their kernels, an odd number.
        activation: Makes the module between two of them.

    Returns:
        A network from (n, in_channels, height, width) to the same shape.

    Raises:
        TypeError: A number is no integer.
        ValueError: A number is below 1, or `depth` below 2, or `size` even.

    Example:
        >>> import torch
        >>> model = denoiser(key=Key(0))
        >>> images = torch.ones(2, 1, 8, 8)
        >>> bool((model(images) == images).all())
        True

    References:
        Zhang, Zuo, Chen, Meng and Zhang, "Beyond a Gaussian denoiser: residual learning of deep CNN for image
        denoising", 2017. https://arxiv.org/abs/1608.03981
        Salman, Sun, Yang, Kapoor and Kolter, "Denoised smoothing: a provable defense for pretrained
        classifiers", 2020. https://arxiv.org/abs/2003.01908
    """
    check_count("in_channels", in_channels)
    check_count("channels", channels)
    check_count("depth", depth, minimum=2)
    if check_count("size", size) % 2 == 0:
        raise ValueError(f"`size` must be odd, or images would not keep theirs, got {size}.")

    def build() -> nn.Sequential:
        widths = [in_channels, *[channels] * (depth - 1), in_channels]
        branch: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            branch += [nn.Conv2d(inputs, outputs, size, padding=size // 2), activation()]
        return nn.Sequential(Residual(branch[:-1]))

    model = initialized(build, key)
    *_, weight, bias = model.parameters()
    nn.init.zeros_(weight)
    nn.init.zeros_(bias)
    return model
