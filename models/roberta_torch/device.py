"""A device's name as users write it in, PyTorch's device out, or the reason why PyTorch can't use it; and what it is.

Legend: sm_80 is compute capability 8.0.
"""

import os
import warnings

import torch

from models.boundary import DeviceFacts
from models.errors import PrelnError

SHARE_VARIABLE = "PRELN_GPU_SHARE"
"""The part of a GPU's memory that this process may take, where several replicas share the GPU."""


def claim_device(device: str | None) -> torch.device:
    """PyTorch's device for "cpu", "cuda" or "cuda:1"; None: a GPU if there is one.

    Raises PrelnError with PyTorch's own reason for a GPU that is not there, or that this build has no code for.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device.replace("gpu", "cuda"))
    except RuntimeError as error:
        raise PrelnError(f"device is '{device}'; PyTorch takes 'cpu', 'cuda' or 'cuda:N'") from error
    if place.type == "cuda":
        _refuse_unusable(place)
        share = os.environ.get(SHARE_VARIABLE)
        if share:
            torch.cuda.set_per_process_memory_fraction(float(share), place)
    return place


def _refuse_unusable(place: torch.device) -> None:
    if not torch.cuda.is_available():
        raise PrelnError(f"device is '{place}', and PyTorch {torch.__version__} can't use a GPU: {why_no_gpu()}")
    number, count = place.index or 0, torch.cuda.device_count()
    if number >= count:
        raise PrelnError(f"device is '{place}', PyTorch sees {count} GPU{'s' if count != 1 else ''}")
    refuse_without_code(
        name=torch.cuda.get_device_name(place),
        capability=torch.cuda.get_device_capability(place),
        built_for=torch.cuda.get_arch_list(),
        version=f"PyTorch {torch.__version__}",
    )


def refuse_without_code(*, name: str, capability: tuple[int, int], built_for: list[str], version: str) -> None:
    """Raise PrelnError for a GPU that is older than the oldest that this build has code for."""
    known = sorted(
        int(digits) for one in built_for if one.startswith("sm_") and (digits := one[3:].rstrip("af")).isdigit()
    )
    own = 10 * capability[0] + capability[1]
    if known and own < known[0]:
        raise PrelnError(
            f"{name} (sm_{own}) is older than what {version} is built for (sm_{known[0]} and newer): CUDA 13 dropped it; "
            "install PyTorch's CUDA 12.6 build: pip install torch --index-url https://download.pytorch.org/whl/cu126"
        )


def built_for() -> str | None:
    """The CUDA, or ROCm, in this build; None for one without."""
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    return f"ROCm {torch.version.hip}" if torch.version.hip else None


def why_no_gpu() -> str:
    """PyTorch's own words for it: no CUDA in this build, no driver, a driver too old."""
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            "this build has no CUDA in it; install a wheel that has (pip install 'preln[torch]' without the CPU index)"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            torch.cuda.init()
            reason = f"{torch.cuda.device_count()} devices are visible"
        except Exception as error:  # RuntimeError, AssertionError, AcceleratorError, by the cause
            reason = f"{type(error).__name__}: {error}"
    said = "; ".join(dict.fromkeys([reason, *(str(one.message) for one in caught)]))
    return f"{' '.join(said.split())} (built for CUDA {torch.version.cuda or torch.version.hip})"


def device_facts(place: torch.device) -> DeviceFacts:
    """What PyTorch knows of a device."""
    facts: DeviceFacts = {"device": place.type, "framework": f"torch {torch.__version__}"}
    if place.type != "cuda":
        vectors = getattr(torch.backends.cpu, "get_cpu_capability", lambda: "unknown")()
        return {**facts, "vectors": str(vectors), "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(place)
    major, minor = torch.cuda.get_device_capability(place)
    free, total = torch.cuda.mem_get_info(place)
    facts |= {"name": properties.name, "capability": f"{major}.{minor}", "build": built_for() or "unknown"}
    driver = getattr(torch._C, "_cuda_getDriverVersion", None)
    if driver is not None:
        version = int(driver())
        facts["driver"] = f"CUDA {version // 1000}.{version % 1000 // 10}"
    return {**facts, "memory_gb": round(total / 2**30, 1), "free_gb": round(free / 2**30, 1)}
