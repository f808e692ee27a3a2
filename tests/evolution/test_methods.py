"""What every method for policies keeps to, and the table that they are found in."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evolution import Generation, evolve, resume
from evolution.genome import Codec
from evolution.members import Members
from evolution.methods import TRAITS, find, list_methods
from evolution.policies.policy import Piece
from tests.conftest import global_generators
from zoo import registry
from zoo.core.rng import Key, NoiseTable
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations
from zoo.run.watching import OWN_METRICS

DIM, STEPS = 4, 14
CODEC = Codec(NoiseTable(1, 20_000), (Piece("w", (3,), 1.0), Piece("b", (1,), 0.5)))
START = np.array([0.75, -1.5, 2.0, 0.25], np.float32)
GA = {"population_size": 12, "num_parents": 4, "sigma": 0.2}
ES = {"population_size": 8, "agents": 3, "neighbours": 3, "sigma": 0.2, "learning_rate": 0.2}

CASES: dict[str, dict[str, Any]] = {
    "deep-ga": {**GA, "elite_candidates": 3, "elite_episodes": 5},
    "random": {"population_size": 12, "elite_candidates": 3, "elite_episodes": 5},
    "novelty-ga": {**GA, "elite_candidates": 2, "elite_episodes": 3, "archive_probability": 0.3},
    "ns-es": ES,
    "nsr-es": {**ES, "turns": "in turn", "noise_table": 1000},
    "nsra-es": {**ES, "patience": 2, "update": "sgd"},
    "openai-es": {"population_size": 8, "sigma": 0.2, "learning_rate": 0.2, "validation_every": 3},
    "cma": {"validation_every": 2},
    "sep-cma": {"validation_every": 4},
    "snes": {"validation_every": 5, "validation_episodes": 3},
    "pgpe": {"validation_every": 1},
    "lm-ma-es": {"validation_every": 2},
    "de": {"validation_every": 1, "validation_episodes": 2},
    "spsa": {"validation_every": 3, "validation_episodes": 6},
}
DEAR = ("ch", "gp", "pycma")  # seconds for a first step, which the zoo's own tests take

all_methods = pytest.mark.parametrize("name", CASES)
may_be_flat = pytest.mark.filterwarnings("ignore:the objective did not change:zoo.core.errors.ZooWarning")


def built(name: str, **options: Any) -> Any:
    method = find(name)
    codec = {"codec": CODEC} if "genomes" in method.traits else {}
    return method.build({**CASES.get(name, {}), **codec, **options})


def bowl(rows: Any) -> Any:
    return (np.asarray(rows, np.float64) ** 2).sum(1)


def told(method: Any, state: Any, values: Any = None) -> Any:
    """Return the state after some values, of the bowl by default; behaviours are two of the parameters."""
    rows = method.ask(state).rows(0, len(method.ask(state)))
    values = bowl(rows) if values is None else values
    return method.tell(state, Evaluations(values, extras={"behaviour": rows[:, :2]}))


def started(method: Any, seed: int = 0, x0: Any = START) -> Any:
    return method.init(x0, key=Key(seed))


def after(name: str, steps: int, seed: int = 0) -> tuple[Any, Any]:
    method = built(name)
    state = started(method, seed)
    for _ in range(steps):
        state = told(method, state)
    return method, state


def copy_of(state: Any) -> Any:
    """Return a state that went through a file."""
    tree, arrays = freeze(state)
    return thaw(json.loads(json.dumps(tree)), {name: array.copy() for name, array in arrays.items()})


def forget() -> None:
    """Empty every cache that a module of the library keeps beside the states."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("zoo.", "evolution.")):
            getattr(module, "clear_cache", lambda: None)()


@all_methods
def test_asking_is_idempotent_and_rows_are_the_same_in_any_slice(name: str) -> None:
    method = built(name)
    state = started(method)
    phases = set()
    for _ in range(STEPS):
        before = digest(state)
        members = method.ask(state)
        assert isinstance(members, Members)
        phases.add(members.episodes)
        count = len(members)
        rows = members.rows(0, count)
        assert (rows.dtype, rows.shape, members.dim) == (np.float32, (count, DIM), DIM)
        kept = rows.tobytes()
        rows += 1  # the caller's own
        again = method.ask(copy_of(state))
        travelled = pickle.loads(pickle.dumps(members))
        for one in (members, again, travelled):
            assert one.rows(0, count).tobytes() == kept
            assert one.episodes == members.episodes
            parts = [one.rows(row, row + 1) for row in range(count)]
            assert np.concatenate(parts).tobytes() == kept
            assert np.concatenate([one.rows(0, count // 2), one.rows(count // 2, count)]).tobytes() == kept
        assert members.noise(0, count).shape == (count,)
        assert digest(state) == before
        state = told(method, state)
    assert len(phases) == (1 if name in ("snes", "de") and STEPS < 11 else 2), (
        "members, and those tried again"
    )


@all_methods
def test_telling_is_pure_and_states_survive_being_written(name: str) -> None:
    method = built(name)
    state = resumed = started(method)
    differ = 0
    for _ in range(STEPS):
        before = digest(state)
        values = bowl(method.ask(state).rows(0, len(method.ask(state))))
        values[np.argmin(values)] = np.nan
        first, other = told(method, state), told(method, state, values)
        assert digest(told(method, state)) == digest(first)
        differ += digest(first) != digest(other)
        assert digest(state) == before
        method.recommend(first), method.finished(first), method.diagnostics(first), method.best(first)
        forget()
        resumed = told(method, copy_of(resumed))
        assert digest(resumed) == digest(first)
        state = first
    assert differ > STEPS // 3
    assert method.recommend(resumed).tobytes() == method.recommend(state).tobytes()


@all_methods
def test_a_run_is_a_function_of_its_key_and_disturbs_nobody(name: str) -> None:
    before = global_generators()
    first, again, other = (digest(after(name, 6, seed)[1]) for seed in (0, 0, 1))
    assert first == again != other
    assert global_generators() == before


@all_methods
def test_another_number_of_values_is_refused(name: str) -> None:
    method, state = after(name, 0)
    for _ in range(STEPS):
        count = len(method.ask(state)) + 1
        with pytest.raises(ValueError, match=r"`evaluations` must (hold the|have) \d+ values?"):
            method.tell(state, Evaluations(np.zeros(count), extras={"behaviour": np.zeros((count, 2))}))
        state = told(method, state)


@all_methods
def test_failed_members_leave_it_finite(name: str) -> None:
    method = built(name)
    state = started(method)
    for step in range(2 * STEPS):
        members = method.ask(state)
        values = bowl(members.rows(0, len(members)))
        if len(values) > 1 or step % 2:
            values[step % len(values)] = (np.nan, np.inf, -np.inf)[step % 3]
        state = told(method, state, values)
        assert np.isfinite(method.recommend(state)).all()
        number, value = method.best(state)
        assert (number >= 0) == np.isfinite(value)
        for key, entry in method.diagnostics(state).items():
            assert key not in OWN_METRICS
            assert np.asarray(entry).dtype.kind in "fiub", key


@all_methods
@pytest.mark.parametrize("extras", ["with extras", "without"])
def test_a_step_that_fails_altogether_teaches_nothing(name: str, extras: str) -> None:
    method, state = after(name, STEPS)
    before, best = method.recommend(state), method.best(state)
    for _ in range(4):
        count = len(method.ask(state))
        found = {"behaviour": np.full((count, 2), np.nan)} if extras == "with extras" else {}
        state = method.tell(state, Evaluations(np.full(count, np.nan), extras=found))
    assert method.recommend(state).tobytes() == before.tobytes()
    assert method.best(state) == best
    for _ in range(STEPS):
        state = told(method, state)
    assert np.isfinite(method.recommend(state)).all()


@all_methods
def test_nothing_but_failures(name: str) -> None:
    method, state = after(name, 0)
    for _ in range(STEPS):
        state = method.tell(state, Evaluations(np.full(len(method.ask(state)), np.nan)))
    assert np.isfinite(method.recommend(state)).all()
    assert method.best(state) == (-1, np.inf)


@all_methods
@may_be_flat
def test_equal_values_are_told_apart_by_lot(name: str) -> None:
    """And by nothing else: a run goes by its key alone."""
    runs = []
    for seed in (0, 0, 1):
        method = built(name)
        state = started(method, seed)
        for _ in range(STEPS):
            state = told(method, state, np.full(len(method.ask(state)), 3.0))
        assert np.isfinite(method.recommend(state)).all()
        assert method.best(state)[1] == 3.0
        runs.append(digest(state))
    assert runs[0] == runs[1] != runs[2]


@all_methods
def test_values_go_down(name: str) -> None:
    """By the rules of each: what looks for novelty alone keeps the best that it came by."""
    method = built(name)
    state, values = started(method), []
    for _ in range(60):
        state = told(method, state)
        values.append(method.best(state)[1])
    assert values[-1] < bowl(START[None])[0] / 3
    assert bowl(method.recommend(state)[None])[0] == pytest.approx(values[-1])


@all_methods
def test_the_start_is_left_alone(name: str) -> None:
    x0 = START.copy()
    method = built(name)
    state = started(method, x0=x0)
    before = digest(state)
    assert x0.tobytes() == START.tobytes()
    x0 += 1
    assert digest(state) == before


@all_methods
def test_what_is_recommended_is_the_callers_own(name: str) -> None:
    for steps in (0, STEPS):
        method, state = after(name, steps)
        before = digest(state)
        row = method.recommend(state)
        row += 1
        assert digest(state) == before
        assert not np.array_equal(method.recommend(state), row)


@all_methods
@may_be_flat
def test_it_runs_on_the_maze_and_goes_on_after_a_stop(name: str, tmp_path: Path) -> None:
    def stop(told: Generation) -> None:
        if told.step == 3:
            raise StopIteration

    given: dict[str, Any] = {
        "options": CASES[name],
        "max_steps": 10,
        "budget": 250,
        "test_episodes": 1,
        "rng": 3,
    }
    whole = evolve("maze", name, **given)
    assert 150 <= whole.episodes <= 250
    assert np.isfinite([whole.score, whole.best]).all()
    part = evolve("maze", name, **given, out=tmp_path / "run", callback=stop)
    assert part.episodes < whole.episodes
    forget()
    assert digest(resume(tmp_path / "run").state) == digest(whole.state)


@pytest.mark.parametrize("name", list_methods())
def test_every_name_is_a_method_for_policies(name: str) -> None:
    method = find(name)
    assert method.summary
    assert set(method.traits) <= set(TRAITS)
    assert "codec" not in method.options()
    with pytest.raises(TypeError, match=f"unknown option of method {name!r}: 'no_such_thing'"):
        method.build({"no_such_thing": 1})
    made = built(name)
    state = started(made)
    for _ in range(0 if name in DEAR else 3):
        state = told(made, state)
    assert made.recommend(state).shape == (DIM,)
    assert made.recommends_evaluated


def test_all_methods_of_the_zoo_are_there() -> None:
    assert set(registry.list_methods()) < set(list_methods())
    own = [name for name, method in list_methods().items() if not method.is_validated]
    assert own == ["deep-ga", "random", "novelty-ga", "ns-es", "nsr-es", "nsra-es"]
    assert "dense" in find("cma").traits
    assert "dense" not in find("openai-es").traits


def test_defaults_are_those_of_the_papers() -> None:
    assert find("openai-es").options() == {
        **registry.find("openai-es").options(),
        "population_size": 256,
        "sigma": 0.02,
        "learning_rate": 0.01,
        "weight_decay": 0.005,
        "validation_every": 10,
        "validation_episodes": 30,
    }
    assert find("openai-es").build().method.sigma == 0.02  # type: ignore[attr-defined]
    options = find("nsra-es").options()
    paper = {"neighbours": 10, "agents": 5, "sigma": 0.02, "learning_rate": 0.01, "weight_decay": 0.005}
    assert {name: options[name] for name in paper} == paper
    assert [options[name] for name in ("weight", "weight_step", "patience")] == [1.0, 0.05, 50]
    options = find("novelty-ga").options()
    assert [options[name] for name in ("neighbours", "archive_probability", "sigma")] == [25, 0.01, 0.005]


def test_random_policies_have_the_options_that_they_use() -> None:
    assert find("random").options() == {"population_size": 1000, "elite_candidates": 10, "elite_episodes": 30}
    assert evolve("cart-pole", "random", options={"population_size": 3}, generations=1, rng=0).best > 0
    with pytest.raises(
        ValueError, match="`start` must be None for the method 'random', which mutates nobody"
    ):
        evolve("cart-pole", "random", start=np.zeros(226), generations=1)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"unknown method 'deepga'. Did you mean 'deep-ga'\? Valid: 'deep-ga', "
    ):
        find("deepga")
    with pytest.raises(TypeError, match="unknown option of method 'cma': 'codec'"):
        find("cma").build({"codec": CODEC})
