"""Which coordinates of a box stand for finitely many values, and where one value ends and the next begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Grid:
    """The discrete coordinates of the box [0, 1]^dim.

    A coordinate may be cut into cells, all points of a cell standing for the same value. With n cells and
    edge ratio R, cell i = 0, ..., n - 1 reaches from e_i to e_{i+1}, its upper edge included, with

        e_i = i / n                                  where R = 1: all cells are equally wide,
        e_i = log(1 + i (R - 1) / n) / log(R)        else: those of i + a on a logarithmic scale.

    Or several coordinates form a group, of which the largest one wins, the first of equal ones.

    Args:
        counts: Cells of each coordinate, shape (dim,); 0 where it has none.
        ratios: Their R, shape (dim,), at least 1.
        groups: Number of the group of each coordinate, shape (dim,); -1 where it is in none.

    Raises:
        ValueError: Shapes differ, a number is out of range, or a coordinate has both cells and a group.

    Example:
        >>> grid = Grid([4, 0], [1.0, 1.0], [-1, -1])
        >>> grid.index(np.array([0.6, 0.6])).tolist()
        [2, 0]
        >>> [edge.tolist() for edge in grid.cell(np.array([0.6, 0.6]))]
        [[0.5, -inf], [0.75, inf]]
    """

    counts: np.ndarray[Any, Any]
    ratios: np.ndarray[Any, Any]
    groups: np.ndarray[Any, Any]

    def __post_init__(self) -> None:
        counts, groups = np.array(self.counts, np.int64), np.array(self.groups, np.int64)
        ratios = np.array(self.ratios, np.float64)
        if counts.ndim != 1 or not counts.shape == ratios.shape == groups.shape:
            raise ValueError(
                "`counts`, `ratios` and `groups` must be rows of equal length, got shapes "
                f"{counts.shape}, {ratios.shape} and {groups.shape}."
            )
        if (counts < 0).any() or (groups < -1).any() or not (ratios >= 1).all():
            raise ValueError(
                "`counts` must be at least 0, `ratios` at least 1 and `groups` at least -1, got "
                f"{counts.tolist()}, {ratios.tolist()} and {groups.tolist()}."
            )
        if ((counts > 0) & (groups >= 0)).any():
            index = int(((counts > 0) & (groups >= 0)).argmax())
            raise ValueError(f"coordinate {index} must have cells or a group, not both.")
        for name, array in (("counts", counts), ("ratios", ratios), ("groups", groups)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __reduce__(self) -> tuple[Any, ...]:
        return Grid, (self.counts.copy(), self.ratios.copy(), self.groups.copy())

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.counts)

    @property
    def celled(self) -> np.ndarray[Any, Any]:
        """Which coordinates are cut into cells, shape (dim,)."""
        return self.counts > 0

    @property
    def members(self) -> list[np.ndarray[Any, Any]]:
        """The coordinates of each group."""
        return [np.flatnonzero(self.groups == group) for group in np.unique(self.groups) if group >= 0]

    def index(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the number of the cell of each coordinate, shape (..., dim); 0 where there are none."""
        count = np.maximum(self.counts, 1)
        stretched = np.minimum(np.maximum(x, 0.0), 1.0)
        if (self.ratios > 1).any():
            span = np.where(self.ratios > 1, self.ratios - 1, 1.0)
            bent = np.expm1(stretched * np.log(self.ratios)) / span
            stretched = np.where(self.ratios > 1, bent, stretched)
        inside = np.ceil(stretched * count).astype(np.int64) - 1
        return np.where(self.celled, np.minimum(np.maximum(inside, 0), count - 1), 0)

    def edge(self, index: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the lower edges of cells by number, shape (..., dim); infinite where there are none."""
        share = index / np.maximum(self.counts, 1)
        bent = np.log1p(share * (self.ratios - 1)) / np.where(self.ratios > 1, np.log(self.ratios), 1.0)
        return np.where(self.celled, np.where(self.ratios > 1, bent, share), -np.inf)

    def cell(self, x: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return the lower and the upper edge of the cells that `x` is in; infinite where there are none."""
        index = self.index(x)
        return self.edge(index), np.where(self.celled, self.edge(index + 1), np.inf)

    def centre(self, index: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the middles of cells by number, shape (..., dim); 1/2 where there are none."""
        low, high = self.edge(index), self.edge(index + 1)
        return np.where(self.celled, low, 0.0) / 2 + np.where(self.celled, high, 1.0) / 2
