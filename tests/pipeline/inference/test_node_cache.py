"""Checkpoints on a store and on this disk in; proof that a node fetches one once, and never loads another than the job's, out."""

import json
import os
import time
from pathlib import Path

import fsspec
import pytest

from models.checkpoint import Checkpoint
from models.load import load
from pipeline.errors import ResourceError
from pipeline.inference.checkpoint_state import CheckpointState, checkpoint_state
from pipeline.inference.node_cache import CACHE_VARIABLE, KEPT_SECONDS, cache_folder, checkpoint_here, compiler_settings
from tests.pipeline.small import CHECKPOINT
from tests.pipeline.tasks.several import HEADS, write_heads


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def stored(s3_bucket: str) -> str:
    return copied(f"{s3_bucket}/checkpoint")


def copied(url: str) -> str:
    system, folder = fsspec.core.url_to_fs(url)
    system.makedirs(folder, exist_ok=True)
    for file in Path(CHECKPOINT).iterdir():
        system.pipe_file(f"{folder}/{file.name}", file.read_bytes())
    return url


def state_of(url: str) -> CheckpointState:
    return checkpoint_state(url, known=None, names=None)


def test_a_local_checkpoint_is_loaded_from_where_it_is(cache: Path) -> None:
    assert checkpoint_here(url=str(CHECKPOINT), state=state_of(str(CHECKPOINT))) == str(CHECKPOINT)
    assert not cache.exists()


def test_a_stored_checkpoint_is_fetched_once_a_node(stored: str, cache: Path) -> None:
    state = state_of(stored)
    first = checkpoint_here(url=stored, state=state)
    assert Checkpoint.open(first).digest() == state.digest
    system, folder = fsspec.core.url_to_fs(stored)
    system.rm(folder, recursive=True)
    assert checkpoint_here(url=stored, state=state) == first
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [state.digest]


def test_a_head_that_names_its_encoder_is_fetched_with_it(s3_bucket: str) -> None:
    base, head = copied(f"{s3_bucket}/encoder"), copied(f"{s3_bucket}/head")
    system, folder = fsspec.core.url_to_fs(head)
    fields = json.loads((Path(CHECKPOINT) / "config.json").read_text())
    system.pipe_file(f"{folder}/config.json", json.dumps({**fields, "base_model_name_or_path": "encoder"}).encode())
    state = state_of(head)
    here = checkpoint_here(url=head, state=state)
    assert len(Checkpoint.open(here).sources) == 2
    assert Checkpoint.open(here).digest() == state.digest == state_of(base).digest
    assert load(checkpoint=here, heads=["sequence-classification"])


def test_a_checkpoint_that_was_replaced_meanwhile_is_refused(stored: str, tmp_path: Path, cache: Path) -> None:
    state = CheckpointState(digest="of another one", stamp="another")
    with pytest.raises(ResourceError, match="is no longer the checkpoint that this run began with"):
        checkpoint_here(url=stored, state=state)
    with pytest.raises(ResourceError, match="somebody replaced it"):
        checkpoint_here(url=str(CHECKPOINT), state=state)
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_a_local_checkpoint_that_was_only_touched_is_taken(tmp_path: Path) -> None:
    folder = copied(str(tmp_path / "checkpoint"))
    state = state_of(folder)
    os.utime(tmp_path / "checkpoint/model.safetensors", (0, 0))
    assert state_of(folder).stamp != state.stamp
    assert checkpoint_here(url=folder, state=state) == folder


def test_copies_that_nobody_used_for_a_week_are_removed_when_another_comes(stored: str, cache: Path) -> None:
    for name, age in (("old", KEPT_SECONDS + 60), ("recent", 60.0)):
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (time.time() - age,) * 2)
    checkpoint_here(url=stored, state=state_of(stored))
    assert not (cache / "old").exists()
    assert (cache / "recent").exists()


def test_where_nothing_can_be_kept_the_store_itself_is_read(
    stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    assert checkpoint_here(url=stored, state=state_of(stored)) == stored


def test_compiled_programs_are_kept_beside_the_checkpoints_unless_the_environment_has_a_place(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    assert compiler_settings()["JAX_COMPILATION_CACHE_DIR"] == str(cache.parent / "compiled")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    assert compiler_settings()["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"


def test_several_heads_are_fetched_with_one_copy_of_their_encoder(s3_bucket: str, tmp_path: Path) -> None:
    local = write_heads(tmp_path / "heads", {name: HEADS[name] for name in ("intents", "mood")})
    url = f"{s3_bucket}/heads"
    system, folder = fsspec.core.url_to_fs(url)
    system.put(str(local), folder, recursive=True)
    names = ("intents", "mood")
    state = checkpoint_state(url, known=None, names=names)
    assert checkpoint_state(url, known=state, names=names) is state
    here = checkpoint_here(url=url, state=state, names=names)
    base, *own = sorted(path.name for path in Path(here).iterdir())
    assert (base[:6], own) == (".base-", ["intents", "mood"])
    assert load(checkpoint=here, heads={name: HEADS[name] for name in names}, device="cpu")
    other = json.loads((local / "mood" / "config.json").read_text()) | {"layer_norm_eps": 1e-3}
    system.pipe_file(f"{folder}/mood/config.json", json.dumps(other).encode())
    assert checkpoint_state(url, known=state, names=names) != state
    (cache_folder() / state.digest).rename(tmp_path / "gone")
    with pytest.raises(ResourceError, match="no longer the checkpoint"):
        checkpoint_here(url=url, state=state, names=names)
