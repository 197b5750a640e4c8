"""Damaged files of every kind are read or refused: no traceback, no crash, no hang, no memory without bound.

`make slow` reads 10,000 of them. PRELN_FUZZ_COUNT and PRELN_FUZZ_SEED choose another number and other damage.
"""

import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.fuzzer import Found, fuzz, table
from tests.fuzz.mutations import WAYS
from tests.fuzz.reading import lay_out, read
from tests.fuzz.seeds import Seed, seeds
from tests.fuzz.worker import ROOM

SEED = os.environ.get("PRELN_FUZZ_SEED", "20261")
COUNT = int(os.environ.get("PRELN_FUZZ_COUNT", "10000"))
SHORT_SECONDS = 15.0

pytestmark = pytest.mark.torch


def check(found: Found) -> None:
    """No fault, and no process larger than an input's room with what the libraries take."""
    print("\n" + table(found))
    assert found.faults == []
    assert found.peak < max(ROOM.values()) + (1 << 30)


def test_the_folders_that_are_damaged_are_good(tmp_path: Path) -> None:
    """What is refused before it is damaged would test nothing."""
    for number, seed in enumerate(seeds()):
        place = tmp_path / str(number)
        lay_out(seed.files, place / "in" if seed.kind == "input" else place)
        assert (seed.reader, read(seed.kind, place)) == (seed.reader, "read")


def test_damage_is_the_same_at_every_run_and_changes_the_file() -> None:
    for seed in seeds():
        content = seed.files[seed.damaged]
        made = [WAYS[seed.way](content, Random(f"{number}")) for number in range(20)]
        assert made == [WAYS[seed.way](content, Random(f"{number}")) for number in range(20)]
        assert sum(one != content for one in made) > 10, seed.reader


def test_a_crash_and_a_hang_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.fuzzer.HANGS_AFTER", 2.0)
    found = fuzz(seed=SEED, count=3, folder=tmp_path, module="tests.fuzz.ill_worker")
    assert found.outcomes == {"ill": {"fault": 2, "read": 1}}
    crash, hang = found.faults
    assert f"ill: seed {SEED}, input 0: exit status -11" in crash
    assert f"ill: seed {SEED}, input 1: no end after 2 s" in hang


def test_a_traceback_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of folder that nothing reads."""
    good = Seed("text", "input", {"a.txt": b"one\n"}, "a.txt", "bytes")
    bad = replace(good, reader="none", kind="nothing")  # type: ignore[arg-type]
    monkeypatch.setattr("tests.fuzz.fuzzer.seeds", lambda: (bad, good))
    found = fuzz(seed=SEED, count=2, folder=tmp_path)
    assert found.outcomes["none"] == {"fault": 1}
    assert found.outcomes["text"].total() == 1
    assert "KeyError" in found.faults[0]


@pytest.mark.timeout(300)
def test_some_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    found = fuzz(seed=SEED, count=COUNT, folder=tmp_path, seconds=SHORT_SECONDS)
    check(found)
    assert found.done >= 40


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    found = fuzz(seed=SEED, count=COUNT, folder=tmp_path)
    check(found)
    assert found.done == COUNT
