"""Networks of the user's on data of clients: losses, mini-batches, gradients, and what travels."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from federated.partition import Pathological
from federated.tasks.network import NetworkTask
from tests.federated.functions import make_data, make_network
from zoo.core.rng import Key, keyed_generators
from zoo.nn.data import Data
from zoo.nn.losses import cross_entropy, squared_error
from zoo.nn.models.mlp import mlp
from zoo.nn.parameters import Parameters

NAME = "tests.federated.functions"
INPUTS = torch.from_numpy(Key(1).normal(0, 40, 3)).float()
LABELS = torch.arange(40) % 4
TEST = INPUTS[:12] + 0.1, LABELS[:12]


def network() -> nn.Sequential:
    return mlp((3, 5, 4), key=Key(2))


def task(**options: object) -> NetworkTask:
    given = {
        "model": network(),
        "loss": cross_entropy,
        "data": (INPUTS, LABELS),
        "num_clients": 3,
        "partition": "pathological:2",
        **options,
    }
    return NetworkTask(**given)  # type: ignore[arg-type]


def points(count: int, dim: int) -> torch.Tensor:
    return 0.5 * Key(7).normal(0, count, dim, like=torch.zeros(1))


def by_hand(x: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    model = network()
    Parameters(model).write_(x)
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(inputs).double(), labels))


@pytest.mark.parametrize("vectorized", [False, True])
def test_values_are_mean_losses_of_a_clients_examples(vectorized: bool) -> None:
    found = task(vectorized=vectorized)
    parts = Pathological(2)(LABELS, 3, Key(0).fold("partition"))
    x = points(4, found.dim)
    for client, part in enumerate(parts):
        expected = [by_hand(row, INPUTS[part], LABELS[part]) for row in x]
        np.testing.assert_allclose(found.values(client, x, key=Key(3)), expected, rtol=1e-5)
        assert found.measure(client, x[0])["value"] == pytest.approx(expected[0], rel=1e-5)
        assert found.weight(client) == len(part)
    assert found.counts().sum(0).tolist() == [10] * 4
    assert ((found.counts() > 0).sum(1) == 2).all()


def test_the_start_is_the_networks_own_and_of_its_kind() -> None:
    model = network()
    found = task(model=model)
    start = found.start(Key(0))
    assert torch.equal(start, Parameters(model).flat())
    assert start.dtype == torch.float32
    assert found.dim == len(start) == 44
    found.values(0, points(2, 44), key=Key(0))
    found.measure(0, points(1, 44)[0])
    assert torch.equal(Parameters(model).flat(), start)
    assert torch.equal(found.start(Key(1)), start)


def test_a_function_draws_its_weights_under_the_key_of_the_start() -> None:
    found = task(model=make_network, data=make_data, partition="iid")
    assert torch.equal(found.start(Key(1)), found.start(Key(1)))
    assert not torch.equal(found.start(Key(1)), found.start(Key(2)))


def test_mini_batches_follow_from_the_key() -> None:
    found = task(batch_size=4, num_clients=2)
    x = points(5, found.dim)
    one = found.values(0, x, key=Key(3))
    assert torch.equal(found.values(0, x, key=Key(3)), one)
    assert torch.equal(found.values(0, x[2:], key=Key(3)), one[2:])
    assert not torch.equal(found.values(0, x, key=Key(4)), one)
    part = found._dealt()[0]
    rows = part[Key(3).fold("batch").permutation(0, 1, len(part))[0][:4]]
    expected = [by_hand(row, INPUTS[rows], LABELS[rows]) for row in x]
    np.testing.assert_allclose(one, expected, rtol=1e-5)
    assert found.measure(0, x[0])["value"] == pytest.approx(
        by_hand(x[0], INPUTS[part], LABELS[part]), rel=1e-5
    )


@pytest.mark.parametrize("elements", [2**26, 1])
def test_clients_together_are_clients_alone(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federated.tasks.network._ELEMENTS", elements)
    found, slow = task(batch_size=4, vectorized=True), task(batch_size=4)
    assert (found.joint, slow.joint, task(vectorized=True).joint) == (True, False, False)
    clients = np.repeat([0, 1, 2], [2, 3, 1])
    keys = [Key(9).fold(int(client)) for client in clients]
    x = points(6, found.dim)
    together = found.joint_values(clients, x, keys)
    for other in (found, slow):
        alone = [other.values(c, x[clients == c], key=Key(9).fold(c)) for c in range(3)]
        np.testing.assert_allclose(together, torch.cat(alone), rtol=1e-6)


def test_no_client_is_asked_for_more_examples_than_it_has() -> None:
    found = task(batch_size=25, vectorized=True)
    assert not found.joint
    assert torch.equal(found.values(0, points(2, 44), key=Key(1)), found.values(0, points(2, 44), key=Key(2)))


def test_gradients_are_those_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("federated.tasks.network._CHUNK", 7)
    found = task(batch_size=2)
    x = points(1, found.dim)[0]
    for client, part in enumerate(found._dealt()):
        model = network()
        Parameters(model).write_(x)
        nn.functional.cross_entropy(model(INPUTS[part]), LABELS[part]).backward()
        expected = torch.cat([tensor.grad.flatten() for tensor in Parameters(model).tensors])
        torch.testing.assert_close(found.gradient(client, x), expected, rtol=1e-4, atol=1e-6)


def test_accuracy_is_that_on_what_is_held_out() -> None:
    with_test = task(test=TEST)
    assert with_test.measures == ("accuracy",)
    for x in points(3, 44):
        model = network()
        Parameters(model).write_(x)
        expected = float((model(TEST[0]).argmax(1) == TEST[1]).float().mean())
        assert [with_test.measure(client, x)["accuracy"] for client in range(3)] == pytest.approx(
            [expected] * 3
        )
    assert task().measures == ()
    for data in ((INPUTS, LABELS, *TEST), Data(INPUTS, LABELS, *TEST)):
        assert task(data=data).measures == ("accuracy",)


def test_targets_that_are_no_labels() -> None:
    found = NetworkTask(
        lambda: nn.Linear(3, 1), squared_error, (INPUTS, INPUTS[:, :1]), 4, test=(INPUTS, INPUTS[:, :1])
    )
    assert found.measures == ()
    assert found.value(torch.tensor([1.0, 0, 0, 0])) == 0
    with pytest.raises(ValueError, match="targets are no labels"):
        found.counts()


@pytest.mark.parametrize("vectorized", [False, True])
def test_dropout_follows_from_the_key_and_is_absent_from_measures(vectorized: bool) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 4))

    found = task(model=build, vectorized=vectorized)
    x = points(1, found.dim).repeat(3, 1)
    one = found.values(1, x, key=Key(1))
    assert one[0] == one[1] == one[2]
    assert torch.equal(found.values(1, x, key=Key(1)), one)
    assert not torch.equal(found.values(1, x, key=Key(2)), one)
    assert found.measure(1, x[0]) == found.measure(1, x[0])


def test_running_statistics_stay() -> None:
    found = task(model=lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4)))
    x = points(2, found.dim)
    before = found.measure(0, x[0])
    assert torch.equal(found.values(0, x, key=Key(0)), found.values(0, x, key=Key(0)))
    assert found.measure(0, x[0]) == before


def test_what_travels_is_what_is_needed_to_build_the_rest() -> None:
    found = task(model=f"{NAME}:make_network()", data=f"{NAME}:make_data()", num_clients=2, partition="iid")
    x = points(3, found.dim)
    expected = found.values(1, x, key=Key(0))
    content = pickle.dumps(found)
    assert len(content) < 2000
    sent = pickle.loads(content)
    assert torch.equal(sent.values(1, x, key=Key(0)), expected)
    assert sent.measure(1, x[0]) == found.measure(1, x[0])
    assert sent.identity() == found.identity()
    usual = task()
    usual.measure(0, usual.start(Key(0)))
    assert len(pickle.dumps(usual)) < 12_000


def test_identities_tell_tasks_apart() -> None:
    usual = task().identity()
    assert task().identity() == usual
    others = [
        task(num_clients=2),
        task(partition="iid"),
        task(batch_size=3),
        task(data=(INPUTS + 1, LABELS)),
        task(model=mlp((3, 6, 4), key=Key(2))),
        task(key=Key(1)),
    ]
    others.append(task(model=network().eval()))
    half = network()
    half[1].weight.requires_grad_(False)
    others.append(task(model=half))
    assert all(other.identity() != usual for other in others)
    trained, frozen = network(), network()
    with torch.no_grad():
        trained[1].weight.add_(1)
        frozen[1].weight.requires_grad_(False).add_(1)
    assert task(model=trained).identity() == usual
    assert task(model=frozen).identity() != others[-1].identity()


def test_a_network_is_returned_with_its_parameters() -> None:
    found = task()
    x = points(1, 44)[0]
    assert torch.equal(Parameters(found.network(x)).flat(), x)


@pytest.mark.gpu
def test_on_a_device() -> None:
    here, there = task(test=TEST, batch_size=4), task(test=TEST, batch_size=4, device="cuda", vectorized=True)
    start = there.start(Key(0))
    assert start.device.type == "cuda"
    x = points(4, 44)
    for client in range(3):
        found = there.values(client, x.cuda(), key=Key(1)).cpu()
        np.testing.assert_allclose(found, here.values(client, x, key=Key(1)), rtol=1e-4)
        assert there.measure(client, x[0].cuda())["value"] == pytest.approx(
            here.measure(client, x[0])["value"]
        )
        torch.testing.assert_close(there.gradient(client, x[0].cuda()).cpu(), here.gradient(client, x[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": 3}, "`model` must be a module"),
        ({"model": nn.Linear}, "call it"),
        ({"model": lambda: 3}, "`model` must build a module"),
        ({"model": "tests.federated.functions:make_network"}, 'must have the form "module:name\\(\\)"'),
        ({"model": nn.Flatten()}, "all are frozen"),
        ({"loss": "cross_entropy"}, "`loss` must be a function"),
        ({"loss": nn.functional.cross_entropy}, "one number for each of 2 examples"),
        ({"data": INPUTS}, "`data` must be inputs and targets"),
        ({"data": (INPUTS, LABELS[:-1])}, "`targets` must be as many as `inputs`, 40, got 39"),
        ({"data": (INPUTS, LABELS, *TEST), "test": TEST}, "`test` must be left out"),
        ({"data": make_data, "test": TEST}, "`test` must be left out"),
        ({"test": INPUTS}, "`test` must be inputs and targets"),
        ({"num_clients": 0}, "`num_clients` must be at least 1"),
        ({"num_clients": 41, "partition": "iid"}, "`num_clients` must be at most 40"),
        ({"partition": "idd"}, "Did you mean 'iid'"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"vectorized": 1}, "`vectorized` must be True or False"),
        ({"key": 1}, "`key` must be a Key"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        task(**options)


def normalised() -> nn.Sequential:
    with keyed_generators(Key(3)):
        return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))


DATASET = torch.utils.data.TensorDataset(INPUTS, LABELS)
SLIPS = {
    "mean loss": ({"loss": nn.functional.cross_entropy}, ValueError, r'\(\): .* reduction="none"'),
    "double data": ({"data": (INPUTS.double(), LABELS)}, TypeError, r"torch.float32, .* got torch.float64"),
    "double network": ({"model": network().double()}, TypeError, r"torch.float64, .* got torch.float32"),
    "normalised": (
        {"model": normalised(), "vectorized": True},
        ValueError,
        r"`vectorized` must be False .*: 1, a BatchNorm1d, writes",
    ),
    "dataset": ({"data": DATASET}, TypeError, r"got TensorDataset: give its `tensors`"),
    "indices": (
        {"partition": [np.arange(20), np.arange(20, 40)]},
        TypeError,
        r"got a list: indices of each client are given as partition=lambda",
    ),
    "spacing": ({"spacing": 0.0}, ValueError, r"`spacing` must be a finite number above 0, got 0.0"),
}  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS)
def test_common_slips_are_told(slip: str) -> None:
    options, kind, message = SLIPS[slip]
    with pytest.raises(kind, match=message):
        task(**options)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="`device` is 'cuda:1', and torch finds no CUDA here"):
        task(device="cuda:1")


def test_networks_that_keep_to_their_statistics_may_be_vectorized() -> None:
    model = normalised().eval()
    both = [task(model=model, vectorized=vectorized) for vectorized in (False, True)]
    x = torch.stack([both[0].start(Key(0))] * 2)
    found = [one.values(0, x, key=Key(1)) for one in both]
    torch.testing.assert_close(found[0], found[1])


def test_spacing_may_be_given() -> None:
    assert (task(spacing=0.5).spacing, task().spacing) == (0.5, NetworkTask.spacing)
