"""Data to learn from: bundled with scikit-learn, or from a local folder. Nothing is downloaded."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.core.rng import Key
from zoo.core.validation import check_choice
from zoo.problems.cifar import load_cifar10
from zoo.problems.digits import NUM_TRAINED, shuffled_digits

Array = np.ndarray[Any, Any]

BUNDLED = ("digits", "breast-cancer")
"""Data that comes with scikit-learn."""

PUBLISHED = ("mnist", "cifar-10", "covertype")
"""Data that is read from a folder in the format in which it is published."""

_MNIST = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
_MNIST_FOLDERS = ("", "raw", "MNIST/raw")
_COVERTYPE = "covtype.data"
_COLUMNS = 55  # 54 features and the label


class Examples(NamedTuple):
    """Examples to train on, and others to test with.

    Attributes:
        inputs: To train on, shape (n, ...), single precision.
        labels: From 0, shape (n,).
        test_inputs: To test with, shape (m, ...).
        test_labels: Shape (m,).
    """

    inputs: Array
    labels: Array
    test_inputs: Array
    test_labels: Array

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return 1 + int(max(self.labels.max(), self.test_labels.max()))


def load(name: str, folder: str | os.PathLike[str] | None = None) -> Examples:
    """Return data by name.

    Args:
        name: One of `BUNDLED`, or one of `PUBLISHED` along with a folder.
        folder: Where the files are.

    Raises:
        ValueError: There is no such data, a folder is missing or is not needed, or a file is damaged.
        FileNotFoundError: The folder does not hold the files.
        ModuleNotFoundError: scikit-learn is not installed.

    Example:
        >>> load("digits").inputs.shape
        (1437, 64)
    """
    check_choice("data", name, (*BUNDLED, *PUBLISHED))
    if name in BUNDLED:
        if folder is not None:
            raise ValueError(f"`folder` must be left out with {name!r}, which is bundled, got {folder!r}.")
        return digits() if name == "digits" else breast_cancer()
    if folder is None:
        raise ValueError(f"`folder` must be given with {name!r}: where its files are. None are downloaded.")
    read = {"mnist": load_mnist, "cifar-10": _cifar, "covertype": load_covertype}[name]
    return read(folder)


@functools.cache
def digits() -> Examples:
    """Return scikit-learn's digits, 8 x 8 pixels from 0 to 1 in a row: 1437 to train on, 360 to test with.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Source of the data: E. Alpaydin and C. Kaynak, *Optical recognition of handwritten digits*, 1998,
    https://doi.org/10.24432/C50P49, as bundled with scikit-learn (no download).
    """
    _need_sklearn("digits")
    images, labels = shuffled_digits()
    return Examples(images[:NUM_TRAINED], labels[:NUM_TRAINED], images[NUM_TRAINED:], labels[NUM_TRAINED:])


@functools.cache
def breast_cancer() -> Examples:
    """Return scikit-learn's breast cancer data, 30 features and two classes: 285 to train on, 284 others.

    Features have the mean 0 and the deviation 1 among those to train on.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Source of the data: W. Wolberg, O. Mangasarian, N. Street and W. Street, *Breast cancer Wisconsin
    (diagnostic)*, 1993, https://doi.org/10.24432/C5DW2B, as bundled with scikit-learn (no download).
    """
    _need_sklearn("breast-cancer")
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    return _halved(features, labels, "breast-cancer")


def load_mnist(folder: str | os.PathLike[str]) -> Examples:
    """Return MNIST, images of 28 x 28 pixels from 0 to 1: 60,000 to train on and 10,000 to test with.

    Args:
        folder: What holds the four published files train-images-idx3-ubyte, train-labels-idx1-ubyte,
            t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, as they are or with .gz behind them; or a
            folder in which they lie in MNIST/raw, where torchvision puts them.

    Raises:
        FileNotFoundError: There is no such folder, or a file is missing.
        ValueError: A file is cut off, or holds something else; the message names it.

    Source of the data: Y. LeCun, C. Cortes and C. Burges, *The MNIST database of handwritten digits*, 1998,
    https://yann.lecun.com/exdb/mnist; also https://ossci-datasets.s3.amazonaws.com/mnist/.
    """
    where = _existing(folder, "MNIST")
    places = [where / inner for inner in _MNIST_FOLDERS]
    files = {name: _first(places, _spellings(file)) for name, file in _MNIST.items()}
    absent = [_MNIST[name] for name, path in files.items() if path is None]
    if absent:
        raise FileNotFoundError(
            f"`folder` must hold the four files of MNIST, as they are published or unpacked, and "
            f"{str(where)!r} has no {', '.join(absent)}. They are at "
            "https://ossci-datasets.s3.amazonaws.com/mnist/."
        )
    read = {name: _idx(path, 3 if "images" in name else 1) for name, path in files.items() if path}
    for split in ("train", "test"):
        images, labels = read[f"{split}_images"], read[f"{split}_labels"]
        if len(images) != len(labels):
            raise ValueError(
                f"{files[f'{split}_labels']} must hold as many labels as there are images, {len(images)}, "
                f"got {len(labels)}."
            )
        if labels.max() > 9:
            raise ValueError(f"{files[f'{split}_labels']} must hold labels from 0 to 9, got {labels.max()}.")
    pixels = {name: read[name].astype(np.float32) / np.float32(255) for name in read if "images" in name}
    numbers = {name: read[name].astype(np.int64) for name in read if "labels" in name}
    return Examples(
        pixels["train_images"], numbers["train_labels"], pixels["test_images"], numbers["test_labels"]
    )


def load_covertype(folder: str | os.PathLike[str]) -> Examples:
    """Return Covertype, 54 features of 581,012 places and seven kinds of forest: a half to train on.

    Features have the mean 0 and the deviation 1 among those to train on. The halves are always the same.

    Args:
        folder: What holds the published file covtype.data, or covtype.data.gz.

    Raises:
        FileNotFoundError: There is no such folder, or not the file in it.
        ValueError: The file is cut off, or holds something else.

    Source of the data: J. Blackard, *Covertype*, 1998, https://doi.org/10.24432/C50K5N,
    https://archive.ics.uci.edu/dataset/31/covertype.
    """
    where = _existing(folder, "Covertype")
    path = _first([where, where / "covertype"], [_COVERTYPE, f"{_COVERTYPE}.gz"])
    if path is None:
        raise FileNotFoundError(
            f"`folder` must hold {_COVERTYPE} or {_COVERTYPE}.gz, and {str(where)!r} does not. It is at "
            "https://archive.ics.uci.edu/dataset/31/covertype."
        )
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            table = np.loadtxt(lines, np.int32, delimiter=",", ndmin=2)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no {_COVERTYPE}, or is cut off: {error}") from error
    if table.shape[1] != _COLUMNS or len(table) < 2:
        raise ValueError(
            f"{path} must hold rows of {_COLUMNS} numbers, got {len(table)} of {table.shape[1]}: it is "
            "another file."
        )
    labels = table[:, -1].astype(np.int64) - 1
    if labels.min() < 0 or labels.max() > 6:
        wrong = int(labels[(labels < 0) | (labels > 6)][0]) + 1
        raise ValueError(f"{path} must hold labels from 1 to 7 in its last column, got {wrong}.")
    return _halved(table[:, :-1], labels, "covertype")


def _cifar(folder: str | os.PathLike[str]) -> Examples:
    found = load_cifar10(folder)
    return Examples(found.train_images, found.train_labels, found.test_images, found.test_labels)


def _need_sklearn(name: str) -> None:
    if importlib.util.find_spec("sklearn") is None:
        raise ModuleNotFoundError(
            f"the data {name!r} comes with scikit-learn: pip install 'gradfree[gp]'", name="sklearn"
        )


def _halved(features: Array, labels: Array, name: str) -> Examples:
    """Return standardised examples, a random half to train on, which is always the same."""
    order = Key(0).fold(name).permutation(0, 1, len(labels))[0]
    half = -(-len(labels) // 2)
    train, test = order[:half], order[half:]
    mean, deviation = features[train].mean(0), features[train].std(0)
    scale = np.where(deviation > 0, deviation, 1.0)

    def scaled(rows: Array) -> Array:
        return ((features[rows] - mean) / scale).astype(np.float32)

    return Examples(
        scaled(train), labels[train].astype(np.int64), scaled(test), labels[test].astype(np.int64)
    )


def _existing(folder: str | os.PathLike[str], what: str) -> Path:
    where = Path(folder)
    if not where.is_dir():
        raise FileNotFoundError(f"`folder` must be a folder with the files of {what}, got {str(where)!r}.")
    return where


def _first(places: list[Path], names: list[str]) -> Path | None:
    """Return the first file there is."""
    return next((place / name for place in places for name in names if (place / name).is_file()), None)


def _spellings(name: str) -> list[str]:
    """Return how a file of MNIST may be called: some programs unpack it with a dot in its name."""
    dotted = name.replace("-idx", ".idx")
    return [name, dotted, f"{name}.gz", f"{dotted}.gz"]


def _idx(path: Path, dimensions: int) -> Array:
    """Return the bytes in a file of the format IDX."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged, or cut off: {error}") from error
    head = 4 + 4 * dimensions
    magic = 0x800 + dimensions
    if len(content) < head or struct.unpack(">I", content[:4])[0] != magic:
        raise ValueError(
            f"{path} must begin with the number {magic} of the format IDX, got bytes {content[:4].hex()}: it "
            "is another file."
        )
    shape = struct.unpack(f">{dimensions}I", content[4:head])
    expected = head + int(np.prod(shape))
    if len(content) != expected or not shape[0]:
        raise ValueError(
            f"{path} must hold {expected} bytes, as its head says, got {len(content)}: it is cut off."
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
