"""An output folder: the one job it is frozen to, its plans, objects, manifests, runs and success marker.

data/{stem}-{first}-{digest}.parquet   one shard, whole; its existence is the commit
_job.json                              the resolved job; put if absent, then frozen
_plans/ _manifest/ _runs/              what each run found, what is current, what it did
_SUCCESS                               everything planned is there

No database, no lock, no rename: one listing of `data/` says what is done, and everything else can be rebuilt from it and
the plans. Files are named by time and run, so that the newest sorts last and two drivers never share one.
"""

import io
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.output.job import JOB_FILE, FrozenJob, refuse_another
from pipeline.output.records import (
    MANIFEST_SCHEMA,
    PLAN_SCHEMA,
    Entry,
    PlannedFile,
    Success,
    entry_from_footer,
    entry_from_row,
    entry_row,
    planned_from_row,
    planned_row,
)
from pipeline.output.sink import read_footer
from pipeline.output.stored import from_stored
from pipeline.store.folder import Folder
from pipeline.store.storage import readable

SUCCESS = "_SUCCESS"
READERS = 32
MOMENT = "%Y%m%dT%H%M%S.%fZ"


def new_run_id() -> str:
    """Names what one run writes; later runs sort behind earlier ones."""
    return _moment_id(datetime.now(UTC))


def _moment_id(moment: datetime) -> str:
    return f"{moment:{MOMENT}}-{uuid.uuid4().hex[:8]}"


class OutputFolder:
    """The folder at a URL, and every record in it. data: the objects of shards, by key. All methods raise StorageError."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._root = Folder(url)
        self.data = self._root / "data"
        self._plans = self._root / "_plans"
        self._manifests = self._root / "_manifest"
        self._runs = self._root / "_runs"

    def read_job(self) -> FrozenJob | None:
        """The job that the folder is frozen to; None where there is none yet. Raises OutputError."""
        try:
            return FrozenJob.from_json(self._root.read(JOB_FILE), where=self.url)
        except FileNotFoundError:
            return None

    def require_job(self) -> FrozenJob:
        """The job that the folder is frozen to. Raises OutputError where there is none."""
        job = self.read_job()
        if job is None:
            raise OutputError(f"{readable(self.url)}: there is no {JOB_FILE}; nothing was annotated into this folder")
        return job

    def freeze(self, job: FrozenJob) -> FrozenJob:
        """Store the job if the folder has none, and return the stored one, with this command's spec.

        Raises OutputError where another driver was first with another job.
        """
        frozen = FrozenJob.from_json(self._root.put_if_absent(JOB_FILE, job.to_json()), where=self.url)
        refuse_another(frozen=frozen, identity=job.identity, output=self.url)
        return replace(frozen, spec=job.spec)

    def sweep(self) -> None:
        """Remove what a killed process left half written; only local disks keep such files."""
        for folder in (self._root, self.data, self._plans, self._manifests, self._runs):
            folder.sweep()

    def write_plan(self, *, run: str, files: Sequence[PlannedFile]) -> str:
        """Store what a run found new or changed, and return the plan's name. _SUCCESS does not cover it, and goes."""
        self._root.delete([SUCCESS])
        return _put_newest(self._plans, run=run, rows=map(planned_row, files), schema=PLAN_SCHEMA)

    def read_plans(self) -> tuple[str | None, list[list[PlannedFile]]]:
        """(name of the newest plan, all plans from the oldest to the newest)."""
        names = self._plans.names()
        with ThreadPoolExecutor(READERS) as pool:
            tables = list(pool.map(lambda name: _read_table(self._plans, name), names))
        return (names[-1] if names else None), [
            [planned_from_row(row, where=self._plans.url_of(name)) for row in table.to_pylist()]
            for name, table in zip(names, tables, strict=True)
        ]

    def written_keys(self) -> frozenset[str]:
        """Keys of the objects under `data/`, by one listing."""
        return frozenset(name for name in self.data.names() if name.endswith(".parquet") and not name.startswith("."))

    def write_manifest(self, *, run: str, entries: Iterable[Entry]) -> str:
        """Store the current keys with their counts, and return the manifest's name."""
        return _put_newest(self._manifests, run=run, rows=map(entry_row, entries), schema=MANIFEST_SCHEMA)

    def read_manifest(self) -> tuple[str | None, dict[str, Entry]]:
        """(name of the newest manifest, its entries by key); None and empty where there is none yet."""
        names = self._manifests.names()
        if not names:
            return None, {}
        where = self._manifests.url_of(names[-1])
        entries = (entry_from_row(row, where=where) for row in _read_table(self._manifests, names[-1]).to_pylist())
        return names[-1], {entry.key: entry for entry in entries}

    def known_entries(self, *, written: frozenset[str], made: Mapping[str, Entry] | None = None) -> dict[str, Entry]:
        """Entries of all objects that exist: from the newest manifest, and from the footers of what an interrupted run left.

        made: entries of what this run has just written, over those of the manifest.
        """
        _, entries = self.read_manifest()
        known = {key: entry for key, entry in {**entries, **(made or {})}.items() if key in written}
        rest = self.entries_from_footers([key for key in written if key not in known])
        return known | {entry.key: entry for entry in rest}

    def entries_from_footers(self, keys: Sequence[str]) -> list[Entry]:
        """Entries of objects that no manifest names, from their own footers. Objects that preln did not write are skipped;
        `preln verify` reports them."""
        with ThreadPoolExecutor(READERS) as pool:
            return [entry for entry in pool.map(self._entry_from_footer, keys) if entry is not None]

    def _entry_from_footer(self, key: str) -> Entry | None:
        """None for an object that is gone, or that preln did not write."""
        try:
            with self.data.open(key) as file:
                footer = read_footer(file)
        except (FileNotFoundError, KeyError, pa.ArrowException):
            return None
        return entry_from_footer(footer, key=key)

    def write_run(self, *, run: str, record: Mapping[str, Any]) -> None:
        """Store what a run did."""
        self._runs.put(f"{run}.json", json.dumps(record, indent=2, sort_keys=True).encode() + b"\n")

    def read_last_run(self) -> dict[str, Any] | None:
        """The newest run's record; None where there is none."""
        names = self._runs.names()
        return json.loads(self._runs.read(names[-1])) if names else None

    def read_runs(self, most: int) -> list[dict[str, Any]]:
        """The records of the last runs, newest last; at most so many."""
        return [json.loads(self._runs.read(name)) for name in self._runs.names()[-most:]]

    def write_success(self, success: Success) -> None:
        """Declare the newest plan done."""
        values = {**vars(success), "accepted_failures": list(success.accepted_failures)}
        self._root.put(SUCCESS, json.dumps(values, indent=2).encode())

    def read_success(self) -> Success | None:
        """The content of _SUCCESS; None where there is none."""
        try:
            values = json.loads(self._root.read(SUCCESS))
        except FileNotFoundError:
            return None
        values["accepted_failures"] = tuple(values.get("accepted_failures", ()))
        return from_stored(Success, values, where=self._root.url_of(SUCCESS))


def _put_newest(folder: Folder, *, run: str, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> str:
    """Store a table under the run's name, or one like it that sorts behind all that is stored, and return the file's name.

    What is written last is the newest, also where another driver began later and ended sooner, or has a fast clock.
    """
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink, compression="zstd")
    newest = max((name.removesuffix(".parquet") for name in folder.names()), default="")
    if run <= newest:
        after = datetime.strptime(newest.partition("-")[0], MOMENT).replace(tzinfo=UTC) + timedelta(microseconds=1)
        run = _moment_id(max(after, datetime.now(UTC)))
    folder.put(f"{run}.parquet", sink.getvalue())
    return f"{run}.parquet"


def _read_table(folder: Folder, name: str) -> pa.Table:
    return pq.read_table(io.BytesIO(folder.read(name)))
