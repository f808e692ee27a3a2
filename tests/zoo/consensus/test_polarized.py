"""Polarized consensus-based optimization against its definition, and the minima that it finds."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest

import zoo
from tests.commands import commands
from zoo.consensus.cbo import CBO
from zoo.consensus.polarized import PolarizedCBO, consensus_points, valleys
from zoo.core.bounds import Bounds
from zoo.core.errors import ZooWarning
from zoo.core.rng import Key
from zoo.core.types import Evaluations
from zoo.report import write_report

PAPER = {"memory": "none", "explorers": 0.0, "num_coordinates": None, "energy_unit": 1.0}
HIMMELBLAU = np.array([[3, 2], [-2.805118, 3.131313], [-3.779310, -3.283186], [3.584428, -1.848127]])


def himmelblau(x):
    return (x[:, 0] ** 2 + x[:, 1] - 11) ** 2 + (x[:, 0] + x[:, 1] ** 2 - 7) ** 2


def one_point(x):
    return float(himmelblau(np.asarray(x)[None])[0])


def steps(method, state, count, fun=himmelblau):
    for _ in range(count):
        candidates = method.ask(state)
        state = method.tell(state, Evaluations(fun(candidates.rows(0, len(candidates)))))
    return state


def begun(method, seed=0, x0=(0.5, -1.0), **options):
    return method.init(np.array(x0), key=Key(seed), **options)


def plain_consensus(points, energies, alpha, kappa, scale, kernel_alpha):
    means = []
    for x in points:
        shares = []
        for y, f in zip(points, energies, strict=True):
            away = (((x - y) / scale) ** 2).sum() / (2 * kappa**2)
            shares.append(math.exp(-alpha * f - away * (alpha if kernel_alpha else 1)))
        means.append(np.average(points, axis=0, weights=shares))
    return np.array(means)


@pytest.mark.parametrize("kernel_alpha", [False, True])
def test_consensus_points_by_definition(kernel_alpha, monkeypatch):
    points, scale = Key(0).normal(0, 12, 3), np.array([1.0, 0.5, 2.0])
    energies = Key(1).uniform(0, 12, 1)[:, 0]
    expected = plain_consensus(points, energies, 1.7, 0.8, scale, kernel_alpha)
    for block in (2**18, 12, 40):  # all rows at once, one by one, three by three
        monkeypatch.setattr("zoo.consensus.polarized._BLOCK", block)
        found, sizes = consensus_points(points, energies, 1.7, 0.8, scale, kernel_alpha)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
        assert ((sizes >= 1) & (sizes <= 12)).all()


def test_weights_of_points_far_away_underflow_to_nothing_and_own_ones_do_not():
    points = np.array([[0.0], [1.0], [1e6], [1e6 + 1]])
    found, sizes = consensus_points(points, np.array([0.0, 1e4, 5.0, 1e300]), 1.0, 1.0, np.ones(1))
    assert found.ravel().tolist() == [0.0, 0.0, 1e6, 1e6]
    assert sizes.tolist() == [1, 1, 1, 1]
    for alpha in (0.0, 1e15, 1e300, math.inf):
        for energies in ([0.0, np.inf, 1e308, -1e308], [np.inf, np.inf, 2.0, np.inf], [0.0, 0.0, 0.0, 0.0]):
            for kernel_alpha in (False, True):
                found, sizes = consensus_points(
                    points, np.array(energies), alpha, 1e-3, np.ones(1), kernel_alpha
                )
                assert np.isfinite(found).all()
                assert np.isfinite(sizes).all()
    alone, _ = consensus_points(np.array([[2.0, 3.0]]), np.array([7.0]), 1.0, 1.0, np.ones(2))
    assert alone.tolist() == [[2.0, 3.0]]


def test_with_alpha_in_the_kernel_the_limit_is_a_proximal_step():
    points, scale, kappa = Key(2).normal(0, 30, 2), np.ones(2), 0.9
    energies = himmelblau(points) / 100
    found, _ = consensus_points(points, energies, math.inf, kappa, scale, kernel_alpha=True)
    away = ((points[:, None] - points) ** 2).sum(2)
    nearest = (energies + away / (2 * kappa**2)).argmin(1)
    np.testing.assert_allclose(found, points[nearest], rtol=0, atol=1e-12)
    assert len(set(nearest.tolist())) > 1


def test_a_swarm_far_from_the_origin_is_the_same_swarm():
    points, energies = Key(3).normal(0, 50, 2), Key(4).uniform(0, 50, 1)[:, 0]
    here, _ = consensus_points(points, energies, 3.0, 0.3, np.ones(2))
    there, _ = consensus_points(points + 2.0**20, energies, 3.0, 0.3, np.ones(2))
    np.testing.assert_allclose(there - 2.0**20, here, rtol=0, atol=1e-9)


@pytest.mark.parametrize("noise", ["anisotropic", "isotropic"])
@pytest.mark.parametrize("integrator", ["euler-maruyama", "exponential"])
def test_without_a_width_of_the_kernel_it_is_plain_consensus(noise, integrator):
    """Row 21 of the verification table: kappa = inf is CBO, to 1e-10, with the same noise."""
    common = {"num_particles": 30, "drift": 1.3, "sigma": 2.0, "dt": 0.02, "alpha": 3.0, "noise": noise}
    common |= {"integrator": integrator, "memory": "none", "num_coordinates": None, "explorers": 0.0}
    plain = CBO(**common, elitist=False, allow_divergence=True)
    mine = PolarizedCBO(**common, energy_unit=1.0, kappa=math.inf, kernel_alpha=True)
    one, other = begun(plain), begun(mine)
    for _ in range(30):
        rows = [m.ask(s).rows(0, 30) for m, s in ((plain, one), (mine, other))]
        np.testing.assert_allclose(rows[1], rows[0], rtol=0, atol=1e-10)
        one, other = steps(plain, one, 1), steps(mine, other, 1)
    assert np.ptp(rows[0]) > 0


def test_all_minima_of_himmelblau():
    """Row 21 asks for three of four with 200 particles; here all four, in each of 10 seeds, in 10,000."""
    for seed in range(10):
        found = zoo.minimize(
            himmelblau, bounds=[(-5, 5)] * 2, method="cbo-polarized", budget=10_000, rng=seed, vectorized=True
        ).minima
        assert found.x.shape == (4, 2)
        away = np.abs(found.x[:, None] - HIMMELBLAU).max(2)
        assert sorted(away.argmin(1).tolist()) == [0, 1, 2, 3]
        assert away.min(1).max() < 0.05
        assert (found.fun == himmelblau(found.x)).all(), "values are those of evaluations"
        assert (np.diff(found.fun) >= 0).all()


def test_as_in_the_paper_a_small_kernel_keeps_minima_apart_and_none_at_all_merges_them():
    counts = []
    for kappa in (0.2, math.inf):
        method = PolarizedCBO(**{**PAPER, "energy_unit": None}, num_particles=200, kappa=kappa)
        state = steps(method, begun(method, bounds=Bounds([-5, -5], [5, 5]), scale=3.0), 100)
        at = np.abs(state.points[:, None] - HIMMELBLAU).max(2)
        counts.append(int((at.min(0) < 0.3).sum()))
    assert counts[0] >= 3
    assert counts[1] <= 1


def test_minima_that_are_worse_are_found_too():
    def camel(x):
        a, b = x.T
        return (4 - 2.1 * a**2 + a**4 / 3) * a**2 + a * b + (-4 + 4 * b**2) * b**2

    found = zoo.minimize(
        camel, bounds=[(-2, 2)] * 2, method="cbo-polarized", budget=10_000, rng=0, vectorized=True
    ).minima
    np.testing.assert_allclose(found.fun, np.repeat([-1.031628, -0.215464, 2.104250], 2), atol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_slopes_are_no_minima_and_the_best_point_is_the_first(scale):
    for seed in range(5):
        result = zoo.minimize(
            himmelblau,
            np.zeros(2),
            method="cbo-polarized",
            budget=10_000,
            rng=seed,
            vectorized=True,
            scale=scale,
        )
        found = result.minima
        assert found.fun[0] == result.fun
        assert found.x[0].tolist() == result.x.tolist()
        assert np.abs(found.x[1:, None] - HIMMELBLAU).max(2).min(1, initial=9).max(initial=0) < 0.1
        assert len(found.fun) == 4 or scale == 1


def test_a_start_is_no_minimum_until_other_places_have_been_tried():
    method = PolarizedCBO(num_particles=40)
    state = steps(method, begun(method), 1)
    assert len(method.minima(state).fun) == 1
    assert not state.failures.any()
    state = steps(method, state, 100, lambda x: np.full(len(x), np.nan))
    assert not state.failures.any(), "failed evaluations say nothing"
    alone = PolarizedCBO(num_particles=1)
    assert len(alone.minima(steps(alone, begun(alone), 3)).fun) == 1


def test_the_search_is_one_for_all_units_of_the_values():
    method = PolarizedCBO(num_particles=20)
    plain = steps(method, begun(method), 20)
    scaled = steps(method, begun(method), 20, lambda x: 2.0**10 * himmelblau(x))
    assert scaled.points.tobytes() == plain.points.tobytes()
    assert scaled.unit == 2.0**10 * plain.unit
    raw = PolarizedCBO(num_particles=20, energy_unit=plain.unit)
    assert steps(raw, begun(raw), 20).points.tobytes() == plain.points.tobytes()


OTHERS = {
    "num_particles": 21,
    "kappa": 0.3,
    "kernel_alpha": True,
    "drift": 2.0,
    "sigma": 4.0,
    "dt": 0.02,
    "alpha": 3.0,
    "energy_unit": 5.0,
    "alpha_schedule": "multiply",
    "noise": "isotropic",
    "integrator": "exponential",
    "memory": "none",
    "num_coordinates": 1,
    "explorers": 0.1,
    "explorer_scale": 0.5,
    "start": "uniform",
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_option_does_something(name):
    digests = []
    for options in ({}, {name: OTHERS[name]}):
        method = PolarizedCBO(**{"num_particles": 20} | options)
        state = method.init(np.full(5, 0.5), key=Key(0))
        digests.append(steps(method, state, 5, lambda x: (x**2).sum(1)).points.tobytes())
    assert digests[0] != digests[1]


def test_schedules_of_alpha():
    method = PolarizedCBO(
        num_particles=20, alpha=2.0, alpha_schedule="multiply", alpha_rate=2.0, max_alpha=9.0
    )
    state, alphas = begun(method), []
    for _ in range(5):
        state = steps(method, state, 1)
        alphas.append(state.alpha)
    assert alphas == [2, 4, 8, 9, 9]
    method = PolarizedCBO(
        num_particles=50, alpha_schedule="effective-sample-size", sample_share=0.3, kappa=math.inf
    )
    state = steps(method, begun(method), 1)
    assert method.diagnostics(state)["effective_sample_size"] == pytest.approx(15, abs=1e-3)


def test_it_ends_when_all_have_agreed():
    result = zoo.minimize(
        himmelblau, bounds=[(-5, 5)] * 2, method="cbo-polarized", budget=60_000, rng=0, vectorized=True,
        options={"tolx": 1e-2, "explorers": 0.0},
    )  # fmt: skip
    assert result.message.startswith("tolx: ")
    assert result.nfev < 60_000
    assert len(result.minima.fun) == 4


def plain_valleys(points, values, reach):
    """Follow the nearest better point, by definition."""
    order = [i for i in np.argsort(values, kind="stable") if np.isfinite(values[i])]
    heads = {}
    for place, i in enumerate(order):
        better = order[:place]
        nearest = min(better, key=lambda j: ((points[i] - points[j]) ** 2).sum(), default=i)
        is_near = nearest != i and ((points[i] - points[nearest]) ** 2).sum() <= reach**2
        heads[i] = heads[nearest] if is_near else i
    return heads


@pytest.mark.parametrize("reach", [0.05, 0.3, 5.0])
def test_valleys_by_definition(reach, monkeypatch):
    points = Key(5).normal(0, 60, 2)
    values = np.round(himmelblau(points), -1)  # with ties
    values[[3, 17]] = np.inf, np.nan
    heads = plain_valleys(points, values, reach)
    for company in (1, 2, 4):
        members = [list(heads.values()).count(i) for i in heads]
        expected = [i for i, count in zip(heads, members, strict=True) if heads[i] == i and count >= company]
        for block in (2**18, 60):
            monkeypatch.setattr("zoo.consensus.polarized._BLOCK", block)
            assert valleys(points, values, reach, company).tolist() == expected
    assert valleys(points, np.full(60, np.inf), reach).tolist() == []


def test_memory_is_that_of_some_rows():
    count, dim = 3000, 20
    points, energies = Key(6).normal(0, count, dim), Key(7).uniform(0, count, 1)[:, 0]
    tracemalloc.start()
    consensus_points(points, energies, 10.0, 2.0, np.ones(dim))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * count**2 / 4, "the whole matrix of weights was made"


def test_torch_computes_what_numpy_computes():
    import torch

    points, energies, scale = Key(8).normal(0, 40, 3), Key(9).uniform(0, 40, 1)[:, 0], np.ones(3)
    for kernel_alpha in (False, True):
        plain = consensus_points(points, energies, 5.0, 0.5, scale, kernel_alpha)
        other = consensus_points(torch.from_numpy(points), energies, 5.0, 0.5, scale, kernel_alpha)
        for one, two in zip(plain, other, strict=True):
            np.testing.assert_allclose(two.numpy(), one, rtol=1e-13)
    method = PolarizedCBO(num_particles=30)
    state = method.init(torch.tensor([0.5, -1.0], dtype=torch.float32), key=Key(0))
    for _ in range(20):
        state = method.tell(state, Evaluations(himmelblau(method.ask(state).array.numpy())))
    assert state.points.dtype == torch.float64
    assert method.minima(state).x.dtype == torch.float32


def test_minima_in_the_result_of_any_run(tmp_path):
    options = {"method": "cbo-polarized", "budget": 2000, "rng": 1, "options": {"num_particles": 50}}
    plain = zoo.minimize(one_point, bounds=[(-5, 5)] * 2, **options).minima
    space = zoo.Space({"a": zoo.Float(-5, 5), "b": zoo.Float(-5, 5)})
    named = zoo.minimize(lambda p: one_point([p["a"], p["b"]]), space=space, **options).minima
    assert set(named.x[0]) == {"a", "b"}
    assert one_point([named.x[0]["a"], named.x[0]["b"]]) == pytest.approx(named.fun[0])
    primed = zoo.minimize(one_point, bounds=[(-5, 5)] * 2, known=([[3.0, 2.0]], None), **options).minima
    assert primed.fun[0] == 0
    noisy = zoo.minimize(one_point, bounds=[(-5, 5)] * 2, noise=True, **options).minima
    assert len(noisy.fun) == len(noisy.x) > 0
    nothing = zoo.minimize(lambda x: math.nan, bounds=[(-5, 5)] * 2, **options).minima
    assert nothing.x.shape == (0, 2)
    bound = zoo.minimize(one_point, bounds=[(-5, 5)] * 2, constraints=lambda x: x[0], **options)
    assert "minima" not in bound, "what the method is told there is no value"
    assert "minima" not in zoo.minimize(one_point, [0.0, 0.0], budget=50, rng=0)
    kept = zoo.minimize(one_point, bounds=[(-5, 5)] * 2, out=tmp_path / "run", **options).minima
    assert kept.x.tobytes() == plain.x.tobytes()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["minima"]["fun"] == plain.fun.tolist()
    again = zoo.resume(tmp_path / "run", one_point).minima
    assert again.x.tobytes() == plain.x.tobytes()
    pictures = [path.stem for path in write_report(tmp_path / "run")]
    assert {"minima", "diagnostic_num_minima"} <= set(pictures)


def test_the_command_line_lists_them(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "valleys_here.py").write_text(
        "def two(x):\n    return min((x[0] - 1) ** 2, (x[0] + 1) ** 2)\n"
    )
    monkeypatch.setattr("zoo.cli.results.is_terminal", lambda: True)
    for run in commands(monkeypatch, capfd):
        done = run(
            "minimize", "valleys_here:two", "--bounds=-2:2x1", "--method", "cbo-polarized", "--budget", "800",
            "--seed", "0",
        )  # fmt: skip
        assert done.status == 0, done.err
        lines = done.out[done.out.index("minima") :].splitlines()
        assert sorted(round(float(line.split(" at ")[1])) for line in lines[:2]) == [-1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_particles": 0}, "`num_particles` must be at least 1, got 0"),
        ({"kappa": 0.0}, "`kappa` must be above 0, got 0.0"),
        ({"sigma": 20.0}, "must be at most 1.5, got 2: .* Take a smaller"),
        ({"alpha": -1.0}, "`alpha` must be at least 0, got -1.0"),
        ({"sample_share": 0.0}, "`sample_share` must be above 0"),
        ({"explorers": 1.5}, "`explorers` must be from 0 to 1, got 1.5"),
        ({"memory": "shared"}, "`memory` must be one of"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        PolarizedCBO(**options)


def test_noise_with_which_swarms_fly_apart_is_refused():
    with pytest.raises(ValueError, match="`drift` \\* dt must be below 2, got 5"):
        PolarizedCBO(drift=500.0)
    with pytest.warns(ZooWarning, match="contract slowly"):
        PolarizedCBO(sigma=14.9)
    free = {**PAPER, "noise": "isotropic"}
    with pytest.raises(ValueError, match="in 20 variables makes the swarm fly apart"):
        PolarizedCBO(**free).init(np.zeros(20), key=Key(0))
    PolarizedCBO(**{**free, "memory": "greedy"}).init(np.zeros(20), key=Key(0))  # memories stay
