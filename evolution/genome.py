"""Genomes: a network of any size as the ordered list of seeds that led to it.

    theta_0 = mean + std * eps(seed_0),    theta_i = theta_{i-1} + sigma_i * eps(seed_i)

All arithmetic is in float32, and every product is rounded before it is added: so decoding a genome from its
root, from any ancestor, on whichever worker, on a CPU or a GPU, gives the same bits. Sums of the same terms
in another order do not, which is why a genome is a list and not a set.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import struct
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from evolution.policies.policy import Piece
from zoo.core.device import Like
from zoo.core.rng import QUICK, Key, NoiseTable, whole_stretch
from zoo.core.validation import check_count

Array = np.ndarray[Any, Any]

VERSION = 1
"""Of what a seed stands for. Another one could not read the genomes of this one."""

COLUMNS = QUICK
"""Numbers of a stretch of drawn noise, at most; long rows are worked on in columns of as many."""

_FEW = 1024  # numbers of a row that are drawn by numpy, which is faster up to here
_SHORT = 4096  # numbers; rows up to here are worked on together
_HOST = Like("numpy", "float32")
_LOCAL = threading.local()
_HEADER = struct.Struct("<B8sIfI")  # kind, codec, entries, sigma, checksum: 21 bytes
_SAME, _OWN = 1, 2  # kinds: one sigma for all, or one for each


class DrawnNoise:
    """Normal numbers that are drawn again whenever a seed is met: no table, and no memory.

    A seed of 63 bits stands for a row of its own, so rows never overlap. Drawing takes several times as
    long as reading a table, and the bits of a long row may depend on the vector instructions of the CPU.

    A row of up to 1024 numbers is drawn by `Key.normal`; a longer one consists of stretches of at most 65536
    numbers, each by `Key.fill_quick`.

    Args:
        seed: Of the family of rows, at least 0.

    Example:
        >>> noise = DrawnNoise(1)
        >>> row = noise.columns(7, 0, 100).copy()
        >>> bool((noise.columns(8, 0, 100) == row).any()), bool((noise.columns(7, 0, 100) == row).all())
        (False, True)
    """

    __slots__ = ("_key", "seed")

    def __init__(self, seed: int = 0) -> None:
        self.seed = check_count("seed", seed, minimum=0)
        self._key = Key(self.seed).fold("drawn noise")

    def columns(self, seed: int, number: int, dim: int) -> Array:
        """Return numbers `number` * 65536 to, at most, (`number` + 1) * 65536 of a row of length `dim`.

        They are the caller's until this thread draws the next ones.
        """
        if dim <= _FEW:
            return self._key.fold(seed).normal(0, 1, dim, like=_HOST)[0]
        size = min(COLUMNS, dim - number * COLUMNS)
        memory, numbers = _memory()
        whole = whole_stretch(size)
        self._key.fold(seed, number).fill_quick(memory[:whole], size=size)
        return numbers[:size]

    def __repr__(self) -> str:
        return f"DrawnNoise({self.seed})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DrawnNoise) and other.seed == self.seed

    def __hash__(self) -> int:
        return hash(("drawn", self.seed))

    def __reduce__(self) -> tuple[Any, ...]:
        return DrawnNoise, (self.seed,)


Noise: TypeAlias = NoiseTable | DrawnNoise


def _memory() -> tuple[Any, Array]:
    """Return this thread's memory for a stretch, as torch and as numpy see it; it begins at a cache line."""
    if not hasattr(_LOCAL, "memory"):
        import torch

        raw = torch.empty(COLUMNS + 16)
        first = -raw.data_ptr() // 4 % 16
        part = raw[first : first + COLUMNS]
        _LOCAL.memory = part, part.numpy()
    made: tuple[Any, Array] = _LOCAL.memory
    return made


def _scratch() -> Array:
    if not hasattr(_LOCAL, "scratch"):
        _LOCAL.scratch = np.empty(COLUMNS, np.float32)
    made: Array = _LOCAL.scratch
    return made


class Codec:
    """What turns genomes into parameters: where noise comes from, and what a first policy looks like.

        root:   (mean or base) + std * eps(seed), piece by piece
        child:  parent + sigma * eps(seed)

    A value: equal where the digest is. It pickles to some hundred bytes, and to those of `base`.

    Args:
        noise: A table, in which a seed is the place where a row begins; or `DrawnNoise`.
        pieces: What a row consists of, as in `Policy.pieces`.
        base: Parameters that roots lie around instead of the pieces' means, shape (dim,), such as those of a
            network that was trained; None for none.

    Raises:
        TypeError: `noise` is neither a table nor drawn.
        ValueError: There are no pieces, or one with a deviation below 0, the table is shorter than a row or
            longer than 2^32 numbers, or `base` has another length, or numbers that are not finite.

    Example:
        >>> from zoo.core.rng import Key
        >>> codec = Codec(NoiseTable(0, 10_000), (Piece("w", (10, 20), 0.1), Piece("b", (10,), 0.0)))
        >>> root, first = codec.draw(Key(1), 0, 2)
        >>> parent = Genome([root], [1.0])
        >>> child = parent.child(first, 0.5)
        >>> step = np.float32(0.5) * codec.noise.array()[int(first) :][: codec.dim]
        >>> bool((codec.decode(child) == codec.decode(parent) + step).all())
        True

    References:
        Such, Madhavan, Conti, Lehman, Stanley and Clune, "Deep Neuroevolution: Genetic Algorithms Are a
        Competitive Alternative for Training Deep Neural Networks for Reinforcement Learning", 2017.
        https://arxiv.org/abs/1712.06567
    """

    def __init__(self, noise: Noise, pieces: Sequence[Piece], base: Array | None = None) -> None:
        if not isinstance(noise, NoiseTable | DrawnNoise):
            raise TypeError(f"`noise` must be a NoiseTable or DrawnNoise, got {noise!r}.")
        self.noise, self.pieces = noise, tuple(pieces)
        self.dim = sum(piece.size for piece in self.pieces)
        if self.dim < 1:
            raise ValueError(f"`pieces` must hold one number at least, got {self.pieces!r}.")
        if isinstance(noise, NoiseTable) and not self.dim <= noise.size <= 2**32:
            raise ValueError(
                f"`noise` must have from {self.dim} numbers, which a row has, to 2^32, got {noise!r}; better "
                "some ten times as many as a row."
            )
        for piece in self.pieces:
            if not (math.isfinite(piece.std) and piece.std >= 0 and math.isfinite(piece.mean)):
                raise ValueError(
                    f"`pieces` must have a finite mean and a finite deviation of at least 0, got {piece!r}."
                )
        self.base = None if base is None else np.array(base, np.float32)
        if self.base is not None and (self.base.shape != (self.dim,) or not np.isfinite(self.base).all()):
            raise ValueError(
                f"`base` must be {self.dim} finite numbers, as the pieces have, got an array of shape "
                f"{self.base.shape}."
            )

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """All that decides what genomes are decoded to, as names and numbers; of noise, the first 1024."""
        noise: list[Any]
        if isinstance(self.noise, NoiseTable):
            noise, numbers = ["table", self.noise.seed, self.noise.size], _numbers_of(self.noise, 0)
        else:
            noise, numbers = ["drawn", self.noise.seed], _numbers_of(self.noise, self.dim)
        return {
            "version": VERSION,
            "noise": noise,
            "numbers": numbers,
            "pieces": [[p.name, list(p.shape), float(p.std), float(p.mean)] for p in self.pieces],
            "base": None if self.base is None else hashlib.sha256(self.base.tobytes()).hexdigest(),
        }

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of the description."""
        return hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()

    @staticmethod
    def described(description: Mapping[str, Any], base: Array | None = None) -> Codec:
        """Return the codec of a description.

        Args:
            description: As in `Codec.description`.
            base: The parameters that it was made with, where there were any.

        Raises:
            ValueError: It cannot be had here: the base is missing, or this machine draws other numbers.
        """
        if description["base"] is not None and base is None:
            raise ValueError("it lies around parameters that were given as a base: give a codec with them.")
        kind, *numbers = description["noise"]
        pieces = [Piece(name, tuple(shape), std, mean) for name, shape, std, mean in description["pieces"]]
        codec = Codec(NoiseTable(*numbers) if kind == "table" else DrawnNoise(*numbers), pieces, base)
        codec.check(description)
        return codec

    def check(self, description: Mapping[str, Any]) -> None:
        """Raise unless a description is that of this codec.

        Raises:
            ValueError: It is of another one; the message says in what they differ.
        """
        here = self.description
        for name, what in _PARTS.items():
            theirs, ours = description.get(name), here[name]
            if theirs != ours:
                found, needed = (_short_of(value) for value in (theirs, ours))
                raise ValueError(f"it is of another codec: {what} is {found} there, and {needed} here.")

    @property
    def seed_bits(self) -> int:
        """Bits that a seed has at most."""
        if isinstance(self.noise, NoiseTable):
            return max(1, (self.noise.size - self.dim).bit_length())
        return 63

    def draw(self, key: Key, start: int, stop: int) -> Array:
        """Draw seeds `start` to `stop` of those under a key, uint64; the same whatever the slice."""
        high = self.noise.size - self.dim + 1 if isinstance(self.noise, NoiseTable) else 2**63
        return key.integers(start, stop, 1, high=high)[:, 0].astype(np.uint64)

    def check_seeds(self, seeds: Array) -> None:
        """Raise unless there is noise for all seeds.

        Raises:
            ValueError: One is beyond the last row of the table.
        """
        limit = self.noise.size - self.dim if isinstance(self.noise, NoiseTable) else 2**63 - 1
        if len(seeds) and int(seeds.max()) > limit:
            raise ValueError(
                f"`codec` has seeds up to {limit}, and the genome one of {int(seeds.max())}: it is of "
                "another codec."
            )

    def decode(self, genome: Genome, device: str = "cpu") -> Any:
        """Return the parameters of a genome, float32 of shape (dim,): numpy's for "cpu", else torch's.

        Raises:
            ValueError: A seed is none of this codec.
        """
        self.check_seeds(genome.seeds)
        row = self.empty(1, device)[0]
        self.root(row, int(genome.seeds[0]))
        self.advance(row, genome.seeds[1:], genome.sigmas[1:])
        return row

    def empty(self, count: int, device: str = "cpu") -> Any:
        """Return memory for some rows, where `device` says."""
        if device == "cpu":
            return np.empty((count, self.dim), np.float32)
        import torch

        return torch.empty((count, self.dim), dtype=torch.float32, device=device)

    def root(self, out: Any, seed: int) -> None:
        """Write what a root is decoded to into a row."""
        for number, columns in self._columns(out):
            part = out[columns]
            eps = self._eps(seed, number, part)
            for first, last, std, mean in self._segments(columns):
                here = part[first:last]
                _multiply(eps[first:last], std, here)
                here += mean if self.base is None else _like(self.base[columns][first:last], out)

    def advance(self, out: Any, seeds: Array, sigmas: Array) -> None:
        """Apply mutations to a row, in their order."""
        steps = list(zip(seeds.tolist(), np.asarray(sigmas, np.float32), strict=True))
        if not steps:
            return
        scratch = _scratch() if isinstance(out, np.ndarray) else out.new_empty(min(len(out), _width(out)))
        for number, columns in self._columns(out):
            part = out[columns]
            step = scratch[: len(part)]
            for seed, sigma in steps:
                _multiply(self._eps(seed, number, part), sigma, step)
                part += step

    def children(self, out: Any, parents: Sequence[Any], seeds: Array, sigmas: Array) -> None:
        """Write rows that are one mutation away from others.

        Args:
            out: Memory for them, float32: an array of shape (k, dim), or a list of rows of one.
            parents: Row i's parent, of shape (dim,), where `out` is.
            seeds: uint64, shape (k,).
            sigmas: float32, shape (k,).
        """
        sigmas = np.asarray(sigmas, np.float32)
        if self.dim <= _SHORT and isinstance(self.noise, NoiseTable):
            self._short_children(out, parents, seeds, sigmas)
            return
        for row, parent, seed, sigma in zip(out, parents, seeds.tolist(), sigmas, strict=True):
            for number, columns in self._columns(row):
                part = row[columns]
                _multiply(self._eps(seed, number, part), sigma, part)
                part += parent[columns]

    def roots(self, out: Any, seeds: Array) -> None:
        """Write what some roots are decoded to into rows; see `children`."""
        for row, seed in zip(out, seeds.tolist(), strict=True):
            self.root(row, seed)

    def _short_children(self, out: Any, parents: Sequence[Any], seeds: Array, sigmas: Array) -> None:
        """Do all rows at once: so short are they that to set each up would take longer."""
        assert isinstance(self.noise, NoiseTable)
        places: Any = seeds.astype(np.int64)
        if isinstance(out[0], np.ndarray):
            table = self.noise.array(_HOST)
            made = np.lib.stride_tricks.sliding_window_view(table, self.dim)[places]
            made *= sigmas[:, None]
            made += np.stack(parents)
        else:
            import torch

            device = out[0].device
            table = self.noise.array(Like("torch", "float32", str(device)))
            made = table.unfold(0, self.dim, 1)[torch.from_numpy(places).to(device)]
            made *= torch.tensor(sigmas, device=device)[:, None]
            made += torch.stack(list(parents))
        if isinstance(out, list):
            for row, part in zip(out, made, strict=True):
                row[:] = part
        else:
            out[:] = made

    def _columns(self, row: Any) -> Any:
        width = COLUMNS if isinstance(self.noise, DrawnNoise) else _width(row)
        return ((n, slice(f, min(f + width, self.dim))) for n, f in enumerate(range(0, self.dim, width)))

    def _eps(self, seed: int, number: int, part: Any) -> Any:
        """Return the noise of columns `number` of a row, where and as long as `part` is."""
        if isinstance(self.noise, DrawnNoise):
            return _like(self.noise.columns(seed, number, self.dim), part)
        first = seed + number * _width(part)
        is_here = isinstance(part, np.ndarray)
        table = self.noise.array(_HOST if is_here else Like("torch", "float32", str(part.device)))
        return table[first : first + len(part)]

    def _segments(self, columns: slice) -> list[tuple[int, int, np.float32, np.float32]]:
        """Return where pieces begin and end in some columns, and their deviations and means."""
        found, start = [], 0
        for piece in self.pieces:
            first, last = max(start, columns.start), min(start + piece.size, columns.stop)
            if first < last:
                offset = columns.start
                found.append((first - offset, last - offset, np.float32(piece.std), np.float32(piece.mean)))
            start += piece.size
        return found

    def __repr__(self) -> str:
        return f"Codec({self.noise!r}, dim={self.dim}, digest={self.digest[:16]})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codec) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return Codec, (self.noise, self.pieces, self.base)


def _width(row: Any) -> int:
    """Return how many columns of a row are worked on at a time: what a cache holds, on a CPU."""
    return COLUMNS if isinstance(row, np.ndarray) else 2**40


def _like(numbers: Array, out: Any) -> Any:
    """Return numbers where `out` is."""
    if isinstance(out, np.ndarray):
        return numbers
    import torch

    return torch.from_numpy(numbers).to(out.device, copy=True)


def _multiply(eps: Any, sigma: np.float32, out: Any) -> None:
    if isinstance(out, np.ndarray):
        np.multiply(eps, sigma, out=out)
        return
    import torch

    torch.mul(eps, float(sigma), out=out)


class Genome:
    """The ordered chain of seeds that a row of parameters comes from. A value: it can be compared and hashed.

    Args:
        seeds: uint64, shape (g,), g of at least 1; the first is the root's.
        sigmas: float32, shape (g,); that of the root counts for nothing and is made 1.

    Raises:
        ValueError: Shapes do not fit, or a sigma is not finite.

    Example:
        >>> genome = Genome([3], [1.0]).child(5, 0.5).child(4, 0.5)
        >>> len(genome), genome.seeds.tolist(), genome == Genome([3, 5, 4], [1.0, 0.5, 0.5])
        (3, [3, 5, 4], True)
    """

    __slots__ = ("_marks", "seeds", "sigmas")

    def __init__(self, seeds: Any, sigmas: Any) -> None:
        self.seeds, self.sigmas = np.array(seeds, np.uint64), np.array(sigmas, np.float32)
        if self.seeds.ndim != 1 or not len(self.seeds) or self.sigmas.shape != self.seeds.shape:
            raise ValueError(
                "`seeds` and `sigmas` must be rows of the same length of at least 1, got shapes "
                f"{self.seeds.shape} and {self.sigmas.shape}."
            )
        self.sigmas[0] = 1.0
        if not np.isfinite(self.sigmas).all():
            raise ValueError("`sigmas` must be finite numbers.")
        self.seeds.flags.writeable = self.sigmas.flags.writeable = False
        self._marks: tuple[bytes, ...] | None = None

    def child(self, seed: int, sigma: float) -> Genome:
        """Return the genome with one mutation more."""
        return Genome(np.append(self.seeds, np.uint64(seed)), np.append(self.sigmas, np.float32(sigma)))

    @property
    def marks(self) -> tuple[bytes, ...]:
        """For each ancestor, and itself at the end, the 16 bytes by which it is known; see `mark`."""
        if self._marks is None:
            made, before = [], b""
            for seed, sigma in zip(self.seeds.tolist(), self.sigmas.tolist(), strict=True):
                before = mark(before, seed, sigma)
                made.append(before)
            self._marks = tuple(made)
        return self._marks

    @property
    def digest(self) -> str:
        """What it is known by: 32 hexadecimal digits of all its entries."""
        return self.marks[-1].hex()

    def pack(self, codec: Codec) -> bytes:
        """Return it as bytes: 21, and as many bits per entry as a seed of the codec has.

        Four bytes more per entry where sigmas differ.

        Raises:
            ValueError: A seed is none of this codec.
        """
        codec.check_seeds(self.seeds)
        bits = codec.seed_bits
        raw = np.unpackbits(self.seeds.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
        body = np.packbits(raw[:, :bits], bitorder="little").tobytes()
        mutated = self.sigmas[1:]
        sigma = float(mutated[0]) if len(mutated) else 1.0
        kind = _SAME
        if len(mutated) and (mutated != mutated[0]).any():
            kind, body = _OWN, body + mutated.astype("<f4").tobytes()
        header = (kind, bytes.fromhex(codec.digest)[:8], len(self), sigma)
        return _HEADER.pack(*header, zlib.crc32(_HEADER.pack(*header, 0) + body)) + body

    @staticmethod
    def unpack(data: bytes, codec: Codec) -> Genome:
        """Return the genome that `pack` wrote.

        Raises:
            ValueError: It is damaged, or of another codec.
        """
        if len(data) < _HEADER.size:
            raise ValueError(f"a genome has {_HEADER.size} bytes at least, got {len(data)}: it is damaged.")
        kind, digest, count, sigma, checksum = _HEADER.unpack_from(data)
        bits, body = codec.seed_bits, data[_HEADER.size :]
        if zlib.crc32(_HEADER.pack(kind, digest, count, sigma, 0) + body) != checksum or kind not in (
            _SAME,
            _OWN,
        ):
            raise ValueError("the genome does not have its checksum: it is damaged, or not one.")
        if digest != bytes.fromhex(codec.digest)[:8]:
            raise ValueError(
                f"the genome is of the codec {digest.hex()}, and not of this one, {codec.digest[:16]}: give "
                "the noise table, the network and the base that it was made with."
            )
        size = -(-count * bits // 8)
        raw = np.unpackbits(np.frombuffer(body[:size], np.uint8), count=count * bits, bitorder="little")
        whole = np.zeros((count, 64), np.uint8)
        whole[:, :bits] = raw.reshape(count, bits)
        seeds = np.packbits(whole, axis=1, bitorder="little").view("<u8")[:, 0]
        sigmas = np.full(count, sigma, np.float32)
        if kind == _OWN:
            sigmas[1:] = np.frombuffer(body[size:], "<f4")
        return Genome(seeds, sigmas)

    def __len__(self) -> int:
        return len(self.seeds)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Genome)
            and np.array_equal(self.seeds, other.seeds)
            and self.sigmas.tobytes() == other.sigmas.tobytes()
        )

    def __hash__(self) -> int:
        return hash((self.seeds.tobytes(), self.sigmas.tobytes()))

    def __repr__(self) -> str:
        return f"Genome of {len(self)} entries, {self.digest}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Genome, (self.seeds, self.sigmas)


def mark(parent: bytes, seed: int, sigma: float) -> bytes:
    """Return the 16 bytes by which a genome is known: the BLAKE2b hash of its parent's and its last entry.

    Args:
        parent: Mark of the parent; empty for a root.
        seed: Of the last entry.
        sigma: Of the last entry; taken for 1 in a root.
    """
    entry = struct.pack("<Qf", seed, sigma if parent else 1.0)
    return hashlib.blake2b(parent + entry, digest_size=16).digest()


@functools.lru_cache(16)
def _numbers_of(noise: Noise, dim: int) -> str:
    """Return the sha256 of the first numbers of a table, or of a row of so many that is drawn."""
    numbers = noise.head() if isinstance(noise, NoiseTable) else noise.columns(0, 0, dim)[:1024]
    return hashlib.sha256(numbers.astype("<f4").tobytes()).hexdigest()


_PARTS = {
    "version": "the version of the codec",
    "noise": "its noise",
    "pieces": "the network",
    "base": "the sha256 of the base",
    "numbers": "the sha256 of the first numbers of noise, which may depend on numpy, torch and the CPU,",
}


def _short_of(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:190]} ... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"


class SharedTable:
    """A noise table on its way to workers: with its numbers, so that none of them draws its own.

    It pickles with the array, which executors ship once to each node and map there; a process that unpickles
    it has `NoiseTable.array` read that memory. Noise that is drawn has nothing to be shared.

    Args:
        noise: A table, or drawn noise.

    Example:
        >>> import pickle
        >>> buffers = []
        >>> data = pickle.dumps(SharedTable(NoiseTable(0, 1000)), protocol=5, buffer_callback=buffers.append)
        >>> pickle.loads(data, buffers=buffers).noise
        NoiseTable(0, 1000)
    """

    __slots__ = ("noise", "numbers")

    def __init__(self, noise: Noise) -> None:
        self.noise = noise
        self.numbers: Array | None = noise.array(_HOST) if isinstance(noise, NoiseTable) else None

    def __reduce__(self) -> tuple[Callable[..., SharedTable], tuple[Any, ...]]:
        return _adopted, (self.noise, self.numbers)


def _adopted(noise: Noise, numbers: Array | None) -> SharedTable:
    if isinstance(noise, NoiseTable) and numbers is not None:
        noise.adopt(numbers)
    return SharedTable(noise)
