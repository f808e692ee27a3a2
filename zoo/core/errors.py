"""Every exception and warning the library raises on purpose.

Arguments of the wrong value or type raise plain `ValueError` and `TypeError`; the classes here
are for what can only be found out while a run is under way.
"""


class ZooError(Exception):
    """Base class of the errors below."""


class EvaluationError(ZooError, RuntimeError):
    """The objective raised, or returned something that is no value.

    Attributes:
        evaluation: The id of the evaluation, counted from 0 over the whole run.
        details: The traceback of the objective as text, from whichever process it ran in.
    """

    def __init__(self, message: str, *, evaluation: int = -1, details: str = "") -> None:
        super().__init__(message)
        self.evaluation = evaluation
        self.details = details

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n\n{self.details.rstrip()}" if self.details else message


class TooManyFailures(ZooError, RuntimeError):
    """More than a fifth of the last evaluations raised, crashed or hung."""


class WorkerError(ZooError, RuntimeError):
    """Workers could not be started, or kept dying whatever they were given."""


class RunDirectoryError(ZooError, RuntimeError):
    """A run directory is missing, is not one, or belongs to another experiment."""


class CheckpointError(RunDirectoryError):
    """A checkpoint is damaged, or was written by a newer version."""


class ZooWarning(UserWarning):
    """Base class of the library's warnings."""


class Interrupt(BaseException):
    """A signal asked the run to stop while the objective was being evaluated in this process.

    Not an `Exception`, so that an objective's own `except Exception` does not swallow it.
    """
