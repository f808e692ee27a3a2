"""A network taken apart: its layers, and what follows on each of them."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

from torch import Tensor, nn

from zoo.nn.coordinates.changes import Columns, by_copy
from zoo.nn.coordinates.rules import rule_of
from zoo.nn.coordinates.rules.base import Rule, Seen
from zoo.nn.coordinates.rules.rowwise import Unknown
from zoo.nn.stages import Residual, Stages, flattened, is_plain

Change: TypeAlias = Columns | Tensor
"""Changed copies: the columns that differ, or whole, (count * b, ...)."""
Memory: TypeAlias = dict[int, Seen]
"""What every layer and every block was given and returned, by its number."""
ByPixel: TypeAlias = Callable[[nn.Module, Tensor], bool]
"""Whether the network itself has the inputs of a module pixel by pixel in memory."""


class Step(abc.ABC):
    """Something that changed copies pass on their way through the network."""

    @abc.abstractmethod
    def columns(self, memory: Memory, columns: Columns) -> Columns | None:
        """Return what becomes of changed columns, if each remains a single one; else None."""

    @abc.abstractmethod
    def mixed(self, memory: Memory, columns: Columns) -> Tensor:
        """Return what becomes of changed columns if they do not."""

    @abc.abstractmethod
    def stacked(self, memory: Memory, x: Tensor, count: int) -> Tensor:
        """Return what becomes of whole copies; `x` may be written to."""

    def layers(self) -> Iterator[Layer]:
        """Yield the layers that are passed."""
        return iter(())


@dataclass(frozen=True, eq=False)
class Layer(Step):
    """A module that is not taken apart."""

    number: int
    module: nn.Module
    rule: Rule

    def see(self, memory: Memory, x: Tensor, by_pixel: ByPixel) -> Tensor:
        """Evaluate the unchanged network, and remember."""
        memory[self.number] = seen = self.rule.see(self.module, x, by_pixel(self.module, x))
        return seen.y

    def columns(self, memory: Memory, columns: Columns) -> Columns | None:
        return self.rule.columns(memory[self.number], columns)

    def mixed(self, memory: Memory, columns: Columns) -> Tensor:
        return self.rule.mixed(memory[self.number], columns)

    def stacked(self, memory: Memory, x: Tensor, count: int) -> Tensor:
        return self.rule.stacked(memory[self.number], x, count)

    def layers(self) -> Iterator[Layer]:
        yield self


@dataclass(frozen=True, eq=False)
class Fork(Step):
    """A residual block: a branch and a shortcut, whose ends are added."""

    number: int
    ways: tuple[tuple[Layer | Fork, ...], ...]

    def see(self, memory: Memory, x: Tensor, by_pixel: ByPixel) -> Tensor:
        """Evaluate the unchanged network, and remember."""
        ends = []
        for way in self.ways:
            end = x
            for node in way:
                end = node.see(memory, end, by_pixel)
            ends.append(end)
        memory[self.number] = Seen(None, x, ends[0] + ends[1], {"ends": ends})
        return memory[self.number].y

    def columns(self, memory: Memory, columns: Columns) -> Columns | None:
        ends = []
        for way in self.ways:
            end: Columns | None = columns.holding(columns.values.clone())
            for node in way:
                end = None if end is None else node.columns(memory, end)
            if end is None:
                return None
            ends.append(end)
        if not ends[0].resembles(ends[1]):
            return None
        return ends[0].holding(ends[0].values.add_(ends[1].values))

    def mixed(self, memory: Memory, columns: Columns) -> Tensor:
        # The branch comes first, and the shortcut may write to what is left for it.
        branch = through(self.ways[0], memory, columns.holding(columns.values.clone()), len(columns))
        shortcut = through(self.ways[1], memory, columns, len(columns))
        return self._sum(memory, branch, shortcut)

    def stacked(self, memory: Memory, x: Tensor, count: int) -> Tensor:
        branch, shortcut = self.ways
        is_fresh = bool(branch) and isinstance(branch[0], Layer) and branch[0].rule.fresh
        one = through(branch, memory, x if is_fresh else x.clone(), count)
        other = through(shortcut, memory, x, count)
        return self._sum(memory, one, other)

    def layers(self) -> Iterator[Layer]:
        for way in self.ways:
            for node in way:
                yield from node.layers()

    def _sum(self, memory: Memory, branch: Change, shortcut: Change) -> Tensor:
        whole = [
            change.spread(end) if isinstance(change, Columns) else change
            for change, end in zip((branch, shortcut), memory[self.number].kept["ends"], strict=True)
        ]
        return whole[0].add_(whole[1]) if whole[0].shape == whole[1].shape else whole[0] + whole[1]


@dataclass(frozen=True, eq=False)
class Join(Step):
    """The end of one way of a residual block, where the other, unchanged, is added."""

    fork: Fork
    other: int

    def columns(self, memory: Memory, columns: Columns) -> Columns | None:
        ends = memory[self.fork.number].kept["ends"]
        if ends[0].shape != ends[1].shape:
            return None
        return columns.holding(columns.values.add_(columns.of(ends[self.other])))

    def mixed(self, memory: Memory, columns: Columns) -> Tensor:
        end = memory[self.fork.number].kept["ends"][1 - self.other]
        return self.stacked(memory, columns.spread(end), len(columns))

    def stacked(self, memory: Memory, x: Tensor, count: int) -> Tensor:
        parts, end = by_copy(x, count), memory[self.fork.number].kept["ends"][self.other]
        if parts.shape[1:] == end.shape:
            parts.add_(end)
            return x
        return (parts + end).flatten(0, 1)


Node: TypeAlias = Layer | Fork


def through(steps: Sequence[Step], memory: Memory, change: Change, count: int) -> Change:
    """Return what becomes of changed copies on their way."""
    for step in steps:
        if isinstance(change, Tensor):
            change = step.stacked(memory, change, count)
        else:
            columns = step.columns(memory, change)
            change = step.mixed(memory, change) if columns is None else columns
    return change


class Network:
    """The layers of a network, each with all that follows on it.

    Args:
        stages: The network.
        plain: Whether to take no stage apart, and to know nothing about any.

    Attributes:
        modules: The stages, the last ones as one module where they cannot be told apart.
        nodes: Layers and residual blocks in their order.
        layers: All layers, by number.
        tails: By the number of a layer: what its outputs pass, in order.
        owners: By the id of a parameter: its layer, and its name in there.
    """

    def __init__(self, stages: Stages, plain: bool) -> None:
        self._count = 0
        self.layers: dict[int, Layer] = {}
        self.tails: dict[int, tuple[Step, ...]] = {}
        self.owners: dict[int, tuple[Layer, str]] = {}
        nodes: list[Node] = []
        self.modules = _joined(stages.modules)
        for module in self.modules:
            nodes += [self._whole(module, plain=True)] if plain else self._nodes(module)
        self.nodes = tuple(nodes)
        self._follow(self.nodes, ())
        for layer in self.layers.values():
            for name, parameter in layer.module.named_parameters():
                self.owners[id(parameter)] = layer, name

    def see(self, inputs: Tensor, by_pixel: ByPixel) -> tuple[Memory, Tensor]:
        """Evaluate the unchanged network; return what its layers were given and what it returns."""
        memory: Memory = {}
        for node in self.nodes:
            inputs = node.see(memory, inputs, by_pixel)
        return memory, inputs

    def _nodes(self, module: nn.Module) -> list[Node]:
        """Return the parts of a module: none, for one that does nothing."""
        if is_plain(module, nn.Identity):
            return []
        if not _is_residual(module):
            return [self._whole(module)]
        found = [id(parameter) for part in _parts(module) for parameter in part.parameters()]
        if len(set(found)) < len(found):  # a change would be one to two layers
            return [self._whole(module)]
        ways = [
            tuple(node for part in flattened([way]) for node in self._nodes(part))
            for way in (module.branch, module.shortcut)
        ]
        self._count += 1
        return [Fork(self._count, tuple(ways))]

    def _whole(self, module: nn.Module, plain: bool = False) -> Layer:
        self._count += 1
        return Layer(self._count, module, Unknown() if plain else rule_of(module))

    def _follow(self, nodes: Sequence[Node], after: tuple[Step, ...]) -> None:
        for position, node in enumerate(nodes):
            tail = (*nodes[position + 1 :], *after)
            if isinstance(node, Layer):
                self.layers[node.number], self.tails[node.number] = node, tail
            else:
                for way, other in ((0, 1), (1, 0)):
                    self._follow(node.ways[way], (Join(node, other), *tail))


def _joined(modules: Sequence[nn.Module]) -> tuple[nn.Module, ...]:
    """Return modules, those from the first nn.RReLU on as one if any after it may draw random numbers.

    It draws one for every input below 0, so that a change in front of it moves what all others draw.
    """
    for number, module in enumerate(modules):
        if any(type(part) is nn.RReLU for part in module.modules()):
            rest = nn.Sequential(*modules[number:])
            drawing = [part for part in rest.modules() if not isinstance(part, (nn.Sequential, Residual))]
            alone = sum(rule_of(part).draws(part) for part in drawing) == 1
            return tuple(modules) if alone else (*modules[:number], rest)
    return tuple(modules)


def _is_residual(module: nn.Module) -> TypeGuard[Residual]:
    return is_plain(module, Residual) and isinstance(module, Residual)


def _parts(module: Residual) -> Iterator[nn.Module]:
    """Yield the modules that a residual block would be taken apart into."""
    for part in flattened([module.branch, module.shortcut]):
        if _is_residual(part):
            yield from _parts(part)
        else:
            yield part
