"""Swarms of two variables on the contour of what they minimise: recorded, drawn and animated."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.core.device import to_numpy
from zoo.core.objective import as_objective
from zoo.core.rng import Key
from zoo.core.validation import check_count
from zoo.report.style import DPI, FAINT, INK, PALETTE, canvas, short, styled
from zoo.run.watching import Beginning, Watcher

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Matrix = np.ndarray[Any, Any]

CONTOUR = "Blues"
_LEVELS = 18
_RESOLUTION = 181  # points of the contour along an axis
_FADING = 40  # steps of the path that an animation shows


class SwarmFilm(Watcher):
    """Records where the particles of a run are at every step, and where they agree to go.

    Give it as `callback`, or call `record` in a loop of your own. It takes any method with two variables: the
    particles are the points that it asks for, the consensus point is what its `consensus(state)` returns, if
    it has that, or what its state calls `anchor`, or else what it recommends.

    Attributes:
        particles: Points asked for, one array of shape (n, 2) for each state; where none are, those before.
        consensus: Consensus points, shape (2,), one for each state. That of entry k + 1 is made of the values
            of the particles of entry k.

    Example:
        >>> import zoo
        >>> from zoo.problems import canyon
        >>> film = SwarmFilm()
        >>> result = zoo.minimize(canyon, [8.0, 8.0], method="ch", budget=500, rng=0, callback=film)
        >>> len(film.particles), film.particles[0].shape
        (11, (50, 2))
    """

    def __init__(self) -> None:
        self.particles: list[Matrix] = []
        self.consensus: list[Matrix] = []
        self._method: Any = None

    def record(self, method: Any, state: Any) -> None:
        """Take down a state of a method.

        Raises:
            ValueError: The method has another number of variables than two.
        """
        candidates = method.ask(state)
        if candidates.dim != 2:
            raise ValueError(f"`state` must be one of two variables, got {candidates.dim}.")
        if hasattr(method, "consensus"):
            point = method.consensus(state)
        else:
            anchor = getattr(getattr(state, "swarm", state), "anchor", None)
            point = method.recommend(state) if anchor is None else anchor[0]
        asked = len(candidates) or not self.particles
        self.particles.append(_plain(candidates.rows(0, len(candidates))) if asked else self.particles[-1])
        self.consensus.append(_plain(point))

    def begin(self, run: Beginning) -> None:
        """Take down where the run begins."""
        self._method = getattr(run.job, "optimizer")  # noqa: B009 - of searches alone
        self.record(self._method, run.state.optimizer)

    def step(self, state: Any, metrics: Mapping[str, Any]) -> None:
        """Take down where it is now."""
        self.record(self._method, state.optimizer)

    def box(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return a box that holds nearly all particles and all consensus points."""
        particles, path = np.concatenate(self.particles), np.array(self.consensus)
        low = np.minimum(np.quantile(particles, 0.02, axis=0), path.min(0))
        high = np.maximum(np.quantile(particles, 0.98, axis=0), path.max(0))
        margin = 0.08 * np.maximum(high - low, 1e-3 * np.abs(high).max() + 1e-12)
        (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
        return (left, right), (bottom, top)


def draw_contour(
    axes: Axes, fun: Callable[..., Any], box: Sequence[tuple[float, float]], *, vectorized: bool = False
) -> None:
    """Fill axes with the contour of a function of two variables.

    Levels are quantiles of the values in the box, so that a narrow valley shows as well as the hills around.

    Args:
        axes: To draw in.
        fun: As `zoo.minimize` takes it.
        box: Two pairs: from where to where each variable goes.
        vectorized: Whether `fun` takes rows of points.
    """
    sides = [np.linspace(low, high, _RESOLUTION) for low, high in box]
    grid = np.stack(np.meshgrid(*sides), -1)
    objective = as_objective(fun, vectorized=vectorized)
    values = np.asarray(objective(grid.reshape(-1, 2), key=Key(0)), np.float64).reshape(grid.shape[:2])
    finite = values[np.isfinite(values)]
    levels = np.unique(np.quantile(finite, np.linspace(0, 1, _LEVELS + 1))) if len(finite) else finite
    if len(levels) > 2:
        # By rank: every band between two levels covers as much of the box as any other.
        ranks = np.interp(values, levels, np.linspace(0, 1, len(levels)))
        bands = np.linspace(0, 1, len(levels))
        axes.contourf(*sides, ranks, bands, cmap=CONTOUR, vmin=-0.15, vmax=1.6)
        axes.contour(*sides, ranks, bands[1:-1], colors="white", linewidths=0.4, alpha=0.55)
    axes.set(xlim=box[0], ylim=box[1], aspect="equal")
    axes.grid(visible=False)


def draw_swarm(
    fun: Callable[..., Any],
    particles: Matrix,
    path: Matrix,
    *,
    box: Sequence[tuple[float, float]] | None = None,
    minimum: Sequence[float] | None = None,
    vectorized: bool = False,
    axes: Axes | None = None,
    title: str = "",
) -> Figure:
    """Draw a swarm on the contour of what it minimises, with its consensus point and where that came from.

    Args:
        fun: As `zoo.minimize` takes it.
        particles: Shape (n, 2).
        path: Consensus points up to the present one, shape (k, 2).
        box: What is shown, two pairs; None for what holds all of it.
        minimum: Where a cross is drawn, if anywhere.
        vectorized: Whether `fun` takes rows of points.
        axes: To draw in; None for a figure of its own in the style of reports.
        title: Above the axes.

    Example:
        >>> from zoo.problems import canyon
        >>> particles = np.array([[7.0, 7.5], [8.0, 8.0], [7.5, 8.5]])
        >>> figure = draw_swarm(canyon, particles, particles.mean(0)[None], minimum=(0, 0), vectorized=True)
        >>> figure.axes[0].get_legend() is not None
        True
    """
    particles, path = _rows("particles", particles), _rows("path", path)
    if box is None:
        film = SwarmFilm()
        film.particles, film.consensus = [particles], list(path)
        box = film.box()
    if axes is not None:
        draw_contour(axes, fun, box, vectorized=vectorized)
        _Moving(axes, minimum).show(particles, path, title)
        whole: Figure = axes.get_figure(root=True)  # type: ignore[assignment]
        return whole
    with styled():
        figure, axes = _canvas(box)
        draw_contour(axes, fun, box, vectorized=vectorized)
        _Moving(axes, minimum).show(particles, path, title)
        _legend(axes)
    return figure


def animate_swarm(
    fun: Callable[..., Any],
    film: SwarmFilm,
    path: str | Path,
    *,
    box: Sequence[tuple[float, float]] | None = None,
    minimum: Sequence[float] | None = None,
    vectorized: bool = False,
    frames: int = 100,
    fps: int = 12,
    dpi: int = DPI * 2 // 3,
) -> Path:
    """Write a film of a swarm: a GIF, or a page with buttons to stop it and to go step by step.

    Args:
        fun: As `zoo.minimize` takes it.
        film: What was recorded.
        path: Where to; it ends in .gif or .html.
        box: What is shown, two pairs; None for what holds nearly all of it.
        minimum: Where a cross is drawn, if anywhere.
        vectorized: Whether `fun` takes rows of points.
        frames: At most so many, evenly spread over the steps.
        fps: Frames a second.
        dpi: Dots per inch.

    Returns:
        The path.

    Raises:
        ValueError: The path ends otherwise, the film is empty, or a number is out of its range.
    """
    path = Path(path)
    check_count("frames", frames)
    check_count("fps", fps)
    check_count("dpi", dpi)
    if path.suffix not in (".gif", ".html"):
        raise ValueError(f"`path` must end in .gif or .html, got {str(path)!r}.")
    if len(film.consensus) < 2:
        raise ValueError("`film` must hold two states at least: give it as `callback` to a run, say.")
    box = film.box() if box is None else box
    last = len(film.consensus) - 1
    steps = np.unique(np.linspace(0, last, min(frames, last + 1)).round().astype(int)).tolist()
    heights = as_objective(fun, vectorized=vectorized)(np.array(film.consensus), key=Key(0))
    with styled({"animation.embed_limit": 100.0}):
        figure, axes = _canvas(box)
        draw_contour(axes, fun, box, vectorized=vectorized)
        moving = _Moving(axes, minimum)

        def show(step: int) -> tuple[()]:
            trail = np.array(film.consensus[max(0, step - _FADING) : step + 1])
            value = short(float(np.asarray(heights)[step]))
            moving.show(film.particles[step], trail, f"step {step}, value {value} at the consensus point")
            return ()

        show(0)
        _legend(axes)
        if path.suffix == ".gif":
            _write_gif(figure, show, steps, path, fps, dpi)
        else:
            from matplotlib.animation import FuncAnimation, HTMLWriter

            made = FuncAnimation(figure, show, frames=steps)
            made.save(str(path), writer=HTMLWriter(fps=fps, embed_frames=True), dpi=dpi)
    return path


def _write_gif(
    figure: Figure, show: Callable[[int], Any], steps: Sequence[int], path: Path, fps: int, dpi: int
) -> None:
    """Write pictures that share one palette, in which there is room for colours that few dots have."""
    from PIL import Image

    pictures = []
    for step in steps:
        show(step)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
        pictures.append(Image.open(buffer).convert("RGB"))
    palette = pictures[0].quantize(128, Image.Quantize.MAXCOVERAGE)
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    colours[colours.min(1) > 244] = 255  # what is nearly white is the paper
    palette.putpalette(colours.ravel().tolist())
    first, *others = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    pauses = [1000 // fps] * len(others) + [2000]
    first.save(path, save_all=True, append_images=others, duration=pauses, loop=0)


class _Moving:
    """What changes from frame to frame."""

    def __init__(self, axes: Axes, minimum: Sequence[float] | None) -> None:
        self.axes = axes
        self.particles = axes.plot(
            [], [], "o", color=PALETTE[1], ms=3.6, mew=0.4, mec="white", alpha=0.9, label="particles"
        )[0]
        self.point = axes.plot(
            [], [], "*", color="#f2c14e", ms=13, mew=0.9, mec=INK, zorder=5, label="consensus point"
        )[0]
        self.path = axes.plot([], [], "-", color=INK, lw=1.1, alpha=0.85, label="its path")[0]
        if minimum is not None:
            axes.plot(*[[each] for each in minimum], "x", color=INK, ms=7, mew=1.6, label="minimum")

    def show(self, particles: Matrix, path: Matrix, title: str) -> None:
        self.particles.set_data(*particles.T)
        self.path.set_data(*path.T)
        self.point.set_data(*path[-1:].T)
        if title:
            self.axes.set_title(title)


def _canvas(box: Sequence[tuple[float, float]]) -> tuple[Figure, Axes]:
    """Return a figure whose axes have the shape of a box, within limits, with room for a legend below."""
    (left, right), (bottom, top) = box
    height = min(max((top - bottom) / (right - left), 0.5), 1.4) * 3.8
    figure, axes = canvas(4.6, height + 1.25)
    axes.set_position((0.12, 0.8 / (height + 1.25), 0.84, height / (height + 1.25)))
    return figure, axes


def _legend(axes: Axes) -> None:
    """Put the legend below the axes, where it hides nothing."""
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.09),
        ncols=4,
        handletextpad=0.3,
        columnspacing=1.0,
    )
    axes.tick_params(color=FAINT)


def _plain(points: Any) -> Matrix:
    return np.array(to_numpy(points), np.float64)


def _rows(name: str, points: Any) -> Matrix:
    rows = _plain(points)
    if rows.ndim != 2 or rows.shape[1] != 2 or not len(rows) or not math.isfinite(rows.sum()):
        raise ValueError(f"`{name}` must be finite points of shape (n, 2), got shape {rows.shape}.")
    return rows
