"""Real texts in every input format and a random classifier, on any store."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.checkpoint_writer import write_checkpoint
from models.config import RobertaPreLayerNormConfig
from models.tensors import expected_tensors
from pipeline.store.storage import join, put

LABELS = ("place", "person", "event", "other")
ONE_GROUP_ROWS = 3_000
"""Rows of the Parquet file that is one row group."""


@dataclass(frozen=True)
class Corpus:
    """Which text lies where: file name -> its texts in order."""

    url: str
    texts: dict[str, list[str]]


def lay_out(table: pa.Table, *, url: str) -> Corpus:
    """The rows of (id, text) as three Parquet files, JSON lines plain and gzipped, and text lines plain and gzipped."""
    texts = table["text"].to_pylist()
    one_line = [index for index, text in enumerate(texts) if "\n" not in text]
    lines = set(one_line[-1_500:])
    rest = [index for index in range(len(texts)) if index not in lines]
    step = (len(rest) - ONE_GROUP_ROWS) // 4
    cuts = np.cumsum([0, ONE_GROUP_ROWS, step, step, step])
    parts = [rest[first:stop] for first, stop in zip(cuts, [*cuts[1:], len(rest)], strict=True)]
    ordered = sorted(lines)
    files = {
        "one-group.parquet": parts[0],
        "a.parquet": parts[1],
        "b.parquet": parts[2],
        "c.jsonl": parts[3],
        "d.jsonl.gz": parts[4],
        "e.txt": ordered[:750],
        "f.txt.gz": ordered[750:],
    }
    for name, rows in files.items():
        put(join(url, name), _content(table.take(pa.array(rows)), name))
    return Corpus(url=url, texts={name: [texts[row] for row in rows] for name, rows in files.items()})


def repeated(table: pa.Table, *, rows: int) -> pa.Table:
    """The texts of (id, text) over and over, each beginning with its number, so that no two are equal."""
    texts = table["text"].to_pylist()
    numbered = [f"{number}. {texts[number % len(texts)]}" for number in range(rows)]
    return pa.table({"id": pa.array(range(rows), pa.int64()), "text": pa.array(numbered)})


def _content(rows: pa.Table, name: str) -> bytes:
    if name.endswith(".parquet"):
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, row_group_size=len(rows) if name.startswith("one") else 500)
        return sink.getvalue().to_pybytes()
    if ".jsonl" in name:
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.to_pylist()).encode()
    else:
        content = ("\n".join(rows["text"].to_pylist()) + "\n").encode()
    return gzip.compress(content, mtime=0) if name.endswith(".gz") else content


def random_classifier(*, url: str, tokenizer: Path, layers: int, width: int, seed: int = 7) -> str:
    """A random sequence classifier with RoBERTa's own tokenizer; weights large enough that texts get different scores."""
    config = RobertaPreLayerNormConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        architectures=["RobertaPreLayerNormForSequenceClassification"],
    )
    write_checkpoint(
        url=url,
        config=config,
        tensors=random_tensors(config=config, head="sequence-classification", seed=seed),
        tokenizer_files={name: (tokenizer / name).read_bytes() for name in ("vocab.json", "merges.txt")},
    )
    return url


def random_tensors(*, config: RobertaPreLayerNormConfig, head: str, seed: int) -> dict[str, np.ndarray]:
    """Seeded tensors of every name that a head's file holds."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, shape in expected_tensors(config=config, head=head).items():  # type: ignore[arg-type]
        values = generator.standard_normal(shape).astype(np.float32) * (0.3 if "classifier" in name else 0.06)
        tensors[name] = values + 1 if "LayerNorm.weight" in name else values
    return tensors
