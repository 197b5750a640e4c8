"""Annotates a job on the Ray of RAY_ADDRESS and prints one JSON line per receipt, and one at the end.

python -m tests.chaos.driver job.yaml
"""

import faulthandler
import json
import signal
import sys
from pathlib import Path

from jobs.annotate import EXIT_CODES
from jobs.connect import connect
from pipeline import run
from pipeline.cluster.placement import Cluster
from pipeline.errors import PrelnError
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan
from pipeline.output.sink import Receipt
from pipeline.spec.job_spec import JobSpec
from tests.chaos.fickle_model import LOADER


def tell(event: str, **fields: object) -> None:
    """One line."""
    print(json.dumps({"event": event, **fields}), flush=True)


class Teller:
    """A watcher that tells everything."""

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """How much there is to do."""
        tell("planned", work=len(plan.work), written=len(plan.written))

    def committed(self, receipt: Receipt) -> None:
        """A shard."""
        tell("committed", key=receipt.shard.key, state=receipt.state, message=receipt.message)


def main() -> None:
    """Run the job of the first argument."""
    faulthandler.register(signal.SIGUSR1)  # a driver that hangs is asked where
    spec = JobSpec.from_yaml(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        report = run.annotate(spec=spec, cluster=Cluster(connect), watcher=Teller(), loader=LOADER)
    except PrelnError as error:
        tell("ended", state="refused", reason=f"{type(error).__name__}: {error}")
        sys.exit(1)
    tell("ended", state=report.state, rows=report.total_rows, failures=list(report.failures))
    sys.exit(EXIT_CODES[report.state])


if __name__ == "__main__":
    main()
