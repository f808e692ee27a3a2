"""Parameters of a network as one vector: which, in which order, and which are refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from zoo.core.rng import Key, keyed_generators
from zoo.nn import parameters
from zoo.nn.parameters import Parameters


@pytest.fixture(autouse=True)
def _own_generators() -> Iterator[None]:
    with keyed_generators(Key(0)):
        yield


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


def test_a_module_as_a_vector() -> None:
    model = network()
    model[1].requires_grad_(False)
    params = Parameters(model)
    assert params.names == ("0.weight", "0.bias", "2.weight")
    assert params.sizes == (12, 4, 8)
    assert params.offsets == (0, 12, 16, 24)
    assert params.module is model
    assert len(params) == 3
    flat = params.flat()
    params.write_(2 * flat)
    assert torch.equal(params.flat(), 2 * flat)
    assert torch.equal(params.split(flat)[2], model[2].weight.detach() / 2)
    params.write_gradient_(flat)
    assert torch.equal(model[0].weight.grad.reshape(-1), flat[:12])
    assert model[1].weight.grad is None


def test_what_torch_optim_takes() -> None:
    one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    assert Parameters([one, two]).names == ("0", "1")
    assert Parameters([("a", one), ("b", two)]).names == ("a", "b")
    groups = Parameters([{"params": [one]}, {"params": two, "lr": 1}])
    assert groups.groups == (0, 1)
    assert groups.blocks("group") == (2, 3)
    assert Parameters(groups).names == groups.names
    assert Parameters(torch.optim.SGD([one, two], lr=1).param_groups).dim == 5


def test_dtypes() -> None:
    dtypes = torch.bfloat16, torch.float32, torch.float64
    half, single, double = (nn.Parameter(torch.ones(2, dtype=dtype)) for dtype in dtypes)
    assert Parameters([half]).like.dtype == "float32"
    assert Parameters([half]).is_half
    assert Parameters([half, single]).coarsest == "bfloat16"
    mixed = Parameters([single, double])
    assert mixed.like.dtype == "float64"
    assert mixed.coarsest == "float32"
    assert not mixed.is_half
    mixed.write_(torch.full((4,), 1 / 3, dtype=torch.float64))
    assert single.detach().tolist() == torch.full((2,), 1 / 3).tolist()
    assert double.detach().tolist() == [1 / 3, 1 / 3]


def test_put_back_to_the_last_bit() -> None:
    model = network().half()
    params, before = Parameters(model), [p.clone() for p in model.parameters()]
    with params.restored():
        params.write_(params.flat() + 1)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_blocks() -> None:
    params = Parameters(network())
    assert params.blocks() == params.blocks("layer") == (16, 8, 8)
    assert params.blocks("tensor") == (12, 4, 4, 4, 8)
    assert params.blocks("group") == (32,)
    assert Parameters(nn.Linear(3, 4)).blocks("layer") == (16,)
    assert Parameters(list(network().parameters())).blocks("layer") == (12, 4, 4, 4, 8)
    with pytest.raises(ValueError, match="Did you mean 'layer'"):
        params.blocks("layers")


def test_masks() -> None:
    params = Parameters(network())
    mask = params.mask({"0.bias": torch.tensor([True, False, False, True]), "2.weight": False})
    assert mask.tolist() == [True] * 12 + [True, False, False, True] + [True] * 8 + [False] * 8
    assert params.mask({"0.bias": True}, others=False).sum() == 4
    assert params.mask({"2.weight": torch.ones(2, 4, dtype=torch.bool).T.contiguous().T}).all()


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        ({"0.bia": True}, ValueError, "got '0.bia'. Did you mean '0.bias'"),
        ({"0.bias": torch.ones(4)}, TypeError, "must hold booleans, got torch.float32 for '0.bias'"),
        (
            {"2.weight": torch.ones(8).bool()},
            ValueError,
            r"parameter's shape, \(2, 4\) for '2.weight', got \(8,\)",
        ),
    ],
)
def test_wrong_masks(masks: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Parameters(network()).mask(masks)


def test_a_shared_parameter_counts_once() -> None:
    """A tensor that two modules have is one parameter; two parameters of the same memory are refused."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert Parameters(model).dim == 9 + 3 + 3
    memory = torch.zeros(10)
    apart = [nn.Parameter(memory[:4]), nn.Parameter(memory[4:])]
    assert Parameters(apart).dim == 10
    overlapping = [nn.Parameter(memory[:5]), nn.Parameter(memory[4:])]
    with pytest.raises(ValueError, match="must not share memory, got '0' and '1' of the same"):
        Parameters(overlapping)
    with pytest.raises(ValueError, match="must not share memory, got '0' and '1' of the same"):
        Parameters([apart[0], apart[0]])
    with pytest.raises(ValueError, match="entries of '0' do: it was expanded"):
        Parameters([nn.Parameter(torch.zeros(1).expand(3))])


def test_parts_of_one_array() -> None:
    """Columns are within each other's extent; what counts is whether they have an entry in common."""
    memory = torch.arange(12.0).view(4, 3)
    columns = [nn.Parameter(memory[:, column]) for column in range(3)]
    params = Parameters(columns)
    params.write_(params.flat() + 1)
    assert memory.tolist() == (torch.arange(12.0).view(4, 3) + 1).tolist()
    with pytest.raises(ValueError, match="must not share memory, got '0' and '2' of the same"):
        Parameters([columns[0], columns[1], nn.Parameter(memory[2])])
    single = nn.Parameter(memory.view(torch.bfloat16)[:, 0])  # half of each entry of the first column
    with pytest.raises(ValueError, match="must not share memory"):
        Parameters([columns[0], columns[1], single])


def test_memory_that_was_exchanged_is_put_back() -> None:
    layer = nn.Linear(2, 2)
    before, memory = layer.weight.detach().clone(), layer.weight.data_ptr()
    with Parameters(layer).restored():
        layer.weight.data = torch.zeros(3, 5)
    assert torch.equal(layer.weight, before)
    assert layer.weight.data_ptr() == memory


def test_an_interruption_while_all_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, put_back, times = nn.Linear(2, 2), parameters._put_back, itertools.count()
    before = layer.weight.detach().clone()

    def second(kept: Any) -> None:
        if not next(times):
            raise KeyboardInterrupt
        put_back(kept)

    monkeypatch.setattr(parameters, "_put_back", second)
    with pytest.raises(KeyboardInterrupt), Parameters(layer).restored():
        layer.weight.data.zero_()
    assert torch.equal(layer.weight, before)


def _of_inference() -> nn.Module:
    with torch.inference_mode():
        made = nn.Linear(2, 2)
        assert Parameters(made).dim == 6  # there it can be written to
    return made


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda: network().requires_grad_(False), ValueError, "all are frozen"),
        (list, ValueError, "must hold a parameter that requires gradients"),
        (lambda: torch.ones(2), TypeError, "put it into a list"),
        (lambda: 3, TypeError, "`params` must be a module or hold tensors, got 3"),
        (
            lambda: {"params": [torch.ones(2)]},
            TypeError,
            "got a dictionary; put a parameter group",
        ),
        (
            lambda: [nn.Parameter(torch.eye(2).to_sparse())],
            TypeError,
            "must be dense, got '0' of torch.sparse_coo",
        ),
        (_of_inference, ValueError, "'weight' was made under `torch.inference_mode`; make the module"),
        (lambda: ["weight"], TypeError, "must hold tensors, got str"),
        (lambda: [{"weights": 1}], TypeError, "must be a dictionary with 'params'"),
        (
            lambda: [nn.Parameter(torch.ones(1, dtype=torch.complex64))],
            TypeError,
            "got '0' of torch.complex64",
        ),
        (
            lambda: [torch.ones(2, requires_grad=True) * 2],
            ValueError,
            "must not be computed from other tensors",
        ),
        (lambda: nn.LazyLinear(3), ValueError, "'weight' has none yet; call the module once"),
        (lambda: nn.Linear(2, 2, device="meta"), ValueError, "on the meta device; give them memory"),
        (
            lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta")),
            ValueError,
            "must be on one device, got some on each of cpu, meta",
        ),
    ],
)
def test_what_is_refused(made: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Parameters(made())
