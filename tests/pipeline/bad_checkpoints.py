"""Bad checkpoints, each with the outcome and message expected: rows of docs/errors.md."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.pipeline.bad import REFUSED, Bad, Make, Settings, cut, job
from tests.pipeline.bad_run import config_of
from tests.pipeline.small import CHECKPOINT


def checkpoint(**changes: object) -> Make:
    """A checkpoint whose config.json differs."""
    return lambda folder: {**(job({})(folder) or {}), "model.checkpoint": config_of(folder, **changes)}


def broken_checkpoint(breaking: Callable[[Path], object]) -> Make:
    """A copy of the good checkpoint, broken by a function of its folder."""

    def make(folder: Path) -> Settings:
        shutil.copytree(CHECKPOINT, folder / "checkpoint")
        breaking(folder / "checkpoint")
        return {**(job({})(folder) or {}), "model.checkpoint": str(folder / "checkpoint")}

    return make


def _without_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()


CHECKPOINTS = [
    Bad(
        "a missing checkpoint",
        (REFUSED, "CheckpointError"),
        ("no-such-model", "check the path"),
        job({"model.checkpoint": "FOLDER/no-such-model"}),
    ),
    Bad(
        "the name of a model of the Hub",
        (REFUSED, "CheckpointError"),
        ("hf://somebody/ner", "preln[hub]"),
        job({"model.checkpoint": "somebody/ner"}),
    ),
    Bad(
        "a checkpoint without config.json",
        (REFUSED, "CheckpointError"),
        ("checkpoint", "config.json"),
        broken_checkpoint(lambda folder: (folder / "config.json").unlink()),
    ),
    Bad(
        "a config.json that is not JSON",
        (REFUSED, "CheckpointError"),
        ("config.json",),
        broken_checkpoint(cut("config.json", 0.5)),
    ),
    Bad(
        "a config.json of another kind of model",
        (REFUSED, "CheckpointError"),
        ("'bert'", "roberta-prelayernorm"),
        checkpoint(model_type="bert"),
    ),
    Bad(
        "a config.json with an unknown activation",
        (REFUSED, "CheckpointError"),
        ("hidden_act", "'gellu'", "fix config.json"),
        checkpoint(hidden_act="gellu"),
    ),
    Bad(
        "a config.json of another size",
        (REFUSED, "CheckpointError"),
        ("word_embeddings", "config.json says", "saved from another size"),
        checkpoint(hidden_size=128),
    ),
    Bad(
        "a config.json with another number of labels",
        (REFUSED, "CheckpointError"),
        ("label",),
        checkpoint(id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1}),
    ),
    Bad(
        "a config.json with an unknown position embedding",
        (REFUSED, "CheckpointError"),
        ("'rotary'", "fix config.json"),
        checkpoint(position_embedding_type="rotary"),
    ),
    Bad(
        "a config.json whose heads do not divide its width",
        (REFUSED, "CheckpointError"),
        ("num_attention_heads", "fix config.json"),
        checkpoint(num_attention_heads=5),
    ),
    Bad(
        "a config.json with strings for numbers",
        (REFUSED, "CheckpointError"),
        ("fix config.json",),
        checkpoint(hidden_size="big"),
    ),
    Bad(
        "a checkpoint without weights",
        (REFUSED, "CheckpointError"),
        ("checkpoint", "model.safetensors"),
        broken_checkpoint(lambda folder: (folder / "model.safetensors").unlink()),
    ),
    Bad(
        "truncated weights",
        (REFUSED, "CheckpointError"),
        ("model.safetensors", "cut off"),
        broken_checkpoint(cut("model.safetensors", 0.6)),
    ),
    Bad(
        "weights that are not safetensors",
        (REFUSED, "CheckpointError"),
        ("model.safetensors",),
        broken_checkpoint(lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 64)),
    ),
    Bad(
        "weights in a pickle",
        (REFUSED, "CheckpointError"),
        ("pytorch_model.bin", "--allow-pickle"),
        broken_checkpoint(lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin")),
    ),
    Bad(
        "a checkpoint without the task's head",
        (REFUSED, "CheckpointError"),
        ("token-classification", "sequence-classification", "trained for this task"),
        job({"task": {"name": "token-classification"}}),
    ),
    Bad(
        "a checkpoint without a tokenizer",
        (REFUSED, "CheckpointError"),
        ("no tokenizer", "tokenizer.json"),
        broken_checkpoint(_without_tokenizer),
    ),
    Bad(
        "a tokenizer.json that is not JSON",
        (REFUSED, "CheckpointError"),
        ("tokenizer.json", "not JSON", "copy it again"),
        broken_checkpoint(cut("tokenizer.json", 0.5)),
    ),
]
