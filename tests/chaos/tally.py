"""Adds up what the storms have hit, over all runs on this machine, in a file that a program can read.

`.cache/chaos-tally.json`, or PRELN_CHAOS_TALLY. `python -m tests.chaos.tally` prints it beside what is aimed at.
"""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

FILE = Path(os.environ.get("PRELN_CHAOS_TALLY", Path(__file__).resolve().parents[2] / ".cache" / "chaos-tally.json"))
AIMS: Mapping[str, int] = {"kills and stops": 1_000, "faults": 5_000}
AIM_OF_EACH_KIND = 50
OUTCOMES = ("runs", "runs of two drivers", "rows", "lost", "doubled", "different", "hangs")


def add(hit: Mapping[str, int], file: Path = FILE) -> Counter[str]:
    """Add a run's counts to the file's; the sums. Keys are "kill child", "stop raylet", "fault torn", "runs", …"""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        sums = Counter(json.loads(stream.read() or "{}"))
        sums.update(hit)
        stream.truncate(0)
        stream.write(json.dumps(dict(sorted(sums.items())), indent=1) + "\n")
    return sums


def table(sums: Mapping[str, int]) -> str:
    """The sums, a line each, with the aims."""
    hits = {name: count for name, count in sums.items() if name.startswith(("kill ", "stop "))}
    faults = {name: count for name, count in sums.items() if name.startswith("fault ")}
    lines = [f"{name:24} {sums.get(name, 0):7}" for name in OUTCOMES]
    lines += [f"{'kills and stops':24} {sum(hits.values()):7} of {AIMS['kills and stops']}"]
    lines += [f"  {name:22} {count:7} of {AIM_OF_EACH_KIND}" for name, count in sorted(hits.items())]
    lines += [f"{'faults':24} {sum(faults.values()):7} of {AIMS['faults']}"]
    lines += [f"  {name:22} {count:7}" for name, count in sorted(faults.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(json.loads(FILE.read_text()) if FILE.exists() else {}))
