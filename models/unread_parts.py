"""Refuses a checkpoint folder that holds parts which would change its answers but are not supported."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from models.boundary import Head
from models.errors import CheckpointError
from models.safetensors_file import TensorInfo

ADAPTER_NAMES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
SCALES = (".SCB", ".weight_format", ".absmax", ".quant_map", ".quant_state", ".qweight", ".qzeros", ".scales", ".g_idx")
SCALE_ENDINGS = (*SCALES, ".weight_scale", ".weight_scale_inv", ".input_scale")
WRAPPERS = ("_orig_mod.", "module.")
LABELLED: tuple[Head, ...] = ("sequence-classification", "token-classification")


def refuse_unread(*, url: str, names: set[str], fields: Mapping[str, Any], tensors: Iterable[str]) -> None:
    """Raise CheckpointError for quantised weights and adapters, which would be misread as plain numbers or ignored."""
    adapter = next((name for name in ADAPTER_NAMES if name in names), None)
    if adapter is not None:
        raise CheckpointError(f"{url}: holds an adapter ({adapter}), which is not read; merge it into the weights")
    scale = next((name for name in tensors if name.endswith(SCALE_ENDINGS)), None)
    if fields.get("quantization_config") or scale is not None:
        found = f"'{scale}'" if scale is not None else "quantization_config"
        raise CheckpointError(
            f"{url}: its weights are quantised ({found}), and only plain ones are read; save the model dequantised"
        )


def refuse_whole_numbers(*, url: str, tensors: Mapping[str, TensorInfo], wanted: Iterable[str]) -> None:
    """Raise CheckpointError if a tensor of the model is stored as integers."""
    for name in wanted:
        if name in tensors and tensors[name].dtype.kind in "iub":
            raise CheckpointError(
                f"{url}: '{name}' is stored as {tensors[name].dtype}, which is no weight without its scales; save the model "
                "dequantised"
            )


def refuse_labels(*, url: str, id2label: Mapping[Any, Any], heads: Sequence[Head]) -> None:
    """Raise CheckpointError unless a classifier's labels name every id from 0 on."""
    if not set(LABELLED) & set(heads):
        return
    missing = [index for index in range(len(id2label)) if not isinstance(id2label.get(index), str)]
    if missing:
        raise CheckpointError(
            f"{url}: config.json's id2label has no name for the label {missing[0]}; it must name each of 0 … "
            f"{len(id2label) - 1}"
        )


def plain_names(names: Sequence[str]) -> dict[str, str]:
    """Plain name -> the file's own: without the prefixes of torch.compile and DataParallel, if all names have them, and
    without a pooler under the bare model's name beside a model with a head, which does not use it."""
    plain = {name: name for name in names}
    while plain and (wrapper := next((one for one in WRAPPERS if all(name.startswith(one) for name in plain)), None)):
        plain = {name.removeprefix(wrapper): own for name, own in plain.items()}
    bare = [name for name in plain if name.startswith(("embeddings.", "encoder.", "LayerNorm."))]
    if not bare and any(not name.startswith("pooler.") for name in plain):
        plain = {name: own for name, own in plain.items() if not name.startswith("pooler.")}
    return plain
