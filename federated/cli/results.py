"""How a run ended: for people on a terminal, else as JSON."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zoo.cli.output import is_terminal, print_facts, remark, say

if TYPE_CHECKING:
    from federated.facade import Federation


def print_result(result: Federation, *, as_json: bool, out: Path | str | None, shown: bool = False) -> None:
    """Print a result, and on standard error what it cost, where there were workers.

    Args:
        result: What `federated.federate` returned.
        as_json: Whether to print JSON in any case.
        out: Where the run is kept, or None.
        shown: Whether a panel above says how it went.
    """
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
        return "not known: not every client could be asked"
    best = f", {result.best:.6g} at best" if result.best < result.value else ""
    return f"{result.value:.6g}{best}"


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
