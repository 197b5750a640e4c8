"""Runs a bad input through the product's own `annotate`, with the stages inlined, and returns what it got.

No Ray, and a model of NumPy in a real child process; all the rest, from the spec to the objects, is the product's. The model
misbehaves at texts that begin with one of the words in TRIGGERS.
"""

import ctypes
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from models.boundary import Answers, Ask, Framework, Head, Tokens
from models.checkpoint import Checkpoint
from models.tokenizer import load_tokenizer
from pipeline import run
from pipeline.bundle import pack, unpack
from pipeline.cluster.placement import Placement
from pipeline.errors import PrelnError
from pipeline.flow import Stages, finish_shard, reading_of, replica_order
from pipeline.inference.replica import Replica, ReplicaOrder
from pipeline.output import report as run_report
from pipeline.output.job import FrozenJob
from pipeline.output.report import Report
from pipeline.output.sink import Receipt, job_footer
from pipeline.reading.source import read_bundles, read_tasks
from pipeline.shards import Work
from pipeline.spec.job_spec import JobSpec
from pipeline.spec.settings import override, read_yaml
from tests.pipeline.small import CHECKPOINT, OfflineCluster

LOADER = "tests.pipeline.bad_run:load"
TRIGGERS = {"Segfault": "segfault", "Explode": "raise", "Memory": "memory", "Nothing": "nan", "Zzz": "hang"}
STALL = 120.0
"""More than a busy machine takes to start a process."""
SHORT_STALL = 6.0
"""Where something is to be taken for hung."""
FOLDER = "FOLDER"
"""What the folder of a test is called where its messages are shown."""


class Unwell:
    """Logits that follow from a text's tokens, but for the texts with a trigger."""

    def __init__(self, triggers: Mapping[int, str], labels: int) -> None:
        self._triggers = triggers
        self._labels = labels

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> dict[str, Answers]:
        """Logits [G, L], and start and end logits [G] where a span is asked."""
        first_B = tokens.input_ids_T[tokens.cu_seqlens[:-1] + 1].tolist()
        words = [self._triggers.get(token) for token in first_B]
        if "segfault" in words:
            ctypes.string_at(0)
        if "hang" in words:
            time.sleep(3_600)
        if "raise" in words:
            raise RuntimeError("no kernel for this text")
        if "memory" in words:
            raise MemoryError("out of device memory")
        ((head, ask),) = asks.items()
        ids_G = tokens.input_ids_T[ask.positions_G].astype(np.float32)
        logits_GL = np.tile(ids_G[:, None], (1, self._labels))
        owner_G = np.searchsorted(tokens.cu_seqlens, ask.positions_G, side="right") - 1
        logits_GL[[words[owner] == "nan" for owner in owner_G]] = np.nan
        if head == "question-answering":
            return {head: {"start_logits": ids_G, "end_logits": ids_G}}
        return {head: {"logits": logits_GL}}


def load(*, checkpoint: str, framework: Framework, heads: tuple[Head, ...], dtype: str, device: str) -> Unwell:
    """The model of a checkpoint's tokenizer and labels."""
    backend = load_tokenizer(checkpoint).backend
    triggers = {backend.encode(word, add_special_tokens=False).ids[0]: what for word, what in TRIGGERS.items()}
    assert len(triggers) == len(TRIGGERS), "triggers must begin with tokens of their own"
    return Unwell(triggers, Checkpoint.open(checkpoint).config.num_labels)


@dataclass(frozen=True)
class Got:
    """What a bad thing got. verdict: refused, row error, file failed, or nothing. reasons and messages: as they were told."""

    verdict: str
    reasons: tuple[str, ...]
    messages: tuple[str, ...]
    rows: int = 0
    good_rows: int = 0


class Kept:
    """A watcher that looks away."""

    def planned(self, *_: object) -> None:
        """The plan stands."""

    def committed(self, receipt: Receipt) -> None:
        """A shard is done."""


def job_values(folder: Path) -> dict[str, Any]:
    """The good job that bad ones differ from."""
    return {
        "input": str(folder / "in"),
        "model": {"checkpoint": CHECKPOINT, "dtype": "float32"},
        "task": {"name": "text-classification"},
        "output": str(folder / "out"),
        "resources": {"gpus": 0},
        "limits": {"stall": STALL, "error_rows": 1_000},
    }


def attempt(folder: Path, *, yaml: str | None, settings: Sequence[tuple[str, Any]]) -> Got:
    """Run the good job with these settings, or the YAML."""
    (folder / "in").mkdir(exist_ok=True)
    try:
        values = job_values(folder) if yaml is None else read_yaml(yaml)
        report = annotate(JobSpec.parse(override(values=values, flags=settings)))
    except PrelnError as error:
        return Got("refused", (type(error).__name__,), (shown(str(error), folder),))
    rows = (
        ds.dataset(folder / "out/data").to_table().to_pylist() if any((folder / "out/data").glob("*.parquet")) else []
    )
    errors = [row["error"] for row in rows if row["error"]]
    good = len(rows) - len(errors)
    if report.failures:
        reasons = tuple(dict.fromkeys(receipt.reason or "" for receipt in report.tally.failed))
        return Got("file failed", reasons, tuple(shown(text, folder) for text in report.failures), len(rows), good)
    if errors:
        messages = tuple(dict.fromkeys(shown(error["message"], folder) for error in errors))
        return Got("row error", tuple(dict.fromkeys(error["reason"] for error in errors)), messages, len(rows), good)
    return Got("nothing", (), (), len(rows), good)


def annotate(spec: JobSpec, *, loader: str = LOADER) -> Report:
    """`run.annotate` with the stages one after the other in this process. loader: of the model, in a process of its own."""
    with patch.object(run, "annotate_shards", through_a_replica), patch.object(run_report, "package_versions", dict):
        return run.annotate(spec=spec, cluster=OfflineCluster(), watcher=Kept(), loader=loader)


def through_a_replica(
    *, job: FrozenJob, work: Sequence[Work], placement: Placement, loader: str, **_: Any
) -> Iterator[Receipt]:
    """`annotate_shards` with a real replica's object and its child, but without Ray."""
    order = replica_order(job=job, placement=placement, loader=loader)
    stages = Stages(spec=job.spec, schema=job.schema, footer=job_footer(job))
    reading = reading_of(job)
    answer = _replica(order)
    for task in read_tasks(work=work, rule=job.cut):
        for bundle in read_bundles(task=task, reading=reading):
            answered = unpack(answer(stages.encode(pack(bundle))))
            yield from (finish_shard(shard, stages=stages) for shard in answered)


KEPT: dict[str, Replica] = {}


def _replica(order: ReplicaOrder) -> Replica:
    """The replica of an order; its process is kept for the next bad thing, and ends with this one."""
    if repr(order) not in KEPT:
        for old in list(KEPT)[:-1]:
            KEPT.pop(old).close()
        KEPT[repr(order)] = Replica(order)
    return KEPT[repr(order)]


def shown(message: str, folder: Path) -> str:
    """A message without what is another one's machine."""
    repository = str(Path(__file__).resolve().parents[2])
    message = re.sub(r"\.py:\d+", ".py", message)
    return message.replace(f"file://{folder}", FOLDER).replace(str(folder), FOLDER).replace(repository, "REPOSITORY")


def parquet(path: Path, columns: Mapping[str, object], **options: Any) -> None:
    """A Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path, **options)


def config_of(folder: Path, **changes: object) -> str:
    """A copy of the embedded checkpoint whose config.json differs; its path."""
    target = folder / "checkpoint"
    target.mkdir()
    for file in Path(CHECKPOINT).iterdir():
        if file.name != "config.json":
            os.link(file, target / file.name) if file.stat().st_dev == target.stat().st_dev else (
                target / file.name
            ).write_bytes(file.read_bytes())
    values = json.loads((Path(CHECKPOINT) / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**values, **changes}))
    return str(target)
