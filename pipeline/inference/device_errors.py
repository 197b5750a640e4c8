"""An exception of any framework in, what it says of the device out: out of memory, lost, or nothing.

No framework is imported: types are known by their names. What these words miss is found by asking the device itself
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
    """Whether a framework's exception says that the device has no memory left, in whichever words it has for that."""
    return type(error).__name__ in _OUT_OF_MEMORY_TYPES or _OUT_OF_MEMORY.search(str(error)) is not None


def lost(error: BaseException) -> bool:
    """Whether an exception tells of a device that answers nothing more in this process, whoever asks."""
    if out_of_memory(error):
        return False
    return type(error).__name__ == "AcceleratorError" or _LOST.search(str(error)) is not None
