"""Copies checkpoint folders from any URL to a local folder, file by file.

Copied is what answers depend on: config.json, weights, their index, the tokenizer and calibration.json. A checkpoint that names
its encoder by `base_model_name_or_path` brings that folder along under a name of its own.
"""

import json
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from models.addresses import open_address
from models.calibration_file import CALIBRATION_NAME
from models.checkpoint import TOKENIZER_NAMES, Checkpoint
from models.config import CONFIG_NAME
from models.named_heads import head_folder
from models.weight_files import INDEX_NAMES

BASE_FIELD = "base_model_name_or_path"


def copy_checkpoint(*, url: str, into: Path, names: Iterable[str] | None = None) -> Path:
    """Copy a checkpoint, or its heads of these names, under `into`; returns the copy's own folder.

    Raises CheckpointError, and OSError of the local disk.
    """
    whole = into / "checkpoint"
    if names is None:
        _copy_folder(url, into=whole)
    for name in names or ():
        folder = head_folder(checkpoint=url, name=name)
        _copy_folder(folder, into=whole if folder == url else whole / name)
    return whole


def _copy_folder(url: str, *, into: Path) -> None:
    """Copy a checkpoint's own folder, and its encoder's beside it: heads of one encoder share that copy."""
    opened = Checkpoint.open(url)
    remotes = [source.paths[0].rpartition("/")[0] for source in opened.sources]
    folders = [
        into,
        *(into.parent / f".base-{blake2b(remote.encode(), digest_size=6).hexdigest()}" for remote in remotes[1:]),
    ]
    for depth, (source, remote, folder) in enumerate(zip(opened.sources, remotes, folders, strict=True)):
        if folder.exists() and depth:
            continue  # heads of one encoder
        folder.mkdir(parents=True, exist_ok=True)
        extra = [CONFIG_NAME, *INDEX_NAMES, *((*TOKENIZER_NAMES, CALIBRATION_NAME) if depth == 0 else ())]
        there = {str(path).rpartition("/")[2] for path in source.system.ls(remote, detail=False)}
        for path in [*source.paths, *(f"{remote}/{name}" for name in extra if name in there)]:
            source.system.get_file(path, str(folder / path.rpartition("/")[2]))
        if depth + 1 < len(folders):
            _point(folder / CONFIG_NAME, base=folders[depth + 1].name)


def is_local(url: str) -> bool:
    """Whether a URL is on a file system of this machine, where weights are mapped into memory and shared as they are."""
    protocols = open_address(url)[0].protocol
    return "file" in ((protocols,) if isinstance(protocols, str) else protocols)


def _point(config: Path, *, base: str) -> None:
    fields = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**fields, BASE_FIELD: base}), encoding="utf-8")
