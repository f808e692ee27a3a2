"""Policies that remember, in numpy."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evolution.environments.spaces import Spaces
from evolution.policies.actions import outputs_of
from evolution.policies.columns import SIDE_BY_SIDE, SMALL, Columns, Step, inputs_of, side_by_side
from evolution.policies.policy import Actor, Piece, Policy
from zoo.core.validation import check_choice, check_count

Array = np.ndarray[Any, Any]

CELLS = ("elman", "gru")
_HALF = np.array(0.5, np.float32)


@dataclass(frozen=True)
class Recurrent(Policy):
    """A cell that remembers numbers from step to step, and a layer that turns them into actions.

    Elman's cell and the gated recurrent unit, with x what is observed and h what is remembered:

        elman:  h <- tanh(W x + b + U h + c)
        gru:    r = s(W_r x + b_r + U_r h + c_r),    z = s(W_z x + b_z + U_z h + c_z)
                n = tanh(W_n x + b_n + r (U_n h + c_n)),    h <- (1 - z) n + z h

    with s(a) = 1 / (1 + e^-a), in float32 taken as (1 + tanh(a / 2)) / 2, which does not overflow. An episode
    begins with h = 0. Outputs are W h + b of the new h; see `evolution.policies.actions.rule_of` for actions.
    First policies have weights from N(0, 1 / inputs) and biases of 0.

    Pieces are named as in the `state_dict` of a module with a `torch.nn.RNNCell` or `torch.nn.GRUCell` that
    is called `cell` and a `torch.nn.Linear` that is called `out`. It is computed as `MLP` is.

    Args:
        spaces: What it sees, a vector, and what it does.
        hidden: How many numbers it remembers.
        cell: "elman" or "gru".

    Raises:
        TypeError: `hidden` is not an integer.
        ValueError: Observations are pictures, `hidden` is below 1, or the cell is unknown.

    Example:
        >>> from evolution.environments.spaces import Discrete, Vector
        >>> policy = Recurrent(Spaces(Vector(2), Discrete(2)), hidden=8, cell="elman")
        >>> [piece.name for piece in policy.pieces][:3]
        ['cell.weight_ih', 'cell.weight_hh', 'cell.bias_ih']

    References:
        Elman, "Finding structure in time", 1990. https://doi.org/10.1207/s15516709cog1402_1
        Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
        translation", 2014. https://arxiv.org/abs/1406.1078
    """

    spaces: Spaces
    hidden: int = 32
    cell: str = "gru"
    pieces: tuple[Piece, ...] = field(init=False, repr=False, compare=False)

    is_recurrent = True

    def __post_init__(self) -> None:
        inputs, hidden = inputs_of(self.spaces), check_count("hidden", self.hidden)
        check_choice("cell", self.cell, CELLS)
        outputs = outputs_of(self.spaces.actions)
        rows = hidden if self.cell == "elman" else 3 * hidden
        pieces = (
            Piece("cell.weight_ih", (rows, inputs), 1 / math.sqrt(inputs)),
            Piece("cell.weight_hh", (rows, hidden), 1 / math.sqrt(hidden)),
            Piece("cell.bias_ih", (rows,), 0.0),
            Piece("cell.bias_hh", (rows,), 0.0),
            Piece("out.weight", (outputs, hidden), 1 / math.sqrt(hidden)),
            Piece("out.bias", (outputs,), 0.0),
        )
        object.__setattr__(self, "pieces", pieces)

    @property
    def members(self) -> int:  # type: ignore[override]
        return SIDE_BY_SIDE if self.dim <= SMALL else 1

    def actor(self, parameters: Array, of: Array) -> Actor:
        return side_by_side(self, functools.partial(_Cell, self), parameters, of)

    def describe(self) -> dict[str, Any]:
        return {"name": "recurrent", "hidden": self.hidden, "cell": self.cell}


class _Cell(Columns):
    """Cells at work."""

    def __init__(self, policy: Recurrent, parameters: Array, of: Array) -> None:
        self._cell = policy.cell
        self._memory = np.zeros((policy.hidden, len(of)), np.float32)
        names = [
            ("cell.weight_ih", "cell.bias_ih"),
            ("cell.weight_hh", "cell.bias_hh"),
            ("out.weight", "out.bias"),
        ]
        super().__init__(policy, names, parameters, of)

    def _carry(self, which: Array) -> None:
        self._memory = self._memory.take(which, axis=1)

    def _connect(self, blocks: list[Array]) -> tuple[Array, list[Step], Array]:
        seeing, recalling, telling = blocks
        size, rows = len(recalling) - 1, seeing.shape[1]
        seen = self._empty(len(seeing) - 1, with_one=True)
        whole = self._empty(size, with_one=True)
        memory = whole[:size]
        memory[...] = self._memory.reshape(memory.shape)
        self._memory = memory.reshape(size, self._k)
        fresh, recalled = self._empty(rows), self._empty(rows)
        outputs = self._empty(telling.shape[1])
        cell = _elman if self._cell == "elman" else _gru
        steps: list[Step] = [
            self._apply(seeing, seen, fresh),
            self._apply(recalling, whole, recalled),
            functools.partial(cell, memory, fresh, recalled),
            self._apply(telling, whole, outputs),
        ]
        return seen[:-1].reshape(-1, self._k), steps, outputs


def _elman(memory: Array, fresh: Array, recalled: Array) -> None:
    np.add(fresh, recalled, out=memory)
    np.tanh(memory, out=memory)


def _gru(memory: Array, fresh: Array, recalled: Array) -> None:
    size = len(memory)
    gates, last = fresh[: 2 * size], recalled[2 * size :]
    gates += recalled[: 2 * size]
    gates *= _HALF
    np.tanh(gates, out=gates)
    gates += 1
    gates *= _HALF
    reset, update = gates[:size], gates[size:]
    last *= reset
    last += fresh[2 * size :]
    np.tanh(last, out=last)
    memory -= last
    memory *= update
    memory += last  # n + z (h - n), which is (1 - z) n + z h
