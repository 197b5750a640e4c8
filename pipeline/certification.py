"""A job that accepts labels in, the same job with the thresholds that its labelled rows certify out.

The labelled rows are answered as any rows of the job are, by its own model and dtype, before the first row; what they support is
stored in the job's record, so that a row's answer depends on that row alone, in this run and in every later one.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RunFailed, SpecError
from pipeline.inference.questions import facts_of
from pipeline.output.folder import OutputFolder
from pipeline.output.job import FrozenJob, fingerprint_of, identity_of
from pipeline.output.report import Report
from pipeline.reading.inputs import list_files
from pipeline.spec.accepts import accepts_of, with_accepts
from pipeline.spec.job_spec import InputSpec, JobSpec
from pipeline.store.storage import join, opened
from pipeline.tasks.acceptance import Accept, certify
from pipeline.tasks.task import ModelFacts

FOLDER = "_accept"
"""Below the output folder: the labelled rows with their answers."""
PREFIX = "predicted_"
"""Before the answers' names, whose own the true label may have."""
READ_BYTES = 1 << 22

Answer = Callable[[JobSpec], Report]


def with_digests(spec: JobSpec) -> JobSpec:
    """The spec, knowing what its labelled rows are. Raises SpecError where there are none."""
    return with_accepts(
        spec,
        {
            name: accept.with_state(
                digest=_digest(accept, key=spec.named_tasks[name].key), certificate=accept.certificate
            )
            for name, accept in accepts_of(spec).items()
        },
    )


def _digest(accept: Accept, *, key: str) -> str:
    """Hash over the content of the files, in their order; where they are does not matter."""
    whole = hashlib.sha256()
    try:
        for file in list_files(InputSpec(urls=[accept.calibration]), output="").files:
            with opened(file.uri) as content:
                while part := content.read(READ_BYTES):
                    whole.update(part)
            whole.update(b"\0")
    except SpecError as error:
        raise about_labelled_rows(error, key) from None
    return whole.hexdigest()[:32]


def about_labelled_rows(error: SpecError, key: str) -> SpecError:
    """The error of the labelled rows' own job, under the key that names them. key: of the task."""
    message, start = str(error), f"{key}.accept."
    return (
        error if message.startswith(start) else SpecError(f"{start}calibration: {message.removeprefix('input.urls: ')}")
    )


def uncertified(spec: JobSpec) -> dict[str, Accept]:
    """What tasks accept, by task name, where the labelled rows were not answered yet."""
    return {name: accept for name, accept in accepts_of(spec).items() if accept.certificate is None}


def certified(job: FrozenJob, *, check: Callable[[JobSpec], FrozenJob], answer: Answer) -> FrozenJob:
    """The job with its thresholds, part of its fingerprint from now on.

    check: opens the job of the labelled rows without running it. answer: runs it. Raises SpecError where the labelled rows
    can't serve, RunFailed where they could not be answered, KeyboardInterrupt.
    """
    accepts = {}
    for name in uncertified(job.spec):
        key = job.spec.named_tasks[name].key
        spec = calibration_spec(job.spec, name, output=_folder(job, name), dtype=job.dtype)
        try:
            labelled = check(spec).schema.names
            check_columns_alike(job.spec, name, input_names=job.schema.names, labelled_names=labelled)
            report = answer(spec)
        except SpecError as error:
            raise about_labelled_rows(error, key) from None
        if report.state == "interrupted":
            raise KeyboardInterrupt
        if report.state != "done":
            raise RunFailed(
                f"{key}.accept.calibration: the labelled rows were not all answered ({report.state}): "
                f"{'; '.join(report.failures[:3])}"
            )
        accepts[name] = with_certificate(job.spec, name, answered_rows(spec))
    spec = with_accepts(job.spec, accepts)
    identity = identity_of(spec=spec, facts=facts_of(spec), digest=job.checkpoint.digest, dtype=job.dtype)
    return replace(job, spec=spec, identity=identity, fingerprint=fingerprint_of(identity))


def _folder(job: FrozenJob, name: str) -> str:
    """A folder for these labelled rows and this job: an interrupted run resumes there, and another job has another."""
    return join(job.output, FOLDER, f"{name}-{job.fingerprint[:12]}")


def calibration_spec(spec: JobSpec, name: str, *, output: str, dtype: str) -> JobSpec:
    """The job that answers the labelled rows of a task, as the job itself would."""
    named = spec.named_tasks[name]
    accept = accepts_of(spec)[name]
    plain = named.task.model_copy(update={"accept": None, "top_k": None})
    columns = {named.part_key(part): column for part, column in named.columns.items()}
    return spec.model_copy(
        update={
            "input": InputSpec(
                urls=[accept.calibration],
                columns=columns,
                keep=[accept.label],
                control_characters=spec.input.control_characters,
            ),
            "model": spec.model.model_copy(update={"dtype": dtype}),
            "task": None if named.of_several else plain,
            "tasks": {name: plain} if named.of_several else {},
            "output": spec.output.model_copy(update={"url": output, "prefix": PREFIX}),
            "limits": spec.limits.model_copy(update={"error_share": 1.0}),
        }
    )


def check_columns_alike(spec: JobSpec, name: str, *, input_names: Sequence[str], labelled_names: Sequence[str]) -> None:
    """Raise SpecError where only one of the two inputs has an optional column: the model would read other texts."""
    named = spec.named_tasks[name]
    for part in named.task.parts():
        column = named.column(part.name)
        there, here = column in labelled_names, column in input_names
        if there != here:
            raise SpecError(
                f"{named.key}.accept.calibration: {'it has' if there else 'it lacks'} the column {column!r}, which the model "
                f"reads and the input {'lacks' if there else 'has'}; give labelled rows like the job's"
            )


def answered_rows(spec: JobSpec) -> pa.Table:
    """The labelled rows with their answers, from the output folder of their job."""
    data = OutputFolder(spec.output.url).data
    columns = _columns(spec)
    tables = [
        pq.read_table(io.BytesIO(data.read(key)), columns=[*columns, f"{PREFIX}source", f"{PREFIX}row"])
        for key in sorted(OutputFolder(spec.output.url).written_keys())
    ]
    return pa.concat_tables(tables)


def _columns(spec: JobSpec) -> list[str]:
    ((_, named),) = spec.named_tasks.items()
    return [*(spec.input.keep or []), f"{named.prefix}label", f"{named.prefix}score"]


def with_certificate(spec: JobSpec, name: str, rows: pa.Table) -> Accept:
    """What a task accepts, after its labelled rows were answered. Raises SpecError where no true label is one of the model's."""
    named, accept = spec.named_tasks[name], accepts_of(spec)[name]
    facts: Mapping[str, ModelFacts] = facts_of(spec)
    answer = f"{PREFIX}{name}_" if named.of_several else PREFIX
    rows = rows.sort_by([(f"{PREFIX}source", "ascending"), (f"{PREFIX}row", "ascending")])
    found = list(
        zip(
            rows[accept.label].to_pylist(),
            rows[f"{answer}label"].to_pylist(),
            rows[f"{answer}score"].to_pylist(),
            strict=True,
        )
    )
    known = [(_names(true), label, score) for true, label, score in found if true is not None and label is not None]
    labels = set(facts[name].labels)
    if not any(labels & true for true, _, _ in known):
        shown = ", ".join(sorted({label for true, _, _ in known[:50] for label in true})[:3]) or "nothing"
        raise SpecError(
            f"{named.key}.accept.label: the column {accept.label!r} has no label of the model; it has {shown}, and the model "
            f"{', '.join(facts[name].labels[:3])}; name the column of the true label"
        )
    certificate = certify(
        score_N=np.array([score for _, _, score in known], np.float32),
        right_N=np.array([label in true for true, label, _ in known], bool),
        accept=accept,
        digest=accept.digest,
        left_out=len(found) - len(known),
    )
    return accept.with_state(digest=accept.digest, certificate=certificate)


def _names(true: Any) -> set[str]:
    """The true labels of a row: one, or a list of them."""
    return {str(label) for label in true} if isinstance(true, list) else {str(true)}
