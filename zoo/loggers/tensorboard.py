"""Event files for TensorBoard, of its own records: neither torch nor tensorflow is needed."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from zoo.loggers.base import Line, Logger, Outcome, Subject, required

_LARGEST = 3.4e38  # its numbers are single ones
_VERSION = "brain.Event:2"  # of the form of the file


class TensorBoard(Logger):
    """Writes all numbers of a step against the evaluations made, and arrays as histograms.

    Look at them with `tensorboard --logdir PATH`. What the run is stands under HPARAMS, with its result. A
    run that goes on writes its file anew, so there are no gaps or points twice.

    Args:
        path: Directory; each run has one of its own in it.
        name: What to call that: the name of the run's directory by default, else the time.

    Raises:
        ImportError: There is no tensorboard.
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        super().__init__(path, name)
        self._records = required("tensorboard.summary.writer.record_writer", "tensorboard")
        self._events = required("tensorboard.compat.proto.event_pb2", "tensorboard")
        self._summaries = required("tensorboard.compat.proto.summary_pb2", "tensorboard")
        self._parameters = required("tensorboard.plugins.hparams.summary_v2", "tensorboard")
        self._histograms = required("tensorboard.plugins.histogram.summary_v2", "tensorboard")

    def open(self, subject: Subject) -> int:
        directory, now = self.path / subject.name, time.time()
        directory.mkdir(parents=True, exist_ok=True)
        for earlier in directory.glob(f"events.out.tfevents.*.{subject.id}"):
            earlier.unlink()
        name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}.{subject.id}"
        # The usual writer has a thread, which costs more than the writing, and a full disk is its own affair.
        self._file = open(directory / name, "wb")  # noqa: SIM115 - `close` closes it
        self._writer = self._records.RecordWriter(self._file)
        self._write_event(self._events.Event(wall_time=now, file_version=_VERSION))
        # Should there be files of another run, what they hold is not shown any more.
        start = self._events.SessionLog(status=self._events.SessionLog.START)
        self._write_event(self._events.Event(wall_time=now, step=0, session_log=start))
        metrics = [self._parameters.Metric(tag) for tag in _summed_up(subject)]
        self._add(
            self._parameters.hparams_config_pb(list(map(self._parameters.HParam, subject.config)), metrics)
        )
        self._add(self._parameters.hparams_pb(subject.config, trial_id=subject.id))
        self._nfev = 0
        return 0

    def write(self, line: Line, when: float) -> None:
        numbers, arrays = self.numbers(line)
        self._nfev = line[self._subject.wording.counter]
        summary = self._scalars(numbers)
        for name, values in arrays.items():
            summary.MergeFrom(self._histograms.histogram_pb(name, values))
        self._add(summary, self._nfev, when)

    def close(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            numbers = {f"result/{name}": value for name, value in outcome.numbers.items()}
            self._add(self._scalars(numbers), self._nfev)
        self._file.close()

    def _scalars(self, numbers: dict[str, float]) -> Any:
        return self._summaries.Summary(
            value=[
                self._summaries.Summary.Value(tag=name, simple_value=value)
                for name, value in numbers.items()
                if abs(value) < _LARGEST
            ]
        )

    def _add(self, summary: Any, step: int = 0, when: float | None = None) -> None:
        when = time.time() if when is None else when
        self._write_event(self._events.Event(wall_time=when, step=step, summary=summary))

    def _write_event(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._file.flush()


def _summed_up(subject: Subject) -> list[str]:
    """Return the tags of what stands beside what a run is."""
    return ["best", *(f"result/{name}" for name in subject.wording.shown({"fun": None, "nfev": None}))]
