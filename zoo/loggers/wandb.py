"""Runs for Weights & Biases, kept on disk until `wandb sync` is told to send them."""

from __future__ import annotations

import os

from zoo.loggers.base import Line, Logger, Outcome, Subject, required


class WandB(Logger):
    """Writes the numbers of a step to Weights & Biases, offline, and arrays as histograms.

    Nothing goes over the network: send it by `wandb sync PATH/wandb/offline-run-...`. When a run
    goes on, it gets another directory there, which holds all of it under the same id: send the newest alone.

    Args:
        path: Directory, in which `wandb` makes one of that name.
        name: What to call the run: as its directory by default, else by the time.
        project: The project it belongs to.

    Raises:
        ImportError: There is no wandb.
    """

    def __init__(
        self, path: str | os.PathLike[str], name: str | None = None, *, project: str = "gradfree"
    ) -> None:
        super().__init__(path, name)
        # Offline is to be offline: with its reports on, the package looks up its server even then.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._wandb, self._project = required("wandb", "wandb"), project

    def open(self, subject: Subject) -> int:
        self.path.mkdir(parents=True, exist_ok=True)
        settings = self._wandb.Settings(
            mode="offline",
            silent=True,
            console="off",
            save_code=False,
            disable_git=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
        )
        self._run = self._wandb.init(
            project=self._project,
            id=subject.id,
            name=subject.name,
            dir=str(self.path),
            config=subject.config,
            settings=settings,
            reinit="create_new",
        )
        self._run.define_metric("*", step_metric=subject.wording.counter)
        return 0

    def write(self, line: Line, when: float) -> None:
        numbers, arrays = self.numbers(line)
        histograms = {name: self._wandb.Histogram(values) for name, values in arrays.items()}
        counter = self._subject.wording.counter
        entry = {**numbers, **histograms, counter: line[counter], "_timestamp": when}
        self._run.log(entry, step=line["step"])

    def close(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            self._run.summary.update({f"result/{name}": value for name, value in outcome.numbers.items()})
        self._run.finish(exit_code=0 if outcome is not None and outcome.is_complete else 1)
