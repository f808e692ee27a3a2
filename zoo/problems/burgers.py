"""Burgers' equation in one dimension: a solver of two orders, exact solutions, and initial conditions.

    du/dt + d(u^2 / 2)/dx = viscosity * d^2u/dx^2        on a ring of some length

Waves steepen into shocks, which viscosity keeps finite: the simplest equation on which a coarse solver is
wrong in ways that a fine one is not. The solver computes alike on numpy arrays and torch tensors, any number
of rows at once. Called with arrays it is a black box; through tensors torch can differentiate, for who wants
to know what a method without gradients misses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from zoo.core.device import Array, array_module
from zoo.core.rng import Key
from zoo.core.validation import check_count, check_number, check_positive

_RANGE = 1e12  # of the Cole-Hopf transform: beyond it, its small values are lost in rounding


@dataclass(frozen=True)
class Burgers:
    """Finite volumes on a ring: `u` holds the means of cells, and what leaves one cell enters the next.

    With u_l and u_r the values on the two sides of the face between cells i and i + 1,

        F   = max(u_l, 0)^2 / 2 + min(u_r, 0)^2 / 2 - viscosity (u_{i+1} - u_i) / dx
        L(u)_i = (F_{i-1/2} - F_{i+1/2}) / dx

    which is the flux of Engquist and Osher, and central differences for the viscosity.

        order 1:  u_l = u_i, u_r = u_{i+1}
                  u <- u + dt L(u)
        order 2:  u_l = u_i + s_i / 2, u_r = u_{i+1} - s_{i+1} / 2
                  v = u + dt L(u), u <- (u + v + dt L(v)) / 2

    s_i is van Leer's harmonic mean of the differences to both neighbours, 0 where these differ in sign.
    Order 1 is monotone: no value ever leaves the range of the first ones. It smears shocks, which order 2
    hardly does.

    A step is right only while nothing crosses more than a cell in it,

        dt (order max|u| / dx + 2 viscosity / dx^2) <= 1

    The rows for which it is not come back as NaN, and the others as if these had not been there.

    Args:
        cells: How many cells, at least 4.
        dt: Time of a step.
        viscosity: Of the fluid, positive.
        order: 1 or 2, in space and time.
        length: Of the ring.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range, or no row can be stable, as viscosity alone rules it out.

    Example:
        >>> solver = Burgers(cells=32, dt=0.05, viscosity=0.02)
        >>> u = np.sin(solver.centres)
        >>> later = solver.run(u, steps=40)[-1]
        >>> later.shape, bool(abs(later.sum() - u.sum()) < 1e-12), bool(later.max() < u.max())
        ((32,), True, True)

    References:
        Engquist and Osher, "One-sided difference approximations for nonlinear conservation laws", 1981.
        https://doi.org/10.1090/S0025-5718-1981-0606500-X
        van Leer, "Towards the ultimate conservative difference scheme. II. Monotonicity and conservation
        combined in a second-order scheme", 1974. https://doi.org/10.1016/0021-9991(74)90019-9
    """

    cells: int
    dt: float
    viscosity: float = 0.02
    order: int = 1
    length: float = 2 * math.pi

    def __post_init__(self) -> None:
        check_count("cells", self.cells, minimum=4)
        check_positive("dt", self.dt)
        check_positive("viscosity", self.viscosity)
        if check_count("order", self.order) > 2:
            raise ValueError(f"`order` must be 1 or 2, got {self.order!r}.")
        check_positive("length", self.length)
        longest = self.dx**2 / (2 * self.viscosity)
        if self.dt >= longest:
            raise ValueError(
                f"`dt` must be below dx^2 / (2 viscosity) = {longest:.3g} with {self.cells} cells, "
                f"got {self.dt!r}."
            )

    @property
    def dx(self) -> float:
        """Width of a cell."""
        return self.length / self.cells

    @property
    def centres(self) -> np.ndarray:
        """Where the middles of the cells are, shape (cells,)."""
        return (np.arange(self.cells) + 0.5) * self.dx

    @property
    def fastest(self) -> float:
        """The largest |u| that the time step allows."""
        return (1 / self.dt - 2 * self.viscosity / self.dx**2) * self.dx / self.order

    def step(self, u: Array) -> Array:
        """Return the means of cells a step later.

        Args:
            u: Shape (..., cells), numpy or torch.

        Returns:
            The same kind and shape; NaN in rows that the time step is too long for.

        Raises:
            ValueError: `u` has another number of cells.
        """
        self._check(u)
        xp = array_module(u)
        v = u + self.dt * self._change(u)
        if self.order == 2:
            v = (u + v + self.dt * self._change(v)) / 2
        too_fast = xp.amax(xp.abs(u), -1) > self.fastest
        if not too_fast.any():
            return v
        return xp.where(too_fast[..., None], math.nan, v)

    def run(self, u: Array, steps: int, every: int = 1) -> Array:
        """Return the first state and every so many steps the next, shape (1 + steps // every, ..., cells).

        Args:
            u: Shape (..., cells), numpy or torch.
            steps: How many, at least 0.
            every: Steps from one state that is returned to the next, at least 1.

        Raises:
            TypeError: `steps` or `every` is no integer.
            ValueError: It is out of range, `u` has another number of cells or something that is no number, or
                the time step is too long for a row of it.
        """
        self._check(u)
        check_count("steps", steps, minimum=0)
        check_count("every", every)
        xp = array_module(u)
        peak = float(xp.abs(u).max())
        if not math.isfinite(peak):
            raise ValueError("`u` must be finite, and some of it is infinite or no number.")
        if peak > self.fastest:
            raise ValueError(
                f"`u` must not exceed {self.fastest:.3g} with dt = {self.dt:.3g} and {self.cells} cells, got "
                f"{peak:.3g}; make `dt` shorter."
            )
        frames = [u]
        for number in range(1, steps + 1):
            u = self.step(u)
            if number % every == 0:
                frames.append(u)
        return xp.stack(frames)

    def _check(self, u: Array) -> None:
        if not u.ndim or u.shape[-1] != self.cells:
            raise ValueError(f"`u` must have the shape (..., {self.cells}), got {tuple(u.shape)}.")

    def _change(self, u: Array) -> Array:
        """Return L(u), how fast the means of cells change."""
        xp = array_module(u)
        wide = xp.concatenate([u[..., -2:], u, u[..., :2]], -1)
        gap = wide[..., 1:] - wide[..., :-1]
        left, right = wide[..., 1:-2], wide[..., 2:-1]
        if self.order == 2:
            slope = _harmonic(gap[..., :-1], gap[..., 1:])
            left, right = left + slope[..., :-1] / 2, right - slope[..., 1:] / 2
        left, right = xp.clip(left, 0, None), xp.clip(right, None, 0)
        flux = (left * left + right * right) / 2 - gap[..., 1:-1] * (self.viscosity / self.dx)
        return (flux[..., :-1] - flux[..., 1:]) / self.dx


def _harmonic(before: Array, after: Array) -> Array:
    """Return 2 a b / (a + b) where a and b have the same sign, else 0."""
    xp = array_module(before)
    product = before * after
    same = product > 0
    return xp.where(same, 2 * product / xp.where(same, before + after, 1.0), 0.0)


def coarsened(u: Array, cells: int) -> Array:
    """Return means over larger cells: shape (..., fine cells) to (..., cells); nothing is lost of the sum.

    Raises:
        ValueError: `cells` does not divide the number of fine cells.
    """
    if u.shape[-1] % cells:
        raise ValueError(f"`cells` must divide {u.shape[-1]}, got {cells!r}.")
    return u.reshape(*u.shape[:-1], cells, -1).mean(-1)


def refined(u: np.ndarray, cells: int) -> np.ndarray:
    """Return means over smaller cells, of the straight lines that order 2 draws through the larger ones.

    `coarsened` takes it back.

    Args:
        u: Means of larger cells, shape (..., larger cells).
        cells: How many smaller ones, a multiple of the larger.

    Raises:
        ValueError: `cells` is no multiple of the number of larger cells.
    """
    parts, rest = divmod(check_count("cells", cells), u.shape[-1])
    if rest or not parts:
        raise ValueError(f"`cells` must be a multiple of {u.shape[-1]}, got {cells!r}.")
    slope = _harmonic(u - np.roll(u, 1, -1), np.roll(u, -1, -1) - u)
    place = (np.arange(parts) + 0.5) / parts - 0.5
    return (u[..., None] + slope[..., None] * place).reshape(*u.shape[:-1], cells)


def waves(key: Key, count: int, solver: Burgers, *, modes: int = 3) -> np.ndarray:
    """Return random initial conditions, as means of a solver's cells: shape (count, cells).

        u(x) = c + sum_{k=1}^{modes} a_k sin(2 pi k x / length + phase_k)

    c is uniform in [-1/2, 1/2], a_k in [-1, 1] / sqrt(k), phases anywhere. Row i is the same however many
    rows there are and whatever the number of cells.

    Raises:
        ValueError: `count` or `modes` is no positive integer.
    """
    check_count("count", count)
    check_count("modes", modes)
    drawn = key.fold("waves").uniform(0, count, 1 + 2 * modes)
    mean, size, phase = drawn[:, :1] - 0.5, 2 * drawn[:, 1 : modes + 1] - 1, drawn[:, modes + 1 :]
    k = np.arange(1, modes + 1)
    half = np.pi * k / solver.cells  # a wave's mean over a cell is its middle value times sin(h) / h
    size = size / np.sqrt(k) * (np.sin(half) / half)
    turns = k[:, None] * solver.centres / solver.length + phase[:, :, None]
    return mean + (size[:, :, None] * np.sin(2 * np.pi * turns)).sum(1)


def cole_hopf(u: np.ndarray, time: float, viscosity: float, length: float = 2 * math.pi) -> np.ndarray:
    """Return the exact solution at a later time, from its values at equally spaced points.

    With c the mean of u and U an integral of u - c, phi = exp(-U / (2 viscosity)) solves the heat equation
    dphi/dt = viscosity d^2phi/dx^2, each of its Fourier modes for itself, and

        u(x, t) = c - 2 viscosity phi_x(x - c t, t) / phi(x - c t, t)

    It is as exact as the Fourier series of phi over the points: take many.

    Args:
        u: Values at points a distance length / n apart, shape (..., n).
        time: How much later, at least 0.
        viscosity: Of the fluid.
        length: Of the ring.

    Returns:
        Values at the same points, shape (..., n).

    Raises:
        TypeError: `time`, `viscosity` or `length` is no number.
        ValueError: One of them is out of range; or phi spans more than 12 orders of magnitude, as with little
            viscosity, and would be lost in rounding.

    References:
        Hopf, "The partial differential equation u_t + u u_x = mu u_xx", 1950.
        https://doi.org/10.1002/cpa.3160030302
    """
    if not 0 <= check_number("time", time) < math.inf:
        raise ValueError(f"`time` must be a finite number of at least 0, got {time!r}.")
    check_positive("viscosity", viscosity)
    check_positive("length", length)
    n = u.shape[-1]
    mean = u.mean(-1, keepdims=True)
    wave = 2j * math.pi * np.fft.rfftfreq(n, length / n)
    spectrum = np.fft.rfft(u - mean)
    spectrum[..., 1:] /= wave[1:]
    spectrum[..., 0] = 0
    potential = np.fft.irfft(spectrum, n)
    exponent = -(potential - potential.min(-1, keepdims=True)) / (2 * viscosity)
    if exponent.min() < -math.log(_RANGE):
        least = -exponent.min() * viscosity / math.log(_RANGE)
        raise ValueError(f"`viscosity` must be at least {least:.3g} for this u, got {viscosity!r}.")
    moved = np.fft.rfft(np.exp(exponent)) * np.exp(viscosity * time * wave**2 - wave * mean * time)
    return mean - 2 * viscosity * np.fft.irfft(wave * moved, n) / np.fft.irfft(moved, n)
