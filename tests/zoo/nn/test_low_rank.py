"""Directions of low rank: what they are, on average and to the last entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from zoo.core.rng import Key, keyed_generators
from zoo.nn.descent import Descent, apply_
from zoo.nn.laws import Gaussian, Place, Rademacher, TensorLaw, draw
from zoo.nn.low_rank import Factors, Lozo, SubZero, near_square
from zoo.nn.low_rank_momentum import LowRankMomentum
from zoo.nn.seeded import Seeded


def place(shape: tuple[int, ...], step: int = 0, direction: int = 0) -> Place:
    return Place(Key(0), step, direction, 0, shape)


def matrix(law: TensorLaw, *shape: int, step: int = 0, direction: int = 0) -> Tensor:
    return draw(law, place(shape, step, direction), torch.empty(shape, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(3, 70_000), (70_000, 3), (300, 300), (5, 3, 2, 2), (1, 1)])
def test_pieces_make_up_the_matrix(shape: tuple[int, ...]) -> None:
    law = Lozo(2)
    factors = law.plan(place(shape), torch.empty(0, dtype=torch.float64))
    assert isinstance(factors, Factors)
    whole = factors.left @ factors.right.T
    torch.testing.assert_close(matrix(law, *shape), whole.view(shape), rtol=1e-12, atol=1e-12)


def test_lozo_moves_in_one_space_until_its_period_ends() -> None:
    law, like = Lozo(2, period=5), torch.empty(0, dtype=torch.float64)
    v = law.right(place((6, 8)), like)
    complement = torch.eye(8, dtype=torch.float64) - v @ torch.linalg.pinv(v)
    drawn = [matrix(law, 6, 8, step=step) for step in range(6)]
    for z in drawn[:5]:
        assert torch.linalg.matrix_rank(z) == 2
        assert (z @ complement).abs().max() < 1e-12
    assert (drawn[5] @ complement).abs().max() > 0.1
    assert (drawn[0] - drawn[1]).abs().max() > 0.1
    # All directions of a step share the space.
    assert (matrix(law, 6, 8, direction=1) @ complement).abs().max() < 1e-12


@pytest.mark.slow
def test_lozo_with_v_given_has_the_mean_g_v_v_over_r() -> None:
    m, n, r, count = 3, 4, 2, 40_000
    law = Lozo(r)
    g = torch.arange(1.0, m * n + 1, dtype=torch.float64).view(m, n).sin()
    v = law.right(place((m, n)), g)
    total = torch.zeros_like(g)
    for direction in range(count):
        factors = law.plan(place((m, n), 0, direction), g)
        z = factors.left @ factors.right.T
        total += (g * z).sum() * z
    expected = g @ v @ v.T / r
    assert (total / count - expected).norm() < 0.05 * expected.norm()


def test_subzero_has_the_length_of_normal_directions() -> None:
    m, n, r, count = 12, 12, 4, 4000
    squares = [float(matrix(SubZero(r), m, n, direction=i).square().sum()) for i in range(count)]
    mean = sum(squares) / count
    assert abs(mean / (m * n) - 1) < 0.03
    # A sum of r^2 squares of normal numbers, scaled: its deviation is sqrt(2) / r of its mean.
    assert abs(mean / (m * n) - 1) < 5 * math.sqrt(2) / r / math.sqrt(count)


def test_subzero_moves_in_two_spaces_until_its_period_ends() -> None:
    law = SubZero(2, period=3)
    drawn = [matrix(law, 6, 6, step=step) for step in range(4)]
    left, _, right = torch.linalg.svd(drawn[0])
    left, right = left[:, :2], right[:2]
    for z in drawn[1:3]:
        assert torch.linalg.matrix_rank(z) == 2
        torch.testing.assert_close(left @ (left.T @ z @ right.T) @ right, z, rtol=1e-9, atol=1e-9)
    assert (drawn[3] - left @ (left.T @ drawn[3])).abs().max() > 0.1


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    count = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(count)


@pytest.mark.parametrize(
    ("law", "shape"), [(Lozo(24), (1024, 700)), (Lozo(2), (3, 70_001)), (SubZero(24), (1024, 700))]
)
def test_directions_are_the_same_for_any_number_of_threads(
    law: TensorLaw, shape: tuple[int, ...], threads: Callable[[int], None]
) -> None:
    drawn = []
    for count in (1, 2, 7):
        threads(count)
        drawn.append(draw(law, place(shape), torch.empty(shape)))
        assert torch.get_num_threads() == count
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_momentum_is_the_same_for_any_number_of_threads(threads: Callable[[int], None]) -> None:
    law, weight = Lozo(64, period=1), nn.Parameter(torch.zeros(64, 4096))
    held = []
    for count in (1, 2, 7):
        threads(count)
        momentum = LowRankMomentum()
        for step in range(2, 4):
            estimate = Seeded(law, smoothing=1.0).estimate([weight], lambda: weight[0, 0], Key(0), step)
            apply_([weight], estimate, Descent(0.0), momentum)
        held.append(momentum.state_dict()["tensors"]["0"])
    assert torch.equal(held[0], held[1])
    assert torch.equal(held[0], held[2])


def test_subzero_takes_tensors_as_near_to_a_square_as_they_allow() -> None:
    assert near_square(16 * 9) == (12, 12)
    z = matrix(SubZero(2), 16, 9)
    assert torch.linalg.matrix_rank(z.view(12, 12)) == 2
    # A prime number of entries leaves one row, and a rank of 1.
    assert matrix(SubZero(8), 1, 7).shape == (1, 7)


@pytest.mark.parametrize("law", [Lozo(), SubZero()])
def test_vectors_have_normal_directions(law: TensorLaw) -> None:
    assert torch.equal(matrix(law, 100), matrix(Gaussian(), 100))


@pytest.mark.parametrize("law", [Gaussian(), Rademacher(), Lozo(4), SubZero(4)])
def test_directions_are_normalised(law: TensorLaw) -> None:
    """E[z z^T] = I over all the randomness there is, whatever the law: a fresh space for each step."""
    if isinstance(law, (Lozo, SubZero)):
        law = type(law)(4, period=1)
    count = 3000
    rows = torch.stack([matrix(law, 4, 5, step=step).view(-1) for step in range(count)])
    moment = rows.T @ rows / count
    assert (moment - torch.eye(20)).abs().max() < 6 * math.sqrt(4 / count)


@pytest.mark.parametrize("law", [Lozo, SubZero])
def test_ranks_and_periods_are_counts(law: type[Lozo] | type[SubZero]) -> None:
    with pytest.raises(ValueError, match="rank"):
        law(0)
    with pytest.raises(ValueError, match="period"):
        law(2, period=0)
    with pytest.raises(TypeError, match="rank"):
        law(1.5)  # type: ignore[arg-type]


def test_momentum_is_that_of_the_dense_estimates() -> None:
    with keyed_generators(Key(0)):
        layer = nn.Linear(7, 5).double()
    law = Lozo(2, period=3)
    x = Key(1).normal(0, 6, 7, like=torch.zeros(1, dtype=torch.float64))
    momentum, estimator = LowRankMomentum(0.8), Seeded(law, num_directions=2)
    held = [torch.zeros_like(p) for p in layer.parameters()]
    for step in range(3):
        before = [p.detach().clone() for p in layer.parameters()]
        estimate = estimator.estimate(layer, lambda: layer(x).square().mean(), Key(0), step)
        dense = estimate.dense(layer)
        apply_(layer, estimate, Descent(0.1), momentum)
        for m, g, p, b in zip(held, dense, layer.parameters(), before, strict=True):
            m.mul_(0.8).add_(g, alpha=0.2)
            torch.testing.assert_close(p.detach(), b - 0.1 * m, rtol=1e-9, atol=1e-12)
    # The fourth step is of another space, into which the rows of the momentum are projected.
    estimate = estimator.estimate(layer, lambda: layer(x).square().mean(), Key(0), 3)
    dense, b = estimate.dense(layer), layer.weight.detach().clone()
    apply_(layer, estimate, Descent(0.1), momentum)
    v = law.right(Place(Key(0), 3, 0, 0, (5, 7)), b)
    wanted = 0.8 * held[0] @ v @ v.T / 7 + 0.2 * dense[0]
    torch.testing.assert_close(layer.weight.detach(), b - 0.1 * wanted, rtol=1e-9, atol=1e-12)


def test_momentum_goes_on_from_its_state() -> None:
    with keyed_generators(Key(0)):
        layers = [nn.Linear(7, 5), nn.Linear(7, 5)]
    layers[1].load_state_dict(layers[0].state_dict())
    x, estimator, descent = torch.ones(1, 7), Seeded("lozo"), Descent(0.1)
    momenta = [LowRankMomentum(0.9), LowRankMomentum(0.9)]

    def take(layer: nn.Module, momentum: LowRankMomentum, step: int) -> None:
        estimate = estimator.estimate(layer, lambda: layer(x).square().mean(), Key(0), step)
        apply_(layer, estimate, descent, momentum)

    for step in range(4):
        take(layers[0], momenta[0], step)
        if step == 2:
            saved = momenta[1].state_dict()
            momenta[1] = LowRankMomentum(0.5)
            momenta[1].load_state_dict(saved)
        take(layers[1], momenta[1], step)
    assert torch.equal(layers[0].weight, layers[1].weight)


def test_momentum_refuses_other_states() -> None:
    for state in ({}, None, {"beta": 0.5}):
        with pytest.raises(ValueError, match=r"LowRankMomentum\.state_dict"):
            LowRankMomentum().load_state_dict(state)  # type: ignore[arg-type]


def test_momentum_refuses_other_laws_and_steps_twice() -> None:
    with keyed_generators(Key(0)):
        layer = nn.Linear(7, 5)
    x, momentum = torch.ones(1, 7), LowRankMomentum()
    estimate = Seeded().estimate(layer, lambda: layer(x).sum(), Key(0), 2)
    with pytest.raises(TypeError, match="Lozo"):
        apply_(layer, estimate, Descent(0.1), momentum)
    estimate = Seeded("lozo").estimate(layer, lambda: layer(x).sum(), Key(0), 2)
    apply_(layer, estimate, Descent(0.1), momentum)
    with pytest.raises(ValueError, match="step 2 is in already"):
        apply_(layer, estimate, Descent(0.1), momentum)
