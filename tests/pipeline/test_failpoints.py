"""A run killed before or after any of its steps leaves a sound folder, which the next run completes.

Every touch of the store is a step: all of them are tried, in a folder that is new, one that has everything to do (a file
changed, one new, one gone and pruned, error rows to repair), and one with nothing to do.
"""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.run_options import RunOptions
from tests.pipeline.drill_promise import assert_done, assert_manifest_is_exact, assert_objects_are_whole
from tests.pipeline.drill_run import BAD, Drill
from tests.pipeline.drill_store import SCHEME, STORE, Crash, Store, When, crash_at, meanwhile_at, stumble_at

WISHES = RunOptions(retry_errors=True, prune=True)
TEXTS = ["one", BAD, "three", "four"]


def new_folder() -> Drill:
    """Inputs, and nothing annotated."""
    STORE.reset()
    drill = Drill(f"{SCHEME}://bucket/job")
    drill.put_file("a.parquet", TEXTS)
    drill.put_file("b.txt.gz", TEXTS)
    drill.put_file("c.jsonl", TEXTS[:2])
    return drill


def old_folder() -> Drill:
    """Annotated once, then changed in every way."""
    drill = new_folder()
    drill.put_file("d.txt", ["to be pruned"])
    assert drill.annotate().state == "done"
    drill.put_file("a.parquet", ["uno", "due"])
    drill.put_file("b.txt.gz", ["un", "deux", "trois", "quatre"])
    drill.put_file("e.parquet", ["new"])
    drill.delete_file("d.txt")
    drill.repaired = True
    return drill


def finished_folder() -> Drill:
    """Nothing to do."""
    drill = new_folder()
    drill.repaired = True
    assert drill.annotate().state == "done"
    return drill


FOLDERS: dict[str, Callable[[], Drill]] = {"new": new_folder, "old": old_folder, "finished": finished_folder}


@pytest.fixture(params=FOLDERS)
def drill(request: pytest.FixtureRequest) -> Iterator[Drill]:
    yield FOLDERS[request.param]()
    STORE.reset()


def steps_of(drill: Drill) -> list[str]:
    """The steps of an undisturbed run, which leaves no trace here."""
    before = copy.deepcopy(STORE.objects)
    with STORE.troubled(lambda _number, _name, _when: None):
        drill.annotate(WISHES)
        steps = list(STORE.steps)
    STORE.objects = before
    return steps


def in_a_copy(store: Store, objects: dict[str, bytes]) -> None:
    """The store as it was."""
    store.objects = dict(objects)
    store.attempted = {}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_may_die_at_every_step_of_its_life(drill: Drill, when: When) -> None:
    steps, objects = steps_of(drill), dict(STORE.objects)
    assert len(steps) > 10
    for number, name in enumerate(steps):
        in_a_copy(STORE, objects)
        with STORE.troubled(crash_at(number, when)), pytest.raises(Crash):
            drill.annotate(WISHES)
        told = f"died {when} step {number}, {name}"
        try:
            assert_objects_are_whole(drill)
            assert_manifest_is_exact(drill)
            assert_done(drill, drill.annotate(WISHES))
        except (AssertionError, KeyError) as error:
            raise AssertionError(told) from error


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_may_be_cut_at_every_step_before_or_after_it_is_done(drill: Drill, when: When) -> None:
    steps, objects = steps_of(drill), dict(STORE.objects)
    for number in range(0, len(steps), 2):
        in_a_copy(STORE, objects)
        with STORE.troubled(stumble_at({number, number + 3}, when)):
            report = drill.annotate(WISHES)
        assert_done(drill, report)


def test_another_driver_may_do_the_same_work_at_every_step(drill: Drill) -> None:
    steps, objects = steps_of(drill), dict(STORE.objects)
    for number, name in enumerate(steps):
        in_a_copy(STORE, objects)
        with STORE.troubled(meanwhile_at(number, lambda: drill.annotate(WISHES))):
            report = drill.annotate(WISHES)
        try:
            assert_manifest_is_exact(drill)
            assert_done(drill, report)
        except (AssertionError, KeyError) as error:
            raise AssertionError(f"another ran at step {number}, {name}") from error


def test_another_driver_may_die_at_every_step_between_two_of_ours() -> None:
    drill = old_folder()
    steps, objects = steps_of(drill), dict(STORE.objects)
    for number in range(4, len(steps), 8):
        for inner in range(5, len(steps), 9):
            in_a_copy(STORE, objects)

            def die(inner: int = inner) -> None:
                with STORE.troubled(crash_at(inner, "after")):
                    try:
                        drill.annotate(WISHES)
                    except Crash:
                        return

            with STORE.troubled(meanwhile_at(number, die)):
                drill.annotate(WISHES)
            assert_objects_are_whole(drill)
            assert_done(drill, drill.annotate(WISHES))


def test_a_file_may_change_at_every_step(drill: Drill) -> None:
    steps, objects = steps_of(drill), dict(STORE.objects)
    for number in range(0, len(steps), 2):
        in_a_copy(STORE, objects)
        with STORE.troubled(
            meanwhile_at(number, lambda: drill.put_file("c.jsonl", ["other", "texts", "than", "were planned"]))
        ):
            drill.annotate(WISHES)
        assert_objects_are_whole(drill)
        assert_manifest_is_exact(drill)
        assert_done(drill, drill.annotate(WISHES))


def test_a_process_may_end_at_every_touch_of_a_local_disk(repository: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.dying_run", str(tmp_path / "disk")],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["unsound"] == [], done.stderr
    assert told["went_through"]
    assert told["deaths"] > 60
