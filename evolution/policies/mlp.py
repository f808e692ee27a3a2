"""Multi-layer perceptrons in numpy: small networks for many members at once, larger ones one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evolution.environments.spaces import Image, Spaces
from evolution.policies.actions import Rule, outputs_of, rule_of
from evolution.policies.policy import Actor, Piece, Policy
from zoo.core.validation import check_choice, check_count

Array = np.ndarray[Any, Any]

ACTIVATIONS = ("tanh", "relu")
SMALL = 16_384
"""Parameters up to which members are computed side by side: their weights are read in every step, and those
of more members than fit into a core's cache come from memory, which takes as long as a product by BLAS."""
SIDE_BY_SIDE = 256
_LEFT = 0.75  # share of the episodes below which the weights of the others are let go


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
    * above: by BLAS, member by member, the episodes of one member in one product. Sums are then
      the same for the same episodes side by side, and to rounding else.

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
        check_vector(self.spaces)
        sizes = check_sizes("hidden", self.hidden)
        check_choice("activation", self.activation, ACTIVATIONS)
        object.__setattr__(self, "hidden", sizes)
        pieces: list[Piece] = []
        for i, (inputs, outputs) in enumerate(self._shapes):
            pieces.append(Piece(f"{2 * i}.weight", (outputs, inputs), 1 / math.sqrt(inputs)))
            pieces.append(Piece(f"{2 * i}.bias", (outputs,), 0.0))
        object.__setattr__(self, "pieces", tuple(pieces))

    @property
    def _shapes(self) -> list[tuple[int, int]]:
        sizes = [self.spaces.observations.size, *self.hidden, outputs_of(self.spaces.actions)]  # type: ignore[union-attr]
        return list(itertools.pairwise(sizes))

    @property
    def members(self) -> int:  # type: ignore[override]
        return SIDE_BY_SIDE if self.dim <= SMALL else 1

    def actor(self, parameters: Array, of: Array) -> Actor:
        if self.dim <= SMALL:
            return _Columns(self, parameters, np.asarray(of))
        return _Products(self, parameters, np.asarray(of))

    def describe(self) -> dict[str, Any]:
        return {"name": "mlp", "hidden": list(self.hidden), "activation": self.activation}


class _Columns(Actor):
    """Episodes as columns, with the weights of each beside it: arrays of (inputs, outputs, k).

    The last input of a layer is 1 and its weights are the bias. Sums over inputs go in order, a product and
    an addition at a time, whatever k is: this is what `einsum` does where the other axes are further inside.
    """

    def __init__(self, policy: MLP, parameters: Array, of: Array) -> None:
        self._rule: Rule = rule_of(policy.spaces.actions)
        self._is_tanh = policy.activation == "tanh"
        self._shapes = policy._shapes
        self._is_one = len(of) == 0 or bool(of[0] == of[-1])
        used = parameters[of[:1]] if self._is_one else parameters[of]
        self._weights = feature_major(used, self._shapes)
        self._live: Array | None = None
        self._arrange(len(of))

    def _arrange(self, k: int) -> None:
        """Cut what a step needs out of memory once, not in every step."""
        self._k = k
        terms = "io,ik->ok" if self._is_one else "iok,ik->ok"
        if k == 1:
            terms = "io,i->o"
        tail = () if k == 1 else (k,)
        start, layers, inputs = 0, [], None
        for i, (rows, columns) in enumerate(self._shapes):
            size = (rows + 1) * columns
            weights = self._weights[start : start + size].reshape(rows + 1, columns, -1)
            start += size
            if terms != "iok,ik->ok":
                weights = weights[:, :, 0]
            if inputs is None:
                inputs = np.ones((rows + 1, *tail), np.float32)
                self._seen = inputs[:rows].reshape(rows, k)
            is_last = i == len(self._shapes) - 1
            whole = np.ones((columns + (not is_last), *tail), np.float32)
            layers.append((weights, inputs, whole[:columns], is_last))
            inputs = whole
        self._layers = [(terms, *layer) for layer in layers]
        self._outputs = whole.reshape(-1, k)

    def act(self, observations: Array) -> Array:
        live = self._live
        if live is None:
            self._seen[...] = observations
        else:
            self._seen[:, live] = observations
        for terms, weights, inputs, sums, is_last in self._layers:
            np.einsum(terms, weights, inputs, out=sums)
            if is_last:
                break
            if self._is_tanh:
                np.tanh(sums, out=sums)
            else:
                np.maximum(sums, _ZERO, out=sums)
        return self._rule(self._outputs if live is None else self._outputs.take(live, axis=1))

    def keep(self, which: Array) -> None:
        if self._is_one:
            self._arrange(len(which))
            return
        live = which if self._live is None else self._live[which]
        if len(live) > _LEFT * self._k:
            self._live = live
            return
        self._weights = self._weights.take(live, axis=1)
        self._live = None
        self._arrange(len(live))


class _Products(Actor):
    """Episodes as columns, one product of BLAS for those of each member."""

    def __init__(self, policy: MLP, parameters: Array, of: Array) -> None:
        self._rule: Rule = rule_of(policy.spaces.actions)
        self._is_tanh = policy.activation == "tanh"
        self._of = of
        tensors = {int(row): policy.tensors(parameters[row]) for row in np.unique(of)}
        self._layers = {
            row: [
                (found[f"{2 * i}.weight"], found[f"{2 * i}.bias"].reshape(-1, 1))
                for i in range(len(policy._shapes))
            ]
            for row, found in tensors.items()
        }
        self._outputs = outputs_of(policy.spaces.actions)
        self._arrange()

    def _arrange(self) -> None:
        rows, starts = np.unique(self._of, return_index=True)
        ends = [*starts[1:].tolist(), len(self._of)]
        self._groups = [
            (self._layers[int(row)], slice(int(start), end))
            for row, start, end in zip(rows, starts, ends, strict=True)
        ]

    def act(self, observations: Array) -> Array:
        if len(self._groups) == 1:
            return self._rule(self._forward(self._groups[0][0], observations))
        outputs = np.empty((self._outputs, observations.shape[1]), np.float32)
        for layers, columns in self._groups:
            outputs[:, columns] = self._forward(layers, observations[:, columns])
        return self._rule(outputs)

    def _forward(self, layers: list[tuple[Array, Array]], values: Array) -> Array:
        last = len(layers) - 1
        for i, (weights, bias) in enumerate(layers):
            values = weights.dot(values)
            values += bias
            if i == last:
                break
            if self._is_tanh:
                np.tanh(values, out=values)
            else:
                np.maximum(values, _ZERO, out=values)
        return values

    def keep(self, which: Array) -> None:
        self._of = self._of[which]
        self._arrange()


_ZERO = np.zeros((), np.float32)


def feature_major(parameters: Array, shapes: Sequence[tuple[int, int]]) -> Array:
    """Return rows as columns, float32 of shape (dim, k), in each layer inputs before outputs, bias last.

    Args:
        parameters: Shape (k, dim): in each layer weights of shape (outputs, inputs), then the bias.
        shapes: Inputs and outputs of each layer.
    """
    k = len(parameters)
    columns = np.empty((parameters.shape[1], k), np.float32)
    start = 0
    for inputs, outputs in shapes:
        middle, stop = start + inputs * outputs, start + (inputs + 1) * outputs
        weights = parameters[:, start:middle].reshape(k, outputs, inputs)
        columns[start:middle].reshape(inputs, outputs, k)[...] = weights.transpose(2, 1, 0)
        columns[middle:stop] = parameters[:, middle:stop].T
        start = stop
    return columns


def check_vector(spaces: Spaces) -> None:
    """Raise unless observations are rows of numbers."""
    seen = spaces.observations
    if isinstance(seen, Image):
        raise ValueError(
            f"`spaces` must have vectors as observations, got pictures of "
            f"{seen.channels} x {seen.height} x {seen.width}: use a network of convolutions."
        )


def check_sizes(name: str, sizes: object) -> tuple[int, ...]:
    """Return sizes of layers as a tuple, or raise unless they are integers of at least 1."""
    if isinstance(sizes, str) or not isinstance(sizes, Sequence):
        raise TypeError(f"`{name}` must be a sequence of integers such as (32, 32), got {sizes!r}.")
    return tuple(check_count(name, size) for size in sizes)
