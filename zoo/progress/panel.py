"""The panel as rich draws it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from textwrap import wrap
from typing import NamedTuple

from zoo.core.validation import printable
from zoo.progress.drawing import ConsoleOptions, Panel, Text, cell_len
from zoo.progress.tally import Tally
from zoo.progress.wording import abridged, curve, duration, number, rate

_LABEL, _SHORT_LABEL = 13, 7  # columns of the labels
_NARROW = 60  # columns of a panel below which the short ones are used
_WIDEST = 100  # a panel: on a wider terminal eyes would have far to go
_CURVE, _BAR = 32, 30  # columns at most
_REASON = 4  # lines of why it ended, at most
_GAP, _SHORT_GAP = 3, 2  # columns between parts of a row
_COLOURS = {"failed": "red", "interrupted": "yellow"}

Part = tuple[str, str]  # a text and its style


class Row(NamedTuple):
    """One line of the panel.

    Attributes:
        name: Its label.
        short: Its label where there is little room.
        rank: Rows of high ranks are left out first where the terminal is low.
        parts: What it says, the most important first; what does not fit is left out.
    """

    name: str
    short: str
    rank: int
    parts: Sequence[Part]


def drawn(tally: Tally, now: float, options: ConsoleOptions, height: int | None = None) -> Panel:
    """Return the panel.

    Args:
        tally: What to draw.
        now: The time.
        options: How wide it may be, and whether there is more than ASCII.
        height: How many lines there may be, those of the border among them.
    """

    def rows_of(room: int) -> list[Row]:
        return _ended(tally, now, room) if tally.outcome else _running(tally, now, room)

    return framed(tally, _subject(tally), rows_of, options, height)


def framed(
    tally: Tally,
    subject: Sequence[str],
    rows_of: Callable[[int], list[Row]],
    options: ConsoleOptions,
    height: int | None = None,
) -> Panel:
    """Return a panel of rows.

    Args:
        tally: The run, which says where it is kept and how it ended.
        subject: What stands in the title in front of that.
        rows_of: Returns the rows for so many columns behind the labels.
        options: How wide it may be, and whether there is more than ASCII.
        height: How many lines there may be, those of the border among them.
    """
    width = min(options.max_width, _WIDEST)
    is_narrow = width < _NARROW
    label = _SHORT_LABEL if is_narrow else _LABEL
    room = width - 4 - label
    rows = rows_of(room)
    if options.ascii_only:
        rows = [row for row in rows if row.short != "past"]
    if height is not None:
        while len(rows) > max(1, height - 2):
            rows.remove(max(rows, key=lambda row: row.rank))
    lines = [_line(row, label, room, is_narrow) for row in rows]
    title, style = _title(tally, subject, width - 6)
    return Panel(
        Text("\n").join(lines),
        title=title,
        title_align="left",
        border_style=style,
        width=width,
        padding=(0, 1),
    )


def _subject(tally: Tally) -> list[str]:
    if tally.dim is None:
        return [tally.method]
    variables = tally.dim if tally.space is None else len(tally.space)
    return [tally.method, f"{variables:,} variable{'s' * (variables != 1)}"]


def _title(tally: Tally, subject: Sequence[str], room: int) -> tuple[Text, str]:
    title, style = Text().append(printable(subject[0]), "bold"), "cyan"
    if tally.outcome is not None:
        style = _COLOURS.get(tally.outcome.status, "green")
    for part in subject[1:]:
        title.append(f" · {printable(part)}", "default")
    if tally.path is not None:
        path = printable(tally.path)
        left = room - title.cell_len - 3
        if left >= 8:
            shown = path if cell_len(path) <= left else "…" + path[1 - left :]
            title.append(f" · {shown}", "default")
    title.truncate(room, overflow="ellipsis")
    return title, style


def _running(tally: Tally, now: float, room: int) -> list[Row]:
    size, others = tally.diagnostics()
    details = [(f"{name} {value}", "") for name, value in others]
    method = [Row("method", "method", 5, details)] if details else []
    if size is not None or not tally.metrics:
        method = [Row("step size", "size", 5, [(size or "none yet", "bold" if size else "dim"), *details])]
    return [
        Row("best", "best", 0, _best(tally, now)),
        Row("recommended", "x", 4, [(_point(tally, room), "")]),
        Row("evaluations", "evals", 1, count_of(tally, room)),
        Row("time", "time", 2, _time(tally, now)),
        *method,
        Row("workers", "work", 3, workers_of(tally)),
        Row("history", "past", 6, past_of(tally, now, room)),
    ]


def _ended(tally: Tally, now: float, room: int) -> list[Row]:
    rows = [
        Row("best", "best", 0, _best(tally, None)),
        Row("at", "x", 3, [(_point(tally, room), "")]),
        Row("evaluations", "evals", 2, spent_of(tally, now)),
    ]
    if tally.troubles():
        rows.append(Row("workers", "work", 4, workers_of(tally)))
    rows += [Row("history", "past", 5, past_of(tally, now, room)), *reason_of(tally, room)]
    return [row for row in rows if row.parts]


def spent_of(tally: Tally, now: float) -> list[Part]:
    """Return what was counted in all, in which time."""
    assert tally.outcome is not None
    seconds = tally.outcome.seconds
    spent = [(f"{tally.count:,}", "bold")]
    spent.append((f"in {duration(seconds)}" if seconds >= 1 else "in less than 1 s", ""))
    pace = tally.rate(now)
    if pace is not None and seconds >= 1:
        spent.append((rate(pace), "dim"))
    return spent


def reason_of(tally: Tally, room: int) -> list[Row]:
    """Return why it ended, in some rows."""
    assert tally.outcome is not None
    reason = wrap(tally.outcome.reason, room, max_lines=_REASON, placeholder=" …") or [""]
    style = _COLOURS.get(tally.outcome.status, "")
    return [
        Row("" if i else "ended", "" if i else "ended", 1, [(part, style)]) for i, part in enumerate(reason)
    ]


def _best(tally: Tally, now: float | None) -> list[Part]:
    if not tally.has_value:
        return [("no value yet" if now is not None else "no evaluation had a value", "yellow")]
    parts = [(number(tally.best, 7), "bold green")]
    if tally.error is not None and isfinite(tally.error):
        parts.append((f"± {number(tally.error, 2)}", "green"))
    if tally.violation > 0:
        parts.append((f"violates constraints by {number(tally.violation, 3)}", "yellow"))
    if tally.front is not None:
        parts.append((f"{tally.front:,} best compromises", ""))
    if tally.noise:
        parts.append(("a lucky value, under noise" if tally.error is None else "mean of fresh values", "dim"))
    if tally.found is not None and tally.error is None:
        parts.append((f"found at {tally.found:,}", ""))
        if now is not None:
            ago = now - tally.found_at
            parts.append((f"{duration(ago)} ago" if ago >= 1 else "just now", "dim"))
    elif now is not None:
        parts.append(("found earlier", "dim"))
    if tally.target is not None:
        parts.append((f"target {number(tally.target, 4)}", "dim"))
    return parts


def _point(tally: Tally, room: int) -> str:
    words = tally.recommended
    count = tally.dim if tally.space is None else len(tally.space)
    return abridged(words, count or len(words), room) if words else "nothing yet"


def count_of(tally: Tally, room: int) -> list[Part]:
    """Return how much of the budget was used."""
    made = f"{tally.count:,}"
    parts: list[Part] = [(made, "bold")]
    if tally.budget is not None:
        share = min(1.0, tally.count / tally.budget)
        of, percent = f"of {tally.budget:,}", f"{100 * share:.0f} %"
        width = min(_BAR, room - len(made) - len(of) - len(percent) - 1 - 2 * _GAP)
        parts = [(f"{made} {of}", "bold"), (percent, "")]
        if width >= 8:
            full = int(share * width)
            bar = [("━" * full, "cyan"), ("─" * (width - full), "dim")]
            parts = [*(part for part in bar if part[0]), *parts]
    return parts


def _time(tally: Tally, now: float) -> list[Part]:
    parts = [(duration(tally.elapsed(now)), "bold")]
    left, pace = tally.left(now), tally.rate(now)
    if left is not None:
        parts.append((f"at most {duration(left)} left", ""))
    if (there := tally.to_target(now)) is not None:
        parts.append((f"target in about {duration(there)}", ""))
    if pace is not None:
        parts.append((rate(pace), ""))
    pending = f" + {tally.pending:,} evaluation{'s' * (tally.pending != 1)}" if tally.pending else ""
    parts.append((f"step {tally.steps:,}{pending}", "dim"))
    return parts


def workers_of(tally: Tally) -> list[Part]:
    """Return who evaluates, and what went wrong."""
    who = "this process"
    if tally.num_workers is not None:
        kind = {"Processes": "process", "Ray": "Ray worker"}.get(tally.executor, "worker")
        plural = "" if tally.num_workers == 1 else "es" if kind == "process" else "s"
        who = f"{tally.num_workers:,} {kind}{plural}"
    return [(who, ""), *((f"{times:,} {name}", "yellow") for name, times in tally.troubles())]


def past_of(tally: Tally, now: float, room: int) -> list[Part]:
    """Return the best values at evenly spaced times as a curve."""
    values = tally.past(now, min(_CURVE, room))
    known = [value for value in values if value is not None]
    text, logarithmic = curve(values)
    if len(set(known)) < 2:
        words = f"{number(known[0], 3)} so far" if known else "nothing yet"
        return [] if tally.outcome else [(words, "dim")]
    ends = f"{number(known[0], 3)} to {number(known[-1], 3)}"
    return [(text, "cyan"), (f"{ends}{' (log)' if logarithmic else ''}", "dim")]


def _line(row: Row, width: int, room: int, is_narrow: bool) -> Text:
    name = row.short if is_narrow else row.name
    line = Text(no_wrap=True, overflow="ellipsis").append(f"{name:<{width}}", "dim")
    used = 0
    for text, style in row.parts:
        # The empty part of a bar follows its full part at once.
        text = printable(text)
        gap = 0 if not used or text.startswith("─") else _SHORT_GAP if is_narrow else _GAP
        if used and used + gap + cell_len(text) > room:
            continue
        line.append(" " * gap).append(text, style or "default")
        used += gap + cell_len(text)
    line.truncate(width + room, overflow="ellipsis")
    return line
