"""A job file, flags and --set make one spec; the later ones override the earlier."""

from pathlib import Path

import pytest

from jobs.arguments import job_spec
from pipeline.errors import SpecError

JOB = """
input: {urls: s3://b/in/*.parquet, columns: {text: body}}
model: s3://b/model
task: {name: text-classification, top_k: 3}
output: s3://b/out
resources: {replicas: 4}
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB, encoding="utf-8")
    return path


def test_a_job_file_alone_is_a_job(job: Path) -> None:
    spec = job_spec(job=job)
    assert spec.input.urls == ["s3://b/in/*.parquet"]
    assert spec.resources.replicas == 4


def test_flags_alone_are_a_job() -> None:
    spec = job_spec(
        job=None,
        task="feature-extraction",
        model="m",
        input_urls=["a", "b"],
        output="out",
        framework="flax",
        dtype="float32",
        replicas=2,
    )
    assert spec.input.urls == ["a", "b"]
    assert (spec.model.checkpoint, spec.model.framework, spec.model.dtype) == ("m", "flax", "float32")
    assert (spec.task_name, spec.output.url, spec.resources.replicas) == ("feature-extraction", "out", 2)


def test_a_flag_overrules_the_file_and_leaves_what_stands_beside_it(job: Path) -> None:
    spec = job_spec(job=job, input_urls=["elsewhere"], model="other", replicas=1)
    assert (spec.input.urls, spec.input.columns) == (["elsewhere"], {"text": "body"})
    assert spec.model.checkpoint == "other"
    assert spec.resources.replicas == 1
    assert job_spec(job=job).resources.replicas == 4


def test_a_setting_overrules_file_and_flag(job: Path) -> None:
    spec = job_spec(
        job=job, replicas=2, settings=["resources.replicas=3", "input.columns.text=title", "task.top_k=all"]
    )
    assert spec.resources.replicas == 3
    assert spec.input.columns == {"text": "title"}
    assert spec.model_dump()["task"]["top_k"] == "all"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(SpecError) as caught:
        job_spec(job=None, task="text-classification")
    assert {"missing key 'input'", "missing key 'model'", "missing key 'output'"} <= set(str(caught.value).split("; "))


def test_a_job_file_that_can_not_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no\.yaml: No such file"):
        job_spec(job=tmp_path / "no.yaml")
    with pytest.raises(SpecError, match="Is a directory"):
        job_spec(job=tmp_path)
    (tmp_path / "latin.yaml").write_bytes("output: é".encode("latin-1"))
    with pytest.raises(SpecError, match=r"latin\.yaml: byte 8 is not UTF-8"):
        job_spec(job=tmp_path / "latin.yaml")
