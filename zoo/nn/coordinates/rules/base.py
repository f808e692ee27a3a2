"""What the engine asks of a type of layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo.nn.coordinates.changes import Columns


@dataclass
class Seen:
    """A module on one mini-batch, with the network as it is.

    Attributes:
        module: The module.
        x: What it was given, b examples. Not to be written to.
        y: What it returned. Not to be written to.
        kept: Whatever else its rule wants to remember.
    """

    module: Any
    x: Tensor
    y: Tensor
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Elements of one copy of what is returned."""
        return self.y.numel()


@dataclass(frozen=True)
class Places:
    """Entries of one parameter that are to be changed, one in each of K copies.

    Attributes:
        name: Of the parameter, in its module.
        numbers: Of the entries, in the parameter as a vector.
        index: The same, as a tensor of shape (K,) on the device.
        steps: What is added to them, shape (K,), in the dtype of the network.
    """

    name: str
    numbers: tuple[int, ...]
    index: Tensor
    steps: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, part: slice) -> Places:
        return Places(self.name, self.numbers[part], self.index[part], self.steps[part])

    def columns(self, values: Tensor, *, size: int = 1, last: bool = False) -> Columns:
        """Return values of those columns that the entries are in, if `size` entries are one column's."""
        numbers = tuple(number // size for number in self.numbers)
        index = self.index if size == 1 else self.index.div(size, rounding_mode="floor")
        return Columns(values, index, numbers, last)

    def added_to(self, values: Tensor, times: Tensor | None = None) -> Tensor:
        """Return values (K or 1, b, ...) + steps, or + steps * times."""
        steps = self.steps.view(-1, *[1] * (values.ndim - 1))
        return values + steps if times is None else torch.addcmul(values, steps, times)


class Rule(ABC):
    """How one type of module acts on changed copies of what it is given.

    A type of layer is supported by a subclass that is named in `zoo.nn.coordinates.rules`. `see` and
    `stacked` are enough where the type has no parameters; the other methods make it faster. What they return
    is new memory or what they were given to write to, never something that they have kept.
    """

    fresh = False
    """Whether `stacked` always returns new memory, and never writes to what it is given."""

    unit = 512
    """The most coordinates that are evaluated together, of the module or in front of it."""

    mixes = False
    """Whether a change of one column is applied by itself to all columns of what is returned."""

    last = False
    """Whether columns of what is returned are entries of its last dimension, not of its second."""

    def accepts(self, module: Any) -> bool:
        """Return whether the rule holds for a module of its type as it is set up."""
        return True

    @abstractmethod
    def see(self, module: nn.Module, x: Tensor, by_pixel: bool) -> Seen:
        """Call the module with the network as it is; buffers stay as they are.

        Args:
            module: The module.
            x: What it is given; not to be written to.
            by_pixel: Whether the network itself gives it images pixel by pixel in memory. Numbers are drawn
                in the order of memory.
        """

    @abstractmethod
    def stacked(self, seen: Seen, x: Tensor, count: int) -> Tensor:
        """Return what becomes of `count` whole copies, (count * b, ...); `x` may be written to."""

    def changed(self, seen: Seen, places: Places) -> Tensor:
        """Return whole copies of what is returned with a parameter changed, (K * b, ...)."""
        return self.changed_columns(seen, places).spread(seen.y)

    def moves_columns(self, seen: Seen, name: str) -> bool:
        """Return whether a change of an entry of a parameter changes a single column of what is returned."""
        return False

    def changed_columns(self, seen: Seen, places: Places) -> Columns:
        """Return those columns; asked for only if `moves_columns`."""
        raise TypeError(f"{type(self).__name__} has no parameters.")

    def columns(self, seen: Seen, columns: Columns) -> Columns | None:
        """Return what becomes of changed columns, if each remains a single one; else None."""
        return None

    def mixed(self, seen: Seen, columns: Columns) -> Tensor:
        """Return whole copies of what is returned for changed columns, (K * b, ...)."""
        return self.stacked(seen, columns.spread(seen.x), len(columns))

    def draws(self, module: nn.Module) -> bool:
        """Return whether the module draws random numbers, or may."""
        return False

    def column_size(self, seen: Seen) -> int:
        """Return the elements of one column of what is returned."""
        return max(1, seen.y.numel() // seen.y.shape[-1 if self.last else 1])

    def work(self, seen: Seen) -> float:
        """Return about how many operations one whole copy takes."""
        return 8.0 * seen.size
