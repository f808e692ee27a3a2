"""A thread that calls back from time to time, while the run is busy elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Refresher:
    """Calls `tick` in a thread of its own until it is stopped.

    Args:
        tick: Returns after how many seconds it wants to be called again, or None for never.
        delay: Seconds before the first call.

    Attributes:
        error: What `tick` raised, after which it is called no more.
    """

    def __init__(self, tick: Callable[[], float | None], delay: float) -> None:
        self.error: Exception | None = None
        self._tick, self._delay = tick, delay
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="zoo-progress", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the call that is under way."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        wait: float | None = self._delay
        try:
            while wait is not None and not self._over.wait(wait):
                wait = self._tick()
        except Exception as error:
            self.error = error
