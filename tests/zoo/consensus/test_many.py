"""Many swarms at once do what each does alone, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import zoo
from zoo.consensus import choices, many, noise
from zoo.core.device import to_numpy


def rastrigin(x: Any) -> Any:
    cos = torch.cos if isinstance(x, torch.Tensor) else np.cos
    return (x * x - 10 * cos(2 * np.pi * x) + 10).sum(1)


def failing(x: Any) -> Any:
    """Rastrigin's function where the first variable is above -.5, NaN elsewhere."""
    values = rastrigin(x)
    values[x[:, 0] < -0.5] = float("nan")
    return values


STARTS = {
    "numpy, float64": np.array([1.3, -0.7, 2.1]),
    "numpy, float32": np.array([1.3, -0.7, 2.1], np.float32),
    "torch, float64": torch.tensor([1.3, -0.7, 2.1], dtype=torch.float64),
    "torch, float32": torch.tensor([1.3, -0.7, 2.1]),
}
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("cbo", {}, {}),
    ("cbo", {"precision": "single"}, {"bounds": [(-3, 3)] * 3}),
    ("cbo", {"num_particles": 70}, {"budget": 333}),
    ("cbo", {"memory": "local", "explorers": 0.0, "alpha": 30.0, "sigma": 5.0}, {}),
    ("cbo", {"restart": 1e-3, "batch_size": 7, "batch_moves": "batch"}, {}),
    ("cbo", {"correction": "heaviside", "elitist": False}, {"budget": 301}),
    ("cbo", {"alpha_schedule": "effective-sample-size", "alpha": 1.0, "sigma": 4.0}, {}),
    ("cbo-textbook", {"num_particles": 100, "sigma": 4.0}, {"budget": 4000}),
    ("cbo-textbook", {"noise": "isotropic", "sigma": 1.0, "elitist": False}, {"fun": failing}),
    ("ch", {"num_particles": 30}, {"scale": 0.5}),
    ("ch", {"num_particles": 10, "decay": 0.2}, {"budget": 1000}),
    ("cbo-manifold", {}, {"budget": 5000}),
    ("cbo-manifold", {"noise": "anisotropic", "start": "uniform"}, {"fun": failing}),
    ("cbo-mirror", {}, {"bounds": [(-3, 3)] * 3}),
    ("cbo-mirror", {"mirror": "simplex"}, {"fun": failing}),
    ("cbo-mirror", {"mirror": "elastic-net"}, {}),
    ("cbo-penalty", {}, {"budget": 5000}),
    ("cbo-penalty", {"alpha": 3.0}, {"bounds": [(-3, 3)] * 3, "fun": failing}),
]


def check(method: str, options: dict[str, Any], x0: Any, seeds: list[int], **given: Any) -> many.Runs:
    """Compare runs at once with the same runs one by one, and return the former."""
    fun = given.pop("fun", rastrigin)
    given.setdefault("budget", 400)
    runs = many.run(method, fun, x0, seeds=seeds, options=options, **given)
    assert len(runs) == len(seeds)
    for index, seed in enumerate(seeds):
        alone = zoo.minimize(fun, x0, method=method, rng=seed, options=options, vectorized=True, **given)
        assert type(runs.x) is type(alone.x)
        assert runs.x.dtype == alone.x.dtype
        assert to_numpy(runs.x[index]).tobytes() == to_numpy(alone.x).tobytes()
        assert (runs.fun[index], runs.nfev[index], runs.nit[index]) == (alone.fun, alone.nfev, alone.nit)
        assert runs.message[index] == alone.message
    return runs


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("method", "options", "given"), CASES, ids=[f"{i}" for i in range(len(CASES))])
def test_each_run_is_what_it_is_alone(
    method: str, options: dict[str, Any], given: dict[str, Any], start: str
) -> None:
    check(method, options, STARTS[start], [5, 0, 3], **given)


def test_swarms_on_surfaces_and_behind_maps_tell_their_consensus() -> None:
    for method, options, x0 in (
        ("cbo-manifold", {}, [1.0, 0.0]),
        ("cbo-mirror", {"mirror": "simplex"}, [0.4, 0.6]),
    ):
        seen = []
        runs = many.run(
            method, lambda x: x[:, 1] - x[:, 0], x0, seeds=range(9), scale=1.0, budget=5000, options=options,
            callback=seen.append,
        )  # fmt: skip
        best = [0.5**0.5, -(0.5**0.5)] if method == "cbo-manifold" else [1.0, 0.0]
        assert runs.success(best, 0.01, of="consensus").rate == 1
        assert len(set(runs.nit.tolist())) > 1, "they stop on their own"
        assert seen[0].consensus.shape == (9, 2)


@pytest.mark.parametrize("start", ["numpy, float64", "torch, float32"])
def test_runs_drop_out_one_by_one_and_the_others_go_on(start: str) -> None:
    """At the target they do so at any time; twelve come down to six, three and one on the way."""
    runs = check("cbo", {}, STARTS[start], list(range(12)), target=1.5, budget=3000, scale=2.0)
    assert len(set(runs.nfev.tolist())) > 5
    assert (runs.fun <= 1.5).all()


def test_runs_end_by_their_own_rule_at_their_own_time() -> None:
    options = {"sigma": 4.0, "num_particles": 10, "tolx": 1e-3}
    runs = check("cbo-textbook", options, STARTS["numpy, float64"], list(range(4)), budget=20_000)
    assert len(set(runs.nfev.tolist())) > 1
    assert all(message.startswith("tolx") for message in runs.message)


def test_many_swarms_in_pieces() -> None:
    """Rows of 40 swarms of 100 in 20 variables are evaluated in more than one call."""
    counts = []

    def counted(x: Any) -> Any:
        counts.append(len(x))
        return rastrigin(x)

    x0, options = torch.full((20,), 1.5), {"num_particles": 100, "sigma": 8.0, "precision": "single"}
    runs = many.run("cbo-textbook", counted, x0, seeds=range(40), options=options, budget=1000)
    assert max(counts) * 20 <= 2**16
    assert sum(counts) == runs.nfev.sum() == 40 * 1000
    alone = zoo.minimize(
        rastrigin, x0, method="cbo-textbook", rng=33, options=options, budget=1000, vectorized=True
    )
    assert torch.equal(runs.x[33], alone.x)


def test_known_points_are_where_all_begin() -> None:
    known = np.array([[0.1, 0.0, 0.1], [2.0, 2.0, 2.0]]), np.array([3.0, 12.0])
    check("cbo", {}, STARTS["numpy, float64"], [0, 1], known=known, budget=60)
    with pytest.raises(ValueError, match="`known` must have a value for every point"):
        many.run("cbo", rastrigin, np.ones(3), known=([[0.0, 0.0, 0.0]], [None]), budget=60)


def test_where_nothing_has_a_value() -> None:
    def nothing(x: Any) -> Any:
        return np.full(len(x), np.nan)

    runs = many.run("cbo", nothing, np.ones(3), seeds=range(3), budget=50)
    assert np.isnan(runs.fun).all()
    assert (runs.x == 1).all()
    assert (runs.nfev == 50).all()
    assert runs.best == 0


def test_a_callback_sees_the_runs_and_may_end_them() -> None:
    seen = []

    def callback(runs: many.Runs) -> None:
        seen.append(runs)
        if len(seen) == 4:
            raise StopIteration

    runs = many.run("cbo", rastrigin, np.ones(3), seeds=range(3), callback=callback)
    assert [one.nit.tolist() for one in seen] == [[step] * 3 for step in range(1, 5)]
    assert (np.diff([one.fun for one in seen], axis=0) <= 0).all()
    assert runs.message == ("the callback asked to stop",) * 3
    assert (runs.fun == seen[-1].fun).all()
    assert seen[0].message == ("", "", "")


def test_rates_and_their_intervals() -> None:
    # Brown, Cai and DasGupta, Interval Estimation for a Binomial Proportion, 2001: Wilson's for 0 of 20 ends
    # at z^2 / (20 + z^2).
    z2 = many._Z**2
    assert many.wilson(0, 20) == pytest.approx((0.0, 0.0, z2 / (20 + z2)))
    assert many.wilson(20, 20) == pytest.approx((1.0, 20 / (20 + z2), 1.0))
    assert many.wilson(5, 10) == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)
    for successes in range(11):
        rate, low, high = many.wilson(successes, 10)
        # The ends are where the rate is z standard deviations away.
        for end in {low, high} - {0.0, 1.0}:
            assert (rate - end) ** 2 == pytest.approx(z2 * end * (1 - end) / 10)
    for successes, runs in ((0, 0), (-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="`successes` must be from 0 to `runs`"):
            many.wilson(successes, runs)
    points = np.array([[0.1, 0.2], [0.3, 0.0], [1.0, 1.1], [np.nan, 0.0]])
    runs = many.Runs(
        points, np.array([1.0, 2.0, 3.0, np.nan]), *[np.ones(4, int)] * 2, points[::-1], ("",) * 4
    )
    assert runs.success([0.0, 0.0]).rate == 0.25
    assert runs.success(0.0, within=0.5).rate == 0.5
    assert runs.success([[0.0, 0.0], [1.0, 1.0]]).rate == 0.5
    assert runs.success(1.0, of="consensus").rate == 0.25
    assert runs.below(2.5).rate == 0.5
    assert str(runs.below(2.5)) == "0.5 (0.15 to 0.85)"
    with pytest.raises(ValueError, match="`of` must be 'x' or 'consensus'"):
        runs.success(0.0, of="y")


def test_a_number_of_runs_has_seeds_from_0_on() -> None:
    by_number = many.run("cbo", rastrigin, np.ones(3), seeds=3, budget=60)
    by_seeds = many.run("cbo", rastrigin, np.ones(3), seeds=[0, 1, 2], budget=60)
    assert by_number.x.tobytes() == by_seeds.x.tobytes()


def test_what_cannot_be_run() -> None:
    with pytest.raises(ValueError, match="`method` must hold many swarms"):
        many.run("cma", rastrigin, np.ones(3))
    with pytest.raises(ValueError, match="`seeds` must hold one seed at least"):
        many.run("cbo", rastrigin, np.ones(3), seeds=[])
    with pytest.raises(TypeError, match="`fun` must be a function"):
        many.run("cbo", "rastrigin", np.ones(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must return 60 real numbers"):
        many.run("cbo", lambda x: x, np.ones(3), seeds=range(3))
    for seeds in ("ab", 2.0, None, True):
        with pytest.raises(
            TypeError, match="`seeds` must be a number of runs or hold one seed for each, got"
        ):
            many.run("cbo", rastrigin, np.ones(3), seeds=seeds)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`rng` must be an integer"):
        many.run("cbo", rastrigin, np.ones(3), seeds=[1.5])
    with pytest.raises(ValueError, match="`seeds` must be at least 1, got 0"):
        many.run("cbo", rastrigin, np.ones(3), seeds=0)
    with pytest.raises(ValueError, match="`reduction` must be 0 for several"):
        many.run("cbo", rastrigin, np.ones(3), seeds=range(2), options={"reduction": 0.2})
    with pytest.raises(ZeroDivisionError):
        many.run("cbo", lambda x: 1 / 0, np.ones(3))


@pytest.mark.parametrize(("method", "least", "most"), [("ch", 250, 260), ("cbo", 600, 615)])
def test_random_numbers_drawn_ahead_take_the_memory_that_is_said(method: str, least: int, most: int) -> None:
    assert noise._KEPT + choices._KEPT <= 202e6
    noise.clear_cache()
    choices.clear_cache()
    many.run(method, lambda x: (x * x).sum(1), np.ones(20), seeds=range(4), budget=1200)
    kept = noise._local.size + choices._local.size
    assert least * 1024 <= kept / 4 <= most * 1024


@pytest.mark.parametrize("known", [None, (np.ones((1, 3)), [2.0])])
@pytest.mark.parametrize(("method", "options"), [("cbo", {}), ("cbo", {"elitist": False}), ("ch", {})])
def test_runs_without_a_value_say_so_as_a_single_one_does(method: str, options: Any, known: Any) -> None:
    def nothing(x: Any) -> Any:
        return np.where(x[:, 0] < 1e9, np.nan, 1.0)

    given = {"budget": 130, "options": options, "known": known}
    runs = many.run(method, nothing, np.zeros(3), seeds=range(2), **given)
    alone = zoo.minimize(nothing, np.zeros(3), method=method, rng=1, vectorized=True, **given)
    assert runs.message[1] == alone.message
    assert alone.message.endswith("; no evaluation had a value")
