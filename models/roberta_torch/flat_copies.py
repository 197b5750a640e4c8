"""NumPy indices in and tensors on the device out, and the way back: copies that the host does not wait for on CUDA."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.boundary import Answers, IntArray


def indices_on(device: torch.device, values: IntArray) -> Tensor:
    """int64 indices on the device; nothing waits for the copy, which is made from memory that the device reads by itself."""
    indices = torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
    if device.type == "cuda":
        return indices.pin_memory().to(device, non_blocking=True)
    return indices.to(device)


def fetched(answers: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Answers]:
    """Answers in the host's memory as NumPy arrays: int32, or float32 whatever they were computed in."""
    return {head: {name: _array(values) for name, values in named.items()} for head, named in answers.items()}


def _array(values: Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = (values.float() if values.is_floating_point() else values).numpy()
    return array


class Fetching:
    """Answers on their way from a CUDA device, in the type in which they were computed: half of float32's bytes."""

    def __init__(self, answers: Mapping[str, Mapping[str, Tensor]], *, device: torch.device) -> None:
        self._copies = {
            head: {name: _begun(values) for name, values in named.items()} for head, named in answers.items()
        }
        self._arrived = torch.cuda.Event()
        self._arrived.record(torch.cuda.current_stream(device))

    def result(self) -> dict[str, Answers]:
        """The answers, once the copies have arrived. Raises what the device says of the computation."""
        self._arrived.synchronize()
        return fetched(self._copies)


def _begun(values: Tensor) -> Tensor:
    """A copy in pinned memory, being filled."""
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return copy.copy_(values, non_blocking=True)
