"""Adds up what the storms have hit, over all rounds on this machine.

Every round appends one line to ~/.cache/preln-chaos.jsonl, or to PRELN_CHAOS_TALLY. A round that was broken off is in the file
too, but counts for nothing. `python -m tests.chaos.tally` prints the sums beside what is aimed at.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = Path(os.environ.get("PRELN_CHAOS_TALLY") or Path.home() / ".cache" / "preln-chaos.jsonl")
"""Outside the repository; known before a test gives itself another home."""
AIMS: Mapping[str, int] = {"kills and stops": 1_000, "faults": 5_000}
AIM_OF_EACH_KIND = 50
OUTCOMES = ("folders", "folders of two drivers", "rows", "drivers", "lost", "doubled", "different", "hangs")


def add(counts: Mapping[str, int], *, ended: bool, **about: object) -> None:
    """Append a round. counts: by "kill child", "stop raylet", "fault torn", "rows", … about: what else to know of it."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "ended": ended, **about, "counts": dict(counts)}
    with FILE.open("a", encoding="utf-8") as file:  # one write of one line: rounds of several storms do not mix
        file.write(json.dumps(line) + "\n")


def rounds() -> list[dict[str, Any]]:
    """Every round on this machine."""
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()] if FILE.exists() else []


def sums(of: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """The counts of all rounds that went to their end."""
    added: Counter[str] = Counter()
    for each in of:
        if each["ended"]:
            added.update(each["counts"])
    return added


def table(added: Mapping[str, int]) -> str:
    """The sums, a line each, with the aims."""
    hits = {name: count for name, count in added.items() if name.startswith(("kill ", "stop "))}
    faults = {name: count for name, count in added.items() if name.startswith("fault ")}
    lines = [f"{name:24} {added.get(name, 0):7}" for name in OUTCOMES]
    lines += [f"{'kills and stops':24} {sum(hits.values()):7} of {AIMS['kills and stops']}"]
    lines += [f"  {name:22} {count:7} of {AIM_OF_EACH_KIND}" for name, count in sorted(hits.items())]
    lines += [f"{'faults':24} {sum(faults.values()):7} of {AIMS['faults']}"]
    lines += [f"  {name:22} {count:7}" for name, count in sorted(faults.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(sums(rounds())))
