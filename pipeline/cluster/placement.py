"""Places replicas on a Ray cluster: how many, with which resources, in which dtype."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from models.boundary import Framework
from pipeline.cluster.capacity_wait import CapacityWait, Notify
from pipeline.cluster.device_probe import gpu_dtype, probe_device
from pipeline.cluster.nodes import UNLIMITED, Demand, Nodes
from pipeline.errors import SpecError
from pipeline.plurals import counted
from pipeline.spec.job_spec import JobSpec

READ_CPUS = 0.5
"""CPUs that Ray sets aside for a task that reads and encodes; not the replicas' number, or Ray would fuse both stages."""
WRITE_CPUS = 0.25
"""CPUs that Ray sets aside for a task that decodes and writes."""
REPLICA_CORES = 8
"""The most cores of a replica on a node without GPUs by default: more threads speed up a pass little."""
LEAST_CPUS = 0.1
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


@dataclass(frozen=True)
class Placement:
    """What each replica asks of Ray, how many there may be, and how many threads each may use.

    initial: replicas that are started at once; more, up to `largest`, follow as nodes arrive.
    wait: seconds that a run waits while no replica has a node.
    """

    smallest: int
    largest: int
    initial: int
    demand: Demand
    threads: int
    wait: float

    @property
    def cpus(self) -> float:
        """CPUs that Ray sets aside for a replica."""
        return self.demand.cpus

    @property
    def gpus(self) -> float:
        """GPUs, or the part of one, that Ray sets aside for a replica."""
        return self.demand.gpus

    @property
    def options(self) -> dict[str, Any]:
        """The demand as Ray's options for an actor or a task."""
        return ray_options(self.demand)


def ray_options(demand: Demand) -> dict[str, Any]:
    """A demand as Ray's options for an actor or a task."""
    options: dict[str, Any] = {"num_cpus": demand.cpus, "num_gpus": demand.gpus or None}
    if demand.accelerator:
        options["accelerator_type"] = demand.accelerator
    if demand.labels:
        options["label_selector"] = dict(demand.labels)
    return options


def warn(message: str) -> None:
    """Log a warning: the default where no console is given."""
    logging.getLogger("preln").warning(message)


class Cluster:
    """Ray as this job sees it, connected on first use.

    say: called with what the run is waiting for.
    """

    def __init__(self, connect: Callable[[], None], *, say: Notify = warn) -> None:
        self._connect = connect
        self.say = say

    @cached_property
    def nodes(self) -> Nodes:
        """The nodes at first use, and those that may come."""
        return self.nodes_now()

    def nodes_now(self) -> Nodes:
        """The nodes as they are at this moment."""
        from pipeline.cluster.ray_state import nodes_of_ray  # takes a second to import, and not every verb needs it

        self._connect()
        return nodes_of_ray(home=Path.home())

    def gpus_each(self, spec: JobSpec) -> float:
        """GPUs per replica. Raises SpecError if neither the job nor the cluster says."""
        if spec.resources.gpus is not None:
            if spec.resources.gpus > 1:
                raise SpecError(
                    f"resources.gpus: {spec.resources.gpus:g} for a replica, which computes on one; write `gpus: 1`, and "
                    "`replicas` for as many as there are GPUs"
                )
            return spec.resources.gpus
        if spec.resources.accelerator or self.nodes.total("GPU") > 0:
            return 1.0
        if (
            self.nodes.has_unknown_types
        ):  # CPU replicas on the GPU nodes that come would be wrong for as long as the output folder lives
            raise SpecError(
                f"resources.gpus is not set, and {self._unknown_growth}; none with a GPU is up: {self.nodes}. "
                "Write `gpus: 1` under resources (or --set resources.gpus=1) for one replica per GPU, or "
                "`gpus: 0` for replicas on CPUs"
            )
        return 0.0

    @property
    def _unknown_growth(self) -> str:
        if self.nodes.grows is None:
            return "preln can't tell which nodes this version of Ray may add"
        return "this cluster does not say which nodes it can add (Kubernetes)"

    def placement(self, spec: JobSpec) -> Placement:
        """What the replicas of a job ask for. Raises SpecError if no present or future node can ever provide it."""
        gpus = self.gpus_each(spec)
        cpus, threads = self._gpu_replica(spec, gpus) if gpus > 0 else self._cpu_replica(spec)
        demand = _demand(spec, cpus=cpus, gpus=gpus)
        wanted = spec.resources.replica_range
        smallest = wanted.min if wanted else 1
        if not self.nodes.has_unknown_types:
            self._refuse_impossible(demand=demand, least=smallest, places=self.nodes.places(demand))
        roomy = self.nodes.less(_reserve)
        most = UNLIMITED if self.nodes.has_unknown_types else roomy.places(demand)
        if wanted and not self.nodes.grows:  # somebody may add nodes by hand
            most = wanted.max
        largest = max(smallest, min(wanted.max, most) if wanted else most)
        initial = min(max(roomy.places_now(demand), smallest), largest)
        return Placement(smallest, largest, initial, demand=demand, threads=threads, wait=spec.resources.wait)

    def _gpu_replica(self, spec: JobSpec, gpus: float) -> tuple[float, int]:
        """CPUs and threads of a replica with a GPU: one CPU, or less if a node's GPUs would leave no CPU to read with."""
        if spec.resources.cpus is not None:
            return spec.resources.cpus, max(1, int(spec.resources.cpus))
        bare = _demand(spec, cpus=0.0, gpus=gpus)
        shares = [
            (kind.cpus - _reserve(kind.cpus)) / kind.places(bare) for kind in self.nodes.ever if kind.places(bare)
        ]
        return _not_fused(min([1.0, *(max(LEAST_CPUS, _floor(share)) for share in shares)])), 1

    def _cpu_replica(self, spec: JobSpec) -> tuple[float, int]:
        """CPUs and threads of a replica without a GPU: its share of a node, less what reading and writing need there."""
        if spec.resources.cpus is not None:
            return spec.resources.cpus, max(1, int(spec.resources.cpus))
        bare = _demand(spec, cpus=0.0, gpus=0.0)
        kinds = [kind for kind in self.nodes.ever if kind.cpus > 0 and kind.suits(bare)]
        if not kinds:
            return 1.0, 1
        count = max(
            sum(kind.count for kind in self.nodes.up if kind in kinds),
            sum(kind.count for kind in self.nodes.to_come if kind in kinds),
        )
        largest = max(kinds, key=lambda kind: kind.cpus)
        wanted = spec.resources.replica_range
        if wanted and wanted.max <= largest.count:
            cores, each_node = largest.cpus, 1
        else:  # a share of the smaller nodes fits on the larger ones, and not the other way round
            cores = min([kind.cpus for kind in kinds if kind.cpus >= 2] or [largest.cpus])
            each_node = math.ceil(wanted.max / count) if wanted else math.ceil(cores / REPLICA_CORES)
        cpus = max(LEAST_CPUS, _floor((cores - _reserve(cores)) / each_node))
        return _not_fused(cpus), max(1, int(cores / each_node))

    def _refuse_impossible(self, *, demand: Demand, least: int, places: int) -> None:
        if places < least:
            raise SpecError(
                f"resources: {counted(least, 'replica')} with {demand} {'each ' if least > 1 else ''}can never "
                f"be placed: there is room for {places}. The cluster has {self.nodes}. Ask for less by resources.gpus, "
                "resources.cpus or resources.replicas, or run on another cluster"
            )
        needed, total = demand.cpus * least + READ_CPUS, self.nodes.total("CPU")
        if needed > total:
            raise SpecError(
                f"resources: {counted(least, 'replica')} with {demand.cpus:g} CPUs each, plus {READ_CPUS:g} for "
                f"reading, need {needed:g} CPUs, but the cluster has {total:g}; set resources.cpus or resources.replicas"
            )

    def resolve_dtype(self, spec: JobSpec) -> str:
        """The dtype that `auto` means here, found on a machine that has what the replicas ask for.

        Raises SpecError if there can be no such machine, ResourceError if none came up in time or the framework can't use
        the GPU there.
        """
        if spec.model.dtype != "auto":
            return spec.model.dtype
        placement = self.placement(spec)
        import ray

        from pipeline.cluster.failures import caused_by

        demand = _demand(spec, cpus=LEAST_CPUS, gpus=placement.gpus)
        asked = ray.remote(**ray_options(demand))(best_dtype).remote(spec.model.framework, placement.gpus > 0)
        capacity_wait = CapacityWait(demand=demand, seconds=placement.wait, say=self.say, look=self.nodes_now)
        try:
            while not ray.wait([asked], timeout=1.0)[0]:
                capacity_wait.wait()
        except BaseException:
            ray.cancel(asked, force=True)
            raise
        try:
            dtype, remark = ray.get(asked)
        except ray.exceptions.RayTaskError as error:
            raise caused_by(error) from error
        if remark:
            self.say(remark)
        return str(dtype)


def _demand(spec: JobSpec, *, cpus: float, gpus: float) -> Demand:
    return Demand(cpus=cpus, gpus=gpus, accelerator=spec.resources.accelerator, labels=spec.resources.labels)


def _reserve(cores: float) -> float:
    """CPUs of a node that no replica takes: without some for reading and writing, the run would deadlock."""
    return 1.0 if cores >= 2 else 0.5


def _floor(amount: float) -> float:
    return math.floor(amount * 100 + 1e-6) / 100


def _not_fused(cpus: float) -> float:
    """Ray fuses neighbouring stages that ask for the same; reading must not move into the replica."""
    return cpus - 0.01 if cpus == READ_CPUS else cpus


def best_dtype(framework: Framework, gpu: bool) -> tuple[str, str | None]:
    """bfloat16 if this machine multiplies it natively, else float32; and a remark for the job's owner, if any.

    Natively: GPUs from Ampere on, as the framework itself sees them; for PyTorch, whose CPU kernels use them, CPUs with
    AVX512-BF16 or AMX. Raises ResourceError if the framework can't use the GPU that it was given.
    """
    if gpu:
        return gpu_dtype(probe_device(framework, "cuda"))
    if framework != "torch":
        return "float32", None
    return ("bfloat16" if BF16_FLAGS & _cpu_flags() else "float32"), None


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
