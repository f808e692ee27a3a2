"""What commands share: their options, their errors, and how they carry on with them."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import completion
from zoo.cli.output import clean
from zoo.run.watching import Watcher

if TYPE_CHECKING:
    from zoo.run.kinds import Kind
    from zoo.run.watching import Beginning

_WORKERS, _OUTPUT = "Who evaluates", "What is shown and kept"

Workers = Annotated[
    int, typer.Option(help="Processes that evaluate; -1 for one a core.", rich_help_panel=_WORKERS)
]
Ray = Annotated[
    bool,
    typer.Option("--ray", help="Evaluate on Ray workers instead of processes.", rich_help_panel=_WORKERS),
]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to join: auto or HOST:PORT; implies --ray.", rich_help_panel=_WORKERS),
]
Gpus = Annotated[
    float,
    typer.Option(help="GPUs of each worker: 0, a fraction, or a whole number.", rich_help_panel=_WORKERS),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        help="Seconds after which an evaluation has failed and its worker is ended.",
        rich_help_panel=_WORKERS,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON, also on a terminal.", rich_help_panel=_OUTPUT)
]
Progress = Annotated[
    str,
    typer.Option(
        help="auto (a panel on a terminal, lines in a file, nothing in a pipe), panel, lines, bar or none; "
        "on standard error.",
        rich_help_panel=_OUTPUT,
        autocompletion=completion.progress,
    ),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        help="csv, tensorboard, mlflow or wandb: log there, too; may be given again.",
        rich_help_panel=_OUTPUT,
        autocompletion=completion.loggers,
    ),
]
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # no fault in what was typed
PLACES = {"tensorboard": "logs", "mlflow": "mlruns", "wandb": "."}


def count(text: str) -> int:
    """Return a whole number, which may be written as 1e4 or 10_000, too."""
    with contextlib.suppress(ValueError):
        return int(text)  # which a float would round
    with contextlib.suppress(ValueError):
        number = float(text)
        if number == number // 1:
            return int(number)
    raise typer.BadParameter(f"must be a whole number, as in 2000 or 2e3, got {text!r}.")


@contextlib.contextmanager
def explained(
    resume: str | None = None, *, out: Path | str | None = None, is_one_run: bool = True
) -> Iterator[None]:
    """Turn errors into one message and an exit code.

    Args:
        resume: The command that goes on with what is being done, or None if nothing is kept.
        out: Directory that `resume` needs, and that need not be there yet; None where it does without.
        is_one_run: Whether what a run had found is all that was found.
    """
    from zoo.core.errors import EvaluationError, RunDirectoryError, ZooError
    from zoo.facade import Interrupted

    try:
        yield
    except Interrupted as error:
        result, reason = error.result, str(error).partition(";")[0]
        found = f" {error.so_far}" if error.so_far else ""
        if is_one_run and not found:
            found = f" after {result.nfev} evaluations"
            if result.fun_best == result.fun_best:
                found += f", the best value being {result.fun_best:.6g}"
        _complain(f"{reason}{found}")
        _complain(f"`{resume}` goes on" if resume else "nothing is kept; --out DIRECTORY keeps a run")
        raise typer.Exit(128 + error.signal) from None
    except KeyboardInterrupt:
        _complain(f"stopped by Ctrl-C{_going_on(resume, out)}")
        raise typer.Exit(130) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        _complain(_in_our_words(str(error)))
        raise typer.Exit(2) from None
    except (ValueError, TypeError, ImportError, RunDirectoryError) as error:
        _complain(_in_our_words(str(error)))
        raise typer.Exit(2) from None
    except ZooError as error:
        _complain(str(error))
        if type(error) is EvaluationError and "none before it" not in str(error):
            _complain("in a run with on_error=nan, points at which it raises are failed evaluations")
        if resume and hasattr(error, "result"):
            _complain(f"what was evaluated is kept: once it is mended, `{resume}` goes on")
        raise typer.Exit(3) from None


def _going_on(resume: str | None, out: Path | str | None) -> str:
    """Return how to go on with what was stopped outside of a run: before it, or between several."""
    if resume is None:
        return ""
    from zoo.run.directory import holds_run

    if out is not None and not holds_run(Path(out)):
        return "; nothing was kept yet: the same command begins anew"
    return f"; `{resume}` goes on"


_ADVICE = {  # where a message speaks of arguments, what to type
    "`x0` must be given": "Give --x0 0x10 for ten zeros, --x0 1,2.5, or --bounds -5:5x10.",
}


def _in_our_words(message: str) -> str:
    advice = [text for begin, text in _ADVICE.items() if message.startswith(begin)]
    return " ".join([message, *advice])


def _complain(message: str) -> None:
    typer.echo(f"zoo: {clean(message)}", err=True)


@contextlib.contextmanager
def results_alone() -> Iterator[None]:
    """Send what the objective prints to standard error, here and in workers: results are to be parsed."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def blaming(name: str, ours: Path) -> Iterator[None]:
    """Say of an exception of the user's own code, as it is tried out before a run, what it is.

    Args:
        name: What the user has named.
        ours: Folder of the package that tries it out, whose frames nobody wants to see.
    """
    from zoo.core.errors import EvaluationError, ZooError

    try:
        yield
    except (ValueError, TypeError, ImportError, OSError, ZooError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        mine = [i for i, frame in enumerate(frames) if Path(frame.filename).is_relative_to(ours)]
        theirs = frames[mine[-1] + 1 :] if mine else frames
        if not theirs:
            raise
        said = ["Traceback (most recent call last):\n", *traceback.format_list(theirs)]
        said += traceback.format_exception_only(error)
        raise EvaluationError(
            f"{name} raised as it was tried out, none before it", details="".join(said)
        ) from error


def chosen_workers(
    number: int, ray: bool, address: str | None, gpus_per_worker: float, timeout: float | None
) -> Any:
    """Return what `workers=` is given."""
    import zoo

    if not (ray or address or gpus_per_worker) and timeout is None:
        return number
    number = (os.cpu_count() or 1) if number == -1 else number
    if ray or address:
        return zoo.Ray(number, gpus_per_worker=gpus_per_worker, timeout=timeout, address=address)
    return zoo.Processes(number, gpus_per_worker=gpus_per_worker, timeout=timeout)


def resuming(
    out: Path | str | None, number: int, ray: bool, address: str | None, gpus: float, timeout: float | None
) -> str | None:
    """Return the command that goes on with a run, by as many workers as now."""
    if out is None:
        return None
    said = ["zoo", "resume", str(out)]
    said += ["--workers", str(number)] if number != 1 else []
    said += ["--ray"] if ray else []
    said += ["--address", address] if address else []
    said += ["--gpus-per-worker", f"{gpus:g}"] if gpus else []
    said += ["--timeout", f"{timeout:g}"] if timeout is not None else []
    return shlex.join(said)


class _Witness(Watcher):
    """Knows whether there was anything to watch."""

    has_begun = False

    def begin(self, run: Beginning) -> None:
        self.has_begun = True


def watchers(
    progress: str, logs: Sequence[str], out: Path | str | None, kind: Kind | None = None
) -> list[Watcher]:
    """Return who is to watch a run, of a kind that another package added, or of this one."""
    import zoo.loggers
    from zoo.core.validation import check_choice
    from zoo.progress import MODES, Progress, chosen

    check_choice("--progress", progress, MODES)
    for name in logs:
        check_choice("--log", name, zoo.loggers.NAMES)
    table = "steps.csv" if out is None else Path(out) / "steps.csv"
    found: list[Watcher] = [zoo.loggers.make(name, PLACES.get(name, table)) for name in logs]
    found += [_Witness()] if logs else []
    shown = Progress(progress) if kind is None else kind.progress(progress)
    # A run that nobody watches does not have to work out its diagnostics at every step.
    is_silent = progress == "none" or (progress == "auto" and chosen(sys.stderr) == "none")
    return found if is_silent else [shown, *found]


def point_to_export(watching: Sequence[Watcher], logs: Sequence[str], out: Path | str | None) -> None:
    """Say how to log a run that had ended before: there was no step of which a logger could be told."""
    if out is not None and any(isinstance(one, _Witness) and not one.has_begun for one in watching):
        for name in logs:
            place = ["--out", str(Path(out) / "steps.csv")] if name == "csv" else []
            command = shlex.join(["zoo", "export", str(out), "--to", name, *place])
            _complain(f"the run had ended before, and nothing is logged; `{command}` does that")


def shows_panel(watching: Sequence[Watcher]) -> bool:
    """Whether a panel on the terminal has said how a run went."""
    from zoo.progress import Progress

    return any(isinstance(one, Progress) and one.has_summary for one in watching)
