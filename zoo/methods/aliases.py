"""The descent methods of the literature, each a choice of directions, stencil, update and step size.

With `learning_rate="auto"`, the default, all of them take the scale-free steps of
`zoo.methods.descent.Descent`; with a number they are the textbook's iteration. Options that several
have in common:

* `num_directions`: directions a step; None for as many as there are coordinates.
* `smoothing`: distance of the finite difference in units of x, or "auto": by dtype and measured noise.
* `stencil`: "forward", n + 1 evaluations for n directions, or "central", 2 n and far more accurate.
* `directions`: name of a law of `zoo.estimators.directions`.
* `momentum`: share of the past steps' gradients that is kept, 0 for none.
"""

from __future__ import annotations

from zoo.core.validation import check_fraction
from zoo.estimators.directions import Axes
from zoo.estimators.finite_difference import FiniteDifference
from zoo.estimators.hizoo import HiZOO
from zoo.methods.descent import Descent
from zoo.updates.adam import Adam
from zoo.updates.adamm import AdaMM
from zoo.updates.chain import Chain, Update
from zoo.updates.clip import Clip
from zoo.updates.momentum import Momentum
from zoo.updates.sign import Sign


def ZOSGD(  # noqa: N802 - it stands for a class of methods, and is used like one
    *,
    num_directions: int | None = 8,
    smoothing: float | str = "auto",
    learning_rate: float | str = "auto",
    stencil: str = "central",
    directions: str = "sphere",
    momentum: float = 0.9,
    max_norm: float | None = None,
) -> Descent:
    """Descent along gradients estimated from random vectors, with heavy-ball momentum.

    Args:
        num_directions: Directions a step.
        smoothing: Distance of the difference, or "auto".
        learning_rate: Step per unit of gradient, or "auto".
        stencil: "forward" or "central".
        directions: Law of the directions.
        momentum: Share of the past that is kept.
        max_norm: Gradients longer than this are shortened to it; not with "auto", where every
            gradient counts for its direction alone.

    Raises:
        ValueError: An option has a value that it cannot have.

    Example:
        >>> import zoo
        >>> zoo.minimize(lambda x: (x**2).sum(), [1.0, -2.0], method="zo-sgd", budget=400, rng=0).fun < 1e-6
        True

    References:
        Ghadimi and Lan, "Stochastic first- and zeroth-order methods for nonconvex stochastic
        programming", 2013. https://arxiv.org/abs/1309.5549
    """
    parts = (*_clipped(max_norm, learning_rate), *_with_momentum(momentum))
    return _descent(directions, num_directions, smoothing, learning_rate, stencil, Chain(parts))


def ZOAdam(  # noqa: N802 - as above
    *,
    num_directions: int | None = 8,
    smoothing: float | str = "auto",
    learning_rate: float | str = "auto",
    stencil: str = "central",
    directions: str = "sphere",
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> Descent:
    """Adam, on gradients estimated from random vectors.

    Args:
        num_directions: Directions a step.
        smoothing: Distance of the difference, or "auto".
        learning_rate: Step per unit of Adam's direction, or "auto".
        stencil: "forward" or "central".
        directions: Law of the directions.
        beta1: Share of the past in the mean of gradients.
        beta2: Share of the past in the mean of their squares.
        epsilon: Keeps the quotient finite, in units of the gradient (of 1 with "auto").

    Raises:
        ValueError: An option has a value that it cannot have.

    Note:
        The paper keeps the largest second moment so far, which is `zo-adamm`; here the moments are Adam's.
        Under "auto" gradients enter made to length 1.

    Example:
        >>> import zoo
        >>> zoo.minimize(lambda x: (x**2).sum(), [1.0, -2.0], method="zo-adam", budget=400, rng=0).fun < 1e-6
        True

    References:
        Chen et al., "ZO-AdaMM: zeroth-order adaptive momentum method for black-box optimization", 2019.
        https://arxiv.org/abs/1910.06513
    """
    update = Adam(beta1, beta2, epsilon)
    return _descent(directions, num_directions, smoothing, learning_rate, stencil, update)


def ZOAdaMM(  # noqa: N802 - as above
    *,
    num_directions: int | None = 8,
    smoothing: float | str = "auto",
    learning_rate: float | str = "auto",
    stencil: str = "central",
    directions: str = "sphere",
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> Descent:
    """Adam whose second moments never fall, on gradients estimated from random vectors.

    Args:
        num_directions: Directions a step.
        smoothing: Distance of the difference, or "auto".
        learning_rate: Step per unit of the update's direction, or "auto".
        stencil: "forward" or "central".
        directions: Law of the directions.
        beta1: Share of the past in the mean of gradients.
        beta2: Share of the past in the mean of their squares.
        epsilon: Keeps the quotient finite, in units of the gradient (of 1 with "auto").

    Raises:
        ValueError: An option has a value that it cannot have.

    Note:
        The paper's projection onto bounds, in a norm weighted coordinate by coordinate, is clipping where
        they are a box, as here. Under "auto" gradients enter made to length 1.

    Example:
        >>> import zoo
        >>> zoo.minimize(lambda x: (x**2).sum(), [1.0, -2.0], method="zo-adamm", budget=400, rng=0).fun < 1e-6
        True

    References:
        Chen et al., "ZO-AdaMM: zeroth-order adaptive momentum method for black-box optimization", 2019.
        https://arxiv.org/abs/1910.06513
    """
    update = AdaMM(beta1, beta2, epsilon)
    return _descent(directions, num_directions, smoothing, learning_rate, stencil, update)


def ZOSign(  # noqa: N802 - as above
    *,
    num_directions: int | None = 8,
    smoothing: float | str = "auto",
    learning_rate: float | str = "auto",
    stencil: str = "central",
    directions: str = "sphere",
) -> Descent:
    """Descent along the signs of estimated gradients: every coordinate moves equally far.

    Args:
        num_directions: Directions a step.
        smoothing: Distance of the difference, or "auto".
        learning_rate: Step of each coordinate, or "auto".
        stencil: "forward" or "central".
        directions: Law of the directions.

    Raises:
        ValueError: An option has a value that it cannot have.

    Example:
        >>> import zoo
        >>> zoo.minimize(lambda x: (x**2).sum(), [1.0, -2.0], method="zo-sign", budget=400, rng=0).fun < 1e-6
        True

    References:
        Liu, Chen, Chen and Hong, "signSGD via zeroth-order oracle", 2019.
        https://openreview.net/forum?id=BJe-DsC5Fm
    """
    return _descent(directions, num_directions, smoothing, learning_rate, stencil, Sign())


def SPSA(  # noqa: N802 - as above
    *,
    num_directions: int = 1,
    smoothing: float | str = "auto",
    learning_rate: float | str = "auto",
    delay: float = 0.0,
) -> Descent:
    """Simultaneous perturbation: all coordinates are moved at once, by random signs, forth and back.

    With numbers for both, step k = 0, 1, ... has Spall's gains: learning rate a / (k + 1 + A)^.602 and
    distance c / (k + 1)^.101. Each "auto" puts the scale-free steps and the measured distance of this
    library, which do not follow a schedule, in the place of its gain.

    Args:
        num_directions: Pairs of evaluations that are averaged.
        smoothing: The numerator c, or "auto".
        learning_rate: The numerator a, or "auto".
        delay: A; a tenth of the number of steps is recommended. Needs a number as `learning_rate`.

    Raises:
        ValueError: An option has a value that it cannot have.

    Example:
        >>> import zoo
        >>> options = {"learning_rate": 0.2, "smoothing": 0.01}
        >>> zoo.minimize(
        ...     lambda x: (x**2).sum(), [1.0, -2.0], method="spsa", budget=400, rng=0, options=options
        ... ).fun < 1e-3
        True

    References:
        Spall, "Multivariate stochastic approximation using a simultaneous perturbation gradient
        approximation", 1992. https://doi.org/10.1109/9.119632
        Spall, "Implementation of the simultaneous perturbation algorithm for stochastic
        optimization", 1998. https://doi.org/10.1109/7.705889
    """
    decay = 0.602 if not isinstance(learning_rate, str) else 0.0
    shrink = 0.101 if not isinstance(smoothing, str) else 0.0
    estimator = FiniteDifference("rademacher", num_directions, smoothing, "central", shrink)
    return Descent(estimator, Chain(), learning_rate, decay, delay)


def CoordinateDescent(  # noqa: N802 - as above
    *,
    num_directions: int | None = None,
    smoothing: float | str = "auto",
    learning_rate: float | str = "auto",
    stencil: str = "central",
    order: str = "random",
    momentum: float = 0.9,
) -> Descent:
    """Descent along gradients estimated coordinate by coordinate, all of them or some a step.

    Args:
        num_directions: Coordinates a step; None for all.
        smoothing: Distance of the difference, or "auto".
        learning_rate: Step per unit of gradient, or "auto".
        stencil: "forward" or "central".
        order: Which coordinates, where not all: "random", drawn without replacement, or "cyclic".
        momentum: Share of the past that is kept.

    Raises:
        ValueError: An option has a value that it cannot have.

    Example:
        >>> import zoo
        >>> result = zoo.minimize(
        ...     lambda x: (x**2).sum(), [1.0, -2.0], method="coordinate-descent", budget=400, rng=0
        ... )
        >>> result.fun < 1e-6
        True

    References:
        Chen et al., "DeepZero: scaling up zeroth-order optimization for deep model training", 2024.
        https://arxiv.org/abs/2310.02025
    """
    law, update = Axes(order), Chain(_with_momentum(momentum))
    estimator = FiniteDifference(law, num_directions, smoothing, stencil)
    return Descent(estimator, update, learning_rate)


def DiagonalNewton(  # noqa: N802 - as above
    *,
    num_directions: int | None = None,
    smoothing: float | str = "auto",
    learning_rate: float | str = "auto",
    directions: str = "axes",
    rate: float = 1.0,
    momentum: float = 0.9,
) -> Descent:
    """HiZOO: gradients divided by a diagonal Hessian that is learned from the same values.

    It cures scales that differ between variables, of any size, and no valley that lies across them.

    Args:
        num_directions: Pairs of evaluations a step; None for as many as coordinates.
        smoothing: Distance of the difference, or "auto".
        learning_rate: Step per unit of gradient divided by the Hessian's diagonal, or "auto".
        directions: Law of the directions.
        rate: How fast the Hessian follows what is measured, from 0 to 1; below 1 for noisy objectives.
        momentum: Share of the past that is kept.

    Raises:
        ValueError: An option has a value that it cannot have.

    Note:
        The paper has one Gaussian direction a step and a rate of 1e-8, for networks. The slopes along all
        axes measure the diagonal at once, which random directions take d^2 / 2 evaluations to tell apart
        (`zoo.estimators.hizoo.HiZOO`); so these are the default here.

    Example:
        >>> import zoo
        >>> scales = [1.0, 1e6]
        >>> result = zoo.minimize(lambda x: (x**2) @ scales, [1.0, -2.0], method="hizoo", budget=200, rng=0)
        >>> result.fun < 1e-6
        True

    References:
        Zhao, Dang, Ye, Dai, Qian and Tsang, "Second-order fine-tuning without pain for LLMs: a Hessian
        informed zeroth-order optimizer", 2025. https://arxiv.org/abs/2402.15173
    """
    estimator = HiZOO(directions, num_directions, smoothing, rate=rate)
    return Descent(estimator, Chain(_with_momentum(momentum)), learning_rate)


def RandomDescent(  # noqa: N802 - as above
    *,
    num_directions: int | None = 8,
    smoothing: float | str = "auto",
    learning_rate: float | str = "auto",
    stencil: str = "central",
    directions: str = "orthonormal",
) -> Descent:
    """Descent along gradients estimated from perpendicular random directions, without momentum.

    Args:
        num_directions: Directions a step; of perpendicular ones there are at most as many as coordinates.
        smoothing: Distance of the difference, or "auto".
        learning_rate: Step per unit of gradient, or "auto".
        stencil: "forward" or "central".
        directions: Law of the directions; "gaussian" is the paper's.

    Raises:
        ValueError: An option has a value that it cannot have.

    Example:
        >>> import zoo
        >>> result = zoo.minimize(
        ...     lambda x: (x**2).sum(), [1.0, -2.0], method="random-descent", budget=400, rng=0
        ... )
        >>> result.fun < 1e-6
        True

    References:
        Nesterov and Spokoiny, "Random gradient-free minimization of convex functions", 2017.
        https://doi.org/10.1007/s10208-015-9296-2
    """
    return _descent(directions, num_directions, smoothing, learning_rate, stencil, Chain())


def _descent(
    directions: str,
    num_directions: int | None,
    smoothing: float | str,
    learning_rate: float | str,
    stencil: str,
    update: Update,
) -> Descent:
    estimator = FiniteDifference(directions, num_directions, smoothing, stencil)
    return Descent(estimator, update, learning_rate)


def _with_momentum(momentum: float) -> tuple[Update, ...]:
    return (Momentum(momentum),) if check_fraction("momentum", momentum) else ()


def _clipped(max_norm: float | None, learning_rate: float | str) -> tuple[Update, ...]:
    if max_norm is None:
        return ()
    clip = Clip(max_norm)
    if learning_rate == "auto":
        raise ValueError("`max_norm` needs a number as `learning_rate`, got 'auto'.")
    return (clip,)
