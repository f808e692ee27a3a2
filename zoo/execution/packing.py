"""What travels to workers, as bytes: a pickle, and beside it the large arrays it refers to.

A large array is named by its digest, so that a transport can ship it once to each machine, and need not
do so again when the next message holds the same one. This is the only file that pickles, and nothing that
is written to a file of a run ever passes through it.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import hashlib
import io
import pickle
import sys
import threading
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from zoo.core.objective import one_line

_LARGE = 2**16  # bytes, from which on an array travels beside the pickle
_COPY = "__mp_main__"  # what the script is to the processes that `multiprocessing` starts afresh
_MAIN = b"\x8c\x08__main__", b"\x8c\x0b__mp_main__"  # how a pickle names the module of what a script defines

_lock = threading.RLock()


class Base(NamedTuple):
    """A large array on its way: its digest and its bytes."""

    digest: str
    buffer: memoryview


class Message(NamedTuple):
    """What `encode` makes of a value: a pickle, and the arrays in the order in which it wants them."""

    body: bytes
    bases: tuple[Base, ...] = ()

    @property
    def size(self) -> int:
        """Bytes, if everything travels."""
        return len(self.body) + sum(base.buffer.nbytes for base in self.bases)


def encode(value: Any) -> Message:
    """Return a value as bytes that another process can load, also where `__main__` defines what it needs.

    Numpy arrays and torch tensors arrive as what they are; a tensor from a GPU on that of the worker.
    """
    bases: list[Base] = []

    def beside(buffer: pickle.PickleBuffer) -> bool:
        """Take an array out of the pickle, or return True to have it left there."""
        raw = buffer.raw()
        if raw.nbytes < _LARGE:
            return True
        bases.append(Base(hashlib.sha256(raw).hexdigest(), raw))
        return False

    return Message(_pickled(value, beside), tuple(bases))


def encode_whole(value: Any) -> bytes:
    """Return a value as `encode` would, its large arrays among the rest: for one receiver, and once."""
    return _pickled(value)


def encode_plain(value: Any) -> bytes:
    """Return a value of the library's own classes as bytes, in a fraction of the time."""
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def decode(body: bytes | bytearray | memoryview, bases: Iterable[Any] = ()) -> Any:
    """Return what `encode` made a message of, in another process of this run.

    Args:
        body: The pickle.
        bases: The arrays' bytes in their order. Arrays are views of them: writable if these are.
    """
    return pickle.loads(body, buffers=bases)


def encode_objective(objective: Any) -> Message:
    """Return an objective as bytes, or say why it cannot be sent.

    Raises:
        TypeError: It holds something that cannot leave this process, such as a lock or an open file.
    """
    try:
        return encode(objective)
    except Exception as error:  # picklers raise what they like
        raise TypeError(
            f"`fun` cannot be sent to workers: {summary(error)}. Create what cannot be sent inside the "
            'function, give "module:name" or "module:name()" to have it built on the worker, or use '
            "workers=1."
        ) from error


def summary(error: BaseException) -> str:
    """Return an exception as one line."""
    return one_line(error).rstrip(".")


def _pickled(value: Any, beside: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    try:
        import cloudpickle
    except ModuleNotFoundError:
        return _pickled_by_name(value, beside)
    with _script_by_value(cloudpickle):
        return _dump(cloudpickle.Pickler, value, beside)


@contextlib.contextmanager
def _script_by_value(cloudpickle: Any) -> Iterator[None]:
    """Have what the script defines sent by value also where the script is not called `__main__`."""
    script = sys.modules.get(_COPY)
    if script is None or script is not sys.modules["__main__"]:
        yield
        return
    with _lock:
        registered = _COPY in cloudpickle.list_registry_pickle_by_value()
        cloudpickle.register_pickle_by_value(script)
        try:
            yield
        finally:
            if not registered:
                cloudpickle.unregister_pickle_by_value(script)


def _pickled_by_name(value: Any, beside: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    advice = "install cloudpickle to send it (pip install cloudpickle)"
    try:
        body = _dump(pickle.Pickler, value, beside)
    except Exception as error:
        raise pickle.PicklingError(f"{summary(error)}; if it is a function, {advice}") from error
    if any(name in body for name in _MAIN):
        raise pickle.PicklingError(f"it is defined in the script or notebook itself; {advice}")
    return body


def _dump(pickler_class: Any, value: Any, beside: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    stream = io.BytesIO()
    chosen = _with_tensors(pickler_class) if "torch" in sys.modules else pickler_class
    chosen(stream, pickle.HIGHEST_PROTOCOL, buffer_callback=beside).dump(value)
    return stream.getvalue()


@functools.cache
def _with_tensors(pickler_class: Any) -> Any:
    """Return a pickler that knows how tensors become arrays."""
    own = copyreg.dispatch_table if pickler_class is pickle.Pickler else pickler_class.dispatch_table
    table = ChainMap({sys.modules["torch"].Tensor: _reduced}, own)
    return type("Pickler", (pickler_class,), {"dispatch_table": table})


def _reduced(tensor: Any) -> Any:
    """Return how a tensor is pickled: as an array of its bytes, where that is all there is to it."""
    if (
        not tensor.is_contiguous()
        or str(tensor.layout) != "torch.strided"
        or tensor.device.type not in ("cpu", "cuda")
        or tensor.is_quantized
        or tensor.is_complex()
        or (tensor.requires_grad and not tensor.is_leaf)
        or not tensor.numel()
    ):
        return tensor.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    flat = tensor.detach().cpu().reshape(-1).view(sys.modules["torch"].uint8).numpy()
    name = str(tensor.dtype).removeprefix("torch.")
    return _tensor, (flat, name, tuple(tensor.shape), tensor.device.type, tensor.requires_grad)


def _tensor(
    flat: np.ndarray[Any, Any], dtype: str, shape: tuple[int, ...], device: str, requires_grad: bool
) -> Any:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "it holds a tensor on a GPU, and this worker has none: give it one by `gpus_per_worker`, or "
            "keep tensors on the CPU"
        )
    # torch knows no arrays that are only to be read, and others may be looking at this one.
    source = torch.from_numpy(flat if flat.flags.writeable else flat.copy())
    return source.view(getattr(torch, dtype)).reshape(shape).to(device).requires_grad_(requires_grad)
