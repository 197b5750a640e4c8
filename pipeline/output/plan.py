"""What a run has to do for the input as it is now: new and changed files, and shards that are missing.

The dataset is cumulative: the newest version of every input file ever planned. An input that is no longer there keeps its
rows; one that changed gets new shards, and its old ones go when all the new ones exist.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import OutputError
from pipeline.output.folder import OutputFolder
from pipeline.output.job import FORMAT_KEY, FrozenJob
from pipeline.output.records import Entry, PlannedFile
from pipeline.output.sink import Receipt
from pipeline.plurals import counted
from pipeline.reading.inputs import Described, describe, format_by_name, list_files
from pipeline.shards import (
    COLUMNAR,
    Shard,
    SourceFile,
    Stream,
    Work,
    cut_bytes,
    cut_rows,
    key_stem,
    parts_of,
    shard_key,
)
from pipeline.store.storage import exists


@dataclass(frozen=True)
class Plan:
    """What one run would do.

    changes: files that are new or another version than planned before. current: every file of the dataset by URL, changes
    included. entries: of the objects under data/ that hold what their names say. written: their keys. work: what is missing,
    in order. ignored: input files of no known format. name: of the newest plan stored so far. notes: what else the user
    should know of the input.
    """

    changes: Sequence[PlannedFile]
    current: Mapping[str, PlannedFile]
    written: frozenset[str]
    entries: Mapping[str, Entry]
    work: Sequence[Work]
    ignored: Sequence[str]
    name: str | None
    notes: Sequence[str] = ()

    @property
    def unreadable(self) -> list[PlannedFile]:
        """Files that could not even be looked at."""
        return [planned for planned in self.current.values() if planned.failure is not None]

    @property
    def missing_bytes(self) -> int:
        """Bytes of input that are still to be read, about."""
        return sum(item.size if isinstance(item, Shard) else item.file.size for item in self.work)

    @property
    def missing_rows(self) -> int | None:
        """Rows still to be annotated; None where only reading tells."""
        if any(isinstance(item, Stream) or item.file.format != "parquet" for item in self.work):
            return None
        return sum(item.stop - item.first for item in self.work if isinstance(item, Shard))


def make_plan(
    *,
    folder: OutputFolder,
    job: FrozenJob,
    described: Sequence[Described] | None = None,
    retry_errors: bool = False,
    prune: bool = False,
) -> Plan:
    """What is to be done for the input as it is now. Raises SpecError where it matches nothing.

    described: the files if they were looked at already. retry_errors: shards with error rows, empty texts apart, are
    missing too. prune: files that are gone are removed.
    """
    name, plans = folder.read_plans()
    known = newest(plans)
    listing = list_files(job.spec.input, output=folder.url, known=known)
    refuse_other_formats(job=job, known=known.values(), listed=listing.files)
    fresh = [file for file in listing.files if _is_new(file, known.get(file.uri))]
    looked_at = {item.file.uri: item for item in described or ()}
    cuts = [cut(item, job=job) for item in _described(fresh, looked_at)]
    changes = [planned for planned in cuts if known.get(planned.file.uri) != planned]
    if prune:
        changes += removals(known, listed={file.uri for file in listing.files})
    current = newest([[*known.values(), *changes]])
    objects = folder.objects()
    known_entries = folder.known_entries(objects=objects, fingerprint=job.fingerprint)
    entries = as_planned(known_entries, plans=[*plans, changes], fingerprint=job.fingerprint)
    written = frozenset(entries)
    broken = [key for file in current.values() for _, _, key in file.shards or () if key in objects.keys() - entries]
    standing = written - {key for key, entry in entries.items() if entry.error_rows} if retry_errors else written
    return Plan(
        changes=changes,
        current=current,
        written=written,
        entries=entries,
        work=list(missing_work(current=current.values(), written=standing, entries=entries)),
        ignored=listing.ignored,
        name=name,
        notes=[*listing.notes, *_broken_objects(broken)],
    )


def as_planned(
    entries: Mapping[str, Entry], *, plans: Sequence[Sequence[PlannedFile]], fingerprint: str
) -> dict[str, Entry]:
    """The entries of objects that are what their names say: a range of a planned file, read as the plan says.

    An object of any other content under one of our names is no commit: the shard is missing.
    """
    planned: dict[tuple[str, str], set[SourceFile]] = {}
    for file in (one.file for plan in plans for one in plan):
        planned.setdefault((file.uri, file.version), set()).add(file)

    def is_as_planned(entry: Entry) -> bool:
        return any(
            shard_key(file=file, first=entry.first, stop=entry.stop, fingerprint=fingerprint) == entry.key
            and (file.format not in COLUMNAR or entry.rows == entry.stop - entry.first)
            for file in planned.get((entry.uri, entry.version), ())
        )

    return {key: entry for key, entry in entries.items() if is_as_planned(entry)}


def _broken_objects(keys: Sequence[str]) -> list[str]:
    if not keys:
        return []
    return [
        f"{counted(len(keys), 'object')} under data/, such as {keys[0]}, did not hold the rows that the name says; written again"
    ]


def refuse_other_formats(*, job: FrozenJob, known: Iterable[PlannedFile], listed: Sequence[SourceFile]) -> None:
    """Raise OutputError where this command would read files in another format than those of the folder: their rows would be
    there twice. A format that is named is the same as `auto` where that comes to it for every file."""
    there, here = job.identity.get(FORMAT_KEY, "auto"), job.spec.input.format
    if there == here:
        return
    named = here if there == "auto" else there
    other = [planned.file for planned in known if planned.file.format != named]
    other += [file for file in listed if format_by_name(file.uri) != named]
    if other:
        raise OutputError(
            f"{job.output} holds another job's rows: input.format is {there} there and {here} here, which is not the same for "
            f"{other[0].uri}. Choose another output, or the same settings"
        )


def removals(known: Mapping[str, PlannedFile], *, listed: set[str]) -> list[PlannedFile]:
    """Files of the dataset that do not exist any more; one that this job's input merely does not name stays."""
    return [replace(planned, removed=True) for uri, planned in known.items() if uri not in listed and not exists(uri)]


def _is_new(file: SourceFile, known: PlannedFile | None) -> bool:
    return known is None or known.failure is not None or known.file != file


def _described(files: Sequence[SourceFile], looked_at: Mapping[str, Described]) -> list[Described]:
    rest = describe([file for file in files if file.uri not in looked_at])
    by_uri = {**looked_at, **{item.file.uri: item for item in rest}}
    return [by_uri[file.uri] for file in files]


def cut(described: Described, *, job: FrozenJob) -> PlannedFile:
    """A file with its shards, as far as they are known before reading."""
    file = described.file
    if described.failure is not None:
        return PlannedFile(file=file, rows=None, shards=None, failure=str(described.failure))
    if file.sequential:
        return PlannedFile(file=file, rows=None, shards=None)
    if described.rows is not None:
        size = described.bytes or file.size
        shards = cut_rows(file=file, rows=described.rows, size=size, rule=job.cut, fingerprint=job.fingerprint)
    else:
        shards = cut_bytes(file=file, rule=job.cut, fingerprint=job.fingerprint)
    return PlannedFile(
        file=file, rows=described.rows, shards=tuple((shard.first, shard.stop, shard.key) for shard in shards)
    )


def missing_work(
    *, current: Iterable[PlannedFile], written: frozenset[str], entries: Mapping[str, Entry]
) -> Iterable[Work]:
    """Shards that are not written, and files read in sequence that are not known to be written to their end."""
    of_stream: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries.values():
        of_stream.setdefault((entry.uri, entry.version), []).append(entry)
    by_stem: dict[str, list[str]] = {}
    for key in written:
        by_stem.setdefault(key.rsplit("-", 2)[0], []).append(key)
    for planned in current:
        if planned.failure is not None:
            continue
        if planned.shards is not None:
            yield from (shard for shard in known_shards(planned) if shard.key not in written)
            continue
        known = of_stream.get((planned.file.uri, planned.file.version), [])
        if not is_whole(planned, [entry for entry in known if entry.key in written]):
            done = by_stem.get(key_stem(planned.file.uri), ())
            yield Stream(file=planned.file, done=frozenset(done))


def cut_again(
    receipts: Sequence[Receipt], *, folder: OutputFolder, fingerprint: str
) -> tuple[list[PlannedFile], list[Shard]]:
    """(files whose plan is another now, the parts to read) of shards that were too large for one, as their receipts say.

    Where another driver has cut a shard meanwhile, its cut stands. A file that is planned otherwise by now has no parts.
    """
    current, changed, parts = newest(folder.read_plans()[1]), dict[str, PlannedFile](), list[Shard]()
    by_file: dict[str, list[Receipt]] = {}
    for receipt in receipts:
        by_file.setdefault(receipt.shard.file.uri, []).append(receipt)
    for uri, of_file in by_file.items():
        planned = current.get(uri)
        if planned is None or planned.file != of_file[0].shard.file:
            continue
        cut = {receipt.shard.key: parts_of(receipt.shard, receipt.cuts, fingerprint=fingerprint) for receipt in of_file}
        shards: list[tuple[int, int, str]] = []
        for first, stop, key in planned.shards or ():
            shards += [(part.first, part.stop, part.key) for part in cut[key]] if key in cut else [(first, stop, key)]
        again = replace(planned, shards=tuple(shards))
        if again != planned:
            changed[uri] = again
        ranges = [(receipt.shard.first, receipt.shard.stop) for receipt in of_file]
        parts += [shard for shard in known_shards(again) if any(first <= shard.first < stop for first, stop in ranges)]
    return list(changed.values()), parts


def newest(plans: Sequence[Sequence[PlannedFile]]) -> dict[str, PlannedFile]:
    """The newest version of every file that was ever planned, by URL, less those that were removed."""
    files = {planned.file.uri: planned for plan in plans for planned in plan}
    return {uri: planned for uri, planned in files.items() if not planned.removed}


def is_whole(planned: PlannedFile, entries: Sequence[Entry]) -> bool:
    """Whether a file's objects cover it: all its planned shards, or an unbroken chain from its beginning to its last record."""
    if planned.failure is not None:
        return False
    if planned.shards is not None:
        return {key for _, _, key in planned.shards} <= {entry.key for entry in entries}
    reached = 0
    for entry in sorted(entries, key=lambda entry: entry.first):
        if entry.first != reached:
            return False
        reached = entry.stop
        if entry.last:
            return True
    return False


def known_shards(planned: PlannedFile) -> list[Shard]:
    """The shards of a file whose ranges the plan holds."""
    shards = planned.shards or ()
    span = (shards[-1][1] - shards[0][0]) if shards else 1
    per_unit = planned.file.size / max(span, 1)
    return [Shard(planned.file, first, stop, key, int((stop - first) * per_unit)) for first, stop, key in shards]
