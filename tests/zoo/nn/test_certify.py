"""Randomized smoothing: bounds by exact sums, and linear classifiers, whose radii are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from zoo.core.rng import Key
from zoo.nn.certify import ABSTAINED, Certificates, GaussianNoise, Smoothed, lower_bound, upper_bound
from zoo.nn.initialize import initialized

TRIALS = (1, 2, 7, 50, 400)


def half_spaces(x: Tensor) -> Tensor:
    """Return the scores of two classes that a plane through (.5, 0, 0) separates, unit vectors apart."""
    direction = torch.tensor([2.0, -1.0, 2.0], dtype=x.dtype) / 3
    signed = (x - torch.tensor([0.5, 0.0, 0.0], dtype=x.dtype)) @ direction
    return torch.stack([signed, -signed], 1)


def points(count: int) -> Tensor:
    return Key(5).normal(0, count, 3, like=torch.zeros(0, dtype=torch.float64)) * 0.4


@pytest.mark.parametrize("trials", TRIALS)
@pytest.mark.parametrize("alpha", [0.3, 0.05, 1e-3])
def test_bounds_are_those_of_scipy(trials: int, alpha: float) -> None:
    counts = np.unique(np.linspace(0, trials, 9).round().astype(int))
    for bound, alternative, end in ((lower_bound, "greater", 0), (upper_bound, "less", 1)):
        expected = [
            scipy.stats.binomtest(k, trials, alternative=alternative).proportion_ci(1 - alpha, "exact")[end]
            for k in counts.tolist()
        ]
        assert np.allclose(bound(counts, trials, alpha), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("trials", TRIALS)
@pytest.mark.parametrize("alpha", [0.3, 0.05, 1e-3])
def test_bounds_hold_as_often_as_they_say(trials: int, alpha: float) -> None:
    # Over all outcomes of a binomial experiment, the bound is wrong with probability alpha at most, and for
    # probabilities at which it is just above the truth with all of alpha.
    counts = np.arange(trials + 1)
    bounds = lower_bound(counts, trials, alpha)
    for p in np.concatenate([np.linspace(0.001, 0.999, 97), bounds[1:] - 1e-9]):
        wrong = scipy.stats.binom.pmf(counts, trials, p)[bounds > p].sum()
        assert wrong <= alpha + 1e-9
    for p in bounds[1:]:
        wrong = scipy.stats.binom.pmf(counts, trials, p)[bounds > p - 1e-9].sum()
        assert wrong == pytest.approx(alpha, rel=1e-6)


def test_radii_of_a_plane_are_below_the_distance_and_come_near() -> None:
    x, sigma, alpha, n = points(300), 0.5, 0.05, 2000
    distances = half_spaces(x)[:, 0]
    smoothed = Smoothed(half_spaces, sigma, num_samples=n, alpha=alpha)
    found = smoothed.certify(x, Key(0))
    certain = found.labels != ABSTAINED
    wrong = certain & ((found.labels == 1) != (distances < 0))
    wrong |= found.radii > distances.abs()
    # Each of the 300 fails with probability alpha at most, independently.
    assert int(wrong.sum()) <= scipy.stats.binom.isf(1e-6, len(x), alpha)
    assert int(wrong.sum()) > 0  # as 15 should: the confidence is spent, not thrown away
    # The votes of the right class are binomial: no radius is below what a run of bad luck leaves.
    p = scipy.stats.norm.cdf(distances.abs() / sigma)
    unlucky = lower_bound(scipy.stats.binom.ppf(1e-6, n, p), n, alpha)
    least = np.where(unlucky > 0.5, sigma * scipy.stats.norm.ppf(unlucky), 0)
    far = distances.abs() > 0.7 * sigma  # at which 100 votes guess right
    assert (found.radii.numpy() >= least)[far.numpy()].all()
    assert float((found.radii / distances.abs())[far & (distances.abs() < 2 * sigma)].mean()) > 0.9
    assert float(found.radii.max()) <= smoothed.largest_radius


def test_what_is_certified_is_the_votes() -> None:
    x = points(20)
    smoothed = Smoothed(half_spaces, 0.3, num_samples=500, num_guesses=50, alpha=0.01)
    found = smoothed.certify(x, Key(1))
    guesses = smoothed.votes(x, 50, Key(1).fold("guess")).argmax(1)
    votes = smoothed.votes(x, 500, Key(1).fold("certify"))
    assert torch.equal(found.votes, votes[torch.arange(20), guesses])
    assert np.array_equal(found.bounds.numpy(), lower_bound(found.votes.numpy(), 500, 0.01))
    sure = found.bounds > 0.5
    assert torch.equal(found.labels, torch.where(sure, guesses, ABSTAINED))
    assert 0 < int(sure.sum()) < 20
    radii = 0.3 * scipy.stats.norm.ppf(found.bounds.numpy())
    assert np.allclose(found.radii.numpy(), np.where(sure, radii, 0), rtol=1e-12)
    assert (found.radii[~sure] == 0).all()


def test_votes_do_not_depend_on_chunks() -> None:
    x = points(7).float()
    whole = Smoothed(half_spaces, 0.3).votes(x, 100, Key(0))
    assert whole.sum(1).tolist() == [100] * 7
    for chunk in (1, 33, 100, 699):
        assert torch.equal(Smoothed(half_spaces, 0.3, chunk=chunk).votes(x, 100, Key(0)), whole)
    assert torch.equal(Smoothed(half_spaces, 0.3).votes(x[:3], 100, Key(0)), whole[:3])
    assert not torch.equal(Smoothed(half_spaces, 0.3).votes(x, 100, Key(1)), whole)


def test_predictions_are_those_of_the_test() -> None:
    x = torch.cat(
        [points(100), torch.tensor([[0.5, 0.0, 0.0]], dtype=torch.float64)]
    )  # the last: a half each
    smoothed = Smoothed(half_spaces, 0.5, num_samples=200, alpha=0.01)
    labels = smoothed.predict(x, Key(2))
    for label, (a, b) in zip(
        labels.tolist(), smoothed.votes(x, 200, Key(2).fold("predict")).tolist(), strict=True
    ):
        p = scipy.stats.binomtest(max(a, b), a + b).pvalue
        assert label == (ABSTAINED if p > 0.01 else int(b > a))
    assert labels[-1] == ABSTAINED
    assert 0 < int((labels == ABSTAINED).sum()) < 50


def test_abstention_is_no_certificate() -> None:
    x = torch.tensor([[0.5, 0.0, 0.0]])
    found = Smoothed(half_spaces, 0.5).certify(x, Key(0))
    assert (found.labels.tolist(), found.radii.tolist()) == ([ABSTAINED], [0.0])
    assert not found.holds(torch.tensor([0]), 0.0).item()
    assert not found.holds(torch.tensor([1]), 0.0).item()
    # The number that loaders give what has no label.
    assert not found.holds(torch.tensor([-1]), 0.0).item()
    assert found.accuracy(torch.tensor([-1]), [0.0])[0].share == 0


def test_copies_without_a_finite_score_vote_for_nobody() -> None:
    def broken(x: Tensor) -> Tensor:
        scores = half_spaces(x + 10)
        scores[::2, 1] = torch.nan  # which `argmax` takes for the largest
        return scores

    x = points(3)
    smoothed = Smoothed(broken, 0.1, num_samples=100, num_guesses=10)
    assert smoothed.votes(x, 100, Key(0)).tolist() == [[50, 0]] * 3
    assert smoothed.certify(x, Key(0)).labels.tolist() == [ABSTAINED] * 3

    mute = Smoothed(lambda x: torch.full((len(x), 2), torch.nan), 0.1)
    assert mute.predict(x, Key(0)).tolist() == [ABSTAINED] * 3
    assert mute.certify(x, Key(0)).labels.tolist() == [ABSTAINED] * 3


def test_certified_accuracy_by_hand() -> None:
    def of(labels: list[int], radii: list[float]) -> Certificates:
        return Certificates(torch.tensor(labels), torch.tensor(radii), torch.zeros(4), torch.zeros(4))

    found = of([0, 1, ABSTAINED, 1], [0.5, 0.2, 0.0, 0.9])
    shares = found.accuracy(torch.tensor([0, 1, 1, 0]), (0, 0.2, 0.3, 0.6), confidence=0.9)
    assert [share.share for share in shares] == [0.5, 0.5, 0.25, 0.0]
    assert [share.radius for share in shares] == [0, 0.2, 0.3, 0.6]
    for share in shares:
        expected = scipy.stats.binomtest(round(4 * share.share), 4).proportion_ci(0.9, "exact")
        assert (share.lower, share.upper) == pytest.approx(tuple(expected), abs=1e-12)


def test_models_are_evaluated_and_left_as_they_were() -> None:
    layers = [nn.BatchNorm1d(3), nn.Dropout(0.9), initialized(lambda: nn.Linear(3, 2), Key(0))]
    model = nn.Sequential(*layers)
    x = torch.zeros(4, 3, requires_grad=True)
    votes = Smoothed(model, 0.5, chunk=17).votes(x, 50, Key(0))
    assert votes.sum(1).tolist() == [50] * 4
    assert torch.equal(Smoothed(model.eval(), 0.5, chunk=200).votes(x, 50, Key(0)), votes)
    assert not model.training
    assert int(model[0].num_batches_tracked) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_copies_are_of_the_dtype_and_shape_of_inputs(dtype: torch.dtype) -> None:
    seen: list[tuple[Any, ...]] = []

    def model(x: Tensor) -> Tensor:
        seen.append((x.dtype, *x.shape[1:]))
        return torch.stack([x.flatten(1).sum(1), x.flatten(1)[:, 0]], 1)

    found = Smoothed(model, 0.5, num_samples=50).certify(torch.ones(2, 1, 4, 3, dtype=dtype), Key(0))
    assert set(seen) == {(dtype, 1, 4, 3)}
    assert (found.radii.dtype, found.bounds.dtype, found.labels.dtype) == (
        torch.float64,
        torch.float64,
        torch.int64,
    )


def test_noise_for_training() -> None:
    noise = GaussianNoise(0.25)
    x = torch.ones(5, 2, 40, 40)
    noisy = noise(x, Key(0))
    assert noisy.shape == x.shape
    assert torch.equal(noise(x[:3], Key(0)), noisy[:3])
    assert torch.equal(x, torch.ones_like(x))
    z = ((noisy - 1) / 0.25).double()
    n = z.numel()
    assert abs(float(z.mean())) < 5 / n**0.5
    assert abs(float(z.square().mean()) - 1) < 5 * (2 / n) ** 0.5
    assert noise(torch.zeros(4), Key(0)).shape == (4,)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"model": None}, TypeError, "`model` must be a module or a function"),
        ({"model": nn.Linear}, TypeError, "`model` must be a module or a function"),
        ({"sigma": 0.0}, ValueError, "`sigma` must be a finite number above 0"),
        ({"sigma": "0.5"}, TypeError, "`sigma` must be a number"),
        ({"alpha": 1.0}, ValueError, "`alpha` must be above 0 and below 1"),
        ({"alpha": 0}, ValueError, "`alpha` must be above 0 and below 1"),
        ({"num_samples": 10}, ValueError, r"`num_samples` must be at least 11 with `alpha` 0\.001, got 10"),
        ({"num_samples": 1e3}, TypeError, "write 1000"),
        ({"num_guesses": 0}, ValueError, "`num_guesses` must be at least 1"),
        ({"chunk": 0}, ValueError, "`chunk` must be at least 1"),
    ],
)
def test_bad_settings(change: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Smoothed(**{"model": half_spaces, "sigma": 0.5, **change})


def test_as_few_samples_as_can_say_anything() -> None:
    x = torch.tensor([[10.0, 0.0, 0.0]])
    smoothed = Smoothed(half_spaces, 0.1, num_samples=11, alpha=1e-3)
    found = smoothed.certify(x, Key(0))
    assert found.labels.tolist() == [0]
    assert float(found.radii) == smoothed.largest_radius > 0
    assert smoothed.predict(x, Key(0)).tolist() == [0]


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), TypeError),
        (np.zeros((2, 3)), TypeError),
        (torch.zeros(0, 3), ValueError),
        (torch.zeros(()), ValueError),
    ],
)
def test_bad_inputs(inputs: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="`inputs` must"):
        Smoothed(half_spaces, 0.5).certify(inputs, Key(0))
    with pytest.raises(error, match="`inputs` must"):
        GaussianNoise(0.5)(inputs, Key(0))


@pytest.mark.parametrize(
    ("scores", "error"),
    [
        (lambda x: x.sum(), ValueError),
        (lambda x: x[:, :1], ValueError),
        (lambda x: x[1:], ValueError),
        (lambda x: x.tolist(), TypeError),
        (lambda x: torch.zeros(len(x), 2 + (len(x) < 9)), ValueError),  # another number of classes later on
    ],
)
def test_bad_scores(scores: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="`model` must return"):
        Smoothed(scores, 0.5, chunk=9).votes(torch.zeros(2, 3), 7, Key(0))


@pytest.mark.parametrize(
    ("counts", "alpha", "says"),
    [
        ((3, 2), 0.1, "`successes` must be whole numbers"),
        ((-1, 2), 0.1, "`successes` must be whole numbers"),
        ((0.5, 2), 0.1, "`successes` must be whole numbers"),
        ((0, 0), 0.1, "`trials` at least 1"),
        ((1, 2), 0.0, "`alpha` must be above 0"),
    ],
)
def test_bad_counts(counts: tuple[Any, Any], alpha: float, says: str) -> None:
    for bound in (lower_bound, upper_bound):
        with pytest.raises(ValueError, match=says):
            bound(*counts, alpha)


def test_bad_questions_to_certificates() -> None:
    found = Smoothed(half_spaces, 0.5, num_samples=50).certify(points(3), Key(0))
    with pytest.raises(ValueError, match="`targets` must be a tensor of 3 labels"):
        found.accuracy(torch.zeros(2), (0,))
    with pytest.raises(ValueError, match="`radii` must be finite numbers of at least 0, got -1"):
        found.accuracy(torch.zeros(3), (0, -1))
    with pytest.raises(ValueError, match="`confidence` must be above 0 and below 1"):
        found.accuracy(torch.zeros(3), (0,), confidence=95)
