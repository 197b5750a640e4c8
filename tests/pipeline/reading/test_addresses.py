"""Addresses of one file and of two: what is read once, what twice, and what costs only itself."""

import json
import os
import shutil
import socket
import time
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError, SpecError
from pipeline.reading.formats.lines import read_block
from pipeline.reading.inputs import describe, list_files
from pipeline.reading.planned_version import check_version
from pipeline.spec.job_spec import InputSpec
from pipeline.store.storage import canonical, delete, find, info, put, read_bytes
from tests.conftest import S3Server
from tests.pipeline.bad_run import annotate
from tests.pipeline.delta_log import INLINE_VECTOR, log_table
from tests.pipeline.small import spec

CASES = Path(__file__).parents[2] / "cases"


def listed(*urls: str | Path) -> list[str]:
    files = list_files(InputSpec(urls=[canonical(str(url)) for url in urls]), output="file:///nowhere").files
    return [file.uri for file in files]


def test_spellings_of_one_local_folder_are_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    spellings = [str(tmp_path), f"/{tmp_path}", f"{tmp_path}/../{tmp_path.name}", f"{tmp_path}//", f"file://{tmp_path}"]
    assert listed(*spellings) == [f"file://{tmp_path}/a.txt"]


def test_a_link_to_a_file_that_is_read_already_is_read_once_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.txt").symlink_to(tmp_path / "a.txt")
    listing = list_files(InputSpec(urls=[f"file://{tmp_path}"]), output="file:///nowhere")
    assert [file.uri for file in listing.files] == [f"file://{tmp_path}/a.txt"]
    assert "b.txt is the same file by another name" in listing.notes[0]


def test_a_link_that_sorts_first_takes_no_files_place(tmp_path: Path) -> None:
    """Neither from the file itself, nor from a name under which its rows are in the output already."""
    (tmp_path / "in").mkdir()
    (tmp_path / "blob").write_text("one\n")
    (tmp_path / "in" / "b.txt").symlink_to(tmp_path / "blob")
    given, known = InputSpec(urls=[f"file://{tmp_path}/in"]), [f"file://{tmp_path}/in/b.txt"]
    (tmp_path / "in" / "a.txt").symlink_to(tmp_path / "blob")
    assert [file.uri for file in list_files(given, output="file:///nowhere", known=known).files] == known
    (tmp_path / "in" / "c.txt").write_text("two\n")
    (tmp_path / "in" / "0.txt").symlink_to(tmp_path / "in" / "c.txt")
    found = [file.uri.rpartition("/")[2] for file in list_files(given, output="file:///nowhere").files]
    assert found == ["c.txt", "a.txt"] or found == ["a.txt", "c.txt"]


def test_a_link_has_the_time_of_its_file(tmp_path: Path) -> None:
    target = tmp_path / "blob"
    target.write_text("one\n")
    os.utime(target, (time.time() - 1_000,) * 2)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").symlink_to(target)
    (file,) = list_files(InputSpec(urls=[f"file://{tmp_path}/in"]), output="file:///nowhere").files
    check_version(file)


KEYS = st.lists(
    st.text(alphabet="ab/.%20é~", min_size=1, max_size=6).filter(lambda key: key.strip("/.") != ""),
    min_size=1,
    max_size=4,
    unique=True,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(keys=KEYS)
def test_keys_of_a_bucket_are_never_taken_for_one_another(s3_server: S3Server, s3_bucket: str, keys: list[str]) -> None:
    keys = [f"in/{key.strip('/')}x.txt" for key in keys] + ["in/a//b.txt", "in/a/b.txt", "in/é.txt", "in/é.txt"]
    client = boto3.client("s3", endpoint_url=s3_server.endpoint)
    bucket = s3_bucket.removeprefix("s3://").partition("/")[0]
    prefix = s3_bucket.removeprefix("s3://").partition("/")[2]
    names = {f"{prefix}/{key}".lstrip("/") for key in keys}
    try:
        for name in names:
            client.put_object(Bucket=bucket, Key=name, Body=name.encode())
        # A part that is one dot hides nothing: on a disk it would be the folder itself.
        hidden = {
            name for name in names if any(part != "." and part.startswith((".", "_")) for part in name.split("/"))
        }
        visible = names - hidden
        found = find(canonical(f"{s3_bucket}/in"))
        assert {file.uri.removeprefix(f"s3://{bucket}/") for file in found} == visible
        for file in found:
            assert read_bytes(file.uri).decode() == file.uri.removeprefix(f"s3://{bucket}/")
            assert info(file.uri).uri == file.uri
    finally:
        for name in names:
            client.delete_object(Bucket=bucket, Key=name)
        client.close()


def test_two_names_of_one_scheme_are_one(s3_bucket: str) -> None:
    assert canonical(s3_bucket.replace("s3://", "s3a://")) == canonical(s3_bucket)


@pytest.mark.parametrize("name", ["run[1]", "p::q", "a?b", "star*"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / f"{name}.txt").write_text("one\n")
    (uri,) = listed(tmp_path / name)
    assert uri.endswith(f"{name}.txt")
    assert read_bytes(uri) == b"one\n"


def test_what_is_no_file_costs_only_itself(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("one\n")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "broken.txt").symlink_to(tmp_path / "gone")
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("one\n")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.txt"))
        listing = list_files(InputSpec(urls=[f"file://{tmp_path}"]), output="file:///nowhere")
    found = {item.file.uri.rpartition("/")[2]: item.failure for item in describe(listing.files)}
    assert found.pop("good.txt") is None
    assert len(found) == 4
    assert all(isinstance(failure, SourceError) for failure in found.values())
    assert "rename it" in str(found["caf\\udce9.txt"])


def test_a_reply_that_is_not_the_range_fails_its_shard(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with pytest.raises(SourceError, match="ignores ranges"):
        read_block(uri=f"file://{tmp_path}/a.txt", first=0, stop=100, size=100, line_bytes=100)


def folder(tmp_path: Path, name: str) -> Path:
    return Path(shutil.copytree(CASES / "folders" / name, tmp_path / name))


def test_a_delta_table_is_its_current_files(tmp_path: Path) -> None:
    assert [uri.rpartition("/")[2] for uri in listed(folder(tmp_path, "delta"))] == ["part-00001.parquet"]
    assert [uri.rpartition("/")[2] for uri in listed(tmp_path)] == ["part-00001.parquet"], "below a folder too"
    assert [uri.rpartition("/")[2] for uri in listed(tmp_path / "delta" / "*.parquet")] == ["part-00001.parquet"]


def test_a_partitioned_delta_table_written_by_deltalake_is_its_current_files(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    table = pa.table({"text": ["a", "b"], "kind": ["x y", "z"]})
    deltalake.write_deltalake(str(tmp_path / "t"), table, partition_by=["kind"])
    deltalake.write_deltalake(str(tmp_path / "t"), table, partition_by=["kind"], mode="overwrite")
    found = listed(tmp_path / "t")
    assert len(found) == 2
    assert len(find(f"file://{tmp_path}/t")) == 4


@pytest.mark.parametrize(
    ("feature", "deleted", "why"),
    [
        ("deletionVectors", INLINE_VECTOR, "with deletion vectors"),
        ("deletionVectors", {**INLINE_VECTOR, "storageType": "u", "pathOrInlineDv": "x" * 20}, "with deletion vectors"),
        ("futureFeature", None, "futureFeature"),
    ],
)
def test_a_delta_table_whose_files_are_not_its_rows_is_refused(
    tmp_path: Path, feature: str, deleted: dict[str, object] | None, why: str
) -> None:
    pytest.importorskip("deltalake")
    log_table(tmp_path / "t", deleted=deleted, readerFeatures=[feature], writerFeatures=[feature])
    with pytest.raises(SpecError, match=f"/t is a Delta table .*{why}"):
        listed(tmp_path / "t")


def test_a_delta_table_that_could_have_deletion_vectors_and_has_none_is_read(tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    features = ["deletionVectors"]
    log_table(tmp_path / "t", readerFeatures=features, writerFeatures=features)
    assert [uri.rpartition("/")[2] for uri in listed(tmp_path / "t")] == ["part-0.parquet"]


def test_a_part_of_a_table_is_no_plain_folder(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    table = pa.table({"text": ["a", "b"], "kind": ["x y", "z"]})
    for _ in range(2):
        deltalake.write_deltalake(str(tmp_path / "t"), table, partition_by=["kind"], mode="overwrite")
    folder = tmp_path / "t" / "kind=z"
    assert len(find(f"file://{folder}")) == 2
    assert len(listed(folder)) == len(listed(f"{folder}/*.parquet")) == 1
    (tmp_path / "ice" / "metadata").mkdir(parents=True)
    (tmp_path / "ice" / "metadata" / "v1.metadata.json").write_text("")
    (tmp_path / "ice" / "data").mkdir()
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "ice" / "data" / "a.parquet")
    with pytest.raises(SpecError, match=r"is a table \(Iceberg\)"):
        listed(tmp_path / "ice" / "data")


@pytest.mark.storage
def test_a_delta_table_on_an_object_store_is_its_current_files(tmp_path: Path, s3_bucket: str) -> None:
    deltalake = pytest.importorskip("deltalake")
    table = pa.table({"text": ["a", "b"], "kind": ["x y", "z"]})
    for _ in range(2):
        deltalake.write_deltalake(str(tmp_path / "t"), table, partition_by=["kind"], mode="overwrite")
    for path in (path for path in (tmp_path / "t").rglob("*") if path.is_file()):
        put(f"{s3_bucket}/deep/t/{path.relative_to(tmp_path / 't')}", path.read_bytes())
    wanted = {uri.removeprefix(f"file://{tmp_path}/t/") for uri in listed(tmp_path / "t")}
    assert {uri.removeprefix(f"{s3_bucket}/deep/t/") for uri in listed(f"{s3_bucket}/deep")} == wanted
    report = annotate(spec(source=f"{s3_bucket}/deep/t", output=str(tmp_path / "out")))
    assert (report.state, report.total_rows) == ("done", 2)
    assert len(listed(f"{s3_bucket.replace('s3:', 's3a:')}/deep/t/kind=z")) == 1
    deltalake.DeltaTable(str(tmp_path / "t")).create_checkpoint()
    for path in (tmp_path / "t" / "_delta_log").iterdir():
        put(f"{s3_bucket}/deep/t/_delta_log/{path.name}", path.read_bytes())
    delete([f"{s3_bucket}/deep/t/_delta_log/{0:020}.json"])
    assert {uri.removeprefix(f"{s3_bucket}/deep/t/") for uri in listed(f"{s3_bucket}/deep/t")} == wanted


@pytest.mark.storage
def test_a_key_in_the_log_of_a_delta_table_leads_nowhere(tmp_path: Path, s3_bucket: str) -> None:
    deltalake = pytest.importorskip("deltalake")
    deltalake.write_deltalake(str(tmp_path / "t"), pa.table({"text": ["a", "b"]}))
    root = f"{s3_bucket}/1/2/3/4/5/6/7/8/9/10/11/12/t"
    for path in (path for path in (tmp_path / "t").rglob("*") if path.is_file()):
        put(f"{root}/{path.relative_to(tmp_path / 't')}", path.read_bytes())
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    out = f"{'../' * 12}{(tmp_path / 'written').relative_to('/')}"
    store.pipe_file(f"{root}/_delta_log/{out}", b"by the table")
    assert any(".." in key for key in store.find(root))
    assert len(listed(root)) == 1
    assert not (tmp_path / "written").exists()


def test_a_saved_data_set_is_the_files_that_it_names(tmp_path: Path) -> None:
    assert [uri.rpartition("/")[2] for uri in listed(folder(tmp_path, "saved-dataset"))] == [
        "data-00000-of-00001.arrow"
    ]


def test_a_saved_data_set_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path, "saved-dataset")
    state = json.loads((root / "state.json").read_text())
    (root / "state.json").write_text(json.dumps({**state, "_data_files": [{"filename": "gone.arrow"}]}))
    with pytest.raises(SpecError, match=r"without its file .*gone\.arrow"):
        listed(root)


@pytest.mark.parametrize(
    ("mark", "name"), [(".hoodie/hoodie.properties", "Hudi"), ("metadata/v1.metadata.json", "Iceberg")]
)
def test_a_table_whose_rows_can_not_be_known_is_refused_by_name(tmp_path: Path, mark: str, name: str) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    (tmp_path / mark).parent.mkdir()
    (tmp_path / mark).write_text("")
    with pytest.raises(SpecError, match=rf"is a table \({name}\), .* export it to Parquet"):
        listed(tmp_path)
