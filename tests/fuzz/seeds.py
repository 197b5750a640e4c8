"""The good folders that the fuzzer damages: an input of every format, and a checkpoint of every kind of file."""

import gzip
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from models.checkpoint import Checkpoint
from models.config import RobertaPreLayerNormConfig
from models.convert import TargetFormat, convert
from tests.pipeline.delta_log import log_table
from tests.pipeline.small import CHECKPOINT

Kind = Literal["input", "checkpoint", "job"]
TEXTS = ["A good text.", "", "Zwei \U0001f600 Zeilen", 'with "quotes", commas', "x" * 300, "tab\tinside", "last"] * 3


@dataclass(frozen=True)
class Seed:
    """A good folder, and the file in it that is damaged.

    reader: what reads that file. kind: how the folder is read (`tests.fuzz.reading`).
    way: how the file is damaged (`tests.fuzz.mutations.WAYS`).
    """

    reader: str
    kind: Kind
    files: Mapping[str, bytes]
    damaged: str
    way: str


@cache
def seeds() -> tuple[Seed, ...]:
    """All of them; what a reader's file is made with is the library that writes such files."""
    return (*_inputs(), *_checkpoints(), Seed("job file", "job", {"job.yaml": JOB}, "job.yaml", "yaml"))


GOOD = b'{"text": "A good text."}\n'
"""Stands beside each damaged file, so that there is always a row to read."""
JOB = b"""input: {urls: [in], format: auto, keep: [id], columns: {text: text}}
model: {checkpoint: model, dtype: float32, framework: torch}
task: {name: text-classification, top_k: all}
output: out
shards: {rows: 24, bytes: 2_500}
resources: {wait: 60s, gpus: 0}
limits: {stall: 20, line_bytes: 1000000}
"""


def _table() -> pa.Table:
    return pa.table(
        {
            "text": pa.array(TEXTS),
            "id": pa.array(range(len(TEXTS)), pa.int32()),
            "tags": pa.array([[{"a": 1, "b": "x"}]] * len(TEXTS)),
            "kind": pa.array(["yes", None, "no"] * (len(TEXTS) // 3)).dictionary_encode(),
            "when": pa.array([1_700_000_000_000] * len(TEXTS), pa.timestamp("ms", "UTC")),
        }
    )


def _inputs() -> list[Seed]:
    table = _table()
    packed = io.BytesIO()
    pq.write_table(table, packed, row_group_size=8)
    plain = io.BytesIO()
    pq.write_table(table, plain, use_dictionary=False, compression="none", data_page_version="2.0")
    file, stream = io.BytesIO(), io.BytesIO()
    for sink, new in ((file, pa.ipc.new_file), (stream, pa.ipc.new_stream)):
        with new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=8)
    lines = "".join(
        json.dumps({"text": text, "id": row, "tags": [{"a": 1}], "share": 0.5}) + "\n" for row, text in enumerate(TEXTS)
    ).encode()
    cells = ['"' + text.replace('"', '""') + '"' for text in TEXTS]
    csv = ("id,text\n" + "".join(f"{row},{cell}\n" for row, cell in enumerate(cells))).encode()
    tsv = csv.replace(b",", b"\t")
    text = "".join(f"{text}\n" for text in TEXTS).encode()
    named = {
        "parquet": ("a.parquet", packed.getvalue(), "parquet"),
        "parquet, version 2 pages": ("b.parquet", plain.getvalue(), "parquet"),
        "arrow file": ("a.arrow", file.getvalue(), "bytes"),
        "arrow stream": ("b.arrows.arrow", stream.getvalue(), "bytes"),
        "csv": ("a.csv", csv, "bytes"),
        "tsv": ("a.tsv", tsv, "bytes"),
        "json lines": ("a.jsonl", lines, "lines"),
        "text": ("a.txt", text, "bytes"),
        "json lines in gzip": ("a.jsonl.gz", gzip.compress(lines, mtime=0), "gzip-lines"),
        "csv in gzip": ("a.csv.gz", gzip.compress(csv, mtime=0), "gzip"),
        "text in zstd": ("a.txt.zst", zstandard.compress(text), "zstd"),
        "json lines in zstd": ("b.jsonl.zst", zstandard.compress(lines), "zstd-lines"),
    }
    found = [
        Seed(reader, "input", {name: content, "good.jsonl": GOOD}, name, way)
        for reader, (name, content, way) in named.items()
    ]
    with TemporaryDirectory() as folder:
        log_table(Path(folder), readerFeatures=[])
        delta = _files(Path(folder))
    log = next(name for name in delta if name.endswith(".json"))
    saved = {
        "data-0.arrow": stream.getvalue(),
        "state.json": json.dumps({"_data_files": [{"filename": "data-0.arrow"}], "_indices_files": None}).encode(),
        "dataset_info.json": b"{}",
    }
    return [
        *found,
        Seed("delta log", "input", delta, log, "lines"),
        Seed("saved data set", "input", saved, "state.json", "json"),
    ]


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _checkpoints() -> list[Seed]:
    small = _small_checkpoint()
    tokenizer = {name: content for name, content in small["safetensors"].items() if name != "model.safetensors"}
    bare = {name: content for name, content in tokenizer.items() if name != "tokenizer.json"}
    weights = {"model.safetensors": small["safetensors"]["model.safetensors"]}
    seeds = [
        Seed(name, "checkpoint", small["safetensors"], name, "json")
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json")
    ]
    specials = {
        "special_tokens_map.json": b'{"mask_token": {"content": "<mask>"}, "additional_special_tokens": ["<x>"]}'
    }
    added = {"added_tokens.json": json.dumps({"<x>": len(json.loads(tokenizer["vocab.json"]))}).encode()}
    for name, extra in {"special_tokens_map.json": specials, "added_tokens.json": added, "vocab.json": {}}.items():
        seeds.append(Seed(name, "checkpoint", {**bare, **weights, **extra}, name, "json"))
    seeds.append(Seed("merges.txt", "checkpoint", {**bare, **weights}, "merges.txt", "bytes"))
    unigram = {**tokenizer, **weights, "tokenizer.json": _unigram()}
    seeds.append(Seed("tokenizer.json, Unigram", "checkpoint", unigram, "tokenizer.json", "json"))
    index = {"metadata": {}, "weight_map": dict.fromkeys(("a", "b"), "model-00001-of-00001.safetensors")}
    sharded = {
        **tokenizer,
        "model-00001-of-00001.safetensors": weights["model.safetensors"],
        "model.safetensors.index.json": json.dumps(index).encode(),
    }
    seeds.append(Seed("sharded index", "checkpoint", sharded, "model.safetensors.index.json", "json"))
    seeds.append(Seed("safetensors", "checkpoint", small["safetensors"], "model.safetensors", "safetensors"))
    for reader, name, way in (
        ("pytorch_model.bin", "pytorch_model.bin", "zip"),
        ("h5", "tf_model.h5", "head"),
        ("msgpack", "flax_model.msgpack", "msgpack"),
    ):
        seeds.append(Seed(reader, "checkpoint", small[reader], name, way))
    embedder = {**small["safetensors"], **_EMBEDDER}
    seeds += [Seed(name, "checkpoint", embedder, name, "json") for name in _EMBEDDER]
    pieces = {**{name: bare[name] for name in ("config.json",)}, **weights, "sentencepiece.bpe.model": _sentencepiece()}
    seeds.append(Seed("sentencepiece", "checkpoint", pieces, "sentencepiece.bpe.model", "bytes"))
    return seeds


_EMBEDDER = {
    "modules.json": json.dumps(
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]
    ).encode(),
    "1_Pooling/config.json": b'{"word_embedding_dimension": 8, "pooling_mode_mean_tokens": true, "include_prompt": true}',
    "sentence_bert_config.json": b'{"max_seq_length": 12, "do_lower_case": false}',
    "config_sentence_transformers.json": b'{"prompts": {"query": "query: "}, "default_prompt_name": "query"}',
}


def _small_checkpoint() -> dict[str, dict[str, bytes]]:
    """Reader of the weights -> a folder of one tiny layer with the embedded tokenizer, as `preln convert` writes it."""
    from models.roberta_torch import RobertaPreLayerNormForSequenceClassification

    vocabulary = Checkpoint.open(CHECKPOINT).config.vocab_size
    config = RobertaPreLayerNormConfig(
        vocab_size=vocabulary,
        max_position_embeddings=20,
        num_labels=3,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    formats: dict[str, TargetFormat] = {"pytorch_model.bin": "bin", "h5": "h5", "msgpack": "msgpack"}
    found = {}
    with TemporaryDirectory() as made:
        start = Path(made) / "start"
        RobertaPreLayerNormForSequenceClassification(config).save_pretrained(str(start))
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
            (start / name).write_bytes((Path(CHECKPOINT) / name).read_bytes())
        found["safetensors"] = _files(start)
        for reader, written in formats.items():
            convert(source=str(start), destination=str(Path(made) / reader), weights_format=written)
            found[reader] = _files(Path(made) / reader)
    return found


def _unigram() -> bytes:
    from models.sentencepiece_file import tokenizer_json

    return tokenizer_json(_sentencepiece(), model_type="xlm-roberta")


def _sentencepiece() -> bytes:
    """A SentencePiece model of a few pieces, as protobuf writes it."""
    pieces = ["<unk>", "<s>", "</s>", "\u2581", "a", "\u2581good", "text", ".", "e"]

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    message = b"".join(field(1, field(1, piece.encode()) + b"\x15" + b"\0\0\x80\xbf") for piece in pieces)
    return message + field(2, b"\x18\x01") + field(3, field(1, b"nmt"))
