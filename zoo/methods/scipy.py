"""Methods of scipy behind our contract: asked and told, resumed at any step, never past budget or bounds.

All of them work on free variables in units of `scale` (`zoo.methods.coordinates`), so tolerances on x are in
those units, and for scale 1, without failed evaluations, each is scipy's own search to the last bit. How they
start, what a failed evaluation is worth, and what follows a converged search: `zoo.methods.replayed`. What
scipy limits by `maxiter` and `maxfev` is limited by the budget here.

Source: Virtanen et al., SciPy 1.0: fundamental algorithms for scientific computing in Python, 2020,
https://doi.org/10.1038/s41592-019-0686-2.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.core.validation import check_choice, check_count, check_flag, check_number, check_positive
from zoo.estimators.finite_difference import STENCILS
from zoo.methods.coordinates import Coordinates
from zoo.methods.replayed import Attempt, Replayed

Matrix = np.ndarray[Any, Any]

STRATEGIES = tuple(
    base + crossing
    for crossing in ("bin", "exp")
    for base in ("best1", "rand1", "randtobest1", "currenttobest1", "best2", "rand2")
)
_ENDLESS = 10**9  # iterations: the budget ends a run, not scipy
_MOST = 10**6  # evaluations that DIRECT makes room for
_REACH = 3.0  # units of scale from x0 to where a global search ends if there is no wall


@dataclass(frozen=True)
class NelderMead(Replayed):
    """The downhill simplex method.

    Moves the worst of dim + 1 points through the centre of the others, as far as it pays, and draws
    all of them together where it does not. The first simplex is x0 and x0 + scale_i e_i (x0 - scale_i e_i
    where a wall is in the way, or the wall), evaluated in one step; after that a step is one
    evaluation. Points beyond walls are moved onto them.

    Args:
        xatol: Ends where the points are this close in every coordinate, in units of scale, and
        fatol: their values differ by no more than this.
        adaptive: Whether the moves depend on dim; better for many variables.
        restarts: Whether it starts again at a random point when it has converged.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> from zoo import minimize
        >>> result = minimize(lambda x: (x[0] - 1) ** 2 + x[1] ** 2, np.zeros(2), method="nelder-mead")
        >>> bool(result.fun < 1e-7), result.message
        (True, 'Optimization terminated successfully.')

    Source: Nelder and Mead, A simplex method for function minimization, 1965,
    https://doi.org/10.1093/comjnl/7.4.308; adaptive: Gao and Han, Implementing the Nelder-Mead simplex
    algorithm with adaptive parameters, 2012, https://doi.org/10.1007/s10589-010-9329-3.
    """

    xatol: float = 1e-4
    fatol: float = 1e-4
    adaptive: bool = False
    restarts: bool = False

    def __post_init__(self) -> None:
        _check_tolerances(xatol=self.xatol, fatol=self.fatol)
        check_flag("adaptive", self.adaptive)
        check_flag("restarts", self.restarts)

    def run(self, attempt: Attempt) -> str | None:
        here = Coordinates(attempt.frame)
        start = here.inverse(attempt.start)
        simplex = np.vstack([start, start + np.diag(_inwards(here, start))])
        first = iter(attempt.points(here, simplex).tolist())

        def fun(z: Matrix) -> float:
            value = next(first, None)
            return attempt.point(here, z) if value is None else value

        return _minimized(
            fun,
            start,
            "Nelder-Mead",
            bounds=_walls(here),
            initial_simplex=simplex,
            maxiter=math.inf,
            maxfev=math.inf,
            xatol=self.xatol,
            fatol=self.fatol,
            adaptive=self.adaptive,
        )


@dataclass(frozen=True)
class Powell(Replayed):
    """Line searches along directions that learn to be conjugate.

    Minimises along each of dim directions in turn, by Brent's method, then puts the way gone in all in
    place of the direction that helped most. The first directions are the axes, as long as scale. A step
    is one evaluation.

    Args:
        xtol: Relative accuracy of a line search, a hundred times this.
        ftol: Ends after a round that lowered the value by no more than this share of it.
        restarts: Whether it starts again at a random point when it has converged.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> from zoo import minimize
        >>> minimize(lambda x: (x[0] - 1) ** 2 + x[1] ** 2, np.zeros(2), method="powell").fun < 1e-7
        True

    Source: Powell, An efficient method for finding the minimum of a function of several variables
    without calculating derivatives, 1964, https://doi.org/10.1093/comjnl/7.2.155.
    """

    xtol: float = 1e-4
    ftol: float = 1e-4
    restarts: bool = False

    def __post_init__(self) -> None:
        _check_tolerances(xtol=self.xtol, ftol=self.ftol)
        check_flag("restarts", self.restarts)

    def run(self, attempt: Attempt) -> str | None:
        here = Coordinates(attempt.frame)
        return _minimized(
            lambda z: attempt.point(here, z),
            here.inverse(attempt.start),
            "Powell",
            bounds=_walls(here),
            direc=np.diag(here.ratio),
            maxiter=math.inf,
            maxfev=math.inf,
            xtol=self.xtol,
            ftol=self.ftol,
        )


@dataclass(frozen=True)
class COBYQA(Replayed):
    """Steps to the minimum of a quadratic model within a trust region.

    The model interpolates 2 dim + 1 points, the newest of which take the place of those that help least.
    A step is one evaluation, besides which it takes milliseconds: for expensive objectives.

    Scipy lets one COBYQA of its own run at a time, and lets none begin inside another one's objective. So
    this method, too, waits for ever inside an objective of `scipy.optimize.minimize(method="COBYQA")`. The
    other way round, and inside one another, ours can be used.

    Args:
        initial_tr_radius: First radius of the trust region, in units of scale (of its mean, where it
            differs between coordinates by other factors than powers of two).
        final_tr_radius: Ends when the radius is this, in the same units.
        restarts: Whether it starts again at a random point when it has converged.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> from zoo import minimize
        >>> minimize(lambda x: (x[0] - 1) ** 2 + x[1] ** 2, np.zeros(2), method="cobyqa").fun < 1e-10
        True

    Source: Ragonneau, Model-based derivative-free optimization methods and software, 2022,
    https://arxiv.org/abs/2210.12018.
    """

    initial_tr_radius: float = 1.0
    final_tr_radius: float = 1e-6
    restarts: bool = False

    def __post_init__(self) -> None:
        check_positive("initial_tr_radius", self.initial_tr_radius)
        check_positive("final_tr_radius", self.final_tr_radius)
        if self.final_tr_radius > self.initial_tr_radius:
            raise ValueError(
                f"`final_tr_radius` must be at most `initial_tr_radius`, {self.initial_tr_radius!r}, "
                f"got {self.final_tr_radius!r}."
            )
        check_flag("restarts", self.restarts)

    def run(self, attempt: Attempt) -> str | None:
        here = Coordinates(attempt.frame)
        unit = float(here.ratio.mean())

        def fun(z: Matrix) -> float:
            with _let_go():
                return attempt.point(here, z)

        return _minimized(
            fun,
            here.inverse(attempt.start),
            "COBYQA",
            bounds=_walls(here),
            maxiter=_ENDLESS,
            maxfev=_ENDLESS,
            initial_tr_radius=self.initial_tr_radius * unit,
            final_tr_radius=self.final_tr_radius * unit,
        )


@dataclass(frozen=True)
class LBFGSB(Replayed):
    """Limited-memory BFGS with bounds, on gradients from differences along all coordinates.

    x and the dim points displaced from it (2 dim with the central stencil) are one step. See
    `zoo.methods.coordinates.Differences` for how they are displaced near walls.

    Args:
        maxcor: Pairs of steps and changes of the gradient that are remembered.
        ftol: Ends after an iteration that lowered the value by no more than this times
            max(|before|, |after|, 1).
        gtol: Ends where no entry of the projected gradient is larger, in values per unit of scale.
        maxls: Points of a line search at most.
        eps: Distance of differences, in units of scale; None for what suits the dtype
            (`zoo.estimators.precision`): 2e-7 for float64.
        stencil: "forward" or "central".
        restarts: Whether it starts again at a random point when it has converged.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> from zoo import minimize
        >>> minimize(lambda x: (x[0] - 1) ** 2 + x[1] ** 2, np.zeros(2), method="l-bfgs-b").fun < 1e-10
        True

    Source: Byrd, Lu, Nocedal and Zhu, A limited memory algorithm for bound constrained optimization, 1995,
    https://doi.org/10.1137/0916069.
    """

    maxcor: int = 10
    ftol: float = 2.220446049250313e-09
    gtol: float = 1e-5
    maxls: int = 20
    eps: float | None = None
    stencil: str = "forward"
    restarts: bool = False

    def __post_init__(self) -> None:
        check_count("maxcor", self.maxcor)
        _check_tolerances(ftol=self.ftol, gtol=self.gtol)
        check_count("maxls", self.maxls)
        _check_differences(self.eps, self.stencil)
        check_flag("restarts", self.restarts)

    def run(self, attempt: Attempt) -> str | None:
        here = Coordinates(attempt.frame)
        return _minimized(
            _with_gradient(attempt, here, self.stencil, self.eps),
            here.inverse(attempt.start),
            "L-BFGS-B",
            jac=True,
            bounds=_walls(here),
            maxcor=self.maxcor,
            ftol=self.ftol,
            gtol=self.gtol,
            maxls=self.maxls,
            maxiter=_ENDLESS,
            maxfun=_ENDLESS,
        )


@dataclass(frozen=True)
class BFGS(Replayed):
    """BFGS with the whole inverse Hessian, on gradients from differences along all coordinates.

    x and the dim points displaced from it (2 dim with the central stencil) are one step. It knows
    no bounds: where there are some, it searches the whole space, of which every point stands for
    one of the box (`Bounds.map` with "smooth"). A start at a wall, where that map is flat, is moved away
    from it by a two-thousandth of the width.

    Args:
        gtol: Ends where no entry of the gradient is larger, in values per unit of scale.
        xrtol: Ends after a step shorter than this share of x.
        c1: How much of the slope a step must lower the value by.
        c2: To what share of it a step must lessen the slope.
        eps: Distance of differences, in units of scale; None for what suits the dtype
            (`zoo.estimators.precision`): 2e-7 for float64.
        stencil: "forward" or "central".
        restarts: Whether it starts again at a random point when it has converged.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> from zoo import minimize
        >>> minimize(lambda x: (x[0] - 1) ** 2 + x[1] ** 2, np.zeros(2), method="bfgs").fun < 1e-10
        True

    Source: Nocedal and Wright, Numerical optimization, 2006, https://doi.org/10.1007/978-0-387-40065-5.
    """

    gtol: float = 1e-5
    xrtol: float = 0.0
    c1: float = 1e-4
    c2: float = 0.9
    eps: float | None = None
    stencil: str = "forward"
    restarts: bool = False

    def __post_init__(self) -> None:
        _check_tolerances(gtol=self.gtol, xrtol=self.xrtol)
        for name, value in (("c1", self.c1), ("c2", self.c2)):
            if not 0 < check_number(name, value) < 1:
                raise ValueError(f"`{name}` must be above 0 and below 1, got {value!r}.")
        if self.c1 >= self.c2:
            raise ValueError(f"`c1` must be below `c2`, {self.c2!r}, got {self.c1!r}.")
        _check_differences(self.eps, self.stencil)
        check_flag("restarts", self.restarts)

    def run(self, attempt: Attempt) -> str | None:
        here = Coordinates(attempt.frame, smooth=True)
        return _minimized(
            _with_gradient(attempt, here, self.stencil, self.eps),
            here.inverse(_off_walls(attempt)),
            "BFGS",
            jac=True,
            gtol=self.gtol,
            xrtol=self.xrtol,
            c1=self.c1,
            c2=self.c2,
            maxiter=_ENDLESS,
        )


@dataclass(frozen=True)
class DifferentialEvolution(Replayed):
    """Points that move by differences of others: a global search.

    A step is a generation: for each of popsize * dim points a trial, some coordinates of which are those
    of another point (the best, by default) plus `mutation` times the difference of two more; it takes the
    point's place if it is better. The first generation is a Latin hypercube in the box and x0; points that
    are known take the place of some. Where there is no wall, the box ends at 3 times scale from x0.

    Args:
        strategy: Which points a trial is made of, one of `STRATEGIES`.
        popsize: Points for each free variable; at least 5 in all.
        tol: Ends when the values' standard deviation is no more than this share of their mean,
        atol: plus this.
        mutation: What differences are multiplied by, from 0 to below 2: one number, or two between which it
            is drawn for each generation.
        recombination: Probability of a coordinate to be changed, from 0 to 1.
        polish: Whether a search by L-BFGS-B from the best point follows, on differences along all
            coordinates as under `l-bfgs-b`.
        restarts: Whether it starts again when it has converged.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> from zoo import minimize
        >>> from zoo.problems import rastrigin
        >>> box = [(-5, 5)] * 2
        >>> minimize(rastrigin, np.full(2, 3.0), bounds=box, method="scipy-de", rng=0).fun < 1e-8
        True

    Source: Storn and Price, Differential evolution: a simple and efficient heuristic for global
    optimization over continuous spaces, 1997, https://doi.org/10.1023/A:1008202821328.
    """

    strategy: str = "best1bin"
    popsize: int = 15
    tol: float = 0.01
    atol: float = 0.0
    mutation: float | tuple[float, float] = (0.5, 1.0)
    recombination: float = 0.7
    polish: bool = True
    restarts: bool = False

    def __post_init__(self) -> None:
        check_choice("strategy", self.strategy, STRATEGIES)
        check_count("popsize", self.popsize)
        _check_tolerances(tol=self.tol, atol=self.atol)
        pair = self.mutation if isinstance(self.mutation, (tuple, list)) else (self.mutation,)
        if len(pair) not in (1, 2) or not all(0 <= check_number("mutation", part) < 2 for part in pair):
            raise ValueError(
                f"`mutation` must be a number of at least 0 and below 2, or two, got {self.mutation!r}."
            )
        if not 0 <= check_number("recombination", self.recombination) <= 1:
            raise ValueError(f"`recombination` must be between 0 and 1, got {self.recombination!r}.")
        check_flag("polish", self.polish)
        check_flag("restarts", self.restarts)

    def run(self, attempt: Attempt) -> str | None:
        from scipy.optimize import differential_evolution

        here = Coordinates(attempt.frame)
        lower, upper = _box(attempt, here)
        generator = attempt.key.generator()
        begin: dict[str, Any] = {}
        if attempt.number == 0 and len(attempt.known):
            begin["init"] = _population(
                attempt, here, max(5, self.popsize * here.dim), lower, upper, generator
            )
        elif attempt.number == 0:
            begin["x0"] = here.inverse(attempt.start)
        result = differential_evolution(
            lambda z: attempt.points(here, z.T),
            list(zip(lower, upper, strict=True)),
            strategy=self.strategy,
            maxiter=_ENDLESS,
            popsize=self.popsize,
            tol=self.tol,
            atol=self.atol,
            mutation=self.mutation,
            recombination=self.recombination,
            polish=False,
            updating="deferred",
            vectorized=True,
            **begin,
            **_randomness(differential_evolution, generator),
        )
        if self.polish:
            _descend(attempt, here, result.x)
        return str(result.message)


@dataclass(frozen=True)
class DualAnnealing(Replayed):
    """Generalised simulated annealing with local searches: a global search.

    Jumps by a heavy-tailed distribution that narrows as a temperature falls, accepts by chance what is
    worse, and runs L-BFGS-B from where that seems worth while. It never ends of its own accord: at
    `restart_temp_ratio` of the first temperature it begins anew. A step is one evaluation, in local searches
    x and the dim points displaced from it, as under `l-bfgs-b`. Where there is no wall, the box ends at 3
    times scale from x0.

    Args:
        initial_temp: First temperature, above 0.01 and at most 50000.
        restart_temp_ratio: Share of it at which it begins anew, between 0 and 1.
        visit: How heavy the tails of jumps are, above 1 and at most 3.
        accept: How readily worse points are accepted, from -10000 to -5: the lower, the less.
        no_local_search: Whether there are no local searches.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> from zoo import minimize
        >>> from zoo.problems import rastrigin
        >>> arguments = {"bounds": [(-5, 5)] * 2, "method": "dual-annealing", "rng": 0}
        >>> minimize(rastrigin, np.full(2, 3.0), budget=1000, **arguments).fun < 1e-8
        True

    Source: Xiang, Sun, Fan and Gong, Generalized simulated annealing algorithm and its application to
    the Thomson model, 1997, https://doi.org/10.1016/S0375-9601(97)00474-X.
    """

    initial_temp: float = 5230.0
    restart_temp_ratio: float = 2e-5
    visit: float = 2.62
    accept: float = -5.0
    no_local_search: bool = False

    def __post_init__(self) -> None:
        _check_range("initial_temp", self.initial_temp, 0.01, 5e4)
        _check_range("restart_temp_ratio", self.restart_temp_ratio, 0, 1)
        _check_range("visit", self.visit, 1, 3)
        _check_range("accept", self.accept, -1e4, -5)
        check_flag("no_local_search", self.no_local_search)

    def run(self, attempt: Attempt) -> str | None:
        from scipy.optimize import dual_annealing

        here = Coordinates(attempt.frame)
        lower, upper = _box(attempt, here)

        def local(_fun: Any, z: Matrix, **_: Any) -> Any:
            return _descend(attempt, here, z, (lower, upper), min(max(6 * here.dim, 100), 1000))

        result = dual_annealing(
            lambda z: attempt.point(here, z),
            list(zip(lower, upper, strict=True)),
            maxiter=_ENDLESS,
            minimizer_kwargs={"method": local},
            initial_temp=self.initial_temp,
            restart_temp_ratio=self.restart_temp_ratio,
            visit=self.visit,
            accept=self.accept,
            maxfun=math.inf,
            no_local_search=self.no_local_search,
            x0=here.inverse(attempt.start),
            **_randomness(dual_annealing, attempt.key.generator()),
        )
        return str(result.message)


@dataclass(frozen=True)
class Direct(Replayed):
    """Divides the box where a lower value may hide, whatever the slope: a global search.

    Of the boxes of each size, those with the best middle are divided into three along a longest side. Uses
    neither x0 nor any randomness; where there is no wall, the box ends at 3 times scale from x0. A step is
    one evaluation. Without a budget it ends after 1000 dim of
    them, and with one after a million.

    Args:
        eps: By how much, as a share of the best value, a box must promise to be better.
        locally_biased: Whether fewer boxes of each size are divided; better with few local minima.
        vol_tol: Ends when the box of the best point has this share of the whole volume.
        len_tol: Ends when it has this share of the longest side (of the diagonal, unless `locally_biased`).

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its range.

    Example:
        >>> from zoo import minimize
        >>> from zoo.problems import rastrigin
        >>> box = [(-4, 5)] * 2
        >>> minimize(rastrigin, bounds=box, method="direct", budget=400).fun < 1e-4
        True

    Source: Jones, Perttunen and Stuckman, Lipschitzian optimization without the Lipschitz constant, 1993,
    https://doi.org/10.1007/BF00941892; Gablonsky and Kelley, A locally-biased form of the DIRECT
    algorithm, 2001, https://doi.org/10.1023/A:1017930332101.
    """

    eps: float = 1e-4
    locally_biased: bool = True
    vol_tol: float = 1e-16
    len_tol: float = 1e-6

    def __post_init__(self) -> None:
        check_positive("eps", self.eps)
        check_flag("locally_biased", self.locally_biased)
        _check_range("vol_tol", self.vol_tol, 0, 1)
        _check_range("len_tol", self.len_tol, 0, 1)

    def run(self, attempt: Attempt) -> str | None:
        from scipy.optimize import direct

        here = Coordinates(attempt.frame)
        lower, upper = _box(attempt, here)
        most = min(attempt.frame.budget or 1000 * here.dim, _MOST)
        result = direct(
            lambda z: attempt.point(here, z.copy()),
            list(zip(lower, upper, strict=True)),
            eps=self.eps,
            maxfun=most,
            maxiter=most,
            locally_biased=self.locally_biased,
            vol_tol=self.vol_tol,
            len_tol=self.len_tol,
        )
        return str(result.message)


def _minimized(
    fun: Callable[[Matrix], Any],
    start: Matrix,
    method: str,
    *,
    jac: Any = None,
    bounds: Any = None,
    **options: Any,
) -> str:
    from scipy.optimize import minimize

    return str(minimize(fun, start, method=method, jac=jac, bounds=bounds, options=options).message)


def _walls(here: Coordinates) -> Any:
    from scipy.optimize import Bounds

    return Bounds(here.lower, here.upper) if here.bounded else None


def _inwards(here: Coordinates, z: Matrix) -> Matrix:
    """Return steps of length scale along the axes, turned round or cut short at walls."""
    above, below = here.upper - z, z - here.lower
    wider = np.where(above >= below, above, -below)
    return np.where(here.ratio <= above, here.ratio, np.where(here.ratio <= below, -here.ratio, wider))


def _off_walls(attempt: Attempt) -> Matrix:
    """Return the start, no nearer to a wall than a hundredth of the margin of a smooth box."""
    bounds = attempt.frame.bounds
    if bounds is None:
        return attempt.start
    lower, upper = bounds.lower, bounds.upper
    width = upper - lower
    low, high = (
        np.where(np.isfinite(width), width, 1 + np.where(np.isfinite(wall), np.abs(wall), 0)) / 2000
        for wall in (lower, upper)
    )
    return np.minimum(np.maximum(attempt.start, lower + low), upper - high)


def _with_gradient(
    attempt: Attempt, here: Coordinates, stencil: str, eps: float | None
) -> Callable[[Matrix], tuple[float, Matrix]]:
    def fun(z: Matrix) -> tuple[float, Matrix]:
        return attempt.gradient(here, z, central=stencil == "central", distance=eps)

    return fun


def _descend(
    attempt: Attempt,
    here: Coordinates,
    z: Matrix,
    box: tuple[Matrix, Matrix] | None = None,
    maxiter: int = _ENDLESS,
) -> Any:
    """Return what L-BFGS-B makes of a point."""
    from scipy.optimize import Bounds, minimize

    return minimize(
        _with_gradient(attempt, here, "forward", None),
        z,
        method="L-BFGS-B",
        jac=True,
        bounds=_walls(here) if box is None else Bounds(*box),
        options={"maxiter": maxiter, "maxfun": _ENDLESS},
    )


def _box(attempt: Attempt, here: Coordinates) -> tuple[Matrix, Matrix]:
    """Return finite walls: those there are, else as far from x0 as scale says, and around what is known."""
    points = [here.inverse(point) for point in (attempt.frame.x0, attempt.start, *attempt.known)]
    reach = _REACH * here.ratio
    lower = np.where(np.isfinite(here.lower), here.lower, np.min([points[0] - reach, *points], axis=0))
    upper = np.where(np.isfinite(here.upper), here.upper, np.max([points[0] + reach, *points], axis=0))
    return lower, upper


def _population(
    attempt: Attempt,
    here: Coordinates,
    size: int,
    lower: Matrix,
    upper: Matrix,
    generator: np.random.Generator,
) -> Matrix:
    """Return the points that are known, x0, and a Latin hypercube for the rest."""
    points = [here.inverse(point) for point in (*attempt.known, attempt.frame.x0)][:size]
    rest = size - len(points)
    strata = generator.permuted(np.tile(np.arange(rest), (here.dim, 1)), axis=1).T
    shares = (strata + generator.random((rest, here.dim))) / max(rest, 1)
    return np.vstack([*points, lower + shares * (upper - lower)])


def _randomness(function: Any, generator: np.random.Generator) -> dict[str, Any]:
    """Return the generator under the name that this version of scipy has for it."""
    return {"rng" if "rng" in inspect.signature(function).parameters else "seed": generator}


@contextlib.contextmanager
def _let_go() -> Iterator[None]:
    """Let others run COBYQA while ours waits: scipy lets one at a time, and ours may wait for long."""
    from scipy.optimize import _cobyqa_py

    lock = getattr(_cobyqa_py, "COBYQA_LOCK", None)
    if lock is None:
        yield
        return
    lock.release()
    try:
        yield
    finally:
        lock.acquire()


def _check_tolerances(**tolerances: Any) -> None:
    for name, value in tolerances.items():
        if not 0 <= check_number(name, value) < math.inf:
            raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r}.")


def _check_range(name: str, value: Any, low: float, high: float) -> None:
    if not low <= check_number(name, value) <= high:
        raise ValueError(f"`{name}` must be between {low:g} and {high:g}, got {value!r}.")


def _check_differences(eps: Any, stencil: Any) -> None:
    if eps is not None:
        check_positive("eps", eps)
    check_choice("stencil", stencil, STENCILS)
