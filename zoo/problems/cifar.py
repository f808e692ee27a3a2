"""CIFAR-10 from a local folder, in either of the formats in which it is published."""

from __future__ import annotations

import io
import os
import pickletools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of the red, green and blue of all images to train on, from 0 for black to 1."""

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_PIXELS = 3 * 32 * 32
_TRAIN, _TEST = tuple(f"data_batch_{number}" for number in range(1, 6)), "test_batch"
_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")


class Cifar10(NamedTuple):
    """Normalised images, shape (n, 3, 32, 32), single precision, and labels from 0 to 9, shape (n,)."""

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array


def load_cifar10(folder: str | os.PathLike[str]) -> Cifar10:
    """Return CIFAR-10: 50,000 images of 32 x 32 pixels to train on and 10,000 to test with, of ten classes.

    Nothing is downloaded. The folder is what the published archives hold when they are unpacked, or the one
    they were unpacked in: `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin` of the binary
    version, or files of the same names without an ending of the version for Python. The latter are pickles.
    They are never loaded as such: of what a pickle can say, only what these files hold is understood, and
    nothing that they name is ever imported or called.

    Colours are divided by 255, less the mean, divided by the standard deviation of their channel. Black is
    then `-MEAN / DEVIATION`.

    Args:
        folder: Where the files are.

    Raises:
        FileNotFoundError: There is no such folder, or a file is missing.
        ValueError: A file is cut off, or holds something else; the message names it.

    Source of the data: A. Krizhevsky, *Learning multiple layers of features from tiny images*, 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html
    """
    where, ending = _found(Path(folder))
    read = _read_binary if ending else _read_pickled
    parts = [read(where / f"{name}{ending}") for name in (*_TRAIN, _TEST)]
    images = np.concatenate([images for images, _ in parts[:-1]])
    labels = np.concatenate([labels for _, labels in parts[:-1]])
    return Cifar10(_normalised(images), labels, _normalised(parts[-1][0]), parts[-1][1])


def _normalised(images: Array) -> Array:
    mean, deviation = (np.array(numbers, np.float32)[:, None, None] for numbers in (MEAN, DEVIATION))
    out = images.reshape(-1, 3, 32, 32) / np.float32(255)
    out -= mean
    out /= deviation
    return out


def _found(folder: Path) -> tuple[Path, str]:
    """Return the folder with the files, and their ending."""
    if not folder.is_dir():
        raise FileNotFoundError(f"`folder` must be a folder with the files of CIFAR-10, got {str(folder)!r}.")
    missing: dict[Path, list[str]] = {}
    for where in (folder, *(folder / name for name in _FOLDERS)):
        for ending in (".bin", ""):
            paths = [where / f"{name}{ending}" for name in (*_TRAIN, _TEST)]
            absent = [path.name for path in paths if not path.is_file()]
            if not absent:
                return where, ending
            if len(absent) < len(paths):
                missing[where] = absent
    for where, absent in missing.items():
        raise FileNotFoundError(f"{where} holds some files of CIFAR-10, but no {', '.join(absent)}.")
    archives = [path.name for path in sorted(folder.glob("cifar-10*.tar.gz"))]
    advice = f"unpack {archives[0]} there" if archives else "unpack the published archive there"
    raise FileNotFoundError(
        f"`folder` must hold data_batch_1.bin to data_batch_5.bin and test_batch.bin, or the same without an "
        f"ending, and {str(folder)!r} does not; {advice}."
    )


def _read_binary(path: Path) -> tuple[Array, Array]:
    """Return images and labels of a file whose records are a label and 3072 bytes of pixels."""
    content = np.fromfile(path, np.uint8)
    if not len(content) or len(content) % (1 + _PIXELS):
        raise ValueError(
            f"{path} must hold records of {1 + _PIXELS} bytes, got {len(content)} bytes: it is cut off, or "
            "no such file."
        )
    records = content.reshape(-1, 1 + _PIXELS)
    return records[:, 1:], _labels(path, records[:, 0].astype(np.int64))


def _read_pickled(path: Path) -> tuple[Array, Array]:
    """Return images and labels of a pickled dictionary with "data" and "labels"."""
    try:
        content = _parsed(path.read_bytes())
        images, labels = content["data"], content["labels"]
        if not isinstance(images, _Array):
            raise TypeError("the images are no array")
        pixels = images.numbers()
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no file of CIFAR-10 for Python, or is cut off: {type(error).__name__}: {error}"
        ) from error
    if pixels.ndim != 2 or pixels.shape[1] != _PIXELS or not len(pixels):
        raise ValueError(f"{path} must hold images of {_PIXELS} numbers, got shape {pixels.shape}.")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise ValueError(f"{path} must hold as many labels as images, {len(pixels)}.")
    if not all(type(label) is int for label in labels):
        raise ValueError(f"{path} must hold integers as labels.")
    return pixels, _labels(path, np.array(labels, np.int64))


def _labels(path: Path, labels: Array) -> Array:
    if labels.min() < 0 or labels.max() > 9:
        worst = int(labels[(labels < 0) | (labels > 9)][0])
        raise ValueError(f"{path} must hold labels from 0 to 9, got {worst}: it is damaged, or another set.")
    return labels


class _Array:
    """What a pickle says of an array."""

    state: tuple[Any, ...] = ()

    def numbers(self) -> Array:
        """Return the array, if it is one of bytes."""
        _, shape, dtype, by_columns, content = self.state
        if not isinstance(dtype, _Dtype) or dtype.name != "u1":
            raise ValueError("the images are not of bytes")
        flat = np.frombuffer(content.encode("latin-1") if isinstance(content, str) else content, np.uint8)
        return flat.reshape(shape, order="F" if by_columns else "C")


class _Dtype:
    """What a pickle says of a dtype."""

    state: tuple[Any, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name


# What the files name, and what is made of the arguments that it is called with.
_NAMED = {
    "numpy.core.multiarray _reconstruct": lambda *_: _Array(),
    "numpy._core.multiarray _reconstruct": lambda *_: _Array(),
    "numpy ndarray": None,  # named as an argument only
    "numpy dtype": lambda name, *_: _Dtype(name),
    "_codecs encode": lambda text, *_: text.encode("latin-1"),  # bytes, as Python 3 writes them for Python 2
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MARK = object()


def _parsed(content: bytes) -> Any:
    """Return what a pickle of protocol 2 says, if it says nothing but what the files do.

    Raises:
        ValueError: It says something else, or ends too early.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = len(stack) - 1 - stack[::-1].index(_MARK)
        items = stack[start + 1 :]
        del stack[start:]
        return items

    argument: Any
    for operation, argument, _ in pickletools.genops(io.BytesIO(content)):
        name = operation.name
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("BININT", "BININT1", "BININT2", "BINUNICODE", "BINSTRING", "SHORT_BINSTRING"):
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "GLOBAL":
            if argument not in _NAMED:
                raise ValueError(f"it names {argument.replace(' ', '.')!r}")
            stack.append(_NAMED[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            length = int(name[-1])
            stack[-length:] = [tuple(stack[-length:])]
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name == "APPENDS":
            items = since_mark()
            stack[-1].extend(items)
        elif name == "APPEND":
            item = stack.pop()
            stack[-1].append(item)
        elif name == "SETITEMS":
            items = since_mark()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            stack[-1][key] = value
        elif name == "REDUCE":
            arguments, make = stack.pop(), stack.pop()
            stack.append(make(*arguments))
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"it holds the instruction {name}")
    return stack.pop()
