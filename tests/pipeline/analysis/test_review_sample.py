"""Rows for review are drawn with known probabilities, the same ones whatever the cut, with their texts and answers."""

import gzip
import json
import shutil
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from jobs.embedded import DEMO, SAMPLE
from pipeline.analysis.error_rate import Design
from pipeline.analysis.review_sample import OTHER, allocation, review_sample
from pipeline.errors import OutputError, SourceError, SpecError
from tests.pipeline.outputs import demo_job
from tests.pipeline.run_here import run_here


def rows_of(output: str) -> dict[tuple[str, int], dict[str, object]]:
    """All rows of an output, by source and row."""
    return {(row["source"], row["row"]): row for row in ds.dataset(f"{output}/data").to_table().to_pylist()}


@pytest.mark.torch
@pytest.mark.parametrize("design", ["random", "uncertain", "stratified"])
def test_drawn_rows_have_their_own_text_and_answer_and_weigh_as_much_as_the_population(
    design: Design, demo_output: str
) -> None:
    everything = rows_of(demo_output)
    found = review_sample(demo_output, rows=40, design=design, seed=5, task="intents")
    assert found.population == len(everything)
    assert len({(row.source, row.row) for row in found.rows}) == len(found.rows) == 40
    for row in found.rows:
        stored = everything[row.source, row.row]
        assert row.texts == {"text": stored["text"]}
        assert row.prediction == stored["intents_label"]
        assert row.score == pytest.approx(stored["intents_score"])
    total = sum(row.weight for row in found.rows)
    if design == "uncertain":
        assert total == pytest.approx(found.population, rel=0.5)
        least = min(found.rows, key=lambda row: row.score), max(found.rows, key=lambda row: row.score)
        assert least[0].weight < least[1].weight
    else:
        assert total == pytest.approx(found.population)
    assert sum(found.strata.values()) == found.population
    assert (OTHER in found.strata) == (design == "stratified")  # more intents than 20 strata of 2 rows
    assert {row.prediction for row in found.rows} <= set(found.labels)
    assert "accept_reservations" in found.labels  # of the checkpoint, though no row has it


@pytest.mark.torch
def test_the_same_seed_draws_the_same_rows_however_the_shards_are_cut(tmp_path: Path, demo_output: str) -> None:
    cut = demo_job(tmp_path / "out", rows=23, tasks={"entities": {"name": "token-classification", "min_score": 0.6}})
    designs: tuple[Design, ...] = ("random", "stratified")
    for design in designs:
        one, other = (review_sample(out, rows=30, design=design, seed=1, task="entities") for out in (demo_output, cut))
        assert one.rows == other.rows
        assert one.rows != review_sample(cut, rows=30, design=design, seed=2).rows
        assert {"PER", "LOC", "ORG"} <= set(one.labels)


@pytest.mark.torch
def test_texts_that_are_not_carried_are_read_from_the_input_again(tmp_path: Path, demo_output: str) -> None:
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(SAMPLE / "texts.parquet", source)
    lines = (SAMPLE / "texts.jsonl").read_text()
    with gzip.open(source / "texts.jsonl.gz", "wt") as stream:
        stream.write(lines)
    job = {
        "input": {"urls": str(source), "columns": {"context": "text"}, "keep": []},
        "model": {"checkpoint": str(DEMO), "dtype": "float32"},
        "tasks": {"questions": {"name": "question-answering", "question": "Where?", "allow_null": True}},
        "resources": {"gpus": 0},
        "shards": {"rows": 40},
    }
    output = str(tmp_path / "out")
    run_here(**job, output=output)
    found = review_sample(output, rows=30)
    assert found.read_again
    texts = {json.loads(line)["text"] for line in lines.splitlines()}
    gz = [row for row in found.rows if row.source.endswith(".gz")]
    assert gz
    assert all(row.texts["context"] in texts and row.texts["question"] == "Where?" for row in gz)
    for row in found.rows:
        for span in row.prediction:
            assert row.texts["context"][span["start"] : span["end"]] == span["text"]
    (source / "texts.parquet").unlink()
    with pytest.raises(SourceError, match="the file is gone"):
        review_sample(output, rows=30)


@pytest.mark.torch
def test_what_can_not_be_judged_is_refused_in_one_line(demo_output: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a person can't judge the answers of fill-mask"):
        review_sample(demo_output, rows=5, task="masks")
    with pytest.raises(SpecError, match="choose one with --task"):
        review_sample(demo_output, rows=5)
    with pytest.raises(SpecError, match="the job has no such task"):
        review_sample(demo_output, rows=5, task="topics")
    with pytest.raises(OutputError, match="nothing was annotated"):
        review_sample(str(tmp_path), rows=5)


def test_small_strata_give_all_they_have_and_the_rest_goes_to_the_others() -> None:
    assert allocation({"a": 1, "b": 100, "c": 100}, rows=31) == {"a": 1, "b": 15, "c": 15}
    assert allocation({"a": 2, "b": 3}, rows=100) == {"a": 2, "b": 3}
