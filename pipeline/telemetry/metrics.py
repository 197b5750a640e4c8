"""Counts what stages do in Ray's counters and histograms, which Prometheus scrapes from every node as `ray_preln_*`.

Counted where it happens, so that a shard that is done twice counts twice here; receipts and `_runs/` count it once. Outside a
Ray worker (tests of single stages) nothing is counted.
"""

import sys
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Histogram

PREFIX = "preln_"
TAGS = ("task",)

FILL_BOUNDARIES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99]
SECONDS_BOUNDARIES = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0]

COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "rows": ("Output rows written.", TAGS),
    "rows_with_errors": ("Output rows that have an error, by its reason.", (*TAGS, "reason")),
    "truncated_texts": ("Texts that were longer than the model and were cut.", TAGS),
    "shards": ("Shards committed (state done) or given up (state failed).", (*TAGS, "state")),
    "written_bytes": ("Bytes of Parquet put into the store.", TAGS),
    "tokens": ("Real tokens the model has computed.", TAGS),
    "passes": ("Passes through the model.", TAGS),
    "budget_tokens": ("Tokens that those passes had room for.", TAGS),
    "computing_seconds": ("Seconds in which a replica's model computed.", TAGS),
    "waiting_seconds": ("Seconds in which a replica waited for its next bundle.", TAGS),
    "model_processes": ("Model processes started; more than one a replica means crashes, hangs or lost nodes.", TAGS),
}
"""Name without `preln_` -> what it counts and its tags. Prometheus sees `ray_preln_{name}_total`."""

HISTOGRAMS: Mapping[str, tuple[str, list[float]]] = {
    "batch_fill": ("Share of a bundle's token budget that was real tokens.", FILL_BOUNDARIES),
    "bundle_seconds": ("Seconds a replica took for one bundle.", SECONDS_BOUNDARIES),
    "encode_seconds": ("Seconds to turn a shard's rows into tokens.", SECONDS_BOUNDARIES),
    "write_seconds": ("Seconds to put a shard's object into the store.", SECONDS_BOUNDARIES),
}


@cache
def _counter(name: str) -> "Counter":
    from ray.util.metrics import Counter

    description, tags = COUNTERS[name]
    return Counter(PREFIX + name, description=description, tag_keys=tags)


@cache
def _histogram(name: str) -> "Histogram":
    from ray.util.metrics import Histogram

    description, boundaries = HISTOGRAMS[name]
    return Histogram(PREFIX + name, description=description, boundaries=boundaries, tag_keys=TAGS)


def _ray_is_here() -> bool:
    """Whether this process is connected to Ray; does not import it, since a process without Ray should not wait for that."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def count(name: str, amount: float, **tags: str) -> None:
    """Add to a counter of COUNTERS."""
    if amount > 0 and _ray_is_here():
        _counter(name).inc(amount, tags)


def observe(name: str, value: float, **tags: str) -> None:
    """One more value of a histogram of HISTOGRAMS."""
    if _ray_is_here():
        _histogram(name).observe(value, tags)


def count_shard(
    *,
    task: str,
    state: str,
    rows: int,
    errors: Mapping[str, int],
    truncated: int,
    size: int,
    facts: Mapping[str, float],
) -> None:
    """A shard is committed, or given up. facts: seconds of its stages."""
    count("shards", 1, task=task, state=state)
    count("rows", rows, task=task)
    count("truncated_texts", truncated, task=task)
    count("written_bytes", size, task=task)
    for reason, amount in errors.items():
        count("rows_with_errors", amount, task=task, reason=reason)
    for name in ("encode", "write"):
        if f"{name}_s" in facts:
            observe(f"{name}_seconds", facts[f"{name}_s"], task=task)


def count_bundle(*, task: str, facts: Mapping[str, float], seconds: float) -> None:
    """A replica has answered a bundle. facts: of its shards together."""
    for name, fact in (
        ("tokens", "tokens"),
        ("passes", "passes"),
        ("budget_tokens", "budget_tokens"),
        ("computing_seconds", "computing_s"),
        ("waiting_seconds", "waiting_s"),
    ):
        count(name, facts.get(fact, 0.0), task=task)
    if facts.get("budget_tokens"):
        observe("batch_fill", facts["tokens"] / facts["budget_tokens"], task=task)
    observe("bundle_seconds", seconds, task=task)
