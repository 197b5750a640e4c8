"""Reads and writes one .safetensors file on any file system, one tensor at a time, as NumPy arrays.

Only the header is read to know names, types and shapes. Local files are memory-mapped, remote ones read range by range.
Format: 8 bytes header length, JSON header, then the tensors' bytes without gaps (github.com/huggingface/safetensors).
"""

import json
import math
import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from models.errors import CheckpointError

AnyArray = npt.NDArray[Any]

DTYPES: Mapping[str, npt.DTypeLike] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
DTYPE_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
MOST_TENSORS = 30_000
"""The largest published model of these families (xlm-roberta-xxl, 48 layers) has 780; all the layers that are built, 27,000."""
HEADER_LIMIT = 5_000_000
"""Bytes: as many tensors, at 160 bytes each; that model's header has about 100,000. The format's own limit is 100 MB."""


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor is: file path on its file system, byte range, shape and NumPy type."""

    path: str
    start: int
    stop: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class SafetensorsHeader:
    """A file's tensors by name, and its metadata ({"format": "pt"} and the like)."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]


def read_header(*, system: AbstractFileSystem, path: str) -> SafetensorsHeader:
    """The header of one file. Raises CheckpointError where the file is cut off or is not safetensors."""
    size = int(system.info(path)["size"])
    length = int.from_bytes(system.cat_file(path, start=0, end=8), "little") if size >= 8 else 0
    if HEADER_LIMIT < length <= size - 8:
        raise CheckpointError(f"{path}: its header has {length} bytes, more than {HEADER_LIMIT}: no model of ours")
    if not 2 <= length <= size - 8:
        raise CheckpointError(f"{path}: not a safetensors file, or cut off ({size} bytes); copy it again")
    try:
        entries = json.loads(system.cat_file(path, start=8, end=8 + length))
        metadata = {str(name): str(text) for name, text in entries.pop("__metadata__", {}).items()}
        if len(entries) > MOST_TENSORS:
            raise CheckpointError(
                f"{path}: it holds {len(entries)} tensors, more than {MOST_TENSORS}: no model of ours"
            )
        tensors = {name: _entry(path, 8 + length, entry) for name, entry in entries.items()}
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{path}: its safetensors header can't be read ({error!r}); copy it again") from None
    for name, info in tensors.items():
        if min(info.shape, default=0) < 0 or not 0 <= info.start <= info.stop:
            raise CheckpointError(f"{path}: '{name}' has shape {info.shape} at {info.start}…{info.stop}; damaged")
        if info.stop > size:
            raise CheckpointError(f"{path}: cut off at {size} bytes, '{name}' ends at {info.stop}; copy it again")
        if info.stop - info.start != math.prod(info.shape) * info.dtype.itemsize:
            raise CheckpointError(
                f"{path}: '{name}' has {info.stop - info.start} bytes for shape {info.shape}; damaged"
            )
    return SafetensorsHeader(tensors=tensors, metadata=metadata)


def _entry(path: str, offset: int, entry: dict[str, Any]) -> TensorInfo:
    start, stop = entry["data_offsets"]
    if not all(isinstance(number, int) for number in (start, stop, *entry["shape"])):
        raise ValueError(f"shape {entry['shape']!r} at {start!r}…{stop!r}")
    if entry["dtype"] not in DTYPES:
        raise CheckpointError(
            f"{path}: holds a tensor of the type {entry['dtype']}, which is not read; save it as F32 or F16"
        )
    return TensorInfo(
        path=path,
        start=offset + start,
        stop=offset + stop,
        shape=tuple(entry["shape"]),
        dtype=np.dtype(DTYPES[entry["dtype"]]),
    )


def read_tensors(*, system: AbstractFileSystem, tensors: Mapping[str, TensorInfo]) -> Iterator[tuple[str, AnyArray]]:
    """Each tensor as a read-only array, in the order given; local ones are views of the mapped file."""
    maps: dict[str, mmap.mmap] = {}
    for name, info in tensors.items():
        if isinstance(system, LocalFileSystem) and info.stop > info.start:
            if info.path not in maps:
                with Path(info.path).open("rb") as file:
                    maps[info.path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            count = math.prod(info.shape)
            flat = np.frombuffer(maps[info.path], dtype=info.dtype, count=count, offset=info.start)
        else:
            flat = np.frombuffer(system.cat_file(info.path, start=info.start, end=info.stop), dtype=info.dtype)
        yield name, flat.reshape(info.shape)


def write_tensors(
    *, system: AbstractFileSystem, path: str, tensors: Mapping[str, AnyArray], metadata: Mapping[str, str]
) -> int:
    """Write one file and return its size in bytes; tensors are streamed one after the other."""
    # Widest types first, so that every tensor starts on a multiple of its item size.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    stop = 0
    for name in order:
        start, stop = stop, stop + tensors[name].nbytes
        header[name] = {
            "dtype": _dtype_name(name, tensors[name]),
            "shape": list(tensors[name].shape),
            "data_offsets": [start, stop],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with system.open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for block in _blocks(tensors[name] for name in order):
            file.write(block)
    return 8 + len(text) + stop


def _blocks(arrays: Iterable[AnyArray]) -> Iterator[memoryview]:
    for array in arrays:
        if array.size:
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _dtype_name(name: str, array: AnyArray) -> str:
    if array.dtype not in DTYPE_NAMES:
        raise ValueError(f"'{name}' is {array.dtype}; safetensors holds {', '.join(map(str, DTYPE_NAMES))}")
    return DTYPE_NAMES[array.dtype]
