"""Makes `random-tiny/` from the embedded sample and a seed: a small untrained classifier with its tokenizer.

For trying the pipeline and for tests. `python -m jobs.checkpoints.make_random` writes the committed folder again, byte
for byte; with a head and a folder it writes a checkpoint of that head there. No framework is imported. Tensor names and
shapes are those of `models.tensors`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from jobs.training.bpe import PAD_ID, train_tokenizer
from models.boundary import Head
from models.checkpoint_writer import write_checkpoint
from models.config import RobertaPreLayerNormConfig
from models.tensors import ARCHITECTURES, expected_tensors

FOLDER = Path(__file__).parent / "random-tiny"
SAMPLE = Path(__file__).parents[1] / "sample"
# Of sixty tried, the most even over the sample: each label has 14 % of it or more, and no text's best two logits are
# closer than 0.002.
SEED = 50
HEAD: Head = "sequence-classification"
VOCABULARY = 1_000
TEXT_LIMIT = 128  # tokens of a text, specials included
# With a trained model's spread every answer would be the same; with this one the four labels all occur.
EMBEDDING_SPREAD = 0.5
WEIGHT_SPREAD = 2.0  # over the square root of the inputs
LABELS = ("random-0", "random-1", "random-2", "random-3")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
"""Labels of a random token classifier."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the committed folder again, or a checkpoint of another head to another folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", choices=sorted(ARCHITECTURES), default=HEAD)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    make_random(folder=options.folder, head=options.head)


def make_random(*, folder: Path, head: Head = HEAD) -> None:
    """Write config.json, model.safetensors and the tokenizer's files to `folder`."""
    config = random_config(head=head)
    write_checkpoint(
        url=str(folder),
        config=config,
        tensors=random_tensors(config=config, head=head),
        tokenizer_files=tokenizer_files(texts=sample_texts()),
    )


def sample_texts() -> list[str]:
    """All texts of the embedded sample, in the order parquet, jsonl, text."""
    parquet = pq.read_table(SAMPLE / "texts.parquet").column("text").to_pylist()
    jsonl = [json.loads(line)["text"] for line in (SAMPLE / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    return [*parquet, *jsonl, *(SAMPLE / "texts.txt").read_text(encoding="utf-8").splitlines()]


def random_config(*, head: Head = HEAD) -> RobertaPreLayerNormConfig:
    """Two layers of width 64 and, for a classifier, four labels named so that nobody takes them for knowledge."""
    labels = {"sequence-classification": LABELS, "token-classification": TAGS}.get(head)
    return RobertaPreLayerNormConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        # The position table's first rows, up to that of <pad>, belong to no token.
        max_position_embeddings=TEXT_LIMIT + PAD_ID + 1,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=PAD_ID,
        id2label=None if labels is None else dict(enumerate(labels)),
        dtype="float32",
        architectures=[ARCHITECTURES[head]],
        is_decoder=head == "causal-lm",
    )


def random_tensors(*, config: RobertaPreLayerNormConfig, head: Head = HEAD) -> dict[str, npt.NDArray[np.float32]]:
    """A seeded tensor for every name that a checkpoint of this head has."""
    # RandomState rather than default_rng: its stream is promised to stay the same in every NumPy.
    random = np.random.RandomState(SEED)
    shapes = expected_tensors(config=config, head=head)
    return {name: _random_tensor(random=random, name=name, shape=shape) for name, shape in shapes.items()}


def _random_tensor(*, random: np.random.RandomState, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    if name.endswith("LayerNorm.weight"):
        return np.ones(shape, np.float32)
    if name.endswith(".bias"):
        return np.zeros(shape, np.float32)
    is_embedding = "_embeddings." in name
    spread = EMBEDDING_SPREAD if is_embedding else WEIGHT_SPREAD / np.sqrt(shape[-1])
    tensor = (random.standard_normal(shape) * spread).astype(np.float32)
    if name.endswith(("word_embeddings.weight", "position_embeddings.weight")):
        tensor[PAD_ID] = 0.0
    return tensor


def tokenizer_files(*, texts: list[str]) -> dict[str, bytes]:
    """File name -> content of a byte-level BPE of `VOCABULARY` pieces trained on the texts."""
    return train_tokenizer(texts, pieces=VOCABULARY, text_limit=TEXT_LIMIT)


if __name__ == "__main__":
    main()
