"""Pages and pictures on the disk: whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.core.errors import RunDirectoryError
from zoo.report.style import Picture
from zoo.report.tables import Table
from zoo.run.checkpoint import write_atomically, writing
from zoo.run.directory import machine

_ADVICE = "What was there before is untouched. Make room, or choose another directory with `out` (--out)."


def write_page(
    folder: Path,
    name: str,
    pictures: Sequence[Picture | Table],
    beside: Path,
    content: Mapping[str, Any],
    template: str | None = None,
) -> list[Path]:
    """Write a page, and the pictures on it as PNG files, too; tables as CSV.

    Args:
        folder: Where to.
        name: Of the page, without its ending.
        pictures: What is on it.
        beside: Where their files go.
        content: What the template needs.
        template: Its name, without its ending, where it is another one than that of the page.

    Returns:
        The page, then the pictures.

    Raises:
        RunDirectoryError: It cannot be written, or its pictures would land elsewhere.
    """
    page = folder / f"{name}.html"
    # Whoever names a folder may name a link; one inside a run that somebody sent is not theirs.
    if beside != folder and beside.is_symlink():
        raise RunDirectoryError(
            f"{beside} is a link: pictures are not written to wherever it leads. Remove it, or choose "
            "another directory with `out` (--out)."
        )
    written, taken = [page], set[str]()
    with writing(page, _ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
        beside.mkdir(exist_ok=True)
    for picture in pictures:
        file = beside / f"{_unused(picture.name, taken)}.{picture.ending}"
        with writing(file, _ADVICE):
            write_atomically(file, picture.content())
        written.append(file)
    text = render(
        f"{template or name}.html", {"version": machine()["versions"].get("gradfree", ""), **content}
    )
    with writing(page, _ADVICE):
        write_atomically(page, text.encode("utf-8", "replace"))
    return written


def render(template: str, content: Mapping[str, Any]) -> str:
    """Return a page; whatever text is in it is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(content)


def _unused(name: str, taken: set[str]) -> str:
    """Return a name that no other picture has, also where letters of both sizes are the same."""
    unused, number = name, 2
    while unused.lower() in taken:
        unused, number = f"{name}_{number}", number + 1
    taken.add(unused.lower())
    return unused
