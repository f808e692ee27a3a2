"""Bayesian optimization with a Gaussian process, for objectives that are expensive to evaluate."""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg.lapack import dtrtri
from scipy.special import erfcx, log_ndtr, ndtr, ndtri

from zoo.core.bounds import Bounds
from zoo.core.device import Array, to_numpy
from zoo.core.rng import Key, keyed_generators
from zoo.core.state import Log, state
from zoo.core.types import Evaluations, Known, Rows
from zoo.core.validation import check_count
from zoo.methods.population import Frame, Matrix, begin, check_told, inside, remaining

_REACH = 2.0  # half-width of the first region, in units of scale, where a coordinate has no two walls
_EDGE = 0.9  # share of the half-width beyond which a new best point makes the region twice as wide
_GROWTH = 1.05  # hyper-parameters are found anew when there are this many times as many points
_JITTER = 1e-10  # added to the variance of the noise
_LIMITS = {"amplitude": (0.05, 20.0), "length": (5e-3, 1e2), "noise": (1e-8, 1.0)}
# Mean and deviation of the logarithms of the hyper-parameters before there are data; the lengths' mean
# grows as the diagonal of the unit cube does.
_AMPLITUDE, _LENGTH, _NOISE = (0.0, 1.0), (math.log(0.5 / math.sqrt(3)), 1.0), (math.log(1e-6), 3.0)
_ROOT_5, _LOG_ROOT_2_PI = math.sqrt(5), math.log(2 * math.pi) / 2


@state
class GPState:
    """State of `GP`.

    Attributes:
        frame: What the run was begun with.
        step: Steps told.
        nfev: Evaluations told.
        points: Coordinates of all points evaluated, one after the other, known ones first.
        values: Their values; NaN is failed.
        trial: What is to be evaluated next, shape (count, dim), float64, rounded as the rows are.
        reach: Half-width of the region along coordinates that have no two walls, in units of `scale`.
        theta: Logarithms of amplitude, lengths and noise, where their next search begins.
        fitted: Number of points they were found for, 0 before.
    """

    frame: Frame
    step: int
    nfev: int
    points: Log
    values: Log
    trial: Matrix
    reach: float
    theta: Matrix
    fitted: int


class _Space(NamedTuple):
    """The coordinates of the model: those free to vary, with the box, or the first region, as [0, 1].

    Attributes:
        free: Which coordinates these are, shape (dim,).
        origin: Of all coordinates, shape (dim,).
        unit: Of all coordinates, shape (dim,).
        start: x0.
        lower: Walls below.
        upper: Walls above.
        boxed: Where both walls are finite.
    """

    free: Matrix
    origin: Matrix
    unit: Matrix
    start: Matrix
    lower: Matrix
    upper: Matrix
    boxed: Matrix


class Model(NamedTuple):
    """A Gaussian process given data.

    Attributes:
        points: Of the data, divided by `lengths`, shape (n, dim).
        weights: What the mean is a sum of covariances with, shape (n,).
        inverse: Of the lower factor of the covariance of the data, shape (n, n).
        amplitude: Variance far away from all data.
        lengths: Shape (dim,).
        noise: Variance of the noise.
    """

    points: Matrix
    weights: Matrix
    inverse: Matrix
    amplitude: float
    lengths: Matrix
    noise: float

    def moments(self, points: Matrix) -> tuple[Matrix, Matrix]:
        """Return means and deviations at some points, shape (count,) each."""
        covariance = self._covariance(points)
        half = self.inverse @ covariance
        variance = self.amplitude - np.einsum("ij,ij->j", half, half)
        return self.weights @ covariance, np.sqrt(np.maximum(variance, 1e-12 * self.amplitude))

    def log_gain(self, points: Matrix, incumbent: float) -> Matrix:
        """Return the logarithms of the expected improvement on a value, shape (count,)."""
        mean, deviation = self.moments(points)
        gain: Matrix = log_h((incumbent - mean) / deviation) + np.log(deviation)
        return gain

    def loss(self, point: Matrix, incumbent: float) -> tuple[float, Matrix]:
        """Return minus the logarithm of the expected improvement at a point, and its gradient."""
        way = point / self.lengths - self.points
        far = _ROOT_5 * np.sqrt(np.einsum("ij,ij->i", way, way))
        decay = self.amplitude * np.exp(-far)
        covariance = decay * (1 + far + far * far / 3)
        slopes = (-5 / 3 * decay * (1 + far))[:, None] * way / self.lengths
        half = self.inverse @ covariance
        deviation = math.sqrt(max(self.amplitude - float(half @ half), 1e-12 * self.amplitude))
        u = (incumbent - float(self.weights @ covariance)) / deviation
        gain = float(log_h(np.array([u]))[0])
        down = math.exp(min(700.0, float(log_ndtr(u)) - gain)) / deviation
        up = math.exp(min(700.0, -u * u / 2 - _LOG_ROOT_2_PI - gain)) / deviation
        slope = down * (self.weights @ slopes) + up * ((half @ self.inverse) @ slopes) / deviation
        return -gain - math.log(deviation), slope

    def believing(self, point: Matrix) -> Model:
        """Return the model as it were if its own mean had been measured at a point."""
        half = self.inverse @ self._covariance(point[None])[:, 0]
        variance = self.amplitude + self.noise + _JITTER - float(half @ half)
        rest, n = math.sqrt(max(variance, _JITTER)), len(half)
        inverse = np.zeros((n + 1, n + 1))
        inverse[:n, :n] = self.inverse
        inverse[n, :n], inverse[n, n] = half @ self.inverse / -rest, 1 / rest
        return self._replace(
            points=np.concatenate([self.points, point[None] / self.lengths]),
            weights=np.append(self.weights, 0.0),  # what was expected changes no mean
            inverse=inverse,
        )

    def _covariance(self, points: Matrix) -> Matrix:
        here, there = self.points, points / self.lengths
        square = np.einsum("ij,ij->i", here, here)[:, None] + np.einsum("ij,ij->i", there, there)
        square -= 2 * here @ there.T
        far = _ROOT_5 * np.sqrt(np.maximum(square, 0.0))
        covariance: Matrix = self.amplitude * (1 + far + far * far / 3) * np.exp(-far)
        return covariance


@dataclass(frozen=True)
class GP:
    """Bayesian optimization: a Gaussian process is fitted to all values, and says where to look next.

    After a Latin hypercube that begins with x0, each step evaluates the points where most improvement on
    the best value is expected. With m(x) and s(x) the mean and the deviation of the process, f the
    lowest mean among the points evaluated, and u = (f - m) / s, that is

        EI(x) = s (phi(u) + u Phi(u))

    whose logarithm is maximised: over points uniform in the region and points around the best one, and
    from the most promising ones on by L-BFGS-B. The covariance is a Matern one of order 5/2 with a
    length for each coordinate, plus noise; amplitude, lengths and noise are the most probable ones,
    given the data and, before them, log-normal distributions: of lengths around sqrt(dim / 12) times the
    width. Of several points in a step, each is chosen as if those before it had had the values that
    the process expects ("kriging believer").

    What is fitted are not the values themselves: those above the median are drawn in to normal scores
    of their ranks where these are nearer, and all are standardised. Failed evaluations take part as the
    worst value that there is.

    Where both walls of a coordinate are finite, the region is the box. Otherwise it is as far around the
    best point as twice the `scale`, and becomes twice as wide whenever a new best point lies near its edge.

    A step costs the cube of the number of points. Beyond `max_points` the process is given the better
    half of that number, and the latest of the others. Hyper-parameters are found anew whenever there
    are 5 % more points.

    Args:
        batch_size: Points of a step; set it to the number of workers.
        initial_size: Points of the Latin hypercube, those known included; None for 2 dim + 2, and half
            of the budget at most.
        num_candidates: Points at which the expected improvement is looked at.
        num_refined: How many of these L-BFGS-B begins at.
        max_points: Points that the process is given at most.

    Raises:
        ImportError: scikit-learn is not installed.
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> method = GP()
        >>> box = Bounds(np.full(2, -5.0), np.full(2, 5.0))
        >>> state = method.init(np.array([3.0, -4.0]), key=Key(0), bounds=box)
        >>> for _ in range(20):
        ...     candidates = method.ask(state)
        ...     x = candidates.rows(0, len(candidates))
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 1e-2)
        True

    Source: D. R. Jones, M. Schonlau and W. J. Welch, Efficient Global Optimization of Expensive Black-Box
    Functions, 1998, https://doi.org/10.1023/A:1008306431147; the logarithm: S. Ament et al., Unexpected
    Improvements to Expected Improvement for Bayesian Optimization, 2023, https://arxiv.org/abs/2310.20708;
    several points a step: D. Ginsbourger, R. Le Riche and L. Carraro, Kriging Is Well-Suited to Parallelize
    Optimization, 2010, https://doi.org/10.1007/978-3-642-10701-6_6; lengths that grow with dim: C. Hvarfner,
    E. O. Hellsten and L. Nardi, Vanilla Bayesian Optimization Performs Great in High Dimensions, 2024,
    https://arxiv.org/abs/2402.02229. The process is scikit-learn's `GaussianProcessRegressor`.
    """

    batch_size: int = 1
    initial_size: int | None = None
    num_candidates: int = 1000
    num_refined: int = 4
    max_points: int = 300

    recommends_evaluated = True

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size)
        if self.initial_size is not None:
            check_count("initial_size", self.initial_size, minimum=2)
        check_count("num_candidates", self.num_candidates, minimum=2)
        check_count("num_refined", self.num_refined, minimum=0)
        check_count("max_points", self.max_points, minimum=10)
        if importlib.util.find_spec("sklearn") is None:
            raise ImportError("the method 'gp' needs scikit-learn: pip install 'gradfree[gp]'")

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> GPState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
        """
        frame = begin(x0, key, bounds, scale, budget)
        space = _space(frame)
        points, values = np.empty((0, frame.dim)), np.empty(0)
        if known is not None:
            within = inside(bounds, known.points)
            points, values = known.points[within], known.values[within]
        ready = GPState(
            frame=frame,
            step=0,
            nfev=0,
            points=Log(points.ravel()),
            values=Log(values),
            trial=np.empty((0, frame.dim)),
            reach=_REACH,
            theta=_prior(int(space.free.sum()))[0],
            fitted=0,
        )
        size = self._initial_size(frame) - len(values)
        if size <= 0:
            return self._suggest(ready)
        design = _design(space, key.fold("design"), size)
        if not (points == space.start).all(1).any():
            design[0] = space.start
        return replace(ready, trial=_placed(frame, design))

    def ask(self, state: GPState) -> Rows:
        """Return the points that promise most; fewer where the budget ends."""
        count = remaining(state.frame, state.nfev, len(state.trial))
        return Rows(_rows(state.frame, state.trial[:count]))

    def tell(self, state: GPState, evaluations: Evaluations) -> GPState:
        """Return the state after the values of all points asked for.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        frame, values = state.frame, state.values.array
        asked = remaining(frame, state.nfev, len(state.trial))
        new = check_told(evaluations, asked)
        points, reach = state.trial[:asked], state.reach
        if state.step and np.isfinite(new).any() and np.isfinite(values).any():
            index = int(np.nanargmin(new))
            if new[index] < np.nanmin(values) and not _space(frame).boxed.all():
                reach *= 2 if self._is_near_the_edge(state, points[index]) else 1
        told = replace(
            state,
            step=state.step + 1,
            nfev=state.nfev + asked,
            points=state.points.append(points.ravel()),
            values=state.values.append(new),
            reach=reach,
        )
        return self._suggest(told) if remaining(frame, told.nfev, 1) else told

    def recommend(self, state: GPState) -> Array:
        """Return the best point so far, or x0 before there is any."""
        best = _best(state)
        return _rows(state.frame, _space(state.frame).start if best is None else best)

    def finished(self, state: GPState) -> str | None:
        """Return that the budget is used up, or None."""
        budget = state.frame.budget
        if budget is not None and state.nfev >= budget:
            return f"the budget of {budget} evaluations is used up"
        return None

    def diagnostics(self, state: GPState) -> dict[str, Any]:
        """Return the shortest and the longest length, and the deviation of the noise."""
        theta = state.theta
        return {
            "shortest_length": math.exp(theta[1:-1].min(initial=math.inf)),
            "longest_length": math.exp(theta[1:-1].max(initial=-math.inf)),
            "noise": math.exp(theta[-1] / 2),
        }

    def _initial_size(self, frame: Frame) -> int:
        if self.initial_size is not None:
            return self.initial_size
        size = 2 * frame.dim + 2
        return size if frame.budget is None else max(2, min(size, frame.budget // 2))

    def _is_near_the_edge(self, state: GPState, point: Matrix) -> bool:
        space, before = _space(state.frame), _best(state)
        away = np.abs(point - before) / (state.reach * state.frame.scale)
        return bool((away[space.free][~space.boxed] > _EDGE).any())

    def _suggest(self, state: GPState) -> GPState:
        """Return the state with new points to evaluate."""
        frame, key = state.frame, state.frame.key.fold("gp", state.step)
        space, values, best = _space(frame), state.values.array, _best(state)
        trial = np.tile(space.start, (remaining(frame, state.nfev, self.batch_size), 1))
        if not space.free.any():
            return replace(state, trial=_placed(frame, trial))
        points = state.points.array.reshape(len(values), frame.dim)
        valid, theta, fitted = int(np.count_nonzero(np.isfinite(values))), state.theta, state.fitted
        inner = ((points - space.origin) / space.unit)[:, space.free]
        low, high = _region(state, space, space.start if best is None else best)
        if valid < 2:  # nothing to learn from yet
            chosen = low + (high - low) * key.fold("blind").uniform(0, len(trial), len(low))
        else:
            used, search = _selected(values, self.max_points), len(values) >= _GROWTH * fitted
            theta, model = _fit(inner[used], shaped(values)[used], theta, search)
            fitted = len(values) if search else fitted
            chosen = self._maximize(model, key, low, high, inner[int(np.nanargmin(values))], len(trial))
        trial[:, space.free] = space.origin[space.free] + space.unit[space.free] * chosen
        return replace(state, trial=_placed(frame, trial), theta=theta, fitted=fitted)

    def _maximize(
        self, model: Model, key: Key, low: Matrix, high: Matrix, best: Matrix, count: int
    ) -> Matrix:
        """Return points of a box where most improvement is expected, one after the other."""
        from scipy.optimize import minimize

        incumbent = float(model.moments(model.points * model.lengths)[0].min())
        chosen = np.empty((count, len(low)))
        for number in range(count):
            here, half = key.fold("candidates", number), self.num_candidates // 2
            everywhere = here.fold("uniform").uniform(0, self.num_candidates - half, len(low))
            near = _around(here, half, low, high, best, model.lengths)
            candidates = np.concatenate([low + (high - low) * everywhere, near])
            gains = model.log_gain(candidates, incumbent)
            order = np.argsort(-gains, kind="stable")
            found, top = candidates[order[0]], float(gains[order[0]])
            for start in candidates[order[: self.num_refined]]:
                result = minimize(
                    model.loss,
                    start,
                    (incumbent,),
                    "L-BFGS-B",
                    jac=True,
                    bounds=np.stack([low, high], 1),
                    options={"maxiter": 30, "ftol": 1e-5},  # of a logarithm
                )
                if -result.fun > top:
                    found, top = np.clip(result.x, low, high), -float(result.fun)
            chosen[number] = found
            if number + 1 < count:
                incumbent = min(incumbent, float(model.moments(found[None])[0][0]))
                model = model.believing(found)
        return chosen


def shaped(values: Matrix) -> Matrix:
    """Return what is fitted for some values, one at least of which is no NaN: of mean 0 and deviation 1.

    With m the median and s the root mean square of y - m over the values y up to m, it is (y - m) / s,
    or above m the normal score of the rank of y where that is less; then it is standardised. Failed values
    become the largest.

    Example:
        >>> bent = shaped(np.array([0.0, 1.0, 2.0, 3.0, 1e9, np.nan]))
        >>> bool(bent[4] < 3), bool(bent[5] == bent[4])
        (True, True)
    """
    valid = np.isfinite(values)
    told = values[valid]
    y = told / max(float(np.abs(told).max()), np.finfo(float).tiny)
    median = float(np.median(y))
    spread = math.sqrt(float(np.square(y[y <= median] - median).mean())) or float(y.std()) or 1.0
    y = (y - median) / spread
    _, place, copies = np.unique(told, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(copies) - (copies - 1) / 2)[place]  # from 1 on; equal values share theirs
    scores = np.maximum(ndtri((ranks - 0.375) / (len(y) + 0.25)), 0.0)
    y = np.where(y > 0, np.minimum(y, scores), y)
    y = (y - y.mean()) / (float(y.std()) or 1.0)
    out = np.full(len(values), y.max())
    out[valid] = y
    return out


def log_h(u: Matrix) -> Matrix:
    """Return log(phi(u) + u Phi(u)), for all u that a float can hold.

    Example:
        >>> bool(np.isclose(log_h(np.array([0.0]))[0], -math.log(2 * math.pi) / 2))
        True
        >>> log_h(np.array([-1e3])).round(2).tolist()
        [-500014.73]
    """
    near, out = u > -1, np.empty_like(u)
    x = u[near]
    out[near] = np.log(np.exp(-x * x / 2 - _LOG_ROOT_2_PI) + x * ndtr(x))
    x = u[~near]
    # 1 + x Phi(x) / phi(x) is 1 / x^2 far out, where it cannot be computed.
    ratio = math.sqrt(math.pi / 2) * np.maximum(x, -1e5) * erfcx(np.minimum(-x, 1e5) / math.sqrt(2))
    out[~near] = -x * x / 2 - _LOG_ROOT_2_PI + np.where(x > -1e5, np.log1p(ratio), -2 * np.log(-x))
    return out


def _space(frame: Frame) -> _Space:
    start = np.array(to_numpy(frame.x0), np.float64)
    lower, upper = np.full(frame.dim, -np.inf), np.full(frame.dim, np.inf)
    if frame.bounds is not None:
        lower, upper = frame.bounds.lower, frame.bounds.upper
    free = upper > lower
    with np.errstate(over="ignore"):
        boxed = np.isfinite(upper - lower) & free
    origin = np.where(boxed, lower, start - _REACH * frame.scale)
    unit = np.where(boxed, upper, start + _REACH * frame.scale) - origin
    low, high = (((side - origin) / unit)[free] for side in (lower, upper))
    return _Space(free, origin, unit, start, low, high, boxed[free])


def _region(state: GPState, space: _Space, center: Matrix) -> tuple[Matrix, Matrix]:
    """Return the box to search, in the model's coordinates."""
    middle = ((center - space.origin) / space.unit)[space.free]
    half = np.where(space.boxed, np.inf, state.reach / (2 * _REACH))
    return np.maximum(middle - half, space.lower), np.minimum(middle + half, space.upper)


def _design(space: _Space, key: Key, size: int) -> Matrix:
    """Return a Latin hypercube over the box or the first region, shape (size, dim)."""
    dim = len(space.free)
    cells = key.fold("cells").permutation(0, dim, size).T
    shares = (cells + key.fold("places").uniform(0, size, dim)) / size
    return np.where(space.free, space.origin + space.unit * shares, space.start)


def _best(state: GPState) -> Matrix | None:
    values = state.values.array
    if not np.isfinite(values).any():
        return None
    dim, index = state.frame.dim, int(np.nanargmin(values))
    return state.points.array[index * dim : (index + 1) * dim]


def _rows(frame: Frame, points: Matrix) -> Array:
    """Return points as new arrays of the user's kind, inside the box."""
    x = frame.like.asarray(points.copy())
    return x if frame.bounds is None else frame.bounds.map(x, "clip")


def _placed(frame: Frame, points: Matrix) -> Matrix:
    """Return points rounded as the rows are, but in float64."""
    return np.array(to_numpy(_rows(frame, points)), np.float64)


def _selected(values: Matrix, most: int) -> Matrix:
    """Return which points are fitted: where there are many, the better ones and the latest of the others."""
    if len(values) <= most:
        return np.arange(len(values))
    order = np.argsort(values, kind="stable")
    better, others = order[: most // 2], np.sort(order[most // 2 :])
    return np.concatenate([better, others[most // 2 - most :]])


def _around(key: Key, count: int, low: Matrix, high: Matrix, best: Matrix, lengths: Matrix) -> Matrix:
    """Return points around the best one, at distances of three orders of magnitude up to the lengths."""
    sizes = 10 ** (-3 * key.fold("sizes").uniform(0, count, 1)) * np.minimum(lengths, high - low)
    rows: Matrix = np.clip(best + sizes * key.fold("steps").normal(0, count, len(best)), low, high)
    return rows


def _prior(dim: int) -> tuple[Matrix, Matrix]:
    """Return mean and deviation of the hyper-parameters' logarithms before there are data."""
    length = _LENGTH[0] + math.log(max(1, dim)) / 2
    mean = np.array([_AMPLITUDE[0], *[length] * dim, _NOISE[0]])
    return mean, np.array([_AMPLITUDE[1], *[_LENGTH[1]] * dim, _NOISE[1]])


@functools.cache
def _scikit() -> Any:
    """Return scikit-learn's Gaussian processes; importing them draws from Python's global generator."""
    with keyed_generators(Key(0)):
        import sklearn.gaussian_process as scikit
    return scikit


def _fit(points: Matrix, values: Matrix, theta: Matrix, search: bool) -> tuple[Matrix, Model]:
    """Return hyper-parameters, searched for from `theta` on or these, and the model with them."""
    scikit, dim = _scikit(), points.shape[1]
    kernels = scikit.kernels
    matern = kernels.Matern(np.ones(dim) if dim > 1 else 1.0, _LIMITS["length"], nu=2.5)
    amplitude = kernels.ConstantKernel(1.0, _LIMITS["amplitude"])
    kernel = amplitude * matern + kernels.WhiteKernel(1.0, _LIMITS["noise"])
    regressor = scikit.GaussianProcessRegressor(
        kernel.clone_with_theta(theta),
        alpha=_JITTER,
        optimizer=_most_probable if search else None,
        random_state=0,  # nothing is drawn; without it numpy's global generator would be held ready
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        regressor.fit(points, values)
    theta = np.array(regressor.kernel_.theta)
    lengths = np.exp(theta[1:-1])
    inverse, _ = dtrtri(regressor.L_, lower=1)
    weights = np.ravel(regressor.alpha_)
    return theta, Model(points / lengths, weights, inverse, math.exp(theta[0]), lengths, math.exp(theta[-1]))


def _most_probable(
    objective: Callable[[Matrix], tuple[float, Matrix]], theta: Matrix, bounds: Matrix
) -> tuple[Matrix, float]:
    """Return the hyper-parameters' logarithms that are most probable, and minus the logarithm of that."""
    from scipy.optimize import minimize

    mean, deviation = _prior(len(theta) - 2)

    def loss(theta: Matrix) -> tuple[float, Matrix]:
        value, slope = objective(theta)
        away = (theta - mean) / deviation
        return value + float(away @ away) / 2, slope + away / deviation

    starts = [theta] if (theta == mean).all() else [theta, mean]
    found = [
        minimize(
            loss, start, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": 30, "ftol": 1e-5}
        )
        for start in starts
    ]
    best = min(found, key=lambda result: float(result.fun))
    return best.x, float(best.fun)
