"""The reference data of ../shared/golden in, the part of it that lies in this folder out: values are copied, never computed.

`python -m tests.golden.selection` writes this folder again. What is left out is what another committed value would show
as well: the middle layers, second copies of equal cases, and all but the small tensors' gradients of most heads.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

Array = npt.NDArray[Any]

HERE = Path(__file__).resolve().parent
REFERENCE = HERE.parents[2] / "shared" / "golden"

LEFT_OUT = ("Model-chunked", "Model-decoder", "ForSequenceClassification-multiregression")
"""Shown without numbers: chunks answer as the whole (test_training.py), ForCausalLM is built on the bare decoder, and the
squared error of several labels is its formula (test_training.py)."""
FINAL = ("loss", "logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output", "out")
FIRST_AND_LAST = ("hidden_states.0", "hidden_states.3", "attentions.0", "attentions.2", "cross_attentions.0")
CACHED = ("past.0.", "past.2.")
WITH_STATES = {
    "Model": ("masked", "head_mask_2d"),
    "Model-relative_key": ("masked",),
    "Model-relative_key_query": ("masked",),
    "ForCausalLM": ("masked",),
    "ForCausalLM-cross": ("masked",),
    "ForMultipleChoice": ("masked",),
}
"""Cases that keep first and last states, maps and cached keys; other heads pass on what the encoder gives them."""
OF_A_VARIANT = ("masked", "loss", "position_ids")
"""Cases of a class's second and later folders: the other arguments take the same way in all of them."""
OF_A_LANGUAGE_MODEL = ("masked", "loss", "position_ids", "head_mask_2d", "inputs_embeds", "no_cache", "decode_steps")
"""Cases of the language models, whose logits are large: other masks take the same way in `Model`."""
CASES = {
    "ForCausalLM": (*OF_A_LANGUAGE_MODEL, "mask_3d"),
    "ForCausalLM-cross": ("masked", "loss", "head_mask_2d", "cross_no_mask", "cross_mask_3d", "decode_steps"),
    "ForMaskedLM": (*OF_A_LANGUAGE_MODEL, "ids_only"),
    "ForMaskedLM-untied": ("masked", "loss"),
}
EVERY_GRADIENT = ("ForMaskedLM",)
"""Elsewhere gradients of the head, of norms and of biases: through them the rest is reached."""
LEGACY = {
    "pytorch_model.bin": "ForQuestionAnswering",
    "tf_model.h5": "ForMaskedLM",
    "flax_model.msgpack": "ForSequenceClassification",
}
STRUCTURES = (
    "Model", "Model-relative_key", "ForCausalLM-cross", "ForMaskedLM", "ForMaskedLM-untied", "ForMultipleChoice",
    "ForQuestionAnswering", "ForSequenceClassification", "ForTokenClassification",
)  # fmt: skip
"""Models that have a tensor which no other has."""
WHOLE = ("Model", "Model-relative_key", "ForCausalLM-cross")
"""Structures whose encoder is listed too: without a prefix, with distances, and with a prefix and cross-attention."""
OF_A_LAYER = re.compile(r"layer(?:_\._|[./])(\d)")
FAMILY_FILES = {
    "camembert": ("question-answering",),
    "roberta": ("token-classification", "annotations.json", "special_tokens_map.json", "tokenizer.json"),
    "xlm-roberta": (
        "fill-mask", "token-classification", "annotations.json", "sentencepiece.bpe.model", "special_tokens_map.json",
        "tokenizer.json",
    ),
    "xlm-roberta-xl": ("text-classification",),
}  # fmt: skip
"""Of each family: heads, and the tokenizer of each kind with the calls of the reference that use it."""
TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")


def selected_cases(model: str) -> tuple[dict[str, Array], dict[str, list[str]]]:
    """(arrays by `<case>/in/<argument>` and `<case>/torch/<output>`, the names of all of each case's outputs)."""
    with np.load(REFERENCE / "models" / model / "cases.npz") as stored:
        arrays = {key: stored[key] for key in stored.files}
    cases = CASES.get(model) or (OF_A_VARIANT if "-" in model else None)
    chosen: dict[str, Array] = {}
    outputs: dict[str, list[str]] = {}
    for key, array in arrays.items():
        case, source, name = key.split("/", 2)
        if source not in ("in", "torch") or (cases is not None and case not in cases):
            continue
        if source == "torch":
            outputs.setdefault(case, []).append(name)
        if source == "in" or _is_kept(model, case, name, array):
            chosen[key] = np.array(array, order="C")  # a scalar stays one
    return chosen, outputs


def _is_kept(model: str, case: str, name: str, array: Array) -> bool:
    if name.startswith("grad/"):
        return model in EVERY_GRADIENT or array.ndim == 1 or "roberta_prelayernorm" not in name
    if name in FINAL:
        return True
    return case in WITH_STATES.get(model, ()) and (name in FIRST_AND_LAST or name.startswith(CACHED))


def listed(shapes: Mapping[str, list[int]], model: str) -> dict[str, list[int]]:
    """What legacy/names.json has of a model's tensors: of the layers only the first, and of most models none."""
    layer = {name: found[1] for name in shapes if (found := OF_A_LAYER.search(name))}
    return {
        name: shapes[name] for name in sorted(shapes) if name not in layer or (model in WHOLE and layer[name] == "0")
    }


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """Where a legacy file has its tensors, and their shapes."""
    if file.suffix == ".bin":
        import torch

        shapes = {name: list(tensor.shape) for name, tensor in torch.load(file, weights_only=True).items()}
    elif file.suffix == ".h5":
        import h5py

        shapes = {}
        with h5py.File(file) as opened:
            opened.visititems(
                lambda name, item: shapes.update({name: list(item.shape)} if hasattr(item, "shape") else {})
            )
    else:
        import msgpack

        tree = msgpack.unpackb(file.read_bytes(), ext_hook=lambda _, packed: msgpack.unpackb(packed)[0])
        shapes = dict(_leaves(tree, ""))
    return shapes


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, list[int]]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            yield prefix + name, list(value)


def write_models(folder: Path) -> None:
    """models/: a checkpoint and its cases a folder; legacy/: one file of each older format."""
    for source in sorted((REFERENCE / "models").iterdir()):
        if not source.is_dir() or source.name in LEFT_OUT:
            continue
        target = folder / "models" / source.name
        target.mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            shutil.copy(source / name, target)
        arrays, outputs = selected_cases(source.name)
        save_file(arrays, target / "cases.safetensors", {"outputs": _compact(outputs)})
    for name, model in LEGACY.items():
        target = folder / "legacy" / name
        target.mkdir(parents=True)
        for file in ("config.json", name):
            shutil.copy(REFERENCE / "models" / model / file, target)


def write_names(folder: Path) -> None:
    """legacy/names.json: model -> file -> tensor -> shape."""
    names = {
        model: {file: listed(tensor_shapes(REFERENCE / "models" / model / file), model) for file in LEGACY}
        for model in STRUCTURES
    }
    (folder / "legacy" / "names.json").write_text(_compact(names) + "\n")


def write_annotations(folder: Path) -> None:
    """annotations/: the calls, the tokenizer once, and of each checkpoint the tensors that no model has."""
    source = REFERENCE / "annotations"
    calls = json.loads((source / "annotations.json").read_text())["cases"]
    tokenizer = folder / "annotations" / "tokenizer"
    tokenizer.mkdir(parents=True)
    (folder / "annotations" / "annotations.json").write_text(_compact({"cases": calls}) + "\n")
    for file in TOKENIZER:
        shutil.copy(source / "fill-mask" / file, tokenizer)
    models = {path.parent.name: load_file(path) for path in sorted((folder / "models").glob("*/model.safetensors"))}
    for checkpoint in sorted(path.parent for path in source.glob("*/model.safetensors")):
        target = folder / "annotations" / checkpoint.name
        target.mkdir()
        shutil.copy(checkpoint / "config.json", target)
        tensors = load_file(checkpoint / "model.safetensors")
        own = {name: _not_in(tensors, model) for name, model in models.items()}
        rest = min(own, key=lambda name: len(own[name]))
        without = sorted(set(models[rest]) - set(tensors))
        facts = _compact({"model": rest, "without": without})
        save_file({name: tensors[name] for name in own[rest]}, target / "model.safetensors", {"rest": facts})


def write_families(folder: Path) -> None:
    """families/: heads whole, and the files that a family's heads share."""
    for family, names in FAMILY_FILES.items():
        (folder / "families" / family).mkdir(parents=True)
        shared = ("tokenizer_config.json",) if "tokenizer.json" in names else ()
        for name in (*names, *shared):
            source = REFERENCE / "families" / family / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder / "families" / family / name)


def _not_in(tensors: Mapping[str, Array], model: Mapping[str, Array]) -> list[str]:
    return [name for name, array in tensors.items() if name not in model or not np.array_equal(model[name], array)]


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def write(folder: Path) -> None:
    """All of the data, into an empty folder."""
    write_models(folder)
    write_names(folder)
    write_annotations(folder)
    write_families(folder)


if __name__ == "__main__":
    for part in ("models", "legacy", "annotations", "families"):
        shutil.rmtree(HERE / part, ignore_errors=True)
    write(HERE)
