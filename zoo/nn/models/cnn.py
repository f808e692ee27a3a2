"""Convolutional networks for small images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from zoo.core.rng import Key
from zoo.core.validation import check_count, check_flag
from zoo.nn.initialize import initialized

_HALVED = (2, 4)  # convolutions, of a `deepzero_cnn`


def cnn(
    *,
    key: Key,
    in_channels: int = 1,
    size: int = 8,
    channels: Sequence[int] = (8, 16),
    hidden: int = 48,
    num_classes: int = 10,
    activation: Callable[[], nn.Module] = nn.ReLU,
    norm: bool = False,
) -> nn.Sequential:
    """Return convolutions, each with an activation and halved in size, and two linear layers behind them.

    Convolutions are 3 x 3 and keep the size; maxima over 2 x 2 pixels halve it. If nothing else is said the
    network is for digits of 8 x 8 pixels and has 4858 parameters, and 5002 with normalization.

    Args:
        key: Where the initial weights come from.
        in_channels: Channels of an image.
        size: Its width and height.
        channels: Of the convolutions, at least one.
        hidden: Units between the two linear layers.
        num_classes: Outputs.
        activation: Makes the module behind a convolution and between the linear layers.
        norm: Whether batch normalization is in front of each activation.

    Returns:
        A network from (n, in_channels, size, size) to (n, num_classes).

    Raises:
        TypeError: A number is no integer, or `norm` not True or False.
        ValueError: A number is below 1, there is no convolution, or the images are too small to be halved as
            often.

    Example:
        >>> model = cnn(key=Key(0))
        >>> sum(parameter.numel() for parameter in model.parameters())
        4858
    """
    if not len(channels):
        raise ValueError(f"`channels` must name at least one convolution, got {tuple(channels)!r}.")
    channels = [check_count("channels", count) for count in channels]
    before = check_count("in_channels", in_channels)
    check_count("hidden", hidden)
    check_flag("norm", norm)
    check_count("num_classes", num_classes)
    left = check_count("size", size) // 2 ** len(channels)
    if not left:
        raise ValueError(
            f"`size` must be at least {2 ** len(channels)} for {len(channels)} convolutions, got {size}; "
            "name fewer `channels`."
        )

    def build() -> nn.Sequential:
        modules: list[nn.Module] = []
        for inputs, outputs in zip([before, *channels], channels, strict=False):
            modules.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            modules += [nn.BatchNorm2d(outputs)] if norm else []
            modules += [activation(), nn.MaxPool2d(2)]
        modules += [nn.Flatten(), nn.Linear([before, *channels][-1] * left**2, hidden)]
        modules += [nn.BatchNorm1d(hidden)] if norm else []
        modules += [activation(), nn.Linear(hidden, num_classes)]
        return nn.Sequential(*modules)

    return initialized(build, key)


def deepzero_cnn(
    depth: int = 5,
    *,
    key: Key,
    in_channels: int = 3,
    width: int = 18,
    num_classes: int = 10,
    halve_after: Sequence[int] | None = None,
) -> nn.Sequential:
    """Return a network of 730 to 12,610 parameters, on which coordinates were compared with first-order.

    `depth` times a 3 x 3 convolution of `width` channels, batch normalization and a ReLU, then the mean over
    the image and a linear layer. With a depth of 1 to 5 and all else as it is there are 730, 3700, 6670, 9640
    and 12,610 parameters, the published numbers. They determine all layers that have parameters, and nothing
    else: where the published networks make images smaller is not known here. This one takes maxima over 2 x 2
    pixels behind the second and the fourth convolution.

    Args:
        depth: Convolutions.
        key: Where the initial weights come from.
        in_channels: Channels of an image.
        width: Channels of a convolution.
        num_classes: Outputs.
        halve_after: Behind which convolutions, counted from 1 to `depth`, the image is halved; None for the
            second and the fourth, where there are as many.

    Returns:
        A network from (n, in_channels, height, width) to (n, num_classes).

    Raises:
        TypeError: A number is no integer.
        ValueError: A number is below 1, or one of `halve_after` above `depth`.

    Example:
        >>> model = deepzero_cnn(5, key=Key(0))
        >>> sum(parameter.numel() for parameter in model.parameters())
        12610

    References:
        Chen, Zhang, Jia, Diffenderfer, Liu, Parasyris, Zhang, Zhang, Kailkhura and Liu, "DeepZero: scaling up
        zeroth-order optimization for deep model training", 2024. https://arxiv.org/abs/2310.02025
    """
    check_count("depth", depth)
    check_count("in_channels", in_channels)
    check_count("width", width)
    check_count("num_classes", num_classes)
    halved = set(_HALVED)
    if halve_after is not None:
        halved = {check_count("halve_after", number) for number in halve_after}
        if halved and max(halved) > depth:
            raise ValueError(
                f"`halve_after` must name convolutions, and there are {depth}, got {tuple(halve_after)!r}."
            )

    def build() -> nn.Sequential:
        modules: list[nn.Module] = []
        for number in range(1, depth + 1):
            modules += [
                nn.Conv2d(in_channels if number == 1 else width, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            if number in halved:
                modules.append(nn.MaxPool2d(2))
        modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)]
        return nn.Sequential(*modules)

    return initialized(build, key)
