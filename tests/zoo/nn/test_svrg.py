"""SVRG against its identities."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from zoo.core.rng import Key
from zoo.estimators.finite_difference import FiniteDifference
from zoo.nn.gradient import Estimator, estimate_gradient_
from zoo.nn.parameters import Parameters
from zoo.nn.svrg import SVRG

BATCHES = 5
CENTRES = torch.randn(BATCHES, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
RANDOM = FiniteDifference("gaussian", 2, 1e-3)
EXACT = FiniteDifference("axes", None, 1e-3)


class Sum(nn.Module):
    """Quadratic losses, one for each batch, that share their Hessian and differ in their minimum."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.arange(6.0, dtype=torch.float64))
        self.calls = 0

    def forward(self, batch: int | None = None) -> torch.Tensor:
        self.calls += 1
        each = ((self.x - CENTRES) ** 2).sum(1)
        return each.mean() if batch is None else each[batch]

    def gradient(self) -> torch.Tensor:
        return 2 * (self.x.detach() - CENTRES.mean(0))


def step_(problem: Sum, svrg: SVRG, step: int, key: Any = None) -> Any:
    key = Key(0) if key is None else key
    return svrg.estimate_(problem, lambda: problem(step % BATCHES), problem, key, step)


@pytest.mark.parametrize("estimator", [RANDOM, EXACT], ids=["random", "axes"])
def test_close_to_an_anchor_neither_batch_nor_directions_are_noise(estimator: Any) -> None:
    """All batches have the same Hessian: what is left is the directions' error of Hessian times distance."""
    problem, svrg = Sum(), SVRG(estimator, 100, BATCHES, full=EXACT)
    estimate = step_(problem, svrg, 0)
    torch.testing.assert_close(estimate.gradient, problem.gradient(), rtol=0, atol=1e-8)
    anchor = problem.x.detach().clone()
    errors = []
    for distance in (0.0, 1e-3, 1.0):
        with torch.no_grad():
            problem.x.copy_(anchor + distance)
        estimate = step_(problem, svrg, 1)
        assert problem.x.grad is not None
        assert torch.equal(problem.x.grad, estimate.gradient)
        assert torch.equal(problem.x.detach(), anchor + distance)
        errors.append(float((estimate.gradient - problem.gradient()).norm()))
    assert errors[0] < 1e-8
    if estimator is EXACT:
        assert max(errors) < 1e-8
    else:
        assert errors[1] == pytest.approx(1e-3 * errors[2], rel=1e-3)


def test_it_is_the_difference_of_two_estimates_on_the_same_directions() -> None:
    problem, svrg = Sum(), SVRG(RANDOM, 3, BATCHES)
    first = step_(problem, svrg, 0).gradient
    anchor = problem.x.detach().clone()
    parts = []
    for place in (anchor + torch.linspace(0, 1, 6), anchor):
        with torch.no_grad():
            problem.x.copy_(place)
        parts.append(estimate_gradient_(problem, lambda: problem(1), RANDOM, Key(0), 1).gradient)
    with torch.no_grad():
        problem.x.copy_(anchor + torch.linspace(0, 1, 6))
    found = step_(problem, svrg, 1).gradient
    torch.testing.assert_close(found, parts[0] - parts[1] + first, rtol=1e-12, atol=1e-12)


def test_queries_are_mini_batches() -> None:
    problem, svrg = Sum(), SVRG(RANDOM, 4, BATCHES, full=EXACT)
    found = [step_(problem, svrg, step).queries for step in range(2000, 2006)]
    # Every step a thousand and the one after evaluate one more point.
    assert found == [BATCHES * 13, 2 * 5, 2 * 4, 2 * 4, BATCHES * 12, 2 * 4]
    assert svrg.queries == sum(found)
    assert problem.calls == 13 + 10 + 8 + 8 + 12 + 8


def test_it_goes_on_from_what_was_saved() -> None:
    problem, svrg = Sum(), SVRG(RANDOM, 10, BATCHES)
    step_(problem, svrg, 0)
    with torch.no_grad():
        problem.x.add_(0.25)
    again = SVRG(RANDOM, 10, BATCHES)
    again.load_state_dict(copy.deepcopy(svrg.state_dict()))
    assert torch.equal(step_(problem, svrg, 1).gradient, step_(problem, again, 1).gradient)
    assert again.queries == svrg.queries
    with pytest.raises(ValueError, match="`state_dict` must be what"):
        again.load_state_dict({"queries": 1})


@pytest.mark.filterwarnings("ignore:every difference of the step failed")
def test_half_an_answer_is_none() -> None:
    problem, svrg = Sum(), SVRG(RANDOM, 10, BATCHES)
    step_(problem, svrg, 0)
    anchor = problem.x.detach().clone()
    with torch.no_grad():
        problem.x.add_(0.25)

    def only_here() -> Any:
        return problem(1) if (problem.x - anchor).abs().max() > 0.1 else float("nan")

    estimate = svrg.estimate_(problem, only_here, problem, Key(0), 2)
    assert estimate.num_valid == 0
    assert not estimate.gradient.any()
    assert torch.equal(problem.x.detach(), anchor + 0.25)


def test_parameters_are_put_back_when_a_closure_raises() -> None:
    problem, svrg = Sum(), SVRG(RANDOM, 10, BATCHES)
    step_(problem, svrg, 0)
    anchor = problem.x.detach().clone()
    with torch.no_grad():
        problem.x.add_(0.25)

    def only_here() -> Any:
        if (problem.x - anchor).abs().max() < 0.1:
            raise KeyError("elsewhere")
        return problem(1)

    with pytest.raises(KeyError):
        svrg.estimate_(problem, only_here, problem, Key(0), 2)
    assert torch.equal(problem.x.detach(), anchor + 0.25)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SVRG("gaussian", 1, 1), TypeError, "`estimator` must be a FiniteDifference"),  # type: ignore
        (lambda: SVRG(Estimator(RANDOM), 1, 1), TypeError, "`estimator` must be"),  # type: ignore
        (lambda: SVRG(RANDOM, 0, 1), ValueError, "`period` must be"),
        (lambda: SVRG(RANDOM, 1, 0), ValueError, "`batches` must be"),
        (lambda: SVRG(RANDOM, 1, 1, full=FiniteDifference()), ValueError, "`full` must have a number"),
        (
            lambda: step_(Sum(), SVRG(FiniteDifference("guided", 1, 0.1), 1, 1), 0),
            ValueError,
            "`estimator` must have a law without memory",
        ),
    ],
)
def test_wrong_arguments(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_other_parameters_than_the_anchors_are_refused() -> None:
    problem, svrg = Sum(), SVRG(RANDOM, 10, BATCHES)
    step_(problem, svrg, 0)
    fewer = Parameters([nn.Parameter(torch.zeros(2))])
    with pytest.raises(ValueError, match="`params` must be 6 numbers as at the anchor, got 2"):
        svrg.estimate_(fewer, lambda: 0.0, lambda: 0.0, Key(0), 1)


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"batch": None}, TypeError, "`batch` must be a function that returns the loss, got None"),
        ({"full": 1.0}, TypeError, "`full` must be a function that returns the loss, got 1.0"),
        ({"key": 0}, TypeError, "`key` must be a Key"),
        ({"step": -1}, ValueError, "`step` must be at least 0"),
        ({"step": "1"}, TypeError, "`step` must be an integer"),
    ],
)
def test_wrong_arguments_of_a_step(change: Any, error: Any, message: str, at: int) -> None:
    problem, svrg = Sum(), SVRG(RANDOM, 10, BATCHES)
    if at:
        step_(problem, svrg, 0)
    given = {"batch": lambda: 0.0, "full": lambda: 0.0, "key": Key(0), "step": at}
    with pytest.raises(error, match=message):
        svrg.estimate_(Parameters([nn.Parameter(torch.zeros(6))]), **{**given, **change})
