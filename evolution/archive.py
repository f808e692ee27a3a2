"""What has been done so far, and how new something is against it: the archive of novelty search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.core.device import to_numpy
from zoo.core.state import Log, state
from zoo.core.types import Evaluations
from zoo.core.validation import check_count, listed

Array = np.ndarray[Any, Any]

TREE_DIMS = 8
"""Numbers of a behaviour up to which neighbours are found by a tree; beyond, by products of matrices."""

GRID_DIMS, GRID_CELLS = 3, 10
"""Numbers of a behaviour up to which `Archive.diagnostics` counts cells, and how many along each."""

_LARGEST = 1e100  # squares of what is below it are numbers
_LEAST_TREE = 512  # entries; fewer are looked at as they come
_BLOCK = 2**20  # elements of a matrix that is worked with at a time

_last: tuple[Any, int, Any] | None = None  # buffer, numbers and tree of the archive used last


def clear_cache() -> None:
    """Forget the tree of the archive used last; it is built again when it is needed."""
    global _last
    _last = None


@state
class Archive:
    """Behaviours that are kept, and distances to them.

    A behaviour is a row of numbers that says what an episode has come to, such as a final position. An
    archive is a value: `add` returns a longer one and leaves this one as it was, and both share memory, so
    that n entries take n rows, however often they were added to.

    The tree that finds neighbours is built again when an archive has grown by a quarter or less, and is no
    part of what is saved: it is a function of the entries alone, so that nothing depends on when a run was
    resumed.

    Attributes:
        size: Numbers of a behaviour, b.
        log: The entries, row by row.

    Example:
        >>> archive = Archive.empty(2).add([[0.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
        >>> archive.novelty([[0.0, 0.0]], k=3).tolist()
        [2.0]
        >>> people = [[0.0, 1.0], [0.0, 1.0], [0.0, 3.0]]
        >>> archive.novelty(people, k=2, others=people).tolist()
        [0.0, 0.0, 2.0]

    References:
        Lehman and Stanley, "Abandoning objectives: evolution through the search for novelty alone", 2011.
        https://doi.org/10.1162/EVCO_a_00025
    """

    size: int
    log: Log

    @classmethod
    def empty(cls, size: int) -> Archive:
        """Return an archive without entries, for behaviours of `size` numbers."""
        return cls(check_count("size", size), Log())

    def __len__(self) -> int:
        return len(self.log) // self.size

    @property
    def array(self) -> Array:
        """The entries in the order in which they were added, shape (n, b), float64, read-only."""
        return self.log.array.reshape(-1, self.size)

    def add(self, behaviours: Any) -> Archive:
        """Return the archive with some behaviours at its end.

        Args:
            behaviours: Shape (m, b). Rows of failed episodes, with a number that is NaN, infinite or beyond
                1e100, are left out.

        Raises:
            ValueError: They have another length than those of the archive.
        """
        rows = self._checked("behaviours", behaviours)
        rows = rows[_usable(rows)]
        return Archive(self.size, self.log.append(rows.reshape(-1))) if len(rows) else self

    def novelty(self, behaviours: Any, k: int, others: Any = None) -> Array:
        """Return how far behaviours are from those nearest to them.

            novelty(x) = 1 / k sum over the k nearest y of |x - y|_2

        among the entries of the archive and of `others`. All of these count as often as they are there, but
        for one: nobody is its own neighbour, so where an entry of `others` is equal to x, one such entry is
        left out. Where there are fewer than k, it is the mean over all; where there are none, 0.

        The distances are those of double precision, whatever finds the neighbours.

        Args:
            behaviours: Shape (m, b).
            k: How many neighbours, at least 1.
            others: The population that `behaviours` are of, shape (n, b), or None for the archive alone.
                Failed rows are nobody's neighbours.

        Returns:
            Shape (m,), float64; NaN for failed rows, as `add` says.

        Raises:
            ValueError: Behaviours have another length than those of the archive, or `k` is below 1.
        """
        check_count("k", k)
        rows = self._checked("behaviours", behaviours)
        fine = _usable(rows)
        queries, found = rows[fine], np.full(len(rows), np.nan)
        parts = self._nearest(queries, k)
        if others is not None:
            beside = self._checked("others", others)
            distances = _near(beside[_usable(beside)], queries, k + 1)
            if distances.shape[1]:
                itself = distances[:, 0] == 0
                distances[itself] = np.roll(distances[itself], -1, axis=1)
                distances[itself, -1] = np.inf
            parts.append(distances)
        together = np.sort(np.concatenate(parts, axis=1), axis=1)[:, :k]
        count = np.isfinite(together).sum(1)
        together[np.isinf(together)] = 0.0
        found[fine] = together.sum(1) / np.maximum(count, 1)
        return found

    def coverage(self, lower: Any, upper: Any, cells: int | Sequence[int] = 10) -> float:
        """Return which share of the cells of a grid holds an entry.

        Args:
            lower: Where the grid begins, a number or shape (b,). Entries outside of it are not counted.
            upper: Where it ends; what lies there is of the last cell.
            cells: How many along each coordinate, one number for all or b of them.

        Raises:
            ValueError: The grid has no width somewhere, or no cells.

        Example:
            >>> Archive.empty(2).add([[0.5, 0.5], [0.6, 0.6], [2.0, 9.9]]).coverage(0, 10)
            0.02
        """
        low, high = (np.broadcast_to(np.asarray(side, np.float64), (self.size,)) for side in (lower, upper))
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise ValueError(
                f"`lower` must be finite and below `upper` everywhere, got {lower!r} and {upper!r}."
            )
        several = cells if isinstance(cells, Sequence) else [cells] * self.size
        if len(several) != self.size:
            raise ValueError(
                f"`cells` must be one number or {self.size} of them, got {len(several)}: {cells!r}."
            )
        counts = np.array([check_count("cells", cell) for cell in several])
        inside = ((self.array >= low) & (self.array <= high)).all(1)
        return _covered(self.array[inside], low, high, counts)

    def diagnostics(self) -> dict[str, Any]:
        """Return how many entries there are, how far apart, and how evenly they fill where they are.

        "archive_spread" is the root mean square distance from their centre. "coverage", of behaviours of at
        most three numbers, is the share of the cells of a grid that hold an entry, ten along each coordinate
        from the lowest to the highest there is: so of a range that grows, and one far away lowers it. Along a
        coordinate in which all are equal they are in one cell of the ten.
        """
        entries, counts = self.array, np.full(self.size, GRID_CELLS)
        has_grid, spread, coverage = self.size <= GRID_DIMS, 0.0, 0.0
        if len(self):
            spread = float(np.sqrt(entries.var(0).sum()))
        if len(self) and has_grid:
            low, high = entries.min(0), entries.max(0)
            coverage = _covered(entries, low, np.maximum(high, np.nextafter(low, np.inf)), counts)
        found = {"archive_size": len(self), "archive_spread": spread}
        return {**found, "coverage": coverage} if has_grid else found

    def _nearest(self, queries: Array, k: int) -> list[Array]:
        """Return distances to entries among which are the k nearest, in one array or two."""
        entries = self.array
        if self.size > TREE_DIMS:
            return [_near(entries, queries, k)]
        count = _with_tree(len(entries))
        parts = [_near(entries[count:], queries, k)]
        if count and len(queries):
            parts.append(_ask(self._tree(count), queries, min(k, count)))
        return parts

    def _tree(self, count: int) -> Any:
        """Return a tree of the first entries; logs that share a buffer share what they have of it."""
        global _last
        last, buffer = _last, self.log.array.base
        if last is not None and last[0] is buffer and last[1] == count * self.size:
            return last[2]
        tree = _grown(self.array[:count])
        _last = buffer, count * self.size, tree
        return tree

    def _checked(self, name: str, behaviours: Any) -> Array:
        rows = np.asarray(to_numpy(behaviours), np.float64)
        if rows.ndim != 2:
            raise ValueError(f"`{name}` must have shape (n, {self.size}), got {rows.shape}.")
        if rows.shape[1] != self.size:
            raise ValueError(
                f"`{name}` have {rows.shape[1]} numbers each, and those of the archive {self.size}. "
                "All episodes of a run must have behaviours of one length."
            )
        return rows


def behaviours_of(evaluations: Evaluations) -> Array | None:
    """Return what members have come to, shape (n, b), NaN for those that failed; None where all did.

    Raises:
        ValueError: Evaluations have no behaviour, or one that is no row of numbers.
    """
    failed = np.isnan(evaluations.values)
    behaviours = evaluations.extras.get("behaviour")
    if failed.all():
        return None
    if behaviours is None:
        raise ValueError(
            '`evaluations` must have "behaviour" among their extras, got '
            f"{listed(sorted(evaluations.extras))}: choose a behaviour of the environment, or give a "
            "function that says what an episode has come to."
        )
    if behaviours.ndim != 2:
        raise ValueError(f'"behaviour" must have shape (n, b), got {behaviours.shape}.')
    return np.where(failed[:, None], np.nan, behaviours)


def _covered(entries: Array, low: Array, high: Array, counts: Array) -> float:
    """Return which share of the cells between two corners holds an entry; none is outside."""
    places = np.minimum(((entries - low) / (high - low) * counts).astype(np.int64), counts - 1)
    cells = float(np.prod(counts.astype(np.float64)))
    if cells <= _BLOCK:
        held = np.zeros(int(cells), bool)
        held[np.ravel_multi_index(tuple(places.T), tuple(counts))] = True
        return int(np.count_nonzero(held)) / cells
    return len(np.unique(places, axis=0)) / cells


def _usable(rows: Array) -> Array:
    """Return which rows are of episodes that came to something, shape (n,)."""
    fine: Array = np.all(np.abs(rows) <= _LARGEST, axis=1)  # which NaN is not
    return fine


def _with_tree(count: int) -> int:
    """Return how many entries, of so many, are in the tree: a function of the number, and few numbers."""
    step = 1 << max(0, count.bit_length() - 3)
    return count // step * step if count >= _LEAST_TREE else 0


def _near(points: Array, queries: Array, k: int) -> Array:
    """Return the distances to the k nearest points, in order, shape (m, at most k)."""
    k = min(k, len(points))
    if not k or not len(queries):
        return np.empty((len(queries), 0))
    if points.shape[1] <= TREE_DIMS:
        return _ask(_grown(points), queries, k)
    return _by_products(_without_surplus(points, k), queries, k)


def _grown(points: Array) -> Any:
    from scipy.spatial import cKDTree

    # Halving by medians does not end well where half of the points are one: policies in a dead end.
    return cKDTree(points, balanced_tree=False, compact_nodes=True)


def _ask(tree: Any, queries: Array, k: int) -> Array:
    distances: Array = tree.query(queries, k=range(1, k + 1))[0]
    return distances


def _by_products(points: Array, queries: Array, k: int) -> Array:
    """Return the same by |x|^2 + |y|^2 - 2 x y, of which those are left that rounding cannot exclude.

    Differences of large numbers say little of near duplicates, so the distances of all that may be among
    the k nearest are computed again, from the coordinates.
    """
    centre = np.median(points[:: 1 + len(points) // 256], axis=0)  # which a few far away do not move
    there = points - centre
    squares = np.einsum("ij,ij->i", there, there)
    # All terms together are off by at most about b roundings of the two squares.
    unit = 4 * (points.shape[1] + 4) * np.finfo(np.float64).eps
    found = np.empty((len(queries), k))
    height = max(1, 8 * _BLOCK // len(points))
    for first in range(0, len(queries), height):
        here = queries[first : first + height] - centre
        size = np.einsum("ij,ij->i", here, here)
        rough = here @ there.T
        rough *= -2.0
        rough += (1 + unit) * squares
        limit = np.partition(rough, k - 1, axis=1)[:, k - 1]
        limit += 2 * unit * size
        rough -= 2 * unit * squares
        which, near = np.nonzero(rough <= limit[:, None])
        exact = _squares(queries[first : first + height], which, points, near)
        order = np.lexsort((exact, which))
        begin = np.searchsorted(which, np.arange(len(here)))
        found[first : first + height] = exact[order][begin[:, None] + np.arange(k)]
    distances: Array = np.sqrt(found)
    return distances


def _without_surplus(points: Array, k: int) -> Array:
    """Return the points without what is there more than k times: policies in a dead end, over and over."""
    if len(points) < _LEAST_TREE:
        return points
    names = np.ascontiguousarray(points).view(np.dtype((np.void, points.itemsize * points.shape[1])))[:, 0]
    order = np.argsort(names, kind="stable")
    ranked = names[order]
    surplus = np.zeros(len(points), bool)
    surplus[order[k:]] = ranked[k:] == ranked[:-k]
    kept: Array = points[~surplus]
    return kept


def _squares(queries: Array, which: Array, points: Array, near: Array) -> Array:
    """Return squared distances of pairs of rows."""
    exact, height = np.empty(len(which)), max(1, _BLOCK // points.shape[1])
    for first in range(0, len(which), height):
        part = slice(first, first + height)
        apart = queries[which[part]] - points[near[part]]
        np.einsum("ij,ij->i", apart, apart, out=exact[part])
    return exact
