"""Stored fields that are unknown or missing are ignored or defaulted; unreadable records are refused in one line."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import OutputError
from pipeline.output.sink import Receipt
from tests.command import Command
from tests.pipeline.small import shard
from tests.upgrade.half_written import HalfWritten, VersionedStore

pytestmark = [pytest.mark.storage]

Rewrite = Callable[[str, bytes], bytes]


@pytest.fixture
def folder(store: VersionedStore) -> Iterator[HalfWritten]:
    loaded = HalfWritten.load("parquet-task")
    yield loaded
    store.empty(loaded)


def put_whole(folder: HalfWritten, rewrite: Rewrite, *, store: VersionedStore) -> None:
    """The folder as e717816 finished it, every object rewritten."""
    objects = {**folder.before, **folder.after}
    store.put(folder, {name: rewrite(name, content) for name, content in objects.items()})


def in_json(change: Callable[[dict[str, Any]], None], content: bytes) -> bytes:
    values = json.loads(content)
    change(values)
    return json.dumps(values).encode()


def in_table(change: Callable[[pa.Table], pa.Table], content: bytes) -> bytes:
    sink = io.BytesIO()
    pq.write_table(change(pq.read_table(io.BytesIO(content))), sink)
    return sink.getvalue()


def add_to_job(job: dict[str, Any]) -> None:
    for section in (job, job["checkpoint"], job["cut"], job["spec"], *(job["spec"][key] for key in ("input", "task"))):
        section["added"] = {"by": "a later version"}


def add_to_footer(rows: pa.Table) -> pa.Table:
    footer = json.loads(rows.schema.metadata[b"preln"]) | {"added": [1]}
    return rows.replace_schema_metadata({b"preln": json.dumps(footer).encode()})


def add_to_plan(plan: pa.Table) -> pa.Table:
    rows = [
        {**row, "shards": [{**one, "added": 1.5} for one in row["shards"]], "added": "x"} for row in plan.to_pylist()
    ]
    return pa.Table.from_pylist(rows)


def with_added_fields(name: str, content: bytes) -> bytes:
    """A file as a later version might write it."""
    kind = name.partition("/")[0]
    if kind == "_job.json":
        return in_json(add_to_job, content)
    if kind in ("_SUCCESS", "_runs"):
        return in_json(lambda values: values.update(added=1), content)
    if kind == "_plans":
        return in_table(add_to_plan, content)
    if kind == "_manifest":
        return in_table(lambda rows: rows.append_column("added", pa.array([{"x": 1}] * rows.num_rows)), content)
    return in_table(add_to_footer, content)


def without(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        for name in names:
            del values[name]

    return change


def without_defaulted_fields(name: str, content: bytes) -> bytes:
    """A file as a version before those fields would have written it."""
    kind = name.partition("/")[0]
    if kind == "_job.json":
        return in_json(without("preln", "columns"), content)
    if kind == "_SUCCESS":
        return in_json(without("accepted_failures"), content)
    if kind == "_plans":
        return in_table(lambda plan: plan.drop_columns(["compression", "failure", "removed"]), content)
    return content


@pytest.mark.parametrize("rewrite", [with_added_fields, without_defaulted_fields])
def test_fields_that_are_not_known_are_ignored_and_those_that_are_missing_have_their_default(
    folder: HalfWritten, rewrite: Rewrite, store: VersionedStore, preln: Command
) -> None:
    put_whole(folder, rewrite, store=store)
    before = store.versions(folder)
    status = json.loads(preln("status", folder.url, "--json").out)
    assert (status["complete"], status["missing"], status["rows"]) == (True, 0, 29)
    verified = preln("verify", folder.url, "--input", folder.input_url)
    assert verified.code == 0, verified.out
    again = preln("annotate", folder.job_file)
    assert (again.code, again.err) == (0, "")
    assert store.versions(folder) == before, "there was nothing to do"


def one_of_identity(job: dict[str, Any]) -> None:
    job["identity"]["reading"] = 2


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [
        ("_job.json", lambda content: in_json(one_of_identity, content), "reading is 2 there and null here"),
        ("_job.json", lambda content: in_json(without("cut"), content), "it has no 'cut'"),
        ("_SUCCESS", lambda content: in_json(without("rows"), content), "_SUCCESS: it has no 'rows'"),
        ("_plans", lambda content: in_table(lambda rows: rows.drop_columns(["version"]), content), "has no 'version'"),
        ("_manifest", lambda content: in_table(lambda rows: rows.drop_columns(["stop"]), content), "has no 'stop'"),
    ],
)
def test_what_this_version_can_not_read_is_refused_in_one_line_and_left_alone(
    folder: HalfWritten,
    kind: str,
    change: Callable[[bytes], bytes],
    told: str,
    store: VersionedStore,
    preln: Command,
) -> None:
    put_whole(folder, lambda name, content: change(content) if name.partition("/")[0] == kind else content, store=store)
    before = store.versions(folder)
    ended = preln("annotate", folder.job_file)
    assert ended.code == (1 if kind == "_SUCCESS" else 2)  # which is read last, when a run has begun
    assert len(ended.err.splitlines()) == 1
    assert told in ended.err
    assert store.versions(folder) == before


def test_a_receipt_is_read_with_fields_that_are_not_known_and_without_those_that_have_a_default() -> None:
    receipt = Receipt(shard=shard(0, 10, last=True), state="done", rows=10, errors={"nan": 1}, facts={"tokens": 7.0})
    values = json.loads(receipt.to_json())
    for section in (values, values["shard"], values["shard"]["file"]):
        section["added"] = {"histogram": [1, 2]}
    assert Receipt.from_json(json.dumps(values)) == receipt
    for name in ("errors", "truncated", "bytes", "reason", "message", "facts", "rows"):
        del values[name]
    del values["shard"]["last"], values["shard"]["file"]["compression"]
    assert Receipt.from_json(json.dumps(values)) == Receipt(shard=shard(0, 10), state="done")
    del values["shard"]["key"]
    with pytest.raises(OutputError, match="it has no 'key'"):
        Receipt.from_json(json.dumps(values))
