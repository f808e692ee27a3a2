"""Consensus hopping: points around where the search is, their weighted mean, and nothing else kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.consensus import noise, weights
from zoo.consensus.swarm import Frame, begin, place
from zoo.core.bounds import Bounds
from zoo.core.device import Array, Like, array_module, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known
from zoo.core.validation import check_count, check_flag, check_number, check_positive
from zoo.methods.es_noise import Noise, Sampled, moments
from zoo.methods.population import CHECK_EVERY, inside

Matrix = np.ndarray[Any, Any]

_SMALL = 2**17  # numbers of a swarm's step, up to which they are worked on together
_HELD = 2**20  # numbers of a step, of all swarms, that are kept from `ask` to `tell`; more are drawn again

_LEAST = 1e-150  # width, whose square is a number

_last: tuple[tuple[tuple[Key, ...], int, int, Like], Array] | None = None  # the numbers drawn last


def clear_cache() -> None:
    """Forget the numbers drawn last, which `tell` otherwise need not draw again; no result depends on it."""
    global _last
    _last = None


@state
class ConsensusHoppingState:
    """State of `ConsensusHopping`, of m searches.

    Attributes:
        frame: What they were begun with.
        step: Steps told.
        nfev: Evaluations told, of each.
        moves: How often each has hopped: steps that did not fail altogether, shape (m,).
        anchor: Where each is, its consensus point, shape (m, dim), float64.
        alpha: Inverse temperatures of the last hops, shape (m,).
        sample_size: Effective numbers of points that these were means of, shape (m,).
        reach: Lengths of the last hops in widths sigma scale, shape (m,).
    """

    frame: Frame
    step: int
    nfev: int
    moves: Matrix
    anchor: Array
    alpha: Matrix
    sample_size: Matrix
    reach: Matrix


@dataclass(frozen=True)
class ConsensusHopping:
    """Consensus hopping: sample around a point, move to the weighted mean of the sample.

        y_i  =  x + sigma scale z_i,  z_i ~ N(0, I), in pairs z, -z
        x    <- sum_i w_i y_i / sum_i w_i,  w_i = exp(-alpha (f(y_i) - min f))

    It is consensus-based optimization whose particles forget where they were (drift * dt = 1), with noise of
    a width of its own; and an evolution strategy with Boltzmann weights and a fixed step size. What it does
    is known exactly. With s = sigma scale and tau = alpha s^2, for very many points,

        x_new - x  =  -tau E grad f,  the mean over rho ~ exp(-alpha (f(y) + |y - x|^2 / (2 tau)))

    which is an implicit gradient step of length tau, on f seen through rho: as alpha falls, a step along the
    gradient of f smoothed by the sample; as s falls at the same tau, argmin f(y) + |y - x|^2 / (2 tau). On a
    quadratic with Hessian K it is (I + tau K)^-1 x, whatever alpha is. So it walks downhill, over every hill
    that is narrower than its sample is wide.

    What n points tell of that: the mean is off by about s sqrt(dim / ESS), ESS = (sum w)^2 / sum w^2, and no
    hop is longer than about s sqrt(2 log n), the distance of the outermost point along a line. With
    r = tau |grad f| / s, ESS / n is about exp(-r^2): r should not be above 1.5. That is where alpha is put
    when nothing is said of it: ESS / n is held at `sample_share`, and tau follows.

    The points of a step are a description: they are made from the key where they are evaluated, and made
    again, block by block, for their mean. Time is n dim, memory a few times dim beside the points that the
    objective takes at once, and what has to travel to replicated workers is the n values. A failed point has
    weight 0; in a step in which all fail x stays. With bounds, points are clipped to the box before they are
    evaluated and averaged.

    Departures from the paper: pairs (see `mirrored`), unless it is False; alpha follows from the sample,
    unless it or tau is given; sigma falls by a factor of .98 with every hop, in the paper with every 100
    (`decay_every`), and is in units of `scale`; the search starts at the best known point.

    Args:
        num_particles: Points of a step, n, at least 2.
        sigma: Width of the sample, in units of the `scale` that `init` is given.
        alpha: Inverse temperature, at least 0, infinite for the best point alone; None to have it follow
            from `tau` or `sample_share`.
        tau: Length of the implicit gradient step, in units of scale^2: alpha = tau / sigma^2. None where
            it is not fixed. Not with `alpha`.
        sample_share: ESS / n, where neither alpha nor tau is given; above 0 and below 1.
        mirrored: Whether points come in pairs x + s z, x - s z. What pairs have in common cancels: all noise
            of the mean where f does not change, or is even about x, as near a minimum.
        decay: What sigma is multiplied by after every `decay_every` hops, above 0 and at most 1. At a fixed
            width the search ends in a cloud as wide as its hops are off.
        decay_every: Hops between two such times.
        tolx: Stop when sigma has fallen to less than this; 0 for never.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range, or both `alpha` and `tau` are given.

    Example:
        >>> method = ConsensusHopping(num_particles=40)
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> for _ in range(50):
        ...     x = method.ask(state).rows(0, 40)
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 1e-6)
        True

    Source: K. Riedl, T. Klock, C. Geldhauser and M. Fornasier, Gradient is All You Need?, 2023,
    https://arxiv.org/abs/2306.09778
    """

    num_particles: int = 50
    sigma: float = 1.0
    alpha: float | None = None
    tau: float | None = None
    sample_share: float = 0.5
    mirrored: bool = True
    decay: float = 0.98
    decay_every: int = 1
    tolx: float = 1e-12

    recommends_evaluated = False
    compares_within_steps = True

    def __post_init__(self) -> None:
        check_count("num_particles", self.num_particles, minimum=2)
        check_positive("sigma", self.sigma)
        if self.alpha is not None and not check_number("alpha", self.alpha) >= 0:
            raise ValueError(f"`alpha` must be at least 0, got {self.alpha!r}.")
        if self.tau is not None:
            check_positive("tau", self.tau)
            if self.alpha is not None:
                raise ValueError(
                    f"`tau` must be None where `alpha` is given, got {self.tau!r}. "
                    "tau is alpha sigma^2: give one of them."
                )
        if not 0 < check_number("sample_share", self.sample_share) < 1:
            raise ValueError(f"`sample_share` must be above 0 and below 1, got {self.sample_share!r}.")
        check_flag("mirrored", self.mirrored)
        if not 0 < check_number("decay", self.decay) <= 1:
            raise ValueError(f"`decay` must be above 0 and at most 1, got {self.decay!r}.")
        check_count("decay_every", self.decay_every)
        if not 0 <= check_number("tolx", self.tolx) < math.inf:
            raise ValueError(f"`tolx` must be finite and at least 0, got {self.tolx!r}.")

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> ConsensusHoppingState:
        """Return the first state; see `zoo.core.types.Optimizer.init`. It starts at the best known point.

        Raises:
            ValueError: `x0` is no vector, or `scale` is not above 0.
        """
        return self.init_many(x0, keys=(key,), bounds=bounds, scale=scale, budget=budget, known=known)

    def init_many(
        self,
        x0: Array,
        *,
        keys: Sequence[Key],
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> ConsensusHoppingState:
        """Return the first state of as many searches as there are keys; each goes its own way."""
        is_short = Like.of(x0).working_dtype == "float32"
        frame = begin(x0, keys, bounds, scale, budget, "single" if is_short else "double")
        start = frame.x0
        if known is not None:
            order = known.order
            order = order[inside(frame.bounds, known.points[order])]
            start = frame.wide.asarray(known.points[order[0]]) if len(order) else start
        count = len(keys)
        anchor = array_module(start).stack([start] * count)
        zeros = np.zeros(count)
        return ConsensusHoppingState(
            frame, 0, 0, np.zeros(count, np.int64), anchor, zeros + (self.alpha or 0.0), zeros, zeros
        )

    def ask(self, state: ConsensusHoppingState) -> Hops:
        """Return the points of all searches, one search after the other; fewer where the budget ends."""
        return Hops(
            state.frame, state.step, state.anchor, self._widths(state), self._count(state), self.mirrored
        )

    def tell(self, state: ConsensusHoppingState, evaluations: Evaluations) -> ConsensusHoppingState:
        """Return the state after the values of all points.

        Raises:
            ValueError: There are not as many values as points.
        """
        swarms, count = len(state.anchor), self._count(state)
        if len(evaluations) != swarms * count:
            raise ValueError(
                f"`evaluations` must hold the {swarms * count} values asked for, got {len(evaluations)}."
            )
        energies = weights.energies_of(evaluations.values.reshape(swarms, count))
        state = replace(state, step=state.step + 1, nfev=state.nfev + count)
        hopped = np.isfinite(energies).any(1)
        if not hopped.any():
            return state
        hops = Hops(state.frame, state.step - 1, state.anchor, self._widths(state), count, self.mirrored)
        alpha = np.where(hopped, self._alpha(state, energies), state.alpha)
        shares = weights.boltzmann(energies, energies.min(1), alpha)
        sample_size = np.where(hopped, weights.effective_sample_size(shares), state.sample_size)
        shares /= np.where(hopped, shares.sum(1), 1.0)[:, None]
        shift = hops.mean(shares)
        anchor = state.anchor + shift
        if state.frame.bounds is not None:
            anchor = state.frame.bounds.map(anchor, "clip")  # rounding may have left the box
        units = state.frame.wide.asarray(state.frame.scale)
        reach = np.sqrt(to_numpy(((shift / units) ** 2).sum(1))) / self._sigma(state.moves)
        return replace(
            state,
            moves=state.moves + hopped,
            anchor=anchor,
            alpha=alpha,
            sample_size=sample_size,
            reach=np.where(hopped, reach, state.reach),
        )

    def recommend(self, state: ConsensusHoppingState) -> Array:
        """Return where the search is: the consensus point of its last sample."""
        return self.recommend_many(state)[0]

    def recommend_many(self, state: ConsensusHoppingState) -> Array:
        """Return where all searches are, shape (m, dim)."""
        return place(state.frame.like, state.frame.bounds, state.anchor, state.anchor * 0)

    def finished(self, state: ConsensusHoppingState) -> str | None:
        """Return which stopping rule holds, for all searches, or None."""
        budget = state.frame.budget
        if budget is not None and state.nfev >= budget:
            return f"the budget of {budget} evaluations is used up"
        if not state.step or state.step % CHECK_EVERY:
            return None
        sigma = self._sigma(state.moves)
        if bool((sigma < self.tolx).all()):
            return f"tolx: sigma has fallen below {self.tolx}"
        digits = abs(state.anchor) * (state.frame.like.epsilon / 2)
        if bool((state.frame.wide.asarray(0.2 * self._widths(state)) < digits).all()):
            return "noeffect: the sample vanishes in rounding in every coordinate"
        return None

    def diagnostics(self, state: ConsensusHoppingState) -> dict[str, Any]:
        """Return alpha, tau, sigma, the effective sample size and the length in widths of the last hop.

        The spread is the deviation of the points that it was a mean of, over all coordinates.
        """
        sigma, alpha = float(self._sigma(np.maximum(state.moves - 1, 0))[0]), float(state.alpha[0])
        return {
            "alpha": alpha,
            "tau": alpha * sigma * sigma,
            "sigma": sigma,
            "effective_sample_size": float(state.sample_size[0]),
            "spread": sigma * math.sqrt(float((state.frame.scale**2).mean())),
            "reach": float(state.reach[0]),
        }

    def _count(self, state: ConsensusHoppingState) -> int:
        budget, count = state.frame.budget, self.num_particles
        return count if budget is None else max(0, min(count, budget - state.nfev))

    def _sigma(self, moves: Matrix) -> Matrix:
        """Return widths of samples after so many hops, in units of scale, shape (m,)."""
        sigma: Matrix = np.maximum(self.sigma * self.decay ** (moves // self.decay_every), _LEAST)
        return sigma

    def _widths(self, state: ConsensusHoppingState) -> Matrix:
        """Return the same as lengths, shape (m, 1), or (m, dim) where coordinates differ in scale."""
        scale = state.frame.scale
        return self._sigma(state.moves)[:, None] * (scale[:1] if (scale == scale[0]).all() else scale)

    def _alpha(self, state: ConsensusHoppingState, energies: Matrix) -> Matrix:
        """Return the inverse temperatures of a step, shape (m,)."""
        if self.alpha is not None:
            return np.full(len(energies), float(self.alpha))
        if self.tau is not None:
            with np.errstate(over="ignore"):
                alpha: Matrix = self.tau / self._sigma(state.moves) ** 2
            return alpha
        return weights.alpha_of(energies, self.sample_share, np.zeros(len(energies)))


class Hops(Candidates):
    """The points of a step of some searches, made from their keys where they are wanted.

    Args:
        frame: What the searches were begun with.
        step: Number of the step.
        anchor: Where they are, shape (m, dim), float64.
        widths: Of the samples, shape (m, 1) or (m, dim), float64.
        count: Points of each search.
        mirrored: Whether they come in pairs.
    """

    __slots__ = (
        "_held",
        "anchor",
        "bounds",
        "count",
        "keys",
        "like",
        "mirrored",
        "num",
        "step",
        "widths",
        "work",
    )

    def __init__(
        self, frame: Frame, step: int, anchor: Array, widths: Matrix, count: int, mirrored: bool
    ) -> None:
        self.keys, self.like, self.work, self.bounds = frame.keys, frame.like, frame.work, frame.bounds
        self.num, self.step, self.anchor, self.widths = frame.dim, step, anchor, widths
        self.count, self.mirrored = count, mirrored
        self._held: dict[int, Sampled] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "_held"}

    def __setstate__(self, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            setattr(self, name, value)
        self._held = {}

    @property
    def dim(self) -> int:
        return self.num

    def __len__(self) -> int:
        return len(self.keys) * self.count

    def rows(self, start: int, stop: int) -> Array:
        parts = []
        while start < stop:
            swarm, first = divmod(start, self.count)
            last = min(self.count, first + stop - start)
            if not self._is_small:
                parts.append(self._sampled(swarm).rows(first, last))
            else:
                together = max(1, min(self._together, (stop - start) // self.count)) if not first else 1
                offsets = self._offsets(swarm, swarm + together, first, last)
                anchor = self.anchor[swarm : swarm + together, None]
                parts.append(place(self.like, self.bounds, anchor, offsets).reshape(-1, self.num))
            start += len(parts[-1])
        if len(parts) == 1:
            return parts[0]
        return (
            array_module(self.anchor).concatenate(parts)
            if parts
            else self.like.asarray(np.empty((0, self.num)))
        )

    def mean(self, shares: Matrix) -> Array:
        """Return how far the weighted means of the rows are from the anchors, shape (m, dim), float64.

        Args:
            shares: Weights of the rows, which add up to 1 or are all 0, shape (m, count).
        """
        if not self._is_small:
            shifts = [self._mean(swarm, shares[swarm]) for swarm in range(len(self.keys))]
            return array_module(self.anchor).stack(shifts)
        parts = []
        for swarm in range(0, len(self.keys), self._together):
            these = slice(swarm, min(swarm + self._together, len(self.keys)))
            if self.bounds is None:
                z = self._normal(these.start, these.stop)
                width = self._wide.asarray(self.widths[these])
                parts.append(weights.weighted_sum(self._halves(shares[these]), z) * width)
            else:
                anchor = self.anchor[these]
                points = anchor[:, None] + self._offsets(these.start, these.stop, 0, self.count)
                parts.append(
                    weights.weighted_sum(shares[these], self.bounds.map(points, "clip") - anchor[:, None])
                )
        return parts[0] if len(parts) == 1 else array_module(self.anchor).concatenate(parts)

    @property
    def _wide(self) -> Like:
        return Like(self.like.kind, "float64", self.like.device)

    @property
    def _drawn(self) -> int:
        """How many rows of normal numbers a search has."""
        return -(-self.count // 2) if self.mirrored else self.count

    @property
    def _is_small(self) -> bool:
        return self._drawn * self.num <= _SMALL

    @property
    def _together(self) -> int:
        """How many searches are worked on at once."""
        return max(1, _HELD // max(1, self._drawn * self.num))

    def _halves(self, shares: Matrix) -> Matrix:
        """Return what the normal numbers are weighted with."""
        if not self.mirrored:
            return shares
        if self.count % 2:
            shares = np.pad(shares, ((0, 0), (0, 1)))
        return shares[:, ::2] - shares[:, 1::2]

    def _normal(self, start: int, stop: int) -> Array:
        """Return normal numbers of some searches, shape (stop - start, rows, dim), not to be written to."""
        global _last
        keys = self.keys[start:stop]
        if len(self.keys) * self._drawn * self.num > _HELD:
            return noise.normal(keys, self.step, 0, self._drawn, self._drawn, self.num, self.work)
        name = self.keys, self.step, self._drawn, self.work
        last = _last
        if last is None or last[0] != name or last[1].shape[2] != self.num:
            drawn = noise.normal(self.keys, self.step, 0, self._drawn, self._drawn, self.num, self.work)
            _last = last = name, drawn
        return last[1][start:stop]

    def _offsets(self, start: int, stop: int, first: int, last: int) -> Array:
        """Return where rows `first` to `last` of some searches are, from their anchors."""
        width = self.work.asarray(self.widths[start:stop])[:, None]
        z = self._normal(start, stop)
        if not self.mirrored:
            return z[:, first:last] * width
        skipped = first // 2
        step = z[:, skipped : -(-last // 2)] * width
        pairs = array_module(step).stack([step, -step], 2).reshape(len(step), -1, self.num)
        return pairs[:, first - 2 * skipped : last - 2 * skipped]

    @property
    def _source(self) -> Like:
        """What the numbers are drawn as where they are many: torch does so in a third of numpy's time."""
        is_short = self.work.kind == "numpy" and self.work.dtype == "float32"
        return Like("torch", "float32") if is_short else self.work

    def _noise(self, swarm: int) -> Noise:
        return Noise(self.keys[swarm], self.step, self._drawn, self.num, self._source, None)

    def _sampled(self, swarm: int) -> Sampled:
        """Return the rows of a search whose numbers are too many to be held."""
        if swarm not in self._held:
            width = self.widths[swarm]
            self._held = {
                swarm: Sampled(
                    self._source.asarray(self.anchor[swarm]),
                    float(width[0]) if len(width) == 1 else self._source.asarray(width),
                    self._noise(swarm),
                    self.count,
                    mirrored=self.mirrored,
                    bounds=self.bounds,
                    boundary="clip",
                    like=self.like,
                )
            }
        return self._held[swarm]

    def _mean(self, swarm: int, shares: Matrix) -> Array:
        """Return `mean` of one search, shape (dim,)."""
        width = self._wide.asarray(self.widths[swarm])
        if self.bounds is None:
            total, _ = moments(self._noise(swarm), self._halves(shares[None])[0], None)
            return self._wide.asarray(total) * width
        sampled, anchor = self._sampled(swarm), self.anchor[swarm]
        shift = anchor * 0
        height = max(2, _SMALL // self.num // 2 * 2)
        for start in range(0, self.count, height):
            part = shares[start : start + height]
            rows = self._wide.asarray(sampled.rows(start, start + len(part)))
            shift += weights.weighted_sum(part[None], (rows - anchor)[None])[0]
        return shift
