"""An input of very many columns takes time in proportion to them: where all columns are gone through, no name is looked up in a
list that is made anew, and no table is made of another with one column more."""

import ast
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline.output.verify import verify
from pipeline.spec.job_spec import JobSpec
from pipeline.spec.settings import override
from tests.pipeline.bad_run import annotate, job_values

COLUMNS = 400
ROWS = 6
LISTS = ("names", "column_names")
"""Properties of Arrow's that make a new list at each look."""
SETS = ("carried",)
"""What has such a property too, and it is a set (`conform.Carried`)."""
OVER_ALL_COLUMNS = ("reading/formats", "reading/schema.py", "reading/source.py", "output", "prepare.py", "decode.py")
"""Where the loops are over an input's columns; elsewhere they are over a task's few."""
REBUILDING = ("append_column", "set_column", "add_column", "remove_column")
LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def repeated(loop: ast.AST) -> list[ast.AST]:
    """What a loop does once for each step: not what it is over."""
    if isinstance(loop, ast.For):
        return list(loop.body)
    if isinstance(loop, ast.While):
        return [loop.test, *loop.body]
    assert isinstance(loop, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp)
    values = [loop.key, loop.value] if isinstance(loop, ast.DictComp) else [loop.elt]
    first, *rest = loop.generators
    return [*values, *first.ifs, *rest]


def quadratic(source: str) -> list[int]:
    """Lines of code that take as long as there are columns, and are run for each."""
    found = set()
    for loop in (node for node in ast.walk(ast.parse(source)) if isinstance(node, LOOPS)):
        for node in (inner for part in repeated(loop) for inner in ast.walk(part)):
            searches = isinstance(node, ast.Compare) and any(
                isinstance(where, ast.Attribute) and where.attr in LISTS and ast.unparse(where.value) not in SETS
                for kind, where in zip(node.ops, node.comparators, strict=True)
                if isinstance(kind, ast.In | ast.NotIn)
            )
            rebuilds = (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in REBUILDING
            )
            if isinstance(node, ast.expr) and (searches or rebuilds):
                found.add(node.lineno)
    return sorted(found)


def test_a_search_or_a_rebuilding_in_a_loop_is_found() -> None:
    code = "for name in a.names:\n  b(name in c.names)\n[x for x in y if x not in s.column_names]\nwhile t:\n  t.append_column(1)"
    assert quadratic(code) == [2, 3, 5]
    assert quadratic("known = set(s.names)\n[x for x in s.names if x in known]\ny in s.names\nt.append_column(1)") == []


def test_nothing_is_done_for_each_column_that_takes_as_long_as_there_are_columns(repository: Path) -> None:
    places = [repository / "pipeline" / place for place in OVER_ALL_COLUMNS]
    files = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
    assert len(files) > 20
    assert {f"{file}:{line}" for file in files for line in quadratic(file.read_text())} == set()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_every_one_of_hundreds_of_columns_is_carried(tmp_path: Path, suffix: str) -> None:
    """Of JSON lines every third column is of several types, and carried as JSON text."""
    names = [f"c{number}" for number in range(COLUMNS)]
    (tmp_path / "in").mkdir()
    path = tmp_path / f"in/a.{suffix}"
    if suffix == "jsonl":
        rows = [
            {
                "text": f"text {row}",
                **{name: row if number % 3 or row % 2 else {"a": [row]} for number, name in enumerate(names)},
            }
            for row in range(ROWS)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        table = pa.table(
            {"text": [f"text {row}" for row in range(ROWS)], **{name: list(range(ROWS)) for name in names}}
        )
        pq.write_table(table, path) if suffix == "parquet" else pc.write_csv(table, path)
    report = annotate(JobSpec.parse(override(values=job_values(tmp_path), flags=[])))
    assert (report.state, report.total_rows) == ("done", ROWS)
    found = ds.dataset(tmp_path / "out/data", format="parquet").to_table()
    assert found.column_names[1 : COLUMNS + 1] == names
    assert [str(value) for value in found["c1"].to_pylist()] == [str(row) for row in range(ROWS)]
    if suffix == "jsonl":
        assert [json.loads(value) for value in found["c0"].to_pylist()] == [{"a": [0]}, 1, {"a": [2]}, 3, {"a": [4]}, 5]
    assert verify(str(tmp_path / "out")).findings == ()
