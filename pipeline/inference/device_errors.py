"""Classifies exceptions of any framework: out of device memory, device lost, or neither.

No framework is imported: types are recognised by their names. What these patterns miss is found by probing the device
(`pipeline.inference.child`).
"""

import re

_OUT_OF_MEMORY_TYPES = {"OutOfMemoryError", "ResourceExhaustedError", "MemoryError", "_ArrayMemoryError"}
_OUT_OF_MEMORY = re.compile(
    r"out of memory|RESOURCE_EXHAUSTED|failed to allocate memory|can't allocate memory|cannot allocate memory"
    r"|OOM when allocating|CUDA_ERROR_OUT_OF_MEMORY|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
_LOST = re.compile(
    r"CUDA error|CUDA driver error|CUDA runtime error|CUDA_ERROR_|HIP error|hipError|Triton Error \[(CUDA|HIP)\]"
    r"|CUBLAS_STATUS_|CUDNN_STATUS_|cuDNN error|NCCL error|GPU sync failed|device kernel image is invalid"
    r"|an illegal memory access was encountered|unspecified launch failure",
    re.IGNORECASE,
)


def out_of_memory(error: BaseException) -> bool:
    """Whether a framework's exception means that the device is out of memory."""
    return type(error).__name__ in _OUT_OF_MEMORY_TYPES or _OUT_OF_MEMORY.search(str(error)) is not None


def lost(error: BaseException) -> bool:
    """Whether an exception means that the device is lost to this process."""
    if out_of_memory(error):
        return False
    return type(error).__name__ == "AcceleratorError" or _LOST.search(str(error)) is not None
