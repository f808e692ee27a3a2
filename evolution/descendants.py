"""Members as they travel: who descends from whom, from which any worker builds any row."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from evolution.genome import Codec, Genome, mark
from evolution.keyframes import Keyframes
from evolution.lineage import Lineage
from evolution.members import Members

Array = np.ndarray[Any, Any]

_FEW = 2**20  # bytes of decoded parents that are kept in any case
_MOST = 2**30  # and that are kept at most
_PER_PARENT = 2  # rows for each parent: its own, and its parent's, or where its branch parts from another


class Descendants(Members):
    """Members that are described by the table of their ancestors, whatever the size of their networks.

    A row is its parent's plus one mutation. Parents are decoded once in a process and kept while they are
    used: those of the next generation are children of these. So a generation costs one mutation for each
    row, and one for each parent. A process that comes in late decodes the whole tree, which costs one
    mutation for each ancestor, or goes on from a keyframe.

    Attributes:
        codec: What decodes them.
        episodes: Episodes of each; None for as many as the run says.
        keyframes: Where workers may find decoded ancestors, or None.

    Example:
        >>> from evolution.policies.policy import Piece
        >>> from zoo.core.rng import Key, NoiseTable
        >>> codec = Codec(NoiseTable(0, 10_000), (Piece("w", (10, 20), 0.1),))
        >>> lineage, ids = Lineage.empty().born([-1] * 3, codec.draw(Key(1), 0, 3), np.ones(3))
        >>> lineage, ids = lineage.born(ids, codec.draw(Key(2), 0, 3), np.full(3, 0.5))
        >>> members = Descendants.of(codec, lineage, ids)
        >>> members.rows(0, 3).shape
        (3, 200)
        >>> bool((members.rows(2, 3)[0] == codec.decode(lineage.genome(ids[2]))).all())
        True
    """

    __slots__ = (
        "_above",
        "_marks",
        "_num_parents",
        "_parenthood",
        "_parents",
        "_places",
        "_seeds",
        "_sigmas",
        "codec",
        "episodes",
        "keyframes",
    )

    def __init__(
        self,
        codec: Codec,
        above: Array,
        seeds: Array,
        sigmas: Array,
        places: Array,
        episodes: int | None = None,
        keyframes: Keyframes | None = None,
    ) -> None:
        self.codec, self.episodes, self.keyframes = codec, episodes, keyframes
        self._above, self._seeds, self._sigmas, self._places = above, seeds, sigmas, places
        self._marks: dict[int, bytes] = {}
        self._num_parents = 0
        self._parents: Array | None = None
        self._parenthood: Array | None = None

    @staticmethod
    def of(
        codec: Codec,
        lineage: Lineage,
        ids: Any,
        episodes: int | None = None,
        keyframes: Keyframes | None = None,
    ) -> Descendants:
        """Return individuals as members, in the order of `ids`.

        Args:
            codec: What decodes them.
            lineage: Where they and their ancestors are.
            ids: Whose, shape (n,); one may be named several times.
            episodes: Episodes of each; None for as many as the run says.
            keyframes: Where workers may find decoded ancestors, or None.

        Raises:
            ValueError: Somebody is not in the lineage, or has a seed that is none of the codec.
        """
        family = lineage.pruned(ids)
        codec.check_seeds(family.seeds)
        return Descendants(
            codec, family.above, family.seeds, family.sigmas, family.places(ids), episodes, keyframes
        )

    @property
    def dim(self) -> int:
        return self.codec.dim

    def __len__(self) -> int:
        return len(self._places)

    def rows_on(self, device: str, start: int, stop: int) -> Any:
        out = self.codec.empty(len(self._places[start:stop]), device)
        self.fill(out, start)
        return out

    def fill(self, out: Any, start: int) -> None:
        """Write rows from `start` on into memory, shape (k, dim): for who reads many and keeps none.

        Args:
            out: float32, a numpy array or a torch tensor; the rows are built where it is.
            start: First row.
        """
        places = self._places[start : start + len(out)]
        above, codec = self._above[places], self.codec
        device = "cpu" if isinstance(out, np.ndarray) else _place(out.device)
        is_ready = self._is_parent[places]  # who is a parent is decoded anyway
        needed = set(np.where(is_ready, places, above).tolist()) - {-1}
        ready = {place: self._decoded(place, device) for place in sorted(needed)}
        for row in np.flatnonzero(is_ready).tolist():
            out[row] = ready[int(places[row])]
        for is_root in (True, False):
            here = np.flatnonzero(~is_ready & ((above < 0) == is_root))
            if not len(here):
                continue
            rows = out if len(here) == len(out) else [out[row] for row in here.tolist()]
            seeds, sigmas = self._seeds[places[here]], self._sigmas[places[here]]
            if is_root:
                codec.roots(rows, seeds)
            else:
                codec.children(rows, [ready[place] for place in above[here].tolist()], seeds, sigmas)

    def write_keyframe(self, keyframes: Keyframes, generation: int) -> Path | None:
        """Write down the parents of these members; None where nobody has one. See `Keyframes.write`."""
        parents = np.unique(self._above[self._places])
        genomes = [self._genome(place) for place in parents.tolist() if place >= 0]
        if not genomes:
            return None
        digest = self.codec.digest
        return keyframes.write(
            generation, self.codec, genomes, lambda name: _cache.get((digest, "cpu", name))
        )

    def _genome(self, place: int) -> Genome:
        path = []
        while place >= 0:
            path.append(place)
            place = int(self._above[place])
        return Genome(self._seeds[path[::-1]], self._sigmas[path[::-1]])

    @property
    def _is_parent(self) -> Array:
        if self._parenthood is None:
            self._parenthood = np.zeros(len(self._above), bool)
            self._parenthood[self.parents] = True
        return self._parenthood

    @property
    def parents(self) -> Array:
        """Places in the table of those worth keeping: parents of members, and where their branches part."""
        if self._parents is None:
            above = self._above
            direct = np.unique(above[self._places])
            self._num_parents = int((direct >= 0).sum())
            is_above = np.zeros(len(above) + 1, bool)  # the last one is that of roots, -1
            is_above[direct] = True
            for place in range(len(above) - 1, -1, -1):
                if is_above[place]:
                    is_above[above[place]] = True
            inner = np.flatnonzero(is_above[:-1])
            forks = np.flatnonzero(np.bincount(above[inner] + 1, minlength=len(above) + 1)[1:] > 1)
            self._parents = np.union1d(direct[direct >= 0], forks)
        return self._parents

    def _decoded(self, place: int, device: str) -> Any:
        """Return the parameters of someone in the table, not to be written to."""
        path, row = [], None
        while place >= 0 and (row := self._known(place, device)) is None:
            path.append(place)
            place = int(self._above[place])
        if self.keyframes is not None and len(path) > 2:
            found = self.keyframes.find(self.codec, [self._mark(passed) for passed in path])
            if found is not None:
                there = path[found[0]]
                row = self.codec.empty(1, device)[0]
                row[:] = found[1] if device == "cpu" else _tensor(found[1])
                self._keep(there, device, row)
                del path[found[0] :]
        worth = set(self.parents.tolist()) if len(path) > 1 else set()
        while path:
            # Up to the next one worth keeping, or to the end.
            count = next((n for n in range(1, len(path)) if path[-n] in worth), len(path))
            steps = np.array(path[: -count - 1 : -1])
            del path[-count:]
            made = self.codec.empty(1, device)
            seeds, sigmas = self._seeds[steps], self._sigmas[steps]
            if row is None:
                self.codec.roots(made, seeds[:1])
            else:
                self.codec.children(made, [row], seeds[:1], sigmas[:1])
            row = made[0]
            self.codec.advance(row, seeds[1:], sigmas[1:])
            self._keep(int(steps[-1]), device, row)
        return row

    def _known(self, place: int, device: str) -> Any:
        return _cache.get((self.codec.digest, device, self._mark(place)))

    def _keep(self, place: int, device: str, row: Any) -> None:
        _cache.put((self.codec.digest, device, self._mark(place)), row, self._num_parents)

    def _mark(self, place: int) -> bytes:
        """Return by what someone in the table is known; see `evolution.genome.mark`."""
        path = []
        while place >= 0 and place not in self._marks:
            path.append(place)
            place = int(self._above[place])
        before = self._marks[place] if place >= 0 else b""
        for passed in reversed(path):
            before = mark(before, int(self._seeds[passed]), float(self._sigmas[passed]))
            self._marks[passed] = before
        return before

    def __reduce__(self) -> tuple[Any, ...]:
        count, size = len(self._places), len(self._above)
        is_last = np.array_equal(self._places, np.arange(size - count, size))
        places: Any = count if is_last else _small(self._places)
        sigmas: Any = self._sigmas
        mutated = sigmas[self._above >= 0]
        if len(mutated) and (mutated == mutated[0]).all():
            sigmas = float(mutated[0])
        table = (_small(self._above + 1), _small(self._seeds), sigmas, places)
        return _arrived, (self.codec, *table, self.episodes, self.keyframes)


def _small(numbers: Array) -> Array:
    """Return integers of at least 0 in the smallest type that holds them."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def _arrived(
    codec: Codec,
    above: Array,
    seeds: Array,
    sigmas: Any,
    places: Any,
    episodes: int | None,
    keyframes: Keyframes | None,
) -> Descendants:
    above = above.astype(np.int64) - 1
    if isinstance(sigmas, float):
        sigmas = np.where(above < 0, np.float32(1), np.float32(sigmas))
    count = len(above)
    places = np.arange(count - places, count) if isinstance(places, int) else places.astype(np.int64)
    return Descendants(codec, above, seeds.astype(np.uint64), sigmas, places, episodes, keyframes)


def _place(device: Any) -> str:
    """Return the name of a torch device, which is never that of numpy's arrays."""
    return "cpu:0" if device.type == "cpu" else str(device)


def _tensor(row: Array) -> Any:
    import torch

    return torch.from_numpy(np.array(row))


class _Cache:
    """Decoded ancestors, those used last at the end, in a bounded number of bytes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.most = _MOST
        self.clear()

    def clear(self) -> None:
        self.rows: OrderedDict[tuple[str, str, bytes], Any] = OrderedDict()
        self.held, self.limit = 0, _FEW

    def get(self, name: tuple[str, str, bytes]) -> Any:
        with self.lock:
            row = self.rows.get(name)
            if row is not None:
                self.rows.move_to_end(name)
            return row

    def put(self, name: tuple[str, str, bytes], row: Any, parents: int) -> None:
        """Keep a row.

        Args:
            name: Its codec, device and mark.
            row: Its parameters.
            parents: How many parents a generation has.
        """
        with self.lock:
            self.limit = max(self.limit, _PER_PARENT * (parents + 1) * row.nbytes)
            if name not in self.rows:  # another thread may have been faster
                self.rows[name] = row
                self.held += row.nbytes
            self.shrink()

    def shrink(self) -> None:
        """Let go of those used longest ago."""
        while self.rows and self.held > min(self.limit, self.most):
            self.held -= self.rows.popitem(last=False)[1].nbytes


_cache = _Cache()


def clear_cache() -> None:
    """Forget the decoded parents of this process; they are decoded again when they are needed."""
    with _cache.lock:
        _cache.clear()


@contextlib.contextmanager
def cache_of(size: int) -> Iterator[None]:
    """Keep at most so many bytes of decoded parents in this process while a block runs; 0 for none.

    Example:
        >>> with cache_of(0):
        ...     pass
    """
    before = _cache.most
    try:
        with _cache.lock:
            _cache.most = size
            _cache.shrink()
        yield
    finally:
        _cache.most = before
