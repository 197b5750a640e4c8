"""Adds up the receipts of a run: what it has done so far."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.output.sink import Receipt
from pipeline.rows import EMPTY, LEFT_OUT, UNFIT

REPLICA_SECONDS = ("computing_s", "waiting_s", "handling_s")
"""Facts of a bundle that add up to its replica's time since the one before."""


@dataclass
class Tally:
    """What a run has done so far, from its receipts.

    earlier_rows, earlier_bad_rows: from earlier runs on this folder, which the limits count too.
    """

    receipts: list[Receipt] = field(default_factory=list)
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
        self.first_at = self.first_at or time.monotonic()
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
