"""What a Ray task calls, in a process of its own that has a deadline of a second, until it hangs.

`python -m tests.pipeline.endless_stage encode` tokenizes a text forever; `... read` reads a stream
whose third shard never comes.
"""

import gzip
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from pipeline import flow
from pipeline.bundle import ShardTables, pack
from pipeline.flow import Stages
from pipeline.reading import shard_source
from pipeline.reading.shard_source import ShardSource
from pipeline.reading.source import Reading, read_bundles
from pipeline.shards import CutRule, Stream
from tests.pipeline.deadly import ENDLESS, DeadlySpec
from tests.pipeline.small import FINGERPRINT, file_at, rows_table, shard, spec

SECONDS = 1.0


def encode() -> None:
    """Tokenize two shards, of which the last hangs."""
    flow.STARTING = 0.0  # type: ignore[attr-defined]
    chosen = DeadlySpec.parse(spec(limits={"stall": SECONDS}).model_dump(mode="json", by_alias=True))
    shards = [ShardTables(shard=shard(), rows=rows_table({"text": [text]})) for text in ("one", ENDLESS)]
    Stages(spec=chosen, schema=pa.schema([("text", pa.string())]), footer={}).encode(pack(shards))


def read(path: Path) -> None:
    """Read a file shard by shard, and take longer than the deadline over each; the third is never there."""

    def hanging(**work: object) -> Iterator[list[ShardTables]]:
        for number, bundle in enumerate(read_bundles(**work)):  # type: ignore[arg-type]
            time.sleep(3_600 * (number == 2))
            yield bundle

    shard_source.read_bundles = hanging  # type: ignore[attr-defined]
    path.write_bytes(gzip.compress(b"one\n" * 30))
    reading = Reading(
        schema=pa.schema([("text", pa.string())]),
        required=("text",),
        rule=CutRule(rows=10, bytes=1_000_000),
        fingerprint=FINGERPRINT,
        line_bytes=1_000,
        stall=SECONDS,
    )
    stream = Stream(file=file_at(path), done=frozenset())
    for task in ShardSource(work=[stream], reading=reading).get_read_tasks(1):
        for _ in task():
            print("read", flush=True)
            time.sleep(1.5 * SECONDS)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        encode() if sys.argv[1] == "encode" else read(Path(folder) / "a.txt.gz")
