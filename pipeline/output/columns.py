"""The columns of a job's output: the carried ones, the answers, and source, row, truncated, error."""

from collections.abc import Mapping

import pyarrow as pa

from pipeline.rows import ERROR, ROW, SOURCE
from pipeline.spec.job_spec import JobSpec
from pipeline.tasks.task import ModelFacts

TRUNCATED = pa.field("truncated", pa.bool_())
"""True where the text was longer than the model and was cut."""


def carried_columns(*, schema: pa.Schema, keep: list[str] | None) -> list[str]:
    """The input columns that the output has, in order."""
    return list(schema.names) if keep is None else list(keep)


def added_fields(*, spec: JobSpec, facts: Mapping[str, ModelFacts]) -> list[pa.Field]:
    """The columns that are added to the input's, in order, with the job's and the task's prefix."""
    answers = [
        field.with_name(task.prefix + field.name)
        for name, task in spec.named_tasks.items()
        for field in task.task.fields(facts[name])
    ]
    rest = [field.with_name(spec.output.prefix + field.name) for field in (SOURCE, ROW, TRUNCATED, ERROR)]
    return [*rest[:2], *answers, *rest[2:]]


def output_schema(*, schema: pa.Schema, spec: JobSpec, facts: Mapping[str, ModelFacts]) -> pa.Schema:
    """The schema of every output file of a job."""
    carried = [schema.field(name) for name in carried_columns(schema=schema, keep=spec.input.keep)]
    return pa.schema([*carried, *added_fields(spec=spec, facts=facts)])
