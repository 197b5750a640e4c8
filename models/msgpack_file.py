"""Reads and writes Flax's flax_model.msgpack, with its tensors under dotted Flax names.

The format is flax.serialization's: nested maps whose leaves are an extension type 1 of (shape, type name, bytes), and
arrays above 1 GiB in chunks. It is read with msgpack alone; nothing in it can run code. msgpack is imported only when such a
file is read or written, so that others need not install it.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from fsspec.spec import AbstractFileSystem

from models.errors import CheckpointError
from models.safetensors_file import MOST_TENSORS, AnyArray

MSGPACK_NAME = "flax_model.msgpack"
MSGPACK_INDEX_NAME = "flax_model.msgpack.index.json"
ARRAY_TYPE = 1
SCALAR_TYPE = 3
CHUNKED = "__msgpack_chunked_array__"
CHUNK_BYTES = 2**30


def read_msgpack(*, system: AbstractFileSystem, path: str) -> dict[str, AnyArray]:
    """Dotted name -> array of the whole file."""
    import msgpack

    seen = itertools.count(1)

    def unpack(code: int, data: bytes) -> Any:
        if next(seen) > MOST_TENSORS:
            raise ValueError(f"it holds more than {MOST_TENSORS} tensors: no model of ours")
        return _unpack(code, data)

    try:
        tree = msgpack.unpackb(
            system.cat_file(path), ext_hook=unpack, raw=False, strict_map_key=False, max_map_len=MOST_TENSORS
        )
        flat: dict[str, AnyArray] = {}
        _flatten(tree.get("params", tree), "", flat)
    except FileNotFoundError:
        raise
    except Exception as error:  # msgpack's own errors share no base, and a tree may be of anything
        raise CheckpointError(f"{path}: not a Flax checkpoint, or cut off ({error}); copy it again") from None
    return flat


def write_msgpack(*, system: AbstractFileSystem, path: str, tensors: Mapping[str, AnyArray]) -> None:
    """Write tensors under dotted Flax names, e.g. `lm_head.dense.kernel`."""
    import msgpack

    tree: dict[str, Any] = {}
    for name, array in tensors.items():
        *owners, leaf = name.split(".")
        node = tree
        for owner in owners:
            node = node.setdefault(owner, {})
        node[leaf] = _chunks(array) if array.nbytes > CHUNK_BYTES else array
    system.pipe_file(path, msgpack.packb(tree, default=_pack, strict_types=True))


def _pack(value: object) -> Any:
    import msgpack

    if not isinstance(value, np.ndarray):
        raise TypeError(f"a {type(value).__name__} can't be written to {MSGPACK_NAME}")
    content = np.ascontiguousarray(value).tobytes()
    return msgpack.ExtType(ARRAY_TYPE, msgpack.packb((value.shape, value.dtype.name, content), use_bin_type=True))


def _unpack(code: int, data: bytes) -> Any:
    import msgpack

    if code not in (ARRAY_TYPE, SCALAR_TYPE):
        raise ValueError(f"extension type {code} is no array")
    shape, name, content = msgpack.unpackb(data, raw=False)
    dtype = np.dtype(ml_dtypes.bfloat16) if name in ("bfloat16", "V2") else np.dtype(name)
    return np.frombuffer(content, dtype=dtype).reshape(shape)


def _chunks(array: AnyArray) -> dict[str, Any]:
    flat = array.reshape(-1)
    step = CHUNK_BYTES // array.itemsize
    pieces = [flat[first : first + step] for first in range(0, flat.size, step)]
    return {
        CHUNKED: True,
        "shape": {str(axis): size for axis, size in enumerate(array.shape)},
        "chunks": {str(i): piece for i, piece in enumerate(pieces)},
    }


def _flatten(tree: Mapping[Any, Any], prefix: str, flat: dict[str, AnyArray]) -> None:
    for key, value in tree.items():
        if not isinstance(value, Mapping):
            flat[f"{prefix}{key}"] = np.asarray(value)
        elif CHUNKED in value:
            shape = tuple(value["shape"][str(axis)] for axis in range(len(value["shape"])))
            pieces = [value["chunks"][str(i)] for i in range(len(value["chunks"]))]
            joined = np.concatenate(pieces) if math.prod(shape) else np.empty(0, pieces[0].dtype)
            flat[f"{prefix}{key}"] = joined.reshape(shape)
        else:
            _flatten(value, f"{prefix}{key}.", flat)
