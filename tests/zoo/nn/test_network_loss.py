"""The loss of a network as an objective."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from zoo.core.rng import Key, keyed_generators
from zoo.core.types import Rows
from zoo.estimators.finite_difference import FiniteDifference
from zoo.nn.batches import Batches
from zoo.nn.changes import Changes, Choice, OnBatch
from zoo.nn.initialize import initialized
from zoo.nn.losses import cross_entropy, squared_error
from zoo.nn.masks import Layers, Masks
from zoo.nn.network_loss import NetworkLoss
from zoo.nn.parameters import Parameters


def network(dtype=torch.float64):
    """Return a small convolutional network with normalization, which does not learn its statistics here."""
    return initialized(
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(12, 4)
        ),
        Key(0),
    ).to(dtype)


def built():
    return network()


class Branches(nn.Module):
    """No `nn.Sequential`."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, x):
        return self.left(x) + self.right(x).tanh()


def examples(dtype=torch.float64, n=24):
    inputs = torch.from_numpy(Key(1).normal(0, n, 16)).view(n, 1, 4, 4).to(dtype)
    return inputs, torch.from_numpy(Key(2).integers(0, 1, n, high=4)[0])


def objective(model=None, dtype=torch.float64):
    return NetworkLoss(model or network(dtype), cross_entropy, Batches(*examples(dtype), 8, key=Key(3)))


KEY = Key(7)


def values(objective, candidates, step=0, key=KEY):
    reply = objective.evaluate_units(candidates, objective.units(candidates), key=key, step=step)
    assert not reply.failures
    return reply.values


@pytest.mark.parametrize("stencil", ["forward", "central"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
@pytest.mark.parametrize(
    ("dtype", "h", "tolerance"), [(torch.float64, 1e-4, 1e-12), (torch.float32, 5e-3, 1e-6)]
)
def test_changes_have_the_losses_of_their_rows(stencil, sparsity, dtype, h, tolerance):
    loss = objective(dtype=dtype)
    x = loss.parameters.flat()
    masks = Masks.uniform(Layers.of(loss.network()), sparsity)
    changes = Changes(x, Choice(masks, Key(5), 2) if sparsity else None, h, stencil, batch=4)
    fast = values(loss, changes, step=99)
    rows = OnBatch(Rows(changes.rows(0, len(changes))), 4)
    assert np.abs(fast - values(loss, rows, step=98)).max() < tolerance
    assert len(set(fast.tolist())) > len(fast) / 2


def test_changes_give_the_gradient_on_their_coordinates():
    loss = objective(network().eval())
    x = loss.parameters.flat()
    masks = Masks.uniform(Layers.of(loss.network()), 0.6)
    changes = Changes(x, Choice(masks, Key(5), 0), 1e-5, "central", batch=1)
    found = changes.estimate(loss.evaluate(changes, 0, len(changes), key=Key(0), step=0))
    model = loss.network()
    inputs, targets = loss.batches.at(1)
    cross_entropy(model(inputs), targets).mean().backward()
    exact = torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])
    inside = torch.from_numpy(masks.mask(Key(5), 0))
    assert torch.allclose(found.gradient, torch.where(inside, exact, 0.0), atol=1e-8)
    assert found.num_valid == int(inside.sum()) == changes.count
    assert float(exact[~inside].abs().max()) > 1e-4


def test_units_do_not_depend_on_what_was_evaluated_before():
    loss = objective()
    x = loss.parameters.flat()
    changes = Changes(x, None, 1e-3, "forward", batch=0)
    units = list(itertools.pairwise(loss.units(changes)))
    assert len(units) > 1
    assert units[0] == (0, 1)  # the base by itself
    whole = values(loss, changes)
    other = Changes(x + 1, None, 1e-3, "forward", batch=0)
    for start, stop in reversed(units):
        loss.evaluate(other, 0, 1, key=Key(7), step=0)  # another base in between
        loss.evaluate(Rows((x - 1)[None]), 0, 1, key=Key(7), step=0)
        part = loss.evaluate(changes, start, stop, key=Key(7), step=0).values
        assert part.tobytes() == whole[start:stop].tobytes()


def test_a_copy_elsewhere_has_the_same_bytes():
    loss = objective()
    changes = Changes(loss.parameters.flat(), None, 1e-3, "forward", batch=2)
    here = values(loss, changes)
    there = pickle.loads(pickle.dumps(loss))
    assert values(there, pickle.loads(pickle.dumps(changes))).tobytes() == here.tobytes()
    named = NetworkLoss(f"{__name__}:built()", cross_entropy, loss.batches)
    assert values(named, changes).tobytes() == here.tobytes()
    assert values(NetworkLoss(built, cross_entropy, loss.batches), changes).tobytes() == here.tobytes()


def half_frozen():
    """Return a network of which the convolution and its bias stay as they are."""
    model = network()
    model[0].requires_grad_(False)
    return model


def drawn():
    """Return a network that is made of numbers of the global generators, half of it frozen."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)).double()
    model[1].requires_grad_(False)
    model.register_buffer("numbers", torch.from_numpy(np.random.rand(3)))
    return model


@pytest.mark.parametrize("model", [drawn, f"{__name__}:drawn()"])
def test_a_function_builds_the_same_network_everywhere(model):
    batches = Batches(*examples(), 8, key=Key(3))
    loss = NetworkLoss(model, cross_entropy, batches)
    changes = Changes(loss.parameters.flat(), None, 1e-3, "forward", batch=2)
    here = values(loss, changes)
    with keyed_generators(Key(9)):  # as another process may have them
        there = values(pickle.loads(pickle.dumps(loss)), changes)
    assert there.tobytes() == here.tobytes()
    other = NetworkLoss(model, cross_entropy, batches, key=Key(1))
    assert not torch.equal(other.network()[1].weight, loss.network()[1].weight)
    assert other.identity() != loss.identity()


class Secret:
    """Builds a network with frozen numbers, or modes, that nobody else has."""

    def __init__(self, how):
        self.how = how

    def __call__(self):
        model, self.number = half_frozen(), getattr(self, "number", 0) + 1
        if self.how == "frozen":
            model[0].weight.data.fill_(self.number)
        elif self.how == "buffer":
            model[1].running_mean.fill_(self.number)
        else:
            model[4].train(self.number == 1)
        return model


@pytest.mark.parametrize("how", ["frozen", "buffer", "mode"])
def test_a_function_that_builds_another_network_elsewhere_is_refused(how):
    loss = NetworkLoss(Secret(how), cross_entropy, Batches(*examples(), 8, key=Key(3)))
    there = pickle.loads(pickle.dumps(loss))
    with pytest.raises(ValueError, match="`model` must build the same network whenever it is called"):
        there(loss.parameters.flat()[None], key=Key(0))


def test_modes_are_part_of_what_it_is():
    model = network()
    model[4].eval()
    here, there = objective().identity()["attributes"], objective(model).identity()["attributes"]
    assert {name for name in here if here[name] != there[name]} == {"mode"}


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.running_var", "1.num_batches_tracked"])
def test_frozen_parameters_and_buffers_are_part_of_what_it_is(name):
    first, same, other = half_frozen(), half_frozen(), half_frozen()
    tensor = other.state_dict()[name]
    tensor.view(-1)[-1] += 1
    assert torch.equal(*(Parameters(model).flat() for model in (first, other)))  # all else is the same
    assert objective(same).identity() == objective(first).identity()
    differ = objective(other).identity()
    assert differ["attributes"].pop("model") != objective(first).identity()["attributes"]["model"]
    expected = objective(first).identity()
    del expected["attributes"]["model"]
    assert differ == expected


def test_what_it_is_does_not_change_by_evaluating_it():
    loss = objective(half_frozen())
    before = loss.identity()
    x = loss.parameters.flat()
    values(loss, Changes(x + 1, None, 1e-2, "central", batch=0))
    values(loss, Rows(torch.stack([x + 1, x - 1])))
    assert loss.identity() == before
    trained = half_frozen()
    Parameters(trained).write_(x + 1)
    assert objective(trained).identity() == before  # of what is trained, no number is looked at


def test_base_is_evaluated_once_a_step(monkeypatch):
    loss = objective()
    changes = Changes(loss.parameters.flat(), None, 1e-3, "forward", batch=0)
    engine, calls = loss._network().engine, []
    prepare = engine.prepare
    monkeypatch.setattr(engine, "prepare", lambda *given: calls.append(1) or prepare(*given))
    first = values(loss, changes)
    assert len(calls) == 1
    again = Changes(changes.base.clone(), None, 1e-3, "forward", batch=0)
    assert values(loss, again).tobytes() == first.tobytes()
    assert len(calls) == 1  # the same numbers, wherever they lie
    values(loss, Changes(changes.base, None, 1e-3, "forward", batch=1))
    assert len(calls) == 2
    values(loss, Changes(changes.base, None, 1e-3, "forward", batch=1), key=Key(8))
    assert len(calls) == 3


def test_mini_batch_and_dropout_are_those_of_the_step():
    loss = objective()
    x = loss.parameters.flat()
    one = Rows(x[None].repeat(2, 1))
    first, second = (values(loss, one, step=step) for step in (0, 1))
    assert first[0] == first[1] != second[0] == second[1]
    assert values(loss, one, step=0, key=Key(8))[0] != first[0]
    assert values(loss, OnBatch(one, 1), step=0)[0] == second[0]
    assert values(loss, one, step=0).tobytes() == first.tobytes()


def test_nothing_of_the_network_given_changes():
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loss = objective(model)
    x = loss.parameters.flat()
    values(loss, Changes(x, None, 1e-2, "central", batch=0))
    values(loss, Rows(torch.stack([x + 1, x - 1])))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    statistics = loss.network().state_dict()
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(statistics[name], before[name])
    assert model.training


def test_random_vectors_are_rows_of_it():
    loss = objective()
    x = loss.parameters.flat()
    estimator = FiniteDifference("rademacher", 3, 1e-4, "central")
    candidates = estimator.ask(estimator.init(x), x, Key(0), 0)
    found = values(loss, candidates, step=5)
    rows = candidates.rows(0, 6)
    for row, value in zip(rows, found, strict=True):
        assert values(loss, Rows(row[None]), step=5)[0] == value


def test_a_network_that_is_no_sequence_is_one_stage_or_what_is_said():
    inputs = torch.from_numpy(Key(0).normal(0, 6, 2))
    model = initialized(Branches, Key(0)).double()
    loss = NetworkLoss(model, squared_error, Batches(inputs, inputs[:, :1], 6, key=Key(0)))
    x = loss.parameters.flat()
    loss.check(x)
    changes = Changes(x, None, 1e-4, "forward", 0)
    rows = values(loss, OnBatch(Rows(changes.rows(0, 7)), 0))
    assert np.abs(values(loss, changes) - rows).max() < 1e-12
    wrong = NetworkLoss(
        model, squared_error, loss.batches, stages=lambda model: [model.left, nn.Identity(), model.right]
    )
    with pytest.raises((ValueError, RuntimeError), match=r"modules|shapes"):
        wrong.check(x)


def test_numpy_rows_are_written_as_well():
    loss = objective(dtype=torch.float32)
    x = loss.parameters.flat()
    assert loss(x.numpy()[None], key=Key(0)).tobytes() == loss(x[None], key=Key(0)).tobytes()


def scalar(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)


@pytest.mark.parametrize(
    ("loss", "error", "says"),
    [
        (scalar, ValueError, r"one number for each example, shape \(2,\) for 2, got shape \(\).*reduction"),
        (lambda outputs, targets: outputs, ValueError, r"got shape \(2, 4\)"),
        (lambda outputs, targets: 1.0, TypeError, "`loss` must return a tensor, got 1.0"),
        (
            lambda outputs, targets: outputs[:, 0] * float("nan"),
            ValueError,
            "`loss` must be finite where training begins",
        ),
    ],
)
def test_losses_that_are_none(loss, error, says):
    made = NetworkLoss(network(), loss, Batches(*examples(), 8, key=Key(3)))
    with pytest.raises(error, match=says):
        made.check(made.parameters.flat())


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (
            lambda b: NetworkLoss(nn.Linear, cross_entropy, b),
            TypeError,
            "`model` must be a module.*: call it",
        ),
        (lambda b: NetworkLoss(3, cross_entropy, b), TypeError, "`model` must be a module"),
        (lambda b: NetworkLoss(lambda: 3, cross_entropy, b), TypeError, "must build a module.* returned 3"),
        (lambda b: NetworkLoss("os:nothing()", cross_entropy, b), ValueError, "'os:nothing.*cannot be found"),
        (lambda b: NetworkLoss("os:path", cross_entropy, b), ValueError, 'the form "module:name'),
        (lambda b: NetworkLoss(network(), None, b), TypeError, "`loss` must be a function"),
        (lambda b: NetworkLoss(network(), cross_entropy, 3), TypeError, r"must have a method `at\(step\)`"),
        (
            lambda b: NetworkLoss(network(), cross_entropy, b, stages=3),
            TypeError,
            "`stages` must be a function",
        ),
        (lambda b: NetworkLoss(network, cross_entropy, b, key=3), TypeError, "`key` must be a Key"),
        (
            lambda b: objective().evaluate(Rows(torch.ones(1, 3)), 0, 1, key=Key(0), step=0),
            ValueError,
            "`x` must have 88 numbers, one for each parameter, got 3",
        ),
    ],
)
def test_bad_input(make, error, says):
    with pytest.raises(error, match=says):
        make(Batches(*examples(), 8, key=Key(3)))


class Refuses(nn.Module):
    """Raises where its weight is above its limit."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def forward(self, x):
        if float(self.weight.detach().max()) > 0.5:
            raise RuntimeError("too large")
        return x + self.weight.sum()


def test_one_that_raises_fails_by_itself():
    inputs = torch.from_numpy(Key(0).normal(0, 6, 3))
    model = initialized(lambda: nn.Sequential(nn.Linear(3, 3)), Key(0)).double().append(Refuses())
    loss = NetworkLoss(model, squared_error, Batches(inputs, inputs, 6, key=Key(0)))
    x = loss.parameters.flat()
    changes = Changes(x, None, 1.0, "forward", 0)
    for candidates in (changes, OnBatch(Rows(changes.rows(0, len(changes))), 0)):
        reply = loss.evaluate_units(candidates, loss.units(candidates), key=Key(0), step=0)
        assert [failure.row for failure in reply.failures] == [13, 14, 15]
        assert {failure[1:3] for failure in reply.failures} == {("raised", "RuntimeError: too large")}
        assert np.isfinite(reply.values[:13]).all()
        assert len(set(reply.values[:13].tolist())) == 13
    with pytest.raises(RuntimeError, match="too large"):
        loss.evaluate(Changes(x + 1, None, 1.0, "forward", 0), 1, 3, key=Key(0), step=0)
