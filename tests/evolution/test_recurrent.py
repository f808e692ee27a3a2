"""Policies that remember."""

import pickle

import numpy as np
import pytest

from evolution.environments.spaces import Continuous, Discrete, Image, MultiDiscrete, Spaces, Vector
from evolution.policies.columns import SMALL
from evolution.policies.recurrent import Recurrent
from zoo.core.rng import Key

SPACES = Spaces(Vector(3), Continuous((-1.0, -np.inf), (1.0, np.inf)))
POLICIES = {cell: Recurrent(SPACES, hidden=6, cell=cell) for cell in ("elman", "gru")}
POLICIES |= {
    f"{cell} of one": Recurrent(Spaces(Vector(3), Continuous((-1.0,), (1.0,))), hidden=1, cell=cell)
    for cell in ("elman", "gru")
}
LARGE = Recurrent(SPACES, hidden=80)


def drawn(policy, members):
    return Key(1).normal(0, members, policy.dim).astype(np.float32)


def observed(steps, k):
    return Key(2).normal(0, steps * k, 3).astype(np.float32).reshape(steps, k, 3)


@pytest.mark.parametrize("cell", POLICIES)
def test_an_episode_is_the_same_bits_whatever_runs_beside_it(cell):
    policy, k, steps = POLICIES[cell], 17, 10
    of = np.sort(Key(3).integers(0, 1, k, high=6)[0])
    parameters, seen = drawn(policy, 6), observed(steps, k)
    alone = []
    for i in range(k):
        actor = policy.actor(parameters, of[i : i + 1])
        alone.append([actor.act(seen[t, [i]].T)[:, 0] for t in range(steps)])
    # The states of those that go on are kept, not those of their neighbours.
    left, actor = np.arange(k), policy.actor(parameters, of)
    for t in range(steps):
        np.testing.assert_array_equal(actor.act(seen[t, left].T).T, [alone[i][t] for i in left])
        which = np.delete(np.arange(len(left)), [0] if t % 3 else [1, len(left) - 1])
        actor.keep(which)
        left = left[which]


@pytest.mark.parametrize("policy", [*POLICIES.values(), LARGE], ids=[*POLICIES, "large"])
def test_an_episode_begins_with_nothing_remembered(policy):
    parameters, seen = drawn(policy, 2) / 4, observed(8, 5)
    of = np.array([0, 0, 1, 1, 1])
    first = policy.actor(parameters, of)
    before = [first.act(seen[t].T) for t in range(8)]
    again = policy.actor(parameters, of)
    after = [again.act(seen[t].T) for t in range(8)]
    np.testing.assert_array_equal(before, after)
    # It does remember: the last observation alone leads to other actions.
    assert not np.array_equal(policy.actor(parameters, of).act(seen[7].T), before[7])


@pytest.mark.parametrize("policy", [POLICIES["elman"], POLICIES["gru"], LARGE], ids=["elman", "gru", "large"])
@pytest.mark.parametrize("k", [1, 4])
def test_cells_of_torch_take_the_tensors_and_compute_the_same(policy, k):
    import torch

    kind = torch.nn.RNNCell if policy.cell == "elman" else torch.nn.GRUCell
    module = torch.nn.Module()
    module.cell = torch.nn.utils.skip_init(kind, 3, policy.hidden)
    module.out = torch.nn.utils.skip_init(torch.nn.Linear, policy.hidden, 2)
    row, seen = drawn(policy, 1) / 4, observed(6, k)
    module.load_state_dict({name: torch.from_numpy(t) for name, t in policy.tensors(row[0]).items()})
    actor, memory = policy.actor(row, np.zeros(k, np.int64)), torch.zeros(k, policy.hidden)
    for t in range(6):
        with torch.no_grad():
            memory = module.cell(torch.from_numpy(seen[t]), memory)
            outputs = module.out(memory).numpy().T
        want = np.stack([np.clip(outputs[0], -1, 1), outputs[1]])
        np.testing.assert_allclose(actor.act(seen[t].T), want, rtol=1e-4, atol=1e-5)


def test_large_ones_go_member_by_member_and_keep_their_memories():
    assert LARGE.dim > SMALL
    assert LARGE.members == 1
    parameters, seen = drawn(LARGE, 2) / 8, observed(3, 4)
    of = np.array([0, 0, 1, 1])
    actor = LARGE.actor(parameters, of)
    own = [LARGE.actor(parameters[[m]], np.zeros(2, np.int64)) for m in (0, 1)]
    apart = [one.act(seen[0, of == m].T) for m, one in enumerate(own)]
    np.testing.assert_array_equal(actor.act(seen[0].T), np.concatenate(apart, axis=1))
    actor.keep(np.array([1, 2, 3]))
    own[0].keep(np.array([1]))
    apart = [own[0].act(seen[1, [1]].T), own[1].act(seen[1, 2:].T)]
    np.testing.assert_array_equal(actor.act(seen[1, 1:].T), np.concatenate(apart, axis=1))


def test_a_gate_that_is_shut_keeps_what_was_remembered():
    policy = Recurrent(Spaces(Vector(1), Continuous((-np.inf,), (np.inf,))), hidden=1)
    row = np.zeros(policy.dim, np.float32)
    found = policy.tensors(row)
    # Shut (z = 1) where nothing is seen; where 1 is seen, h <- tanh(2).
    found["cell.bias_ih"][1], found["cell.weight_ih"][1] = 100.0, -200.0
    found["cell.weight_ih"][2], found["out.weight"][:] = 2.0, 1.0
    actor = policy.actor(row[None], np.array([0]))
    acted = [float(actor.act(np.array([[x]], np.float32))[0, 0]) for x in (0, 0, 1, 0, 0)]
    told = float(np.tanh(np.float32(2)))
    assert acted == [0.0, 0.0, told, told, told]


def test_it_travels_small_and_is_described():
    policy = Recurrent(Spaces(Vector(4), MultiDiscrete((2, 3))), hidden=16, cell="elman")
    assert policy.is_recurrent
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert len(pickle.dumps(policy)) < 1200
    assert policy.describe() == {"name": "recurrent", "hidden": 16, "cell": "elman"}
    assert policy.members == 256
    assert policy.dim == 16 * 4 + 16 * 16 + 2 * 16 + 5 * 16 + 5


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"hidden": (32,)}, TypeError, r"`hidden` must be an integer, got \(32,\)"),
        ({"hidden": 0}, ValueError, "`hidden` must be at least 1, got 0"),
        ({"cell": "lstm"}, ValueError, "`cell` must be one of 'elman', 'gru', got 'lstm'"),
        ({"spaces": Spaces(Image(1, 8, 8), Discrete(2))}, ValueError, "got pictures of 1 x 8 x 8"),
    ],
    ids=["sequence", "none", "cell", "pictures"],
)
def test_what_does_not_fit_is_refused(change, error, match):
    with pytest.raises(error, match=match):
        Recurrent(**{"spaces": SPACES, **change})
