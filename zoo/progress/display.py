"""What every display of a run is."""

from __future__ import annotations

from typing import Protocol


class Display(Protocol):
    """Shows a run; all of it is called in the thread of the run."""

    def begin(self) -> None:
        """Show that it begins."""
        ...

    def look(self) -> None:
        """Be told, some times a second at most, that something has happened."""
        ...

    def end(self) -> None:
        """Show how it ended, if the tally has an outcome; else go away."""
        ...
