"""Merging what was observed."""

import numpy as np
import pytest

from evolution.moments import Normalizer, Tally, merged, no_moments
from zoo.core.rng import Key


def rows_of(episodes: list[np.ndarray]) -> np.ndarray:
    """Return the moments of each episode, computed in two passes."""
    found = []
    for episode in episodes:
        mean = episode.mean(0)
        found.append(np.concatenate([[len(episode)], mean, ((episode - mean) ** 2).sum(0)]))
    return np.array(found)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_merged_moments_are_those_of_two_passes(offset: float) -> None:
    episodes = [
        Key(0).fold(i).normal(0, int(n), 5) * (1 + i) + offset for i, n in enumerate([3, 1, 40, 7, 100])
    ]
    everything = np.concatenate(episodes)
    mean = everything.mean(0)
    found = merged(merged(no_moments(5), rows_of(episodes[:2])), rows_of(episodes[2:]))
    assert found[0] == len(everything)
    np.testing.assert_allclose(found[1:6], mean, rtol=1e-10)
    np.testing.assert_allclose(found[6:], ((everything - mean) ** 2).sum(0), rtol=1e-10)


def test_failed_episodes_do_not_count() -> None:
    rows = rows_of([Key(0).normal(0, 4, 2), Key(1).normal(0, 6, 2)])
    with_failed = np.insert(rows, 1, np.nan, axis=0)
    assert np.array_equal(merged(no_moments(2), with_failed), merged(no_moments(2), rows))
    assert np.array_equal(merged(rows[0], np.full((3, 5), np.nan)), rows[0])


def test_a_tally_counts_each_episode_by_itself() -> None:
    observations = Key(2).normal(0, 60, 3).astype(np.float32).reshape(20, 3, 3) + np.float32(100)
    tally = Tally(observations[0])
    alive = np.arange(3)
    rows = {}
    for time in range(20):
        tally.add(observations[time][:, alive])
        if time in (4, 11):  # one of them ends
            rows[int(alive[0])] = tally.rows(np.array([0]))[0]
            alive = alive[1:]
            tally.keep(np.arange(1, len(alive) + 1))
    rows[int(alive[0])] = tally.rows(np.array([0]))[0]
    lengths = {0: 5, 1: 12, 2: 20}
    expected = rows_of([observations[: lengths[e], :, e].astype(np.float64) for e in range(3)])
    np.testing.assert_allclose([rows[e] for e in range(3)], expected, rtol=1e-8)


def test_a_normalizer_scales_and_clips() -> None:
    moments = np.array([100.0, 3.0, 0.0, 400.0, 0.0])
    normalizer = Normalizer.of(moments)
    assert normalizer.deviation.tolist() == pytest.approx([2.0, 0.1])  # variances are at least .01
    seen = normalizer(np.array([[5.0, 1e6], [0.01, -1.0]], np.float32))
    np.testing.assert_allclose(seen, [[1.0, 5.0], [0.1, -5.0]], rtol=1e-6)
    assert seen.dtype == np.float32


def test_without_observations_it_only_clips() -> None:
    normalizer = Normalizer.of(no_moments(2))
    assert normalizer(np.array([[7.0], [-0.5]], np.float32)).tolist() == [[5.0], [-0.5]]
