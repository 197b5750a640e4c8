"""Turns a spec into the job of its output folder, or explains in one line why it can't work; starts no replica."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from models.families import PRE_LAYER_NORM
from models.hub import refuse_hub_name
from models.named_heads import open_heads
from pipeline.certification import with_digests
from pipeline.cluster.placement import Cluster
from pipeline.errors import OptionError, OutputError, SpecError
from pipeline.inference.checkpoint_state import checkpoint_state
from pipeline.inference.questions import asks_of, facts_of, heads_of
from pipeline.output.columns import added_fields, carried_columns
from pipeline.output.folder import OutputFolder
from pipeline.output.job import CPU_CUT, GPU_CUT, FrozenJob, fingerprint_of, identity_of, refuse_another
from pipeline.reading.inputs import RESERVED, Described, describe, list_files
from pipeline.reading.partitions import partition_keys
from pipeline.reading.schema import EVERY_COLUMN, Columns, resolve_schema
from pipeline.reading.text_columns import is_text, is_texts
from pipeline.shards import CutRule
from pipeline.spec.accepts import accepts_of, certificates_of, with_accepts, with_certificates
from pipeline.spec.job_spec import JobSpec
from pipeline.spec.named_tasks import NamedTask
from pipeline.store.storage import canonical
from pipeline.tasks.task import ModelFacts, Part


def open_job(*, spec: JobSpec, cluster: Cluster) -> tuple[FrozenJob, list[Described]]:
    """The spec's job, from the output folder or new, and the input files as far as they were read.

    Raises SpecError, CheckpointError, OutputError, ResourceError.
    """
    spec = absolute(spec)
    facts = checked_tasks(spec)
    spec = with_digests(spec)
    known = OutputFolder(spec.output.url).read_job()
    if known is not None:
        return _known_job(known, spec=spec, facts=facts), []
    described = describe(list_files(spec.input, output=spec.output.url).files)
    columns = wanted_columns(spec)
    schema = schema_of(described, spec=spec, columns=columns)
    check_columns(schema=schema, spec=spec, facts=facts)
    schema = pa.schema([field for field in schema if columns.wants(field.name)])
    dtype = cluster.resolve_dtype(spec)
    state = checkpoint_state(spec.model.checkpoint, known=None, names=head_folders(spec))
    identity = identity_of(spec=spec, facts=facts, digest=state.digest, dtype=dtype)
    job = FrozenJob(
        spec=spec,
        identity=identity,
        fingerprint=fingerprint_of(identity),
        dtype=dtype,
        checkpoint=state,
        cut=cut_rule(spec=spec, facts=facts, cluster=cluster),
        schema=schema,
        partitions=partition_keys([item.file.uri for item in described], below=spec.input.urls),
    )
    return job, described


def checked_tasks(spec: JobSpec) -> dict[str, ModelFacts]:
    """What each task may know about its head's checkpoint, after checking that all can be answered in one pass.

    Raises SpecError, CheckpointError.
    """
    facts = facts_of(spec)
    open_heads(checkpoint=spec.model.checkpoint, heads=heads_of(spec, facts), tokenizer=True)
    directions = {name: ask.causal for name, ask in asks_of(spec, facts).items()}
    if len(set(directions.values())) > 1:
        causal = next(name for name, causal in directions.items() if causal)
        raise SpecError(
            f"tasks.{causal}: reads texts from left to right only, unlike the other tasks; run it as a job of its own"
        )
    for name, task in spec.named_tasks.items():
        config = facts[name].config
        if config.is_decoder and config.model_type != PRE_LAYER_NORM and task.task.name != "text-scoring":
            raise SpecError(
                f"{task.key}: the checkpoint is a decoder of model_type '{config.model_type}' (is_decoder in config.json), "
                f"which only text-scoring takes, not {task.task.name}; name an encoder's checkpoint"
            )
        try:
            task.task.fields(facts[name])
        except OptionError as error:
            raise SpecError(error.under(task.key)) from None
    _refuse_equal_names(added_fields(spec=spec, facts=facts))
    return facts


def notes_of(spec: JobSpec) -> list[str]:
    """What a run says once of how its checkpoint is read."""
    facts = facts_of(spec)
    return [f"{task.key}: {note}" for name, task in spec.named_tasks.items() for note in task.task.notes(facts[name])]


def head_folders(spec: JobSpec) -> list[str] | None:
    """The folders of the heads below the checkpoint; None where the checkpoint is the only one."""
    return list(spec.tasks) or None


def _refuse_equal_names(fields: Sequence[pa.Field]) -> None:
    names = [field.name for field in fields]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SpecError(f"tasks: two of them have an answer column {twice[0]!r}; rename one of them")


def wanted_columns(spec: JobSpec) -> Columns:
    """The columns that some task reads, and those that are carried."""
    kept = spec.input.keep
    return Columns(read=spec.read_columns, kept=None if kept is None else frozenset(kept))


def schema_of(described: Sequence[Described], *, spec: JobSpec, columns: Columns = EVERY_COLUMN) -> pa.Schema:
    """The schema of all readable files; if they have neither a record nor a header, the columns that the tasks read.

    Raises SpecError where no file can be read, or where they disagree.
    """
    fit = [item for item in described if item.failure is None]
    if not fit:
        failures = "; ".join(str(item.failure) for item in described[:3])
        raise SpecError(f"no input file can be read: {failures}")
    own = {item.file.uri: item.schema for item in fit if item.schema is not None}
    schema = resolve_schema(
        spec=spec.input,
        files=[item.file for item in fit],
        own=own,
        columns=columns,
        without_rows={item.file.uri for item in fit if item.rows == 0},
    )
    return schema if len(schema) else _schema_of_tasks(spec)


def _schema_of_tasks(spec: JobSpec) -> pa.Schema:
    kinds = {
        task.column(part.name): pa.list_(pa.string()) if part.kind == "texts" else pa.string()
        for task in spec.named_tasks.values()
        for part in task.task.parts()
        if part.required
    }
    return pa.schema(list(kinds.items()))


def absolute(spec: JobSpec) -> JobSpec:
    """The spec with every local path made absolute, so that it means the same on every machine and at every run.

    Raises CheckpointError for the name of a Hub's model without `hf://`, which would be a path then.
    """
    refuse_hub_name(spec.model.checkpoint)
    spec = with_accepts(
        spec,
        {
            name: accept.model_copy(update={"calibration": canonical(accept.calibration)})
            for name, accept in accepts_of(spec).items()
        },
    )
    return spec.model_copy(
        update={
            "input": spec.input.model_copy(update={"urls": [canonical(url) for url in spec.input.urls]}),
            "model": spec.model.model_copy(update={"checkpoint": canonical(spec.model.checkpoint)}),
            "output": spec.output.model_copy(update={"url": canonical(spec.output.url)}),
        }
    )


def _known_job(known: FrozenJob, *, spec: JobSpec, facts: Mapping[str, ModelFacts]) -> FrozenJob:
    """The folder's frozen job with this run's spec, if it has the same identity and cut. Raises OutputError."""
    spec = spec.at_versions(
        {task.name: known.identity.get(f"{task.key}'s answer version") for task in spec.named_tasks.values()}
    )
    spec = with_certificates(spec, certificates_of(known.spec))
    dtype = known.dtype if spec.model.dtype == "auto" else spec.model.dtype
    state = checkpoint_state(spec.model.checkpoint, known=known.checkpoint, names=head_folders(spec))
    refuse_another(
        frozen=known,
        identity=identity_of(spec=spec, facts=facts, digest=state.digest, dtype=dtype),
        output=spec.output.url,
    )
    for key in ("rows", "bytes"):
        wanted, fixed = getattr(spec.shards, key), getattr(known.cut, key)
        if wanted is not None and wanted != fixed:
            raise OutputError(
                f"{spec.output.url}: shards.{key} was fixed at {fixed} when this folder was started and is {wanted} here; "
                "leave it out, or choose another output"
            )
    return replace(known, spec=spec)


def cut_rule(*, spec: JobSpec, facts: Mapping[str, ModelFacts], cluster: Cluster) -> CutRule:
    """The cut that this job's folder is frozen to; smaller for tasks with large answers."""
    default = GPU_CUT if cluster.gpus_each(spec) > 0 else CPU_CUT
    weight = sum(task.task.rows_weight(facts[name]) for name, task in spec.named_tasks.items())
    return CutRule(
        rows=spec.shards.rows or max(1, default.rows // weight),
        bytes=spec.shards.bytes or max(1, default.bytes // weight),
    )


def check_columns(*, schema: pa.Schema, spec: JobSpec, facts: Mapping[str, ModelFacts]) -> None:
    """Raise SpecError where the input lacks a column, has one of another type, or has one that would be added."""
    tasks = spec.named_tasks.values()
    read = list(dict.fromkeys(part.name for task in tasks for part in task.task.parts()))
    own = [task.part_key(part.name) for task in tasks if task.of_several for part in task.task.parts()]
    for key in spec.input.columns:
        if key not in {*read, *own}:
            reader, known = ("no task", [*read, *own]) if own else (spec.task_name, read)
            raise SpecError(
                f"input.columns.{key}: {reader} reads {'such a' if own else 'no such'} part; "
                f"{'they read' if own else 'it reads'} {', '.join(known)}"
            )
    for task in tasks:
        for part in task.task.parts():
            _check_part(part, schema=schema, task=task)
    kept = spec.input.keep or []
    if len(set(kept)) < len(kept):
        raise SpecError(f"input.keep: names a column twice: {_listed(kept)}")
    names = set(schema.names)
    for name in RESERVED:
        if name in names:
            raise SpecError(f"the input has a column {name!r}, which is a reserved name; rename it")
    for name in kept:
        if name not in names:
            raise SpecError(f"input.keep: the input has no column {name!r}; it has {_listed(schema.names)}")
    carried = set(carried_columns(schema=schema, keep=spec.input.keep))
    taken = [field.name for field in added_fields(spec=spec, facts=facts) if field.name in carried]
    if taken:
        raise SpecError(
            f"input and output both have a column {taken[0]!r}; set output.prefix (such as preln_), or leave it "
            "out with input.keep"
        )


def _check_part(part: Part, *, schema: pa.Schema, task: NamedTask) -> None:
    column, key = task.column(part.name), task.part_key(part.name)
    if column not in schema.names:
        if part.required or part.name in task.columns:
            raise SpecError(
                f"{task.task.name} reads the column {column!r}, but the input has {_listed(schema.names)}; "
                f"set input.columns.{key}{_delimiter_hint(column, schema.names)}"
            )
        return
    kind = schema.field(column).type
    fits = is_texts(kind) if part.kind == "texts" else is_text(kind)
    if not fits:
        wanted = "lists of text" if part.kind == "texts" else "text"
        raise SpecError(
            f"input.columns.{key}: the column {column!r} is {kind}, but {task.task.name} reads {wanted} from it"
        )


def _delimiter_hint(column: str, names: Sequence[str]) -> str:
    """What else may be wrong where a column's name stands inside another's, as a header does that was cut wrongly."""
    signs = {sign: repr(sign) for sign in ";|\t,:"}
    for name in names:
        for sign, shown in signs.items():
            if sign in name and column in (part.strip().strip('"') for part in name.split(sign)):
                return f"; or, if the columns of {name!r} are separated by {shown}, input.delimiter"
    return ""


def _listed(names: Sequence[str]) -> str:
    names = [name if name == name.strip() and name else repr(name) for name in names]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
