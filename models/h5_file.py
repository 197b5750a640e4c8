"""Reads and writes TensorFlow's tf_model.h5 (Keras 2's layout), with its tensors under TF names.

A tensor is at /<layer>/<the model object's name>/<path>; the object's name varies, so only the path after it counts. In
a shard (tf_model-00001-of-00002.h5) it is at /<path> itself.
Language models have the embeddings twice, under the encoder and under the head, with equal values.
h5py is imported only when such a file is read or written, so that others need not install it.
"""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from fsspec.spec import AbstractFileSystem

from models.errors import CheckpointError
from models.safetensors_file import MOST_TENSORS, AnyArray, TensorInfo

H5_NAME = "tf_model.h5"
H5_INDEX_NAME = "tf_model.h5.index.json"


def read_h5_header(*, system: AbstractFileSystem, path: str, shard: bool = False) -> dict[str, TensorInfo]:
    """TF name -> shape and type; `TensorInfo.path` is the dataset's place inside the file. shard: one of several files."""
    import h5py

    found: dict[str, TensorInfo] = {}

    links = 0

    def count(group: Any) -> None:
        # Before its members are opened, which takes seconds where there are very many.
        nonlocal links
        links += len(group)
        if links > MOST_TENSORS:
            raise CheckpointError(f"{path}: it holds more than {MOST_TENSORS} tensors: no model of ours")

    def visit(place: str, item: object) -> None:
        if isinstance(item, h5py.Group):
            count(item)
        if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
            raise CheckpointError(
                f"{path}: '{place}' is stored in other files, which are not read; save the weights again"
            )
        if isinstance(item, h5py.Dataset) and (shard or place.count("/") >= 2):
            info = TensorInfo(path=place, start=0, stop=item.nbytes, shape=item.shape, dtype=item.dtype)
            found.setdefault(place if shard else place.split("/", 2)[2], info)

    try:
        with system.open(path, "rb") as stream, h5py.File(stream, "r") as file:
            count(file)
            file.visititems(visit)
    except (FileNotFoundError, CheckpointError):
        raise
    except Exception as error:  # HDF5's own come as OSError, RuntimeError, KeyError, ValueError and others
        raise CheckpointError(f"{path}: not an HDF5 file, or cut off ({error}); copy it again") from None
    return found


def read_h5_tensors(
    *, system: AbstractFileSystem, path: str, tensors: Mapping[str, TensorInfo]
) -> Iterator[tuple[str, AnyArray]]:
    """Each tensor, in the order given."""
    import h5py

    with system.open(path, "rb") as stream, h5py.File(stream, "r") as file:
        for name, info in tensors.items():
            try:
                array = np.asarray(file[info.path][()])
            except Exception as error:
                raise CheckpointError(f"{path}: '{name}' can't be read ({error}); copy the file again") from None
            yield name, array


def write_h5(*, system: AbstractFileSystem, path: str, tensors: Mapping[str, AnyArray], model: str) -> None:
    """Write tensors under TF names, e.g. `lm_head/dense/kernel:0`; model: the object's name in every path."""
    import h5py

    layers: dict[str, list[str]] = {}
    for name, array in tensors.items():
        if array.dtype.kind not in "fiu":
            raise ValueError(
                f"'{name}' is {array.dtype}, which HDF5 has no type for; save in float32 or as safetensors"
            )
        layers.setdefault(name.split("/", 1)[0], []).append(name)
    stream = io.BytesIO()  # HDF5 seeks back into what it wrote, which no object store allows
    with h5py.File(stream, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.21.0"
        for layer, names in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{model}/{name}".encode() for name in names]
            for name in names:
                group.create_dataset(f"{model}/{name}", data=tensors[name])
        file.create_group("top_level_model_weights").attrs["weight_names"] = np.empty(0)
    system.pipe_file(path, stream.getvalue())
