"""What every method keeps to, whatever it does inside; see `tests/cases.py` for who is tested."""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.cases import CASES, Case
from tests.conftest import global_generators
from tests.contracts.functions import Function, bowl, constant
from zoo.core.bounds import Bounds
from zoo.core.device import Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Candidates, Evaluations
from zoo.execution.executor import Executor, Mapped, Serial
from zoo.execution.processes import Processes
from zoo.registry import find, list_methods
from zoo.run.watching import OWN_METRICS

# Methods that take differences say so where the objective is constant, which some tests mean it to be.
pytestmark = pytest.mark.filterwarnings("ignore:the objective did not change:zoo.core.errors.ZooWarning")

DIM, STEPS = 4, 12
START = np.array([0.75, -1.5, 2.0, 0.25])


def values_of(fun: Function, candidates: Candidates) -> np.ndarray[Any, Any]:
    return np.array([fun(to_numpy(row)) for row in candidates.rows(0, len(candidates))], np.float64)


class Search:
    """A method, and the states it goes through on a function."""

    def __init__(
        self, case: Case, fun: Function = bowl, x0: Any = START, *, seed: int = 0, **options: Any
    ) -> None:
        self.method, self.fun = case.build(), fun
        self.state = self.method.init(x0, key=Key(seed), **options)
        self.asked: list[np.ndarray[Any, Any]] = []

    def step(self, values: np.ndarray[Any, Any] | None = None) -> None:
        candidates = self.method.ask(self.state)
        if values is None:
            values = values_of(self.fun, candidates)
        self.asked.append(to_numpy(candidates.rows(0, len(candidates))))
        self.state = self.method.tell(self.state, Evaluations(values))

    def run(self, steps: int = STEPS) -> Search:
        for _ in range(steps):
            self.step()
        return self

    @property
    def rows(self) -> np.ndarray[Any, Any]:
        """All candidates so far, shape (nfev, dim)."""
        return np.concatenate(self.asked)

    @property
    def x(self) -> np.ndarray[Any, Any]:
        return to_numpy(self.method.recommend(self.state))


def forget() -> None:
    """Empty every cache that a module of the library keeps beside the states."""
    for name, module in list(sys.modules.items()):
        if name.startswith("zoo."):
            getattr(module, "clear_cache", lambda: None)()


def copy_of(state: Any) -> Any:
    """Return a state that went through a file."""
    tree, arrays = freeze(state)
    return thaw(json.loads(json.dumps(tree)), {name: array.copy() for name, array in arrays.items()})


# Finite differences say so where nothing changes; here it is meant.
may_be_flat = pytest.mark.filterwarnings("ignore:the objective did not change:zoo.core.errors.ZooWarning")

all_methods = pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)


def having(trait: str) -> Any:
    return pytest.mark.parametrize(
        "case", [c for c in CASES if trait in c.traits], ids=lambda case: case.method
    )


def lacking(trait: str) -> Any:
    return pytest.mark.parametrize(
        "case", [c for c in CASES if trait not in c.traits], ids=lambda case: case.method
    )


def test_every_method_has_a_case() -> None:
    assert sorted(case.method for case in CASES) == sorted(list_methods())


@all_methods
def test_unknown_options_are_refused(case: Case) -> None:
    method = find(case.method)
    for name in method.options():
        with pytest.raises(TypeError, match=f"{name + 'x'!r}.* Did you mean {name!r}.* Valid: "):
            method.build({name + "x": 1})
    with pytest.raises(TypeError, match="unknown option of method"):
        method.build({"no_such_thing": 1})


@all_methods
def test_wrong_options_are_refused(case: Case) -> None:
    method = find(case.method)
    for name in method.options():
        for wrong in (object(), float("nan"), "no such thing", [], -1j):
            with pytest.raises((TypeError, ValueError), match=rf"`{name}` .*"):
                method.build({name: wrong})


@all_methods
def test_is_a_frozen_value_whose_repr_makes_it_again(case: Case) -> None:
    method = case.build()
    assert dataclasses.is_dataclass(method)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.dim = 3  # type: ignore[attr-defined]
    names: dict[str, Any] = {"inf": np.inf}
    for name, module in list(sys.modules.items()):
        if name.startswith("zoo."):
            names.update(vars(module))
    names.update(vars(sys.modules[type(method).__module__]))  # another class there may have the same name
    assert eval(repr(method), names) == method
    assert case.build() == method
    assert isinstance(method.recommends_evaluated, bool)


@all_methods
def test_init_owns_its_arrays(case: Case) -> None:
    x0 = START.copy()
    method = case.build()
    state = method.init(x0, key=Key(0))
    before = digest(state)
    assert (x0 == START).all()
    x0 += 1
    assert digest(state) == before == digest(method.init(START, key=Key(0)))


@all_methods
def test_ask_is_idempotent_and_rows_belong_to_the_caller(case: Case) -> None:
    search = Search(case)
    for _ in range(STEPS):
        before = digest(search.state)
        first = search.method.ask(search.state)
        rows = first.rows(0, len(first))
        copy = rows.copy()
        rows += 1
        for candidates in (first, search.method.ask(search.state), search.method.ask(copy_of(search.state))):
            assert candidates.rows(0, len(candidates)).tobytes() == copy.tobytes()
        assert digest(search.state) == before
        search.step()


@all_methods
def test_tell_is_pure(case: Case) -> None:
    search = Search(case)
    for _ in range(STEPS):
        state, method = search.state, search.method
        before = digest(state)
        values = values_of(bowl, method.ask(state))
        kept = values.copy()
        first, other = method.tell(state, Evaluations(values)), method.tell(state, Evaluations(values[::-1]))
        second = method.tell(state, Evaluations(values))
        assert digest(state) == before
        assert digest(first) == digest(second) != before
        assert (values == kept).all()
        method.recommend(first), method.finished(first), method.diagnostics(first)
        assert digest(first) == digest(second)
        del other
        search.step()


@all_methods
def test_tell_refuses_another_number_of_values(case: Case) -> None:
    search = Search(case).run(2)
    wrong = len(search.method.ask(search.state)) + 1
    with pytest.raises(ValueError, match="evaluations"):
        search.method.tell(search.state, Evaluations(np.zeros(wrong)))


@all_methods
def test_rows_are_the_same_in_any_slice(case: Case) -> None:
    search = Search(case)
    for _ in range(STEPS):
        candidates = search.method.ask(search.state)
        n = len(candidates)
        assert candidates.dim == DIM
        whole = candidates.rows(0, n)
        assert whole.shape == (n, DIM)
        travelled = pickle.loads(pickle.dumps(candidates))
        assert travelled.rows(0, n).tobytes() == whole.tobytes()
        for first in range(n):
            for last in {first + 1, (first + n + 1) // 2, n}:
                if first < last:
                    assert candidates.rows(first, last).tobytes() == whole[first:last].tobytes()
        assert candidates.noise(0, n).shape == (n,)
        search.step()


@all_methods
@may_be_flat
@pytest.mark.parametrize("fun", [bowl, constant])
def test_a_run_is_a_function_of_its_key(case: Case, fun: Function) -> None:
    first, again, other = (Search(case, fun, seed=seed).run() for seed in (0, 0, 1))
    assert digest(first.state) == digest(again.state)
    assert first.rows.tobytes() == again.rows.tobytes()
    if "deterministic" not in case.traits:
        assert first.rows.tobytes() != other.rows.tobytes()
    elif fun is bowl:
        assert [rows.tobytes() for rows in first.asked[:6]] == [rows.tobytes() for rows in other.asked[:6]]


@all_methods
@may_be_flat
@pytest.mark.parametrize("fun", [bowl, constant])
def test_resumes_at_every_step(case: Case, fun: Function) -> None:
    undisturbed, resumed = Search(case, fun), Search(case, fun)
    for _ in range(STEPS):
        forget()
        resumed.state = copy_of(resumed.state)
        assert digest(resumed.state) == digest(undisturbed.state)
        undisturbed.step()
        forget()
        resumed.step()
        assert resumed.asked[-1].tobytes() == undisturbed.asked[-1].tobytes()
    assert digest(resumed.state) == digest(undisturbed.state)
    assert resumed.x.tobytes() == undisturbed.x.tobytes()
    assert resumed.method.finished(copy_of(resumed.state)) == undisturbed.method.finished(undisturbed.state)


@all_methods
def test_runs_do_not_disturb_each_other(case: Case) -> None:
    alone = Search(case).run()
    ours, theirs = Search(case), Search(case, seed=1)
    for _ in range(STEPS):
        theirs.step()
        ours.step()
    assert digest(ours.state) == digest(alone.state)


@all_methods
def test_failed_evaluations_leave_it_finite(case: Case) -> None:
    search = Search(case)
    for step in range(2 * STEPS):
        values = values_of(bowl, search.method.ask(search.state))
        if len(values) > 1 or step % 2:  # one that goes point by point must be left some
            values[step % len(values)] = (np.nan, np.inf, -np.inf)[step % 3]
        search.step(values)
        assert np.isfinite(search.x).all()
        assert_diagnostics(search)
    assert np.isfinite(search.rows).all()
    assert bowl(search.x) < bowl(START), "failures keep it from making progress"


@all_methods
@pytest.mark.parametrize("when", [0, 3])
def test_a_step_that_fails_altogether(case: Case, when: int) -> None:
    search = Search(case).run(when)
    before = search.x
    for _ in range(3):
        search.step(np.full(len(search.method.ask(search.state)), np.nan))
        assert search.x.tobytes() == before.tobytes(), "nothing was learnt, so nothing new may be recommended"
    search.run(2 * STEPS)
    assert np.isfinite(search.rows).all()
    assert bowl(search.x) < bowl(before)


@all_methods
def test_nothing_but_failures(case: Case) -> None:
    search = Search(case)
    for _ in range(60):
        search.step(np.full(len(search.method.ask(search.state)), np.nan))
    assert np.isfinite(search.rows).all()
    assert (search.x == START).all()


@all_methods
@may_be_flat
def test_constant_objective(case: Case) -> None:
    search = Search(case, constant).run(3 * STEPS)
    assert np.isfinite(search.rows).all()
    assert np.isfinite(search.x).all()
    assert_diagnostics(search)


@all_methods
@may_be_flat
@pytest.mark.parametrize("magnitude", [1e-200, 1e200, 1e306])
def test_values_of_any_size(case: Case, magnitude: float) -> None:
    search = Search(case, lambda x: magnitude * bowl(x)).run()
    assert np.isfinite(search.rows).all()
    assert np.isfinite(search.x).all()


def assert_diagnostics(search: Search) -> None:
    for name, value in search.method.diagnostics(search.state).items():
        assert isinstance(name, str)
        assert name not in OWN_METRICS
        assert np.asarray(value).dtype.kind in "fiub", name


BOXES = {
    "finite": Bounds(np.full(DIM, -2.0), np.full(DIM, 2.5)),
    "half-infinite": Bounds(np.array([0.5, -np.inf, 0.0, -np.inf]), np.array([np.inf, 0.0, np.inf, np.inf])),
    "optimum outside": Bounds(np.array([-1.0, -2.0, 1.5, 0.0]), np.array([0.875, 0.5, 2.0, 0.5])),
    "start in a corner": Bounds(START, START + 1),
    "narrow": Bounds(START - 1e-3, START + 1e-3),
    "fixed coordinate": Bounds(np.array([-3.0, -1.5, -3.0, -3.0]), np.array([3.0, -1.5, 3.0, 3.0])),
}


@having("manifold")
@pytest.mark.parametrize("box", BOXES)
def test_refuses_bounds(case: Case, box: str) -> None:
    with pytest.raises(ValueError, match="`bounds` must be None"):
        Search(case, bounds=BOXES[box])


@lacking("manifold")
@pytest.mark.parametrize("box", BOXES)
def test_stays_inside_bounds(case: Case, box: str) -> None:
    bounds = BOXES[box]
    search = Search(case, bounds=bounds)
    for _ in range(2 * STEPS):
        search.step()
        assert ((search.asked[-1] >= bounds.lower) & (search.asked[-1] <= bounds.upper)).all()
        assert ((search.x >= bounds.lower) & (search.x <= bounds.upper)).all()


@lacking("manifold")
def test_stays_inside_bounds_in_short_floats(case: Case) -> None:
    # None of these walls is a float32.
    bounds = Bounds(np.array([0.1, -1.7, 0.3, 0.1]), np.array([0.9, -1.3, 2.1, 0.7]))
    search = Search(case, x0=START.astype(np.float32), bounds=bounds).run()
    for rows in (search.rows.astype(np.float64), search.x.astype(np.float64)):
        assert ((rows >= bounds.lower) & (rows <= bounds.upper)).all()


@all_methods
def test_one_variable(case: Case) -> None:
    search = Search(case, x0=START[:1], seed=3).run(3 * STEPS)
    assert search.rows.shape[1] == 1
    if "manifold" in case.traits:
        assert search.x == START[:1]
    else:
        assert bowl(search.x) < bowl(START[:1])


@all_methods
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("kind", "device"),
    [("numpy", "cpu"), ("torch", "cpu"), pytest.param("torch", "cuda:0", marks=pytest.mark.gpu)],
)
def test_arrays_are_like_the_start(case: Case, kind: str, dtype: str, device: str) -> None:
    like = Like(kind, dtype, device)
    search = Search(case, x0=like.asarray(START))
    for _ in range(STEPS):
        candidates = search.method.ask(search.state)
        assert Like.of(candidates.rows(0, len(candidates))) == like
        search.step()
        assert Like.of(search.method.recommend(search.state)) == like
    assert np.isfinite(search.rows).all()
    assert bowl(search.x) < bowl(START)
    assert digest(copy_of(search.state)) == digest(search.state)


@all_methods
def test_global_generators_stay_untouched(case: Case) -> None:
    before = global_generators()
    Search(case).run()
    assert global_generators() == before


@having("translation")
def test_translation(case: Case) -> None:
    # The shift is so coarse that adding it rounds little; what is left grows with the steps.
    shift = np.array([8.0, -4.0, 2.0, -16.0])
    here = Search(case).run(8)
    there = Search(case, lambda x: bowl(x - shift), START + shift).run(8)
    np.testing.assert_allclose(there.rows - shift, here.rows, rtol=0, atol=1e-6)


@having("scaling")
def test_scaling(case: Case) -> None:
    plain = Search(case).run(8)
    scaled = Search(case, lambda x: 3.7 * bowl(x) + 11).run(8)
    np.testing.assert_allclose(scaled.rows, plain.rows, rtol=0, atol=1e-6)
    for exact in (Search(case, lambda x: 2.0**20 * bowl(x)), Search(case, lambda x: 2.0**-20 * bowl(x))):
        assert exact.run(8).rows.tobytes() == plain.rows.tobytes()


@having("monotone")
@pytest.mark.parametrize("transform", [np.sqrt, np.log1p, lambda f: f**3 - 1e3], ids=["sqrt", "log", "cube"])
def test_monotone_transform(case: Case, transform: Any) -> None:
    plain = Search(case).run()
    bent = Search(case, lambda x: float(transform(bowl(x)))).run()
    assert bent.rows.tobytes() == plain.rows.tobytes()
    assert bent.x.tobytes() == plain.x.tobytes()


FOLLOW_SCALE = ("cma", "bipop-cma", "ipop-cma", "sep-cma", "pycma", "random")


@all_methods
def test_first_candidates_spread_as_far_as_scale_says(case: Case) -> None:
    near, far = (np.abs(Search(case, scale=scale).run(1).rows - START).max() for scale in (1e-3, 1e3))
    assert near < 0.1
    assert far > 1e3 * near or case.method not in FOLLOW_SCALE


@all_methods
def test_finished_says_why(case: Case) -> None:
    search = Search(case)
    assert search.method.finished(search.state) is None
    for _ in range(5):
        search.step()
        reason = search.method.finished(search.state)
        assert reason is None or (isinstance(reason, str) and reason)


# One objective for all executors: a lambda, which no worker can import.
shared: Function = lambda x: float(((x - 1) ** 2).sum() + 0.5 * (x - 1).sum() ** 2)  # noqa: E731 - a lambda is the point


def shuffled(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """A map whose calls are made in another order than their results are returned in."""
    given = list(items)
    done = {index: function(given[index]) for index in np.random.default_rng(0).permutation(len(given))}
    return [done[index] for index in range(len(given))]


def unordered(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """A map that returns results in another order than the items', which a pool might do by mistake."""
    given = list(items)
    return [function(given[index]) for index in np.random.default_rng(1).permutation(len(given))]


EXECUTORS: dict[str, Callable[[], Executor]] = {
    "shuffled": lambda: Mapped(shuffled),
    "unordered": lambda: Mapped(unordered),
    "processes-1": lambda: Processes(1),
    "processes-2": lambda: Processes(2),
    "processes-3": lambda: Processes(3),
}


@pytest.fixture(scope="module", params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Every executor, opened once for all methods."""
    from zoo.core.objective import as_objective

    opened = EXECUTORS[request.param]()
    with opened.open(as_objective(shared)):
        yield opened


def executed(case: Case, executor: Executor) -> str:
    method, key = case.build(), Key(0)
    state = method.init(START, key=key.fold("search"))
    values = []
    for step in range(6):
        evaluations = executor.evaluate(method.ask(state), key.fold("evaluation"), step)
        values.append(evaluations.values)
        state = method.tell(state, evaluations)
    return digest((state, *values))


@all_methods
def test_same_bytes_under_every_executor(case: Case, executor: Executor) -> None:
    from zoo.core.objective import as_objective

    serial = Serial()
    with serial.open(as_objective(shared)):
        expected = executed(case, serial)
    assert executed(case, executor) == expected
