"""GPUs of workers: how many each is given, how many there are, and who gets which."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from zoo.core.validation import check_number

VARIABLE = "CUDA_VISIBLE_DEVICES"
"""Names the GPUs that a process may see; empty, it sees none."""

_DRIVER = Path("/proc/driver/nvidia/gpus")
_COMPLAINT = re.compile(r"CUDA|NVIDIA|\bGPUs?\b", re.IGNORECASE)


def check_gpus(value: object) -> float:
    """Return a number of GPUs for each worker as a float, or raise unless it is one that can be given.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, or above 1 and not whole.
    """
    number = check_number("gpus_per_worker", value)
    if not (number >= 0 and (number < 1 or number.is_integer())):
        raise ValueError(
            "`gpus_per_worker` must be 0, a fraction below 1 for workers that share GPUs, or a whole "
            f"number, got {value!r}."
        )
    return number


def gpus_needed(num_workers: int, gpus_per_worker: float) -> int:
    """Return how many GPUs it takes; a fraction is always one of a single GPU."""
    if not 0 < gpus_per_worker < 1:
        return num_workers * int(gpus_per_worker)
    return math.ceil(num_workers / int(1 / gpus_per_worker + 1e-9))


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process sees; none of them is opened."""
    named = os.environ.get(VARIABLE)
    if named is None:
        return [str(number) for number in range(_count())]
    found = []
    for name in map(str.strip, named.split(",")):
        if not re.match(r"\d+$|GPU-|MIG-", name):
            break  # what CUDA does not know hides all that follows
        found.append(name)
    return found


def shared_out(num_workers: int, gpus_per_worker: float) -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES is to be for each worker, the GPUs being shared out evenly.

    Raises:
        ValueError: There are too few.
    """
    needed = gpus_needed(num_workers, gpus_per_worker)
    if not needed:
        return [""] * num_workers
    gpus = visible_gpus()
    if len(gpus) < needed:
        raise ValueError(_too_few(num_workers, gpus_per_worker, needed, gpus))
    if gpus_per_worker < 1:
        return [gpus[worker % len(gpus)] for worker in range(num_workers)]
    each = int(gpus_per_worker)
    return [",".join(gpus[worker * each : (worker + 1) * each]) for worker in range(num_workers)]


def explained(message: str) -> str:
    """Return what was raised on a worker, with advice if it is about a GPU that the worker was not given."""
    first, end, rest = message.partition("\n")
    if os.environ.get(VARIABLE) != "" or "gpus_per_worker" in first or not _COMPLAINT.search(first):
        return message
    advice = "this worker has no GPU: give it one, or a share of one, by `gpus_per_worker`"
    return f"{first} ({advice}){end}{rest}"


def _count() -> int:
    """Return how many GPUs there are, without opening one."""
    if _DRIVER.is_dir():
        return len(list(_DRIVER.iterdir()))
    try:
        import torch
    except ModuleNotFoundError:
        return 0
    return torch.cuda.device_count()


def _too_few(num_workers: int, gpus_per_worker: float, needed: int, gpus: Sequence[str]) -> str:
    named = os.environ.get(VARIABLE)
    said = f"{VARIABLE} is {'not set' if named is None else repr(named)}"
    advice = "Ask for fewer workers"
    if gpus and gpus_per_worker <= 1:
        advice += f", or have more of them share one: gpus_per_worker=1/{-(-num_workers // len(gpus))}"
    elif not gpus:
        advice = "Use gpus_per_worker=0, and an objective that keeps to the CPU"
    return (
        f"{num_workers} worker{'s' * (num_workers > 1)} with gpus_per_worker={gpus_per_worker:g} need "
        f"{needed} GPU{'s' * (needed > 1)}, and this machine has {len(gpus) or 'none'} that can be seen "
        f"({said}). {advice}."
    )
