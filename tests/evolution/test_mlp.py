"""Perceptrons in numpy, and what becomes of their outputs."""

import itertools
import pickle

import numpy as np
import pytest

from evolution.environments.lookup import as_environment
from evolution.environments.spaces import (
    Continuous,
    Discrete,
    Image,
    MultiBinary,
    MultiDiscrete,
    Spaces,
    Vector,
)
from evolution.episodes import Episodes
from evolution.members import HeldMembers
from evolution.moments import Normalizer
from evolution.policies.actions import outputs_of, rule_of
from evolution.policies.columns import SMALL
from evolution.policies.mlp import MLP
from evolution.policies.recurrent import Recurrent
from evolution.rollouts import Rollouts
from zoo.core.rng import Key

INF, NAN = np.inf, np.nan
NUMBERS = Continuous((-2.0, 0.0, -INF, -INF), (2.0, 1.0, INF, 3.0))
POLICIES = {
    "4-32-2": MLP(Spaces(Vector(4), Discrete(2))),
    "7-5-9-4 relu": MLP(Spaces(Vector(7), NUMBERS), hidden=(5, 9), activation="relu"),
    "3-6 linear": MLP(Spaces(Vector(3), MultiDiscrete((2, 4))), hidden=()),
    "1-1-1": MLP(Spaces(Vector(1), Continuous((-INF,), (INF,))), hidden=(1,)),
    "2-50-1": MLP(Spaces(Vector(2), Continuous((-INF,), (INF,))), hidden=(50,)),
    "17-40-40-3": MLP(Spaces(Vector(17), MultiBinary(3)), hidden=(40, 40)),
    "17-40-40-6": MLP(Spaces(Vector(17), Continuous((-INF,) * 6, (INF,) * 6)), hidden=(40, 40)),
}
LARGE = MLP(Spaces(Vector(20), Continuous((-1.0,) * 5, (1.0,) * 5)), hidden=(120, 128))


def drawn(policy, members, name="parameters"):
    return Key(1).fold(name).normal(0, members, policy.dim).astype(np.float32)


def observed(policy, steps, k):
    size = policy.spaces.observations.size
    return Key(2).fold("seen").normal(0, steps * k, size).astype(np.float32).reshape(steps, k, size)


def torch_module(policy):
    import torch

    sizes = [piece.shape for piece in policy.pieces[::2]]
    layers = []
    for outputs, inputs in sizes:
        layers += [
            torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs),
            torch.nn.Tanh() if policy.activation == "tanh" else torch.nn.ReLU(),
        ]
    return torch.nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("k", [21, 33])
def test_an_episode_is_the_same_bits_whatever_runs_beside_it(name, k):
    policy, steps = POLICIES[name], 12 if k == 21 else 18
    of = np.sort(Key(3).integers(0, 1, k, high=9)[0])
    parameters, seen = drawn(policy, 9), observed(policy, steps, k)
    alone = []
    for i in range(k):
        actor = policy.actor(parameters, of[i : i + 1])
        alone.append([actor.act(seen[t, i : i + 1].T)[..., 0].copy() for t in range(steps)])
    # Episodes end one at a time and several at a time, so that columns are in use, unused and let go.
    left = np.arange(k)
    actor = policy.actor(parameters, of)
    for t in range(steps):
        actions = actor.act(seen[t, left].T)
        assert actions.shape[-1] == len(left)
        for column, i in enumerate(left):
            np.testing.assert_array_equal(actions[..., column], alone[i][t])
        which = np.delete(np.arange(len(left)), [0] if t % 3 else [1, len(left) - 1])
        actor.keep(which)
        left = left[which]
    assert len(left) == k - steps * 4 // 3


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("k", [2, 17, 300])
def test_episodes_of_one_member_are_those_of_many_that_are_equal(name, k):
    policy = POLICIES[name]
    row, seen = drawn(policy, 1), observed(policy, 1, k)[0].T
    shared = policy.actor(row, np.zeros(k, np.int64))
    apart = policy.actor(np.repeat(row, k, 0), np.arange(k))
    np.testing.assert_array_equal(shared.act(seen), apart.act(seen))
    which = np.arange(0, k, 2)
    for actor in (shared, apart):
        actor.keep(which)
    np.testing.assert_array_equal(shared.act(seen[:, which]), apart.act(seen[:, which]))


@pytest.mark.parametrize("kind", [MLP, Recurrent])
def test_values_are_the_same_bits_in_any_company(kind):
    poles = as_environment("cart-pole", max_steps=None)
    policy = kind(poles.spaces)
    members, times = 9, 3
    normalizer = Normalizer(np.full(4, 0.01, np.float32), np.full(4, 0.5, np.float32))
    rows = Episodes(HeldMembers(drawn(policy, members)), times, normalizer, common=False)
    rollouts = Rollouts(poles, policy, behaviour="state", normalized=True)
    whole = rollouts.evaluate(rows, 0, len(rows), key=Key(0), step=3)
    assert len(set(whole.values.tolist())) > 5
    cuts = [0, 1, 4, 6, 15, 16, 27]
    for start, stop in itertools.pairwise(cuts):
        part = rollouts.evaluate(rows, start, stop, key=Key(0), step=3)
        np.testing.assert_array_equal(part.values, whole.values[start:stop])
        for name in ("steps", "behaviour", "moments"):
            np.testing.assert_array_equal(part.extras[name], whole.extras[name][start:stop])


def test_sums_are_taken_term_by_term():
    policy = MLP(Spaces(Vector(30), Continuous((-INF,) * 3, (INF,) * 3)), hidden=())
    row, seen = drawn(policy, 1), observed(policy, 1, 1)[0]
    found = policy.tensors(row[0])
    total = np.zeros(3, np.float32)
    for i in range(30):
        total = total + found["0.weight"][:, i] * seen[0, i]
    total = total + found["0.bias"]
    actions = policy.actor(row, np.array([0])).act(seen.T)
    # Hardware that multiplies and adds at once rounds once where this rounds twice.
    np.testing.assert_allclose(actions[:, 0], total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", [*POLICIES.values(), LARGE], ids=[*POLICIES, "20-120-128-5"])
def test_a_network_of_torch_takes_the_tensors_and_computes_the_same(policy):
    import torch

    module = torch_module(policy)
    row = drawn(policy, 1) / 4
    module.load_state_dict({name: torch.from_numpy(t) for name, t in policy.tensors(row[0]).items()})
    seen = observed(policy, 1, 6)[0]
    with torch.no_grad():
        outputs = module(torch.from_numpy(seen)).numpy().T
    for k in (1, 6):
        actions = policy.actor(row, np.zeros(k, np.int64)).act(seen[:k].T)
        want = rule_of(policy.spaces.actions)(outputs[:, :k].copy())
        np.testing.assert_allclose(actions, want, rtol=1e-4, atol=1e-5)


def test_large_networks_go_member_by_member():
    assert LARGE.dim > SMALL
    assert LARGE.members == 1
    parameters, seen = drawn(LARGE, 3) / 8, observed(LARGE, 2, 6)
    of = np.array([0, 0, 1, 2, 2, 2])
    actor = LARGE.actor(parameters, of)
    own = [LARGE.actor(parameters[[m]], np.zeros((of == m).sum(), np.int64)) for m in range(3)]
    first = actor.act(seen[0].T)
    for m in range(3):
        np.testing.assert_array_equal(first[:, of == m], own[m].act(seen[0, of == m].T))
    which = np.array([1, 3, 5])
    actor.keep(which)  # no episode of member 1 is left
    second = actor.act(seen[1, which].T)
    own[0].keep(np.array([1]))
    own[2].keep(np.array([0, 2]))
    np.testing.assert_array_equal(second[:, :1], own[0].act(seen[1, [1]].T))
    np.testing.assert_array_equal(second[:, 1:], own[2].act(seen[1, [3, 5]].T))


def test_parameters_are_not_written_to_and_a_member_may_be_left_out():
    for policy in (*POLICIES.values(), LARGE):
        parameters = drawn(policy, 4)
        parameters.setflags(write=False)
        seen = observed(policy, 1, 2)[0].T
        actor = policy.actor(parameters, np.array([1, 3]))
        apart = [policy.actor(parameters[[m]], np.array([0])) for m in (1, 3)]
        for i, one in enumerate(apart):
            np.testing.assert_array_equal(actor.act(seen)[..., i], one.act(seen[:, [i]])[..., 0])


def test_actions_stay_when_the_next_ones_are_asked_for():
    for policy in POLICIES.values():
        actor = policy.actor(drawn(policy, 1), np.array([0]))
        seen = observed(policy, 2, 1)
        first = actor.act(seen[0].T)
        copy = first.copy()
        actor.act(seen[1].T)
        np.testing.assert_array_equal(first, copy)


def test_it_travels_small_and_is_described():
    policy = MLP(Spaces(Vector(4), Discrete(2)), hidden=[16, 8], activation="relu")
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert len(pickle.dumps(policy)) < 1000
    assert policy.describe() == {"name": "mlp", "hidden": [16, 8], "activation": "relu"}
    assert policy.members == 256
    assert policy.dim == 4 * 16 + 16 + 16 * 8 + 8 + 8 * 2 + 2
    assert [piece.name for piece in policy.pieces] == [
        f"{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")
    ]
    assert [piece.std for piece in policy.pieces] == [1 / n**0.5 if n else 0 for n in (4, 0, 16, 0, 8, 0)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_choice_is_the_first_of_the_largest(count):
    rule = rule_of(Discrete(count))
    outputs = Key(0).integers(0, count, 50, high=3).astype(np.float32)
    actions = rule(outputs)
    assert actions.dtype == np.int64
    np.testing.assert_array_equal(actions, outputs.argmax(axis=0))
    broken = outputs.copy()
    broken[count - 1, ::3] = NAN
    actions = rule(broken)
    assert (actions[::3] == 0).all()
    np.testing.assert_array_equal(np.delete(actions, np.s_[::3]), np.delete(outputs.argmax(0), np.s_[::3]))


def test_several_choices_and_switches():
    outputs = np.array([[0, 1], [2, 1], [5, NAN], [4, 0], [6, 9]], np.float32)
    assert outputs_of(MultiDiscrete((2, 3))) == 5
    assert rule_of(MultiDiscrete((2, 3)))(outputs).tolist() == [[1, 0], [2, 0]]
    outputs = np.array([[-1, 0], [0.5, NAN]], np.float32)
    switched = rule_of(MultiBinary(2))(outputs)
    assert switched.dtype == np.int64
    assert switched.tolist() == [[0, 0], [1, 0]]


def test_numbers_fill_the_box_and_are_never_nan():
    rule = rule_of(NUMBERS)
    outputs = np.array([[0.0, 1.0, -1.0, 0.5, 9.0, -INF, INF, NAN]] * 4, np.float32)
    before = outputs.copy()
    actions = rule(outputs)
    np.testing.assert_array_equal(outputs, before)
    assert actions.dtype == np.float32
    assert actions.tolist() == [
        [0.0, 2.0, -2.0, 1.0, 2.0, -2.0, 2.0, 0.0],
        [0.5, 1.0, 0.0, 0.75, 1.0, 0.0, 1.0, 0.5],
        [0.0, 1.0, -1.0, 0.5, 9.0, -INF, INF, 0.0],
        [0.0, 1.0, -1.0, 0.5, 3.0, -INF, 3.0, 0.0],
    ]


def test_no_number_is_beyond_its_walls():
    low = Key(5).normal(0, 1, 500)[0].astype(np.float32)
    high = low + Key(6).uniform(0, 1, 500)[0].astype(np.float32) ** 8
    rule = rule_of(Continuous(tuple(low.tolist()), tuple(high.tolist())))
    for output in (-INF, -1, 1, INF, 3e38):
        actions = rule(np.full((500, 1), output, np.float32))[:, 0]
        assert (low <= actions).all()
        assert (actions <= high).all()
        np.testing.assert_allclose(actions, low if output < 0 else high, rtol=1e-6, atol=1e-6)


def test_walls_at_the_largest_numbers_are_none():
    most = float(np.finfo(np.float32).max)
    rule = rule_of(Continuous((-most,), (most,)))
    assert rule(np.array([[0.25, INF, NAN]], np.float32)).tolist() == [[0.25, most, 0.0]]


def test_a_box_of_one_between_walls_leaves_outputs_as_they_are():
    rule = rule_of(Continuous((-1.0,) * 2, (1.0,) * 2))
    outputs = np.array([[0.1, -3.0], [1e-8, 0.7]], np.float32)
    np.testing.assert_array_equal(rule(outputs), np.clip(outputs, -1, 1))


def test_networks_whose_sums_overflow_still_act():
    for policy in POLICIES.values():
        parameters = drawn(policy, 5) * np.float32(5e37)
        parameters[3, :2] = NAN
        actions = policy.actor(parameters, np.arange(5)).act(observed(policy, 1, 5)[0].T)
        assert not np.isnan(actions).any()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"hidden": 32}, TypeError, r"must be a list of integers such as \[32,32\], got 32: write \[32\]\.$"),
        ({"hidden": "32"}, TypeError, "`hidden` must be a list of integers such as"),
        ({"hidden": (4, 0)}, ValueError, "`hidden` must be at least 1, got 0"),
        ({"hidden": (4.0,)}, TypeError, "`hidden` must be an integer, got 4.0: write 4"),
        ({"activation": "tan"}, ValueError, "`activation` must be one of 'tanh', 'relu', got 'tan'. Did you"),
        ({"spaces": Spaces(Image(4, 84, 84), Discrete(2))}, ValueError, "got pictures of 4 x 84 x 84"),
    ],
    ids=["number", "text", "none", "float", "activation", "pictures"],
)
def test_what_does_not_fit_is_refused(change, error, match):
    with pytest.raises(error, match=match):
        MLP(**{"spaces": Spaces(Vector(4), Discrete(2)), **change})
