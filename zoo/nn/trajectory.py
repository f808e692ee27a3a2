"""A training run as a file of seeds and numbers, from which its weights follow to the last bit.

What a step of `zoo.nn.descent.apply_` does follows from the weights before it, the run's key, the
coefficients of its directions and the learning rates. So the weights after T steps follow from those before
the first and a log of 16 bytes a step: a few hundred kilobytes instead of a checkpoint of gigabytes, and
every step on the way can be had again.

Layout: a first line; the length of the head and its crc-32, two 32-bit unsigned numbers; the head, JSON; then
one record for each step, of
    coefficients    a float32 for each direction, NaN where it was dropped
    learning rates  a float64 for each parameter group
    checksum        crc-32 of the number of the record, a 32-bit unsigned number, and of what is before
all little-endian. A torn last record is left out, and a damaged one with a warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from zoo.core.errors import RunDirectoryError, ZooWarning
from zoo.core.rng import Key
from zoo.core.validation import check_count
from zoo.nn.descent import Applied, Descent, move_, num_groups
from zoo.nn.laws import TensorLaw, in_memory_order, pieces
from zoo.nn.low_rank_momentum import LowRankMomentum
from zoo.nn.parameters import Parameters
from zoo.nn.seeded import LAWS, Seeded, SeededEstimate, as_parameters, layout_of
from zoo.run.checkpoint import reading, write_all, write_atomically, writing

_LINE = b"gradfree trajectory 1\n"
_SIZES = struct.Struct("<II")
_CHECK = struct.Struct("<I")
_DIGITS = "0123456789abcdef"


class Step(NamedTuple):
    """One step as it stands in a log.

    Attributes:
        step: Its number.
        coefficients: Of its directions, NaN where one was dropped.
        learning_rates: Of the parameter groups.
    """

    step: int
    coefficients: tuple[float, ...]
    learning_rates: tuple[float, ...]


class Trajectory:
    """The log of a run: opened to append to it, or to replay it.

    It is made with `Trajectory.create`, and read again with `Trajectory(path)`, which also goes on with one.

    Args:
        path: A log.

    Attributes:
        head: What holds for all steps, as plain values.
        key: Key of the run's directions.
        first: Number of the first step.

    Raises:
        RunDirectoryError: The file is no log, is damaged, of a newer version, or cannot be read.

    Example:
        >>> import tempfile
        >>> from zoo.nn.descent import apply_
        >>> from zoo.nn.models.mlp import mlp
        >>> model, again = (mlp((3, 1), key=Key(0)) for _ in range(2))
        >>> estimator, descent, x = Seeded(), Descent(0.1), torch.ones(1, 3)
        >>> path = Path(tempfile.mkdtemp()) / "trajectory"
        >>> with Trajectory.create(path, model, estimator, descent, Key(0)) as log:
        ...     for step in range(5):
        ...         estimate = estimator.estimate(model, lambda: model(x).square().sum(), Key(0), step)
        ...         log.append(estimate, apply_(model, estimate, descent))
        >>> replay_(again, path)
        >>> all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
        True
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with reading(self.path):
            data = self.path.read_bytes()
        self.head, self._begin = _read_head(self.path, data)
        self.key = Key.parse(self.head["key"])
        self.first = int(self.head["first"])
        law = dict(self.head["estimator"]["law"])
        self.law: TensorLaw = LAWS[law.pop("law")](**law)
        directions, groups = self.head["estimator"]["num_directions"], self.head["groups"]
        self._record = struct.Struct(f"<{directions}f{groups}d")
        self._size = self._record.size + _CHECK.size
        self._body = bytearray(data[self._begin :])
        self._length = self._sound()
        behind = len(self._body) - self._length * self._size
        self._damaged = behind >= 2 * self._size
        if behind >= self._size and not self._damaged:
            warnings.warn(
                f"the last record of {self.path}, of step {self.first + self._length}, is damaged and left "
                "out. Put the file back as it was, or take that step again and append it.",
                ZooWarning,
                stacklevel=2,
            )
        if self._damaged:
            warnings.warn(
                f"{self.path} is damaged at step {self.first + self._length}: steps from there on cannot be "
                "replayed. Put the file back as it was.",
                ZooWarning,
                stacklevel=2,
            )
        self._body = self._body[: self._length * self._size]
        self._file: int | None = None

    @staticmethod
    def create(
        path: str | Path,
        params: Any,
        estimator: Seeded,
        update: Descent,
        key: Key,
        *,
        first: int = 0,
        momentum: LowRankMomentum | None = None,
    ) -> Trajectory:
        """Begin the log of a run.

        Args:
            path: Where there is nothing yet.
            params: The parameters before the first step.
            estimator: What estimates come from.
            update: What kind of steps will be taken; of a `SeededSGD` its `update`. Learning rates may change
                from step to step, all else may not.
            key: Key of the run's directions.
            first: Number of the first step.
            momentum: What steps are given as `memory`, before the first.

        Raises:
            TypeError: An argument is of the wrong kind.
            FileExistsError: There is something at `path`.
            ValueError: The law is one of your own, which a file cannot name, or decays have too many values.
            RunDirectoryError: The file cannot be written.
        """
        _check_arguments(estimator, update, key, momentum)
        path, known, first = Path(path), as_parameters(params), check_count("first", first, minimum=0)
        if path.exists():
            raise FileExistsError(f"{path} exists. Go on with it as `Trajectory(path)`, or name another.")
        law: Any = estimator.law
        if LAWS.get(law.name) is not type(law):
            raise ValueError(f"`estimator` must have one of the laws {', '.join(LAWS)}, got {law!r}.")
        if momentum is not None and momentum.state_dict()["steps"]:
            raise ValueError("`momentum` must be new: a log begins where there is none yet.")
        head = {
            "key": str(key),
            "first": first,
            "estimator": estimator.described(),
            "groups": num_groups(known),
            **_kind(update, update.decays(known), None if momentum is None else momentum.beta),
            "parameters": layout_of(known),
            "start": digest_of(known),
            **_machine(known),
        }
        text = json.dumps(head, separators=(",", ":")).encode()
        with writing(path, "Mend that and begin again."):
            write_atomically(path, _LINE + _SIZES.pack(len(text), zlib.crc32(text)) + text)
        return Trajectory(path)

    def __len__(self) -> int:
        """The number of steps."""
        return self._length

    def __enter__(self) -> Trajectory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def append(self, estimate: SeededEstimate, applied: Applied) -> None:
        """Put a step on record; when this returns, a kill of this process cannot lose it.

        Args:
            estimate: Of the step.
            applied: What `apply_` returned for it.

        Raises:
            ValueError: The step is not the next one, or was made in another way than the log says.
            RunDirectoryError: The file is damaged, or cannot be written.
        """
        if self._damaged:
            raise RunDirectoryError(f"{self.path} is damaged. Put it back as it was to go on with it.")
        wanted = self.first + self._length
        if estimate.step != wanted:
            raise ValueError(f"`estimate` must be of step {wanted}, the next one, got {estimate.step}.")
        given = {
            "key": str(estimate.key),
            "law": estimate.law.described(),
            "num_directions": len(estimate.coefficients),
            "groups": len(applied.learning_rates),
            "parameters": estimate.layout,
            **_kind(applied.update, applied.decays, applied.beta),
        }
        for name, value in given.items():
            known = self.head["estimator"] if name in self.head["estimator"] else self.head
            if known[name] != value:
                raise ValueError(
                    f"`{name}` must be that of the log, {known[name]!r}, got {value!r}; begin another log."
                )
        body = self._record.pack(*estimate.coefficients, *applied.learning_rates)
        record = body + _CHECK.pack(_checksum(self._length, body))
        with writing(self.path, "Make room and append the step again."):
            if self._file is None:
                self._file = os.open(self.path, os.O_RDWR)
            # Also after a write that failed half-way.
            os.ftruncate(self._file, self._begin + len(self._body))
            os.lseek(self._file, 0, os.SEEK_END)
            write_all(self._file, record)
        self._body += record
        self._length += 1

    def steps(self, start: int | None = None, stop: int | None = None) -> Iterator[Step]:
        """Yield the steps from number `start` to before `stop`; all by default.

        Raises:
            ValueError: They are not all in the log.
        """
        end = self.first + self._length
        start, stop = self.first if start is None else start, end if stop is None else stop
        if not self.first <= start <= stop <= end:
            raise ValueError(
                f"`start` and `stop` must be in order and from {self.first} to {end}, got {start} and {stop}."
            )
        directions = self.head["estimator"]["num_directions"]
        for step in range(start, stop):
            numbers = self._record.unpack_from(self._body, (step - self.first) * self._size)
            yield Step(step, numbers[:directions], numbers[directions:])

    def close(self) -> None:
        """Close the file, which is opened again when a step is appended."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None

    def _sound(self) -> int:
        """Return how many records from the first on are sound."""
        for number in range(len(self._body) // self._size):
            record = bytes(self._body[number * self._size : (number + 1) * self._size])
            body = record[: self._record.size]
            if _CHECK.unpack(record[self._record.size :])[0] != _checksum(number, body):
                return number
        return len(self._body) // self._size


def replay_(
    params: Any,
    log: str | Path | Trajectory,
    *,
    start: int | None = None,
    stop: int | None = None,
    momentum: LowRankMomentum | None = None,
) -> LowRankMomentum | None:
    """Take the steps of a log again, without a forward pass; the weights end with the same bits.

    Args:
        params: The parameters as they were before step `start`.
        log: A log, or where one is.
        start: Number of the first step to take; that of the log by default.
        stop: Number of the step to stop before; all by default.
        momentum: That before step `start`, for a log with momentum that is not replayed from its beginning.

    Returns:
        The momentum after the last step, with which training goes on; None for logs without.

    Raises:
        ValueError: The parameters have other names, shapes or dtypes than the log's, are not those it began
            with, or are on another kind of device; the steps are not in the log; or `momentum` is not of the
            log's kind, or not that before the first step.

    Warns:
        ZooWarning: Another version of torch, or a processor with other instructions, made the log.
    """
    log = log if isinstance(log, Trajectory) else Trajectory(log)
    known, head = as_parameters(params), log.head
    start = log.first if start is None else start
    _check(known, log, from_start=start == log.first)
    momentum = _momentum(log, start, momentum)
    # Rates are those on record, and decays are looked up for each tensor.
    update = Descent(sign=head["sign"], normalised=head["normalised"])
    decays = tuple(head["decays"][_DIGITS.index(digit)] for digit in head["decayed"])
    decays = decays or (0.0,) * len(known)
    for step, coefficients, rates in log.steps(start, stop):
        valid = int(np.isfinite(coefficients).sum())
        estimate = SeededEstimate(
            log.key, step, log.law, coefficients, float("nan"), valid, 0, head["parameters"]
        )
        move_(known, estimate, update, rates, decays, momentum)
    return momentum


def _momentum(log: Trajectory, start: int, given: LowRankMomentum | None) -> LowRankMomentum | None:
    """Return the momentum before a step, None for logs without."""
    beta = log.head["momentum"]
    if given is None:
        if beta is None or start == log.first:
            return None if beta is None else LowRankMomentum(beta)
        raise ValueError(f"`momentum` must be given to replay from step {start}: the log began before.")
    if beta is None:
        raise ValueError(f"`momentum` must be left out: the steps of {log.path} were taken without.")
    if given.beta != beta:
        raise ValueError(
            f"`momentum` must have beta = {beta:g}, that of {log.path}, and it has beta = {given.beta:g}."
        )
    if start == log.first and given.state_dict()["steps"]:
        raise ValueError(f"`momentum` must be new: {log.path} begins where there is none yet.")
    return given


def digest_of(params: Parameters) -> str:
    """Return 16 hexadecimal digits that parameters with the same bits share."""
    total = hashlib.blake2b(digest_size=8)
    for tensor in params.tensors:
        flat = in_memory_order(tensor).view(-1)
        for start, stop in pieces(tensor):
            total.update(flat[start:stop].cpu().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _check(params: Parameters, log: Trajectory, *, from_start: bool) -> None:
    head, machine = log.head, _machine(params)
    if layout_of(params) != head["parameters"]:
        raise ValueError(
            f"`params` must be those that {log.path} was made of, in the same order and form: they have "
            "other names, shapes or dtypes."
        )
    if machine["device"] != head["device"]:
        raise ValueError(
            f"`params` must be on {head['device']}, where the log was made, got {machine['device']}: other "
            "devices draw other numbers."
        )
    if from_start and digest_of(params) != head["start"]:
        raise ValueError(
            f"`params` must be those before step {log.first} of {log.path}, to the last bit, and they are "
            "others. Load the weights that training began with, or name the step they are before as `start`."
        )
    if machine != {name: head[name] for name in machine}:
        warnings.warn(
            f"{log.path} was made with torch {head['torch']} and {head['cpu']} instructions, here it is "
            f"{machine['torch']} and {machine['cpu']}: the weights may differ in the last bits.",
            ZooWarning,
            stacklevel=3,
        )


def _check_arguments(estimator: Any, update: Any, key: Any, momentum: Any) -> None:
    if not isinstance(estimator, Seeded):
        raise TypeError(f"`estimator` must be a Seeded, such as Seeded(), got {estimator!r}.")
    if not isinstance(update, Descent):
        raise TypeError(f"`update` must be a Descent, such as Descent(1e-3), got {update!r}.")
    if not isinstance(key, Key):
        raise TypeError(f"`key` must be a Key, such as Key(0), got {key!r}.")
    if not (momentum is None or isinstance(momentum, LowRankMomentum)):
        raise TypeError(f"`momentum` must be a LowRankMomentum or None, got {momentum!r}.")


def _kind(update: Descent, decays: tuple[float, ...], beta: float | None) -> dict[str, Any]:
    """Return what a step is like, aside from its learning rates; one digit for each tensor that may decay."""
    values = sorted(set(decays) | {0.0})
    if len(values) > len(_DIGITS):
        raise ValueError(f"`weight_decay` must have at most {len(_DIGITS) - 1} values in a log.")
    return {
        "momentum": beta,
        "sign": update.sign,
        "normalised": update.normalised,
        "decays": values,
        "decayed": "".join(_DIGITS[values.index(decay)] for decay in decays) if any(decays) else "",
    }


def _machine(params: Parameters) -> dict[str, str]:
    device = params.tensors[0].device
    on_cpu = device.type == "cpu"
    return {
        "device": device.type,
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability() if on_cpu else torch.cuda.get_device_name(device),
    }


def _read_head(path: Path, data: bytes) -> tuple[dict[str, Any], int]:
    """Return the head of a log, and where its records begin."""
    behind = len(_LINE) + _SIZES.size
    if not data.startswith(_LINE):
        newer = data.startswith(_LINE.rsplit(b" ", 1)[0])
        raise RunDirectoryError(
            f"{path} was written by another version of gradfree. Update gradfree to read it."
            if newer
            else f"{path} is not a log of a trajectory."
        )
    if len(data) >= behind:
        length, checksum = _SIZES.unpack_from(data, len(_LINE))
        text = data[behind : behind + length]
        if len(text) == length and zlib.crc32(text) == checksum:
            return json.loads(text), behind + length
    raise RunDirectoryError(f"{path} is damaged in its head. Put it back as it was.")


def _checksum(number: int, body: bytes) -> int:
    return zlib.crc32(_CHECK.pack(number) + body)
