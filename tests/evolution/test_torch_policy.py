"""Networks of torch as policies: pieces, actions, members and episodes side by side, memory, bad input."""

import copy
import json
import math
import pickle
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from evolution.environments.spaces import (
    Continuous,
    Discrete,
    Image,
    MultiBinary,
    MultiDiscrete,
    Spaces,
    Vector,
)
from evolution.policies.lookup import as_policy
from evolution.policies.policy import Piece
from evolution.policies.torch_policy import TorchPolicy, _Alone, _Mixed, _OneByOne
from tests.evolution.torch_networks import Branching, Cell, Counting, Layered, Tied, Wide, fixed, from_spaces
from zoo.core.rng import Key, keyed_generators

HERE = "tests.evolution.torch_networks"
POLE = Spaces(Vector(4), Discrete(2))
WALKER = Spaces(Vector(4), Continuous((-1.0, -math.inf), (1.0, math.inf)))
NETWORKS = {
    "layers": (fixed, WALKER, _Mixed),
    "cell": (Cell, WALKER, _Mixed),
    "counting": (Counting, WALKER, _Mixed),
    "lstm": (Layered, WALKER, _OneByOne),
    "branching": (Branching, WALKER, _OneByOne),
    "tied": (Tied, WALKER, _Mixed),
}


@pytest.fixture(autouse=True)
def _generators():
    """Layers of torch draw from its global generator when they are made."""
    with keyed_generators(Key(0)):
        yield


def rows(policy, count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, policy.dim)).astype(np.float32)


def seen(count, time):
    return np.random.default_rng(time).standard_normal((4, count)).astype(np.float32)


def reference(policy, row, columns, keeps=()):
    """Return actions of one episode alone, by the network itself."""
    network = policy.network(row)
    state = network.initial_state(1) if hasattr(network, "initial_state") else None
    found = []
    for column in columns:
        value = torch.from_numpy(column[None].copy())
        with torch.no_grad():
            if policy.is_recurrent:
                output, state = network(value, state)
            else:
                output = network(value)
        low, high = policy.spaces.actions.low, policy.spaces.actions.high
        found.append(np.clip(output[0].numpy(), low, high))
    return np.array(found)


# Pieces.


def test_weights_are_drawn_by_their_inputs_and_the_rest_stays():
    network = nn.Sequential(nn.Linear(4, 9), nn.LayerNorm(9), nn.PReLU(), nn.Linear(9, 2))
    pieces = TorchPolicy(network, POLE).pieces
    assert pieces == (
        Piece("0.weight", (9, 4), 1 / 2),
        Piece("0.bias", (9,), 0.0),
        Piece("1.weight", (9,), 0.0, 1.0),
        Piece("1.bias", (9,), 0.0),
        Piece("2.weight", (1,), 0.0, 0.25),
        Piece("3.weight", (2, 9), 1 / 3),
        Piece("3.bias", (2,), 0.0),
    )


def test_a_convolution_has_the_inputs_of_its_square():
    network = nn.Sequential(nn.Conv2d(2, 3, 4), nn.Flatten(), nn.Linear(75, 2))
    policy = TorchPolicy(network, Spaces(Image(2, 8, 8), Discrete(2)))
    assert policy.pieces[0] == Piece("0.weight", (3, 2, 4, 4), 1 / math.sqrt(32))


def test_other_vectors_are_drawn_as_they_lie():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)
            self.scale = nn.Parameter(torch.tensor([1.0, 3.0]))

        def forward(self, values):
            return self.scale * self.linear(values)

    policy = TorchPolicy(Scaled(), POLE)
    assert {piece.name: (piece.mean, piece.std) for piece in policy.pieces}["scale"] == (2.0, 1.0)


def test_constant_tensors_of_two_axes_stay():
    class Plane(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.LayerNorm((1, 4)), nn.Linear(4, 2)
            self.first = nn.Parameter(torch.zeros(1, 4))

        def forward(self, values):
            return self.linear(self.norm(values[:, None]).squeeze(1) + self.first)

    found = {piece.name: (piece.mean, piece.std) for piece in TorchPolicy(Plane(), POLE).pieces}
    assert found["norm.weight"] == (1.0, 0.0)
    assert found["norm.bias"] == found["first"] == (0.0, 0.0)
    assert found["linear.weight"] == (0.0, 1 / 2)


def test_a_layer_of_one_number_is_drawn_as_others_are():
    """So that its description does not hold what torch drew."""
    spaces = Spaces(Vector(1), Continuous((-1.0,), (1.0,)))
    found = [(piece.mean, piece.std) for piece in TorchPolicy(nn.Linear(1, 1), spaces).pieces]
    assert found == [(0.0, 1.0), (0.0, 0.0)]


def test_gains_multiply_the_deviation():
    policy = TorchPolicy(fixed(), POLE, gains={"2.weight": 0.1})
    assert {piece.name: piece.std for piece in policy.pieces}["2.weight"] == 0.1 / math.sqrt(8)


def test_a_matrix_in_two_places_is_one_piece():
    policy = TorchPolicy(Tied(), POLE)
    assert [piece.name for piece in policy.pieces] == [
        "first.weight",
        "first.bias",
        "second.bias",
        "output.weight",
        "output.bias",
    ]
    network = policy.network(rows(policy, 1)[0])
    assert network.first.weight is network.second.weight


def test_a_network_in_use_has_the_tensors_of_its_row():
    policy = TorchPolicy(fixed(), POLE)
    row = rows(policy, 1)[0]
    network = policy.network(row)
    for name, values in policy.tensors(row).items():
        np.testing.assert_array_equal(network.get_parameter(name).numpy(), values)


def test_the_network_that_was_given_is_left_alone():
    network = fixed().train().double()
    before = {name: values.clone() for name, values in network.state_dict().items()}
    policy = TorchPolicy(network, POLE)
    policy.actor(rows(policy, 2), np.array([0, 1])).act(seen(2, 0))
    assert network.training
    for name, values in network.state_dict().items():
        assert values.dtype == torch.float64
        assert torch.equal(values, before[name])


def test_lazy_layers_get_their_shapes():
    policy = TorchPolicy(lambda: nn.Sequential(nn.LazyLinear(3), nn.Tanh(), nn.LazyLinear(2)), POLE)
    assert [piece.shape for piece in policy.pieces] == [(3, 4), (3,), (2, 3), (2,)]


class Noting(nn.Module):
    """It keeps what it saw first, in a layer of its own, and looks at it."""

    def __init__(self, lazy):
        super().__init__()
        self.linear = nn.LazyLinear(2) if lazy else nn.Linear(4, 2)
        self.first = None

    def forward(self, values):
        if self.first is None:
            self.first = values.detach()
        return self.linear(values) + self.first.mean()


@pytest.mark.parametrize("lazy", [False, True], ids=["plain", "lazy"])
def test_nothing_of_the_first_call_is_left(lazy):
    policy = TorchPolicy(Noting(lazy), WALKER)
    assert [piece.shape for piece in policy.pieces] == [(2, 4), (2,)]
    actor = policy.actor(np.zeros((1, policy.dim), np.float32), np.array([0]))
    np.testing.assert_array_equal(actor.act(np.full((4, 1), 0.5, np.float32)), [[0.5], [0.5]])


def test_lazy_layers_in_two_places_stay_one():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.LazyLinear(4)
            self.other, self.last = nn.Sequential(self.one, nn.Tanh()), nn.LazyLinear(2)

        def forward(self, values):
            return self.last(self.other(self.one(values)))

    policy = TorchPolicy(Twice(), POLE)
    assert [piece.name for piece in policy.pieces] == ["one.weight", "one.bias", "last.weight", "last.bias"]
    network = policy.network(rows(policy, 1)[0])
    assert network.one is network.other[0]


# Actions.


@pytest.mark.parametrize(
    ("space", "outputs", "expected"),
    [
        (Discrete(3), [[0, 2, 1], [5, 5, 4]], [1, 0]),
        (MultiDiscrete((2, 3)), [[0, 1, 0, 0, 9], [1, 0, 7, 0, 0]], [[1, 0], [2, 0]]),
        (MultiBinary(2), [[0, 0.5], [-1, 3]], [[0, 0], [1, 1]]),
        (Continuous((0.0, -math.inf), (2.0, math.inf)), [[1, 99], [-3, -99]], [[1, 0], [99, -99]]),
        (Continuous((-1.0,), (1.0,)), [[math.nan], [math.inf]], [[0, 1]]),
    ],
    ids=["choice", "choices", "switches", "numbers", "not-a-number"],
)
def test_actions_follow_from_outputs(space, outputs, expected):
    """The network returns its bias."""
    sizes = len(outputs[0])
    policy = TorchPolicy(nn.Linear(1, sizes), Spaces(Vector(1), space))
    parameters = np.array([[0.0] * sizes + list(one) for one in outputs], np.float32)
    actions = policy.actor(parameters, np.array([0, 1])).act(np.zeros((1, 2), np.float32))
    np.testing.assert_array_equal(actions, np.array(expected))
    assert actions.dtype == (np.float32 if isinstance(space, Continuous) else np.int64)


def test_pictures_go_from_0_to_1():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, 1))

        def forward(self, pictures):
            return pictures.mean((1, 2, 3))[:, None] * self.scale

    policy = TorchPolicy(Mean(), Spaces(Image(2, 3, 3), Continuous((0.0,), (2.0,))))
    pictures = np.stack([np.full((2, 3, 3), value, np.uint8) for value in (0, 51, 255)])
    pictures.flags.writeable = False
    actor = policy.actor(np.ones((1, 1), np.float32), np.zeros(3, np.int64))
    np.testing.assert_allclose(actor.act(pictures), [[0, 0.2, 1]], rtol=1e-6)


# Members and episodes.


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "of",
    [[0], [0, 0, 0], [0, 1, 2], [0, 0, 1, 1], [0, 1, 1, 1, 2], [1, 2]],
    ids=lambda of: "".join(map(str, of)),
)
def test_every_episode_is_as_by_the_network_itself(name, of):
    """Also after some have ended, twice."""
    make, spaces, kind = NETWORKS[name]
    policy = TorchPolicy(make(), spaces)
    parameters = rows(policy, 3)
    actor = policy.actor(parameters, np.array(of))
    assert isinstance(actor, _Alone if len(set(of)) == 1 else kind)
    under_way, expected, found = np.arange(len(of)), {}, {}
    for i in range(len(of)):
        expected[i] = reference(policy, parameters[of[i]], [seen(9, t)[:, i] for t in range(9)])
        found[i] = []
    for time in range(9):
        if time in (3, 6) and len(under_way) > 1:
            left = np.arange(len(under_way))[1 if time == 3 else 0 :: 2]
            under_way = under_way[left]
            actor.keep(left)
        actions = actor.act(seen(9, time)[:, under_way])
        for column, i in enumerate(under_way):
            found[i].append(actions[:, column])
    for i, actions in found.items():
        np.testing.assert_allclose(np.array(actions), expected[i][: len(actions)], rtol=2e-5, atol=1e-6)


def test_how_many_members_are_mixed_is_decided_by_size():
    assert TorchPolicy(fixed(), POLE).members == 256
    large = nn.Sequential(nn.Linear(4, 8000), nn.Tanh(), nn.Linear(8000, 2))
    assert TorchPolicy(large, POLE).members == 1
    assert TorchPolicy(Branching(), POLE).members == 1


class Gated(nn.Module):
    """It has a cell that `vmap` computes member by member, which is slow and said."""

    def __init__(self, *, late):
        super().__init__()
        self.late, self.cell, self.output = late, nn.GRUCell(4, 5), nn.Linear(5, 2)

    def forward(self, seen, state):
        if self.late and state is None:
            state = torch.tanh(seen @ self.cell.weight_ih[:5].T)
        else:
            state = self.cell(seen, state)
        return self.output(state), state


@pytest.mark.parametrize("late", [False, True], ids=["first-step", "second-step"])
def test_what_is_slow_side_by_side_is_computed_one_by_one(late):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        policy = TorchPolicy(partial(Gated, late=late), WALKER)
        actor = policy.actor(rows(policy, 2), np.arange(2))
        for time in range(2):
            actor.act(seen(2, time))
    assert policy.members == 1
    assert isinstance(actor, _OneByOne)
    assert told == []


def test_a_gpu_computes_as_many_members_as_make_a_gigabyte():
    """Only those who use it need to have one."""
    assert TorchPolicy(fixed(), POLE, device="cuda").members == 256
    large = nn.Sequential(nn.Linear(4, 600_000), nn.Tanh(), nn.Linear(600_000, 2))
    policy = TorchPolicy(large, POLE, device="cuda:0")
    assert policy.members == 2**28 // policy.dim == 63


def test_weights_of_members_that_ended_are_let_go():
    policy = TorchPolicy(fixed(), POLE)
    actor = policy.actor(rows(policy, 8), np.arange(8))
    actor.keep(np.arange(5))
    assert len(actor._rows) == 8
    actor.keep(np.arange(4))
    assert len(actor._rows) == 4


def test_memory_begins_anew_in_every_actor():
    policy = TorchPolicy(Cell(), WALKER)
    parameters = rows(policy, 1)
    first = policy.actor(parameters, np.array([0]))
    for time in range(5):
        first.act(seen(1, time))
    fresh, again = policy.actor(parameters, np.array([0])), policy.actor(parameters, np.array([0]))
    assert policy.is_recurrent
    np.testing.assert_array_equal(fresh.act(seen(1, 0)), again.act(seen(1, 0)))


class Kept(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


def test_a_state_may_be_a_named_tuple():
    class Both(Cell):
        def forward(self, seen, state):
            before = None if state is None else state.second
            outputs, after = super().forward(seen, before)
            return outputs, Kept(seen, after)

    policy, plain = TorchPolicy(Both(), WALKER), TorchPolicy(Cell(), WALKER)
    parameters, of = rows(policy, 3), np.array([0, 0, 1, 2])
    one, other = policy.actor(parameters, of), plain.actor(parameters, of)
    for time in range(4):
        np.testing.assert_array_equal(one.act(seen(len(of), time)), other.act(seen(len(of), time)))
        if time == 1:
            of = of[[1, 3]]
            one.keep(np.array([1, 3]))
            other.keep(np.array([1, 3]))


@pytest.mark.parametrize(("default", "remembers"), [(1.0, False), (None, True)], ids=["number", "none"])
def test_a_second_argument_that_is_not_needed_is_no_state(default, remembers):
    class Optional(Pair):
        def forward(self, values, second=default):
            outputs = self.linear(values)
            return (outputs, outputs) if remembers else outputs * second

    policy = TorchPolicy(Optional(), POLE)
    assert policy.is_recurrent == remembers
    assert policy.actor(rows(policy, 2), np.array([0, 1])).act(seen(2, 0)).shape == (2,)


def test_parameters_are_not_written_to():
    policy = TorchPolicy(fixed(), POLE)
    parameters = rows(policy, 2)
    parameters.flags.writeable = False
    before = parameters.copy()
    for of in ([0, 0], [0, 1]):
        policy.actor(parameters, np.array(of)).act(seen(2, 0))
    np.testing.assert_array_equal(parameters, before)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["layers", "cell", "counting", "tied"])
def test_a_gpu_does_the_same(name):
    make, spaces, _ = NETWORKS[name]
    here, there = TorchPolicy(make(), spaces), TorchPolicy(make(), spaces, device="cuda")
    parameters, of = rows(here, 3), np.array([0, 1, 1, 2])
    one, other = here.actor(parameters, of), there.actor(torch.from_numpy(parameters).cuda(), of)
    for time in range(4):
        np.testing.assert_allclose(
            one.act(seen(len(of), time)), other.act(seen(len(of), time)), rtol=1e-4, atol=1e-5
        )
        if time == 1:
            of = of[[0, 2, 3]]
            one.keep(np.array([0, 2, 3]))
            other.keep(np.array([0, 2, 3]))


# Where it comes from, and where it goes.


@pytest.mark.parametrize(
    "module",
    [
        from_spaces,
        fixed,
        fixed(),
        "tests.evolution.torch_networks:from_spaces",
        "tests.evolution.torch_networks:fixed",
    ],
    ids=["function-of-spaces", "function", "network", "name-of-spaces", "name"],
)
def test_networks_are_given_in_several_ways(module):
    policy = TorchPolicy(module, POLE)
    assert policy.dim == 58
    assert policy.describe()["name"] == "torch"


def wide(space, *, n=8):
    return Wide(n) if space is POLE else None


def later(n, spaces):
    return wide(spaces, n=n)


def by_name(*, spaces, **options):
    return wide(spaces, **options)


@pytest.mark.parametrize(
    "module",
    [Wide, wide, later, by_name, partial(later, n=5), f"{HERE}:Wide"],
    ids=["class", "function", "spaces-last", "by-name", "partial", "name"],
)
def test_options_are_those_of_the_class_or_function(module):
    policy, other = (as_policy(module, POLE, {"n": n, "device": "cuda"}) for n in (3, 4))
    assert (policy.dim, other.dim) == (4 * 3 + 3 + 3 * 2 + 2, 4 * 4 + 4 + 4 * 2 + 2)
    assert policy.device == "cuda"
    assert policy.describe()["module"]["options"] == {"n": 3}


def test_a_network_that_is_built_takes_no_options():
    for built in (Wide(3), f"{HERE}:BUILT"):
        with pytest.raises(ValueError, match="`policy_options` must be left out where `policy` is a net"):
            as_policy(built, POLE, {"n": 3, "device": "cpu"})
        assert as_policy(built, POLE, {"device": "cpu"}).dim == 23


def test_an_option_that_nobody_takes_is_refused():
    with pytest.raises(TypeError, match=r"unknown options of the policy 'Wide' 'm'\. .*, 'gains', 'n'"):
        as_policy(Wide, POLE, {"m": 3})
    with pytest.raises(TypeError, match="unknown options of the policy 'wide' 'spaces'"):
        as_policy(wide, POLE, {"spaces": 3})


def test_a_policy_travels_without_its_numbers():
    large = TorchPolicy(nn.Sequential(nn.Linear(4, 40_000), nn.Tanh(), nn.Linear(40_000, 2)), POLE)
    parameters = rows(large, 1)
    expected = large.actor(parameters, np.array([0])).act(seen(1, 0))
    packed = pickle.dumps(large)
    assert len(packed) < 5000
    there = pickle.loads(packed)
    np.testing.assert_array_equal(there.actor(parameters, np.array([0])).act(seen(1, 0)), expected)
    assert there.describe() == large.describe()


def test_buffers_are_fixed_and_told_apart():
    class Shifted(nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.linear = nn.Linear(4, 2)
            self.register_buffer("shift", torch.tensor([0.0, shift]))

        def forward(self, values):
            return self.linear(values) + self.shift

    one, other = TorchPolicy(Shifted(1.0), POLE), TorchPolicy(Shifted(-1.0), POLE)
    zeros = np.zeros((2, one.dim), np.float32)
    for of in ([0, 0], [0, 1]):
        assert one.actor(zeros, np.array(of)).act(seen(2, 0)).tolist() == [1, 1]
        assert other.actor(zeros, np.array(of)).act(seen(2, 0)).tolist() == [0, 0]
    assert one.describe() != other.describe()


def test_numbers_that_a_network_starts_with_make_no_difference():
    """They are not used, and so are not told."""
    assert TorchPolicy(fixed(), POLE).describe() == TorchPolicy(fixed(), POLE).describe()


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, values):
        return self.linear(values), 3


class Bent(Pair):
    def __init__(self, power=1):
        super().__init__()
        self.power = power

    def forward(self, values):
        return self.linear(values) ** self.power


def squared():
    """Return one of the same name."""

    class Other(Pair):
        def forward(self, values):
            return self.linear(values) ** 2

    Other.__name__ = Other.__qualname__ = "Bent"
    return Other()


def around(function):
    class Around(Pair):
        def forward(self, values):
            return function(self.linear(values))

    return Around()


def test_networks_of_other_code_are_told_apart():
    """Also where name, layers and shapes are the same, and inside of layers that are not."""
    networks = [Bent(), Bent(2), squared(), around(torch.tanh), around(torch.sin), around(lambda one: -one)]
    for make in (lambda one: one, nn.Sequential, lambda one: lambda: one):
        told = [json.dumps(TorchPolicy(make(one), POLE).describe()) for one in networks]
        assert len(set(told)) == len(networks)
        assert told == [
            json.dumps(TorchPolicy(make(copy.deepcopy(one)), POLE).describe()) for one in networks
        ]
    assert TorchPolicy(fixed(), POLE).describe()["code"] is None


# Bad input.


class Forgetful(Pair):
    def forward(self, values, state):
        return self.linear(values)


class Stateful(Pair):
    def forward(self, values, state):
        return self.linear(values), torch.zeros(7, 2)


class Wordy(Pair):
    def forward(self, values, state):
        return self.linear(values), "state"


class Summing(Pair):
    """It keeps its state to itself."""

    total = 0.0

    def forward(self, values):
        self.total = self.total + self.linear(values)
        return self.total


class Drawing(Pair):
    def forward(self, values, state):
        return self.linear(values) + torch.randn(len(values), 2), state


@pytest.mark.parametrize(
    ("module", "options", "kind", "message"),
    [
        (
            Summing(),
            {},
            ValueError,
            "keeps something. What it is to remember from one step to the next is to",
        ),
        (Drawing(), {}, ValueError, "and a second call returned others: it draws numbers"),
        (nn.Linear(3, 2), {}, ValueError, "must take a batch of observations of shape ('k', 4)"),
        (
            nn.Linear(4, 5),
            {},
            ValueError,
            "must return outputs of shape (k, 2) for Discrete(count=2); for 2 observations of shape (4,) it "
            "returned (2, 5) instead of (2, 2)",
        ),
        (nn.Flatten(), {}, ValueError, "returned (2, 4)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Flatten(0)), {}, ValueError, "returned (4,)"),
        (nn.AvgPool1d(2), {}, ValueError, "`policy` must have parameters"),
        (Pair(), {}, TypeError, "must return a tensor, got tuple"),
        (Forgetful(), {}, TypeError, "must return (outputs, state), got Tensor"),
        (
            Stateful(),
            {},
            ValueError,
            "whose first axis is the episodes; for 2 of them it has one of shape (7, 2)",
        ),
        (Wordy(), {}, TypeError, "got str"),
        (3, {}, TypeError, "must be a torch.nn.Module, a function of the spaces that returns one, or"),
        (
            "tests.evolution.torch_networks:no_network",
            {},
            TypeError,
            "must return a torch.nn.Module, got int",
        ),
        ("tests.evolution.torch_networks:fixes", {}, ValueError, "Did you mean 'fixed'?"),
        (nn.Linear(4, 2), {"gains": {"wieght": 2.0}}, ValueError, "Did you mean 'weight'?"),
        (nn.Linear(4, 2), {"gains": {"weight": "x"}}, TypeError, "`gains` must be a number, got 'x'"),
        (
            nn.Linear(4, 2),
            {"device": "gpu"},
            ValueError,
            '`device` must be "cpu", "cuda" or the like, got \'gpu\'',
        ),
        (nn.Linear(4, 2), {"device": 0}, TypeError, "`device` must be a text"),
    ],
    ids=[
        "keeping",
        "drawing",
        "inputs",
        "outputs",
        "no-layer",
        "flat",
        "no-parameters",
        "pair",
        "forgetful",
        "state",
        "words",
        "number",
        "no-network",
        "unknown",
        "gains",
        "gain",
        "device",
        "no-text",
    ],
)
def test_what_does_not_fit_is_refused(module, options, kind, message):
    with pytest.raises(kind) as raised:
        TorchPolicy(module, POLE, **options)
    assert message in str(raised.value)
