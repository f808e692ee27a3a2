"""Two objectives of one name are told apart where that is possible."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from zoo.core.fingerprint import describe, digest


def shifted(x, by=0.0):
    return float(((x - by) ** 2).sum())


class Model:
    def __init__(self, at):
        self.at, self._calls, self.calls, self.log = at, 0, 0, []

    def __call__(self, x):
        self.calls += 1
        return shifted(x, self.at)

    def loss(self, x):
        return shifted(x, self.at)


def closure(at):
    log, calls = [], 0

    def fun(x):
        nonlocal calls
        calls += 1
        log.append(1)
        return shifted(x, at)

    return fun


def test_names():
    assert describe(shifted)["name"] == f"{__name__}:shifted"
    assert describe(partial(shifted, by=1))["name"] == f"{__name__}:shifted"
    assert describe(Model(1))["name"] == f"{__name__}:Model"
    assert describe(Model(1).loss)["name"] == f"{__name__}:Model.loss"


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        (partial(shifted, by=1), partial(shifted, by=2), "arguments"),
        (partial(shifted, by=np.ones(2)), partial(shifted, by=np.zeros(2)), "arguments"),
        (partial(shifted, by=1), partial(shifted, by=1.0), "arguments"),
        (Model(1), Model(2), "attributes"),
        (Model(1).loss, Model(2).loss, "attributes"),
        (closure(1), closure(2), "attributes"),
        (lambda x: x + 1, lambda x: x + 2, "code"),
        (lambda x, a=1: x, lambda x, a=2: x, "arguments"),
    ],
)
def test_what_differs_shows(one, other, where):
    first, second = describe(one), describe(other)
    assert first["name"] == second["name"]
    assert first[where] != second[where]
    assert {k: v for k, v in first.items() if k != where} == {k: v for k, v in second.items() if k != where}


def test_arguments_of_the_call_show():
    assert describe(shifted, (1,)) != describe(shifted, (2,))
    assert describe(shifted, (1,)) == describe(shifted, (1,))


def test_what_a_run_changes_does_not_show():
    model, fun = Model(1), closure(1)
    before = describe(model), describe(fun)
    model(np.ones(1))
    model._calls, model.log = 7, [1, 2]
    fun(np.ones(1))
    assert (describe(model), describe(fun)) == before


def test_builtins_have_a_name_at_least():
    assert describe(abs) == {"name": "builtins:abs"}


def test_digests_are_the_same_in_another_process():
    program = (
        "import numpy as np; from zoo.core.fingerprint import digest; f = compile('f(1)', '', 'eval'); "
        "print(digest([{'a', 'b', 'c'}, {'x': 1, 'y': (2.5, None)}, np.arange(3), f]))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(3)
    }
    value = [{"a", "b", "c"}, {"y": (2.5, None), "x": 1}, np.arange(3), compile("f(1)", "", "eval")]
    assert seen == {digest(value)}


def test_what_refers_to_itself_ends():
    loop = [1]
    loop.append(loop)
    assert len(digest(loop)) == 16
