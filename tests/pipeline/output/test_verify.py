"""A finished folder broken in every way is reported by `preln verify`, by name and by its exit code."""

import re
from collections.abc import Iterator

import pytest
import typer

from jobs.verify import verify as verify_command
from pipeline.errors import PrelnError
from pipeline.output.folder import OutputFolder
from pipeline.output.status import read_status
from pipeline.output.verify import Finding, verify
from pipeline.run_options import RunOptions
from tests.pipeline.drill_promise import assert_done
from tests.pipeline.drill_run import BAD, Drill
from tests.pipeline.drill_store import SCHEME, STORE, Crash, Trouble, When
from tests.pipeline.output.breaks import BREAKS, Break, Objects, late_writer

ROOT = "bucket/job"
OUT = f"{ROOT}/out/"


def a_finished_folder() -> Drill:
    """Four files in all formats, one of them changed once, and two rows with errors."""
    drill = Drill(f"{SCHEME}://{ROOT}")
    drill.put_file("a.parquet", ["one", BAD, "three", "four", "five", "six", "seven"])
    drill.put_file("b.jsonl", ["b one", f"{BAD} two", "b three"])
    drill.put_file("c.txt.gz", ["c one", "c two", "c three", "c four"])
    drill.annotate()
    drill.put_file("d.txt", ["d one", "d two"])
    drill.annotate()
    drill.put_file("d.txt", ["d one", "d two", "d three"])
    assert_done(drill, drill.annotate())
    return drill


@pytest.fixture(scope="module")
def finished() -> tuple[Drill, dict[str, bytes]]:
    STORE.reset()
    drill = a_finished_folder()
    return drill, dict(STORE.objects)


@pytest.fixture
def drill(finished: tuple[Drill, dict[str, bytes]]) -> Iterator[Drill]:
    made, objects = finished
    STORE.reset()
    STORE.objects.update(objects)
    yield Drill(made.root, texts=dict(made.texts))
    STORE.reset()


def change(broken: Break) -> None:
    """Break the folder in the store. Plans are named by their number: `_plans/0` is the first."""
    inside = {name.removeprefix(OUT): content for name, content in STORE.objects.items() if name.startswith(OUT)}
    plans = {
        name: f"_plans/{number}" for number, name in enumerate(sorted(n for n in inside if n.startswith("_plans")))
    }
    assert len(plans) == 3
    objects: Objects = {plans.get(name, name): content for name, content in inside.items()}
    before = dict(objects)
    broken.do(objects)
    assert objects != before
    real = {short: name for name, short in plans.items()}
    for name in inside:
        del STORE.objects[OUT + name]
    STORE.objects.update({OUT + real.get(name, name): content for name, content in objects.items()})


def crash_on(step: str, place: str) -> Trouble:
    """The process ends after the first step of a kind."""

    def trouble(_number: int, name: str, now: When) -> None:
        if name.startswith(step) and place in name and now == "after":
            raise Crash

    return trouble


def exit_code(drill: Drill) -> int:
    with pytest.raises(typer.Exit) as ended:
        verify_command(drill.output)
    return int(ended.value.exit_code)


def names_it(finding: Finding, broken: Break) -> bool:
    return finding.rule == broken.rule and broken.where in f"{finding.where} {finding.message}"


def test_a_folder_that_nobody_broke_is_right(drill: Drill) -> None:
    assert verify(drill.output).findings == ()
    assert exit_code(drill) == 0


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.what.replace(" ", "-"))
def test_whatever_is_broken_is_named(drill: Drill, broken: Break, capsys: pytest.CaptureFixture[str]) -> None:
    change(broken)
    found = verify(drill.output).findings
    assert any(names_it(finding, broken) for finding in found), found
    assert exit_code(drill) == 3
    shown = capsys.readouterr().out
    assert "Not OK" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.what.replace(" ", "-"))
def test_the_same_command_repairs_it_or_it_is_still_named(drill: Drill, broken: Break) -> None:
    change(broken)
    said = ""
    try:
        report = drill.annotate(RunOptions(retry_errors=True))
    except PrelnError as error:
        got, said = "refused", str(error)
    else:
        got = "kept" if verify(drill.output).findings else "repaired"
        if got == "repaired" and verify(drill.output, input_spec=drill.job.spec.input).findings:
            got = "recounted"
        if got == "repaired":
            assert_done(drill, report)
    assert got == broken.again
    assert bool(re.search("; remove it|; restore it|Choose another", said)) == (got == "refused"), said


def test_what_a_late_writer_leaves_is_what_the_manifest_says_after_the_next_run(drill: Drill) -> None:
    change(next(broken for broken in BREAKS if broken.do is late_writer))
    folder = OutputFolder(drill.output)
    report = drill.annotate()
    assert report.tally.receipts == [], "the shard is there: only what it holds is another"
    _, entries = folder.read_manifest()
    (late,) = (entry for key, entry in entries.items() if key.startswith("d-"))
    assert late.errors == {"nan": 1}
    assert verify(drill.output).findings == ()
    again = drill.annotate(RunOptions(retry_errors=True))
    assert late.key in {receipt.shard.key for receipt in again.tally.receipts}
    assert_done(drill, again)


def test_success_goes_with_an_object_that_no_input_can_replace(drill: Drill) -> None:
    change(next(broken for broken in BREAKS if broken.what == "an object is deleted"))
    drill.delete_file("a.parquet")
    folder = OutputFolder(drill.output)
    assert folder.read_success() is not None
    report = drill.annotate()
    assert report.state == "failed-shards"
    assert folder.read_success() is None
    assert not read_status(drill.output).complete
    assert {(one.rule, one.where.rpartition("/")[2]) for one in verify(drill.output).findings} == {
        ("complete", "a.parquet")
    }
    accepted = drill.annotate(RunOptions(accept_failed=True))
    assert accepted.state == "done"
    success = folder.read_success()
    assert success is not None
    assert (success.rows, len(success.accepted_failures)) == (accepted.total_rows, 1)
    assert drill.annotate().state == "done", "what was accepted once stays accepted"
    assert folder.read_success() == success


def test_success_goes_before_the_work_that_makes_it_untrue(drill: Drill) -> None:
    """A run that dies between its objects and its manifest leaves no _SUCCESS of the old ones."""
    drill.repaired = True
    STORE.steps.clear()
    with STORE.troubled(crash_on("put", "/data/")), pytest.raises(Crash):
        drill.annotate(RunOptions(retry_errors=True))
    assert OutputFolder(drill.output).read_success() is None
    assert {one.rule for one in verify(drill.output).findings} == {"manifest"}
    assert_done(drill, drill.annotate(RunOptions(retry_errors=True)))


def test_what_a_file_manager_leaves_behind_is_no_fault(drill: Drill) -> None:
    for folder in ("_plans/", "_manifest/", "_runs/", "data/", ""):
        STORE.objects[f"{OUT}{folder}.DS_Store"] = b"\x00\x00\x00\x01Bud1"
    assert verify(drill.output).findings == ()
    assert_done(drill, drill.annotate())
    drill.put_file("e.txt", ["e one"])
    assert_done(drill, drill.annotate())
