"""How a run ended: for people on a terminal, else as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from zoo.cli.output import is_terminal, print_facts, remark, say

_MOST = 12  # variables that are shown, and minima


def print_result(result: Any, *, as_json: bool, out: Path | str | None, shown: bool = False) -> None:
    """Print a result, and on standard error what it cost, where there were workers.

    Args:
        result: What `zoo.minimize` returned.
        as_json: Whether to print JSON in any case.
        out: Where the run is kept, or None.
        shown: Whether a panel above says how it went.
    """
    from zoo.execution.ledger import summary
    from zoo.run.directory import dump

    if as_json or not is_terminal():
        if result.account["busy"]:
            typer.echo(f"zoo: {summary(result.account)}", err=True)
        typer.echo(dump(result).decode().rstrip())
        return
    facts = _facts(result)
    if not shown:
        say(f"Ended: {result.message}.", "bold green" if result.success else "bold red")
        facts |= _costs(result) | ({} if out is None else {"kept in": str(out)})
    print_facts(facts)
    if out is None:
        remark("Nothing is kept: with --out runs/NAME, a run can be resumed, looked at and compared.")
    else:
        place = shlex.quote(str(out))
        remark(f"`zoo report {place}` shows how it went; JSON of all this is in {out}/result.json.")


def _facts(result: Any) -> dict[str, str]:
    """Return what was found."""
    value = f"{result.fun:.10g}"
    if "fun_error" in result:
        value += f" ± {result.fun_error:.2g}, the mean of fresh evaluations"
    facts = {"value": value, "at": _point(result.x)}
    if "maxcv" in result:
        facts["constraints"] = "kept" if result.maxcv <= 0 else f"violated, by up to {result.maxcv:.4g}"
    if "front" in result:
        ranges = zip(result.front.fun.min(0), result.front.fun.max(0), strict=True)
        reach = ", ".join(f"{least:.4g} to {most:.4g}" for least, most in ranges)
        facts["front"] = f"{len(result.front.x)} points, objectives {reach}"
    if "minima" in result:
        shown = zip(result.minima.x[:_MOST], result.minima.fun[:_MOST], strict=True)
        lines = [f"{fun:.6g} at {', '.join(_point(x).splitlines())}" for x, fun in shown]
        more = len(result.minima.fun) - len(lines)
        facts["minima"] = "\n".join([*lines, f"and {more} more"] if more else lines)
    return facts


def _costs(result: Any) -> dict[str, str]:
    """Return what it took."""
    from zoo.execution.ledger import summary

    account = result.account
    faults = [f", {result.num_failed} failed" if result.num_failed else ""]
    faults += [f", {account[name]} {name}" for name in ("retries", "quarantined") if account[name]]
    return {
        "evaluations": f"{result.nfev} in {result.seconds:.3g} s{''.join(faults)}",
        "method": result.method,
        "workers": summary(account) if account["busy"] else "",
    }


def _point(x: Any) -> str:
    if isinstance(x, Mapping):
        return "\n".join(f"{name} = {_entry(value)}" for name, value in x.items())
    entries = list(x) if isinstance(x, tuple) else x.tolist()
    shown = ", ".join(map(_entry, entries[:_MOST]))
    return shown if len(entries) <= _MOST else f"{shown}, ... ({len(entries)} variables)"


def _entry(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
