"""Adds up the receipts of a run: what it has done so far."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nlargest

from pipeline.output.sink import Receipt
from pipeline.rows import EMPTY, LEFT_OUT, UNFIT

REPLICA_SECONDS = ("computing_s", "waiting_s", "handling_s")
"""Facts of a bundle that add up to its replica's time since the one before."""

SHARD_SECONDS = ("encode_s", "computing_s", "decode_s", "write_s")
"""Facts of a shard, or of the bundle that it is the first of, that are work on its rows."""
POINTS = 200
SLOWEST = 10


@dataclass
class Tally:
    """What a run has done so far, from its receipts.

    times: when each receipt came, by the monotonic clock.
    earlier_rows, earlier_bad_rows: from earlier runs on this folder, which the limits count too.
    """

    receipts: list[Receipt] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    bundles: int = 0
    first_at: float | None = None
    facts: Counter[str] = field(default_factory=Counter)
    replicas: dict[float, Counter[str]] = field(default_factory=dict)
    devices: dict[float, Mapping[str, str | int | float | bool]] = field(default_factory=dict)
    earlier_rows: int = 0
    earlier_bad_rows: int = 0

    def add(self, receipt: Receipt) -> None:
        """One more receipt."""
        self.receipts.append(receipt)
        self.times.append(time.monotonic())
        self.first_at = self.first_at or self.times[-1]
        self.bundles += "computing_s" in receipt.facts  # told once a bundle
        self.rows += receipt.rows
        self.truncated += receipt.truncated
        self.errors.update(receipt.errors)
        self.tokens += int(receipt.facts.get("tokens", 0))
        facts = dict(receipt.facts)
        replica = facts.pop("replica", None)
        self.facts.update(facts)
        if replica is not None:
            spent = {name: facts.get(name, 0.0) for name in REPLICA_SECONDS}
            self.replicas.setdefault(replica, Counter()).update(spent)
            self.devices[replica] = receipt.runs_on

    @property
    def failed(self) -> list[Receipt]:
        """Receipts of shards that could not be read."""
        return [receipt for receipt in self.receipts if receipt.state == "failed"]

    def replica_shares(self) -> dict[str, list[float]]:
        """What share of its time each replica computed, waited for input or to hand over, and handled bundles."""
        totals = [sum(spent.values()) or 1.0 for spent in self.replicas.values()]
        return {
            name.removesuffix("_s"): [
                round(spent[name] / total, 4) for spent, total in zip(self.replicas.values(), totals, strict=True)
            ]
            for name in REPLICA_SECONDS
        }

    def progress(self, *, began: float) -> list[tuple[float, int, int]]:
        """(seconds since `began`, rows, tokens) done by then, at most POINTS of them, evenly spread over the shards."""
        rows = tokens = 0
        points = []
        step = max(1, -(-len(self.receipts) // POINTS))
        for index, (receipt, at) in enumerate(zip(self.receipts, self.times, strict=True), start=1):
            rows, tokens = rows + receipt.rows, tokens + int(receipt.facts.get("tokens", 0))
            if index % step == 0 or index == len(self.receipts):
                points.append((round(at - began, 3), rows, tokens))
        return points

    def slowest(self) -> dict[str, list[dict[str, object]]]:
        """The shards and the files that took most seconds to encode, compute, decode and write. What a bundle's shards were
        computed in together counts for its first shard."""
        by_file: dict[str, list[float]] = {}
        for receipt in self.receipts:
            spent = by_file.setdefault(receipt.shard.file.uri, [0, 0.0])
            spent[0] += receipt.rows
            spent[1] += _seconds_of(receipt)
        files = nlargest(SLOWEST, by_file.items(), key=lambda item: item[1][1])
        return {
            "shards": [
                {
                    "uri": receipt.shard.file.uri,
                    "first": receipt.shard.first,
                    "rows": receipt.rows,
                    "seconds": round(_seconds_of(receipt), 3),
                }
                for receipt in nlargest(SLOWEST, self.receipts, key=_seconds_of)
            ],
            "files": [{"uri": uri, "rows": rows, "seconds": round(seconds, 3)} for uri, (rows, seconds) in files],
        }

    def unfit_values(self) -> dict[str, int]:
        """Carried values that did not fit their column's type, and are null, by column."""
        found = {name: int(count) for name, count in self.facts.items() if name.startswith(UNFIT)}
        return {name.removeprefix(UNFIT): count for name, count in sorted(found.items())}

    def left_out_columns(self) -> dict[str, int]:
        """Rows with a column that is not among the job's, by column."""
        found = {name: int(count) for name, count in self.facts.items() if name.startswith(LEFT_OUT)}
        return {name.removeprefix(LEFT_OUT): count for name, count in sorted(found.items())}

    def runs_on(self) -> list[dict[str, object]]:
        """What the replicas' models ran on: each distinct device once, with the number of replicas."""
        alike = Counter(json.dumps(facts, sort_keys=True) for facts in self.devices.values() if facts)
        return [{**json.loads(facts), "replicas": count} for facts, count in sorted(alike.items())]

    @property
    def bad_rows(self) -> int:
        """Rows with an error other than an empty text."""
        return sum(count for reason, count in self.errors.items() if reason != EMPTY)


def _seconds_of(receipt: Receipt) -> float:
    return sum(receipt.facts.get(name, 0.0) for name in SHARD_SECONDS)
