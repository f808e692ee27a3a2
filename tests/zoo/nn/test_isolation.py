"""Calls that see the same generators and buffers, and leave both as they were."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import global_generators
from zoo.core.rng import Key, keyed_generators
from zoo.nn.isolation import Isolation, isolated


@pytest.fixture
def _own_generators() -> Iterator[None]:
    """Modules are initialized from the global generators."""
    with keyed_generators(Key(0)):
        yield


networks = pytest.mark.usefixtures("_own_generators")


def drawn() -> tuple[Any, ...]:
    return float(torch.rand(())), float(np.random.rand()), float(np.random.randn()), random.random()


def test_calls_draw_the_same_and_other_keys_others() -> None:
    before = global_generators()
    with isolated(Key(0)) as isolation:
        first, second = isolation.call(drawn), isolation.call(drawn)
    with isolated(Key(0)) as isolation:
        again = isolation.call(drawn)
    with isolated(Key(1)) as isolation:
        other = isolation.call(drawn)
    assert first == second == again
    assert all(one != two for one, two in zip(first, other, strict=True))
    assert global_generators() == before


def test_a_number_drawn_ahead_is_kept() -> None:
    with keyed_generators(Key(0)):
        np.random.randn()  # they are drawn in pairs
        before = global_generators()
        with isolated(Key(0)) as isolation:
            isolation.call(drawn)
        assert global_generators() == before


def test_closures_may_seed() -> None:
    def seeded() -> tuple[Any, ...]:
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        return drawn()

    before = global_generators()
    with isolated(Key(0)) as isolation:
        assert isolation.call(seeded) == isolation.call(seeded)
        assert isolation.call(drawn) != isolation.call(seeded)
    assert global_generators() == before


@networks
def test_no_graph_is_built() -> None:
    layer = nn.Linear(1, 1)
    with isolated(Key(0)) as isolation:
        assert not isolation.call(lambda: layer(torch.ones(1))).requires_grad
    assert torch.is_grad_enabled()


def test_blocks_within_blocks() -> None:
    norm = nn.BatchNorm1d(2)

    def inner() -> Tensor:
        with isolated(Key(5)) as isolation:
            found = isolation.call(lambda: norm(torch.randn(3, 2)))
        norm(torch.randn(3, 2))
        return found

    before = global_generators()
    with isolated(Key(0)) as isolation:
        one, two = isolation.call(lambda: (inner(), drawn())), isolation.call(lambda: (inner(), drawn()))
    with isolated(Key(5)) as isolation:
        alone = isolation.call(lambda: norm(torch.randn(3, 2)))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[0], alone)
    assert one[1] == two[1]
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [0, 0]
    assert global_generators() == before


class Late(nn.Module):
    """Exchanges one buffer, fills another, makes a third, and drops a fourth."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("table", None)
        self.register_buffer("large", torch.zeros(100_000))
        self.register_buffer("gone", torch.ones(2))

    def forward(self) -> Tensor:
        self.steps = self.steps + 1
        self.large[0] += 1
        if self.table is None:
            self.table = torch.rand(2)
            self.register_buffer("cache", torch.rand(2), persistent=False)
            del self.gone
        return self.table + self.cache + self.steps + self.large[0]


def test_buffers_that_come_and_go() -> None:
    module = Late()
    before = dict(module._buffers)
    with isolated(Key(0)) as isolation:
        assert torch.equal(isolation.call(module), isolation.call(module))
    assert list(module._buffers) == list(before)
    assert all(module._buffers[name] is buffer for name, buffer in before.items())
    assert float(module.steps) == 0
    assert float(module.large[0]) == 0
    assert list(module.state_dict()) == ["steps", "large", "gone"]
    assert "cache" not in module._non_persistent_buffers_set


@pytest.mark.parametrize("size", [10, 2**16 + 1])
def test_buffers_written_where_versions_do_not_count(size: int) -> None:
    """As codebooks of vector quantization are."""
    module = nn.Module()
    module.register_buffer("code", torch.zeros(size))

    def closure() -> float:
        module.code.data.add_(1)
        return float(module.code.sum())

    with isolated(Key(0), [module]) as isolation:
        assert isolation.call(closure) == isolation.call(closure) == size
    assert not module.code.any()


@pytest.mark.parametrize(
    "write",
    [
        lambda queue: setattr(queue, "data", torch.cat([queue.data, torch.ones(1, 2)])),
        lambda queue: setattr(queue, "data", queue.data.t()),
        lambda queue: queue.data.resize_(7, 9).fill_(1),
        lambda queue: queue.resize_(1),
    ],
)
def test_buffers_of_another_shape(write: Callable[[Tensor], Any]) -> None:
    module, kept = nn.Module(), torch.arange(4.0).view(2, 2)
    module.register_buffer("queue", kept.clone())
    buffer, memory = module.queue, module.queue.data_ptr()
    with isolated(Key(0), [module]) as isolation:
        for _ in range(2):
            isolation.call(lambda: write(module.queue))
            assert torch.equal(module.queue, kept)
    assert module.queue is buffer
    assert buffer.is_contiguous()
    if write(torch.ones(2, 2)) is None:  # it was given other memory, and has its own again
        assert buffer.data_ptr() == memory


def test_buffers_that_were_expanded() -> None:
    """Nothing can write to them in place, so nothing is put back."""
    module = nn.Module()
    module.register_buffer("scale", torch.ones(1).expand(5))
    with isolated(Key(0), [module]) as isolation:
        assert float(isolation.call(lambda: module.scale.sum())) == 5


@networks
def test_a_module_made_of_modules() -> None:
    """Whatever way the modules within are reached: by a call, by `forward`, or through a container."""
    model = nn.Sequential(
        nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2)), nn.BatchNorm1d(2)
    ).requires_grad_(False)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    inputs = torch.arange(6.0).view(3, 2)
    for closure in (
        lambda: model(inputs),
        lambda: model.forward(inputs),
        lambda: [layer(inputs) for layer in model],
    ):
        with isolated(Key(0)) as isolation:
            isolation.call(closure)
        assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_other_threads() -> None:
    """A module that another thread trains keeps its buffers; a closure's own may be named."""
    elsewhere, named = nn.BatchNorm1d(2), nn.BatchNorm1d(2)

    def in_a_thread(module: nn.Module) -> None:
        thread = threading.Thread(target=module, args=(torch.arange(4.0).view(2, 2),))
        thread.start()
        thread.join()

    with isolated(Key(0), [named]) as isolation:
        isolation.call(lambda: in_a_thread(elsewhere))
        isolation.call(lambda: in_a_thread(named))
    assert elsewhere.num_batches_tracked is not None
    assert int(elsewhere.num_batches_tracked) == 1
    assert named.num_batches_tracked is not None
    assert int(named.num_batches_tracked) == 0


def test_threads_take_turns() -> None:
    """Blocks in several threads draw what each would alone."""
    alone = []
    for number in range(4):
        with isolated(Key(number)) as isolation:
            alone.append([isolation.call(drawn) for _ in range(3)])
    found: dict[int, Any] = {}

    def run(number: int) -> None:
        with isolated(Key(number)) as isolation:
            found[number] = [isolation.call(drawn) for _ in range(3)]

    before = global_generators()
    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == alone
    assert global_generators() == before


@networks
def test_compiled_modules() -> None:
    """They are compiled once, in the first block or before it, and their buffers are put back."""
    compilations = []

    def backend(graph: Any, inputs: Any) -> Any:
        compilations.append(graph)
        return graph.forward

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2))).requires_grad_(False)

    inputs = torch.arange(6.0).view(3, 2)
    wrapped, in_place, in_function = network(), network(), network()
    in_place.compile(backend=backend, fullgraph=True)
    cases = [
        (wrapped, torch.compile(wrapped, backend=backend, fullgraph=True), ()),
        (in_place, in_place, (in_place,)),
        (
            in_function,
            torch.compile(lambda x: in_function(x), backend=backend, fullgraph=True),
            (in_function,),
        ),
    ]
    for module, compiled, named in cases:
        torch._dynamo.reset()
        compilations.clear()
        before = {name: buffer.clone() for name, buffer in module.named_buffers()}
        for step in range(10):
            with isolated(Key(step), named) as isolation:
                one, two = (isolation.call(lambda: compiled(inputs)) for _ in range(2))  # noqa: B023
            assert torch.equal(one, two)
            assert all(torch.equal(buffer, before[name]) for name, buffer in module.named_buffers())
        assert len(compilations) <= 1  # torch need not compile in place where there are hooks


def test_buffers_without_a_shape() -> None:
    norm = nn.LazyBatchNorm1d(affine=False)
    with (
        pytest.raises(ValueError, match="the buffer 'running_mean' of a LazyBatchNorm1d has no shape yet"),
        isolated(Key(0)) as isolation,
    ):
        isolation.call(lambda: norm(torch.ones(3, 2)))
    assert not nn.modules.module._global_forward_pre_hooks


def test_buffers_of_inference() -> None:
    module = nn.Module()
    with torch.inference_mode():
        module.register_buffer("table", torch.ones(2))
    with isolated(Key(0), [module]) as isolation:
        assert isolation.call(lambda: module.table.sum()) == 2


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception(error: type[BaseException]) -> None:
    norm, before = nn.BatchNorm1d(2), global_generators()

    def failing() -> None:
        norm(torch.randn(3, 2))
        drawn()
        raise error

    with pytest.raises(error), isolated(Key(0)) as isolation:
        isolation.call(failing)
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 0
    assert global_generators() == before
    assert not nn.modules.module._global_forward_pre_hooks


def test_an_interruption_while_all_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, before, put_back = nn.BatchNorm1d(2), global_generators(), torch.set_rng_state
    interrupted: list[Any] = []

    def once(state: Any) -> None:
        if not len(interrupted):
            interrupted.append(state)
            raise KeyboardInterrupt
        put_back(state)

    def closure() -> None:
        norm(torch.randn(3, 2))
        drawn()
        monkeypatch.setattr(torch, "set_rng_state", once)

    with pytest.raises(KeyboardInterrupt), isolated(Key(0)) as isolation:
        isolation.call(closure)
    assert len(interrupted) == 1
    assert global_generators() == before
    assert not nn.modules.module._global_forward_pre_hooks


def test_an_interruption_while_buffers_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, put_back = nn.BatchNorm1d(2), Isolation.restore
    times: list[int] = []

    def second(self: Isolation) -> None:
        times.append(0)
        if len(times) == 2:
            raise KeyboardInterrupt
        put_back(self)

    monkeypatch.setattr(Isolation, "restore", second)

    def closure() -> None:
        norm(torch.ones(3, 2))
        times.append(0)
        raise ZeroDivisionError

    with pytest.raises(KeyboardInterrupt), isolated(Key(0)) as isolation:
        isolation.call(closure)
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 0
