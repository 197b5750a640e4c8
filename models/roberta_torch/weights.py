"""NumPy tensors under neutral names in, a module's parameters out; and back.

The file's names are torch's own: only the bare model's prefix differs (models.tensors).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.config import RobertaPreLayerNormConfig
from models.loading import start_of
from models.safetensors_file import AnyArray
from models.tensors import PREFIX
from models.unread_parts import plain_names

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


class _NoStart(TorchFunctionMode):
    """torch.nn.init leaves parameters as they are."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call anything but an initialiser."""
        given = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@contextmanager
def without_values() -> Iterator[None]:
    """Modules that are built in here have parameters without values, to be filled.

    Drawing start values for a device without memory would do nothing, and load torch's compiler for it.
    """
    with torch.device("meta"), _NoStart():
        yield


def dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    """A torch type from its name."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise ValueError(f"dtype is '{dtype}'; choose one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def to_tensor(array: AnyArray, *, dtype: torch.dtype, device: str | torch.device | None = None) -> Tensor:
    """A copy of an array on the device in this type; the array may be a read-only view of a file."""
    copied = np.array(array, order="C")
    if copied.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(copied.view(np.int16)).view(torch.bfloat16).to(dtype=dtype, device=device)
    return torch.from_numpy(copied).to(dtype=dtype, device=device)


def to_numpy(tensor: Tensor) -> AnyArray:
    """The tensor's values on the host, bfloat16 as ml_dtypes has it."""
    host = tensor.detach().cpu().contiguous()
    if host.dtype == torch.bfloat16:
        return host.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    array: AnyArray = host.numpy()
    return array


def neutral_parameters(model: nn.Module, *, bare: bool) -> dict[str, nn.Parameter]:
    """Every parameter once under its neutral name; second names of tied ones are left out."""
    named: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        named["lm_head.bias" if name == "lm_head.decoder.bias" else PREFIX + name if bare else name] = parameter
    return named


def gathered(state: Mapping[str, Tensor], *, names: Iterable[str], bare: bool) -> dict[str, Tensor]:
    """Neutral name -> tensor of a state_dict of this model, prefixes of torch.compile and DataParallel aside.

    Raises ValueError for one that lacks a tensor of these names.
    """
    plain = {name: state[own] for name, own in plain_names(list(state)).items()}
    found = {PREFIX + name if bare else name: tensor for name, tensor in plain.items()}
    lacking = [name for name in names if name not in found]
    if lacking:
        raise ValueError(f"state_dict has no '{lacking[0]}' ({len(lacking)} tensors); give the whole model's")
    return found


def fill(
    model: nn.Module,
    *,
    tensors: Iterable[tuple[str, AnyArray]],
    bare: bool,
    dtype: torch.dtype,
    device: str | torch.device | None = None,
) -> None:
    """Put tensors in the place of a model's parameters, e.g. of one built on the meta device."""
    for name, array in tensors:
        owner, leaf = _owner(model, name.removeprefix(PREFIX) if bare else name)
        setattr(owner, leaf, nn.Parameter(to_tensor(array, dtype=dtype, device=device)))


def fill_missing(
    model: nn.Module,
    *,
    names: Iterable[str],
    bare: bool,
    dtype: torch.dtype,
    device: str | torch.device | None = None,
    config: RobertaPreLayerNormConfig,
) -> None:
    """Start the named parameters afresh."""
    for name in names:
        owner, leaf = _owner(model, name.removeprefix(PREFIX) if bare else name)
        values = torch.empty(getattr(owner, leaf).shape, dtype=dtype, device=device)
        setattr(owner, leaf, nn.Parameter(start(values, name=name, config=config)))


def initialise(model: nn.Module, config: RobertaPreLayerNormConfig) -> None:
    """Start every parameter that has memory afresh from torch's seeded generator."""
    for name, parameter in model.named_parameters():
        if not parameter.is_meta:
            start(parameter.data, name=name, config=config)


def start(values: Tensor, *, name: str, config: RobertaPreLayerNormConfig) -> Tensor:
    """Fill values in place as `models.loading.start_of` says."""
    kind = start_of(name)
    if kind == "zeros":
        return values.zero_()
    if kind == "ones":
        return values.fill_(1.0)
    values.normal_(mean=0.0, std=config.initializer_range)
    if kind == "normal, pad row zero" and values.shape[0] > config.pad_token_id:
        values[config.pad_token_id] = 0.0
    return values


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
