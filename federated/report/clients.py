"""Clients in a report: what x is worth to each of them, and what they have done for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from federated.report.curves import amount
from federated.report.material import CLIENTS, Course
from zoo.report import style
from zoo.report.scales import scale_of
from zoo.report.style import Picture, canvas, count_axis, short
from zoo.report.tables import Table

Array = np.ndarray[Any, Any]

MOST_BARS = 40  # clients that are drawn one by one
MOST_ROWS = 24  # clients that are listed one by one
WORST = 10  # of more, the worst ones that are listed


def in_words(course: Course) -> list[tuple[str, str]]:
    """Return what there is to say of all clients together, the worst one and the spread among it."""
    clients, value = course.clients, course.clients.get("value", np.empty(0))
    rows = [("clients", f"{course.config.get('num_clients'):,}")]
    known = np.flatnonzero(np.isfinite(value))
    if len(known):
        shown = value[known]
        rows += [
            ("worst client", str(known[shown.argmax()])),
            ("highest f_i(x)", f"{shown.max():.5g}"),
            ("best client", str(known[shown.argmin()])),
            ("lowest f_i(x)", f"{shown.min():.5g}"),
            ("median f_i(x)", f"{np.median(shown):.5g}"),
            ("deviation", f"{shown.std():.3g}"),
        ]
        if len(known) < len(value):
            rows.append(("without a value", f"{len(value) - len(known):,}"))
    told = {"queries": ("queries", whole), "sent": ("sent", amount), "received": ("received", amount)}
    for name, (word, said) in {**told, "answered": ("rounds", whole)}.items():
        if clients:
            low, high = float(clients[name].min()), float(clients[name].max())
            rows += (
                [(word, said(low))]
                if low == high
                else [(f"{word}, least", said(low)), (f"{word}, most", said(high))]
            )
    return rows


def picture(course: Course) -> Picture | None:
    """Return what x is worth to each client, or, where they are many, to which share of them."""
    value = course.clients.get("value", np.empty(0))
    known = np.flatnonzero(np.isfinite(value))
    if len(known) < 2:
        return None
    scale = scale_of(value[known])
    mean, worst = course.final, int(known[value[known].argmax()])
    heading = "f_i(x) of each client" if len(value) <= MOST_BARS else "f_i(x) over clients"
    with style.styled():
        figure, axes = canvas(height=2.9, top=style.LEGEND)
        if len(value) <= MOST_BARS:
            axes.plot(
                known, scale.shifted(value[known]), "o", color=style.PALETTE[0], ms=4.5, label="a client"
            )
            axes.plot(
                [worst], scale.shifted(value[[worst]]), "o", color=style.PALETTE[1], ms=6, label="the worst"
            )
            axes.set_xlim(-0.6, len(value) - 0.4)
            count_axis(axes.xaxis)
            axes.set_xlabel("client")
            words = "What x is worth to each client"
        else:
            ordered = np.sort(value[known])
            share = 100 * (np.arange(len(ordered)) + 0.5) / len(ordered)
            axes.plot(share, scale.shifted(ordered), color=style.PALETTE[0], lw=1.7, label="clients")
            axes.plot(
                [share[-1]], scale.shifted(ordered[-1:]), "o", color=style.PALETTE[1], label="the worst"
            )
            axes.set_xlim(-1, 101)
            axes.set_xlabel("% of clients, the best ones first")
            words = f"What x is worth to clients, {len(known):,} of them in the order of it"
        if np.isfinite(mean):
            level = float(scale.shifted(np.array([mean]))[0])
            axes.axhline(level, color=style.INK, lw=0.9, ls=":", label="F, the mean by weight")
        scale.apply(axes)
        axes.set_title(heading)
        style.legend(axes, 3)
    lowest, highest = value[known].min(), value[known].max()
    alt = f"f_i(x) of {len(known)} clients: from {short(lowest)} to {short(highest)}."
    return Picture("clients_values", heading, f"{words}; {scale.words}.{_as_of(course)}", alt, figure)


def table(course: Course) -> Table | None:
    """Return a table of clients, the worst ones alone where they are many; its file has all of them."""
    clients = course.clients
    if not clients:
        return None
    count = len(clients["queries"])
    names = [name for name in (*CLIENTS, *course.own_measures) if name in clients]
    order = np.argsort(-np.where(np.isfinite(clients["value"]), clients["value"], np.inf), kind="stable")
    many = count > MOST_ROWS
    listed = order[:WORST] if many else np.arange(count)
    heads = {
        "queries": "Queries",
        "sent": "Bytes sent",
        "received": "Bytes received",
        "answered": "Rounds answered",
        "value": "f_i(x)",
    }
    columns = ["Client", *(heads.get(name, name.replace("_", " ")) for name in names)]
    rows = [
        [str(client), *(cell(name, clients[name][client]) for name in names)] for client in listed.tolist()
    ]
    rules = frozenset({len(rows)})
    rows += summarised([(name, clients[name]) for name in names]) if count > 1 else []
    rest = [[client, *(_plain(name, clients[name][client]) for name in names)] for client in range(count)]
    caption = (
        f"The {WORST} clients that x is worst for, and the least, the median and the most of each column over"
        f" all {count:,}, which clients.csv beside this page has one by one."
        if many
        else "Queries and bytes of the whole run, and what x is worth to each client."
    )
    return Table(
        "clients",
        "Client by client",
        caption + _as_of(course),
        columns,
        rows,
        rest,
        rules if count > 1 else frozenset(),
    )


def summarised(columns: Sequence[tuple[str, Array]]) -> list[list[str]]:
    """Return the last rows of a table of clients: the least, the median and the most of each column."""
    known = [(name, column[np.isfinite(column)]) for name, column in columns]
    return [
        [word, *(cell(name, float(what(column)) if len(column) else np.nan) for name, column in known)]
        for word, what in (("all, least", np.min), ("all, median", np.median), ("all, most", np.max))
    ]


def cell(name: str, value: float) -> str:
    """Return an entry of a table of clients."""
    if not np.isfinite(value):
        return "none"
    if name in ("sent", "received"):
        return amount(value)
    return whole(value) if name in CLIENTS[:-1] else f"{value:.5g}"


def whole(value: float) -> str:
    """Return a count, or the median of some, which may be halfway between two."""
    return f"{value:,.0f}" if float(value).is_integer() or value > 100 else f"{value:,.1f}"


def _plain(name: str, value: float) -> Any:
    return int(value) if name in CLIENTS[:-1] else float(value)


def _as_of(course: Course) -> str:
    return "" if course.has_ended else f" As of round {course.as_of:,}, the newest checkpoint."
