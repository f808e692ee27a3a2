"""Event files for TensorBoard, by its own writer: neither torch nor tensorflow is needed."""

from __future__ import annotations

import os
import time
from typing import Any

from zoo.loggers.base import Line, Logger, Outcome, Subject, required

_LARGEST = 3.4e38  # its numbers are single ones
_WAITING, _SECONDS = 1000, 5  # events in memory, and how often they are written


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
        self._files = required("tensorboard.summary.writer.event_file_writer", "tensorboard")
        self._events = required("tensorboard.compat.proto.event_pb2", "tensorboard")
        self._summaries = required("tensorboard.compat.proto.summary_pb2", "tensorboard")
        self._parameters = required("tensorboard.plugins.hparams.summary_v2", "tensorboard")
        self._histograms = required("tensorboard.plugins.histogram.summary_v2", "tensorboard")

    def open(self, subject: Subject) -> int:
        directory, suffix = self.path / subject.name, f".{subject.id}"
        for earlier in directory.glob(f"events.out.tfevents.*{suffix}"):
            earlier.unlink()
        self._writer = self._files.EventFileWriter(str(directory), _WAITING, _SECONDS, suffix)
        # Should there be files of another run, what they hold is not shown any more.
        start = self._events.SessionLog(status=self._events.SessionLog.START)
        self._writer.add_event(self._events.Event(step=0, session_log=start))
        metrics = [self._parameters.Metric(tag) for tag in ("best", "result/fun", "result/nfev")]
        self._add(
            self._parameters.hparams_config_pb(list(map(self._parameters.HParam, subject.config)), metrics)
        )
        self._add(self._parameters.hparams_pb(subject.config, trial_id=subject.id))
        self._nfev = 0
        return 0

    def write(self, line: Line, when: float) -> None:
        numbers, arrays = self.numbers(line)
        self._nfev = line["nfev"]
        summary = self._scalars(numbers)
        for name, values in arrays.items():
            summary.MergeFrom(self._histograms.histogram_pb(name, values))
        self._add(summary, self._nfev, when)

    def close(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            numbers = {f"result/{name}": value for name, value in outcome.numbers.items()}
            self._add(self._scalars(numbers), self._nfev)
        self._writer.close()

    def _scalars(self, numbers: dict[str, float]) -> Any:
        return self._summaries.Summary(
            value=[
                self._summaries.Summary.Value(tag=name, simple_value=value)
                for name, value in numbers.items()
                if abs(value) < _LARGEST
            ]
        )

    def _add(self, summary: Any, step: int = 0, when: float | None = None) -> None:
        self._writer.add_event(
            self._events.Event(wall_time=time.time() if when is None else when, step=step, summary=summary)
        )
