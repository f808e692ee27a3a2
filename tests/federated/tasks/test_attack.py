"""Attacks: margins by hand, all clients together, gradients, and which images are attacked."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import sklearn.datasets  # noqa: F401 - what it imports draws from Python's generator, once
import torch
from torch import nn

from federated.partition import Pathological
from federated.tasks.attack import Attack, Modules, Perceptrons, _trained, attack, attack_images
from federated.tasks.classifiers import logits, num_weights, train
from federated.tasks.data import digits
from zoo.core.device import to_numpy
from zoo.core.rng import Key
from zoo.nn.models.mlp import mlp
from zoo.nn.parameters import Parameters

SIZES = (12, 7, 4)


def perceptrons(count: int = 3) -> Perceptrons:
    return Perceptrons(Key(9).normal(0, count, num_weights(SIZES)), SIZES)


def modules(of: Perceptrons) -> list[nn.Module]:
    """Return the same classifiers as modules."""
    made = []
    for row in of.weights:
        model = mlp(SIZES, key=Key(0)).double()
        Parameters(model).write_(torch.from_numpy(row))
        made.append(model)
    return made


IMAGE = Key(4).uniform(0, 1, 12)[0]


@pytest.fixture
def task() -> Attack:
    return Attack(perceptrons(), IMAGE, 2)


def points(count: int, dim: int = 12) -> np.ndarray:
    return 1.4 * Key(1).uniform(0, count, dim) - 0.2


@pytest.mark.parametrize("target", [None, 0, "next"])
def test_values_are_margins(target: int | str | None) -> None:
    models = perceptrons()
    task = Attack(models, IMAGE, 2, target=target, epsilon=0.4)
    for client, model in enumerate(modules(models)):
        for z, value in zip(points(5), task.values(client, points(5), key=Key(0)), strict=True):
            seen = IMAGE.astype(np.float32) + 0.4 * (2 * np.clip(z, 0, 1) - 1)
            found = model(torch.from_numpy(seen)[None])[0].tolist()
            aim = {None: 2, 0: 0, "next": 3}[target]
            margin = found[aim] - max(found[:aim] + found[aim + 1 :])
            assert value == pytest.approx(margin if target is None else -margin, rel=1e-9)
            measured = task.measure(client, z)
            assert measured == {"value": pytest.approx(value, rel=1e-12), "success": float(value < 0)}


@pytest.mark.parametrize("counts", [(4, 4, 4), (3, 0, 5), (1, 1, 1), (0, 6, 0)])
def test_answers_together_are_those_of_each_client(task: Attack, counts: tuple[int, ...]) -> None:
    clients = np.repeat(np.arange(3), counts)
    x = points(len(clients))
    together = task.joint_values(clients, x, [Key(0)] * len(clients))
    alone = [task.values(client, x[clients == client], key=Key(0)) for client in range(3)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-12)
    in_torch = task.joint_values(clients, torch.from_numpy(x), [Key(0)] * len(clients))
    np.testing.assert_allclose(in_torch, together, rtol=1e-12)


@pytest.mark.parametrize("target", [None, 1])
@pytest.mark.parametrize("kind", ["perceptrons", "modules"])
def test_gradients_are_differences(kind: str, target: int | None) -> None:
    models = perceptrons()
    task = Attack(models if kind == "perceptrons" else modules(models), IMAGE, 2, target=target)
    z = np.clip(points(1)[0], 0.01, 0.99)
    for client in range(3):
        steps = 1e-6 * np.eye(12)
        ahead, back = (task.values(client, z + sign * steps, key=Key(0)) for sign in (1, -1))
        differences = to_numpy((ahead - back) / 2e-6)
        np.testing.assert_allclose(task.gradient(client, z), differences, rtol=1e-6, atol=1e-8)
        assert isinstance(task.gradient(client, torch.from_numpy(z)), torch.Tensor)
    assert (task.gradient(0, np.full(12, 1.1)) == 0).all()


def test_modules_answer_as_perceptrons_do_and_stay_as_they_are() -> None:
    models = perceptrons()
    made = modules(models)
    task, same = Attack(models, IMAGE, 2), Attack(made, IMAGE, 2)
    assert (task.joint, same.joint) == (True, False)
    for client in range(3):
        found = same.values(client, points(4), key=Key(0))
        np.testing.assert_allclose(found, task.values(client, points(4), key=Key(0)), rtol=1e-9)
        assert not found.requires_grad
        assert made[client].training
    assert Attack(nn.ModuleList(made), IMAGE, 2).identity() == same.identity()
    sent = pickle.loads(pickle.dumps(same))
    assert torch.equal(sent.values(0, points(2), key=Key(0)), same.values(0, points(2), key=Key(0)))


def test_modules_from_a_function_are_built_once_and_late() -> None:
    built: list[int] = []

    def build(client: int) -> nn.Module:
        built.append(client)
        return mlp(SIZES, key=Key(client))

    task = Attack(build, IMAGE, 1, num_clients=6)
    assert task.num_clients == 6
    assert built == [0]
    task.values(4, points(2), key=Key(0))
    task.values(4, points(2), key=Key(0))
    assert built == [0, 4]


def test_channels_may_share_a_perturbation() -> None:
    image = IMAGE.reshape(3, 2, 2)
    models = perceptrons()
    task, alone = Attack(models, image, 0, shared=True), Attack(models, image, 0)
    assert (task.dim, alone.dim) == (4, 12)
    z = Key(3).uniform(0, 2, 4)
    assert (task.values(1, z, key=Key(0)) == alone.values(1, np.tile(z, 3), key=Key(0))).all()


def test_starts_and_success(task: Attack) -> None:
    assert (task.start(Key(0)) == 0.5).all()
    clean = modules(perceptrons())[0](torch.from_numpy(IMAGE)[None])[0].detach()
    assert task.measure(0, task.start(Key(0)))["value"] == pytest.approx(
        float(clean[2] - clean[[0, 1, 3]].max()), rel=1e-5
    )
    assert (Attack(perceptrons(), IMAGE, 2, start="published").start(Key(0)) == 0).all()
    found = set()
    for label in range(4):
        task = Attack(perceptrons(), IMAGE, label)
        for z in points(5):
            succeeded = task.succeeded(z)
            assert succeeded == (np.mean([task.measure(client, z)["value"] for client in range(3)]) < 0)
            found.add(succeeded)
    assert found == {True, False}


@pytest.mark.parametrize("target", [None, "next"])
def test_attacked_are_images_on_which_classifiers_are_right(target: str | None) -> None:
    task = [attack(image=number, target=target) for number in (0, 3)]
    data, models = digits(), task[0].models
    assert isinstance(models, Perceptrons)
    chosen = attack_images(models, data.test_inputs, data.test_labels, target=target)
    answers = logits(models.weights, data.test_inputs, models.sizes)
    total = np.zeros(360)
    for found in answers:
        aim = data.test_labels if target is None else (data.test_labels + 1) % 10
        others = found.copy()
        others[np.arange(360), aim] = -np.inf
        total += (found[np.arange(360), aim] - others.max(1)) * (1 if target is None else -1)
    assert (chosen == np.flatnonzero(total >= 0)).all()
    assert len(chosen) >= 30
    assert (task[0].image == data.test_inputs[chosen[0]]).all()
    assert (task[1].image == data.test_inputs[chosen[3]]).all()
    assert all(one.value(one.start(Key(0))) >= 0 for one in task)
    assert len(attack_images(models, data.test_inputs, data.test_labels, 5, target=target)) == 5


def test_the_published_start_is_looked_at_where_it_is() -> None:
    task = attack(image=1, start="published")
    assert task.value(task.start(Key(0))) >= 0


def test_classifiers_know_the_classes_of_their_clients() -> None:
    task = attack(key=Key(3))
    assert isinstance(task.models, Perceptrons)
    data = digits()
    parts = Pathological(5)(data.labels, 5, Key(3).fold("partition"))
    answers = logits(task.models.weights, data.test_inputs, task.models.sizes).argmax(2)
    for said, part in zip(answers, parts, strict=True):
        own = np.isin(data.test_labels, data.labels[part])
        assert (said[own] == data.test_labels[own]).mean() > 0.9


def test_training_follows_from_the_key_and_is_done_once() -> None:
    first = attack(training_steps=60, key=Key(1))
    hits = _trained.cache_info().hits
    assert attack(training_steps=60, key=Key(1), image=2).models is first.models
    assert _trained.cache_info().hits == hits + 1
    _trained.cache_clear()
    again = attack(training_steps=60, key=Key(1))
    assert (again.models.weights == first.models.weights).all()  # type: ignore[union-attr]
    assert again.identity() == first.identity()
    others = [{"key": Key(2)}, {"training_steps": 61}, {"hidden": 16}, {"image": 1}, {"epsilon": 0.2}]
    for other in others:
        made = attack(**{"training_steps": 60, "key": Key(1), **other})  # type: ignore[arg-type]
        assert made.identity() != first.identity()


def test_a_task_is_small_and_travels() -> None:
    task = attack()
    content = pickle.dumps(task)
    assert len(content) < 60_000
    x = points(3, 64)
    assert (pickle.loads(content).values(1, x, key=Key(0)) == task.values(1, x, key=Key(0))).all()


def test_networks_trained_together_are_those_trained_alone() -> None:
    inputs, labels = Key(0).normal(0, 40, 5), np.arange(40) % 3
    parts = [np.arange(0, 25), np.arange(25, 40)]
    options = {"steps": 5, "learning_rate": 0.1, "key": Key(1)}
    together = train(inputs, labels, parts, (5, 4, 3), **options)  # type: ignore[arg-type]
    alone = train(inputs, labels, parts[:1], (5, 4, 3), **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-3, atol=1e-5)
    assert together.dtype == np.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": 4}, "`label` must be below 4, the number of classes, got 4"),
        ({"label": -1}, "`label` must be at least 0"),
        ({"target": 4}, "`target` must be below 4"),
        ({"target": 2}, "`target` must be another class"),
        ({"epsilon": 0}, "`epsilon` must be a finite number above 0"),
        ({"start": "mid"}, "Did you mean 'middle'"),
        ({"shared": True}, "`image` must have channels"),
        ({"image": np.zeros(11)}, "`image` must have 12 pixels"),
        ({"image": np.full(12, np.nan)}, "`image` must hold finite numbers"),
        ({"num_clients": 4}, "`num_clients` must be that of `models`, 3"),
        ({"models": [3]}, "`models` must be modules of torch"),
        ({"models": 3}, "`models` must be modules of torch"),
        ({"models": nn.Flatten()}, "`models` must be modules of torch in a list"),
        ({"models": lambda client: 3, "num_clients": 0}, "`num_clients` must be at least 1"),
        ({"models": []}, "`models` must be one for each"),
        ({"models": modules(perceptrons()), "num_clients": 2}, "`models` must be one for each of 2"),
        ({"models": lambda client: mlp(SIZES, key=Key(0))}, "`num_clients` must be given"),
        ({"models": lambda client: 3, "num_clients": 2}, "`models` must return a module"),
        ({"models": [nn.Flatten(0)]}, "`models` must return logits of shape"),
        ({"models": "nowhere_at_all:models", "num_clients": 2}, "no module 'nowhere_at_all'"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Attack(**{"models": perceptrons(), "image": IMAGE, "label": 2, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "mnis"}, "Did you mean 'mnist'"),
        ({"data": "mnist"}, "`folder` must be given with 'mnist'"),
        ({"image": -1}, "`image` must be at least 0"),
        ({"image": 360}, "`image` must be below"),
        ({"num_clients": 0}, "`num_clients` must be at least 1"),
        ({"num_clients": 1}, "`classes_per_client` must be from 10 to 10"),
        ({"hidden": 0.5}, "`hidden` must be an integer"),
        ({"training_steps": 0}, "`training_steps` must be at least 1"),
        ({"target": 12}, "`target` must be below 10"),
        ({"target": "left"}, "`target` must be an integer"),
        ({"training_steps": 1}, "there is no image to attack"),
        ({"key": 0}, "`key` must be a Key"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        attack(**options)  # type: ignore[arg-type]


def test_weights_fit_their_layers() -> None:
    with pytest.raises(ValueError, match=r"`weights` must have shape \(clients, 123\)"):
        Perceptrons(np.zeros((2, 122)), SIZES)


def test_models_of_the_user_are_attacked_on_digits() -> None:
    models = [mlp((64, 10), key=Key(number)) for number in range(2)]
    task = attack(models=models, image=0)
    assert task.num_clients == 2
    assert isinstance(task.models, Modules)
    assert task.value(task.start(Key(0))) >= 0
