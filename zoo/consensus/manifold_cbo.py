"""Consensus-based optimization on a sphere, and among matrices with orthonormal columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.consensus import noise
from zoo.consensus.dynamics import NOISES
from zoo.consensus.manifolds import Manifold, Sphere, Stiefel
from zoo.consensus.points import (
    Swarm,
    check_on_set,
    column,
    energies_of,
    finished,
    gibbs_mean,
    rows_of,
    swarm_of,
    told,
)
from zoo.consensus.single import check_from_zero
from zoo.consensus.swarm import begin, scatter, spread_of
from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known
from zoo.core.validation import check_choice, check_count, check_positive

MANIFOLDS = ("sphere", "stiefel")
STARTS = ("normal", "uniform")
_LARGEST = 1e150
_FAR = 1e9  # radii from which directions are those of normal numbers, whatever x0 is


@state
class ManifoldState:
    """State of `ManifoldCBO`.

    Attributes:
        swarm: The particles; its consensus points are on the manifold.
        radius: Of the sphere.
    """

    swarm: Swarm
    radius: float


@dataclass(frozen=True)
class ManifoldCBO:
    """Consensus-based optimization on a sphere, or among matrices with orthonormal columns.

    Particles stay on the manifold to the last digits, and so does what is recommended. With c the mean of
    the particles weighted by exp(-alpha f), v = x - c, and P the projection of a vector to what is tangent at
    x, a step is

        t   =  P [ -drift dt v + sigma sqrt(dt) |v| xi ]                             isotropic
        t   =  P [ -drift dt v + sigma sqrt(dt) v xi + sigma^2 dt turn(x, v^2) ]     anisotropic
        x  <-  the point of the manifold nearest to x + t

    with xi standard normal. On the sphere, the nearest point is radius x / |x|, and turn is
    -v^2 x / (2 radius^2), entry by entry; `zoo.consensus.manifolds` has those of matrices. The papers also
    subtract the normal part of Ito's correction, (dim - 1) sigma^2 dt |v|^2 x / 2 for isotropic noise on the
    unit sphere, before they go to the nearest point. Here it is left out: to first order in dt the nearest
    point makes the very same correction by itself, and where it is longer than x it would send particles
    through the centre.

    Isotropic noise goes by no axes. Where the optimum differs from c in few coordinates, anisotropic noise
    finds it sooner. Sigma here is that of the papers on the sphere.

    Args:
        manifold: "sphere", all x with |x| = radius; or "stiefel", all n x k matrices with X^T X = I, whose
            rows follow each other in x.
        radius: Of the sphere; None for |x0|.
        num_columns: k, of "stiefel"; the number of variables must be k n, n at least k.
        num_particles: Particles of the swarm.
        drift: How fast particles move to the consensus point.
        sigma: How strong the noise is; None for sigma^2 D = drift (2 - drift dt), with which the mean square
            distance to a still point neither grows nor shrinks, and most particles come closer. D is the
            dimension of the manifold for isotropic noise, else 1.
        dt: Length of a step in time; drift dt must be below 2.
        alpha: Inverse temperature; at infinity the consensus point is the best particle.
        noise: "isotropic" or "anisotropic".
        start: "normal" for x0 and points around it, at x0 + scale * normal before they are moved to the
            manifold; "uniform" for x0 and points uniform on the manifold.
        tolx: Stop when the particles are within this of the consensus point, in units of `scale`; 0 for
            never.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> A = np.diag([3.0, 1.0, 2.0])
        >>> method = ManifoldCBO(num_particles=20)
        >>> state = method.init(np.ones(3) / 3**0.5, key=Key(0))
        >>> for _ in range(100):
        ...     x = method.ask(state).rows(0, 20)
        ...     state = method.tell(state, Evaluations(((x @ A) * x).sum(1)))
        >>> abs(method.recommend(state)).round(4).tolist()
        [0.0, 1.0, 0.0]

    Sources: M. Fornasier, H. Huang, L. Pareschi and P. Sünnen, Consensus-Based Optimization on Hypersurfaces:
    Well-Posedness and Mean-Field Limit, 2020, https://arxiv.org/abs/2001.11994, and Consensus-Based
    Optimization on the Sphere: Convergence to Global Minimizers and Machine Learning, 2021,
    http://jmlr.org/papers/v22/21-0259.html; anisotropic noise: the same authors, Anisotropic Diffusion in
    Consensus-Based Optimization on the Sphere, 2022, https://arxiv.org/abs/2104.00420; matrices: S.-Y. Ha,
    M. Kang, D. Kim, J. Kim and I. Yang, Stochastic Consensus Dynamics for Nonconvex Optimization on the
    Stiefel Manifold: Mean-Field Limit and Convergence, 2022. Anisotropic noise among matrices is ours: that
    on the sphere is tangent noise in the sense of Stratonovich with v held still, and so is this.
    """

    manifold: str = "sphere"
    radius: float | None = None
    num_columns: int = 1
    num_particles: int = 20
    drift: float = 1.0
    sigma: float | None = None
    dt: float = 0.5
    alpha: float = math.inf
    noise: str = "isotropic"
    start: str = "normal"
    tolx: float = 1e-12

    recommends_evaluated = False
    keeps_to_set = True

    def __post_init__(self) -> None:
        check_choice("manifold", self.manifold, MANIFOLDS)
        if self.radius is not None:
            check_positive("radius", self.radius)
        for name in ("num_columns", "num_particles"):
            check_count(name, getattr(self, name))
        for name in ("drift", "dt"):
            check_positive(name, getattr(self, name))
        check_from_zero("alpha", self.alpha, infinite=True)
        check_from_zero("tolx", self.tolx)
        if self.sigma is not None:
            check_from_zero("sigma", self.sigma)
        check_choice("noise", self.noise, NOISES)
        check_choice("start", self.start, STARTS)
        if self.drift * self.dt >= 2:
            raise ValueError(
                f"`drift` * dt must be below 2, got {self.drift * self.dt:.3g}: particles would jump over "
                "the consensus point, further away each time. Take a smaller `dt`."
            )
        if self.manifold == "stiefel" and self.radius is not None:
            raise ValueError(f"`radius` must be None with 'stiefel', got {self.radius!r}.")
        if self.manifold == "sphere" and self.num_columns != 1:
            raise ValueError(f"`num_columns` must be 1 on a sphere, got {self.num_columns!r}.")

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> ManifoldState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Points that are known are particles.

        Raises:
            ValueError: There are bounds; `x0` is no vector, is 0 where no radius is given, or is no matrix of
                `num_columns` columns; the radius is below 1e-150 or above 1e150; a point that is known is off
                the manifold; or `scale` is not above 0.
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
    ) -> ManifoldState:
        """Return the first state of as many swarms as there are keys; each goes its own way."""
        if bounds is not None:
            raise ValueError(
                "`bounds` must be None where candidates are on a manifold, which walls would cut. Take "
                "another method, or give `constraints`."
            )
        frame = begin(x0, keys, None, scale, budget)
        radius = self._radius(to_numpy(frame.x0))
        surface = self._surface(radius)
        if frame.x0 not in surface:
            frame = replace(frame, x0=surface.nearest(frame.x0))
        if known is not None:
            self._check_known(surface, radius, frame.wide.asarray(known.points))
        law = frame
        if self.start == "uniform":
            law = replace(frame, scale=np.full(frame.dim, _FAR * radius))
        offsets = scatter(law, self.num_particles, "normal", known)
        return ManifoldState(swarm_of(frame, surface.nearest(frame.x0 + offsets)), radius)

    def check_known(self, x0: Array, points: Array) -> None:
        """Refuse points off the manifold, as a start at x0 makes it.

        Raises:
            ValueError: One is off.
        """
        frame = begin(x0, (), None, 1.0, None)
        radius = self._radius(to_numpy(frame.x0))
        self._check_known(self._surface(radius), radius, frame.wide.asarray(points))

    def _check_known(self, surface: Manifold, radius: float, points: Array) -> None:
        xp = array_module(points)
        gap = points - surface.nearest(points)
        where = f"with |x| = {radius:.6g}" if self.manifold == "sphere" else "with orthonormal columns"
        remedy = "Move it there and let it be evaluated, with None as its value"
        remedy += ", or give another `radius`." if self.manifold == "sphere" else "."
        check_on_set(xp.amax(abs(gap), -1) / radius, where, remedy)

    def _radius(self, x0: np.ndarray[Any, Any]) -> float:
        if self.manifold == "stiefel":
            rows, rest = divmod(len(x0), self.num_columns)
            if rest or rows < self.num_columns:
                raise ValueError(
                    f"`x0` must hold a matrix of {self.num_columns} columns and as many rows at least, got "
                    f"{len(x0)} entries."
                )
            return 1.0
        with np.errstate(over="ignore"):
            radius = float(np.linalg.norm(x0)) if self.radius is None else float(self.radius)
        if radius == 0:
            raise ValueError("`x0` must not be 0 where its length is the radius. Give `radius`.")
        if not 1 / _LARGEST < radius < _LARGEST:  # its square would be 0 or infinite
            name = "radius" if self.radius is not None else "x0"
            raise ValueError(
                f"`{name}` must make a sphere of a radius from {1 / _LARGEST:g} to {_LARGEST:g}, got "
                f"{radius:.3g}. Choose another unit."
            )
        return radius

    def _surface(self, radius: float) -> Manifold:
        return Sphere(radius) if self.manifold == "sphere" else Stiefel(self.num_columns)

    def ask(self, state: ManifoldState) -> Candidates:
        """Return the particles; fewer where the budget ends."""
        return rows_of(state.swarm)

    def tell(self, state: ManifoldState, evaluations: Evaluations) -> ManifoldState:
        """Return the state after the values of all particles.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        swarm, surface = state.swarm, self._surface(state.radius)
        energies = energies_of(swarm, evaluations)
        mean, sample_size = gibbs_mean(energies, swarm.points, self.alpha, swarm.consensus)
        moved = surface.nearest(swarm.points + self._along(swarm, mean, surface))
        # What was not learnt anew stays as it was, to the last digit.
        learnt = array_module(mean).where(column(sample_size > 0, mean), surface.nearest(mean), mean)
        return replace(state, swarm=told(swarm, evaluations, moved, learnt, sample_size))

    def _along(self, swarm: Swarm, mean: Array, surface: Manifold) -> Array:
        """Return what is added to the particles, tangent to the manifold, shape (m, n, dim)."""
        frame, x = swarm.frame, swarm.points
        size = int(x.shape[1])
        a, u = self.drift * self.dt, self._sigma(frame.dim) * math.sqrt(self.dt)
        v = x - mean[:, None]
        step = noise.normal(frame.keys, swarm.step, 0, size, size, frame.dim, frame.work)
        if self.noise == "isotropic":
            step *= u * array_module(v).sqrt((v * v).sum(-1))[..., None]
        else:
            step *= u * v
            step += surface.turn(x, (u * v) ** 2)
        step -= a * v
        return surface.tangent(x, step)

    def _sigma(self, dim: int) -> float:
        if self.sigma is not None:
            return self.sigma
        directions = dim - self.num_columns * (self.num_columns + 1) // 2 if self.noise == "isotropic" else 1
        return math.sqrt(self.drift * (2 - self.drift * self.dt) / max(1, directions))

    def recommend(self, state: ManifoldState) -> Array:
        """Return the point of the manifold nearest to the consensus point, or x0 before there is one."""
        return self.recommend_many(state)[0]

    def recommend_many(self, state: ManifoldState) -> Array:
        """Return what is recommended of each swarm, shape (m, dim)."""
        return state.swarm.frame.like.asarray(state.swarm.consensus + 0)

    def finished(self, state: ManifoldState) -> str | None:
        """Return which stopping rule holds, or None."""
        return finished(state.swarm, self.tolx)

    def diagnostics(self, state: ManifoldState) -> dict[str, Any]:
        """Return alpha, the effective sample size, and how far particles are from the consensus point."""
        swarm = state.swarm
        return {
            "alpha": float(self.alpha),
            "effective_sample_size": float(swarm.sample_size[0]),
            "spread": float(spread_of(swarm.points, swarm.consensus)[0]),
        }
