"""Shaped values against their formulas, with ties and failures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from zoo.updates.shaping import centred_ranks, nes_utilities

NAN = np.nan
SHAPINGS = [centred_ranks, nes_utilities]


def test_centred_ranks_are_evenly_spread() -> None:
    values = np.array([4.0, -1.0, 2.5, 1e300, 3.0])
    assert centred_ranks(values).tolist() == [0.25, -0.5, -0.25, 0.5, 0.0]


@pytest.mark.parametrize("n", [2, 3, 4, 10, 17, 256])
def test_utilities_are_those_of_the_paper(n: int) -> None:
    raw = [max(0.0, math.log(n / 2 + 1) - math.log(k)) for k in range(1, n + 1)]
    expected = [value / sum(raw) - 1 / n for value in raw]
    order = np.random.default_rng(n).permutation(n)
    np.testing.assert_allclose(nes_utilities(order.astype(float)), np.array(expected)[order], atol=1e-16)


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_weights_sum_to_nothing(shaping: Any) -> None:
    generator = np.random.default_rng(0)
    for n in range(1, 40):
        values = generator.integers(0, 10, n).astype(float)
        values[generator.random(n) < 0.3] = NAN
        assert abs(shaping(values).sum()) < 1e-14


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_equal_values_share_what_their_ranks_would_get(shaping: Any) -> None:
    apart = shaping(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    tied = shaping(np.array([2.0, 2.0, 3.0, 5.0, 5.0, 5.0]))
    np.testing.assert_allclose(tied[:3], [apart[:2].mean(), apart[:2].mean(), apart[2]], rtol=1e-14)
    np.testing.assert_allclose(tied[3:], apart[3:].mean(), rtol=1e-14)


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_failures_are_as_if_they_had_not_been_asked_for(shaping: Any) -> None:
    values = np.array([3.0, NAN, 1.0, 2.0, NAN, NAN, 7.0])
    weights = shaping(values)
    valid = np.isfinite(values)
    assert weights[valid].tolist() == shaping(values[valid]).tolist()
    assert (weights[~valid] == 0).all()


@pytest.mark.parametrize("shaping", SHAPINGS)
@pytest.mark.parametrize("values", [[3.0], [NAN], [2.0] * 5, [NAN, 2.0, NAN, 2.0], [NAN] * 3])
def test_nothing_to_choose_from_has_no_weight_at_all(shaping: Any, values: list[float]) -> None:
    assert shaping(np.array(values)).tolist() == [0.0] * len(values)


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_only_the_order_counts(shaping: Any) -> None:
    values = np.random.default_rng(1).normal(size=20)
    assert shaping(values).tobytes() == shaping(np.exp(values)).tobytes() == shaping(7 * values).tobytes()
    kept = values.copy()
    weights = shaping(values)
    weights += 1  # the caller's own
    assert shaping(values).tobytes() != weights.tobytes()
    assert (values == kept).all()
