"""`zoo.Session`: a search whose loop is the user's own, for laboratories and queues of jobs."""

from __future__ import annotations

import contextlib
import math
import numbers
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zoo.core.constraints import constrain
from zoo.core.device import Array
from zoo.core.errors import RunDirectoryError
from zoo.core.rng import Key
from zoo.core.space import Space
from zoo.core.state import Log
from zoo.core.types import Candidates, Evaluations, Reply
from zoo.core.validation import check_count, check_number
from zoo.execution.executor import Serial
from zoo.execution.interrupts import postponed
from zoo.execution.ledger import Ledger
from zoo.execution.threads import limited
from zoo.experiment import (
    Experiment,
    check_objective,
    compare_objective,
    differences,
    experiment_of,
    named_constraints,
)
from zoo.facade import result_of
from zoo.registry import find
from zoo.run.directory import RunDirectory, holds_run
from zoo.run.handout import Handout
from zoo.run.job import SearchJob, SearchState
from zoo.run.journal import FINAL, SEARCH, values_by_id
from zoo.run.loop import Run, Stop, ended, restored
from zoo.told import ABANDONED, Told, as_answer, failed, replies_to, runs, widths_of

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

# A checkpoint costs some hundredths of a second. It follows on as much work as makes that little, and on less
# where others may follow who open the session for a moment and would have to do it again.
_UNSAVED_SECONDS, _REPLAYED_SECONDS = 0.2, 0.01
_SYNC_SECONDS = 0.1  # how long a value may be on record before the disk is waited for


class Trial(NamedTuple):
    """A point to be evaluated.

    Attributes:
        id: Its number, counted over the whole search.
        x: The point; the caller's to write to.
    """

    id: int
    x: Any


class Session:
    """A search that is asked for points and told their values, whenever these come.

    The points depend on the values by id alone, never on the order in which they are told, on how many are
    asked for at a time, or on who asks: driven by a function, a session does what `zoo.minimize` does with
    the same arguments, to the last byte. Methods go step by step. Within a step, points may be asked for and
    told in any order; the next step's are there when all of this one are told. So `ask` may return nothing:
    then all points of the step are out, and it is time to wait for a value.

    After the last step, the method's recommendation is asked for like any other point (several times, with
    `noise`), unless the method recommends points that it has evaluated; then `done` is True.

    Ctrl-C waits until a call has done its work. Only into constraints that are functions does it break; then
    nothing is told.

    Args:
        method: As in `zoo.minimize`, and so are the following.
        x0: Start. The points asked for are of its kind, dtype and device.
        bounds: Box of all points.
        space: A `zoo.Space` instead, whose points are then asked for.
        constraints: Functions of a point, which are evaluated when its value is told; "returned" for what is
            told beside the values.
        known: What was evaluated before.
        scale: How far from x0 the optimum may be.
        budget: Number of evaluations at most; 1000 times the number of variables by default.
        target: End as soon as a step has brought a value of this or less.
        rng: Seed.
        noise: Whether values are random.
        out: Directory to keep the session in, where what is asked for and told is on record before the call
            returns. One that holds this very session is opened. It is locked while it is open, so processes
            that share a session open it in turn, each for a moment: see `open`. What has been told of a run
            of `zoo.minimize` can be gone on with here, and `zoo.resume` can go on with a session.
        options: Options of the method.
        timeout: Seconds to wait for another process that has `out` open.

    Raises:
        ValueError: An argument has a value that it cannot have.
        TypeError: An argument is of a type that it cannot be, or an option is unknown.
        RunDirectoryError: `out` cannot be used, or is in use for longer than `timeout`.

    Example:
        >>> import zoo
        >>> session = zoo.Session("cma", [1.0, 1.0], budget=200, rng=0)
        >>> while not session.done:
        ...     for trial in session.ask(4):
        ...         session.tell(trial.id, float((trial.x**2).sum()))
        >>> bool(session.result.fun < 1e-3), session.result.nfev <= 200
        (True, True)
    """

    _job: SearchJob
    _state: SearchState
    _ledger: Ledger
    _candidates: Candidates | None
    _end: tuple[str, str] | None  # why no further step is done

    def __init__(
        self,
        method: str = "auto",
        x0: Any = None,
        *,
        bounds: Any = None,
        space: Any = None,
        constraints: Any = (),
        known: Any = None,
        scale: Any = None,
        budget: int | None = None,
        target: float | None = None,
        rng: int | np.random.Generator | Key | None = None,
        noise: bool = False,
        out: str | os.PathLike[str] | None = None,
        options: dict[str, Any] | None = None,
        timeout: float = 10.0,
    ) -> None:
        self._told = told = Told()
        experiment = experiment_of(
            lambda *_: told,
            method,
            x0,
            bounds=bounds,
            space=space,
            constraints=constraints,
            known=known,
            scale=scale,
            budget=budget,
            target=target,
            rng=rng,
            noise=noise,
            options=options,
        )
        wait = _as_timeout(timeout)
        if out is None:
            self._start(experiment, None)
            return
        directory, fresh = _directory(Path(out), experiment, rng is None, wait)
        self._start(
            Experiment.read(directory.config, directory.start, experiment.objective), directory, fresh
        )

    @classmethod
    def open(cls, out: str | os.PathLike[str], *, constraints: Any = None, timeout: float = 10.0) -> Session:
        """Open a session that is kept in a directory, as it was left by whoever had it open before.

        It may also be the directory of `zoo.minimize`. What was told since the last checkpoint is told to the
        method again, which takes a tenth of a second at most.

        Args:
            out: The directory.
            constraints: The constraints, where one of them is a function that was not given by name.
            timeout: Seconds to wait for another process that has it open.

        Raises:
            RunDirectoryError: It is missing, holds no run, or is in use for longer than `timeout`.
            CheckpointError: Its checkpoints are damaged or newer than this version.
        """
        session = cls.__new__(cls)
        session._told = Told()
        directory = RunDirectory.open(Path(out), _as_timeout(timeout))
        with contextlib.ExitStack() as stack:
            stack.callback(directory.close)
            path, config = directory.path, directory.config
            if constraints is None:
                constraints = named_constraints(path, config["objective"])
            space = None if config.get("space") is None else Space.read(config["space"])
            objective = constrain(session._told, constraints, noise=config["noise"], space=space)
            check_objective(path, config["objective"], objective.identity())
            compare_objective(path, config["objective"], objective.identity())
            stack.pop_all()
        session._start(Experiment.read(config, directory.start, objective), directory)
        return session

    def _start(self, experiment: Experiment, directory: RunDirectory | None, fresh: bool = False) -> None:
        self._experiment, self._directory = experiment, directory
        self._lock, self._closed, self._pid = threading.RLock(), False, os.getpid()
        self._began, self._unsaved = time.monotonic(), 0.0
        self._synced, self._unsynced = -math.inf, False
        self._handout = Handout()
        try:
            self._job = job = experiment.job(Serial())
            saved = None
            if directory is not None:
                job.journal, job.account = directory.journal, directory.account()
                self._handout = Handout(directory.path / "asked.jsonl")
                saved = directory.restore()
            state = job.init() if saved is None else restored(job, *saved[1:])
            self._log_first = state.nfev
            self._is_several = "objectives" in find(experiment.method).traits
            if directory is not None and saved is None:
                directory.save(state.step, *job.snapshot(state))
            with limited(experiment.threads):
                self._turn(state, Log())
            if self.done:
                self._conclude()
            if directory is not None and not self.done:
                directory.compare_machine()
            self._advance(_REPLAYED_SECONDS)
            self._widths = self._extras_so_far()
        except BaseException as error:
            wrong = isinstance(error, (TypeError, ValueError, ImportError))
            unused = directory if fresh and wrong and directory and directory.is_untouched else None
            self.close()
            if unused is not None:
                unused.discard()
            raise

    def ask(self, n: int = 1) -> list[Trial]:
        """Return at most `n` points that nobody was asked for yet, or that were given back.

        Returns:
            Trials; none if all points of the step are out, or if the search is done.

        Raises:
            TypeError: `n` is no integer.
            ValueError: `n` is less than 1.
            RuntimeError: The session is closed.
        """
        with self._held():
            n = check_count("n", n)
            with postponed():
                self._advance()
                numbers = self._handout.free(n)
                trials = self._trials(numbers)
            try:
                with postponed():
                    self._handout.give(numbers)
            except BaseException:  # a signal, as a rule: whoever asks does not get them
                with postponed():
                    self._handout.requeue(number for number in numbers if number in self._handout.out)
                raise
            return trials

    def tell(
        self, trial_id: int | Trial | Mapping[int, Any], value: Any = None, constraints: Any = None
    ) -> None:
        """Tell the value of a trial, or several as {id: value}: all of them, or none if one is refused.

        Telling NaN or an infinity says that the evaluation has failed. To tell a value once more is harmless.

        Args:
            trial_id: A trial that was asked for, or its id.
            value: A number, lower is better; for methods with several objectives, a row of them.
            constraints: With constraints="returned", a row of numbers that may not be above 0; where several
                values are told, such a row by id. NaN or an infinity among them says that the evaluation
                has failed. Other constraints are evaluated here.

        Raises:
            TypeError: An id is no integer, a value no number, or constraints are missing.
            ValueError: A trial was never asked for, has another value already, or another number of
                objectives or constraints than those before.
            EvaluationError: A constraint raised.
            RuntimeError: The session is closed.
        """
        with self._held():
            told, beside = trial_id, constraints
            if not isinstance(told, Mapping):
                number = _as_id(told)
                told, beside = {number: value}, {number: constraints}
            elif value is not None:
                raise TypeError(f"`value` must be left out where `trial_id` is a mapping, got {value!r}.")
            elif beside is None:
                beside = {}
            elif not isinstance(beside, Mapping):
                raise TypeError(f"`constraints` must be a mapping as `trial_id` is one, got {beside!r}.")
            if not beside.keys() <= told.keys():
                raise ValueError(f"`constraints` must be of the trials that are told, got {list(beside)}.")
            objective, several = self._experiment.objective, self._is_several
            self._take(
                {
                    _as_id(n): as_answer(n, n - self._first, value, beside.get(n), objective, several)
                    for n, value in told.items()
                }
            )

    def abandon(self, ids: int | Trial | Iterable[int | Trial], reason: str = "abandoned") -> None:
        """Give up trials for good: they count as failed evaluations.

        Args:
            ids: Trials that are out, or their ids.
            reason: One line, for the record.

        Raises:
            TypeError: An id is no integer.
            ValueError: A trial was never asked for, or has a value already.
            RuntimeError: The session is closed.
        """
        with self._held():
            self._take({n: failed(n - self._first, ABANDONED, str(reason)) for n in _as_ids(ids)})

    def requeue(self, ids: int | Trial | Iterable[int | Trial]) -> None:
        """Let trials that are out be asked for again, before all others: their point stays the same.

        Whichever value comes first counts, also if it is that of the one who had the trial before.

        Args:
            ids: Trials that are out, or their ids.

        Raises:
            TypeError: An id is no integer.
            ValueError: A trial was never asked for, or has a value already.
            RuntimeError: The session is closed.
        """
        with self._held():
            numbers = _as_ids(ids)
            for number in numbers:
                if self._value(number) is not None:
                    raise ValueError(f"trial {number} has a value already.")
            with postponed():
                self._handout.requeue(numbers)

    def trial(self, trial_id: int | Trial) -> Trial:
        """Return a trial of the step under way again.

        Raises:
            TypeError: The id is no integer.
            ValueError: It was never asked for, or the step that it belongs to is over.
        """
        with self._lock:
            number = _as_id(trial_id)
            self._value(number)
            if number < self._first:
                raise ValueError(f"trial {number} belongs to a step that is over: its point is not kept.")
            return self._trials([number])[0]

    @property
    def pending(self) -> dict[int, float]:
        """Trials that are out, by id, with the seconds since they were asked for; the lowest id first."""
        with self._lock:
            now = time.time()
            return {number: max(0.0, now - since) for number, since in sorted(self._handout.out.items())}

    @property
    def done(self) -> bool:
        """Whether the search is over, with no further point to ask for."""
        return self._end is not None and (self._candidates is None or self._state.x is not None)

    @property
    def best(self) -> tuple[Any, float] | None:
        """The point of the lowest value told so far, and that value; None before there is one.

        Where there are constraints, points that keep to them come first. With `noise`, it was lucky.
        """
        with self._lock:
            state = self._so_far()
            return None if state.x_best is None else (self._points(state.x_best[None] + 0)[0], state.fun_best)

    @property
    def result(self) -> OptimizeResult:
        """What was found so far, in the form of `zoo.minimize`; before the end, `status` is 6.

        With `noise`, `x` is the recommendation before the end too, and `fun` NaN: it was not evaluated yet.
        """
        with self._lock:
            state, out = self._so_far(), len(self._handout.out)
            status, reason = "open", f"the search goes on; trials that are out: {out}"
            if self._end is not None and self.done:
                status, reason = self._end
            elif self._experiment.noise:
                x = self._job.optimizer.recommend(state.optimizer)
                state = replace(state, x=x, fun=float("nan"))
            seconds = time.monotonic() - self._began
            return result_of(self._experiment, self._job, Run(state, reason, status, seconds=seconds))

    def close(self) -> None:
        """Let go of the directory; what was found can still be read."""
        with self._lock, postponed():
            if not self._closed:
                self._closed = True
                self._handout.close()
                if self._directory is not None and self._pid == os.getpid():
                    with contextlib.closing(self._directory):
                        self._directory.flush()
                        self._sync()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError(
            "a session cannot be sent to another process: send it trials, or let it open the directory by "
            "zoo.Session.open."
        )

    def __repr__(self) -> str:
        with self._lock:
            where = "" if self._directory is None else f" in {str(self._directory.path)!r}"
            state = "done" if self.done else f"{len(self._handout.out)} out"
            return f"<zoo.Session of {self._experiment.method!r}{where}: {self._so_far().nfev} told, {state}>"

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        if self._pid != os.getpid():
            raise RuntimeError("this session belongs to the process that this one is a fork of.")
        with self._lock:
            if self._closed:
                path = None if self._directory is None else str(self._directory.path)
                advice = "" if path is None else f"; zoo.Session.open({path!r}) opens it again"
                raise RuntimeError(f"this session is closed{advice}.")
            yield

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        """Close the session if something fails halfway to the disk, which has all that counts."""
        try:
            yield
        except BaseException:
            if self._directory is not None:
                self.close()
            raise

    def _turn(self, state: SearchState, log: Log) -> None:
        """Go to what follows on a state: a step, the last evaluations, or nothing.

        Args:
            state: Where the search is then.
            log: What was told up to there.
        """
        job = self._job
        candidates: Candidates | None = None
        end = ended(job, state, Stop(self._experiment.target), self._began)
        if end is None:
            candidates = job.ask(state)
        elif end[0] == "finished":
            candidates = job.final(state)
            if candidates is None:
                state = job.finish(state)
        first, ledger = state.nfev, Ledger([0])
        if candidates is not None:
            ledger = job.ledger(candidates, state, SEARCH if end is None else FINAL)
        # Whatever has failed up to here is done again by the next call, from what is told.
        self._handout.begin(first, ledger.num_rows, lambda number: ledger.knows(number - first))
        self._state, self._candidates, self._end = state, candidates, end
        self._first, self._ledger, self._log = first, ledger, log

    def _advance(self, bearable: float = _UNSAVED_SECONDS) -> None:
        """Do the steps of which all is told."""
        if self.done or not self._ledger.complete:
            return
        with limited(self._experiment.threads):
            while not self.done and self._ledger.complete:
                began, evaluations = time.perf_counter(), self._ledger.evaluations()
                if self._end is not None:
                    self._state = self._job.settle(self._state, evaluations)
                    self._conclude()
                    return
                state, report = self._job.tell(self._state, evaluations)
                metrics = None if self._directory is None else self._job.metrics(state, report)
                # Too many failures end a run of which they may be the fault. Here somebody looks on.
                self._turn(self._job.forgive(state), self._log.append(evaluations.values))
                if self._directory is not None and metrics is not None:
                    with self._recorded():
                        self._directory.log_step(metrics, time.monotonic() - self._began)
                if self.done:
                    self._conclude()
                self._unsaved += time.perf_counter() - began
        if self._unsaved > bearable:
            self._save()

    def _save(self) -> None:
        if self._directory is not None:
            self._directory.save(self._state.step, *self._job.snapshot(self._state))
        self._unsaved = 0.0

    def _conclude(self) -> None:
        """Write down the end, unless an earlier process did."""
        result, directory = self.result, self._directory
        if directory is None or self._end is None or directory.result.get("message") == result.message:
            return
        with self._recorded():
            self._save()
            status, reason = self._end
            directory.event({"event": "ended", "status": status, "reason": reason, "account": result.account})
            directory.finish(result)

    def _take(self, answers: Mapping[int, Evaluations]) -> None:
        """Put values on record, if none of them is refused."""
        fresh: list[int] = []
        for number, answer in sorted(answers.items()):
            known, value = self._value(number), float(answer.values[0])
            if known is None:
                fresh.append(number)
            elif known != value and not (known != known and value != value):
                has = f"the value {known}" if known == known else "failed, or was abandoned,"
                lost = any(failure.kind == ABANDONED for failure in answer.failures)
                what = "abandoned" if lost else f"told {value}"
                raise ValueError(f"trial {number} has {has} already, and cannot be {what}.")
        replies = self._replies(fresh, answers)
        widths = widths_of(self._widths, replies)
        with postponed():
            self._widths = widths
            with self._recorded():  # or here it could seem told, and on the disk it is not
                for reply in replies:
                    self._ledger.add(reply)
                    self._unsynced = True
                if time.monotonic() - self._synced > _SYNC_SECONDS:
                    self._sync()
            self._handout.told(answers)
            self._advance()

    def _replies(self, fresh: list[int], answers: Mapping[int, Evaluations]) -> list[Reply]:
        """Return what the objective makes of answers; where constraints are functions, they run here."""
        if not fresh:
            return []
        self._told.answers = {number - self._first: answers[number] for number in fresh}
        rows, kind = list(self._told.answers), SEARCH if self._end is None else FINAL
        objective, key, step = self._experiment.objective, self._job.key(kind), self._state.step
        assert self._candidates is not None  # or nothing could be out
        with limited(self._experiment.threads) if objective is not self._told else contextlib.nullcontext():
            return replies_to(objective, self._candidates, self._first, rows, key, step)

    def _sync(self) -> None:
        if self._directory is not None and self._unsynced:
            self._directory.journal.sync()
            self._synced, self._unsynced = time.monotonic(), False

    def _value(self, number: int) -> float | None:
        """Return what was told of a trial, None if nothing was; refuse trials that nobody asked for."""
        row = number - self._first
        if self._log_first <= number < self._first:
            return float(self._log.array[number - self._log_first])
        if 0 <= number < self._first and self._directory is not None:
            values = values_by_id(self._directory.path / "evaluations.bin", number + 1)
            return float(values[number])
        if 0 <= row < self._ledger.num_rows and self._ledger.knows(row):
            return float(self._ledger.values[row])
        if number in self._handout.out:
            return None
        raise ValueError(f"trial {number} was never asked for.")

    def _extras_so_far(self) -> dict[str, int]:
        """Return how many numbers each trial has beside its value, by name, as far as any were told."""
        widths = {name: extra.shape[1] for name, extra in self._ledger.evaluations().extras.items()}
        if self._state.constraints_best is not None:
            widths["constraints"] = len(self._state.constraints_best)
        if self._state.front is not None:
            widths["objectives"] = self._state.front[1].shape[1]
        return widths

    def _trials(self, numbers: list[int]) -> list[Trial]:
        trials: list[Trial] = []
        if self._candidates is not None and numbers:
            with limited(self._experiment.threads):
                for first, stop in runs(numbers):
                    points = self._points(self._candidates.rows(first - self._first, stop - self._first))
                    trials.extend(Trial(first + i, x) for i, x in enumerate(points))
        return trials

    def _points(self, rows: Array) -> Any:
        space = self._experiment.space
        return rows if space is None else space.points(rows)

    def _so_far(self) -> SearchState:
        """Return the state with what is told of the step under way."""
        state, ledger = self._state, self._ledger
        told = ledger.num_rows - sum(stop - start for start, stop in ledger.todo)
        if self.done or not told:
            return state
        if self._end is not None:
            return replace(state, num_final=told)
        after, _ = self._job.after(state, state.optimizer, ledger.evaluations())
        return replace(after, step=state.step, nfev=state.nfev + told)


def _directory(path: Path, experiment: Experiment, any_key: bool, wait: float) -> tuple[RunDirectory, bool]:
    """Return the directory of a session, and whether it was made just now."""
    config, arrays = experiment.written()
    if not holds_run(path):
        try:
            return RunDirectory.create(path, config, arrays, {"executor": "Session"}, wait), True
        except RunDirectoryError:
            if not holds_run(path):
                raise
    directory = RunDirectory.open(path, wait)
    # Who evaluates, and how, is no matter here.
    config |= {name: directory.config[name] for name in ("unit", "vectorized", "on_error", "threads")}
    if any_key:
        config["key"] = directory.config["key"]
    differ = differences((config, arrays), (directory.config, directory.start))
    with contextlib.ExitStack() as stack:
        stack.callback(directory.close)
        check_objective(path, directory.config["objective"], config["objective"])
        compare_objective(path, directory.config["objective"], config["objective"], stacklevel=4)
        if not differ:
            stack.pop_all()
            return directory, False
        raise RunDirectoryError(
            f"{path} holds another run: {', '.join(differ)}. Choose another directory, or open this one "
            f"as it is by zoo.Session.open({str(path)!r})."
        )


def _as_id(number: Any) -> int:
    """Return an id, or that of a trial."""
    number = number.id if isinstance(number, Trial) else number
    if isinstance(number, bool) or not isinstance(number, numbers.Integral):
        raise TypeError(f"an id must be an integer, or a zoo.Trial, got {number!r}.")
    return int(number)


def _as_ids(ids: Any) -> list[int]:
    """Return the ids of one trial, or of several, as a list."""
    several = isinstance(ids, Iterable) and not isinstance(ids, Trial)
    return [_as_id(number) for number in ids] if several else [_as_id(ids)]


def _as_timeout(timeout: Any) -> float:
    seconds = check_number("timeout", timeout)
    if not seconds >= 0:
        raise ValueError(f"`timeout` must be at least 0, got {timeout!r}.")
    return seconds
