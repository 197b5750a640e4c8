"""Names in which a client would read something else are names: `::` anywhere, `?versionId=` on S3."""

import shutil
from pathlib import Path

import boto3
import pytest

from models.checkpoint import Checkpoint
from pipeline.errors import SpecError
from pipeline.output.folder import OutputFolder
from pipeline.prepare import open_job
from pipeline.reading.inputs import describe, list_files
from pipeline.spec.job_spec import InputSpec
from pipeline.store.storage import canonical, find, info, put, read_bytes
from tests.conftest import S3Server
from tests.pipeline.small import CHECKPOINT, OfflineCluster, spec


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.storage)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder whose name has two colons, beside one that has the name up to them, with files of its own."""
    above = str(request.getfixturevalue("s3_bucket")) if request.param == "s3" else canonical(str(tmp_path))
    put(f"{above}/x/a.txt", b"another\n")
    put(f"{above}/x", b"") if request.param == "s3" else None
    return f"{above}/x::y"


def test_two_colons_are_part_of_a_name(root: str) -> None:
    put(f"{root}/a::b.txt", b"one\n")
    put(f"{root}/a", b"not this")
    assert read_bytes(f"{root}/a::b.txt") == b"one\n"
    assert info(f"{root}/a::b.txt").size == len(b"one\n")
    for address in (root, f"{root}/*.txt", f"{root}/a::b.txt"):
        assert [file.uri for file in find(address) if file.uri.endswith(".txt")] == [f"{root}/a::b.txt"]
    folder = OutputFolder(f"{root}/out::1")
    folder.data.put("k.parquet", b"x")
    assert list(OutputFolder(f"{root}/out::1").objects()) == ["k.parquet"]


def test_a_checkpoint_may_be_in_such_a_folder(root: str) -> None:
    for path in Path(CHECKPOINT).iterdir():
        put(f"{root}/check::point/{path.name}", path.read_bytes())
    opened = Checkpoint.open(f"{root}/check::point")
    assert opened.weights_digest() == Checkpoint.open(CHECKPOINT).weights_digest()


def test_a_job_with_such_names_is_planned(tmp_path: Path) -> None:
    (tmp_path / "in::put").mkdir()
    (tmp_path / "in::put" / "a::b.txt").write_text("one\n")
    shutil.copytree(CHECKPOINT, tmp_path / "check::point")
    model = {"checkpoint": str(tmp_path / "check::point"), "dtype": "float32"}
    given = spec(source=str(tmp_path / "in::put"), output=str(tmp_path / "out::put"), model=model)
    job, described = open_job(spec=given, cluster=OfflineCluster())
    assert job.output == f"file://{tmp_path}/out::put"
    assert [item.file.uri for item in described] == [f"file://{tmp_path}/in::put/a::b.txt"]


@pytest.mark.storage
def test_a_key_that_the_client_would_cut_fails_by_itself(s3_server: S3Server, s3_bucket: str) -> None:
    client = boto3.client("s3", endpoint_url=s3_server.endpoint)
    bucket = s3_bucket.removeprefix("s3://")
    for key in ("in/a.txt", "in/a.txt?versionId=1.txt", "in/b.txt?versionId=2.txt"):
        client.put_object(Bucket=bucket, Key=key, Body=b"one\n")
    client.close()
    given = InputSpec(urls=[f"{s3_bucket}/in"])
    described = {item.file.uri: item.failure for item in describe(list_files(given, output="file:///no").files)}
    assert described.pop(f"{s3_bucket}/in/a.txt") is None
    assert len(described) == 2
    assert all("rename it" in str(failure) for failure in described.values())
    with pytest.raises(SpecError, match="only current ones are read; leave"):
        list_files(InputSpec(urls=[f"{s3_bucket}/in/a.txt?versionId=1"]), output="file:///no")
