"""`preln show` prints rows of an output folder as a table."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.output.job import JOB_FILE
from tests.command import Command, in_this_process
from tests.pipeline.small import frozen_job, spec


@pytest.fixture
def preln(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(monkeypatch, capsys)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder of three rows in two objects."""
    (tmp_path / "data").mkdir()
    (tmp_path / JOB_FILE).write_bytes(frozen_job(job=spec(output=str(tmp_path))).to_json())
    rows = [{"text": "a\x1b[31m\nb", "score": 0.123456, "vector": [0.5] * 30}, {"text": "second", "score": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "a.parquet")
    pq.write_table(
        pa.Table.from_pylist([{"text": "third", "score": 1.0, "vector": [1.0]}]), tmp_path / "data" / "b.parquet"
    )
    return tmp_path


def test_rows_are_printed_one_line_a_column(preln: Command, output: Path) -> None:
    ended = preln("show", output, "-n", "3")
    assert ended.code == 0
    assert "a [31m b" in ended.out
    assert "0.1235" in ended.out
    assert "(30 values)" in ended.out
    assert "second" in ended.out
    assert "third" in ended.out
    assert "third" not in preln("show", output, "-n", "2").out


def test_a_folder_without_rows_is_refused_in_one_line(preln: Command, tmp_path: Path, output: Path) -> None:
    for path in (output / "data").iterdir():
        path.unlink()
    for folder, words in ((tmp_path / "none", "there is no _job.json"), (output, "no rows yet")):
        ended = preln("show", folder)
        (line,) = ended.err.splitlines()
        assert ended.code == 2
        assert words in line
