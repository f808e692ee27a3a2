"""Laws that directions are drawn from.

A law says how rows of directions are made from a key, and with which factor the mean of
(slope along u) * u becomes a gradient. Unless a class says otherwise, E[u u^T] = I, so that this
factor is 1 and a learning rate means the same under every law. Laws with a memory learn from the run;
their memory is part of the estimator's state.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from zoo.core.device import Array, Like, array_module, is_torch, to_numpy
from zoo.core.rng import Key
from zoo.core.state import state
from zoo.core.validation import check_choice, check_count, check_fraction, check_number, hint, listed


@dataclass(frozen=True, slots=True)
class Draw:
    """Which directions a step wants.

    Attributes:
        key: The step's own key.
        step: Number of the step.
        count: How many directions the step has.
        dim: Length of a direction.
        like: Kind, dtype (single or double precision) and device of the directions.
    """

    key: Key
    step: int
    count: int
    dim: int
    like: Like


class Directions(abc.ABC):
    """A law of directions.

    Subclasses define `draw`; those with a memory also `init` and `learn`.
    """

    def size(self, dim: int) -> int:
        """Return the number of coordinates that move."""
        return dim

    def norm(self, dim: int) -> float:
        """Return the root mean square length of a direction."""
        return math.sqrt(self.size(dim))

    def factor(self, dim: int) -> float:
        """Return what the mean of (slope along u) * u is multiplied by to become a gradient."""
        del dim
        return 1.0

    def most(self, dim: int) -> int | None:
        """Return the largest number of directions that a step can make use of, or None for any."""
        del dim
        return None

    def available(self, draw: Draw) -> int:
        """Return how many of the directions that are wanted this very step can make use of."""
        most = self.most(draw.dim)
        return draw.count if most is None else min(draw.count, most)

    def groups(self, draw: Draw, plan: Any) -> tuple[np.ndarray[Any, Any], list[float]]:
        """Return of which group each of a step's directions is, and the factor of every group.

        The estimate is a sum over groups, each of which contributes its factor times the mean of
        (slope along u) * u over its own directions.
        """
        return np.zeros(draw.count, np.intp), [self.factor(draw.dim)]

    def init(self, x: Array) -> Any:
        """Return the memory at the start of a run; None for laws without one."""
        del x

    def shipped(self, memory: Any) -> Any:
        """Return the part of the memory that drawing needs: it travels with the candidates."""
        del memory

    def plan(self, draw: Draw, memory: Any) -> Any:
        """Return what all rows of a step have in common, computed once by whoever draws them."""
        del draw, memory

    @abc.abstractmethod
    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        """Return directions `start` to `stop`, shape (stop - start, dim).

        Pure, and the same bytes for a direction whatever the slice.
        """

    def part(self, draw: Draw, index: int, memory: Any, plan: Any) -> tuple[int, Array]:
        """Return where direction `index` begins to differ from 0, and its entries from there on.

        Beyond those entries, shape (k,), it is 0 again. The caller may write to them.
        """
        return 0, self.draw(draw, index, index + 1, memory, plan)[0] + 0

    def project(self, gradient: Array, memory: Any) -> Array:
        """Return the estimate with what the memory knows to be noise taken out."""
        del memory
        return gradient

    def learn(self, memory: Any, x: Array, gradient: Array) -> Any:
        """Return the memory after a step at `x` whose estimate was `gradient`."""
        del x, gradient
        return memory


class _Drawn(Directions):
    """A law whose every draw is new memory."""

    def part(self, draw: Draw, index: int, memory: Any, plan: Any) -> tuple[int, Array]:
        return 0, self.draw(draw, index, index + 1, memory, plan)[0]


@dataclass(frozen=True)
class Gaussian(_Drawn):
    """Independent standard normal entries.

    The estimate has second moment E|g|^2 = (n + d + 1) / n |grad f|^2 over n directions.
    """

    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        return draw.key.normal(start, stop, draw.dim, like=draw.like)


@dataclass(frozen=True)
class Sphere(_Drawn):
    """Uniform on the sphere of radius sqrt(d); second moment (n + d - 1) / n |grad f|^2."""

    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        rows = draw.key.normal(start, stop, draw.dim, like=draw.like)
        if not is_torch(rows):
            return rows * (math.sqrt(draw.dim) / np.sqrt((rows * rows).sum(1, keepdims=True)))
        for row in rows:  # one by one: how torch adds up a row depends on how many there are
            row *= math.sqrt(draw.dim) / (row * row).sum().sqrt()
        return rows


@dataclass(frozen=True)
class Rademacher(_Drawn):
    """Fair signs; second moment (n + d - 1) / n |grad f|^2. The directions of SPSA."""

    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        return draw.key.rademacher(start, stop, draw.dim, like=draw.like)


@dataclass(frozen=True)
class Axes(Directions):
    """Coordinate axes, as unit vectors: one coordinate moves at a time.

    With as many directions as there are coordinates, the most there can be, this is the dense
    coordinate-wise estimate, without variance. With n < d it holds d / n times the slopes of n
    coordinates: unbiased where they are drawn, of second moment d / n |grad f|^2. Here
    E[u u^T] = I / d, which `factor` makes up for.

    Args:
        order: "random", drawn without replacement, or "cyclic", step by step in their order.
    """

    order: str = "random"

    def __post_init__(self) -> None:
        check_choice("order", self.order, ("random", "cyclic"))

    def norm(self, dim: int) -> float:
        return 1.0

    def factor(self, dim: int) -> float:
        return float(dim)

    def most(self, dim: int) -> int | None:
        return dim

    def plan(self, draw: Draw, memory: Any) -> Any:
        if self.order == "cyclic":
            return (draw.step * draw.count + np.arange(draw.count)) % draw.dim
        return draw.key.permutation(0, 1, draw.dim)[0, : draw.count]

    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        rows = np.zeros((stop - start, draw.dim), draw.like.dtype)
        rows[np.arange(stop - start), plan[start:stop]] = 1
        return draw.like.asarray(rows)

    def part(self, draw: Draw, index: int, memory: Any, plan: Any) -> tuple[int, Array]:
        return int(plan[index]), draw.like.asarray(np.ones(1, draw.like.dtype))


@dataclass(frozen=True)
class Orthonormal(Directions):
    """Perpendicular directions of length sqrt(d), uniformly rotated; d of them at most.

    k of them estimate d / k times the gradient's projection on their span, of second moment
    d / k |grad f|^2; d of them give the gradient as the axes do. Whoever draws one direction computes
    all of the step's, so these need k x d numbers of memory.
    """

    def most(self, dim: int) -> int | None:
        return dim

    def plan(self, draw: Draw, memory: Any) -> Any:
        gaussian = draw.key.normal(0, draw.count, draw.dim, like=draw.like)
        q, r = array_module(gaussian).linalg.qr(gaussian.T)
        # The sign fix makes the law the uniform one, whatever signs the factorization picks.
        signs = 1 - 2 * (r.diagonal() < 0)
        return _plain((q * signs * math.sqrt(draw.dim)).T)

    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        return draw.like.asarray(plan[start:stop])

    def part(self, draw: Draw, index: int, memory: Any, plan: Any) -> tuple[int, Array]:
        return 0, plan[index] + 0


@dataclass(frozen=True, eq=False)
class Masked(Directions):
    """Another law, on some of the coordinates only; the others never move, and their estimate is 0.

    E[u u^T] is the identity on the masked-in coordinates and 0 elsewhere.

    Args:
        law: The law, drawn in as many dimensions as the mask lets through.
        mask: Shape (dim,), true where coordinates move.

    Attributes:
        chosen: Indices of the coordinates that move.

    Raises:
        ValueError: The mask is not one row of booleans, or lets nothing through.
    """

    law: Directions
    mask: np.ndarray[Any, Any] = field(repr=False)
    chosen: np.ndarray[Any, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        mask = to_numpy(self.mask)
        if mask.dtype != np.bool_ or mask.ndim != 1 or not mask.any():
            raise ValueError(f"`mask` must be one row of booleans with a true one, got {self.mask!r}.")
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "chosen", np.flatnonzero(mask))

    def size(self, dim: int) -> int:
        return self.law.size(len(self.chosen))

    def norm(self, dim: int) -> float:
        return self.law.norm(len(self.chosen))

    def factor(self, dim: int) -> float:
        return self.law.factor(len(self.chosen))

    def most(self, dim: int) -> int | None:
        return self.law.most(len(self.chosen))

    def available(self, draw: Draw) -> int:
        return self.law.available(self._inner(draw))

    def groups(self, draw: Draw, plan: Any) -> tuple[np.ndarray[Any, Any], list[float]]:
        return self.law.groups(self._inner(draw), plan)

    def init(self, x: Array) -> Any:
        if len(x) != len(self.mask):
            raise ValueError(f"`mask` must have one entry per coordinate, {len(x)}, got {len(self.mask)}.")
        return self.law.init(x[self.chosen])

    def shipped(self, memory: Any) -> Any:
        return self.law.shipped(memory)

    def plan(self, draw: Draw, memory: Any) -> Any:
        return self.law.plan(self._inner(draw), memory)

    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        inner = self.law.draw(self._inner(draw), start, stop, memory, plan)
        rows = draw.like.asarray(np.zeros((stop - start, draw.dim), draw.like.dtype))
        rows[:, self.chosen] = inner
        return rows

    def part(self, draw: Draw, index: int, memory: Any, plan: Any) -> tuple[int, Array]:
        begin, inner = self.law.part(self._inner(draw), index, memory, plan)
        where = self.chosen[begin : begin + len(inner)]
        first, last = int(where[0]), int(where[-1])
        if last - first + 1 == len(inner):
            return first, inner
        out = draw.like.asarray(np.zeros(last - first + 1, draw.like.dtype))
        out[where - first] = inner
        return first, out

    def project(self, gradient: Array, memory: Any) -> Array:
        out = array_module(gradient).zeros_like(gradient)
        out[self.chosen] = self.law.project(gradient[self.chosen], memory)
        return out

    def learn(self, memory: Any, x: Array, gradient: Array) -> Any:
        return self.law.learn(memory, x[self.chosen], gradient[self.chosen])

    def _inner(self, draw: Draw) -> Draw:
        return Draw(draw.key, draw.step, draw.count, len(self.chosen), draw.like)


class _Turn(NamedTuple):
    """A block that is active in a step: its number, where it begins, its own directions and their law."""

    block: int
    start: int
    draw: Draw
    law: Directions


@dataclass(frozen=True)
class Blocks(Directions):
    """Other laws on blocks of coordinates, each by itself: a direction moves the coordinates of one block.

    The coordinates are cut into blocks in their order. In each step some of the blocks are active, and the
    step's directions are dealt out to them in turn. An active block's estimate is made of its own directions
    and their differences alone, as if it were all there is; the others' is 0. So E[u u^T] is the
    identity on the active blocks and 0 elsewhere.

    One block at a time is block coordinate descent. All of them in every step, blocks being the
    layers of a network, is an estimate layer by layer: no layer's noise is in another's estimate.

    Args:
        sizes: Lengths of the blocks in their order; or a number, the length of each, the last one as long as
            what is left.
        law: Law of the directions, or its name, in as many dimensions as the block has; or one for each
            block.
        active: How many blocks are active in a step; None for all.
        order: Which ones: "cyclic", taking turns step by step, or "random", drawn without replacement.

    Raises:
        ValueError: A size or `active` is out of range, or the laws are not as many as the blocks.

    Note:
        With fewer directions than `active` only as many blocks are active: they take turns, or are drawn.

    Example:
        Two directions a step, one for each block:

        >>> from zoo.core.device import NUMPY
        >>> law, draw = Blocks((1, 2), "rademacher", active=None), Draw(Key(0), 0, 2, 3, NUMPY)
        >>> rows = law.draw(draw, 0, 2, None, law.plan(draw, None))
        >>> abs(rows).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]

    References:
        Zhang et al., "Revisiting zeroth-order optimization for memory-efficient LLM fine-tuning: a
        benchmark", 2024. https://arxiv.org/abs/2402.11592
    """

    sizes: int | Sequence[int] = 64
    law: Directions | str | Sequence[Directions | str] = "gaussian"
    active: int | None = 1
    order: str = "cyclic"

    def __post_init__(self) -> None:
        sizes, law = self.sizes, self.law
        if isinstance(sizes, Sequence):
            if not sizes:
                raise ValueError("`sizes` must name one block at least, got none.")
            object.__setattr__(self, "sizes", tuple(check_count("sizes", size) for size in sizes))
        else:
            object.__setattr__(self, "sizes", check_count("sizes", sizes))
        if isinstance(law, (str, Directions)):
            object.__setattr__(self, "law", as_directions(law))
        else:
            object.__setattr__(self, "law", tuple(as_directions(one) for one in law))
            blocks = len(sizes) if isinstance(sizes, Sequence) else None
            if blocks != len(law):
                raise ValueError(
                    f"`law` must be one, or one for each of {blocks or 'as many `sizes`'}, got {len(law)}."
                )
        if self.active is not None:
            check_count("active", self.active)
            if isinstance(sizes, Sequence) and self.active > len(sizes):
                raise ValueError(
                    f"`active` must be at most the number of blocks, {len(sizes)}, got {self.active}."
                )
        check_choice("order", self.order, ("cyclic", "random"))

    def size(self, dim: int) -> int:
        return sum(
            sorted(law.size(stop - start) for start, stop, law in self._blocks(dim))[-self._active(dim) :]
        )

    def norm(self, dim: int) -> float:
        squares = [law.norm(stop - start) ** 2 for start, stop, law in self._blocks(dim)]
        return math.sqrt(sum(squares) / len(squares))

    def most(self, dim: int) -> int | None:
        known = [law.most(stop - start) for start, stop, law in self._blocks(dim)]
        if None in known:
            return None
        return sum(sorted(most for most in known if most is not None)[-self._active(dim) :])

    def available(self, draw: Draw) -> int:
        return sum(turn.draw.count for turn in self._turns(draw))

    def groups(self, draw: Draw, plan: Any) -> tuple[np.ndarray[Any, Any], list[float]]:
        found, factors = [np.empty(0, np.intp)], list[float]()
        for turn, own in plan:
            groups, more = turn.law.groups(turn.draw, own)
            found.append(groups + len(factors))
            factors.extend(more)
        return np.concatenate(found), factors or [1.0]

    def init(self, x: Array) -> Any:
        if isinstance(self.sizes, tuple) and sum(self.sizes) != len(x):
            raise ValueError(
                f"`sizes` must add up to the number of coordinates, {len(x)}, got {sum(self.sizes)}."
            )
        memory = tuple(law.init(x[start:stop]) for start, stop, law in self._blocks(len(x)))
        return memory if any(one is not None for one in memory) else None

    def shipped(self, memory: Any) -> Any:
        if memory is None:
            return None
        laws = self.law if isinstance(self.law, tuple) else (self.law,) * len(memory)
        return tuple(law.shipped(own) for law, own in zip(laws, memory, strict=True))

    def plan(self, draw: Draw, memory: Any) -> Any:
        return [(turn, turn.law.plan(turn.draw, memory and memory[turn.block])) for turn in self._turns(draw)]

    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        rows = draw.like.asarray(np.zeros((stop - start, draw.dim), draw.like.dtype))
        first = 0
        for turn, own in plan:
            low, high = max(start, first), min(stop, first + turn.draw.count)
            if low < high:
                known = memory and memory[turn.block]
                inner = turn.law.draw(turn.draw, low - first, high - first, known, own)
                rows[low - start : high - start, turn.start : turn.start + turn.draw.dim] = inner
            first += turn.draw.count
        return rows

    def part(self, draw: Draw, index: int, memory: Any, plan: Any) -> tuple[int, Array]:
        for turn, own in plan:
            if index < turn.draw.count:
                known = memory and memory[turn.block]
                start, values = turn.law.part(turn.draw, index, known, own)
                return turn.start + start, values
            index -= turn.draw.count
        raise IndexError("the step has fewer directions.")

    def project(self, gradient: Array, memory: Any) -> Array:
        if memory is None:
            return gradient
        gradient = gradient + 0
        for (start, stop, law), own in zip(self._blocks(len(gradient)), memory, strict=True):
            gradient[start:stop] = law.project(gradient[start:stop], own)
        return gradient

    def learn(self, memory: Any, x: Array, gradient: Array) -> Any:
        if memory is None:
            return None
        return tuple(
            law.learn(own, x[start:stop], gradient[start:stop]) if bool(gradient[start:stop].any()) else own
            for (start, stop, law), own in zip(self._blocks(len(x)), memory, strict=True)
        )

    def _blocks(self, dim: int) -> list[tuple[int, int, Directions]]:
        """Return where every block begins and ends, and its law."""
        if isinstance(self.sizes, int):
            ends = [*range(0, dim, self.sizes), dim]
        else:
            ends = [0, *itertools.accumulate(self.sizes)]
        laws = self.law if isinstance(self.law, tuple) else (self.law,) * (len(ends) - 1)
        return [(*pair, law) for pair, law in zip(itertools.pairwise(ends), laws, strict=True)]

    def _active(self, dim: int) -> int:
        count = -(-dim // self.sizes) if isinstance(self.sizes, int) else len(self.sizes)
        return count if self.active is None else min(self.active, count)

    def _turns(self, draw: Draw) -> list[_Turn]:
        """Return which blocks get directions in a step."""
        blocks = self._blocks(draw.dim)
        # Blocks that got no direction would be left out in every step, so only the others count as active.
        count = min(self._active(draw.dim), draw.count)
        first = draw.step * count
        if self.order == "cyclic" or count == len(blocks):
            chosen = [(first + place) % len(blocks) for place in range(count)]
        else:
            chosen = draw.key.fold("blocks").permutation(0, 1, len(blocks))[0, :count].tolist()
        turns = []
        for place, block in enumerate(chosen):
            start, stop, law = blocks[block]
            # A block that takes turns counts the steps in which it was active.
            step = (first + place) // len(blocks) if self.order == "cyclic" else draw.step
            inner = Draw(draw.key.fold("block", block), step, draw.count, stop - start, draw.like)
            inner = dataclasses.replace(inner, count=law.available(inner))
            turns.append(_Turn(block, start, inner, law))
        counts = _shared([turn.draw.count for turn in turns], draw.count)
        return [
            turn._replace(draw=dataclasses.replace(turn.draw, count=given))
            for turn, given in zip(turns, counts, strict=True)
            if given
        ]


def _shared(most: list[int], count: int) -> list[int]:
    """Return how many of `count` things each gets if they are dealt out in turn, up to the most it takes."""
    given = [0] * len(most)
    while count and (waiting := [index for index, limit in enumerate(most) if given[index] < limit]):
        share = max(count // len(waiting), 1)
        for index in waiting[:count]:
            more = min(share, most[index] - given[index])
            given[index] += more
            count -= more
    return given


@state
class History:
    """What a law with a memory knows.

    Attributes:
        rows: The last gradients or points, oldest first, shape (k, dim).
        basis: Orthonormal rows made of them, shape (m, dim), or None.
    """

    rows: Array
    basis: Array | None


@dataclass(frozen=True)
class Guided(_Drawn):
    """Gaussian directions stretched towards the span of the last gradient estimates.

    u = sqrt(alpha) e + sqrt((1 - alpha) d / k) U e', with e and e' standard normal and U an orthonormal
    basis of the last k estimates. E|u|^2 = d as for the others, but E[u u^T] is not I: along the history
    estimates come out (alpha + (1 - alpha) d / k) times as long as they are, elsewhere alpha times.
    Until there is a history the law is the Gaussian one.

    Args:
        alpha: Share of the whole space, above 0 and up to 1.
        history: How many estimates are remembered, k.

    Note:
        The paper is handed surrogate gradients from outside; a black box has none, so the estimates
        themselves take their place.

    References:
        Maheswaranathan, Metz, Tucker, Choi and Sohl-Dickstein, "Guided evolutionary strategies:
        augmenting random search with surrogate gradients", 2019. https://arxiv.org/abs/1806.10230
    """

    alpha: float = 0.5
    history: int = 8

    def __post_init__(self) -> None:
        if not 0 < check_number("alpha", self.alpha) <= 1:
            raise ValueError(f"`alpha` must be above 0 and at most 1, got {self.alpha!r}.")
        check_count("history", self.history)

    def init(self, x: Array) -> History:
        return History(x[None][:0], None)

    def shipped(self, memory: History) -> Any:
        return memory.basis

    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        rows = draw.key.fold("full").normal(start, stop, draw.dim, like=draw.like)
        if memory is None:
            return rows
        size = len(memory)
        inner = draw.key.fold("span").normal(start, stop, size, like=draw.like)
        rows = rows * math.sqrt(self.alpha)
        inner = inner * math.sqrt((1 - self.alpha) * draw.dim / size)
        # Not a matrix product: the last bits of one may depend on the number of its rows.
        for index in range(size):
            rows += inner[:, index : index + 1] * memory[index]
        return rows

    def learn(self, memory: History, x: Array, gradient: Array) -> History:
        length = float((gradient * gradient).sum()) ** 0.5
        if length == 0 or not math.isfinite(length):
            return memory
        rows = _appended(memory.rows, gradient / length, min(self.history, len(gradient)))
        q, _ = array_module(rows).linalg.qr(rows.T)
        return History(rows, _plain(q.T))


@dataclass(frozen=True)
class Subspace(Directions):
    """The Subspace Gradient: estimates lose their part in directions that the run has hardly moved in.

    The points of the last `history` steps are decomposed into principal directions. The leading ones that
    explain all but a share `threshold` of the variance are kept; P holds the others, and every estimate of
    the next `history` steps becomes g - P^T P g. So E[u u^T] = I is true of what is measured, while
    the estimate is the projection of the gradient.

    Args:
        law: Law the directions are drawn from.
        history: Points per decomposition.
        threshold: Share of the variance that is taken for noise, above 0 and below 1.
        mode: "drop": centred points, singular value decomposition; directions outside the span of the
            history stay. "published": the same with every coordinate divided by its standard deviation
            before the decomposition, as the authors' code has it, though axes found there are applied to
            raw gradients. "keep": only the leading directions stay; every other `history` steps run
            without projection, as otherwise no point could ever leave the span.

    Note:
        The authors also divide the estimate by sqrt((d' + n - 1) / n), d' the number of directions kept:
        that is a matter of the learning rate, and left to it.

    References:
        Seo, Jeong, Lee and Chun, "Efficient personalization of quantized diffusion model without
        backpropagation" (ZOODiP), 2025. https://arxiv.org/abs/2503.14868
    """

    law: Directions = field(default_factory=Gaussian)
    history: int = 128
    threshold: float = 1e-3
    mode: str = "drop"

    def __post_init__(self) -> None:
        check_count("history", self.history, minimum=3)
        if check_fraction("threshold", self.threshold) == 0:
            raise ValueError(f"`threshold` must be above 0, got {self.threshold!r}.")
        check_choice("mode", self.mode, ("drop", "published", "keep"))

    def size(self, dim: int) -> int:
        return self.law.size(dim)

    def norm(self, dim: int) -> float:
        return self.law.norm(dim)

    def factor(self, dim: int) -> float:
        return self.law.factor(dim)

    def most(self, dim: int) -> int | None:
        return self.law.most(dim)

    def available(self, draw: Draw) -> int:
        return self.law.available(draw)

    def groups(self, draw: Draw, plan: Any) -> tuple[np.ndarray[Any, Any], list[float]]:
        return self.law.groups(draw, plan)

    def init(self, x: Array) -> tuple[History, Any]:
        return History(x[None][:0], None), self.law.init(x)

    def shipped(self, memory: tuple[History, Any]) -> Any:
        return self.law.shipped(memory[1])

    def plan(self, draw: Draw, memory: Any) -> Any:
        return self.law.plan(draw, memory)

    def draw(self, draw: Draw, start: int, stop: int, memory: Any, plan: Any) -> Array:
        return self.law.draw(draw, start, stop, memory, plan)

    def part(self, draw: Draw, index: int, memory: Any, plan: Any) -> tuple[int, Array]:
        return self.law.part(draw, index, memory, plan)

    def project(self, gradient: Array, memory: tuple[History, Any]) -> Array:
        gradient = self.law.project(gradient, memory[1])
        basis = memory[0].basis
        if basis is None:
            return gradient
        part = (basis @ gradient) @ basis
        return part if self.mode == "keep" else gradient - part

    def learn(self, memory: tuple[History, Any], x: Array, gradient: Array) -> tuple[History, Any]:
        past, inner = memory[0], self.law.learn(memory[1], x, gradient)
        rows = _appended(past.rows, x, self.history)
        if len(rows) < self.history:
            return History(rows, past.basis), inner
        free = self.mode == "keep" and past.basis is not None
        return History(rows[:0], None if free else self._basis(rows)), inner

    def _basis(self, rows: Array) -> Array | None:
        xp = array_module(rows)
        rows = rows - rows.mean(0)
        if self.mode == "published":
            deviation = xp.sqrt((rows * rows).mean(0))
            rows = rows / xp.where(deviation > 0, deviation, 1)
        _, singular, axes = xp.linalg.svd(rows, full_matrices=False)
        variance = to_numpy(singular).astype(np.float64) ** 2
        if not variance.sum() > 0:
            return None
        explained = np.cumsum(variance) / variance.sum()
        leading = int((explained <= 1 - self.threshold).sum()) + 1
        # Centring took one row away: the last direction may be any that is left over.
        known = min(len(rows) - 1, rows.shape[1])
        chosen = axes[:leading] if self.mode == "keep" else axes[leading:known]
        return _plain(chosen) if len(chosen) else None


LAWS: dict[str, type[Directions]] = {
    "gaussian": Gaussian,
    "sphere": Sphere,
    "rademacher": Rademacher,
    "axes": Axes,
    "orthonormal": Orthonormal,
    "blocks": Blocks,
    "guided": Guided,
    "subspace": Subspace,
}


def as_directions(law: str | Directions) -> Directions:
    """Return the law of a name with its defaults, or the law itself.

    Raises:
        TypeError: It is neither.
        ValueError: No law has that name.
    """
    if isinstance(law, Directions):
        return law
    if not isinstance(law, str):
        raise TypeError(f"`directions` must be a name or a law of directions, got {law!r}.")
    if law not in LAWS:
        raise ValueError(f"`directions` must be one of {listed(LAWS)}, got {law!r}.{hint(law, LAWS)}")
    return LAWS[law]()


def _appended(rows: Array, row: Array, size: int) -> Array:
    return array_module(rows).concatenate([rows, row[None]])[-size:]


def _plain(rows: Array) -> Array:
    """Return rows that own their memory, in row order."""
    return rows.contiguous().clone() if is_torch(rows) else np.array(rows, order="C")
