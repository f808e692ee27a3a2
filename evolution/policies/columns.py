"""What policies in numpy have in common: episodes as columns, the weights of each beside it."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from evolution.environments.spaces import Image, Spaces
from evolution.policies.actions import rule_of
from evolution.policies.policy import Actor, Policy
from zoo.core.validation import check_count

Array = np.ndarray[Any, Any]
Step: TypeAlias = Callable[[], Any]

SMALL = 16_384
"""Parameters up to which members are computed side by side. Weights of one's own are read once in every
step, and those of more and larger members than fit into a core's cache come from memory, which takes as long
as a product by BLAS."""
SIDE_BY_SIDE = 256
# Nanoseconds, about; they decide when weights are moved, and so only about time.
_TO_BEGIN, _TO_MOVE = 20_000, 1.0  # again with fewer columns; and for each weight that stays
_TO_SKIP, _TO_WASTE = 5_000, 0.25  # a step past unused columns; and for each weight of these


class Columns(Actor):
    """Episodes as columns, in arrays of (numbers, k); weights in arrays of (inputs, outputs, k).

    The last input of a block of weights is 1, and its weights are the bias. Blocks are applied in one of
    three ways:

    * weights for each episode: products along the columns, added up input by input;
    * weights for all episodes, of at most `SMALL` parameters: the same products and additions in the same
      order, so that an episode is the same bits whatever runs beside it; this holds for a single one too;
    * above that: by BLAS.

    Sums are loops over one axis inside loops over the two others. Which one is inside, the episodes or the
    outputs, is decided by which makes fewer loops, and is a matter of how arrays lie in memory alone.

    Weights of episodes that ended are computed on in vain, until that has taken about as long as to move
    those of the others.

    Args:
        policy: What is computed.
        blocks: Names of its pieces, in pairs: weights of shape (outputs, inputs), and their bias.
        parameters: As in `Policy.actor`.
        of: As in `Policy.actor`.
    """

    def __init__(
        self, policy: Policy, blocks: Sequence[tuple[str, str]], parameters: Array, of: Array
    ) -> None:
        self._rule = rule_of(policy.spaces.actions)
        self._is_shared = len(of) > 0 and bool(of[0] == of[-1])
        self._is_exact = policy.dim <= SMALL or not self._is_shared
        places = policy_slices(policy)
        shapes = {piece.name: piece.shape for piece in policy.pieces}
        self._shapes = [shapes[weight] for weight, _ in blocks]
        rows = parameters[of[:1]] if self._is_shared else parameters[of]
        self._weights = np.empty((policy.dim, len(rows)), np.float32, "F" if self._is_wide(len(of)) else "C")
        for (weight, bias), block in zip(blocks, self._blocks(), strict=True):
            outputs, inputs = shapes[weight]
            given = rows[:, places[weight]].reshape(-1, outputs, inputs)
            block[:inputs] = given.transpose(2, 1, 0)
            block[inputs] = rows[:, places[bias]].T
        self._dim = policy.dim
        self._live: Array | None = None
        self._begin(len(of))

    def _is_wide(self, k: int) -> bool:
        """Return whether loops over the outputs of this many episodes are fewer than loops over these."""
        loops = sum((inputs + 1) * outputs for outputs, inputs in self._shapes)
        return self._is_exact and k * sum(inputs + 1 for _, inputs in self._shapes) < loops

    def _blocks(self) -> list[Array]:
        """Return views of the weights: (inputs + 1, outputs, columns) for each block."""
        found, start = [], 0
        for outputs, inputs in self._shapes:
            stop = start + (inputs + 1) * outputs
            found.append(self._weights[start:stop].reshape(inputs + 1, outputs, self._weights.shape[1]))
            start = stop
        return found

    def _begin(self, k: int) -> None:
        """Cut what a step needs out of memory once, not in every step."""
        self._k = k
        self._tail = () if k == 1 else (k,)
        self._order: Literal["F", "C"] = "F" if self._is_wide(k) else "C"
        if not self._is_shared:
            self._weights = np.asarray(self._weights, order=self._order)
        self._seen, self._steps, outputs = self._connect(self._blocks())
        self._outputs = outputs.reshape(-1, k)

    def _empty(self, size: int, *, with_one: bool = False) -> Array:
        """Return memory for numbers of each episode; the last one is 1 where it is to be a block's input."""
        return np.ones((size + with_one, *self._tail), np.float32, self._order)

    def _apply(self, block: Array, inputs: Array, out: Array) -> Step:
        """Return what puts the sums of a block into `out`."""
        is_own = not self._is_shared and self._k != 1
        if not is_own:
            block = block[:, :, 0]
        if not self._is_exact:
            return functools.partial(np.dot, np.ascontiguousarray(block.T), inputs, out=out)
        terms = "iok,ik->ok" if is_own else "io,i->o" if self._k == 1 else "io,ik->ok"
        if len(out) > 1:
            return functools.partial(np.einsum, terms, block, inputs, out=out)
        # There would be no axis left to loop over but the inputs', and terms be added in another order.
        block = np.concatenate([block, np.zeros_like(block)], axis=1)
        both = self._empty(2)

        def step() -> None:
            np.einsum(terms, block, inputs, out=both)
            np.copyto(out, both[:1])

        return step

    @abc.abstractmethod
    def _connect(self, blocks: list[Array]) -> tuple[Array, list[Step], Array]:
        """Return where observations go, what is then done, and where the outputs are.

        Memory is as `_empty` gives it.
        """

    def _carry(self, which: Array) -> None:
        """Go on with what is remembered of these columns."""

    def act(self, observations: Array) -> Array:
        live = self._live
        if live is None:
            self._seen[...] = observations
        else:
            self._owed -= self._rate
            if self._owed < 0:
                self._move(live)
                return self.act(observations)
            self._seen[:, live] = observations
        for step in self._steps:
            step()
        return self._rule(self._outputs if live is None else self._outputs.take(live, axis=1))

    def keep(self, which: Array) -> None:
        if self._is_shared or len(which) < 2:
            self._move(which if self._live is None else self._live[which])
            return
        if self._live is None:
            self._live, self._owed = which, _TO_BEGIN + _TO_MOVE * self._dim * len(which)
        else:
            self._live = self._live[which]
        self._rate = _TO_SKIP + _TO_WASTE * self._dim * (self._k - len(which))

    def _move(self, live: Array) -> None:
        """Go on with these columns alone."""
        if not self._is_shared:
            self._weights = _taken(self._weights, live)
        self._live = None
        self._carry(live)
        self._begin(len(live))


def _taken(columns: Array, which: Array) -> Array:
    """Return some of the columns, which lie in memory as they did."""
    if columns.flags.f_contiguous:
        return columns.T.take(which, axis=0).T
    return columns.take(which, axis=1)


class Several(Actor):
    """Members one after the other, each with all its episodes.

    Runs do not put several members of such policies side by side; it is for other callers of `Policy.actor`.

    Args:
        actors: One for each member.
        counts: How many episodes each is at work in.
    """

    def __init__(self, actors: Sequence[Actor], counts: Sequence[int]) -> None:
        self._actors = list(actors)
        self._ends = np.cumsum(counts)

    def act(self, observations: Array) -> Array:
        columns = np.split(observations, self._ends[:-1], axis=1)
        found = [actor.act(seen) for actor, seen in zip(self._actors, columns, strict=True)]
        return np.concatenate(found, axis=-1)

    def keep(self, which: Array) -> None:
        starts = np.concatenate([[0], self._ends[:-1]])
        left = [
            (actor, which[(which >= start) & (which < end)] - start)
            for actor, start, end in zip(self._actors, starts, self._ends, strict=True)
        ]
        left = [(actor, own) for actor, own in left if len(own)]
        for actor, own in left:
            actor.keep(own)
        self._actors = [actor for actor, _ in left]
        self._ends = np.cumsum([len(own) for _, own in left])


def side_by_side(
    policy: Policy, build: Callable[[Array, Array], Actor], parameters: Array, of: Array
) -> Actor:
    """Return an actor for all episodes, or one for each member where these are too large to be mixed."""
    of = np.asarray(of)
    rows, counts = np.unique(of, return_counts=True)
    if policy.dim <= SMALL or len(rows) < 2:
        return build(parameters, of)
    return Several(
        [build(parameters, np.full(count, row)) for row, count in zip(rows, counts, strict=True)],
        counts.tolist(),
    )


def policy_slices(policy: Policy) -> dict[str, slice]:
    """Return where in a row each piece lies."""
    found, start = {}, 0
    for piece in policy.pieces:
        found[piece.name] = slice(start, start + piece.size)
        start += piece.size
    return found


def inputs_of(spaces: Spaces) -> int:
    """Return how many numbers an observation has.

    Raises:
        ValueError: Observations are pictures.
    """
    seen = spaces.observations
    if isinstance(seen, Image):
        raise ValueError(
            f"`spaces` must have vectors as observations, got pictures of {seen.channels} x {seen.height} x "
            f'{seen.width}: use a network of convolutions such as "atari-large".'
        )
    return seen.size


def check_sizes(name: str, sizes: object) -> tuple[int, ...]:
    """Return sizes of layers as a tuple, or raise unless they are integers of at least 1."""
    if isinstance(sizes, str) or not isinstance(sizes, Sequence):
        instead = f": write [{sizes}]" if isinstance(sizes, int) else ""
        raise TypeError(f"`{name}` must be a list of integers such as [32,32], got {sizes!r}{instead}.")
    return tuple(check_count(name, size) for size in sizes)
