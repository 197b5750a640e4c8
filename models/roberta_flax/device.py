"""A device's name as users write it in, JAX's device out, with its threads set once.

JAX fixes them when it first touches a device, so they are set before that. It reads these itself:
XLA_PYTHON_CLIENT_MEM_FRACTION (part of a GPU's memory to take) and JAX_COMPILATION_CACHE_DIR (folder of compiled code).
"""

import os
from typing import Any

import jax

from models.errors import PrelnError

THREADS_VARIABLE = "PRELN_THREADS"
# What XLA's CPU client takes for the number of cores.
XLA_CORES_VARIABLE = "NPROC"


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
        found = jax.devices("cpu" if kind == "cpu" else "gpu")
    except RuntimeError:
        found = []
    place = int(number or 0)
    if place >= len(found):
        raise PrelnError(
            f"device is '{device}', JAX sees {len(found)} of that kind; choose 'cpu', or install jax[cuda12]"
        )
    return found[place]
