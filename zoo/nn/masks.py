"""Which weights of a network take part in a step: random ones, of every layer a fixed number."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.core.rng import Key
from zoo.core.validation import check_count, check_fraction

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Layers:
    """Where in a flat vector of parameters the weights are that may be left out of a step.

    Args:
        names: Of the tensors, in their order.
        starts: Where each begins in the vector.
        stops: Where each ends.
        dim: Length of the vector.

    Raises:
        ValueError: A tensor is empty, or they are not in order, or beyond the vector.

    Example:
        >>> from torch import nn
        >>> layers = Layers.of(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
        >>> layers.names, layers.sizes, layers.dim
        (('0.weight', '2.weight'), (12, 8), 34)
    """

    names: tuple[str, ...]
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    dim: int

    def __post_init__(self) -> None:
        check_count("dim", self.dim)
        ends = [0, *itertools.chain(*zip(self.starts, self.stops, strict=True)), self.dim]
        in_order = all(first <= last for first, last in itertools.pairwise(ends))
        if not (in_order and self.names and all(self.sizes)) or len(self.names) != len(self.starts):
            raise ValueError(
                "`starts` and `stops` must be those of tensors in their order, each with a name, inside a "
                f"vector of {self.dim}, got {self.names!r} at {self.starts!r} to {self.stops!r}."
            )

    @staticmethod
    def of(model: nn.Module) -> Layers:
        """Return the weights of all linear and convolutional layers that are trained.

        What else there is (biases, normalization, embeddings) is not among them, and never left out.

        Raises:
            ValueError: There is no such layer.
        """
        from torch import nn

        from zoo.nn.parameters import Parameters

        params = Parameters(model)
        kinds = (nn.Linear, nn.modules.conv._ConvNd)
        weights = {id(module.weight) for module in model.modules() if isinstance(module, kinds)}
        found = [
            (name, start, stop)
            for name, tensor, start, stop in zip(
                params.names, params.tensors, params.offsets[:-1], params.offsets[1:], strict=True
            )
            if id(tensor) in weights and stop > start
        ]
        if not found:
            raise ValueError(
                "`model` must have a linear or convolutional layer that is trained; without one there is "
                "nothing to be sparse in: use sparsity=0."
            )
        names, starts, stops = zip(*found, strict=True)
        return Layers(names, starts, stops, params.dim)

    @staticmethod
    def whole(dim: int) -> Layers:
        """Return a vector as a single layer, which is all there is."""
        return Layers(("all",), (0,), (dim,), dim)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many weights each layer has."""
        return tuple(stop - start for start, stop in zip(self.starts, self.stops, strict=True))

    @property
    def num_weights(self) -> int:
        """How many there are of all layers together."""
        return sum(self.sizes)

    @property
    def others(self) -> np.ndarray[Any, Any]:
        """Indices of the parameters that are in no layer."""
        free = np.ones(self.dim, bool)
        for start, stop in zip(self.starts, self.stops, strict=True):
            free[start:stop] = False
        return np.flatnonzero(free)


@dataclass(frozen=True)
class Masks:
    """Random masks with a fixed number of weights of every layer: functions of a key and a period.

    Args:
        layers: The layers.
        kept: How many weights of each take part.

    Attributes:
        num_active: Parameters that take part: those weights, and all that are in no layer.

    Raises:
        ValueError: A number is negative or larger than its layer, or no weight takes part at all.

    Example:
        >>> masks = Masks.of(Layers(("w",), (0,), (8,), 10), [0.75])
        >>> indices = masks.indices(Key(0), period=3)
        >>> len(indices), indices[-2:].tolist()
        (4, [8, 9])
    """

    layers: Layers
    kept: tuple[int, ...]
    num_active: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = self.layers.sizes
        if len(self.kept) != len(sizes) or not all(
            0 <= count <= size for count, size in zip(self.kept, sizes, strict=True)
        ):
            raise ValueError(
                f"`kept` must be a number of weights for each layer, up to {sizes!r}, got {self.kept!r}."
            )
        if not sum(self.kept):
            raise ValueError(
                "`kept` must leave a weight: this excludes everything. Of the "
                f"{sum(sizes)} weights there are, a sparsity of {1 - 1 / sum(sizes):.6g} leaves one."
            )
        object.__setattr__(self, "num_active", self.layers.dim - sum(sizes) + sum(self.kept))

    @staticmethod
    def of(layers: Layers, ratios: Sequence[float]) -> Masks:
        """Return masks that leave out these shares of the layers.

        Counts are rounded so that each is less than 1 off, and their sum less than a half.

        Args:
            layers: The layers.
            ratios: What share of each is left out, from 0 to 1.

        Raises:
            ValueError: A ratio is out of range, there are not as many as layers, or nothing is left.
        """
        shares = np.array(ratios, np.float64)
        if shares.shape != (len(layers.sizes),) or not ((shares >= 0) & (shares <= 1)).all():
            raise ValueError(
                f"`ratios` must be one number from 0 to 1 for each of {len(layers.sizes)} layers, "
                f"got {ratios!r}."
            )
        wanted = (1 - shares) * layers.sizes
        counts = np.floor(wanted + 1e-9).astype(np.int64)
        missing = round(float(wanted.sum())) - int(counts.sum())
        counts[np.argsort(counts - wanted, kind="stable")[:missing]] += 1
        return Masks(layers, tuple(counts.tolist()))

    @staticmethod
    def uniform(layers: Layers, sparsity: float) -> Masks:
        """Return masks that leave out the same share of every layer.

        Raises:
            ValueError: `sparsity` is not at least 0 and below 1, or so high that nothing is left.
        """
        return Masks.of(layers, [check_fraction("sparsity", sparsity)] * len(layers.sizes))

    @property
    def densities(self) -> tuple[float, ...]:
        """What share of each layer takes part."""
        return tuple(count / size for count, size in zip(self.kept, self.layers.sizes, strict=True))

    def indices(self, key: Key, period: int) -> np.ndarray[Any, Any]:
        """Return which parameters take part in a period, ascending; not to be written to.

        Every choice of that many weights of a layer is equally likely, whatever another layer's is and
        whatever it was in other periods.
        """
        return _indices(self, key, period)

    def mask(self, key: Key, period: int) -> np.ndarray[Any, Any]:
        """Return a row of booleans, true where a parameter takes part."""
        row = np.zeros(self.layers.dim, bool)
        row[self.indices(key, period)] = True
        return row


@functools.lru_cache(maxsize=4)
def _indices(masks: Masks, key: Key, period: int) -> np.ndarray[Any, Any]:
    layers = masks.layers
    chosen = [layers.others]
    for number, (start, size, count) in enumerate(zip(layers.starts, layers.sizes, masks.kept, strict=True)):
        if count == size:
            chosen.append(np.arange(start, start + size))
        elif count:
            draws = key.fold("mask", period, number).uniform(0, 1, size)[0]
            chosen.append(start + np.argpartition(draws, count - 1)[:count])
    found: np.ndarray[Any, Any] = np.sort(np.concatenate(chosen))
    found.flags.writeable = False
    return found
