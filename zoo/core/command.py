"""Objectives that are programs of their own."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import subprocess
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.core.device import Array, to_numpy
from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.space import Space

_GRACE_SECONDS = 1.0  # for a program to end by itself
_SETTLE_SECONDS = 0.05  # for a program to say more than its first answer, if it is of that kind


class Command(Objective):
    """An external program, given one line per point and answering one line per point.

    The program gets the coordinates on its standard input, separated by blanks, each to the last
    bit, and prints the value and nothing else. It may go on reading lines, or end after an answer and
    be started anew; after an answer that is no number it is ended and started anew.
    A program that goes on must not hold its answers back in a buffer: flush after each. One that
    prints more than its answers cannot be trusted any more: every later evaluation raises.

    Each thread that evaluates has a process of its own.

    Args:
        argv: Program and arguments; no shell is involved.
        space: What rows stand for, or None. The line then holds the values of a point in the order of the
            variables, text as it is.

    Raises:
        TypeError: `argv` is no list of strings.
        ValueError: There is no such program, or a choice of `space` has a blank in it.

    Example:
        >>> import sys
        >>> square = Command([sys.executable, "-c", "print(float(input()) ** 2)"])
        >>> square(np.array([[3.0]]), key=Key(0)).tolist()
        [9.0]
    """

    unit = 1

    def __init__(self, argv: Sequence[str], space: Space | None = None) -> None:
        if isinstance(argv, str) or not argv or not all(isinstance(part, str) for part in argv):
            raise TypeError(f"`argv` must be a list of strings, program first, got {argv!r}.")
        if shutil.which(argv[0]) is None:
            raise ValueError(f"no program {argv[0]!r} is found.")
        for choice in () if space is None else space.choices:
            if len(str(choice).split()) != 1:
                raise ValueError(
                    f"`space` must have choices without blanks, where a program reads them, got {choice!r}."
                )
        self.__setstate__({"argv": tuple(argv), "space": space})

    def __getstate__(self) -> dict[str, Any]:
        return {"argv": self.argv, "space": self.space}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.argv: tuple[str, ...] = state["argv"]
        self.space: Space | None = state["space"]
        self._thread = threading.local()
        self._programs: weakref.WeakSet[_Program] = weakref.WeakSet()  # those of all threads
        self._settled = False  # whether it has been waited for more than an answer
        self._out_of_step = ""  # why its answers can no longer be told apart

    def __call__(self, x: Array, *, key: Key) -> np.ndarray[Any, Any]:
        rows = to_numpy(x).tolist() if self.space is None else self.space.values(to_numpy(x))
        return np.array([self._ask(" ".join(map(str, row))) for row in rows])

    def in_space(self, space: Space) -> Command:
        """Return the same program, reading points of a space."""
        return Command(self.argv, space)

    def _ask(self, line: str) -> float:
        if self._out_of_step:
            raise RuntimeError(self._out_of_step)
        program: _Program | None = getattr(self._thread, "program", None)
        try:
            answer = None
            if program is not None and program.is_open:
                if program.said_more():
                    raise self._distrust()
                answer = program.ask(line)
            if answer is None:
                # It may have ended after its last answer: only one that was started for this very
                # line is to blame.
                if program is not None:
                    program.close()
                program = self._thread.program = _Program(self.argv)
                self._programs.add(program)
                answer = program.ask(line)
                if answer is None:
                    status = program.process.wait()
                    raise RuntimeError(f"{self.argv[0]!r} ended with status {status} and gave no answer.")
            value = self._as_value(answer)
            assert program is not None
            # Later on, a second line can only be seen if it comes before the next point is sent.
            if program.surplus or (not self._settled and program.said_more(_SETTLE_SECONDS)):
                raise self._distrust()
            self._settled = True
            return value
        except BaseException:
            # What it may still say would be taken for the answer to the next line.
            self._thread.program = None
            if program is not None:
                program.close()
            raise

    def _distrust(self) -> RuntimeError:
        # An answer that came early has been taken for that to the next line, perhaps long ago.
        self._out_of_step = (
            f"{self.argv[0]!r} printed more than one line for a point, so that answers and points no longer "
            "match; it must print the value and nothing else."
        )
        return RuntimeError(self._out_of_step)

    def _as_value(self, answer: bytes) -> float:
        text = answer.decode(errors="replace").strip()
        try:
            if "_" in text:  # Python's own, between digits
                raise ValueError
            return float(text)
        except ValueError:
            raise ValueError(f"{self.argv[0]!r} must answer with one number, got {text!r}.") from None

    def close(self) -> None:
        """End the program, if it runs, in whichever thread it was started."""
        self._thread.program = None
        for program in list(self._programs):
            program.close()

    def identity(self) -> dict[str, Any]:
        return {"name": "command " + shlex.join(self.argv)}


class _Program:
    """A program that runs, and both ends of what is said to it and by it."""

    def __init__(self, argv: tuple[str, ...]) -> None:
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.surplus = b""  # what it said after its answer

    @property
    def is_open(self) -> bool:
        """Whether it can be asked; it may have ended since."""
        return self.process.returncode is None

    def ask(self, line: str) -> bytes | None:
        """Return the line it answers, or None if it ended without one."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it may have ended, and answered before
            stdin.write(line.encode() + b"\n")
            stdin.flush()
        # Read past the buffer of `stdout`, in which a second line would hide.
        said, descriptor = b"", stdout.fileno()
        while b"\n" not in said and (more := os.read(descriptor, 65536)):
            said += more
        answer, newline, self.surplus = said.partition(b"\n")
        return answer if answer or newline else None

    def said_more(self, seconds: float = 0.0) -> bool:
        """Whether it has said something since its last answer, or does so soon; its end is nothing said."""
        stdout = self.process.stdout
        assert stdout is not None
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        return bool(poll.poll(1000 * seconds)) and bool(os.read(stdout.fileno(), 1))

    def close(self) -> None:
        """End it: at once if it heeds SIGTERM, else after a second."""
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()  # not before: another thread may be reading

    def __del__(self) -> None:
        if hasattr(self, "process"):
            self.close()
