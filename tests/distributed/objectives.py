"""Objectives for workers to evaluate, some of which misbehave."""

import os
import signal
import time

import numpy as np

from zoo.core.objective import Objective
from zoo.core.rng import Key
from zoo.core.types import Rows


def points(n=24, dim=5, seed=0):
    """Return candidates whose first coordinate is their number."""
    x = Key(seed).normal(0, n, dim)
    x[:, 0] = np.arange(n)
    return Rows(x)


def wave(x):
    return float(np.sin(x).sum() + x @ x)


def slow_wave(x):
    """Take up to 20 ms, longest where it hurts most: at random."""
    time.sleep(0.02 * abs(float(np.sin(1000.0 * x[1]))))
    return wave(x)


def ends_at_seven(x):
    if x[0] == 7:
        os._exit(5)
    return wave(x)


def segfaults_at_seven(x):
    if x[0] == 7:
        os.kill(os.getpid(), signal.SIGSEGV)
    return wave(x)


def ends_at_seven_leaving_a_child(x):
    """The child holds on to every open file, and so to the connection with the driver."""
    if x[0] == 7:
        if os.fork() == 0:
            time.sleep(5.0)
        os._exit(5)
    return wave(x)


def always_ends(x):
    os._exit(9)


def raises_at_seven(x):
    if x[0] == 7:
        raise ValueError("seven")
    return wave(x)


def sleeps(x):
    time.sleep(60.0)
    return 0.0


def variables(x):
    """Return what the numerical libraries are told about threads, as one number."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return float("".join(os.environ[name] for name in names))


class Batches(Objective):
    """Many points per call, the sum over the batch in every value, so that merged units would show."""

    unit = 5

    def __call__(self, x, *, key):
        return (x**2).sum(1) + x.sum() + float(key.normal(0, 1, 1)[0, 0])


class Unloadable(Objective):
    """An objective that a worker cannot load."""

    def __reduce__(self):
        return _explode, ()


def _explode():
    raise ImportError("libfoo.so.7: cannot open shared object file")


class Fatal(Objective):
    """An objective whose loading ends the process."""

    def __reduce__(self):
        return os._exit, (3,)
