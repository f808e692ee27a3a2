"""The loss of a network as an objective: of whole rows of parameters, and of changes to single ones."""

from __future__ import annotations

import copy
import hashlib
import importlib
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zoo.core.device import Array, to_numpy
from zoo.core.fingerprint import describe, digest
from zoo.core.objective import Objective, failure_of
from zoo.core.rng import Key, keyed_generators
from zoo.core.types import Candidates, Evaluations, Failure
from zoo.nn.changes import Changes
from zoo.nn.coordinates import Cached, Coordinates
from zoo.nn.isolation import isolated
from zoo.nn.losses import Loss
from zoo.nn.parameters import Parameters
from zoo.nn.stages import Stages

_ELEMENTS = 2**16  # of rows that make a unit, so that blocks of random numbers are not drawn over and over
_CHECKED = 2  # examples on which a loss is tried
_MORE_ON_DEVICE = 16  # units of the processor's that are one on another device
_HALF = (
    "`model` must be of single or double precision where single coordinates are changed: half of a change "
    "would be lost to rounding. Use `model.float()`, or a method along random vectors."
)


class BatchSource(Protocol):
    """Mini-batches by number, the same in every process; see `zoo.nn.batches.Batches`."""

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of a mini-batch."""
        ...


class NetworkLoss(Objective):
    """The mean loss of a network on the mini-batch of a step, as a function of its parameters.

    The mini-batch is the one of the candidates' own number where they have one (`batch`), else that of the
    step. Dropout masks and whatever else a forward pass draws follow from the key and that number, so all
    candidates of a mini-batch see the same, and running statistics stay as they were. A network in training
    mode normalises by the mini-batch, one in evaluation mode by its running statistics.

    `Changes` to single coordinates are evaluated by `zoo.nn.coordinates`, whose units they come in: what the
    unchanged network computes of a mini-batch is kept as long as the next unit is of the same one. All other
    candidates are written into the network row by row.

    An instance travels to workers once, with the data. There, the network is built and moved to its device. A
    function that builds it draws from keyed generators, so that every process has the same network; one whose
    frozen parameters, buffers or modes differ all the same is refused.

    Args:
        model: The network; or a function without arguments that builds it, or "module:name()" for one, which
            is called where the loss is evaluated, with the global generators seeded from `key`. A network is
            copied, and stays as it is.
        loss: One number for each example; see `zoo.nn.losses`.
        batches: Mini-batches; anything with `at(step)` that returns inputs and targets.
        stages: A function of the network that returns its modules in the order in which they are called,
            where it is no `nn.Sequential`. Without, such a network is a single stage.
        device: Where to evaluate, such as "cuda"; that of the model by default.
        key: Where weights come from that a function draws; Key(0) by default. Of no use with a network.

    Raises:
        TypeError: An argument is none of these.
        ValueError: The network cannot be built, or has nothing to train; or, where it is evaluated, what a
            function builds is not the network that it built here.

    Example:
        >>> from zoo.nn.batches import Batches
        >>> from zoo.nn.losses import squared_error
        >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> batches = Batches(torch.eye(2), torch.zeros(2, 1), 2, key=Key(0))
        >>> objective = NetworkLoss(model, squared_error, batches)
        >>> objective(np.array([[1.0, 2.0], [0.0, 0.0]]), key=Key(0)).tolist()
        [2.5, 0.0]
    """

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module] | str,
        loss: Loss,
        batches: BatchSource,
        *,
        stages: Callable[[nn.Module], Sequence[nn.Module]] | None = None,
        device: str | None = None,
        key: Key | None = None,
    ) -> None:
        if not (isinstance(model, (nn.Module, str)) or callable(model)) or isinstance(model, type):
            raise TypeError(
                '`model` must be a module, a function that returns one or "module:name()", got '
                f"{model!r}{': call it' if isinstance(model, type) else ''}."
            )
        if not callable(loss):
            raise TypeError(f"`loss` must be a function of outputs and targets, got {loss!r}.")
        if not callable(getattr(batches, "at", None)):
            raise TypeError(f"`batches` must have a method `at(step)`, got {type(batches).__name__}.")
        if stages is not None and not callable(stages):
            raise TypeError(f"`stages` must be a function of the model, got {stages!r}.")
        if key is not None and not isinstance(key, Key):
            raise TypeError(f"`key` must be a Key, such as zoo.Key(0), got {key!r}.")
        self.model, self.loss, self.batches, self.stages = model, loss, batches, stages
        self._key = Key(0) if key is None else key
        self._expected: str | None = None  # digest of what a function built first
        self.device = None if device is None else str(torch.device(device))
        self._is_ours = False  # whether the model may be written to
        self._begin()
        self._network(placed=False)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._built: _Network | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: v for name, v in self.__dict__.items() if name not in ("_lock", "_built")}

    def __setstate__(self, fields: dict[str, Any]) -> None:
        self.__dict__.update(fields)
        self._is_ours = True
        self._begin()

    @property
    def parameters(self) -> Parameters:
        """The parameters of this process's copy of the network, in the order of a row."""
        return self._network(placed=False).parameters

    def network(self) -> nn.Module:
        """Return a copy of the network, to be kept; its parameters are those that were evaluated last."""
        with self._lock:
            return copy.deepcopy(self._network(placed=False).model)

    def __call__(self, x: Array, *, key: Key) -> np.ndarray[Any, Any]:
        """Return the losses of some rows on the first mini-batch."""
        with self._lock:
            return self._network().of_rows(x, 0, key.fold(0), 0).values

    def units(self, candidates: Candidates) -> Sequence[int]:
        count = len(candidates)
        inner = _changes(candidates)
        if inner is None:
            height = max(1, _ELEMENTS // max(1, candidates.dim))
            return [*range(0, count, height), count]
        with self._lock:
            cuts = self._network(placed=False).boundaries(inner.indices, self.device)
        if inner.stencil == "central":
            return [*cuts, *(inner.count + cut for cut in cuts[1:])]
        return [0, *(1 + cut for cut in cuts)]

    def evaluate(self, candidates: Candidates, start: int, stop: int, *, key: Key, step: int) -> Evaluations:
        number = getattr(candidates, "batch", step)
        key = key.fold(number)
        inner = _changes(candidates)
        with self._lock:
            network = self._network()
            if inner is None:
                return network.of_rows(candidates.rows(start, stop), number, key, start)
            return network.of_changes(inner, start, stop, number, key)

    def check(self, x: Array) -> None:
        """Try the loss on two examples of the first mini-batch.

        Args:
            x: Parameters, shape (dim,).

        Raises:
            TypeError: The loss returns no tensor.
            ValueError: It does not return one number for each example, or one that is no number, or stages do
                not compose to the network.
        """
        with self._lock:
            network = self._network()
            inputs, targets = network.batch(0)
            network.check(x, inputs[:_CHECKED], targets[:_CHECKED])

    def identity(self) -> dict[str, Any]:
        """Return what tells this loss from another one: network, loss and data.

        Of the data the bytes are looked at, and of the network those of frozen parameters and of buffers, and
        whether modules are in training mode. What is trained is not: it is what the loss is a function of.
        """
        data = [getattr(self.batches, name, None) for name in ("inputs", "targets")]
        data += [describe(self.batches), str(getattr(self.batches, "key", ""))]
        augment = getattr(self.batches, "augment", None)
        data += [repr(augment) if is_dataclass(augment) else None if augment is None else describe(augment)]
        network = self._network(placed=False).model
        about = describe(self.loss)
        return {
            "name": f"{about['name'].partition(':')[2]} of {type(network).__name__}",
            "attributes": {
                "model": digest(
                    [self.model if isinstance(self.model, str) else repr(network), _constants(network)]
                ),
                "mode": digest(_modes(network)),
                "loss": digest(sorted(about.items())),
                "data": digest(data),
                "stages": digest(None if self.stages is None else sorted(describe(self.stages).items())),
                "device": digest(self.device),
            },
        }

    def _network(self, *, placed: bool = True) -> _Network:
        """Return this process's copy of the network, on its device where it is to evaluate."""
        if self._built is None:
            self._built = _Network(self._made(), self.loss, self.batches, self.stages)
        if placed:
            self._built.place(self.device)
        return self._built

    def _made(self) -> nn.Module:
        if isinstance(self.model, nn.Module):
            return self.model if self._is_ours else copy.deepcopy(self.model)
        build = _found(self.model) if isinstance(self.model, str) else self.model
        with keyed_generators(self._key):
            made = build()
        if not isinstance(made, nn.Module):
            raise TypeError(f"`model` must build a module, and {self.model!r} returned {made!r}.")
        # Of a network that is built elsewhere only the trained parameters come from here.
        built = digest([_constants(made), _modes(made)])
        if self._expected is None:
            self._expected = built
        if built != self._expected:
            raise ValueError(
                f"`model` must build the same network whenever it is called, and {self.model!r} built one "
                "with other frozen parameters, buffers or modes: draw from torch's global generators or from "
                "a Key, or give the network itself."
            )
        return made


class _Network:
    """A network that is ours to write to, and what is known of the mini-batch it saw last."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: BatchSource,
        stages: Callable[[nn.Module], Sequence[nn.Module]] | None,
    ) -> None:
        self.model, self._loss, self._batches, self._stages = model, loss, batches, stages
        self._placed = False
        self._batch: tuple[int, Tensor, Tensor] | None = None
        self._cached: tuple[tuple[Any, ...], Cached] | None = None
        self._last: Array | None = None  # whose digest is known
        self._digest = b""
        self._make()
        # What tells the units is as it was given, wherever it is moved: the driver may have no such device.
        self._given, self._planner = torch.device(self.parameters.like.device).type, self._engine

    def _make(self) -> None:
        modules: Sequence[nn.Module] | None = None
        if self._stages is not None:
            modules = self._stages(self.model)
        elif not isinstance(self.model, nn.Sequential):
            modules = [self.model]
        self._whole = Stages(self.model, modules)
        self.parameters = Parameters(self.model)
        # Rows can be evaluated in half precision, changes to single coordinates not.
        self._engine = None if self.parameters.is_half else Coordinates(self._whole, self._loss)

    @property
    def engine(self) -> Coordinates:
        """What evaluates changes to single coordinates."""
        if self._engine is None:
            raise ValueError(_HALF)
        return self._engine

    def boundaries(self, indices: np.ndarray[Any, Any], device: str | None) -> list[int]:
        """Return the boundaries between units of coordinates that are evaluated on a device."""
        if self._planner is None:
            raise ValueError(_HALF)
        cuts = self._planner.boundaries(torch.from_numpy(indices.copy()))
        if device is None or torch.device(device).type == self._given or self._given != "cpu":
            return cuts
        return [*cuts[:-1:_MORE_ON_DEVICE], cuts[-1]]

    def place(self, device: str | None) -> None:
        """Move the network to where it is evaluated, once."""
        if self._placed:
            return
        self._placed = True
        if device is not None and str(self.parameters.like.device) != device:
            self.model.to(device)
            self._make()

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Return a mini-batch on the network's device."""
        if self._batch is None or self._batch[0] != number:
            device = self.parameters.like.device
            inputs, targets = self._batches.at(number)
            self._batch = number, inputs.to(device), targets.to(device)
        return self._batch[1:]

    def of_rows(self, rows: Array, number: int, key: Key, first: int) -> Evaluations:
        """Return the loss of every row, `first` being the number of the first one."""
        inputs, targets = self.batch(number)
        found: list[Tensor | float] = []
        failures: list[Failure] = []
        self._cached = None  # it is of other weights than those that are written now
        with isolated(key) as isolation:
            for row in rows:
                self._write(row)
                try:
                    found.append(isolation.call(lambda: self._mean(inputs, targets)))
                except Exception as error:
                    failures.append(failure_of(error, first + len(found)))
                    found.append(math.nan)
        return Evaluations(np.array([float(value) for value in found], np.float64), tuple(failures))

    def of_changes(self, changes: Changes, start: int, stop: int, number: int, key: Key) -> Evaluations:
        """Return the losses of rows `start` to `stop`."""
        cached = self._prepared(changes.base, number, key)
        values = np.full(stop - start, cached.loss)
        failures: list[Failure] = []
        first = max(start, changes.lead)
        try:
            if first < stop:
                values[first - start :] = self._changed(cached, changes, first, stop)
        except Exception:
            # One of them raises: each is tried by itself, so that the others have their losses.
            for row in range(first, stop):
                self._cached = None
                cached = self._prepared(changes.base, number, key)
                try:
                    values[row - start] = self._changed(cached, changes, row, row + 1)[0]
                except Exception as error:
                    failures.append(failure_of(error, row))
                    values[row - start] = math.nan
            self._cached = None
        return Evaluations(values, tuple(failures))

    def _changed(self, cached: Cached, changes: Changes, start: int, stop: int) -> np.ndarray[Any, Any]:
        indices = torch.from_numpy(changes.coordinates(start, stop))
        signs = changes.signs(start, stop)
        steps = changes.smoothing * signs
        smoothing = torch.from_numpy(steps) if (signs != signs[0]).any() else float(steps[0])
        return to_numpy(self.engine.losses(cached, indices, smoothing))

    def check(self, x: Array, inputs: Tensor, targets: Tensor) -> None:
        """Raise unless stages compose to the network and the loss of examples is one number for each."""
        self._cached = None
        self._write(x)

        self._whole.check(inputs)
        with isolated(Key(0)) as isolation:
            values = isolation.call(lambda: self._loss(self.model(inputs), targets))
        if not isinstance(values, Tensor):
            raise TypeError(f"`loss` must return a tensor, got {values!r}.")
        if values.shape != (len(inputs),):
            raise ValueError(
                f"`loss` must return one number for each example, shape ({len(inputs)},) for {len(inputs)}, "
                f'got shape {tuple(values.shape)}; a loss of torch does so with reduction="none".'
            )
        if not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"`loss` must be finite where training begins, got {values.tolist()} for the first examples; "
                "look at the inputs, and at the scale of the weights."
            )

    def _mean(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self._loss(self.model(inputs), targets).double().mean()

    def _prepared(self, base: Array, number: int, key: Key) -> Cached:
        """Return what the network at a base keeps of a mini-batch."""
        if base is not self._last:
            self._digest = hashlib.sha256(np.ascontiguousarray(to_numpy(base)).tobytes()).digest()
            self._last = base
        place = self._digest, number, key
        if self._cached is None or self._cached[0] != place:
            self._cached = None  # let go of the activations before there are others
            self._write(base)
            self._cached = place, self.engine.prepare(*self.batch(number), key)
        return self._cached[1]

    def _write(self, row: Array) -> None:
        params = self.parameters
        if len(row) != params.dim:
            raise ValueError(f"`x` must have {params.dim} numbers, one for each parameter, got {len(row)}.")
        params.write_(params.like.asarray(row))


def _constants(network: nn.Module) -> dict[str, Tensor]:
    """Return what a network computes with and training leaves as it is, by name."""
    frozen = [(name, value) for name, value in network.named_parameters() if not value.requires_grad]
    return dict(frozen + list(network.named_buffers()))


def _modes(network: nn.Module) -> list[bool]:
    return [module.training for module in network.modules()]


def _changes(candidates: Candidates) -> Changes | None:
    return candidates if isinstance(candidates, Changes) else None


def _found(spec: str) -> Callable[[], Any]:
    """Return the function that "module:name()" names."""
    module, _, name = spec.removesuffix("()").partition(":")
    if not (spec.endswith("()") and module and name.isidentifier()):
        raise ValueError(f'`model` must have the form "module:name()", got {spec!r}.')
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"`model` is {spec!r}, which cannot be found: {error}.") from error
    if not callable(found):
        raise TypeError(f"`model` is {spec!r}, which is no function: {found!r}.")
    return found
