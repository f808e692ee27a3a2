"""Updates against their formulas, in numpy and in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zoo.core.device import Like, to_numpy
from zoo.core.state import digest, freeze, thaw
from zoo.updates.adam import Adam
from zoo.updates.adamm import AdaMM
from zoo.updates.chain import Chain
from zoo.updates.clip import Clip
from zoo.updates.clip_up import ClipUp
from zoo.updates.momentum import Momentum
from zoo.updates.sign import Sign

GRADIENTS = np.random.default_rng(0).normal(size=(12, 5))
UPDATES = [
    Chain(),
    Momentum(0.9),
    Adam(),
    AdaMM(),
    Sign(),
    Clip(1.0),
    ClipUp(),
    Chain((Clip(1.0), Momentum(0.5), Sign())),
]
KINDS = [Like(kind, dtype) for kind in ("numpy", "torch") for dtype in ("float32", "float64")]


def directions(update: Any, gradients: Any = GRADIENTS) -> list[Any]:
    memory = update.init(gradients[0])
    out = []
    for gradient in gradients:
        memory, direction = update.update(memory, gradient)
        out.append(direction)
    return out


@pytest.mark.parametrize("update", UPDATES, ids=repr)
@pytest.mark.parametrize("like", KINDS, ids=str)
def test_kind_and_dtype_follow(update: Any, like: Like) -> None:
    found = directions(update, like.asarray(GRADIENTS))
    assert all(Like.of(direction) == like for direction in found)
    expected = np.stack(directions(update))
    np.testing.assert_allclose(
        np.stack([to_numpy(d) for d in found]), expected, rtol=20 * like.epsilon, atol=1e-6
    )


@pytest.mark.parametrize("update", UPDATES, ids=repr)
def test_pure_and_resumed(update: Any) -> None:
    memory = update.init(np.zeros(5))
    for gradient in GRADIENTS:
        before, kept = digest(memory), gradient.copy()
        again = thaw(*freeze(memory))
        first, second = update.update(memory, gradient), update.update(again, gradient)
        assert digest(memory) == before
        assert (gradient == kept).all()
        assert digest(first) == digest(second)
        memory = first[0]


def test_adam_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    parameter = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    reference = torch.optim.Adam([parameter], lr=0.1, betas=(0.8, 0.95), eps=1e-3)
    x = np.zeros(5)
    for gradient, direction in zip(GRADIENTS, directions(Adam(0.8, 0.95, 1e-3)), strict=True):
        parameter.grad = torch.from_numpy(gradient)
        reference.step()
        x = x - 0.1 * direction
    np.testing.assert_allclose(x, parameter.detach().numpy(), rtol=1e-12)


def test_adamm_is_amsgrad_without_its_corrections() -> None:
    torch = pytest.importorskip("torch")
    parameter = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    reference = torch.optim.Adam([parameter], lr=1.0, betas=(0.8, 0.95), eps=1e-12, amsgrad=True)
    fading = GRADIENTS * 0.5 ** np.arange(12)[:, None]
    for step, (gradient, direction) in enumerate(
        zip(fading, directions(AdaMM(0.8, 0.95, 1e-12), fading), strict=True), 1
    ):
        before = parameter.detach().clone()
        parameter.grad = torch.from_numpy(gradient)
        reference.step()
        corrected = direction / (1 - 0.8**step) * np.sqrt(1 - 0.95**step)
        np.testing.assert_allclose(corrected, (before - parameter.detach()).numpy(), rtol=1e-8)


def test_adamm_never_forgets_a_large_gradient() -> None:
    memory, _ = AdaMM(beta2=0.5).update(AdaMM(beta2=0.5).init(np.zeros(2)), np.array([8.0, 0.1]))
    for _ in range(20):
        memory, _ = AdaMM(beta2=0.5).update(memory, np.array([1e-3, 0.1]))
    assert memory.largest[0] == 32.0
    assert memory.second[0] < 1e-4
    assert memory.largest[1] == memory.second[1]


def test_momentum_is_a_sum() -> None:
    weights = 0.9 ** np.arange(12)[::-1]
    np.testing.assert_allclose(directions(Momentum(0.9))[-1], weights @ GRADIENTS)
    assert directions(Momentum(0.0))[3].tolist() == GRADIENTS[3].tolist()


def test_signs_are_elementwise() -> None:
    assert Sign().update(None, np.array([1e-30, -5.0, 0.0]))[1].tolist() == [1.0, -1.0, 0.0]


def test_clip_shortens_only() -> None:
    for gradient, clipped in zip(GRADIENTS, directions(Clip(1.5)), strict=True):
        length = np.linalg.norm(gradient)
        np.testing.assert_allclose(clipped, gradient * min(1, 1.5 / length))


def test_clip_up_is_momentum_of_normalized_gradients_under_a_speed_limit() -> None:
    velocity, lengths = np.zeros(5), []
    for gradient, direction in zip(GRADIENTS, directions(ClipUp(0.8, 0.4)), strict=True):
        velocity = 0.8 * velocity + 0.4 * gradient / np.linalg.norm(gradient)
        velocity /= max(1.0, np.linalg.norm(velocity))
        np.testing.assert_allclose(direction, velocity, rtol=1e-12)
        lengths.append(np.linalg.norm(direction))
    assert min(lengths) < 0.99
    steady = directions(ClipUp(), np.tile(GRADIENTS[0], (12, 1)))
    np.testing.assert_allclose(np.linalg.norm(steady[-1]), 1.0)


@pytest.mark.parametrize("like", KINDS, ids=str)
def test_clip_up_fades_without_a_gradient(like: Like) -> None:
    memory, first = ClipUp().update(like.asarray(np.zeros(3)), like.asarray(np.array([3.0, 0.0, 4.0])))
    _, second = ClipUp().update(memory, like.asarray(np.zeros(3)))
    np.testing.assert_allclose(to_numpy(first), [0.3, 0.0, 0.4], rtol=1e-6)
    np.testing.assert_allclose(to_numpy(second), [0.27, 0.0, 0.36], rtol=1e-6)


def test_chain_is_one_after_another() -> None:
    by_hand = directions(Sign(), np.stack(directions(Momentum(0.5), np.stack(directions(Clip(1.0))))))
    assert np.stack(directions(UPDATES[-1])).tolist() == np.stack(by_hand).tolist()
    assert np.stack(directions(Chain())).tolist() == GRADIENTS.tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Momentum(1.0), "`beta` must be at least 0 and below 1"),
        (lambda: Adam(beta1=-0.1), "`beta1` must be at least 0 and below 1"),
        (lambda: Adam(beta2=1.5), "`beta2` must be at least 0 and below 1"),
        (lambda: Adam(epsilon=0.0), "`epsilon` must be a finite number above 0"),
        (lambda: AdaMM(beta1=1.0), "`beta1` must be at least 0 and below 1"),
        (lambda: AdaMM(beta2=-0.5), "`beta2` must be at least 0 and below 1"),
        (lambda: AdaMM(epsilon=0.0), "`epsilon` must be a finite number above 0"),
        (lambda: Clip(-1.0), "`max_norm` must be a finite number above 0"),
        (lambda: ClipUp(beta=1.0), "`beta` must be at least 0 and below 1"),
        (lambda: ClipUp(step=0.0), "`step` must be a finite number above 0"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
