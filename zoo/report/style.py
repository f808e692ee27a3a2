"""How figures look: one palette, one set of sizes, numbers written the same way everywhere."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.core.validation import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID, ALARM = "#222222", "#6b6b6b", "#e4e4e4", "#b3261e"
# Told apart by people who do not see all colours, after Paul Tol's "bright"; the yellow is darker here.
PALETTE = ("#3b6ea5", "#d1495b", "#228833", "#8a3577", "#3aa6c4", "#a08a1f", "#555555", "#e07b39")
DASHES = ("-", "--", "-.", ":")
COLOURS = "viridis"

WIDTH, HEIGHT, DPI = 4.6, 2.9, 150  # inches; the width of a telephone, where letters then keep their size
TOP, LEGEND = 0.32, 0.56
_LEFT, _RIGHT, _BOTTOM = 0.62, 0.16, 0.5
_MOST = 1200  # points of a line

_RC: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.unicode_minus": True,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "path.simplify_threshold": 0.3,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # names are text, whatever signs they hold
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
}


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure and what is said of it.

    Attributes:
        name: Of its file.
        heading: Above it.
        caption: Below it: what is drawn, and on which scale.
        alt: What it shows, for those who cannot see it.
        figure: The figure itself.
        wide: Whether it is as wide as the page.
    """

    name: str
    heading: str
    caption: str
    alt: str
    figure: Figure
    wide: bool = False

    ending = "png"  # of its file

    @property
    def inches(self) -> float:
        """How wide it is."""
        return float(self.figure.get_figwidth())

    def svg(self) -> str:
        """Return it as an element of a page."""
        buffer = io.StringIO()
        with styled({"svg.hashsalt": self.name}):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        text = buffer.getvalue()
        text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], count=1, flags=re.DOTALL)
        # Pages hold many figures: what is not referred to needs no name that all of them would share.
        used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
        text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
        return re.sub(
            r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
            r'<svg \1 xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            'aria-hidden="true">',
            text,
            count=1,
        )

    def content(self) -> bytes:
        """Return the content of its file."""
        return self.png()

    def png(self) -> bytes:
        """Return it as the content of a PNG file."""
        buffer = io.BytesIO()
        with styled():
            self.figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()


@contextlib.contextmanager
def styled(more: dict[str, Any] | None = None) -> Iterator[None]:
    """Draw in this style within the block, whatever the user's own is."""
    import matplotlib.style

    with matplotlib.style.context(["default", {**_RC, **(more or {})}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the page has other fonts
        yield


def canvas(
    width: float = WIDTH, height: float = HEIGHT, left: float = _LEFT, top: float = TOP
) -> tuple[Figure, Axes]:
    """Return an empty figure, of so many inches, and its axes; use it within `styled`.

    Args:
        width: Of the figure.
        height: The same.
        left: What is left for the numbers beside the axes.
        top: What is left above them; `LEGEND` makes room for a legend.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(
        (left / width, _BOTTOM / height, 1 - (left + _RIGHT) / width, 1 - (top + _BOTTOM) / height)
    )
    return figure, axes


def legend(axes: Axes, columns: int = 4) -> None:
    """Put the legend between the axes and their title, where it hides nothing."""
    handles, _ = axes.get_legend_handles_labels()
    if not handles:
        return
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.98),
        ncols=columns,
        borderaxespad=0.2,
        columnspacing=1.1,
        handletextpad=0.5,
    )
    rows = -(-len(handles) // columns)
    axes.set_title(axes.get_title("left"), pad=7 + 13.5 * rows)


def short(value: float, _: Any = None) -> str:
    """Return a number in a few letters.

    Example:
        >>> [short(value) for value in (0.001, 1e-7, 123456.0, -2.5, float("nan"))]
        ['0.001', '1e-7', '1.23e5', '-2.5', 'nan']
    """
    return re.sub(r"e([+-])0*(\d)", lambda found: f"e{found[1].strip('+')}{found[2]}", f"{value:.3g}")


def label(text: object, most: int = 28) -> str:
    """Return a name as it may stand in a figure: on one line, printable, of so many letters at most.

    Example:
        >>> label("learning" + chr(10) + "rate")
        'learning rate'
    """
    line = printable(text)
    return line if len(line) <= most else line[: most - 1] + "…"


def thinned(x: np.ndarray[Any, Any], *lines: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
    """Return x and lines over it with fewer points, the lowest and highest of every stretch among them."""
    if len(x) <= _MOST:
        return (x, *lines)
    edges = np.linspace(0, len(x), _MOST // 2 + 1).astype(int)
    kept = {0, len(x) - 1}
    for line in lines:
        low, high = np.where(np.isnan(line), np.inf, line), np.where(np.isnan(line), -np.inf, line)
        for start, stop in itertools.pairwise(edges.tolist()):
            kept |= {start + int(low[start:stop].argmin()), start + int(high[start:stop].argmax())}
    index = np.array(sorted(kept))
    return (x[index], *(line[index] for line in lines))


def count_axis(axis: Any) -> None:
    """Write large counts on an axis as 20k or 1M."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=True))
    axis.set_major_formatter(EngFormatter(sep=""))


def in_words(seconds: float) -> tuple[float, str]:
    """Return the unit of time to draw a duration in, as (seconds, name).

    Example:
        >>> in_words(7000.0)
        (60.0, 'minutes')
    """
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return size, name
    return 1.0, "seconds"


def duration(seconds: float) -> str:
    """Return a duration to read.

    Example:
        >>> duration(7325.0), duration(12.34)
        ('2 h 2 min', '12.3 s')
    """
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
