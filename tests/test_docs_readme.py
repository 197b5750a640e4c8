"""README.md: its five rows are what its job answers, and its queries read an output folder."""

import re
from pathlib import Path

import duckdb
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.spec.job_spec import JobSpec
from tests.pipeline.tasks.in_process import Row, annotate
from tests.test_docs import blocks

SQL = re.compile(r"^```sql\n(.*?)^```", re.DOTALL | re.MULTILINE)
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (\w+) \| ([\d.]+) \| ?(.*?) ?\|$", re.MULTILINE)


@pytest.fixture(scope="module")
def answered(repository: Path) -> dict[str, Row]:
    """Text -> annotated row, of the README's job over the texts that its table shows."""
    page = (repository / "README.md").read_text(encoding="utf-8")
    job = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    job["model"]["checkpoint"] = str(repository / job["model"]["checkpoint"])
    rows = annotate(spec=JobSpec.parse(job), columns={"text": pa.array([match[2] for match in ROW.finditer(page)])})
    return {row["text"]: row for row in rows}


@pytest.mark.torch
def test_the_five_rows_of_the_readme_are_what_its_job_answers(repository: Path, answered: dict[str, Row]) -> None:
    page = (repository / "README.md").read_text(encoding="utf-8")
    offsets = _offsets(repository / "jobs/sample/texts.txt")
    shown = ROW.findall(page)
    assert len(shown) == 5
    for place, text, label, score, entities in shown:
        row = answered[text]
        assert (offsets[text], row["intents_label"]) == (int(place), label)
        assert row["intents_score"] == pytest.approx(float(score), abs=0.0151)
        words = [f"{one['word'].strip()} {one['entity_group']}" for one in row["entities_entities"]]
        assert words == [entity.rpartition(" ")[0] for entity in filter(None, entities.split(", "))]


def _offsets(file: Path) -> dict[str, int]:
    """Line -> the byte at which it starts."""
    found, offset = {}, 0
    for line in file.read_bytes().splitlines(keepends=True):
        found[line.decode().rstrip("\n")] = offset
        offset += len(line)
    return found


@pytest.mark.torch
def test_the_queries_of_the_readme_read_an_output_folder(
    repository: Path, answered: dict[str, Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "annotated/data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(answered.values())), tmp_path / "annotated/data/a.parquet")
    monkeypatch.chdir(tmp_path)
    wanted = {text for text, row in answered.items() if row["intents_score"] > 0.9}
    (query,) = SQL.findall((repository / "README.md").read_text(encoding="utf-8"))
    assert {text for text, _ in duckdb.connect().execute(query).fetchall()} == wanted
    programs = [block.code for block in blocks(repository / "README.md")]
    assert [program.split()[1] for program in programs] == ["polars", "pandas", "preln"]
    *_, expression = programs[1].strip().splitlines()
    assert set(eval(expression, {"pandas": pandas})["text"]) == wanted


@pytest.mark.torch
def test_the_python_of_the_readme_answers_as_its_comment_says(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    program = [block.code for block in blocks(repository / "README.md")][-1]
    *statements, last = program.strip().splitlines()
    names: dict[str, object] = {}
    exec("\n".join(statements), names)
    expression, _, comment = last.partition("  # ")
    assert repr(eval(expression, names)) == comment
