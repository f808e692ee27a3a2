"""What arguments stand for: which are refused, before anything is tried."""

import re

import numpy as np
import pytest

from evolution.setting import Setting
from zoo.core.rng import Key

GIVEN = {
    "environment": "cart-pole",
    "environment_options": {},
    "method": "deep-ga",
    "options": {},
    "policy": None,
    "policy_options": {},
    "max_steps": None,
    "behaviour": None,
    "normalize": False,
    "noise_table": None,
    "start": None,
}
START = np.zeros(226, np.float32)


def setting(**changes):
    return Setting.of({**GIVEN, **changes}, Key(0))


MAZE = {"environment": "maze"}
REFUSED = {
    "table-of-es": (
        {"method": "openai-es", "noise_table": 4096},
        ValueError,
        "`noise_table` must be left out for the method 'openai-es', which reads no mutations from one: give "
        "its option of that name",
    ),
    "no-table-of-es": ({"method": "openai-es", "noise_table": 0}, ValueError, "must be left out"),
    "table-of-cma": (
        {"method": "cma", "noise_table": 4096},
        ValueError,
        "`noise_table` must be left out for the method 'cma', which reads no mutations from one.",
    ),
    "table-of-novelty": (
        {**MAZE, "method": "ns-es", "noise_table": 10**6},
        ValueError,
        "`noise_table` must be left out for the method 'ns-es', which reads no mutations from one: give its",
    ),
    "short-table": ({"noise_table": 100}, ValueError, "`noise_table` must have from 226 numbers"),
    "long-table": ({"noise_table": 2**33}, ValueError, "to 2^32, got 8589934592: better some ten times"),
    "codec": (
        {"options": {"codec": 3}},
        TypeError,
        "unknown option of method 'deep-ga': 'codec'. Valid: 'elite_candidates'",
    ),
    "sigma-below-0": (
        {"options": {"sigma": -1.0}},
        ValueError,
        "`sigma` must be a finite number above 0, got",
    ),
    "no-number": ({"options": {"sigma": "a"}}, TypeError, "`sigma` must be a number, got 'a'."),
    "large-sigma": (
        {"options": {"sigma": 1e39}},
        ValueError,
        "`sigma` must be at most 1e+30, as parameters are float32, got 1e+39.",
    ),
    "large-sigma-of-novelty": (
        {**MAZE, "method": "nsra-es", "options": {"sigma": 1e39}},
        ValueError,
        "`sigma` must be at most 1e+30",
    ),
}


@pytest.mark.parametrize(("changes", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(changes, kind, message):
    starts = [None] if changes.get("method") or "noise_table" in changes else [None, START]
    for start in starts:
        with pytest.raises(kind, match=re.escape(message)):
            setting(**changes, start=start)


def test_what_is_meant_is_taken():
    made = setting(noise_table=4096, options={"sigma": 1e30}, start=START)
    assert made.codec.noise.size == 4096
    assert {piece.std for piece in made.codec.pieces} == {1e30}
    table = setting(method="openai-es", options={"noise_table": 4096, "population_size": 4})
    assert table.codec is None
    assert table.method.method.noise_table == 4096
