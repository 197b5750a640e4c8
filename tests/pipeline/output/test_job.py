"""A folder is frozen to one job; another job is refused with the difference."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from models.errors import CheckpointError
from pipeline.errors import OutputError
from pipeline.inference.checkpoint_state import checkpoint_state
from pipeline.inference.questions import facts_of
from pipeline.output.folder import OutputFolder
from pipeline.output.job import (
    JOB_FILE,
    SHAPE_KEYS,
    FrozenJob,
    fingerprint_of,
    identity_of,
    refuse_another,
)
from pipeline.shards import CutRule
from pipeline.spec.job_spec import JobSpec
from pipeline.store.storage import join, put
from tests.pipeline.small import CHECKPOINT, frozen_job, spec

SCHEMA = pa.schema([("text", pa.string()), pa.field("deep", pa.list_(pa.struct([("a", pa.timestamp("us", "UTC"))])))])


def fingerprint(*, digest: str = "d", dtype: str = "float32", **keys: object) -> str:
    chosen = spec(**keys)
    return fingerprint_of(identity_of(spec=chosen, facts=facts_of(chosen), digest=digest, dtype=dtype))


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "e"},
        {"dtype": "bfloat16"},
        {"task": {"name": "text-classification", "top_k": 2}},
        {"task": "feature-extraction"},
        {"model": {"checkpoint": CHECKPOINT, "max_length": 20}},
        {"model": {"checkpoint": CHECKPOINT, "framework": "flax"}},
        {"source": {"urls": "in", "columns": {"text": "body"}}},
        {"limits": {"text_bytes": 10}},
    ],
)
def test_all_that_changes_answers_changes_the_fingerprint(changes: dict[str, Any]) -> None:
    assert fingerprint(**changes) != fingerprint()


@pytest.mark.parametrize(
    "changes",
    [
        {"resources": {"gpus": 0, "replicas": 3, "batch_tokens": 77}},
        {"source": "s3://elsewhere/in"},
        {"output": "elsewhere"},
        {"limits": {"error_rows": 0, "stall": 5}},
        {"shards": {"rows": 7}},
        {"source": {"urls": "in", "keep": ["id"]}},
        {"output": {"url": "out", "prefix": "p_"}},
    ],
)
def test_what_changes_no_answer_leaves_the_fingerprint(changes: dict[str, Any]) -> None:
    assert fingerprint(**changes) == fingerprint()


def test_the_columns_of_the_output_are_part_of_the_identity_though_not_of_the_fingerprint() -> None:
    chosen = spec()
    identity = identity_of(spec=chosen, facts=facts_of(chosen), digest="d", dtype="float32")
    assert set(SHAPE_KEYS) <= set(identity)


def job(output: Path | str, **keys: object) -> FrozenJob:
    return frozen_job(job=spec(output=str(output), **keys), schema=SCHEMA)


def test_a_job_reads_back_from_its_file_with_the_same_bytes(tmp_path: Path) -> None:
    given = job(tmp_path)
    content = given.to_json()
    assert FrozenJob.from_json(content, where="here") == given
    assert FrozenJob.from_json(content, where="here").to_json() == content
    assert json.loads(content)["columns"]["text"] == "string", "people read it too"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"{", b'{"spec": {"nope": 1}}', b"\xff"])
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, content: bytes) -> None:
    put(join(str(tmp_path), JOB_FILE), content)
    with pytest.raises(OutputError, match=r"this _job\.json was not written by preln"):
        OutputFolder(str(tmp_path)).read_job()


def test_a_folder_without_a_job_has_none(tmp_path: Path) -> None:
    assert OutputFolder(str(tmp_path / "no")).read_job() is None


def test_the_first_to_freeze_decides_and_the_same_job_may_go_on(tmp_path: Path) -> None:
    folder = OutputFolder(str(tmp_path))
    first = folder.freeze(job(tmp_path))
    again = folder.freeze(replace(job(tmp_path, resources={"replicas": 9, "gpus": 0}), cut=CutRule(rows=99, bytes=99)))
    assert again.cut == first.cut
    assert again.spec.resources.replicas == 9, "what changes no answer is as this command says"
    stored = OutputFolder(str(tmp_path)).read_job()
    assert stored is not None
    assert stored.cut == first.cut


def test_another_job_in_the_folder_is_refused_with_each_difference(tmp_path: Path) -> None:
    folder = OutputFolder(str(tmp_path))
    folder.freeze(
        replace(job(tmp_path), identity={"task.name": "text-classification", "model.dtype": "float32", "same": 1})
    )
    other = replace(job(tmp_path), identity={"task.name": "fill-mask", "model.dtype": "bfloat16", "same": 1, "new": 2})
    with pytest.raises(OutputError, match="belongs to another job") as caught:
        folder.freeze(other)
    message = str(caught.value)
    assert 'task.name is "text-classification" there and "fill-mask" here' in message
    assert 'model.dtype is "float32" there and "bfloat16" here' in message
    assert "new is null there and 2 here" in message
    assert "same" not in message.replace("the same settings", "")
    assert "\n" not in message


def test_a_difference_in_something_long_is_told_briefly(tmp_path: Path) -> None:
    frozen = replace(job(tmp_path), identity={"input.keep": ["column"] * 1_000})
    with pytest.raises(OutputError) as caught:
        refuse_another(frozen=frozen, identity={"input.keep": ["other"] * 1_000}, output="out")
    assert len(str(caught.value)) < 300


def test_two_drivers_that_race_freeze_one_job(tmp_path: Path) -> None:
    barrier, frozen = threading.Barrier(2), []

    def racer(rows: int) -> None:
        folder = OutputFolder(str(tmp_path))
        mine = replace(job(tmp_path), cut=CutRule(rows=rows, bytes=1))
        barrier.wait()
        frozen.append(folder.freeze(mine))

    threads = [threading.Thread(target=racer, args=(rows,)) for rows in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert frozen[0].cut == frozen[1].cut


def test_the_state_of_a_checkpoint_is_its_content_not_its_place(tmp_path: Path) -> None:
    shutil.copytree(CHECKPOINT, tmp_path / "copy")
    here, there = (
        checkpoint_state(CHECKPOINT, known=None, names=None),
        checkpoint_state(str(tmp_path / "copy"), known=None, names=None),
    )
    assert here.digest == there.digest
    assert here.stamp != there.stamp


def test_a_checkpoint_whose_files_are_untouched_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    known = replace(checkpoint_state(CHECKPOINT, known=None, names=None), digest="as told before")
    assert checkpoint_state(CHECKPOINT, known=known, names=None) == known
    assert checkpoint_state(CHECKPOINT, known=replace(known, stamp="other"), names=None).digest != "as told before"


def test_a_checkpoint_that_is_gone_is_named() -> None:
    with pytest.raises(CheckpointError, match="no-such-folder"):
        checkpoint_state("/no-such-folder", known=None, names=None)


def test_a_job_file_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    assert isinstance(job(tmp_path).spec, JobSpec)
    assert b"very-secret" not in job(tmp_path).to_json()
