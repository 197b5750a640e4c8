"""Runs jobs on a Ray that claims a GPU it does not have, and prints how each ended as JSON lines.

python -m tests.pipeline.fake_gpu_run FOLDER FRAMEWORK…
"""

import json
import os
import sys
from pathlib import Path

import ray

from jobs.exit_codes import exit_code_of
from pipeline import flow, run
from pipeline.cluster.placement import Cluster
from pipeline.cluster.ray_state import NOSET_VARIABLE, assigned_gpus
from pipeline.errors import PrelnError
from pipeline.inference import questions
from pipeline.output.folder import OutputFolder
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan
from pipeline.output.sink import Receipt
from pipeline.output.status import read_status
from pipeline.spec.job_spec import JobSpec
from tests.pipeline import device_model
from tests.pipeline.small import CHECKPOINT


class Nobody:
    """A watcher that looks away."""

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """The plan stands."""

    def committed(self, receipt: Receipt) -> None:
        """A shard is done."""


def main() -> None:
    """Run the jobs."""
    folder = Path(sys.argv[1])
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(40)))
    flow.INIT_TRIES = 1
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100_000_000,
    )
    for framework in sys.argv[2:]:
        for dtype in ("float32", "auto") if framework == "torch" else ("float32",):
            tell(folder, f"{framework}-{dtype}", framework, gpus=1, dtype=dtype)
    tell(folder, "stub-gpu", "torch", gpus=0.5, dtype="float32", loader=device_model.LOADER)
    tell(folder, "stub-cpu", "torch", gpus=0, dtype="float32", loader=device_model.LOADER)
    for name, variables in (("set", {}), ("not-set", {NOSET_VARIABLE: "1"})):
        given = ray.remote(num_gpus=1, num_cpus=0.5)(gpus_given).options(runtime_env={"env_vars": variables})
        assigned, visible = ray.get(given.remote())
        print(json.dumps({"name": name, "assigned": assigned, "visible": visible}), flush=True)
    ray.shutdown()


def gpus_given() -> tuple[list[str] | None, str | None]:
    """What a worker knows of its GPUs: what we find out, and what Ray has set for the frameworks."""
    return assigned_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")


def tell(
    folder: Path, name: str, framework: str, *, gpus: float, dtype: str, loader: str = questions.MODEL_LOADER
) -> None:
    """One job, and how it ended."""
    values = {
        "input": str(folder / "in.jsonl"),
        "model": {"checkpoint": CHECKPOINT, "framework": framework, "dtype": dtype},
        "task": "text-classification",
        "output": str(folder / name),
        "resources": {"gpus": gpus, "cpus": 0.5, "replicas": 1},
        "shards": {"rows": 10},
    }
    result: dict[str, object] = {"name": name}
    try:
        report = run.annotate(
            spec=JobSpec.parse(values), cluster=Cluster(lambda: None), watcher=Nobody(), loader=loader
        )
        last = OutputFolder(str(folder / name)).read_last_run() or {}
        result |= {
            "state": report.state,
            "runs_on": last["runs_on"],
            "status": read_status(str(folder / name)).last_runs_on,
        }
    except PrelnError as error:
        result |= {"kind": type(error).__name__, "words": str(error), "code": exit_code_of(error)}
    written = folder / name / "data"
    result["objects"] = len(list(written.glob("*.parquet"))) if written.is_dir() else 0
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    main()
