"""What full and separable CMA-ES share: weights and rates, boundaries, ranking, when to stop."""

from __future__ import annotations

import abc
import functools
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from zoo.core.bounds import MODES, Bounds
from zoo.core.device import Array, Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import Log, state
from zoo.core.types import Evaluations, Known
from zoo.core.validation import check_choice, check_count, check_flag, check_number, check_positive
from zoo.methods.margin import kept_near, num_discrete, widened

Matrix = np.ndarray[Any, Any]

CHECK_EVERY = 10  # steps between two looks at the stopping rules, which cost more than a small step
SMALLEST, LARGEST = 1e-150, 1e150  # where sigma is held, so that a run that nobody stops stays finite


class Rates(NamedTuple):
    """Constants of a run, the last ones derived so that no step need do it again.

    Attributes:
        dim: Number of coordinates.
        population_size: Candidates of a step.
        mu: Parents: those of positive weight.
        weights: By rank; the first `mu` sum to 1, the others are negative.
        mass: Effective number of parents.
        path_sigma: Learning rate of the path of sigma.
        path_c: Learning rate of the path of the covariance.
        rank_one: Learning rate of the covariance from its path.
        rank_mu: Learning rate of the covariance from the steps.
        damping: Of sigma.
        length: Expected length of a standard normal vector.
        window: Steps over which values are compared for stopping.
        period: Steps between two factorizations.
        parents: `weights`, but 0 where they are negative.
        keep_sigma: What the path of sigma is multiplied by.
        gain_sigma: Share of a step in it.
        keep_c: What the path of the covariance is multiplied by.
        gain_c: Share of a step in it.
        speed: Change of log sigma where the path of sigma is twice as long as expected.
        decay: What the covariance is multiplied by.
        spared: What is added to `decay` while the path of the covariance waits.
        root_path: Square root of the share of the path's square in the covariance.
        roots: By rank, square roots of the shares of the parents' squares; 0 for the others.
        roots_minus: For the others, of what is taken away of their squares over |z|^2; 0 for the parents.
    """

    dim: int
    population_size: int
    mu: int
    weights: Matrix
    mass: float
    path_sigma: float
    path_c: float
    rank_one: float
    rank_mu: float
    damping: float
    length: float
    window: int
    period: int
    parents: Matrix
    keep_sigma: float
    gain_sigma: float
    keep_c: float
    gain_c: float
    speed: float
    decay: float
    spared: float
    root_path: float
    roots: Matrix
    roots_minus: Matrix

    def without(self, failed: int) -> Rates:
        """Return the constants of a step whose last `failed` ranks have no vote."""
        valid = np.arange(self.population_size) < self.population_size - failed
        weights = np.where(valid, self.weights, 0.0)
        return self._replace(
            weights=weights,
            parents=np.where(valid, self.parents, 0.0),
            decay=1 - self.rank_one - self.rank_mu * float(weights.sum()),
            roots=np.where(valid, self.roots, 0.0),
            roots_minus=np.where(valid, self.roots_minus, 0.0),
        )


@functools.lru_cache(maxsize=256)
def rates(dim: int, population_size: int | None, active: bool, separable: bool) -> Rates:
    """Return the default constants for a dimension and a population size.

    Sources: N. Hansen, The CMA Evolution Strategy: A Tutorial, 2016, https://arxiv.org/abs/1604.00772,
    table 1; for the separable rates, (dim + 2) / 3 times the full ones, R. Ros and N. Hansen, A Simple
    Modification in CMA-ES Achieving Linear Time and Space Complexity, 2008,
    https://inria.hal.science/inria-00287367.
    """
    n = population_size or 4 + int(3 * math.log(dim))
    raw = math.log((n + 1) / 2) - np.log(np.arange(1, n + 1))
    mu = n // 2
    plus, minus = raw[:mu], raw[mu:]
    mass = float(plus.sum() ** 2 / (plus**2).sum())
    mass_minus = float(minus.sum() ** 2 / (minus**2).sum())
    rank_one = min(1.0, n / 6) * 2 / ((dim + 1.3) ** 2 + mass)
    rank_mu = min(1 - rank_one, 2 * (0.25 + mass + 1 / mass - 2) / ((dim + 2) ** 2 + mass))
    if separable:
        faster = (dim + 2) / 3
        rank_one = min(1.0, faster * rank_one)
        rank_mu = min(1 - rank_one, faster * rank_mu)
    weights = np.where(raw > 0, raw, 0.0) / plus.sum()
    if active and rank_mu > 0:
        balanced, supported = 1 + rank_one / rank_mu, 1 + 2 * mass_minus / (mass + 2)
        positive = (1 - rank_one - rank_mu) / (dim * rank_mu)  # more could make the covariance indefinite
        most = min(balanced, supported, positive)
        weights[mu:] = most * minus / np.abs(minus).sum()
    path_sigma = (mass + 2) / (dim + mass + 3)
    path_c = (4 + mass / dim) / (dim + 4 + 2 * mass / dim)
    damping = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (dim + 1)) - 1) + path_sigma
    weights.flags.writeable = False
    return Rates(
        dim=dim,
        population_size=n,
        mu=mu,
        weights=weights,
        mass=mass,
        path_sigma=path_sigma,
        path_c=path_c,
        rank_one=rank_one,
        rank_mu=rank_mu,
        damping=damping,
        length=math.sqrt(dim) * (1 - 1 / (4 * dim) + 1 / (21 * dim**2)),
        window=10 + math.ceil(30 * dim / n),
        period=max(1, int(0.1 / ((rank_one + rank_mu) * dim))),
        parents=np.maximum(weights, 0.0),
        keep_sigma=1 - path_sigma,
        gain_sigma=math.sqrt(path_sigma * (2 - path_sigma) * mass),
        keep_c=1 - path_c,
        gain_c=math.sqrt(path_c * (2 - path_c) * mass),
        speed=path_sigma / damping,
        decay=1 - rank_one - rank_mu * float(weights.sum()),
        spared=rank_one * path_c * (2 - path_c),
        root_path=math.sqrt(rank_one),
        roots=np.sqrt(rank_mu * np.maximum(weights, 0.0)),
        roots_minus=np.sqrt(dim * rank_mu * np.maximum(-weights, 0.0)),
    )


@state
class Frame:
    """What a run was begun with and keeps."""

    key: Key
    like: Like
    bounds: Bounds | None
    scale: Matrix
    budget: int | None


@state
class CMAState:
    """The part of a state that both kinds have.

    Attributes:
        frame: What the run was begun with.
        step: Steps told.
        nfev: Evaluations told.
        mean: Shape (dim,), before the boundary map.
        sigma: Overall standard deviation, in units of `scale` as are the paths and the covariance.
        path_sigma: Path of the steps made isotropic.
        path_c: Path of the steps.
        history: Best and median value of each step, one after the other.
        spread: Largest minus smallest value of the last step.
        condition: Condition number of the covariance, estimated every few steps.
    """

    frame: Frame
    step: int
    nfev: int
    mean: Matrix
    sigma: float
    path_sigma: Matrix
    path_c: Matrix
    history: Log
    spread: float
    condition: float


class Ranking(NamedTuple):
    """A step's values in order.

    Attributes:
        rates: The run's constants, with 0 for the weights of failed rows.
        order: Row of each rank.
        best: Least value, NaN where all failed.
        median: Median of the valid ones.
        spread: Largest minus least value, infinite if any failed.
    """

    rates: Rates
    order: Matrix
    best: float
    median: float
    spread: float


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters that all kinds have; see `zoo.methods.cma_es.CMAES` for their meaning."""

    population_size: int | None = None
    sigma: float = 1.0
    active: bool = True
    boundary: str = "smooth"
    tolx: float = 1e-11
    tolfun: float = 1e-11
    tolfunhist: float = 1e-12
    tolfacupx: float = 1e10
    tolupsigma: float = 1e20
    tolstagnation: int | None = None
    tolconditioncov: float = 1e14

    def __post_init__(self) -> None:
        if self.population_size is not None:
            check_count("population_size", self.population_size, minimum=2)
        check_positive("sigma", self.sigma)
        check_flag("active", self.active)
        check_choice("boundary", self.boundary, MODES)
        for name in ("tolx", "tolfun", "tolfunhist"):
            if not check_number(name, getattr(self, name)) >= 0:
                raise ValueError(f"`{name}` must be at least 0 (0 never stops), got {getattr(self, name)!r}.")
        for name in ("tolfacupx", "tolupsigma", "tolconditioncov"):
            if not check_number(name, getattr(self, name)) > 1:
                raise ValueError(f"`{name}` must be above 1 (inf never stops), got {getattr(self, name)!r}.")
        if self.tolstagnation is not None:
            check_count("tolstagnation", self.tolstagnation, minimum=0)

    def _place(self, frame: Frame, u: Matrix) -> Array:
        """Take points of the whole space into the box, as arrays of the user's kind."""
        if frame.bounds is None:
            return frame.like.asarray(u)
        x = frame.like.asarray(frame.bounds.map(u, self.boundary))
        # Rounding to a shorter dtype may have led outside again.
        return x if frame.like.dtype == "float64" else frame.bounds.map(x, "clip")


@dataclass(frozen=True)
class CMABase(Settings, abc.ABC):
    """Rules common to full and separable CMA-ES."""

    recommends_evaluated = False
    compares_within_steps = True

    def recommend(self, state: Any) -> Array:
        """Return the mean of the distribution, taken into the box."""
        return self._place(state.frame, state.mean.copy())  # the caller's to write to

    def finished(self, state: Any) -> str | None:
        """Return which stopping rule holds, in words, or None."""
        if state.frame.budget is not None and state.nfev >= state.frame.budget:
            return f"the budget of {state.frame.budget} evaluations is used up"
        return None if state.step == 0 or state.step % CHECK_EVERY else self.converged(state)

    def converged(self, state: Any) -> str | None:
        """Return which rule says that going on makes no sense, in words, or None.

        `finished` asks every tenth step, and is the one that knows the budget.
        """
        return self._values_say(state, self._rates(state)) or self._shape_says(state, *self._shape(state))

    def diagnostics(self, state: Any) -> dict[str, Any]:
        """Return sigma, the smallest and largest deviation of a coordinate, and the condition number."""
        deviations = state.sigma * self._shape(state)[0] * state.frame.scale
        return {
            "sigma": state.sigma,
            "smallest_deviation": float(deviations.min()),
            "largest_deviation": float(deviations.max()),
            "condition": state.condition,
        }

    @abc.abstractmethod
    def _rates(self, state: Any) -> Rates:
        """Return the constants of the run."""

    @abc.abstractmethod
    def _shape(self, state: Any) -> tuple[Matrix, Matrix | None]:
        """Return the coordinates' deviations in units of scale and sigma, and an axis in units of sigma.

        The axis is None where axes are coordinates.
        """

    def _frame(
        self, x0: Array, key: Key, bounds: Bounds | None, scale: Any, budget: int | None
    ) -> tuple[Frame, Matrix]:
        """Return what stays, and the first mean: the point that the boundary map takes to `x0`."""
        start = np.array(to_numpy(x0), np.float64)
        if start.ndim != 1 or not len(start):
            raise ValueError(f"`x0` must have shape (dim,), got {start.shape}.")
        spread = np.array(np.broadcast_to(np.asarray(scale, np.float64), start.shape))
        if not (np.isfinite(spread).all() and (spread > 0).all()):
            raise ValueError(f"`scale` must be finite and above 0 everywhere, got {scale!r}.")
        mean: Matrix = start if bounds is None else to_numpy(bounds.inverse(start, self.boundary))
        return Frame(key=key, like=Like.of(x0), bounds=bounds, scale=spread, budget=budget), mean

    def _learnt(self, frame: Frame, known: Known) -> tuple[Matrix, Matrix, float]:
        """Return what known points say of where to begin; see `zoo.methods.cma_es.CMAES`.

        Returns:
            The mean, shape (dim,); the steps from there to the best points, divided by the root of their
            number k, shape (k, dim), in units of `scale` and the first sigma; the deviation, in these
            units, that there is in every direction beside them.
        """
        dim = len(frame.scale)
        if known.points.shape[1] != dim:
            raise ValueError(f"`known` must hold points of {dim} variables, got {known.points.shape[1]}.")
        order = known.order
        count = max(1, len(order) // 10)
        best = known.points[order[:count]]
        if frame.bounds is not None:
            best = to_numpy(frame.bounds.inverse(frame.bounds.map(best, "clip"), self.boundary))
        mean = best[0] + (best - best[0]).mean(0)  # to the last digit where all are the same
        steps = (best - mean) / (math.sqrt(count) * self.sigma * frame.scale)
        return mean, steps, max(0.1, 1 / count)

    def _spread(self, state: Any) -> Matrix:
        """Return what steps in units of sigma and scale are multiplied by, per coordinate."""
        frame = state.frame
        spread: Matrix = state.sigma * frame.scale
        if frame.bounds is None or frame.bounds.grid is None:
            return spread
        deviations, n = self._shape(state)[0], self._rates(state).population_size
        wide = widened(frame.bounds, self.boundary, state.mean, spread * deviations, 1 / (n * len(spread)))
        return wide / deviations

    def _within_margin(self, state: Any) -> Any:
        """Return the state with a mean from which discrete coordinates still reach other values."""
        frame = state.frame
        if frame.bounds is None or frame.bounds.grid is None:
            return state
        spread, n = state.sigma * frame.scale * self._shape(state)[0], self._rates(state).population_size
        mean = kept_near(frame.bounds, self.boundary, state.mean, spread, 1 / (n * len(spread)))
        return replace(state, mean=mean)

    def _count(self, state: CMAState, population_size: int) -> int:
        """Return how many candidates this step has: the last one is cut to the budget."""
        budget = state.frame.budget
        return population_size if budget is None else max(0, min(population_size, budget - state.nfev))

    def _rank(self, state: CMAState, r: Rates, evaluations: Evaluations) -> Ranking:
        """Order a step's values.

        Failed rows come last with weight 0: they vote neither for nor against their direction, as if
        they had been at the mean. Rows that the budget left out count as failed.
        """
        values, n = evaluations.values, r.population_size
        expected = self._count(state, n)
        if len(values) != expected:
            raise ValueError(f"`evaluations` must hold the {expected} values asked for, got {len(values)}.")
        if expected < n:
            values = np.concatenate([values, np.full(n - expected, np.nan)])
        order = values.argsort(kind="stable")  # NaN last; rows of equal value in the order they were asked
        best, worst = float(values[order[0]]), float(values[order[-1]])
        if worst == worst:
            return Ranking(r, order, best, float(values[order[n // 2]]), worst - best)
        failed = int(np.count_nonzero(values != values))
        return Ranking(r.without(failed), order, best, float(values[order[(n - failed) // 2]]), math.inf)

    def _next_sigma(self, state: CMAState, r: Rates, z_mean: Matrix) -> tuple[Matrix, float, bool]:
        """Return the path of sigma, sigma, and whether the path is so long that the other one is to wait."""
        path = r.keep_sigma * state.path_sigma
        path += r.gain_sigma * z_mean
        length = math.sqrt(path.dot(path)) / r.length
        change = r.speed * (length - 1)
        sigma = min(max(state.sigma * math.exp(min(1.0, change)), SMALLEST), LARGEST)
        usual = math.sqrt(1 - r.keep_sigma ** (2 * (state.step + 1)))
        return path, sigma, length / usual > 1.4 + 2 / (r.dim + 1)

    def _values_say(self, state: CMAState, r: Rates) -> str | None:
        history = state.history.array.reshape(-1, 2)
        # Equal values say little of discrete coordinates before each of them has been changed several times.
        window = r.window + 10 * num_discrete(state.frame.bounds)
        if len(history) >= window:
            recent = history[-window:, 0]
            spread, steps = float(recent.max()) - float(recent.min()), f"the last {window} steps"
            if spread == 0 and state.spread == 0 and self.tolfun > 0:
                return f"flat: all values of the last step and the best ones of {steps} are equal"
            if spread < self.tolfun and state.spread < self.tolfun:
                return f"tolfun: values within a step and over {steps} differ by less than {self.tolfun}"
            if spread < self.tolfunhist:
                return f"tolfunhist: the best values of {steps} differ by less than {self.tolfunhist}"
        return self._stagnates(history, r)

    def _stagnates(self, history: Matrix, r: Rates) -> str | None:
        steps, limit = len(history), self.tolstagnation
        if limit is None:
            limit = int(100 + 100 * r.dim**1.5 / r.population_size)
        window = max(limit // 10, steps // 10)
        early = steps <= max(limit, r.dim * (5 + 100 / r.population_size), 2 * window)
        if limit == 0 or steps % (5 * CHECK_EVERY) or early or np.isnan(history[-2 * window :]).any():
            return None
        if steps - int(np.nanargmin(history[:, 0])) <= limit / 2:
            return None
        before, now = np.median(history[-2 * window : -window], axis=0), np.median(history[-window:], axis=0)
        if (now < before).any():
            return None
        return f"stagnation: neither best nor median values have improved over {2 * window} steps"

    def _shape_says(self, state: CMAState, deviations: Matrix, axis: Matrix | None) -> str | None:
        sigma, first = state.sigma, self.sigma
        if not math.isfinite(state.condition) or state.condition > self.tolconditioncov:
            return f"conditioncov: the covariance has a condition number above {self.tolconditioncov:.3g}"
        largest = float(deviations.max())
        if sigma * max(largest, float(np.abs(state.path_c).max())) < self.tolx * first:
            return f"tolx: steps are {self.tolx} times as long as the first ones in every coordinate"
        if sigma * largest > self.tolfacupx * first:
            return (
                f"tolfacupx: steps have grown {self.tolfacupx:.3g}-fold; "
                "is the objective unbounded below, or `scale` far too small?"
            )
        if sigma / first > self.tolupsigma * largest:
            return f"tolupsigma: sigma has grown {self.tolupsigma:.3g} times as much as the longest axis"
        half_digit = state.frame.like.epsilon / 2 * np.abs(state.mean)
        blind = 0.2 * sigma * deviations * state.frame.scale < half_digit
        if blind.any():
            return f"noeffectcoord: steps of coordinate {int(blind.argmax())} vanish in rounding"
        if axis is not None and (0.1 * sigma * np.abs(axis) <= half_digit).all():
            return "noeffectaxis: steps along an axis of the distribution vanish in rounding"
        return None
