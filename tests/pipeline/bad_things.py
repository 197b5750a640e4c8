"""Bad files, rows, jobs and checkpoints, each with the outcome and message expected: the rows of docs/errors.md."""

import gzip
from pathlib import Path

import pyarrow as pa

from tests.pipeline.bad import FILE, REFUSED, ROW, Bad, Settings, cut, job, lines, written
from tests.pipeline.bad_checkpoints import CHECKPOINTS
from tests.pipeline.bad_run import SHORT_STALL, parquet
from tests.pipeline.small import CHECKPOINT


def _torn_parquet(folder: Path) -> None:
    parquet(folder / "in" / "torn.parquet", {"text": ["one", "two"]})
    cut("torn.parquet", 0.5)(folder / "in")
    parquet(folder / "in" / "good.parquet", {"text": ["A good text."]})


def _damaged_pages(folder: Path) -> None:
    path = folder / "in" / "damaged.parquet"
    parquet(path, {"text": [f"text number {index}" for index in range(500)]}, use_dictionary=False, compression="gzip")
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(content)
    parquet(folder / "in" / "good.parquet", {"text": ["A good text."]})


def _twice(folder: Path) -> None:
    import pyarrow.parquet as pq

    (folder / "in").mkdir(exist_ok=True)
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), folder / "in" / "twice.parquet")
    parquet(folder / "in" / "good.parquet", {"text": ["A good text."]})


def _no_text(folder: Path) -> None:
    parquet(folder / "in" / "a.parquet", {"text": ["A good text."]})
    parquet(folder / "in" / "b.parquet", {"body": ["Another column."]})


def _other_types(folder: Path) -> None:
    parquet(folder / "in" / "a.parquet", {"text": ["a"], "id": pa.array([1])})
    parquet(folder / "in" / "b.parquet", {"text": ["b"], "id": pa.array([[1]])})


def _another_job(folder: Path) -> Settings:
    (folder / "out").mkdir()
    (folder / "out" / "_job.json").write_text('{"made": "by somebody else"}')
    return job({})(folder) or {}


GZIP = gzip.compress(b"".join(b"line %d of a text\n" % number for number in range(3_000)), mtime=0)
LONG = "word " * 300

FILES = [
    Bad(
        "a truncated Parquet file",
        (FILE, ""),
        ("torn.parquet", "replace or remove the file"),
        _torn_parquet,
        good_rows=1,
    ),
    Bad(
        "a Parquet file with damaged pages",
        (FILE, "corrupt"),
        ("damaged.parquet", "replace or remove the file"),
        _damaged_pages,
        good_rows=1,
    ),
    Bad(
        "a .parquet file that is not Parquet",
        (FILE, ""),
        ("a.parquet", "replace or remove the file"),
        written("a.parquet", "no Parquet at all", beside_a_good_one=True),
        good_rows=1,
    ),
    Bad(
        "an empty .parquet file",
        (FILE, ""),
        ("a.parquet", "replace or remove the file"),
        written("a.parquet", b"", beside_a_good_one=True),
        good_rows=1,
    ),
    Bad(
        "a .arrow file that is not Arrow",
        (FILE, ""),
        ("a.arrow", "replace or remove the file"),
        written("a.arrow", b"ARROW1 but not really", beside_a_good_one=True),
        good_rows=1,
    ),
    Bad(
        "a truncated gzip",
        (FILE, "corrupt"),
        ("a.txt.gz", "replace or remove the file"),
        written("a.txt.gz", GZIP[: len(GZIP) // 2], beside_a_good_one=True),
        good_rows=1,
    ),
    Bad(
        "a .gz file that is not compressed",
        (FILE, "corrupt"),
        ("a.txt.gz", "replace or remove the file"),
        written("a.txt.gz", "plain text\n", beside_a_good_one=True),
        good_rows=1,
    ),
    Bad(
        "a .zst file that is not compressed",
        (FILE, "corrupt"),
        ("a.txt.zst", "replace or remove the file"),
        written("a.txt.zst", "plain text\n", beside_a_good_one=True),
        good_rows=1,
    ),
    Bad("a file with a column name twice", (FILE, ""), ("twice.parquet", "'text'", "rename it"), _twice, good_rows=1),
    Bad(
        "a line longer than limits.line_bytes",
        (FILE, "unreadable"),
        ("a.txt", "limits.line_bytes", "raise it"),
        written("a.txt", "x" * 5_000, settings={"limits.line_bytes": 1_000}, beside_a_good_one=True),
        good_rows=1,
    ),
    Bad("one file of many without the column", (ROW, "missing-column"), ("'text'",), _no_text, good_rows=1),
    Bad(
        "files with columns of incompatible types",
        (REFUSED, "SpecError"),
        ("b.parquet", "id", "annotate them separately"),
        _other_types,
    ),
    Bad("a folder without a file", (REFUSED, "SpecError"), ("FOLDER/in", "check the spelling")),
    Bad(
        "files of an unknown format",
        (REFUSED, "SpecError"),
        ("a.docx", "set input.format"),
        written("a.docx", "x"),
    ),
    Bad(
        "only unreadable files",
        (REFUSED, "SpecError"),
        ("a.parquet", "no input file can be read"),
        written("a.parquet", "x"),
    ),
    Bad(
        "JSON lines without a single object",
        (REFUSED, "SpecError"),
        ("a.jsonl", "set input.schema"),
        written("a.jsonl", "1\n2\n"),
    ),
    Bad(
        "an input column with the name of an answer",
        (REFUSED, "SpecError"),
        ("'label'", "output.prefix", "input.keep"),
        lambda folder: parquet(folder / "in" / "a.parquet", {"text": ["a"], "label": ["b"]}),
    ),
    Bad(
        "an input column with a reserved name",
        (REFUSED, "SpecError"),
        ("'__row__'", "rename it"),
        lambda folder: parquet(folder / "in" / "a.parquet", {"text": ["a"], "__row__": [1]}),
    ),
]

ROWS = [
    Bad("a null", (ROW, "empty"), ("'text'", "null or blank"), lines({"text": None}), good_rows=1),
    Bad("a text of white space", (ROW, "empty"), ("'text'", "null or blank"), lines({"text": " \t "}), good_rows=1),
    Bad("a number where a text should be", (ROW, "wrong-type"), ("'text'", "12"), lines({"text": 12}), good_rows=1),
    Bad("a JSON line that is cut off", (ROW, "malformed-json"), (), lines(b'{"text": "cut o'), good_rows=1),
    Bad("a JSON line that is no object", (ROW, "malformed-json"), (), lines(b"[1, 2]"), good_rows=1),
    Bad("bytes that are not UTF-8", (ROW, "invalid-utf8"), (), lines(b'{"text": "\xff\xfe"}'), good_rows=1),
    Bad("a lone surrogate in JSON", (ROW, "invalid-utf8"), (), lines(b'{"text": "\\ud800"}'), good_rows=1),
    Bad(
        "a text with control characters",
        (ROW, "control-characters"),
        ("'text'", "input.control_characters"),
        lines({"text": "a\u0000b"}),
        good_rows=1,
    ),
    Bad(
        "a text longer than limits.text_bytes",
        (ROW, "too-large"),
        ("'text'", "limits.text_bytes"),
        lines({"text": "x" * 2_000}, settings={"limits.text_bytes": 1_000}),
        good_rows=1,
    ),
    Bad(
        "a text longer than the model, where task.on_long is error",
        (ROW, "too-long"),
        ("tokens",),
        lines({"text": LONG}, settings={"task.on_long": "error"}),
        good_rows=1,
    ),
    Bad(
        "a CSV record with too many fields",
        (ROW, "malformed-csv"),
        (),
        written("a.csv", "id,text\n1,A good text.\n2,a,b,c\n"),
        good_rows=1,
    ),
    Bad(
        "a missing second text of a pair",
        (ROW, "missing-text_pair"),
        ("'pair'", "null"),
        written(
            "a.jsonl",
            '{"text": "Here it is.", "pair": null}\n{"text": "Here.", "pair": "There."}\n',
            settings={"input.columns": {"text_pair": "pair"}},
        ),
        good_rows=1,
    ),
    Bad(
        "a text on which the model raises",
        (ROW, "exception"),
        ("no kernel for this text",),
        lines({"text": "Explode now"}),
        good_rows=1,
    ),
    Bad(
        "a text too large for the device's memory on its own",
        (ROW, "out-of-memory"),
        ("out of device memory",),
        lines({"text": "Memory is short"}),
        good_rows=1,
    ),
    Bad(
        "a text with non-finite scores",
        (ROW, "nan"),
        ("not finite",),
        lines({"text": "Nothing but NaN"}),
        good_rows=1,
    ),
    Bad(
        "a text that kills the process",
        (ROW, "killed-replica"),
        ("SIGSEGV",),
        lines({"text": "Segfault at once"}),
        good_rows=1,
    ),
    Bad(
        "a text that hangs the process",
        (ROW, "killed-replica"),
        ("hung",),
        lines({"text": "Zzz for ever"}, settings={"limits.stall": SHORT_STALL}),
        good_rows=1,
    ),
]

JOBS = [
    Bad("a job file that is no YAML", (REFUSED, "SpecError"), ("not YAML",), yaml="input: [a"),
    Bad("a job file without keys", (REFUSED, "SpecError"), ("input, model, task and output",), yaml="just words"),
    Bad(
        "a missing key",
        (REFUSED, "SpecError"),
        ("missing key 'output'", "input, model, task, tasks, output"),
        yaml=f"input: in\nmodel: {CHECKPOINT}\ntask: fill-mask\n",
    ),
    Bad(
        "a misspelt key",
        (REFUSED, "SpecError"),
        ("unknown key 'resources.gpu'", "did you mean 'gpus'"),
        job({"resources.gpu": 1}),
    ),
    Bad(
        "an unknown task",
        (REFUSED, "SpecError"),
        ("'summarise'", "fill-mask"),
        job({"task": {"name": "summarise"}}),
    ),
    Bad(
        "an unknown option of a task",
        (REFUSED, "SpecError"),
        ("unknown key 'task.topk'", "did you mean 'top_k'"),
        job({"task.topk": 3}),
    ),
    Bad(
        "a number out of range",
        (REFUSED, "SpecError"),
        ("limits.error_share", "7"),
        job({"limits.error_share": 7}),
    ),
    Bad(
        "a duration without a known unit",
        (REFUSED, "SpecError"),
        ("resources.wait", "'soon'", "15m"),
        job({"resources.wait": "soon"}),
    ),
    Bad(
        "replicas.min above replicas.max",
        (REFUSED, "SpecError"),
        ("resources.replicas", "min (3)", "max (2)"),
        job({"resources.replicas": {"min": 3, "max": 2}}),
    ),
    Bad(
        "a column missing from the input",
        (REFUSED, "SpecError"),
        ("'body'", "id, text", "input.columns.text"),
        job({"input.columns": {"text": "body"}}),
    ),
    Bad(
        "a part that the task does not have",
        (REFUSED, "SpecError"),
        ("input.columns.question", "text"),
        job({"input.columns": {"question": "text"}}),
    ),
    Bad(
        "a column that is not text",
        (REFUSED, "SpecError"),
        ("'id'", "int64", "text"),
        job({"input.columns": {"text": "id"}}),
    ),
    Bad(
        "a missing column to keep",
        (REFUSED, "SpecError"),
        ("'mood'", "id, text"),
        job({"input.keep": ["mood"]}),
    ),
    Bad(
        "an unknown Arrow type",
        (REFUSED, "SpecError"),
        ("'strng'", "string"),
        lambda folder: {**(lines()(folder) or {}), "input.schema": {"text": "strng"}},
    ),
    Bad(
        "more tokens than the checkpoint can take",
        (REFUSED, "SpecError"),
        ("model.max_length", "9999", "128"),
        job({"model.max_length": 9_999}),
    ),
    Bad(
        "several GPUs for one replica",
        (REFUSED, "SpecError"),
        ("resources.gpus", "write `gpus: 1`"),
        job({"resources.gpus": 4}),
    ),
    Bad(
        "more GPUs than there are",
        (REFUSED, "SpecError"),
        ("resources.gpus", "Ask for less"),
        job({"resources.gpus": 1, "resources.replicas": 64}),
    ),
    Bad("more CPUs than there are", (REFUSED, "SpecError"), ("resources.cpus",), job({"resources.cpus": 64})),
    Bad(
        "a store with an unknown protocol",
        (REFUSED, "StorageError"),
        ("s4://bucket/in", "such as s3://"),
        job({"input": "s4://bucket/in"}),
    ),
    Bad(
        "an output folder written by another program",
        (REFUSED, "OutputError"),
        ("FOLDER/out", "_job.json", "choose another"),
        _another_job,
    ),
]

BAD_THINGS = {"Files": FILES, "Rows": ROWS, "Jobs": JOBS, "Checkpoints": CHECKPOINTS}
