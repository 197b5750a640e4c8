"""The model's process classifies the exceptions of every framework."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from models.boundary import Answers, Ask, Tokens
from pipeline.inference.child import POISONED_EXIT, AtOnce, LoadOrder, answer, load_model
from pipeline.inference.device_errors import lost, out_of_memory
from tests.pipeline import hostile
from tests.pipeline.small import tokens_of

ASKS: Mapping[str, Ask] = {"sequence-classification": Ask(positions_G=np.zeros(1, np.int32))}


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


class AcceleratorError(RuntimeError):
    """As torch names it since 2.8."""


class ResourceExhaustedError(Exception):
    """As TensorFlow names it."""


class InternalError(Exception):
    """As TensorFlow names it."""


class JaxRuntimeError(RuntimeError):
    """As JAX names it."""


MEMORY: list[Exception] = [
    OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which 17.88 MiB is free."
    ),
    RuntimeError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    ResourceExhaustedError("{{function_node __wrapped__MatMul}} OOM when allocating tensor with shape[65536,3072]"),
    ResourceExhaustedError("failed to allocate memory [Op:MatMul]"),
    InternalError("{{function_node __wrapped__AddV2}} failed to allocate memory [Op:AddV2]"),
    JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 805306368 bytes."),
    JaxRuntimeError("INTERNAL: Failed to load in-memory CUBIN: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    MemoryError("Unable to allocate 4.00 GiB for an array"),
]
LOST: list[Exception] = [
    AcceleratorError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(handle, opa, opb, m, n, k)`"),
    RuntimeError("CUDA driver error: unspecified launch failure"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    RuntimeError("HIP error: unspecified launch failure"),
    JaxRuntimeError("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"),
    JaxRuntimeError("INTERNAL: Failed to launch CUDA kernel: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"),
    InternalError("GPU sync failed"),
    InternalError("Could not synchronize CUDA stream: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access"),
]
HARMLESS: list[Exception] = [
    RuntimeError("expected scalar type Half but found Float"),
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1"),
    ValueError("positions out of range"),
    InternalError("Incompatible shapes: [3] vs. [4] [Op:AddV2]"),
    JaxRuntimeError(
        "INVALID_ARGUMENT: Executable expected parameter 0 of size 4 but got buffer with incompatible size 8"
    ),
]


class Raising(AtOnce):
    """A model whose every pack ends in an exception, on a device that answers or does not."""

    def __init__(self, error: Exception, *, probe: Exception | None = None) -> None:
        super().__init__(self._raise)
        self._error, self._probe = error, probe

    def _raise(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        raise self._error

    def probe(self) -> None:
        """As the device does."""
        if self._probe is not None:
            raise self._probe


class ProcessEnded(BaseException):
    """The child has ended itself."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit codes of the child, which goes on being this process."""
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise ProcessEnded

    monkeypatch.setattr("pipeline.inference.child.os._exit", leave)
    return codes


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: str(error)[:30])
def test_memory_that_is_out_is_known_in_the_words_of_each_framework(error: Exception, exits: list[int]) -> None:
    assert out_of_memory(error)
    assert not lost(error)
    assert answer(Raising(error), tokens_of([[1]]), ASKS)[:2] == ("failed", "oom")
    assert not exits


@pytest.mark.parametrize("error", LOST, ids=lambda error: str(error)[:30])
def test_a_device_that_is_lost_ends_the_process_in_the_words_of_each_framework(
    error: Exception, exits: list[int]
) -> None:
    assert lost(error)
    with pytest.raises(ProcessEnded):
        answer(Raising(error), tokens_of([[1]]), ASKS)
    assert exits == [POISONED_EXIT]


@pytest.mark.parametrize("error", HARMLESS, ids=lambda error: str(error)[:30])
def test_any_other_exception_is_the_rows_where_the_device_still_answers(error: Exception, exits: list[int]) -> None:
    assert not out_of_memory(error)
    assert not lost(error)
    assert answer(Raising(error), tokens_of([[1]]), ASKS)[:2] == ("failed", "exception")
    if not isinstance(error, ValueError):
        with pytest.raises(ProcessEnded):
            answer(Raising(error, probe=RuntimeError("no words for it")), tokens_of([[1]]), ASKS)
        assert exits == [POISONED_EXIT]


def test_an_exception_is_told_in_one_line_with_its_place() -> None:
    kind, reason, message = answer(Raising(ValueError("first\n  second")), tokens_of([[1]]), ASKS)
    assert (kind, reason) == ("failed", "exception")
    assert str(message).startswith("ValueError: first second (test_child.py:")


def test_answers_come_with_the_seconds_they_took(tmp_path: Path) -> None:
    order = LoadOrder(
        loader=hostile.LOADER,
        checkpoint=str(tmp_path),
        framework="torch",
        heads=("sequence-classification",),
        dtype="float32",
    )
    kind, answers, seconds = answer(load_model(order), tokens_of([[5, 6]]), ASKS)
    assert kind == "answers"
    assert isinstance(answers, Mapping)
    assert answers["sequence-classification"]["logits"].tolist() == [[5.0, 11.0, 2.0]]
    assert isinstance(seconds, float)
    assert seconds >= 0
