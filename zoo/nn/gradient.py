"""Gradients of a network from forward passes alone, where `loss.backward()` would stand.

The parameters are moved in place, one direction at a time, and put back to the last bit whatever happens.
Beside them there are never more than a copy of them, one direction, and the sum that becomes the gradient.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from zoo.core.errors import ZooWarning
from zoo.core.rng import Key
from zoo.core.state import freeze, thaw
from zoo.core.types import Evaluations
from zoo.core.validation import check_count
from zoo.estimators.displaced import Displaced
from zoo.estimators.finite_difference import (
    FiniteDifference,
    FiniteDifferenceState,
    GradientEstimate,
    largest_slope,
)
from zoo.nn.closures import Calls, gathered
from zoo.nn.isolation import isolated, place
from zoo.nn.parameters import Parameters

_PIECE = 2**16  # elements, which stay in the processor's cache while they are worked on
_DEVICE_PIECE = 2**22  # the same on a device, which wants more to do at a time
_CHECKED = 1000  # the closure is looked at in the first two steps of so many
_LOST = 8  # spacings of a parameter, below which its displacement is mostly rounding
_DROWNED = 16  # spacings of a loss, below which a difference is mostly rounding


class Estimator:
    """An estimator with its memory, for `estimate_gradient_`.

    It remembers what must be known from step to step: what a law of directions has learned, what
    `smoothing="auto"` has measured, and the number of queries. An estimator that learns nothing does without.

    Args:
        estimator: Directions, stencil and smoothing.

    Attributes:
        estimator: The same.
        queries: Forward passes so far.

    Raises:
        TypeError: `estimator` is no `FiniteDifference`.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> _ = nn.init.ones_(layer.weight)
        >>> def loss():
        ...     return layer.weight.square().sum()
        >>> estimator = Estimator(FiniteDifference("guided", 4))
        >>> _ = estimate_gradient_(layer, loss, estimator, Key(0), 2)
        >>> again = Estimator(FiniteDifference("guided", 4))
        >>> again.load_state_dict(estimator.state_dict())
        >>> one = estimate_gradient_(layer, loss, estimator, Key(0), 3).gradient
        >>> two = estimate_gradient_(layer, loss, again, Key(0), 3).gradient
        >>> torch.equal(one, two)
        True
    """

    def __init__(self, estimator: FiniteDifference) -> None:
        if not isinstance(estimator, FiniteDifference):
            raise TypeError(f"`estimator` must be a FiniteDifference, got {estimator!r}.")
        self.estimator = estimator
        self.queries = 0
        self._state: FiniteDifferenceState | None = None
        self._sizes: tuple[int, ...] = ()

    @property
    def smoothing(self) -> float | None:
        """Smoothing of the next step, None before the first one."""
        return None if self._state is None else self._state.smoothing

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered, as plain types and tensors, which `torch.save` takes."""
        tree, arrays = freeze(self._state)
        return {
            "estimator": _described(self.estimator),
            "sizes": list(self._sizes),
            "queries": self.queries,
            "state": tree,
            "arrays": {name: torch.from_numpy(array) for name, array in arrays.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, on whatever device.

        Raises:
            ValueError: It is not what an estimator with the same arguments returned.
        """
        keys = {"estimator", "sizes", "queries", "state", "arrays"}
        if not isinstance(state_dict, Mapping) or set(state_dict) != keys:
            raise ValueError("`state_dict` must be what `Estimator.state_dict` returned.")
        for name, mine in _described(self.estimator).items():
            if state_dict["estimator"][name] != mine:
                raise ValueError(
                    f"`state_dict` must be that of an estimator with the {name} {mine}, got "
                    f"{state_dict['estimator'][name]}."
                )
        arrays = {name: tensor.cpu().numpy() for name, tensor in state_dict["arrays"].items()}
        self._state = thaw(_on_device(state_dict["state"], "cpu"), arrays)
        self._sizes = tuple(state_dict["sizes"])
        self.queries = int(state_dict["queries"])

    def _started(self, params: Parameters, x: Tensor) -> FiniteDifferenceState:
        """Return the state for a step at x."""
        if self._state is None:
            self._state, self._sizes = self.estimator.init(x, coarsest=params.coarsest), params.sizes
            return self._state
        was, now = self._state.like, params.like
        if self._sizes != params.sizes or was.dtype != now.dtype:
            raise ValueError(
                f"`params` must be the same in every step: there were {len(self._sizes)} tensors with "
                f"{sum(self._sizes)} entries, computed with in {was.dtype}, and now {len(params)} with "
                f"{params.dim} in {now.dtype}. Make a new `Estimator` when what is trained changes."
            )
        if was != now:
            tree, arrays = freeze(self._state)
            self._state = thaw(_on_device(tree, now.device), arrays)
        return self._state


def estimate_gradient_(
    params: nn.Module | Parameters | Iterable[Any],
    closure: Callable[[], Any],
    estimator: FiniteDifference | Estimator,
    key: Key,
    step: int,
) -> GradientEstimate:
    """Estimate the gradient of a loss and write it to `.grad`, where `loss.backward()` would stand.

    The closure is called once for each of the points that the estimator asks for, with the parameters moved
    there in place. All calls of a step see the same random numbers, dropout masks among them, and the same
    buffers; the next step sees others. Afterwards parameters, buffers and global generators are what they
    were, to the last bit, also when the closure raises. (Buffers are those of modules that are seen to be
    called, and of `params`: give the module itself where it is compiled in place.) `.grad` of every trainable
    parameter is replaced; frozen ones are left alone.

    A loss that is NaN or infinite drops its direction; when none is left the gradient is 0 and `num_valid`
    too. A parameter of half precision is moved to where it can be: what enters the estimate is the
    displacement after rounding.

    In the first two steps of every thousand the closure is called twice at the first point, and both its
    answer and the smoothing are checked, and whether any bit of a parameter was changed in the first call.

    Args:
        params: As for `Parameters`: a module, or what `torch.optim` takes.
        closure: Takes nothing and returns the loss: a number, or a tensor of one. It is called without a
            graph of gradients. It should compute the loss in single precision at least.
        estimator: What to evaluate. One that learns from step to step, by its law of directions or by
            `smoothing="auto"`, has to come in an `Estimator`, the same in every step. In single precision a
            smoothing of 1e-3 suits directions that move all parameters, 1e-2 suits central differences along
            axes, and 5e-3 forward ones.
        key: Key of the run; the step's own is derived here.
        step: Number of the step, from 0.

    Returns:
        The estimate. Its gradient is the flat vector whose parts were written to `.grad`, so what changes one
        changes the other. `value` is the loss where the stencil needs it, else the mean over what was
        evaluated, and `queries` counts calls of the closure.

    Raises:
        TypeError: An argument, or what the closure returns, is of the wrong type.
        ValueError: `step` is negative, `estimator` needs a memory and has none, or the loss is no scalar;
            and see `Parameters`.
        RuntimeError: The closure writes to a parameter, or exchanges its memory. It is noticed in every step,
            but for `tensor.data.add_(1)` and the like, which only the checked steps notice.

    Warns:
        ZooWarning: The closure returned two values for the same point, the smoothing is lost in rounding, or
            all losses failed.

    Example:
        >>> from zoo.core.rng import keyed_generators
        >>> x = torch.linspace(-1, 1, 32)[:, None]
        >>> with keyed_generators(Key(0)):
        ...     model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
        >>> estimator = FiniteDifference("orthonormal", num_directions=8, smoothing=1e-2)
        >>> for step in range(100):
        ...     estimate = estimate_gradient_(
        ...         model, lambda: nn.functional.mse_loss(model(x), x.square()), estimator, Key(0), step
        ...     )
        ...     optimizer.step()
        ...     scheduler.step()
        >>> estimate.value < 0.05, estimate.queries
        (True, 16)

    References:
        Malladi, Gao, Nichani, Damian, Lee, Chen and Arora, "Fine-tuning language models with just forward
        passes" (MeZO), 2023. https://arxiv.org/abs/2305.17333

        Its estimate is that of `FiniteDifference("gaussian", 1, 1e-3)`. There the parameters go to x + h u,
        to x - h u and back by adding and subtracting, which leaves rounding errors behind: in half precision
        about 2 h after 100 steps. Here they are copied back.
    """
    _check_arguments(closure, estimator, key)
    step = check_count("step", step, minimum=0)
    params = params if isinstance(params, Parameters) else Parameters(params)
    point = _Point(params)
    if isinstance(estimator, Estimator):
        law, state = estimator.estimator, estimator._started(params, point.x)
    else:
        law, state = estimator, estimator.init(point.x)
        if state.memory is not None or state.precision is not None:
            what = 'smoothing="auto"' if state.precision is not None else f"the law {law.law!r}"
            raise ValueError(
                f"`estimator` must come in an `Estimator`, as {what} learns from step to step: make "
                "`estimator = Estimator(FiniteDifference(...))` once and give that in every step"
                + (", or give a number as `smoothing`." if state.precision is not None else ".")
            )
    asked = law.ask(state, point.x, key.fold("directions"), step)
    modules = () if params.module is None else (params.module,)
    with isolated(key.fold("closure", step), modules) as isolation:
        try:
            try:
                sweep = _Sweep(law, asked, point, Calls(isolation, closure, params))
                values = sweep.run(checked=step % _CHECKED < 2)
            finally:
                point.put_back()
        except KeyboardInterrupt:  # which may have come while they were put back
            point.put_back()
            raise
    weights = law.weights(asked, values)
    gradient = sweep.summed(weights, values)
    symmetric = np.ones(asked.draw.count, np.bool_)
    state, estimate = law.conclude(state, asked, values, weights, gradient, symmetric)
    if not estimate.num_valid:
        warnings.warn(
            "every difference of the step failed, as losses were NaN or infinite: the gradient is 0. The "
            "parameters may have grown out of hand; lower the learning rate.",
            ZooWarning,
            stacklevel=2,
        )
    if step % _CHECKED < 2:
        sweep.warn(weights, values)
    estimate = estimate._replace(queries=sweep.calls.count)
    if isinstance(estimator, Estimator):
        estimator._state = state
        estimator.queries += estimate.queries
    params.write_gradient_(estimate.gradient)
    return estimate


_Pieces: TypeAlias = list[tuple[Tensor, Tensor, Tensor]]


class _Point:
    """The parameters in place, moved along a direction or where they belong."""

    def __init__(self, params: Parameters) -> None:
        self.x = params.flat()
        self._sizes, self._offsets = list(params.sizes), params.offsets
        # A tensor whose entries are not in order is moved in a copy, and written from that.
        self._copied = [
            (t.detach(), t.detach().contiguous()) for t in params.tensors if not t.is_contiguous()
        ]
        copies = iter(self._copied)
        self._targets = [
            tensor.detach().view(-1) if tensor.is_contiguous() else next(copies)[1].view(-1)
            for tensor in params.tensors
        ]
        self._is_uniform = all(target.dtype == self.x.dtype for target in self._targets)
        self._homes = [(tensor, tensor.detach(), place(tensor)) for tensor in params.tensors]

    def put_back(self) -> None:
        """Put everything back, memory that was exchanged by `tensor.data = ...` too."""
        for tensor, memory, where in self._homes:
            if place(tensor) != where:
                tensor.data = memory
        self.restore()

    def pieces(self, start: int, part: Tensor) -> _Pieces:
        """Return targets, their original entries and those of a direction, tensor by tensor."""
        length = part.shape[0]
        if length == self._offsets[-1]:
            kept, along = (torch.split(whole, self._sizes) for whole in (self.x, part))
            return list(zip(self._targets, kept, along, strict=True))
        found, begin, stop = [], start, start + length
        index = bisect.bisect_right(self._offsets, start) - 1
        while begin < stop:
            end = min(stop, self._offsets[index + 1])
            if begin < end:
                target = self._targets[index][begin - self._offsets[index] : end - self._offsets[index]]
                found.append((target, self.x[begin:end], part[begin - start : end - start]))
            begin, index = end, index + 1
        return found

    def move(self, pieces: _Pieces, distance: float) -> None:
        """Go from the original place along a direction; what is beyond its entries stays where it is."""
        for target, kept, along in pieces:
            torch.add(kept, along, alpha=distance, out=target)
        self._write()

    def restore(self, pieces: _Pieces | None = None) -> None:
        """Put some entries back, or all."""
        for target, kept, _ in self.pieces(0, self.x) if pieces is None else pieces:
            target.copy_(kept)
        self._write()

    def displace(self, start: int, part: Tensor, distance: float, *, central: bool) -> tuple[Tensor, Tensor]:
        """Turn entries of a direction into how far they move from the original place, after rounding.

        The other way for a central stencil: how far apart its two points are.

        Returns:
            The squares of the lengths before and after.
        """
        kept = self.x[start : start + part.shape[0]]
        pieces = [(kept, kept, part)] if self._is_uniform else self.pieces(start, part)
        step = _PIECE if part.device.type == "cpu" else _DEVICE_PIECE
        memory = torch.empty(2, min(step, part.shape[0]), dtype=part.dtype, device=part.device)
        before, after = [], []
        for target, whole, along in pieces:
            for first in range(0, along.shape[0], step):
                piece, base = along[first : first + step], whole[first : first + step]
                before.append(torch.dot(piece, piece))
                ahead, back = memory[:, : piece.shape[0]]
                torch.add(base, piece, alpha=distance, out=ahead)
                if central:
                    torch.add(base, piece, alpha=-distance, out=back)
                else:
                    back = base
                if target.dtype != piece.dtype:
                    ahead, back = (row.to(target.dtype).to(piece.dtype) for row in (ahead, back))
                torch.sub(ahead, back, out=piece)
                after.append(torch.dot(piece, piece))
        if len(before) == 1:
            return before[0], after[0]
        return torch.stack(before).sum(), torch.stack(after).sum()

    def _write(self) -> None:
        for tensor, copy in self._copied:
            tensor.copy_(copy)


class _Sweep:
    """The evaluations of a step, and the sum over its directions that is formed as they come in."""

    def __init__(self, law: FiniteDifference, asked: Displaced, point: _Point, calls: Calls) -> None:
        self.law, self.asked, self.point, self.calls = law, asked, point, calls
        self.central = asked.stencil == "central"
        self.total: Tensor | None = None  # the first direction, where it moves all, becomes the sum
        self.again: tuple[Any, Any] | None = None  # two losses of the same point
        self.lost: tuple[float, float] | None = None

    def run(self, *, checked: bool) -> np.ndarray[Any, Any]:
        """Return the values of all points, shape (n,), NaN where one failed."""
        asked, point, calls = self.asked, self.point, self.calls
        count, distance = asked.draw.count, asked.smoothing
        relative, factor = self.law.shares(asked, np.ones(count, np.bool_))
        shares = (relative * (factor / distance)).tolist()
        values: list[Any] = []
        if asked.lead:
            values.append(calls(thorough=checked))
            if checked:
                self.again = values[0], calls()
        for index in range(count):
            start, part = self.direction(index)
            pieces = point.pieces(start, part)
            if checked and index == 0:
                self.lost = _lost(pieces, distance)
            if asked.mirror and index == 0:
                point.move(pieces, -distance)
                values.append(calls(thorough=checked and not values))
            point.move(pieces, distance)
            values.append(calls(thorough=checked and not values))
            if checked and self.again is None:
                self.again = values[0], calls()
            if self.central:
                point.move(pieces, -distance)
                values.append(calls())
                difference = (values[-2] - values[-1]) / 2
            else:
                difference = values[-1] - values[0]
            if part.shape[0] < asked.dim:
                point.restore(pieces)
            self._add(start, part, difference * shares[index])
            del part, pieces  # before the next one is drawn
        return Evaluations(gathered(values)).values

    def direction(self, index: int) -> tuple[int, Tensor]:
        """Return where a direction begins to differ from 0, and its entries from there on."""
        asked = self.asked
        return asked.directions.part(asked.draw, index, asked.memory, asked.plan)

    def summed(self, weights: Any, values: np.ndarray[Any, Any]) -> Tensor:
        """Return the gradient."""
        slope = weights.peak / self.asked.smoothing
        is_usual = np.isfinite(values).all() and 0 < slope <= largest_slope(self.asked.draw.like)
        if is_usual and self.total is not None:
            return self.total
        # What was summed up took all values for granted; now it is known which there are.
        self.total = torch.zeros_like(self.point.x) if self.total is None else self.total.zero_()
        for index in np.flatnonzero(weights.coefficients).tolist():
            self._add(*self.direction(index), float(weights.coefficients[index] / weights.peak))
        return self.total.mul_(weights.scale)

    def _add(self, start: int, part: Tensor, coefficient: Any) -> None:
        """Add a coefficient times the displacement actually made, which is lengthened to the direction."""
        unit = self.asked.smoothing * (2 if self.central else 1)
        wanted, went = self.point.displace(start, part, self.asked.smoothing, central=self.central)
        if isinstance(coefficient, float) and part.device.type == "cpu":
            gone = went.item()
            weight = coefficient * unit * wanted.item() / gone if gone > 0 else 0.0
            # Where this makes a difference the sum is formed anew.
            weight = min(max(weight, -1e30), 1e30) if math.isfinite(weight) else 0.0
        else:
            weight = coefficient * unit * torch.where(went > 0, wanted / went, 0)
            weight = weight.to(part.device, part.dtype)  # a loss may come from another device
        if self.total is None and part.shape[0] == self.asked.dim:
            self.total = part.mul_(weight)
            return
        if self.total is None:
            self.total = torch.zeros_like(self.point.x)
        target = self.total[start : start + part.shape[0]]
        if isinstance(weight, float):
            target.add_(part, alpha=weight)
        else:
            target.addcmul_(part, weight)

    def warn(self, weights: Any, values: np.ndarray[Any, Any]) -> None:
        """Say what was found wrong with the closure and the smoothing."""
        smoothing = self.asked.smoothing
        if self.lost is not None and self.lost[0] > 0.5:
            warnings.warn(
                f"a smoothing of {smoothing:.1e} is lost in the rounding of the parameters: it moves "
                f"{100 * self.lost[0]:.0f} % of them by less than {_LOST} of their spacings. Use "
                f"smoothing={self.lost[1]:.1e} or more, or parameters of higher precision.",
                ZooWarning,
                stacklevel=3,
            )
        finite = values[np.isfinite(values)]
        differences = weights.differences * (2 if self.central else 1)
        if not len(finite) or not len(differences):
            return
        spacing = self.calls.spacing(finite)
        typical = float(np.sqrt(np.mean(differences**2)))
        if 0 < typical < _DROWNED * spacing:
            warnings.warn(
                f"a smoothing of {smoothing:.1e} is lost in the rounding of the loss: two values along a "
                f"direction differ by {typical:.1e}, at a spacing of {spacing:.1e}. Use "
                f"smoothing={smoothing * _DROWNED * spacing / typical:.1e} or more, or compute the loss in "
                "higher precision.",
                ZooWarning,
                stacklevel=3,
            )
        if self.again is None:
            return
        first, second = (float(value) for value in self.again)
        noise = abs(second - first)
        if noise > _DROWNED * spacing:
            warnings.warn(
                f"the closure returned {first:.9g} and then {second:.9g} for the same parameters, a noise of "
                f"{noise:.1e}, where values along a direction differ by {typical:.1e}. Global generators and "
                "buffers are the same at every call, so something else changes: take the batch outside of "
                "the closure, and draw from generators of your own outside of it too.",
                ZooWarning,
                stacklevel=3,
            )


def _lost(pieces: _Pieces, distance: float) -> tuple[float, float] | None:
    """Return which share of entries hardly moves, and the smoothing with which nine in ten do."""
    every = max(1, sum(along.shape[0] for _, _, along in pieces) // _PIECE)
    needed = []
    for target, kept, along in pieces:
        moving = along[::every].abs()
        spacing = torch.finfo(target.dtype).eps * kept[::every].abs()
        needed.append((_LOST * spacing / moving)[moving > 0].double())
    smoothing = torch.cat(needed)
    if not smoothing.shape[0]:
        return None
    return float((smoothing > distance).double().mean()), float(torch.quantile(smoothing, 0.9))


def _check_arguments(closure: object, estimator: object, key: object) -> None:
    if not callable(closure):
        raise TypeError(f"`closure` must be a function that returns the loss, got {closure!r}.")
    if not isinstance(estimator, (FiniteDifference, Estimator)):
        raise TypeError(
            "`estimator` must be a FiniteDifference, such as FiniteDifference('gaussian', 1, smoothing=1e-3),"
            f" or an Estimator of one, got {estimator!r}."
        )
    if not isinstance(key, Key):
        raise TypeError(f"`key` must be a Key, such as Key(0), got {key!r}.")


def _described(estimator: FiniteDifference) -> dict[str, Any]:
    """Return all arguments of an estimator as plain values."""
    return {
        "law": repr(estimator.law),
        "masks": _masks(estimator.law),
        "num_directions": estimator.num_directions,
        "smoothing": estimator.smoothing,
        "stencil": estimator.stencil,
    }


def _masks(law: Any) -> list[str]:
    """Return digests of the arrays of a law and of those in it, which its text leaves out."""
    if isinstance(law, tuple):
        return [mask for one in law for mask in _masks(one)]
    if isinstance(law, np.ndarray):
        return [hashlib.sha256(law.tobytes()).hexdigest()[:16]]
    if not dataclasses.is_dataclass(law):
        return []
    fields = [field for field in dataclasses.fields(law) if field.init]
    return [mask for field in fields for mask in _masks(getattr(law, field.name))]


def _on_device(tree: Any, device: str) -> Any:
    """Return a frozen state as one whose tensors are on a device."""
    if isinstance(tree, list):
        return [_on_device(item, device) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        name: {**body, "device": device} if name in ("tensor", "like") else _on_device(body, device)
        for name, body in tree.items()
    }
