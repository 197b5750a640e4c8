"""A fairseq checkpoint (.pt) in, its model's tensors as NumPy arrays and its settings out.

It is a pickle: only for callers who allow it, and weights_only even then, with the few plain classes that fairseq's
settings and statistics are made of.
"""

import argparse
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from torch import Tensor

from models.errors import CheckpointError
from models.roberta_torch.pickle_file import reason_of
from models.roberta_torch.weights import to_numpy
from models.safetensors_file import AnyArray

# Building one of these sets attributes or numbers and runs nothing of the file's.
PLAIN_CLASSES = (argparse.Namespace, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType)
# What rebuilds a NumPy number, under its names before and since NumPy 2.
NUMBER: Any = np.float64(0).__reduce__()[0]
PLAIN_FUNCTIONS = ((NUMBER, "numpy.core.multiarray.scalar"), (NUMBER, "numpy._core.multiarray.scalar"))


def read_fairseq(*, system: AbstractFileSystem, path: str) -> tuple[dict[str, AnyArray], dict[str, Any]]:
    """(tensors by fairseq's names, the model's settings, empty where the file has none).

    Raises CheckpointError for a file that holds other objects, is cut off, or has no "model".
    """
    state = _load(system, path)
    model = state.get("model") if isinstance(state, Mapping) else None
    if not isinstance(model, Mapping) or not all(isinstance(value, Tensor) for value in model.values()):
        shown = ", ".join(map(str, list(state)[:6])) if isinstance(state, Mapping) else type(state).__name__
        raise CheckpointError(
            f"{path}: no 'model' with tensors in it, so it is no fairseq checkpoint (found {shown}); "
            "shards of DeepSpeed must be joined into one fairseq file first"
        )
    return {str(name): to_numpy(tensor) for name, tensor in model.items()}, _settings(state)


def _load(system: AbstractFileSystem, path: str) -> Any:
    try:
        with torch.serialization.safe_globals([*PLAIN_CLASSES, *PLAIN_FUNCTIONS]):
            # An optimizer's state may be twice the model: of a mapped file only what is used is read.
            if isinstance(system, LocalFileSystem) and zipfile.is_zipfile(path):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with system.open(path, "rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except Exception as error:  # what a damaged archive makes of it is anything from KeyError to OSError
        raise CheckpointError(f"{path}: refused by torch.load(weights_only=True): {reason_of(error)}") from None


def _settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """What `args` (old fairseq) or `cfg.model` says."""
    cfg = state.get("cfg")
    for found in (state.get("args"), cfg.get("model") if isinstance(cfg, Mapping) else None):
        if isinstance(found, argparse.Namespace):
            return dict(vars(found))
        if isinstance(found, Mapping):
            return dict(found)
    return {}
