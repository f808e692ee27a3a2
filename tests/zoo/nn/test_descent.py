"""Steps along seed-coded estimates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo.core.rng import Key, keyed_generators
from zoo.nn.descent import Descent, SeededSGD, apply_
from zoo.nn.seeded import Seeded, SeededEstimate

X = Key(1).normal(0, 6, 5, like=torch.zeros(1, dtype=torch.float64))


def network() -> nn.Sequential:
    with keyed_generators(Key(0)):
        return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 3)).double()


def estimated(model: nn.Module, estimator: Seeded | None = None, params: Any = None) -> SeededEstimate:
    estimator = estimator or Seeded(num_directions=3)
    return estimator.estimate(
        model if params is None else params, lambda: model(X).square().mean(), Key(0), 2
    )


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_signs_move_every_entry_by_the_learning_rate() -> None:
    """The sign is that of the whole estimate, entry by entry; not that of a scalar along its direction."""
    model = network()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((p * 64).round() / 64)  # so that differences are exact
    before, estimate = values(model), estimated(model)
    dense = estimate.dense(model)
    apply_(model, estimate, Descent(2.0**-10, sign=True))
    for (name, p), g in zip(model.named_parameters(), dense, strict=True):
        change = p.detach() - before[name]
        assert (change.abs() == 2.0**-10).all()
        assert torch.equal(change.sign(), -g.sign())


def test_normalised_steps_are_those_of_fzoo() -> None:
    model, n, lr = network(), 8, 0.05
    before = values(model)
    losses: list[float] = []

    def closure() -> Tensor:
        losses.append(float(model(X).square().mean()))
        return torch.tensor(losses[-1])

    estimator = Seeded("rademacher", n, 1e-3, "forward")
    estimate = estimator.estimate(model, lambda: model(X).square().mean(), Key(0), 2)
    again = estimator.estimate(model, closure, Key(0), 2)
    assert (estimate.queries, len(losses)) == (n + 1, n + 1)
    assert again.coefficients == pytest.approx(estimate.coefficients, rel=1e-3)
    spread = float(np.std(losses[1:]))
    wanted = {name: p.clone() for name, p in before.items()}
    for i in range(n):
        for (name, _), u in zip(model.named_parameters(), estimate.direction(model, i), strict=True):
            assert (u.abs() == 1).all()
            wanted[name] -= lr * (losses[1 + i] - losses[0]) / (n * spread) * u
    apply_(model, estimate, Descent(lr, normalised=True))
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), wanted[name], rtol=1e-4, atol=1e-6)


def test_normalised_steps_take_no_notice_of_the_size_of_the_loss() -> None:
    one, two = network(), network()
    estimator = Seeded("rademacher", 4, stencil="forward")
    for model, scale in ((one, 1.0), (two, 2.0**10)):
        estimate = estimator.estimate(model, lambda m=model, s=scale: s * m(X).square().mean(), Key(0), 2)
        apply_(model, estimate, Descent(0.1, normalised=True))
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)


def test_normalised_steps_want_directions_that_differ() -> None:
    model = network()
    with pytest.raises(ValueError, match="at least 2 directions"):
        apply_(model, estimated(model, Seeded()), Descent(0.1, normalised=True))
    weight = torch.ones(3, requires_grad=True)
    flat = Seeded("rademacher", 4).estimate([weight], lambda: 0 * weight.sum(), Key(0), 2)
    assert apply_([weight], flat, Descent(0.1, normalised=True)).moved == 0


def test_decay_is_decoupled_and_spares_vectors() -> None:
    model, lr, decay = network(), 0.1, 0.5
    before, estimate = values(model), estimated(model)
    dense = estimate.dense(model)
    applied = apply_(model, estimate, Descent(lr, decay))
    assert applied.decays == (decay, 0, 0, 0, decay, 0)
    for (name, p), g in zip(model.named_parameters(), dense, strict=True):
        kept = 1 - lr * decay if p.ndim == 2 else 1
        torch.testing.assert_close(p.detach(), kept * before[name] - lr * g, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("decayed", "expected"),
    [("all", (0.5,) * 6), (lambda name, tensor: "1" in name, (0, 0, 0.5, 0.5, 0, 0))],
)
def test_what_decays_can_be_said(decayed: Any, expected: tuple[float, ...]) -> None:
    model = network()
    assert apply_(model, estimated(model), Descent(0.0, 0.5, decayed)).decays == expected


def test_groups_have_rates_and_decays_of_their_own() -> None:
    model = network()
    groups = [{"params": model[0].parameters()}, {"params": model[3].parameters()}]
    params = [{"params": list(group["params"])} for group in groups]
    for p in model[1].parameters():
        p.requires_grad_(False)
    before, estimate = values(model), estimated(model, params=params)
    dense = estimate.dense(params)
    apply_(params, estimate, Descent([0.1, 0.0], [0.5, 0.5]))
    now = values(model)
    torch.testing.assert_close(now["0.weight"], 0.95 * before["0.weight"] - 0.1 * dense[0])
    for name in ("3.weight", "3.bias", "1.weight"):
        assert torch.equal(now[name], before[name])
    with pytest.raises(ValueError, match="each of 2 groups"):
        apply_(params, estimate, Descent([0.1, 0.1, 0.1]))


def test_a_rate_may_be_a_function_of_the_step() -> None:
    model = network()
    estimate = estimated(model)
    assert apply_(model, estimate, Descent(lambda step: 0.1 * step)).learning_rates == (0.2,)
    with pytest.raises(ValueError, match="learning_rate"):
        apply_(model, estimate, Descent(lambda step: -1.0))


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 4),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, [0.1, 0.2], total_steps=5, cycle_momentum=False),
    ],
)
def test_schedulers_of_torch_move_the_rates(scheduler: Any) -> None:
    model = network()
    groups = [
        {"params": list(model[0].named_parameters()), "lr": 0.1},
        {"params": [*model[1].named_parameters(), *model[3].named_parameters()]},
    ]
    optimizer = SeededSGD(groups, lr=0.01)
    reference = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    reference.add_param_group({"params": [torch.zeros(1)], "lr": 0.01})
    ours, theirs = scheduler(optimizer), scheduler(reference)
    for _ in range(4):
        applied = optimizer.step(estimated(model, params=optimizer.parameters))
        assert applied.learning_rates == tuple(group["lr"] for group in reference.param_groups)
        reference.step()
        ours.step()
        theirs.step()


def test_the_optimizer_takes_the_same_steps() -> None:
    one, two = network(), network()
    optimizer = SeededSGD(one.named_parameters(), lr=0.1, weight_decay=0.2)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step(estimated(one, params=optimizer.parameters))
    apply_(two, estimated(two), Descent(0.1, 0.2))
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_share_that_moved_is_reported() -> None:
    model = network()
    assert apply_(model, estimated(model), Descent(0.1)).moved == 1
    assert apply_(model, estimated(model), Descent(1e-30)).moved == 0
    weight = torch.ones(10_000, dtype=torch.bfloat16, requires_grad=True)
    estimate = Seeded(smoothing=0.1).estimate([weight], lambda: weight.float().sum(), Key(0), 2)
    # A tenth of the spacing above 1, a fifth of that below.
    moved = apply_([weight], estimate, Descent(2.0**-7 / 10, sign=True)).moved
    assert 0.13 < moved < 0.17


def test_bad_arguments_are_refused() -> None:
    for arguments, error, match in (
        ({"learning_rate": -1.0}, ValueError, "learning_rate"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay"),
        ({"decayed": "matrix"}, ValueError, "matrices"),
        ({"sign": 1}, TypeError, "sign"),
        ({"sign": True, "normalised": True}, ValueError, "normalised"),
    ):
        with pytest.raises(error, match=match):
            Descent(**arguments)  # type: ignore[arg-type]


def test_steps_refuse_what_is_no_step() -> None:
    model = network()
    estimate: Any = estimated(model)
    before = [p.detach().clone() for p in model.parameters()]
    for name, given in (
        ("estimate", (None, Descent())),
        ("update", (estimate, 0.1)),
        ("memory", (estimate, Descent(), "x")),
    ):
        with pytest.raises(TypeError, match=f"`{name}` must be"):
            apply_(model, *given)
    with pytest.raises(ValueError, match="learning_rate"):
        Descent([])
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
