"""A config, tensors and tokenizer files in, a checkpoint folder at any path or URL out.

Weights are written first and config.json last, so that a folder with config.json is whole.
"""

import json
import re
from collections.abc import Mapping

import fsspec
from fsspec.implementations.local import LocalFileSystem

from models.checkpoint import INDEX_NAME, WEIGHTS_NAME
from models.config import CONFIG_NAME, RobertaPreLayerNormConfig
from models.safetensors_file import AnyArray, write_tensors

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def write_checkpoint(
    *,
    url: str,
    config: RobertaPreLayerNormConfig,
    tensors: Mapping[str, AnyArray],
    tokenizer_files: Mapping[str, bytes] | None = None,
    max_shard_size: int | str = "5GB",
    stored_format: str = "pt",
) -> None:
    """Write config.json, model.safetensors (in shards with an index above max_shard_size) and the tokenizer's files.

    tensors: names as they shall stand in the file. stored_format: "pt", "tf" or "flax", whose names these are.
    """
    system, folder = fsspec.core.url_to_fs(str(url))
    system.makedirs(folder, exist_ok=True)
    shards = plan_shards(sizes={name: array.nbytes for name, array in tensors.items()}, limit=max_shard_size)
    names = shard_names(count=len(shards))
    stale = [f"{folder}/{name}" for name in _weights_there(system, folder) if name not in names]
    for file, shard in zip(names, shards, strict=True):
        temporary = f"{folder}/.{file}.part" if isinstance(system, LocalFileSystem) else f"{folder}/{file}"
        write_tensors(
            system=system,
            path=temporary,
            tensors={name: tensors[name] for name in shard},
            metadata={"format": stored_format},
        )
        if temporary != f"{folder}/{file}":
            system.mv(temporary, f"{folder}/{file}")
    if len(shards) > 1:
        system.pipe_file(f"{folder}/{INDEX_NAME}", _index(names, shards, tensors))
    for path in stale:
        system.rm_file(path)
    for file, content in (tokenizer_files or {}).items():
        system.pipe_file(f"{folder}/{file}", content)
    system.pipe_file(f"{folder}/{CONFIG_NAME}", config.to_json_string().encode())


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


def _weights_there(system: fsspec.AbstractFileSystem, folder: str) -> list[str]:
    names = [str(path).rsplit("/", 1)[-1] for path in system.ls(folder, detail=False)]
    return [
        name
        for name in names
        if name in (WEIGHTS_NAME, INDEX_NAME) or re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", name)
    ]


def _index(names: list[str], shards: list[list[str]], tensors: Mapping[str, AnyArray]) -> bytes:
    weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
    total = sum(array.nbytes for array in tensors.values())
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2).encode()
