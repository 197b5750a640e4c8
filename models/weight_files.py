"""A checkpoint folder's weight files in any format in, tensors under neutral names and in torch's layout out.

safetensors (torch, TF and Flax names; whole or in shards), tf_model.h5 and flax_model.msgpack. Pickle formats are read
by an opener that the caller brings (models.roberta_torch.pickle_file), and only if the caller does.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import fsspec
from fsspec.spec import AbstractFileSystem

from models.errors import CheckpointError
from models.foreign_names import ForeignFormat, to_neutral
from models.h5_file import H5_NAME, read_h5_header, read_h5_tensors
from models.msgpack_file import MSGPACK_NAME, read_msgpack
from models.safetensors_file import AnyArray, TensorInfo, read_header, read_tensors
from models.tensors import neutral_names

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
PICKLE_NAME = "pytorch_model.bin"
PICKLE_INDEX_NAME = "pytorch_model.bin.index.json"

Reader = Callable[[Sequence[str]], Iterator[tuple[str, AnyArray]]]
PickleOpener = Callable[[AbstractFileSystem, Sequence[str]], Mapping[str, AnyArray]]


@dataclass(frozen=True, eq=False)
class WeightFiles:
    """Tensors of one folder. tensors: neutral name -> shape and type; read: arrays of the named ones, one at a time."""

    system: AbstractFileSystem
    paths: tuple[str, ...]
    tensors: Mapping[str, TensorInfo]
    read: Reader


def open_weights(*, url: str, names: set[str], pickle: PickleOpener | None = None) -> WeightFiles:
    """The folder's weights, from the first of its formats: safetensors, pickle if an opener is given, h5, msgpack.

    names: the folder's files. Raises CheckpointError where there are none, naming what was found.
    """
    system, folder = fsspec.core.url_to_fs(url)
    try:
        if WEIGHTS_NAME in names or INDEX_NAME in names:
            files = [WEIGHTS_NAME] if WEIGHTS_NAME in names else shard_files(url=url, index=INDEX_NAME, names=names)
            return _open_safetensors(system, [f"{folder}/{file}" for file in files])
        has_pickle = PICKLE_NAME in names or PICKLE_INDEX_NAME in names
        if has_pickle and pickle is not None:
            files = (
                [PICKLE_NAME] if PICKLE_NAME in names else shard_files(url=url, index=PICKLE_INDEX_NAME, names=names)
            )
            paths = [f"{folder}/{file}" for file in files]
            return _in_memory(system, paths, pickle(system, paths), None)
        if H5_NAME in names:
            return _open_h5(system, f"{folder}/{H5_NAME}")
        if MSGPACK_NAME in names:
            path = f"{folder}/{MSGPACK_NAME}"
            return _in_memory(system, [path], read_msgpack(system=system, path=path), "flax")
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{url}: {error}") from None
    shown = ", ".join(sorted(names)[:8])
    hint = f"found {shown}"
    if has_pickle:
        hint = (
            f"{PICKLE_NAME} is a pickle, which can run code: allow it by allow_pickle=True "
            "(`preln convert --allow-pickle`) if you trust where it comes from"
        )
    raise CheckpointError(f"{url}: no {WEIGHTS_NAME} (nor {INDEX_NAME}, {H5_NAME}, {MSGPACK_NAME}); {hint}")


def shard_files(*, url: str, index: str, names: set[str]) -> list[str]:
    """The files that an index names; raises CheckpointError for one that is not there."""
    system, folder = fsspec.core.url_to_fs(url)
    try:
        files = sorted(set(json.loads(system.cat_file(f"{folder}/{index}"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{url}: {index} can't be read ({error!r}); copy the folder again") from None
    for file in files:
        if file not in names:
            raise CheckpointError(f"{url}: {index} names {file}, which is missing; copy the folder again")
    return files


def _open_safetensors(system: AbstractFileSystem, paths: list[str]) -> WeightFiles:
    tensors: dict[str, TensorInfo] = {}
    stored_format = "pt"
    for path in paths:
        header = read_header(system=system, path=path)
        stored_format = header.metadata.get("format", "pt")
        tensors |= header.tensors
    foreign: ForeignFormat | None = None
    if stored_format == "tf":
        foreign = "tf"
    elif stored_format == "flax":
        foreign = "flax"
    places = _places(list(tensors), foreign)

    def read(names: Sequence[str]) -> Iterator[tuple[str, AnyArray]]:
        wanted = {name: tensors[places[name].name] for name in names}
        for name, array in read_tensors(system=system, tensors=wanted):
            yield name, array.T if places[name].transposed else array

    return WeightFiles(system=system, paths=tuple(paths), tensors=_shapes(tensors, places), read=read)


def _open_h5(system: AbstractFileSystem, path: str) -> WeightFiles:
    tensors = read_h5_header(system=system, path=path)
    places = _places(list(tensors), "tf")

    def read(names: Sequence[str]) -> Iterator[tuple[str, AnyArray]]:
        wanted = {name: tensors[places[name].name] for name in names}
        for name, array in read_h5_tensors(system=system, path=path, tensors=wanted):
            yield name, array.T if places[name].transposed else array

    return WeightFiles(system=system, paths=(path,), tensors=_shapes(tensors, places), read=read)


def _in_memory(
    system: AbstractFileSystem, paths: list[str], arrays: Mapping[str, AnyArray], foreign: ForeignFormat | None
) -> WeightFiles:
    places = _places(list(arrays), foreign)
    tensors = {
        name: TensorInfo(path=paths[0], start=0, stop=array.nbytes, shape=array.shape, dtype=array.dtype)
        for name, array in arrays.items()
    }

    def read(names: Sequence[str]) -> Iterator[tuple[str, AnyArray]]:
        for name in names:
            array = arrays[places[name].name]
            yield name, array.T if places[name].transposed else array

    return WeightFiles(system=system, paths=tuple(paths), tensors=_shapes(tensors, places), read=read)


@dataclass(frozen=True)
class _Place:
    name: str
    transposed: bool


def _places(names: list[str], foreign: ForeignFormat | None) -> dict[str, _Place]:
    """Neutral name -> the file's name, and whether it lies there transposed."""
    torch_names = {name: _Place(name, transposed=False) for name in names}
    if foreign is not None:
        translated = {name: to_neutral(name=name, stored_format=foreign) for name in names}
        torch_names = {new.name: _Place(old, new.transposed) for old, new in translated.items()}
    return {new: torch_names[old] for old, new in neutral_names(list(torch_names)).items()}


def _shapes(tensors: Mapping[str, TensorInfo], places: Mapping[str, _Place]) -> dict[str, TensorInfo]:
    infos = {}
    for name, place in places.items():
        info = tensors[place.name]
        infos[name] = replace(info, shape=info.shape[::-1]) if place.transposed else info
    return infos
