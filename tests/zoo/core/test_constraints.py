"""Constraints: every form they may have, and how they are evaluated along with an objective."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

from zoo.core.constraints import ConstrainedObjective, Constraint, as_constraints, constrain
from zoo.core.errors import ZooWarning
from zoo.core.objective import Objective, as_objective
from zoo.core.rng import Key, keyed_generators
from zoo.core.space import Categorical, Float, Integer, Space
from zoo.core.types import Candidates, Evaluations, Rows

POINTS = np.array([[3.0, 1.0], [0.5, 2.0], [1.0, -1.0]])


def above_one(x):
    return x[0] - 1


def sums(x):
    return np.array([x[0] + x[1], x[0] - x[1]])


at_least = Constraint(above_one, lower=0)


def entries(given, points=POINTS, **more):
    return np.concatenate([one.evaluate(points.copy(), **more) for one in as_constraints(given)], 1)


@pytest.mark.parametrize(
    "given",
    [
        above_one,
        [above_one],
        (above_one,),
        {"type": "ineq", "fun": above_one},
        [{"type": "INEQ", "fun": lambda x, a: x[0] - a, "args": (1,)}],
        {"type": "ineq", "fun": above_one, "args": (), "jac": None},
        scipy.optimize.NonlinearConstraint(lambda x: x[0], 1, np.inf),
        scipy.optimize.LinearConstraint([1, 0], 1, np.inf),
        scipy.optimize.LinearConstraint(scipy.sparse.csr_array([[1.0, 0.0]]), lb=[1]),
        Constraint(lambda x: x[0], lower=1),
        Constraint(lambda x: -x[0], upper=-1),
        Constraint(lambda x: x[:, 0], lower=1, vectorized=True),
        "tests.zoo.core.test_constraints:above_one",
        "tests.zoo.core.test_constraints:at_least",
    ],
)
def test_every_form_of_one_constraint_has_the_same_entries(given):
    assert entries(given).tolist() == [[-2.0], [0.5], [0.0]]


@pytest.mark.parametrize(
    "given",
    [
        {"type": "eq", "fun": above_one},
        scipy.optimize.NonlinearConstraint(above_one, 0, 0),
        scipy.optimize.LinearConstraint([[1, 0]], 1, 1),
        Constraint(above_one, 0, 0),
    ],
)
def test_an_equality_may_be_a_little_off_on_both_sides(given):
    assert entries(given).tolist() == [[2 - 1e-6, -2 - 1e-6], [-0.5 - 1e-6, 0.5 - 1e-6], [-1e-6, -1e-6]]
    assert entries(Constraint(above_one, 0, 0, tol=0.25))[1].tolist() == [-0.75, 0.25]


def test_finite_sides_become_entries_upper_ones_first():
    both = Constraint(sums, [-np.inf, 0], [3.5, 1])
    assert entries(both).tolist() == [[0.5, 1.0, -2.0], [-1.0, -2.5, 1.5], [-3.5, 1.0, -2.0]]
    assert entries(Constraint(sums, upper=3.5))[0].tolist() == [0.5, -1.5]
    assert entries([above_one, Constraint(sums, 0, 4)]).shape == (3, 5)


def test_a_torch_function_is_taken_as_it_is():
    torch = pytest.importorskip("torch")
    points = torch.from_numpy(POINTS)
    point = Constraint(lambda x: torch.stack([x.sum(), x[0]]), lower=0)
    batch = Constraint(lambda x: torch.stack([x.sum(1), x[:, 0]], 1), lower=0, vectorized=True)
    assert (
        point.evaluate(points).tolist()
        == batch.evaluate(points).tolist()
        == [[-4, -3], [-2.5, -0.5], [0, -1]]
    )
    assert entries(scipy.optimize.LinearConstraint([1, 0], 1), points.clone().numpy()).shape == (3, 1)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (3, TypeError, "`constraints` must be functions.*got 3"),
        ([None, above_one], TypeError, "got None"),
        (Constraint, TypeError, "got <class"),
        (scipy.optimize.Bounds(0, 1), TypeError, "`constraints` must be functions"),
        ({"type": "ineq"}, ValueError, '`constraints` must have "type" and "fun"'),
        ({"type": "le", "fun": above_one}, ValueError, "`type` must be one of 'ineq', 'eq', got 'le'"),
        ({"type": "eq", "fun": above_one, "tol": 1}, TypeError, "unknown entry of a constraint: 'tol'"),
        ({"type": "eq", "fun": 3}, TypeError, "`fun` must be a function, got 3"),
        ("above_one", ValueError, 'of the form "module:name"'),
        ("no_such_module:f", ValueError, "no module 'no_such_module'"),
        ("tests.zoo.core.test_constraints:above_two", ValueError, "Did you mean 'above_one'"),
    ],
)
def test_others_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        as_constraints(given)


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({}, ValueError, "neither is given"),
        ({"lower": 2, "upper": 1}, ValueError, "lower <= upper, got 2.0 and 1.0"),
        ({"lower": np.nan}, ValueError, "`lower` must hold numbers other than NaN"),
        ({"lower": []}, ValueError, "`lower`"),
        ({"lower": "0"}, TypeError, "`lower` must be a number"),
        ({"lower": [0, 0], "upper": [1, 1, 1]}, ValueError, "one length, got 2 and 3"),
        ({"lower": np.inf}, ValueError, "lower <= upper"),
        ({"lower": 0, "tol": -1}, ValueError, "`tol` must be a finite number of at least 0"),
        ({"lower": 0, "vectorized": 1}, TypeError, "`vectorized`"),
    ],
)
def test_wrong_sides_are_refused(more, error, message):
    with pytest.raises(error, match=message):
        Constraint(above_one, **more)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (Constraint(lambda x: None, 0), TypeError, "must return real numbers, got None"),
        (Constraint(lambda x: 1j, 0), TypeError, "must return real numbers"),
        (Constraint(lambda x: np.ones((2, 2)), 0), TypeError, r"vectorized=True"),
        (Constraint(sums, [0, 0, 0]), ValueError, "has 3 sides, and its function returned 2 values"),
        (Constraint(lambda x: x[:1], 0, vectorized=True), ValueError, r"for 3 points, got \(1, 2\)"),
        (Constraint(lambda x: x if x[0] > 1 else x[:1], 0), ValueError, "as many values for one point"),
        (scipy.optimize.LinearConstraint([1, 0, 0], 0), ValueError, "one column for each of the 2 variables"),
    ],
)
def test_wrong_values_are_refused_where_they_are_returned(given, error, message):
    with pytest.raises(error, match=message):
        entries(given)


def test_keep_feasible_cannot_be_kept_and_that_is_said():
    with pytest.warns(ZooWarning, match="`keep_feasible` cannot be kept"):
        as_constraints(scipy.optimize.NonlinearConstraint(above_one, 0, 1, keep_feasible=True))


class Streams(Rows):
    """Rows whose evaluations see two noise streams in turn."""

    def noise(self, start, stop):
        return np.arange(start, stop) % 2


def evaluated(objective: Objective, candidates: Candidates) -> Evaluations:
    boundaries = list(objective.units(candidates))
    reply = objective.evaluate_units(candidates, boundaries, key=Key(1), step=4)
    assert (
        sorted(failure.row for failure in reply.failures) == np.flatnonzero(np.isnan(reply.values)).tolist()
    )
    return Evaluations(reply.values, reply.failures, reply.extras)


@pytest.mark.parametrize("vectorized", [False, True])
def test_an_objective_is_evaluated_with_its_constraints(vectorized):
    if vectorized:
        plain = as_objective(lambda x: x.sum(1), vectorized=True)
        both = constrain(plain, [lambda x: x[:, 0] - 1, lambda x: x], vectorized=True)
    else:
        plain = as_objective(lambda x: x.sum())
        both = constrain(plain, [above_one, lambda x: x])
    candidates = Rows(POINTS)
    assert both.unit == plain.unit
    assert list(both.units(candidates)) == list(plain.units(candidates))
    done = evaluated(both, candidates)
    assert done.values.tolist() == evaluated(plain, candidates).values.tolist()
    assert done.extras["constraints"].tolist() == [[-2, -3, -1], [0.5, -0.5, -2], [0, -1, 1]]
    assert done.violations.tolist() == [0, 0.5, 1]


def test_functions_may_write_to_the_points_they_get():
    def spoil(x):
        x *= 0
        return 1.0

    done = evaluated(constrain(as_objective(spoil), [spoil, above_one]), Rows(POINTS))
    assert done.extras["constraints"].tolist() == [[-1, -2], [-1, 0.5], [-1, 0]]


def test_without_constraints_an_objective_stays_what_it_is():
    plain = as_objective(above_one)
    assert constrain(plain, ()) is plain
    assert constrain(plain, None) is plain
    assert constrain(plain, []) is plain


def test_what_an_objective_returns_itself_stays_in_front():
    def fun(x):
        return Evaluations(x[:, 0], extras={"constraints": x - 1, "objectives": x})

    plain = as_objective(fun, vectorized=True)
    both = constrain(plain, ["returned", above_one], vectorized=False)
    done = evaluated(both, Rows(POINTS))
    assert done.extras["constraints"].tolist() == [[2, 0, -2], [-0.5, 1, 0.5], [0, -2, 0]]
    assert done.extras["objectives"].tolist() == POINTS.tolist()
    alone = constrain(plain, "returned")
    assert isinstance(alone, ConstrainedObjective)
    assert evaluated(alone, Rows(POINTS)).extras["constraints"].tolist() == (POINTS - 1).tolist()
    none = evaluated(constrain(as_objective(above_one), "returned"), Rows(POINTS))
    assert np.isnan(none.values).all()
    assert "it returned values alone" in none.failures[0].message


def test_nan_and_exceptions_of_a_constraint_fail_the_evaluation():
    def odd(x):
        if x[0] == 1:
            raise ZeroDivisionError("no")
        return np.log(x[1] - 1)

    with np.errstate(divide="ignore"):
        done = evaluated(constrain(as_objective(lambda x: x.sum()), [above_one, odd]), Rows(POINTS))
    assert np.isnan(done.values).tolist() == [True, False, True]
    assert [failure.kind for failure in sorted(done.failures)] == ["returned", "raised"]
    assert sorted(done.failures)[0].message == "a constraint returned NaN or an infinity"
    assert sorted(done.failures)[1].message == "a constraint raised ZeroDivisionError: no"
    assert done.extras["constraints"][1].tolist() == [0.5, 0]


def test_where_the_objective_failed_constraints_are_not_looked_at():
    seen = []
    both = constrain(as_objective(lambda x: np.nan if x[0] > 1 else 0.0), lambda x: seen.append(x[0]) or 1.0)
    done = evaluated(both, Rows(POINTS))
    assert seen == [0.5, 1.0]
    assert np.isnan(done.extras["constraints"][0]).all()
    assert done.extras["constraints"][1:].tolist() == [[-1], [-1]]


@pytest.mark.parametrize("vectorized", [False, True])
def test_under_noise_constraints_see_the_random_numbers_of_the_objective(vectorized):
    def draw(x):
        return np.random.rand() + 0 * x[..., 0]

    both = constrain(
        as_objective(draw, vectorized=vectorized, noise=True), [draw, draw], vectorized=vectorized, noise=True
    )
    done = evaluated(both, Streams(POINTS))
    expected = []
    for stream in (0, 1, 0):
        with keyed_generators(Key(1).fold(4, stream)):
            expected.append(np.random.rand())
    assert done.values.tolist() == expected
    assert (-done.extras["constraints"]).tolist() == [[value, value] for value in expected]


def test_in_a_space_constraints_get_its_points():
    space = Space({"n": Integer(0, 9), "kind": Categorical(("a", "b")), "share": Float(0, 1)})
    rows = np.stack([space.encode({"n": n, "kind": "b", "share": 0.5}) for n in (2, 7)])

    def room(point):
        assert point["kind"] == "b"
        return point["n"] - 4 + point["share"]

    def rooms(points):
        return points["n"] - 4 + points["share"]

    assert entries(room, rows, space=space) == pytest.approx(np.array([[1.5], [-3.5]]))
    assert entries(rooms, rows, space=space, vectorized=True) == pytest.approx(np.array([[1.5], [-3.5]]))
    numbers = Space((Integer(0, 9), Float(0, 1)))
    rows = np.stack([numbers.encode(point) for point in ((2, 0.5), (7, 0.5))])
    linear = scipy.optimize.LinearConstraint([1, 1], 4, np.inf)
    assert entries(linear, rows, space=numbers) == pytest.approx(np.array([[1.5], [-3.5]]))
    with pytest.raises(TypeError, match="a space of numbers alone"):
        entries(linear, space.encode({"n": 2, "kind": "a", "share": 0.5})[None], space=space)


def test_the_identity_tells_constraints_apart():
    def identity(*given):
        return constrain(as_objective(sums), list(given)).identity()

    assert identity(above_one) == identity({"type": "ineq", "fun": above_one})
    different = [
        identity(above_one),
        identity(lambda x: x[0]),
        identity(lambda x: x[1]),
        identity(Constraint(above_one, lower=1)),
        identity(Constraint(above_one, 0, 0)),
        identity(Constraint(above_one, 0, 0, tol=1e-4)),
        identity(Constraint(lambda x, a: x[0] - a, 0, args=(1,))),
        identity(Constraint(lambda x, a: x[0] - a, 0, args=(2,))),
        identity(scipy.optimize.LinearConstraint([1, 0], 1)),
        identity(scipy.optimize.LinearConstraint([1, 1], 1)),
        identity(above_one, above_one),
        identity("tests.zoo.core.test_constraints:above_one"),
    ]
    assert all(a != b for i, a in enumerate(different) for b in different[:i])
    assert {**identity(above_one), "constraints": None} == {
        **as_objective(sums).identity(),
        "constraints": None,
    }
