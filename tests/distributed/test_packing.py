"""What travels to local workers: pickles, the arrays beside them, and the memory these lie in."""

import os
import sys
from types import ModuleType

import numpy as np
import pytest
from cloudpickle import list_registry_pickle_by_value

from tests.distributed.arrays import SIZE, array_of
from zoo.core.errors import EvaluationError
from zoo.execution import packing, shared
from zoo.execution.packing import Message, decode, encode, encode_objective, encode_whole
from zoo.execution.shared import Shelf, Store


def there_and_back(value):
    message = encode(value)
    return decode(message.body, [bytearray(base.buffer) for base in message.bases])


def segments():
    """Return how many segments this process holds open or mapped."""
    files = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    return sum("memfd:gradfree" in file for file in files)


def test_large_arrays_travel_beside_the_pickle():
    large, small = array_of(0, 2**13), array_of(1, 2**13 - 1)
    message = encode({"large": large, "small": small, "again": large.copy()})
    assert [base.buffer.nbytes for base in message.bases] == [2**16, 2**16]
    assert len({base.digest for base in message.bases}) == 1
    assert 2**16 - 8 < len(message.body) < 2**16 + 500
    assert message.size == len(message.body) + 2**17
    back = there_and_back({"large": large, "small": small, "again": large})
    assert back["large"].tobytes() == large.tobytes()
    assert back["small"].tobytes() == small.tobytes()
    assert back["again"] is back["large"]


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(2.0**14).reshape(128, 128)),
        np.arange(2.0**15)[::2],
        np.zeros((2**13, 3), np.float32)[:, :2],
        np.arange(2**17, dtype=np.int8).reshape(2, -1),
        np.array(["text"] * 2**12),
        np.array([{"an": "object"}] * 2**14),
    ],
    ids=["fortran", "strided", "part", "bytes", "text", "objects"],
)
def test_arrays_of_every_kind(array):
    back = there_and_back(array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert (back == array).all()
    whole = decode(encode_whole(array))
    assert (whole == array).all()
    assert whole.flags.writeable


def test_what_is_read_only_stays_so():
    message = encode(array_of(0))
    array = decode(message.body, [message.bases[0].buffer.toreadonly()])
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1.0


def test_tensors():
    torch = pytest.importorskip("torch")
    tensors = {
        "double": torch.arange(2**14, dtype=torch.float64),
        "half": torch.arange(2**16).to(torch.bfloat16).reshape(256, 256),
        "turned": torch.arange(2**15, dtype=torch.float32).reshape(128, 256).t(),
        "complex": torch.ones(2**14, dtype=torch.complex64),
        "parameter": torch.nn.Parameter(torch.ones(2**15)),
        "tracked": torch.ones(2**15, requires_grad=True),
        "empty": torch.empty(0, 3),
        "number": torch.tensor(3),
    }
    message = encode(tensors)
    assert len(message.bases) == 4  # what is neither turned nor complex
    for own in (True, False):
        buffers = [bytearray(base.buffer) for base in message.bases]
        back = decode(message.body, buffers if own else map(bytes, buffers))
        for name, tensor in tensors.items():
            assert type(back[name]) is type(tensor)
            assert (back[name].dtype, back[name].shape) == (tensor.dtype, tensor.shape)
            assert back[name].requires_grad == tensor.requires_grad
            assert torch.equal(back[name], tensor)
        with torch.no_grad():
            back["half"][0, 0] = 7.0  # which no array that is only to be read would bear
    assert decode(encode_whole(tensors))["half"].equal(tensors["half"])


def test_a_tensor_from_a_gpu_where_there_is_none(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="give it one by `gpus_per_worker`"):
        packing._tensor(np.zeros(4, np.uint8), "float32", (1,), "cuda", False)


@pytest.mark.parametrize("torch_too", [False, True])
def test_without_cloudpickle(monkeypatch, torch_too):
    if torch_too:
        pytest.importorskip("torch")
    else:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    assert there_and_back(array_of(0)).tobytes() == array_of(0).tobytes()
    assert there_and_back(EvaluationError) is EvaluationError
    with pytest.raises(TypeError, match=r"cannot be sent to workers: .*install cloudpickle"):
        encode_objective(lambda x: 0.0)


def parcels(store, shelf, known, message):
    """Return a message's arrays as a worker that has some segments sees them."""
    parcel = store.put(message)
    fresh = [segment for segment in parcel.segments if segment.number not in known]
    forgotten = known - store.numbers
    shelf.files.extend(os.dup(segment.fileno()) for segment in fresh)
    shelf.change([segment.number for segment in fresh], forgotten)
    known -= forgotten
    known.update(segment.number for segment in fresh)
    return shelf.read(parcel.arrays)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs files in memory")
class TestSegments:
    def test_each_array_is_written_once(self):
        store, shelf, known = Store(), Shelf(), set()
        lasting = array_of(0)
        for step in range(10):
            message = encode({"lasting": lasting, "changing": array_of(1 + step, 2**14)})
            views = parcels(store, shelf, known, message)
            assert [bytes(view) for view in views] == [bytes(base.buffer) for base in message.bases]
        assert store.written == 8 * (SIZE + 10 * 2**14)

    def test_arrays_in_many_segments_are_written_together_again(self):
        store, shelf, known = Store(), Shelf(), set()
        arrays = [array_of(seed, 2**13) for seed in range(20)]
        for step in range(20):  # one changes at a time
            arrays[step] = array_of(100 + step, 2**13)
            parcels(store, shelf, known, encode(arrays))
            assert len(store.put(encode(arrays)).segments) <= 8
        assert store.written < 8 * 2**13 * 20 * 5

    def test_what_is_not_needed_is_forgotten(self):
        store, shelf, known, before = Store(), Shelf(), set(), segments()
        lasting = store.put(encode(array_of(0)), lasting=True)
        for step in range(100):
            parcels(store, shelf, known, encode(array_of(1 + step)))
            assert len(known) <= 18
            assert segments() - before <= 1 + 2 * 18
        assert lasting.segments[0].number in store.numbers
        written = store.written
        assert store.put(encode(array_of(0))).segments == lasting.segments
        assert store.written == written
        store.put(encode(array_of(1)))  # long gone
        assert store.written > written
        del store, shelf, lasting
        assert segments() == before

    def test_large_ones_are_forgotten_at_once(self, monkeypatch):
        monkeypatch.setattr(shared, "_KEPT_BYTES", 2**20)
        store = Store()
        first = store.put(encode(array_of(0))).segments[0].number
        store.put(encode(array_of(1)))
        assert first in store.numbers  # which is as much as is kept beside what is needed
        store.put(encode(array_of(2)))
        assert first not in store.numbers

    def test_what_is_in_use_outlives_being_forgotten(self):
        store, shelf, known = Store(), Shelf(), set()
        message = encode(array_of(0))
        array = decode(message.body, parcels(store, shelf, known, message))
        for step in range(50):
            parcels(store, shelf, known, encode(array_of(1 + step)))
        assert array.tobytes() == array_of(0).tobytes()
        assert not array.flags.writeable

    def test_nobody_can_change_a_segment(self):
        (segment,) = Store().put(encode(array_of(0))).segments
        with pytest.raises(PermissionError):
            os.pwrite(segment.fileno(), b"spoilt", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(segment.fileno(), 0)

    def test_own_arrays_may_be_written_to(self):
        store = Store()
        message = encode(array_of(0))
        parcel = store.put(message)
        for _ in range(2):
            shelf = Shelf()
            shelf.files.append(os.dup(parcel.segments[0].fileno()))
            array = decode(message.body, shelf.own([parcel.segments[0].number], parcel.arrays))
            assert array.tobytes() == array_of(0).tobytes()
            array[:] = 0.0

    def test_arrays_begin_where_processors_like_it(self):
        store, shelf = Store(), Shelf()
        arrays = [np.ones(2**16 + 1 + size, np.int8) for size in range(5)]
        for view in parcels(store, shelf, set(), encode(arrays)):
            assert np.frombuffer(view, np.int8).ctypes.data % 64 == 0


@pytest.mark.parametrize("broken", [None, OSError(24, "Too many open files")])
def test_where_segments_cannot_be_had(monkeypatch, broken):
    def fail(*arguments):
        raise broken

    if broken:
        monkeypatch.setattr(os, "memfd_create", fail, raising=False)
    else:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    store, shelf = Store(), Shelf()
    array = array_of(0)
    message = Message(*encode(array))
    parcel = store.put(message)
    array[:] = 0.0  # what was sent stays what it was
    assert parcel.segments == ()
    assert store.written == 0
    assert bytes(shelf.read(parcel.arrays)[0]) == array_of(0).tobytes()
    assert shelf.read(parcel.arrays)[0].readonly
    assert not shelf.own([], parcel.arrays)[0].readonly


def test_the_script_of_a_process_that_multiprocessing_started_afresh(monkeypatch):
    """There it is called otherwise, and no worker can import it by that name either."""
    script = ModuleType("__mp_main__")
    exec("def twice(x): return 2 * x\ndef fun(x): return twice(x) + 1", script.__dict__)
    with monkeypatch.context() as child:
        child.setitem(sys.modules, "__main__", script)
        child.setitem(sys.modules, "__mp_main__", script)
        body = encode_whole(script.fun)
        child.setitem(sys.modules, "cloudpickle", None)
        with pytest.raises(TypeError, match="defined in the script or notebook itself"):
            encode_objective(script.fun)
    assert decode(body)(3) == 7
    assert "__mp_main__" not in list_registry_pickle_by_value()


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def test_an_exception_that_cannot_be_told():
    assert packing.summary(Speechless()) == "Speechless"
    assert packing.summary(ValueError("one.\ntwo.")) == "ValueError: one"
