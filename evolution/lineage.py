"""The lineage: who is whose child, by which mutation."""

from __future__ import annotations

from typing import Any

import numpy as np

from evolution.genome import Genome
from zoo.core.state import state

Array = np.ndarray[Any, Any]


@state
class Lineage:
    """A table of individuals that point to their parents, by which genomes share what they have in common.

    What `pruned` leaves is the living and their ancestors. As those have few ancestors far back, the table
    grows by one entry or so in a generation.

    Attributes:
        ids: int64, shape (n,), ascending.
        parents: int64, shape (n,): ids of parents, -1 for roots.
        seeds: uint64, shape (n,): of the mutation, or of the root.
        sigmas: float32, shape (n,): of the mutation; 1 for roots.
        next_id: What the next one born will be called. No id is ever given twice.

    Example:
        >>> lineage, (first,) = Lineage.empty().born([-1], [7], [1.0])
        >>> lineage, children = lineage.born([first, first], [5, 3], [0.5, 0.5])
        >>> children.tolist(), lineage.genome(2) == Genome([7, 3], [1.0, 0.5])
        ([1, 2], True)
        >>> lineage.pruned([2]).ids.tolist()
        [0, 2]
    """

    ids: Array
    parents: Array
    seeds: Array
    sigmas: Array
    next_id: int

    @staticmethod
    def empty() -> Lineage:
        """Return the table before anybody was born."""
        ids = np.empty(0, np.int64)
        return Lineage(ids, ids.copy(), np.empty(0, np.uint64), np.empty(0, np.float32), 0)

    def __len__(self) -> int:
        return len(self.ids)

    def born(self, parents: Any, seeds: Any, sigmas: Any) -> tuple[Lineage, Array]:
        """Return the table with some individuals more, and their ids.

        Args:
            parents: Ids of their parents, -1 for roots, shape (k,).
            seeds: Of their mutations, shape (k,).
            sigmas: Of their mutations, shape (k,); a root's counts for nothing.

        Raises:
            ValueError: A parent is not in the table, shapes do not fit, or a sigma is not finite.
        """
        parents, seeds = np.array(parents, np.int64), np.array(seeds, np.uint64)
        sigmas = np.where(parents < 0, np.float32(1), np.asarray(sigmas, np.float32)).astype(np.float32)
        if parents.ndim != 1 or not parents.shape == seeds.shape == sigmas.shape:
            raise ValueError(
                "`parents`, `seeds` and `sigmas` must be rows of the same length, got shapes "
                f"{parents.shape}, {seeds.shape} and {sigmas.shape}."
            )
        if not np.isfinite(sigmas).all():
            raise ValueError("`sigmas` must be finite numbers.")
        self.places(parents[parents != -1])
        ids = np.arange(self.next_id, self.next_id + len(parents), dtype=np.int64)
        grown = Lineage(
            np.concatenate([self.ids, ids]),
            np.concatenate([self.parents, parents]),
            np.concatenate([self.seeds, seeds]),
            np.concatenate([self.sigmas, sigmas]),
            self.next_id + len(parents),
        )
        return grown, ids

    def places(self, ids: Any) -> Array:
        """Return in which rows of the table some ids are, int64.

        Raises:
            ValueError: One is not in the table.
        """
        ids = np.asarray(ids, np.int64)
        places = np.searchsorted(self.ids, ids)
        missing = (
            self.ids[np.minimum(places, len(self.ids) - 1)] != ids
            if len(self.ids)
            else np.ones(ids.shape, bool)
        )
        if missing.any():
            raise ValueError(f"nobody of the id {int(ids[missing][0])} is in the lineage.")
        return places

    def ancestors(self, individual: int) -> Array:
        """Return the ids of an individual's ancestors, the root first and itself last.

        Raises:
            ValueError: It is not in the table.
        """
        place, above = int(self.places(individual)), self.above
        found = []
        while place >= 0:
            found.append(place)
            place = int(above[place])
        return self.ids[found[::-1]]

    def genome(self, individual: int) -> Genome:
        """Return the genome of an individual.

        Raises:
            ValueError: It is not in the table.
        """
        places = self.places(self.ancestors(individual))
        return Genome(self.seeds[places], self.sigmas[places])

    def pruned(self, living: Any) -> Lineage:
        """Return the table of some individuals and their ancestors.

        Raises:
            ValueError: One of them is not in the table.
        """
        is_kept = [False] * len(self)
        for place in self.places(np.ravel(living)).tolist():
            is_kept[place] = True
        above = self.above.tolist()
        for place in range(len(above) - 1, -1, -1):  # a parent comes before its children
            if is_kept[place] and above[place] >= 0:
                is_kept[above[place]] = True
        kept = np.array(is_kept, bool)
        return Lineage(self.ids[kept], self.parents[kept], self.seeds[kept], self.sigmas[kept], self.next_id)

    @property
    def above(self) -> Array:
        """In which row of the table each one's parent is, int64; -1 for roots."""
        found: Array = np.where(self.parents < 0, -1, np.searchsorted(self.ids, self.parents))
        return found
