"""A task whose tokenizing, readers whose reading, and a value whose arrival end their process, the first two where the data says
so; and a task whose tokenizing never ends for some text.
"""

import ctypes
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from pipeline.bundle import ShardTables
from pipeline.reading.source import Reading, read_shards, read_stream
from pipeline.shards import Shard, Stream
from pipeline.spec.job_spec import JobSpec
from pipeline.spec.named_tasks import NamedTask
from pipeline.tasks import TextClassification
from pipeline.tasks.task import Encoding, ModelFacts

DEADLY = "this text ends the process that tokenizes it"
ENDLESS = "this text is tokenized forever"


class DeadlyClassification(TextClassification):
    """Text classification, until it is asked about DEADLY."""

    def encode(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> Encoding:
        """The windows of all items, if the process lives on."""
        if DEADLY in parts["text"].to_pylist():
            os._exit(3)
        if ENDLESS in parts["text"].to_pylist():
            time.sleep(3_600)
        return super().encode(parts, facts)


class DeadlySpec(JobSpec):
    """A job with that task."""

    @property
    def named_tasks(self) -> dict[str, NamedTask]:
        """The task, under its usual name."""
        return {
            name: replace(task, task=DeadlyClassification(**task.task.model_dump(exclude={"name"})))
            for name, task in super().named_tasks.items()
        }


class Deadly:
    """A value that ends the process that receives it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (3,)


def shards_until(*, shards: Sequence[Shard], reading: Reading, deadly: int) -> Iterator[ShardTables]:
    """The shards as they are read, until the one that begins at `deadly`."""
    for shard in shards:
        if shard.first == deadly:
            ctypes.string_at(0)
        yield from read_shards(shards=[shard], reading=reading)


def stream_until(*, stream: Stream, reading: Reading, deadly: int) -> Iterator[ShardTables]:
    """The shards of a stream, until one begins at `deadly` or later."""
    for found in read_stream(stream=stream, reading=reading):
        if found.shard.first >= deadly:
            ctypes.string_at(0)
        yield found
