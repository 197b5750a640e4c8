"""Brings an output folder up to date, as `preln annotate` does: open, plan, place, run, settle, close."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Protocol

from pipeline.certification import certified, uncertified
from pipeline.cluster.capacity_wait import Notify
from pipeline.cluster.flight import Flight
from pipeline.cluster.placement import Cluster
from pipeline.errors import PrelnError, RunFailed, SpecError
from pipeline.flow import annotate_shards
from pipeline.inference.questions import MODEL_LOADER
from pipeline.output.folder import OutputFolder, new_run_id
from pipeline.output.forecast import spread
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan, cut_again, make_plan
from pipeline.output.records import Entry, Success, totals
from pipeline.output.report import Ended, Report
from pipeline.output.settle import close, settle
from pipeline.output.sink import Receipt
from pipeline.output.tally import Tally
from pipeline.plurals import counted
from pipeline.prepare import notes_of, open_job
from pipeline.run_options import DEFAULT_OPTIONS, RunOptions
from pipeline.shards import Shard, Stream, Work
from pipeline.spec.job_spec import JobSpec


class Watcher(Protocol):
    """Is notified of a run's progress."""

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """The plan stands; nothing has run yet."""

    def committed(self, receipt: Receipt) -> None:
        """A shard is done, or has failed."""


class Live(Protocol):
    """Is shown what a run does between two receipts."""

    def running(self, flight: Flight) -> None:
        """What the replicas are doing now; called once a second, from another thread."""

    def settling(self) -> None:
        """All work is done; the records are being written."""


class Unwatched:
    """A watcher of a run that nobody follows."""

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """The plan stands."""

    def committed(self, receipt: Receipt) -> None:
        """A shard is done, or has failed."""


def annotate(
    *,
    spec: JobSpec,
    cluster: Cluster,
    watcher: Watcher,
    loader: str = MODEL_LOADER,
    options: RunOptions = DEFAULT_OPTIONS,
    live: Live | None = None,
) -> Report:
    """Annotate every row that is not annotated yet. Raises PrelnError for what stops a run before it goes, RunFailed while.

    KeyboardInterrupt ends it at once; committed shards stay, the run is recorded, and the same call resumes it.
    """
    began, cpu_began = time.monotonic(), time.process_time()
    job, described = open_job(spec=spec, cluster=cluster)
    if uncertified(job.spec):
        cluster.say("accept: answering its labelled rows first, to find the threshold")
        job = certified(
            job,
            check=lambda labelled: open_job(spec=labelled, cluster=cluster)[0],
            answer=lambda labelled: annotate(spec=labelled, cluster=cluster, watcher=Unwatched(), loader=loader),
        )
    folder = OutputFolder(job.output)
    plan_of = partial(
        make_plan, folder=folder, described=described, retry_errors=options.retry_errors, prune=options.prune
    )
    plan = plan_of(job=job)
    # Before anything is written: a job that can have no replica leaves no folder behind.
    placement = cluster.placement(job.spec) if plan.work else None
    frozen = folder.freeze(job)
    if frozen != job:  # another driver was first, with the same answers and another cut
        job, plan = frozen, plan_of(job=frozen)
    plan = replace(plan, notes=[*plan.notes, *notes_of(job.spec)])
    folder.sweep()
    run, tally = new_run_id(), Tally()
    if plan.changes:
        plan = replace(plan, name=folder.write_plan(run=run, files=plan.changes))
    watcher.planned(job, plan)
    ended = Ended(folder=folder, job=job, plan=plan, tally=tally, run=run, began=began, cpu_began=cpu_began)
    try:
        success = withdraw_if_stale(folder, plan, retry_errors=options.retry_errors)
        within_limits = True
        if placement is not None:
            flow = partial(
                annotate_shards,
                job=job,
                placement=placement,
                loader=loader,
                say=cluster.say,
                run=run,
                on_flight=None if live is None else live.running,
            )
            work = plan.work if options.probe is None else spread(plan.work, options.probe)
            again = partial(planned_parts, folder=folder, job=job, run=run, say=cluster.say)
            with closing(in_parts(work, annotate_all=flow, again=again)) as receipts:
                within_limits = consume(receipts, tally=tally, plan=plan, job=job, watcher=watcher, most=options.probe)
        if live is not None:
            live.settling()
        settled = settle(folder=folder, tally=tally, run=run, fingerprint=job.fingerprint)
        if not within_limits:
            return ended.record(state="too-many-errors", settled=settled)
        if placement is not None and options.probe is not None and not settled.complete:
            return ended.probed(settled=settled, replicas=placement.initial)
        state = close(folder=folder, settled=settled, before=success, accept_failed=options.accept_failed)
        return ended.record(state=state, settled=settled)
    except KeyboardInterrupt:
        return ended.record_what_can_be(state="interrupted")
    except Exception as error:
        ended.record_what_can_be(state="crashed", reason=f"{type(error).__name__}: {error}")
        if isinstance(error, SpecError) and not tally.receipts:
            raise  # only a run that asks for replicas finds out that there can be none; the job must be changed all the same
        if isinstance(error, PrelnError):
            raise RunFailed(f"{error}. Committed shards stay; run the same command to resume") from error
        raise


def in_parts(
    work: Sequence[Work],
    *,
    annotate_all: Callable[..., Generator[Receipt, None, None]],
    again: Callable[[Sequence[Receipt]], Sequence[Work]],
) -> Generator[Receipt, None, None]:
    """The receipts of the work, except for shards that were too large for one: their parts are work after the rest."""
    while work:
        large: list[Receipt] = []
        with closing(annotate_all(work=work)) as receipts:
            for receipt in receipts:
                if receipt.cuts:
                    large.append(receipt)
                else:
                    yield receipt
        work = again(large) if large else ()


def planned_parts(
    large: Sequence[Receipt], *, folder: OutputFolder, job: FrozenJob, run: str, say: Notify
) -> list[Shard]:
    """The parts of shards that were too large, after they were planned: so that whoever resumes cuts them alike."""
    changes, parts = cut_again(large, folder=folder, fingerprint=job.fingerprint)
    if changes:
        folder.write_plan(run=run, files=changes)
    say(f"{large[0].message} ({counted(len(large), 'shard')} as {counted(len(parts), 'part')})")
    return parts


def withdraw_if_stale(folder: OutputFolder, plan: Plan, *, retry_errors: bool) -> Success | None:
    """_SUCCESS as it was. It names the objects as they are: it goes as soon as one is missing, or is about to be made again."""
    success = folder.read_success()
    if success is not None and plan.work and (retry_errors or success.differences(plan.entries.values())):
        folder.withdraw_success()
    return success


def consume(
    receipts: Iterator[Receipt],
    *,
    tally: Tally,
    plan: Plan,
    job: FrozenJob,
    watcher: Watcher,
    most: int | None = None,
) -> bool:
    """Take receipts until they end, or until there are `most`. False where the rows with errors of all runs
    pass the limits."""
    tally.earlier_rows, tally.earlier_bad_rows, _ = totals(standing(plan))
    limits = job.spec.limits
    for receipt in receipts:
        tally.add(receipt)
        watcher.committed(receipt)
        rows, bad = tally.earlier_rows + tally.rows, tally.earlier_bad_rows + tally.bad_rows
        if bad > limits.error_rows and bad > limits.error_share * rows:
            return False
        if len(tally.receipts) == most:
            break  # a compressed file has more shards than a probe asks for
    return True


def standing(plan: Plan) -> list[Entry]:
    """Objects of files as they are now that the plan does not make again: neither the shards of a changed file's old version
    nor those that are run again because of their errors."""
    again = {item.key for item in plan.work if isinstance(item, Shard)}
    done_of = {item.file.uri: item.done for item in plan.work if isinstance(item, Stream)}
    return [
        entry
        for entry in plan.entries.values()
        if (planned := plan.current.get(entry.uri)) is not None
        and entry.version == planned.file.version
        and entry.key not in again
        and entry.key in done_of.get(entry.uri, (entry.key,))
    ]
