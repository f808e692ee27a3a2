"""`zoo bench`: methods beside each other on one problem."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import completion
from zoo.cli.common import Json, Progress, count, explained, results_alone
from zoo.cli.minimize import bounds_of, start_of
from zoo.cli.output import is_terminal, print_json, print_table, remark

if TYPE_CHECKING:
    from zoo.cli.contest import Race, Standing
    from zoo.cli.problems import Problem

_METHODS = "cma,de,lbfgs,nelder-mead,random"
_DIM, _BUDGET, _PRECISION = 10, 1000, 1e-8  # the budget for each variable; the target above the minimum
_SHIFT = 0.2  # how far boxes are moved, as a share of their width, either way
_WHERE = "Where to search"


def bench(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A problem (`zoo list problems`), or module:function of your own.",
            autocompletion=completion.bench,
        ),
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Methods, separated by commas; {_METHODS} by default.", autocompletion=completion.methods
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method.")] = 5,
    budget: Annotated[
        int | None,
        typer.Option(
            parser=count,
            metavar="<int>",
            help=f"Evaluations of each run; {_BUDGET} times the dimension by default.",
        ),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(
            help=f"Value at which a run ends; {_PRECISION:g} above the minimum where that is known."
        ),
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(min=1, help=f"Variables of a problem that has any number; {_DIM} by default."),
    ] = None,
    x0: Annotated[
        str | None,
        typer.Option(
            help="Start, for a function of your own; a random one in its bounds by default, for each seed.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    bounds: Annotated[
        str | None,
        typer.Option(
            help="Bounds, for a function of your own; as in `zoo minimize`.", rich_help_panel=_WHERE
        ),
    ] = None,
    vectorized: Annotated[
        bool, typer.Option("--vectorized", help="The function takes many points at once.")
    ] = False,
    noise: Annotated[bool, typer.Option("--noise", help="The function is random.")] = False,
    on_error: Annotated[
        str,
        typer.Option(
            help="raise or nan: what an exception in the function does.", autocompletion=completion.on_error
        ),
    ] = "raise",
    workers: Annotated[
        int, typer.Option(help="Runs made at a time, each by a process; -1 for one a core.")
    ] = 1,
    out: Annotated[
        Path, typer.Option(help="Directory to keep the runs in: in OUT/NAME/METHOD/seed-K.")
    ] = Path("runs/bench"),
    progress: Progress = "auto",
    as_json: Json = False,
) -> None:
    """Compare methods on a problem, by several runs of each.

    All methods get the same starts, one for each seed. Problems that come along are moved at random in
    their boxes, so that nothing is won by looking in the middle first. Every run is kept: when stopped, the
    same command goes on, and `zoo report` and `zoo compare` show more of them.

    \b
    # three methods on a bent valley of five variables
    zoo bench rosenbrock --method cma,lbfgs,nelder-mead --dim 5
    # many valleys, two runs at a time
    zoo bench rastrigin --method de,random --dim 3 --budget 2e3 --workers 2
    # a function of your own: loss in model.py
    zoo bench model:loss --bounds -5:5x4 --method cma,powell --seeds 3
    """  # noqa: D301 - \b is for the help page
    with explained(shlex.join(["zoo", *sys.argv[1:]]), is_one_run=False):
        from zoo.cli.contest import Race, run_all, standings
        from zoo.cli.problems import PROBLEMS
        from zoo.core.validation import check_choice

        methods = _methods(method or [_METHODS])
        problem = PROBLEMS[name] if name in PROBLEMS else _own(name, x0, bounds, vectorized)
        if problem.several:
            raise ValueError(f"{name} has several objectives: there is no value that tells who is best.")
        if name in PROBLEMS and (x0 or bounds or vectorized or noise):
            raise ValueError(f"{name} says itself where it is searched, and how: leave those options out.")
        if dim is not None and problem.dim not in (None, dim):
            raise ValueError(f"{name} has {problem.dim} variables: leave --dim out.")
        dim = problem.dim or dim or _DIM
        budget = budget or _BUDGET * dim
        if target is None and problem.minimum is not None:
            target = problem.minimum + _PRECISION * max(1.0, abs(problem.minimum))
        start = None if x0 is None else start_of(x0)
        common: dict[str, Any] = {"budget": budget, "target": target, "noise": noise}
        if check_choice("--on-error", on_error, ("raise", "nan")) == "nan":
            common["on_error"] = on_error  # only then: what was made before has no such setting
        settings = {**common, "objective": problem.spec, "dim": dim, "x0": start, "bounds": problem.bounds}
        races = [
            Race(
                one,
                seed,
                out / name.replace(":", "-"),
                {**common, **region(problem, dim, seed, start)},
                json.loads(json.dumps(settings)),
            )
            for seed in range(1, seeds + 1)
            for one in methods
        ]
        workers = min((os.cpu_count() or 1) if workers == -1 else max(1, workers), len(races))
        with results_alone(), _Shown(progress, races) as shown:
            run_all(races, workers, shown.done)
        found = standings(races, target)
        if as_json or not is_terminal():
            print_json({"problem": name, **settings, "methods": [_described(one, races) for one in found]})
            return
        _print(found, target)
        folder = shlex.quote(str(races[0].folder))
        remark(f"Every run is kept: `zoo compare {folder}` draws them and says what is more than luck.")


def region(problem: Problem, dim: int, seed: int, start: list[float] | None) -> dict[str, Any]:
    """Return what `zoo.minimize` is given of a problem, with a start that belongs to the seed."""
    import numpy as np

    from zoo.core.rng import Key

    key = Key(seed).fold("bench")
    given: dict[str, Any] = {"fun": problem.spec, "vectorized": problem.vectorized}
    if problem.space is not None:
        row = key.fold("start").uniform(0, 1, len(problem.space.x0))[0]
        return {**given, "space": problem.space, "x0": problem.space.decode(row)}
    if problem.bounds is None:
        return {**given, "x0": start}
    lower, upper = np.broadcast_to(np.array(problem.bounds), (dim, 2)).T
    if problem.movable:
        shift = _SHIFT * (upper - lower) * (2 * key.fold("box").uniform(0, 1, dim)[0] - 1)
        lower, upper = lower + shift, upper + shift
    x0 = start if start is not None else lower + (upper - lower) * key.fold("start").uniform(0, 1, dim)[0]
    box = list(zip(lower.tolist(), upper.tolist(), strict=True))
    return {**given, "x0": x0, "bounds": box, "constraints": problem.constraints}


def _methods(given: list[str]) -> list[str]:
    from zoo.registry import find

    names = [name.strip() for names in given for name in names.split(",") if name.strip()]
    methods = [find(name) for name in names]
    for method in methods:
        method.build()  # what it needs is installed
    return list(dict.fromkeys(method.name for method in methods))


def _own(name: str, x0: str | None, bounds: str | None, vectorized: bool) -> Problem:
    """Return a problem that is the user's own function."""
    from zoo.cli.naming import check_name
    from zoo.cli.problems import PROBLEMS, Problem
    from zoo.core.validation import hint

    if ":" not in name:
        raise ValueError(
            f"there is no problem {name!r}.{hint(name, PROBLEMS)} `zoo list problems` lists them; a function "
            "of your own is module:function."
        )
    with results_alone():
        check_name("NAME", name)
    start, box = None if x0 is None else start_of(x0), None if bounds is None else bounds_of(bounds)
    if start is None and box is None:
        raise ValueError("give --bounds -5:5x10 for ten variables that are each between -5 and 5, or --x0.")
    dim = len(start if start is not None else box or ())
    return Problem(name, name, "", bounds=None if box is None else tuple(box), dim=dim, vectorized=vectorized)


class _Shown:
    """Says on standard error how far a bench is."""

    def __init__(self, mode: str, races: list[Race]) -> None:
        from zoo.core.validation import check_choice

        check_choice("--progress", mode, completion.progress(""))
        if mode == "auto":
            in_file = stat.S_ISREG(os.fstat(2).st_mode)
            mode = "panel" if is_terminal(sys.stderr) else "lines" if in_file else "none"
        self._mode = mode
        self._races, self._stack = races, contextlib.ExitStack()
        self._advance: Any = None

    def __enter__(self) -> _Shown:
        if self._mode in ("panel", "bar"):
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            bar = Progress(*columns, console=Console(stderr=True), transient=True)
            task = bar.add_task("runs", total=len(self._races))
            self._stack.enter_context(bar)
            self._advance = lambda text: bar.update(task, advance=1, description=text)
        elif self._mode == "lines":
            self._advance = lambda text: typer.echo(f"zoo: {text}", err=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def done(self, race: Race) -> None:
        """Say that a run has ended."""
        result = race.result
        if self._advance is not None:
            how = "" if result is None else f": {_number(result['fun'])} after {result['nfev']} evaluations"
            self._advance(f"{race.method}, seed {race.seed}{how}")


def _print(found: list[Standing], target: float | None) -> None:
    columns = ["rank", "method", "median", "25 %", "75 %"]
    if target is not None:
        columns += ["reached", "to target"]
    columns += ["evaluations", "CPU ms each"]
    rows = []
    for rank, one in enumerate(found, 1):
        row = [str(rank), one.method, *(_number(one.quantile(share)) for share in (0.5, 0.25, 0.75))]
        if target is not None:
            to_target = f"{one.to_target:,.0f}" if one.reached else "-"
            row += [f"{one.reached}/{len(one.values)}", to_target]
        row += [f"{one.evaluations:,}", _number(one.milliseconds, 3)]
        rows.append(row)
    spare = ("evaluations", "75 %", "25 %")
    print_table(columns, rows, right=[name for name in columns if name != "method"], spare=spare)
    if target is not None:
        remark(f"Target {target:.10g}; to target: evaluations of all runs, for each that reached it.")


def _described(one: Standing, races: list[Race]) -> dict[str, Any]:
    def plain(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    return {
        "method": one.method,
        "values": [plain(value) for value in one.values],
        "median": plain(one.quantile(0.5)),
        "quartiles": [plain(one.quantile(0.25)), plain(one.quantile(0.75))],
        "reached": one.reached,
        "evaluations": one.evaluations,
        "evaluations_to_target": plain(one.to_target),
        "cpu_milliseconds": one.milliseconds,
        "runs": [str(race.path) for race in races if race.method == one.method],
    }


def _number(value: float | None, digits: int = 4) -> str:
    return f"{value:.{digits}g}" if value is not None and math.isfinite(value) else "-"
