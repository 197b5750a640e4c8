"""A trained tokenizer is one that any checkpoint folder could have."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.training.bpe import train_tokenizer
from models.tokenizer import load_tokenizer
from pipeline.errors import SpecError

TEXTS = ["the cat sat on the mat, the cat ate", "a dog and a cat: déjà vu 👋", "nothing is the matter with the cat"] * 3
PIECES = 280


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in train_tokenizer(TEXTS, pieces=PIECES, text_limit=64).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_tokenizer_has_the_size_asked_for_and_robertas_special_ids(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.vocab_size == PIECES
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2, 3)
    assert tokenizer.mask_id == PIECES - 1
    assert tokenizer.model_max_length == 64


def test_any_text_comes_back_from_its_ids_and_pairs_have_robertas_template(folder: Path) -> None:
    backend = load_tokenizer(str(folder)).backend
    unseen = "Ünseen: 漢字 \U0001f600"
    assert backend.decode(backend.encode(unseen).ids, skip_special_tokens=True) == unseen
    pair = backend.encode("a", "b").tokens
    assert pair == ["<s>", "a", "</s>", "</s>", "b", "</s>"]


def test_vocabulary_and_merges_alone_give_the_same_ids_as_the_json_file(folder: Path) -> None:
    whole = load_tokenizer(str(folder)).backend.encode(TEXTS[1]).ids
    (folder / "tokenizer.json").unlink()
    assert load_tokenizer(str(folder)).backend.encode(TEXTS[1]).ids == whole


def test_the_same_texts_give_the_same_bytes() -> None:
    first, second = (train_tokenizer(TEXTS, pieces=PIECES, text_limit=64) for _ in range(2))
    assert first == second


def test_too_few_texts_and_too_small_a_vocabulary_are_refused() -> None:
    with pytest.raises(SpecError, match="were asked for; add texts"):
        train_tokenizer(TEXTS, pieces=5_000, text_limit=64)
    with pytest.raises(SpecError, match="no room for 256 bytes"):
        train_tokenizer(TEXTS, pieces=100, text_limit=64)


def test_the_command_reads_parquet_and_json_lines_together(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": TEXTS[:4]}), tmp_path / "a.parquet")
    lines = [json.dumps({"body": text}) for text in [*TEXTS[4:], ""]]
    (tmp_path / "b.jsonl").write_text("\n".join(lines), encoding="utf-8")
    output = tmp_path / "tokenizer"
    arguments = ["tokenizer", "train", "--input", f"{tmp_path}/*.parquet", "--input", f"{tmp_path}/b.jsonl"]
    result = CliRunner().invoke(app, [*arguments, "--output", str(output), "--pieces", str(PIECES), "--column", "body"])
    assert result.exit_code == 0, result.output
    assert "9 texts" in result.output
    expected = train_tokenizer(TEXTS, pieces=PIECES, text_limit=512)
    assert {file.name: file.read_bytes() for file in output.iterdir()} == expected


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n', encoding="utf-8")
    result = CliRunner().invoke(app, ["tokenizer", "train", "--input", f"{tmp_path}/a.jsonl", "--output", "x"])
    assert isinstance(result.exception, SpecError)
    assert "no column 'text'; it has body" in str(result.exception)
