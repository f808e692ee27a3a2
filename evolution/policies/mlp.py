"""Multi-layer perceptrons in numpy: small networks for many members at once, larger ones one by one."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evolution.environments.spaces import Spaces
from evolution.policies.actions import outputs_of
from evolution.policies.columns import (
    SIDE_BY_SIDE,
    SMALL,
    Columns,
    Step,
    check_sizes,
    inputs_of,
    side_by_side,
)
from evolution.policies.policy import Actor, Piece, Policy
from zoo.core.validation import check_choice

Array = np.ndarray[Any, Any]

ACTIVATIONS = ("tanh", "relu")
_ZERO = np.zeros((), np.float32)


@dataclass(frozen=True)
class MLP(Policy):
    """Layers of weighted sums, with tanh or max(0, x) between them.

        h_0 = observation,  h_j = activation(W_j h_(j-1) + b_j),  outputs = W h + b

    and from outputs to actions as `evolution.policies.actions.rule_of` says; for numbers between two walls an
    output of 0 is the middle, and one of -1 or 1 a wall. First policies have W ~ N(0, 1 / inputs) and b = 0.

    Pieces are named as in the `state_dict` of a `torch.nn.Sequential` of linear layers and activations.

    How it is computed depends on its size and the number of members alone:

    * up to 16,384 parameters: every sum is taken term by term, in the same order for one episode and for
      thousands, of one member or of many. An episode is the same bits whatever runs beside it.
    * above: by BLAS, member by member, the episodes of one member in one product. Sums are then the same for
      the same episodes side by side, and else to rounding.

    Args:
        spaces: What it sees, a vector, and what it does.
        hidden: Sizes of the layers between; none for a linear policy.
        activation: "tanh" or "relu".

    Raises:
        TypeError: `hidden` is not a sequence of integers.
        ValueError: Observations are pictures, a size is below 1, or the activation is unknown.

    Example:
        >>> from evolution.environments.spaces import Discrete, Vector
        >>> policy = MLP(Spaces(Vector(4), Discrete(2)), hidden=(32,))
        >>> policy.dim, [piece.name for piece in policy.pieces]
        (226, ['0.weight', '0.bias', '2.weight', '2.bias'])
        >>> actor = policy.actor(np.ones((1, 226), np.float32), np.array([0, 0]))
        >>> actor.act(np.zeros((4, 2), np.float32))
        array([0, 0])
    """

    spaces: Spaces
    hidden: Sequence[int] = (32,)
    activation: str = "tanh"
    pieces: tuple[Piece, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        seen = inputs_of(self.spaces)
        object.__setattr__(self, "hidden", check_sizes("hidden", self.hidden))
        check_choice("activation", self.activation, ACTIVATIONS)
        pieces: list[Piece] = []
        sizes = [seen, *self.hidden, outputs_of(self.spaces.actions)]
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            pieces.append(Piece(f"{2 * i}.weight", (outputs, inputs), 1 / math.sqrt(inputs)))
            pieces.append(Piece(f"{2 * i}.bias", (outputs,), 0.0))
        object.__setattr__(self, "pieces", tuple(pieces))

    @property
    def members(self) -> int:  # type: ignore[override]
        return SIDE_BY_SIDE if self.dim <= SMALL else 1

    def actor(self, parameters: Array, of: Array) -> Actor:
        return side_by_side(self, functools.partial(_Layers, self), parameters, of)

    def describe(self) -> dict[str, Any]:
        return {"name": "mlp", "hidden": list(self.hidden), "activation": self.activation}


class _Layers(Columns):
    """Perceptrons at work."""

    def __init__(self, policy: MLP, parameters: Array, of: Array) -> None:
        self._activation = policy.activation
        names = [piece.name for piece in policy.pieces]
        super().__init__(policy, list(zip(names[::2], names[1::2], strict=True)), parameters, of)

    def _connect(self, blocks: list[Array]) -> tuple[Array, list[Step], Array]:
        steps: list[Step] = []
        values = first = self._empty(len(blocks[0]) - 1, with_one=True)
        for block in blocks[:-1]:
            size = block.shape[1]
            after = self._empty(size, with_one=True)
            sums = after[:size]
            steps.append(self._apply(block, values, sums))
            if self._activation == "tanh":
                steps.append(functools.partial(np.tanh, sums, out=sums))
            else:
                steps.append(functools.partial(np.maximum, sums, _ZERO, out=sums))
            values = after
        outputs = self._empty(blocks[-1].shape[1])
        steps.append(self._apply(blocks[-1], values, outputs))
        return first[:-1].reshape(-1, self._k), steps, outputs
