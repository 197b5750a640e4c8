"""Reads damaged inputs one after the other and prints a line before and behind each.

python -m tests.fuzz.worker SEEDS.pickle FOLDER SEED FIRST STOP
"""

import faulthandler
import json
import pickle
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from random import Random

from pipeline.reading.formats.memory_cap import DECODED_BYTES
from tests.fuzz.mutations import WAYS
from tests.fuzz.reading import lay_out, read
from tests.fuzz.seeds import Seed

ROOM = {"input": DECODED_BYTES + (1 << 30), "checkpoint": 1 << 30, "job": 1 << 30}
"""Bytes that this process may take more than it has: for an input what decoding may take, and a gigabyte to spare."""


def main() -> None:
    """Read the damaged inputs of these numbers."""
    seeds_file, folder, seed, first, stop = sys.argv[1:]
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    seeds: tuple[Seed, ...] = pickle.loads(Path(seeds_file).read_bytes())  # written by the parent
    for number in range(int(first), int(stop)):
        chosen = seeds[number % len(seeds)]
        tell(begins=number, reader=chosen.reader)
        began, place = time.monotonic(), Path(folder) / str(number)
        content = damaged(chosen, seed=seed, number=number)
        where = place / "in" if chosen.kind == "input" else place
        lay_out({**chosen.files, chosen.damaged: content}, where)
        outcome, why = attempt(chosen, place)
        tell(ends=number, outcome=outcome, why=why, seconds=round(time.monotonic() - began, 3), peak=peak_bytes())
        if outcome != "fault":
            shutil.rmtree(place)


def damaged(chosen: Seed, *, seed: str, number: int) -> bytes:
    """The damaged file of a number."""
    return WAYS[chosen.way](chosen.files[chosen.damaged], Random(f"{seed}-{number}"))


def attempt(chosen: Seed, place: Path) -> tuple[str, str]:
    """The outcome, and of a fault its traceback."""
    now = _data_bytes()
    reset_peak()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (now + ROOM[chosen.kind], hard))
    try:
        return read(chosen.kind, place), ""
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "fault", traceback.format_exc()[-3_000:]
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def tell(**fields: object) -> None:
    """One line."""
    print(json.dumps(fields), flush=True)


def _data_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


def reset_peak() -> None:
    """Begin to measure the largest resident size anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The largest resident size since then."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
