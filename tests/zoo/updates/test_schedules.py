"""Learning rates as functions of the step."""

import math

import numpy as np
import pytest

from zoo.core.rng import Key
from zoo.core.state import freeze, thaw
from zoo.core.types import Evaluations
from zoo.estimators.finite_difference import FiniteDifference
from zoo.methods.descent import Descent
from zoo.updates.chain import Chain
from zoo.updates.momentum import Momentum
from zoo.updates.schedules import Constant, Cosine, Scheduled, StepDecay, Warmup, as_schedule


def test_warm_up_and_cosine_are_those_of_the_formula():
    schedule = Warmup(3, Cosine(0.4, 47))
    for step in range(3):
        assert schedule.value(step) == pytest.approx(0.4 * (step + 1) / 3)
    for step in range(3, 50):
        assert schedule.value(step) == pytest.approx(0.2 * (1 + math.cos(math.pi * (step - 3) / 47)))
    assert schedule.value(50) == 0.0
    assert schedule.value(10**6) == 0.0
    assert max(map(schedule.value, range(60))) == schedule.value(2) == 0.4


def test_a_cosine_ends_where_it_is_to():
    schedule = Cosine(1.0, 10, end=0.25)
    assert schedule.value(10) == schedule.value(11) == 0.25
    assert schedule.value(5) == pytest.approx(0.625)


def test_steps_down():
    schedule = StepDecay(2.0, every=5, factor=0.5)
    assert [schedule.value(step) for step in (0, 4, 5, 9, 10)] == [2.0, 2.0, 1.0, 1.0, 0.5]


def test_a_warm_up_of_no_steps_is_what_follows():
    assert Warmup(0, 0.3).value(0) == 0.3
    assert Warmup(2, 0.3).value(0) == 0.15
    assert Warmup(2, 0.3) == Warmup(2, 0.3)


def test_numbers_are_constant_schedules():
    assert as_schedule("x", 2) == Constant(2.0)
    given = StepDecay(1.0, 2)
    assert as_schedule("x", given) is given


def test_a_descent_may_follow_a_schedule():
    schedule = Warmup(3, Cosine(0.2, 7))
    estimator = FiniteDifference("axes", smoothing=0.5, stencil="central")
    method = Descent(estimator, update=Chain((Momentum(0.5), Scheduled(schedule))), learning_rate=1.0)
    state = method.init(np.array([1.0, -2.0]), key=Key(0))
    x, velocity = np.array([1.0, -2.0]), 0.0
    for step in range(10):
        rows = method.ask(state).rows(0, 4)
        state = thaw(*freeze(method.tell(state, Evaluations((rows**2).sum(1)))))
        velocity = 0.5 * velocity + 2 * x
        x = x - schedule.value(step) * velocity
        assert np.allclose(state.x, x, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Constant(-1), ValueError, "`peak` must be a finite number of at least 0, got -1"),
        (lambda: Constant(math.inf), ValueError, "`peak`"),
        (lambda: Cosine(0.0, 5), ValueError, "`peak` must be a finite number above 0"),
        (lambda: Cosine(1.0, 0), ValueError, "`steps` must be at least 1"),
        (lambda: Cosine(1.0, 5, end=-1.0), ValueError, "`end`"),
        (lambda: Cosine(0.1, 2, end=5.0), ValueError, "`end` must be at most `peak`, 0.1, got 5.0"),
        (lambda: StepDecay(1.0, 3, factor=1.5), ValueError, "`factor` .* at most 1, got 1.5"),
        (lambda: StepDecay(1.0, 0), ValueError, "`every`"),
        (lambda: Warmup(-1, 0.1), ValueError, "`steps` must be at least 0"),
        (lambda: Warmup(1, "fast"), TypeError, "`then` must be a number, got 'fast'"),
        (lambda: as_schedule("learning_rate", math.nan), ValueError, "`learning_rate`"),
    ],
)
def test_bad_input(make, error, says):
    with pytest.raises(error, match=says):
        make()
