"""Trains the demo checkpoint's entities head again, on lists of words and on running text, over its encoder as it is.

`python -m jobs.checkpoints.demo_recipe.heads --data ../shared/data --checkpoint jobs/checkpoints/demo --work demo-training`
writes demo-training/heads/entities. The encoder's outputs are computed once and kept in demo-training/outputs. Plain torch, no
Ray. Deterministic on one kind of processor.

Legend: H hidden size, L labels, W words.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from jobs.checkpoints.demo_recipe.checkpoint import SEED, TEXT_LIMIT
from jobs.checkpoints.demo_recipe.data import write_demo_data
from jobs.checkpoints.demo_recipe.frozen_encoder import Floats, FrozenEncoder, TokenRow
from jobs.training.records import Record, read_records
from models.checkpoint import Checkpoint, read_tokenizer_files
from models.checkpoint_writer import write_checkpoint

HEAD = "entities"
SOURCES = {"entities": 1.0, "entities-text": 1.0, "entities-unseen": 2.0, "entities-text-unseen": 2.0}
"""Files of rows, and how much a word of them counts: the encoder has learnt from the labels of the first two, and is surer
of their words than of new ones."""
NEAR = 1e-4
"""How strongly a weight is drawn to where it began."""
ITERATIONS = 150


@dataclass(frozen=True, eq=False)
class Words:
    """vectors_WH: the encoder's outputs. label_W: ids of the tags. weight_W: how much each counts."""

    vectors_WH: Floats
    label_W: npt.NDArray[np.int64]
    weight_W: Floats


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the rows, run the encoder over them, fit the head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of clinc150, uner_ewt, wnut17, wiki_intros, …")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of the encoder and the entities head")
    parser.add_argument("--work", type=Path, required=True, help="folder to work in")
    options = parser.parse_args(arguments)
    rows = options.work / "rows"
    hashes = write_demo_data(source=options.data, glosses=None, into=rows, seed=SEED)
    del hashes["texts.jsonl"]  # of other rows: the encoder also learns from WordNet's glosses
    (options.work / "head-hashes.json").write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
    head = Checkpoint.open(str(options.checkpoint / HEAD))
    outputs = options.work / "outputs" / f"{HEAD}.npz"
    if not outputs.exists():
        write_words(labelled_words(rows, FrozenEncoder(str(options.checkpoint)), labels=labels_of(head)), file=outputs)
    weight_LH, bias_L = fit(read_words(outputs), start=own_weights(head))
    write_checkpoint(
        url=str(options.work / "heads" / HEAD),
        config=head.config,
        tensors={"classifier.weight": as_stored(weight_LH), "classifier.bias": as_stored(bias_L)},
        tokenizer_files=read_tokenizer_files(head.url),
    )


def labels_of(head: Checkpoint) -> list[str]:
    """Names of the tags in the order of their ids."""
    return [head.config.id2label[number] for number in range(len(head.config.id2label))]


def labelled_words(rows: Path, encoder: FrozenEncoder, *, labels: Sequence[str]) -> Words:
    """Every word's first token, of lists of words and of running text: others are not asked when entities are read."""
    tokens: list[TokenRow] = []
    ids: list[int] = []
    weights: list[float] = []
    for name, weight in SOURCES.items():
        for record in read_records(str(rows / f"{name}.jsonl")):
            row, tags = tagged_tokens(record, encoder)
            tokens.append(row)
            ids += [labels.index(tag) for tag in tags]
            weights += [weight] * len(tags)
    return Words(encoder.outputs(tokens), np.array(ids), np.array(weights, np.float32))


def tagged_tokens(record: Record, encoder: FrozenEncoder) -> tuple[TokenRow, list[str]]:
    """A row's tokens, of which each word's first is picked, and the words' tags."""
    words, text = record.get("words"), record["text"]
    encoding = encoder.tokenizer.encode(words or text, is_pretokenized=words is not None)
    ids = np.asarray(encoding.ids, np.int32)[:TEXT_LIMIT]
    first: dict[int, int] = {}
    for place, word in enumerate(encoding.word_ids[: len(ids)]):
        if word is not None:
            first.setdefault(word, place)
    if words:
        tags = [record["tags"][word] for word in first]
    else:
        tags = list(_tags_of(text, record["entities"], [encoding.word_to_chars(word) or (0, 0) for word in first]))
    return TokenRow(ids, tuple(first.values())), tags


def _tags_of(text: str, entities: Sequence[Mapping[str, Any]], words: Sequence[tuple[int, int]]) -> Iterator[str]:
    """A word's tag is that of the entity that its characters touch, the space before them left out."""
    begun: set[int] = set()
    for start, end in words:
        inside = start + len(text[start:end]) - len(text[start:end].lstrip())
        found = next((n for n, one in enumerate(entities) if one["start"] < end and inside < one["end"]), None)
        if found is None:
            yield "O"
            continue
        yield f"{'I' if found in begun else 'B'}-{entities[found]['entity_group']}"
        begun.add(found)


def write_words(words: Words, *, file: Path) -> None:
    """Keep the encoder's outputs, so that another fit takes seconds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, vectors=words.vectors_WH.astype(np.float16), label=words.label_W, weight=words.weight_W)


def read_words(file: Path) -> Words:
    """What write_words wrote."""
    with np.load(file) as stored:
        return Words(stored["vectors"].astype(np.float32), stored["label"], stored["weight"])


def own_weights(head: Checkpoint) -> tuple[Tensor, Tensor]:
    """[L, H] and [L] of the head's own folder."""
    own = dict(head.stream(["classifier.weight", "classifier.bias"]))
    weight, bias = (torch.from_numpy(own[f"classifier.{name}"].astype(np.float32)) for name in ("weight", "bias"))
    return weight, bias


def as_stored(tensor: Tensor) -> npt.NDArray[np.float16]:
    """In the type of the demo's other tensors."""
    return tensor.numpy().astype(np.float16)


def fit(
    words: Words, *, start: tuple[Tensor, Tensor], near: float = NEAR, iterations: int = ITERATIONS
) -> tuple[Tensor, Tensor]:
    """[L, H] and [L] of the least cross entropy, near the start; all words at once, by L-BFGS."""
    vectors_WH, label_W = torch.from_numpy(words.vectors_WH), torch.from_numpy(words.label_W)
    weight_W = torch.from_numpy(words.weight_W / words.weight_W.sum())
    weight_LH, bias_L = (tensor.clone().requires_grad_() for tensor in start)
    optimizer: torch.optim.Optimizer = torch.optim.LBFGS(
        [weight_LH, bias_L], max_iter=iterations, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        optimizer.zero_grad()
        logits_WL = functional.linear(vectors_WH, weight_LH, bias_L)
        wrong_W = functional.cross_entropy(logits_WL, label_W, reduction="none")
        total = (wrong_W * weight_W).sum() + near * ((weight_LH - start[0]) ** 2).sum()
        total.backward()
        return float(total.detach())

    optimizer.step(loss)
    return weight_LH.detach(), bias_L.detach()


if __name__ == "__main__":
    main()
