"""Classifiers that vote on noisy copies of an input, and how far around it their answer is certain to hold.

Randomized smoothing makes of any classifier f, of which only answers are known, another one:

    g(x) = the class that f(x + sigma e) is most often,    e ~ N(0, I).

If f says A with a probability of at least p > 1/2 there, then g says A everywhere within the distance

    sigma Phi^-1(p)

of x, Phi being the distribution function of N(0, 1). The probability is not known; a lower bound of it that
holds with confidence 1 - alpha is, from how often f said A.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.core.rng import Key
from zoo.core.validation import check_count, check_number, check_positive
from zoo.nn.evaluate import evaluating

ABSTAINED = -1
"""The label where votes do not suffice for one."""


@dataclass(frozen=True)
class GaussianNoise:
    """Normal noise on inputs, for training: `Batches(..., augment=GaussianNoise(0.25))`.

    Args:
        sigma: Its standard deviation, in units of the inputs.

    Raises:
        TypeError: `sigma` is no number; or inputs are not of floating point.
        ValueError: `sigma` is not above 0.

    Example:
        >>> noisy = GaussianNoise(0.5)(torch.zeros(1000, 3), Key(0))
        >>> bool(abs(noisy.std() - 0.5) < 0.05)
        True
    """

    sigma: float

    def __post_init__(self) -> None:
        check_positive("sigma", self.sigma)

    def __call__(self, inputs: Tensor, key: Key) -> Tensor:
        """Return inputs (n, ...) with noise that follows from the key; row i of it from i alone."""
        _check_inputs(inputs)
        flat = inputs.flatten(1) if inputs.ndim > 1 else inputs[:, None]
        noise = key.normal(0, *flat.shape, like=inputs)
        return (flat + self.sigma * noise).view(inputs.shape)


@dataclass(frozen=True)
class Share:
    """Which share of some examples is certified at a radius to be classified rightly.

    Attributes:
        radius: In units of the inputs.
        share: From 0 to 1.
        lower: Lower end of an interval for the share among all examples of the kind.
        upper: Its upper end.
    """

    radius: float
    share: float
    lower: float
    upper: float


@dataclass(frozen=True, eq=False)
class Certificates:
    """What is certain about the answers to n inputs, each with confidence 1 - alpha.

    Attributes:
        labels: The class that g names throughout the ball, `ABSTAINED` (-1) where there is none; shape (n,).
        radii: Of the balls, in units of the inputs, in the l2 norm; 0 where there is none; float64.
        bounds: Lower bounds of the probability that f names the class that was guessed; float64.
        votes: How many of the noisy copies f gave that class.
    """

    labels: Tensor
    radii: Tensor
    bounds: Tensor
    votes: Tensor

    def holds(self, targets: Tensor, radius: float) -> Tensor:
        """Return for each input whether g is certified to give it its label up to a radius, shape (n,).

        Where g abstains nothing is certified, also for inputs whose label is -1.
        """
        if not isinstance(targets, Tensor) or targets.shape != self.labels.shape:
            raise ValueError(
                f"`targets` must be a tensor of {len(self.labels)} labels, one for each input, got "
                f"{_described(targets)}."
            )
        right = (self.labels == targets.to(self.labels.device)) & (self.labels != ABSTAINED)
        return right & (self.radii >= _check_radius(radius))

    def accuracy(
        self, targets: Tensor, radii: Sequence[float], *, confidence: float = 0.95
    ) -> tuple[Share, ...]:
        """Return certified accuracy at some radii.

        The interval is that of Clopper and Pearson for a share of n examples drawn independently. It says
        how much the share may differ on other examples, and takes each certificate as it is.

        Args:
            targets: The right labels, shape (n,).
            radii: At least 0 each.
            confidence: That the interval holds the share, at each radius by itself.

        Raises:
            ValueError: There are not as many labels as inputs, a radius is negative, or `confidence` is not
                between 0 and 1.
        """
        _check_alpha("confidence", confidence)
        found = []
        for radius in radii:
            right, count = int(self.holds(targets, radius).sum()), len(self.labels)
            tail = (1 - confidence) / 2
            lower = float(lower_bound(right, count, tail))
            found.append(Share(float(radius), right / count, lower, float(upper_bound(right, count, tail))))
        return tuple(found)


class Smoothed:
    """A classifier g that gives each input the class that another one, f, gives most of its noisy copies.

    Noise follows from a key, the number of an input and that of its copy, and not from what is evaluated
    together. A copy for which f returns a number that is not finite is a vote for no class.

    Args:
        model: The classifier f: a module, which is called in evaluation mode, or any function, from inputs
            (k, ...) to scores (k, classes), the largest of which names the class.
        sigma: Standard deviation of the noise, in units of the inputs. More of it makes larger radii possible
            and answers worse.
        num_samples: Noisy copies of an input that are voted on, n.
        num_guesses: Noisy copies that say beforehand which class is to be certified, n0. With the same votes
            for both the confidence would not hold.
        alpha: Probability with which an answer may be wrong about g, for each input.
        chunk: Most noisy copies that f sees at a time.

    Attributes:
        largest_radius: The radius if all votes agree, sigma Phi^-1(alpha^(1/n)): none is above it.

    Raises:
        TypeError: `model` cannot be called, or a number is of the wrong kind.
        ValueError: A number is out of range, or there are so few samples that nothing could ever be said.

    Note:
        Certificates are about normal noise and exact arithmetic. Noise from a generator and sums in single
        precision are neither, which is not accounted for, as it is not in what is published.

    Example:
        >>> def above(x):
        ...     return torch.cat([x, -x], 1)  # class 0 above 0, class 1 below
        >>> smoothed = Smoothed(above, 0.5, num_samples=1000)
        >>> found = smoothed.certify(torch.tensor([[0.4], [-0.2]]), Key(0))
        >>> found.labels.tolist(), bool((found.radii < torch.tensor([0.4, 0.2])).all())
        ([0, 1], True)

    References:
        Cohen, Rosenfeld and Kolter, "Certified adversarial robustness via randomized smoothing", 2019.
        https://arxiv.org/abs/1902.02918
        Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
        binomial", 1934. https://doi.org/10.1093/biomet/26.4.404
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        sigma: float,
        *,
        num_samples: int = 1000,
        num_guesses: int = 100,
        alpha: float = 1e-3,
        chunk: int = 4096,
    ) -> None:
        if not callable(model) or isinstance(model, type):
            raise TypeError(f"`model` must be a module or a function of inputs, got {model!r}.")
        self.model, self.sigma = model, check_positive("sigma", sigma)
        self.num_samples = check_count("num_samples", num_samples)
        self.num_guesses = check_count("num_guesses", num_guesses)
        self.alpha, self.chunk = _check_alpha("alpha", alpha), check_count("chunk", chunk)
        # Where all votes agree, the bound is to be above a half, and the test at most alpha.
        fewest = math.ceil(math.log2(1 / alpha)) + 1
        if num_samples < fewest:
            raise ValueError(
                f"`num_samples` must be at least {fewest} with `alpha` {alpha!r}, got {num_samples}: from "
                "fewer nothing follows, even where all agree."
            )
        self.largest_radius = float(_radii(self.sigma, lower_bound(num_samples, num_samples, alpha)))

    def votes(self, inputs: Tensor, num: int, key: Key) -> Tensor:
        """Return how many of the noisy copies of each input f gives each class.

        Args:
            inputs: Shape (n, ...), of floating point.
            num: Noisy copies of each.
            key: Of the noise.

        Returns:
            Shape (n, classes), integers, on the device of the inputs. Rows sum to at most `num`.

        Raises:
            TypeError: `inputs` are no tensor of floating point, or `model` returns none.
            ValueError: There are no inputs, or `model` does not return scores of two classes or more for
                each.
        """
        _check_inputs(inputs)
        check_count("num", num)
        flat, count = inputs.flatten(1) if inputs.ndim > 1 else inputs[:, None], len(inputs)
        total = torch.zeros(0, dtype=torch.int64, device=inputs.device)
        classes = 0
        mode = evaluating(self.model) if isinstance(self.model, nn.Module) else contextlib.nullcontext()
        with mode, torch.no_grad():
            for start in range(0, count * num, self.chunk):
                stop = min(start + self.chunk, count * num)
                of = torch.arange(start, stop, device=inputs.device) // num
                copies = flat[of] + self.sigma * key.normal(start, stop, flat.shape[1], like=inputs)
                scores = self.model(copies.view(-1, *inputs.shape[1:]))
                _check_scores(scores, stop - start, classes)
                if not classes:
                    classes = scores.shape[1]
                    total = total.new_zeros(count * classes)
                place = of * classes + scores.argmax(1)
                total += torch.bincount(place[scores.isfinite().all(1)], minlength=count * classes)
        return total.view(count, classes)

    def predict(self, inputs: Tensor, key: Key) -> Tensor:
        """Return what g says, `ABSTAINED` (-1) where votes do not make it sure.

        With the numbers of votes a >= b of the two classes that have most, g is said to say the first if
        2 P(X >= a) <= alpha for X binomial with a + b trials of 1/2. An answer other than g's has probability
        alpha at most.

        Args:
            inputs: Shape (n, ...).
            key: Of the noise.

        Raises:
            TypeError: As in `votes`.
            ValueError: As in `votes`.
        """
        from scipy.special import betainc

        votes = self.votes(inputs, self.num_samples, key.fold("predict"))
        top, labels = votes.topk(2, dim=1)
        a, b = top.double().cpu().numpy().T
        # P(X >= a) is the incomplete beta function at 1/2; with no votes at all, it is 1.
        tails = np.where(a > 0, betainc(np.maximum(a, 1), b + 1, 0.5), 1.0)
        sure = torch.from_numpy(2 * tails <= self.alpha).to(labels.device)
        return torch.where(sure, labels[:, 0], ABSTAINED)

    def certify(self, inputs: Tensor, key: Key) -> Certificates:
        """Return what g says, and how far around each input it says the same.

        The class A that most of n0 noisy copies have is guessed. Of n others, k have it; with the bound
        p = `lower_bound(k, n, alpha)` the label is A and the radius sigma Phi^-1(p) if p > 1/2, and else the
        answer is abstained from. The probability that g says something else than A anywhere within the
        radius is at most alpha.

        Args:
            inputs: Shape (n, ...).
            key: Of the noise.

        Raises:
            TypeError: As in `votes`.
            ValueError: As in `votes`.
        """
        guesses = self.votes(inputs, self.num_guesses, key.fold("guess")).argmax(1)
        votes = self.votes(inputs, self.num_samples, key.fold("certify"))
        votes = votes.gather(1, guesses[:, None])[:, 0]
        bounds = lower_bound(votes.cpu().numpy(), self.num_samples, self.alpha)
        radii = torch.from_numpy(np.where(bounds > 0.5, _radii(self.sigma, bounds), 0.0)).to(guesses.device)
        sure = torch.from_numpy(bounds > 0.5).to(guesses.device)
        labels = torch.where(sure, guesses, ABSTAINED)
        return Certificates(labels, radii, torch.from_numpy(bounds).to(guesses.device), votes)


def lower_bound(successes: Any, trials: Any, alpha: float) -> np.ndarray[Any, Any]:
    """Return Clopper and Pearson's lower bound of a probability, exact for every number of trials.

    The p at which k successes or more of n have probability alpha: the alpha quantile of the beta
    distribution with parameters k and n - k + 1, and 0 for k = 0. Whatever the true probability is, the bound
    is above it with probability alpha at most.

    Args:
        successes: How often it happened, k; a number or an array of them.
        trials: How often it could have, n.
        alpha: Probability that the bound is wrong.

    Raises:
        ValueError: There are more successes than trials, less than 0, or no trials; or `alpha` is not between
            0 and 1.

    Example:
        >>> round(float(lower_bound(1000, 1000, 0.001)), 6) == round(0.001 ** (1 / 1000), 6)
        True
    """
    from scipy.special import betaincinv

    k, n = _check_counts(successes, trials)
    _check_alpha("alpha", alpha)
    bounds = betaincinv(np.maximum(k, 1), n - k + 1, alpha)
    return np.where(k > 0, bounds, 0.0)


def upper_bound(successes: Any, trials: Any, alpha: float) -> np.ndarray[Any, Any]:
    """Return Clopper and Pearson's upper bound of a probability; see `lower_bound`.

    Example:
        >>> float(upper_bound(3, 10, 0.05) + lower_bound(7, 10, 0.05))
        1.0
    """
    k, n = _check_counts(successes, trials)
    return 1 - lower_bound(n - k, n, alpha)


def _radii(sigma: float, bounds: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    from scipy.special import ndtri

    return np.asarray(sigma * ndtri(bounds))


def _check_counts(successes: Any, trials: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    k, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    if not ((n >= 1) & (k >= 0) & (k <= n) & (k == np.floor(k)) & (n == np.floor(n))).all():
        raise ValueError(
            "`successes` must be whole numbers from 0 to `trials`, and `trials` at least 1, got "
            f"{successes!r} of {trials!r}."
        )
    return k, n


def _check_alpha(name: str, value: object) -> float:
    number = check_number(name, value)
    if not 0 < number < 1:
        raise ValueError(f"`{name}` must be above 0 and below 1, got {value!r}.")
    return number


def _check_radius(radius: float) -> float:
    if not 0 <= check_number("radii", radius) < math.inf:
        raise ValueError(f"`radii` must be finite numbers of at least 0, got {radius!r}.")
    return float(radius)


def _check_inputs(inputs: Any) -> None:
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise TypeError(f"`inputs` must be a tensor of floating point, got {_described(inputs)}.")
    if inputs.ndim == 0 or not inputs.numel():
        raise ValueError(f"`inputs` must have the shape (n, ...) and not be empty, got {_described(inputs)}.")


def _check_scores(scores: Any, count: int, classes: int) -> None:
    if not isinstance(scores, Tensor):
        raise TypeError(f"`model` must return a tensor of scores, got {_described(scores)}.")
    if (
        scores.ndim != 2
        or len(scores) != count
        or scores.shape[1] < 2
        or scores.shape[1] != (classes or scores.shape[1])
    ):
        raise ValueError(
            f"`model` must return scores (k, classes) of at least two classes, the same in every call, for "
            f"k = {count} inputs, got {_described(scores)}."
        )


def _described(value: Any) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
