"""Lets a worker process read damaged inputs, and notices what it does not survive: a crash, a hang, too much memory.

python -m tests.fuzz.fuzzer SEED COUNT prints the outcomes by reader, and keeps the folder of each fault.
"""

import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tests.fuzz.seeds import seeds

HANGS_AFTER = 60.0
"""Seconds that one input may take."""
STARTS_WITHIN = 120.0


@dataclass
class Found:
    """outcomes: reader -> outcome -> how many. faults: one text each, with what repeats it. peak: bytes of the largest
    process. slowest: seconds of the slowest input."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    peak: int = 0
    slowest: float = 0.0
    done: int = 0

    def count(self, reader: str, outcome: str) -> None:
        """One more."""
        self.outcomes.setdefault(reader, Counter())[outcome] += 1
        self.done += 1


@dataclass
class Worker:
    """A worker process. lines: what it prints, None at its end."""

    process: subprocess.Popen[str]
    lines: "queue.Queue[str | None]"
    errors: Path

    def next_line(self, *, within: float) -> dict[str, Any] | None:
        """What it says next; None where it has ended. Raises queue.Empty if it says nothing for so long."""
        line = self.lines.get(timeout=within)
        return None if line is None else json.loads(line)


@contextmanager
def started(words: list[str], *, folder: Path) -> Iterator[Worker]:
    """A worker process, which does not outlive the block."""
    errors = folder / "stderr"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()

    def follow() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    try:
        yield Worker(process, lines, errors)
    finally:
        process.kill()
        process.wait()
        reader.join(10)
        process.stdout.close()


def fuzz(
    *, seed: str, count: int, folder: Path, seconds: float = float("inf"), module: str = "tests.fuzz.worker"
) -> Found:
    """Read so many damaged inputs, or as many as fit into the time; a worker that dies is followed by another.

    module: what a worker runs.
    """
    found, number, until = Found(), 0, time.monotonic() + seconds
    seeds_file = folder / "seeds.pickle"
    seeds_file.write_bytes(pickle.dumps(seeds()))
    while number < count and time.monotonic() < until:
        with started([module, str(seeds_file), str(folder), seed, str(number), str(count)], folder=folder) as worker:
            number = _follow(worker, found, seed=seed, number=number, until=until)
    return found


def _follow(worker: Worker, found: Found, *, seed: str, number: int, until: float) -> int:
    """Count what a worker tells until it ends; the number that follows the last input."""
    reader, within = "", STARTS_WITHIN
    while time.monotonic() < until:
        try:
            said = worker.next_line(within=within)
        except queue.Empty:
            worker.process.send_signal(signal.SIGUSR1)
            time.sleep(1)
            return _fault(worker, found, reader, f"seed {seed}, input {number}: no end after {within:.0f} s")
        if said is None:
            if reader:
                status = worker.process.wait()
                found.count(reader, "fault")
                found.faults.append(f"{reader}: seed {seed}, input {number}: exit status {status}\n{_tail(worker)}")
                return number + 1
            if not found.done and worker.process.wait():
                raise RuntimeError(_tail(worker))
            return number
        if "begins" in said:
            number, reader, within = said["begins"], said["reader"], HANGS_AFTER
            continue
        found.count(reader, said["outcome"])
        found.peak, found.slowest = max(found.peak, said["peak"]), max(found.slowest, said["seconds"])
        if said["outcome"] == "fault":
            found.faults.append(f"{reader}: seed {seed}, input {number}\n{said['why']}")
        number, reader = number + 1, ""
    return number


def _fault(worker: Worker, found: Found, reader: str, what: str) -> int:
    number = int(what.split("input ")[1].split(":")[0])
    found.count(reader, "fault")
    found.faults.append(f"{reader}: {what}\n{_tail(worker)}")
    return number + 1


def _tail(worker: Worker) -> str:
    return worker.errors.read_text(errors="replace")[-3_000:]


def table(found: Found) -> str:
    """The outcomes by reader, a line each."""
    lines = [
        f"{reader:36} {sum(outcomes.values()):6}  "
        + ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
        for reader, outcomes in sorted(found.outcomes.items())
    ]
    total = f"{found.done} inputs, {len(found.faults)} faults, at most {found.peak >> 20} MB, {found.slowest:.1f} s"
    return "\n".join([*lines, total])


def main() -> None:
    """Fuzz from the command line."""
    seed, count = sys.argv[1:3]
    folder = Path(mkdtemp(prefix="preln-fuzz-"))
    found = fuzz(seed=seed, count=int(count), folder=folder)
    for fault in found.faults:
        print(fault, end="\n\n")
    print(table(found))
    print(folder)


if __name__ == "__main__":
    main()
