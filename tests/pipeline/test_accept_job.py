"""A job that accepts labels on Ray, its labelled rows on S3: certified once, before the first row, by the real replicas."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

import preln
from pipeline import run
from pipeline.cluster.placement import Cluster
from pipeline.errors import OutputError
from pipeline.output.folder import OutputFolder
from pipeline.output.report import Report
from pipeline.spec.accepts import certificates_of
from pipeline.spec.job_spec import JobSpec
from tests.pipeline.small import CHECKPOINT
from tests.pipeline.test_certification import TEXTS, labelled

pytestmark = [pytest.mark.ray, pytest.mark.torch, pytest.mark.storage]
__all__ = ["labelled"]


@pytest.mark.usefixtures("local_ray")
def test_a_job_is_certified_once_and_every_later_run_goes_by_it(tmp_path: Path, labelled: Path, s3_bucket: str) -> None:
    address = f"{s3_bucket}/labelled.parquet"
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    store.put_file(str(labelled), address)
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": [*TEXTS[:60], None]}), tmp_path / "in/a.parquet")
    wish = {"error_rate": 0.1, "calibration": address, "label": "truth"}
    values: dict[str, Any] = {
        "input": str(tmp_path / "in"),
        "model": {"checkpoint": CHECKPOINT, "dtype": "float32"},
        "tasks": {"mine": {"name": "text-classification", "accept": wish}},
        "output": str(tmp_path / "out"),
        "resources": {"replicas": 1},
    }
    said: list[str] = []

    def ran() -> Report:
        return run.annotate(
            spec=JobSpec.parse(values), cluster=Cluster(lambda: None, say=said.append), watcher=run.Unwatched()
        )

    first = ran()
    (certificate,) = certificates_of(first.job.spec).values()
    assert first.state == "done"
    assert certificate.threshold is not None
    assert said == ["accept: answering its labelled rows first, to find the threshold"]
    assert next(note for note in first.notes if "accepted" in note).startswith(
        "tasks.mine: labels with a score of at least"
    )
    assert first.job.identity["tasks.mine.accept's threshold"] == certificate.threshold

    pq.write_table(pa.table({"text": TEXTS[60:]}), tmp_path / "in/b.parquet")
    later = ran()
    assert said == said[:1], "the stored threshold is used, and no labelled row is answered again"
    assert later.job.fingerprint == first.job.fingerprint
    folder = OutputFolder(first.job.output)
    rows = pa.concat_tables(pq.read_table(tmp_path / "out/data" / key) for key in sorted(folder.written_keys()))
    answered = rows.filter(rows["mine_score"].is_valid())
    above = answered["mine_score"].to_numpy() >= np.float32(certificate.threshold)
    assert answered["mine_accepted"].to_pylist() == above.tolist()
    assert rows.num_rows - answered.num_rows == 1
    in_memory = preln.annotate(TEXTS, model=CHECKPOINT, tasks=values["tasks"], dtype="float32", isolate=False)
    by_text = dict(zip(in_memory["text"].to_pylist(), in_memory["mine_accepted"].to_pylist(), strict=True))
    assert [by_text[text] for text in answered["text"].to_pylist()] == above.tolist()

    verdict = preln.verify(tmp_path / "out")
    assert verdict.holds
    assert verdict.drift[0].meaning.startswith("no drift")
    assert verdict.drift[0].rows == len(TEXTS)

    changed = pq.read_table(labelled).slice(1)
    pq.write_table(changed, tmp_path / "changed.parquet")
    store.put_file(str(tmp_path / "changed.parquet"), address)
    with pytest.raises(OutputError, match=r"tasks.mine.accept.calibration's digest is"):
        ran()
