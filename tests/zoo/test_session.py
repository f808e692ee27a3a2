"""Sessions: whoever asks, in whatever order values come, the points are those of one undisturbed loop."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import zoo
from zoo.core.errors import EvaluationError, RunDirectoryError, ZooWarning
from zoo.run.digest import digest_of_run
from zoo.run.journal import Journal

START = np.array([1.5, -1.0, 0.5])
METHODS = ("cma", "de", "pycma", "l-bfgs-b", "coordinate-descent")


def bowl(x):
    y = np.asarray(x, np.float64) - 0.3
    return float((np.arange(1.0, len(y) + 1) * y**2).sum() + 0.3 * y.sum() ** 2)


def value_of(trial):
    """A value by id: every thirteenth evaluation fails."""
    return float("nan") if trial.id % 13 == 7 else bowl(trial.x)


def session(method="cma", x0=START, **more):
    return zoo.Session(method, x0, **{"budget": 50, "rng": 5, **more})


def driven(session, value_of=value_of, n=3):
    """Drive a session to its end in order, and return the bytes of every point by id."""
    points = {}
    with session:
        while not session.done:
            trials = session.ask(n)
            assert trials
            for trial in trials:
                points[trial.id] = trial.x.tobytes().hex()
                session.tell(trial.id, value_of(trial))
    assert sorted(points) == list(range(session.result.nfev))
    return points


def same(first, second):
    left, right = ({**result, "seconds": 0} for result in (first, second))
    return repr(left) == repr(right)


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_driven_by_a_function_it_does_what_minimize_does(tmp_path, method, noise):
    arguments = {"method": method, "budget": 50, "rng": 5, "noise": noise}
    expected = zoo.minimize(bowl, START, **arguments, out=tmp_path / "minimize")
    found = session(method, noise=noise, out=tmp_path / "session")
    driven(found, lambda trial: bowl(trial.x))
    assert same(found.result, expected)
    assert digest_of_run(tmp_path / "session") == digest_of_run(tmp_path / "minimize")
    for name in ("metrics.jsonl",):
        assert (tmp_path / "session" / name).read_bytes() == (tmp_path / "minimize" / name).read_bytes()
    ours, theirs = (json.loads((tmp_path / d / "result.json").read_text()) for d in ("session", "minimize"))
    assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


@pytest.mark.parametrize("bounds", [None, [(-2, 2)] * 3])
def test_without_a_directory_it_is_the_same(bounds):
    found = session(bounds=bounds)
    driven(found, lambda trial: bowl(trial.x), n=100)
    assert same(found.result, zoo.minimize(bowl, START, method="cma", bounds=bounds, budget=50, rng=5))


def test_points_and_budget_are_as_in_minimize():
    torch = pytest.importorskip("torch")
    x0 = torch.ones(3, dtype=torch.float32)
    (trial,) = session(x0=x0).ask()
    assert trial.x.dtype == torch.float32
    assert trial.x.shape == (3,)
    (first, second) = session(x0=START.astype(np.float32)).ask(2)
    assert first.x.dtype == np.float32
    before = second.x.copy()
    first.x[:] = 9.0
    assert (second.x == before).all()
    driven(undefined := zoo.Session("random", np.zeros(1), rng=0), value_of, n=100)
    assert undefined.result.nfev == 1000
    assert zoo.Session(bounds=[(0, 4)] * 2, rng=0).trial is not None


def test_known_points_are_where_it_begins():
    known = np.array([[0.2, 0.2, 0.2], [1.0, 1.0, 1.0], [0.4, 0.3, 0.3]]), [bowl([0.2] * 3), None, None]
    found = session(x0=None, known=known)
    assert found.best[1] == bowl([0.2] * 3)
    assert [trial.x.tolist() for trial in found.ask(5)] == known[0][1:].tolist()
    assert found.ask() == []


def test_a_space_gives_points_of_it():
    space = zoo.Space({"lr": zoo.Float(1e-4, 1.0, log=True), "depth": zoo.Integer(1, 4)})

    def loss(point):
        return (np.log10(point["lr"]) + 2) ** 2 + abs(point["depth"] - 3)

    arguments = {"method": "cma", "space": space, "budget": 60, "rng": 1}
    with zoo.Session(**arguments) as found:
        while not found.done:
            for trial in found.ask(4):
                assert sorted(trial.x) == ["depth", "lr"]
                found.tell(trial.id, loss(trial.x))
    assert same(found.result, zoo.minimize(loss, **arguments))
    assert found.best == (found.result.x_best, found.result.fun)


def test_the_target_ends_it():
    found = session(target=0.5, budget=5000)
    driven_from(found, lambda trial: bowl(trial.x))
    assert same(found.result, zoo.minimize(bowl, START, method="cma", target=0.5, budget=5000, rng=5))
    assert found.result.status == 1
    assert found.ask() == []


class Reference:
    """What a session driven in order does, by method: points by id, and the state at the end."""

    def __init__(self, directory):
        self.directory, self.points = directory, {}

    def __call__(self, method):
        if method not in self.points:
            self.points[method] = driven(session(method, out=self.directory / method))
        return self.points[method]


@pytest.fixture(scope="module")
def in_order(tmp_path_factory):
    return Reference(tmp_path_factory.mktemp("in_order"))


@pytest.mark.parametrize("method", ["cma", "l-bfgs-b", "coordinate-descent"])
@settings(max_examples=8, deadline=None, phases=[Phase.generate])  # to make one smaller takes minutes
@given(pick=st.randoms(use_true_random=True))
def test_any_interleaving_gives_the_same_points(method, pick, in_order, tmp_path_factory):
    expected, out = in_order(method), tmp_path_factory.mktemp("run")
    found, points, out_now = session(method, out=out), {}, {}
    steps = 0
    while not found.done:
        assert (steps := steps + 1) < 1000
        kind = pick.choices(["ask", "tell", "batch", "requeue", "reopen"], [6, 8, 2, 2, 1])[0]
        if kind == "reopen":
            found.close()
            found = zoo.Session.open(out) if pick.random() < 0.5 else session(method, out=out)
            assert list(found.pending) == sorted(out_now)
            for number, trial in out_now.items():
                assert found.trial(number).x.tobytes() == trial.x.tobytes()
        elif kind == "ask" or not out_now:
            for trial in found.ask(pick.randint(1, 12)):
                assert points.setdefault(trial.id, trial.x.tobytes().hex()) == trial.x.tobytes().hex()
                out_now[trial.id] = trial
        elif kind == "requeue":
            found.requeue(pick.sample(sorted(out_now), pick.randint(1, len(out_now))))
        else:
            count = 1 if kind == "tell" else pick.randint(1, len(out_now))
            chosen = [out_now.pop(number) for number in pick.sample(sorted(out_now), count)]
            lost = [
                trial.id for trial in chosen if value_of(trial) != value_of(trial) and pick.random() < 0.5
            ]
            found.abandon(lost)
            found.tell({trial.id: value_of(trial) for trial in chosen if trial.id not in lost})
    found.close()
    assert points == expected
    assert digest_of_run(out) == digest_of_run(in_order.directory / method)


def bench(number, directories, records):
    """One of several processes that drive some sessions together, each opening them for a moment."""
    rng = np.random.default_rng(number)
    asked, points, going = {path: [] for path in directories}, {path: {} for path in directories}, True
    while going:
        going = False
        for path in directories:
            with zoo.Session.open(path, timeout=60) as mine:
                going |= not mine.done
                for trial in mine.ask(int(rng.integers(1, 5))):
                    points[path][trial.id] = trial.x.tobytes().hex()
                    asked[path].append(trial)
            rng.shuffle(asked[path])
            late = asked[path][int(rng.integers(1, 4)) :]
            values = {trial.id: value_of(trial) for trial in asked[path][: len(asked[path]) - len(late)]}
            asked[path] = late
            with zoo.Session.open(path, timeout=60) as mine:
                lost = [number for number, value in values.items() if value != value]
                mine.abandon(lost)
                mine.tell({number: value for number, value in values.items() if number not in lost})
            time.sleep(0.005)
    Path(records, f"{number}.json").write_text(json.dumps(points))


@pytest.mark.slow
def test_three_processes_that_answer_late_and_abandon_some(tmp_path, in_order):
    methods = ("cma", "de", "l-bfgs-b", "coordinate-descent")
    for method in methods:
        session(method, out=tmp_path / method).close()
    context = multiprocessing.get_context("spawn")
    directories = [str(tmp_path / method) for method in methods]
    benches = [context.Process(target=bench, args=(i, directories, str(tmp_path))) for i in range(3)]
    for process in benches:
        process.start()
    for process in benches:
        process.join(100)
        assert process.exitcode == 0
    records = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(3)]
    for method in methods:
        parts = [record[str(tmp_path / method)] for record in records]
        together = {int(number): point for part in parts for number, point in part.items()}
        assert sum(map(len, parts)) == len(together), "a trial was given to two"
        assert together == in_order(method)
        assert min(map(len, parts)) > 0
        assert digest_of_run(tmp_path / method) == digest_of_run(in_order.directory / method)


_OWNER = """
import sys
import zoo
from tests.zoo.test_session import value_of
with zoo.Session.open(sys.argv[1]) as session:
    session.requeue(session.pending)
    while not session.done:
        trials = session.ask(3)
        print("asked", *[trial.id for trial in trials], flush=True)
        for trial in reversed(trials):
            session.tell(trial.id, value_of(trial))
            print("told", trial.id, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cma", "coordinate-descent"])
def test_killed_it_has_lost_nothing_that_was_told(tmp_path, method, in_order):
    expected, out = in_order(method), tmp_path / "run"
    session(method, out=out).close()
    told, asked = set(), set()
    for kills, lines in enumerate((5, 33), 1):
        with subprocess.Popen(
            [sys.executable, "-c", _OWNER, str(out)], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
        ) as owner:
            for _ in range(lines):
                what, *numbers = owner.stdout.readline().split()
                (told if what == "told" else asked).update(map(int, numbers))
            owner.send_signal(signal.SIGKILL)
            for line in owner.stdout.read().splitlines():
                what, *numbers = line.split()
                (told if what == "told" else asked).update(map(int, numbers))
        with zoo.Session.open(out) as found:
            assert not told & found.pending.keys()
            assert len(asked - told - found.pending.keys()) <= kills  # told, and killed before saying so
            first = min(found.pending, default=max(told) + 1)
            for number in told:
                with pytest.raises(ValueError, match="already"):
                    found.tell(number, 123.0)
            assert max(told, default=0) < first + 20
    with zoo.Session.open(out) as found:
        found.requeue(found.pending)
        while not found.done:
            for trial in found.ask(2):
                assert trial.x.tobytes().hex() == expected[trial.id]
                found.tell(trial.id, value_of(trial))
    assert digest_of_run(out) == digest_of_run(in_order.directory / method)


def test_what_is_told_twice():
    found = session()
    trials = found.ask(20)
    found.tell(trials[2].id, 1.5)
    found.tell(trials[2].id, 1.5)
    found.tell({trials[2].id: np.float64(1.5), trials[0].id: float("nan")})
    found.tell(trials[0].id, float("inf"))  # as failed as NaN
    with pytest.raises(ValueError, match=r"trial 2 has the value 1.5 already, and cannot be told 2.5"):
        found.tell({trials[1].id: 3.0, trials[2].id: 2.5})
    assert trials[1].id in found.pending, "a refused call took effect"
    with pytest.raises(ValueError, match="trial 0 has failed, or was abandoned, already"):
        found.tell(trials[0].id, 2.0)
    with pytest.raises(ValueError, match=r"trial 2 has the value 1.5 already, and cannot be abandoned"):
        found.abandon(2)
    with pytest.raises(ValueError, match="trial 2 has a value already"):
        found.requeue(2)
    found.abandon([1])
    found.abandon([1, 3])
    with pytest.raises(ValueError, match="trial 1 has failed, or was abandoned"):
        found.tell(1, 0.25)


@pytest.mark.parametrize("kept", [False, True])
def test_values_of_earlier_steps_are_remembered(tmp_path, kept):
    found = session(out=tmp_path if kept else None)
    for trial in found.ask(20):
        found.tell(trial.id, bowl(trial.x))
    (trial,) = found.ask()
    assert trial.id > 3
    if kept:
        found.close()
        found = zoo.Session.open(tmp_path)
    with pytest.raises(ValueError, match=r"trial 3 has the value .* cannot be told -1"):
        found.tell(3, -1.0)
    with pytest.raises(ValueError, match="trial 3 belongs to a step that is over"):
        found.trial(3)
    for trial in found.ask(20):
        found.tell(trial.id, bowl(trial.x))
    with pytest.raises(ValueError, match=f"trial {trial.id} has the value"):
        found.tell(trial.id, -1.0)


@pytest.mark.parametrize("kind", ["numpy", "torch", "space"])
def test_trials_stand_for_their_ids(kind):
    x0, space = START, None
    if kind == "torch":
        x0 = pytest.importorskip("torch").ones(3)
    elif kind == "space":
        x0, space = None, zoo.Space({"a": zoo.Float(0.0, 1.0), "b": zoo.Float(0.0, 1.0)})
    found = session("random", x0=x0, space=space)
    first, second, third, *others = trials = found.ask(6)
    found.tell(first, 1.0)
    found.abandon(second)
    found.abandon([third, others[0].id])
    assert (found.result.nfev, found.result.num_failed) == (4, 3)
    found.requeue(others[1])
    found.requeue(others[1:])
    assert [trial.id for trial in found.ask(2)] == [4, 5]
    assert found.trial(others[2]).id == 5
    with pytest.raises(ValueError, match=r"trial 0 has the value 1\.0 already"):
        found.tell(trials[0], 2.0)


def test_nobody_tells_what_was_not_asked_for():
    found = session()
    found.ask(2)
    for number in (2, 69, -1, 10**6):
        for call in (lambda wrong: found.tell(wrong, 1.0), found.abandon, found.requeue, found.trial):
            with pytest.raises(ValueError, match=f"trial {number} was never asked for"):
                call(number)
    for wrong in ("1", 1.0, None, True, (1,)):
        with pytest.raises(TypeError, match="an id must be an integer"):
            found.tell(wrong, 1.0)
    for wrong in (None, "2", 1j, [1.0], np.ones(2)):
        with pytest.raises(TypeError, match="the value of trial 1 must be a number"):
            found.tell(1, wrong)
    with pytest.raises(TypeError, match="`value` must be left out"):
        found.tell({1: 2.0}, 2.0)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="`n` must be at least 1"):
            found.ask(wrong)
    with pytest.raises(TypeError, match="`n` must be an integer"):
        found.ask(1.0)
    assert list(found.pending) == [0, 1]
    assert found.result.nfev == 0


def test_arguments_are_checked_as_in_minimize():
    with pytest.raises(ValueError, match=r"cmma.*Did you mean 'cma'"):
        zoo.Session("cmma", START)
    with pytest.raises(ValueError, match="nowhere to start"):
        zoo.Session("cma")
    with pytest.raises(TypeError, match="`noise` must be True or False"):
        zoo.Session("cma", START, noise=1)
    with pytest.raises(ValueError, match="`budget` must be at least 1"):
        zoo.Session("cma", START, budget=0)
    with pytest.raises(ValueError, match="`timeout` must be at least 0"):
        zoo.Session("cma", START, timeout=-1)


def test_a_step_that_is_out_is_waited_for_and_requeued_trials_come_first():
    found = session()
    first = found.ask(100)
    assert 1 < len(first) < 20
    assert found.ask() == []
    found.requeue([3, 1])
    assert [trial.id for trial in found.ask(5)] == [1, 3]
    found.requeue(range(3))
    found.tell(1, 5.0)  # by the one who had it before
    assert [trial.id for trial in found.ask(5)] == [0, 2]
    assert found.trial(2).x.tobytes() == first[2].x.tobytes()
    assert 1 not in found.pending
    assert all(0 <= seconds < 60 for seconds in found.pending.values())


def test_the_best_and_the_result_hold_what_was_told_so_far():
    found = session()
    assert found.best is None
    assert not found.result.success
    trials = found.ask(4)
    found.abandon(1)
    assert (found.result.nfev, found.result.num_failed, found.best) == (1, 1, None)
    found.tell({0: 3.0, 2: 2.0})
    assert found.best[1] == 2.0
    assert found.best[0].tolist() == trials[2].x.tolist()
    result = found.result
    assert (result.fun, result.nfev, result.nit, result.num_failed) == (2.0, 3, 0, 1)
    assert result.status == 6
    assert "trials that are out: 1" in result.message
    assert result.success
    assert "3 told, 1 out" in repr(found)


def test_noise_has_its_recommendation_asked_for_several_times():
    found = session(noise=True, budget=500)
    calls = 0

    def noisy(trial):
        nonlocal calls
        calls += 1
        return bowl(trial.x) + 0.01 * (trial.id % 7)

    trials = found.ask(10)
    found.tell({trial.id: noisy(trial) for trial in trials})
    open_result = found.result
    assert np.isnan(open_result.fun)
    assert open_result.fun_best < 100
    points = driven_from(found, noisy)
    assert found.result.nfev == calls == len(points) + len(trials)
    assert len(set(points[-5:])) == 1
    assert found.result.fun_error > 0


def driven_from(found, value_of):
    points = []
    while not found.done:
        for trial in found.ask(4):
            points.append(trial.x.tobytes())
            found.tell(trial.id, value_of(trial))
    return points


def ring(x):
    return float((np.asarray(x) ** 2).sum()) - 0.5  # is to be at least 0


@pytest.mark.parametrize("noise", [False, True])
def test_constraints_that_are_functions_are_evaluated_here(tmp_path, noise):
    arguments = {"method": "cma", "constraints": ring, "budget": 50, "rng": 5, "noise": noise}
    expected = zoo.minimize(bowl, START, **arguments, out=tmp_path / "minimize")
    found = zoo.Session(x0=START, **arguments, out=tmp_path / "session")
    for trial in reversed(found.ask(5)):
        found.tell(trial.id, bowl(trial.x))
    found.close()
    with pytest.raises(RunDirectoryError, match=r"has the constraint .* give all constraints again"):
        zoo.Session.open(tmp_path / "session")
    with pytest.raises(RunDirectoryError, match="under other constraints"):
        zoo.Session.open(tmp_path / "session", constraints=bowl)
    with zoo.Session.open(tmp_path / "session", constraints=ring) as found:
        with pytest.raises(TypeError, match="the value of trial"):
            found.tell(found.ask()[0].id, "a")
        found.requeue(found.pending)
        driven_from(found, lambda trial: bowl(trial.x))
    assert same(found.result, expected)
    assert digest_of_run(tmp_path / "session") == digest_of_run(tmp_path / "minimize")
    assert found.result.maxcv == 0


def test_a_constraint_that_raises_is_shown_and_nothing_told():
    def broken(x):
        raise OSError("out of order")

    found = session(constraints=broken)
    trials = found.ask(3)
    with pytest.raises(EvaluationError, match=r"a constraint of trial 0 raised.*out of order"):
        found.tell({trial.id: 1.0 for trial in trials})
    assert len(found.pending) == 3
    found.abandon(trials[0].id)
    found.tell(trials[1].id, float("nan"))  # points without a value are not looked at
    assert len(found.pending) == 1


def test_constraints_may_be_told_beside_the_values(tmp_path):
    def both(x):
        return zoo.Evaluations([bowl(row) for row in x], extras={"constraints": [[-ring(row)] for row in x]})

    arguments = {"method": "cma", "constraints": "returned", "budget": 50, "rng": 5}
    expected = zoo.minimize(both, START, **arguments, vectorized=True)
    found = zoo.Session(x0=START, **arguments, out=tmp_path)
    first, second, third = found.ask(3)
    with pytest.raises(TypeError, match="`constraints` of trial 0 must be told along"):
        found.tell(first.id, 1.0)
    with pytest.raises(TypeError, match="`constraints` of trial 0 must be a row of numbers"):
        found.tell(first.id, 1.0, "none")
    with pytest.raises(TypeError, match="`constraints` must be a mapping"):
        found.tell({first.id: 1.0}, constraints=[1.0])
    with pytest.raises(ValueError, match="`constraints` must be of the trials that are told"):
        found.tell({first.id: 1.0}, constraints={first.id: [1.0], second.id: [2.0]})
    found.tell(
        {trial.id: bowl(trial.x) for trial in (third, first)},
        constraints={trial.id: -ring(trial.x) for trial in (third, first)},
    )
    found.close()
    found = zoo.Session.open(tmp_path)
    with pytest.raises(ValueError, match="as many constraints, got 2 where there were 1"):
        found.tell(second.id, bowl(second.x), [1.0, 2.0])
    found.tell(second.id, bowl(second.x), -ring(second.x))
    while not found.done:
        for trial in found.ask(5):
            found.tell(trial.id, bowl(trial.x), constraints=[-ring(trial.x)])
    assert same(found.result, expected)
    alone = session()
    (trial,) = alone.ask()
    with pytest.raises(TypeError, match="`constraints` must be left out"):
        alone.tell(trial.id, 1.0, [0.0])


def test_undefined_constraints_are_failed_evaluations(tmp_path):
    def value(x):
        return float("nan") if x[0] > 1.6 else bowl(x)

    def constraints(x):
        return [-ring(x), float("inf") if x[2] > 0.8 else float("nan") if x[1] > -0.9 else 0.0]

    def both(x):
        return zoo.Evaluations([value(row) for row in x], extras={"constraints": [constraints(r) for r in x]})

    arguments = {"method": "cma", "constraints": "returned", "budget": 50, "rng": 5}
    expected = zoo.minimize(both, START, **arguments, vectorized=True)
    found = zoo.Session(x0=START, **arguments, out=tmp_path)
    (trial,) = found.ask()
    for _ in range(2):
        found.tell(trial.id, 1.0, [0.0, float("nan")])
        assert (found.result.num_failed, found.best) == (1, None)
    found.close()
    with zoo.Session.open(tmp_path) as found:
        found.tell(trial.id, 1.0, [0.0, float("nan")])
        with pytest.raises(ValueError, match="has failed, or was abandoned, already"):
            found.tell(trial.id, 1.0, [0.0, 0.0])
    found, failed = zoo.Session(x0=START, **arguments), 0
    while not found.done:
        for trial in found.ask(5):
            failed += not np.isfinite([value(trial.x), *constraints(trial.x)]).all()
            found.tell(trial.id, value(trial.x), constraints(trial.x))
    assert found.result.num_failed == expected.num_failed == failed > 3
    assert same(found.result, expected)


def test_several_objectives_are_told_as_rows(tmp_path):
    def two(x):
        return [float((x**2).sum()), float(((x - 1) ** 2).sum())]

    arguments = {"method": "nsga2", "bounds": [(-2, 2)] * 3, "budget": 90, "rng": 5}
    expected = zoo.minimize(two, **arguments)
    found = zoo.Session(**arguments, out=tmp_path)
    trials = found.ask(4)
    found.tell(trials[2].id, two(trials[2].x))
    with pytest.raises(ValueError, match="as many objectives, got 3 where there were 2"):
        found.tell(trials[1].id, [1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="the value of trial 1 must be a row of numbers"):
        found.tell(trials[1].id, "1")
    found.requeue([0, 1, 3])
    found.close()
    with zoo.Session.open(tmp_path) as found:
        driven_from(found, lambda trial: two(trial.x))
    assert same(found.result, expected)
    assert found.result.front.fun.shape[1] == 2


def test_if_all_fail_it_ends_all_the_same():
    found = session(budget=40)
    while not found.done:
        found.abandon([trial.id for trial in found.ask(5)])
    assert not found.result.success
    assert "no evaluation had a value" in found.result.message
    assert found.result.num_failed == found.result.nfev > 30


def test_closed_it_says_so(tmp_path):
    found = session(out=tmp_path / "run")
    found.ask(2)
    found.tell(0, 2.0)
    found.close()
    found.close()
    for call in (found.ask, lambda: found.tell(1, 1.0), lambda: found.abandon(1), lambda: found.requeue(1)):
        with pytest.raises(RuntimeError, match=r"closed; zoo.Session.open\('.*run'\) opens it again"):
            call()
    assert found.best[1] == 2.0
    assert found.result.nfev == 1
    assert list(found.pending) == [1]
    alone = session()
    with alone:
        alone.ask()
    with pytest.raises(RuntimeError, match=r"this session is closed\.$"):
        alone.ask()


def test_an_ended_session_opens_as_ended(tmp_path):
    found = session(out=tmp_path)
    driven(found)
    before = (tmp_path / "result.json").read_bytes()
    with zoo.Session.open(tmp_path) as again:
        assert again.done
        assert again.ask() == []
        assert same(again.result, found.result)
        last = found.result.nfev - 1
        with pytest.raises(ValueError, match=f"trial {last} has the value"):
            again.tell(last, -1.0)
    assert (tmp_path / "result.json").read_bytes() == before


def test_the_same_arguments_open_it_and_others_are_refused(tmp_path):
    found = session(out=tmp_path / "run")
    found.tell(found.ask()[0].id, 2.0)
    found.close()
    with session(out=tmp_path / "run") as again:
        assert again.best[1] == 2.0
    with session(out=tmp_path / "run", rng=None) as again:
        assert again.best[1] == 2.0
    with pytest.raises(RunDirectoryError, match="holds another run: 'rng' differ"):
        session(out=tmp_path / "run", rng=6)
    with pytest.raises(RunDirectoryError, match="there is no directory"):
        zoo.Session.open(tmp_path / "nowhere")
    with zoo.Session.open(tmp_path / "run", timeout=0) as again:
        assert again.best[1] == 2.0


def test_a_session_and_a_function_go_on_with_each_other(tmp_path):
    expected = zoo.minimize(bowl, START, method="cma", budget=50, rng=5)
    found = session(out=tmp_path / "run")
    for trial in found.ask(4)[::-1] + found.ask(1):
        found.tell(trial.id, bowl(trial.x))
    found.ask(3)
    found.close()
    with pytest.raises(RunDirectoryError, match=r"give it again, as in zoo.resume"):
        zoo.resume(tmp_path / "run")
    calls = 0

    def counted(x):
        nonlocal calls
        calls += 1
        return bowl(x)

    def halt(xk):
        if calls > 20:
            raise StopIteration

    assert zoo.resume(tmp_path / "run", counted, callback=halt).status == 3
    with zoo.Session.open(tmp_path / "run") as found:
        assert not found.pending
        for trial in found.ask(3):
            found.tell(trial.id, counted(trial.x))
    assert same(zoo.minimize(counted, START, method="cma", budget=50, rng=5, out=tmp_path / "run"), expected)
    assert calls == expected.nfev - 5

    zoo.minimize(counted, START, method="cma", budget=50, rng=5, out=tmp_path / "other", callback=halt)
    found = zoo.Session.open(tmp_path / "other")
    while not found.done:
        for trial in found.ask(3):
            found.tell(trial.id, bowl(trial.x))
    found.close()
    assert same(found.result, expected)


def test_one_process_at_a_time_and_others_wait(tmp_path):
    found = session(out=tmp_path)
    began = time.monotonic()
    with pytest.raises(RunDirectoryError, match="in use"):
        zoo.Session.open(tmp_path, timeout=0.1)
    assert time.monotonic() - began >= 0.1
    timer = threading.Timer(0.2, found.close)
    timer.start()
    with zoo.Session.open(tmp_path, timeout=60) as again:
        assert again.ask()
    timer.join()


def test_who_forgets_to_close_it_holds_nothing(tmp_path):
    session(out=tmp_path).close()
    gc.disable()  # the last reference is enough
    try:
        before = len(os.listdir("/dev/fd"))
        nfev = 0
        for _ in range(3):
            found = zoo.Session.open(tmp_path, timeout=0)
            assert found.result.nfev == nfev
            with pytest.raises(
                RunDirectoryError, match="in use in this process, by a session or run that was"
            ):
                zoo.Session.open(tmp_path, timeout=0)
            with pytest.raises(RunDirectoryError, match="in this process"):
                zoo.resume(tmp_path, bowl)
            for trial in found.ask(100):
                found.tell(trial.id, bowl(trial.x))
            nfev = found.result.nfev
            del found
            assert len(os.listdir("/dev/fd")) == before
        session(out=tmp_path, timeout=0).ask()
        zoo.Session.open(tmp_path, timeout=0).close()
    finally:
        gc.enable()


def test_another_process_that_has_it_open_is_named_as_such(tmp_path):
    session(out=tmp_path).close()
    code = "import sys, zoo; s = zoo.Session.open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(RunDirectoryError, match="in use by another process"):
            zoo.Session.open(tmp_path, timeout=0)
        other.stdin.close()
    zoo.Session.open(tmp_path, timeout=0).close()


def test_a_forked_child_has_no_part_in_it(tmp_path):
    found = session(out=tmp_path)
    child = os.fork()
    if not child:
        status = 1
        try:
            with pytest.raises(RuntimeError, match="this one is a fork of"):
                found.ask()
            found.close()
            time.sleep(0.5)
            status = 0
        finally:
            os._exit(status)
    found.close()
    with zoo.Session.open(tmp_path, timeout=0) as again:  # though the child has not ended
        assert again.ask()
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(TypeError, match="cannot be sent to another process"):
        found.__reduce__()


def test_threads_may_share_it(tmp_path):
    found = session(budget=200, out=tmp_path)
    expected = driven(session(budget=200))
    points = {}

    def work():
        while not found.done:
            for trial in found.ask(2):
                points[trial.id] = trial.x.tobytes().hex()
                found.tell(trial.id, value_of(trial))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert points == expected


class Interrupts:
    """Ctrl-C at every so many lines of what a session consists of."""

    PARTS = "session", "told", "run/handout", "run/directory", "run/journal"
    FILES = tuple(f"/zoo/{name}.py" for name in (*PARTS, "execution/ledger", "execution/interrupts"))

    def __init__(self, every):
        self.every, self.left, self.number = every, every, 0

    def trace(self, frame, event, _):
        if event == "call":
            return self.trace if frame.f_code.co_filename.endswith(self.FILES) else None
        if event == "line":
            self.left -= 1
            if not self.left:
                self.number += 1
                self.left = self.every + 97 * self.number % 701  # or the same line could be hit for ever
                signal.raise_signal(signal.SIGINT)
        return self.trace

    def __call__(self, call, *arguments):
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            return call(*arguments)
        finally:
            sys.settrace(before)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("every", [30, 60, 110, 200])
def test_ctrl_c_anywhere_changes_nothing(tmp_path, in_order, every, kept):
    # Ray, say, leaves a handler of its own for SIGTERM behind.
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        _ctrl_c_anywhere(tmp_path, in_order, every, kept)
    finally:
        signal.signal(signal.SIGTERM, before)


def _ctrl_c_anywhere(tmp_path, in_order, every, kept):
    found, points, values, interrupts = session(out=tmp_path if kept else None), {}, {}, Interrupts(every)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    while not found.done:
        try:
            for trial in interrupts(found.ask, 3):
                assert points.setdefault(trial.id, trial.x.tobytes().hex()) == trial.x.tobytes().hex()
                values[trial.id] = value_of(trial)
                interrupts(found.tell, trial.id, values[trial.id])
        except KeyboardInterrupt:
            found.requeue(found.pending)
    assert interrupts.number > 5
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    assert points == in_order("cma")
    found.close()
    if kept:
        assert digest_of_run(tmp_path) == digest_of_run(in_order.directory / "cma")
        for name in ("metrics.jsonl", "evaluations.bin"):
            assert (tmp_path / name).read_bytes() == (in_order.directory / "cma" / name).read_bytes()


def test_what_breaks_off_between_two_steps_is_done_by_the_next_call(monkeypatch, in_order):
    found, points, calls = session(), {}, 0
    begin = found._handout.begin

    def broken(*arguments):
        nonlocal calls
        calls += 1
        if calls % 2:
            raise MemoryError
        begin(*arguments)

    monkeypatch.setattr(found._handout, "begin", broken)
    while not found.done:
        try:
            for trial in found.ask(3):
                points[trial.id] = trial.x.tobytes().hex()
                found.tell(trial.id, value_of(trial))
        except MemoryError:
            found.requeue(found.pending)
    assert calls > 10
    assert points == in_order("cma")


def test_a_value_told_again_is_out_no_longer(monkeypatch):
    found = session()
    trials = found.ask(100)
    with monkeypatch.context() as patch:

        def broken(_):
            raise MemoryError

        patch.setattr(found._handout, "told", broken)
        for trial in trials:
            with pytest.raises(MemoryError):
                found.tell(trial.id, 1.0)
    assert len(found.pending) == len(trials)
    found.tell(trials[0].id, 1.0)
    assert not found.pending
    assert found.ask()


def test_what_fails_between_a_step_and_the_disk_is_recovered_from_it(tmp_path, monkeypatch, in_order):
    found = session(out=tmp_path)
    trials = found.ask(100)

    def full(*_):
        raise RunDirectoryError("it cannot be written: no space left on the device.")

    with monkeypatch.context() as patch:
        patch.setattr(found._directory, "log", full)
        with pytest.raises(RunDirectoryError, match="no space"):
            found.tell({trial.id: value_of(trial) for trial in trials})
    with pytest.raises(RuntimeError, match=r"closed; zoo\.Session\.open"):
        found.ask()
    with zoo.Session.open(tmp_path) as found:
        assert not found.pending
        driven_from(found, value_of)
    assert digest_of_run(tmp_path) == digest_of_run(in_order.directory / "cma")


def test_what_the_disk_does_not_take_is_not_told(tmp_path, monkeypatch):
    found = session(out=tmp_path)
    found.ask(3)
    found.tell(1, 4.0)
    with monkeypatch.context() as patch:

        def full(*_):
            raise RunDirectoryError("it cannot be written: no space left on the device.")

        patch.setattr(Journal, "append", full)
        with pytest.raises(RunDirectoryError, match="no space"):
            found.tell(2, 3.0)
    with pytest.raises(RuntimeError, match="closed"):
        found.tell(2, 3.0)
    with zoo.Session.open(tmp_path) as again:
        assert list(again.pending) == [0, 2]
        again.tell(2, 3.0)
        assert again.best[1] == 3.0


def test_a_torn_record_of_what_is_out_only_gives_it_out_again(tmp_path):
    with session(out=tmp_path) as found:
        found.ask(2)
        trials = found.ask(2)
    path = tmp_path / "asked.jsonl"
    path.write_bytes(path.read_bytes()[:-8])
    with zoo.Session.open(tmp_path) as found:
        assert list(found.pending) == [0, 1]
        again = found.ask(2)
        assert [trial.x.tobytes() for trial in again] == [trial.x.tobytes() for trial in trials]
    with zoo.Session.open(tmp_path) as found:
        assert list(found.pending) == [0, 1, 2, 3]


def test_opened_on_another_machine_it_warns(tmp_path):
    session(out=tmp_path).close()
    meta = json.loads((tmp_path / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps({**meta, "processor": "an abacus"}))
    with pytest.warns(ZooWarning, match="started elsewhere.*abacus") as caught:
        zoo.Session.open(tmp_path).close()
    assert caught[0].filename == __file__


def test_a_directory_that_nothing_came_of_is_removed(tmp_path):
    with pytest.raises((TypeError, ValueError)):
        zoo.Session("cma", START, options={"sigma0": -1.0}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
