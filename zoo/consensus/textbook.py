"""Consensus-based optimization as it was published: a choice of options of `CBO`."""

from __future__ import annotations

from math import inf

from zoo.consensus.cbo import CBO
from zoo.core.validation import check_positive


def TextbookCBO(  # noqa: N802 - it stands for a class of methods, and is used like one
    *,
    num_particles: int = 16,
    drift: float = 1.0,
    sigma: float = 11.4,
    dt: float = 0.01,
    alpha: float = 30.0,
    alpha_rate: float = 1.05,
    max_alpha: float = 1e15,
    noise: str = "anisotropic",
    integrator: str = "euler-maruyama",
    truncation: float = inf,
    correction: str = "none",
    correction_width: float = 1e-3,
    batch_size: int | None = None,
    batch_moves: str = "all",
    elitist: bool = True,
    start: str = "normal",
    precision: str = "double",
    tolx: float = 1e-12,
    allow_divergence: bool = False,
) -> CBO:
    """Consensus-based optimization as published: all particles drift and diffuse in all coordinates.

    With v_i = x_i - c the offset of particle i from the consensus point, xi standard normal, and the weights
    exp(-alpha (f(x_i) - min f)) in c,

        x_i    <-  c + v_i (1 - drift dt + sigma sqrt(dt) xi)
        alpha  <-  min(alpha_rate alpha, max_alpha)

    The default noise, sigma sqrt(dt) = 1.14, is near the strongest with which swarms come together in a
    reasonable time, and what difficult functions need: 81 % of 600 runs found the minimum of Rastrigin's
    function of 20 variables, shifted, in 60,000 evaluations. `CBO` needs a fifth of that. With fewer
    than 1000 evaluations per variable, or to follow the gradient, take a smaller `sigma`, from 1 to 5.
    The papers have 50 to 200 particles, and recommend the consensus point: `elitist=False`.

    Args:
        num_particles: Particles of a swarm.
        drift: Pull of the consensus point.
        sigma: Strength of the noise; what some papers call sigma is this divided by sqrt(2).
        dt: Length of a time step.
        alpha: Inverse temperature to begin with; infinite for the best particles alone.
        alpha_rate: What it is multiplied by each step, 1 for a constant.
        max_alpha: What it grows up to.
        noise: "anisotropic" or "isotropic".
        integrator: "euler-maruyama" or "exponential".
        truncation: Distance at which noise stops growing.
        correction: "none", "heaviside" or "smooth".
        correction_width: Difference of values over which the smooth one acts.
        batch_size: Particles that a consensus point is made of, None for all.
        batch_moves: "all" or "batch".
        elitist: Whether the best point so far takes part in the consensus, and is recommended.
        start: Law of the first particles about x0, in units of `scale`: "normal", or "uniform" in [-1, 1];
            uniform in the box in any case where there is one.
        precision: "double" or "single".
        tolx: Stop when particles are all within this, in units of `scale`; 0 for never.
        allow_divergence: Allow noise with which swarms fly apart.

    Returns:
        The method; see `CBO` for more about its options.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range, or the noise is too strong.

    Example:
        >>> import zoo
        >>> zoo.minimize(
        ...     lambda x: (x**2).sum(), [1.0, -2.0], method="cbo-textbook", budget=4000, rng=0
        ... ).fun < 1e-6
        True

    References:
        Pinnau, Totzeck, Tse and Martin, "A consensus-based model for global optimization and its mean-field
        limit", 2017. https://arxiv.org/abs/1604.05648
        Carrillo, Jin, Li and Zhu, "A consensus-based global optimization method for high dimensional machine
        learning problems", 2021. https://arxiv.org/abs/1909.09249
    """
    is_constant = check_positive("alpha_rate", alpha_rate) == 1 or alpha in (0, inf)
    return CBO(
        num_particles=num_particles,
        drift=drift,
        sigma=sigma,
        dt=dt,
        alpha=alpha,
        alpha_schedule="constant" if is_constant else "multiply",
        alpha_rate=alpha_rate,
        max_alpha=max_alpha,
        noise=noise,
        integrator=integrator,
        truncation=truncation,
        correction=correction,
        correction_width=correction_width,
        batch_size=batch_size,
        batch_moves=batch_moves,
        memory="none",
        num_coordinates=None,
        explorers=0.0,
        elitist=elitist,
        start=start,
        precision=precision,
        tolx=tolx,
        allow_divergence=allow_divergence,
    )
