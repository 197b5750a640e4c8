"""Rounds of a storm: a job runs while its store or its processes fail, and its output is compared with an undisturbed run's.

The undisturbed run, and the one without faults that completes each round, need no Ray (`tests.chaos.here`).
"""

import gzip
import io
import json
import os
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
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
from tests.chaos.here import THREADS, annotate_here, runs_here
from tests.chaos.mayhem import STOPPED_FOR_GOOD, Drivers, Mayhem
from tests.chaos.proxy import Proxy, proxy
from tests.chaos.servers import KEYS, moto_server, seaweedfs
from tests.chaos.victims import ray_nodes
from tests.pipeline.small import CHECKPOINT

FLOAT32_SCORES = 1e-6
"""How far a score may be from that of the quiet run: the same sums, in another batch."""
TWO_DRIVERS_EVERY = 8
"""One job in so many has two drivers at once, by the seed."""
ENDED_WELL = ("done", "failed-shards")
PART_BYTES = 2_000
"""Objects of twice the size are stored in parts on moto; 50 MB, which is usual, would take too long, and SeaweedFS refuses less
than 5."""
INPUT = "s3://chaos/in"


@dataclass(frozen=True)
class Story:
    """How much there is to annotate, and how slowly.

    nap: seconds a pass of the model. stall: after which a model's process counts as hung, and stopped workers are looked for.
    """

    files: int
    rows: int
    nap: float
    stall: float


@contextmanager
def store_behind_a_proxy(server: str, folder: Path, *, seed: int) -> Iterator[Proxy]:
    """A store whose address, for everybody who is started from here, is the proxy's."""
    serve = seaweedfs if server == "seaweedfs" else moto_server
    environment = {
        **KEYS,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "S3_UPLOAD_PART_MIN_SIZE": "1",  # moto's
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with serve(folder) as address, proxy(address, seed=seed) as between:
            patch.setenv("AWS_ENDPOINT_URL", between.url)
            s3fs.S3FileSystem.clear_instance_cache()
            s3fs.S3FileSystem(skip_instance_cache=True).mkdir("s3://chaos")
            yield between
            s3fs.S3FileSystem.clear_instance_cache()


def lay_out(url: str, story: Story, *, seed: int) -> int:
    """Texts in four formats; how many rows there are."""
    generator = random.Random(seed)
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


def job_to(output: str, checkpoint: Path, *, stall: float) -> JobSpec:
    """The job, into a folder."""
    return JobSpec.parse(
        {
            "input": "s3://chaos/in",
            "model": {"checkpoint": str(checkpoint), "dtype": "float32"},
            "task": {"name": "text-classification", "top_k": "all"},
            "output": output,
            "shards": {"rows": 24, "bytes": 2_500},
            "resources": {"wait": 60, "gpus": 0, "batch_tokens": 400},
            "limits": {"stall": stall},
        }
    )


def napping_checkpoint(folder: Path) -> Path:
    """The embedded checkpoint's tokenizer, for a model that takes its time."""
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    for file in Path(CHECKPOINT).iterdir():
        (checkpoint / file.name).symlink_to(file)
    nap_of(checkpoint, 0.0)
    return checkpoint


def nap_of(checkpoint: Path, seconds: float) -> None:
    """Let every model that is loaded from now on take so long for a pass."""
    (checkpoint / "nap").write_text(str(seconds))


@dataclass(frozen=True)
class Rows:
    """Rows under data/. by_place: what each (source, row) says. doubled: how many are there more than once."""

    by_place: dict[tuple[str, int], dict[str, Any]]
    doubled: int

    @classmethod
    def of(cls, output: str) -> "Rows":
        """As a reader of the folder finds them."""
        data = OutputFolder(output).data
        with ThreadPoolExecutor(THREADS) as threads:
            contents = list(threads.map(data.read, data.names()))
        tables = [pq.read_table(io.BytesIO(content)) for content in contents]
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


@dataclass
class Storm:
    """A store behind a proxy, a job over its files, and what an undisturbed run of it gives.

    seed: of the texts, the faults and the hits. counted: whether the tally gets its rounds. in_parts: whether the store takes
    small objects in parts. number: of rounds so far.
    """

    between: Proxy
    checkpoint: Path
    folder: Path
    seed: int
    story: Story
    wanted: Rows
    counted: bool = True
    in_parts: bool = False
    number: int = 0
    sums: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def round(self, *, kind: str, share: float, drivers: Sequence[int]) -> Iterator["Round"]:
        """Faults come while it lasts; then each job is completed without any, and the output compared. Raises AssertionError.

        drivers: how many each job has, one folder a job.
        """
        self.number += 1
        outputs = [f"s3://chaos/{kind}-{self.number}-{index}" for index, _ in enumerate(drivers)]
        one = Round(
            [job_to(output, self.checkpoint, stall=self.story.stall) for output in outputs], self.seed + self.number
        )
        requests, faults, began = self.between.requests, self.between.faults.copy(), time.monotonic()
        about = {"seed": one.seed, "round": kind, "command": " ".join(sys.argv), "machine": machine()}
        ended = False
        try:
            self.between.share = share
            try:
                yield one
            finally:
                self.between.share = 0.0
            with ThreadPoolExecutor(len(one.specs)) as pool:
                for counts in pool.map(self._judged, one.specs):
                    one.counts.update(counts)
            ended = True
        finally:
            met = self.between.faults - faults
            one.counts += Counter({f"fault {name}": count for name, count in met.items()})
            one.counts += Counter(
                {
                    "folders": len(drivers),
                    "folders of two drivers": sum(count == 2 for count in drivers),
                    "requests": self.between.requests - requests,
                }
            )
            seconds = round(time.monotonic() - began)
            if self.counted:
                tally.add(one.counts, ended=ended, seconds=seconds, **about)
            print(f"\n{kind} {one.seed}: {dict(one.counts)}; {seconds} s; {' '.join(one.words[-5:])}", flush=True)
        self.sums += one.counts
        broken = {name: one.counts[name] for name in ("lost", "doubled", "different", "hangs") if one.counts[name]}
        assert not broken, f"{broken}: seed {one.seed}, {outputs}"

    def _judged(self, spec: JobSpec) -> dict[str, int]:
        output = spec.output.url
        # A file that seemed to change, or a shard that failed, is for the next run: one without faults completes it.
        state = annotate_here(spec)
        assert state == "done", f"the run without faults after the storm: {state}"
        got = Rows.of(output)
        verdict = verify(output, input_spec=InputSpec(urls=[INPUT]))
        assert verdict.holds, verdict.findings
        return {
            "rows": len(got.by_place),
            "lost": len(self.wanted.by_place.keys() - got.by_place),
            "doubled": got.doubled,
            "different": self.wanted.unlike(got) + len(got.by_place.keys() - self.wanted.by_place),
        }

    def of_the_store(self, *, rounds_until: float, share: float, folders: int) -> None:
        """Rounds in this process, in which the store alone fails: several jobs at once, a tenth of them with two drivers."""
        drivers = [2 if index % TWO_DRIVERS_EVERY == 0 else 1 for index in range(folders)]
        with objects_in_parts() if self.in_parts else nullcontext():
            while time.monotonic() < rounds_until:
                with self.round(kind="store", share=share, drivers=drivers) as one:
                    specs = [spec for spec, count in zip(one.specs, drivers, strict=True) for _ in range(count)]
                    with ThreadPoolExecutor(len(specs)) as pool:
                        one.counts["drivers"] += sum(pool.map(until_it_ends_well, specs))

    def of_processes(
        self,
        *,
        seconds: float,
        share: float,
        pause: float,
        workers: int,
        cpus: int,
        script: Sequence[str] = (),
        most: int | None = None,
        stopped_for_good: float = STOPPED_FOR_GOOD,
    ) -> None:
        """Rounds on a Ray of several nodes, in which processes are hit and the store fails too: at least one, `most` at most.

        seconds: of hits, from the first committed shard on in the first round; later rounds begin until as long after the nodes
        are up.
        """
        done = 0
        with ray_nodes(workers=workers, cpus=cpus) as cluster, Drivers(cluster, self.folder) as starter:
            rounds_until = time.monotonic() + seconds
            while done == 0 or (done != most and time.monotonic() < rounds_until):
                two = most is None and (self.seed + done) % TWO_DRIVERS_EVERY == 0
                drivers, done = 1 + two, done + 1
                with self.round(kind="process", share=share, drivers=[drivers]) as one:
                    before = tally.sums(tally.rounds())
                    mayhem = Mayhem(
                        cluster,
                        starter,
                        one.seed,
                        pause,
                        cpus=cpus,
                        drivers=drivers,
                        before=before,
                        script=script,
                        stopped_for_good=stopped_for_good,
                    )
                    nap_of(self.checkpoint, self.story.nap)
                    try:
                        mayhem.annotate(
                            one.specs[0],
                            self.folder,
                            hit_seconds=seconds if done == 1 else max(rounds_until - time.monotonic(), 0.0),
                            end_seconds=END_SECONDS,
                        )
                    finally:
                        nap_of(self.checkpoint, 0.0)
                        one.words = [mayhem.report(), *mayhem.words]
                        one.counts += mayhem.hits
                        one.counts += Counter({"drivers": mayhem.starts, "hangs": mayhem.hangs})


END_SECONDS = 600.0
"""What a round may take before its first hit, and after its last."""


@dataclass
class Round:
    """The storm of one or several jobs. counts: what was hit, and what came of it. words: of drivers."""

    specs: list[JobSpec]
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)


def until_it_ends_well(spec: JobSpec) -> int:
    """Run a job here again and again, as somebody does whose run failed; how many runs it took. Raises AssertionError."""
    ends: Counter[str] = Counter()
    for number in range(1, 30):
        state = annotate_here(spec)
        if state in ENDED_WELL:
            return number
        ends[state] += 1
    raise AssertionError(f"{spec.output.url}: 29 runs have failed: {ends.most_common(12)}")


@contextmanager
def objects_in_parts() -> Iterator[None]:
    """Inside, S3 objects of a few kilobytes are stored in parts."""
    usual = s3fs.S3FileSystem._pipe_file

    async def in_parts(self: s3fs.S3FileSystem, path: str, data: bytes, **options: Any) -> Any:
        return await usual(self, path, data, chunksize=PART_BYTES, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_pipe_file", in_parts)
        s3fs.S3FileSystem.clear_instance_cache()  # its methods are wrapped once
        yield
        s3fs.S3FileSystem.clear_instance_cache()


def machine() -> str:
    """This machine, in a few words."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"


@contextmanager
def storm(server: str, folder: Path, *, story: Story, seed: int, counted: bool = True) -> Iterator[Storm]:
    """A storm that has not begun."""
    checkpoint = napping_checkpoint(folder)
    with store_behind_a_proxy(server, folder, seed=seed) as between, runs_here():
        rows = lay_out(INPUT, story, seed=seed)
        assert annotate_here(job_to("s3://chaos/quiet", checkpoint, stall=story.stall)) == "done"
        wanted = Rows.of("s3://chaos/quiet")
        assert (len(wanted.by_place), wanted.doubled) == (rows, 0)
        yield Storm(between, checkpoint, folder, seed, story, wanted, counted=counted, in_parts=server == "moto")
