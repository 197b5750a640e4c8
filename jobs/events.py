"""What `preln annotate --json` and `preln jobs --json` print, a JSON object per line: the type of each event.

docs/events.schema.json is their JSON Schema (`make schema`). Later versions may add events and fields.
"""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from jobs.exit_codes import LATER, exit_code_of
from pipeline.errors import PrelnError


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class PhaseBegun(_Event):
    """The run has come to its next phase."""

    event: Literal["phase"] = "phase"
    phase: str
    """planning, starting Ray, connecting to Ray, loading the model, reading, annotating, or writing the records."""
    seconds: float
    """Since the command began."""


class Planned(_Event):
    """What will be run."""

    event: Literal["planned"] = "planned"
    files: int
    """Of the dataset."""
    new_files: int
    """New or changed since the last plan."""
    shards: int
    """To be run, as far as known before reading."""
    streams: int
    """Files whose shards are cut while they are read."""
    done: int
    """Shards that are written already."""
    bytes: int
    """Of input to be read, as stored."""


class Waiting(_Event):
    """The run waits for something, or has something to say about the cluster."""

    event: Literal["waiting"] = "waiting"
    words: str


class Ready(_Event):
    """The first replica has loaded the model."""

    event: Literal["ready"] = "ready"
    device: str
    """What it runs on, and in what arithmetic."""
    seconds: float
    """That its loading took."""


class Advanced(_Event):
    """How far the run is; every ten seconds."""

    event: Literal["progress"] = "progress"
    phase: str
    seconds: float
    """Since the command began."""
    shards: int
    """Committed or failed, in this run."""
    failed: int
    rows: int
    """Committed in this run."""
    rows_in_flight: int
    """With replicas now, and not committed."""
    replicas: int
    """That are ready."""
    rows_per_second: float
    """Over the last minute where `rows_in_flight` is known, else of committed rows since the model was ready."""
    tokens_per_second: float
    """Of answered tokens, over the last minute."""
    fill: float | None
    """Share of the token budget that passes used."""
    errors: dict[str, int]
    """Rows by the reason of their error."""
    share: float | None
    """Of the work that is done, in tokens; null while it is not known."""
    seconds_left: float | None
    """Null while it is not known."""


class Finished(_Event):
    """How a run ended, by itself or interrupted; the same record is in `_runs/` of the output."""

    event: Literal["finished"] = "finished"
    state: Literal["done", "failed-shards", "too-many-errors", "interrupted", "crashed", "probed"]
    model_type: str
    reason: str | None
    finished: str
    """When, in UTC."""
    seconds: float
    first_shard_seconds: float | None
    driver_cpu_seconds: float
    bundles: int
    shards: int
    rows: int
    tokens: int
    rows_per_second: float
    tokens_per_second: float
    batch_fill: float | None
    errors: dict[str, int]
    truncated: int
    unfit_values: dict[str, int]
    left_out_columns: dict[str, int]
    """Rows with a column that is not carried, since it was not seen when the output folder was begun."""
    notes: list[str]
    failed: list[str]
    stage_seconds: dict[str, float]
    replica_shares: dict[str, list[float]]
    progress: list[list[float]]
    """Seconds since the start, rows and tokens until then."""
    slowest: dict[str, list[dict[str, Any]]]
    """Shards and files that took the longest to compute."""
    forecast: dict[str, Any] | None = None
    """Of `--probe`: rows, tokens and hours that are left, each with its range."""
    runs_on: list[dict[str, Any]]
    dataset: dict[str, int]
    """Files, shards and rows of the whole output as it stands now."""
    versions: dict[str, str]


class Failed(_Event):
    """The command ends without a finished run; standard error has the same line."""

    event: Literal["failed"] = "failed"
    error: str
    exit_code: int


class Interrupted(_Event):
    """The command was interrupted before a run began, or between two."""

    event: Literal["interrupted"] = "interrupted"


class Row(_Event):
    """A row of `--limit`."""

    event: Literal["row"] = "row"
    row: dict[str, Any]
    """Its columns."""


class Job(_Event):
    """A job of `preln jobs`."""

    event: Literal["job"] = "job"
    id: str
    status: str
    """Ray's word: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    task: str
    output: str
    started: float | None
    """Seconds since 1970."""
    ended: float | None
    exit_code: int | None


Event = PhaseBegun | Planned | Waiting | Ready | Advanced | Finished | Failed | Interrupted | Row | Job

_PRINTING = threading.Lock()


def emit(event: Event) -> None:
    """Print an event."""
    emit_values(**event.model_dump(mode="json"))


def emit_values(event: str, **values: Any) -> None:
    """Print an event of which the values are at hand: a record that was just written must not fail for its type."""
    with _PRINTING:
        sys.stdout.write(json.dumps({"event": event, **values}, default=str) + "\n")
        sys.stdout.flush()


@contextmanager
def failures_emitted(*, wanted: bool) -> Iterator[None]:
    """Around what a command does: how it fails or is interrupted is also the last event."""
    try:
        yield
    except PrelnError as error:
        if wanted:
            emit(Failed(error=str(error), exit_code=exit_code_of(error)))
        raise
    except KeyboardInterrupt:
        if wanted:
            emit(Interrupted())
        raise
    except Exception as error:
        if wanted:
            emit(Failed(error=f"{type(error).__name__}: {error}", exit_code=LATER))
        raise


def json_schema() -> dict[str, Any]:
    """The JSON Schema of one event."""
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[Event, Field(discriminator="event")])
    schema = adapter.json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "An event of preln", **schema}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
