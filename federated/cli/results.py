"""How a run ended: for people on a terminal, else as JSON."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zoo.cli.output import is_terminal, print_facts, print_table, remark, say

if TYPE_CHECKING:
    from federated.contest import Comparison
    from federated.facade import Federation


def print_result(
    result: Federation | Comparison, *, as_json: bool, out: Path | str | None, shown: bool = False
) -> None:
    """Print a result, and on standard error what it cost, where there were workers.

    Args:
        result: What `federated.federate` returned, or a contest of several methods.
        as_json: Whether to print JSON in any case.
        out: Where the run is kept, or None.
        shown: Whether a panel above says how it went.

    Raises:
        typer.Exit: A run came to nothing, as where no client had a value; the status is 3.
    """
    from federated.contest import Comparison

    if isinstance(result, Comparison):
        print_comparison(result, as_json=as_json, out=out)
        failed = [run.race.name for one in result.standings for run in one.runs if not run.success]
    else:
        _print_federation(result, as_json=as_json, out=out, shown=shown)
        failed = [] if result.success else [result.message]
    if failed:
        typer.echo(f"zoo: without success: {'; '.join(failed)}", err=True)
        raise typer.Exit(3)


def _print_federation(result: Federation, *, as_json: bool, out: Path | str | None, shown: bool) -> None:
    from zoo.execution.ledger import summary
    from zoo.run.directory import dump

    if as_json or not is_terminal():
        if result.account["busy"]:
            typer.echo(f"zoo: {_in_queries(summary(result.account))}", err=True)
        typer.echo(dump(entries(result)).decode().rstrip())
        return
    facts = {"F": value_of(result), "clients": _at_clients(result)}
    if not shown:
        say(f"Ended: {result.message}.", "bold green" if result.success else "bold red")
        facts |= costs_of(result) | ({} if out is None else {"kept in": str(out)})
    print_facts(facts)
    if out is None:
        remark("Nothing is kept: with --out runs/NAME, a run can be resumed, looked at and compared.")
    else:
        place = shlex.quote(str(out))
        remark(f"`zoo report {place}` shows how it went; `federated.resume({str(out)!r}).x` is x in Python.")


def print_comparison(result: Comparison, *, as_json: bool, out: Path | str | None) -> None:
    """Print a line for each method, the one with the least median of F first.

    Args:
        result: What came of all runs.
        as_json: Whether to print JSON in any case.
        out: Where the runs are kept, or None.
    """
    from zoo.execution.ledger import size
    from zoo.run.directory import dump

    if as_json or not is_terminal():
        typer.echo(dump(result.entries).decode().rstrip())
        return
    several = len(result.seeds) > 1
    value = "median F" if several else "F"
    columns = [
        "method",
        value,
        *(["best"] if several else []),
        "rounds",
        "queries",
        "up",
        "down",
        "s",
        "CPU s",
    ]
    rows = []
    for one in result.standings:
        numbers = [one.median("value"), *([one.best] if several else [])]
        rows.append(
            [
                one.entrant.label,
                *(_number(number, 6) for number in numbers),
                *(f"{one.median(name):,.0f}" for name in ("rounds", "queries")),
                *(size(round(one.median(name))) for name in ("up", "down")),
                *(_number(one.median(name), 3) for name in ("seconds", "cpu")),
            ]
        )
    print_table(columns, rows, right=columns[1:], spare=("CPU s", "s", "rounds"))
    if several:
        remark(f"Medians of the runs with {len(result.seeds)} seeds; best is the least F at the end of any.")
    if out is None:
        remark("Nothing is kept: with --out runs/NAME, runs can be resumed, looked at and compared.")
    else:
        remark(f"{result.page} shows all of them; `zoo report` one, such as {_first(result)}.")


def entries(result: Federation) -> dict[str, Any]:
    """Return what JSON says of a result."""
    return {
        "value": result.value,
        "best": result.best,
        "rounds": result.rounds,
        "queries": result.queries,
        "hidden": result.hidden,
        "up": result.up,
        "down": result.down,
        "clock": result.clock,
        "said": said_by(result),
        "faults": dict(result.faults),
        "num_failed": result.num_failed,
        "dim": len(result.x),
        "clients": {name: column.tolist() for name, column in result.clients.items()},
        "success": result.success,
        "message": result.message,
        "account": result.account,
        "seconds": result.seconds,
    }


def value_of(result: Federation) -> str:
    """Return what x is worth, in words."""
    if not math.isfinite(result.value):
        return "not known: no client had a value"
    known, count = said_by(result), len(result.clients["value"])
    over = f", over the {known:,} of {count:,} clients that had a value" if known < count else ""
    best = f", {result.best:.6g} at best" if result.best < result.value else ""
    return f"{result.value:.6g}{best}{over}"


def said_by(result: Federation) -> int:
    """Return how many clients have said what x is worth to them."""
    return sum(map(math.isfinite, result.clients["value"].tolist()))


def costs_of(result: Federation) -> dict[str, str]:
    """Return what it took."""
    from zoo.execution.ledger import size, summary

    account = result.account
    hidden = f", {result.hidden:,} of them hidden" if result.hidden else ""
    failed = f", {result.num_failed:,} failed" if result.num_failed else ""
    faults = [f"{times:,} {name}" for name, times in result.faults.items() if times]
    faults += [f"{account[name]} {name}" for name in ("retries", "quarantined") if account[name]]
    return {
        "rounds": f"{result.rounds:,} in {result.seconds:.3g} s",
        "queries": f"{result.queries:,}{hidden}{failed}",
        "bytes": f"{size(result.up)} up, {size(result.down)} down",
        "clock": f"{result.clock:.4g} s of the network" if result.clock else "",
        "faults": ", ".join(faults),
        "workers": _in_queries(summary(account)) if account["busy"] else "",
    }


def _at_clients(result: Federation) -> str:
    """Return how f_i(x) differ."""
    values = [value for value in result.clients["value"].tolist() if math.isfinite(value)]
    if not values:
        return ""
    many = f"{len(result.clients['value']):,}"
    return f"{many}, f_i from {min(values):.4g} to {max(values):.4g}"


def _in_queries(summary: str) -> str:
    return summary.replace(" evaluations,", " queries,", 1)


def _first(result: Comparison) -> str:
    return shlex.quote(str(result.standings[0].runs[0].race.path))


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}g}" if math.isfinite(value) else "-"
