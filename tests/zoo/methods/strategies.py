"""What the tests of the evolution strategies share."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.core.device import to_numpy
from zoo.core.types import Evaluations

NAN = np.nan


def rows_of(method: Any, state: Any) -> np.ndarray[Any, Any]:
    """Return the candidates of a state, in double precision."""
    asked = method.ask(state)
    return to_numpy(asked.rows(0, len(asked))).astype(np.float64)


def bowl(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    weights = np.arange(1.0, rows.shape[1] + 1)
    values: np.ndarray[Any, Any] = ((rows - 0.3) ** 2 * weights).sum(1)
    return values


def told(method: Any, state: Any, values: Any) -> Any:
    return method.tell(state, Evaluations(np.asarray(values)))


def after(method: Any, state: Any, steps: int, fun: Any = bowl) -> Any:
    """Return the state some steps later."""
    for _ in range(steps):
        state = told(method, state, fun(rows_of(method, state)))
    return state
