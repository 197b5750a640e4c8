"""A probe's receipts and its plan in, what the rest will take out: rows, tokens and hours, each as a range."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.output.plan import Plan
from pipeline.output.sink import Receipt
from pipeline.output.tally import REPLICA_SECONDS, Tally
from pipeline.rows import SKIPPED, STORED
from pipeline.shards import Stream, Work

STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Student's t for 95 %, two-sided, by degrees of freedom from 1; beyond them it is near 2.2."""
LEAST_SPREAD = 0.05
"""A range is never narrower than this to both sides: a few shards don't show how a machine's speed drifts."""
ONE_SHARD_SPREAD = 0.5
"""The range where a single shard gives no spread."""
BEGINNINGS_SPREAD = 0.2
"""A range is never narrower than this to both sides where shards are the beginnings of files that only read in sequence."""


@dataclass(frozen=True)
class Range:
    """A number that lies between `low` and `high`, most likely near `likely`."""

    low: float
    likely: float
    high: float

    def times(self, other: "Range") -> "Range":
        """The product of two ranges."""
        return Range(self.low * other.low, self.likely * other.likely, self.high * other.high)

    def plus(self, other: "Range") -> "Range":
        """The sum of two ranges."""
        return Range(self.low + other.low, self.likely + other.likely, self.high + other.high)


@dataclass(frozen=True)
class Forecast:
    """What is left after a probe. shards: that were probed. rows, tokens: still to be done. hours: of the whole run on
    `replicas`, its start-up included. start_up: seconds. grounds: what each range rests on, in words."""

    shards: int
    replicas: int
    rows: Range
    tokens: Range
    hours: Range
    start_up: float
    grounds: dict[str, str]


def spread(work: Sequence[Work], shards: int) -> list[Work]:
    """So many items of the work, evenly over it: the middles of equal parts, so that first and last files count alike."""
    taken = min(shards, len(work))
    return [work[int((index + 0.5) * len(work) / taken)] for index in range(taken)]


def forecast(*, plan: Plan, tally: Tally, replicas: int, first_shard: float) -> Forecast:
    """What the plan's work takes that a probe has left. first_shard: seconds until the first receipt.

    Raises ValueError where the probe has no shard with rows.
    """
    done = [receipt for receipt in tally.receipts if receipt.state == "done" and receipt.rows]
    if not done:
        raise ValueError("no shard of the probe has rows")
    passed = sum(_stored_bytes(receipt) + receipt.facts.get(SKIPPED, 0.0) for receipt in tally.receipts)
    left = max(plan.missing_bytes - passed, 0.0)
    sizes = [_stored_bytes(receipt) for receipt in done]
    tokens_of = [receipt.facts.get("tokens", 0.0) for receipt in done]
    known = plan.missing_rows
    if known is not None:
        rest = float(known - sum(receipt.rows for receipt in done))
        rows, why_rows = Range(rest, rest, rest), "counted: the files say how many rows they have"
        per_row = ratio([float(receipt.rows) for receipt in done], tokens_of)
        tokens, why_tokens = rows.times(per_row), f"tokens a row in {len(done)} shards"
    else:
        per_byte = Range(left, left, left)
        in_sequence = any(isinstance(item, Stream) for item in plan.work)
        least = BEGINNINGS_SPREAD if in_sequence else LEAST_SPREAD
        rows = per_byte.times(ratio(sizes, [float(receipt.rows) for receipt in done], least=least))
        tokens = per_byte.times(ratio(sizes, tokens_of, least=least))
        where = f"{len(done)} shards{', of which some are the beginnings of files,' if in_sequence else ''}"
        why_rows = f"rows a byte in {where} times {left:,.0f} stored bytes left"
        why_tokens = f"tokens a byte in {where} times {left:,.0f} stored bytes left"
    busy, waiting = _replica_seconds(tally)
    all_tokens = max(sum(tokens_of), 1.0)
    # A longer run waits less for input than a probe, whose replicas begin with nothing to do.
    per_token = Range(busy * (1 - LEAST_SPREAD), busy * 1.05, (busy + waiting) * (1 + LEAST_SPREAD))
    seconds = tokens.times(
        Range(*(part / all_tokens / replicas for part in (per_token.low, per_token.likely, per_token.high)))
    )
    start_up = max(first_shard - _seconds_of(done[0]), 0.0)
    hours = seconds.plus(Range(start_up * 0.5, start_up, start_up * 1.5))
    return Forecast(
        shards=len(done),
        replicas=replicas,
        rows=rows,
        tokens=tokens,
        hours=Range(hours.low / 3600, hours.likely / 3600, hours.high / 3600),
        start_up=start_up,
        grounds={
            "rows": why_rows,
            "tokens": why_tokens,
            "hours": f"{all_tokens / max(busy, 1e-9):,.0f} tokens a second and busy replica; replicas waited for input "
            f"{waiting / (busy + waiting or 1):.0%} of the probe; {start_up:,.0f} s of start-up",
        },
    )


def ratio(sizes: Sequence[float], amounts: Sequence[float], *, least: float = LEAST_SPREAD) -> Range:
    """Amount per size, as one ratio of sums, with the 95 % interval of the ratio estimator over the shards.

    least: the share by which low and high differ from it at least.
    """
    whole = max(sum(sizes), 1.0)
    estimate = sum(amounts) / whole
    count = len(sizes)
    if count == 1:
        return Range(estimate * (1 - ONE_SHARD_SPREAD), estimate, estimate * (1 + ONE_SHARD_SPREAD))
    residuals = sum((amount - estimate * size) ** 2 for size, amount in zip(sizes, amounts, strict=True))
    error = math.sqrt(residuals / (count - 1) / count) / (whole / count)
    student = STUDENT[count - 2] if count - 2 < len(STUDENT) else 2.2
    margin = max(student * error, least * estimate)
    return Range(max(estimate - margin, 0.0), estimate, estimate + margin)


def _stored_bytes(receipt: Receipt) -> float:
    """Bytes of the stored file that a shard is, about: fewer than its own where the file is compressed."""
    return receipt.facts.get(STORED, float(receipt.shard.size))


def _replica_seconds(tally: Tally) -> tuple[float, float]:
    """(seconds in which the replicas computed or handled bundles, seconds in which they waited), without the first wait."""
    spent = {name: sum(times[name] for times in tally.replicas.values()) for name in REPLICA_SECONDS}
    return spent["computing_s"] + spent["handling_s"], spent["waiting_s"]


def _seconds_of(receipt: Receipt) -> float:
    return sum(value for name, value in receipt.facts.items() if name.endswith("_s") and name != "waiting_s")
