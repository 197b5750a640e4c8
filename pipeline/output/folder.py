"""An output folder: the one job it is frozen to, its plans, objects, manifests, runs and success marker.

data/{stem}-{first}-{digest}.parquet   one shard, whole; its existence is the commit
_job.json                              the resolved job; put if absent, then frozen
_plans/ _manifest/ _runs/              what each run found, what is current, what it did
_SUCCESS                               everything planned is there
_accept/                               labelled rows with their answers, where a task accepts labels

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
from pipeline.output.sink import footer_of
from pipeline.output.stored import from_stored
from pipeline.spec.accepts import certificates_of, with_certificates
from pipeline.store.folder import Folder
from pipeline.store.storage import readable
from pipeline.tasks.acceptance import THRESHOLD

SUCCESS = "_SUCCESS"
READERS = 32
REMOVE = "remove it, and run annotate again"
NO_PLAN = "restore it from a copy, or choose another output folder"
"""The next step where a record can't be read: all but plans can be made again."""
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
        first = certificates_of(frozen.spec)
        # Two drivers may certify thresholds that differ in the last digit: the first one's is the job's.
        thresholds = {
            key: frozen.identity[key] for key in job.identity if key.endswith(THRESHOLD) and key in frozen.identity
        }
        refuse_another(frozen=frozen, identity={**job.identity, **thresholds}, output=self.url)
        return replace(frozen, spec=with_certificates(job.spec, first))

    def sweep(self) -> None:
        """Remove what a killed process left half written; only local disks keep such files."""
        for folder in (self._root, self.data, self._plans, self._manifests, self._runs):
            folder.sweep()

    def write_plan(self, *, run: str, files: Sequence[PlannedFile]) -> str:
        """Store what a run found new or changed, and return the plan's name. _SUCCESS does not cover it, and goes."""
        self.withdraw_success()
        return _put_newest(self._plans, run=run, rows=map(planned_row, files), schema=PLAN_SCHEMA)

    def read_plans(self) -> tuple[str | None, list[list[PlannedFile]]]:
        """(name of the newest plan, all plans from the oldest to the newest)."""
        names = _tables_in(self._plans)
        with ThreadPoolExecutor(READERS) as pool:
            tables = list(pool.map(lambda name: _read_table(self._plans, name, fix=NO_PLAN), names))
        return (names[-1] if names else None), [
            [planned_from_row(row, where=self._plans.url_of(name)) for row in table.to_pylist()]
            for name, table in zip(names, tables, strict=True)
        ]

    def objects(self) -> dict[str, str]:
        """The version of each object under `data/` by its key, by one listing; an empty file is no object.

        A version that is only a size tells nothing, and is given as an empty text.
        """
        return {
            name: entry.version if entry.version != str(entry.size) else ""
            for name, entry in self.data.listed().items()
            if _is_table(name) and entry.size and not entry.folder
        }

    def written_keys(self) -> frozenset[str]:
        """Keys of the objects under `data/`, by one listing."""
        return frozenset(self.objects())

    def write_manifest(self, *, run: str, entries: Iterable[Entry]) -> str:
        """Store the current keys with their counts, and return the manifest's name."""
        return _put_newest(self._manifests, run=run, rows=map(entry_row, entries), schema=MANIFEST_SCHEMA)

    def read_manifest(self) -> tuple[str | None, dict[str, Entry]]:
        """(name of the newest manifest, its entries by key); None and empty where there is none yet."""
        names = _tables_in(self._manifests)
        if not names:
            return None, {}
        where = self._manifests.url_of(names[-1])
        rows = _read_table(self._manifests, names[-1], fix=REMOVE).to_pylist()
        entries = {entry.key: entry for entry in (entry_from_row(row, where=where) for row in rows)}
        if len(entries) != len(rows):
            raise _unreadable(self._manifests, names[-1], "it names an object twice", fix=REMOVE)
        return names[-1], entries

    def known_entries(self, *, objects: Mapping[str, str], fingerprint: str) -> dict[str, Entry]:
        """Entries of all objects that exist: from the newest manifest where it has the object as it is now, else from its own
        footer, since whoever wrote the object last decides what is in it.

        objects: as listed. fingerprint: of the job; objects of another are left out, as is what can't be read.
        """
        _, stored = self.read_manifest()
        known = {key: entry for key, entry in stored.items() if entry.object and entry.object == objects.get(key)}
        rest = {key: version for key, version in objects.items() if key not in known}
        return known | self.entries_from_footers(rest, fingerprint=fingerprint)

    def entries_from_footers(self, objects: Mapping[str, str], *, fingerprint: str) -> dict[str, Entry]:
        """Entries of objects, given with their versions, from their own footers. Objects that preln did not write for this job
        are skipped; `preln verify` reports them."""
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda key: self._entry_from_footer(key, objects[key], fingerprint), objects)
            return {entry.key: entry for entry in found if entry is not None}

    def _entry_from_footer(self, key: str, version: str, fingerprint: str) -> Entry | None:
        """None for an object that is gone, that can't be read, or that preln did not write for this job."""
        try:
            with self.data.open(key) as file:
                metadata = pq.read_metadata(file)
            footer = footer_of(metadata)
        except (
            KeyError,
            ValueError,
            OSError,
            pa.ArrowException,
        ):  # OSError: it is gone, or Arrow can't read its footer
            return None
        if footer.get("fingerprint", fingerprint) != fingerprint or footer.get("rows") != metadata.num_rows:
            return None
        return entry_from_footer(footer, key=key, version=version)

    def write_run(self, *, run: str, record: Mapping[str, Any]) -> None:
        """Store what a run did."""
        self._runs.put(f"{run}.json", json.dumps(record, indent=2, sort_keys=True).encode() + b"\n")

    def read_last_run(self) -> dict[str, Any] | None:
        """The newest run's record; None where there is none."""
        names = [name for name in self._runs.names() if name.endswith(".json") and not name.startswith((".", "_"))]
        return _read_json(self._runs, names[-1]) if names else None

    def read_runs(self, most: int) -> list[dict[str, Any]]:
        """The records of the last runs, newest last; at most so many."""
        return [json.loads(self._runs.read(name)) for name in self._runs.names()[-most:]]

    def write_success(self, success: Success) -> None:
        """Declare the newest plan done."""
        values = {**vars(success), "accepted_failures": list(success.accepted_failures)}
        self._root.put(SUCCESS, json.dumps(values, indent=2).encode())

    def withdraw_success(self) -> None:
        """Remove _SUCCESS: the dataset is not what it says."""
        self._root.delete([SUCCESS])

    def read_success(self) -> Success | None:
        """The content of _SUCCESS; None where there is none."""
        try:
            values = _read_json(self._root, SUCCESS)
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
    newest = max((name.removesuffix(".parquet") for name in _tables_in(folder)), default="")
    if run <= newest:
        try:
            after = datetime.strptime(newest.partition("-")[0], MOMENT).replace(tzinfo=UTC) + timedelta(microseconds=1)
        except ValueError:
            raise OutputError(
                f"{folder.url_of(newest)}.parquet: not a name that preln gives; remove the file"
            ) from None
        run = _moment_id(max(after, datetime.now(UTC)))
    folder.put(f"{run}.parquet", sink.getvalue())
    return f"{run}.parquet"


def _is_table(name: str) -> bool:
    """Whether preln wrote a file of this name, and not the system beside it (`.DS_Store`) or another program."""
    return name.endswith(".parquet") and not name.startswith((".", "_"))


def _tables_in(folder: Folder) -> list[str]:
    return [name for name, entry in folder.listed().items() if _is_table(name) and not entry.folder]


def _read_table(folder: Folder, name: str, *, fix: str) -> pa.Table:
    """Raises OutputError."""
    try:
        return pq.read_table(io.BytesIO(folder.read(name)))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(folder, name, error, fix=fix) from error


def _read_json(folder: Folder, name: str) -> dict[str, Any]:
    """Raises OutputError, FileNotFoundError."""
    try:
        values = json.loads(folder.read(name))
    except (ValueError, RecursionError) as error:
        raise _unreadable(folder, name, error, fix=REMOVE) from error
    if not isinstance(values, dict):
        raise _unreadable(folder, name, f"a JSON {type(values).__name__}", fix=REMOVE)
    return values


def _unreadable(folder: Folder, name: str, why: object, *, fix: str) -> OutputError:
    shown = " ".join(str(why).split())[:200]
    return OutputError(f"{folder.url_of(name)}: not as preln wrote it ({shown}); {fix}")
