"""CMA-ES that spares evaluations by means of a linear or quadratic model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known, Rows
from zoo.core.validation import check_count, check_probability
from zoo.methods.cma_base import Matrix, Settings
from zoo.methods.cma_es import CMAES, CMAESState
from zoo.methods.quadratic_model import Model, fit, kendall, minimum, num_coefficients, whiten

_WINDOW = 15  # newest points, at least, on which model and truth are compared
_FASTER = 10.0  # factor by which the radius of a proposal grows and shrinks
_EXACT = 0.03  # error of a promise, relative to the improvement, up to which the radius grows
_FIT_EVERY = 200  # a model of so many coefficients is fitted anew once per point, one of twice as many per 2

_Candidates = tuple[Matrix, Matrix, Array]  # z, y and the points of a step

_last: tuple[CMAESState, Matrix | None, CMAES, _Candidates] | None = None  # those drawn last, and from what


def clear_cache() -> None:
    """Forget the candidates drawn last, which need not be drawn again; no result depends on it."""
    global _last
    _last = None


@state
class LQCMAState:
    """State of `LQCMA`.

    Attributes:
        inner: The strategy's state at the beginning of its present step.
        nfev: Evaluations told.
        budget: Evaluations there will be, or None.
        values: Of the step's candidates, shape (population_size,), NaN where not evaluated, or failed.
        asked: Whether they were evaluated, the same shape.
        promised: What the model says of them, in units of its own, the same shape; 0 without a model.
        proposal: z and y of a candidate that takes the place of the first one, shape (2, dim), or None.
        promise: Value that the model gave to it.
        radius: Longest step to a proposal, in units of what the strategy calls a usual one.
        points: Evaluated points, shape (n, dim), those of later steps first, and the best of a step first.
        known: Their values, shape (n,).
        model: Fitted to them, or None.
        unfitted: Points that came after the model was fitted.
        tau: Rank correlation of model and truth.
        mean: What is recommended, before the boundary map, shape (dim,).
    """

    inner: CMAESState
    nfev: int
    budget: int | None
    values: Matrix
    asked: Matrix
    promised: Matrix
    proposal: Matrix | None
    promise: float
    radius: float
    points: Matrix
    known: Matrix
    model: Model | None
    unfitted: int
    tau: float
    mean: Matrix


@dataclass(frozen=True)
class LQCMA(Settings):
    """lq-CMA-ES: CMA-ES that evaluates a few candidates of a step and takes a model's word for the rest.

    The model is linear, diagonal or full quadratic, by the number of points there are; see
    `zoo.methods.quadratic_model.fit`. A step of the strategy is

        draw population_size candidates as `CMAES` does; the minimum of the model replaces the first
        repeat
            evaluate those of the rest that the model likes best: one, then half as many as were before
            fit the model to the last points evaluated
        until Kendall's tau of model and truth, over the newest points, is at least `tau`, or none is left
        let the strategy learn from the model's values, or from the true ones if all were evaluated

    Each `ask` is for one such batch, so a step takes several rounds where the model ranks badly, and then
    costs what one of CMA-ES costs. The first batch is larger while there are fewer than five points, and
    never smaller than a fiftieth of the population. Tau is taken over the 15 newest points, or 1.2 times as
    many as were evaluated in this step, up to 3/4 of a population, where that is more. The last 2 p points
    are kept, p = 1 + dim + dim (dim + 1) / 2 being the number of coefficients of the full model.

    The model is a function of candidates as they are evaluated, in the box, so no boundary map bends it.

    The minimum of the model is looked for within a radius of sqrt(dim) in units of the distribution. If it is
    found at that distance, and the value there is the one that the model promised up to 3 % of the
    improvement, the radius grows tenfold; if the value is not the best so far it falls again. The strategy
    learns as if the candidate were at sqrt(dim), and nothing if it is in the worse half.

    Time of a step is that of `CMAES` and, for each batch, about 2 p^3 operations: less than a millisecond for
    20 variables, a tenth of a second for 40. A full model of 200 k coefficients or more is fitted anew for
    every k-th point only.

    Departures from the paper: the full model is tried as soon as there are two more points than
    coefficients, and kept if it does better by cross-validation than the diagonal one, instead of after 1.5 p
    points; points have less weight the further they are from the distribution; the minimum of the model
    is taken within a radius that adapts, instead of anywhere, and then moved nearer. Failed evaluations never
    enter the model; they count as evaluated, and in the step's ranking they are last, with weight 0.

    Args:
        population_size: Candidates of a step; None for 4 + floor(3 log(dim)).
        sigma: First standard deviation, in units of the `scale` that `init` is given.
        active: See `CMAES`.
        boundary: How candidates are taken into the box, see `zoo.core.bounds.Bounds.map`.
        tolx: See `CMAES`, for this and all that follow; values are the model's where there are no others.
        tolfun: As there.
        tolfunhist: As there.
        tolfacupx: As there.
        tolupsigma: As there.
        tolstagnation: As there.
        tolconditioncov: As there.
        tau: Rank correlation, from 0 to 1, with which the model is believed.
        batch: Candidates of a step's first batch at least: as many as there are workers, say.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> method = LQCMA()
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> while state.nfev < 40:
        ...     candidates = method.ask(state)
        ...     x = candidates.rows(0, len(candidates))
        ...     state = method.tell(state, Evaluations((x**2 * [1, 100, 10000]).sum(1)))
        >>> float(state.known.min()) < 1e-12
        True

    Source: N. Hansen, A Global Surrogate Assisted CMA-ES, 2019, https://doi.org/10.1145/3321707.3321842;
    for candidates that do not come from the distribution, N. Hansen, Injecting External Solutions Into
    CMA-ES, 2011, https://arxiv.org/abs/1110.4181.
    """

    tau: float = 0.85
    batch: int = 1
    inner: CMAES = field(init=False, repr=False, compare=False)

    recommends_evaluated = False
    compares_within_steps = True

    def __post_init__(self) -> None:
        check_probability("tau", self.tau)
        check_count("batch", self.batch)
        settings = {setting.name: getattr(self, setting.name) for setting in fields(Settings)}
        object.__setattr__(self, "inner", CMAES(**settings))

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> LQCMAState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
        """
        if known is not None:
            best = known.best if bounds is None else np.clip(known.best, bounds.lower, bounds.upper)
            x0 = Like.of(x0).asarray(best)
        inner = self.inner.init(x0, key=key, bounds=bounds, scale=scale)
        n, dim = self.inner.sample(inner)[0].shape
        points, values = np.empty((0, dim)), np.empty(0)
        if known is not None:
            order = known.order[: _capacity(n, dim)]
            points, values = known.points[order], known.values[order]
        model = self._fit(inner, points, values, None) if len(values) > 1 else None
        return LQCMAState(
            nfev=0,
            budget=budget,
            radius=1.0,
            points=points,
            known=values,
            model=model,
            unfitted=0,
            tau=0.0,
            mean=inner.mean,
            **self._step(inner, model, 1.0, n),
        )

    def ask(self, state: LQCMAState) -> Rows:
        """Return the next batch of the step's candidates, those that the model likes best first."""
        return Rows(self._candidates(state)[2][self._rows(state)])

    def tell(self, state: LQCMAState, evaluations: Evaluations) -> LQCMAState:
        """Return the state after a batch.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        rows = self._rows(state)
        if len(evaluations) != len(rows):
            raise ValueError(
                f"`evaluations` must hold the {len(rows)} values asked for, got {len(evaluations)}."
            )
        values, asked = state.values.copy(), state.asked.copy()
        values[rows], asked[rows] = evaluations.values, True
        nfev, told = state.nfev + len(rows), rows[np.isfinite(evaluations.values)]
        if len(told):
            state = self._learn_model(state, values, asked, told, nfev)
        else:
            state = replace(state, nfev=nfev, values=values, asked=asked)
        if np.count_nonzero(asked) == len(asked) or (len(told) and state.tau >= self.tau):
            return self._next_step(state, bool(len(told)))
        return state

    def recommend(self, state: LQCMAState) -> Array:
        """Return the mean of the distribution, taken into the box."""
        return self.inner.recommend(replace(state.inner, mean=state.mean))

    def finished(self, state: LQCMAState) -> str | None:
        """Return which stopping rule holds, in words, or None."""
        if state.budget is not None and state.nfev >= state.budget:
            return f"the budget of {state.budget} evaluations is used up"
        return self.inner.finished(state.inner)

    def diagnostics(self, state: LQCMAState) -> dict[str, Any]:
        """Return what `CMAES` does, the model's rank correlation, and the number of points kept for it."""
        return {**self.inner.diagnostics(state.inner), "tau": state.tau, "archive": len(state.known)}

    def _candidates(self, state: LQCMAState) -> _Candidates:
        """Return what the whole step has, not to be written to."""
        return self._sample(state.inner, state.proposal)

    def _sample(self, inner: CMAESState, proposal: Matrix | None) -> _Candidates:
        global _last
        last = _last
        if last is not None and last[0] is inner and last[1] is proposal and last[2] is self.inner:
            return last[3]
        z, y = self.inner.sample(inner)
        if proposal is not None:
            z, y = z.copy(), y.copy()
            z[0], y[0] = proposal
        found = z, y, self.inner.place(inner, y)
        _last = (inner, proposal, self.inner, found)
        return found

    def _rows(self, state: LQCMAState) -> Matrix:
        """Return which of the step's candidates are asked for."""
        n, done = len(state.asked), int(np.count_nonzero(state.asked))
        count = -(-done // 2) if done else max(self.batch, 1 + n // 50, 5 - len(state.known))
        if state.budget is not None:
            count = max(0, min(count, state.budget - state.nfev))
        order = state.promised.argsort(kind="stable")
        rows: Matrix = order[~state.asked[order]][:count]
        return rows

    def _learn_model(
        self, state: LQCMAState, values: Matrix, asked: Matrix, told: Matrix, nfev: int
    ) -> LQCMAState:
        """Return the state with some more points, the model fitted to them, and how well it ranks them."""
        x = _plain(self._candidates(state)[2])
        n, dim = x.shape
        points, known = np.concatenate([x[told], state.points]), np.concatenate([values[told], state.known])
        fresh = int(np.count_nonzero(np.isfinite(values)))
        order = np.arange(min(len(known), _capacity(n, dim)))
        order[:fresh] = known[:fresh].argsort(kind="stable")
        points, known = points[order], known[order]

        model, promised, tau, unfitted = state.model, state.promised, 0.0, state.unfitted + len(told)
        rarely = model is not None and model.kind == "full"
        if len(known) > 1 and (not rarely or unfitted >= num_coefficients(dim, "full") // _FIT_EVERY):
            model = self._fit(state.inner, points, known, model.kind if model else None)
            unfitted = 0
        if model is not None:
            window = max(_WINDOW, int(min(1.2 * np.count_nonzero(asked), 0.75 * n)))
            modelled = model(np.concatenate([x, points[:window]]))
            promised = modelled[:n]
            if len(known) > 2:
                tau = kendall(known[:window], modelled[n:])
        return replace(
            state,
            nfev=nfev,
            values=values,
            asked=asked,
            points=points,
            known=known,
            model=model,
            unfitted=unfitted,
            promised=promised,
            tau=tau,
        )

    def _fit(self, inner: CMAESState, points: Matrix, known: Matrix, last: str | None) -> Model:
        """Fit the model in the units of the distribution."""
        return fit(points, known, self._center(inner), inner.factor, self.inner._spread(inner), last)

    def _next_step(self, state: LQCMAState, learnt: bool) -> LQCMAState:
        """Let the strategy make its step, and propose the minimum of the model to the one after it."""
        values, dim = state.values, len(state.mean)
        if not state.asked.all():
            # The model's values, so shifted that the best is the best one found.
            assert state.model is not None
            values = (state.promised - state.promised.min()) * state.model.unit + np.fmin.reduce(state.values)
            values[state.asked & np.isnan(state.values)] = np.nan
        z, y, _ = self._candidates(state)
        radius = state.radius
        if state.proposal is not None:
            if np.count_nonzero(values < values[0]) >= len(values) // 2:
                values = values.copy()
                values[0] = np.nan  # a proposal tells what is good, but not what is bad
            radius = self._next_radius(state)
            length = math.sqrt(z[0].dot(z[0]) / dim)
            if length > 1:
                z, y = z.copy(), y.copy()
                z[0] /= length
                y[0] /= length
        inner = self.inner.learn(state.inner, Evaluations(values), z, y)
        return replace(
            state,
            radius=radius,
            mean=inner.mean if learnt else state.mean,
            **self._step(inner, state.model, radius, len(values)),
        )

    def _next_radius(self, state: LQCMAState) -> float:
        """Return the radius after a proposal: longer if that kept its promise, shorter if it is not best."""
        assert state.proposal is not None
        fresh = int(np.count_nonzero(np.isfinite(state.values)))
        others = np.concatenate([state.values[1:], state.known[fresh:]])
        found, before = float(state.values[0]), float(np.fmin.reduce(others, initial=math.inf))
        z = state.proposal[0]
        length = math.sqrt(z.dot(z) / len(z))
        if not found < before:
            return max(1.0, min(state.radius, length) / _FASTER)
        kept = abs(found - state.promise) <= _EXACT * (before - state.promise) < math.inf
        return state.radius * _FASTER if kept and length > 0.9 * state.radius else state.radius

    def _step(self, inner: CMAESState, model: Model | None, radius: float, count: int) -> dict[str, Any]:
        """Return the part of a state that is new at the beginning of a step of the strategy."""
        proposal, promised, promise = None, np.zeros(count), 0.0
        if model is not None:
            proposal = self._proposal(inner, model, radius)
            promised = model(_plain(self._sample(inner, proposal)[2]))
            promise = model.base + model.unit * float(promised[0])
        return {
            "inner": inner,
            "values": np.full(count, np.nan),
            "asked": np.zeros(count, bool),
            "promised": promised,
            "proposal": proposal,
            "promise": promise,
        }

    def _proposal(self, inner: CMAESState, model: Model, radius: float) -> Matrix | None:
        """Return z and y of the minimum of the model within a radius, None if that is where the mean is."""
        bounds, center, spread = inner.frame.bounds, self._center(inner), self.inner._spread(inner)
        root, radius = inner.factor * spread, radius * math.sqrt(len(center))
        box = None if bounds is None else (bounds.lower, bounds.upper)
        z = minimum(model, center, root, radius, box)
        y = z.dot(inner.factor)
        if bounds is not None:
            x = np.clip(center + y * spread, bounds.lower, bounds.upper)
            step = to_numpy(bounds.inverse(x, self.boundary)) - inner.mean
            z, y = whiten(step[None], root)[:, 0], step / spread
        return np.array([z, y]) if z.dot(z) > 0 else None

    def _center(self, inner: CMAESState) -> Matrix:
        return _plain(self.inner.recommend(inner))


def _plain(x: Array) -> Matrix:
    return np.asarray(to_numpy(x), np.float64)


def _capacity(population_size: int, dim: int) -> int:
    """Return how many points are kept."""
    return max(2 * num_coefficients(dim, "full"), population_size)
