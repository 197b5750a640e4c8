"""Asserts what must hold for a drill's dataset at all times, and after a completed run; and finds, without `preln verify`, what
does not hold."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.output.folder import OutputFolder
from pipeline.output.plan import newest
from pipeline.output.report import Report
from pipeline.output.sink import read_footer
from pipeline.output.status import read_status
from pipeline.output.verify import verify
from pipeline.store.storage import find, join
from tests.pipeline.drill_run import Drill


def objects_of(drill: Drill) -> dict[str, bytes]:
    """What lies under data/, by key."""
    data = OutputFolder(drill.output).data
    return {key: data.read(key) for key in data.names() if not key.startswith(".")}


def assert_objects_are_whole(drill: Drill) -> None:
    """At all times, whatever died and whoever wrote: each object can be read and holds what its footer says."""
    for content in objects_of(drill).values():
        footer = read_footer(io.BytesIO(content))
        table = pq.read_table(io.BytesIO(content), use_threads=False)
        assert table.num_rows == footer["rows"]
        assert set(table["text"].to_pylist()) <= set(drill.texts[footer["source"], footer["source_version"]])


def assert_manifest_is_exact(drill: Drill) -> None:
    """At all times, but where a driver died while it raced with another: what the manifest names exists, as it says, and no
    row is in it twice."""
    objects = objects_of(drill)
    _, entries = OutputFolder(drill.output).read_manifest()
    seen: set[tuple[str, int]] = set()
    for key, entry in entries.items():
        table = pq.read_table(io.BytesIO(objects[key]), use_threads=False)
        assert table.num_rows == entry.rows
        rows = set(zip(table["source"].to_pylist(), table["row"].to_pylist(), strict=True))
        old_and_new = {row for row in rows & seen if entry.version != current_version(drill, row[0])}
        assert rows & seen == old_and_new, "a row may only be there twice while its file's new version is under way"
        seen |= rows


def faults_of(drill: Drill) -> list[str]:
    """What a reader of the folder, who knows what every version of every input file held, finds wrong with it."""
    folder = OutputFolder(drill.output)
    _, plans = folder.read_plans()
    found: list[str] = []
    rows: dict[str, list[tuple[str, int, str]]] = {}
    errors: dict[str, int] = {}
    for key, content in objects_of(drill).items():
        try:
            table = pq.read_table(io.BytesIO(content), use_threads=False)
        except pa.ArrowException:
            found.append(f"{key} can't be read")
            continue
        rows[key] = list(
            zip(table["source"].to_pylist(), table["row"].to_pylist(), table["text"].to_pylist(), strict=True)
        )
        errors[key] = len(table) - table["error"].null_count
    _, entries = folder.read_manifest()
    here = sorted(row for of_key in rows.values() for row in of_key)
    for uri, planned in newest(plans).items():
        texts = [text for source, _, text in here if source == uri]
        if texts != drill.texts[uri, planned.file.version]:
            found.append(f"{uri} has the rows {texts}")
    found += [f"{source} is in no plan" for source in {row[0] for row in here} - newest(plans).keys()]
    for key, entry in entries.items():
        if (entry.rows, sum(entry.errors.values())) != (len(rows.get(key, ())), errors.get(key, 0)):
            found.append(f"the manifest says otherwise of {key}")
        if any(source != entry.uri or not entry.first <= row < entry.stop for source, row, _ in rows.get(key, ())):
            found.append(f"{key} holds rows of another")
    found += [f"{key} is in no manifest" for key in rows.keys() - entries.keys()]
    success = folder.read_success()
    if success is not None and (success.rows, success.error_rows) != (len(here), sum(errors.values())):
        found.append(f"_SUCCESS says {success}")
    return found


def assert_verify_agrees(drill: Drill) -> None:
    """Whatever is wrong with a folder that was begun, `preln verify` finds something."""
    if OutputFolder(drill.output).read_job() is not None and (faults := faults_of(drill)):
        assert not verify(drill.output).holds, faults


def current_version(drill: Drill, uri: str) -> str | None:
    """The version of a file that the newest plan names."""
    planned = newest(OutputFolder(drill.output).read_plans()[1]).get(uri)
    return planned.file.version if planned else None


def assert_done(drill: Drill, report: Report) -> None:
    """After a run that went through: every row of the newest version of every file, once; all records agree."""
    current = newest(OutputFolder(drill.output).read_plans()[1])
    here = {file.uri: file.version for file in find(join(drill.root, "in"))}
    assert {uri: current[uri].file.version for uri in here} == here, "what is there is planned, as it is"
    failed = {failure.split(": ")[0] for failure in report.failures}
    assert not failed & here.keys(), "only what was deleted before it was read can fail"
    assert report.state == ("failed-shards" if failed else "done")
    rows = drill.rows()
    whole = {uri: planned.file.version for uri, planned in current.items() if uri not in failed}
    assert [row for row in rows if row[0] in whole] == drill.wanted_rows(whole)
    assert report.total_rows == len(rows)
    verdict = verify(drill.output)
    allowed = {("complete", uri) for uri in failed}
    assert [one for one in verdict.findings if (one.rule, one.where) not in allowed] == []
    assert read_status(drill.output).complete == (not failed)
    assert (OutputFolder(drill.output).read_success() is None) == bool(failed)
    errors = sum(label is None for _, _, label in rows)
    assert report.total_errors.total() == errors, "the records count the errors that are there"
