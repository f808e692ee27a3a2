"""Randomness as a function of where you are: the one file that makes random numbers.

A `Key` names a place in a run ("directions of step 7"). What is drawn under a key is a matrix whose
row i is the same whatever slice of rows is asked for, on whichever worker, in whichever order. The
global generators of numpy, torch and Python are never read and never touched.

How: a matrix is cut into blocks of about 16384 elements (twice as many for torch, whose blocks take
longer to set up and less to fill; a row longer than 65536 into column blocks of 65536), and every block
has a generator state of its own, derived from the key and the block's number alone. So a slice costs what
it holds and at most one block more.

* numpy arrays, and short or float64 torch rows on the CPU: Philox, 128 bits of the key, the block's
  number in counter words 2 and 3 (words 0 and 1 count within the block: put there, the numbers of
  neighbouring blocks would overlap).
* long float32 torch rows on the CPU: torch's own Mersenne Twister, three times as fast, with all its
  624 words filled: `manual_seed` keeps 32 bits only, which collide by birthday after 77,000 blocks.
* CUDA: the device's Philox, 64 bits of the key and the block, always whole blocks, since its
  numbers depend on the size of the launch.
* `fill_quick`, for those who draw much and can do with a stretch of at most 65536 numbers under a key of its
  own: SFC64 and Box and Muller's method, in two thirds of the time of torch's generator.

Values differ between the first three, signs (`rademacher`) and what is read from a `NoiseTable` do not.
Float32 numbers of torch may also differ between CPUs with other vector instructions.

All laws and all shapes under one key are made of the same bits, so a key is for one draw: fold in a
name for each purpose.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.core.device import NUMPY, Array, Like
from zoo.core.errors import ZooWarning

if TYPE_CHECKING:
    import torch

_BLOCK = 16384  # elements; below about 4000 the set-up of a block costs more than its numbers
_TORCH_BLOCK = 32768
_LONGEST_ROW = 65536  # elements; a longer row is cut into column blocks
_PIECE = 65536  # elements of several blocks drawn together
_DEVICE_PIECE = 2**22  # the same on a device, which wants more to do at a time
QUICK = 65536  # numbers of `Key.fill_quick`, at most: torch works on half as many in one thread
_MOST_VIEWS = 64  # sizes for which views of the memory are kept
_VECTOR = 64  # elements; arrays in multiples of it have no remainder, which torch would round differently
_CELL = 2 * math.pi * 2.0**-16  # 16 bits of an angle
# The logarithm of _CELL, and four parts in 10^7 more: what is rounded must not be above it.
_TOP = float(np.nextafter(np.nextafter(np.float32(math.log(_CELL)), np.float32(0)), np.float32(0)))
_TORCH_DIM = 64  # elements; from this length on torch's CPU generator is the faster one for most draws
_LOCAL = threading.local()


class Key:
    """A place in a run, from which random numbers are drawn.

    Keys are values: equal keys draw equal numbers, a key can be hashed, compared, written down with
    `str(key)` and read back with `Key.parse`. Deriving a key does not change it.

    Args:
        seed: Any integer of at least 0.

    Raises:
        TypeError: `seed` is not an integer.
        ValueError: `seed` is negative.

    Example:
        >>> key = Key(0).fold("directions", 7)
        >>> whole = key.normal(0, 4, 3)
        >>> bool((key.normal(2, 4, 3) == whole[2:]).all())
        True
    """

    __slots__ = ("_words", "digest")

    digest: bytes

    def __init__(self, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise TypeError(f"`seed` must be an integer, got {seed!r}.")
        if seed < 0:
            raise ValueError(f"`seed` must be at least 0, got {seed!r}.")
        self._set(hashlib.blake2b(_encode(int(seed)), digest_size=16, person=b"gradfree").digest())

    def _set(self, digest: bytes) -> None:
        self.digest = digest
        self._words: np.ndarray[Any, Any] | None = None

    @staticmethod
    def _of(digest: bytes) -> Key:
        key = Key.__new__(Key)
        key._set(digest)
        return key

    @staticmethod
    def parse(text: str) -> Key:
        """Return the key that `str(key)` wrote down."""
        try:
            digest = bytes.fromhex(text)
        except ValueError:
            digest = b""
        if len(digest) != 16:
            raise ValueError(f"`text` must be 32 hexadecimal digits, got {text!r}.")
        return Key._of(digest)

    def fold(self, *path: str | int) -> Key:
        """Derive the key of a place below this one.

        Args:
            path: Names and integers, any number of them. 1 and "1" are different, and so are
                ("ab", "c") and ("a", "bc").

        Raises:
            TypeError: A part is neither a name nor an integer.

        Example:
            >>> Key(0).fold("noise", 3) == Key(0).fold("noise", 4)
            False
        """
        state = hashlib.blake2b(self.digest, digest_size=16)
        for part in path:
            state.update(_encode(part))
        return Key._of(state.digest())

    def seed(self, bits: int = 32) -> int:
        """Return an integer of up to 128 bits, to seed a generator that is not ours."""
        return int.from_bytes(self.digest, "little") >> (128 - bits)

    def generator(self) -> np.random.Generator:
        """Return a new numpy generator of this key, for code of others that wants one."""
        return np.random.Generator(np.random.Philox(key=self.seed(128)))

    def __str__(self) -> str:
        return self.digest.hex()

    def __repr__(self) -> str:
        return f"Key.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        return Key._of, (self.digest,)

    def normal(self, start: int, stop: int, dim: int, *, like: Array | Like = NUMPY) -> Array:
        """Draw rows `start` to `stop` of a matrix of standard normal numbers.

        Args:
            start: First row.
            stop: One past the last row.
            dim: Length of a row.
            like: An array, or `Like`, whose kind, dtype and device the numbers get.

        Returns:
            Array of shape (stop - start, dim). Half precision is drawn in float32 and rounded.

        Raises:
            TypeError: `like` is no array of float16, bfloat16, float32 or float64.
        """
        return self._draw("normal", start, stop, dim, like)

    def fill_normal(self, out: Array, start: int = 0, *, mean: float = 0.0, std: float = 1.0) -> None:
        """Write rows `start` and so on of `mean` + `std` times the matrix of `normal` into an array.

        A mean and a standard deviation cost torch nothing. Its product and sum may be rounded once instead
        of twice.

        Args:
            out: Shape (n, dim), contiguous, of single or double precision.
            start: First row.
            mean: Added to every number.
            std: What every number is multiplied by before.

        Example:
            >>> out = np.empty((2, 3))
            >>> Key(0).fill_normal(out, 1, mean=5.0)
            >>> bool((out == Key(0).normal(1, 3, 3) + 5).all())
            True
        """
        if start == 0 and len(out) == 1 and out.shape[1] <= _LONGEST_ROW:
            like = Like.of(out)
            if like.device == "cpu" and _by_torch(out.shape[1], like):  # a single block, in fewer calls
                return _fill_torch(self, "normal", (0, 0), out, moments=(mean, std))
        self._fill("normal", out, start, Like.of(out), (mean, std))

    def normal_blocks(
        self,
        start: int,
        stop: int,
        dim: int,
        *,
        like: Array | Like = NUMPY,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> Iterator[tuple[slice, slice, Array]]:
        """Draw the numbers of `fill_normal` a block at a time, for sums over matrices too large to be held.

        Blocks of long rows come column by column, so that a sum over rows stays in the processor's cache
        while it is formed.

        Args:
            start: First row.
            stop: One past the last row.
            dim: Length of a row.
            like: As in `normal`, of single or double precision.
            mean: Added to every number.
            std: What every number is multiplied by before.

        Yields:
            Which rows, counted from `start`, which columns, and their numbers, about 65536 of them. They are
            the caller's until the next block is drawn into the same memory.

        Example:
            >>> total = np.zeros(3)
            >>> for rows, columns, z in Key(0).normal_blocks(0, 100_000, 3):
            ...     total[columns] += z.sum(0)
            >>> bool(np.allclose(total, Key(0).normal(0, 100_000, 3).sum(0)))
            True
        """
        like = like if isinstance(like, Like) else Like.of(like)
        if dim <= _LONGEST_ROW or like.device != "cpu":
            at_once = _PIECE if like.device == "cpu" else _DEVICE_PIECE
            height = _height(dim, like)
            height *= max(1, at_once // (height * max(1, dim)))
            memory = _empty((min(height, max(0, stop - start)), dim), like)
            for first in range(start // height * height, stop, height):
                begin, end = max(start, first), min(stop, first + height)
                part = memory[: end - begin]
                self._fill("normal", part, begin, like, (mean, std))
                yield slice(begin - start, end - start), slice(0, dim), part
            return
        by_torch = _by_torch(dim, like)
        for number, column in enumerate(range(0, dim, _LONGEST_ROW)):
            part = _empty((1, min(_LONGEST_ROW, dim - column)), like)
            for row in range(start, stop):
                if by_torch:
                    _fill_torch(self, "normal", (row, number), part, moments=(mean, std))
                else:
                    _fill_numpy(self, "normal", (row, number), _on_host(part), moments=(mean, std))
                yield slice(row - start, row - start + 1), slice(column, column + part.shape[1]), part

    def fill_quick(
        self, out: torch.Tensor, start: int = 0, *, size: int, mean: float = 0.0, std: float = 1.0
    ) -> None:
        """Fill memory with some of a stretch of normal numbers, in two thirds of the time of `fill_normal`.

        A stretch is drawn by Box and Muller's method, as 2n numbers, where n is half of its size, rounded up
        to a multiple of 64. Pair i of it is made of 48 bits: k is the first 32 of them, and j the others,
        from -32768 to 32767. With

            u = (k + 1/2) / 2^32,    r = sqrt(-2 log u),    t = 2 pi (j + u) / 2^16,

        number i is mean + std r cos t, and number n + i is mean + std r sin t. Where in its 65536th part of
        the circle an angle lies is said by u, so that mean values of all polynomials of the pair of degrees
        below 65536 are those of independent normal numbers. None is beyond 6.8, as one in 10^11 would be.

        The bits are those of SFC64, begun at the 128 bits of the key, 0, and 1 for its counter, less the
        first twelve words: four bytes of k for all pairs, then two of j for all of them.

        Args:
            out: Contiguous float32 torch memory on the CPU, of one dimension.
            start: First number wanted.
            size: Numbers of the stretch, at most 65536. The numbers depend on it.
            mean: Added to every number.
            std: What every number is multiplied by before, at least 0.

        Raises:
            ValueError: The stretch is too long, or `out` reaches beyond it. It may reach up to 2n: a stretch
                is drawn in place where it is asked for as far as that, and copied where not.

        Example:
            >>> import torch
            >>> whole, part = torch.empty(1000), torch.empty(100)
            >>> Key(0).fill_quick(whole, size=1000)
            >>> Key(0).fill_quick(part, 700, size=1000)
            >>> bool((part == whole[700:800]).all())
            True

        References:
            Box and Muller, "A note on the generation of random normal deviates", 1958.
            https://doi.org/10.1214/aoms/1177706645
            Doty-Humphrey, "PractRand" (SFC64), 2010-2018. https://pracrand.sourceforge.net
        """
        stop = start + len(out)
        if not 0 <= start <= stop <= whole_stretch(size) <= QUICK:
            raise ValueError(
                f"`out` must be part of a stretch of at most {QUICK} numbers; got numbers {start} to {stop} "
                f"of {size}. Longer stretches are to be drawn in parts, each by a key of its own."
            )
        _fill_quick(self, out, start, size, mean, std)

    def uniform(self, start: int, stop: int, dim: int, *, like: Array | Like = NUMPY) -> Array:
        """Draw rows `start` to `stop` of a matrix of numbers uniform in [0, 1); see `normal`."""
        return self._draw("uniform", start, stop, dim, like)

    def coarse(self, start: int, stop: int, dim: int, *, like: Array | Like = NUMPY) -> Array:
        """Draw rows `start` to `stop` of a matrix of numbers uniform in 0, 1/65536, ..., 65535/65536.

        For weights and shares that need no more digits: on the CPU it takes a third of `uniform`'s time. On
        other devices the numbers are those of `uniform`; see `normal` for the arguments.
        """
        like = like if isinstance(like, Like) else Like.of(like)
        if like.device != "cpu":
            return self.uniform(start, stop, dim, like=like)
        out = np.empty((stop - start, dim), like.working_dtype)
        for rows, columns, skip, size, words in _blocks(start, stop, dim):
            raw = _philox(self, words).random_raw((skip + size + 3) // 4)
            drawn = raw.astype("<u8", copy=False).view("<u2")[skip : skip + size]
            target = out[rows, columns]
            np.multiply(drawn.reshape(target.shape), target.dtype.type(2.0**-16), out=target)
        return like.asarray(out)

    def rademacher(self, start: int, stop: int, dim: int, *, like: Array | Like = NUMPY) -> Array:
        """Draw rows `start` to `stop` of a matrix of fair signs, -1 or 1; see `normal`.

        The signs are the same for every kind of array and every device: their bits are drawn on the
        CPU, and travel packed, eight to a byte.
        """
        like = like if isinstance(like, Like) else Like.of(like)
        bits = np.empty((stop - start, dim), np.uint8)
        for rows, columns, skip, size, words in _blocks(start, stop, dim):
            raw = _philox(self, words).random_raw((skip + size + 63) // 64)
            drawn = np.unpackbits(raw.astype("<u8", copy=False).view(np.uint8), bitorder="little")
            bits[rows, columns] = drawn[skip : skip + size].reshape(bits[rows, columns].shape)
        if like.kind == "numpy":
            return bits.astype(like.dtype) * 2 - 1
        import torch

        there = torch.from_numpy(bits) if like.device == "cpu" else _travel_packed(bits, like.device)
        return there.to(like.torch_dtype) * 2 - 1

    def integers(self, start: int, stop: int, dim: int, *, high: int) -> np.ndarray[Any, Any]:
        """Draw rows `start` to `stop` of a matrix of integers uniform in 0, ..., high - 1."""
        out = np.empty((stop - start, dim), np.int64)
        for rows, columns, skip, size, words in _blocks(start, stop, dim):
            _philox(self, words)
            drawn = _local().generator.integers(0, high, size=skip + size)
            out[rows, columns] = drawn[skip:].reshape(out[rows, columns].shape)
        return out

    def permutation(self, start: int, stop: int, dim: int) -> np.ndarray[Any, Any]:
        """Draw rows `start` to `stop` of a matrix whose every row is a random order of 0, ..., dim - 1."""
        return np.argsort(self.uniform(start, stop, dim), axis=1, kind="stable")

    def _draw(self, law: str, start: int, stop: int, dim: int, like: Array | Like) -> Array:
        like = like if isinstance(like, Like) else Like.of(like)
        dtype = like.working_dtype
        if dtype not in ("float32", "float64"):
            raise TypeError(f"`like` must have a floating-point dtype of at most 64 bits, got {like.dtype}.")
        work = like if dtype == like.dtype else Like(like.kind, dtype, like.device)
        drawn = _empty((stop - start, dim), work if _by_torch(dim, like) else Like("numpy", dtype))
        self._fill(law, drawn, start, work)
        if law == "uniform" and dtype != like.dtype:
            drawn = drawn.clip(max=1 - like.epsilon / 2)  # what lies above would be rounded to 1
        return like.asarray(drawn)

    def _fill(
        self, law: str, out: Array, start: int, like: Like, moments: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        """Fill `out`, or numpy memory for one of kind `like`, with rows from `start` on."""
        count, dim = out.shape
        if not _by_torch(dim, like):
            target = _on_host(out)
            for rows, columns, skip, _, words in _blocks(start, start + count, dim):
                _fill_numpy(self, law, words, target[rows, columns], skip, moments)
            return
        height = _height(dim, like)
        whole = 0 if like.device == "cpu" or dim > _LONGEST_ROW else height * dim
        for rows, columns, skip, _, words in _blocks(start, start + count, dim, height):
            _fill_torch(self, law, words, out[rows, columns], skip, whole, moments)


_tables: dict[tuple[int, int], dict[Like | None, Array]] = {}  # the numbers, and views and copies by kind
_tables_lock = threading.Lock()
_MOST_TABLES = 2


def clear_cache() -> None:
    """Forget the noise tables of this process; they are built again when they are needed."""
    with _tables_lock:
        _tables.clear()


def seeded_generator(seed: int) -> np.random.Generator:
    """Return numpy's generator of a seed, for what is defined by its numbers, such as a start in Gymnasium.

    Whoever draws what is not defined elsewhere draws from a `Key`.

    Example:
        >>> bool(seeded_generator(3).uniform() == np.random.default_rng(3).uniform())
        True
    """
    return np.random.default_rng(seed)


class NoiseTable:
    """A long row of normal numbers, from which rows are read instead of drawn: as fast as memory is.

    Row i of a matrix under a key is a stretch of the table that begins at a place drawn from the key. So
    rows overlap, and are not quite independent: the table should be many times as long as a row.

    The numbers are float32 and the same for all kinds of arrays and devices. They are drawn by whoever first
    needs them, once in a process, and shared by all who name the same table there; the last two are kept.
    What is pickled is the seed and the size.

    Args:
        seed: Any integer of at least 0.
        size: Length, at least 1.

    Raises:
        TypeError: An argument is no integer.
        ValueError: An argument is below its minimum.

    Example:
        >>> table = NoiseTable(0, 100_000)
        >>> whole = table.normal(Key(1), 0, 4, 1000)
        >>> bool((table.normal(Key(1), 2, 4, 1000) == whole[2:]).all())
        True

    References:
        Salimans, Ho, Chen, Sidor and Sutskever, "Evolution strategies as a scalable alternative to
        reinforcement learning", 2017. https://arxiv.org/abs/1703.03864
    """

    __slots__ = ("seed", "size")

    def __init__(self, seed: int, size: int) -> None:
        for name, value, minimum in (("seed", seed, 0), ("size", size, 1)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"`{name}` must be an integer, got {value!r}.")
            if value < minimum:
                raise ValueError(f"`{name}` must be at least {minimum}, got {value!r}.")
        self.seed, self.size = int(seed), int(size)

    def array(self, like: Array | Like = NUMPY) -> Array:
        """Return the whole table in float32, where `like` is; not to be written to."""
        like = like if isinstance(like, Like) else Like.of(like)
        kind = Like(like.kind, "float32", like.device)
        name = self.seed, self.size
        with _tables_lock:
            copies = _tables.pop(name, {})
            _tables[name] = copies  # the one used last comes last
            if len(_tables) > _MOST_TABLES:
                del _tables[next(iter(_tables))]
            if None not in copies:
                host = Like("numpy", "float32")
                copies[None] = Key(self.seed).fold("noise table").normal(0, 1, self.size, like=host)[0]
            if kind not in copies:
                copies[kind] = kind.asarray(copies[None])[:]  # the same memory where it is the same device
                if kind.kind == "numpy":
                    copies[kind].flags.writeable = False
            return copies[kind]

    def head(self, count: int = 1024) -> np.ndarray[Any, Any]:
        """Return the first numbers, `count` at most and 65536 at most, without the rest being drawn."""
        key, host = Key(self.seed).fold("noise table"), Like("numpy", "float32")
        first = next(key.normal_blocks(0, 1, self.size, like=host))[2]
        return np.array(first[0, :count])

    def adopt(self, numbers: np.ndarray[Any, Any]) -> None:
        """Have this process read the table from memory where its numbers lie already, such as shared memory.

        A table that the process has is kept as it is.

        Args:
            numbers: float32, shape (size,); not to be written to from now on.

        Raises:
            ValueError: They are not the numbers of this table.

        Example:
            >>> table = NoiseTable(0, 1000)
            >>> numbers = table.array().copy()
            >>> clear_cache()
            >>> table.adopt(numbers)
            >>> np.shares_memory(table.array(), numbers)
            True
        """
        is_table = numbers.dtype == np.float32 and numbers.shape == (self.size,)
        if not is_table or not np.array_equal(numbers[:1024], self.head()):
            raise ValueError(
                f"`numbers` must be those of {self!r}, float32 of shape ({self.size},); got {numbers.dtype} "
                f"of shape {numbers.shape}{', which begin with others' if is_table else ''}."
            )
        with _tables_lock:
            copies = _tables.setdefault((self.seed, self.size), {})
            copies.setdefault(None, numbers)
            while len(_tables) > _MOST_TABLES:
                del _tables[next(iter(_tables))]

    def normal(self, key: Key, start: int, stop: int, dim: int, *, like: Array | Like = NUMPY) -> Array:
        """Read rows `start` to `stop` of a matrix; see `Key.normal`.

        Raises:
            ValueError: A row is longer than the table.
        """
        like = like if isinstance(like, Like) else Like.of(like)
        offsets = self._offsets(key, start, stop, dim)
        return like.asarray(_windows(self.array(like), dim)[offsets])

    def normal_blocks(
        self, key: Key, start: int, stop: int, dim: int, *, like: Array | Like = NUMPY
    ) -> Iterator[tuple[slice, slice, Array]]:
        """Read the numbers of `normal` a block at a time, not to be written to; see `Key.normal_blocks`.

        Raises:
            ValueError: A row is longer than the table.
        """
        like = like if isinstance(like, Like) else Like.of(like)
        offsets, table = self._offsets(key, start, stop, dim), self.array(like)
        if dim <= _LONGEST_ROW or like.device != "cpu":
            windows, count = _windows(table, dim), stop - start
            height = max(1, (_PIECE if like.device == "cpu" else _DEVICE_PIECE) // max(1, dim))
            for first in range(0, count, height):
                rows = slice(first, min(first + height, count))
                yield rows, slice(0, dim), like.asarray(windows[offsets[rows]])
            return
        for first in range(0, dim, _LONGEST_ROW):
            columns = slice(first, min(first + _LONGEST_ROW, dim))
            for row, offset in enumerate(offsets.tolist()):
                part = table[None, offset + columns.start : offset + columns.stop]
                yield slice(row, row + 1), columns, like.asarray(part)

    def _offsets(self, key: Key, start: int, stop: int, dim: int) -> np.ndarray[Any, Any]:
        if dim > self.size:
            raise ValueError(f"a noise table of {self.size} numbers has no rows of {dim}.")
        return key.fold("offsets").integers(start, stop, 1, high=self.size - dim + 1)[:, 0]

    def __repr__(self) -> str:
        return f"NoiseTable({self.seed}, {self.size})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoiseTable) and (other.seed, other.size) == (self.seed, self.size)

    def __hash__(self) -> int:
        return hash((self.seed, self.size))

    def __reduce__(self) -> tuple[Any, ...]:
        return NoiseTable, (self.seed, self.size)


def _windows(table: Array, dim: int) -> Array:
    """Return a view whose row i is the stretch of `dim` numbers that begins at i."""
    if isinstance(table, np.ndarray):
        return np.lib.stride_tricks.sliding_window_view(table, dim)
    return table.unfold(0, dim, 1)


def _travel_packed(bits: np.ndarray[Any, Any], device: str) -> torch.Tensor:
    import torch

    packed = torch.from_numpy(np.packbits(bits.reshape(-1), bitorder="little")).to(device)
    shifts = torch.arange(8, dtype=torch.uint8, device=device)
    return ((packed[:, None] >> shifts) & 1).reshape(-1)[: bits.size].reshape(bits.shape)


def _encode(part: str | int) -> bytes:
    # Type and length go in front, so that no two paths can run together into the same bytes.
    if isinstance(part, str):
        data = part.encode()
        return b"s%d:" % len(data) + data
    if isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        return b"i%d;" % part
    raise TypeError(f"a key is folded with names and integers, got {part!r}.")


def _blocks(
    start: int, stop: int, dim: int, height: int | None = None
) -> Iterator[tuple[slice, slice, int, int, tuple[int, int]]]:
    """Yield (rows, columns, elements to skip, elements to keep, block numbers) of a slice of rows."""
    if dim > _LONGEST_ROW:
        for row in range(start, stop):
            for column, first in enumerate(range(0, dim, _LONGEST_ROW)):
                last = min(first + _LONGEST_ROW, dim)
                here = row - start
                yield slice(here, here + 1), slice(first, last), 0, last - first, (row, column)
        return
    height = height or max(1, _BLOCK // max(1, dim))
    for block in range(start // height, -(-stop // height)):
        first, last = max(start, block * height), min(stop, (block + 1) * height)
        skip, size = (first - block * height) * dim, (last - first) * dim
        yield slice(first - start, last - start), slice(0, dim), skip, size, (block, 0)


class _Local:
    """One bit generator per thread: setting its state is five times cheaper than making one."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(key=0)
        self.generator = np.random.Generator(self.bits)
        self.counter = np.zeros(4, np.uint64)
        self.state: Any = {
            "bit_generator": "Philox",
            "state": {"counter": self.counter, "key": np.zeros(2, np.uint64)},
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        self.quick: _Quick | None = None
        self.torch: dict[str, torch.Generator] = {}
        self.twister: torch.Tensor | None = None
        self.words: np.ndarray[Any, Any] = np.empty(0, np.uint64)  # those of the twister


def whole_stretch(size: int) -> int:
    """Return how many numbers `Key.fill_quick` draws for a stretch: a multiple of 128."""
    return -(-size // (2 * _VECTOR)) * 2 * _VECTOR


class _Quick:
    """What `Key.fill_quick` works with in a thread: a generator, and memory that begins at a cache line."""

    def __init__(self) -> None:
        import torch

        self.bits = np.random.SFC64(0)
        self.words = np.array([0, 0, 0, 1], np.uint64)  # three of the state, and the counter
        self.state: Any = {
            "bit_generator": "SFC64",
            "state": {"state": self.words},
            "has_uint32": 0,
            "uinteger": 0,
        }
        # Not a power of two apart, or processors take a load for one of what has just been stored.
        self.memory = torch.empty(3, QUICK // 2)
        self.views: dict[int, tuple[Any, ...]] = {}
        self.least, self.top = torch.tensor(_CELL * 2.0**-33), torch.tensor(_TOP)
        self.mean, self.is_mean = torch.tensor(0.0), 0.0

    def draw(self, key: Key, pairs: int) -> np.ndarray[Any, Any]:
        """Return 48 bits for each of some pairs, a multiple of four, as bytes."""
        self.words[:2] = np.frombuffer(key.digest, "<u8")
        self.bits.state = self.state  # which is copied
        return self.bits.random_raw(12 + pairs * 3 // 4)[12:].astype("<u8", copy=False).view(np.uint8)

    def polar(self, key: Key, pairs: int, first: int, last: int) -> tuple[torch.Tensor, ...]:
        """Return radii over sqrt(2) and angles of some pairs of a stretch, and memory for as many numbers."""
        torch = sys.modules["torch"]
        radius, angle, scratch, radii, angles = self.parts(last - first)
        raw = self.draw(key, pairs)
        np.copyto(radii, raw.view("<u4")[first:last])
        np.copyto(angles, raw.view("<i2")[2 * pairs + first : 2 * pairs + last])
        torch.add(self.least, radius, alpha=_CELL * 2.0**-32, out=radius)
        torch.add(radius, angle, alpha=_CELL, out=angle)
        torch.sub(self.top, radius.log_(), out=radius)
        return radius.sqrt_(), angle, scratch

    def parts(self, pairs: int) -> tuple[Any, ...]:
        """Return memory for so many pairs: radii, angles and more, and the first two as numpy sees them."""
        views = self.views.get(pairs)
        if views is None:
            if len(self.views) == _MOST_VIEWS:
                self.views.clear()
            three = self.memory[:, :pairs].unbind()
            views = self.views[pairs] = (*three, three[0].numpy(), three[1].numpy())
        return views


def _quick() -> _Quick:
    """Return this thread's; made when it is first needed, since it takes torch."""
    local = _local()
    made = local.quick = local.quick or _Quick()
    return made


def _fill_quick(key: Key, out: torch.Tensor, start: int, size: int, mean: float, std: float) -> None:
    """Fill memory with the numbers of a stretch from `start` on.

    All work is on whole vectors in memory that begins with one, so that nothing depends on what is wanted.
    """
    import torch

    quick, half, std = _quick(), whole_stretch(size) // 2, std * math.sqrt(2)
    if mean != quick.is_mean:
        quick.mean.fill_(mean)
        quick.is_mean = mean
    if len(out) == 2 * half and not out.data_ptr() % 64:  # a cache line
        radius, angle, _ = quick.polar(key, half, 0, half)
        for function, into in ((torch.cos, out[:half]), (torch.sin, out[half:])):
            function(angle, out=into)
            torch.addcmul(quick.mean, radius, into, value=std, out=into)
        return
    stop = start + len(out)
    # The pairs of which cosines are wanted, and those of which sines are.
    cosines, sines = (start, min(stop, half)), (max(start - half, 0), stop - half)
    there = [range_ for range_ in (cosines, sines) if range_[0] < range_[1]]
    if not there:
        return
    first = min(range_[0] for range_ in there) // _VECTOR * _VECTOR
    last = -(-max(range_[1] for range_ in there) // _VECTOR) * _VECTOR
    radius, angle, scratch = quick.polar(key, half, first, last)
    for function, (low, high), offset in ((torch.cos, cosines, 0), (torch.sin, sines, half)):
        if low < high:
            function(angle, out=scratch)
            torch.addcmul(quick.mean, radius, scratch, value=std, out=scratch)
            out[low + offset - start : high + offset - start] = scratch[low - first : high - first]


def _local() -> _Local:
    try:
        local: _Local = _LOCAL.value
    except AttributeError:
        local = _LOCAL.value = _Local()
    return local


def _philox(key: Key, block: tuple[int, int]) -> np.random.Philox:
    """Set this thread's Philox to the start of a block, and return it."""
    local = _local()
    if key._words is None:
        key._words = np.frombuffer(key.digest, "<u8").astype(np.uint64)
    local.counter[2], local.counter[3] = block
    local.state["state"]["key"] = key._words
    local.bits.state = local.state
    return local.bits


def _by_torch(dim: int, like: Like) -> bool:
    """Return whether torch draws rows of this length; numpy does where it is faster, or there is no torch."""
    if like.kind == "numpy":
        return False
    return like.device != "cpu" or (like.working_dtype == "float32" and dim >= _TORCH_DIM)


def _height(dim: int, like: Like) -> int:
    """Return how many rows a block has."""
    if not _by_torch(dim, like):
        return max(1, _BLOCK // max(1, dim))
    even = 16 // math.gcd(dim, 16)  # rows that hold a multiple of 16 numbers, and need no buffer on the CPU
    height = max(1, _TORCH_BLOCK // dim)
    return height // even * even or height


def _empty(shape: tuple[int, int], like: Like) -> Array:
    """Return an array of a kind, with anything in it."""
    if like.kind == "numpy":
        return np.empty(shape, like.dtype)
    import torch

    return torch.empty(shape, dtype=like.torch_dtype, device=like.device)


def _on_host(array: Array) -> np.ndarray[Any, Any]:
    """Return the numpy array that shares the memory of another one there."""
    made: np.ndarray[Any, Any] = array if isinstance(array, np.ndarray) else array.numpy()
    return made


def _fill_numpy(
    key: Key,
    law: str,
    block: tuple[int, int],
    target: np.ndarray[Any, Any],
    skip: int = 0,
    moments: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Fill `target`, which is contiguous, with a block's numbers from `skip` on, of mean and deviation."""
    _philox(key, block)
    generator = _local().generator
    fill: Any = generator.standard_normal if law == "normal" else generator.random
    if skip:
        target[...] = fill(skip + target.size, dtype=target.dtype)[skip:].reshape(target.shape)
    else:
        fill(dtype=target.dtype, out=target)
    mean, std = moments
    if std != 1:
        target *= std
    if mean:
        target += mean


def _fill_torch(
    key: Key,
    law: str,
    block: tuple[int, int],
    target: torch.Tensor,
    skip: int = 0,
    whole: int = 0,
    moments: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Fill `target`, which is contiguous, with a block's numbers from `skip` on; see `whole` for how many.

    Args:
        key: Of the matrix.
        law: "normal" or "uniform".
        block: Number of the block.
        target: What is to be filled.
        skip: Numbers in front of those wanted.
        whole: Numbers of the block, where all have to be drawn; else 0.
        moments: Mean and standard deviation of normal numbers.
    """
    import torch

    # On the CPU, `normal_` keeps a prefix only between sizes that are multiples of 16.
    drawn, size, device = whole or skip + target.numel(), target.numel(), str(target.device)
    generator = _torch_generator(key, block, device)
    in_place = drawn == size and size % 16 == 0
    buffer = target if in_place else torch.empty(-(-drawn // 16) * 16, dtype=target.dtype, device=device)
    if law == "normal":
        buffer.normal_(*moments, generator=generator)
    else:
        buffer.uniform_(generator=generator)
    if not in_place:
        target.copy_(buffer[skip : skip + size].view(target.shape))


def _torch_generator(key: Key, block: tuple[int, int], device: str) -> torch.Generator:
    import torch

    local = _local()
    if device not in local.torch:
        local.torch[device] = torch.Generator(device)
    generator = local.torch[device]
    if device != "cpu":
        return generator.manual_seed(key.fold("cuda", *block).seed(63))
    if local.twister is None:
        local.twister = torch.Generator().get_state()
        # The state's layout: seed, left, seeded and next in 24 bytes, 624 words of 8 bytes each, the cached
        # normal. With `left` at 1, as in a new generator, the first number drawn mixes the words.
        local.words = local.twister.numpy()[24 : 24 + 624 * 8].view(np.uint64)
    local.words[:] = _philox(key, block).random_raw(312).view(np.uint32)
    return generator.set_state(local.twister)


_generators = threading.RLock()


@contextlib.contextmanager
def keyed_generators(key: Key) -> Iterator[None]:
    """Run a block with the global generators seeded from `key`, and put them back afterwards.

    Numpy's legacy generator, Python's `random` and torch's default generators, on the CPU and on all
    CUDA devices, are covered, each only where it is loaded. It is how a user's noisy function becomes a
    function of its place in the run. The generators belong to the process, so threads take turns: one
    that is inside keeps the others waiting.

    Warns:
        ZooWarning: The block was the first to import torch, and drew from it: those numbers are not keyed.

    Example:
        >>> with keyed_generators(Key(0)):
        ...     one = np.random.rand()
        >>> with keyed_generators(Key(0)):
        ...     bool(np.random.rand() == one)
        True
    """
    with _generators:
        python = sys.modules.get("random")
        numpy_state = np.random.get_state()
        python_state = python.getstate() if python else None
        words = key.fold("numpy").integers(0, 1, 624, high=2**32)[0].astype(np.uint32)
        try:
            np.random.set_state(("MT19937", words, 624, 0, 0.0))
            if python:
                python.seed(key.fold("python").seed(128))
            with _keyed_torch(key):
                yield
        finally:
            np.random.set_state(numpy_state)
            if python:
                python.setstate(python_state)


@contextlib.contextmanager
def _keyed_torch(key: Key) -> Iterator[None]:
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        torch = sys.modules.get("torch")
        if torch and not torch.equal(torch.get_rng_state(), torch.Generator().get_state()):
            warnings.warn(
                "the objective imported torch while it ran, so torch's random numbers in this evaluation are "
                "not keyed; import torch at the top of the file",
                ZooWarning,
                stacklevel=2,
            )
        return
    # Named one by one, or torch warns where there are several.
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        torch.default_generator.manual_seed(key.fold("torch").seed(32))
        if devices:
            torch.cuda.manual_seed_all(key.fold("cuda").seed(63))
        yield


@contextlib.contextmanager
def rewindable_generators(key: Key) -> Iterator[Callable[[], None]]:
    """Run a block with the global generators seeded from `key`, and a function that puts them back to that.

    It is for functions that are called many times and are to draw the same numbers each time. Covered are
    the generators of numpy, of Python, and of torch on the CPU and, once CUDA is in use, on all its devices.
    The numbers are not those of `keyed_generators`: numpy's generator is exchanged for another one, as to
    read and to write its state takes longer than a small network does.

    Example:
        >>> with rewindable_generators(Key(0)) as rewind:
        ...     one = np.random.rand()
        ...     rewind()
        ...     bool(np.random.rand() == one)
        True
    """
    with _generators:
        generators = _Rewindable(key)
        try:
            try:
                generators.start()
                yield generators.rewind
            finally:
                generators.restore()
        except KeyboardInterrupt:  # which may have come while they were put back
            generators.restore()
            raise
        finally:
            _spare.append(generators.own)


class _Rewindable:
    """The states of the global generators, and keyed ones to exchange them for."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.numpy_seed, self.cuda_seed = key.fold("numpy").seed(32), key.fold("cuda").seed(63)
        self.numpy = _NUMPY.get_bit_generator()
        self.ahead: Any = np.random.get_state(legacy=False)
        # One of the kind that the global one is: `numpy.random.seed` asks for it. To make one takes long.
        self.own = _spare.pop() if _spare else np.random.MT19937(0)
        self.python: Any = sys.modules.get("random")
        self.torch: Any = sys.modules.get("torch")
        self.python_state = self.python.getstate() if self.python else None
        self.torch_state = self.torch.get_rng_state() if self.torch else None
        # Not on devices that nobody uses: to ask for their state is to set them up.
        cuda: Any = getattr(self.torch, "cuda", None)
        self.cuda = cuda.get_rng_state_all() if cuda and cuda.is_initialized() else []

    def start(self) -> None:
        """Seed them, and remember the states of those that take long to seed."""
        _NUMPY.set_bit_generator(self.own)
        np.random.seed(self.numpy_seed)
        if self.python:
            self.python.seed(self.key.fold("python").seed(128))
            self.python_keyed = self.python.getstate()
        if self.torch:
            self.torch.default_generator.manual_seed(self.key.fold("torch").seed(32))
            self.torch_keyed = self.torch.get_rng_state()
        for device in range(len(self.cuda)):
            self.torch.cuda.default_generators[device].manual_seed(self.cuda_seed)

    def rewind(self) -> None:
        _NUMPY.set_bit_generator(self.own)
        np.random.seed(self.numpy_seed)
        if self.python:
            self.python.setstate(self.python_keyed)
        if self.torch:
            self.torch.set_rng_state(self.torch_keyed)
        for device in range(len(self.cuda)):
            self.torch.cuda.default_generators[device].manual_seed(self.cuda_seed)

    def restore(self) -> None:
        _NUMPY.set_bit_generator(self.numpy)
        if self.ahead["has_gauss"]:  # a number drawn ahead, which an exchange forgets
            np.random.set_state(self.ahead)
        if self.python:
            self.python.setstate(self.python_state)
        if self.torch:
            self.torch.set_rng_state(self.torch_state)
        for device, state in enumerate(self.cuda):
            self.torch.cuda.set_rng_state(state, device)


_NUMPY: Any = np.random  # its types leave out that the global generator can be exchanged
_spare: list[np.random.MT19937] = []  # as many as blocks were ever nested


def generator_states() -> tuple[Any, ...]:
    """Return where the global generators are, of numpy, Python, and torch on the CPU and all CUDA devices.

    Those of modules that are not loaded are left out.
    """
    python, torch = sys.modules.get("random"), sys.modules.get("torch")
    numpy_state = np.random.get_state(legacy=True)
    devices = range(torch.cuda.device_count()) if torch else ()
    return (
        numpy_state,
        python.getstate() if python else None,
        torch.get_rng_state() if torch else None,
        [torch.cuda.get_rng_state(device) for device in devices] if torch else [],
    )


def set_generators(states: tuple[Any, ...]) -> None:
    """Put the global generators to where `generator_states` found them."""
    numpy_state, python_state, torch_state, devices = states
    now: Any = np.random.get_state(legacy=True)
    if now[2:] != numpy_state[2:] or not np.array_equal(now[1], numpy_state[1]):
        np.random.set_state(numpy_state)
    python, torch = sys.modules.get("random"), sys.modules.get("torch")
    if python_state is not None and python and python.getstate() != python_state:
        python.setstate(python_state)
    if torch_state is None or torch is None:
        return
    if not torch.equal(torch.get_rng_state(), torch_state):
        torch.set_rng_state(torch_state)
    for device, there in enumerate(devices):
        torch.cuda.set_rng_state(there, device)
