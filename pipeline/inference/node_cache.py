"""Caches checkpoints on a node: one download for all replicas, verified against the job's frozen digest.

Replicas of a node share the copy, which is mapped into memory. It is kept under its digest for the next job, and removed
when no replica has started from it for a week. Programs that XLA compiles for Flax are kept as well. `PRELN_CACHE` names the
folder for both, by default the user's cache folder.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import platformdirs
from filelock import FileLock

from models.checkpoint_copy import copy_checkpoint, is_local
from models.errors import CheckpointError
from models.named_heads import HeadFolders
from pipeline.errors import ResourceError
from pipeline.inference.checkpoint_state import CheckpointState
from pipeline.telemetry import journal

CACHE_VARIABLE = "PRELN_CACHE"
KEPT_SECONDS = 7 * 86_400.0
COMPILED_BYTES = 2 * 1024**3
"""Size of the compiled programs that JAX keeps on a node; it removes the least recently used first."""


def cache_root() -> Path:
    """Where this node keeps files that can be downloaded or made again."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("preln")


def cache_folder() -> Path:
    """Where this node keeps checkpoints."""
    return cache_root() / "checkpoints"


def compiler_settings() -> dict[str, str]:
    """Variables by which JAX keeps compiled programs for the next process, unless the environment says otherwise."""
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(cache_root() / "compiled"),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(COMPILED_BYTES),
    }
    return {name: os.environ.get(name, value) for name, value in settings.items()}


def checkpoint_here(*, url: str, state: CheckpointState, names: Sequence[str] | None = None) -> str:
    """The folder to load: the checkpoint's own if it is local, else this node's copy of it or of its heads of these names.

    Raises ResourceError if the checkpoint is no longer the one that the job is frozen to.
    """
    if is_local(url):
        _refuse_changed(url, at=url, state=state, names=names)
        return url
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(folder / f"{state.digest}.lock"):
            return str(_copy(url, folder=folder, state=state, names=names))
    except CheckpointError:
        raise
    except OSError as error:
        journal.write("checkpoint not cached", folder=str(folder), cause=f"{type(error).__name__}: {error}")
        _refuse_changed(url, at=url, state=state, names=names)
        return url


def _copy(url: str, *, folder: Path, state: CheckpointState, names: Sequence[str] | None) -> Path:
    whole = folder / state.digest
    if not whole.exists():
        _sweep(folder)
        temporary = Path(tempfile.mkdtemp(prefix=".preln-", dir=folder))
        try:
            began = time.monotonic()
            copied = copy_checkpoint(url=url, into=temporary, names=names)
            _refuse_changed(url, at=str(copied), state=state, names=names)
            temporary.rename(whole)
            journal.write("checkpoint copied", checkpoint=url, seconds=round(time.monotonic() - began, 3))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    os.utime(whole)
    return whole / "checkpoint"


def _refuse_changed(url: str, *, at: str, state: CheckpointState, names: Sequence[str] | None) -> None:
    opened = HeadFolders.open(checkpoint=at, names=names)
    if (at == url and opened.stamp() == state.stamp) or opened.digest() == state.digest:
        return
    raise ResourceError(
        f"{url} is no longer the checkpoint that this run started with: it was replaced meanwhile. Restore the former "
        "one, or annotate into a new output folder"
    )


def _sweep(folder: Path) -> None:
    """Remove copies that nobody has used for long, and what killed processes left unfinished."""
    for path in folder.iterdir():
        if path.is_dir() and time.time() - path.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
