"""pytorch_model.bin files in, NumPy tensors out; and written.

Only for callers who allow pickle, and weights_only even then.
"""

import io
import pickletools
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import torch
from fsspec.spec import AbstractFileSystem
from torch import Tensor

from models.errors import CheckpointError
from models.roberta_torch.weights import dtype_of, to_numpy, to_tensor
from models.safetensors_file import HEADER_LIMIT, AnyArray

LEGACY_PICKLES = 4
"""The format's number, its version, facts of the system, and the state_dict."""


def read_pickles(system: AbstractFileSystem, paths: Sequence[str]) -> dict[str, AnyArray]:
    """Every tensor of the files by name. Raises CheckpointError for files that hold anything but tensors."""
    found: dict[str, AnyArray] = {}
    for path in paths:
        try:
            with system.open(path, "rb") as file:
                _refuse_too_many(file, path)
                state = torch.load(file, map_location="cpu", weights_only=True)
        except (FileNotFoundError, CheckpointError):
            raise
        except Exception as error:  # what a damaged archive makes of it is anything from KeyError to OSError
            raise CheckpointError(f"{path}: refused by torch.load(weights_only=True): {reason_of(error)}") from None
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            raise CheckpointError(f"{path}: not a state_dict of tensors; convert it with `preln convert`")
        found |= {name: to_numpy(tensor) for name, tensor in state.items()}
    return found


def reason_of(error: Exception) -> str:
    """Why torch.load refuses a file, without its advice to load it with weights_only=False."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{lines[0] if lines else type(error).__name__}; copy it again"


def _refuse_too_many(file: BinaryIO, path: str) -> None:
    """Raise CheckpointError for a file of too many tensors, from the size of its part that names them."""
    if zipfile.is_zipfile(file):
        file.seek(0)
        size = max(
            (e.file_size for e in zipfile.ZipFile(file).infolist() if e.filename.endswith("data.pkl")), default=0
        )
    else:
        size = _legacy_names_bytes(file)
    file.seek(0)
    if size > HEADER_LIMIT:
        raise CheckpointError(f"{path}: the names of its tensors have more than {HEADER_LIMIT} bytes: no model of ours")


def _legacy_names_bytes(file: BinaryIO) -> int:
    """The bytes of the pickles before the tensors' contents, in the format of before torch 1.6; at most one operation more than
    HEADER_LIMIT is looked at. 0 for what is no pickle, which torch.load refuses."""
    file.seek(0)
    size = 0
    try:
        for _ in range(LEGACY_PICKLES):
            for _, _, _ in pickletools.genops(file):  # reads operation by operation, and runs none
                size = file.tell()
                if size > HEADER_LIMIT:
                    return size
    except (ValueError, UnicodeError):
        return 0
    return size


def write_pickle(
    *, system: AbstractFileSystem, path: str, state: Mapping[str, Tensor], save: Callable[..., Any] = torch.save
) -> None:
    """One pytorch_model.bin with every name, tied ones twice, as the reference writes it. save: called as torch.save."""
    stream = io.BytesIO()
    save({name: tensor.detach().cpu() for name, tensor in state.items()}, stream)
    system.pipe_file(path, stream.getvalue())


def write_arrays(*, system: AbstractFileSystem, path: str, arrays: Mapping[str, AnyArray]) -> None:
    """The same from NumPy arrays, each in its own type."""
    state = {name: to_tensor(array, dtype=dtype_of(array.dtype.name)) for name, array in arrays.items()}
    write_pickle(system=system, path=path, state=state)
