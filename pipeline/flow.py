"""Runs a job's work on Ray: its annotated rows are stored, and every shard has a receipt.

One Ray Data chain over bundles of whole shards: read + encode | infer | decode + write.
"""

import inspect
import logging
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.exceptions
from ray.data import ActorPoolStrategy, DataContext, Dataset

from pipeline.bundle import ShardTables, pack, unpack
from pipeline.cluster.capacity_wait import CapacityWait, Notify
from pipeline.cluster.contention import refitted, when_there_is_room
from pipeline.cluster.failures import caused_by
from pipeline.cluster.flight import OnFlight, following
from pipeline.cluster.placement import READ_CPUS, WRITE_CPUS, Placement, warn
from pipeline.cluster.pool_watch import ReplicasLostError, StarvedError, watching
from pipeline.cluster.ray_state import call_at_each_step, nodes_of_ray, task_attempts
from pipeline.cluster.stopped_workers import ending_stopped_workers
from pipeline.decode import annotated
from pipeline.encode import encode_tasks
from pipeline.inference.batching import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS
from pipeline.inference.questions import MODEL_LOADER, asks_of, facts_of, load_order
from pipeline.inference.replica import Replica, ReplicaOrder
from pipeline.isolation import STARTING, DiedError, Isolated, deadline, in_time, isolated_after_deaths
from pipeline.output.folder import OutputFolder
from pipeline.output.job import FrozenJob
from pipeline.output.sink import Receipt, job_footer, write_shard
from pipeline.reading.shard_source import ShardSource
from pipeline.reading.source import STORE_SECONDS, Large, Reading
from pipeline.shards import Stream, Work
from pipeline.spec.job_spec import JobSpec
from pipeline.telemetry import journal, metrics

INIT_TRIES = 3
"""How often a replica that can't start is tried, on another node if there is one, before the run ends."""

GPU_BUNDLES = 2
"""Bundles that a replica with a GPU holds: while one is computed, the next is unpacked and the one before is assembled."""

CALLS_AT_ONCE = "max_concurrent_calls_per_actor"
"""What Ray Data calls an actor's threads; older versions take Ray's own `max_concurrency`."""

REPLICAS_LOST = "replicas were lost with their nodes; {} of their shards are restarted on the others"
STARVED = (
    "replicas (also of other runs) hold every CPU, and nothing can be read: this run releases its replicas, and continues with "
    "its {} shards when there is room"
)


@dataclass(frozen=True)
class Stages:
    """What the stages need to know, sent to each task once.

    spec: with the dtype resolved. footer: the job's fields in every footer. run, attempt: the names of this run and of its
    Dataset in journals.
    """

    spec: JobSpec
    schema: pa.Schema
    footer: dict[str, str]
    run: str = ""
    attempt: int = 1

    @cached_property
    def output(self) -> OutputFolder:
        """The job's output folder, opened where the stage runs."""
        return OutputFolder(self.spec.output.url)

    def encode(self, bundle: pa.Table) -> pa.Table:
        """Rows of each shard to windows of tokens."""
        stall = self.spec.limits.stall
        isolated = isolated_after_deaths(
            task_attempts(), stall=stall, what="tokenizing", run=self.run, attempt=self.attempt
        )
        with isolated as child, deadline(max(stall, STARTING) if child is None else None):
            return pack((encode_shard(shard, spec=self.spec, child=child) for shard in unpack(bundle)), onto=bundle)

    def finish(self, bundle: pa.Table) -> pa.Table:
        """Answers of each shard to rows in the store, and their receipts."""
        stall = max(self.spec.limits.stall, STORE_SECONDS)
        isolated = isolated_after_deaths(
            task_attempts(), stall=stall, what="writing", run=self.run, attempt=self.attempt
        )
        with isolated as child, deadline(stall if child is None else None):
            receipts = [finish_shard(shard, stages=self, child=child) for shard in unpack(bundle)]
        for receipt in receipts:
            record(receipt, stages=self)
        return pa.table({"receipt": pa.array([receipt.to_json() for receipt in receipts], pa.string())})


def encode_shard(shard: ShardTables, *, spec: JobSpec, child: Isolated | None = None) -> ShardTables:
    """A shard with `marks` and `windows`; a shard without rows passes unchanged. child: where to tokenize, if not here."""
    in_time()
    if shard.rows is None:
        return shard
    began = time.monotonic()
    tasks = encode_tasks(shard.rows, spec=spec, facts=facts_of(spec), child=child)
    return shard.with_(tasks=tasks, facts={"encode_s": time.monotonic() - began})


def finish_shard(shard: ShardTables, *, stages: Stages, child: Isolated | None = None) -> Receipt:
    """The receipt of a shard: of its object, which is written now, or of its failure. child: where to write it, if not here."""
    in_time()
    if shard.failure is None and child is not None:
        write = partial(finish_shard, replace(shard, stored=()), stages=replace(stages))
        try:
            return child.call(write, alone=True)
        except DiedError as died:
            uri, first, stop = shard.shard.file.uri, shard.shard.first, shard.shard.stop
            message = f"{uri}: writing the answers from {first} to {stop} killed the writer {died}"
            shard = replace(shard, failure=("killed-writer", message))
    if shard.failure is not None:
        reason, message = shard.failure
        return Receipt(
            shard=shard.shard, state="failed", reason=reason, message=message, cuts=shard.cuts, facts=shard.facts
        )
    spec = stages.spec
    began = time.monotonic()
    table = annotated(shard, schema=stages.schema, spec=spec, facts=facts_of(spec))
    shard = shard.with_(facts={"decode_s": time.monotonic() - began})
    return write_shard(shard, table, data=stages.output.data, prefix=spec.output.prefix, footer=stages.footer)


def record(receipt: Receipt, *, stages: Stages) -> None:
    """Count a shard in the metrics and write it into the worker's journal; of one that is to be cut, its parts are counted."""
    if receipt.cuts:
        journal.write(
            "shard cut",
            run=stages.run,
            attempt=stages.attempt,
            shard=receipt.shard.key,
            source=receipt.shard.file.uri,
            first=receipt.shard.first,
            parts=len(receipt.cuts) + 1,
        )
        return
    metrics.count_shard(
        task=stages.spec.task_name,
        state=receipt.state,
        rows=receipt.rows,
        errors=receipt.errors,
        truncated=receipt.truncated,
        size=receipt.bytes,
        facts=receipt.facts,
    )
    journal.write(
        "shard committed" if receipt.state == "done" else "shard failed",
        level=logging.INFO if receipt.state == "done" else logging.WARNING,
        run=stages.run,
        attempt=stages.attempt,
        shard=receipt.shard.key,
        source=receipt.shard.file.uri,
        first=receipt.shard.first,
        rows=receipt.rows,
        errors=dict(receipt.errors),
        **({"reason": receipt.reason, "detail": receipt.message} if receipt.state == "failed" else {}),
    )


def replica_order(*, job: FrozenJob, placement: Placement, loader: str = MODEL_LOADER, run: str = "") -> ReplicaOrder:
    """The model, questions and limits of the job's replicas."""
    spec, facts = job.spec, facts_of(job.spec)
    default = GPU_BATCH_TOKENS if placement.gpus > 0 else CPU_BATCH_TOKENS[spec.model.framework]
    return ReplicaOrder(
        load=load_order(spec, dtype=job.dtype, loader=loader, device="cuda" if placement.gpus > 0 else "cpu"),
        asks=asks_of(spec, facts),
        batch_tokens=spec.resources.batch_tokens or default,
        threads=placement.threads,
        stall=spec.limits.stall,
        task=spec.task_name,
        run=run,
        checkpoint=job.checkpoint,
        gpus=placement.gpus,
    )


def annotate_shards(
    *,
    job: FrozenJob,
    work: Sequence[Work],
    placement: Placement,
    loader: str = MODEL_LOADER,
    say: Notify = warn,
    run: str = "",
    on_flight: OnFlight | None = None,
) -> Generator[Receipt, None, None]:
    """Run the work on Ray and yield a receipt for every shard as it is committed.

    say: called with what the run is waiting for. run: names this run in journals. on_flight: called once a second, from
    another thread, with what the replicas are doing. Closing the iterator early ends the run;
    what is committed stays. Raises ResourceError if no replica has a node for `placement.wait` seconds. If replicas are lost
    with their nodes, and only the shards they had are left, those are restarted on the remaining replicas. If several
    runs leave each other nothing to read with, one releases its replicas and continues later.
    """
    rest, attempt = list(work), 0
    while rest:
        attempt += 1
        received: list[Receipt] = []
        try:
            with closing(_one_dataset(job, rest, placement, loader, say, run, attempt, on_flight)) as receipts:
                for receipt in receipts:
                    received.append(receipt)
                    yield receipt
            return
        except ray.exceptions.RayError as error:
            raise caused_by(error) from error
        except (ReplicasLostError, StarvedError) as broken_off:
            rest = remaining(rest, received)
            if not rest:
                return
            if isinstance(broken_off, StarvedError):
                say(STARVED.format(len(rest)))
                placement = when_there_is_room(placement, say=say)
            else:
                say(REPLICAS_LOST.format(len(rest)))
                placement = refitted(placement)


def _one_dataset(
    job: FrozenJob,
    work: Sequence[Work],
    placement: Placement,
    loader: str,
    say: Notify,
    run: str,
    attempt: int,
    on_flight: OnFlight | None,
) -> Generator[Receipt, None, None]:
    order = replica_order(job=job, placement=placement, loader=loader, run=run)
    capacity_wait = CapacityWait(
        demand=placement.demand,
        seconds=placement.wait,
        say=say,
        look=lambda: nodes_of_ray(home=Path.home()),
    )
    with (
        watching(capacity_wait) as watch,
        following(run, on_flight=on_flight, queued=watch.queued),
        ending_stopped_workers(every=job.spec.limits.stall, say=say),
        DataContext.current(data_context(watch=watch)),
    ):
        dataset = the_flow(job=job, work=work, placement=placement, order=order, run=run, attempt=attempt)
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            receipts: pa.Table = batch
            for text in receipts["receipt"].to_pylist():
                yield Receipt.from_json(text)


def remaining(work: Sequence[Work], received: Sequence[Receipt]) -> list[Work]:
    """The work without the shards that have a receipt, and streams without theirs."""
    keys = {receipt.shard.key for receipt in received}
    failed = {receipt.shard.file.uri for receipt in received if receipt.state == "failed"}
    rest: list[Work] = []
    for item in work:
        if not isinstance(item, Stream):
            rest += [] if item.key in keys else [item]
        elif item.file.uri not in failed:
            rest.append(replace(item, done=frozenset(item.done) | keys))
    return rest


def the_flow(
    *,
    job: FrozenJob,
    work: Sequence[Work],
    placement: Placement,
    order: ReplicaOrder,
    run: str = "",
    attempt: int = 1,
) -> Dataset:
    """read + encode | infer | decode + write."""
    stages = Stages(spec=job.spec, schema=job.schema, footer=job_footer(job), run=run, attempt=attempt)
    source = ray.data.read_datasource(ShardSource(work=work, reading=reading_of(job)), num_cpus=READ_CPUS)
    encoded = source.map_batches(stages.encode, batch_size=1, batch_format="pyarrow", num_cpus=READ_CPUS)
    answered = encoded.map_batches(
        Replica,
        fn_constructor_kwargs={"order": order},
        batch_size=1,
        batch_format="pyarrow",
        **actor_pool(placement),
        **placement.options,
    )
    finished = answered.map_batches(stages.finish, batch_size=1, batch_format="pyarrow", num_cpus=WRITE_CPUS)
    finished.set_name(f"preln {job.spec.task_name}")
    return finished


def actor_pool(placement: Placement) -> dict[str, Any]:
    """The options of `map_batches` for the replicas: how many there are, and how many bundles each holds."""
    bundles = GPU_BUNDLES if placement.gpus > 0 else 1
    pool = partial(
        ActorPoolStrategy,
        min_size=placement.smallest,
        max_size=placement.largest,
        initial_size=placement.initial,
        # Twice what an actor runs: Ray Data adds an actor only while tasks in flight are 1.75 times what all actors run.
        max_tasks_in_flight_per_actor=2 * bundles,
    )
    if bundles == 1:
        return {"compute": pool()}
    threaded = partial(pool, enable_true_multi_threading=True)  # else Ray Data lets one bundle in at a time
    if CALLS_AT_ONCE in inspect.signature(ActorPoolStrategy).parameters:
        return {"compute": threaded(max_concurrent_calls_per_actor=bundles)}
    return {"compute": threaded(), "max_concurrency": bundles}


def reading_of(job: FrozenJob, *, large: Large = "cut") -> Reading:
    """How a job's files are read. large: what becomes of a shard whose rows take too much memory."""
    return Reading(
        schema=job.schema,
        required=required_columns(job.spec),
        rule=job.cut,
        fingerprint=job.fingerprint,
        line_bytes=job.spec.limits.line_bytes,
        delimiter=job.spec.input.delimiter,
        quote=job.spec.input.quote,
        carried=frozenset(job.schema.names) - job.spec.read_columns,
        partitions=job.partitions,
        rules=job.reading,
        every=job.spec.input.keep is None,
        declared=job.spec.input.fields is not None,
        large=large,
        stall=max(job.spec.limits.stall, STORE_SECONDS),
    )


def required_columns(spec: JobSpec) -> tuple[str, ...]:
    """The input columns that every task needs to answer a row."""
    wanted = [
        [task.column(part.name) for part in task.task.parts() if part.required] for task in spec.named_tasks.values()
    ]
    return tuple(column for column in wanted[0] if all(column in columns for columns in wanted))


def data_context(*, watch: Callable[[Any], None] | None = None) -> DataContext:
    """Ray Data's settings for this flow: every row a block of its own, no order, our own progress line, a bounded wait.

    watch: called at each step of the Dataset's loop, with its executor.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # copying touches a field that Ray itself deprecates
        context = DataContext.get_current().copy()
    context.target_max_block_size = 1
    context.execution_options.preserve_order = False
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    # Each try is a new actor, which may have a place on another node.
    context.max_consecutive_actor_init_deaths = INIT_TRIES - 1
    context.actor_init_retry_on_errors = False
    # Our own wait reports what is missing, and a slow shard is no fault.
    context.execution_no_progress_timeout_s = -1
    context.wait_for_min_actors_s = -1
    if watch is not None:
        call_at_each_step(context, watch)
    # A run ends with one of our errors, in one line; Ray Data would report it at length as a fault of its own.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return context
