"""`zoo.minimize` as a user meets it: what it takes, what it refuses, and how it says so."""

from __future__ import annotations

import multiprocessing.pool

import numpy as np
import pytest
import scipy.optimize

import zoo
from zoo.problems import rosenbrock, sphere


def minimize(fun=sphere, x0=(1.0, 2.0, 3.0), **more):
    return zoo.minimize(fun, x0, **{"method": "cma", "budget": 100, "rng": 0, **more})


def test_the_first_example_of_the_readme():
    r = zoo.minimize(lambda x: float(((x - 1) ** 2).sum()), np.zeros(10), method="cma", budget=4000, rng=0)
    assert r.fun < 1e-9
    assert r.nfev <= 4000
    assert r.success


def test_two_workers_give_the_same_bytes():
    a = zoo.minimize("zoo.problems:rosenbrock", np.zeros(6), method="cma", budget=600, rng=1)
    b = zoo.minimize("zoo.problems:rosenbrock", np.zeros(6), method="cma", budget=600, rng=1, workers=2)
    assert a.x.tobytes() == b.x.tobytes()
    assert a.nfev == b.nfev == 600


def test_a_map_like_callable_gives_the_same_bytes():
    with multiprocessing.pool.ThreadPool(2) as pool:
        mapped = minimize(rosenbrock, workers=pool.map)
    assert mapped.x.tobytes() == minimize(rosenbrock).x.tobytes()
    assert minimize(rosenbrock, workers=map).x.tobytes() == mapped.x.tobytes()


def test_scipy_takes_our_methods():
    result = scipy.optimize.minimize(
        lambda x: (x**2).sum(), np.ones(5), method=zoo.scipy_method("cma"), options={"budget": 2000, "rng": 1}
    )
    assert result.fun < 1e-9
    assert result.nfev <= 2000
    bounded = scipy.optimize.minimize(
        lambda x, shift: ((x - shift) ** 2).sum(),
        np.full(3, 0.5),
        args=(2.0,),
        method=zoo.scipy_method("cma"),
        bounds=scipy.optimize.Bounds(0, 1),
        options={"budget": 600, "rng": 1, "population_size": 12},
    )
    assert bounded.x == pytest.approx(np.ones(3), abs=1e-6)
    short = scipy.optimize.minimize(
        sphere, np.ones(3), method=zoo.scipy_method("cma"), tol=1e-3, options={"maxfev": 3000, "rng": 1}
    )
    assert short.nfev < 400
    assert "tolfun" in short.message
    for method in ("nelder-mead", "powell", "l-bfgs-b", "bfgs", "cobyqa"):
        rough, fine = (
            scipy.optimize.minimize(rosenbrock, np.zeros(3), method=zoo.scipy_method(method), tol=tol)
            for tol in (1e-1, 1e-8)
        )
        assert rough.nfev < fine.nfev, method
    with pytest.raises(TypeError, match="unknown option of method 'random': 'tol'"):
        scipy.optimize.minimize(sphere, np.ones(3), method=zoo.scipy_method("random"), tol=1e-3)
    with pytest.raises(ValueError, match="constraints"):
        scipy.optimize.minimize(
            sphere, np.ones(2), method=zoo.scipy_method("cma"), constraints=[{"type": "eq"}]
        )


@pytest.mark.parametrize(
    "bounds",
    [
        [(0, 1)] * 3,
        [(0, None), (None, 4), (-1, np.inf)],
        scipy.optimize.Bounds([0, 0, 0], [4, 4, 4]),
        np.array([[0.0, 4.0]] * 3),
    ],
)
@pytest.mark.parametrize("method", ["cma", "sep-cma", "zo-adam", "random", "pycma"])
def test_nothing_outside_the_bounds_is_ever_evaluated(bounds, method):
    seen = []

    def fun(x):
        seen.append(x.copy())
        return float(((x + 3) ** 2).sum())

    minimize(fun, np.full(3, 0.5), bounds=bounds, method=method)
    low = [b[0] for b in bounds] if not isinstance(bounds, scipy.optimize.Bounds) else bounds.lb
    high = [b[1] for b in bounds] if not isinstance(bounds, scipy.optimize.Bounds) else bounds.ub
    for index in range(3):
        column = np.array(seen)[:, index]
        assert low[index] is None or (column >= low[index]).all()
        assert high[index] is None or (column <= high[index]).all()


def test_without_x0_it_starts_in_the_middle():
    first = []
    zoo.minimize(lambda x: first.append(x) or 0.0, bounds=[(0, 2), (4, 8)], budget=1, rng=0, method="cma")
    assert first[0].tolist() == [1.0, 6.0]


def test_args_reach_the_function():
    result = minimize(lambda x, a, b: float(((x - a) ** 2).sum() + b), args=(2.0, 7.0), budget=800)
    assert result.fun == pytest.approx(7.0, abs=1e-6)


def test_vectorized_and_scalar_agree():
    one = minimize(lambda x: float((x**2).sum()))
    many = minimize(lambda x: (x**2).sum(1), vectorized=True)
    assert one.x.tobytes() == many.x.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_points_are_of_the_kind_of_x0(dtype):
    torch = pytest.importorskip("torch")
    x0 = torch.ones(3, dtype=getattr(torch, dtype))

    def fun(x):
        assert x.dtype == x0.dtype
        assert x.shape == (3,)
        return (x**2).sum()

    assert minimize(fun, x0).x.dtype == x0.dtype
    array = np.ones(3, dtype)

    def on_numpy(x):
        assert x.dtype == array.dtype
        return float((x**2).sum())

    assert minimize(on_numpy, array).x.dtype == array.dtype


def test_an_integer_start_becomes_floating_point():
    assert minimize(x0=[1, 2, 3]).x.dtype == np.float64


def test_the_budget_is_never_exceeded_and_used_to_the_full():
    for budget in (1, 2, 5, 17, 30):
        calls = []
        result = minimize(lambda x, calls=calls: calls.append(1) or float(sphere(x)), budget=budget)
        assert len(calls) == result.nfev <= budget


@pytest.mark.parametrize("rng", [3, np.int64(3), zoo.Key(3)])
def test_seeds_of_every_kind(rng):
    assert minimize(rng=rng).x.tobytes() == minimize(rng=3).x.tobytes()


def test_a_generator_is_moved_on_and_no_seed_is_a_fresh_one():
    generator = np.random.default_rng(1)
    first, second = minimize(rng=generator), minimize(rng=generator)
    assert first.x.tobytes() != second.x.tobytes()
    assert minimize(rng=np.random.default_rng(1)).x.tobytes() == first.x.tobytes()
    assert minimize(rng=None).x.tobytes() != minimize(rng=None).x.tobytes()


def test_callbacks_of_both_forms():
    points, results = [], []
    minimize(callback=lambda xk: points.append(xk))
    minimize(callback=lambda intermediate_result: results.append(intermediate_result))
    assert points[-1].tolist() == results[-1].x.tolist()
    assert [r.nit for r in results] == list(range(1, len(results) + 1))


@pytest.mark.parametrize(
    ("more", "error", "sentence"),
    [
        ({"x0": np.ones((2, 2))}, ValueError, r"`x0` must have shape \(dim,\)"),
        ({"x0": []}, ValueError, r"`x0` must have shape \(dim,\)"),
        ({"x0": [1.0, np.nan, 3.0]}, ValueError, r"`x0` must be finite, got x0\[1\] = nan"),
        ({"x0": [1.0, 2.0, -np.inf]}, ValueError, r"`x0` must be finite, got x0\[2\] = -inf"),
        ({"x0": [1j, 2, 3]}, TypeError, "`x0` must hold real numbers"),
        ({"x0": ["a", "b", "c"]}, TypeError, "`x0` must hold real numbers"),
        ({"x0": None}, ValueError, "`x0` must be given"),
        ({"bounds": [(0, 1)]}, ValueError, "`bounds` must have one pair for each of the 3"),
        ({"bounds": [(0, 5), (5, 0), (0, 5)]}, ValueError, r"lower <= upper, got lower\[1\] = 5"),
        ({"bounds": [(0, np.nan)] * 3}, ValueError, r"must not hold NaN, got upper\[0\]"),
        ({"bounds": [(0, 2)] * 3}, ValueError, "`x0` must lie inside `bounds`"),
        ({"bounds": 7}, ValueError, r"`bounds` must be a sequence of \(lower, upper\) pairs"),
        ({"method": "cam"}, ValueError, "unknown method 'cam'. Did you mean 'cma'"),
        ({"options": {"popsize": 9}}, TypeError, "unknown option of method 'cma': 'popsize'"),
        ({"options": {"population_size": 0}}, ValueError, "`population_size` must be"),
        ({"budget": 0}, ValueError, "`budget` must be at least 1, got 0"),
        ({"budget": -3}, ValueError, "`budget` must be at least 1, got -3"),
        ({"budget": 1.5}, TypeError, "`budget` must be an integer"),
        ({"seconds": 0}, ValueError, "`seconds` must be a finite number above 0"),
        ({"scale": -1}, ValueError, "`scale` must be finite and above 0"),
        ({"scale": [1, 2]}, ValueError, r"`scale` must be a number or have shape \(3,\)"),
        ({"workers": 0}, ValueError, "`workers` must be at least 1"),
        (
            {"workers": "ray"},
            TypeError,
            r"`workers` must be an integer, an executor such as .* zoo\.Ray\(8\), or",
        ),
        ({"workers": None}, TypeError, "or a map-like callable, got None"),
        ({"workers": True}, TypeError, "or a map-like callable, got True"),
        ({"on_error": "ignore"}, ValueError, "`on_error` must be one of 'raise', 'nan'"),
        ({"rng": -1}, ValueError, "`rng` must be at least 0"),
        ({"workers": zoo.Processes}, TypeError, r"is a class: call it, as in Processes\("),
        ({"workers": zoo.Serial}, TypeError, r"is a class: call it, as in Serial\("),
        ({"callback": 3}, TypeError, "`callback` must be a function"),
        ({"method": []}, TypeError, "`method` must be the name"),
        ({"options": [1]}, TypeError, "`options` must be a dictionary"),
        ({"noise": "no"}, TypeError, "`noise` must be True or False"),
        ({"vectorized": 1}, TypeError, "`vectorized` must be True or False"),
        ({"target": np.nan}, ValueError, "`target` must be finite"),
        ({"bounds": [("a", "b")] * 3}, TypeError, "`bounds` must hold real numbers and None"),
        ({"bounds": [(0j, 1)] * 3}, TypeError, "`bounds` must hold real numbers and None"),
        ({"bounds": [], "x0": None}, ValueError, "nowhere to start"),
        ({"scale": "wide"}, TypeError, "`scale` must be a number"),
        ({"x0": [[1.0], [1.0, 2.0]]}, ValueError, "`x0` must be one row of numbers"),
        ({"rng": 1.5}, TypeError, "`rng` must be an integer"),
        ({"target": "low"}, TypeError, "`target` must be a number"),
        ({"fun": 5}, TypeError, "`fun` must be a function"),
        ({"fun": "no_such_module:f"}, ValueError, "no module 'no_such_module'"),
        ({"fun": "just words"}, ValueError, '"module:name"'),
    ],
)
def test_bad_input_is_refused_before_anything_is_evaluated_or_written(more, error, sentence, tmp_path):
    with pytest.raises(error, match=sentence):
        minimize(**{"out": tmp_path / "run", **more})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "got None"),
        (1j, "real number"),
        (np.ones(3), r"an array of shape \(3,\).*vectorized=True"),
        (np.ones(1), r"an array of shape \(1,\)"),
        ("high", "must return a number"),
    ],
)
def test_a_bad_value_is_an_error_at_the_first_evaluation(value, sentence):
    calls = []
    with pytest.raises(zoo.EvaluationError, match=sentence):
        minimize(lambda x: calls.append(1) or value)
    assert len(calls) == 1


def test_what_cannot_be_sent_to_workers_is_refused():
    import threading

    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent to workers"):
        minimize(lambda x: float(sphere(x)) if lock else 0.0, workers=2)


def test_options_are_listed_with_their_defaults():
    options = zoo.list_methods()["cma"].options()
    assert options["population_size"] is None
    assert "sigma" in options
