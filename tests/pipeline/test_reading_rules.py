"""How files are read is part of a job: what is refused, what is the same, and what one bad file costs."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from jobs.checkpoints.make_random import make_random
from pipeline.errors import OutputError, SpecError
from pipeline.inference.questions import MODEL_LOADER
from pipeline.output.folder import OutputFolder
from pipeline.output.report import Report
from pipeline.output.verify import verify
from pipeline.shards import READING
from pipeline.spec.job_spec import InputSpec
from tests.pipeline.bad_run import annotate
from tests.pipeline.small import CHECKPOINT, spec

CASES = Path(__file__).parents[1] / "cases"


def run(folder: Path, **keys: Any) -> Report:
    source = {"urls": [str(folder / "in")], **keys}
    return annotate(spec(source=source, output=str(folder / "out")))


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(folder / "out" / "data").sort_by("row").to_pylist())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    return tmp_path


@pytest.mark.parametrize(("first", "then"), [("text", None), (None, "text"), ("jsonl", "text")])
def test_the_same_file_in_another_format_is_refused(folder: Path, first: str | None, then: str | None) -> None:
    assert run(folder, **({"format": first} if first else {})).state == "done"
    with pytest.raises(OutputError, match=r"input\.format is .* there and .* here"):
        run(folder, **({"format": then} if then else {}))
    assert len(rows(folder)) == 2
    assert verify(str(folder / "out")).holds


@pytest.mark.parametrize(("first", "then"), [("jsonl", None), (None, "jsonl")])
def test_a_format_that_auto_comes_to_is_the_same(folder: Path, first: str | None, then: str | None) -> None:
    run(folder, **({"format": first} if first else {}))
    (folder / "in" / "b.jsonl").write_text('{"text": "three"}\n')
    assert run(folder, **({"format": then} if then else {})).state == "done"
    assert len(rows(folder)) == 3
    assert verify(str(folder / "out"), input_spec=InputSpec(urls=[f"file://{folder}/in"])).holds


def test_another_quoting_is_refused(folder: Path) -> None:
    run(folder)
    with pytest.raises(OutputError, match=r'input\.quote is null there and "none" here'):
        run(folder, quote="none")


def test_verify_names_what_was_read_in_another_way_than_the_plan_says(folder: Path) -> None:
    run(folder)
    (name,) = (path.name for path in (folder / "out" / "data").iterdir())
    stem, first, _ = name.rsplit("-", 2)
    other = folder / "other"
    shutil.copytree(folder / "in", other / "in")
    annotate(spec(source={"urls": [str(folder / "in")], "format": "text"}, output=str(other / "out")))
    manifest = next((folder / "out" / "_manifest").iterdir())
    table = pq.read_table(manifest)
    wrong = f"{stem}-{first}-{'0' * 24}.parquet"
    (folder / "out" / "data" / name).rename(folder / "out" / "data" / wrong)
    pq.write_table(table.set_column(table.column_names.index("key"), "key", [[wrong]]), manifest)
    assert "reading" in {finding.rule for finding in verify(str(folder / "out")).findings}


def test_a_folder_says_by_which_rules_its_files_are_read(folder: Path) -> None:
    run(folder)
    path = folder / "out" / "_job.json"
    fields = json.loads(path.read_text())
    assert fields["reading"] == READING
    assert "input.format" not in fields["identity"]
    path.write_text(json.dumps({**fields, "reading": READING + 1}))
    with pytest.raises(OutputError, match="this is an older preln"):
        OutputFolder(f"file://{folder}/out").read_job()
    del fields["reading"]
    path.write_text(json.dumps(fields))
    job = OutputFolder(f"file://{folder}/out").read_job()
    assert job is not None
    assert job.reading == 1


def test_one_bad_file_of_each_kind_costs_only_itself(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.jsonl").write_text('{"text": "A good text."}\n')
    for name in ("header-only.csv", "carriage-returns.csv", "inch-mark.tsv"):
        shutil.copy(CASES / "delimited" / name, tmp_path / "in")
    (tmp_path / "in" / "empty.csv").write_text("")
    (tmp_path / "in" / "empty.jsonl").write_text("")
    (tmp_path / "in" / "twice.csv").write_text("text,text\n1,2\n")
    deep = "[" * 900 + "]" * 900
    (tmp_path / "in" / "deep.jsonl").write_text(f'{{"text": "Beside a deep field.", "deep": {deep}}}\n')
    report = run(tmp_path)
    assert report.state == "failed-shards"
    assert len(report.failures) == 2
    assert {name for name in ("carriage-returns.csv", "twice.csv") if any(name in f for f in report.failures)}
    texts = {row["text"] for path in (tmp_path / "out" / "data").iterdir() for row in pq.read_table(path).to_pylist()}
    assert texts >= {"A good text.", "Beside a deep field.", 'A 12" pizza came cold'}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, content) for name in ("a.csv", "a.tsv", "a.jsonl") for content in (b"", b"\n")),
        ("a.csv", b"id,text\n"),
        ("a.csv", b"id,text"),
        ("a.tsv", b"id\ttext\r\n"),
        ("a.txt", b""),
        # Without a time in the header: the content is in the test's name, and two workers must collect equal names.
        ("a.txt.gz", gzip.compress(b"", mtime=0)),
        ("a.csv.gz", gzip.compress(b"id,text\n", mtime=0)),
    ],
)
def test_no_rows_are_no_fault(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    report = run(tmp_path)
    assert (report.state, report.total_rows) == ("done", 0)


def test_files_without_rows_beside_good_ones_are_no_fault(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.jsonl").write_text('{"text": "A good text.", "id": 1}\n')
    nothing = pa.schema([("text", pa.string()), ("id", pa.int64())]).empty_table()
    pq.write_table(nothing, folder / "a.parquet")
    pq.write_table(nothing.select([]), folder / "no-columns.parquet")
    pq.write_table(pa.table({"text": pa.nulls(0), "id": pa.nulls(0)}), folder / "untyped.parquet")
    pq.write_table(nothing.cast(pa.schema([("text", pa.string_view()), ("id", pa.int64())])), folder / "view.parquet")
    with pq.ParquetWriter(folder / "empty-group.parquet", nothing.schema) as writer:
        writer.write_table(nothing)
    for name, new in (
        ("a.arrow", pa.ipc.new_file),
        ("stream.arrow", pa.ipc.new_stream),
        ("none.arrow", pa.ipc.new_file),
    ):
        with new(folder / name, nothing.schema) as writer:
            if name != "none.arrow":
                writer.write_table(nothing.schema.empty_table())
    for name, content in {"a.csv": "id,text\n", "b.csv": "", "a.tsv": "id\ttext", "a.jsonl": "\n", "a.txt": ""}.items():
        (folder / name).write_text(content)
        (folder / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    report = run(tmp_path)
    assert (report.state, report.total_rows, list(report.failures)) == ("done", 1, [])
    assert run(tmp_path).tally.receipts == []
    assert verify(str(tmp_path / "out"), input_spec=InputSpec(urls=[f"file://{folder}"])).holds


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"id;text\n1;a\n", "separated by ';', input.delimiter"),
        ("a.tsv", b"id,text\n1,a\n", "separated by ',', input.delimiter"),
        ("a.csv", b"id, text\n1, a\n", "the input has id, ' text'"),
        ("a.jsonl", b'{"text": "a"}\r{"text": "b"}\r', "carriage return"),
        ("a.csv", "id,text\n1,a\n".encode("utf-16-le"), "UTF-16"),
        ("a.jsonl", '{"text": "a", "id": 1}\n'.encode("utf-16-be"), "UTF-16"),
    ],
)
def test_what_a_file_is_not_is_said_in_a_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    with pytest.raises(SpecError) as caught:
        run(tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"a\rb\rc\r", "carriage return"), ("some text of a few words\n".encode("utf-16-le"), "UTF-16")],
)
def test_a_text_file_that_is_no_lines_of_utf_8_fails_alone(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_bytes(content)
    (tmp_path / "in" / "b.txt").write_text("A good text.\r\n")
    report = run(tmp_path)
    assert report.total_rows == 1
    assert [says in failure and "a.txt" in failure for failure in report.failures] == [True]


def test_blank_lines_before_a_header_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_bytes(b"\xef\xbb\xbf\r\n  \n\nid,text\n\n1,a\n\n \n2,b\n\n")
    assert run(tmp_path).state == "done"
    assert [(row["id"], row["text"]) for row in rows(tmp_path)] == [("1", "a"), ("2", "b")]
    assert verify(str(tmp_path / "out"), input_spec=InputSpec(urls=[f"file://{tmp_path}/in"])).holds


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_only_columnar_files_without_rows_are_no_fault(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    nothing = pa.schema([("text", pa.string())]).empty_table()
    if name == "a.parquet":
        pq.write_table(nothing, tmp_path / "in" / name)
    else:
        with pa.ipc.new_file(tmp_path / "in" / name, nothing.schema) as writer:
            writer.write_table(nothing)
    report = run(tmp_path)
    assert (report.state, report.total_rows) == ("done", 0)


def test_values_that_do_not_fit_are_counted_in_the_run(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(CASES / "delimited" / "numbers-that-are-not.csv", tmp_path / "in")
    report = run(tmp_path, schema={"zip": "int64", "share": "double"})
    assert report.tally.unfit_values() == {"zip": 2}
    assert [(row["zip"], row["share"]) for row in rows(tmp_path)] == [(None, 100000.0), (None, 0.5)]


def test_what_is_not_kept_is_not_typed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text(
        '{"id": 1, "text": "a", "odd": [1, "x"]}\n{"id": 2, "text": "b", "odd": {}}\n'
    )
    assert run(tmp_path, keep=["id"]).state == "done"
    job = OutputFolder(f"file://{tmp_path}/out").read_job()
    assert job is not None
    assert job.schema.names == ["id", "text"]
    assert [row["id"] for row in rows(tmp_path)] == [1, 2]


def test_a_folder_above_the_input_says_nothing_of_its_rows(tmp_path: Path) -> None:
    above = tmp_path / "label=pos"
    (above / "in" / "year=2024").mkdir(parents=True)
    (above / "in" / "year=2024" / "a.jsonl").write_text('{"text": "a"}\n')
    assert run(above).state == "done"
    (row,) = pq.read_table(next((above / "out" / "data").iterdir()), partitioning=None).to_pylist()
    assert row["year"] == 2024
    assert row["label"] != "pos"


@pytest.mark.parametrize(
    ("labels", "said"),
    [(["O", "PER", "LOC", "ORG", "MISC"], True), (["O", "PER-B", "PER-I", "LOC-B", "LOC-I"], False)],
)
def test_a_run_says_once_that_labels_are_read_as_plain_names(tmp_path: Path, labels: list[str], said: bool) -> None:
    make_random(folder=tmp_path / "model", head="token-classification")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config |= {"id2label": dict(enumerate(labels)), "label2id": {name: number for number, name in enumerate(labels)}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"text": "Anna in Bonn"}\n' * 3)
    job = spec(
        task="token-classification",
        source=str(tmp_path / "in"),
        output=str(tmp_path / "out"),
        model={"checkpoint": str(tmp_path / "model"), "dtype": "float32"},
    )
    notes = annotate(job).notes
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "out" / "_runs").glob("*.json"))
    assert record["notes"] == list(notes)
    assert all("PER, LOC, ORG, ..." in note and "plain names" in note for note in notes)
    assert len(notes) == said


def test_a_vector_beyond_float16_is_an_error_of_its_row_and_float32_stores_it(tmp_path: Path) -> None:
    model = shutil.copytree(CHECKPOINT, tmp_path / "model")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text(
        "".join(f'{{"text": "{text}"}}\n' for text in ("A good text.", "Another."))
    )

    def embedded(output: str, dtype: str) -> list[dict[str, Any]]:
        job = spec(
            task={"name": "feature-extraction", "dtype": dtype},
            source=str(tmp_path / "in"),
            output=str(tmp_path / output),
            model={"checkpoint": str(model), "dtype": "float32"},
        )
        assert annotate(job, loader=MODEL_LOADER).state == "done"
        return list(pq.read_table(tmp_path / output / "data").sort_by("row").to_pylist())

    largest = [max(map(abs, row["embedding"])) for row in embedded("plain", "float32")]
    name, tensors = "roberta_prelayernorm.LayerNorm.weight", load_file(model / "model.safetensors")
    between = float(np.finfo(np.float16).max / np.sqrt(largest[0] * largest[1]))
    save_file({**tensors, name: tensors[name] * np.float32(between)}, model / "model.safetensors", {"format": "pt"})
    rows = embedded("beyond", "float16")
    beyond = int(np.argmax(largest))
    assert rows[beyond]["embedding"] is None
    assert rows[beyond]["error"]["reason"] == "nan"
    assert "task.dtype: float32" in rows[beyond]["error"]["message"]
    assert np.isfinite(rows[1 - beyond]["embedding"]).all()
    assert np.isfinite([row["embedding"] for row in embedded("float32", "float32")]).all()
