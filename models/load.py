"""Loads a checkpoint in one framework as a model behind the flat boundary; imports exactly that framework.

Each framework's `models.roberta_X.flat` has `load_flat(*, heads, dtype, device) -> FlatModel`.
"""

import importlib
from collections.abc import Mapping, Sequence

from models.boundary import Dtype, FlatModel, Framework, Head
from models.checkpoint import Checkpoint
from models.errors import PrelnError
from models.named_heads import open_heads

FOLDERS: dict[Framework, str] = {"torch": "roberta_torch", "tensorflow": "roberta_tf", "flax": "roberta_flax"}
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")


def load(
    *,
    checkpoint: Checkpoint | str,
    framework: Framework = "torch",
    heads: Sequence[Head] | Mapping[str, Head],
    dtype: Dtype = "float32",
    device: str | None = None,
) -> FlatModel:
    """A model that answers these heads from flat tokens.

    checkpoint: a folder's path or URL, or one already opened.
    heads: their kinds, by which they are then asked; or name -> kind, of heads in folders of those names.
    device: "cpu", "cuda", …; None takes a GPU if there is one.
    Raises CheckpointError for what the checkpoint lacks, PrelnError if the framework is not installed, or can't use the
    device (with the framework's reason).
    """
    if framework not in FOLDERS:
        raise PrelnError(f"framework is '{framework}'; choose one of {', '.join(FOLDERS)}")
    if dtype not in DTYPES:
        raise PrelnError(f"dtype is '{dtype}'; choose one of {', '.join(DTYPES)}")
    if not heads:
        raise PrelnError("heads is empty; name at least one, e.g. heads=['encoder']")
    named = open_heads(checkpoint=checkpoint, heads=heads)
    try:
        module = importlib.import_module(f"models.{FOLDERS[framework]}.flat")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("models"):
            raise
        raise PrelnError(
            f"{framework} is not installed (no module '{error.name}'); pip install 'preln[{framework}]'"
        ) from None
    model: FlatModel = module.load_flat(heads=named, dtype=dtype, device=device)
    return model
