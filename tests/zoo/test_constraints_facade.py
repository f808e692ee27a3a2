"""Constraints as a user meets them: `zoo.minimize`, run directories, scipy, and every method."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize

import zoo
from tests.cases import CASES
from tests.zoo.constraints import far, halfspace, near
from zoo.core.errors import EvaluationError, RunDirectoryError, ZooWarning
from zoo.problems import sphere
from zoo.problems.constrained import PROBLEMS
from zoo.registry import find
from zoo.run.digest import digest_of_run

may_be_flat = pytest.mark.filterwarnings("ignore:the objective did not change:zoo.core.errors.ZooWarning")

START = np.array([2.0, 1.5, -1.0])


def minimize(constraints=halfspace, fun=sphere, **more):
    given = {"method": "cma", "budget": 200, "rng": 0, **more}
    return zoo.minimize(fun, START, constraints=constraints, **given)


def same(one, other):
    return (one.x.tobytes(), one.fun, one.nfev, one.message, one.maxcv, one.constr.tobytes()) == (
        other.x.tobytes(),
        other.fun,
        other.nfev,
        other.message,
        other.maxcv,
        other.constr.tobytes(),
    )


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("method", ["cma", "de"])
def test_problems_of_cec_2006_are_solved(name, method):
    problem = PROBLEMS[name]
    gaps = []
    for seed in range(3):
        result = zoo.minimize(
            problem.fun,
            bounds=problem.bounds,
            constraints=problem.constraints(),
            method=method,
            rng=seed,
            budget=3000,
            target=problem.value + 1e-6 * abs(problem.value),
        )
        assert result.success
        assert result.maxcv == 0
        gaps.append(result.fun - problem.value)
    assert sorted(gaps)[1] <= 1e-6 * abs(problem.value)


@may_be_flat
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)
def test_every_method_keeps_to_constraints_or_says_that_it_does_not(case):
    seen = []
    start = 0.6 * START if "manifold" in case.traits else START  # as far from 0 as `near` allows

    def fun(x):
        seen.append(x.copy())
        return float(sphere(x))

    result = zoo.minimize(
        fun, start, constraints=[halfspace, near], method=case.method, options=case.options, budget=150, rng=0
    )
    assert len(seen) == result.nfev <= 150
    slack = np.array([[halfspace(x), near(x)] for x in seen])
    assert result.success == bool((slack >= 0).all(1).any())
    assert result.maxcv == max(0.0, -halfspace(result.x), -near(result.x))
    assert result.success == (result.maxcv == 0)
    assert result.fun == min(sphere(x) for x, room in zip(seen, slack, strict=True) if (room >= 0).all())
    # Some keep to constraints in a way of their own, and some to a surface.
    if not {"objectives", "constraints"} & {*find(case.method).traits} and "manifold" not in case.traits:
        assert result.fun == pytest.approx(1 / 3, rel=1e-3)  # thanks to models, not to the method


def test_every_form_gives_the_same_bytes():
    expected = minimize()
    ones = [1.0, 1.0, 1.0]
    for given in (
        [halfspace],
        {"type": "ineq", "fun": halfspace},
        scipy.optimize.NonlinearConstraint(halfspace, 0, np.inf),
        zoo.Constraint(lambda x: -halfspace(x), upper=0),
        "tests.zoo.constraints:halfspace",
    ):
        assert same(minimize(given), expected)
    linear = minimize(scipy.optimize.LinearConstraint(ones, 1, np.inf))
    assert linear.fun == pytest.approx(expected.fun, abs=1e-6)
    many = minimize(zoo.Constraint(lambda x: x.sum(1), 1), fun=lambda x: (x**2).sum(1), vectorized=True)
    assert many.fun == pytest.approx(1 / 3, abs=1e-6)


def test_the_result_says_what_the_constraints_are_worth():
    result = minimize([halfspace, zoo.Constraint(lambda x: x, lower=-5, upper=5)])
    assert result.constr == pytest.approx(
        np.concatenate([[1 - result.x.sum()], result.x - 5, -5 - result.x]), abs=1e-15
    )
    assert result.maxcv == 0
    assert "maxcv" not in zoo.minimize(sphere, START, budget=20, rng=0)


def test_where_nothing_keeps_to_the_constraints_that_is_said():
    result = minimize([halfspace, lambda x: -1 - x[0] ** 2])
    assert not result.success
    assert result.status == 0
    assert "no point was found that keeps to the constraints" in result.message
    assert result.maxcv == result.constr.max() == pytest.approx(1, abs=1e-6)
    assert result.x[0] == pytest.approx(0, abs=1e-3)  # the point of the least violation


def test_a_target_counts_inside_only():
    result = minimize(target=0.34)
    assert result.status == 1
    assert 1 / 3 <= result.fun <= 0.34
    assert result.maxcv == 0


def test_where_every_evaluation_fails_that_is_said_and_not_more():
    result = minimize(fun=lambda x: np.nan, budget=40)
    assert not result.success
    assert "no evaluation had a value" in result.message
    assert "constraints" not in result.message
    assert result.maxcv == np.inf
    assert len(result.constr) == 0


def test_points_where_a_constraint_has_no_value_are_failed_ones():
    def odd(x):
        return halfspace(x) if x[1] > 0.2 else np.nan

    result = minimize(odd, budget=300)
    assert result.num_failed > 0
    assert result.x[1] > 0.2
    assert result.fun < 0.4


def test_what_a_constraint_raises_ends_the_run_as_what_the_objective_raises():
    def broken(x):
        raise ZeroDivisionError("no")

    with pytest.raises(EvaluationError, match=r"evaluation 0 raised.*ZeroDivisionError: no"):
        minimize(broken)
    assert minimize([halfspace, lambda x: 1 / (x[0] > 0.2) - 0.5], on_error="nan", budget=300).success


def test_an_objective_may_return_its_constraints():
    def both(x):
        return zoo.Evaluations((x**2).sum(1), extras={"constraints": 1 - x.sum(1)[:, None]})

    result = minimize("returned", fun=both, vectorized=True)
    assert result.fun == pytest.approx(1 / 3, abs=1e-9)
    more = minimize(["returned", zoo.Constraint(lambda x: x[:, 0], 0.5)], fun=both, vectorized=True)
    assert more.fun == pytest.approx(0.25 + 2 * 0.25**2, abs=1e-6)
    assert len(more.constr) == 2
    with pytest.raises(EvaluationError, match="it returned values alone"):
        minimize("returned")


def test_known_points_must_be_evaluated():
    points = np.array([[1.0, 1.0, 0.0], [3.0, 3.0, 3.0]])
    with pytest.raises(ValueError, match=r"`known` must be \(points, None\) where there are `constraints`"):
        minimize(known=(points, [1.0, 2.0]))
    seen = []
    result = zoo.minimize(
        lambda x: seen.append(x.copy()) or float(sphere(x)),
        known=(points, None),
        constraints=halfspace,
        rng=0,
        budget=150,
    )
    assert np.array(seen[:2]).tolist() == points.tolist()
    assert result.fun == pytest.approx(1 / 3, abs=1e-6)


def test_under_noise_the_result_keeps_to_the_constraints():
    def noisy(x):
        return float(sphere(x)) + 0.01 * np.random.standard_normal()

    first, again = (minimize(fun=noisy, noise=True, budget=1500) for _ in range(2))
    assert first.x.tobytes() == again.x.tobytes()
    assert first.maxcv == 0
    assert first.success
    assert sphere(first.x) == pytest.approx(1 / 3, abs=0.02)
    assert 0 < first.fun_error < 0.01


def test_a_space_has_constraints_on_its_points():
    space = zoo.Space(
        {"n": zoo.Integer(0, 20), "share": zoo.Float(0, 2), "kind": zoo.Categorical(("a", "b"))}
    )

    def fun(point):
        return (point["n"] - 3.3) ** 2 + point["share"] + (point["kind"] == "b")

    def room(point):
        return point["n"] + point["share"] - (6.5 if point["kind"] == "a" else 0)

    result = zoo.minimize(fun, space=space, constraints=room, rng=0, budget=800)
    assert result.success
    assert result.fun <= 1.09 + 1e-9  # n = 3 and kind b, where nothing has to be shared
    assert room(result.x) >= 0


def test_scipy_passes_constraints_on():
    for given in (
        {"type": "ineq", "fun": halfspace},
        [{"type": "ineq", "fun": lambda x, a: halfspace(x) + 1 - a, "args": (1,)}],
        (scipy.optimize.NonlinearConstraint(halfspace, 0, np.inf),),
    ):
        result = scipy.optimize.minimize(
            sphere,
            START,
            method=zoo.scipy_method("cma"),
            constraints=given,
            options={"budget": 200, "rng": 0},
        )
        assert same(result, minimize())
    equal = scipy.optimize.minimize(
        sphere,
        START,
        method=zoo.scipy_method("cma"),
        constraints={"type": "eq", "fun": halfspace},
        options={"budget": 200, "rng": 0},
    )
    assert equal.fun == pytest.approx(1 / 3, abs=1e-5)
    assert abs(halfspace(equal.x)) <= 1e-6


def test_the_callback_hears_of_violations():
    seen = []

    def callback(intermediate_result):
        seen.append((intermediate_result.maxcv, intermediate_result.fun))

    minimize(far, callback=callback, budget=100)
    assert [*seen] == sorted(seen, reverse=True)
    assert seen[-1][0] == 0


# The same bytes, however it is run.


@pytest.mark.parametrize("method", ["cma", "de"])
def test_workers_and_interruptions_change_nothing(tmp_path, method):
    given = {"method": method, "constraints": ["tests.zoo.constraints:halfspace", near]}
    expected = minimize(**given, out=tmp_path / "alone")
    digest = digest_of_run(tmp_path / "alone")
    for workers in (2, 3):
        out = tmp_path / str(workers)
        assert same(minimize(**given, workers=workers, out=out), expected)
        assert digest_of_run(out) == digest
    for stop in (1, 9):
        out, steps = tmp_path / f"stopped{stop}", []

        def callback(x, steps=steps, stop=stop):
            steps.append(x)
            if len(steps) == stop:
                raise StopIteration

        minimize(**given, callback=callback, out=out)
        resumed = zoo.resume(out, sphere, constraints=given["constraints"])
        assert same(resumed, expected)
        assert digest_of_run(out) == digest


SCRIPT = """
import sys, time
import numpy as np
import zoo
from tests.zoo.constraints import halfspace, near

def slow(x):
    time.sleep(0.004)
    return float((x**2).sum())

result = zoo.minimize(
    slow,
    np.array([2.0, 1.5, -1.0]),
    constraints=[halfspace, near],
    method="cma",
    budget=200,
    rng=0,
    out=sys.argv[1],
    workers=2,
)
print(result.x.tobytes().hex())
"""


def test_a_killed_run_goes_on_to_the_same_end(tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    first = subprocess.Popen(command, cwd=root, env=environment, start_new_session=True)
    journal = tmp_path / "run" / "evaluations.bin"
    for _ in range(600):
        if journal.exists() and journal.stat().st_size > 4000:
            break
        try:
            first.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        break
    assert first.poll() is None
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    again = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=100)
    assert again.stdout.split() == [minimize([halfspace, near]).x.tobytes().hex()]


# Run directories.


def test_other_constraints_are_refused(tmp_path):
    def shifted(x, by):
        return halfspace(x) - by

    out = tmp_path / "run"
    first = minimize(zoo.Constraint(shifted, 0, args=(0.5,)), out=out, budget=60)
    assert same(minimize(zoo.Constraint(shifted, 0, args=(0.5,)), out=out, budget=60), first)
    for other in (
        (),
        halfspace,
        zoo.Constraint(shifted, 0, args=(0.25,)),
        zoo.Constraint(shifted, 0.1, args=(0.5,)),
        zoo.Constraint(shifted, 0, 1, args=(0.5,)),
        [zoo.Constraint(shifted, 0, args=(0.5,)), near],
    ):
        with pytest.raises(RunDirectoryError, match="under other constraints"):
            minimize(other, out=out, budget=60)
        with pytest.raises(RunDirectoryError, match="under other constraints"):
            zoo.resume(out, sphere, constraints=other)
    minimize((), out=tmp_path / "none", budget=60)
    with pytest.raises(RunDirectoryError, match="under other constraints"):
        minimize(out=tmp_path / "none", budget=60)


def test_a_constraint_whose_surroundings_changed_is_warned_of(tmp_path):
    def limited(limit):
        return lambda x: limit - x[0]

    minimize(limited(2.0), out=tmp_path / "run", budget=60)
    with pytest.warns(ZooWarning, match="'limit' changed"):
        minimize(limited(3.0), out=tmp_path / "run", budget=60)


def test_functions_must_be_given_again_and_names_need_not(tmp_path):
    first = minimize(out=tmp_path / "function", fun="zoo.problems:sphere", budget=60)
    with pytest.raises(RunDirectoryError, match=r"has the constraint .*halfspace.*constraints=constraints"):
        zoo.resume(tmp_path / "function")
    assert same(zoo.resume(tmp_path / "function", constraints=halfspace), first)
    named = "tests.zoo.constraints:halfspace"
    minimize(named, out=tmp_path / "name", fun="zoo.problems:sphere", budget=60)
    assert same(zoo.resume(tmp_path / "name"), first)
    config = json.loads((tmp_path / "name" / "config.json").read_text())
    assert config["objective"]["constraints"] == [{"name": named}]


def returning(x):
    return zoo.Evaluations((x**2).sum(1), extras={"constraints": 1 - x.sum(1)[:, None]})


def test_a_run_whose_objective_returns_its_constraints_is_resumed(tmp_path):
    name = "tests.zoo.test_constraints_facade:returning"
    first = minimize("returned", fun=name, vectorized=True, out=tmp_path / "run", budget=60)
    assert same(zoo.resume(tmp_path / "run"), first)
    assert same(minimize("returned", fun=returning, vectorized=True, budget=60), first)


def test_metrics_hold_the_violation(tmp_path):
    minimize(far, out=tmp_path / "run", budget=60)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["violation"] == 0
    assert "multipliers" in lines[-1]


def test_the_command_line_takes_names(tmp_path):
    root = Path(__file__).parents[2]
    here = "tests.zoo.constraints"
    command = [sys.executable, "-c", "from zoo.cli import main; main()", "minimize", "zoo.problems:sphere"]
    options = ["--x0", "2,1.5,-1", "--method", "cma", "--budget", "200", "--seed", "0"]
    constraints = ["--constraint", f"{here}:halfspace", "--constraint", f"{here}:near"]
    done = subprocess.run(
        [*command, *options, *constraints, "--out", str(tmp_path / "run")],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["maxcv"] == 0
    assert result["x"] == minimize([halfspace, near]).x.tolist()
