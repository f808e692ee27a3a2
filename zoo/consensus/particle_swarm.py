"""Particle swarm optimization with a consensus point: particles that have a velocity."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np

from zoo.consensus import dynamics, guard, noise, single
from zoo.consensus.single import Swarm, check_from_zero
from zoo.consensus.swarm import STARTS, Particles
from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known
from zoo.core.validation import check_choice, check_count, check_flag, check_fraction, check_positive
from zoo.methods.population import beside

Matrix = np.ndarray[Any, Any]


@state
class ConsensusPSOState:
    """State of `ConsensusPSO`.

    Attributes:
        swarm: Where the particles are, and what they have told.
        velocity: How fast they are, shape (1, n, dim).
        memory: Where each was best, from the anchor, shape (1, n, dim); no rows without memory.
        remembered: Values there, infinite where a particle has none yet, shape (1, n).
    """

    swarm: Swarm
    velocity: Array
    memory: Array
    remembered: Matrix


@dataclass(frozen=True)
class ConsensusPSO:
    """Particles with a velocity, drawn to a consensus point and to where they were best themselves.

    The stochastic differential equations of particles with mass m, the inertia, and friction 1 - m,

        dX = V dt
        m dV = -(1 - m) V dt + drift (c - X) dt + memory_drift (Y - X) dt
               + sigma D(X - c) dB + memory_sigma D(X - Y) dB'

    with friction taken at the end of a step, where it is stable for every dt:

        v  <-  [ m v + drift dt (c - x) + memory_drift dt (y - x)
                 + sigma sqrt(dt) D(x - c) xi + memory_sigma sqrt(dt) D(x - y) xi' ] / (m + (1 - m) dt)
        x  <-  x + dt v

    c is the consensus point, y the best point that the particle has been at, xi and xi' are standard normal,
    D(z) xi is z_j xi_j in coordinate j for "anisotropic" noise and |z| xi for "isotropic" noise. With memory
    c is the weighted mean of the y, without it of the x. At inertia 0 the divisor is dt, v is the move over
    dt, and what is left is consensus-based optimization, with the same random numbers the same path.

    Both attractions point at what attracts: CBXpy 1.0.4 has them the other way around, and its swarms fly
    apart. Our noise takes x - c where others take c - x, which is the same law.

    A step asks for the values of all particles. A particle that meets a wall of the box stops there. Failed
    evaluations have weight 0 and are remembered by nobody; where all fail, c stays where it was.

    Args:
        num_particles: Particles of the swarm.
        inertia: m, at least 0 and below 1.
        drift: Strength of the attraction to the consensus point.
        sigma: Strength of the noise that grows with the distance to it.
        memory: Whether particles remember where they were best.
        memory_drift: Strength of the attraction to that point; of no effect without memory.
        memory_sigma: Strength of the noise that grows with the distance to it.
        dt: Length of a step.
        alpha: Inverse temperature of the consensus point; infinite for the best point of the swarm.
        noise: "anisotropic", with which coordinates go their own ways, or "isotropic".
        elitist: Recommend the best point evaluated; else the consensus point, as is better under noise.
        start: Law of the first particles, "normal" or "uniform" about x0, in units of `scale`.
        tolx: Stop when all particles are within this of the consensus point, in units of `scale`, or within
            rounding; 0 for never.
        allow_divergence: Take `sigma`, `drift` and `dt` with which the swarm may fly apart.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range, or the swarm may fly apart.

    Example:
        >>> method = ConsensusPSO(num_particles=20)
        >>> state = method.init(np.ones(3), key=Key(0))
        >>> for _ in range(150):
        ...     x = method.ask(state).rows(0, 20)
        ...     state = method.tell(state, Evaluations((x**2).sum(1)))
        >>> bool((method.recommend(state) ** 2).sum() < 1e-4)
        True

    Note:
        What keeps the swarm together, of a coordinate with r = m / (m + (1 - m) dt) and both noises added up:
        drift dt^2 < 2 (2 m + (1 - m) dt) without noise, and with it sigma sqrt(dt) / (1 - m) below 1.5 - 0.7
        r, and, as weak drifts bear less, below where the product of the random matrices of a step ceases to
        contract, which is simulated. At m = 0 this is the limit of consensus-based optimization. Settings
        beyond are refused. With isotropic noise the limit depends on the number of variables, and is looked
        at in `init`.

    Source: S. Grassi and L. Pareschi, From particle swarm optimization to consensus based optimization:
    stochastic modeling and mean-field limit, 2021, https://arxiv.org/abs/2012.05613; S. Grassi, H. Huang,
    L. Pareschi and J. Qiu, Mean-field particle swarm optimization, 2021, https://arxiv.org/abs/2108.00393.
    """

    num_particles: int = 40
    inertia: float = 0.2
    drift: float = 1.0
    sigma: float = 1.5
    memory: bool = True
    memory_drift: float = 1.0
    memory_sigma: float = 0.0
    dt: float = 0.2
    alpha: float = inf
    noise: str = "anisotropic"
    elitist: bool = True
    start: str = "normal"
    tolx: float = 1e-12
    allow_divergence: bool = False

    def __post_init__(self) -> None:
        check_count("num_particles", self.num_particles)
        check_fraction("inertia", self.inertia)
        for name in ("drift", "dt"):
            check_positive(name, getattr(self, name))
        for name in ("sigma", "memory_drift", "memory_sigma", "tolx"):
            check_from_zero(name, getattr(self, name))
        check_from_zero("alpha", self.alpha, infinite=True)
        check_choice("noise", self.noise, dynamics.NOISES)
        check_choice("start", self.start, STARTS)
        for name in ("memory", "elitist", "allow_divergence"):
            check_flag(name, getattr(self, name))
        if not self.allow_divergence:
            self._check_stable()

    def _check_stable(self) -> None:
        m, dt = float(self.inertia), float(self.dt)
        pull = self.drift + (self.memory_drift if self.memory else 0.0)
        most = 2 * (2 * m + (1 - m) * dt) / dt**2
        if pull >= most:
            what = "`drift` + `memory_drift`" if self.memory else "`drift`"
            raise ValueError(
                f"{what} must be below {most:.3g} at this `inertia` and `dt`, got {pull:.3g}: particles "
                "would overshoot further and further. Take a smaller `dt`, or say `allow_divergence=True`."
            )
        if self.noise == "anisotropic":
            total = math.hypot(self.sigma, self.memory_sigma if self.memory else 0.0)
            r, unit = m / (m + (1 - m) * dt), (1 - m) / math.sqrt(dt)
            # Below the second of these, by the same simulation without any drift, no setting flies apart.
            most, surely = ((dynamics.LARGEST_NOISE - 0.7 * r) * unit, 1.5 * (1 - r * r) ** 0.6 * unit)
            if surely < total <= most:
                most = min(most, max(surely, _largest_noise(m, dt, pull)))
            if total > most:
                raise ValueError(
                    f"`sigma` must be at most {most:.3g} at this `inertia` and `dt`, got {total:.3g}, that "
                    "of `memory_sigma` included: the swarm may fly apart. Take a smaller `sigma` or `dt`, or "
                    "say `allow_divergence=True`."
                )

    @property
    def recommends_evaluated(self) -> bool:
        """Whether the recommended point has been evaluated."""
        return self.elitist

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> ConsensusPSOState:
        """Return the first state, particles at rest; see `zoo.core.types.Optimizer.init`.

        Raises:
            ValueError: `x0` is no vector, `scale` is not above 0, or isotropic noise would make the swarm fly
                apart in so many variables.
        """
        swarm = single.start(
            x0, key, bounds, scale, budget, known, self.num_particles, self.start, float(self.alpha)
        )
        total = math.hypot(self.sigma, self.memory_sigma if self.memory else 0.0)
        if self.noise == "isotropic" and total:
            u = total * math.sqrt(self.dt) / (1 - self.inertia)
            a = self.drift * self.dt / (1 - self.inertia)
            guard.check_distance(a, u, swarm.frame.dim, self.allow_divergence)
        memory = swarm.offsets if self.memory else swarm.offsets[:, :0]
        remembered = np.full((1, self.num_particles if self.memory else 0), np.inf)
        return ConsensusPSOState(swarm, swarm.offsets * 0, memory, remembered)

    def ask(self, state: ConsensusPSOState) -> Particles:
        """Return the particles; fewer where the budget ends."""
        return single.ask(state.swarm)

    def tell(self, state: ConsensusPSOState, evaluations: Evaluations) -> ConsensusPSOState:
        """Return the state after the values of the particles.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        swarm, energies = single.hear(state.swarm, evaluations)
        memory, remembered = state.memory, state.remembered
        if self.memory:
            better = beside(memory, (energies <= remembered)[..., None])
            memory = array_module(memory).where(better, swarm.offsets, memory)
            remembered = energies = np.minimum(energies, remembered)
        swarm, shift = single.gather(swarm, energies, float(self.alpha), memory if self.memory else None)
        shift, anchor = shift[:, None], swarm.anchor + shift
        x, memory = swarm.offsets - shift, memory - shift

        m, dt = self.inertia, self.dt
        push = m * state.velocity - self.drift * dt * x
        if self.sigma:
            push += self.sigma * math.sqrt(dt) * self._noise(swarm, swarm.frame.keys[0], x)
        if self.memory:
            push += self.memory_drift * dt * (memory - x)
            if self.memory_sigma:
                own = self._noise(swarm, swarm.frame.keys[0].fold("memory"), x - memory)
                push += self.memory_sigma * math.sqrt(dt) * own
        velocity = push / (m + (1 - m) * dt)
        moved = x + dt * velocity
        swarm = single.advance(swarm, anchor, moved)
        velocity = array_module(velocity).where(swarm.offsets == moved, velocity, 0.0)
        return replace(state, swarm=swarm, velocity=velocity, memory=memory, remembered=remembered)

    def _noise(self, swarm: Swarm, key: Key, away: Array) -> Array:
        """Return D(away) xi."""
        size, dim = swarm.size, swarm.frame.dim
        xi = noise.normal((key,), swarm.moves, 0, size, size, dim, swarm.frame.work)
        if self.noise == "isotropic":
            return array_module(away).sqrt((away * away).sum(-1))[..., None] * xi
        return away * xi

    def recommend(self, state: ConsensusPSOState) -> Array:
        """Return the best point so far, or the consensus point unless `elitist`; x0 before there is any."""
        return single.recommend(state.swarm, self.elitist)

    def finished(self, state: ConsensusPSOState) -> str | None:
        """Return which stopping rule holds, or None."""
        return single.finished(state.swarm, self.tolx)

    def diagnostics(self, state: ConsensusPSOState) -> dict[str, Any]:
        """Return the temperature, the effective sample size, the spread of the particles, and their speed."""
        speed = float((state.velocity * state.velocity).mean()) ** 0.5
        return {**single.report(state.swarm), "speed": speed}


@functools.lru_cache(maxsize=64)
def _largest_noise(inertia: float, dt: float, pull: float) -> float:
    """Return the strength of noise up to which a coordinate contracts, with a margin of a twentieth."""
    unit, low, high = (1 - inertia) / math.sqrt(dt), 0.0, 4.0
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (low, middle) if _growth(inertia, dt, pull, middle * unit) > 0 else (middle, high)
    return 0.95 * low * unit


def _growth(inertia: float, dt: float, pull: float, sigma: float) -> float:
    """Return the mean growth, in a step, of the logarithm of a coordinate and its velocity."""
    mass = inertia + (1 - inertia) * dt
    # Velocities are remembered for mass / (mass - inertia) steps.
    count, steps = 200, int(min(4000, max(500, 20 * mass / (mass - inertia + 1e-9))))
    settling = steps // 5
    xi = Key(0).fold("growth").normal(0, steps, count)
    x, way, grown = np.ones(count), np.zeros(count), 0.0  # `way` is dt times the velocity
    for step in range(steps):
        way = (inertia * way - dt * dt * pull * x + sigma * dt**1.5 * x * xi[step]) / mass
        x = x + way
        size = np.hypot(x, way) + 1e-300
        x, way = x / size, way / size
        if step >= settling:
            grown += float(np.log(size).mean())
    return grown / (steps - settling)
