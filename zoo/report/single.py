"""The report of one run."""

from __future__ import annotations

from pathlib import Path

from zoo.report import faults, figures, points
from zoo.report.about import about
from zoo.report.style import Picture
from zoo.report.writing import write_page
from zoo.run.kinds import kind_of
from zoo.run.reading import Recording, read_recording


def write_report(path: str | Path, out: str | Path | None = None) -> list[Path]:
    """Write the report of a run: a page, `report.html`, that holds all it needs, and PNGs in `report/`.

    The run may be under way. Nothing of it is changed, and nothing but these files is written.

    Args:
        path: The run's directory.
        out: Where to put them; the run's directory by default.

    Returns:
        The page, then the pictures.

    Raises:
        RunDirectoryError: There is no run, it is damaged or of a newer version, or the report cannot be
            written.

    Example:
        >>> import tempfile, zoo
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = f"{folder}/run"
        ...     result = zoo.minimize(lambda x: (x**2).sum(), [1.0, 2.0], budget=60, rng=0, out=out)
        ...     page, *pictures = write_report(out)
        ...     print(page.name, pictures[0].name)
        report.html value_evaluations.png
    """
    path = Path(path)
    return draw_report(read_recording(path), path if out is None else Path(out))


def draw_report(recording: Recording, folder: Path) -> list[Path]:
    """Write the report of a run that was read already."""
    kind = kind_of(recording.config)
    said = about(recording) if kind is None else kind.about(recording)
    sections = _sections(recording) if kind is None else kind.sections(recording)
    pictures = [picture for _, shown, _ in sections for picture in shown]
    content = {"title": said.title, "about": said, "sections": sections}
    return write_page(folder, "report", pictures, folder / "report", content)


def troubles(recording: Recording) -> list[Picture]:
    """Return what went wrong, and how busy workers were, in pictures."""
    found = [faults.failures(recording), faults.time_line(recording), faults.workers(recording)]
    return [picture for picture in found if picture is not None]


def _sections(recording: Recording) -> list[tuple[str, list[Picture], str]]:
    progress: list[Picture] = []
    search: list[Picture] = []
    for picture in figures.figures(recording):
        (progress if picture.name.startswith(("value_", "violation")) else search).append(picture)
    found = [points.front(recording), points.minima(recording), points.parallel_coordinates(recording)]
    return [
        ("How it went", progress, ""),
        ("What was found", [picture for picture in found if picture is not None], ""),
        ("How the method searched", search, ""),
        ("Faults and workers", troubles(recording), ""),
    ]
