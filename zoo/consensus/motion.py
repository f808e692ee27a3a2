"""What particles do once they are told where the consensus point is: drift, diffuse, explore, are shaken.

Everything is seen from the new consensus point: v is where a particle goes on from, and where it goes is
written a piece at a time, from the draw to the walls, while the piece is in the processor's cache. Any range
of particles moves as it does among all of them, to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from zoo.consensus import choices, dynamics, noise
from zoo.consensus.explorers import explore
from zoo.consensus.host import cast, empty_like
from zoo.consensus.members import Members, Move
from zoo.consensus.swarm import Frame, clip, limits, part
from zoo.core.device import Array, Like, array_module
from zoo.methods.population import beside

Matrix = np.ndarray[Any, Any]

_AT_ONCE = 2**18  # coordinates up to which all stay in the processor's cache, and take the fewest calls

REACH = 1e4
"""Units of `scale` from the consensus point, beyond which no particle is let."""


@dataclass(frozen=True)
class Motion:
    """The law that particles move by, of the options of `CBO`.

    Attributes:
        a: drift dt.
        u: sigma sqrt(dt), before it is cooled.
        noise: "anisotropic" or "isotropic".
        integrator: "euler-maruyama" or "exponential".
        truncation: Distance at which noise stops growing.
        correction: Of the drift, "none", "heaviside" or "smooth".
        correction_width: Difference of values over which the smooth one acts.
        memory: "none", "greedy" or "local".
        b: memory_drift dt.
        w: memory_sigma sqrt(dt), before it is cooled.
        num_coordinates: How many coordinates of a particle move, on average; None for all.
        explorers: Share of the particles that explore.
        jumps: Least and largest length of their jumps, and the probability that one is a difference.
        batch_size: Particles that move, or None for all.
    """

    a: float
    u: float
    noise: str
    integrator: str
    truncation: float
    correction: str
    correction_width: float
    memory: str
    b: float
    w: float
    num_coordinates: int | None
    explorers: float
    jumps: tuple[float, float, float]
    batch_size: int | None

    @cached_property
    def _is_plain(self) -> bool:
        """Whether every offset is only ever multiplied by a factor that is linear in a normal number."""
        return (
            self.memory == "none"
            and self.num_coordinates is None
            and not self.explorers
            and self.noise == "anisotropic"
            and self.integrator == "euler-maruyama"
            and math.isinf(self.truncation)
        )

    @cached_property
    def _is_exact(self) -> bool:
        """Whether a step multiplies by the exponential of the drift, whatever the noise is."""
        return (
            self.integrator == "exponential" and self.noise == "anisotropic" and math.isinf(self.truncation)
        )

    def explorers_of(self, count: int) -> int:
        """Return how many of the particles, the last ones, explore: one at least, if any is to."""
        return max(1, round(self.explorers * count)) if self.explorers else 0

    def move(self, frame: Frame, members: Members, told: Move) -> Members:
        """Return some particles after a move.

        Args:
            frame: What the swarms were begun with.
            members: Any of them; with differences, explorers come with the whole of their blocks.
            told: What all of them are told.
        """
        start, stop, count, work = members.start, members.stop, told.count, frame.work
        shift = cast(told.shift, work).reshape(-1, 1, frame.dim)
        memory = members.memory - shift if self.memory != "none" else members.memory
        walls = limits(frame, told.anchor, REACH)
        offsets = empty_like(members.offsets)
        drifting = min(max(start, count - self.explorers_of(count)), stop) if self.explorers else stop
        if self._is_plain and work.dtype == "float32" and not len(told.height):
            self._shrink(frame, members, told, shift, walls, offsets)
        elif start < drifting:
            self._drift(frame, members, told, shift, memory, walls, offsets[:, : drifting - start])
        if drifting < stop:
            points = memory if self.memory != "none" else members.offsets - shift
            exploring, range_ = offsets[:, drifting - start :], (drifting, stop, count)
            exploring[...] = explore(
                frame, told.number, range_, self.explorers_of(count), self.jumps, points, start
            )
            clip(exploring, *walls)
        if len(told.restart) and told.restart.any():
            shaken = offsets + self._shaking(frame, members, told)
            clip(shaken, *walls)
            mask = beside(offsets, told.restart[:, None, None])
            offsets = array_module(offsets).where(mask, shaken, offsets)
        if self.batch_size is not None:
            inside = in_batch(frame, told.number, count, self.batch_size, members)
            mask = work.asarray(inside * 1.0)[..., None] > 0
            offsets = array_module(offsets).where(mask, offsets, members.offsets - shift)
            clip(offsets, *walls)
        return Members(start, offsets, memory, members.remembered, members.energies)

    def _shrink(
        self, frame: Frame, members: Members, told: Move, shift: Array, walls: tuple[Any, Any], out: Array
    ) -> None:
        """Write where all of some particles are next, whose coordinates are only multiplied.

        Each is by its own factor 1 - a + u xi, drawn as such. See `_drift` for the arguments.
        """
        xp, is_small = array_module(out), members.energies.size * frame.dim <= _AT_ONCE
        if is_small:
            xp.subtract(members.offsets, shift, out=out)
        for swarms, rows, columns, factor in noise.blocks(
            frame.keys,
            told.number,
            members.start,
            members.stop,
            told.count,
            frame.dim,
            frame.work,
            moments=(1 - self.a, self.u * told.cooling),
        ):
            moved = out if factor.shape == out.shape else out[swarms, rows, columns]
            if not is_small:
                before = members.offsets[swarms, rows, columns]
                xp.subtract(before, shift[swarms, :, columns], out=moved)
            moved *= factor
            if not is_small:
                clip(moved, part(walls[0], swarms, columns), part(walls[1], swarms, columns))
        if is_small:
            clip(out, *walls)

    def _drift(
        self,
        frame: Frame,
        members: Members,
        told: Move,
        shift: Array,
        memory: Array,
        walls: tuple[Any, Any],
        out: Array,
    ) -> None:
        """Write where the first of some particles are next, which drift and diffuse.

        Args:
            frame: What the swarms were begun with.
            members: Particles.
            told: What all of them are told.
            shift: The steps of the consensus points, shape (m, 1, dim).
            memory: Their own best points, seen from the new consensus points.
            walls: The `limits` of offsets.
            out: Where offsets go, of as many particles as drift, shape (m, k, dim).
        """
        xp, work, dim, start = array_module(out), frame.work, frame.dim, members.start
        stop, drifting = start + int(out.shape[1]), told.count - self.explorers_of(told.count)
        a, u = self.a, self.u * told.cooling
        share = 1.0 if self.num_coordinates is None else self.num_coordinates / dim
        whole_rows = share < 1 or self.memory == "local" or self.noise == "isotropic"
        is_greedy, is_corrected = self.memory == "greedy", len(told.height) > 0
        for swarms, rows, columns, xi in noise.blocks(
            frame.keys, told.number, start, stop, drifting, dim, work, whole_rows
        ):
            at, range_ = (swarms, rows, columns), (start + rows.start, start + rows.stop, drifting, dim)
            moved = out[at]
            v = memory[at] if is_greedy else members.offsets[at] - shift[swarms, :, columns]
            first = 0.0 if is_corrected and self._is_exact else a  # else `_spare` multiplies by it
            dynamics.move(v, xi, first, u, self.noise, self.integrator, self.truncation, out=moved)
            if is_corrected:
                values = members.remembered if is_greedy else members.energies
                self._spare(work, v, moved, values[swarms, rows], told.height[swarms])
            if self.memory == "local":
                law = choices.folded(frame.keys[swarms], "memory")
                xi = noise.normal(law, told.number, *range_, work)
                own, w = v - memory[at], self.w * told.cooling
                moved += dynamics.move(own, xi, self.b, w, self.noise, self.integrator, self.truncation)
                moved -= own
            if share < 1:
                chosen = choices.chosen(frame.keys[swarms], told.number, *range_, share, work)
                moved[...] = xp.where(chosen, moved, v)
            clip(moved, part(walls[0], swarms, columns), part(walls[1], swarms, columns))

    def _spare(self, like: Like, v: Array, moved: Array, values: Matrix, height: Matrix) -> None:
        """Change offsets that have moved as if only particles above the consensus point had drifted.

        The drift a becomes a H; what it was without is given back here, and the noise stays as it is. Where
        `_is_exact`, they have not drifted yet.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            above = values - height[:, None]
        above = np.where(np.isinf(values), np.inf, above)  # what has no value drifts
        if self.correction == "heaviside":
            share = (above > 0) * 1.0
        else:
            with np.errstate(over="ignore"):
                share = 0.5 + 0.5 * np.tanh(above / self.correction_width)
        a = min(self.a, 1e300)
        if self.integrator == "euler-maruyama":
            moved += (a * like.asarray(1.0 - share)[..., None]) * v
        elif self._is_exact:
            moved *= like.asarray(np.exp(-a * share))[..., None]
        else:
            moved += like.asarray(np.exp(-a * share) - math.exp(-a))[..., None] * v

    def _shaking(self, frame: Frame, members: Members, told: Move) -> Array:
        """Return what is added to offsets, noise in the swarms whose consensus points stand still."""
        keys = choices.folded(frame.keys, "restart")
        start, stop = members.start, members.stop
        xi = noise.normal(keys, told.number, start, stop, told.count, frame.dim, frame.work)
        length = self.u * told.cooling * told.restart[:, None] * frame.scale
        return frame.work.asarray(length)[:, None] * xi


def in_batch(frame: Frame, move: int, count: int, size: int, members: Members) -> Matrix:
    """Return which of some particles a batch holds, shape (m, k)."""
    inside = np.zeros((len(frame.keys), count), bool)
    np.put_along_axis(inside, choices.batches(frame.keys, move, count, size), True, 1)
    return inside[:, members.start : members.stop]
