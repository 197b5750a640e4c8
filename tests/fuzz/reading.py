"""Reads a damaged folder as the product does, up to where a model would be asked.

An input: listed, its schema resolved, cut, read, tokenized, and its carried columns written. A checkpoint: opened, checked,
hashed, converted, and its tokenizer used. A job file: parsed.
"""

import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.checkpoint import Checkpoint
from models.embedder_folder import read_embedder
from models.origin import open_origin
from models.tokenizer import load_tokenizer
from pipeline.encode import encode_tasks
from pipeline.errors import PrelnError
from pipeline.inference.questions import facts_of
from pipeline.output.columns import carried_columns
from pipeline.output.folder import OutputFolder
from pipeline.output.plan import cut, missing_work
from pipeline.output.sink import write_shard
from pipeline.prepare import absolute, check_columns, schema_of, wanted_columns
from pipeline.reading.inputs import describe, list_files
from pipeline.reading.source import Reading, read_bundles, read_tasks
from pipeline.shards import CutRule
from pipeline.spec.job_spec import JobSpec
from tests.fuzz.seeds import Kind
from tests.pipeline.small import FINGERPRINT, frozen_job, spec

CUT = CutRule(rows=8, bytes=600)
LONGEST_MESSAGE = 3_000
"""Characters of an error: more than anyone reads is a value that is quoted whole."""


def read(kind: Kind, folder: Path) -> str:
    """What came of a damaged folder: "read", "rows with errors", "failed files" or "refused".

    Raises whatever else the product raises, and ValueError for an error that can't be shown on a terminal.
    """
    try:
        return READERS[kind](folder)
    except PrelnError as error:
        check_message(str(error))
        return "refused"


def check_message(message: str) -> None:
    """Raise ValueError unless a message is one line of characters that a terminal shows and does not obey."""
    wrong = next((one for one in message if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")), None)
    if wrong is not None:
        raise ValueError(f"the message holds {wrong!r}: {message[:500]!r}")
    if len(message) > LONGEST_MESSAGE:
        raise ValueError(f"the message has {len(message)} characters: {message[:200]!r}")


def read_input(folder: Path) -> str:
    """Every row of a folder of input files, as far as it can be read."""
    job_spec = absolute(spec(source=str(folder / "in"), output=str(folder / "out"), limits={"line_bytes": 20_000}))
    facts = facts_of(job_spec)
    described = describe(list_files(job_spec.input, output=job_spec.output.url).files)
    columns = wanted_columns(job_spec)
    schema = schema_of(described, spec=job_spec, columns=columns)
    check_columns(schema=schema, spec=job_spec, facts=facts)
    job = frozen_job(job=job_spec, schema=schema, cut=CUT)
    reading = Reading(
        schema=schema,
        required=("text",),
        rule=CUT,
        fingerprint=FINGERPRINT,
        line_bytes=20_000,
        carried=frozenset(schema.names) - columns.read,
    )
    planned = [cut(item, job=job) for item in described]
    for file in planned:
        check_message(file.failure or "")
    failed, wrong = any(file.failure for file in planned), False
    for task in read_tasks(work=list(missing_work(current=planned, written=frozenset(), entries={})), rule=CUT):
        for bundle in read_bundles(task=task, reading=reading):
            for shard in bundle:
                if shard.failure is not None:
                    check_message(shard.failure[1])
                    failed = True
                    continue
                assert shard.rows is not None
                encode_tasks(shard.rows, spec=job_spec, facts=facts)
                made = _rows_to_write(shard.rows, source=shard.shard.file.uri, schema=schema)
                receipt = write_shard(shard, made, data=OutputFolder(job.output).data, prefix="", footer={})
                check_message(receipt.message)
                wrong |= bool(receipt.errors)
                failed |= receipt.state == "failed"
    return "failed files" if failed else "rows with errors" if wrong else "read"


def _rows_to_write(rows: pa.Table, *, source: str, schema: pa.Schema) -> pa.Table:
    """Rows as the last stage writes them, without an answer."""
    table = rows.select([name for name in carried_columns(schema=schema, keep=None) if name in rows.column_names])
    count = rows.num_rows
    table = table.append_column("source", pa.array([source] * count, pa.string()))
    table = table.append_column("row", rows["__row__"])
    table = table.append_column("truncated", pa.array(np.zeros(count, bool)))
    return table.append_column("error", rows["__error__"])


def read_checkpoint(folder: Path) -> str:
    """A checkpoint folder as a job opens it, then as `preln convert --allow-pickle` does."""
    url = str(folder)
    refusals: list[PrelnError] = []
    outcome = "refused"
    for step in (_as_a_job, _embedder, _as_an_origin):
        try:
            step(url)
            outcome = "read"
        except PrelnError as error:
            check_message(str(error))
            refusals.append(error)
    return "refused" if refusals else outcome


def _as_a_job(url: str) -> None:
    if not (Path(url) / "pytorch_model.bin").exists():
        checkpoint = Checkpoint.open(url)
        has_tokenizer = not (Path(url) / "sentencepiece.bpe.model").exists()
        checkpoint.check(heads=["sequence-classification"], tokenizer=has_tokenizer)
        checkpoint.stamp()
        checkpoint.digest()
    if (Path(url) / "sentencepiece.bpe.model").exists():
        return
    tokenizer = load_tokenizer(url)
    tokenizer.backend.encode("A good text.")


def _embedder(url: str) -> None:
    read_embedder(url)


def _as_an_origin(url: str) -> None:
    origin = open_origin(url=url, allow_pickle=True)
    for _ in origin.read(list(origin.tensors)):
        pass


def read_job(folder: Path) -> str:
    """A job file."""
    JobSpec.from_yaml((folder / "job.yaml").read_bytes().decode("utf-8", "surrogateescape"))
    return "read"


READERS: Mapping[Kind, Callable[[Path], str]] = {"input": read_input, "checkpoint": read_checkpoint, "job": read_job}


def lay_out(files: Mapping[str, bytes], folder: Path) -> None:
    """Files into a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
