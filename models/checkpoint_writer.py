"""Writes a checkpoint folder to any path or URL from a config, tensors and tokenizer files.

Weights are written first and config.json last, so that a folder with config.json is whole.
"""

import json
import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from models.addresses import open_address
from models.config import CONFIG_NAME, RobertaPreLayerNormConfig
from models.families import Family
from models.foreign_names import ForeignFormat, to_foreign
from models.h5_file import H5_NAME, write_h5
from models.msgpack_file import MSGPACK_NAME, write_msgpack
from models.safetensors_file import AnyArray, write_tensors
from models.tensors import BASE_STEMS, FAMILY_COLUMNS, FAMILY_PREFIX, PREFIX, stored_name
from models.weight_files import INDEX_NAME, WEIGHTS_NAME

WeightsFormat: TypeAlias = Literal["safetensors", "safetensors-tf", "safetensors-flax", "h5", "msgpack"]

KERAS_NAMES = {
    "roberta-prelayernorm": "tf_roberta_pre_layer_norm",
    "roberta": "tf_roberta",
    "xlm-roberta": "tfxlm_roberta",
    "camembert": "tf_camembert",
    "xlm-roberta-xl": "tfxlm_roberta_xl",
}

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def write_checkpoint(
    *,
    url: str,
    config: RobertaPreLayerNormConfig,
    tensors: Mapping[str, AnyArray],
    tokenizer_files: Mapping[str, bytes] | None = None,
    max_shard_size: int | str = "5GB",
    weights_format: WeightsFormat = "safetensors",
) -> None:
    """Write config.json, the weights (safetensors in shards with an index above max_shard_size) and the tokenizer.

    tensors: neutral names, with the prefix or in the bare model's form; written under the config's family's names.
    weights_format: "safetensors" (torch's names), "safetensors-tf", "safetensors-flax", "h5" (tf_model.h5) or "msgpack"
    (flax_model.msgpack).
    """
    system, folder = open_address(url)
    system.makedirs(folder, exist_ok=True)
    tensors = {stored_name(name, family=config.family): array for name, array in tensors.items()}
    stored, metadata = tensors, "pt"
    if weights_format in ("safetensors-tf", "h5"):
        stored, metadata = foreign_tensors(tensors=tensors, stored_format="tf", family=config.family), "tf"
    elif weights_format in ("safetensors-flax", "msgpack"):
        stored, metadata = foreign_tensors(tensors=tensors, stored_format="flax", family=config.family), "flax"
    if weights_format == "h5":
        write_h5(system=system, path=f"{folder}/{H5_NAME}", tensors=stored, model=_object_name(config))
    elif weights_format == "msgpack":
        write_msgpack(system=system, path=f"{folder}/{MSGPACK_NAME}", tensors=stored)
    else:
        _write_safetensors(system, folder, stored, metadata, max_shard_size)
    for file, content in (tokenizer_files or {}).items():
        system.pipe_file(f"{folder}/{file}", content)
    system.pipe_file(f"{folder}/{CONFIG_NAME}", config.to_json_string().encode())


def foreign_tensors(
    *, tensors: Mapping[str, AnyArray], stored_format: ForeignFormat, family: Family
) -> dict[str, AnyArray]:
    """Torch's names and layout -> TensorFlow's or Flax's. TF's names always have the prefix, Flax's stay as given."""
    found = {}
    prefix = FAMILY_PREFIX if family.names in FAMILY_COLUMNS else PREFIX
    for name, array in tensors.items():
        dressed = prefix + name if stored_format == "tf" and name.startswith(BASE_STEMS) else name
        foreign = to_foreign(name=dressed, stored_format=stored_format)
        found[foreign.name] = np.ascontiguousarray(array.T) if foreign.transposed else array
    return found


def _object_name(config: RobertaPreLayerNormConfig) -> str:
    """Keras's name of the model object, which readers skip."""
    prefix = config.family.class_prefix
    kind = (config.architectures or [f"{prefix}Model"])[0].removeprefix(prefix)
    return KERAS_NAMES[config.model_type] + re.sub(r"(?<!L)([A-Z])", r"_\1", kind).lower()


def _write_safetensors(
    system: AbstractFileSystem,
    folder: str,
    tensors: Mapping[str, AnyArray],
    stored_format: str,
    max_shard_size: int | str,
) -> None:
    """Write one file, or shards of at most max_shard_size with an index."""
    shards = plan_shards(sizes={name: array.nbytes for name, array in tensors.items()}, limit=max_shard_size)
    names = shard_names(count=len(shards))
    stale = [f"{folder}/{name}" for name in _weights_there(system, folder) if name not in names]
    local = isinstance(system, LocalFileSystem)
    for file, shard in zip(names, shards, strict=True):
        # A reader of a local folder never sees half a file; object stores guarantee that themselves.
        temporary = f"{folder}/.{file}.part" if local else f"{folder}/{file}"
        write_tensors(
            system=system,
            path=temporary,
            tensors={name: tensors[name] for name in shard},
            metadata={"format": stored_format},
        )
        if local:
            system.mv(temporary, f"{folder}/{file}")
    if len(shards) > 1:
        system.pipe_file(f"{folder}/{INDEX_NAME}", _index(names, shards, tensors))
    for path in stale:
        system.rm_file(path)


def plan_shards(*, sizes: Mapping[str, int], limit: int | str) -> list[list[str]]:
    """Names cut into runs of at most `limit` bytes, in order; a larger tensor stands alone."""
    allowed = parse_size(limit)
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > allowed:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def parse_size(size: int | str) -> int:
    """Bytes from a number or a text such as "5GB" or "200 MiB"."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(size))
    if not found or found[2].upper() not in UNITS or float(found[1]) <= 0:
        raise ValueError(f"max_shard_size is {size!r}; give bytes as a number, or a text such as '5GB' or '200MiB'")
    return int(float(found[1]) * UNITS[found[2].upper()])


def shard_names(*, count: int) -> list[str]:
    """File names of that many shards."""
    if count == 1:
        return [WEIGHTS_NAME]
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def _weights_there(system: AbstractFileSystem, folder: str) -> list[str]:
    try:
        names = [str(path).rsplit("/", 1)[-1] for path in system.ls(folder, detail=False)]
    except FileNotFoundError:  # an object store has no empty folders
        return []
    return [
        name
        for name in names
        if name in (WEIGHTS_NAME, INDEX_NAME) or re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", name)
    ]


def _index(names: list[str], shards: list[list[str]], tensors: Mapping[str, AnyArray]) -> bytes:
    weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
    total = sum(array.nbytes for array in tensors.values())
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2).encode()
