"""Burgers' equation: what is conserved, how fast errors fall, and the exact solutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from zoo.core.rng import Key
from zoo.problems.burgers import Burgers, coarsened, cole_hopf, refined, waves

FINE = 2048


def starts(count: int, cells: int) -> np.ndarray:
    return waves(Key(3), count, Burgers(cells, 1e-6))


def error(cells: int, order: int, viscosity: float = 0.2, time: float = 1.0) -> float:
    """Return how far the solver is from the exact solution, in the mean over cells and 8 rows."""
    u = waves(Key(0), 8, Burgers(FINE, 1e-7))  # whose cells are so small that means are values
    exact = coarsened(cole_hopf(u, time, viscosity), cells)
    rate = 1 / Burgers(cells, 1e-6).dx
    steps = math.ceil(time * (3 * order * rate + 2 * viscosity * rate**2))
    solver = Burgers(cells, time / steps, viscosity, order)
    return float(np.abs(solver.run(coarsened(u, cells), steps, every=steps)[-1] - exact).mean())


@pytest.mark.parametrize(("order", "least"), [(1, 0.9), (2, 1.75)])
def test_errors_fall_at_the_rate_of_the_order(order: int, least: float) -> None:
    coarse, fine = error(64, order), error(128, order)
    assert least < math.log2(coarse / fine) < order + 0.2
    assert fine < {1: 5e-3, 2: 2e-4}[order]


def test_the_exact_solution_is_that_of_a_wave_known_in_closed_form() -> None:
    # phi = a + exp(-viscosity t) cos(x) solves the heat equation.
    viscosity, a, time, x = 0.1, 1.1, 0.7, 2 * np.pi * np.arange(256) / 256

    def exact(t: float) -> np.ndarray:
        decay = math.exp(-viscosity * t)
        return 2 * viscosity * decay * np.sin(x) / (a + decay * np.cos(x))

    assert np.abs(cole_hopf(exact(0.0), time, viscosity) - exact(time)).max() < 1e-12
    quarter = np.pi  # of the ring, at a speed of 0.5
    moved = cole_hopf(exact(0.0) + 0.5, quarter, viscosity)
    assert np.abs(moved - 0.5 - np.roll(exact(quarter), 64)).max() < 1e-11


def test_too_little_viscosity_for_the_exact_solution_is_refused() -> None:
    with pytest.raises(ValueError, match="`viscosity` must be at least"):
        cole_hopf(np.sin(2 * np.pi * np.arange(64) / 64), 1.0, 1e-3)


@pytest.mark.parametrize("order", [1, 2])
def test_nothing_is_lost(order: int) -> None:
    u = starts(6, 32)
    later = Burgers(32, 0.02, 0.02, order).run(u, 200)
    assert np.abs(later.sum(-1) - u.sum(-1)).max() < 1e-12
    energy = (later**2).sum(-1)
    assert (np.diff(energy, axis=0) < 0).all()


def test_order_1_never_leaves_the_range_of_the_start() -> None:
    solver = Burgers(32, 0.05, 0.02)
    u = solver.fastest * Key(1).uniform(0, 20, 32)  # as fast as may be, and as rough
    later = solver.run(u, 50)
    assert (later.max(-1) <= u.max(-1) + 1e-12).all()
    assert (later.min(-1) >= u.min(-1) - 1e-12).all()
    # Monotone: a row above another one stays above it.
    assert (solver.step(u) <= solver.step(np.minimum(u + 0.1, solver.fastest)) + 1e-12).all()


@pytest.mark.parametrize("order", [1, 2])
def test_a_flow_that_is_mirrored_stays_mirrored(order: int) -> None:
    solver = Burgers(32, 0.02, 0.02, order)
    u = starts(4, 32)
    assert np.allclose(solver.step(-u[:, ::-1]), -solver.step(u)[:, ::-1], rtol=0, atol=1e-14)
    assert np.allclose(solver.step(np.roll(u, 5, -1)), np.roll(solver.step(u), 5, -1), rtol=0, atol=0)


@pytest.mark.parametrize("order", [1, 2])
def test_torch_computes_the_same_and_differentiates(order: int) -> None:
    solver = Burgers(16, 0.02, 0.05, order)
    u = starts(3, 16)
    tensor = torch.from_numpy(u)
    assert np.array_equal(solver.run(tensor, 10).numpy(), solver.run(u, 10))
    rows = solver.step(torch.from_numpy(u.reshape(3, 1, 16)))
    assert np.array_equal(rows.numpy()[:, 0], solver.step(u))
    assert torch.autograd.gradcheck(solver.step, (tensor.requires_grad_(),), eps=1e-7)


def test_rows_that_are_too_fast_are_nan_and_the_others_are_not() -> None:
    solver = Burgers(32, 0.05, 0.02)
    u = starts(3, 32)
    expected = solver.step(u)
    u[1] *= 1.001 * solver.fastest / np.abs(u[1]).max()
    for found in (solver.step(u), solver.step(torch.from_numpy(u)).numpy()):
        assert np.isnan(found[1]).all()
        assert np.array_equal(found[[0, 2]], expected[[0, 2]])
    assert np.isnan(solver.step(found)[1]).all()
    with pytest.raises(ValueError, match=r"`u` must not exceed 3\.72"):
        solver.run(u, 1)


def test_coarse_cells_hold_what_fine_ones_did() -> None:
    fine = starts(5, 64)
    coarse = coarsened(fine, 16)
    assert coarse.shape == (5, 16)
    assert np.allclose(coarse, starts(5, 16), rtol=0, atol=1e-13)
    assert np.allclose(coarsened(refined(coarse, 64), 16), coarse, rtol=0, atol=1e-13)
    assert np.abs(refined(coarse, 64) - fine).mean() < np.abs(np.repeat(coarse, 4, -1) - fine).mean() / 2
    for function, cells in ((coarsened, 24), (refined, 100), (refined, 32)):
        with pytest.raises(ValueError, match="`cells`"):
            function(fine, cells)


def test_starts_follow_from_the_key_alone() -> None:
    assert np.array_equal(starts(9, 32)[:4], starts(4, 32))
    assert np.abs(starts(500, 32)).max() < 0.5 + 1 + 2**-0.5 + 3**-0.5
    assert not np.allclose(waves(Key(4), 2, Burgers(32, 0.01)), starts(2, 32))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("cells", 3), ("dt", 0.0), ("dt", 1.0), ("viscosity", -1.0), ("order", 3), ("length", 0.0)],
)
def test_wrong_arguments_are_refused(name: str, wrong: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        Burgers(**{"cells": 32, "dt": 0.02, name: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("order", [True, 1.0])
def test_the_order_is_an_integer(order: Any) -> None:
    with pytest.raises(TypeError, match="`order` must be an integer"):
        Burgers(32, 0.02, order=order)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda of: of.run(np.zeros(31), 1), r"`u` must have the shape \(..., 32\), got \(31,\)"),
        (lambda of: of.step(torch.zeros(2, 64)), r"`u` must have the shape \(..., 32\), got \(2, 64\)"),
        (lambda of: of.step(np.float64(1.0)), "`u` must have the shape"),
        (lambda of: of.run(np.zeros(32), -1), "`steps` must be at least 0"),
        (lambda of: of.run(np.zeros(32), 2, every=0), "`every` must be at least 1"),
        (lambda of: of.run(np.full(32, np.nan), 1), "`u` must be finite"),
        (lambda of: cole_hopf(np.zeros(32), -1.0, 0.1), "`time` must be a finite number of at least 0"),
        (lambda of: cole_hopf(np.zeros(32), 1.0, 0.1, length=0.0), "`length` must be"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[Burgers], Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call(Burgers(32, 0.02))
