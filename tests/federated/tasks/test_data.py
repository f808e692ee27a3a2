"""Data from folders in the formats in which it is published, written here, and what is none of it."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets  # noqa: F401 - what it imports draws from Python's generator, once

from federated.tasks import data
from federated.tasks.attack import attack
from federated.tasks.data import breast_cancer, digits, load, load_covertype, load_mnist
from zoo.core.rng import Key

LABELS = {"train": np.arange(40) % 10, "t10k": np.arange(30) % 10}


def patterns(labels: np.ndarray, size: int) -> np.ndarray:
    """Return pixels of which a tenth, another one for each label, is brighter."""
    dark = Key(len(labels)).integers(0, len(labels), size, high=100)
    return dark + 150 * (np.arange(size) * 10 // size == labels[:, None])


PIXELS = {split: patterns(labels, 784) for split, labels in LABELS.items()}


def mnist(folder: Path, ending: str = "", dot: str = "-") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in PIXELS:
        images, labels = PIXELS[split].astype(np.uint8), LABELS[split].astype(np.uint8)
        heads = struct.pack(">4I", 2051, len(images), 28, 28), struct.pack(">2I", 2049, len(labels))
        for name, content in (
            (f"{split}-images{dot}idx3-ubyte", heads[0] + images.tobytes()),
            (f"{split}-labels{dot}idx1-ubyte", heads[1] + labels.tobytes()),
        ):
            (folder / f"{name}{ending}").write_bytes(gzip.compress(content) if ending else content)
    return folder


@pytest.mark.parametrize(
    ("inner", "ending", "dot"), [("", "", "-"), ("", ".gz", "-"), ("MNIST/raw", "", "-"), ("", "", ".")]
)
def test_mnist(tmp_path: Path, inner: str, ending: str, dot: str) -> None:
    mnist(tmp_path / inner, ending, dot)
    found = load("mnist", tmp_path)
    assert found.inputs.shape == (40, 28, 28)
    assert found.inputs.dtype == np.float32
    assert (found.inputs.reshape(40, 784) == PIXELS["train"].astype(np.float32) / 255).all()
    assert (found.test_inputs.reshape(30, 784) == PIXELS["t10k"].astype(np.float32) / 255).all()
    assert found.labels.tolist() == LABELS["train"].tolist()
    assert found.test_labels.tolist() == LABELS["t10k"].tolist()
    assert found.num_classes == 10


def test_an_attack_on_mnist(tmp_path: Path) -> None:
    task = attack("mnist", folder=mnist(tmp_path), training_steps=40, num_clients=2, partition="iid")
    assert task.dim == 784
    assert task.image.shape == (28, 28)
    assert task.value(task.start(Key(0))) >= 0


def test_an_attack_on_cifar_shares_its_perturbation(tmp_path: Path) -> None:
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        labels = (np.arange(10) + number) % 10
        records = np.column_stack([labels, patterns(labels, 3072)]).astype(np.uint8)
        (tmp_path / f"{name}.bin").write_bytes(records.tobytes())
    task = attack("cifar-10", folder=tmp_path, training_steps=40, num_clients=2, partition="iid", hidden=0)
    assert (task.dim, task.epsilon, task.shared) == (1024, 0.1, True)


@pytest.mark.parametrize("name", ["covtype.data", "covtype.data.gz"])
def test_covertype(tmp_path: Path, name: str) -> None:
    table = Key(0).integers(0, 101, 54, high=3000)
    table[:, 7] = 5  # a constant feature
    labels = 1 + np.arange(101) % 7
    lines = "".join(
        ",".join(map(str, [*row, label])) + "\n" for row, label in zip(table, labels, strict=True)
    ).encode()
    (tmp_path / name).write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    found = load("covertype", tmp_path)
    assert found.inputs.shape == (51, 54)
    assert found.test_inputs.shape == (50, 54)
    assert found.num_classes == 7
    assert abs(found.inputs.mean(0)).max() < 1e-6
    assert found.inputs.std(0)[:7] == pytest.approx(1, rel=1e-5)
    assert (found.inputs[:, 7] == 0).all()
    assert np.bincount(np.concatenate([found.labels, found.test_labels])).tolist() == (
        np.bincount(labels - 1).tolist()
    )
    # Every row goes with its label still: the first feature, put back, is that of a row of this label.
    halves = Key(0).fold("covertype").permutation(0, 1, 101)[0]
    mean, deviation = table[halves[:51], 0].mean(), table[halves[:51], 0].std()
    for inputs, given in ((found.inputs, found.labels), (found.test_inputs, found.test_labels)):
        pairs = zip(np.rint(inputs[:, 0] * deviation + mean).astype(int).tolist(), given + 1, strict=True)
        assert set(pairs) <= set(zip(table[:, 0].tolist(), labels, strict=True))


def test_bundled_data() -> None:
    assert digits().inputs.shape == (1437, 64)
    assert digits().test_inputs.shape == (360, 64)
    assert 0 <= digits().inputs.min() < digits().inputs.max() == 1
    cancer = load("breast-cancer")
    assert cancer.inputs.shape == (285, 30)
    assert cancer.test_inputs.shape == (284, 30)
    assert abs(cancer.inputs.mean(0)).max() < 1e-5
    assert cancer.num_classes == 2
    assert breast_cancer() is cancer


@pytest.mark.parametrize(
    ("name", "folder", "message"),
    [
        ("mnits", None, "Did you mean 'mnist'"),
        ("mnist", None, "`folder` must be given with 'mnist'"),
        ("digits", "here", "`folder` must be left out with 'digits'"),
    ],
)
def test_wrong_names_are_refused(name: str, folder: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(name, folder)


@pytest.mark.parametrize("name", ["mnist", "cifar-10", "covertype"])
def test_folders_without_the_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="`folder` must be a folder"):
        load(name, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="`folder` must hold"):
        load(name, tmp_path)


def test_a_missing_file_of_mnist_is_named(tmp_path: Path) -> None:
    (mnist(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no t10k-labels-idx1-ubyte\. They are at https"):
        load_mnist(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images-idx3-ubyte", lambda content: content[:-1], "hold 31376 bytes.*it is cut off"),
        (
            "train-images-idx3-ubyte",
            lambda content: b"<html>" + content,
            "2051 of the format IDX, got .* 3c68",
        ),
        ("train-labels-idx1-ubyte", lambda content: content[:6], "2049 of the format IDX"),
        ("train-labels-idx1-ubyte", lambda content: content[:-1] + b"\x0b", "labels from 0 to 9, got 11"),
        ("t10k-labels-idx1-ubyte", lambda content: struct.pack(">2IB", 2049, 1, 3), "images, 30, got 1"),
    ],
    ids=["cut", "html", "short", "label", "fewer"],
)
def test_damaged_files_of_mnist_are_named(tmp_path: Path, name: str, change: object, message: str) -> None:
    path = mnist(tmp_path) / name
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ValueError, match=f"{name} must.*{message}"):
        load_mnist(tmp_path)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = mnist(tmp_path, ".gz") / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz is damaged, or cut off"):
        load_mnist(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1,2,3\n4,5,6\n", "must hold rows of 55 numbers, got 2 of 3"),
        (b"<html>\n", "is no covtype.data, or is cut off"),
        ((b"1," * 54 + b"1\n") * 3 + b"1,2", "is no covtype.data, or is cut off"),
        ((b"1," * 54 + b"8\n") * 3, "must hold labels from 1 to 7 in its last column, got 8"),
    ],
)
def test_other_files_than_covertype_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "covtype.data").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_covertype(tmp_path)


def test_without_scikit_learn_an_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    digits.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'gradfree\[gp\]'"):
        load("digits")
    assert data.BUNDLED == ("digits", "breast-cancer")
