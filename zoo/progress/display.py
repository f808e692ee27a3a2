"""What every display of a run is."""

from __future__ import annotations

import abc


class Display(abc.ABC):
    """Shows a run; all of it is called in the thread of the run."""

    @abc.abstractmethod
    def begin(self) -> None:
        """Show that it begins."""

    @abc.abstractmethod
    def look(self) -> None:
        """Be told, some times a second at most, that something has happened."""

    @abc.abstractmethod
    def end(self) -> None:
        """Show how it ended, if the tally has an outcome; else go away."""
