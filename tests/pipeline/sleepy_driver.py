"""Annotates a job with the sleepy model on the Ray of RAY_ADDRESS, and prints events as JSON lines.

python -m tests.pipeline.sleepy_driver job.yaml
"""

import json
import sys
import time
from pathlib import Path

from jobs.connect import connect
from jobs.exit_codes import exit_code_of
from pipeline import run
from pipeline.cluster.placement import Cluster
from pipeline.errors import PrelnError
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan
from pipeline.output.sink import Receipt
from pipeline.spec.job_spec import JobSpec
from tests.pipeline.sleepy import LOADER


def tell(event: str, **fields: object) -> None:
    """One line."""
    print(json.dumps({"event": event, "time": time.time(), **fields}), flush=True)


class Teller:
    """A watcher that tells everything."""

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """How much there is to do."""
        tell("planned", shards=len(plan.work))

    def committed(self, receipt: Receipt) -> None:
        """A shard, and who answered it."""
        tell("committed", key=receipt.shard.key, state=receipt.state, replica=receipt.facts.get("replica"))


def main() -> None:
    """Run the job of the first argument."""
    spec = JobSpec.from_yaml(Path(sys.argv[1]).read_text(encoding="utf-8"))
    cluster = Cluster(connect, say=lambda words: tell("waiting", words=words))
    try:
        report = run.annotate(spec=spec, cluster=cluster, watcher=Teller(), loader=LOADER)
    except PrelnError as error:
        tell("ended", state="failed", kind=type(error).__name__, words=str(error))
        sys.exit(exit_code_of(error))
    tell("ended", state=report.state, rows=report.total_rows)


if __name__ == "__main__":
    main()
