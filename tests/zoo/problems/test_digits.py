"""The digits: what a batch is, and that the values are cross-entropies."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.datasets  # noqa: F401 - what it imports draws from Python's generator, once
import torch

from zoo.core.rng import Key
from zoo.problems.digits import Digits


def weights(task: Digits, count: int) -> torch.Tensor:
    return 0.3 * Key(0).normal(0, count, task.dim, like=torch.zeros(1))


@pytest.mark.parametrize(("hidden", "dim"), [(0, 650), (32, 2410)])
def test_values_are_those_of_torch(hidden: int, dim: int) -> None:
    task = Digits(batch_size=None, hidden=hidden)
    assert task.dim == dim
    x = weights(task, 3)
    images, labels, _, _ = task._on("cpu")
    assert len(images) == 1437
    for row, value in zip(x, task(x, key=Key(0)), strict=True):
        if hidden:
            first, second = row[: 65 * hidden].view(hidden, 65), row[65 * hidden :].view(10, hidden + 1)
            logits = (images @ first.T).relu() @ second[:, :-1].T + second[:, -1]
        else:
            logits = images @ row.view(10, 65).T
        assert float(value) == pytest.approx(
            float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5
        )
        assert task.loss(row) == pytest.approx(float(value), rel=1e-5)


def test_a_batch_is_a_function_of_the_key() -> None:
    task = Digits(batch_size=20)
    x = weights(task, 4)
    whole = task(x, key=Key(3))
    assert torch.equal(task(x, key=Key(3)), whole)
    assert torch.allclose(task(x[2:], key=Key(3)), whole[2:], rtol=1e-6)
    assert not torch.allclose(task(x, key=Key(4)), whole)


def test_numpy_points_have_the_same_values() -> None:
    task = Digits(hidden=8)
    x = weights(task, 2)
    assert torch.equal(task(x.numpy().astype(np.float64), key=Key(0)), task(x, key=Key(0)))


def test_accuracy_counts_images_that_were_not_trained_on() -> None:
    task = Digits()
    x = torch.zeros(10, 65)
    x[3, -1] = 1.0  # a bias that says "three" of everything
    _, _, images, labels = task._on("cpu")
    assert len(images) == 360
    assert task.accuracy(x.reshape(-1)) == pytest.approx(float((labels == 3).float().mean()))


@pytest.mark.parametrize(("name", "wrong"), [("batch_size", 0), ("hidden", -1), ("hidden", 2.5)])
def test_wrong_arguments_are_refused(name: str, wrong: object) -> None:
    with pytest.raises((TypeError, ValueError), match=f"`{name}`"):
        Digits(**{name: wrong})  # type: ignore[arg-type]
