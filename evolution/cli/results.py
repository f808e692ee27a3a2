"""How a run ended: for people on a terminal, else as JSON."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zoo.cli.output import is_terminal, print_facts, remark, say

if TYPE_CHECKING:
    from evolution.facade import Evolution


def print_result(result: Evolution, *, as_json: bool, out: Path | str | None, shown: bool = False) -> None:
    """Print a result, and on standard error what it cost, where there were workers.

    Args:
        result: What `evolution.evolve` returned.
        as_json: Whether to print JSON in any case.
        out: Where the run is kept, or None.
        shown: Whether a panel above says how it went.
    """
    from zoo.execution.ledger import summary
    from zoo.run.directory import dump

    if as_json or not is_terminal():
        if result.account["busy"]:
            typer.echo(f"zoo: {_in_episodes(summary(result.account))}", err=True)
        typer.echo(dump(entries(result)).decode().rstrip())
        return
    facts = {"score": score_of(result)}
    if not shown:
        say(f"Ended: {result.message}.", "bold green" if result.success else "bold red")
        facts |= _costs(result) | ({} if out is None else {"kept in": str(out)})
    print_facts(facts)
    if out is None:
        remark("Nothing is kept: with --out runs/NAME, a run can be resumed, looked at and played.")
    else:
        place = shlex.quote(str(out))
        remark(f"`zoo play {place}` shows the champion, `zoo report {place}` how it came to be.")


def entries(result: Evolution) -> dict[str, Any]:
    """Return what JSON says of a result."""
    return {
        "score": result.score,
        "score_error": result.score_error,
        "best": result.best,
        "generations": result.generations,
        "episodes": result.episodes,
        "frames": result.frames,
        "test_episodes": result.test_episodes,
        "num_failed": result.num_failed,
        "parameters": len(result.parameters),
        "success": result.success,
        "message": result.message,
        "account": result.account,
        "seconds": result.seconds,
    }


def score_of(result: Evolution) -> str:
    """Return what the champion is worth, in words."""
    if math.isfinite(result.score):
        error = f" ± {result.score_error:.2g}" if math.isfinite(result.score_error) else ""
        times = result.test_episodes
        return f"{result.score:.6g}{error}, the mean of {times} fresh episode{'s' * (times != 1)}"
    if math.isfinite(result.best):
        return f"{result.best:.6g} in the search, the best of many: no fresh episodes"
    return "none: no episode had a return"


def _costs(result: Evolution) -> dict[str, str]:
    """Return what it took."""
    from zoo.execution.ledger import summary

    account = result.account
    faults = [f", {result.num_failed} failed" if result.num_failed else ""]
    faults += [f", {account[name]} {name}" for name in ("retries", "quarantined") if account[name]]
    return {
        "episodes": f"{result.episodes:,} in {result.generations:,} generations{''.join(faults)}",
        "frames": f"{result.frames:,} in {result.seconds:.3g} s",
        "workers": _in_episodes(summary(account)) if account["busy"] else "",
    }


def _in_episodes(summary: str) -> str:
    return summary.replace(" evaluations,", " episodes,", 1)
