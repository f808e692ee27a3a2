"""The engine of single-coordinate changes."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from zoo.core.rng import Key, keyed_generators
from zoo.nn.coordinates.changes import is_channels_last
from zoo.nn.coordinates.losses import Judge, judge_of
from zoo.nn.coordinates.network import Layer, Memory, Network, Step
from zoo.nn.coordinates.rules.base import Places
from zoo.nn.isolation import isolated
from zoo.nn.losses import Loss, absolute_error, cross_entropy, errors, squared_error
from zoo.nn.parameters import Parameters
from zoo.nn.stages import Stages

# Sizes that decide what is evaluated together, and with that the last bits of a loss.
_UNIT, _SMALL_UNIT = 512, 64  # coordinates; the second where whole images or sequences are to be recomputed
_WHOLE = {"cpu": 2**17, "cuda": 2**28}  # elements of whole copies that go through a layer at a time
_COLUMNS = {"cpu": 2**20, "cuda": 2**28}  # elements of changed columns at a time
_MORE_ON_DEVICE = 16  # times as many coordinates in a unit

_BY_EXAMPLE = (absolute_error, cross_entropy, errors, squared_error)  # losses known to mix nothing


@dataclass(frozen=True, eq=False)
class Cached:
    """One mini-batch as the unchanged network saw it.

    Attributes:
        inputs: Of the mini-batch.
        targets: The same.
        key: Of dropout masks.
        outputs: What the network returns.
        loss: Mean of the losses of its examples.
        memory: What each layer was given and returned.
        judge: The losses of changed copies.
        weights: The parameters, shape (dim,).
        versions: How often each frozen parameter had been written to.
        engine: What prepared it.
    """

    inputs: Tensor
    targets: Tensor
    key: Key
    outputs: Tensor
    loss: float
    memory: Memory
    judge: Judge
    weights: Tensor
    versions: list[int]
    engine: Coordinates


class Coordinates:
    """Losses of a network with one parameter changed, for many parameters.

    The numbers are those of one whole forward pass for each, but for rounding: 1e-6 relative in single
    precision, 1e-12 in double. Where a layer's columns are changed, as described next, weight + smoothing is
    formed nowhere, and so not rounded: what a column changes by is the smoothing times its input.

    Three things make it faster. A change needs the layers behind it alone, since what each layer was given is
    kept. Most changes change one column of what a layer returns, a channel of an image or an entry of a
    vector, and that column is found from the layer's input, without its weights; layers that treat columns by
    themselves take it further. The first that mixes columns is applied to the change alone, where it has four
    columns or more, and only behind it copies are whole. Modules that treat examples one by one see several
    copies at once; a module of which nothing is known sees one after the other, with the same random numbers.
    How many numbers a module draws must not depend on what it is given: nn.RReLU is known to be of that kind,
    and everything from it on is evaluated copy by copy if more is drawn behind it.

    Beyond what layers were given, as much as a forward pass that keeps everything for a backward pass, memory
    is bounded: on a CPU a few arrays of 2^20 numbers of changed columns and of 2^17 of whole copies, or of
    one column and one copy where those are larger; on a device of 2^28.

    Modules must treat the network's parameters as theirs alone: nothing is evaluated from other threads
    meanwhile where a module of an unknown type has parameters.

    Args:
        stages: The network.
        loss: Of each example; see `zoo.nn.losses`.
        plain: Whether to call every stage that follows on a change, on one copy after the other, and nothing
            beyond.

    Attributes:
        parameters: Of the network, in the order in which coordinates are counted.

    Raises:
        TypeError: `stages` is none.
        ValueError: A parameter is of half precision.

    Example:
        >>> from zoo.nn.losses import squared_error
        >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> _ = model[0].weight.data.zero_()
        >>> engine = Coordinates(Stages(model), squared_error)
        >>> cached = engine.prepare(torch.eye(2), torch.zeros(2, 1), Key(0))
        >>> engine.losses(cached, torch.tensor([0, 1]), 2.0).tolist()
        [2.0, 2.0]

    References:
        Chen, Zhang, Jia, Diffenderfer, Liu, Parasyris, Zhang, Zhang, Kailkhura and Liu, "DeepZero: scaling up
        zeroth-order optimization for deep model training", 2024: reuse of what stages were given. Changes by
        columns are ours. https://arxiv.org/abs/2310.02025
    """

    def __init__(self, stages: Stages, loss: Loss, *, plain: bool = False) -> None:
        if not isinstance(stages, Stages):
            raise TypeError(f"`stages` must be `Stages(model)`, got {type(stages).__name__}.")
        self.stages, self.loss, self.plain = stages, loss, plain
        self.parameters = Parameters(stages.model)
        trained = {id(tensor) for tensor in self.parameters.tensors}
        self._frozen = [tensor for tensor in stages.model.parameters() if id(tensor) not in trained]
        _check_precision(self.parameters)
        self._network = Network(stages, plain)
        self._owners = [self._network.owners[id(tensor)] for tensor in self.parameters.tensors]
        device = torch.device(self.parameters.like.device).type
        self._whole = _WHOLE.get(device, _WHOLE["cuda"])
        self._columns = _COLUMNS.get(device, _COLUMNS["cuda"])
        times = 1 if device == "cpu" else _MORE_ON_DEVICE
        self._units = np.array([times * _unit(layer, self._network) for layer, _ in self._owners])
        self._checked = stages.is_sequential
        self._loss_checked = loss in _BY_EXAMPLE

    def prepare(self, inputs: Tensor, targets: Tensor, key: Key) -> Cached:
        """Evaluate the network as it is on a mini-batch, and remember what each layer was given.

        Args:
            inputs: Examples, b of them.
            targets: Of each.
            key: Of dropout masks, which are the same for all that is evaluated.

        Raises:
            ValueError: There are no examples, the stages do not return what the network does, the outputs are
                not one for each example, or the losses are not: none for some, ones that depend on the other
                examples, or written over the targets. Whether they depend on others is tried once.
        """
        if not len(inputs):
            raise ValueError("`inputs` must hold an example or more, got none: there is no mean over none.")
        if not self._checked:
            self.stages.check(inputs, key)
            self._checked = True
        with isolated(key) as isolation:
            orders = _Orders()
            if not self.plain and any(
                layer.rule.draws(layer.module) for layer in self._network.layers.values()
            ):
                isolation.call(lambda: orders.record(self._network, inputs))
            memory, outputs = isolation.call(lambda: self._network.see(inputs, orders.pop))
        if outputs.ndim == 0 or len(outputs) != len(inputs):
            raise ValueError(
                "the network must return one output for each example, in their order, got shape "
                f"{tuple(outputs.shape)} for {len(inputs)} examples."
            )
        with torch.no_grad():
            self._check_loss(outputs, targets)
            judge = judge_of(self.loss, outputs, targets)
            loss = float(judge.of_whole(outputs.clone(), 1))
        weights, versions = self.parameters.flat(), self._versions()
        return Cached(inputs, targets, key, outputs, loss, memory, judge, weights, versions, self)

    def losses(self, cached: Cached, indices: Tensor, smoothing: float | Tensor) -> Tensor:
        """Return the mean losses with one coordinate changed.

        Args:
            cached: The mini-batch, from `prepare`.
            indices: Coordinates, shape (n,), best in ascending order.
            smoothing: What is added to each: a finite number, or one for each, shape (n,).

        Returns:
            Shape (n,), float64: the loss with coordinate indices[k] changed by smoothing[k], all else as it
            is.

        Raises:
            TypeError: `indices` are no integers, or `smoothing` is no number.
            ValueError: An index is out of range, `smoothing` is not finite or not one for each, `cached` is
                of another engine, or a parameter was changed since `prepare`. Noticed are any other values of
                a trained parameter, and writing to a frozen one other than through its `.data`; buffers and
                training or evaluation mode are not looked at.
        """
        numbers = self._checked_indices(indices)
        added = _checked_smoothing(smoothing, len(numbers))
        self._check_weights(cached)
        owners = self._owners_of(numbers)
        local = numbers - np.array(self.parameters.offsets)[owners]
        device, dtype = cached.outputs.device, self.parameters.tensors[0].dtype
        index = torch.from_numpy(local).to(device)
        steps = added.to(device, dtype).expand(len(numbers))
        found = torch.empty(len(numbers), dtype=torch.float64, device=device)
        cuts = self._cuts(owners)
        with torch.no_grad(), self._generators(cached):
            for start, stop in itertools.pairwise(cuts):
                layer, name = self._owners[owners[start]]
                part = slice(start, stop)
                places = Places(name, tuple(local[part].tolist()), index[part], steps[part])
                self._evaluate(cached, layer, places, found[part])
        return found

    def boundaries(self, indices: Tensor) -> list[int]:
        """Return where units of sorted indices begin, and the end of the last.

        What is evaluated together is within a unit. Units are runs of coordinates of one parameter, of a
        length that follows from the network alone, so that a unit's losses depend on its indices and on
        nothing else, to the last bit.
        """
        return self._cuts(self._owners_of(self._checked_indices(indices)))

    def costs(self, indices: Tensor, cached: Cached) -> Tensor:
        """Return about how many operations the loss of each coordinate takes, shape (n,), float64."""
        each = [self._cost(cached, layer, name) for layer, name in self._owners]
        return torch.tensor(each, dtype=torch.float64)[self._owners_of(self._checked_indices(indices))]

    def pass_cost(self, cached: Cached) -> float:
        """Return about how many operations a whole forward pass takes, in the units of `costs`."""
        layers = self._network.layers.values()
        return sum(layer.rule.work(cached.memory[layer.number]) for layer in layers)

    def _evaluate(self, cached: Cached, layer: Layer, places: Places, found: Tensor) -> None:
        """Write the losses of a unit."""
        seen, tail = cached.memory[layer.number], self._network.tails[layer.number]
        if not layer.rule.moves_columns(seen, places.name):
            for part in _parts(len(places), self._at_once(cached, (layer, *tail))):
                whole = layer.rule.changed(seen, places[part])
                found[part] = self._finished(cached, tail, whole, len(places.numbers[part]))
            return
        height = max(1, self._columns // layer.rule.column_size(seen))
        for part in _parts(len(places), height):
            columns, left = layer.rule.changed_columns(seen, places[part]), tail
            while left:
                after = left[0].columns(cached.memory, columns)
                if after is None:
                    break
                columns, left = after, left[1:]
            if not left:
                spreads = cached.judge.spreads(columns)
                for piece in _parts(len(columns), self._outputs_at_once(cached) if spreads else height):
                    found[part][piece] = cached.judge.of_columns(columns[piece])
                continue
            for piece in _parts(len(columns), self._at_once(cached, left)):
                change = left[0].mixed(cached.memory, columns[piece])
                count = len(columns.numbers[piece])
                found[part][piece] = self._finished(cached, left[1:], change, count)

    def _finished(self, cached: Cached, tail: tuple[Step, ...], change: Tensor, count: int) -> Tensor:
        for step in tail:
            change = step.stacked(cached.memory, change, count)
        return cached.judge.of_whole(change, count)

    def _at_once(self, cached: Cached, steps: tuple[Step, ...]) -> int:
        """Return how many whole copies go through some steps together."""
        sizes = [cached.memory[layer.number].size for step in steps for layer in step.layers()]
        return max(1, self._whole // max([*sizes, 1]))

    def _outputs_at_once(self, cached: Cached) -> int:
        return max(1, self._whole // max(1, cached.outputs.numel()))

    def _cost(self, cached: Cached, layer: Layer, name: str) -> float:
        seen = cached.memory[layer.number]
        after = [passed for step in self._network.tails[layer.number] for passed in step.layers()]
        work = float(layer.rule.work(seen))
        if layer.rule.moves_columns(seen, name):
            # Up to the first layer that is applied to the change alone it is about the columns.
            first = next((k for k, passed in enumerate(after) if passed.rule.mixes), len(after) - 1)
            work = 32.0 * layer.rule.column_size(seen)
            work += sum(8.0 * cached.memory[passed.number].size for passed in after[first : first + 1])
            after = after[first + 1 :]
        return work + sum(passed.rule.work(cached.memory[passed.number]) for passed in after)

    def _versions(self) -> list[int]:
        return [tensor._version for tensor in self._frozen]

    def _check_weights(self, cached: Cached) -> None:
        if cached.engine is not self:
            raise ValueError("`cached` must be from `prepare` of this engine, and is from that of another.")
        weights = self.parameters.flat()
        is_as_it_was = torch.equal(cached.weights, weights) or _same(cached.weights, weights)
        if not is_as_it_was or cached.versions != self._versions():
            raise ValueError("`cached` is of other weights than the network has now; `prepare` again.")

    def _check_loss(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise ValueError if the loss is not one number for each example that depends on it alone."""
        count = len(outputs)
        given = targets.clone()
        each = self.loss(outputs.clone(), given)
        if not isinstance(each, Tensor) or each.shape != (count,):
            got = f"shape {tuple(each.shape)}" if isinstance(each, Tensor) else repr(each)
            raise ValueError(
                f"`loss` must return one number for each of {count} examples, got {got}; take no mean in it."
            )
        if self._loss_checked:
            return
        if not _same(given, targets):
            raise ValueError("`loss` must not write to the targets; let it compute on a copy of them.")
        # Behind them, a second copy in which all examples are the first: a mean over both is another one.
        behind = [torch.cat([part, part[:1].expand_as(part)]) for part in (outputs, targets)]
        found = self.loss(*behind)[:count].double()
        # Another number of examples may have other kernels, of less precision on a device.
        apart = torch.finfo(each.dtype).eps ** (1 / 3) if each.is_floating_point() else 0.0
        each = each.double()
        scale = float(each.nan_to_num(0.0, 0.0, 0.0).abs().max())
        if not torch.allclose(found, each, rtol=apart, atol=apart * scale, equal_nan=True):
            raise ValueError(
                "`loss` must give each example a number that depends on it alone, and gave others when there "
                "were further examples in the batch; take nothing over the batch in it, and draw no numbers."
            )
        self._loss_checked = True

    def _checked_indices(self, indices: Tensor) -> np.ndarray:
        numbers = torch.as_tensor(indices).detach().cpu().numpy()
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise TypeError(
                f"`indices` must be integers of shape (n,), got {numbers.dtype} of shape {numbers.shape}."
            )
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < self.parameters.dim:
            raise ValueError(
                f"`indices` must be from 0 to {self.parameters.dim - 1}, got {numbers.min()} to "
                f"{numbers.max()}."
            )
        return numbers.astype(np.int64)

    def _owners_of(self, numbers: np.ndarray) -> np.ndarray:
        """Return which parameter each coordinate is of."""
        return np.searchsorted(np.array(self.parameters.offsets), numbers, side="right") - 1

    def _cuts(self, owners: np.ndarray) -> list[int]:
        runs = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(owners)]
        cuts = [0]
        for start, stop in itertools.pairwise(runs):
            cuts += [*range(start, stop, int(self._units[owners[start]]))][1:] if stop > start else []
            cuts += [stop] if stop > start else []
        return cuts

    def _generators(self, cached: Cached) -> contextlib.AbstractContextManager[None]:
        """Return what protects the global generators from modules that draw from them."""
        drawing = any(seen.kept.get("generators") is not None for seen in cached.memory.values())
        return keyed_generators(cached.key) if drawing else contextlib.nullcontext()


class _Orders:
    """In which order of memory the network itself has what its layers are given."""

    def __init__(self) -> None:
        self._by_module: dict[int, list[bool]] = {}

    def record(self, network: Network, inputs: Tensor) -> None:
        """Call the stages and remember."""
        hooks = [
            layer.module.register_forward_pre_hook(self._note)
            for layer in {id(layer.module): layer for layer in network.layers.values()}.values()
            if not isinstance(layer.module, torch.jit.ScriptModule)  # which takes no hooks
        ]
        try:
            for module in network.modules:
                inputs = module(inputs)
        finally:
            for hook in hooks:
                hook.remove()

    def pop(self, module: nn.Module, x: Tensor) -> bool:
        """Return whether images lie pixel by pixel, each time for the next call of the module.

        Where nothing was recorded, it is how they lie in `x`.
        """
        noted = self._by_module.get(id(module))
        return noted.pop(0) if noted else _by_pixel(x)

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._by_module.setdefault(id(module), []).append(_by_pixel(inputs[0]))


def _by_pixel(x: Tensor) -> bool:
    return not x.is_contiguous() and is_channels_last(x)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same, NaN in the same places included."""
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _checked_smoothing(smoothing: float | Tensor, count: int) -> Tensor:
    """Return what is added, shape () or (count,), in double precision."""
    try:
        added = torch.as_tensor(smoothing, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`smoothing` must be a number or a tensor of numbers, got {smoothing!r}.") from error
    if added.shape not in ((), (count,)):
        raise ValueError(
            f"`smoothing` must be one number or one for each of {count} indices, got shape "
            f"{tuple(added.shape)}."
        )
    if not bool(added.isfinite().all()):
        raise ValueError(f"`smoothing` must be finite, got {smoothing!r}.")
    return added


def _parts(count: int, height: int) -> list[slice]:
    return [slice(start, min(start + height, count)) for start in range(0, count, height)]


def _unit(layer: Layer, network: Network) -> int:
    passed = [layer, *(after for step in network.tails[layer.number] for after in step.layers())]
    return min(layer.rule.unit for layer in passed)


def _check_precision(parameters: Parameters) -> None:
    for name, tensor in zip(parameters.names, parameters.tensors, strict=True):
        if tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                "`stages` must be of a network of single or double precision, got a parameter "
                f"{name!r} of {tensor.dtype}; evaluate `copy.deepcopy(model).float()`."
            )
