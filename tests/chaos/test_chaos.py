"""A job whose connections break and whose processes are killed has the same output as an undisturbed run.

The short run is part of `make test`; `make chaos` goes on for ten minutes, on SeaweedFS, one output folder after another. Both
add what they hit to a tally (`tests.chaos.tally`).
PRELN_CHAOS_SECONDS and PRELN_CHAOS_SEED choose another length and another story.
"""

import gzip
import io
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from pipeline.output.folder import OutputFolder
from pipeline.output.verify import verify
from pipeline.spec.job_spec import InputSpec, JobSpec
from pipeline.store.storage import join, put
from tests.chaos import tally
from tests.chaos.mayhem import Mayhem, ray_nodes
from tests.chaos.proxy import Proxy, proxy
from tests.chaos.servers import KEYS, moto_server, seaweedfs
from tests.pipeline.small import CHECKPOINT

FLOAT32_SCORES = 1e-6
"""How far a score may be from that of the quiet run: the same sums, in another batch."""
SEED = int(os.environ.get("PRELN_CHAOS_SEED", "20261"))
QUIET_SECONDS = 400.0
"""What the run without chaos may take, on a machine however busy."""
TWO_DRIVERS_EVERY = 10
"""One run in so many has two drivers at once."""
LONG_SECONDS = float(os.environ.get("PRELN_CHAOS_SECONDS", "600"))

pytestmark = [pytest.mark.ray, pytest.mark.storage]


@dataclass(frozen=True)
class Story:
    """How much there is to annotate, and how slowly: nap is seconds a pass of the model."""

    files: int
    rows: int
    nap: float


@contextmanager
def store_behind_a_proxy(server: str, folder: Path) -> Iterator[Proxy]:
    """A store whose address, for everybody who is started from here, is the proxy's."""
    serve = seaweedfs if server == "seaweedfs" else moto_server
    with serve(folder) as address, proxy(address, seed=SEED) as between, pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", between.url)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("s3://chaos")
        yield between
        s3fs.S3FileSystem.clear_instance_cache()


def lay_out(url: str, story: Story) -> int:
    """Texts in four formats; how many rows there are."""
    generator = random.Random(SEED)
    words = ["storm", "calm", "wave", "harbour", "lantern", "rope", "anchor", "tide", "gull", "mast", "keel"]
    count = 0
    for number in range(story.files):
        texts = [
            f"{number}-{row} " + " ".join(generator.choices(words, k=generator.randint(1, 30)))
            for row in range(story.rows)
        ]
        name, content = file_of(number, texts)
        put(join(url, name), content)
        count += len(texts)
    return count


def file_of(number: int, texts: list[str]) -> tuple[str, bytes]:
    """A file's name and bytes, in one of four formats; an empty text now and then."""
    texts[number % len(texts)] = ""
    ids = list(range(len(texts)))
    if number % 4 == 0:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"text": texts, "id": ids}), sink, row_group_size=50)
        return f"{number:03d}.parquet", bytes(sink.getvalue().to_pybytes())
    if number % 4 == 1:
        return f"{number:03d}.txt", "".join(f"{text}\n" for text in texts).encode()
    lines = "".join(json.dumps({"id": row, "text": text}) + "\n" for row, text in zip(ids, texts, strict=True)).encode()
    return (f"{number:03d}.jsonl", lines) if number % 4 == 2 else (f"{number:03d}.jsonl.gz", gzip.compress(lines))


def job_to(output: str, checkpoint: Path) -> JobSpec:
    """The job, into a folder."""
    return JobSpec.parse(
        {
            "input": "s3://chaos/in",
            "model": {"checkpoint": str(checkpoint), "dtype": "float32"},
            "task": {"name": "text-classification", "top_k": "all"},
            "output": output,
            "shards": {"rows": 24, "bytes": 2_500},
            "resources": {"wait": 60, "gpus": 0, "batch_tokens": 400},
            "limits": {"stall": 20},
        }
    )


def napping_checkpoint(folder: Path, nap: float) -> Path:
    """The embedded checkpoint's tokenizer, for a model that takes its time."""
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    for file in Path(CHECKPOINT).iterdir():
        (checkpoint / file.name).symlink_to(file)
    (checkpoint / "nap").write_text(str(nap))
    return checkpoint


@dataclass(frozen=True)
class Rows:
    """Rows under data/. by_place: what each (source, row) says. doubled: how many are there more than once."""

    by_place: dict[tuple[str, int], dict[str, Any]]
    doubled: int

    @classmethod
    def of(cls, output: str) -> "Rows":
        """As a reader of the folder finds them."""
        data = OutputFolder(output).data
        tables = [pq.read_table(io.BytesIO(data.read(name))) for name in data.names()]
        found = [row for table in tables for row in table.to_pylist()]
        by_place = {(row["source"], row["row"]): row for row in found}
        return cls(by_place, doubled=len(found) - len(by_place))

    def unlike(self, other: "Rows") -> int:
        """Rows that are in both and do not say the same."""
        return sum(
            not alike(self.by_place[place], other.by_place[place]) for place in self.by_place & other.by_place.keys()
        )


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """The same text, label and error, and scores within the tolerance."""
    pairs = zip(scores_of(one), scores_of(other), strict=True)
    rest = [{name: value for name, value in row.items() if name not in ("score", "scores")} for row in (one, other)]
    return rest[0] == rest[1] and all(abs(a - b) <= FLOAT32_SCORES for a, b in pairs)


def scores_of(row: dict[str, Any]) -> list[float]:
    """All scores of a row by label; none where it has an error."""
    return [each["score"] for each in sorted(row["scores"] or [], key=lambda each: str(each["label"]))]


def through_chaos(
    server: str, folder: Path, *, story: Story, seconds: float, pause: float, share: float
) -> dict[str, int]:
    """A quiet run, then runs in chaos until the time is up, each compared with it; the sums of what happened."""
    checkpoint = napping_checkpoint(folder, story.nap)
    sums: Counter[str] = Counter()
    with store_behind_a_proxy(server, folder) as between:
        rows = lay_out("s3://chaos/in", story)
        with ray_nodes(workers=2, cpus=2) as cluster:
            quiet = Mayhem(cluster, seed=0, pause=1e9, cpus=2)
            quiet.annotate(
                job_to("s3://chaos/quiet", checkpoint), folder, deadline=time.monotonic() + QUIET_SECONDS, kill_until=0
            )
            wanted = Rows.of("s3://chaos/quiet")
            assert (len(wanted.by_place), wanted.doubled) == (rows, 0)
            until, number = time.monotonic() + seconds, 0
            while number == 0 or time.monotonic() < until:
                number += 1
                output = f"s3://chaos/out-{number}"
                drivers = 2 if number % TWO_DRIVERS_EVERY == 1 else 1
                mayhem = Mayhem(cluster, seed=SEED + number, pause=pause, cpus=2, drivers=drivers)
                requests, faults = between.requests, between.faults.copy()
                between.share = share
                began = time.monotonic()
                try:
                    mayhem.annotate(job_to(output, checkpoint), folder, deadline=until + 180, kill_until=until)
                finally:
                    between.share = 0.0
                    met = between.faults - faults
                    print(
                        f"\nseed {SEED + number}: {mayhem.report()}; {met.total()} faults ({dict(met)}) in "
                        f"{between.requests - requests} requests; {time.monotonic() - began:.0f} s"
                    )
                # A file that seemed to change, or a shard that failed, is for the next run: one without faults completes it.
                calm = Mayhem(cluster, seed=SEED - number, pause=1e9, cpus=2)
                calm.annotate(
                    job_to(output, checkpoint), folder, deadline=time.monotonic() + QUIET_SECONDS, kill_until=0
                )
                got = Rows.of(output)
                lost = len(wanted.by_place.keys() - got.by_place)
                unlike = wanted.unlike(got) + len(got.by_place.keys() - wanted.by_place)
                verdict = verify(output, input_spec=InputSpec(urls=["s3://chaos/in"]))
                print(
                    f"  {len(got.by_place)} rows: {lost} lost, {got.doubled} doubled, {unlike} unlike the quiet run's"
                )
                hit = {**mayhem.kills, **{f"fault {name}": count for name, count in met.items()}, "runs": 1}
                hit |= {"runs of two drivers": int(drivers == 2), "rows": len(got.by_place), "lost": lost}
                hit |= {"doubled": got.doubled, "different": unlike, "hangs": mayhem.hangs + calm.hangs}
                added = tally.add(hit)
                assert not mayhem.hangs + calm.hangs, "".join((mayhem.words + calm.words)[-200:])
                assert (lost, got.doubled, unlike) == (0, 0, 0)
                assert verdict.holds, verdict.findings
                sums.update(
                    kills=mayhem.kills.total(),
                    faults=met.total(),
                    drivers=mayhem.starts,
                    rows=len(got.by_place),
                    runs=1,
                )
    print(f"\nchaos on {server}: {dict(sums)}, 0 lost, 0 doubled; added up:\n{tally.table(added)}")
    return dict(sums)


@pytest.mark.timeout(400)
def test_a_short_storm_loses_and_doubles_nothing(ray_environment: Path, tmp_path: Path) -> None:
    story = Story(files=8, rows=40, nap=0.05)
    sums = through_chaos("moto", tmp_path, story=story, seconds=12, pause=1.2, share=0.08)
    assert sums["kills"] >= 2
    assert sums["faults"] >= 3


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_long_storm_on_a_real_server_loses_and_doubles_nothing(ray_environment: Path, tmp_path: Path) -> None:
    story = Story(files=24, rows=200, nap=0.08)
    sums = through_chaos("seaweedfs", tmp_path, story=story, seconds=LONG_SECONDS, pause=2.5, share=0.12)
    assert sums["kills"] >= LONG_SECONDS / 6
    assert sums["faults"] >= LONG_SECONDS * 5 / 6
