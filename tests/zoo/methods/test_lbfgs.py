"""Limited-memory BFGS on differences: exact identities, noise, walls, failures, and where it ends."""

import math

import numpy as np
import pytest
import torch

import zoo
from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations, Known
from zoo.methods.lbfgs import LBFGS, two_loop
from zoo.problems import rosenbrock, sphere

X0 = np.array([0.25, 1.0, -0.5, 2.0])


def bent(x):
    return float(100 * ((x[1:] - x[:-1] ** 2) ** 2).sum() + ((1 - x[:-1]) ** 2).sum())


def narrow(dim, condition=1e6):
    """Return a quadratic function with axes between 1 and the root of `condition`, turned at random."""
    turn = np.linalg.qr(np.random.default_rng(dim).normal(size=(dim, dim)))[0]
    weights = condition ** (np.arange(dim) / (dim - 1))
    return lambda x: float(weights @ (turn @ x) ** 2)


class Run:
    """A method, its states, and the points it asked for."""

    def __init__(self, method, function=bent, x0=X0, *, seed=0, steps=10**6, **options):
        self.method, self.function, self.points, self.sizes = method, function, [], []
        self.state = method.init(x0, key=Key(seed), **options)
        self.states = [self.state]
        for _ in range(steps):
            if method.finished(self.state):
                break
            self.step()

    def step(self):
        candidates = self.method.ask(self.state)
        rows = candidates.rows(0, len(candidates))
        self.points.extend(np.asarray(rows, np.float64))
        self.sizes.append(len(rows))
        values = np.array([self.function(x) for x in rows], np.float64)
        self.state = self.method.tell(self.state, Evaluations(values))
        self.states.append(self.state)

    @property
    def reason(self):
        return self.method.finished(self.state)


def pairs_of(dim, count, seed=0):
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(dim, dim))
    steps = generator.normal(size=(count, dim))
    return steps, steps @ (root @ root.T + np.eye(dim))


@pytest.mark.parametrize(("dim", "count"), [(1, 1), (3, 2), (6, 6), (5, 12)])
def test_two_loop_is_the_product_with_the_dense_matrix(dim, count):
    steps, changes = pairs_of(dim, count)
    inverse = np.eye(dim) * (steps[-1] @ changes[-1]) / (changes[-1] @ changes[-1])
    for s, y in zip(steps, changes, strict=True):
        left = np.eye(dim) - np.outer(s, y) / (s @ y)
        inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
    g = np.arange(1.0, dim + 1)
    np.testing.assert_allclose(two_loop(g, steps, changes), inverse @ g, rtol=1e-9)
    # It maps the last change of the gradient to the last step.
    np.testing.assert_allclose(two_loop(changes[-1], steps, changes), steps[-1], rtol=1e-9)


def test_two_loop_leaves_out_what_has_no_curvature():
    steps, changes = pairs_of(4, 3)
    g, bad = np.ones(4), np.array([[1.0, 0, 0, 0]])
    spoilt = np.vstack([steps[:2], bad, steps[2:]]), np.vstack([changes[:2], -bad, changes[2:]])
    assert two_loop(g, *spoilt).tobytes() == two_loop(g, steps, changes).tobytes()
    assert two_loop(g, steps[:0], changes[:0]).tolist() == g.tolist()
    assert g.tolist() == [1.0] * 4


def test_central_gradient_is_exact_on_quadratics():
    fun = narrow(4, 10.0)
    ours = Run(LBFGS(stencil="central"), fun, steps=1)
    state = ours.state
    hessian = np.array([[fun(a + b) - fun(a) - fun(b) for b in np.eye(4)] for a in np.eye(4)])
    np.testing.assert_allclose(state.gradient * state.unit, hessian @ X0, rtol=1e-8)


def test_a_step_is_a_gradient_or_a_line_search():
    fun = narrow(10)
    assert Run(LBFGS(), fun, np.ones(10), steps=6).sizes == [11, 3, 11, 3, 10, 3]
    assert Run(LBFGS(num_trials=5), fun, np.ones(10), steps=5).sizes == [11, 5, 11, 5, 10]
    assert Run(LBFGS(stencil="central"), fun, np.ones(10), steps=5).sizes == [21, 3, 21, 3, 20]
    assert Run(LBFGS(), steps=5).sizes == [5, 1, 5, 1, 4]


def test_lengths_of_steps():
    """At first down from the scale; with a memory around 1."""
    ours = Run(LBFGS(num_trials=3), lambda x: float((x * x) @ [1.0, 2.0, 4.0, 8.0]), steps=2)
    first = np.linalg.norm(np.array(ours.points[5:8]) - X0, axis=1)
    np.testing.assert_allclose(first, [1.0, 0.25, 0.0625], rtol=1e-12)
    while not len(ours.state.steps) or ours.state.direction is None:
        ours.step()
    state = ours.state
    rows = ours.method.ask(state).rows(0, 3)
    np.testing.assert_allclose(rows, state.z + np.outer([1.0, 0.5, 2.0], state.direction), rtol=1e-12)


def test_scale_is_a_change_of_units():
    scale = np.array([2.0**7, 0.25, 1.0, 2.0**-20])
    plain = Run(LBFGS(), steps=40)
    scaled = Run(LBFGS(), lambda x: bent(x / scale), X0 * scale, scale=scale, steps=40)
    assert (np.array(scaled.points) / scale).tobytes() == np.array(plain.points).tobytes()


@pytest.mark.parametrize("factor", [2.0**900, 2.0**-900])
def test_values_of_any_size_are_the_same_search(factor):
    plain, scaled = Run(LBFGS(), steps=40), Run(LBFGS(), lambda x: factor * bent(x), steps=40)
    assert np.array(scaled.points).tobytes() == np.array(plain.points).tobytes()


@pytest.mark.parametrize("dim", [5, 10, 20])
def test_narrow_valleys(dim):
    x0 = np.linspace(-1, 1, dim)
    for fun in (bent, narrow(dim)):
        ours = Run(LBFGS(), fun, x0, budget=400 * dim)
        assert ours.state.best < 1e-8
    ours = Run(LBFGS(), rosenbrock, np.zeros(dim))
    assert ours.state.best < 1e-11
    assert ours.reason.startswith(("the decrease", "no step"))


def test_central_differences_follow_when_forward_ones_lead_no_further():
    forward, auto = Run(LBFGS(stencil="forward")), Run(LBFGS())
    assert [state.central for state in auto.states[:3]] == [False] * 3
    common = next(state.nfev for state in auto.states if state.central)
    assert np.array(auto.points[:common]).tobytes() == np.array(forward.points[:common]).tobytes()
    assert auto.state.best < 1e-3 * forward.state.best


def test_ends_where_the_value_cannot_be_told_from_lower_ones():
    ours = Run(LBFGS(), lambda x: bent(x) + 1e6)
    assert ours.reason
    assert ours.state.best - 1e6 < 1e-6
    assert ours.state.nfev < 1000


def test_walls():
    box = Bounds([0.0, 0.0, -np.inf, -1.0], [1.0, 1.0, 0.0, 3.0])
    minimum = np.array([0.25, 2.0, -5.0, -1.0])
    matrix = np.eye(4) + 0.5
    fun = lambda x: float((x - minimum) @ matrix @ (x - minimum))  # noqa: E731 - short
    for x0 in ([0.0, 0.0, 0.0, 3.0], [1.0, 1.0, 0.0, -1.0], [0.5, 0.5, -9.0, 0.0]):
        ours = Run(LBFGS(), fun, np.array(x0), bounds=box)
        assert box.contains(np.array(ours.points))
        x = ours.method.recommend(ours.state)
        gradient = 2 * matrix @ (x - minimum)
        free = (x > box.lower) & (x < box.upper)
        np.testing.assert_allclose(gradient[free], 0, atol=1e-5)
        assert (gradient[x == box.lower] >= 0).all()
        assert (gradient[x == box.upper] <= 0).all()
        assert x[1] == 1.0, "exactly, and not nearly"


def test_a_corner_that_is_the_minimum_is_seen_at_once():
    ours = Run(LBFGS(), lambda x: float(x.sum()), np.zeros(3), bounds=Bounds(np.zeros(3), np.ones(3)))
    assert ours.reason == "the projected gradient is zero"
    assert ours.state.nfev == 4 + 7


def test_variables_without_room():
    box = Bounds([-2.0, 1.0, 0.0, 1.0], [2.0, 1.0, 1.0, 3.0])
    ours = Run(LBFGS(), bounds=box, budget=100)
    assert (np.array(ours.points)[:, 1] == 1.0).all()
    nothing = Run(LBFGS(restarts=True), bounds=Bounds(X0, X0))
    assert np.array(nothing.points).tolist() == [X0.tolist()]
    assert nothing.reason == "the bounds leave no variable free"


def test_noise_is_noticed_and_differences_are_widened():
    generator = np.random.default_rng(0)
    ours = Run(LBFGS(), lambda x: sphere(x - 1) + 0.01 * generator.standard_normal(), np.zeros(5), budget=400)
    noisy = [state for state in ours.states if state.noisy]
    assert noisy[0].nfev < 40
    assert all(state.central for state in noisy)
    assert noisy[5].smoothing > 1000 * ours.states[0].smoothing
    assert min(sphere(state.z - 1) for state in ours.states) < 0.05
    assert not any(state.noisy for state in Run(LBFGS()).states)


def test_noise_common_to_a_step_does_no_harm():
    def noisy(x):
        return sphere(x - 1) + 0.1 * float(np.random.standard_normal())

    result = zoo.minimize(noisy, np.zeros(5), method="lbfgs", noise=True, budget=400, rng=0)
    assert sphere(result.x - 1) < 1e-12


def test_failed_evaluations():
    holed = lambda x: math.nan if x[0] < -1.5 or abs(x[2]) > 1.2 else bent(x)  # noqa: E731 - short
    ours = Run(LBFGS(), holed, budget=600)
    assert np.isfinite(ours.points).all()
    assert ours.state.best < 1e-3 * bent(X0)


def test_a_start_without_a_value_is_left():
    ours = Run(LBFGS(), lambda x: math.nan if (x == X0).all() else bent(x), steps=2)
    assert ours.state.attempt == 1
    assert ours.points[5].tobytes() == min(ours.points[1:5], key=bent).tobytes()
    lost = Run(LBFGS(), lambda x: math.nan, steps=3)
    assert lost.state.attempt == 3
    assert len({point.tobytes() for point in lost.points[::5]}) == 3
    assert (lost.method.recommend(lost.state) == X0).all()


def test_slopes_that_cannot_be_had_are_asked_for_nearer():
    """Only within 1e-10 of the start is there any value."""
    ours = Run(LBFGS(), lambda x: bent(x) if abs(x - X0).max() < 1e-10 else math.nan, steps=4)
    assert [state.smoothing for state in ours.states[1:4]] == [14 * 2.0**-26 / 16**k for k in (1, 2, 3)]
    assert ours.states[4].gradient is None or ours.states[4].tries == 0


def test_begins_at_the_best_point_that_is_known():
    known = Known([[0.0, 0, 0, 0], [1.0, 0.5, 0.25, 0]], [3.0, 2.0])
    ours = Run(LBFGS(), known=known, steps=1)
    assert ours.points[0].tolist() == [1.0, 0.5, 0.25, 0]


def test_restarts_elsewhere():
    once, again = Run(LBFGS()), Run(LBFGS(restarts=True), budget=3000)
    assert np.array(again.points[: len(once.points)]).tobytes() == np.array(once.points).tobytes()
    assert again.state.attempt >= 2
    assert again.method.diagnostics(again.state)["restarts"] == again.state.attempt
    assert "budget" in again.reason


def test_every_state_survives_a_file():
    ours = Run(LBFGS(), bounds=Bounds(np.full(4, -2.0), np.full(4, 2.0)), steps=30)
    for state in ours.states:
        revived = thaw(*freeze(state))
        assert digest(revived) == digest(state)
        asked, again = ours.method.ask(state), ours.method.ask(revived)
        assert asked.rows(0, len(asked)).tobytes() == again.rows(0, len(again)).tobytes()


def test_the_budget_cuts_a_step_short():
    ours = Run(LBFGS(), budget=18)
    assert ours.sizes == [5, 1, 5, 1, 4, 1, 1]
    assert ours.state.nfev == 18
    assert ours.state.best == min(map(bent, ours.points))
    assert len(ours.method.ask(ours.state)) == 0
    with pytest.raises(ValueError, match="0 values asked for, got 1"):
        ours.method.tell(ours.state, Evaluations([1.0]))


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_short_floats(kind):
    start = X0.astype(np.float32)
    start = torch.from_numpy(start) if kind == "torch" else start
    ours = Run(LBFGS(), lambda x: bent(np.asarray(x, np.float64)), start, budget=1500)
    best = ours.method.recommend(ours.state)
    assert (type(best), best.dtype) == (type(start), start.dtype)
    assert bent(np.asarray(best, np.float64)) < 1e-4 * bent(X0)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"memory": 0}, ValueError, "`memory` must be at least 1"),
        ({"num_trials": 0}, ValueError, "`num_trials` must be at least 1"),
        ({"stencil": "centre"}, ValueError, "`stencil` must be one of .* Did you mean 'central'"),
        ({"ftol": 1.0}, ValueError, "`ftol` must be at least 0 and below 1"),
        ({"restarts": 1}, TypeError, "`restarts` must be True or False"),
    ],
)
def test_bad_options(arguments, error, text):
    with pytest.raises(error, match=text):
        LBFGS(**arguments)
