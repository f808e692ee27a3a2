"""Logs of seeds and numbers, and the weights that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.core.errors import RunDirectoryError, ZooWarning
from zoo.core.rng import Key, keyed_generators
from zoo.nn.descent import Descent, SeededSGD, apply_
from zoo.nn.low_rank import Lozo
from zoo.nn.low_rank_momentum import LowRankMomentum
from zoo.nn.seeded import Seeded
from zoo.nn.trajectory import Trajectory, replay_


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    with keyed_generators(Key(0)):
        return nn.Sequential(nn.Linear(5, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)


def loss_of(model: nn.Module, step: int) -> Callable[[], Tensor]:
    like = next(model.parameters()).detach()
    x, y = (Key(1).fold(name, step).normal(0, 8, dim, like=like) for name, dim in (("x", 5), ("y", 3)))
    return lambda: (model(x) - y).float().square().mean()


def bits(model: nn.Module) -> list[bytes]:
    return [p.detach().view(torch.uint8).numpy().tobytes() for p in model.parameters()]


def train(
    model: nn.Module,
    log: Trajectory,
    estimator: Seeded,
    descent: Descent,
    steps: range,
    momentum: LowRankMomentum | None = None,
) -> None:
    for step in steps:
        estimate = estimator.estimate(model, loss_of(model, step), Key(0), step)
        log.append(estimate, apply_(model, estimate, descent, momentum))


WAYS: dict[str, tuple[Seeded, Descent, float | None, torch.dtype]] = {
    "plain": (Seeded(), Descent(lambda step: 0.1 / (1 + step), 0.1), None, torch.float32),
    "double": (Seeded(num_directions=3), Descent(0.1), None, torch.float64),
    "half": (Seeded(smoothing=1e-2), Descent(0.01, 0.1), None, torch.bfloat16),
    "sign": (Seeded(num_directions=2), Descent(0.01, sign=True), None, torch.float32),
    "fzoo": (
        Seeded("rademacher", 4, stencil="forward"),
        Descent(0.01, normalised=True),
        None,
        torch.float32,
    ),
    "subzero": (Seeded("subzero"), Descent(0.01), None, torch.float32),
    "lozo with momentum": (Seeded(Lozo(2, period=3)), Descent(0.05), 0.9, torch.float32),
}


@pytest.mark.parametrize("way", WAYS)
def test_replay_ends_with_the_same_bits(way: str, tmp_path: Path) -> None:
    estimator, descent, beta, dtype = WAYS[way]
    model, again = network(dtype), network(dtype)
    momentum = None if beta is None else LowRankMomentum(beta)
    with Trajectory.create(tmp_path / "log", model, estimator, descent, Key(0), momentum=momentum) as log:
        train(model, log, estimator, descent, range(10), momentum)
    assert bits(model) != bits(again)
    replayed = replay_(again, tmp_path / "log")
    assert bits(model) == bits(again)
    if momentum is not None:
        assert replayed is not None
        theirs = momentum.state_dict()["tensors"]
        for name, tensor in replayed.state_dict()["tensors"].items():
            assert torch.equal(tensor, theirs[name])


def test_log_takes_16_bytes_a_step(tmp_path: Path) -> None:
    model, estimator, descent = network(), Seeded(), Descent(0.01, 0.1)
    with Trajectory.create(tmp_path / "log", model, estimator, descent, Key(0)) as log:
        train(model, log, estimator, descent, range(50))
    assert (tmp_path / "log").stat().st_size <= 16 * 50 + 1024


def test_replay_in_parts_and_going_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    model, estimator, descent = network(), Seeded(), Descent(0.05)
    with Trajectory.create(path, model, estimator, descent, Key(0)) as log:
        train(model, log, estimator, descent, range(6))
    again = network()
    replay_(again, path, stop=4)
    replay_(again, path, start=4)
    assert bits(again) == bits(model)
    with Trajectory(path) as log:
        assert len(log) == 6
        train(again, log, estimator, descent, range(6, 9))
    whole = network()
    replay_(whole, path)
    assert bits(whole) == bits(again)


def test_a_torn_last_record_is_left_out_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    model, estimator, descent = network(), Seeded(), Descent(0.05)
    with Trajectory.create(path, model, estimator, descent, Key(0)) as log:
        train(model, log, estimator, descent, range(3))
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    model = network()
    replay_(model, path)
    with Trajectory(path) as log:
        assert len(log) == 2
        train(model, log, estimator, descent, range(2, 3))
    assert path.read_bytes() == data


def test_damage_is_said_and_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    model, estimator, descent = network(), Seeded(), Descent(0.05)
    with Trajectory.create(path, model, estimator, descent, Key(0)) as log:
        train(model, log, estimator, descent, range(5))
    data = bytearray(path.read_bytes())
    data[-50] ^= 1  # in the last but three
    path.write_bytes(bytes(data))
    with pytest.warns(ZooWarning, match="damaged at step 1"):
        log = Trajectory(path)
    assert len(log) == 1
    estimate = estimator.estimate(model, loss_of(model, 1), Key(0), 1)
    with pytest.raises(RunDirectoryError, match="damaged"):
        log.append(estimate, apply_(model, estimate, descent))
    path.write_bytes(data[:40])
    with pytest.raises(RunDirectoryError, match="head"):
        Trajectory(path)
    path.write_bytes(b"gradfree trajectory 2\n")
    with pytest.raises(RunDirectoryError, match="version"):
        Trajectory(path)
    path.write_bytes(b"something else")
    with pytest.raises(RunDirectoryError, match="not a log"):
        Trajectory(path)


@pytest.mark.parametrize(
    "damage", [lambda tail: bytes(len(tail)), lambda tail: bytes([tail[0] ^ 1]) + tail[1:]]
)
def test_a_damaged_last_record_is_said_and_written_over(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "log"
    model, estimator, descent = network(), Seeded(), Descent(0.05)
    with Trajectory.create(path, model, estimator, descent, Key(0)) as log:
        train(model, log, estimator, descent, range(3))
        size = log._size
    data = path.read_bytes()
    path.write_bytes(data[:-size] + damage(data[-size:]))
    model = network()
    with pytest.warns(ZooWarning, match="last record .* of step 2"):
        replay_(model, path)
    with pytest.warns(ZooWarning, match="last record"):
        log = Trajectory(path)
    with log:
        train(model, log, estimator, descent, range(2, 3))
    assert path.read_bytes() == data


def test_a_log_knows_the_memory_of_its_steps(tmp_path: Path) -> None:
    """Steps with another memory than that on record would be replayed to other weights."""
    model, estimator, descent = network(), Seeded(Lozo(2, 3)), Descent(0.05)
    for name, beta, other in (("none", None, 0.9), ("less", 0.9, 0.5), ("some", 0.9, None)):
        path = tmp_path / name
        momentum, wrong = (None if b is None else LowRankMomentum(b) for b in (beta, other))
        with Trajectory.create(path, model, estimator, descent, Key(0), momentum=momentum) as log:
            with pytest.raises(ValueError, match="momentum"):
                train(network(), log, estimator, descent, range(1), wrong)
            assert len(log) == 0
            train(network(), log, estimator, descent, range(2), momentum)
        if wrong is not None:
            with pytest.raises(ValueError, match="momentum"):
                replay_(network(), path, momentum=wrong)
        if momentum is not None:
            with pytest.raises(ValueError, match="new"):
                replay_(network(), path, momentum=momentum)


def test_a_log_refuses_what_is_no_run(tmp_path: Path) -> None:
    def create(estimator: Any = None, descent: Any = None, key: Any = None, **options: Any) -> None:
        Trajectory.create(
            tmp_path / "log",
            network(),
            estimator or Seeded(),
            descent or Descent(),
            Key(0) if key is None else key,
            **options,
        )

    for first in (1.5, "2", True):
        with pytest.raises(TypeError, match="first"):
            create(first=first)
    with pytest.raises(ValueError, match="first"):
        create(first=-3)
    with pytest.raises(TypeError, match="estimator"):
        create("gaussian")
    with pytest.raises(TypeError, match="update"):
        create(descent=0.1)
    with pytest.raises(TypeError, match="key"):
        create(key=0)
    with pytest.raises(TypeError, match="momentum"):
        create(momentum=0.9)
    assert not list(tmp_path.iterdir())


def test_replay_refuses_other_parameters(tmp_path: Path) -> None:
    path = tmp_path / "log"
    model, estimator, descent = network(), Seeded(), Descent(0.05)
    with Trajectory.create(path, model, estimator, descent, Key(0)) as log:
        train(model, log, estimator, descent, range(2))
    before = bits(model)
    with pytest.raises(ValueError, match="those before step 0"):
        replay_(model, path)
    with pytest.raises(ValueError, match="names, shapes or dtypes"):
        replay_(network(torch.float64), path)
    with pytest.raises(ValueError, match="from 0 to 2"):
        replay_(model, path, start=1, stop=3)
    assert bits(model) == before
    with pytest.raises(FileExistsError):
        Trajectory.create(path, model, estimator, descent, Key(0))


def test_append_refuses_what_the_log_does_not_say(tmp_path: Path) -> None:
    model, estimator, descent = network(), Seeded(), Descent(0.0)
    log = Trajectory.create(tmp_path / "log", model, estimator, descent, Key(0))

    def step(match: str, key: int = 0, number: int = 0, **changed: Any) -> None:
        estimate = changed.get("estimator", estimator).estimate(model, loss_of(model, 0), Key(key), number)
        applied = apply_(model, estimate, changed.get("descent", descent))
        with pytest.raises(ValueError, match=match):
            log.append(estimate, applied)

    step("step 0", number=1)
    step("key", key=1)
    step("law", estimator=Seeded("rademacher"))
    step("num_directions", estimator=Seeded(num_directions=2))
    step("decay", descent=Descent(0.0, 0.1))
    step("sign", descent=Descent(0.0, sign=True))
    assert len(log) == 0
    log.close()


def test_groups_and_schedules_of_torch_are_on_record(tmp_path: Path) -> None:
    def optimizer_of(model: Any) -> SeededSGD:
        groups = [
            {"params": list(model[0].named_parameters()), "lr": 0.1, "weight_decay": 0.5},
            {"params": list(model[3].named_parameters())},
        ]
        return SeededSGD(groups, lr=0.01)

    model, again = network(), network()
    optimizer, estimator = optimizer_of(model), Seeded()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    path = tmp_path / "log"
    for p in model[1].parameters():  # type: ignore[index, union-attr]
        p.requires_grad_(False)
    with Trajectory.create(path, optimizer.parameters, estimator, optimizer.update, Key(0)) as log:
        for step in range(5):
            estimate = estimator.estimate(optimizer.parameters, loss_of(model, step), Key(0), step)
            log.append(estimate, optimizer.step(estimate))
            scheduler.step()
        rates = [step.learning_rates for step in log.steps()]
    assert rates[0] == (0.1, 0.01)
    assert rates[4][0] < rates[3][0] < 0.1
    replay_(optimizer_of(again).parameters, path)
    assert bits(model) == bits(again)
