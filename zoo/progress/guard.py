"""Who tidies up a terminal when its program is ended without a chance to do so."""

from __future__ import annotations

import contextlib
import subprocess

# The last line says whether there is something to tidy up; there are no more once the program is gone.
_SCRIPT = 'while read -r line; do last=$line; done; test "$last" = yes && printf %s "$0"'


class Guard:
    r"""A small process that outlives this one by a moment, whatever ends it: Ctrl-\, a crash or a kill.

    Args:
        descriptor: The terminal.
        text: What is to be written there.
    """

    def __init__(self, descriptor: int, text: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):  # without it, a terminal is left as it is
            self._process = subprocess.Popen(
                ["sh", "-c", _SCRIPT, text],
                stdin=subprocess.PIPE,
                stdout=descriptor,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,  # no key is for it
            )

    def watch(self, is_needed: bool) -> None:
        """Say whether the text is to be written if this process ends now."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(b"yes\n" if is_needed else b"no\n")

    def close(self) -> None:
        """End it; nothing is written any more."""
        self.watch(False)
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
