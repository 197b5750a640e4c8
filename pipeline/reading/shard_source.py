"""The missing shards of a job in, a Ray Datasource out whose every row is a bundle of whole shards."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.context import DataContext
from ray.data.datasource import Datasource, ReadTask

from pipeline.bundle import pack
from pipeline.cluster.ray_state import task_attempts
from pipeline.isolation import each_in_time, isolated_after_deaths
from pipeline.reading.source import Reading, read_bundles, read_tasks
from pipeline.shards import Shard, Work


class ShardSource(Datasource):
    """The missing shards of a job as a Ray Datasource."""

    def __init__(self, *, work: Sequence[Work], reading: Reading) -> None:
        super().__init__()
        self._tasks = list(read_tasks(work=work, rule=reading.rule))
        self._reading = reading

    def get_name(self) -> str:
        """The stage's name in Ray's own progress and dashboard."""
        return "Shards"

    def estimate_inmemory_data_size(self) -> int | None:
        """The approximate size of the input in bytes."""
        return sum(_size(item) for task in self._tasks for item in task)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One task for each run of bundles. Ray's `parallelism` is ignored: the shards' cut decides."""
        return [_read_task(task, self._reading) for task in self._tasks]


def _read_task(task: Sequence[Work], reading: Reading) -> ReadTask:
    def read() -> Iterator[pa.Table]:
        source = next(item.file.uri for item in task)
        with isolated_after_deaths(task_attempts(), stall=reading.stall, what="reading", source=source) as child:
            bundles = read_bundles(task=task, reading=reading, child=child)
            for bundle in each_in_time(bundles, seconds=reading.stall if child is None else None):
                yield pack(bundle)

    size = sum(_size(item) for item in task)
    return ReadTask(read, BlockMetadata(num_rows=None, size_bytes=size, exec_stats=None, input_files=None))


def _size(item: Work) -> int:
    return item.size if isinstance(item, Shard) else item.file.size
