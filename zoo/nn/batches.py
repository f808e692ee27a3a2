"""Mini-batches that follow from a key and the number of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from zoo.core.rng import Key
from zoo.core.validation import check_count, check_flag

Augment: TypeAlias = Callable[[Tensor, Key], Tensor]


class Batches:
    """A set of examples in mini-batches, shuffled anew in every epoch.

    Step s is batch s mod E of epoch floor(s / E), E the number of batches of an epoch. The order of an epoch
    is a random permutation under (key, epoch), so which examples a step sees follows from the key and the
    step alone, on any device and in any process. The permutation of the last epoch asked for is kept, since
    it takes time that grows with the set; all else takes time that grows with the batch.

    Args:
        inputs: What the network is given, shape (n, ...), of any dtype, on any device.
        targets: What it should return, shape (n, ...), on the same device.
        batch_size: Examples of a batch.
        key: Where the orders, and the random numbers of `augment`, come from.
        drop_last: Whether the examples left over at the end of an epoch are left out; else they are a smaller
            batch.
        augment: Called with the inputs of a batch and the step's key; returns the inputs to be used.

    Attributes:
        steps_per_epoch: Batches of an epoch.

    Raises:
        TypeError: `inputs` or `targets` is no tensor, `batch_size` no integer, or `augment` not callable.
        ValueError: There are not as many targets as inputs, they are on two devices, or `batch_size` is below
            1 or above the number of examples.

    Example:
        >>> batches = Batches(torch.arange(10.0), torch.arange(10), batch_size=4, key=Key(0))
        >>> batches.steps_per_epoch, len(batches.at(7)[0])
        (2, 4)
        >>> seen = torch.cat([batches.at(step)[1] for step in (0, 1)])
        >>> len(seen.unique())
        8
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        batch_size: int,
        *,
        key: Key,
        drop_last: bool = True,
        augment: Augment | None = None,
    ) -> None:
        check_examples(inputs, targets)
        self.inputs, self.targets, self.key = inputs, targets, key
        self.batch_size = check_count("batch_size", batch_size)
        if batch_size > len(inputs):
            raise ValueError(
                f"`batch_size` must be at most {len(inputs)}, the number of examples, got {batch_size}."
            )
        self.drop_last = check_flag("drop_last", drop_last)
        if augment is not None and not callable(augment):
            raise TypeError(f"`augment` must be a function of inputs and a key, got {augment!r}.")
        self.augment = augment
        left_over = 0 if drop_last else self.batch_size - 1
        self.steps_per_epoch = (len(inputs) + left_over) // self.batch_size
        self._order: tuple[int, Tensor] | None = None  # an epoch, and its permutation

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.inputs)

    def indices(self, step: int) -> Tensor:
        """Return which examples a step sees, shape (batch,), on the CPU.

        Raises:
            ValueError: `step` is negative.
        """
        epoch, number = divmod(check_count("step", step, minimum=0), self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = self.key.fold("epoch", epoch).permutation(0, 1, len(self.inputs))[0]
            self._order = epoch, torch.from_numpy(order)
        return self._order[1][number * self.batch_size : (number + 1) * self.batch_size]

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of a step, of the dtype and on the device of the set.

        Raises:
            ValueError: `step` is negative, or `augment` returned another number of inputs.
        """
        rows = self.indices(step).to(self.inputs.device)
        inputs, targets = self.inputs[rows], self.targets[rows]
        if self.augment is None:
            return inputs, targets
        changed = self.augment(inputs, self.key.fold("augment", step))
        if len(changed) != len(inputs):
            raise ValueError(
                f"`augment` must return as many inputs as it is given, {len(inputs)}, got {len(changed)}."
            )
        return changed, targets

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_order": None}  # it follows from the key


@dataclass(frozen=True)
class CropAndFlip:
    """Images cut out at random from larger ones, and mirrored with probability 1/2.

    An image is framed by `padding` pixels on each side; of all places at which its size fits into that, one
    is drawn for each image. Images have the shape (n, channels, height, width).

    Args:
        padding: Width of the frame; 0 for none.
        flip: Whether left and right may be exchanged.
        fill: What the frame holds: a number, or one for each channel. For images that were normalised, that
            of black is -mean / deviation.

    Raises:
        TypeError: `padding` is no integer, `flip` not True or False, or `fill` no numbers.
        ValueError: `padding` is negative, or `fill` not finite, or not a row.

    Example:
        >>> images = torch.arange(9.0).view(1, 1, 3, 3)
        >>> changed = CropAndFlip(1)(images, Key(0))
        >>> changed.shape == images.shape
        True
    """

    padding: int = 4
    flip: bool = True
    fill: float | Sequence[float] = 0.0

    def __post_init__(self) -> None:
        check_count("padding", self.padding, minimum=0)
        check_flag("flip", self.flip)
        try:
            fill = torch.as_tensor(self.fill, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"`fill` must be a number, or one for each channel, got {self.fill!r}."
            ) from error
        if fill.ndim > 1 or not fill.numel() or not bool(torch.isfinite(fill).all()):
            raise ValueError(f"`fill` must be a finite number, or one for each channel, got {self.fill!r}.")

    def __call__(self, inputs: Tensor, key: Key) -> Tensor:
        """Return images of the same shape.

        Raises:
            ValueError: `inputs` are no images, or `fill` has not one number for each channel.
        """
        if inputs.ndim != 4:
            raise ValueError(
                f"`inputs` must have the shape (n, channels, height, width), got {tuple(inputs.shape)}."
            )
        if self.padding:
            inputs = self._cropped(inputs, key.fold("crop"))
        if self.flip:
            mirrored = torch.from_numpy(key.fold("flip").integers(0, len(inputs), 1, high=2) == 1)
            mirrored = mirrored.to(inputs.device)[:, :, None, None]
            inputs = torch.where(mirrored, inputs.flip(-1), inputs)
        return inputs

    def _cropped(self, inputs: Tensor, key: Key) -> Tensor:
        n, channels, height, width = inputs.shape
        fill = torch.as_tensor(self.fill, dtype=inputs.dtype, device=inputs.device)
        if fill.ndim and fill.shape != (channels,):
            raise ValueError(f"`fill` must be a number or {channels} of them, got {self.fill!r}.")
        frame = self.padding
        framed = fill.view(-1, 1, 1).expand(channels, height + 2 * frame, width + 2 * frame)
        framed = framed.repeat(n, 1, 1, 1)
        framed[:, :, frame:-frame, frame:-frame] = inputs
        corners = torch.from_numpy(key.integers(0, n, 2, high=2 * frame + 1)).to(inputs.device)
        rows = corners[:, :1] + torch.arange(height, device=inputs.device)
        columns = corners[:, 1:] + torch.arange(width, device=inputs.device)
        image = torch.arange(n, device=inputs.device)[:, None, None]
        # Indices around a slice put the channels last.
        return framed[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def check_examples(inputs: Tensor, targets: Tensor, names: tuple[str, str] = ("inputs", "targets")) -> None:
    """Raise unless there are inputs, and as many targets on the same device.

    Args:
        inputs: Shape (n, ...).
        targets: Shape (n, ...).
        names: What they are called in messages.

    Raises:
        TypeError: One is no tensor.
        ValueError: They are not as many, there are none, or they are on two devices.
    """
    for name, value in zip(names, (inputs, targets), strict=True):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"`{name}` must be a tensor, got {type(value).__name__}; convert it with torch.as_tensor."
            )
        if not value.ndim or not len(value):
            raise ValueError(f"`{name}` must hold at least one example, got shape {tuple(value.shape)}.")
    if len(inputs) != len(targets):
        raise ValueError(f"`{names[1]}` must be as many as `{names[0]}`, {len(inputs)}, got {len(targets)}.")
    if inputs.device != targets.device:
        raise ValueError(
            f"`{names[1]}` must be on the device of `{names[0]}`, {inputs.device}, got {targets.device}."
        )
