"""Random masks with exact counts."""

import numpy as np
import pytest
from torch import nn

from zoo.core.rng import Key, keyed_generators
from zoo.nn.masks import Layers, Masks


def network():
    with keyed_generators(Key(0)):
        return nn.Sequential(
            nn.Conv2d(3, 16, 3),
            nn.BatchNorm2d(16),
            nn.Flatten(),
            nn.Linear(64, 300),
            nn.Linear(300, 7, bias=False),
        )


LAYERS = Layers.of(network())


def test_weights_of_linear_and_convolutional_layers_are_masked_and_nothing_else():
    assert LAYERS.names == ("0.weight", "3.weight", "4.weight")
    assert LAYERS.sizes == (432, 19200, 2100)
    assert len(LAYERS.others) == LAYERS.dim - LAYERS.num_weights == 16 + 16 + 16 + 300
    masks = Masks.uniform(LAYERS, 0.9)
    for period in range(3):
        assert set(LAYERS.others.tolist()) <= set(masks.indices(Key(0), period).tolist())


def test_frozen_layers_are_left_out():
    model = network()
    model[3].weight.requires_grad_(False)
    layers = Layers.of(model)
    assert layers.names == ("0.weight", "4.weight")
    assert layers.dim == LAYERS.dim - 19200


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8, 0.9, 0.99])
def test_counts_are_exact(sparsity):
    masks = Masks.uniform(LAYERS, sparsity)
    assert sum(masks.kept) == round((1 - sparsity) * LAYERS.num_weights)
    assert all(
        abs(density - (1 - sparsity)) <= 1 / size
        for density, size in zip(masks.densities, LAYERS.sizes, strict=True)
    )
    for period in range(4):
        indices = masks.indices(Key(3), period)
        assert len(indices) == masks.num_active == sum(masks.kept) + len(LAYERS.others)
        assert (np.diff(indices) > 0).all()
        counts = [
            int(((indices >= start) & (indices < stop)).sum())
            for start, stop in zip(LAYERS.starts, LAYERS.stops, strict=True)
        ]
        assert tuple(counts) == masks.kept
        assert masks.mask(Key(3), period).sum() == masks.num_active


def test_nine_tenths_of_many_are_nine_tenths():
    masks = Masks.uniform(Layers.whole(100_000), 0.9)
    assert len(masks.indices(Key(0), 0)) == 10_000


def test_ratios_are_those_of_the_layers():
    masks = Masks.of(LAYERS, [0.25, 0.95, 1.0])
    assert masks.kept == (324, 960, 0)
    assert masks.densities == (0.75, 0.05, 0.0)


def test_a_mask_follows_from_key_and_period_alone():
    masks = Masks.uniform(LAYERS, 0.9)
    first = masks.indices(Key(0), 5).tolist()
    assert [masks.indices(Key(0), period).tolist() == first for period in (4, 5, 6)] == [False, True, False]
    assert masks.indices(Key(1), 5).tolist() != first
    again = Masks.uniform(Layers.of(network()), 0.9)
    assert again == masks
    assert again.indices(Key(0), 5).tolist() == first


def test_masks_of_periods_are_independent_and_every_weight_is_as_likely():
    masks, periods = Masks.uniform(Layers.whole(400), 0.9), 1000
    counts = sum(masks.mask(Key(0), period).astype(int) for period in range(periods))
    # Binomial: mean 100 and variance 90 a weight; the sum of squares has mean 400 and deviation 28 or so.
    assert abs((((counts - 100) ** 2) / 90).sum() - 400) < 4 * np.sqrt(2 * 400)
    both = [
        (masks.mask(Key(0), period) & masks.mask(Key(0), period + 1)).sum() for period in range(periods - 1)
    ]
    assert abs(np.mean(both) - 4) < 4 * np.sqrt(3.3 / periods)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (
            lambda: Masks.uniform(LAYERS, 1.0),
            ValueError,
            "`sparsity` must be at least 0 and below 1, got 1.0",
        ),
        (lambda: Masks.uniform(LAYERS, -0.1), ValueError, "`sparsity`"),
        (
            lambda: Masks.uniform(LAYERS, 1 - 1e-9),
            ValueError,
            "this excludes everything.*0.999954 leaves one",
        ),
        (lambda: Masks.of(LAYERS, [1.0, 1.0, 1.0]), ValueError, "this excludes everything"),
        (lambda: Masks.of(LAYERS, [0.5, 0.5]), ValueError, "one number from 0 to 1 for each of 3 layers"),
        (lambda: Masks.of(LAYERS, [0.5, 0.5, 1.5]), ValueError, "from 0 to 1"),
        (lambda: Masks(LAYERS, (1, 2, 3000)), ValueError, r"up to \(432, 19200, 2100\), got \(1, 2, 3000\)"),
        (lambda: Layers(("a",), (3,), (2,), 5), ValueError, "`starts` and `stops` must be those of tensors"),
        (lambda: Layers(("a",), (3,), (9,), 5), ValueError, "inside a vector of 5"),
        (lambda: Layers.of(nn.Sequential(nn.BatchNorm1d(3))), ValueError, "nothing to be sparse in"),
    ],
)
def test_bad_input(make, error, says):
    with pytest.raises(error, match=says):
        make()
