"""CIFAR-10 from a folder, in both formats, and what is no CIFAR-10."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from zoo.core.rng import Key
from zoo.problems.cifar import DEVIATION, MEAN, load_cifar10

NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
COUNT = 7  # images of a file


class OfPython2(pickle._Pickler):
    """Writes strings and bytes as Python 2 did, in which the published files were made."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, text: str | bytes) -> None:
        content = text.encode("latin-1") if isinstance(text, str) else text
        short = len(content) < 256
        self.write(b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content)))
        self.write(content)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_string


def pickled(content: Any) -> bytes:
    out = io.BytesIO()
    OfPython2(out, protocol=2).dump(content)
    # Numpy 2 says where its functions are now.
    return out.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def examples(number: int) -> tuple[np.ndarray, np.ndarray]:
    key = Key(number)
    pixels = key.fold("pixels").integers(0, COUNT, 3072, high=256).astype(np.uint8)
    return pixels, key.fold("labels").integers(0, COUNT, 1, high=10)[:, 0]


def as_binary(folder: Path) -> Path:
    for number, name in enumerate(NAMES):
        pixels, labels = examples(number)
        (folder / f"{name}.bin").write_bytes(np.column_stack([labels.astype(np.uint8), pixels]).tobytes())
    return folder


def content_of(number: int) -> dict[str, Any]:
    pixels, labels = examples(number)
    return {
        "batch_label": f"training batch {number + 1} of 5",
        "labels": labels.tolist(),
        "data": pixels,
        "filenames": [f"{label}_{row}.png" for row, label in enumerate(labels)],
    }


def as_pickles(folder: Path) -> Path:
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(pickled(content_of(number)))
    return folder


FORMATS = {"binary": as_binary, "python": as_pickles}


@pytest.mark.parametrize("name", FORMATS)
def test_images_and_labels_by_hand(name: str, tmp_path: Path) -> None:
    data = load_cifar10(FORMATS[name](tmp_path))
    assert data.train_images.shape == (5 * COUNT, 3, 32, 32)
    assert data.test_images.shape == (COUNT, 3, 32, 32)
    assert data.train_images.dtype == np.float32
    assert data.train_labels.dtype == np.int64
    for number in range(5):
        pixels, labels = examples(number)
        rows = slice(number * COUNT, (number + 1) * COUNT)
        assert data.train_labels[rows].tolist() == labels.tolist()
        # The red of all pixels comes first, row by row of the image.
        for channel, row, column in ((0, 0, 0), (1, 3, 31), (2, 31, 5)):
            colour = pixels[:, channel * 1024 + row * 32 + column] / 255
            expected = (colour - MEAN[channel]) / DEVIATION[channel]
            assert data.train_images[rows, channel, row, column] == pytest.approx(
                expected, rel=1e-5, abs=1e-6
            )
    assert data.test_labels.tolist() == examples(5)[1].tolist()


def test_both_formats_say_the_same(tmp_path: Path) -> None:
    for name in FORMATS:
        (tmp_path / name).mkdir()
    one, two = (load_cifar10(write(tmp_path / name)) for name, write in FORMATS.items())
    assert all((left == right).all() for left, right in zip(one, two, strict=True))


def test_pickles_of_python_3_are_read(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(pickle.dumps(content_of(number), protocol=2))
    assert load_cifar10(tmp_path).test_labels.tolist() == examples(5)[1].tolist()


def test_published_pickles_use_the_instructions_of_python_2() -> None:
    names = {operation.name for operation, _, _ in pickletools.genops(pickled(content_of(0)))}
    assert {"SHORT_BINSTRING", "BINSTRING"} <= names
    assert "BINUNICODE" not in names


@pytest.mark.parametrize("name", ["cifar-10-batches-bin", "cifar-10-batches-py"])
def test_the_folder_of_the_archive_is_found(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (as_binary if name.endswith("bin") else as_pickles)(tmp_path / name)
    assert len(load_cifar10(str(tmp_path)).test_labels) == COUNT


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    as_pickles(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({**content_of(2), "labels": Harmful()}, protocol=2))
    with pytest.raises(ValueError, match=r"data_batch_3 is no file of CIFAR-10 for Python.*mkdir"):
        load_cifar10(tmp_path)
    assert not (tmp_path / "harm").exists()


def damage(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def applied(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return applied


def hold(**changed: Any) -> Callable[[bytes], bytes]:
    return lambda _: pickled({**content_of(1), **changed})


PIXELS = examples(1)[0]
DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "cut off": (
        "binary",
        damage("data_batch_2.bin", lambda old: old[:-1]),
        r"data_batch_2\.bin must hold records",
    ),
    "empty": (
        "binary",
        damage("test_batch.bin", lambda old: b""),
        r"test_batch\.bin must hold records of 3073",
    ),
    "a label": (
        "binary",
        damage("data_batch_1.bin", lambda old: b"\x0a" + old[1:]),
        r"data_batch_1\.bin must hold labels from 0 to 9, got 10",
    ),
    "pickle cut off": (
        "python",
        damage("test_batch", lambda old: old[:-300]),
        "test_batch is no file of CIFAR-10",
    ),
    "no pickle": (
        "python",
        damage("data_batch_4", lambda old: b"words"),
        "data_batch_4 is no file of CIFAR-10",
    ),
    "no images": ("python", damage("data_batch_2", hold(data=[1, 2])), "the images are no array"),
    "floats": ("python", damage("data_batch_2", hold(data=PIXELS / 1.0)), "the images are not of bytes"),
    "other size": (
        "python",
        damage("data_batch_2", hold(data=PIXELS[:, 1:])),
        r"images of 3072 numbers, got shape",
    ),
    "fewer labels": ("python", damage("data_batch_2", hold(labels=[1])), "as many labels as images, 7"),
    "no labels": ("python", damage("data_batch_2", hold(labels=["a"] * 7)), "must hold integers as labels"),
    "newer pickle": (
        "python",
        damage("data_batch_2", lambda _: pickle.dumps(content_of(1), protocol=5)),
        "it holds the instruction FRAME",
    ),
    "a hundred classes": (
        "python",
        damage("data_batch_2", lambda _: pickled({"data": PIXELS, "fine_labels": [0] * 7})),
        "KeyError: 'labels'",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    kind, applied, match = DAMAGES[name]
    applied(FORMATS[kind](tmp_path))
    with pytest.raises(ValueError, match=match):
        load_cifar10(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be a folder"):
        load_cifar10(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="unpack the published archive there"):
        load_cifar10(tmp_path)
    (tmp_path / "cifar-10-binary.tar.gz").touch()
    with pytest.raises(FileNotFoundError, match=r"unpack cifar-10-binary\.tar\.gz there"):
        load_cifar10(tmp_path)
    as_binary(tmp_path)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"some files of CIFAR-10, but no data_batch_4\.bin"):
        load_cifar10(tmp_path)


def test_arrays_stored_by_columns_are_read(tmp_path: Path) -> None:
    as_pickles(tmp_path)
    turned = {**content_of(5), "data": np.asfortranarray(examples(5)[0])}
    before = load_cifar10(tmp_path).test_images
    (tmp_path / "test_batch").write_bytes(pickled(turned))
    assert (load_cifar10(tmp_path).test_images == before).all()
