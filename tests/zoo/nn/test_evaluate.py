"""How a network does on a whole set, and running statistics found out afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.core.rng import Key
from zoo.nn.calibrate import calibrate_
from zoo.nn.evaluate import accuracy, mean_loss
from zoo.nn.losses import cross_entropy, errors
from zoo.nn.models.cnn import deepzero_cnn
from zoo.nn.models.mlp import mlp


def normal(seed: int, *shape: int) -> torch.Tensor:
    drawn = Key(seed).normal(0, 1, torch.Size(shape).numel(), like=torch.zeros(0, dtype=torch.double))
    return drawn.view(shape)


def test_a_mean_does_not_depend_on_the_chunks() -> None:
    model = mlp((4, 3), key=Key(0)).double()
    inputs, targets = normal(0, 10, 4), torch.arange(10) % 3
    expected = float(nn.functional.cross_entropy(model(inputs), targets).detach())
    for chunk in (1, 3, 10, 99):
        assert mean_loss(model, inputs, targets, cross_entropy, chunk=chunk) == pytest.approx(
            expected, rel=1e-14
        )
    right = float((model(inputs).argmax(1) == targets).double().mean())
    assert accuracy(model, inputs, targets, chunk=3) == pytest.approx(right)


def test_evaluation_leaves_modes_and_buffers() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.9).eval())
    seen = []
    model.register_forward_hook(lambda module, inputs, outputs: seen.append(module[0].training))
    inputs = normal(0, 10, 4).float()
    mean_loss(model, inputs, torch.arange(10) % 4, cross_entropy)
    assert seen == [False]
    assert [module.training for module in model] == [True, False]
    assert int(model[0].num_batches_tracked) == 0


def test_modes_come_back_after_an_exception() -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    with pytest.raises(ValueError, match=r"one number for each of 2 examples, got shape \(\)"):
        mean_loss(model, torch.zeros(2, 1), torch.zeros(2), lambda outputs, targets: outputs.mean())
    assert model[0].training


def test_errors_of_sequences_are_means_over_positions() -> None:
    outputs = torch.eye(3)[None].repeat(2, 1, 1)
    targets = torch.tensor([[0, 1, 2], [0, 1, 1]])
    assert errors(outputs, targets).tolist() == pytest.approx([0, 1 / 3])


def test_statistics_by_hand() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.9), nn.BatchNorm2d(3, momentum=0.5)).double()
    parts = [3 + 2 * normal(seed, 5 + seed, 3, 4, 4) for seed in range(3)]
    assert calibrate_(model, iter(parts)) == 3
    whole = torch.cat(parts)
    assert torch.allclose(model[0].running_mean, whole.mean((0, 2, 3)), rtol=1e-12)
    assert torch.allclose(model[0].running_var, whole.transpose(0, 1).flatten(1).var(1), rtol=1e-12)
    # The second layer sees what the first makes of each batch; nothing is dropped between them.
    second = torch.cat([nn.functional.batch_norm(part, None, None, training=True) for part in parts])
    assert torch.allclose(model[2].running_mean, second.mean((0, 2, 3)), atol=1e-12)
    assert torch.allclose(model[2].running_var, second.transpose(0, 1).flatten(1).var(1), rtol=1e-12)
    assert int(model[2].num_batches_tracked) == 3
    assert all(module.training for module in model.modules())


def test_calibration_makes_evaluation_what_training_is() -> None:
    model = deepzero_cnn(2, key=Key(0)).double()
    inputs = normal(1, 64, 3, 8, 8) * 3 + 1
    with torch.no_grad():
        kept = [parameter.clone() for parameter in model.parameters()]
        calibrate_(model, [inputs])
        trained = model(inputs)
        calibrate_(model, [inputs])
        evaluated = model.eval()(inputs)
    # They differ by the divisor of the variance, n - 1 for n of 64 x 8 x 8.
    assert torch.allclose(trained, evaluated, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(one, two) for one, two in zip(kept, model.parameters(), strict=True))


def test_large_means_cost_no_digits() -> None:
    layer = nn.BatchNorm1d(1).double()
    parts = [1e8 + normal(seed, 50, 1) for seed in range(2)]
    calibrate_(layer, parts)
    assert float(layer.running_var) == pytest.approx(float(torch.cat(parts).var()), rel=1e-6)


def test_calibration_that_fails_changes_nothing() -> None:
    layer = nn.BatchNorm1d(2)
    with pytest.raises(ValueError, match="`batches` must hold at least one batch"):
        calibrate_(layer, [])
    with pytest.raises(ValueError, match=r"`batches` must give a BatchNorm1d at least two numbers.* got 1"):
        calibrate_(layer, [normal(0, 4, 2).float() + 5, torch.ones(1, 2)])
    with pytest.raises(RuntimeError):
        calibrate_(layer, [normal(0, 4, 2).float() + 5, torch.zeros(4, 3)])
    assert layer.running_mean.tolist() == [0, 0]
    assert int(layer.num_batches_tracked) == 0
    assert layer.training
    layer.eval()
    with pytest.raises(ValueError, match="`model` must have layers in training mode"):
        calibrate_(layer, [normal(0, 4, 2).float()])


def test_statistics_that_layers_normalize_by_are_kept() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2).eval(), nn.BatchNorm1d(2)).double()
    model[0].running_mean.fill_(3.0)
    inputs = normal(0, 8, 2)
    assert calibrate_(model, [inputs]) == 1
    assert model[0].running_mean.tolist() == [3, 3]
    assert int(model[0].num_batches_tracked) == 0
    assert torch.allclose(model[1].running_mean, inputs.mean(0) - 3, rtol=1e-4)
    assert not model[0].training


@pytest.mark.parametrize("single", [False, True])
def test_statistics_of_instances_are_means_of_theirs(single: bool) -> None:
    layer = nn.InstanceNorm1d(3, track_running_stats=True).double()
    inputs = 4 + 2 * normal(0, 6, 3, 5)
    parts = list(inputs) if single else [inputs[:2], inputs[2:]]
    calibrate_(layer, parts)
    assert torch.allclose(layer.running_mean, inputs.mean((0, 2)), rtol=1e-12)
    assert torch.allclose(layer.running_var, inputs.var(2).mean(0), rtol=1e-12)
    assert layer.running_mean.min() > 3
    assert int(layer.num_batches_tracked) == len(parts)
    with pytest.raises(ValueError, match="`batches` must give a InstanceNorm1d at least two numbers"):
        calibrate_(layer, [inputs[..., :1]])


def test_layers_without_statistics_have_none_to_set() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False))
    assert calibrate_(model, [normal(0, 4, 2).float()]) == 1
    assert model[0].running_mean is None
