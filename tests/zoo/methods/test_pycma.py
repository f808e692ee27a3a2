"""The `cma` package behind our contract: purity, replay, failures, bounds, and whose search it is."""

import math
import os

import numpy as np
import pytest
import torch

from zoo.core.bounds import Bounds
from zoo.core.rng import Key
from zoo.core.state import digest, freeze, thaw
from zoo.core.types import Evaluations
from zoo.methods import pycma
from zoo.methods.pycma import PyCMA
from zoo.problems import sphere


@pytest.fixture(autouse=True)
def _no_cache():
    pycma.clear_cache()


def evaluate(method, state, function=sphere):
    candidates = method.ask(state)
    return method.tell(state, Evaluations(np.asarray(function(candidates.rows(0, len(candidates))))))


def test_it_is_the_search_of_the_package():
    import cma

    key, place = Key(0), {"name": "", "draws": 0}

    def randn(rows, dim):
        place["draws"] += 1
        return key.fold("pycma", place["name"], place["draws"]).normal(0, rows, dim)

    method = PyCMA(sigma=0.5)
    state = method.init(np.ones(4), key=key)
    es = cma.CMAEvolutionStrategy(np.ones(4), 0.5, {"verbose": -10, "seed": np.nan, "randn": randn})
    for step in range(40):
        place.update(name=f"ask {step}", draws=0)
        points = es.ask()
        np.testing.assert_allclose(method.ask(state).array, points, rtol=1e-9)
        es.tell(points, [sphere(x) for x in points])
        state = evaluate(method, state)
    assert sphere(method.recommend(state)) < 1e-3


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("bounded", [False, True])
def test_every_state_survives_a_checkpoint(dim, bounded):
    method = PyCMA()
    box = Bounds(np.zeros(dim), np.ones(dim)) if bounded else None
    state = method.init(np.full(dim, 0.25), key=Key(1), bounds=box, scale=0.2)
    for step in range(8):
        asked = method.ask(state)
        assert method.ask(state).array.tobytes() == asked.array.tobytes()
        values = sphere(asked.array)
        if step == 3:
            values[1:] = np.nan
        if step == 4:
            values[:] = np.nan
        before = digest(state)
        told = method.tell(state, Evaluations(values))
        assert digest(state) == before
        revived = thaw(*freeze(state))
        if step % 2:
            pycma.clear_cache()
        assert method.ask(revived).array.tobytes() == asked.array.tobytes()
        assert digest(method.tell(revived, Evaluations(values))) == digest(told)
        state = told
    assert np.isfinite(method.recommend(state)).all()


def test_telling_one_state_twice():
    method = PyCMA()
    state = evaluate(method, method.init(np.ones(3), key=Key(0)))
    values = sphere(method.ask(state).array)
    first = method.tell(state, Evaluations(values))
    second = method.tell(state, Evaluations(-values))
    assert first.mean.tobytes() != second.mean.tobytes()
    assert digest(method.tell(state, Evaluations(values))) == digest(first)
    third = evaluate(method, first)
    assert digest(evaluate(method, thaw(*freeze(first)))) == digest(third)


def test_two_runs_at_once_do_not_mix():
    method = PyCMA()
    alone = [method.init(np.ones(3), key=Key(seed)) for seed in range(6)]
    for _ in range(4):
        alone = [evaluate(method, state) for state in alone]
    for seed, state in enumerate(alone):
        pycma.clear_cache()
        again = method.init(np.ones(3), key=Key(seed))
        for _ in range(4):
            again = evaluate(method, again)
        assert digest(again) == digest(state)
    assert len(pycma._live) <= 4


def test_options_belong_to_the_history():
    plain, other = (PyCMA(options=o).init(np.ones(3), key=Key(0)) for o in ({}, {"CMA_active": False}))
    assert plain.history != other.history


def test_it_leaves_no_trace(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = np.random.get_state()
    method = PyCMA()
    state = method.init(np.ones(2), key=Key(0))
    for _ in range(5):
        state = evaluate(method, state)
    after = np.random.get_state()
    assert (before[1] == after[1]).all()
    assert before[2:] == after[2:]
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_failed_evaluations_rank_last():
    """As the largest value of all does, and not as the package's own median."""
    method = PyCMA()
    state = method.init(np.ones(3), key=Key(0))
    values = sphere(method.ask(state).array)
    worst = int(values.argmax())
    failed = values.copy()
    failed[worst] = np.nan
    told = method.tell(state, Evaluations(values))
    assert method.tell(state, Evaluations(failed)).mean.tobytes() == told.mean.tobytes()
    huge = np.where(np.isnan(failed), failed, 1e308)
    assert np.isfinite(method.tell(state, Evaluations(huge)).mean).all()


def test_steps_without_any_value():
    method = PyCMA()
    state = evaluate(method, method.init(np.ones(3), key=Key(0)))
    asked = []
    for _ in range(3):
        asked.append(method.ask(state).array.tobytes())
        state = evaluate(method, state, lambda x: np.full(len(x), np.nan))
    assert len(set(asked)) == 3
    state = evaluate(method, state)
    assert np.isfinite(method.recommend(state)).all()


def test_finishes_with_the_names_of_the_package():
    method = PyCMA()
    state = method.init(np.ones(2), key=Key(0))
    for _ in range(200):
        state = evaluate(method, state)
        if method.finished(state):
            break
    assert "tolfun" in method.finished(state)
    flat = method.init(np.ones(2), key=Key(0))
    for _ in range(100):
        flat = evaluate(method, flat, lambda x: np.zeros(len(x)))
        if method.finished(flat):
            break
    assert method.finished(flat)


def test_bounds_hold_and_the_minimum_on_them_is_found():
    box = Bounds(np.array([0.5, -1.0, 2.0, -np.inf]), np.array([3.0, np.inf, 2.0, 0.0]))
    method = PyCMA()
    state = method.init(np.array([0.5, 1.0, 2.0, -1.0]), key=Key(2), bounds=box)
    for _ in range(80):
        assert box.contains(method.ask(state).array)
        state = evaluate(method, state)
    np.testing.assert_allclose(method.recommend(state), [0.5, 0.0, 2.0, 0.0], atol=1e-2)


def test_recommendation_belongs_to_the_caller():
    state = PyCMA().init(np.ones(3), key=Key(0))
    PyCMA().recommend(state)[:] = 7
    assert (PyCMA().recommend(state) == 1).all()


def test_kind_of_array_follows_the_start():
    box = Bounds(np.zeros(3), np.full(3, 0.1))
    for start in (np.full(3, 0.1, np.float32), torch.full((3,), 0.1)):
        method = PyCMA()
        state = method.init(start, key=Key(0), bounds=box, scale=0.05)
        for _ in range(3):
            x = method.ask(state).rows(0, 7)
            assert type(x) is type(start)
            assert x.dtype == start.dtype
            assert box.contains(x)
            state = evaluate(method, state, lambda x: sphere(x - 1))
        assert type(method.recommend(state)) is type(start)
        assert box.contains(method.recommend(state))


def test_scale_and_sigma_set_the_first_deviations():
    method = PyCMA(sigma=2.0, population_size=400)
    x = method.ask(method.init(np.zeros(2), key=Key(0), scale=np.array([1.0, 10.0]))).array
    np.testing.assert_allclose(x.std(0), [2.0, 20.0], rtol=0.2)


def test_last_step_is_cut_to_the_budget():
    method = PyCMA()
    state = method.init(np.ones(5), key=Key(0), budget=19)
    sizes = []
    while not method.finished(state):
        sizes.append(len(method.ask(state)))
        state = evaluate(method, state)
    assert sizes == [8, 8, 3]
    with pytest.raises(ValueError, match="0 values asked for, got 1"):
        method.tell(state, Evaluations(np.zeros(1)))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"population_size": 1}, ValueError, "at least 2"),
        ({"sigma": -1.0}, ValueError, "above 0"),
        ({"sigma": math.inf}, ValueError, "finite"),
        ({"options": {"CMA_activ": True}}, TypeError, "Did you mean 'CMA_active'"),
        ({"options": {"seed": 3}}, ValueError, "'seed': it is set by this method itself"),
        ({"options": ["seed"]}, TypeError, "must be a dictionary"),
    ],
)
def test_bad_hyperparameters(arguments, error, text):
    with pytest.raises(error, match=text):
        PyCMA(**arguments)


def test_bad_start_and_scale():
    with pytest.raises(ValueError, match="`x0` must have shape"):
        PyCMA().init(np.ones((2, 2)), key=Key(0))
    with pytest.raises(ValueError, match="`scale` must be finite and above 0"):
        PyCMA().init(np.ones(2), key=Key(0), scale=0)
