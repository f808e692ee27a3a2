"""FZooS: its queries, its correction, and what becomes of bad input."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from federated.algorithm import Answer, Local, Problem
from federated.algorithms.fzoos import FZooS, Go, Said, Settled
from federated.algorithms.local_descent import Point
from federated.algorithms.queries import orthogonal, sweep, uncertain
from federated.network import Network
from federated.surrogate.gaussian_process import GaussianProcess
from federated.surrogate.window import Window
from federated.task import Task
from federated.tasks.synthetic import Quadratic
from tests.federated.runs import federated, values
from zoo.core.bounds import Bounds
from zoo.core.errors import ZooWarning
from zoo.core.rng import Key
from zoo.core.state import digest

SMALL = {"num_steps": 3, "step_queries": 2, "round_queries": 4, "start_queries": 3}
FEATURES = {**SMALL, "message": "features", "num_features": 64}


class Bowls(Task):
    """f_i(x) = |x - centre_i|^2, with a centre for each client."""

    def __init__(self, centres, dtype=np.float64, level=1.0, failing=()):
        self.centres = np.asarray(centres, np.float64)
        self.num_clients, self.dim = self.centres.shape
        self.dtype, self.level, self.failing = dtype, level, failing

    def start(self, key):
        return np.full(self.dim, 0.5, self.dtype)

    def values(self, client, x, *, key):
        if client in self.failing:
            return np.full(len(x), np.nan)
        return self.level * ((x - self.centres[client]) ** 2).sum(1)

    def measure(self, client, x):
        return {"value": float(((x - self.centres[client]) ** 2).sum())}


def talked(work, task, client):
    """Have a client work, and return what it returns and the points it asks for, call by call."""
    asked, answer = [], None
    while True:
        try:
            wanted = work.send(answer)
        except StopIteration as end:
            return (*end.value, asked)
        asked.append(getattr(wanted, "points", wanted))
        answer = task.values(client, asked[-1], key=Key(0))


# Queries


def test_a_client_asks_for_93_values_a_round_and_more_at_first():
    state = federated(FZooS(), Quadratic(30, 5), rounds=2)
    assert state.hidden == 0
    assert state.queries.tolist() == [15 + 2 * 93] * 5
    assert [FZooS().most_queries(300, first) for first in (True, False)] == [150 + 93, 93]


def test_the_published_form_asks_for_107_values_a_round_and_10_at_first():
    method = FZooS.published(num_features=50)
    state = federated(method, Quadratic(20, 5), rounds=2)
    assert state.queries.tolist() == [10 + 2 * (107 + 2)] * 5
    assert state.hidden == 2 * 5 * 2
    assert [method.most_queries(300, first) for first in (True, False)] == [119, 109]


@pytest.mark.parametrize(
    ("dim", "options", "first"),
    [
        (20, {}, 10),
        (64, {}, 32),
        (300, {}, 150),
        (10_000, {}, 419),  # half of what 64 MB have room for
        (300, {"window": 40}, 20),
        (300, {"window": 2}, 10),
        (300, {"start_queries": 7}, 7),
    ],
)
def test_the_first_queries_grow_with_the_number_of_variables(dim, options, first):
    method = FZooS(**options)
    assert method.most_queries(dim, True) - method.most_queries(dim, False) == first


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_points_of_a_look_are_different(dim):
    task = Bowls([[0.2] * dim])
    method = FZooS()
    client = method.client_init(np.full(dim, 0.5), Problem(1, None, Key(0)), 0)
    client, _, asked = talked(
        method._walk(client, Go(np.full(dim, 0.5), 1.0, 0, None, None), Local(0, 0, Key(1), task)), task, 0
    )
    assert [len(points) for points in asked] == [1 + min(10, 2 * dim), *[1 + min(8, 2 * dim)] * 9, 1]
    for points in asked:
        assert len(np.unique(points.round(9), axis=0)) == len(points)


def test_a_client_begins_with_more_queries_whenever_it_first_takes_part():
    method = FZooS(**SMALL)
    state = federated(
        method, Bowls([[0.2, 0.8]] * 4), rounds=6, network=Network(participation=0.5), on_error="nan"
    )
    usual = method.most_queries(2, False)
    assert sorted(state.queries % usual) == [3] * 4
    client = method.client_init(np.full(2, 0.5), Problem(1, None, Key(0)), 0)
    go, task = Go(np.full(2, 0.5), 1.0, 0, None, None), Bowls([[0.2, 0.8]])
    for count in (4, 1):
        client, _, asked = talked(method._walk(client, go, Local(9, 0, Key(1), task)), task, 0)
        assert len(asked[0]) == count


def test_the_published_form_counts_585_and_takes_595():
    state = federated(FZooS.published(num_features=50), Quadratic(20, 5))
    assert (state.nfev - state.hidden, state.nfev) == (585, 595)


def test_the_published_form_has_the_constants_of_the_paper():
    made = FZooS.published()
    assert made.num_features == 10_000
    assert (made.num_steps, made.learning_rate, made.window, made.feature_points) == (10, 0.01, 150, 500)
    assert (made.start_queries, made.step_queries, made.round_queries) == (10, 5, 50)
    assert (made.step_candidates, made.round_candidates, made.radius) == (100, 200, 0.01)
    assert (made.gamma, made.accept, made.bounded, made.restart, made.decay) == (
        "published",
        True,
        False,
        True,
        1,
    )
    assert (made.rule.beta1, made.rule.beta2, made.noise, made.feature_length) == (0.9, 0.999, 1e-6, 1)
    assert FZooS.published(num_features=7) == dataclasses.replace(made, num_features=7)


def test_bytes_are_those_of_points_and_of_what_is_said():
    dim, clients, features = 20, 5, 64
    state = federated(FZooS(**SMALL, gamma=1.0), Quadratic(dim, clients), rounds=1)
    assert state.up == clients * (8 * dim + 8 * dim + 1)
    state = federated(FZooS(**FEATURES, gamma=1.0), Quadratic(dim, clients), rounds=1)
    assert state.up == clients * (8 * dim + 8 * features + 1)


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_sweeps_are_orthonormal_bases_row_by_row(dim):
    whole = sweep(Key(3), dim, 0, 3 * dim)
    for first in range(0, 3 * dim, dim):
        basis = whole[first : first + dim]
        assert np.allclose(basis @ basis.T, np.eye(dim), atol=1e-12)
    assert (sweep(Key(3), dim, dim, 2) == whole[dim : dim + 2]).all()
    if dim == 7:
        assert not np.allclose(whole[:dim], whole[dim : 2 * dim])


def test_clients_begin_all_over_a_basis():
    problem = Problem(5, None, Key(0))
    firsts = [FZooS().client_init(np.zeros(300), problem, client).direction for client in range(5)]
    assert firsts == [0, 60, 120, 180, 240]


def test_points_around_x_are_at_one_distance():
    x = np.full(300, 0.5)
    found = orthogonal(x, 0.1, 6, 4, Key(0), Key(1)) - x
    assert np.allclose(found @ found.T, 0.01 * np.eye(6), atol=1e-12)


def test_the_published_form_asks_in_a_box_from_the_first_point_on():
    task, method = Bowls([[0.3] * 50]), FZooS.published(num_features=20, num_steps=1)
    x = np.full(50, 0.5)
    client = method.client_init(x, Problem(1, None, Key(0)), 0)
    work = method._walk(client, Go(x, 1.0, 0, None, None), Local(0, 0, Key(1), task))
    _, _, asked = talked(work, task, 0)
    far = abs(asked[0][1:] - x)
    assert far.shape == (10, 50)
    assert 0.009 < far.max() <= 0.01
    assert len(np.unique(far.round(12))) > 400


@pytest.mark.parametrize("options", [{"update": "sgd", "learning_rate": 0.01}, {"queries": "orthogonal"}])
def test_the_published_form_has_no_options_without_effect(options):
    assert FZooS.published(**options).num_features == 10_000


def test_the_least_known_candidates_are_taken(monkeypatch):
    x = np.array([0.5, 0.999])
    window = Window.empty(2, 50).add(Key(0).uniform(0, 20, 2), np.arange(20.0))
    fit, _ = GaussianProcess().fit(window, x)
    bounds = Bounds(np.zeros(2), np.ones(2))
    found = uncertain(x, 0.01, 4, 30, fit, Key(5), bounds)
    drawn = bounds.map(x + 0.01 * (2 * Key(5).uniform(0, 30, 2) - 1), "clip")
    assert bounds.contains(found)
    assert sorted(fit.uncertainty(found)) == sorted(np.sort(fit.uncertainty(drawn))[-4:])
    monkeypatch.setattr("federated.algorithms.queries._BLOCK", 6)
    assert np.allclose(uncertain(x, 0.01, 4, 30, fit, Key(5), bounds), found)


def test_the_box_of_the_second_trip_is_half_as_wide_as_the_clients_way():
    task, method = Bowls([[0.3] * 4]), FZooS(**SMALL, queries="box", round_candidates=50)
    client = method.client_init(np.full(4, 0.5), Problem(1, None, Key(0)), 0)
    client = dataclasses.replace(client, end=np.full(4, 0.9))
    _, _, asked = talked(method._say(client, Settled(np.full(4, 0.5), 1), Local(0, 0, Key(1), task)), task, 0)
    far = np.abs(asked[0][1:] - 0.5)
    assert far.max() <= 0.2
    assert far.max() > 0.02


# The correction


@pytest.mark.parametrize("options", [SMALL, FEATURES], ids=["gradient", "features"])
def test_one_client_corrects_nothing(options):
    task = Bowls([[0.2, 0.8, 0.4]])
    runs = [federated(FZooS(**options, gamma=gamma), task, rounds=3) for gamma in (0.0, 1.0, "adaptive")]
    for state in runs[1:]:
        assert (values(state) == values(runs[0])).all()
        assert (state.optimizer.x == runs[0].optimizer.x).all()


@pytest.mark.parametrize("gamma", [0.5, "published", "adaptive"])
def test_the_correction_is_the_difference_of_what_all_and_one_have_said(gamma):
    method = FZooS(**SMALL, gamma=gamma)
    client = method.client_init(np.zeros(2), Problem(2, None, Key(0)), 0)
    client = dataclasses.replace(client, said=np.array([1.0, 2.0]), number=3)
    deviation = math.sqrt(2) if gamma == "adaptive" else None
    correct = method._correction(client, Go(np.zeros(2), 1.0, 3, np.array([4.0, 6.0]), deviation))
    share = {0.5: 0.5, "published": 1 / 4, "adaptive": 27 / 29}[gamma]
    assert np.allclose(correct(np.zeros(2), 3), np.array([3.0, 4.0]) * share)


def test_the_correction_by_features_is_a_difference_of_two_gradients():
    method = FZooS(**FEATURES, gamma=1.0)
    client = method.client_init(np.zeros(3), Problem(2, None, Key(0)), 0)
    own, whole = Key(1).normal(0, 2, 64)
    client = dataclasses.replace(client, said=own, number=1)
    x = np.array([0.1, 0.2, 0.3])
    features = method._features(client, 3)
    expected = features.gradient(whole, x) - features.gradient(own, x)
    found = method._correction(client, Go(x, 1.0, 1, whole, None))(x, 0)
    assert np.abs(found - expected).max() < 1e-12


def test_who_was_not_heard_takes_what_it_would_have_said():
    method, task = FZooS(**SMALL, gamma=1.0), Bowls([[0.3] * 4, [0.6] * 4])
    x = np.full(4, 0.5)
    client = method.client_init(x, Problem(2, None, Key(0)), 0)
    client, said, _ = talked(method._say(client, Settled(x, 7), Local(0, 0, Key(1), task)), task, 0)
    late = dataclasses.replace(client, said=None, number=5)
    total = said.surrogate + 1.0
    for one in (client, late):
        found = method._correction(one, Go(x, 1.0, 7, total, None))(x, 0)
        assert np.allclose(found, 1.0, atol=1e-9)
    new = method.client_init(x, Problem(2, None, Key(0)), 1)
    assert (method._correction(new, Go(x, 1.0, 7, total, None))(x, 0) == total).all()


def test_the_mean_is_by_weight_and_without_those_who_know_nothing():
    method = FZooS(gamma="adaptive")
    server = method.server_init(np.zeros(2), Problem(3, None, Key(0)))
    answers = [
        Answer(0, Said(np.array([1.0, 0.0]), 4.0), 1.0),
        Answer(1, Said(None, 0.0), 5.0),
        Answer(2, Said(np.array([0.0, 2.0]), 1.0), 3.0),
    ]
    heard = method._heard(server, answers)
    assert heard.surrogate.tolist() == [0.25, 1.5]
    assert heard.deviation == 1.25  # the root of (4^2 + 3^2 1^2) / 4^2
    assert method._heard(server, answers[1:2]) is server


# The server


def test_the_rate_falls_when_the_server_turns_back():
    method = FZooS(decay=0.5)
    server = method.server_init(np.zeros(2), Problem(1, None, Key(0)))
    rates = []
    for x in ([1.0, 0.0], [1.0, 1.0], [1.0, 0.5], [1.0, 0.25]):
        server = method._moved(server, [Answer(0, Point(np.array(x)), 1.0)])
        rates.append(server.rate)
    assert rates == [1, 1, 0.5, 0.5]
    assert method.diagnostics(server) == {"share of the rate": 0.5}


def test_a_move_that_does_not_pay_is_taken_back():
    task = Bowls([[0.5, 0.5], [0.5, 0.5]])  # where it starts
    kept = federated(FZooS(**SMALL, accept=True), task, rounds=3)
    assert (values(kept) == 0).all()
    assert kept.hidden == 3 * 2 * 2
    gone = federated(FZooS(**SMALL), task, rounds=3)
    assert gone.hidden == 0
    assert (gone.optimizer.x != 0.5).any()


def test_transitions_leave_states_as_they_are():
    method, task = FZooS(**SMALL, restart=False), Bowls([[0.3] * 4])
    x, problem = np.full(4, 0.5), Problem(1, None, Key(0))
    server, client = method.server_init(x, problem), method.client_init(x, problem, 0)
    before = digest(server), digest(client)
    first, last = method.trips
    work = first.reply(client, first.request(server, [0]), Local(0, 0, Key(1), task))
    walked, message, _ = talked(work, task, 0)
    between = digest(walked)
    talked(last.reply(walked, Settled(x, 1), Local(0, 0, Key(2), task)), task, 0)
    first.merge(server, [Answer(0, message, 1.0)])
    assert (digest(server), digest(client), digest(walked)) == (*before, between)


# Options


OPTIONS = {
    "published": FZooS.published(**{**FEATURES, "accept": True}),
    "features": FZooS(**FEATURES),
    "drawn features": FZooS(**FEATURES, orthogonal_features=False, gamma="published"),
    "box": FZooS(**SMALL, queries="box"),
    "rbf": FZooS(**SMALL, kernel="rbf"),
    "constant gamma": FZooS(**SMALL, gamma=0.7),
    "unfitted": FZooS(**SMALL, fitted=False),
    "small window": FZooS(**SMALL, window=12),
    "adam goes on": FZooS(**SMALL, restart=False),
    "sgd": FZooS(**SMALL, update="sgd", learning_rate=0.05),
    "virtual steps": FZooS(**SMALL, virtual_steps=2),
    "accept": FZooS(**SMALL, accept=True),
    "known noise": FZooS(**SMALL, noise=1e-4),
    "no active queries": FZooS(num_steps=5, step_queries=0, round_queries=0, start_queries=8),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_form_goes_down(name):
    task = Quadratic(6, 3, heterogeneity=1.0)
    state = federated(OPTIONS[name], task, rounds=8)
    gaps = values(state) - task.optimum
    assert gaps[-1] < 0.5 * gaps[0]
    assert state.nfev == sum(3 * OPTIONS[name].most_queries(6, not number) for number in range(8))


def test_virtual_steps_take_no_queries():
    task = Bowls([[0.1, 0.9]])
    few = federated(FZooS(**SMALL), task, rounds=2)
    more = federated(FZooS(**SMALL, virtual_steps=3, confidence=0.9), task, rounds=2)
    never = federated(FZooS(**SMALL, virtual_steps=3, confidence=1e-300), task, rounds=2)
    assert few.nfev == more.nfev == never.nfev
    assert values(more)[-1] < values(few)[-1] == values(never)[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1.0}, "`gamma` must be a finite number of at least 0, got -1.0."),
        ({"gamma": "adaptiv"}, "Did you mean 'adaptive'?"),
        ({"message": "weights"}, "`message` must be one of"),
        ({"decay": 0.0}, "`decay` must be above 0 and at most 1, got 0.0."),
        ({"queries": "sphere"}, "`queries` must be one of"),
        (
            {"queries": "box", "step_candidates": 3},
            "`step_candidates` must be at least `step_queries`, 8, got 3",
        ),
        ({"window": 1}, "`window` must be at least 2, got 1."),
        ({"radius": 0.0}, "`radius` must be a finite number above 0"),
        ({"noise": -1e-6}, "`noise` must be a finite number of at least 0"),
        ({"kernel": "cubic"}, "`kernel` must be one of"),
        ({"update": "sgd", "beta1": 0.5}, "`beta1` is for when `update` is 'adam', got 0.5: leave it out."),
        ({"update": "sgd", "beta2": 0.5}, "`beta2` is for when `update` is 'adam', got 0.5: leave it out."),
        ({"step_candidates": 9}, "`step_candidates` is for when `queries` is 'box', got 9: leave it out."),
        ({"round_candidates": 9}, "`round_candidates` is for when `queries` is 'box', got 9: leave it out."),
        ({"confidence": 0.1}, "`confidence` is for when `virtual_steps` is above 0, got 0.1: leave it out."),
        ({"beta1": 1.0}, "`beta1` must be at least 0 and below 1, got 1.0."),
        ({"virtual_steps": -1}, "`virtual_steps` must be at least 0, got -1."),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?").replace("(", r"\(")):
        FZooS(**options)


# Input that is not as it should be


def test_identical_clients_and_one_dimension():
    state = federated(FZooS(learning_rate=0.05), Bowls([[0.2]] * 3), rounds=8)
    assert values(state)[-1] < 1e-3 < values(state)[0]


def test_a_client_without_values_takes_no_step_and_is_not_in_the_mean():
    centres = [[0.2, 0.8], [0.2, 0.8]]
    state = federated(FZooS(**SMALL), Bowls(centres, failing=(1,)), rounds=1, on_error="nan")
    alone = federated(FZooS(**SMALL), Bowls(centres), rounds=1)
    assert state.num_failed == 13 + 3
    assert abs(state.optimizer.x - alone.optimizer.x).max() < 1e-3 < 0.05 < abs(alone.optimizer.x - 0.5).min()
    assert np.isfinite(state.optimizer.surrogate).all()


def test_a_client_that_never_answers_does_not_move():
    state = federated(FZooS(**SMALL), Bowls([[0.2, 0.8]], failing=(0,)), rounds=2)
    assert (state.optimizer.x == 0.5).all()
    assert state.optimizer.surrogate is None


def test_a_constant_function_has_no_gradient_and_is_told_of():
    with pytest.warns(ZooWarning, match="f is constant there, or `radius`, 1.0e-02, is too small"):
        state = federated(FZooS(**SMALL), Bowls([[0.2, 0.8]] * 2, level=0.0), rounds=2)
    assert (state.optimizer.x == 0.5).all()


@pytest.mark.parametrize("options", [SMALL, FEATURES, {**SMALL, "restart": False}, {**SMALL, "accept": True}])
@pytest.mark.parametrize("level", [2.0**600, 2.0**-600])
def test_a_multiple_of_a_function_is_followed_along_the_same_path(options, level):
    centres = [[0.2, 0.8, 0.3], [0.3, 0.6, 0.9]]
    method = FZooS(**options)
    plain, other = (
        federated(method, Bowls(centres, level=number), rounds=4, on_error="raise") for number in (1.0, level)
    )
    assert (plain.optimizer.x == other.optimizer.x).all()
    assert other.optimizer.deviation == plain.optimizer.deviation * level


@pytest.mark.parametrize("level", [1e200, 1e-200, 1e307])
def test_values_of_any_size_are_followed(level):
    centres = [[0.2, 0.8, 0.3], [0.3, 0.6, 0.9]]
    method = FZooS(**SMALL, noise=1e-6)  # with less of it, rounding has more of a say
    plain = federated(method, Bowls(centres), rounds=4)
    other = federated(method, Bowls(centres, level=level), rounds=4, on_error="raise")
    assert abs(plain.optimizer.x - other.optimizer.x).max() < 1e-5


def test_a_gradient_beyond_the_largest_number_is_none():
    task = Bowls([[0.2, 0.8]] * 2, level=1e100, dtype=np.float32)
    state = federated(FZooS(**SMALL), task, rounds=2)
    assert (state.optimizer.x == 0.5).all()
    assert state.optimizer.surrogate is None


def test_single_precision_stays_single():
    state = federated(FZooS(**SMALL), Bowls([[0.2, 0.8, 0.3]] * 2, dtype=np.float32), rounds=4)
    assert state.optimizer.x.dtype == np.float32
    assert values(state)[-1] < values(state)[0]


def test_points_stay_in_the_box_of_the_task():
    task = Bowls([[-0.5, 1.5]])
    task.bounds = Bounds(np.zeros(2), np.ones(2))
    method = FZooS(**SMALL, learning_rate=0.2)
    client = method.client_init(np.full(2, 0.5), Problem(1, task.bounds, Key(0)), 0)
    go = Go(np.full(2, 0.5), 1.0, 0, None, None)
    _, message, asked = talked(method._walk(client, go, Local(0, 0, Key(1), task)), task, 0)
    assert task.bounds.contains(np.concatenate([*asked, message.x[None]]))
    assert message.x.tolist() == [0, 1]


def test_clients_come_and_go():
    task = Quadratic(8, 6, heterogeneity=1.0)
    network = Network(participation=0.5, dropout=0.3)
    state = federated(FZooS(**SMALL), task, rounds=20, network=network)
    assert state.absent > 0
    assert values(state)[-1] - task.optimum < 0.2 * (values(state)[0] - task.optimum)


def test_memory_is_bounded_in_many_dimensions():
    method = FZooS(window_bytes=2**20)
    client = method.client_init(np.zeros(10_000), Problem(1, None, Key(0)), 0)
    assert client.window.capacity == 13
    assert method._sends_features(10_000)
    assert not method._sends_features(9_999)
    with pytest.raises(ValueError, match="`nbytes` must be at least"):
        method.client_init(np.zeros(10**5), Problem(1, None, Key(0)), 0)


def test_noise_is_found_and_a_noisy_function_goes_down_further_with_it():
    task = Quadratic(20, 4, sigma=0.03)
    states = [federated(FZooS(noise=noise), task, rounds=5) for noise in (None, 1e-6)]
    fitted, known = (values(state)[-1] - task.optimum for state in states)
    assert fitted < 0.8 * known


# What it is for


@pytest.mark.slow
def test_it_is_far_ahead_where_clients_differ():
    from federated.algorithms.fedzo import FedZO

    task = Quadratic(100, 5, heterogeneity=5.0)
    ours = values(federated(FZooS(), task, rounds=6)) - task.optimum
    asked = 5 * (FZooS().most_queries(100, True) + 5 * FZooS().most_queries(100, False))
    rounds = math.ceil(asked / (5 * FedZO().most_queries(100, True)))
    theirs = values(federated(FedZO(), task, rounds=rounds)) - task.optimum
    assert ours[-1] <= theirs.min() / 3
