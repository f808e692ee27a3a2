"""The `cma` package behind our contract: a trusted second opinion on our own CMA-ES."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import Log, state
from zoo.core.types import Evaluations, Known, Rows
from zoo.core.validation import check_count, check_known, check_positive

Matrix = np.ndarray[Any, Any]

# Options that would speak over us, read a clock, or write files.
_OURS = (
    *("bounds", "CMA_stds", "popsize", "randn", "seed", "termination_callback", "timeout"),
    *("signals_filename", "verbose", "verb_append", "verb_disp", "verb_filenameprefix", "verb_log"),
    *("verb_plot", "verb_time"),
)
_CACHED = 4  # strategies kept alive; one per concurrent run is enough

_lock = threading.Lock()
_live: OrderedDict[str, _Strategy] = OrderedDict()  # by the digest of their history


def clear_cache() -> None:
    """Forget all live strategies, so that the next step replays the values told; no result depends on it."""
    with _lock:
        _live.clear()


@state
class PyCMAState:
    """State of `PyCMA`: what its strategy can be rebuilt from, and what can be read off it.

    Attributes:
        key: Where all randomness comes from.
        like: Kind of array that candidates are.
        x0: Start, shape (dim,).
        scale: Shape (dim,).
        bounds: Box, or None.
        budget: Evaluations there will be, or None.
        population_size: Candidates of a step.
        step: Steps told.
        values: All values told, step by step; NaN is failed.
        history: Digest of everything above and of the method.
        mean: Mean of the distribution, inside the box.
        sigma: Overall standard deviation.
        axis_ratio: Longest by shortest axis of the distribution.
        reason: Why the strategy wants to stop, or None.
    """

    key: Key
    like: Like
    x0: Matrix
    scale: Matrix
    bounds: Bounds | None
    budget: int | None
    population_size: int
    step: int
    values: Log
    history: str
    mean: Matrix
    sigma: float
    axis_ratio: float
    reason: str | None


@dataclass(frozen=True)
class PyCMA:
    """`cma.CMAEvolutionStrategy` with our randomness, exact resume and no global state.

    The strategy itself cannot be written down, so the state holds the values told, from which it is
    rebuilt by running it again; in between it is kept in a small cache. Resuming after n evaluations
    therefore costs what the `cma` package needs for n evaluations, the objective's time aside.

    The package would give a failed evaluation the median value. Here it gets the largest value of its
    step plus the range of the step's values (plus 1 where that is less), so that it ranks last; a step
    without any valid value is not told to the strategy.

    Args:
        population_size: Candidates of a step; None for the package's default, 4 + floor(3 log(dim)).
        sigma: First standard deviation, in units of the `scale` that `init` is given.
        options: Further options of `cma.CMAOptions`, except those that are set here: bounds, CMA_stds,
            popsize, randn, seed, timeout, and what concerns output.

    Raises:
        TypeError: An option is unknown, or an argument has the wrong type.
        ValueError: An option is set here already, or an argument is outside its range.

    Example:
        >>> method = PyCMA(options={"CMA_active": False})
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> for _ in range(100):
        ...     x = method.ask(state).rows(0, 7)
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 1e-9)
        True

    Source: N. Hansen, Y. Akimoto and P. Baudis, CMA-ES/pycma, https://github.com/CMA-ES/pycma;
    N. Hansen, The CMA Evolution Strategy: A Tutorial, 2016, https://arxiv.org/abs/1604.00772.
    """

    population_size: int | None = None
    sigma: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)

    recommends_evaluated = False
    compares_within_steps = True

    def __post_init__(self) -> None:
        if self.population_size is not None:
            check_count("population_size", self.population_size, minimum=2)
        check_positive("sigma", self.sigma)
        if not isinstance(self.options, Mapping):
            raise TypeError(f"`options` must be a dictionary, got {self.options!r}.")
        if self.options:
            check_known("option of `cma`:", self.options, _package().CMAOptions.defaults())
        for name in self.options:
            if name in _OURS:
                raise ValueError(f"`options` must not hold {name!r}: it is set by this method itself.")

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> PyCMAState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
        """
        start = np.array(to_numpy(x0), np.float64)
        if start.ndim != 1 or not len(start):
            raise ValueError(f"`x0` must have shape (dim,), got {start.shape}.")
        spread = np.array(np.broadcast_to(np.asarray(scale, np.float64), start.shape))
        if not (np.isfinite(spread).all() and (spread > 0).all()):
            raise ValueError(f"`scale` must be finite and above 0 everywhere, got {scale!r}.")
        if bounds is not None:
            start = to_numpy(bounds.map(start, "clip"))  # a float32 start may lie a rounding outside
        history = hashlib.blake2b(digest_size=16)
        for part in (start, spread, *(() if bounds is None else (bounds.lower, bounds.upper))):
            history.update(part.tobytes())
        history.update(
            f"{key} {self.population_size} {self.sigma!r} {sorted(self.options.items())!r}".encode()
        )
        with _lock:
            strategy = _Strategy(self, start, spread, bounds, key)
            first = PyCMAState(
                key=key,
                like=Like.of(x0),
                x0=start,
                scale=spread,
                bounds=bounds,
                budget=budget,
                population_size=strategy.es.popsize,
                step=0,
                values=Log(),
                history=history.hexdigest(),
                mean=start,
                sigma=float(self.sigma),
                axis_ratio=1.0,
                reason=None,
            )
            _keep(first.history, strategy)
        return first

    def ask(self, state: PyCMAState) -> Rows:
        """Return the step's candidates; fewer where the budget ends."""
        with _lock:
            strategy = self._strategy(state)
            points = strategy.ask(state.step)
            _keep(state.history, strategy)
        x = state.like.asarray(np.array(points[: _count(state)]).reshape(-1, len(state.x0)))
        return Rows(x if state.bounds is None else state.bounds.map(x, "clip"))

    def tell(self, state: PyCMAState, evaluations: Evaluations) -> PyCMAState:
        """Return the state after a step's values.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        values = evaluations.values
        if len(values) != _count(state):
            raise ValueError(
                f"`evaluations` must hold the {_count(state)} values asked for, got {len(values)}."
            )
        history = hashlib.blake2b(bytes.fromhex(state.history) + values.tobytes(), digest_size=16).hexdigest()
        with _lock:
            strategy = self._strategy(state)
            strategy.tell(state.step, values)
            mean, sigma, axis_ratio = strategy.shape()
            _keep(history, strategy)
            return PyCMAState(
                key=state.key,
                like=state.like,
                x0=state.x0,
                scale=state.scale,
                bounds=state.bounds,
                budget=state.budget,
                population_size=state.population_size,
                step=state.step + 1,
                values=state.values.append(values),
                history=history,
                mean=mean,
                sigma=sigma,
                axis_ratio=axis_ratio,
                reason=strategy.reason,
            )

    def recommend(self, state: PyCMAState) -> Array:
        """Return the mean of the distribution."""
        x = state.like.asarray(state.mean.copy())  # the caller's to write to
        return x if state.bounds is None else state.bounds.map(x, "clip")

    def finished(self, state: PyCMAState) -> str | None:
        """Return which of the package's stopping rules hold, or None."""
        if state.budget is not None and len(state.values) >= state.budget:
            return f"the budget of {state.budget} evaluations is used up"
        return state.reason

    def diagnostics(self, state: PyCMAState) -> dict[str, Any]:
        """Return sigma and the ratio of the longest to the shortest axis."""
        return {"sigma": state.sigma, "axis_ratio": state.axis_ratio}

    def _strategy(self, state: PyCMAState) -> _Strategy:
        """Take the strategy of a state out of the cache, or run it again."""
        strategy = _live.pop(state.history, None)
        if strategy is None:
            strategy = _Strategy(self, state.x0, state.scale, state.bounds, state.key)
            told = state.values.array
            for step in range(state.step):
                first = step * state.population_size
                strategy.tell(step, told[first : first + state.population_size])
        return strategy


def _package() -> Any:
    """Return the `cma` package, which warns as it is imported where matplotlib is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cma
    return cma


class _Strategy:
    """A live strategy; to be used under the lock."""

    def __init__(self, method: PyCMA, x0: Matrix, scale: Matrix, bounds: Bounds | None, key: Key) -> None:
        cma = _package()
        self.key, self.place, self.draws = key, "", 0
        self.points: list[Matrix] | None = None
        self.reason: str | None = None
        options = dict(method.options)
        options.update(seed=np.nan, randn=self._randn, verbose=-10, verb_log=0, verb_disp=0, CMA_stds=scale)
        if method.population_size is not None:
            options["popsize"] = method.population_size
        if bounds is not None:
            fixed = bounds.lower == bounds.upper  # refused by the package; candidates are clipped to them
            lower, upper = np.where(fixed, -np.inf, bounds.lower), np.where(fixed, np.inf, bounds.upper)
            options["bounds"] = [lower, upper]
        with _quiet():
            self.es = cma.CMAEvolutionStrategy(x0, float(method.sigma), options)

    def _randn(self, *shape: int) -> Matrix:
        rows, dim = shape if len(shape) == 2 else (1, shape[0])
        self.draws += 1
        drawn = to_numpy(self.key.fold("pycma", self.place, self.draws).normal(0, rows, dim))
        return drawn.reshape(shape)

    def _at(self, place: str) -> None:
        self.place, self.draws = place, 0

    def ask(self, step: int) -> list[Matrix]:
        if self.points is None:
            self._at(f"ask {step}")
            with _quiet():
                self.points = self.es.ask()
        return self.points

    def tell(self, step: int, values: Matrix) -> None:
        points, self.points = self.ask(step), None
        valid = values[np.isfinite(values)]
        if not len(valid):
            return
        last = float(valid.max())
        told = np.full(len(points), min(last + max(1.0, last - float(valid.min())), np.finfo(float).max))
        told[: len(values)] = np.where(np.isfinite(values), values, told[: len(values)])
        self._at(f"tell {step}")
        with _quiet():
            self.es.tell(points, told.tolist())
            stop = self.es.stop()
        self.reason = ", ".join(f"{name} ({value})" for name, value in stop.items()) or None

    def shape(self) -> tuple[Matrix, float, float]:
        """Return the mean in the box, sigma, and the ratio of the longest to the shortest axis."""
        with _quiet():
            mean = np.array(self.es.result.xfavorite, np.float64)
        return mean, float(self.es.sigma), float(self.es.D.max() / self.es.D.min())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The package warns of what the user need not know here, and divides by zero on the way."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _count(state: PyCMAState) -> int:
    if state.budget is None:
        return state.population_size
    return max(0, min(state.population_size, state.budget - len(state.values)))


def _keep(history: str, strategy: _Strategy) -> None:
    _live[history] = strategy
    while len(_live) > _CACHED:
        _live.popitem(last=False)
