"""Hostile files, names and secrets: nothing is executed, written elsewhere, held in memory whole, or leaked."""

import gzip
import io
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ray import cloudpickle

from pipeline.errors import PrelnError, SourceError, SpecError
from pipeline.output.report import Report
from pipeline.reading.formats import memory_cap, parquet
from pipeline.shards import SourceFile, key_stem, shard_key
from pipeline.spec.job_spec import JobSpec
from pipeline.spec.settings import override
from pipeline.store.storage import canonical, find, join, put, read_bytes
from tests.conftest import S3Server
from tests.pipeline.bad_run import annotate, job_values
from tests.pipeline.small import CHECKPOINT

OLDEST_RAY = (2, 55)
"""Older ones unpickle the metadata of a Parquet column that claims to be a tensor."""
RAY_TENSORS = ("ray.data.arrow_tensor", "ray.data.arrow_tensor_v2", "ray.data.arrow_variable_shaped_tensor")
SWELLS_TO = 8 << 30
"""Bytes that a bomb of a few megabytes stands for."""
ROOM = 1 << 30
"""Memory that decoding may take in these tests, and more than reading anything here needs."""
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}-\d{12,}-[0-9a-f]{24}\.parquet")
CANARIES = {
    "AWS_ACCESS_KEY_ID": "AKIACANARY4F1C0000",
    "AWS_SECRET_ACCESS_KEY": "canary-secret-91ab",
    "AWS_SESSION_TOKEN": "canary-token-77de",
    "AZURE_STORAGE_CONNECTION_STRING": "canary-connection-5d2e",
}
PASSWORD = "canary-password-c0de"


def run_on(source: str, folder: Path) -> Report:
    """The good job over another input."""
    return annotate(JobSpec.parse(override(values=job_values(folder), flags=[("input", source)])))


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = str(file)

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (self._file,))


def test_the_trap_of_these_tests_springs_where_it_is_unpickled(tmp_path: Path) -> None:
    cloudpickle.loads(cloudpickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("name", RAY_TENSORS)
def test_no_code_runs_from_the_metadata_of_a_crafted_file(
    tmp_path: Path, repository: Path, name: str, suffix: str
) -> None:
    """A column claims to be one of Ray's tensors, whose shape is a pickle. Read or refused, it runs nothing."""
    assert tuple(map(int, ray.__version__.split(".")[:2])) >= OLDEST_RAY
    payload = cloudpickle.dumps(Trap(tmp_path / "sprung"))
    crafted = tmp_path / f"crafted.{suffix}"
    # By a process without Ray's types: with them, Arrow would not write such a thing.
    words = [str(crafted), name, payload.hex()]
    subprocess.run([sys.executable, "-m", "tests.pipeline.crafted", *words], check=True, cwd=repository)
    assert payload in crafted.read_bytes() or suffix == "parquet"
    try:
        report = run_on(str(crafted), tmp_path)
    except PrelnError as refused:
        reason = str(refused)
        assert "crafted" in reason, reason
    else:
        assert report.state in ("done", "failed-shards")
        for file in find(join(canonical(str(tmp_path)), "out/data")):
            metadata = pq.read_schema(io.BytesIO(read_bytes(file.uri))).field("vector").metadata
            assert not metadata, "the claim is not handed on to readers of the output"
    assert not (tmp_path / "sprung").exists()


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Decoding is held to ROOM, and so is everything else in this process, with some to spare."""
    monkeypatch.setattr(memory_cap, "DECODED_BYTES", ROOM)
    monkeypatch.setattr(parquet, "DECODED_BYTES", ROOM)
    monkeypatch.setattr(parquet, "STEP_BYTES", ROOM // 4)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    now = memory_cap._private_bytes()
    if now is None:
        pytest.skip("this system has no bound on a process's data")
    resource.setrlimit(resource.RLIMIT_DATA, (now + 2 * ROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def test_a_gzip_bomb_of_one_line_fails_its_file_and_no_other(tmp_path: Path, little_room: None) -> None:
    (tmp_path / "in").mkdir()
    piece = bytes(1 << 20).replace(b"\0", b"x")
    packer = gzip.compress(piece * 16, mtime=0)
    with (tmp_path / "in/bomb.txt.gz").open("wb") as bomb:
        for _ in range(SWELLS_TO >> 24):  # gzip's members follow each other as one stream
            bomb.write(packer)
    (tmp_path / "in/good.txt").write_text("A good text.\n")
    report = run_on(str(tmp_path / "in"), tmp_path)
    (failure,) = report.failures
    assert "bomb.txt.gz" in failure
    assert "limits.line_bytes" in failure
    assert report.total_rows == 1


def test_a_parquet_file_with_a_row_that_swells_fails_and_no_other(tmp_path: Path, little_room: None) -> None:
    """One long value, stored once and named by one row thousands of times: kilobytes that stand for gigabytes."""
    (tmp_path / "in").mkdir()
    long = pa.array(["x" * (1 << 20)])
    count = SWELLS_TO >> 20
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), long)
    column = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), values)
    pq.write_table(pa.table({"text": ["A text."], "long": column}), tmp_path / "in/bomb.parquet", store_schema=False)
    assert (tmp_path / "in/bomb.parquet").stat().st_size < 1 << 20
    lists = pa.array([["short"]], pa.list_(pa.string()))
    pq.write_table(pa.table({"text": ["A good text."], "long": lists}), tmp_path / "in/good.parquet")
    report = run_on(str(tmp_path / "in"), tmp_path)
    (failure,) = report.failures
    assert "bomb.parquet" in failure
    assert "of memory; write it again with shorter values" in failure
    assert report.total_rows == 1


def test_a_footer_that_claims_more_rows_than_can_be_planned_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.parquet"
    rows = 54_321
    pq.write_table(pa.table({"text": pa.nulls(rows, pa.string())}), path)
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - length : -8].replace(varint(2 * rows), varint(2 * (1 << 50)))
    path.write_bytes(content[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(SourceError, match="its footer states 1125899906842624 rows") as refused:
        parquet.describe(str(path))
    assert refused.value.reason == "unreadable"


def varint(number: int) -> bytes:
    """Thrift's compact integers, seven bits a byte."""
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


@given(st.text(min_size=1), st.integers(0, 2**40))
@example("../../../../etc/passwd", 0)
@example("..%2f..%2fetc%2fpasswd", 0)
@example(".hidden.parquet", 1)
@example("_SUCCESS", 1)
@example("C:\\windows\\system.txt", 1)
@example("a\nb\0c.txt", 1)
@example("." * 300, 1)
def test_no_name_of_an_input_leads_out_of_the_folder(name: str, first: int) -> None:
    for uri in (f"s3://bucket/{name}", f"file:///in/{name}", name):
        file = SourceFile(uri=uri, size=1, version="v", format="text")
        key = shard_key(file=file, first=first, stop=first + 1, fingerprint="f")
        assert KEY.fullmatch(key), key
        assert len(key.encode()) < 128


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30))
@example("..x")
@example("a*b?[c]")
@example("key=..")
def test_a_run_writes_nothing_outside_its_output(tmp_path: Path, name: str) -> None:
    folder = Path(os.path.realpath(tmp_path)) / str(len(list(tmp_path.iterdir())))
    place = folder / "in" / f"n{name}={name}"
    place.mkdir(parents=True)
    file = place / f"n{name}.txt"
    file.write_text("A text.\n")
    before = sorted(path for path in folder.rglob("*"))
    report = run_on(str(folder / "in"), folder)
    assert (report.state, report.total_rows) == ("done", 1)
    made = [path for path in folder.rglob("*") if path not in before]
    assert all(folder / "out" in [path, *path.parents] for path in made)
    assert key_stem(str(file)) == key_stem(file.name)


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{PASSWORD}@host/in.parquet",
        f"s3://key:{PASSWORD}@bucket/in",
        f"https://host/in.parquet?X-Amz-Date=1&X-Amz-Signature={PASSWORD}",
        f"https://account.blob.core.windows.net/in.parquet?sv=1&sig={PASSWORD}",
    ],
)
@pytest.mark.parametrize("key", ["input", "input.urls", "model", "model.checkpoint", "output"])
def test_a_url_with_a_secret_is_refused_without_being_quoted(tmp_path: Path, key: str, url: str) -> None:
    with pytest.raises(SpecError) as refused:
        JobSpec.parse(override(values=job_values(tmp_path), flags=[(key, [url] if key == "input.urls" else url)]))
    assert "credentials" in str(refused.value)
    assert "environment" in str(refused.value)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"input.storage_options": {"key": "me", "secret": PASSWORD}},
        {"output": {"url": "out", "storage_options": {"secret": PASSWORD}}},
        {"model": [{"secret": PASSWORD}]},
        {"resources.wait": {"secret": PASSWORD}},
        {"output": {"secret": PASSWORD}},
        {"secret": PASSWORD},
    ],
    ids=str,
)
def test_storage_options_have_no_place_in_a_job_and_are_not_quoted(tmp_path: Path, settings: dict[str, object]) -> None:
    with pytest.raises(SpecError) as refused:
        JobSpec.parse(override(values=job_values(tmp_path), flags=list(settings.items())))
    assert PASSWORD not in str(refused.value)


@pytest.mark.storage
def test_errors_of_a_store_tell_no_secret(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PrelnError) as refused:
        run_on("s3://no-such-bucket-of-anybody/in", tmp_path)
    assert not told_canaries(str(refused.value).encode())


@pytest.mark.ray
@pytest.mark.torch
@pytest.mark.storage
@pytest.mark.timeout(400)
def test_a_run_leaves_no_secret_in_any_file_or_log(
    s3_bucket: str, ray_environment: Path, repository: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The command with secrets in its environment, from and to a store that takes them; then all it left is searched."""
    put(join(s3_bucket, "in/a.txt"), b"A text.\n\nAnother.\n")
    logs = Path(tempfile.mkdtemp(prefix="preln-"))  # sockets lie in it, whose paths must be short
    request.addfinalizer(lambda: shutil.rmtree(logs, ignore_errors=True))
    environment = {**os.environ, **CANARIES, "RAY_TMPDIR": str(logs), "PRELN_WORKER_LOGS": "1"}
    words = ["--task", "text-classification", "--dtype", "float32", "--model", CHECKPOINT]
    places = ["--input", join(s3_bucket, "in"), "--output", join(s3_bucket, "out")]
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "annotate", *words, *places],
        cwd=repository,
        env=environment,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert told_canaries(done.stdout + done.stderr) == []
    # Names with an underscore are left out of folders: they are asked for one by one.
    written = [
        file for place in ("data", "_plans", "_manifest", "_runs") for file in find(join(s3_bucket, "out", place))
    ]
    contents = {file.uri: read_bytes(file.uri) for file in written}
    contents |= {name: read_bytes(join(s3_bucket, "out", name)) for name in ("_job.json", "_SUCCESS")}
    contents |= {str(path): path.read_bytes() for path in logs.rglob("*") if path.is_file() and not path.is_symlink()}
    assert len(written) >= 4
    assert any("worker" in name for name in contents), "the logs of Ray's workers are among them"
    assert {name: leaked for name, content in contents.items() if (leaked := told_canaries(content))} == {}


def told_canaries(content: bytes) -> list[str]:
    """The secrets that are in it."""
    return [name for name, value in CANARIES.items() if value.encode() in content]
