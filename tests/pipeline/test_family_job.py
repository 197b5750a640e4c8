"""A job on another family's checkpoint: its output and the run's record name the family."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import run
from pipeline.cluster.placement import Cluster
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan
from pipeline.output.sink import Receipt
from pipeline.spec.job_spec import JobSpec
from tests.golden import embedders

pytestmark = [pytest.mark.ray, pytest.mark.torch]


class Silent:
    """A watcher that needs to know nothing."""

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        pass

    def committed(self, receipt: Receipt) -> None:
        pass


@pytest.mark.usefixtures("local_ray")
def test_the_footer_and_the_record_of_a_run_name_the_family(tmp_path: Path) -> None:
    embedders.write_folder(tmp_path / "model", "roberta/token-classification", {})
    (tmp_path / "in.txt").write_text("John Smith works at Microsoft.\nwolf\n")
    places = {"input": str(tmp_path / "in.txt"), "model": str(tmp_path / "model"), "output": str(tmp_path / "out")}
    spec = JobSpec.parse({**places, "task": "token-classification"})
    report = run.annotate(spec=spec, cluster=Cluster(lambda: None), watcher=Silent())
    assert report.tally.rows == 2
    out = tmp_path / "out"
    (file,) = (file for file in out.rglob("*.parquet") if not str(file.relative_to(out)).startswith("_"))
    footer = b" ".join(pq.read_schema(file).metadata.values()).decode()
    assert '"model_type":"roberta"' in footer.replace(": ", ":")
    (record,) = (out / "_runs").glob("*.json")
    assert json.loads(record.read_text(encoding="utf-8"))["model_type"] == "roberta"
