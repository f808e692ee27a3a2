"""Conservative steps: the lowest of three, and nothing else changes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from zoo.core.rng import Key
from zoo.nn.conservative import conservative_step_


def parameter(dtype: Any = torch.float64) -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.0, -2.0, 0.3], dtype=dtype))


def stepped(x: nn.Parameter, loss: Any, gradient: Any, lr: float = 0.5, **more: Any) -> Any:
    x.grad = torch.as_tensor(gradient, dtype=x.dtype)
    return conservative_step_([x], loss, torch.optim.SGD([x], lr=lr), Key(0), 0, **more)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("sign", "choice"), [(1.0, 1), (-1.0, -1)])
def test_the_lower_side_is_taken(sign: float, choice: int, dtype: Any) -> None:
    x = parameter(dtype)
    done = stepped(x, lambda: x.float().square().sum(), [sign, -2 * sign, 0.0])
    assert done.choice == choice
    assert done.queries == 3
    assert x.tolist()[:2] == [0.5, -1.0]
    assert done.value == float(x.detach().float().square().sum())


def test_a_harmful_step_is_not_taken() -> None:
    x = parameter()
    before = x.detach().clone()
    done = stepped(x, lambda: (x - before).abs().sum(), [1.0, 0.0, 1e-9])
    assert done == (0.0, 0, 3)
    assert torch.equal(x, before)


def test_a_plateau_is_not_left() -> None:
    x = parameter()
    before = x.detach().clone()
    assert stepped(x, lambda: 7.0, [1.0, 1.0, 1.0]) == (7.0, 0, 3)
    assert torch.equal(x, before)


def test_what_fails_is_never_chosen() -> None:
    x = parameter()
    before = x.detach().clone()
    far = lambda: math.nan if x[0] > 1 else -math.inf if x[0] < 1 else 5.0  # noqa: E731
    assert stepped(x, far, [1.0, 0.0, 0.0]).choice == 0
    assert torch.equal(x, before)
    assert stepped(x, lambda: 1.0 if x[0] > 1 else math.nan, [1.0, 0.0, 0.0])[:2] == (1.0, -1)
    everywhere = stepped(parameter(), lambda: math.nan, [1.0, 0.0, 0.0])
    assert math.isnan(everywhere.value)
    assert everywhere.choice == 0


def test_a_known_value_saves_a_query() -> None:
    x = parameter()
    done = stepped(x, lambda: x.square().sum(), [1.0, 0.0, 0.0], value=float(x.detach().square().sum()))
    assert (done.choice, done.queries) == (1, 2)


def test_masks_of_dropout_are_the_same_for_all_three() -> None:
    seen = []
    x = parameter()

    def noisy() -> Any:
        seen.append(torch.rand(4))
        return x.square().sum()

    state = torch.get_rng_state()
    stepped(x, noisy, [1.0, 0.0, 0.0])
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(state, torch.get_rng_state())


def test_parameters_are_put_back_when_the_closure_raises() -> None:
    x = parameter()
    before, calls = x.detach().clone(), []

    def fails() -> Any:
        calls.append(0)
        if len(calls) == 3:
            raise KeyError("third")
        return -float(len(calls))

    with pytest.raises(KeyError):
        stepped(x, fails, [1.0, 1.0, 1.0])
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"closure": 1.0}, TypeError, "`closure` must be a function"),
        ({"optimizer": "sgd"}, TypeError, "`optimizer` must be an optimizer of torch"),
        ({"key": 0}, TypeError, "`key` must be a Key"),
        ({"step": -1}, ValueError, "`step` must be"),
        ({"value": "a"}, TypeError, "`value` must be a number.*got 'a'"),
        ({"value": True}, TypeError, "`value` must be a number.*got True"),
        (
            {"optimizer": torch.optim.SGD([parameter(), parameter()], lr=1.0)},
            ValueError,
            "`optimizer` must be one of `params` alone, got 2 trainable parameters more",
        ),
        ({"closure": lambda: torch.zeros(2)}, ValueError, "`closure` must return a single number"),
    ],
)
def test_wrong_arguments(change: Any, error: Any, message: str) -> None:
    x = parameter()
    given = {
        "params": [x],
        "closure": lambda: 0.0,
        "optimizer": torch.optim.SGD([x], lr=1.0),
        "key": Key(0),
        "step": 0,
    }
    with pytest.raises(error, match=message):
        conservative_step_(**{**given, **change})


def test_a_closure_that_writes_to_a_parameter() -> None:
    x = parameter()
    before = x.detach().clone()

    def closure() -> Any:
        with torch.no_grad():
            return x.clamp_(-0.1, 0.1).sum()

    with pytest.raises(RuntimeError, match="the closure wrote to the parameter '0'"):
        stepped(x, closure, [1.0, 1.0, 1.0])
    assert torch.equal(x, before)


def test_an_autocast_around_is_as_one_inside() -> None:
    """It keeps casts of parameters, which do not see that these were moved."""
    x = nn.Parameter(torch.eye(2))

    def closure() -> Any:
        return (x @ torch.ones(2, 2)).float().square().sum()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert stepped(x, closure, torch.eye(2)).choice == 1
    assert torch.equal(x, torch.eye(2) / 2)
