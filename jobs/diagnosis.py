"""Examines what a job would find on this machine: devices, kernels, dtype, memory, disk, Ray and storage, each with a fix.

Nothing is assumed: a model of the framework is loaded through the same supervisor and child as in a replica.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from jobs.embedded import CHECKPOINT
from models.boundary import Device, DeviceFacts, Framework
from pipeline.cluster.device_probe import probe_device
from pipeline.cluster.placement import best_dtype
from pipeline.errors import PrelnError
from pipeline.inference.child import LoadOrder
from pipeline.inference.node_cache import cache_root, compiler_settings
from pipeline.inference.questions import MODEL_LOADER
from pipeline.inference.supervisor import Supervisor
from pipeline.store.storage import names

MODULES: dict[Framework, str] = {"torch": "torch", "tensorflow": "tensorflow", "flax": "flax"}
LEAST_MEMORY_GB = 2.0
LEAST_DISK_GB = 5.0
"""Free memory and disk below which a checkpoint of base size and its copies have no room."""
STALL = 300.0


@dataclass(frozen=True)
class Finding:
    """One result. good: None for mere information. fix: what to do if it is not good."""

    about: str
    good: bool | None
    said: str
    fix: str = ""


def examine(*, frameworks: Sequence[Framework], device: Device | None, storage: Sequence[str]) -> Iterator[Finding]:
    """All findings, one after the other. device: what jobs should run on; None for a GPU if the machine has one."""
    wanted: Device = device or ("cuda" if machine_has_gpus() else "cpu")
    found = frameworks or [name for name, module in MODULES.items() if importlib.util.find_spec(module)]
    if not found:
        yield Finding("frameworks", False, "none is installed", "pip install 'preln[torch]'")
    for framework in found:
        yield from of_framework(framework, wanted)
    yield from of_machine()
    yield of_ray()
    for url in storage:
        yield of_storage(url)


def machine_has_gpus() -> bool:
    """Whether the machine has an NVIDIA or AMD GPU, even if no framework sees it."""
    return Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists() or shutil.which("nvidia-smi") is not None


def of_framework(framework: Framework, device: Device) -> Iterator[Finding]:
    """What the framework sees, the dtype that `auto` gives, and how a small model ran."""
    try:
        yield Finding(framework, None, as_words(probe_device(framework, device)))
        dtype, remark = best_dtype(framework, device == "cuda")
    except PrelnError as error:
        fix = "install what it names, or set resources.gpus: 0" if device == "cuda" else "install it"
        yield Finding(framework, False, str(error), fix)
        return
    yield Finding(f"{framework} dtype", None, f"auto is {dtype}" + (f": {remark}" if remark else ""))
    yield try_model(framework, device, dtype)


def try_model(framework: Framework, device: Device, dtype: str) -> Finding:
    """A small random model loaded and asked as a replica does it."""
    heads = ("sequence-classification",)
    load = LoadOrder(MODEL_LOADER, str(CHECKPOINT), framework, heads, dtype, device)  # type: ignore[arg-type]
    supervisor = Supervisor(order=load, threads=1, stall=STALL, environment=compiler_settings())
    try:
        supervisor.start()
    except PrelnError as error:
        return Finding(f"{framework} model", False, str(error), f"this framework can't run jobs on '{device}' here")
    finally:
        supervisor.close()
    facts = {key: value for key, value in supervisor.facts.items() if key != "pid"}
    said = f"; it printed: {' | '.join(supervisor.said)}" if supervisor.said else ""
    return Finding(f"{framework} model", True, f"{as_words(facts)}, ready in {supervisor.seconds.starting:.1f} s{said}")


def as_words(facts: DeviceFacts) -> str:
    """Facts on one line."""
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def of_machine() -> Iterator[Finding]:
    """Free memory and disk."""
    free = free_memory_gb()
    if free is not None:
        fix = "" if free >= LEAST_MEMORY_GB else f"a replica of base size needs {LEAST_MEMORY_GB:g} GB"
        yield Finding("memory", free >= LEAST_MEMORY_GB, f"{free:.1f} GB free", fix)
    folder = cache_root()
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder).free / 2**30
    writable = os.access(folder, os.W_OK)
    good = writable and disk >= LEAST_DISK_GB
    words = f"{disk:.1f} GB free at {cache_root()}" + ("" if writable else ", where nothing can be written")
    yield Finding("disk", good, words, "" if good else "set PRELN_CACHE to a folder with more room")


def free_memory_gb() -> float | None:
    """Memory that programs may still take; None if the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values["MemAvailable"].split()[0]) / 2**20 if "MemAvailable" in values else None


def of_ray() -> Finding:
    """The Ray that is installed, and the cluster that a job would use."""
    address = os.environ.get("RAY_ADDRESS")
    where = (
        f"jobs go to {address} (RAY_ADDRESS)" if address else "RAY_ADDRESS is not set: a running one, or one of its own"
    )
    return Finding("ray", True, f"ray {metadata.version('ray')}; {where}")


def of_storage(url: str) -> Finding:
    """Whether a folder of a store can be listed."""
    try:
        count = len(names(url))
    except (PrelnError, OSError, ImportError) as error:
        return Finding("storage", False, f"{url}: {error}", "look at the credentials, the region and the URL")
    return Finding("storage", True, f"{url} answers: {count:,} objects")
