"""Consensus-based optimization: particles that drift towards a consensus point and diffuse around it.

A step is made of what is done to particles, which may be any range of them, and of what is common to all:

    take     values of particles, into their memories                           any range
    best_of  the best point among them                                          any range
    elect    the best point so far                                              common
    heat     the inverse temperature                                            common
    weigh    sums of weights and of weighted points                             blocks of `weights.boundaries`
    agree    the consensus point, from the sums of all blocks in their order    common
    order    what every particle is told: d numbers and a few                   common
    move     particles by it, each with numbers of its own                      blocks, or any range that
                                                                                explores by no differences

`CBO.tell` is these in a row, on all particles. A swarm in shards calls the same functions on parts of it, and
so comes to the same bytes.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf  # by its own name, as the repr of a method writes it
from typing import Any

import numpy as np

from zoo.consensus import choices, dynamics, guard, schedules, weights
from zoo.consensus.host import of_kind, on_host
from zoo.consensus.members import Members as Members
from zoo.consensus.members import Move as Move
from zoo.consensus.members import join as join
from zoo.consensus.motion import REACH as REACH
from zoo.consensus.motion import Motion, in_batch
from zoo.consensus.swarm import (
    STARTS,
    Frame,
    Particles,
    begin,
    changed,
    completed,
    drafted,
    place,
    scatter,
)
from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known
from zoo.core.validation import (
    check_choice,
    check_count,
    check_flag,
    check_fraction,
    check_number,
    check_positive,
    check_probability,
)
from zoo.methods.population import CHECK_EVERY, beside

Matrix = np.ndarray[Any, Any]

MEMORIES = ("none", "greedy", "local")
CORRECTIONS = ("none", "heaviside", "smooth")
MOVING = ("all", "batch")

_NOTHING = np.empty(0)


@state
class CBOState:
    """State of `CBO`, of m swarms of n particles.

    Attributes:
        frame: What the swarms were begun with.
        step: Steps told.
        nfev: Evaluations told, of each swarm.
        moves: Times that particles have moved.
        count: Particles of a swarm.
        awaits: Whether the value of the consensus point is asked for next.
        anchor: The consensus points, shape (m, dim), float64; x0 before there are any.
        shift: Steps that they last made, or make when their value has come, shape (m, dim), float64.
        best: The best point of each swarm, shape (m, dim), float64; x0 for ever if it is for nothing.
        best_value: Its value, infinite before there is one, shape (m,).
        alpha: Inverse temperatures, shape (m,).
        sample_size: Effective sample sizes of the last consensus points, shape (m,).
        still: For how many moves the consensus points have stood still, shape (m,).
        accepted: Explorers that found something better than their memory in the last step, shape (m,).
        variance: Of the particles' places when the epoch began, if particles are reduced; else 0.
        members: The particles.
    """

    frame: Frame
    step: int
    nfev: int
    moves: int
    count: int
    awaits: bool
    anchor: Array
    shift: Array
    best: Array
    best_value: Matrix
    alpha: Matrix
    sample_size: Matrix
    still: Matrix
    accepted: Matrix
    variance: float
    members: Members


@dataclass(frozen=True)
class CBO:
    """Consensus-based optimization, with a greedy memory, sparse noise and explorers.

    A particle x_i has a memory y_i, the best point that it has been at. The consensus point is the mean of
    the memories, weighted by how good they are, and everything is done seen from there:

        c      =  sum_i w_i y_i / sum_i w_i,   w_i = exp(-alpha (f(y_i) - min f))
        x_ij   =  c_j + (y_ij - c_j) (1 - drift dt + sigma sqrt(dt) xi_ij)   for some coordinates j, at random
        x_ij   =  y_ij                                                       for the others
        x_i    =  c but for one coordinate, which jumps                      if particle i is an explorer
        y_i   <-  x_i  if f(x_i) <= f(y_i)

    with xi standard normal. `TextbookCBO` is the method as published, without memory (y_i is x_i), all
    coordinates moving, and no explorers.

    Noise is multiplied by the distance to the consensus point, so swarms narrow down by themselves, although
    the square of that distance grows on average with the noise that is of use: most particles come nearer, a
    few are thrown far. How fast is a matter of u = sigma sqrt(dt) alone: fastest near .75, slowly above 1.2,
    and from 1.57 on not at all (`zoo.consensus.dynamics.contraction`). So above 1.2 there is a warning, and
    above 1.5 an error. With isotropic noise the limit depends on the number of variables, so it is judged by
    `init`; not with greedy memory, with which only better points are gone on from. Where noise that strong is
    truncated at T, particles stay a cloud u T / sqrt(drift dt (2 - drift dt)) wide instead: `init` warns of
    one wider than `scale`, and refuses one ten times as wide. Some papers write sqrt(2) sigma where we write
    sigma: what is .7 there is 1 here.

    Explorers and sparse noise try coordinates by themselves. On functions where variables do not interact
    this takes a fifth to a tenth of the evaluations; where they do it gains nothing: all runs find the
    minimum of Rastrigin's function of 20 variables in 12,000 evaluations, and none when it is turned.
    `cbo-curvature` (`zoo.consensus.curvature.CurvatureCBO`) measures the axes first.

    Failed evaluations have weight 0. Where all have failed the consensus point stays; as long as nothing has
    a value, x0 stands in for it. At a wall coordinates are clipped. No particle ever moves further than
    10,000 times `scale` from the consensus point, whatever the noise; in a box it may begin further away. At
    alpha = inf only the order of values counts. Memories keep lucky values; where values are noisy
    `ConsensusHopping` does better by far. Without memory, with `elitist=False` and a finite alpha, the
    consensus point is a mean: `noise=True` then evaluates again only after steps whose effective sample size
    is below 4. Options can be combined; the few that cannot are refused.

    Args:
        num_particles: Particles of a swarm, N.
        drift: Pull towards the consensus point. At drift dt = 1 particles forget where they were.
        sigma: Strength of the noise.
        dt: Length of a time step.
        alpha: Inverse temperature, from 0 (the plain mean) to infinity (the mean of the best, all equally
            good).
        alpha_schedule: How it changes.
            "constant": not at all.
            "multiply": alpha <- min(alpha_rate alpha, max_alpha) each step.
            "effective-sample-size": that at which (sum w)^2 / sum w^2 is `sample_share` of the particles that
            have a value, the best point so far being one of them where it takes part (Carrillo et al. 2022);
            takes noise with which means of many particles contract, a
            sigma sqrt(dt) of .5 or less.
            "cooling": alpha doubles, up to max_alpha, and sigma is divided by log2(e + 2) / log2(e + 1) after
            epoch e = 1, 2, ... (Fornasier, Klock and Riedl 2022).
        alpha_rate: What "multiply" multiplies alpha by.
        max_alpha: What alpha grows up to; one that is above it already stays.
        sample_share: Effective sample size over particles that is aimed at, above 0 and below 1.
        epoch: Steps of an epoch, for cooling and `reduction`.
        reduction: mu, at least 0 and below 1: after an epoch N <- ceil(N (1 - mu + mu V / V')), not more than
            before, V the variance of the particles now and V' at the beginning of the epoch (Fornasier et al.
            2021). Those of the highest numbers go, which were numbered by chance, but for the one that
            remembers the best point. One swarm only; 0 for never.
        noise: "anisotropic", each coordinate by its own distance (Carrillo et al. 2021), or "isotropic", all
            by that of the particle, sigma |x - c| (Pinnau et al. 2017).
        integrator: "euler-maruyama", or "exponential", exact as long as c stays where it is; for anisotropic
            noise it is stable whatever sigma, but never changes a sign, and so looks around less.
        truncation: Distance from c at which noise stops growing, per coordinate if anisotropic (Fornasier et
            al. 2023). The noise is then Euler-Maruyama's in both integrators.
        correction: "heaviside" multiplies the drift by H(f(x) - f(c)), 1 above 0 and 0 elsewhere, so that
            nobody is drawn to a consensus point worse than where it is; "smooth" by 1/2 + 1/2 tanh((f(x) -
            f(c)) / correction_width) (Pinnau et al. 2017). It corrects the drift alone, not the noise. Each
            step then has a second part, the evaluation of c. "none" for neither.
        correction_width: Difference of values over which the smooth correction acts.
        batch_size: Particles that are evaluated in a step and make the consensus point; None for all. Batches
            walk through a random order of the particles, then another (Carrillo et al. 2021).
        batch_moves: "all", also those that were not evaluated, or "batch".
        memory: "greedy", where particles go on from the best points that they have been at; "none"; or
            "local", where they go on from where they are, and are drawn to their own best points as well
            (Grassi and Pareschi 2021; Riedl 2024): x_i <- x_i + CBO's step + [the same step from y_i, with
            memory_drift, memory_sigma and another xi].
        memory_drift: Pull of a particle's own best point, with local memory.
        memory_sigma: Strength of the noise about it; None for memory_drift sigma.
        num_coordinates: How many coordinates of a particle move in a step, on average: each does with
            probability num_coordinates / dim. None for all.
        explorers: Share of the particles that explore; one at least if it is above 0. They keep what they
            find by memory, or by `elitist`.
        shortest_jump: Least standard deviation of their jumps, in units of `scale`; drawn log-uniformly.
        longest_jump: Largest standard deviation of their jumps.
        differences: Probability that a jump is the difference of two particles of the same block instead.
        elitist: Whether the best point so far is recommended and, without memory, takes part in the consensus
            like one more particle. If not, the consensus point is recommended, as for noisy objectives.
        restart: If the consensus point has moved less than this in every coordinate, in units of `scale`,
            particles are shaken: x <- x + sigma sqrt(dt) scale xi (Carrillo et al. 2021). 0 for never.
        patience: For how many steps in a row, before they are; the source has 1. With memory the consensus
            point stands still whenever nobody finds anything, so take more.
        start: Law of the first particles: x0 + `scale` z with z standard normal ("normal") or uniform in
            [-1, 1] ("uniform"); uniform in the box in any case where there is one.
        precision: "double", or "single" for the particles' offsets from the consensus point, which itself is
            double.
        tolx: Stop when the particles, explorers aside, are all within this, in units of `scale`, or within
            rounding; 0 for never. With `restart` they go on.
        allow_divergence: Whether noise with which swarms fly apart is allowed, with a warning.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range, or the noise is too strong.

    Example:
        >>> method = CBO()
        >>> state = method.init(np.full(20, 2.0), key=Key(0))
        >>> for _ in range(800):
        ...     x = method.ask(state).rows(0, 20)
        ...     state = method.tell(state, Evaluations((x**2 - 10 * np.cos(2 * np.pi * x) + 10).sum(1)))
        >>> bool(abs(method.recommend(state)).max() < 0.25)
        True

    Note:
        Memory is the limit of Riedl's y_i <- y_i + kappa dt (x_i - y_i) (1 + tanh(beta (f(y_i) - f(x_i)))) /
        2 at kappa dt = 1, beta = inf. His four terms are added up at once here, as in the equation, and not
        one after another. Greedy memory, sparse noise and explorers are ours. In batches whatever is left
        over of an order is skipped, so that all batches are of one size. Particles that are not in a batch
        have no value yet for the correction, and are drawn in full; so are those that failed. Truncated noise
        is the paper's, but its drift towards the consensus point's projection onto a ball is left out.

    References:
        Pinnau, Totzeck, Tse and Martin, "A consensus-based model for global optimization and its mean-field
        limit", 2017. https://arxiv.org/abs/1604.05648
        Carrillo, Jin, Li and Zhu, "A consensus-based global optimization method for high dimensional machine
        learning problems", 2021. https://arxiv.org/abs/1909.09249
        Fornasier, Huang, Pareschi and Sünnen, "Consensus-based optimization on the sphere: convergence to
        global minimizers and machine learning", 2021. https://arxiv.org/abs/2001.11988
        Carrillo, Hoffmann, Stuart and Vaes, "Consensus-based sampling", 2022.
        https://arxiv.org/abs/2106.02519
        Fornasier, Klock and Riedl, "Convergence of anisotropic consensus-based optimization in mean-field
        law", 2022. https://arxiv.org/abs/2111.08136
        Fornasier, Richtárik, Riedl and Sun, "Consensus-based optimisation with truncated noise", 2023.
        https://arxiv.org/abs/2310.16610
        Grassi and Pareschi, "From particle swarm optimization to consensus based optimization: stochastic
        modeling and mean-field limit", 2021. https://arxiv.org/abs/2012.05613
        Riedl, "Leveraging memory effects and gradient information in consensus-based optimisation", 2024.
        https://arxiv.org/abs/2211.12184
    """

    num_particles: int = 20
    drift: float = 1.0
    sigma: float = 8.0
    dt: float = 0.01
    alpha: float = inf
    alpha_schedule: str = "constant"
    alpha_rate: float = 1.05
    max_alpha: float = 1e15
    sample_share: float = 0.5
    epoch: int = 100
    reduction: float = 0.0
    noise: str = "anisotropic"
    integrator: str = "euler-maruyama"
    truncation: float = inf
    correction: str = "none"
    correction_width: float = 1e-3
    batch_size: int | None = None
    batch_moves: str = "all"
    memory: str = "greedy"
    memory_drift: float = 0.4
    memory_sigma: float | None = None
    num_coordinates: int | None = 3
    explorers: float = 0.8
    shortest_jump: float = 0.1
    longest_jump: float = 3.0
    differences: float = 0.3
    elitist: bool = True
    restart: float = 0.0
    patience: int = 1
    start: str = "normal"
    precision: str = "double"
    tolx: float = 1e-12
    allow_divergence: bool = False

    def __post_init__(self) -> None:
        check_count("num_particles", self.num_particles)
        for name in ("drift", "dt", "alpha_rate", "max_alpha", "correction_width", "shortest_jump"):
            check_positive(name, getattr(self, name))
        for name in ("sigma", "memory_drift", "restart", "tolx"):
            _check_finite(name, getattr(self, name))
        for name in ("alpha", "truncation"):
            if not check_number(name, getattr(self, name)) >= 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)!r}.")
        check_choice("alpha_schedule", self.alpha_schedule, schedules.SCHEDULES)
        if check_fraction("sample_share", self.sample_share) == 0:
            raise ValueError(f"`sample_share` must be above 0 and below 1, got {self.sample_share!r}.")
        for name in ("epoch", "patience"):
            check_count(name, getattr(self, name))
        check_fraction("reduction", self.reduction)
        check_choice("noise", self.noise, dynamics.NOISES)
        check_choice("integrator", self.integrator, dynamics.INTEGRATORS)
        check_choice("correction", self.correction, CORRECTIONS)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)
            if self.batch_size > self.num_particles:
                raise ValueError(
                    f"`batch_size` must be at most `num_particles`, {self.num_particles}, "
                    f"got {self.batch_size}."
                )
        check_choice("batch_moves", self.batch_moves, MOVING)
        check_choice("memory", self.memory, MEMORIES)
        if self.memory_sigma is not None:
            _check_finite("memory_sigma", self.memory_sigma)
        if self.num_coordinates is not None:
            check_count("num_coordinates", self.num_coordinates)
        for name in ("explorers", "differences"):
            check_probability(name, getattr(self, name))
        if not self.shortest_jump <= check_number("longest_jump", self.longest_jump) < math.inf:
            raise ValueError(
                f"`longest_jump` must be finite and at least `shortest_jump`, {self.shortest_jump!r}, "
                f"got {self.longest_jump!r}."
            )
        for name in ("elitist", "allow_divergence"):
            check_flag(name, getattr(self, name))
        check_choice("start", self.start, STARTS)
        check_choice("precision", self.precision, ("single", "double"))
        if self.alpha_schedule == "multiply" and not 0 < self.alpha < math.inf:
            raise ValueError(
                f"`alpha` must be finite and above 0 with `alpha_schedule='multiply'`, got {self.alpha!r}. "
                "Give the value to begin with."
            )
        own = self.memory_drift * self.dt if self.memory == "local" else 0.0
        guard.check_drift(self.drift * self.dt, self.integrator, self.allow_divergence, own)
        if self.noise == "anisotropic" and self._may_diverge:
            guard.check_coordinates(self._noise, self.allow_divergence)

    @property
    def recommends_evaluated(self) -> bool:
        """Whether `recommend` returns a point that was evaluated."""
        return self.elitist

    @property
    def _memory_sigma(self) -> float:
        return self.memory_drift * self.sigma if self.memory_sigma is None else self.memory_sigma

    @property
    def _noise(self) -> float:
        """Noise of a step per distance, where a particle's own best point is at the consensus point too."""
        own = self._memory_sigma if self.memory == "local" else 0.0
        return math.hypot(self.sigma, own) * math.sqrt(self.dt)

    @functools.cached_property
    def _motion(self) -> Motion:
        """What particles do once they are told."""
        root = math.sqrt(self.dt)
        return Motion(
            self.drift * self.dt,
            self.sigma * root,
            self.noise,
            self.integrator,
            self.truncation,
            self.correction,
            self.correction_width,
            self.memory,
            self.memory_drift * self.dt,
            self._memory_sigma * root,
            self.num_coordinates,
            self.explorers,
            (self.shortest_jump, self.longest_jump, self.differences),
            self.batch_size if self.batch_moves == "batch" else None,
        )

    @property
    def _looks_at_heights(self) -> bool:
        """Whether the inverse temperature depends on the energies of all particles."""
        return self.alpha_schedule == "effective-sample-size"

    @property
    def _has_guest(self) -> bool:
        """Whether the best point so far takes part in the consensus beside the particles."""
        return self.elitist and self.memory == "none"

    @property
    def _may_diverge(self) -> bool:
        """Whether noise that is too strong makes particles fly apart at all."""
        exact = self.integrator == "exponential" and self.noise == "anisotropic"
        return not exact and math.isinf(self.truncation)

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> CBOState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, `scale` is not above 0, or the noise is too strong.
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
    ) -> CBOState:
        """Return the first state of as many swarms as there are keys; each goes its own way.

        Args:
            x0: Where all begin, shape (dim,).
            keys: Of the swarms.
            bounds: Box.
            scale: Typical distances, a number or shape (dim,).
            budget: Evaluations of each swarm.
            known: Points that were evaluated before; the best of them are the first particles, and are
                evaluated again.

        Raises:
            ValueError: `x0` is no vector, `scale` is not above 0, the noise is too strong, or several swarms
                are to lose particles.
        """
        if self.reduction and len(keys) > 1:
            raise ValueError(
                "`reduction` must be 0 for several swarms, which would come to be of several sizes."
            )
        frame = begin(x0, keys, bounds, scale, budget, self.precision)
        # With greedy memory every step starts from a point that only a better one has replaced.
        if self.memory != "greedy":
            self._judge(frame)
        offsets = scatter(frame, self.num_particles, self.start, known)
        xp, m, n = array_module(offsets), len(keys), self.num_particles
        anchor = xp.stack([frame.x0] * m)
        has_memory = self.memory != "none"
        members = Members(
            0,
            offsets,
            offsets if has_memory else offsets[:, :0],
            np.full((m, n if has_memory else 0), np.inf),
            np.full((m, n), np.inf),
        )
        return CBOState(
            frame,
            0,
            0,
            0,
            n,
            False,
            anchor,
            anchor * 0,
            anchor,
            np.full(m, np.inf),
            np.full(m, float(self.alpha)),
            np.zeros(m),
            np.zeros(m, np.int64),
            np.zeros(m, np.int64),
            _variance(offsets) if self.reduction else 0.0,
            members,
        )

    def _judge(self, frame: Frame) -> None:
        """Judge noise for which it takes the number of variables, or the scale, to know how strong it is."""
        pulls = [self.drift * self.dt] + [self.memory_drift * self.dt] * (self.memory == "local")
        a = sum(pulls) if self.integrator == "euler-maruyama" else sum(-math.expm1(-pull) for pull in pulls)
        if math.isfinite(self.truncation):
            rate = guard.rate_of(a, self._noise, self.noise, frame.dim)
            width, scale = self._noise * self.truncation, float(frame.scale.min())
            guard.check_cloud(a, width, rate, scale, self.allow_divergence, stacklevel=4)
        elif self.noise == "isotropic":
            guard.check_distance(a, self._noise, frame.dim, self.allow_divergence, stacklevel=4)

    def ask(self, state: CBOState) -> Candidates:
        """Return the particles, or consensus points, whose values are wanted; fewer where the budget ends."""
        frame, count = state.frame, self.wanted(state)
        if state.awaits:
            offsets = frame.work.asarray(state.shift * 0)[:, None]
            return Particles(frame.like, frame.bounds, state.anchor + state.shift, offsets[:, :count])
        offsets = state.members.offsets
        if self.batch_size is not None:
            rows = choices.batches(frame.keys, state.moves, state.count, self.batch_size)
            offsets = _rows(offsets, rows)
        if count < offsets.shape[1]:
            offsets = offsets[:, :count]
        return Particles(frame.like, frame.bounds, state.anchor, offsets, self._averaged(state))

    def _averaged(self, state: CBOState) -> Matrix | None:
        """Return effective sample sizes where values go into means, going by the consensus before these."""
        if self.memory != "none" or self.elitist or math.isinf(self.alpha):
            return None
        return state.sample_size if state.step else np.array([math.inf])

    def wanted(self, state: CBOState) -> int:
        """Return how many evaluations of each swarm are wanted next."""
        count = 1 if state.awaits else self.batch_size or state.count
        return count if state.frame.budget is None else max(0, min(count, state.frame.budget - state.nfev))

    def tell(self, state: CBOState, evaluations: Evaluations) -> CBOState:
        """Return the state after the values of what was asked for.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        m, count = len(state.anchor), self.wanted(state)
        if len(evaluations) != m * count:
            raise ValueError(
                f"`evaluations` must hold the {m * count} values asked for, got {len(evaluations)}."
            )
        # Infinite where an evaluation failed: of NaN and a number, `fmin` takes the number.
        values: Matrix = np.fmin(evaluations.values, np.inf).reshape(m, count)
        draft: Any = drafted(state)
        draft.step, draft.nfev = state.step + 1, state.nfev + count
        if state.awaits:
            return completed(self._move(draft, values[:, 0] if count else np.full(m, np.inf)))
        members, draft.accepted = self.take(state, state.members, self.energies(state, values))
        draft.members = members
        draft = self.elect(draft, [self.best_of(state, members)])
        draft = self.heat(draft, self.heights(state, members) if self._looks_at_heights else None)
        draft = self.agree(draft, self.weigh(draft, members))
        return completed(draft if draft.awaits else self._move(draft, _NOTHING))

    def _move(self, state: CBOState, height: Matrix) -> CBOState:
        state, told = self.order(state, height)
        state = changed(state, members=self.move(state.frame, state.members, told))
        return self._reduce(state) if self.reduction and state.moves % self.epoch == 0 else state

    def energies(self, state: CBOState, values: Matrix) -> Matrix:
        """Return values of what was asked for as those of all particles, infinite where there is none.

        Args:
            state: The state that was asked.
            values: Shape (m, k), k at most what was wanted.

        Returns:
            Shape (m, n).
        """
        if values.shape[1] == state.count:
            return values
        energies = np.full((len(values), state.count), np.inf)
        if self.batch_size is None:
            energies[:, : values.shape[1]] = values
        else:
            rows = choices.batches(state.frame.keys, state.moves, state.count, self.batch_size)
            np.put_along_axis(energies, rows[:, : values.shape[1]], values, 1)
        return energies

    def take(self, state: CBOState, members: Members, energies: Matrix) -> tuple[Members, Matrix]:
        """Return some particles after their values have come, and how many explorers were accepted.

        Args:
            state: What is common.
            members: Any of them.
            energies: Their values, shape (m, k), infinite where there is none.
        """
        if self.memory == "none":
            return changed(members, energies=energies), state.accepted
        # Equal values count as better, so that particles move on plateaus, and while nothing has a value.
        improved = energies <= members.remembered
        xp, mask = array_module(members.offsets), improved[..., None]
        if xp is not np:
            mask = xp.from_numpy(mask).to(members.offsets.device)
        memory = xp.where(mask, members.offsets, members.memory)
        first = max(0, state.count - self._explorers(state.count) - members.start)
        accepted = np.count_nonzero(improved[:, first:] & np.isfinite(energies[:, first:]), 1)
        remembered = np.minimum(energies, members.remembered)
        return Members(members.start, members.offsets, memory, remembered, energies), accepted

    def best_of(self, state: CBOState, members: Members) -> tuple[Matrix, Array | None]:
        """Return the least new values of some particles, and where; no place if none beats the best so far.

        Returns:
            Shapes (m,) and (m, dim).
        """
        if not self.elitist:  # it is for nothing
            return state.best_value, None
        values = members.energies.min(1)
        if not (values < state.best_value).any():
            return values, None
        index = members.energies.argmin(1)[:, None]
        return values, self._placed(state, state.anchor, _rows(members.offsets, index))

    def _placed(self, state: CBOState, anchor: Array, offsets: Array) -> Array:
        """Return the very points that are evaluated, shape (m, dim), float64, of offsets (m, 1, dim)."""
        frame = state.frame
        return frame.wide.asarray(place(frame.like, frame.bounds, anchor[:, None], offsets)[:, 0])

    def elect(self, state: CBOState, found: Sequence[tuple[Matrix, Array | None]]) -> CBOState:
        """Return the state with the best points so far, of what `best_of` found in the particles in order."""
        best, best_value = state.best, state.best_value
        for values, points in found:
            if points is not None and (values < best_value).any():
                better = values < best_value
                best = array_module(best).where(beside(best, better[:, None]), points, best)
                best_value = np.where(better, values, best_value)
        return state if best is state.best else changed(state, best=best, best_value=best_value)

    def heights(self, state: CBOState, members: Members) -> Matrix:
        """Return the energies that some particles are weighted by, infinite outside the batch."""
        if self.batch_size is None or self.memory == "none":
            return members.heights
        inside = in_batch(state.frame, state.moves, state.count, self.batch_size, members)
        return np.where(inside, members.heights, np.inf)

    def heat(self, state: CBOState, heights: Matrix | None = None) -> CBOState:
        """Return the state with the inverse temperature of its next consensus points.

        Args:
            state: What is common.
            heights: Energies of all particles, shape (m, n), which the effective sample size is made of;
                other schedules need none.
        """
        if self._looks_at_heights:
            assert heights is not None
            if self._has_guest:
                heights = np.concatenate([heights, state.best_value[:, None]], 1)
            return changed(state, alpha=weights.alpha_of(heights, self.sample_share, state.alpha))
        if self.alpha_schedule == "multiply" and state.moves:
            return changed(state, alpha=schedules.multiplied(state.alpha, self.alpha_rate, self.max_alpha))
        if self.alpha_schedule == "cooling":
            alpha = schedules.doubled(self.alpha, state.moves // self.epoch, self.max_alpha)
            return changed(state, alpha=np.full(len(state.alpha), alpha))
        return state

    def weigh(self, state: CBOState, members: Members) -> list[weights.Sums]:
        """Return the sums over some blocks of particles, in order.

        Args:
            state: What is common, with the inverse temperature of this step.
            members: Particles from one of `weights.boundaries` to another.
        """
        heights, points = self.heights(state, members), members.points
        edges = weights.edges_between(state.count, members.start, members.stop)
        return [weights.sums_between(edges, heights, points, state.alpha)]

    def agree(self, state: CBOState, sums: Sequence[weights.Sums]) -> CBOState:
        """Return the state with the step of the consensus points, from the sums over all blocks in order.

        Where nothing has a value they stay where they are.
        """
        parts = list(sums)
        if self._has_guest:
            there = np.isfinite(state.best_value) * 1.0
            parts.append(weights.Sums(state.best_value, there, there, on_host(state.best - state.anchor)))
        merged = weights.merge(parts, state.alpha)
        sample_size = merged.total * merged.total / np.maximum(merged.squares, 1.0)  # that of the best is 1
        awaits = self.correction != "none"
        shift = of_kind(state.anchor, weights.centre(merged))
        return changed(state, shift=shift, sample_size=sample_size, awaits=awaits)

    def order(self, state: CBOState, height: Matrix) -> tuple[CBOState, Move]:
        """Return the state after a move of all particles, but for them, and what they are told.

        Args:
            state: What is common.
            height: Values of the consensus points, shape (m,), if they were awaited; else empty.
        """
        anchor = state.anchor + state.shift
        shaken: Matrix = _NOTHING
        if len(height):
            at = self._placed(state, anchor, state.frame.work.asarray(anchor * 0)[:, None])
            state = self.elect(state, [(height, at)])
        if self.restart:
            far = to_numpy(abs(state.shift)) >= self.restart * state.frame.scale
            still = np.where(far.any(1), 0, state.still + 1)
            shaken = still >= self.patience
            state = changed(state, still=np.where(shaken, 0, still))
        is_cooled = self.alpha_schedule == "cooling"
        cooling = schedules.cooled(1.0, state.moves // self.epoch) if is_cooled else 1.0
        told = Move(state.moves, state.count, anchor, state.shift, cooling, height, shaken)
        return changed(state, moves=state.moves + 1, anchor=anchor, awaits=False), told

    def move(self, frame: Frame, members: Members, told: Move) -> Members:
        """Return some particles after a move.

        Args:
            frame: What the swarms were begun with.
            members: Any of them; with `differences`, explorers come with the whole of their blocks.
            told: What all of them are told.
        """
        return self._motion.move(frame, members, told)

    def _explorers(self, count: int) -> int:
        """Return how many of the particles, the last ones, explore."""
        return self._motion.explorers_of(count)

    def _reduce(self, state: CBOState) -> CBOState:
        """Return the state at the end of an epoch, the fewer particles the narrower the swarm has become."""
        now = _variance(state.members.offsets)
        count = schedules.reduced(state.count, state.variance, now, self.reduction, self.batch_size or 1)
        members = state.members.cut(0, count)
        best = int(state.members.remembered[0].argmin()) if self.memory != "none" else 0
        if best >= count:  # takes the place of the last one that stays
            members = changed(
                members,
                offsets=_with_last(members.offsets, state.members.offsets, best),
                memory=_with_last(members.memory, state.members.memory, best),
                remembered=_with_last(members.remembered, state.members.remembered, best),
                energies=_with_last(members.energies, state.members.energies, best),
            )
        variance = now if count == state.count else _variance(members.offsets)
        return changed(state, count=count, members=members, variance=variance)

    def recommend(self, state: CBOState) -> Array:
        """Return the best point so far, with `elitist=False` the consensus point; x0 before there is any."""
        return self.recommend_many(state)[0]

    def recommend_many(self, state: CBOState) -> Array:
        """Return what each swarm recommends, shape (m, dim)."""
        frame = state.frame
        points = state.best if self.elitist else state.anchor
        return place(frame.like, frame.bounds, points, frame.work.asarray(points * 0))

    def finished(self, state: CBOState) -> str | None:
        """Return which stopping rule holds, of every swarm if there are several, or None."""
        budget = state.frame.budget
        if budget is not None and state.nfev >= budget:
            return f"the budget of {budget} evaluations is used up"
        return self.collapsed(state, [self.extent(state, state.members)]) if self.looks(state) else None

    def finished_many(self, state: CBOState) -> list[str | None]:
        """Return for each swarm what `finished` would, if it were alone."""
        if not self.looks(state) or state.nfev == state.frame.budget:
            return [self.finished(state)] * len(state.frame.keys)
        narrow = self._are_narrow(state, [self.extent(state, state.members)])
        return [self._narrow if one else None for one in narrow]

    def looks(self, state: CBOState) -> bool:
        """Return whether this is one of the steps after which the extent of the particles decides."""
        if not state.step or state.step % CHECK_EVERY or not self.tolx or self.restart:
            return False
        explorers = self._explorers(state.count)
        return not explorers or state.count - explorers >= 2

    def extent(self, state: CBOState, members: Members) -> tuple[Matrix, Matrix] | None:
        """Return the least and the largest coordinates of some particles, explorers aside; shapes (m, dim).

        Args:
            state: What is common.
            members: Any particles; if all of them explore, there is no extent.
        """
        points = members.points[:, : max(0, state.count - self._explorers(state.count) - members.start)]
        if not points.shape[1]:
            return None
        xp = array_module(points)
        lowest, highest = (
            np.asarray(to_numpy(found), np.float64) for found in (xp.amin(points, 1), xp.amax(points, 1))
        )
        return lowest, highest

    def collapsed(self, state: CBOState, extents: Sequence[tuple[Matrix, Matrix] | None]) -> str | None:
        """Return the rule that holds if all particles are in one place, by their extents."""
        return self._narrow if self._are_narrow(state, extents).all() else None

    @property
    def _narrow(self) -> str:
        return f"tolx: particles are within {self.tolx} of the scale, or rounding"

    def _are_narrow(self, state: CBOState, extents: Sequence[tuple[Matrix, Matrix] | None]) -> Matrix:
        """Return which swarms are in one place."""
        found = [extent for extent in extents if extent is not None]
        widest = np.max([high for _, high in found], 0) - np.min([low for low, _ in found], 0)
        size = np.abs(np.asarray(to_numpy(state.anchor), np.float64))
        epsilon = 4 * state.frame.like.epsilon
        return np.asarray((widest <= np.maximum(self.tolx * state.frame.scale, epsilon * size)).all(1))

    def diagnostics(self, state: CBOState) -> dict[str, Any]:
        """Return inverse temperature, effective sample size, spread, and explorers that were accepted."""
        return self.described(state, self.powers(state, state.members))

    def powers(self, state: CBOState, members: Members) -> list[float]:
        """Return the sums of squared distances from the anchor over some blocks of the first swarm, in order.

        Args:
            state: What is common.
            members: Particles from one of `weights.boundaries` to another.
        """
        points = members.points[0]
        edges = weights.edges_between(state.count, members.start, members.stop)
        with np.errstate(over="ignore"):
            return [float((points[a:b] * points[a:b]).sum()) for a, b in itertools.pairwise(edges)]

    def described(self, state: CBOState, powers: Sequence[float]) -> dict[str, Any]:
        """Return the diagnostics of a state whose blocks have these `powers`."""
        found = {
            "alpha": float(state.alpha[0]),
            "effective_sample_size": float(state.sample_size[0]),
            "spread": math.sqrt(sum(powers) / (state.count * state.frame.dim)),
        }
        if self.explorers and self.memory != "none":
            found["explorers_accepted"] = int(state.accepted[0])
        if self.reduction:
            found["particles"] = state.count
        return found


def _check_finite(name: str, value: Any) -> None:
    if not 0 <= check_number(name, value) < math.inf:
        raise ValueError(f"`{name}` must be finite and at least 0, got {value!r}.")


def _rows(offsets: Array, rows: Matrix) -> Array:
    """Return some particles of each swarm, by their numbers, shape (m, k)."""
    if isinstance(offsets, np.ndarray):
        return offsets[np.arange(len(rows))[:, None], rows]
    import torch

    index = torch.from_numpy(rows).to(offsets.device)
    return offsets[torch.arange(len(rows), device=offsets.device)[:, None], index]


def _with_last(kept: Array, source: Array, index: int) -> Array:
    """Return arrays of shape (1, k, ...) with another particle as the last one."""
    return array_module(kept).concatenate([kept[:, :-1], source[:, index : index + 1]], 1)


def _variance(offsets: Array) -> float:
    """Return the mean square distance of the particles of the first swarm from their mean."""
    xp = array_module(offsets)
    away = offsets[0] - offsets[0].mean(0)
    return float(xp.sqrt((away * away).sum(1).mean()) ** 2)
