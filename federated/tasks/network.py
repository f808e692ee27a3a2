"""A network of the user's, trained on data that stays with clients."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from federated.partition import Partitioner, as_partitioner, partitioned
from federated.task import Task
from zoo.core.device import Array, Like, to_numpy
from zoo.core.fingerprint import describe, digest
from zoo.core.named import named
from zoo.core.rng import Key, keyed_generators
from zoo.core.validation import check_count, check_flag, check_positive

if TYPE_CHECKING:
    from torch import nn

    from zoo.nn.parameters import Parameters

_CHUNK = 4096  # examples that a network sees at a time where there are no mini-batches
_ELEMENTS = 2**26  # of the mini-batches, and of the parameters, of networks that are evaluated together
_INTEGERS = ("torch.uint8", "torch.int8", "torch.int16", "torch.int32", "torch.int64")


class NetworkTask(Task):
    """The mean loss of a network on each client's examples, as a function of its parameters.

    x are the trainable parameters in their order, as `zoo.nn.Parameters` has them, of torch, in single
    precision, on the network's device. A client counts for as many as it has examples.

    With a `batch_size`, a client answers for a mini-batch that is drawn, without replacement, for each time
    that it is asked: all points of one question see the same examples. So do dropout masks and whatever else
    a forward pass draws. Running statistics stay as they were. A network that normalises by the batch does so
    by at most 4096 examples.

    `gradient` and `measure` take all examples of a client, and the network in evaluation mode. `measure` has
    "accuracy", that on the examples to test with, where there are some and targets are labels.

    Args:
        model: The network; or a function without arguments that builds it, or "module:name()" for one, which
            is called where it is evaluated. Weights that such a function draws follow from the key of the
            start; a network begins with its own.
        loss: A function of outputs and targets that returns one number for each example; see
            `zoo.nn.losses`.
        data: Inputs and targets, shapes (n, ...) each; with two more of them to test with where there are
            four, or a `zoo.nn.data.Data`; or a function without arguments that returns one of these, or
            "module:name()" for one, which is called where it is evaluated.
        num_clients: How many clients there are.
        partition: How examples are dealt; see `federated.partition.as_partitioner`.
        batch_size: Examples of a mini-batch, all of them for clients that have fewer; None for all.
        test: Inputs and targets to test with, if `data` has none.
        device: Where to evaluate, such as "cuda"; that of the model by default.
        vectorized: Whether many networks are evaluated at once, by `torch.func.vmap`: much faster for small
            ones. It is not possible for networks that write to buffers, as normalization does in training.
            With a `batch_size` that no client falls short of, clients are evaluated together, too, and have
            dropout masks in common.
        key: Randomness of the partition; Key(0) by default.
        spacing: See `Task.spacing`; that of `Task` by default.

    Raises:
        TypeError: An argument is none of these.
        ValueError: The network cannot be built or has nothing to train, the data does not fit together, or
            cannot be dealt.

    Example:
        >>> import torch
        >>> from zoo.nn.losses import squared_error
        >>> x = torch.linspace(-1, 1, 20)[:, None]
        >>> task = NetworkTask(torch.nn.Linear(1, 1), squared_error, (x, 2 * x + 1), num_clients=4)
        >>> task.dim, task.value(torch.tensor([2.0, 1.0]))
        (2, 0.0)
    """

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module] | str,
        loss: Callable[[Any, Any], Any],
        data: Any,
        num_clients: int,
        *,
        partition: Any = "iid",
        batch_size: int | None = None,
        test: Any = None,
        device: str | None = None,
        vectorized: bool = False,
        key: Key | None = None,
        spacing: float | None = None,
    ) -> None:
        import torch
        from torch import nn

        if not (isinstance(model, (nn.Module, str)) or callable(model)) or isinstance(model, type):
            raise TypeError(
                '`model` must be a module, a function that returns one or "module:name()", got '
                f"{model!r}{': call it' if isinstance(model, type) else ''}."
            )
        if not callable(loss):
            raise TypeError(f"`loss` must be a function of outputs and targets, got {loss!r}.")
        if key is not None and not isinstance(key, Key):
            raise TypeError(f"`key` must be a Key, such as Key(0), got {key!r}.")
        self.num_clients = check_count("num_clients", num_clients)
        self.batch_size = None if batch_size is None else check_count("batch_size", batch_size)
        self.vectorized = check_flag("vectorized", vectorized)
        self.device = None if device is None else str(torch.device(device))
        if self.device is not None and self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"`device` is {self.device!r}, and torch finds no CUDA here: leave it out.")
        if spacing is not None:
            self.spacing = check_positive("spacing", spacing)
        self._model, self._loss, self._key = model, loss, Key(0) if key is None else key
        self._partition, self._test = as_partitioner(partition), test
        self._data: Any = data
        if not (isinstance(data, str) or callable(data)):
            self._data = _examples(data, test)
        elif test is not None:
            raise ValueError("`test` must be left out where a function returns the data.")
        self._begin()
        with self._lock:
            self.dim = self._network(placed=False)[1].dim
            inputs, _, test_inputs, test_targets = self._examples()
            parts = self._dealt()
        self._sizes = tuple(len(part) for part in parts)
        tested = test_inputs is not None and str(test_targets.dtype) in _INTEGERS
        self.measures = self.shared_measures = ("accuracy",) if tested else ()
        self.joint = self.vectorized and batch_size is not None and min(self._sizes) >= batch_size
        self._try(inputs)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._built: tuple[nn.Module, Parameters] | None = None
        self._loaded: tuple[Any, ...] | None = None
        self._parts: list[np.ndarray[Any, Any]] | None = None
        self._on_device: dict[int | str, tuple[Any, ...]] = {}
        self._is_placed = False
        self._last: tuple[bytes, float] | None = None

    def __getstate__(self) -> dict[str, Any]:
        made = ("_lock", "_built", "_loaded", "_parts", "_on_device", "_is_placed", "_last")
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, fields: dict[str, Any]) -> None:
        self.__dict__.update(fields)
        self._begin()

    def start(self, key: Key) -> Array:
        """Return the network's own parameters; of a function, those that it draws under the key."""
        from torch import nn

        from zoo.nn.parameters import Parameters

        with self._lock:
            model = self._model if isinstance(self._model, nn.Module) else self._made(key)
            found = Parameters(model).flat()
            return found if self.device is None else found.to(self.device)

    def values(self, client: int, x: Array, *, key: Key) -> Any:
        with self._lock:
            inputs, targets = self._batch(client, key)
            if self.vectorized:
                return self._together(x, inputs, targets, key)
            return self._one_by_one(x, inputs, targets, key)

    def joint_values(self, clients: np.ndarray[Any, Any], x: Array, keys: Sequence[Key]) -> Any:
        import torch

        found, first = [], 0
        with self._lock:
            batches: list[tuple[Any, Any, int]] = []
            pairs = zip(clients.tolist(), keys, strict=True)
            for (client, key), rows in itertools.groupby(pairs):
                batches.append((*self._batch(client, key), sum(1 for _ in rows)))
            each = max(inputs.numel() for inputs, _, _ in batches)
            while batches:
                taken: list[tuple[Any, Any, int]] = []
                count = 0
                while batches and (not taken or (count + batches[0][2]) * each <= _ELEMENTS):
                    taken.append(batches.pop(0))
                    count += taken[-1][2]
                repeats = torch.tensor([rows for _, _, rows in taken], device=taken[0][0].device)
                inputs = torch.stack([one for one, _, _ in taken]).repeat_interleave(repeats, 0)
                targets = torch.stack([one for _, one, _ in taken]).repeat_interleave(repeats, 0)
                found.append(
                    self._together(x[first : first + count], inputs, targets, keys[first], shared=False)
                )
                first += count
        return torch.cat(found)

    def gradient(self, client: int, x: Array) -> Array:
        import torch

        from zoo.nn.evaluate import evaluating

        with self._lock:
            model, parameters = self._network()
            inputs, targets = self._of_client(client)
            parameters.write_(parameters.like.asarray(x))
            total = torch.zeros(parameters.dim, dtype=torch.float64, device=inputs.device)
            with torch.enable_grad(), evaluating(model):
                for rows in _chunks(len(inputs)):
                    loss = self._losses(model(inputs[rows]), targets[rows]).double().sum()
                    parts = torch.autograd.grad(loss, parameters.tensors, materialize_grads=True)
                    total += torch.cat([part.reshape(-1).double() for part in parts])
            return Like.of(x).asarray(total / len(inputs))

    def weight(self, client: int) -> float:
        return float(self._sizes[client])

    def measure(self, client: int, x: Array) -> dict[str, float]:
        from zoo.nn.evaluate import accuracy, mean_loss

        with self._lock:
            model, parameters = self._network()
            parameters.write_(parameters.like.asarray(x))
            inputs, targets = self._of_client(client)
            found = {"value": mean_loss(model, inputs, targets, self._loss)}
            if self.measures:
                mark = to_numpy(x).tobytes()
                if self._last is None or self._last[0] != mark:  # every client is asked about the same x
                    self._last = mark, accuracy(model, *self._placed()[2:])
                found["accuracy"] = self._last[1]
            return found

    def counts(self) -> np.ndarray[Any, Any]:
        """Return how many examples of each label clients have, shape (num_clients, labels).

        Raises:
            ValueError: Targets are no labels.
        """
        with self._lock:
            targets = self._examples()[1]
            if targets.ndim != 1 or str(targets.dtype) not in _INTEGERS:
                raise ValueError(f"targets are no labels, but of {targets.dtype}.")
            labels, classes = to_numpy(targets), int(targets.max()) + 1
            return np.array([np.bincount(labels[part], minlength=classes) for part in self._dealt()])

    def network(self, x: Array) -> nn.Module:
        """Return a copy of the network with some parameters."""
        with self._lock:
            model, parameters = self._network()
            parameters.write_(parameters.like.asarray(x))
            return copy.deepcopy(model)

    def identity(self) -> Mapping[str, Any]:
        with self._lock:
            model = self._network(placed=False)[0]
            data: Any = self._data
            if not isinstance(data, str):
                data = describe(data) if callable(data) else digest(list(data))
            dealt: Any = self._partition
            name = self._model if isinstance(self._model, str) else None
            # What is trained tells nothing: it is what the loss is a function of.
            frozen = [tensor for tensor in model.parameters() if not tensor.requires_grad]
            constants = [*frozen, *model.buffers(), [module.training for module in model.modules()]]
            return {
                **describe(self),
                "model": digest([repr(model) if name is None else name, constants]),
                "loss": digest(sorted(describe(self._loss).items())),
                "data": data,
                "partition": repr(dealt) if isinstance(dealt, Partitioner) else describe(dealt),
                "key": str(self._key),
            }

    def _one_by_one(self, x: Array, inputs: Any, targets: Any, key: Key) -> Any:
        import torch

        from zoo.nn.isolation import isolated

        model, parameters = self._network()

        def mean() -> Any:
            losses = [self._losses(model(inputs[rows]), targets[rows]) for rows in _chunks(len(inputs))]
            return torch.cat(losses).double().mean()

        found = []
        with isolated(key.fold("forward"), [model]) as isolation:
            for row in x:
                parameters.write_(parameters.like.asarray(row))
                found.append(isolation.call(mean))
        return torch.stack(found)

    def _together(self, x: Array, inputs: Any, targets: Any, key: Key, *, shared: bool = True) -> Any:
        """Return the losses of networks evaluated at once, each on its own mini-batch where not `shared`."""
        import torch
        from torch.func import functional_call, vmap

        from zoo.nn.isolation import isolated

        model, parameters = self._network()

        def mean(tensors: dict[str, Any], inputs: Any, targets: Any) -> Any:
            losses = [
                self._losses(functional_call(model, tensors, (inputs[rows],)), targets[rows])
                for rows in _chunks(len(inputs))
            ]
            return torch.cat(losses).double().mean()

        many = vmap(mean, in_dims=(0, None, None) if shared else (0, 0, 0), randomness="same")
        rows = parameters.like.asarray(x)
        each = max(parameters.dim, inputs.numel() if shared else 1)
        height = max(1, _ELEMENTS // each)
        found = []
        with isolated(key.fold("forward"), [model]) as isolation:
            for part in (slice(first, first + height) for first in range(0, len(rows), height)):
                tensors = {
                    name: rows[part, begin:end].reshape(-1, *tensor.shape).to(tensor.dtype)
                    for name, tensor, (begin, end) in zip(
                        parameters.names,
                        parameters.tensors,
                        itertools.pairwise(parameters.offsets),
                        strict=True,
                    )
                }
                batch = (inputs, targets) if shared else (inputs[part], targets[part])
                found.append(isolation.call(lambda t=tensors, b=batch: many(t, *b)))  # type: ignore[misc]
        return torch.cat(found)

    def _losses(self, outputs: Any, targets: Any) -> Any:
        losses = self._loss(outputs, targets)
        if tuple(losses.shape) != (len(targets),):
            instead = "" if len(losses.shape) else ': a loss of torch does so with reduction="none"'
            raise ValueError(
                f"`loss` must return one number for each of {len(targets)} examples, got shape "
                f"{tuple(losses.shape)}{instead}."
            )
        return losses

    def _try(self, inputs: Any) -> None:
        """Evaluate the network on two examples, so that what does not fit is said now."""
        import torch

        from zoo.nn.evaluate import evaluating

        with self._lock:
            model, parameters = self._network(placed=False)
            device = parameters.like.device
            if self.vectorized:
                _check_buffers(model)
            with evaluating(model), torch.no_grad():
                try:
                    outputs = model(inputs[:2].to(device))
                except RuntimeError as error:
                    own = {str(tensor.dtype) for tensor in parameters.tensors}
                    if inputs.is_floating_point() and str(inputs.dtype) not in own:
                        raise TypeError(
                            f"`data` must have inputs of {own.pop()}, as the network's parameters are, got "
                            f"{inputs.dtype}: convert one of them, as by inputs.float() or model.float()."
                        ) from error
                    raise
                self._losses(outputs, self._examples()[1][:2].to(device))

    def _batch(self, client: int, key: Key) -> tuple[Any, Any]:
        inputs, targets = self._of_client(client)
        if self.batch_size is None or self.batch_size >= len(inputs):
            return inputs, targets
        import torch

        order = key.fold("batch").permutation(0, 1, len(inputs))[0][: self.batch_size]
        rows = torch.from_numpy(order).to(inputs.device)
        return inputs[rows], targets[rows]

    def _of_client(self, client: int) -> tuple[Any, Any]:
        """Return a client's examples on the network's device."""
        if client not in self._on_device:
            import torch

            rows = torch.from_numpy(self._dealt()[client])
            device = self._network()[1].like.device
            inputs, targets = self._examples()[:2]
            self._on_device[client] = inputs[rows].to(device), targets[rows].to(device)
        inputs, targets = self._on_device[client]
        return inputs, targets

    def _placed(self) -> tuple[Any, ...]:
        """Return all examples, those to test with on the network's device."""
        if "test" not in self._on_device:
            device = self._network()[1].like.device
            inputs, targets, *test = self._examples()
            self._on_device["test"] = (inputs, targets, *(one.to(device) for one in test))
        return self._on_device["test"]

    def _examples(self) -> tuple[Any, ...]:
        """Return inputs, targets, and those to test with, or None for these two."""
        if self._loaded is None:
            data = self._data
            if isinstance(data, str):
                data = _function("data", data)
            self._loaded = _examples(data(), None) if callable(data) else data
        return self._loaded

    def _dealt(self) -> list[np.ndarray[Any, Any]]:
        if self._parts is None:
            targets = self._examples()[1]
            self._parts = partitioned(
                self._partition, to_numpy(targets), self.num_clients, self._key.fold("partition")
            )
        return self._parts

    def _network(self, *, placed: bool = True) -> tuple[nn.Module, Parameters]:
        """Return this process's copy of the network, on its device where it is to evaluate."""
        from torch import nn

        from zoo.nn.parameters import Parameters

        if self._built is None:
            model = self._model
            model = copy.deepcopy(model) if isinstance(model, nn.Module) else self._made(self._key)
            self._built = model, Parameters(model)
        if placed and self.device is not None and not self._is_placed:
            self._is_placed = True
            model = self._built[0].to(self.device)
            self._built = model, Parameters(model)
        return self._built

    def _made(self, key: Key) -> nn.Module:
        from torch import nn

        build = _function("model", self._model) if isinstance(self._model, str) else self._model
        with keyed_generators(key):
            made = build()
        if not isinstance(made, nn.Module):
            raise TypeError(f"`model` must build a module, and {self._model!r} returned {made!r}.")
        return made


def _check_buffers(model: nn.Module) -> None:
    """Raise `ValueError` where a forward pass in training writes to buffers, which `vmap` cannot."""
    for name, module in model.named_modules():
        if module.training and getattr(module, "track_running_stats", False):
            raise ValueError(
                f"`vectorized` must be False for this network: {name or 'it'}, a {type(module).__name__}, "
                "writes running statistics in training. GroupNorm and LayerNorm do not; model.eval() has it "
                "keep to those it has."
            )


def _function(argument: str, spec: str) -> Callable[[], Any]:
    if not spec.endswith("()"):
        raise ValueError(f'`{argument}` must have the form "module:name()", got {spec!r}.')
    found = named(argument, spec.removesuffix("()"))
    if not callable(found):
        raise TypeError(f"`{argument}` is {spec!r}, which is no function: {found!r}.")
    function: Callable[[], Any] = found
    return function


def _chunks(count: int) -> Iterator[slice]:
    return (slice(first, first + _CHUNK) for first in range(0, count, _CHUNK))


def _examples(data: Any, test: Any) -> tuple[Any, ...]:
    """Return inputs, targets, and those to test with, as tensors; None where there are none."""
    from zoo.nn.batches import check_examples

    if all(hasattr(data, name) for name in ("inputs", "targets", "test_inputs", "test_targets")):
        data = (data.inputs, data.targets, data.test_inputs, data.test_targets)
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 4):
        instead = ": give its `tensors`" if hasattr(data, "tensors") else ""
        raise TypeError(
            "`data` must be inputs and targets, or these and others to test with, or a function that returns "
            f"them, got {type(data).__name__}{instead}."
        )
    if len(data) == 4 and test is not None:
        raise ValueError("`test` must be left out where `data` has examples to test with.")
    if test is not None and (not isinstance(test, (tuple, list)) or len(test) != 2):
        raise TypeError(f"`test` must be inputs and targets, got {type(test).__name__}.")
    whole = [_tensor(one) for one in (*data, *(test or ()))]
    check_examples(whole[0], whole[1])
    if len(whole) == 4:
        check_examples(whole[2], whole[3], ("test inputs", "test targets"))
    return (*whole, *([None] * (4 - len(whole))))


def _tensor(value: Any) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
