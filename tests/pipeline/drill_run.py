"""The product's own `run.annotate` over any store, with the stages inlined: no Ray, no model.

Planning, reading, writing, settling and closing are the product's; the answer to a text is made up and follows from it.
Texts with BAD in them are errors until the model is repaired.
"""

import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
from tenacity import wait_none

from pipeline import run
from pipeline.bundle import ShardTables
from pipeline.output import report as run_report
from pipeline.output.folder import OutputFolder
from pipeline.output.job import FORMAT_KEY, FrozenJob, fingerprint_of, refuse_another
from pipeline.output.plan import Plan
from pipeline.output.report import Report
from pipeline.output.sink import Receipt, write_shard
from pipeline.reading import source
from pipeline.reading.source import Reading, read_bundles, read_tasks
from pipeline.rows import error_array
from pipeline.run_options import DEFAULT_OPTIONS, RunOptions
from pipeline.shards import CutRule, Work
from pipeline.store import storage
from pipeline.store.storage import FileInfo, canonical, join, put
from tests.pipeline.small import OfflineCluster, frozen_job, spec

BAD = "bad"
CUT = CutRule(rows=3, bytes=45)
SCHEMA = pa.schema([("text", pa.string())])


class Nobody:
    """A watcher that looks away."""

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """The plan stands."""

    def committed(self, receipt: Receipt) -> None:
        """A shard is done."""


class OneThread:
    """A pool of no threads."""

    def __init__(self, _count: int) -> None:
        self.map = map

    def __enter__(self) -> "OneThread":
        return self

    def __exit__(self, *_: object) -> None:
        return


@dataclass
class Drill:
    """One dataset: inputs under root/in, rows under root/out.

    repaired: whether the model answers texts with BAD in them. texts: what each version of each file holds, by (URL, version).
    sources: how the input is addressed, below the root. format: `input.format`. decoded_bytes: what the rows of a shard may take.
    rule: how files are cut into shards. cut_again: how many shards took more memory, and were cut in parts.
    """

    root: str
    repaired: bool = False
    sources: tuple[str, ...] = ("in",)
    format: str = "auto"
    decoded_bytes: int = source.DECODED_BYTES
    rule: CutRule = CUT
    cut_again: int = 0
    texts: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    @property
    def job(self) -> FrozenJob:
        """The job, as a new folder would have it."""
        given = spec(
            source={"urls": [join(canonical(self.root), one) for one in self.sources], "format": self.format},
            output=join(canonical(self.root), "out"),
            limits={"error_rows": 1_000_000},
        )
        identity = {"task.name": given.task_name, **({} if self.format == "auto" else {FORMAT_KEY: self.format})}
        return frozen_job(job=given, schema=SCHEMA, cut=self.rule, fingerprint=fingerprint_of(identity))

    @property
    def output(self) -> str:
        """The output folder."""
        return join(canonical(self.root), "out")

    def put_file(self, name: str, texts: Sequence[str]) -> None:
        """A new input file, or a new version of one, in the format of its suffix."""
        url = join(canonical(self.root), "in", name)
        put(url, content_of(name, texts))
        file = storage.info(url)
        self.texts[file.uri, file.version] = list(texts)

    def files(self) -> list[FileInfo]:
        """The input files there are."""
        return storage.find(join(canonical(self.root), "in"))

    def delete_file(self, name: str) -> None:
        """An input file goes."""
        storage.delete([join(canonical(self.root), "in", name)])

    def annotate(self, options: RunOptions = DEFAULT_OPTIONS) -> Report:
        """`preln annotate`, whatever the store does meanwhile."""
        with ExitStack() as stack:
            stack.enter_context(patch.object(run, "open_job", lambda *, spec, cluster: (self._opened(), [])))
            stack.enter_context(patch.object(run, "annotate_shards", self._inline))
            stack.enter_context(patch.object(source, "DECODED_BYTES", self.decoded_bytes))
            stack.enter_context(patch.object(source, "DECODED_TO_CUT", 0))
            # No threads: the number of a step says what it is, every time.
            for module in ("pipeline.output.folder", "pipeline.reading.inputs"):
                stack.enter_context(patch(f"{module}.ThreadPoolExecutor", OneThread))
            stack.enter_context(patch.object(run_report, "package_versions", dict))
            stack.enter_context(patch.object(storage, "wait_exponential_jitter", lambda **_: wait_none()))
            return run.annotate(spec=self.job.spec, cluster=OfflineCluster(), watcher=Nobody(), options=options)

    def _opened(self) -> FrozenJob:
        """The folder's job with this command's spec, or a new one, as `open_job` finds it."""
        known, job = OutputFolder(self.output).read_job(), self.job
        if known is None:
            return job
        refuse_another(frozen=known, identity=job.identity, output=self.output)
        return replace(known, spec=job.spec)

    def _inline(self, *, job: FrozenJob, work: Sequence[Work], **_: Any) -> Iterator[Receipt]:
        reading = Reading(
            schema=job.schema, required=("text",), rule=job.cut, fingerprint=job.fingerprint, line_bytes=1_000_000
        )
        for task in read_tasks(work=work, rule=job.cut):
            for bundle in read_bundles(task=task, reading=reading):
                for shard in bundle:
                    yield self._finish(shard, fingerprint=job.fingerprint)

    def _finish(self, shard: ShardTables, *, fingerprint: str) -> Receipt:
        if shard.failure is not None:
            reason, message = shard.failure
            self.cut_again += bool(shard.cuts)
            return Receipt(shard=shard.shard, state="failed", reason=reason, message=message, cuts=shard.cuts)
        assert shard.rows is not None
        table = answered(shard.rows, source=shard.shard.file.uri, repaired=self.repaired)
        footer = {"fingerprint": fingerprint}
        return write_shard(shard, table, data=OutputFolder(self.output).data, prefix="", footer=footer)

    def rows(self) -> list[tuple[str, str, str | None]]:
        """(source, text, label) of every row under data/, as a reader of the folder finds them, file by file in order."""
        found: list[tuple[str, int, str, str | None]] = []
        data = OutputFolder(self.output).data
        for name in (name for name in data.names() if not name.startswith(".")):
            table = pq.read_table(io.BytesIO(data.read(name)), use_threads=False)
            found += [(row["source"], row["row"], row["text"], row["label"]) for row in table.to_pylist()]
        return [(source, text, label) for source, _, text, label in sorted(found, key=lambda row: row[:2])]

    def wanted_rows(self, files: Mapping[str, str]) -> list[tuple[str, str, str | None]]:
        """The same as it should be, given the version of every file."""
        return [
            (uri, text, label_of(text, repaired=self.repaired))
            for uri in sorted(files)
            for text in self.texts[uri, files[uri]]
        ]


def answered(rows: pa.Table, *, source: str, repaired: bool) -> pa.Table:
    """Rows as the last stage writes them."""
    texts: list[str | None] = rows["text"].to_pylist()
    labels = [None if text is None else label_of(text, repaired=repaired) for text in texts]
    errors = error_array([None if label else ("nan", "made up") for label in labels])
    count = len(texts)
    return pa.table(
        {
            "text": pa.array(texts, pa.string()),
            "source": pa.array([source] * count, pa.string()),
            "row": rows["__row__"],
            "label": pa.array(labels, pa.string()),
            "truncated": pa.array([False] * count, pa.bool_()),
            "error": errors,
        }
    )


def label_of(text: str, *, repaired: bool) -> str | None:
    """The answer to a text; none to a bad one."""
    return None if BAD in text and not repaired else f"label of {text}"


def content_of(name: str, texts: Sequence[str]) -> bytes:
    """A file's bytes, in the format of its suffix."""
    if name.endswith(".parquet"):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), sink, row_group_size=4)
        return sink.getvalue().to_pybytes()
    if name.endswith(".jsonl"):
        return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    content = "".join(f"{text}\n" for text in texts).encode()
    return gzip.compress(content, mtime=0) if name.endswith(".gz") else content
