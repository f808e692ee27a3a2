"""What variants of one swarm have in common: what is asked for, what is learnt from values, where it ends."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from zoo.consensus import weights
from zoo.consensus.host import of_kind
from zoo.consensus.swarm import Frame, Particles, begin, confine, place, scatter, spread_of
from zoo.core.bounds import Bounds
from zoo.core.device import Array, array_module, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.types import Evaluations, Known
from zoo.core.validation import check_number
from zoo.methods.population import CHECK_EVERY

Matrix = np.ndarray[Any, Any]

_STEPS = 300  # in which what is to fall with the budget falls where there is none
_REACH = 1e4  # units of scale from the consensus point, which no particle goes beyond


@state
class Swarm:
    """A swarm of n particles, and what its values have told.

    Arrays have a first axis of length 1, so that they are what the functions for any number of swarms take.

    Attributes:
        frame: What it was begun with.
        step: Steps told.
        nfev: Evaluations told.
        moves: Times that the particles have moved.
        anchor: The consensus point, shape (1, dim), float64; x0 before there is any.
        offsets: Where the particles are from there, shape (1, n, dim), float64.
        best: The best point so far, shape (1, dim), float64.
        best_value: Its value, infinite before there is one.
        alpha: Inverse temperature of the last consensus point.
        sample_size: Effective sample size of the last consensus point.
    """

    frame: Frame
    step: int
    nfev: int
    moves: int
    anchor: Array
    offsets: Array
    best: Array
    best_value: float
    alpha: float
    sample_size: float

    @property
    def size(self) -> int:
        """Number of particles."""
        return int(self.offsets.shape[1])

    @property
    def asked(self) -> int:
        """Number of particles whose values are wanted; fewer than there are where the budget ends."""
        budget = self.frame.budget
        return self.size if budget is None else max(0, min(self.size, budget - self.nfev))


def start(
    x0: Array,
    key: Key,
    bounds: Bounds | None,
    scale: Any,
    budget: int | None,
    known: Known | None,
    num_particles: int,
    law: str,
    alpha: float,
) -> Swarm:
    """Return a swarm at its start; see `zoo.consensus.swarm.begin` and `scatter`.

    Raises:
        ValueError: `x0` is no vector, or `scale` is not above 0.
    """
    frame = begin(x0, (key,), bounds, scale, budget)
    anchor = frame.x0[None]
    offsets = scatter(frame, num_particles, law, known)
    return Swarm(frame, 0, 0, 0, anchor, offsets, anchor, math.inf, alpha, 0.0)


def ask(swarm: Swarm) -> Particles:
    """Return the particles whose values are wanted."""
    return Particles(swarm.frame.like, swarm.frame.bounds, swarm.anchor, swarm.offsets[:, : swarm.asked])


def hear(swarm: Swarm, evaluations: Evaluations) -> tuple[Swarm, Matrix]:
    """Return the swarm with the best point brought up to date, and energies of all particles, shape (1, n).

    Raises:
        ValueError: There are not as many values as candidates.
    """
    asked = swarm.asked
    if len(evaluations) != asked:
        raise ValueError(f"`evaluations` must hold the {asked} values asked for, got {len(evaluations)}.")
    energies = np.full((1, swarm.size), np.inf)
    energies[0, :asked] = weights.energies_of(evaluations.values)
    index = int(energies.argmin())
    lowest = float(energies[0, index])
    best, best_value = swarm.best, swarm.best_value
    if lowest < best_value:
        best, best_value = swarm.anchor + swarm.offsets[:, index], lowest
    told = replace(swarm, step=swarm.step + 1, nfev=swarm.nfev + asked, best=best, best_value=best_value)
    return told, energies


def gather(swarm: Swarm, energies: Matrix, alpha: float, points: Array | None = None) -> tuple[Swarm, Array]:
    """Return the swarm with its temperature noted, and the way from the anchor to the consensus point.

    Args:
        swarm: The swarm.
        energies: Shape (1, n).
        alpha: Inverse temperature.
        points: Offsets of what the consensus point is a mean of, shape (1, n, dim); None for the particles.

    Returns:
        The swarm, and a shift of shape (1, dim), float64; 0 where all evaluations failed.
    """
    points, alphas = swarm.offsets if points is None else points, np.array([alpha])
    edges = list(weights.boundaries(swarm.size))
    sums = weights.merge([weights.sums_between(edges, energies, points, alphas)], alphas)
    squares = float(sums.squares[0])
    sample_size = float(sums.total[0]) ** 2 / squares if squares else 0.0
    shift = of_kind(points, weights.centre(sums))
    return replace(swarm, alpha=alpha, sample_size=sample_size), shift


def advance(swarm: Swarm, anchor: Array, offsets: Array) -> Swarm:
    """Return the swarm with its particles moved: inside the box, and none far beyond all reason."""
    xp = array_module(offsets)
    reach = swarm.frame.work.asarray(_REACH * swarm.frame.scale)
    near = xp.minimum(xp.maximum(offsets, -reach), reach)
    return replace(swarm, moves=swarm.moves + 1, anchor=anchor, offsets=confine(swarm.frame, anchor, near))


def alpha_at(energies: Matrix, share: float, before: float) -> float:
    """Return the inverse temperature at which the effective sample size is a share of the particles.

    It is solved for in units that are a power of 2, so that values twice as large have half the temperature
    to the last bit.

    Args:
        energies: Shape (1, n).
        share: Of the particles that have an energy, above 0 and below 1.
        before: What to return where any would do, or none.
    """
    valid = np.isfinite(energies)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        widest = np.where(valid, energies - energies.min(), 0.0).max()
        exponent = int(np.frexp(min(widest, 1e308))[1])
        start = np.ldexp(np.array([before]), exponent)
        return float(np.ldexp(weights.alpha_of(np.ldexp(energies, -exponent), share, start), -exponent)[0])


def cooled(swarm: Swarm, final: float) -> float:
    """Return a factor that falls from 1 to `final`, by the same ratio in each step, as the budget is used up.

    Without a budget it falls by as much in `_STEPS` steps, and goes on falling.
    """
    budget = swarm.frame.budget
    steps = _STEPS if budget is None else max(1.0, budget / swarm.size)
    return float(final ** (swarm.moves / steps))


def recommend(swarm: Swarm, elitist: bool) -> Array:
    """Return the best point so far or else the consensus point, as the user's kind of array."""
    point = (swarm.best if elitist else swarm.anchor)[0]
    return place(swarm.frame.like, swarm.frame.bounds, point, swarm.frame.work.asarray(point * 0))


def finished(swarm: Swarm, tolx: float) -> str | None:
    """Return which stopping rule holds, or None."""
    frame = swarm.frame
    if frame.budget is not None and swarm.nfev >= frame.budget:
        return f"the budget of {frame.budget} evaluations is used up"
    if not tolx or not swarm.step or swarm.step % CHECK_EVERY:
        return None
    rows = abs(swarm.offsets[0])
    widest = np.asarray(to_numpy(array_module(rows).amax(rows, 0)))
    rounding = 4 * frame.like.epsilon * np.abs(to_numpy(swarm.anchor[0]))
    if (widest <= np.maximum(tolx * frame.scale, rounding)).all():
        return f"tolx: all particles are within {tolx} of the scale of the consensus, or within rounding"
    return None


def report(swarm: Swarm) -> dict[str, Any]:
    """Return the temperature, the effective sample size, and the spread of the particles."""
    return {
        "alpha": swarm.alpha,
        "effective_sample_size": swarm.sample_size,
        "spread": float(spread_of(swarm.offsets)[0]),
    }


def check_from_zero(name: str, value: object, *, infinite: bool = False) -> float:
    """Return a number of at least 0, or raise."""
    number = check_number(name, value)
    if not (0 <= number < math.inf or (infinite and number == math.inf)):
        rule = "at least 0" if infinite else "finite and at least 0"
        raise ValueError(f"`{name}` must be {rule}, got {value!r}.")
    return number
