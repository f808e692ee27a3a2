"""Handwritten digits: a small network trained by evaluations alone, on data bundled with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.core.device import Array, is_torch
from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.validation import check_count

NUM_TRAINED = 1437
"""How many of the 1797 images are trained on; the others are for tests."""


class Digits(Objective):
    """Cross-entropy of a classifier of handwritten digits on a mini-batch, for many weights at a time.

    Images have 8 x 8 pixels from 0 to 1 and one of ten labels. Without hidden units the classifier is
    softmax regression with 650 weights; with h of them there are 65 h weights before the ReLU and
    10 (h + 1) behind it. A point is all weights: for each unit its 64 inputs' and then its bias.

    Which images are in the batch follows from the key: within a step all points see the same ones,
    whatever the worker, and two steps see different ones. So points are to be evaluated with `noise=True`.

    Args:
        batch_size: Images of a batch, drawn with replacement; None for all that are trained on.
        hidden: Hidden units, 0 for none.

    Raises:
        TypeError: An argument is no integer.
        ValueError: An argument is too small.

    Attributes:
        dim: How many weights there are.

    Example:
        >>> task = Digits(batch_size=60)
        >>> value = task(np.zeros((1, task.dim)), key=Key(0))[0]
        >>> bool(abs(value - np.log(10)) < 1e-6), task.accuracy(np.zeros(task.dim)) < 0.2
        (True, True)

    Source of the data: E. Alpaydin and C. Kaynak, *Optical recognition of handwritten digits*, 1998,
    https://doi.org/10.24432/C50P49, as bundled with scikit-learn (no download).
    """

    unit = 256  # points, which together make a matrix product that is worth while

    def __init__(self, batch_size: int | None = 60, hidden: int = 0) -> None:
        self.batch_size = None if batch_size is None else check_count("batch_size", batch_size)
        self.hidden = check_count("hidden", hidden, minimum=0)
        self.dim = 65 * hidden + 10 * (hidden + 1) if hidden else 650
        self._data: dict[str, tuple[Any, ...]] = {}  # by device

    def __call__(self, x: Array, *, key: Key) -> Any:
        weights = _tensor(x)
        images, labels = self._on(str(weights.device))[:2]
        if self.batch_size is not None:
            import torch

            chosen = key.fold("batch").integers(0, 1, self.batch_size, high=NUM_TRAINED)[0]
            rows = torch.from_numpy(chosen).to(weights.device)
            images, labels = images[rows], labels[rows]
        return self._cross_entropy(weights, images, labels)

    def loss(self, x: Array) -> float:
        """Return the cross-entropy of one point over all images that are trained on."""
        weights = _tensor(x)[None]
        return float(self._cross_entropy(weights, *self._on(str(weights.device))[:2])[0])

    def accuracy(self, x: Array) -> float:
        """Return the share of the 360 images not trained on that one point classifies rightly."""
        weights = _tensor(x)[None]
        images, labels = self._on(str(weights.device))[2:]
        return float((self._logits(weights, images)[0].argmax(0) == labels).float().mean())

    def _cross_entropy(self, weights: Any, images: Any, labels: Any) -> Any:
        logits = self._logits(weights, images)
        right = logits.gather(1, labels.expand(len(weights), 1, -1))[:, 0]
        return (logits.logsumexp(1) - right).mean(1)

    def _logits(self, weights: Any, images: Any) -> Any:
        """Return the scores of labels, shape (k, 10, images)."""
        count, width = len(weights), images.shape[1]  # with a pixel of 1, whose weight is the bias
        if not self.hidden:
            return (weights.reshape(count * 10, width) @ images.T).view(count, 10, -1)
        first, second = weights.split((self.hidden * width, 10 * (self.hidden + 1)), 1)
        units = (first.reshape(count * self.hidden, width) @ images.T).view(count, self.hidden, -1).relu_()
        second = second.reshape(count, 10, self.hidden + 1)
        return second[:, :, :-1] @ units + second[:, :, -1:]

    def _on(self, device: str) -> tuple[Any, ...]:
        """Return the images and labels to train on, and those to test with, where the weights are."""
        if device not in self._data:
            import torch

            images, labels = shuffled_digits()
            images = np.concatenate([images, np.ones((len(images), 1), np.float32)], 1)
            x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
            self._data[device] = x[:NUM_TRAINED], y[:NUM_TRAINED], x[NUM_TRAINED:], y[NUM_TRAINED:]
        return self._data[device]


def shuffled_digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return scikit-learn's 1797 digits in a fixed order; the first `NUM_TRAINED` are trained on.

    Returns:
        Images, shape (1797, 64), from 0 to 1 in single precision, and labels, shape (1797,).
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = Key(0).fold("digits").permutation(0, 1, len(images))[0]
    return (images / 16)[order].astype(np.float32), labels[order]


def _tensor(x: Array) -> Any:
    """Return points as float32 tensors, where they are."""
    import torch

    return (x if is_torch(x) else torch.from_numpy(np.asarray(x))).float()
