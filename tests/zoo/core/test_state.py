"""States: frozen to JSON and arrays, thawed to the same bytes, and logs that share one buffer."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from collections import OrderedDict
from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from zoo.core.bounds import Bounds
from zoo.core.device import Like
from zoo.core.rng import Key
from zoo.core.state import SHARED, Log, digest, digest_of, freeze, state, thaw

ROOT = Path(__file__).parents[3]


@state
class Inner:
    """A state within a state."""

    mean: Any
    step: int = 0


@state
class Outer:
    """A state that may hold anything."""

    value: Any


def there_and_back(value: Any) -> Any:
    """Freeze, write as JSON text, read, thaw."""
    tree, arrays = freeze(Outer(value))
    text = json.dumps(tree, allow_nan=False)
    return thaw(json.loads(text), {name: array.copy() for name, array in arrays.items()}).value


def assert_same(one: Any, other: Any) -> None:
    """Check type, dtype, shape and bytes, down to the leaves."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    elif isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.device) == (other.dtype, other.shape, other.device)
        plain, counterpart = (
            (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy().tobytes()
            for tensor in (one, other)
        )
        assert plain == counterpart
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for part, counterpart in zip(one, other, strict=True):
            assert_same(part, counterpart)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, Log):
        assert_same(one.array, other.array)
    elif isinstance(one, Bounds):
        assert_same((one.lower, one.upper), (other.lower, other.upper))
    elif isinstance(one, Inner):
        assert_same((one.mean, one.step), (other.mean, other.step))
    elif isinstance(one, (float, np.floating)):
        assert np.float64(one).tobytes() == np.float64(other).tobytes()
    else:
        assert one == other


VALUES = {
    "none": None,
    "true": True,
    "zero": 0,
    "large": 2**200,
    "negative": -(2**70),
    "text": 'a "b" \n ä \U0001f600 {"float": "nan"}',
    "float": 0.1 + 0.2,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "minus zero": -0.0,
    "nan": float("nan"),
    "inf": float("inf"),
    "minus inf": float("-inf"),
    "numpy float64": np.float64(0.1),
    "numpy float32": np.float32(0.1),
    "numpy float16 nan": np.float16("nan"),
    "numpy int64": np.int64(-(2**63)),
    "numpy uint64": np.uint64(2**64 - 1),
    "numpy bool": np.bool_(True),
    "empty tuple": (),
    "tuple": (1, 2.5, "a", (None, np.arange(3))),
    "dict": {"b": np.zeros(2), "a": 1, "array": {"float": 2.0}, "": ()},
    "empty dict": {},
    "key": Key(3).fold("a", 4),
    "like": Like("torch", "bfloat16", "cuda:1"),
    "log": Log([1.0, float("nan"), -0.0]),
    "empty log": Log(),
    "bounds": Bounds(np.array([-np.inf, 0.1]), np.array([0.3, np.inf])),
    "state": Inner(np.ones(2), 3),
    "nested": Inner(Inner((Inner({"x": Log([1.0])}),))),
    "float64": np.array([[0.1, np.nan], [-0.0, np.inf]]),
    "float32": np.arange(3, dtype=np.float32),
    "int8": np.arange(3, dtype=np.int8),
    "bools": np.array([True, False]),
    "no dimensions": np.array(3.5),
    "no elements": np.zeros((0, 3)),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "strided": np.arange(10.0)[::-2],
    "tensor": torch.tensor([0.1, float("nan"), -0.0]),
    "tensor float64": torch.arange(6, dtype=torch.float64).reshape(2, 3).T,
    "tensor bfloat16": torch.tensor([[0.1, float("inf")]], dtype=torch.bfloat16),
    "tensor float16": torch.tensor([0.1], dtype=torch.float16),
    "tensor int64": torch.arange(3),
    "tensor bool": torch.tensor([True, False]),
    "tensor of no dimensions": torch.tensor(0.1),
    "tensor bfloat16 of no dimensions": torch.tensor(0.1, dtype=torch.bfloat16),
    "tensor of no elements": torch.zeros(0, 3),
}


@pytest.mark.parametrize("name", VALUES)
def test_everything_comes_back_to_the_last_bit(name):
    value = VALUES[name]
    again = there_and_back(value)
    assert_same(again, value)
    assert digest(Outer(again)) == digest(Outer(value))


def test_different_states_have_different_digests():
    values = [*VALUES.values(), "1", 1, 1.0, np.float32(1), np.int64(1), (1,), ((1,),), {"a": 1}, {"b": 1}]
    values += [
        np.ones(1),
        np.ones((1, 1)),
        np.ones(1, np.float32),
        torch.ones(1),
        Log([1.0]),
        Inner(1),
        Inner(1, 1),
    ]
    values += [{"a": np.ones(1)}, (np.ones(1),), np.array([-1.0]), {"key": str(Key(0))}, Key(0), str(Key(0))]
    assert len({digest(Outer(value)) for value in values}) == len(values)


def test_digest_is_the_same_in_another_process():
    value = {"b": (np.arange(3.0), 1.5, Key(0)), "a": Log([1.0, 2.0])}
    tree, arrays = freeze(value)
    assert digest(value) == digest_of(tree, arrays) == digest_of(json.loads(json.dumps(tree)), arrays)
    code = """
import numpy as np
from zoo.core.rng import Key
from zoo.core.state import Log, digest
print(digest({"a": Log([1.0]).append([2.0]), "b": (np.arange(3.0), 1.5, Key(0))}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest(value)


def test_digest_does_not_depend_on_memory_layout():
    array = np.arange(6.0).reshape(2, 3)
    assert digest(Outer(array)) == digest(Outer(np.asfortranarray(array)))
    assert digest(Outer(torch.from_numpy(array))) == digest(Outer(torch.from_numpy(np.asfortranarray(array))))


@pytest.mark.parametrize(
    "value", [np.zeros(2), torch.zeros(2), Log([0.0]), torch.zeros(2, dtype=torch.bfloat16)]
)
def test_frozen_arrays_share_no_memory_with_the_state(value):
    _, arrays = freeze(Outer(value))
    (array,) = arrays.values()
    array[:] = 1
    assert digest(Outer(value)) == digest(Outer(type(value)([0.0]) if isinstance(value, Log) else value * 0))


def test_thawed_arrays_share_no_memory_with_the_checkpoint():
    tree, arrays = freeze(Outer((np.zeros(2), torch.zeros(2))))
    first = thaw(tree, arrays)
    first.value[0][:] = 1
    first.value[1][:] = 1
    second = thaw(tree, arrays)
    assert not second.value[0].any()
    assert not second.value[1].any()


def test_numpy_scalars_promote_as_before():
    """A plain 2.0 leaves a float32 array float32, and numpy's float64 does not."""
    array = np.ones(2, np.float32)
    for scalar in (2.0, np.float64(2), np.float32(2)):
        assert (there_and_back(scalar) * array).dtype == (scalar * array).dtype


class Pair(NamedTuple):
    """A tuple with names, which a plain tuple would lose."""

    one: int
    two: int


class Stranger:
    pass


@dataclass(frozen=True)
class Unmarked:
    """A dataclass that is no state."""

    one: int


@pytest.mark.parametrize(
    "value",
    [
        Stranger(),
        Unmarked(1),
        Pair(1, 2),
        [1, 2],
        {1, 2},
        b"bytes",
        1j,
        np.complex128(1j),
        np.longdouble(1),
        np.datetime64("2020-01-01"),
        np.array([object()]),
        np.array(["a"]),
        np.array([1j]),
        OrderedDict(a=1),
        {1: 2},
        len,
        Outer,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_state_can_hold_is_named_with_its_place(value):
    with pytest.raises(TypeError, match=r"`state\.value\.1\.deep` is .*, which no state can hold"):
        freeze(Outer((0, {"deep": value})))


def test_names_that_would_meet_are_refused():
    with pytest.raises(ValueError, match=r"'state\.value\.a\.b'"):
        freeze(Outer({"a.b": np.zeros(1), "a": {"b": np.ones(1)}}))
    with pytest.raises(ValueError, match=r"'state\.value\.a\.lower'"):
        freeze(Outer({"a.lower": np.zeros(1), "a": Bounds(np.zeros(1), np.ones(1))}))


def test_an_unknown_class_is_refused():
    tree, arrays = freeze(Outer(1))
    tree["state"]["class"] = "os:system"
    with pytest.raises(ValueError, match="no state of the name 'os:system' is known; import the module"):
        thaw(tree, arrays)


def test_other_fields_are_refused():
    tree, arrays = freeze(Inner(1.0))
    tree["state"]["fields"]["momentum"] = tree["state"]["fields"].pop("step")
    with pytest.raises(ValueError, match="has the fields 'mean', 'step', and not 'mean', 'momentum'"):
        thaw(tree, arrays)


def test_an_unknown_kind_of_entry_is_refused():
    with pytest.raises(ValueError, match="unknown kind of entry 'code'"):
        thaw({"code": "print()"}, {})


@pytest.mark.parametrize("value", [np.zeros(2), torch.zeros(2), Log([1.0]), Bounds(np.zeros(1), np.ones(1))])
def test_a_missing_array_is_refused(value):
    tree, arrays = freeze(Outer(value))
    missing = sorted(arrays)[-1]
    del arrays[missing]
    with pytest.raises(ValueError, match=f"the array '{missing}' is missing"):
        thaw(tree, arrays)


def test_states_are_frozen_and_have_slots():
    one = Inner(1.0)
    with pytest.raises(FrozenInstanceError):
        one.step = 1
    assert not hasattr(one, "__dict__")
    assert Inner(1.0) != Inner(1.0)  # states are compared by digest: equality of arrays is no truth value


def test_states_can_be_pickled():
    value = Outer((Inner(np.arange(2.0)), Key(1), Log([1.0]), Bounds(np.zeros(1), np.ones(1))))
    assert digest(pickle.loads(pickle.dumps(value))) == digest(value)


# Logs.


def test_a_log_does_not_change_when_it_is_appended_to():
    empty = Log()
    short = empty.append([1.0, 2.0])
    one, other = short.append([3.0]), short.append([4.0, 5.0])
    longer, another = one.append([6.0]), other.append([7.0])
    assert [log.array.tolist() for log in (empty, short, one, other, longer, another)] == [
        [],
        [1.0, 2.0],
        [1.0, 2.0, 3.0],
        [1.0, 2.0, 4.0, 5.0],
        [1.0, 2.0, 3.0, 6.0],
        [1.0, 2.0, 4.0, 5.0, 7.0],
    ]
    assert [len(log) for log in (empty, short, one, other)] == [0, 2, 3, 4]


def test_logs_may_branch_anywhere_and_often():
    draws = Key(0).integers(0, 1, 400, high=2**30)[0].tolist()
    logs: list[tuple[Log, list[float]]] = [(Log(), [])]
    for number, draw in enumerate(draws):
        log, expected = logs[draw % len(logs)]
        added = [float(number)] * (draw % 4)
        logs.append((log.append(added), expected + added))
    for log, expected in logs:
        assert log.array.tolist() == expected


def test_a_log_takes_arrays_and_keeps_copies():
    values = np.array([1.0, 2.0], np.float32)
    log, grown = Log(values), Log().append(values)
    values[:] = 0
    assert log.array.tolist() == grown.array.tolist() == [1.0, 2.0]
    assert log.array.dtype == grown.array.dtype == np.float64


def test_the_numbers_of_a_log_are_read_only_and_it_can_still_grow():
    log = Log().append([1.0])
    view = log.array
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2.0
    with pytest.raises(ValueError, match="read-only"):
        Log([1.0]).array[0] = 2.0
    grown = log.append([2.0])
    assert not np.shares_memory(view, Log([1.0]).array)
    assert np.shares_memory(view, grown.array)  # one buffer, written to beyond the view
    assert grown.array.tolist() == [1.0, 2.0]
    assert view.tolist() == [1.0]


def test_growing_a_log_costs_what_is_added():
    """As many numbers are moved as are appended, within a factor: the buffer doubles."""
    log, moved, buffer = Log(), 0, None
    began = time.process_time()
    for number in range(10_000):
        log = log.append([float(number)])
        if log._buffer is not buffer:
            buffer = log._buffer
            moved += len(log)
    assert time.process_time() - began < 5
    assert moved < 3 * len(log)
    assert log.array.tolist() == list(range(10_000))


def test_a_thawed_log_goes_on_growing():
    log = there_and_back(Log([1.0]).append([2.0]))
    assert log.append([3.0]).array.tolist() == [1.0, 2.0, 3.0]
    assert pickle.loads(pickle.dumps(log)).array.tolist() == [1.0, 2.0]


@state
class Holder:
    shared: Any = field(metadata=SHARED)
    own: Any


@pytest.mark.parametrize(
    "value",
    [np.arange(3.0), np.arange(3, dtype=np.float32), torch.arange(3.0), torch.ones(3, dtype=torch.bfloat16)],
    ids=lambda value: str(value.dtype),
)
def test_equal_arrays_of_shared_fields_are_written_once(value):
    copies = [value.clone() if isinstance(value, torch.Tensor) else value.copy() for _ in range(3)]
    tree, arrays = freeze((Holder(value, value), *(Holder(copy, None) for copy in copies)))
    assert sum(name.startswith("shared.") for name in arrays) == 1
    assert len(arrays) == 2
    back = thaw(json.loads(json.dumps(tree)), arrays)
    assert all(one.shared is back[0].shared for one in back)
    assert back[0].own is not back[0].shared
    for one in (back[0].shared, back[0].own):
        assert_same(one, value)
    assert digest(back) == digest_of(tree, arrays)


def test_shared_fields_differ_where_arrays_do():
    values = [
        np.zeros(4),
        np.zeros(4, np.float32),
        np.zeros((2, 2)),
        torch.zeros(4),
        np.ones(4),
        None,
        (2.0,),
    ]
    tree, arrays = freeze(tuple(Holder(value, 0) for value in values))
    for one, value in zip(thaw(tree, arrays), values, strict=True):
        assert_same(one.shared, value)
    name = next(name for name in arrays if name.startswith("shared."))
    with pytest.raises(ValueError, match="is missing"):
        thaw(tree, {other: array for other, array in arrays.items() if other != name})
