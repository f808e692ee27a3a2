"""Watchers that pass on what a run logs to other tools: give one as `callback`, or replay a finished run.

Each needs the extra of its name (`pip install "gradfree[tensorboard]"`), `CSV` none. Names are imported when
they are first used, and a tool is when its logger is made.

Example:
    >>> import tempfile
    >>> import zoo
    >>> path = tempfile.mkdtemp() + "/steps.csv"
    >>> log = zoo.loggers.CSV(path)
    >>> result = zoo.minimize(lambda x: (x**2).sum(), np.ones(3), budget=15, rng=0, callback=log)
    >>> with open(path) as file:
    ...     print(file.readline()[:20], len(file.readlines()))
    step,nfev,best,value 2
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from zoo.core.validation import check_choice

if TYPE_CHECKING:
    from zoo.loggers.base import Logger as Logger
    from zoo.loggers.csv import CSV as CSV
    from zoo.loggers.mlflow import MLflow as MLflow
    from zoo.loggers.tensorboard import TensorBoard as TensorBoard
    from zoo.loggers.wandb import WandB as WandB

NAMES = {"csv": "CSV", "tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "WandB"}
"""Loggers by the name that the command line and experiment files know them by."""

_HOMES = {"Logger": "base", **{logger: name for name, logger in NAMES.items()}}

__all__ = sorted([*_HOMES, "make"])


def make(name: str, path: str | os.PathLike[str]) -> Logger:
    """Return the logger of a name.

    Args:
        name: "csv", "tensorboard", "mlflow" or "wandb".
        path: Where it writes: a file for "csv", else a directory.

    Raises:
        ValueError: There is no logger of that name.
        ImportError: What it needs is not installed.
    """
    logger: Logger = __getattr__(NAMES[check_choice("name", name, NAMES)])(path)
    return logger


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo.loggers' has no attribute {name!r}")
    return getattr(importlib.import_module(f"zoo.loggers.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
