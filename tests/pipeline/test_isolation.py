"""What ends the process that reads or tokenizes it fails alone, once it has ended a Ray task's process twice."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import flow, isolation, run
from pipeline.bundle import ShardTables, pack, unpack
from pipeline.cluster.placement import Cluster
from pipeline.flow import Stages
from pipeline.inference.answers import answers_table
from pipeline.isolation import DEATHS_BEFORE, DiedError, Isolated
from pipeline.output.sink import Receipt
from pipeline.reading import shard_source
from pipeline.reading.isolated import shards_in, stream_in
from pipeline.reading.shard_source import ShardSource
from pipeline.reading.source import Reading, read_stream
from pipeline.rows import SKIPPED, STORED, no_errors
from pipeline.shards import CutRule, Shard, SourceFile, Stream, Work, cut_rows
from tests.pipeline.deadly import DEADLY, Deadly, DeadlySpec, shards_until, stream_until
from tests.pipeline.small import (
    CHECKPOINT,
    FINGERPRINT,
    TASK,
    file_at,
    only_facts,
    only_tables,
    reasons,
    rows_table,
    shard,
    spec,
)

REPOSITORY = Path(__file__).resolve().parents[2]
STALL = 60.0
GIGABYTE = 1 << 30
RULE = CutRule(rows=10, bytes=1_000_000)
READING = Reading(
    schema=pa.schema([("text", pa.string())]),
    required=("text",),
    rule=RULE,
    fingerprint=FINGERPRINT,
    line_bytes=1_000,
)
ROWS = 35


@pytest.fixture
def child() -> Iterator[Isolated]:
    with closing(Isolated(stall=STALL)) as child:
        yield child


def test_a_child_answers_raises_and_is_replaced_when_it_dies(child: Isolated) -> None:
    assert child.call(partial(divmod, 7, 2)) == (3, 1)
    assert list(child.stream(partial(range, 3))) == [0, 1, 2]
    with pytest.raises(ValueError, match="'seven'"):
        child.call(partial(int, "seven"))
    first = child.call(os.getpid)
    with pytest.raises(DiedError, match=r"^exit status 3$"):
        child.call(partial(os._exit, 3))
    assert child.call(os.getpid) != first


def test_a_single_row_is_repeated_before_it_is_blamed(child: Isolated) -> None:
    with pytest.raises(DiedError, match=r"^\(exit status 3\) 2 times, alone$"):
        child.call(partial(os._exit, 3), alone=True)


def test_a_child_that_does_not_answer_is_ended_at_its_deadline() -> None:
    with closing(Isolated(stall=0.5)) as child, pytest.raises(DiedError, match="hung: no answer in 0 s"):
        child.call(partial(time.sleep, 600))


def test_a_child_that_wants_too_much_memory_ends_before_the_machine_is_out_of_it() -> None:
    with closing(Isolated(stall=STALL, memory=GIGABYTE)) as child, pytest.raises(DiedError, match="MemoryError"):
        child.call(partial(bytes, 2 * GIGABYTE))


def test_a_stream_that_nobody_takes_to_its_end_ends_its_child(child: Isolated) -> None:
    with closing(child.stream(partial(range, 1_000_000))) as values:
        assert next(values) == 0
    assert child.call(partial(divmod, 7, 2)) == (3, 1)


@pytest.mark.parametrize(("stage", "said"), [("encode", ""), ("read", "read\nread\n")])
def test_a_stage_that_hangs_ends_its_process_and_shows_where(stage: str, said: str) -> None:
    """Ray repeats its task then, and after the second time in a child process."""
    command = [sys.executable, "-m", "tests.pipeline.endless_stage", stage]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=100, check=False)
    assert (ended.returncode, ended.stdout) == (1, said)
    assert ended.stderr.startswith("Timeout (0:00:01)!")
    assert f"in {'encode' if stage == 'encode' else 'hanging'}\n" in ended.stderr


def swelling(folder: Path) -> str:
    """A checkpoint whose tokenizer makes 256 characters of each x, as far as one may."""
    shutil.copytree(CHECKPOINT, folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "x"}, "content": "y" * 256}
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    return str(folder)


def test_a_text_that_the_tokenizer_takes_all_memory_for_is_an_error_of_its_row_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = spec(model={"checkpoint": swelling(tmp_path / "checkpoint"), "dtype": "float32"})
    stages = Stages(spec=chosen, schema=READING.schema, footer={})
    rows = rows_table({"text": ["one", "x" * 400_000, None, "one"]})
    usual = stages.encode(pack([ShardTables(shard=shard(), rows=rows_table({"text": ["one", None, None, "one"]}))]))
    monkeypatch.setattr(flow, "task_attempts", lambda: DEATHS_BEFORE)
    monkeypatch.setattr(isolation, "_half_of_the_memory", lambda: GIGABYTE)
    encoded = stages.encode(pack([ShardTables(shard=shard(), rows=rows)]))
    (found,), (other,) = unpack(encoded), unpack(usual)
    marks, windows = only_tables(found)["marks"], only_tables(found)["windows"]
    assert reasons(marks["error"]) == [None, "killed-tokenizer", "empty", None]
    message = marks["error"][1].as_py()["message"]
    assert message.startswith("killed the tokenizer (SIGABRT: memory allocation of ")
    assert message.endswith(") 2 times, alone")
    assert windows == only_tables(other)["windows"]


def parquet(folder: Path) -> list[Shard]:
    path = folder / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {row}" for row in range(ROWS)]}), path, row_group_size=12)
    return cut_rows(file=file_at(path), rows=ROWS, size=100, rule=RULE, fingerprint=FINGERPRINT)


def gzipped(folder: Path) -> SourceFile:
    path = folder / "a.txt.gz"
    path.write_bytes(gzip.compress("".join(f"text {row}\n" for row in range(ROWS)).encode()))
    return file_at(path)


def test_a_shard_that_ends_its_reader_fails_and_the_others_are_read(tmp_path: Path, child: Isolated) -> None:
    shards = parquet(tmp_path)
    read = partial(shards_until, reading=READING, deadly=10)
    found = list(shards_in(child, shards, read=read))
    assert [part.shard for part in found] == shards
    assert [part.rows and part.rows["__row__"].to_pylist() for part in found] == [
        list(range(10)),
        None,
        list(range(20, 30)),
        list(range(30, 35)),
    ]
    assert found[1].failure == (
        "killed-reader",
        f"{shards[1].file.uri}: reading it from 10 to 20 killed the reader (SIGSEGV) 2 times, alone; replace or remove the file",
    )


def test_a_stream_fails_from_where_it_ends_its_reader(tmp_path: Path, child: Isolated) -> None:
    file = gzipped(tmp_path)
    first, second, third, _ = read_stream(stream=Stream(file=file, done=frozenset()), reading=READING)
    stream = Stream(file=file, done=frozenset({first.shard.key}))
    read = partial(stream_until, reading=READING, deadly=third.shard.first)
    found, failed = stream_in(child, stream, read=read)
    assert found.shard == second.shard
    assert found.facts == {**second.facts, SKIPPED: first.facts[STORED]}
    assert (failed.shard.first, failed.shard.stop) == (third.shard.first, -1)
    assert failed.failure is not None
    assert failed.failure[0] == "killed-reader"
    passed = first.facts[STORED] + second.facts[STORED]
    assert failed.facts == {STORED: file.size - passed, SKIPPED: 0.0}


def test_reading_in_a_child_gives_the_same_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost node is an attempt, too: what was read in a child must not differ."""
    file = gzipped(tmp_path)
    written = next(read_stream(stream=Stream(file=file, done=frozenset()), reading=READING)).shard.key
    work: list[Work] = [*parquet(tmp_path), Stream(file=file, done=frozenset({written}))]
    usual, isolated = list[ShardTables](), list[ShardTables]()
    for attempts, found in ((0, usual), (DEATHS_BEFORE, isolated)):
        monkeypatch.setattr(shard_source, "task_attempts", lambda attempts=attempts: attempts)
        for task in ShardSource(work=work, reading=READING).get_read_tasks(1):
            found += [replace(part, stored=()) for bundle in task() for part in unpack(bundle)]
    assert len(usual) == 4 + 3
    for one, other in zip(usual, isolated, strict=True):
        assert (one.shard, one.rows, one.facts, one.failure) == (other.shard, other.rows, other.facts, other.failure)


def test_writing_in_a_child_gives_the_same_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list[tuple[Receipt, pa.Table]]()
    for attempts in (0, DEATHS_BEFORE):
        monkeypatch.setattr(flow, "task_attempts", lambda attempts=attempts: attempts)
        output = tmp_path / str(attempts)
        stages = Stages(spec=spec(output=str(output)), schema=READING.schema, footer={})
        (encoded,) = unpack(stages.encode(pack([ShardTables(shard=shard(), rows=rows_table({"text": ["one", None]}))])))
        answers = answers_table({"logits": np.zeros((1, len(only_facts(stages.spec).labels)), np.float32)})
        task = {TASK: {"answers": answers, "failures": pa.table({"error": no_errors(1)})}}
        gone = ShardTables(shard=shard(9, 12), failure=("gone", "the file is gone"))
        written, failed = stages.finish(pack([encoded.with_(tasks=task), gone]))["receipt"].to_pylist()
        assert Receipt.from_json(failed).reason == "gone"
        (path,) = (output / "data").iterdir()
        found.append((replace(Receipt.from_json(written), facts={}), pq.read_table(path)))
    assert found[0] == found[1]


def test_a_shard_that_ends_its_writer_fails(child: Isolated) -> None:
    stages = Stages(spec=spec(), schema=READING.schema, footer=cast("dict[str, str]", Deadly()))
    receipt = flow.finish_shard(ShardTables(shard=shard(), rows=rows_table({"text": []})), stages=stages, child=child)
    assert (receipt.state, receipt.reason) == ("failed", "killed-writer")
    assert receipt.message.endswith("killed the writer (exit status 3) 2 times, alone")


@pytest.mark.ray
@pytest.mark.torch
@pytest.mark.slow
def test_a_run_with_a_text_that_ends_its_worker_each_time_ends_with_an_error_of_its_row(
    local_ray: None, tmp_path: Path
) -> None:
    """Ray repeats such a task forever: without the child this run would never end."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(f"one\n{DEADLY}\ntwo\n")
    values = spec(source=str(tmp_path / "in"), output=str(tmp_path / "out"), limits={"error_share": 1.0}).model_dump(
        mode="json", by_alias=True
    )
    report = run.annotate(spec=DeadlySpec.parse(values), cluster=Cluster(lambda: None), watcher=run.Unwatched())
    assert report.state == "done"
    errors = pq.read_table(tmp_path / "out" / "data").sort_by("row")["error"]
    assert reasons(errors) == [None, "killed-tokenizer", None]
    assert errors[1].as_py()["message"] == "killed the tokenizer (exit status 3) 2 times, alone"
