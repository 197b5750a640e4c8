"""A job on another family's checkpoint: its output and the run's record name the family."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.golden import embedders
from tests.pipeline.run_here import run_here

pytestmark = pytest.mark.torch


def test_the_footer_and_the_record_of_a_run_name_the_family(tmp_path: Path) -> None:
    embedders.write_folder(tmp_path / "model", "roberta/token-classification", {})
    (tmp_path / "in.txt").write_text("John Smith works at Microsoft.\nwolf\n")
    places = {"input": str(tmp_path / "in.txt"), "model": str(tmp_path / "model"), "output": str(tmp_path / "out")}
    report = run_here(**places, task="token-classification")
    assert report.tally.rows == 2
    out = tmp_path / "out"
    (file,) = (file for file in out.rglob("*.parquet") if not str(file.relative_to(out)).startswith("_"))
    footer = b" ".join(pq.read_schema(file).metadata.values()).decode()
    assert '"model_type":"roberta"' in footer.replace(": ", ":")
    (record,) = (out / "_runs").glob("*.json")
    assert json.loads(record.read_text(encoding="utf-8"))["model_type"] == "roberta"
