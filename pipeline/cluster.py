"""What Ray has to offer, and the replicas that fit on it: how many, with which resources, in which arithmetic."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import ray

from models.boundary import Framework
from pipeline.errors import ResourceError
from pipeline.spec import JobSpec

READ_CPUS = 0.5
"""CPUs that Ray sets aside for a task that reads and encodes; not the replicas' number, or Ray would fuse both stages."""
WRITE_CPUS = 0.25
"""CPUs that Ray sets aside for a task that decodes and writes."""
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
AMPERE = 8.0


@dataclass(frozen=True)
class Placement:
    """What each replica asks of Ray, how many there may be, and how many threads each may use."""

    smallest: int
    largest: int
    cpus: float
    gpus: float
    threads: int


class Cluster:
    """Ray as this job sees it; connected to at the first question that only it can answer."""

    def __init__(self, connect: Callable[[], None]) -> None:
        self._connect = connect

    @cached_property
    def resources(self) -> dict[str, float]:
        """All that the cluster has now, by Ray's names."""
        self._connect()
        return dict(ray.cluster_resources())

    @cached_property
    def node_cpus(self) -> float:
        """CPUs of the largest node."""
        self._connect()
        return max((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]), default=1.0)

    def gpus_each(self, spec: JobSpec) -> float:
        """GPUs that a replica takes."""
        if spec.resources.gpus is not None:
            return spec.resources.gpus
        return 1.0 if self.resources.get("GPU", 0.0) > 0 else 0.0

    def placement(self, spec: JobSpec) -> Placement:
        """What the replicas of a job ask for. Raises ResourceError where the cluster can never give it."""
        wanted, gpus = spec.resources.replica_range, self.gpus_each(spec)
        total = self.resources.get("CPU", 1.0)
        if gpus > 0:
            cpus = spec.resources.cpus or 1.0
            threads = max(1, int(cpus))
        else:
            reserve = 1.0 if total >= 2 else 0.5  # reading and writing need some, or everything waits for everything
            cpus = spec.resources.cpus or max(0.1, round((total - reserve) / wanted.max, 2))
            threads = max(1, int(spec.resources.cpus or self.node_cpus / min(wanted.max, max(self.node_cpus, 1))))
        self._refuse_impossible(spec=spec, cpus=cpus, gpus=gpus, total=total)
        return Placement(smallest=wanted.min, largest=wanted.max, cpus=cpus, gpus=gpus, threads=threads)

    def _refuse_impossible(self, *, spec: JobSpec, cpus: float, gpus: float, total: float) -> None:
        least = spec.resources.replica_range.min
        if gpus > 0 and gpus * least > self.resources.get("GPU", 0.0):
            raise ResourceError(
                f"resources: {least} replicas with {gpus:g} GPUs each need {gpus * least:g}, and Ray has "
                f"{self.resources.get('GPU', 0.0):g}; set resources.gpus or resources.replicas"
            )
        if cpus * least + READ_CPUS > total:
            raise ResourceError(
                f"resources: {least} replicas with {cpus:g} CPUs each, and {READ_CPUS:g} to read with, need "
                f"{cpus * least + READ_CPUS:g} CPUs, and Ray has {total:g}; set resources.cpus or resources.replicas"
            )

    def resolve_dtype(self, spec: JobSpec) -> str:
        """The dtype that `auto` is here: asked of a machine that has what the replicas ask for."""
        if spec.model.dtype != "auto":
            return spec.model.dtype
        gpus = self.gpus_each(spec)
        probe = ray.remote(num_cpus=0.1, num_gpus=gpus)(best_dtype)
        asked = probe.remote(spec.model.framework, gpus > 0)
        return str(ray.get(asked, timeout=spec.resources.wait))


def best_dtype(framework: Framework, gpu: bool) -> str:
    """bfloat16 where this machine's processor multiplies it natively, else float32.

    GPUs from Ampere (compute capability 8.0) on; CPUs with AVX512-BF16 or AMX for PyTorch, whose CPU kernels use them.
    """
    if gpu:
        query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        try:
            answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
            return "bfloat16" if min(float(line) for line in answer.split()) >= AMPERE else "float32"
        except (OSError, subprocess.SubprocessError, ValueError):
            return "float32"
    if framework != "torch":
        return "float32"
    return "bfloat16" if BF16_FLAGS & _cpu_flags() else "float32"


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
