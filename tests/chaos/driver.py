"""Starts drivers without the seconds that imports take: a warm process forks one for each order on its standard input.

`python -m tests.chaos.driver`; an order is a line {"job": …, "events": …}, and the answer to it is the driver's process id. A
driver annotates the job on the Ray of RAY_ADDRESS and writes its events into the file, one JSON line each, with whatever else
it prints.
"""

import faulthandler
import json
import os
import signal
import sys
from pathlib import Path

import ray

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
    """Write one event."""
    os.write(1, json.dumps({"event": event, **fields}).encode() + b"\n")


class Teller:
    """A watcher that writes an event for each call."""

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """How much there is to do."""
        tell("planned", work=len(plan.work), written=len(plan.written))

    def committed(self, receipt: Receipt) -> None:
        """A shard."""
        tell("committed", key=receipt.shard.key, state=receipt.state, message=receipt.message)


def drive(job: str, events: str) -> None:
    """Annotate the job."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(events, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    faulthandler.register(signal.SIGUSR1)  # a silent driver is asked where it is
    spec = JobSpec.from_yaml(Path(job).read_text(encoding="utf-8"))
    cluster = Cluster(connect, say=lambda words: tell("waiting", words=words))
    try:
        report = run.annotate(spec=spec, cluster=cluster, watcher=Teller(), loader=LOADER)
        tell("ended", state=report.state, rows=report.total_rows, failures=list(report.failures))
    except PrelnError as error:
        tell("ended", state="refused", reason=f"{type(error).__name__}: {error}")
    ray.shutdown()


def main() -> None:
    """Fork a driver for each order; the end of standard input ends all of them."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what ends is gone, without anybody waiting for it
    started: list[int] = []
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                drive(order["job"], order["events"])
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(0)
        started.append(pid)
        print(pid, flush=True)
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
