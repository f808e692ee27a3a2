"""Consensus-based optimization of points that are images of particles in a dual space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoo.consensus import dynamics, guard, noise
from zoo.consensus.mirror_maps import Ball, Box, ElasticNet, Hyperplane, Mirror, Nonnegative, Simplex
from zoo.consensus.points import (
    Swarm,
    check_on_set,
    energies_of,
    finished,
    gibbs_mean,
    rows_of,
    swarm_of,
    told,
)
from zoo.consensus.single import check_from_zero
from zoo.consensus.swarm import Frame, begin, place, scatter, spread_of
from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Candidates, Evaluations, Known
from zoo.core.validation import check_choice, check_count, check_number, check_positive

MIRRORS = ("box", "simplex", "nonnegative", "ball", "elastic-net", "hyperplane")
_SIZES = {"total": ("simplex", "hyperplane"), "radius": ("ball",), "threshold": ("elastic-net",)}
_SETS = {
    "simplex": "with x >= 0 whose sum is {0:.6g}",
    "nonnegative": "with x >= 0",
    "ball": "with |x| <= {0:.6g}",
    "hyperplane": "whose sum is {0:.6g}",
}
_REACH = 1e4  # units of scale from the consensus point, which no particle goes beyond in the dual space


@state
class MirrorState:
    """State of `MirrorCBO`.

    Attributes:
        swarm: The particles as points that are allowed.
        dual: What they are images of, shape (m, n, dim), float64.
        size: Total, radius or threshold of the map, whichever it has.
    """

    swarm: Swarm
    dual: Array
    size: float


@dataclass(frozen=True)
class MirrorCBO:
    """Consensus-based optimization in a dual space, whose images keep to a set, or are sparse.

    Each particle is a point y of a space without walls, and x = grad phi*(y) is evaluated, for a convex
    function phi. With c the mean of the points x weighted by exp(-alpha f), a step is

        v   =  y - grad phi(c)                                as `distance` says, or x - c
        y  <-  y - drift dt v + sigma sqrt(dt) v xi           anisotropic; |v| xi if isotropic
        x   =  grad phi*(y)

    with xi standard normal. The set is given by the map:

    * "box": inside of `bounds`, if there are any, by a logarithmic barrier; the only one that takes bounds.
      Without any, x = y, which is consensus-based optimization as it is.
    * "simplex": x >= 0 with sum(x) = total, by the entropy: x = total softmax(y / total).
    * "nonnegative": x > 0, by the entropy: x = unit exp(y / unit), unit the larger one of `scale` and x0.
    * "ball": |x| <= radius, the nearest point.
    * "elastic-net": any x, but with many entries that are 0: x = sign(y) max(|y| - threshold, 0). Of many
      minima, this tends to find one with few other entries.
    * "hyperplane": sum(x) = total, the nearest point.

    Each is a class of `zoo.consensus.mirror_maps`. All sets are convex, so the consensus point is in them.

    Args:
        mirror: The map, and with it the set: "box", "simplex", "nonnegative", "ball", "elastic-net" for
            sparse points, or "hyperplane".
        total: Of "simplex" and "hyperplane"; None for the sum of x0.
        radius: Of "ball"; None for |x0|, or 1 where that is 0.
        threshold: Of "elastic-net"; None for 1.
        num_particles: Particles. Sparse points want more, 50 or 100.
        drift: How fast particles move to the consensus point.
        sigma: How strong the noise is; None for sigma^2 D = drift (2 - drift dt), with which the mean square
            distance to a still point neither grows nor shrinks, and most particles come closer. D is the
            number of variables for isotropic noise, else 1.
        dt: Length of a step in time; drift dt must be below 2.
        alpha: Inverse temperature; at infinity the consensus point is the best particle.
        noise: "anisotropic" or "isotropic".
        distance: Where the distance from the consensus point is taken, "dual" or "primal"; None for "primal"
            with "elastic-net", where c has many duals, else "dual".
        tolx: Stop when the points are within this of the consensus point, in units of `scale`; 0 for never.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range, or of another map.

    Example:
        >>> method = MirrorCBO(mirror="simplex")
        >>> state = method.init(np.full(3, 1 / 3), key=Key(0))
        >>> for _ in range(100):
        ...     x = method.ask(state).rows(0, 20)
        ...     state = method.tell(state, Evaluations(((x - [0.7, 0.3, -0.2]) ** 2).sum(1)))
        >>> abs(method.recommend(state)).round(3).tolist()
        [0.7, 0.3, 0.0]

    Source: L. Bungert, F. Hoffmann, D. Kim and T. Roith, MirrorCBO: A consensus-based optimization method in
    the spirit of mirror descent, 2025, https://arxiv.org/abs/2501.12189. There, distances are primal, the
    barrier has two walls in every coordinate, and noise is isotropic. Where points come near an end of their
    set, primal distances shrink with the points' own room, so that swarms come to rest there before they have
    found anything; for 10 variables on a simplex, 5000 evaluations end at 1e-2 of the squared distance to an
    optimum inside, and at 1e-16 with dual ones.
    """

    mirror: str = "box"
    total: float | None = None
    radius: float | None = None
    threshold: float | None = None
    num_particles: int = 20
    drift: float = 1.0
    sigma: float | None = None
    dt: float = 0.5
    alpha: float = math.inf
    noise: str = "anisotropic"
    distance: str | None = None
    tolx: float = 1e-12

    recommends_evaluated = False

    def __post_init__(self) -> None:
        check_choice("mirror", self.mirror, MIRRORS)
        for name, mirrors in _SIZES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if self.mirror not in mirrors:
                raise ValueError(f"`{name}` must be None with the map {self.mirror!r}, got {value!r}.")
            if self.mirror != "hyperplane":
                check_positive(name, value)
            elif not math.isfinite(check_number(name, value)):
                raise ValueError(f"`{name}` must be finite, got {value!r}.")
        check_count("num_particles", self.num_particles)
        for name in ("drift", "dt"):
            check_positive(name, getattr(self, name))
        check_from_zero("alpha", self.alpha, infinite=True)
        check_from_zero("tolx", self.tolx)
        check_choice("noise", self.noise, dynamics.NOISES)
        if self.distance is not None:
            check_choice("distance", self.distance, ("primal", "dual"))
        guard.check_drift(self.drift * self.dt, "euler-maruyama", None)
        if self.sigma is not None:
            check_from_zero("sigma", self.sigma)
            if self.noise == "anisotropic":
                guard.check_coordinates(self.sigma * math.sqrt(self.dt), None)

    @property
    def keeps_to_set(self) -> bool:
        """Whether candidates keep to a set other than the box."""
        return self.mirror not in ("box", "elastic-net")

    def init(
        self,
        x0: Array,
        *,
        key: Key,
        bounds: Bounds | None = None,
        scale: Any = 1.0,
        budget: int | None = None,
        known: Known | None = None,
    ) -> MirrorState:
        """Return the first state; see `zoo.core.types.Optimizer.init`.

        Particles start where both walls of a coordinate are finite uniformly in between, else around the dual
        of x0, at distances of scale * normal. Ends of the set have no dual but infinity, from which nothing
        comes back: coordinates of x0 and of known points that are at one, or all but there, start away from
        it, by a hundredth of half the room between walls or of `scale` from a lone one, or by a tenth of the
        unit of "nonnegative" or of the mean on a simplex.

        Raises:
            ValueError: There are bounds and the map takes none; `x0` is no vector, or its sum is not above 0
                where that is the total of a simplex; a point that is known is off the set; or `scale` is not
                above 0.
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
    ) -> MirrorState:
        """Return the first state of as many swarms as there are keys; each goes its own way."""
        if bounds is not None and self.mirror != "box":
            raise ValueError(
                f"`bounds` must be None with {self.mirror!r}, which keeps points to a set of its own. "
                "Take 'box', or give `constraints`."
            )
        frame = begin(x0, keys, bounds, scale, budget)
        if self.noise == "isotropic" and self.sigma is not None:
            guard.check_distance(self.drift * self.dt, self.sigma * math.sqrt(self.dt), frame.dim, None)
        size = self._size(to_numpy(frame.x0))
        mirror = self._map(frame, size)
        if known is not None:
            self._check_known(mirror, size, frame.wide.asarray(known.points))
        offsets = scatter(frame, self.num_particles, "normal")
        if self.mirror == "box":
            dual = mirror.to_dual(mirror.inner(frame.x0 + offsets))
        else:
            dual = mirror.to_dual(mirror.inner(frame.x0)) + offsets
            frame = replace(frame, x0=mirror.to_primal(dual[0, 0]))
        if known is not None:
            count, xp = self.num_particles, array_module(dual)
            best = frame.wide.asarray(known.points[known.order][:count])
            front = mirror.to_dual(mirror.inner(best))
            dual = xp.stack([xp.concatenate([front, rows[: count - len(front)]]) for rows in dual])
        return MirrorState(swarm_of(frame, mirror.to_primal(dual)), dual, size)

    def check_known(self, x0: Array, points: Array) -> None:
        """Refuse points off the set that candidates keep to, as a start at x0 makes it.

        Raises:
            ValueError: One is off.
        """
        frame = begin(x0, (), None, 1.0, None)
        size = self._size(to_numpy(frame.x0))
        self._check_known(self._map(frame, size), size, frame.wide.asarray(points))

    def _check_known(self, mirror: Mirror, size: float, points: Array) -> None:
        if self.keeps_to_set:
            remedy = "Move it there and let it be evaluated, with None as its value"
            given = [name for name, mirrors in _SIZES.items() if self.mirror in mirrors]
            remedy += f", or give another `{given[0]}`." if given else "."
            check_on_set(mirror.away(points), _SETS[self.mirror].format(size), remedy)

    @property
    def _is_primal(self) -> bool:
        return self.distance == "primal" or (self.distance is None and self.mirror == "elastic-net")

    def _size(self, x0: np.ndarray[Any, Any]) -> float:
        if self.mirror == "elastic-net":
            return 1.0 if self.threshold is None else float(self.threshold)
        if self.mirror == "ball":
            return float(self.radius or np.linalg.norm(x0) or 1.0)
        if self.mirror in _SIZES["total"]:
            total = float(x0.sum()) if self.total is None else float(self.total)
            if self.mirror == "simplex" and not total > 0:
                raise ValueError(f"`x0` must have a sum above 0 on a simplex, got {total:.3g}. Give `total`.")
            return total
        return 0.0

    def _map(self, frame: Frame, size: float) -> Mirror:
        if self.mirror == "box":
            return Box(frame.bounds, frame.wide.asarray(frame.scale))
        if self.mirror == "nonnegative":
            unit = frame.wide.asarray(frame.scale)
            return Nonnegative(array_module(unit).maximum(unit, frame.x0))
        made: dict[str, Callable[[float], Mirror]] = {
            "simplex": Simplex,
            "ball": Ball,
            "elastic-net": ElasticNet,
            "hyperplane": Hyperplane,
        }
        return made[self.mirror](size)

    def ask(self, state: MirrorState) -> Candidates:
        """Return the particles as points; fewer where the budget ends."""
        return rows_of(state.swarm, state.swarm.frame.bounds)

    def tell(self, state: MirrorState, evaluations: Evaluations) -> MirrorState:
        """Return the state after the values of all particles.

        Raises:
            ValueError: There are not as many values as candidates.
        """
        swarm, frame = state.swarm, state.swarm.frame
        mirror, size = self._map(frame, state.size), int(swarm.points.shape[1])
        energies = energies_of(swarm, evaluations)
        mean, sample_size = gibbs_mean(energies, swarm.points, self.alpha, swarm.consensus)
        a, u = self.drift * self.dt, self._sigma(frame.dim) * math.sqrt(self.dt)
        centre = mirror.to_dual(mean)[:, None]
        v = swarm.points - mean[:, None] if self._is_primal else state.dual - centre
        xi = noise.normal(frame.keys, swarm.step, 0, size, size, frame.dim, frame.work)
        xp = array_module(v)
        xi *= u * (v if self.noise == "anisotropic" else xp.sqrt((v * v).sum(-1))[..., None])
        reach = frame.wide.asarray(_REACH * frame.scale)
        dual = xp.minimum(xp.maximum(state.dual - a * v + xi, centre - reach), centre + reach)
        swarm = told(swarm, evaluations, mirror.to_primal(dual), mean, sample_size)
        return replace(state, swarm=swarm, dual=dual)

    def _sigma(self, dim: int) -> float:
        if self.sigma is not None:
            return self.sigma
        return math.sqrt(self.drift * (2 - self.drift * self.dt) / (dim if self.noise == "isotropic" else 1))

    def recommend(self, state: MirrorState) -> Array:
        """Return the consensus point, or where the swarm started before there is one."""
        return self.recommend_many(state)[0]

    def recommend_many(self, state: MirrorState) -> Array:
        """Return what is recommended of each swarm, shape (m, dim)."""
        frame, mean = state.swarm.frame, state.swarm.consensus
        return place(frame.like, frame.bounds, mean, mean * 0)

    def finished(self, state: MirrorState) -> str | None:
        """Return which stopping rule holds, or None."""
        return finished(state.swarm, self.tolx)

    def diagnostics(self, state: MirrorState) -> dict[str, Any]:
        """Return alpha, the effective sample size, and how far points are from the consensus point."""
        swarm = state.swarm
        return {
            "alpha": float(self.alpha),
            "effective_sample_size": float(swarm.sample_size[0]),
            "spread": float(spread_of(swarm.points, swarm.consensus)[0]),
        }
