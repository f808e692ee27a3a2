"""`zoo.minimize` and what stands beside it: from what users have at hand to a run, and back."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.arguments import as_executor
from zoo.core.constraints import constrain
from zoo.core.errors import RunDirectoryError
from zoo.core.front import chosen
from zoo.core.modules import files_of, own_path
from zoo.core.objective import Objective, as_objective
from zoo.core.rng import Key
from zoo.core.space import Space
from zoo.core.validation import check_positive
from zoo.execution.executor import Executor
from zoo.experiment import (
    Experiment,
    check_objective,
    compare_modules,
    compare_objective,
    differences,
    experiment_of,
    named_constraints,
    named_objective,
    names_in,
)
from zoo.registry import find
from zoo.run.directory import RunDirectory, holds_run, read_config, read_modules
from zoo.run.job import Report, SearchJob, SearchState
from zoo.run.kinds import kind_of
from zoo.run.loop import Run, Stop, run
from zoo.run.watching import Watcher
from zoo.wrappers.primed import Primed
from zoo.wrappers.reevaluated import Reevaluated

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

_STATUS = {"finished": 0, "target": 1, "seconds": 2, "callback": 3, "interrupted": 4, "failed": 5, "open": 6}
# What scipy's `tol` stands for, as in scipy, in the options of whichever method has them.
_TOLERANCES = ("tolfun", "xatol", "fatol", "xtol", "ftol", "gtol", "final_tr_radius")


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM ended a run; `result` is what it had found, `signal` the signal's number."""

    so_far: str | None = None  # how to say what it had found, where `result` is that of another package

    def __init__(self, message: str, result: OptimizeResult, signal: int) -> None:
        super().__init__(message)
        self.result, self.signal = result, signal


def minimize(
    fun: Callable[..., Any] | Objective | str | Sequence[str],
    x0: Any = None,
    args: tuple[Any, ...] = (),
    *,
    method: str = "auto",
    bounds: Any = None,
    space: Any = None,
    constraints: Any = (),
    known: Any = None,
    scale: Any = None,
    budget: int | None = None,
    target: float | None = None,
    seconds: float | None = None,
    rng: int | np.random.Generator | Key | None = None,
    noise: bool = False,
    vectorized: bool = False,
    workers: int | Executor | Callable[..., Any] = 1,
    on_error: str = "raise",
    callback: Callable[..., Any] | Watcher | Sequence[Callable[..., Any] | Watcher] | None = None,
    out: str | os.PathLike[str] | None = None,
    options: dict[str, Any] | None = None,
) -> OptimizeResult:
    """Minimise a black box.

    The same arguments and the same `rng` give the same bytes, whatever the number of workers, also
    when workers die and when the run is killed and resumed (on one model of processor and one build of
    the numerical libraries).

    Args:
        fun: A function of one point returning a number, or a row of them for methods that take several
            objectives (the trait "objectives"); "module:name"; "module:name()" for a factory
            called where it is evaluated; a program as a list of strings (see `zoo.Command`); an `Objective`.
        x0: Start, shape (dim,): numpy array, torch tensor or sequence. The points given to `fun` are of
            the same kind, dtype and device. Left out, it is the middle of finite bounds. Not every method
            evaluates x0 itself, many only points around it: `known=([x0], None)` has it evaluated first.
        args: Further arguments of `fun`.
        method: A name from `zoo.list_methods()`; "auto" lets us choose.
        bounds: Pairs (lower, upper) with None for no limit, or `scipy.optimize.Bounds`. Nothing outside is
            ever evaluated.
        space: A `zoo.Space` of floats, integers and categories, instead of bounds and a scale. `fun` is then
            given points of it, as dictionaries (with `vectorized`, of arrays), and all points here and in
            the result are such points.
        constraints: scipy's NonlinearConstraint, LinearConstraint or dictionaries, a function c(x) that is to
            be at least 0, a `zoo.Constraint`, "module:name" of one of these, or a sequence of them; or
            "returned" if `fun` returns them itself, as extras["constraints"] of `zoo.Evaluations`, g(x) <= 0.
            They are evaluated where `fun` is, right after it, with `args` of their own, and with `vectorized`
            for as many points at once. `fun` is evaluated where they are violated, too. Equalities may be
            1e-6 off unless a `zoo.Constraint` says otherwise.
        known: What was evaluated before, as (points, values): points of shape (n, dim), and for each of them
            its value, or None where it is to be evaluated before anything else; NaN and infinities are failed
            evaluations. Methods with a population, a distribution or a model begin with them. Without an x0,
            the search starts at the best of them, and points are of the kind of theirs.
            They count as found, but not as evaluated. With constraints, values must be None: they say nothing
            of those.
        scale: How far from x0 the optimum may be, as a number or per coordinate: the first candidates
            spread that far. Default: .3 of the width where bounds are finite, else 1.
        budget: Number of evaluations at most. Default: 1000 times the number of variables, none if `seconds`
            is given. (With `noise`, a run that is stopped before its end takes a few more each time, for
            `fun`.)
        target: End as soon as a value is this or less.
        seconds: End after the first step that is done later than this.
        rng: Seed, generator (one number is drawn from it), `Key`, or None for a fresh seed.
        noise: Say True if `fun` is random: global generators are seeded around each call by its place in
            the run, all candidates of a step get the same seed, and the result is the method's
            recommendation with the mean of fresh values instead of the luckiest point; up to 30 evaluations,
            and a hundredth of the budget, are kept for these.
        vectorized: Whether `fun` takes points of shape (k, dim) and returns shape (k,).
        workers: Number of processes (-1: one for each core), an executor such as `zoo.Ray(8)`, or a
            map-like callable.
        on_error: What an exception in `fun` does after the first success and one retry: "raise" ends the
            run, with a checkpoint, "nan" makes the evaluation a failed one. NaN and infinities are failed
            evaluations under both.
        callback: Called after each step as `callback(intermediate_result=...)` if that is the name of its
            argument, else with the best point so far. `StopIteration` ends the run. Or a `zoo.Watcher`, such
            as `zoo.Progress()`, which cannot; or a sequence of both.
        out: Directory to keep the run in. One that holds this very run is resumed; any other is refused.
        options: Options of the method, see `zoo.list_methods()[name].options()`.

    Returns:
        `scipy.optimize.OptimizeResult` with `x`, `fun`, `nfev`, `nit`, `success`, `status`, `message`,
        `fun_error` (standard error of `fun`; only with `noise`), `x_best` and `fun_best` (lowest value seen;
        biased under noise), `num_failed`, `seconds`, `method` and
        `account`. That holds `evaluations`, `retries` after exceptions, `lost` units (under way as a worker
        died; all but those given up were issued again), `restarts` of workers and `quarantined` units (given
        up, since they ended or outlasted their workers), over the whole run; and of this process `speculated`
        units (given to a second worker at the end of a step), bytes `sent` and `received`, and the share of
        time each worker was `busy`. With constraints, x is the best point that keeps to all of them, there is
        `maxcv` (by how much x violates the one that it violates most) and `constr` (what may not be above 0,
        one number for each finite side of each of them). `success` is False if no evaluation had a value, or
        none that kept to the constraints: x is then the point that violates them least. With several
        objectives, `fun` is their mean, and `front` holds all points found that no other one dominates
        (`front.x`, and `front.fun` of shape (n, k)), in the order of the first objective; `x` is one of them.
        (With `noise` it need not be, and `front.fun` are single values, biased like `fun_best`.) Methods that
        look for several minima (the trait "minima") say which they found: `minima.x`, and `minima.fun` of
        shape (k,), the best one first; not where there are constraints, and biased likewise with `noise`.

    Raises:
        ValueError: An argument has a value that it cannot have.
        TypeError: An argument is of a type that it cannot be, or an option is unknown.
        EvaluationError: `fun` raised; `error.result` is what was found until then.
        TooManyFailures: More than a fifth of the last hundred evaluations raised or crashed.
        RunDirectoryError: `out` cannot be used.
        Interrupted: SIGINT or SIGTERM; `error.result` is what was found until then.

    Example:
        >>> import zoo
        >>> result = zoo.minimize(lambda x: ((x - 1) ** 2).sum(), np.zeros(4), budget=800, rng=0)
        >>> bool(result.fun < 1e-6), result.nfev <= 800
        (True, True)
    """
    executor = as_executor(workers)
    experiment = experiment_of(
        lambda space, several: as_objective(
            fun, args, vectorized=vectorized, noise=noise, space=space, several=several
        ),
        method,
        x0,
        bounds=bounds,
        space=space,
        constraints=constraints,
        known=known,
        scale=scale,
        budget=budget,
        target=target,
        rng=rng,
        noise=noise,
        options=options,
        vectorized=vectorized,
        on_error=on_error,
        threads=executor.threads,
        is_endless=seconds is not None,
    )
    limits = _as_limits(seconds, callback, experiment.space)
    if out is None:
        return _run(experiment, executor, *limits, None)
    path, (config, arrays) = Path(out), experiment.written()
    if not holds_run(path):
        modules = files_of(names_in(config["objective"]))
        places = {"modules": modules, "path": own_path(), "folder": os.getcwd()}
        directory = RunDirectory.create(path, config, arrays, {**executor.describe(), **places})
        return _run(experiment, executor, *limits, directory)
    directory = RunDirectory.open(path)
    with contextlib.ExitStack() as stack:
        stack.callback(directory.close)
        if rng is None:
            config["key"] = directory.config["key"]
        check_objective(path, directory.config["objective"], config["objective"])
        differ = differences((config, arrays), (directory.config, directory.start))
        if differ:
            raise RunDirectoryError(
                f"{path} holds another run: {', '.join(differ)}. Choose another directory; an existing "
                "run is resumed or refused, never overwritten."
            )
        compare_objective(path, directory.config["objective"], config["objective"])
        stack.pop_all()
    experiment = Experiment.read(directory.config, directory.start, experiment.objective)
    return _run(experiment, executor, *limits, directory)


def resume(
    out: str | os.PathLike[str],
    fun: Callable[..., Any] | Objective | str | Sequence[str] | None = None,
    args: tuple[Any, ...] = (),
    *,
    constraints: Any = None,
    workers: int | Executor | Callable[..., Any] = 1,
    seconds: float | None = None,
    callback: Callable[..., Any] | Watcher | Sequence[Callable[..., Any] | Watcher] | None = None,
) -> OptimizeResult:
    """Go on with a run that was stopped, killed, or cut short; a finished one just returns its result.

    That of a run of another package, such as `evolution.evolve`, is what that returns.

    Args:
        out: The run's directory.
        fun: The objective, where it was not given by name: functions are never stored.
        args: Further arguments of `fun`.
        constraints: The constraints, where one of them was not given by name.
        workers: As in `minimize`; it need not be what it was.
        seconds: As in `minimize`.
        callback: As in `minimize`.

    Raises:
        RunDirectoryError: The directory is missing, no run, in use, or of another objective.
        CheckpointError: Its checkpoints are damaged or newer than this version.
    """
    executor = as_executor(workers)
    if (kind := kind_of(read_config(Path(out))[0])) is not None:
        if fun is not None or args or constraints is not None:
            raise TypeError(f"`fun`, `args` and `constraints` must be left out: {out} holds no minimization.")
        return kind.resume(Path(out), workers=executor, seconds=seconds, callback=callback)
    directory = RunDirectory.open(Path(out))
    with contextlib.ExitStack() as stack:
        stack.callback(directory.close)
        path, config = directory.path, directory.config
        if config.get("kind") == "training":
            raise RunDirectoryError(
                f"{path} holds the training of a network: call zoo.nn.train again, with the network, the "
                f"data and the arguments it was called with, and out={str(path)!r}."
            )
        fun = named_objective(path, config["objective"]) if fun is None else fun
        space = None if config.get("space") is None else Space.read(config["space"])
        limits = _as_limits(seconds, callback, space)
        objective = as_objective(
            fun,
            args,
            vectorized=config["vectorized"],
            noise=config["noise"],
            space=space,
            several="objectives" in find(config["method"]).traits,
        )
        if constraints is None:
            constraints = named_constraints(path, config["objective"])
        objective = constrain(
            objective, constraints, vectorized=config["vectorized"], noise=config["noise"], space=space
        )
        check_objective(path, config["objective"], objective.identity())
        for name, before, now in (
            ("points a call of the objective", config["unit"], objective.unit),
            ("threads", config["threads"], executor.threads),
        ):
            if before != now:
                raise RunDirectoryError(
                    f"{path} was run with {before} {name}, not {now}: the bytes would differ."
                )
        compare_objective(path, config["objective"], objective.identity())
        compare_modules(path, config["objective"], read_modules(path)[0])
        stack.pop_all()
    return _run(Experiment.read(config, directory.start, objective), executor, *limits, directory)


def scipy_method(name: str) -> Callable[..., OptimizeResult]:
    """Return a method in the form that `scipy.optimize.minimize(method=...)` takes.

    The options given there are those of `minimize` (`budget`, `rng`, `target`, `scale`, ...) and of
    the method; `maxfev` is understood as `budget`, and scipy's `tol` as the method's tolerances where it has
    one. Derivatives, if scipy passes any, are not used. `constraints` are those of `minimize`.

    Example:
        >>> from scipy.optimize import minimize
        >>> cma = scipy_method("cma")
        >>> result = minimize(lambda x: (x**2).sum(), np.ones(5), method=cma, options={"budget": 900})
        >>> bool(result.fun < 1e-6)
        True
    """
    method = find(name)
    facade = {p.name for p in inspect.signature(minimize).parameters.values()} - {
        "fun",
        "x0",
        "args",
        "method",
        "constraints",
    }

    def minimize_by_method(
        fun: Callable[..., Any],
        x0: Any,
        args: tuple[Any, ...] = (),
        *,
        bounds: Any = None,
        callback: Callable[..., Any] | None = None,
        constraints: Any = (),
        jac: Any = None,
        hess: Any = None,
        hessp: Any = None,
        **options: Any,
    ) -> OptimizeResult:
        del jac, hess, hessp  # scipy hands them to every method
        if options.get("maxfev") is not None:
            options.setdefault("budget", options.pop("maxfev"))
        tolerances = [name for name in _TOLERANCES if name in method.options()]
        if tolerances and (tol := options.pop("tol", None)) is not None:
            for name in tolerances:
                options.setdefault(name, tol)
        own = {key: options.pop(key) for key in list(options) if key in facade}
        own.setdefault("options", options)
        own |= {"bounds": bounds, "constraints": constraints, "callback": callback}
        return minimize(fun, x0, args, method=method.name, **own)

    minimize_by_method.__name__ = method.name.replace("-", "_")
    return minimize_by_method


def _run(
    experiment: Experiment,
    executor: Executor,
    seconds: float | None,
    callbacks: Sequence[Callable[[SearchState, Report], None]],
    watchers: Sequence[Watcher],
    directory: RunDirectory | None,
) -> OptimizeResult:
    stop = Stop(experiment.target, seconds)
    about: dict[str, Any] = {}
    if watchers:
        config = experiment.written()[0] if directory is None else directory.config
        about = {"watchers": watchers, "config": config, "execution": executor.describe()}
    if directory is None:
        job = experiment.job(executor)
        outcome = run(job, stop, callbacks, **about)
        result = result_of(experiment, job, outcome)
    else:
        try:
            job = experiment.job(executor)
            job.journal, job.event, job.account = directory.journal, directory.event, directory.account()
            outcome = run(job, stop, callbacks, directory, **about)
            result = result_of(experiment, job, outcome)
            if before := directory.result:  # a run that goes on has none: there was nothing to do
                result.seconds = before.get("seconds", result.seconds)
                result.account |= before.get("account", {})
            else:
                directory.finish(result)
        except (TypeError, ValueError, ImportError):
            if directory.is_new and directory.is_untouched:
                directory.discard()
            raise
        finally:
            directory.close()
    if outcome.status == "interrupted":
        where = f"; zoo.resume({str(directory.path)!r}) goes on" if directory else ""
        raise Interrupted(outcome.reason + where, result, outcome.signal or 2)
    if outcome.error is not None:
        outcome.error.result = result  # type: ignore[attr-defined]
        raise outcome.error
    return result


def result_of(experiment: Experiment, job: SearchJob, outcome: Run[SearchState]) -> OptimizeResult:
    """Return how a search ended, as the user sees it."""
    from scipy.optimize import OptimizeResult

    state = outcome.state
    own: dict[str, Any] = {}
    x, fun = (state.x, state.fun) if state.x is not None else (state.x_best, state.fun_best)
    if x is None:
        x, fun = job.optimizer.recommend(state.optimizer), float("nan")
    valued = state.nfev + state.num_final > state.num_failed
    found, message = valued, outcome.reason
    if not (valued or outcome.error):
        message = f"{message}; no evaluation had a value"
    if experiment.noise:
        own["fun_error"] = state.fun_error
    if experiment.is_constrained:
        maxcv, constr = state.violation, state.constraints
        if state.x is None:
            maxcv, constr = state.violation_best, state.constraints_best
        own |= {"maxcv": maxcv, "constr": np.empty(0) if constr is None else constr}
        found = valued and maxcv <= 0
        if valued and not (found or outcome.error):
            message = f"{message}; no point was found that keeps to the constraints"
    if state.front is not None:
        points, objectives = state.front
        order = np.lexsort(objectives.T[::-1])
        points = chosen(points, order)
        there = points if experiment.space is None else experiment.space.points(points)
        own["front"] = OptimizeResult(x=there, fun=objectives[order])
    found_minima = _minima(job.optimizer, state.optimizer)
    if found_minima is not None:
        points, values = found_minima
        there = points if experiment.space is None else experiment.space.points(points)
        own["minima"] = OptimizeResult(x=there, fun=values)
    x_best = x if state.x_best is None else state.x_best
    if experiment.space is not None:
        x, x_best = experiment.space.decode(x), experiment.space.decode(x_best)
    return OptimizeResult(
        x=x,
        fun=fun,
        **own,
        nfev=state.nfev + state.num_final,
        nit=state.step,
        success=bool(found and outcome.status not in ("interrupted", "failed")),
        status=_STATUS[outcome.status],
        message=message,
        x_best=x_best,
        fun_best=state.fun_best if np.isfinite(state.fun_best) else float("nan"),
        num_failed=state.num_failed,
        account=job.account.entries(state.nfev + state.num_final),
        seconds=outcome.seconds,
        method=experiment.method,
    )


def _minima(optimizer: Any, state: Any) -> tuple[Any, Any] | None:
    """Return the minima that a method found and their values, None for one that looks for one only."""
    while isinstance(optimizer, (Primed, Reevaluated)) and state is not None:
        optimizer, state = optimizer.optimizer, state.inner
    if state is None or not hasattr(optimizer, "minima"):
        return None
    found: tuple[Any, Any] = optimizer.minima(state)
    return found


def _as_limits(
    seconds: float | None, callback: Any, space: Space | None = None
) -> tuple[float | None, list[Callable[[SearchState, Report], None]], list[Watcher]]:
    limit = None if seconds is None else check_positive("seconds", seconds)
    given = callback if isinstance(callback, (list, tuple)) else () if callback is None else (callback,)
    for one in given:
        if not (callable(one) or isinstance(one, Watcher)):
            raise TypeError(f"`callback` must be a function, a `Watcher` or a list of these, got {one!r}.")
    watchers = [one for one in given if isinstance(one, Watcher)]
    return limit, [_adapted(one, space) for one in given if not isinstance(one, Watcher)], watchers


def _adapted(callback: Callable[..., Any], space: Space | None) -> Callable[[SearchState, Report], None]:
    try:
        by_name = "intermediate_result" in inspect.signature(callback).parameters
    except (TypeError, ValueError):
        by_name = False

    def call(state: SearchState, report: Report) -> None:
        from scipy.optimize import OptimizeResult

        if state.x_best is None and not by_name:
            return
        x = None if state.x_best is None else state.x_best + 0
        if space is not None and x is not None:
            x = space.decode(x)
        if not by_name:
            callback(x)
            return
        own = {} if state.constraints_best is None else {"maxcv": state.violation_best}
        callback(
            intermediate_result=OptimizeResult(
                x=x, fun=state.fun_best, **own, nfev=state.nfev, nit=state.step, value=report.value
            )
        )

    return call
