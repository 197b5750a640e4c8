"""Inputs far larger than the memory they may take: a row group of millions of rows, a large gzip, gigabytes to be carried.

Few texts are distinct: identical ones are computed once a shard, and these tests are about memory and not about the model.
"""

import gzip
import json
import secrets
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.torch]

MEMORY_BYTES = 4 * 1024**3
"""What the driver, its Ray and the model may take together, shared memory counted once."""
CARRYING_MEMORY_BYTES = 6 * 1024**3
"""The same where gigabytes are carried."""
INPUT_BYTES = 5_000_000_000
INPUT_FILES = 25
DISTINCT = 97
"""Texts that differ."""
ROWS_OF_ONE_GROUP = 2_000_000
GZIP_BYTES = 200_000_000
CARRIED_BYTES = 2_000
REPEATING_ROWS = 1_500


class Memory:
    """The most memory that a process and all its descendants had at a time, looked at every second."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._root = psutil.Process(pid)
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> "Memory":
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            self.peak = max(self.peak, self._now())

    def _now(self) -> int:
        total = 0
        try:
            for process in [self._root, *self._root.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
        except psutil.Error:
            return total
        return total


def annotate(source: Path, output: Path, *, repository: Path, settings: tuple[str, ...] = ()) -> Memory:
    """A job run to its end by the command, on a Ray of its own."""
    command = [sys.executable, "-m", "jobs", "annotate", "--task", "text-classification", "--dtype", "float32"]
    places = ["--model", "jobs/checkpoints/random-tiny", "--input", str(source), "--output", str(output)]
    chosen = [word for setting in settings for word in ("--set", setting)]
    with (
        subprocess.Popen([*command, *places, *chosen], cwd=repository, stdout=subprocess.PIPE, text=True) as process,
        Memory(process.pid) as memory,
    ):
        printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return memory


@pytest.mark.timeout(3_000)
def test_a_row_group_of_two_million_rows_runs_in_four_gigabytes(
    ray_environment: Path, repository: Path, tmp_path: Path
) -> None:
    source = tmp_path / "one-group.parquet"
    texts = pa.array([f"Order {index % DISTINCT}" for index in range(ROWS_OF_ONE_GROUP)])
    pq.write_table(pa.table({"text": texts}), source, row_group_size=ROWS_OF_ONE_GROUP)
    assert pq.read_metadata(source).num_row_groups == 1
    memory = annotate(source, tmp_path / "out", repository=repository, settings=("shards.rows=16384",))
    rows = ds.dataset(tmp_path / "out/data").to_table(columns=["row"])["row"].to_numpy()
    assert len(set(rows.tolist())) == len(rows) == ROWS_OF_ONE_GROUP
    print(f"peak {memory.peak / 1e9:.2f} GB")
    assert memory.peak < MEMORY_BYTES


@pytest.mark.timeout(3_000)
def test_a_gzip_of_two_hundred_megabytes_runs_in_four_gigabytes(
    ray_environment: Path, repository: Path, tmp_path: Path
) -> None:
    source = tmp_path / "rows.jsonl.gz"
    rows = 0
    with gzip.open(source, "wb", compresslevel=1) as stream:
        while rows % 1_000 or source.stat().st_size < GZIP_BYTES:
            carried = secrets.token_hex(CARRIED_BYTES // 2)
            stream.write(
                json.dumps({"id": rows, "text": f"Order {rows % DISTINCT}", "carried": carried}).encode() + b"\n"
            )
            rows += 1
    memory = annotate(source, tmp_path / "out", repository=repository)
    ids = ds.dataset(tmp_path / "out/data").to_table(columns=["id"])["id"].to_numpy()
    assert sorted(ids.tolist()) == list(range(rows))
    print(f"peak {memory.peak / 1e9:.2f} GB")
    assert memory.peak < MEMORY_BYTES


@pytest.mark.timeout(3_000)
def test_five_gigabytes_that_are_mostly_carried_run_in_six(
    ray_environment: Path, repository: Path, tmp_path: Path
) -> None:
    """95 % of the bytes are in a column that nobody reads, and that does not compress."""
    (tmp_path / "in").mkdir()
    generator = np.random.default_rng(5)
    text = "Order a lantern and forty feet of rope. " * 3
    carried = 19 * len(text)
    rows = INPUT_BYTES // INPUT_FILES // (len(text) + carried)
    for number in range(INPUT_FILES):
        values = generator.bytes(rows * carried)
        offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * carried)
        column = pa.BinaryArray.from_buffers(pa.binary(), rows, [None, offsets.buffers()[1], pa.py_buffer(values)])
        texts = pa.array([f"{index % DISTINCT:03d}{text[3:]}" for index in range(rows)])
        table = pa.table({"text": texts, "carried": column})
        pq.write_table(table, tmp_path / f"in/{number:02d}.parquet", compression="none", use_dictionary=False)
    size = sum(file.stat().st_size for file in (tmp_path / "in").iterdir())
    assert size > 0.98 * INPUT_BYTES
    memory = annotate(tmp_path / "in", tmp_path / "out", repository=repository, settings=("shards.bytes=8000000",))
    output = ds.dataset(tmp_path / "out/data")
    assert output.count_rows() == rows * INPUT_FILES
    print(f"{size / 1e9:.2f} GB in, peak {memory.peak / 1e9:.2f} GB")
    assert memory.peak < CARRYING_MEMORY_BYTES


@pytest.mark.timeout(3_000)
def test_a_value_of_a_megabyte_that_every_row_repeats_runs_in_four_gigabytes(
    ray_environment: Path, repository: Path, tmp_path: Path
) -> None:
    """Stored once, in a file of a few kilobytes: the rows take 1.5 GB."""
    long = pa.array(["x" * 1_048_576])
    repeated = pa.DictionaryArray.from_arrays(pa.array(np.zeros(REPEATING_ROWS, np.int32)), long)
    texts = [f"Order {row}" for row in range(REPEATING_ROWS)]
    pq.write_table(pa.table({"text": texts, "body": repeated}), tmp_path / "in.parquet", store_schema=False)
    memory = annotate(tmp_path / "in.parquet", tmp_path / "out", repository=repository)
    found = ds.dataset(tmp_path / "out/data").to_table(columns=["row", "error"])
    assert sorted(found["row"].to_pylist()) == list(range(REPEATING_ROWS))
    assert found["error"].null_count == REPEATING_ROWS
    print(f"peak {memory.peak / 1e9:.2f} GB")
    assert memory.peak < MEMORY_BYTES
