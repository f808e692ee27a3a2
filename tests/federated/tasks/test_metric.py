"""Metrics without gradients: against scikit-learn, and that nothing held out is seen by a client."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets  # what it imports draws from Python's generator, once
import sklearn.metrics
import torch

from federated.tasks.classifiers import logits
from federated.tasks.metric import METRICS, MetricTask, _split, _trained, macro
from zoo.core.rng import Key

THEIRS = {
    "f1": sklearn.metrics.f1_score,
    "precision": sklearn.metrics.precision_score,
    "recall": sklearn.metrics.recall_score,
    "jaccard": sklearn.metrics.jaccard_score,
}


@pytest.fixture(scope="module")
def task() -> MetricTask:
    return MetricTask(num_clients=4, key=Key(2))


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_are_those_of_scikit_learn(metric: str) -> None:
    for case, (classes, n) in enumerate([(2, 9), (3, 40), (7, 12), (10, 200), (4, 1)]):
        key = Key(case)
        labels = key.fold("labels").integers(0, 1, n, high=classes)[0]
        # Some predict few classes only, one is right throughout.
        said = np.minimum(key.integers(0, 6, n, high=classes), np.arange(6)[:, None])
        said[5] = labels
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = [THEIRS[metric](labels, row, average="macro", zero_division=0) for row in said]
        np.testing.assert_allclose(macro(metric, labels, said, classes), expected, rtol=1e-12)


def test_values_by_hand(task: MetricTask) -> None:
    inputs, labels = task._examples()
    x = 1.4 * Key(0).uniform(0, 3, task.dim) - 0.2
    for client in range(4):
        rows = task._dealt()[0][client]
        for z, value in zip(x, task.values(client, x, key=Key(0)), strict=True):
            moved = task._pretrained() + 0.2 * (2 * np.clip(z, 0, 1) - 1)
            weights, bias = moved[:640].reshape(10, 64), moved[640:]
            said = (inputs[rows] @ weights.T + bias).argmax(1)
            expected = sklearn.metrics.f1_score(labels[rows], said, average="macro", zero_division=0)
            assert value == pytest.approx(1 - expected, rel=1e-12)
            assert task.measure(client, z)["value"] == value


def test_only_the_last_weights_are_moved() -> None:
    few = MetricTask(num_clients=2, dim=10, key=Key(2))
    whole = MetricTask(num_clients=2, key=Key(2))
    z = Key(1).uniform(0, 1, 10)
    wide = np.concatenate([np.full((1, 640), 0.5), z], 1)
    assert few.dim == 10
    assert few.values(1, z, key=Key(0)) == whole.values(1, wide, key=Key(0))
    assert few.values(1, z, key=Key(0)) != few.values(1, 0 * z + 0.5, key=Key(0))


def test_examples_are_trained_on_or_a_clients_or_held_out(task: MetricTask) -> None:
    _, labels = task._examples()
    trained, theirs, _ = _split(labels, Key(2).fold("split"))
    parts, held_out = task._dealt()
    whole = np.sort(np.concatenate([trained, *parts, held_out]))
    assert (whole == np.arange(1797)).all()
    assert (np.sort(np.concatenate(parts)) == theirs).all()
    shares = np.bincount(labels[held_out]) / np.bincount(labels)
    assert abs(shares - 0.1).max() < 0.01
    assert task.counts().sum() == len(theirs)
    assert (task.counts().sum(1) == [len(part) for part in parts]).all()


def test_what_is_held_out_is_measured_and_remembered_for_one_point_only(task: MetricTask) -> None:
    one, other = Key(0).uniform(0, 2, task.dim)
    inputs, labels = task._examples()
    rows = task._dealt()[1]
    for z in (one, other, one):
        weights = task._pretrained() + 0.2 * (2 * z - 1)
        said = logits(weights[None], inputs[rows].astype(np.float64), task.sizes)[0].argmax(1)
        expected = sklearn.metrics.f1_score(labels[rows], said, average="macro", zero_division=0)
        assert [task.measure(client, z)["held_out_f1"] for client in range(4)] == [expected] * 4


def test_points_are_cut_where_there_are_many(task: MetricTask, monkeypatch: pytest.MonkeyPatch) -> None:
    x = Key(0).uniform(0, 9, task.dim)
    whole = task.values(0, x, key=Key(0))
    monkeypatch.setattr("federated.tasks.metric._ELEMENTS", 10 * len(task._dealt()[0][0]) * 2)
    assert (task.values(0, x, key=Key(0)) == whole).all()


def test_points_of_torch(task: MetricTask) -> None:
    x = Key(0).uniform(0, 3, task.dim)
    assert (task.values(0, torch.from_numpy(x), key=Key(0)) == task.values(0, x, key=Key(0))).all()


def test_a_task_travels_with_its_weights_and_without_its_data(
    task: MetricTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = Key(0).uniform(0, 2, task.dim)
    content = pickle.dumps(task)
    assert len(content) < 40_000
    expected = task.values(1, x, key=Key(0))
    monkeypatch.setattr("federated.tasks.metric._trained", None)
    assert (pickle.loads(content).values(1, x, key=Key(0)) == expected).all()


def test_keys_and_options_tell_tasks_apart(task: MetricTask) -> None:
    assert MetricTask(num_clients=4, key=Key(2)).identity() == task.identity()
    others = [
        MetricTask(num_clients=4, key=Key(3)),
        MetricTask(num_clients=3, key=Key(2)),
        MetricTask(num_clients=4, key=Key(2), partition="iid"),
        MetricTask("breast-cancer", num_clients=4, key=Key(2)),
        MetricTask(num_clients=4, key=Key(2), metric="recall"),
    ]
    assert all(other.identity() != task.identity() for other in others)
    assert (others[0]._pretrained() != task._pretrained()).any()


def test_starts(task: MetricTask) -> None:
    assert task.bounds is not None
    assert task.bounds.contains(task.start(Key(1)))
    assert (task.start(Key(1)) != task.start(Key(2))).all()
    assert (MetricTask(num_clients=4, start="middle").start(Key(1)) == 0.5).all()


def test_a_classifier_with_hidden_units_learns() -> None:
    task = MetricTask("breast-cancer", hidden=(6, 4), training_steps=200, num_clients=2, partition="iid")
    assert task.sizes == (30, 6, 4, 2)
    assert task.dim == 31 * 6 + 7 * 4 + 5 * 2
    assert task.held_out(np.full(task.dim, 0.5)) > 0.9
    assert _trained.cache_info().currsize >= 1


def test_covertype_from_a_folder(tmp_path: Path) -> None:
    table = Key(0).integers(0, 300, 54, high=50)
    labels = 1 + np.arange(300) % 7
    np.savetxt(tmp_path / "covtype.data", np.column_stack([table, labels]), fmt="%d", delimiter=",")
    task = MetricTask("covertype", num_clients=2, folder=tmp_path, dim=2187, training_steps=3)
    assert task.sizes == (54, 30, 14, 7)
    assert task.dim == 2187
    assert 0 <= task.value(np.full(2187, 0.5)) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "digit"}, "Did you mean 'digits'"),
        ({"metric": "accuracy"}, "`metric` must be one of"),
        ({"num_clients": 0}, "`num_clients` must be at least 1"),
        ({"partition": "dirichle"}, "Did you mean 'dirichlet'"),
        ({"num_clients": 2000}, "`num_clients` must be at most"),
        ({"hidden": -1}, "`hidden` must be at least 1"),
        ({"dim": 651}, "`dim` must be at most 650"),
        ({"reach": 0}, "`reach` must be a finite number above 0"),
        ({"start": "left"}, "`start` must be one of"),
        ({"training_steps": 0}, "`training_steps` must be at least 1"),
        ({"key": 0}, "`key` must be a Key"),
        ({"folder": "/tmp"}, "`folder` must be left out with 'digits'"),
        ({"data": "covertype"}, "`folder` must be given with 'covertype'"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        MetricTask(**options)  # type: ignore[arg-type]


def test_unknown_metrics_are_refused() -> None:
    with pytest.raises(ValueError, match="`metric` must be one of"):
        macro("accuracy", np.zeros(1, int), np.zeros((1, 1), int), 2)
