"""This version finishes the half-written output folders of commit e717816 and redoes nothing.

This is the upgrade contract: a change may never edit these folders. It finishes each of them with the keys and rows that
e717816 would have written, or it refuses the folder in one line with the reason, and then says so in a test here.
"""

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.command import Command
from tests.pipeline.run_here import commands_run_here
from tests.upgrade.half_written import NAMES, HalfWritten, Objects, VersionedStore

pytestmark = [pytest.mark.storage]

FLOAT32_TOLERANCE = 1e-5
"""How far a float32 answer may be from the one of another processor: sums in another order, two layers deep."""


@pytest.fixture
def folder(request: pytest.FixtureRequest, store: VersionedStore) -> Iterator[HalfWritten]:
    """A half-written folder that is in the store."""
    loaded = HalfWritten.load(request.param)
    yield loaded
    store.empty(loaded)


def newest(objects: Objects, folder: str) -> str:
    """The name of the newest file of a folder; names sort by time."""
    return max(name for name in objects if name.startswith(f"{folder}/"))


def manifest(objects: Objects) -> dict[str, dict[str, Any]]:
    """The rows of the newest manifest by the object's name."""
    rows = pq.read_table(io.BytesIO(objects[newest(objects, "_manifest")])).to_pylist()
    return {f"data/{row['key']}": row for row in rows}


def footer(content: bytes) -> dict[str, Any]:
    """What an object says of itself, but which version of preln has written it."""
    values: dict[str, Any] = json.loads(pq.read_metadata(io.BytesIO(content)).metadata[b"preln"])
    return {key: value for key, value in values.items() if key != "preln"}


def has_fields(found: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether a record has all expected fields; later versions may add others."""
    return {key: found.get(key) for key in expected} == dict(expected)


def assert_near(found: object, expected: object, *, where: str) -> None:
    """Equal but for floats, which are within the tolerance."""
    assert type(found) is type(expected), where
    if isinstance(expected, float):
        assert isinstance(found, float)
        assert abs(found - expected) <= FLOAT32_TOLERANCE, where
    elif isinstance(expected, list):
        assert isinstance(found, list)
        assert len(found) == len(expected), where
        for one, other in zip(found, expected, strict=True):
            assert_near(one, other, where=where)
    elif isinstance(expected, dict):
        assert isinstance(found, dict)
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_near(found[key], value, where=f"{where}.{key}")
    else:
        assert found == expected, where


def assert_same_object(found: bytes, expected: bytes, *, carried: set[str], key: str) -> None:
    """The same schema and footer; carried columns to the bit, answers within the tolerance of their floats."""
    assert has_fields(footer(found), footer(expected)), key
    rows, wanted = pq.read_table(io.BytesIO(found)), pq.read_table(io.BytesIO(expected))
    assert rows.schema.remove_metadata().equals(wanted.schema.remove_metadata()), key
    for name in wanted.column_names:
        if name in carried:
            assert rows[name].equals(wanted[name]), f"{key}: {name}"
        else:
            assert_near(rows[name].to_pylist(), wanted[name].to_pylist(), where=f"{key}: {name}")


ON_RAY = "text-tasks-two"
"""Finished by real replicas on Ray. This module is about files: the other folders are finished in this process."""


@pytest.mark.ray
@pytest.mark.torch
@pytest.mark.parametrize("folder", NAMES, indirect=True)
def test_a_half_written_folder_is_finished_and_nothing_in_it_is_redone(
    folder: HalfWritten,
    store: VersionedStore,
    preln: Command,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if folder.name == ON_RAY:
        request.getfixturevalue("local_ray")
    else:
        commands_run_here(monkeypatch)
    put = store.put(folder, folder.before)
    final = manifest(folder.after)
    done = {name for name in folder.before if name in final}
    missing = final.keys() - done
    half = json.loads(preln("status", folder.url, "--json").out)
    assert (half["done"], half["complete"]) == (len(done), False)

    ended = preln("annotate", folder.job_file, "--json")
    assert ended.code == 0, ended.err
    record = json.loads(ended.out.splitlines()[-1])
    assert record["shards"] == len(missing)
    assert record["rows"] == sum(final[name]["rows"] for name in missing)

    now = store.objects(folder)
    assert {name for name in now if name.startswith("data/")} == final.keys()
    versions = store.versions(folder)
    untouched = [name for name in put if not name.startswith("data/") or name in final]
    assert {name: versions[name] for name in untouched} == {name: [put[name]] for name in untouched}
    assert newest(now, "_plans") == newest(folder.before, "_plans"), "the input is as it was planned"

    carried = {*json.loads(folder.before["_job.json"])["columns"]}
    for name in missing:
        assert_same_object(now[name], folder.after[name], carried=carried, key=name)
    found = manifest(now)
    assert found.keys() == final.keys()
    assert [name for name in final if not has_fields(found[name], final[name])] == []
    success, expected = json.loads(now["_SUCCESS"]), json.loads(folder.after["_SUCCESS"])
    assert success["manifest"] == newest(now, "_manifest").removeprefix("_manifest/")
    assert has_fields(success, {**expected, "manifest": success["manifest"]})
    assert preln("verify", folder.url, "--input", folder.input_url).code == 0

    assert preln("annotate", folder.job_file).code == 0
    assert store.versions(folder) == versions, "the same command again finds nothing to do"


@pytest.mark.parametrize(
    ("folder", "setting", "told"),
    [
        ("parquet-task", "task.top_k=2", 'task.top_k is "all" there and 2 here'),
        ("jsonl-tasks-one", "tasks.kind.top_k=1", 'tasks.kind.top_k is "all" there and 1 here'),
        ("csv-tasks-two", "input.delimiter='|'", 'input.delimiter is ";" there and "|" here'),
        ("text-tasks-two", "shards.rows=6", "shards.rows was fixed at 5 when this folder was started and is 6 here"),
        ("text-tasks-one", "model.max_length=32", "model.max_length is 64 there and 32 here"),
    ],
    indirect=["folder"],
)
def test_another_job_is_refused_by_an_old_folder_in_one_line_that_names_the_one_difference(
    folder: HalfWritten, setting: str, told: str, store: VersionedStore, preln: Command
) -> None:
    put = store.put(folder, folder.before)
    ended = preln("annotate", folder.job_file, "--set", setting)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert told in ended.err
    assert ended.err.count(" there and ") <= 1
    assert store.versions(folder) == {name: [version] for name, version in put.items()}
