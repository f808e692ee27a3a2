"""Mini-batches that follow from a key and a step."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.core.rng import Key
from zoo.nn.batches import Batches, CropAndFlip

ROWS = torch.arange(10)


def batches(**options: Any) -> Batches:
    return Batches(ROWS.double(), ROWS, **{"batch_size": 4, "key": Key(0), **options})


def epoch(of: Batches, number: int) -> Tensor:
    steps = range(number * of.steps_per_epoch, (number + 1) * of.steps_per_epoch)
    return torch.cat([of.at(step)[1] for step in steps])


def test_an_epoch_sees_every_example_once() -> None:
    of = batches(drop_last=False)
    assert of.steps_per_epoch == 3
    assert [len(of.at(step)[0]) for step in range(4)] == [4, 4, 2, 4]
    for number in range(3):
        assert epoch(of, number).sort().values.tolist() == ROWS.tolist()


def test_what_is_left_over_is_dropped() -> None:
    of = batches()
    assert of.steps_per_epoch == 2
    assert len(epoch(of, 0).unique()) == 8


def test_epochs_are_in_different_orders() -> None:
    of = batches(drop_last=False)
    assert epoch(of, 0).tolist() != epoch(of, 1).tolist() != ROWS.tolist()


def test_a_step_follows_from_the_key_alone() -> None:
    augmented = {"augment": lambda inputs, key: inputs + key.uniform(0, 1, 1)[0, 0]}
    one, two = batches(**augmented), batches(**augmented)
    forwards = [one.at(step) for step in range(6)]
    backwards = [two.at(step) for step in reversed(range(6))][::-1]
    for first, second in zip(forwards, backwards, strict=True):
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
    other = batches(key=Key(1), **augmented)
    assert any(not torch.equal(other.at(step)[1], forwards[step][1]) for step in range(6))


def test_every_order_is_as_likely_as_any_other() -> None:
    of = Batches(ROWS[:3], ROWS[:3], 3, key=Key(4))
    orders, draws = {}, 1200
    for step in range(draws):
        order = tuple(of.at(step)[1].tolist())
        orders[order] = orders.get(order, 0) + 1
    assert len(orders) == 6
    squares = sum((count - draws / 6) ** 2 for count in orders.values()) / (draws / 6)
    assert squares < 20.5  # chi-square with 5 degrees of freedom exceeds it once in a thousand


def test_inputs_and_targets_stay_together_and_as_they_are() -> None:
    inputs, targets = batches().at(5)
    assert inputs.dtype == torch.float64
    assert targets.dtype == torch.int64
    assert torch.equal(inputs.long(), targets)


def test_what_travels_leaves_the_order_behind() -> None:
    of = batches()
    of.at(0)
    twin = pickle.loads(pickle.dumps(of))
    assert twin._order is None
    assert torch.equal(twin.at(3)[1], of.at(3)[1])


def test_augmentation_changes_with_the_step() -> None:
    of = batches(augment=lambda inputs, key: inputs + key.uniform(0, 1, 1)[0, 0])
    shifts = {round(float((inputs - targets)[0]), 9) for inputs, targets in map(of.at, range(5))}
    assert len(shifts) == 5


def test_crops_are_cuts_of_the_framed_image() -> None:
    images = torch.arange(1, 2 * 3 * 4 * 5 + 1).double().view(2, 3, 4, 5).repeat(20, 1, 1, 1)
    fill = (-1.0, -2.0, -3.0)
    cut = CropAndFlip(padding=2, flip=False, fill=fill)(images, Key(0))
    framed = torch.tensor(fill, dtype=torch.double).view(1, 3, 1, 1).repeat(40, 1, 8, 9)
    framed[:, :, 2:6, 2:7] = images
    places = set()
    for number, image in enumerate(cut):
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(framed[number, :, top : top + 4, left : left + 5], image)
        ]
        assert len(found) == 1
        places.update(found)
    assert {top for top, _ in places} == {left for _, left in places} == set(range(5))


def test_flips_are_mirrored_images_or_the_same() -> None:
    images = torch.arange(200.0).view(100, 1, 1, 2)
    out = CropAndFlip(padding=0)(images, Key(0))
    mirrored = (out == images.flip(-1)).flatten(1).all(1)
    assert (mirrored ^ (out == images).flatten(1).all(1)).all()
    assert 30 < int(mirrored.sum()) < 70  # four standard deviations


def test_flips_do_not_follow_from_crops() -> None:
    images = torch.arange(200.0).view(100, 1, 1, 2)
    cropped = CropAndFlip(padding=3, flip=False)(images, Key(0))
    both = CropAndFlip(padding=3)(images, Key(0))
    mirrored = (both == cropped.flip(-1)).flatten(1).all(1)
    assert (mirrored | (both == cropped).flatten(1).all(1)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8, torch.float64])
def test_images_keep_their_dtype(dtype: torch.dtype) -> None:
    assert CropAndFlip(padding=1)(torch.ones(2, 1, 4, 4, dtype=dtype), Key(0)).dtype == dtype


@pytest.mark.gpu
def test_batches_are_the_same_on_a_device() -> None:
    images = torch.arange(40.0 * 3 * 4 * 4).view(40, 3, 4, 4)
    labels = torch.arange(40)
    here = Batches(images, labels, 8, key=Key(0), augment=CropAndFlip(1))
    there = Batches(images.cuda(), labels.cuda(), 8, key=Key(0), augment=CropAndFlip(1))
    for step in (0, 3, 7):
        for one, two in zip(here.at(step), there.at(step), strict=True):
            assert two.is_cuda
            assert torch.equal(one, two.cpu())


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: batches(batch_size=0), ValueError, "`batch_size` must be at least 1, got 0"),
        (lambda: batches(batch_size=11), ValueError, "`batch_size` must be at most 10"),
        (lambda: batches(batch_size=2.0), TypeError, "write 2"),
        (lambda: batches(drop_last=1), TypeError, "`drop_last` must be True or False"),
        (lambda: batches(augment=3), TypeError, "`augment` must be a function"),
        (
            lambda: Batches(ROWS, ROWS[:9], 2, key=Key(0)),
            ValueError,
            "`targets` must be as many as `inputs`, 10",
        ),
        (lambda: Batches([1, 2], ROWS, 2, key=Key(0)), TypeError, "`inputs` must be a tensor, got list"),
        (lambda: Batches(ROWS[:0], ROWS[:0], 2, key=Key(0)), ValueError, "at least one example"),
        (lambda: Batches(ROWS, ROWS.to("meta"), 2, key=Key(0)), ValueError, "on the device of `inputs`, cpu"),
        (lambda: batches().at(-1), ValueError, "`step` must be at least 0"),
        (lambda: batches(augment=lambda x, key: x[:1]).at(0), ValueError, "as many inputs as it is given, 4"),
        (
            lambda: CropAndFlip(fill="a"),
            TypeError,
            "`fill` must be a number, or one for each channel, got 'a'",
        ),
        (lambda: CropAndFlip(fill=math.nan), ValueError, "`fill` must be a finite number"),
        (lambda: CropAndFlip(fill=()), ValueError, "`fill` must be a finite number"),
        (lambda: CropAndFlip(padding=-1), ValueError, "`padding` must be at least 0"),
        (lambda: CropAndFlip(flip="no"), TypeError, "`flip` must be True or False"),
        (lambda: CropAndFlip()(torch.zeros(2, 3), Key(0)), ValueError, r"got \(2, 3\)"),
        (
            lambda: CropAndFlip(fill=(1, 2))(torch.zeros(1, 3, 2, 2), Key(0)),
            ValueError,
            "a number or 3 of them",
        ),
    ],
)
def test_bad_input(call: Callable[[], object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()
