"""The few calls in a checkpoint's pickle that are answered, each by a function of ours that checks its arguments.

Everything else stays a :class:`~portraitzoo.hub.records.Record`. None of these functions imports, looks up an
attribute by a name from the file, or allocates more than its arguments already occupy.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.pickles import Name, hashable
from portraitzoo.hub.records import Global, Record, shown
from portraitzoo.hub.storages import Allowance, rebuild_tensor

PERSISTENT_MODULE = "persistent"
_NUMPY_KINDS = "biufc"
_NUMPY_TEXT = "SU"


def plain_calls() -> dict[Name, Callable[..., Any]]:
    """Builtins, collections and NumPy: values without tensors."""
    calls: dict[Name, Callable[..., Any]] = {
        ("collections", "OrderedDict"): _ordered_dict,
        ("collections", "defaultdict"): lambda factory=None, *rest: _dict(*rest),
        ("builtins", "dict"): _dict,
        ("builtins", "list"): lambda values=(): list(_sequence(values)),
        ("builtins", "tuple"): lambda values=(): tuple(_sequence(values)),
        ("builtins", "set"): lambda values=(): {hashable(value) for value in _sequence(values)},
        ("builtins", "frozenset"): lambda values=(): frozenset(hashable(value) for value in _sequence(values)),
        ("builtins", "complex"): _complex,
        ("builtins", "bytearray"): lambda *args: bytearray(_bytes(*args)),
        ("builtins", "bytes"): _bytes,
        ("_codecs", "encode"): _bytes,
        ("numpy", "dtype"): NumpyType,
        ("torch", "Size"): lambda values=(): tuple(_sequence(values)),
        ("torch.serialization", "_get_layout"): lambda name: name,
    }
    for core in ("numpy.core", "numpy._core"):
        calls[core + ".multiarray", "scalar"] = _numpy_scalar
        calls[core + ".multiarray", "_reconstruct"] = lambda *_: np.empty(0, np.uint8).view(NumpyArray)
        calls[core + ".numeric", "_frombuffer"] = _numpy_from_buffer
    for element in ("Ints", "Doubles", "Bools", "Tensors"):
        # TorchScript writes typed lists through these.
        calls["torch.jit._pickle", f"build_{element[:-1].lower()}list"] = lambda values: list(_sequence(values))
    for module in ("dnnlib.util", "dnnlib"):
        calls[module, "EasyDict"] = _dict
    return calls


def tensor_calls(allowance: Allowance) -> dict[Name, Callable[..., Any]]:
    """torch's functions that rebuild tensors, and the constructor of NVIDIA's persistent objects."""

    def rebuild_v2(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
        return rebuild_tensor(allowance, storage, offset, size, stride)

    def rebuild_v3(
        storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
    ) -> Tensor:
        return rebuild_tensor(allowance, storage, offset, size, stride, dtype)

    def rebuild_from_type(function: Any, cls: Any, args: Any, state: Any) -> Any:
        if function == Global("torch._utils", "_rebuild_tensor_v2") and isinstance(args, tuple):
            return rebuild_v2(*args)
        raise CheckpointError(f"a tensor is rebuilt by {shown(getattr(function, 'path', function))}")

    return {
        ("torch._utils", "_rebuild_tensor"): rebuild_v2,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_v2,
        ("torch._utils", "_rebuild_tensor_v3"): rebuild_v3,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
        ("torch.nn.parameter", "Parameter"): _parameter,
        ("torch._tensor", "_rebuild_from_type_v2"): rebuild_from_type,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_object,
    }


def _parameter(tensor: Any, *_: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise CheckpointError(f"a parameter is made of {shown(tensor)} instead of a tensor")
    return tensor


def _persistent_object(meta: Any) -> Record:
    # The source text in meta["module_src"] is what a normal reader would run; here it is dropped unread.
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise CheckpointError("a persistent object does not name its class")
    return Record(PERSISTENT_MODULE, meta["class_name"], state=meta.get("state"))


def _sequence(values: Any) -> list | tuple | set | frozenset:
    if not isinstance(values, list | tuple | set | frozenset):
        raise CheckpointError(f"a container is made of {shown(values)}")
    return values


def _pairs(values: Any) -> list[tuple[Any, Any]]:
    if isinstance(values, dict):
        return list(values.items())
    pairs = [tuple(_sequence(pair)) for pair in _sequence(values)]
    if any(len(pair) != 2 for pair in pairs):
        raise CheckpointError("a dict is made of something that is not pairs")
    return [(hashable(key), value) for key, value in pairs]


def _ordered_dict(values: Any = ()) -> OrderedDict:
    return OrderedDict(_pairs(values))


def _dict(values: Any = (), **named: Any) -> dict:
    return {**dict(_pairs(values)), **named}


def _complex(real: Any, imaginary: Any = 0.0) -> complex:
    if not isinstance(real, float | int) or not isinstance(imaginary, float | int):
        raise CheckpointError("a complex number is made of something that is not numbers")
    return complex(real, imaginary)


def _bytes(content: Any = b"", encoding: Any = "latin-1", *_: Any) -> bytes:
    # Old protocols write bytes as latin-1 text. A bare number would ask for that many zero bytes: refused.
    if isinstance(content, bytes | bytearray):
        return bytes(content)
    if not isinstance(content, str) or encoding not in ("latin-1", "latin1"):
        raise CheckpointError(f"bytes are made of {shown(content)}")
    return content.encode("latin-1")


class NumpyType:
    """A NumPy dtype while its pickle is read: plain numbers and fixed-length text only, no objects, no fields."""

    def __init__(self, code: Any, *_: Any) -> None:
        letters = code[:1] if isinstance(code, str) else ""
        kinds = _NUMPY_KINDS + _NUMPY_TEXT
        if not letters or letters not in kinds or not code[1:].isdecimal() or len(code) > 8:
            raise CheckpointError(f"an array is of the type {shown(code)}; only plain numbers and text are read")
        self.dtype = np.dtype(code)

    def __build__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise CheckpointError("an array has fields or sub-arrays; only plain numbers and text are read")
        if state[1] not in ("<", ">", "|", "="):
            raise CheckpointError(f"an array has the byte order {shown(state[1])}")
        self.dtype = self.dtype.newbyteorder(state[1])


def _numpy_bytes(dtype: Any, shape: Any, content: Any) -> tuple[np.dtype, tuple[int, ...], bytes]:
    if isinstance(content, str):
        content = content.encode("latin-1")
    if not isinstance(dtype, NumpyType) or not isinstance(content, bytes | bytearray):
        raise CheckpointError("an array is not made of a type and bytes")
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 2**48 for n in shape) or len(shape) > 32:
        raise CheckpointError("an array's shape is no list of counts")
    count = 1
    for length in shape:
        count *= length
    if dtype.dtype.itemsize == 0 or count * dtype.dtype.itemsize != len(content):
        raise CheckpointError(f"an array of shape {list(shape)} does not fit its {len(content)} bytes")
    return dtype.dtype, shape, bytes(content)


def _numpy_scalar(dtype: Any, content: Any) -> int | float | complex | bool | str | bytes:
    numpy_type, _, data = _numpy_bytes(dtype, (), content)
    return np.frombuffer(data, numpy_type)[0].item()


def _numpy_from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    numpy_type, lengths, data = _numpy_bytes(dtype, shape, content)
    native = numpy_type.newbyteorder("=")
    return np.frombuffer(data, numpy_type).reshape(lengths, order="F" if order == "F" else "C").astype(native)


class NumpyArray(np.ndarray):
    """A NumPy array that its pickle first makes empty and then fills."""

    def __build__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise CheckpointError("an array's state is not as NumPy writes it")
        _, shape, dtype, fortran, content = state
        numpy_type, lengths, data = _numpy_bytes(dtype, shape, content)
        # In place: other parts of the pickle may already refer to this very array.
        self.__setstate__((1, lengths, numpy_type, bool(fortran), data))  # type: ignore[arg-type]
