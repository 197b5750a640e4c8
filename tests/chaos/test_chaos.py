"""A job whose connections break and whose processes are killed or stopped has the same output as an undisturbed run.

A seeded storm of the store and one of processes are part of `make test`. `make chaos` is three storms of ten minutes: two of the
store alone, on SeaweedFS and on moto, which alone takes small objects in parts, and one of processes and SeaweedFS. Each of their
rounds is added to a tally (`tests.chaos.tally`), so that short runs add up to a long one. PRELN_CHAOS_SECONDS and
PRELN_CHAOS_SEED choose another length of each, and another story.
"""

import os
import time
from pathlib import Path

import pytest

from tests.chaos import tally
from tests.chaos.mayhem import KINDS
from tests.chaos.storm import Story, storm

SEED = int(os.environ.get("PRELN_CHAOS_SEED", "20261"))
LONG_SECONDS = float(os.environ.get("PRELN_CHAOS_SECONDS", "600"))

pytestmark = [pytest.mark.ray, pytest.mark.storage]


SHORT_KINDS = 6
"""Kinds of hits, of all, that a short storm meets at least: not every process is there to be hit when its turn comes."""


@pytest.mark.timeout(400)
def test_a_seeded_storm_of_the_store_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with storm("moto", tmp_path, story=Story(files=8, rows=40, nap=0.0, stall=20), seed=SEED, counted=False) as short:
        short.of_the_store(rounds_until=time.monotonic() + 1, share=0.15, folders=1)
    assert sum(count for name, count in short.sums.items() if name.startswith("fault ")) >= 20


@pytest.mark.timeout(1200)
def test_a_seeded_minute_of_storm_of_processes_loses_and_doubles_nothing(ray_environment: Path, tmp_path: Path) -> None:
    script = sorted(KINDS, key=lambda kind: kind.endswith(("raylet", "node")))  # what all work waits for comes last
    with storm("moto", tmp_path, story=Story(files=8, rows=100, nap=1.0, stall=10), seed=SEED, counted=False) as short:
        short.of_processes(
            seconds=120, share=0.08, pause=0.7, workers=1, cpus=3, script=script, most=1, stopped_for_good=0.0
        )
    assert sum(short.sums[kind] > 0 for kind in KINDS) >= SHORT_KINDS


@pytest.mark.chaos
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("server", ["seaweedfs", "moto"])
def test_a_long_storm_of_the_store_loses_and_doubles_nothing(
    server: str, ray_environment: Path, tmp_path: Path
) -> None:
    with storm(server, tmp_path, story=Story(files=12, rows=60, nap=0.0, stall=20), seed=SEED) as long:
        long.of_the_store(rounds_until=time.monotonic() + LONG_SECONDS, share=0.2, folders=16)
    print(f"\n{tally.table(tally.sums(tally.rounds()))}")
    assert long.sums["folders"] >= 1


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_a_long_storm_of_processes_loses_and_doubles_nothing(ray_environment: Path, tmp_path: Path) -> None:
    with storm("seaweedfs", tmp_path, story=Story(files=16, rows=120, nap=0.6, stall=20), seed=SEED) as long:
        long.of_processes(seconds=LONG_SECONDS, share=0.1, pause=0.7, workers=2, cpus=2)
    print(f"\n{tally.table(tally.sums(tally.rounds()))}")
    assert long.sums["folders"] >= 1
