"""Ways to break a finished output folder on purpose, with what `preln verify` must report for each."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.output.sink import read_footer, to_parquet

Objects = dict[str, bytes]
"""Everything under the output folder, by name below it."""

Again = Literal["repaired", "kept", "refused", "recounted"]
"""What the same command, with --retry-errors, makes of it: it is right again, still reported, or refused; or it passes for right
until the input is counted, as where nothing but the input says how many rows there should be."""


@dataclass(frozen=True)
class Break:
    """rule: of one finding at least; where: a part of the name it must give. again: what the same command makes of it."""

    what: str
    do: Callable[[Objects], object]
    rule: str
    where: str
    again: Again = "repaired"


def keys(objects: Objects, stem: str) -> list[str]:
    """Names of a file's objects, in order."""
    return sorted(name for name in objects if name.startswith(f"data/{stem}-"))


def first_of(objects: Objects, stem: str) -> str:
    return keys(objects, stem)[0]


def newest(objects: Objects, folder: str) -> str:
    return max(name for name in objects if name.startswith(folder))


def delete(stem: str, objects: Objects) -> None:
    del objects[first_of(objects, stem)]


def put(name: str, content: bytes, objects: Objects) -> None:
    objects[name] = content


def double(objects: Objects) -> None:
    name = first_of(objects, "a")
    objects[name.replace("data/a-", "data/z-")] = objects[name]


def truncate(objects: Objects) -> None:
    name = first_of(objects, "a")
    objects[name] = objects[name][: len(objects[name]) // 2]


def empty(objects: Objects) -> None:
    objects[first_of(objects, "a")] = b""


def swap(one: tuple[str, int], other: tuple[str, int], objects: Objects) -> None:
    names = [keys(objects, stem)[number] for stem, number in (one, other)]
    objects[names[0]], objects[names[1]] = objects[names[1]], objects[names[0]]


def flip(objects: Objects) -> None:
    """One bit of a page of the answers."""
    name = first_of(objects, "d")
    content = bytearray(objects[name])
    metadata = pq.read_metadata(io.BytesIO(bytes(content)))
    column = next(
        chunk
        for chunk in (metadata.row_group(0).column(number) for number in range(metadata.num_columns))
        if chunk.path_in_schema == "label"
    )
    content[column.data_page_offset + column.total_compressed_size // 3] ^= 1
    objects[name] = bytes(content)


def rewrite(
    stem: str,
    rows: Callable[[pa.Table], pa.Table],
    footer: Callable[[dict[str, Any]], Mapping[str, Any]],
    objects: Objects,
) -> None:
    """An object with other rows, and another footer."""
    name = first_of(objects, stem)
    old = read_footer(io.BytesIO(objects[name]))
    table = rows(pq.read_table(io.BytesIO(objects[name])))
    objects[name] = to_parquet(table, footer=footer({**old, "rows": table.num_rows}))


def same(value: Any) -> Any:
    return value


def with_footer(**values: object) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    return lambda footer: {**footer, **values}


def of_another_source(table: pa.Table) -> pa.Table:
    column = pa.array(["file:///elsewhere.parquet"] * table.num_rows)
    return table.set_column(table.column_names.index("source"), "source", column)


def shifted(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("row"), "row", pc.add(table["row"], 1_000))


def counted_labels(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("label"), "label", pa.array(range(table.num_rows), pa.int64()))


def in_table(folder: str, change: Callable[[list[dict[str, Any]]], Sequence[dict[str, Any]]], objects: Objects) -> None:
    """The newest plan or manifest with its rows changed."""
    name = newest(objects, folder)
    table = pq.read_table(io.BytesIO(objects[name]))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(change(table.to_pylist())), schema=table.schema), sink)
    objects[name] = sink.getvalue()


def of_file(suffix: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Callable[..., list[dict[str, Any]]]:
    """A change of the first row of one file."""

    def changed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        place = next(number for number, row in enumerate(rows) if row["uri"].endswith(suffix))
        return [*rows[:place], {**rows[place], **change(rows[place])}, *rows[place + 1 :]]

    return changed


def without(suffix: str) -> Callable[..., list[dict[str, Any]]]:
    return lambda rows: [row for row in rows if not row["uri"].endswith(suffix)]


def in_json(name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]], objects: Objects) -> None:
    values = json.loads(objects[name])
    objects[name] = json.dumps({**values, **change(values)}).encode()


def drop(folder: str, objects: Objects) -> None:
    for name in [name for name in objects if name.startswith(folder)]:
        del objects[name]


def late_writer(objects: Objects) -> None:
    """A task of the run before the model was fixed puts its object: the same rows, one of them with an error."""

    def bad(table: pa.Table) -> pa.Table:
        errors = [{"reason": "nan", "message": "late"}, *[None] * (table.num_rows - 1)]
        place = table.column_names.index("error")
        return table.set_column(place, "error", pa.array(errors, table.schema.field("error").type))

    rewrite("d", bad, with_footer(errors={"nan": 1}), objects)


def garble(folder: str, objects: Objects) -> None:
    objects[newest(objects, folder)] = b"no such file"


def rename(objects: Objects) -> None:
    name = first_of(objects, "a")
    objects[name.replace("-000000000000-", "-000000000001-")] = objects.pop(name)


DROP_ROW = partial(rewrite, "a", lambda table: table.slice(1))
TWICE = partial(rewrite, "a", lambda table: pa.concat_tables([table.slice(0, 1), table]))

BREAKS = [
    Break("an object is deleted", partial(delete, "a"), "complete", "a.parquet"),
    Break(
        "the last object of a stream is deleted",
        lambda objects: objects.pop(keys(objects, "c")[-1]),
        "complete",
        "c.txt.gz",
    ),
    Break("an object is there under another name too", double, "owner", "z-0", "kept"),
    Break("an object is renamed", rename, "owner", "-000000000001-", "kept"),
    Break("an object is truncated", truncate, "readable", "a-0"),
    Break("an object is empty", empty, "readable", "a-0"),
    Break("a bit of a page of answers is flipped", flip, "readable", "d-0", "kept"),
    Break("two objects of one file are swapped", partial(swap, ("a", 0), ("a", 1)), "manifest", "a-0"),
    Break("two objects of two files are swapped", partial(swap, ("a", 0), ("d", 0)), "manifest", "d-0"),
    Break("a row is missing, and its footer agrees", partial(DROP_ROW, same), "rows", "a.parquet"),
    Break("a row is missing, and its footer does not know", partial(DROP_ROW, with_footer(rows=3)), "footer", "a-0"),
    Break(
        "a row of lines is missing",
        partial(rewrite, "d", lambda table: table.slice(1), same),
        "manifest",
        "d-0",
        "recounted",
    ),
    Break("a row is there twice", partial(TWICE, same), "order", "a-0"),
    Break("the rows are of another file", partial(rewrite, "a", of_another_source, same), "footer", "a-0", "kept"),
    Break("the rows are of another range", partial(rewrite, "a", shifted, same), "footer", "a-0", "kept"),
    Break("the answers have another type", partial(rewrite, "a", counted_labels, same), "schema", "a-0", "kept"),
    Break(
        "a carried column is missing",
        partial(rewrite, "a", lambda t: t.drop_columns(["text"]), same),
        "schema",
        "a-0",
        "kept",
    ),
    Break(
        "the column of errors is missing",
        partial(rewrite, "a", lambda t: t.drop_columns(["error"]), same),
        "readable",
        "a-0",
        "kept",
    ),
    Break(
        "the footer is of another job",
        partial(rewrite, "a", same, with_footer(fingerprint="0" * 32)),
        "fingerprint",
        "a-0",
    ),
    Break(
        "the footer counts other errors", partial(rewrite, "a", same, with_footer(errors={"nan": 2})), "footer", "a-0"
    ),
    Break("a late writer puts an older object", late_writer, "manifest", "d-0"),
    Break(
        "another program's Parquet is in data/",
        partial(put, "data/foreign.parquet", b"PAR1"),
        "owner",
        "foreign",
        "kept",
    ),
    Break("another program's text is in data/", partial(put, "data/notes.txt", b"x"), "owner", "notes.txt", "kept"),
    Break("there is a folder in data/", partial(put, "data/x.parquet/part", b"x"), "owner", "x.parquet", "kept"),
    Break("the manifest lacks an object", partial(in_table, "_manifest", lambda rows: rows[1:]), "owner", "-0"),
    Break(
        "the manifest counts other rows",
        partial(in_table, "_manifest", of_file("a.parquet", lambda row: {"rows": 2})),
        "manifest",
        "a-0",
    ),
    Break(
        "the manifest counts other errors",
        partial(in_table, "_manifest", of_file("a.parquet", lambda row: {"errors": [("nan", 3)]})),
        "manifest",
        "a-0",
        "kept",
    ),
    Break(
        "the manifest has another range",
        partial(in_table, "_manifest", of_file("a.parquet", lambda row: {"stop": 2})),
        "manifest",
        "a-0",
    ),
    Break(
        "the manifest names an object twice",
        partial(in_table, "_manifest", lambda rows: [*rows, rows[0]]),
        "manifest",
        "twice",
        "refused",
    ),
    Break("the manifest is gone", partial(drop, "_manifest"), "manifest", "_manifest"),
    Break("the manifest can't be read", partial(garble, "_manifest"), "manifest", "not as preln wrote it", "refused"),
    Break("_SUCCESS counts other rows", partial(in_json, "_SUCCESS", lambda _: {"rows": 1}), "success", "rows is 1"),
    Break("_SUCCESS counts other files", partial(in_json, "_SUCCESS", lambda _: {"files": 1}), "success", "files is 1"),
    Break(
        "_SUCCESS is of another manifest",
        partial(in_json, "_SUCCESS", lambda _: {"manifest": "m"}),
        "success",
        "manifest is m",
    ),
    Break(
        "_SUCCESS is of an older plan", partial(in_json, "_SUCCESS", lambda _: {"plan": "p"}), "success", "plan is p"
    ),
    Break("_SUCCESS is a list", partial(put, "_SUCCESS", b"[]"), "success", "not as preln wrote it", "refused"),
    Break("_SUCCESS is gone", partial(drop, "_SUCCESS"), "success", "is missing"),
    Break(
        "a plan says other rows",
        partial(in_table, "_plans/0", of_file("a.parquet", lambda _: {"rows": 8})),
        "plan",
        "a.parquet",
        "kept",
    ),
    Break(
        "a plan lacks a shard",
        partial(in_table, "_plans/0", of_file("a.parquet", lambda row: {"shards": row["shards"][:1]})),
        "plan",
        "a.parquet",
        "kept",
    ),
    Break(
        "a plan names another shard",
        partial(
            in_table,
            "_plans/0",
            of_file("a.parquet", lambda row: {"shards": [{**row["shards"][0], "key": "k"}, *row["shards"][1:]]}),
        ),
        "plan",
        "a.parquet",
        "kept",
    ),
    Break(
        "a plan reads a file in another format",
        partial(in_table, "_plans/0", of_file("c.txt.gz", lambda _: {"format": "jsonl"})),
        "reading",
        "c-0",
    ),
    Break(
        "a plan has another version of a file",
        partial(in_table, "_plans/0", of_file("c.txt.gz", lambda _: {"version": "v"})),
        "plan",
        "c-0",
    ),
    Break("a plan lacks a file", partial(in_table, "_plans/0", without("c.txt.gz")), "plan", "c-0"),
    Break("a plan is gone", partial(drop, "_plans/0"), "plan", "c-0"),
    Break("a plan can't be read", partial(garble, "_plans/0"), "plan", "not as preln wrote it", "refused"),
    Break(
        "_job.json has another fingerprint",
        partial(in_json, "_job.json", lambda _: {"fingerprint": "0" * 32}),
        "job",
        "_job.json",
        "kept",
    ),
    Break(
        "_job.json has another identity",
        partial(in_json, "_job.json", lambda job: {"identity": {**job["identity"], "x": 1}}),
        "job",
        "_job.json",
        "refused",
    ),
    Break("a run's record can't be read", partial(garble, "_runs"), "run", "not as preln wrote it", "repaired"),
]
