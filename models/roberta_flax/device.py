"""A device's name as users write it in, JAX's device out, with its threads set once.

JAX fixes them when it first touches a device, so they are set before that. It reads these itself:
XLA_PYTHON_CLIENT_MEM_FRACTION (part of a GPU's memory to take) and JAX_COMPILATION_CACHE_DIR (folder of compiled code).
"""

import os
from importlib import metadata
from typing import Any

import jax

from models.boundary import DeviceFacts
from models.errors import PrelnError

THREADS_VARIABLE = "PRELN_THREADS"
# What XLA's CPU client takes for the number of cores.
XLA_CORES_VARIABLE = "NPROC"
CUDA_PLUGINS = ("jax-cuda13-plugin", "jax-cuda12-plugin")


def claim_device(device: str | None) -> Any:
    """JAX's device for "cpu", "cuda", "cuda:1" or "gpu:0"; None: a GPU if there is one.

    On a CPU, PRELN_THREADS says how many threads run, where JAX has not run in this process before.
    Raises PrelnError for a device that is not there.
    """
    threads = os.environ.get(THREADS_VARIABLE)
    if threads:
        os.environ.setdefault(XLA_CORES_VARIABLE, threads)
    if device is None:
        return jax.devices()[0]
    kind, _, number = device.lower().partition(":")
    if kind not in ("cpu", "cuda", "gpu") or not (number or "0").isdigit():
        raise PrelnError(f"device is '{device}'; Flax takes 'cpu', 'cuda' or 'cuda:N'")
    try:
        found, reason = jax.devices("cpu" if kind == "cpu" else "gpu"), ""
    except RuntimeError as error:
        found, reason = [], str(error)
    place = int(number or 0)
    if place >= len(found) and kind == "cpu":
        raise PrelnError(f"device is '{device}', JAX sees {len(found)} of that kind; choose 'cpu'")
    if place >= len(found):
        raise PrelnError(
            f"device is '{device}', and JAX {jax.__version__} can't use it: it sees {len(found)} of that kind; "
            f"{why_no_gpu(reason)}"
        )
    return found[place]


def why_no_gpu(reason: str) -> str:
    """JAX's own words for it, and whether there is a CUDA plugin at all."""
    plugins = [f"{name} {version}" for name, version in cuda_plugins().items()]
    if not plugins:
        return "it has no CUDA plugin; pip install 'preln[flax-cuda]'"
    failed = getattr(jax._src.xla_bridge, "_backend_errors", {})  # kept, and told by nothing public
    said = "; ".join(f"{name}: {' '.join(str(words).split())}" for name, words in failed.items()) or reason
    return f"with {', '.join(plugins)}: {said or 'no device is visible'}; look at nvidia-smi for the driver"


def built_for() -> str | None:
    """JAX's CUDA plugin; None where there is none."""
    return ", ".join(f"{name} {version}" for name, version in cuda_plugins().items()) or None


def cuda_plugins() -> dict[str, str]:
    """JAX's CUDA plugins that are installed, with their versions."""
    found = {}
    for name in CUDA_PLUGINS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_facts(place: Any) -> DeviceFacts:
    """What JAX knows of a device."""
    on_gpu = place.platform in ("gpu", "cuda", "rocm")
    facts: DeviceFacts = {"device": "cuda" if on_gpu else "cpu", "framework": f"jax {jax.__version__}"}
    if not on_gpu:
        return facts
    facts |= {"name": place.device_kind, "capability": str(getattr(place, "compute_capability", "unknown"))}
    facts["build"] = built_for() or "unknown"
    limit = (place.memory_stats() or {}).get("bytes_limit", 0)
    return {**facts, "memory_gb": round(limit / 2**30, 1)}
