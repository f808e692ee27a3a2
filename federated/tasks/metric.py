"""A classifier put right by a metric that has no gradient, on clients with skewed data."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from federated.partition import Partitioner, as_partitioner, partitioned
from federated.task import Task
from federated.tasks.classifiers import as_hidden, logits, num_weights, train
from federated.tasks.data import load
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, to_numpy
from zoo.core.fingerprint import describe
from zoo.core.rng import Key
from zoo.core.validation import check_choice, check_count, check_positive

METRICS = ("f1", "precision", "recall", "jaccard")

STARTS = ("random", "middle")

DATA = ("digits", "breast-cancer", "covertype")

_HIDDEN: dict[str, tuple[int, ...]] = {"digits": (), "breast-cancer": (), "covertype": (30, 14)}
_STEPS = {"digits": 10, "breast-cancer": 5, "covertype": 1000}
_ELEMENTS = 2**22  # of what a layer answers, which is held at once


class MetricTask(Task):
    """A pretrained classifier whose last weights w are moved, by what a metric says of its predictions.

        w(z) = w + reach (2 clip(z, 0, 1) - 1)
        f_i(z) = 1 - metric(labels_i, predictions of the classifier with w(z) on client i's examples)

    The metric is the mean over the classes that occur among labels or predictions ("macro"), so f_i is
    piecewise constant, and asked for points that lie `reach` apart. The examples are halved at random,
    class by class. On one half the classifier is trained by back-propagation, on few mini-batches where
    nothing else is said, so that there is something to put right. Of the other half the clients are dealt
    four fifths, and no client sees the last, on which `measure` has the metric itself: "held_out_f1",
    say.

    Args:
        data: "digits" or "breast-cancer", bundled with scikit-learn; or "covertype" from a folder.
        metric: "f1", "precision", "recall" or "jaccard".
        num_clients: How many clients there are.
        folder: Where the data is, if it is not bundled.
        partition: How the clients' examples are dealt; see `federated.partition.as_partitioner`.
        hidden: Hidden units of the classifier; several numbers for several layers, 0 for none; None for none,
            for Covertype 30 and 14, as published.
        dim: How many of the last weights are moved; None for all. For Covertype, 2187 of 2189 are published.
        reach: How far a weight may be moved, above 0.
        start: Where z begins: "random" for uniform in [0, 1), under which the classifier is spoilt; "middle"
            for the classifier as it was trained.
        training_steps: Mini-batches of 64 that it is trained on; by default 10, for breast cancer 5, for
            Covertype 1000.
        key: Randomness of training, halves and partition; Key(0) by default.

    Attributes:
        sizes: Of the classifier's layers.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.
        FileNotFoundError: The folder does not hold the data.
        ModuleNotFoundError: The data needs scikit-learn, and it is not installed.

    Example:
        >>> task = MetricTask("breast-cancer", num_clients=3)
        >>> task.dim, task.measure(0, np.full(task.dim, 0.5))["held_out_f1"] > 0.8
        (62, True)

    References:
        Shu, Lin, Dai and Low, "Federated zeroth-order optimization using trajectory-informed surrogate
        gradients", 2023. https://arxiv.org/abs/2308.04077
    """

    def __init__(
        self,
        data: str = "digits",
        metric: str = "f1",
        num_clients: int = 5,
        *,
        folder: str | os.PathLike[str] | None = None,
        partition: Any = "dirichlet:0.5",
        hidden: int | Sequence[int] | None = None,
        dim: int | None = None,
        reach: float = 0.2,
        start: str = "random",
        training_steps: int | None = None,
        key: Key | None = None,
    ) -> None:
        self.data, self.metric = check_choice("data", data, DATA), check_choice("metric", metric, METRICS)
        self.num_clients = check_count("num_clients", num_clients)
        self.reach = self.spacing = check_positive("reach", reach)
        self.origin = check_choice("start", start, STARTS)
        steps = _STEPS[data] if training_steps is None else training_steps
        self.training_steps = check_count("training_steps", steps)
        self.hidden = _HIDDEN[data] if hidden is None else as_hidden(hidden)
        if key is not None and not isinstance(key, Key):
            raise TypeError(f"`key` must be a Key, such as Key(0), got {key!r}.")
        self._key = Key(0) if key is None else key
        self._folder = None if folder is None else os.fspath(folder)
        self._partition = as_partitioner(partition)
        self.measures = self.shared_measures = (f"held_out_{metric}",)
        self._parts: tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]] | None = None
        self._weights: np.ndarray[Any, Any] | None = None
        self._last: tuple[bytes, float] | None = None
        inputs, labels = self._examples()
        self.sizes = (inputs.shape[1], *self.hidden, 1 + int(labels.max()))
        most = num_weights(self.sizes)
        self.dim = most if dim is None else check_count("dim", dim)
        if self.dim > most:
            raise ValueError(f"`dim` must be at most {most}, the number of weights, got {dim!r}.")
        self.bounds = Bounds(np.zeros(self.dim), np.ones(self.dim))
        self._dealt()
        self._pretrained()

    def __getstate__(self) -> dict[str, Any]:
        # The weights travel, for training elsewhere may round otherwise; the data is read there.
        return {**self.__dict__, "_parts": None, "_last": None}

    def start(self, key: Key) -> Array:
        """Return where z begins; with "middle" it is the same for every key."""
        return key.uniform(0, 1, self.dim)[0] if self.origin == "random" else np.full(self.dim, 0.5)

    def values(self, client: int, x: Array, *, key: Key) -> Any:
        return 1 - self._scores(x, self._dealt()[0][client])

    def measure(self, client: int, x: Array) -> dict[str, float]:
        value = float(self.values(client, x[None], key=Key(0))[0])
        return {"value": value, self.measures[0]: self.held_out(x)}

    def held_out(self, x: Array) -> float:
        """Return the metric on the examples that no client sees."""
        mark = to_numpy(x).tobytes()
        if self._last is None or self._last[0] != mark:  # every client is asked about the same x
            self._last = mark, float(self._scores(x[None], self._dealt()[1])[0])
        return self._last[1]

    def counts(self) -> np.ndarray[Any, Any]:
        """Return how many examples of each class clients have, shape (num_clients, classes)."""
        labels = self._examples()[1]
        return np.array([np.bincount(labels[part], minlength=self.sizes[-1]) for part in self._dealt()[0]])

    def identity(self) -> Mapping[str, Any]:
        dealt: Any = self._partition
        dealt = repr(dealt) if isinstance(dealt, Partitioner) else describe(dealt)
        return {**describe(self), "partition": dealt, "key": str(self._key)}

    def _scores(self, x: Array, rows: np.ndarray[Any, Any]) -> Any:
        """Return the metric on some of the examples, shape (k,), float64."""
        like, (inputs, labels) = Like.of(x), self._examples()
        inputs, labels = like.asarray(inputs[rows]), labels[rows]
        base = like.asarray(self._pretrained())
        found = np.empty(len(x))
        height = max(1, _ELEMENTS // (len(rows) * max(self.sizes[1:])))
        for first in range(0, len(x), height):
            z = array_module(x).clip(x[first : first + height], 0, 1)
            weights = like.asarray(np.zeros((len(z), len(base)))) + base
            weights[:, len(base) - self.dim :] += self.reach * (2 * z - 1)
            answers = to_numpy(logits(weights, inputs, self.sizes).argmax(2))
            found[first : first + height] = macro(self.metric, labels, answers, self.sizes[-1])
        return found

    def _examples(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return _loaded(self.data, self._folder)

    def _dealt(self) -> tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        """Return which of the examples belong to each client, and which nobody sees."""
        if self._parts is None:
            labels = self._examples()[1]
            _, theirs, held_out = _split(labels, self._key.fold("split"))
            key = self._key.fold("partition")
            parts = partitioned(self._partition, labels[theirs], self.num_clients, key)
            self._parts = [theirs[part] for part in parts], held_out
        return self._parts

    def _pretrained(self) -> np.ndarray[Any, Any]:
        if self._weights is None:
            self._weights = _trained(self.data, self._folder, self.sizes, self.training_steps, self._key)
        return self._weights


def macro(metric: str, labels: np.ndarray[Any, Any], predictions: np.ndarray[Any, Any], classes: int) -> Any:
    """Return the mean of a metric over the classes that occur among labels or predictions.

    With t right predictions of a class, p predictions and n labels of it: precision t / p, recall t / n,
    F1 2 t / (p + n), Jaccard index t / (p + n - t); each is 0 where its divisor is.

    Args:
        metric: One of `METRICS`.
        labels: Shape (n,), from 0.
        predictions: Shape (k, n).
        classes: How many classes there are.

    Returns:
        Shape (k,).

    Example:
        >>> macro("f1", np.array([0, 0, 1]), np.array([[0, 0, 1], [0, 1, 1]]), 3).round(4).tolist()
        [1.0, 0.6667]
    """
    check_choice("metric", metric, METRICS)
    count = len(predictions)
    rows = np.arange(count)[:, None] * classes
    said = np.bincount((rows + predictions).reshape(-1), minlength=count * classes).reshape(count, classes)
    right = predictions == labels
    hits = np.bincount((rows + predictions)[right], minlength=count * classes).reshape(count, classes)
    there = np.bincount(labels, minlength=classes)
    above, below = {
        "precision": (hits, said),
        "recall": (hits, there + np.zeros_like(said)),
        "f1": (2 * hits, said + there),
        "jaccard": (hits, said + there - hits),
    }[metric]
    of_class = above / np.maximum(below, 1)
    return of_class.sum(1) / (said + there > 0).sum(1)


def _split(labels: np.ndarray[Any, Any], key: Key) -> tuple[np.ndarray[Any, Any], ...]:
    """Return which examples are trained on, which are the clients' and which are held out: 5, 4, 1 of ten."""
    order = key.permutation(0, 1, len(labels))[0]
    order = order[np.argsort(labels[order], kind="stable")]
    use = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 2])[np.arange(len(order)) % 10]
    return tuple(np.sort(order[use == number]) for number in range(3))


@functools.lru_cache(maxsize=4)
def _loaded(data: str, folder: str | None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return all examples, shape (n, features), and their labels."""
    found = load(data, folder)
    inputs = np.concatenate([found.inputs, found.test_inputs])
    return inputs.reshape(len(inputs), -1), np.concatenate([found.labels, found.test_labels])


@functools.lru_cache(maxsize=8)
def _trained(
    data: str, folder: str | None, sizes: tuple[int, ...], steps: int, key: Key
) -> np.ndarray[Any, Any]:
    """Return the weights of a classifier, trained once in this process."""
    inputs, labels = _loaded(data, folder)
    rows, _, _ = _split(labels, key.fold("split"))
    return train(inputs, labels, [rows], sizes, steps=steps, learning_rate=0.01, key=key.fold("training"))[0]
