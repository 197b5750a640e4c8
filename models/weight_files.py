"""Reads a checkpoint folder's weight files in any format: tensors under neutral names and in torch's layout.

safetensors (torch, TF and Flax names), tf_model.h5 and flax_model.msgpack, whole or in shards. Pickle formats are read
by an opener that the caller brings (models.roberta_torch.pickle_file), and only if the caller does.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from fsspec.spec import AbstractFileSystem

from models.addresses import open_address
from models.errors import CheckpointError
from models.families import Family
from models.foreign_names import ForeignFormat, to_neutral
from models.h5_file import H5_INDEX_NAME, H5_NAME, read_h5_header, read_h5_tensors
from models.json_object import json_object
from models.msgpack_file import MSGPACK_INDEX_NAME, MSGPACK_NAME, read_msgpack
from models.safetensors_file import HEADER_LIMIT, AnyArray, TensorInfo, read_header, read_tensors
from models.tensors import neutral_names
from models.unread_parts import plain_names, refuse_unread

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
PICKLE_NAME = "pytorch_model.bin"
PICKLE_INDEX_NAME = "pytorch_model.bin.index.json"
INDEX_NAMES = (INDEX_NAME, H5_INDEX_NAME, MSGPACK_INDEX_NAME)

WeightKind: TypeAlias = Literal["safetensors", "pickle", "h5", "msgpack"]
KINDS: Mapping[WeightKind, re.Pattern[str]] = {
    "safetensors": re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?"),
    "pickle": re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?"),
    "h5": re.compile(r"tf_model(-\d+-of-\d+)?\.h5(\.index\.json)?"),
    "msgpack": re.compile(r"flax_model(-\d+-of-\d+)?\.msgpack(\.index\.json)?"),
}
"""Names of the files of each format, in the order in which formats are looked for."""

Reader = Callable[[Sequence[str]], Iterator[tuple[str, AnyArray]]]
PickleOpener = Callable[[AbstractFileSystem, Sequence[str]], Mapping[str, AnyArray]]


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """Tensors of one folder with the names and the layout of its files; foreign: whose names those are, None for torch's."""

    system: AbstractFileSystem
    paths: tuple[str, ...]
    tensors: Mapping[str, TensorInfo]
    read: Reader
    foreign: ForeignFormat | None


@dataclass(frozen=True, eq=False)
class WeightFiles:
    """Tensors of one folder. tensors: neutral name -> shape and type; read: arrays of the named ones, one at a time.

    stored_names: neutral name -> the file's own.
    """

    system: AbstractFileSystem
    paths: tuple[str, ...]
    tensors: Mapping[str, TensorInfo]
    read: Reader
    stored_names: Mapping[str, str]


def first_kind(names: set[str], *, pickle: bool) -> list[str]:
    """The weights that a folder of these files is read from; pickle: whether one may be."""
    for kind, pattern in KINDS.items():
        files = [name for name in names if pattern.fullmatch(name)]
        if files and (pickle or kind != "pickle"):
            return files
    return []


def without_other_kinds(names: set[str], *, kept: WeightKind | None) -> set[str]:
    """The files without weights of formats other than this one, where it is there; "safetensors" keeps pickles too."""
    wanted = [] if kept is None else [KINDS[kept], *([KINDS["pickle"]] if kept == "safetensors" else [])]
    if not any(pattern.fullmatch(name) for pattern in wanted for name in names):
        return names
    others = [pattern for pattern in KINDS.values() if pattern not in wanted]
    return {name for name in names if not any(pattern.fullmatch(name) for pattern in others)}


def open_weights(
    *, url: str, names: set[str], pickle: PickleOpener | None = None, family: Family | None = None
) -> WeightFiles:
    """The folder's weights, from the first of its formats: safetensors, pickle if an opener is given, h5, msgpack.

    names: the folder's files. family: whose names of tensors they have. Raises CheckpointError where there are none,
    naming what was found.
    """
    stored = stored_weights(url=url, names=names, pickle=pickle)
    refuse_unread(url=url, names=names, fields={}, tensors=stored.tensors)
    try:
        places = _places(list(stored.tensors), stored.foreign, family)
    except ValueError as error:
        raise CheckpointError(f"{url}: {error}") from None

    def read(names: Sequence[str]) -> Iterator[tuple[str, AnyArray]]:
        wanted = {places[name].name: name for name in names}
        for real, array in stored.read(list(wanted)):
            yield wanted[real], array.T if places[wanted[real]].transposed else array

    return WeightFiles(
        system=stored.system,
        paths=stored.paths,
        tensors=_shapes(stored.tensors, places),
        read=read,
        stored_names={name: place.name for name, place in places.items()},
    )


def stored_weights(*, url: str, names: set[str], pickle: PickleOpener | None = None) -> StoredWeights:
    """What open_weights reads, before it is renamed."""
    system, folder = open_address(url)
    try:
        if WEIGHTS_NAME in names or INDEX_NAME in names:
            files = [WEIGHTS_NAME] if WEIGHTS_NAME in names else shard_files(url=url, index=INDEX_NAME, names=names)
            return _stored_safetensors(system, [f"{folder}/{file}" for file in files])
        has_pickle = PICKLE_NAME in names or PICKLE_INDEX_NAME in names
        if has_pickle and pickle is not None:
            files = (
                [PICKLE_NAME] if PICKLE_NAME in names else shard_files(url=url, index=PICKLE_INDEX_NAME, names=names)
            )
            paths = [f"{folder}/{file}" for file in files]
            return _in_memory(system, paths, pickle(system, paths), None)
        if H5_NAME in names or H5_INDEX_NAME in names:
            files = [H5_NAME] if H5_NAME in names else shard_files(url=url, index=H5_INDEX_NAME, names=names)
            return _stored_h5(system, [f"{folder}/{file}" for file in files], sharded=H5_NAME not in names)
        if MSGPACK_NAME in names or MSGPACK_INDEX_NAME in names:
            files = (
                [MSGPACK_NAME] if MSGPACK_NAME in names else shard_files(url=url, index=MSGPACK_INDEX_NAME, names=names)
            )
            paths = [f"{folder}/{file}" for file in files]
            arrays = {name: array for path in paths for name, array in read_msgpack(system=system, path=path).items()}
            return _in_memory(system, paths, arrays, "flax")
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
    system, folder = open_address(url)
    size = int(system.info(f"{folder}/{index}")["size"])
    if size > HEADER_LIMIT:
        raise CheckpointError(f"{url}: {index} has {size} bytes, more than {HEADER_LIMIT}: no model of ours")
    fields = json_object(system.cat_file(f"{folder}/{index}"), where=f"{url}: {index}")
    try:
        files = sorted(set(fields["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{url}: {index} can't be read ({error!r}); copy the folder again") from None
    for file in files:
        if file not in names:
            raise CheckpointError(f"{url}: {index} names {file}, which is missing; copy the folder again")
    return files


def _stored_safetensors(system: AbstractFileSystem, paths: list[str]) -> StoredWeights:
    """The tensors of all shards under their stored names.

    The header's `format` says whose names they are (PyTorch's by default).
    """
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

    def read(names: Sequence[str]) -> Iterator[tuple[str, AnyArray]]:
        return read_tensors(system=system, tensors={name: tensors[name] for name in names})

    return StoredWeights(system=system, paths=tuple(paths), tensors=tensors, read=read, foreign=foreign)


def _stored_h5(system: AbstractFileSystem, paths: list[str], *, sharded: bool) -> StoredWeights:
    tensors: dict[str, TensorInfo] = {}
    owners: dict[str, str] = {}
    for path in paths:
        found = read_h5_header(system=system, path=path, shard=sharded)
        tensors |= found
        owners |= dict.fromkeys(found, path)

    def read(names: Sequence[str]) -> Iterator[tuple[str, AnyArray]]:
        for path in paths:
            mine = {name: tensors[name] for name in names if owners[name] == path}
            yield from read_h5_tensors(system=system, path=path, tensors=mine)

    return StoredWeights(system=system, paths=tuple(paths), tensors=tensors, read=read, foreign="tf")


def _in_memory(
    system: AbstractFileSystem, paths: list[str], arrays: Mapping[str, AnyArray], foreign: ForeignFormat | None
) -> StoredWeights:
    tensors = {
        name: TensorInfo(path=paths[0], start=0, stop=array.nbytes, shape=array.shape, dtype=array.dtype)
        for name, array in arrays.items()
    }

    def read(names: Sequence[str]) -> Iterator[tuple[str, AnyArray]]:
        return ((name, arrays[name]) for name in names)

    return StoredWeights(system=system, paths=tuple(paths), tensors=tensors, read=read, foreign=foreign)


@dataclass(frozen=True)
class _Place:
    name: str
    transposed: bool


def _places(names: list[str], foreign: ForeignFormat | None, family: Family | None) -> dict[str, _Place]:
    """Neutral name -> the file's name, and whether it is stored transposed."""
    torch_names = {plain: _Place(name, transposed=False) for plain, name in plain_names(names).items()}
    if foreign is not None:
        translated = {name: to_neutral(name=name, stored_format=foreign) for name in names}
        torch_names = {new.name: _Place(old, new.transposed) for old, new in translated.items()}
    return {new: torch_names[old] for old, new in neutral_names(list(torch_names), family=family).items()}


def _shapes(tensors: Mapping[str, TensorInfo], places: Mapping[str, _Place]) -> dict[str, TensorInfo]:
    infos = {}
    for name, place in places.items():
        info = tensors[place.name]
        infos[name] = replace(info, shape=info.shape[::-1]) if place.transposed else info
    return infos
