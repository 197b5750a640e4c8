"""The job that an output folder is frozen to: its spec, fingerprint, dtype, cut rule and input schema.

The fingerprint covers all that changes answers and nothing that does not. `_job.json` is put if absent: the first driver
decides, and a command that would answer otherwise is refused with the difference.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipeline import __version__
from pipeline.errors import OutputError
from pipeline.inference.checkpoint_state import CheckpointState
from pipeline.output.stored import from_stored
from pipeline.shards import READING, CutRule
from pipeline.spec.accepts import certificates_of, with_certificates
from pipeline.spec.job_spec import InputSpec, JobSpec
from pipeline.spec.named_tasks import NamedTask
from pipeline.tasks.acceptance import Certificate
from pipeline.tasks.task import ModelFacts

JOB_FILE = "_job.json"

CPU_CUT = CutRule(rows=2_048, bytes=1_000_000)
"""The default cut where replicas run on CPUs: a shard is some seconds of work."""
GPU_CUT = CutRule(rows=65_536, bytes=32_000_000)
"""The default cut where replicas have a GPU."""

SHAPE_KEYS = ("input.keep", "input.schema", "output.prefix")
"""Parts of the identity that no answer depends on: they only choose the output's columns."""


FORMAT_KEY = "input.format"


@dataclass(frozen=True)
class FrozenJob:
    """What an output folder is: fixed by the first run, the same for every later one.

    identity: flat keys and values that a later command must agree with. schema: of the input's columns. reading: the rules by
    which its files are read, as long as it lives (`pipeline.shards.READING`). partitions: which `key=value` folders are
    columns; None, in older folders, for all that the schema has.
    """

    spec: JobSpec
    identity: Mapping[str, Any]
    fingerprint: str
    dtype: str
    checkpoint: CheckpointState
    cut: CutRule
    schema: pa.Schema
    reading: int = READING
    partitions: tuple[str, ...] | None = None

    @property
    def output(self) -> str:
        """The output folder's URL."""
        return self.spec.output.url

    def to_json(self) -> bytes:
        """The content of `_job.json`; the same job makes the same bytes."""
        fields = {
            "preln": __version__,
            "fingerprint": self.fingerprint,
            "dtype": self.dtype,
            "checkpoint": asdict(self.checkpoint),
            "cut": asdict(self.cut),
            "columns": {field.name: str(field.type) for field in self.schema},
            "identity": dict(self.identity),
            "reading": self.reading,
            "partitions": None if self.partitions is None else list(self.partitions),
            "schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
            "spec": self.spec.model_dump(mode="json", by_alias=True),
        }
        certificates = {name: asdict(certificate) for name, certificate in certificates_of(self.spec).items()}
        if certificates:
            fields["certificates"] = certificates
        return json.dumps(fields, indent=2, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes, *, where: str) -> "FrozenJob":
        """From the content of `_job.json`. Raises OutputError where it is none."""
        try:
            fields = json.loads(content)
            if "tasks" in fields["identity"]:  # whose order the keys have lost
                fields["spec"]["tasks"] = {name: fields["spec"]["tasks"][name] for name in fields["identity"]["tasks"]}
            if fields.get("reading", 1) > READING:
                raise ValueError(f"its files are read by rules {fields['reading']}, and this is an older preln")
            spec = JobSpec.parse(fields["spec"], unknown="ignore")  # what changes answers is in the identity too
            certificates = {
                name: from_stored(Certificate, {**stored, "scores": tuple(stored["scores"])}, where=where)
                for name, stored in fields.get("certificates", {}).items()
            }
            spec = with_certificates(spec, certificates)
            partitions = fields.get("partitions")
            return cls(
                spec=spec,
                identity={**_not_default(spec.input), **fields["identity"]},
                fingerprint=fields["fingerprint"],
                dtype=fields["dtype"],
                checkpoint=from_stored(CheckpointState, fields["checkpoint"], where=where),
                cut=from_stored(CutRule, fields["cut"], where=where),
                schema=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(fields["schema"]))),
                reading=fields.get("reading", 1),
                partitions=None if partitions is None else tuple(partitions),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException) as error:
            fault = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise OutputError(
                f"{where}: this {JOB_FILE} was not written by preln, or by an incompatible version: {fault}; "
                "choose another output folder"
            ) from None


def identity_of(*, spec: JobSpec, facts: Mapping[str, ModelFacts], digest: str, dtype: str) -> dict[str, Any]:
    """All that a later command must agree with, as flat keys as a user knows them."""
    return {
        "checkpoint digest": digest,
        "model.framework": spec.model.framework,
        "model.dtype": dtype,
        "model.max_length": next(iter(facts.values())).max_length,
        **({"tasks": list(spec.tasks)} if spec.tasks else {}),
        **{
            key: value
            for name, task in spec.named_tasks.items()
            for key, value in _task_identity(task, facts[name]).items()
        },
        "input.delimiter": spec.input.delimiter,
        **_not_default(spec.input),
        "limits.text_bytes": spec.limits.text_bytes,
        "input.control_characters": spec.input.control_characters,
        "input.keep": spec.input.keep,
        "input.schema": spec.input.fields,
        "output.prefix": spec.output.prefix,
    }


def _not_default(spec: InputSpec) -> dict[str, Any]:
    """How files are read, where it is not the default: so that the fingerprints of older folders stay as they are."""
    values = {FORMAT_KEY: spec.format, "input.quote": spec.quote}
    return {key: value for key, value in values.items() if value not in {"auto", "double"}}


def _task_identity(named: NamedTask, facts: ModelFacts) -> dict[str, Any]:
    """What identifies one task: its options, and the columns that it reads."""
    task = named.task
    defaults = {name for name in task.later_options if getattr(task, name) == type(task).model_fields[name].default}
    options = {**task.model_dump(mode="json", exclude=defaults | task.restated_options), **task.resolved_options(facts)}
    return {
        **{f"{named.key}.{option}": value for option, value in options.items()},
        f"{named.key}'s answer version": task.version,
        **{f"input.columns.{named.part_key(part.name)}": named.column(part.name) for part in task.parts()},
    }


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """Hash of all that changes answers."""
    told = {key: value for key, value in identity.items() if key not in SHAPE_KEYS}
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16).hexdigest()


def refuse_another(*, frozen: FrozenJob, identity: Mapping[str, Any], output: str) -> None:
    """Raise OutputError, with each key that differs, where a folder holds another job.

    A format that only one of them names is not looked at here: `auto` may come to the same (`pipeline.output.plan`).
    """
    keys = [key for key in {**frozen.identity, **identity} if frozen.identity.get(key) != identity.get(key)]
    if FORMAT_KEY not in frozen.identity or FORMAT_KEY not in identity:
        keys = [key for key in keys if key != FORMAT_KEY]
    if keys:
        shown = "; ".join(
            f"{key} is {_short(frozen.identity.get(key))} there and {_short(identity.get(key))} here" for key in keys
        )
        raise OutputError(f"{output} belongs to another job: {shown}. Choose another output, or use the same settings")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
