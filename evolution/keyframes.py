"""Keyframes: parents written down as they are, so that who comes late need not decode their past."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evolution.genome import Codec, Genome

Array = np.ndarray[Any, Any]

KEPT = 2
"""Keyframes that are kept: the newest ones."""

_NAME = re.compile(r"\d{6,}\.safetensors")
_FORMAT = "gradfree keyframe 1"
_MARK, _SUM = 16, 32  # bytes


@dataclass(frozen=True, slots=True)
class Keyframes:
    """A folder of decoded parents, which all that can read it use, and nobody needs.

    A file `000025.safetensors` holds the parents of a generation: "rows", float32 of shape (t, dim), "marks",
    by which genomes are known (`evolution.genome.mark`), "genomes", packed one behind the other, "ends" of
    those, and the sha256 of each mark and its row, "sums". What is missing, damaged or of another codec is
    passed over: then mutations are applied from further back, and the bits are the same.

    Args:
        directory: Its path.

    Example:
        >>> import tempfile
        >>> from evolution.policies.policy import Piece
        >>> from zoo.core.rng import NoiseTable
        >>> codec = Codec(NoiseTable(0, 10_000), (Piece("w", (10, 20), 0.1),))
        >>> genome = Genome([1, 2, 3], [1.0, 0.5, 0.5])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     keyframes = Keyframes(folder)
        ...     name = keyframes.write(25, codec, [genome]).name
        ...     index, row = keyframes.find(codec, genome.child(4, 0.5).marks[::-1])
        >>> name, index, bool((row == codec.decode(genome)).all())
        ('000025.safetensors', 1, True)
    """

    directory: str

    def write(
        self,
        generation: int,
        codec: Codec,
        genomes: Sequence[Genome],
        known: Callable[[bytes], Any] = lambda _: None,
    ) -> Path:
        """Write the parents of a generation, and remove all but the newest two keyframes.

        They are decoded one by one, from the keyframe before where there is one, so that no more than one is
        held.

        Args:
            generation: Its number.
            codec: What decodes them.
            genomes: Of the parents.
            known: Returns the parameters of a genome by its mark, None where they are not at hand.

        Raises:
            OSError: The file cannot be written; the ones before are there still.
        """
        folder = Path(self.directory)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{generation:06d}.safetensors"
        beside = folder / f".{path.name}.{os.getpid()}"
        packed = [genome.pack(codec) for genome in genomes]
        marks = np.frombuffer(b"".join(genome.marks[-1] for genome in genomes), np.uint8)
        tensors = {
            "rows": ("F32", (len(genomes), codec.dim), 4 * len(genomes) * codec.dim),
            "marks": ("U8", (len(genomes), _MARK), marks.nbytes),
            "ends": ("I64", (len(genomes),), 8 * len(genomes)),
            "genomes": ("U8", (sum(map(len, packed)),), sum(map(len, packed))),
            "sums": ("U8", (len(genomes), _SUM), _SUM * len(genomes)),
        }
        try:
            with beside.open("wb") as file:
                metadata = {"format": _FORMAT, "codec": codec.digest, "generation": str(generation)}
                file.write(_head(tensors, metadata))
                sums = []
                for genome, row in zip(genomes, self._decoded(codec, genomes, known), strict=True):
                    data = row.astype("<f4", copy=False).data
                    file.write(data)
                    sums.append(_sum(genome.marks[-1], data))
                file.write(marks.tobytes())
                file.write(np.cumsum([len(part) for part in packed]).astype("<i8").tobytes())
                file.write(b"".join(packed + sums))
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        for old in self.paths()[KEPT:]:
            old.unlink(missing_ok=True)
        for stray in folder.glob(".*.safetensors.*"):
            stray.unlink(missing_ok=True)
        return path

    def paths(self) -> list[Path]:
        """Return the files there are, the newest first."""
        try:
            found = [path for path in Path(self.directory).iterdir() if _NAME.fullmatch(path.name)]
        except OSError:
            return []
        return sorted(found, key=lambda path: int(path.stem), reverse=True)

    def find(self, codec: Codec, marks: Sequence[bytes]) -> tuple[int, Array] | None:
        """Return the first of some genomes that is written down, as its index and its parameters.

        Args:
            codec: What decodes them.
            marks: By which they are known, the one wanted most at the front.
        """
        wanted = {name: index for index, name in reversed(list(enumerate(marks)))}
        found = []
        for path in self.paths():
            content = _content(path, codec)
            if content is not None:
                here = ((wanted.get(name), place) for place, name in enumerate(content.marks))
                found += [(index, content, place) for index, place in here if index is not None]
        for index, content, place in sorted(found, key=lambda entry: entry[0]):
            row = content.row(place)
            if row is not None:
                return index, row
        return None

    def _decoded(
        self, codec: Codec, genomes: Sequence[Genome], known: Callable[[bytes], Any]
    ) -> Iterator[Array]:
        for genome in genomes:
            row = known(genome.marks[-1])
            if row is None:
                found = self.find(codec, genome.marks[::-1])
                if found is None:
                    row = codec.decode(genome)
                else:
                    since, row = len(genome) - found[0], found[1].copy()
                    codec.advance(row, genome.seeds[since:], genome.sigmas[since:])
            yield row


class _Content:
    """A keyframe that lies there whole, as far as its length tells.

    Attributes:
        marks: By which its genomes are known.
    """

    def __init__(self, path: Path, codec: Codec) -> None:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > 2**20:
                raise ValueError("no head is as long as that")
            head = json.loads(file.read(size))
        said = head["__metadata__"]
        if said["format"] != _FORMAT or said["codec"] != codec.digest:
            raise ValueError("it is of another codec")
        count = len(data := np.memmap(path, np.uint8, "r", 8 + size))
        parts = {name: data[slice(*entry["data_offsets"])] for name, entry in head.items() if name[0] != "_"}
        if max(entry["data_offsets"][1] for name, entry in head.items() if name[0] != "_") != count:
            raise ValueError("it has another length than it says")
        self.marks = [bytes(mark) for mark in parts["marks"].reshape(-1, _MARK)]
        self._sums = parts["sums"].reshape(len(self.marks), _SUM)
        self._rows = parts["rows"].reshape(len(self.marks), 4 * codec.dim)

    def row(self, place: int) -> Array | None:
        """Return the parameters of one of its genomes, or None where they are damaged."""
        data = np.ascontiguousarray(self._rows[place])
        if _sum(self.marks[place], data.data) != bytes(self._sums[place]):
            return None
        return data.view("<f4").astype(np.float32, copy=False)


def _sum(mark: bytes, data: memoryview) -> bytes:
    total = hashlib.sha256(mark)
    total.update(data)
    return total.digest()


def _content(path: Path, codec: Codec) -> _Content | None:
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, struct.error):
        return _Content(path, codec)
    return None


def _head(tensors: dict[str, tuple[str, tuple[int, ...], int]], metadata: dict[str, str]) -> bytes:
    """Return how a safetensors file of some tensors begins."""
    head: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name, (dtype, shape, size) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    data = json.dumps(head).encode()
    data += b" " * (-len(data) % 8)
    return struct.pack("<Q", len(data)) + data
