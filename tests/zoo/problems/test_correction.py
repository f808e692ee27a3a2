"""A network in the loop of a solver: what its weights mean, and what evaluations see."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import skip_init

import zoo
from zoo.core.rng import Key
from zoo.problems.correction import Correction


@pytest.fixture(scope="module")
def task() -> Correction:
    return Correction(3, 4, channels=3, trajectories=5, held_out=2, train_steps=6, test_steps=9)


def weights(task: Correction, count: int) -> torch.Tensor:
    return 0.1 * Key(1).normal(0, count, task.dim, like=torch.zeros(1, dtype=torch.float64))


def layers(task: Correction, row: torch.Tensor) -> nn.Sequential:
    def convolution(ins: int, outs: int) -> nn.Conv1d:
        return skip_init(  # which draws nothing
            nn.Conv1d, ins, outs, 5, padding=2, padding_mode="circular", dtype=torch.float64
        )

    inner = task.channels
    model = nn.Sequential(
        convolution(1, inner), nn.ReLU(), convolution(inner, inner), nn.ReLU(), convolution(inner, 1)
    )
    nn.utils.vector_to_parameters(row, model.parameters())
    return model


def test_networks_are_those_of_torch(task: Correction) -> None:
    x = weights(task, 3)
    u = Key(2).normal(0, 3 * 4, 32, like=x).view(3, 4, 32)
    for row, states, found in zip(x, u, task.flux(x, u), strict=True):
        with torch.no_grad():
            expected = layers(task, row)(states[:, None])[:, 0]
        assert torch.allclose(found, expected, rtol=0, atol=1e-13)


def test_a_value_is_the_error_of_a_roll_out_from_states_of_the_reference(task: Correction) -> None:
    x = weights(task, 2)
    for key in (Key(0), Key(1)):
        flows = key.fold("flows").integers(0, 1, 4, high=5)[0]
        times = key.fold("times").integers(0, 1, 4, high=4)[0]
        assert 0 <= times.min() <= times.max() <= 3  # the last one sees frame 6, the last that there is
        frames = task.reference("training")
        for row, value in zip(x, task(x, key=key), strict=True):
            errors = []
            for flow, time in zip(flows, times, strict=True):
                found = task.run(row, frames[time, flow][None], 3)[1:, 0]
                errors.append(np.abs(found - frames[time + 1 : time + 4, flow]).mean())
            assert float(value) == pytest.approx(np.mean(errors), rel=1e-12)


def test_black_box_and_back_propagation_have_the_same_values(task: Correction) -> None:
    x = weights(task, 3)
    plain = task(x, key=Key(5))
    assert not plain.requires_grad
    followed = task(x.clone().requires_grad_(), key=Key(5))
    assert torch.equal(followed.detach(), plain)


def test_slopes_are_those_of_back_propagation(task: Correction) -> None:
    x = weights(task, 1).requires_grad_()
    task(x, key=Key(5)).sum().backward()
    for index in (0, 20, task.dim - 1):
        ahead, back = x.detach().clone(), x.detach().clone()
        ahead[0, index] += 1e-6
        back[0, index] -= 1e-6
        slope = (task(ahead, key=Key(5)) - task(back, key=Key(5))) / 2e-6
        assert float(slope) == pytest.approx(float(x.grad[0, index]), rel=1e-5, abs=1e-9)


def test_a_batch_is_a_function_of_the_key(task: Correction) -> None:
    x = weights(task, 4)
    whole = task(x, key=Key(3))
    assert torch.equal(task(x, key=Key(3)), whole)
    assert torch.allclose(task(x[2:], key=Key(3)), whole[2:], rtol=1e-12)
    assert not torch.allclose(task(x, key=Key(4)), whole)
    assert torch.equal(task(x.numpy(), key=Key(3)), whole)
    assert torch.allclose(task(x.float(), key=Key(3)).double(), whole, rtol=1e-4)


def test_networks_move_what_there_is_and_add_nothing(task: Correction) -> None:
    states = task.reference("test")[0]
    later = task.run(weights(task, 1)[0], states, 9)
    assert np.abs(later.sum(-1) - states.sum(-1)).max() < 1e-12
    assert np.abs(later - task.run(None, states, 9)).max() > 1e-3


def test_a_network_that_makes_the_flow_too_fast_fails_alone(task: Correction) -> None:
    x = weights(task, 3)
    expected = task(x, key=Key(0))
    x[1] *= 1e3
    found = task(x, key=Key(0))
    assert found.isnan().tolist() == [False, True, False]
    assert torch.allclose(found[[0, 2]], expected[[0, 2]], rtol=1e-12)


def test_without_a_network_there_is_the_coarse_solver(task: Correction) -> None:
    frames = task.reference("test")
    later = task.coarse.run(frames[0], 9)
    assert np.array_equal(task.run(None, frames[0], 9), later)
    expected = np.abs(later - frames)[1:].mean((1, 2))
    assert np.allclose(task.errors(None), expected, rtol=1e-12)
    assert np.allclose(task.errors(task.start(Key(0))), expected, rtol=1e-12)
    assert task.error(None) == pytest.approx(expected.mean())


def test_the_reference_is_the_fine_solver_over_coarse_cells(task: Correction) -> None:
    frames = task.reference("test")
    assert frames.shape == (10, 2, 32)
    assert task.reference("training").shape == (7, 5, 32)
    assert np.abs(frames.sum(-1) - frames[0].sum(-1)).max() < 1e-12
    others = task.reference("validation")
    assert others.shape == frames.shape
    assert not np.allclose(task.reference("training")[0, :2], frames[0])
    assert not np.allclose(others[0], frames[0])
    with pytest.raises(ValueError, match="`which` must be one of"):
        task.reference("tests")


def test_pairs_are_one_step_from_frames_computed_before(task: Correction) -> None:
    reference = task.reference("training")
    after, wanted = task.pairs(uncorrected=False)
    assert np.array_equal(wanted.reshape(6, 5, 32), reference[1:])
    assert np.allclose(after.reshape(6, 5, 32), task.coarse.step(reference[:-1]), rtol=0, atol=1e-15)
    after, wanted = task.pairs()
    frames = task.coarse.run(reference[0], 6)
    assert np.allclose(after.reshape(6, 5, 32), frames[1:], rtol=0, atol=1e-15)
    wanted = wanted.reshape(6, 5, 32)
    assert np.allclose(wanted.sum(-1), reference[1:].sum(-1), rtol=0, atol=1e-12)
    # Fine steps from the same frames, but for what lies within their cells.
    first = np.abs(wanted[0] - reference[1]).mean()
    assert first < np.abs(frames[1] - reference[1]).mean() / 2


def test_workers_find_the_same_networks(task: Correction) -> None:
    start = task.start(Key(0)).astype(np.float32)

    def found(workers: int) -> Any:
        options = {"learning_rate": 3e-3, "num_directions": 40, "directions": "rademacher", "smoothing": 1e-2}
        return zoo.minimize(
            task, start, method="zo-adam", options=options, budget=801, noise=True, workers=workers, rng=0
        )

    alone, together = found(1), found(2)
    assert np.array_equal(alone.x, together.x)
    assert task.error(alone.x) < task.error(None)


def test_starts_keep_sizes_and_follow_from_the_key(task: Correction) -> None:
    first, again, other = (task.start(Key(seed)) for seed in (0, 0, 1))
    assert len(first) == task.dim == 3 * 6 + 3 * 16 + 16
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first[-16:] == 0).all()
    assert np.abs(first[: 3 * 5]).max() <= (6 / 5) ** 0.5


@pytest.mark.parametrize(
    ("name", "wrong"),
    list(
        itertools.product(
            ("steps", "batch_size", "channels", "trajectories", "held_out", "train_steps", "test_steps"),
            (0, 2.5),
        )
    ),
)
def test_wrong_arguments_are_refused(name: str, wrong: object) -> None:
    with pytest.raises((TypeError, ValueError), match=f"`{name}`"):
        Correction(**{name: wrong})  # type: ignore[arg-type]


def test_more_steps_than_there_are_frames_of_are_refused() -> None:
    with pytest.raises(ValueError, match="`train_steps` must be at least `steps`, 9"):
        Correction(steps=9, train_steps=8)
