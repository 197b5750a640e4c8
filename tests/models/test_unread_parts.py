"""Parts of a folder that would change answers: read, or refused in one line that names them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.checkpoint import Checkpoint, check
from models.errors import CheckpointError
from models.tokenizer import load_tokenizer

TINY = Path(__file__).parents[2] / "jobs/checkpoints/random-tiny"
PREFIX = "roberta_prelayernorm."
Change = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "checkpoint"))


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def renamed(folder: Path, rename: Callable[[str], str], **more: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({rename(name): array for name, array in tensors.items()} | more, folder / "model.safetensors")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_left_out(folder: Path, prefix: str) -> None:
    before = Checkpoint.open(str(folder)).weights_digest()
    renamed(folder, lambda name: prefix + name)
    assert check(checkpoint=str(folder), heads=["sequence-classification"]).weights_digest() == before


@pytest.mark.parametrize("name", ["pooler.dense.weight", f"{PREFIX}pooler.dense.weight"])
def test_a_pooler_that_the_head_does_not_use_is_no_fault(folder: Path, name: str) -> None:
    renamed(folder, str, **{name: np.zeros((64, 64), np.float32)})
    check(checkpoint=str(folder), heads=["sequence-classification"])


def quantised(folder: Path) -> None:
    name = f"{PREFIX}encoder.layer.0.attention.self.query.weight"
    renamed(folder, str, **{name: np.zeros((64, 64), np.int8)})


def scaled(folder: Path) -> None:
    renamed(folder, str, **{f"{PREFIX}encoder.layer.0.attention.self.query.SCB": np.zeros(64, np.float32)})


def float8(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file as load
    from safetensors.torch import save_file as save

    tensors = load(folder / "model.safetensors")
    save({name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}, folder / "model.safetensors")


def setting(name: str, **fields: Any) -> Change:
    return lambda folder: edit(folder / name, **fields)


def no_post_processor(folder: Path) -> None:
    edit(folder / "tokenizer.json", post_processor=None)


def opened(folder: Path) -> None:
    check(checkpoint=str(folder), heads=["sequence-classification"])
    load_tokenizer(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setting("config.json", quantization_config={"load_in_8bit": True}), r"quantised \(quantization_config\)"),
        (scaled, r"quantised \('.*\.SCB'\)"),
        (quantised, "stored as int8"),
        (float8, "the type F8_E4M3, which is not read"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "holds an adapter"),
        (setting("config.json", id2label={"1": "a", "2": "b", "3": "c", "4": "d"}), "no name for the label 0"),
        (setting("config.json", id2label={"0": "a", "1": None, "2": "c", "3": "d"}), "no name for the label 1"),
        (no_post_processor, "no post_processor"),
        (setting("tokenizer_config.json", model_max_length=-5), "model_max_length is -5"),
        (setting("tokenizer_config.json", truncation_side="left"), "truncation_side: 'left', which is not read"),
    ],
)
def test_what_would_change_answers_and_is_not_read_is_refused_by_name(
    folder: Path, change: Callable[[Path], Any], message: str
) -> None:
    change(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


def test_a_limit_written_as_text_is_a_number(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", model_max_length="128")
    assert load_tokenizer(str(folder)).model_max_length == 128


@pytest.mark.parametrize("named_by", ["added_tokens.json", "added_tokens_decoder"])
def test_added_tokens_beside_vocabulary_and_merges_are_read(folder: Path, named_by: str) -> None:
    plain, digest = load_tokenizer(str(folder)), Checkpoint.open(str(folder)).tokenizer_digest()
    size = plain.vocab_size
    (folder / "tokenizer.json").unlink()
    without = Checkpoint.open(str(folder)).tokenizer_digest()
    if named_by == "added_tokens.json":
        (folder / named_by).write_text(json.dumps({"<brand>": size}))
    else:
        token = {"content": "<brand>", "special": False, "normalized": True}
        edit(folder / "tokenizer_config.json", added_tokens_decoder={str(size): token})
    assert load_tokenizer(str(folder)).backend.encode("a <brand> b").ids.count(size) == 1
    assert len({digest, without, Checkpoint.open(str(folder)).tokenizer_digest()}) == 3


def test_an_added_token_whose_id_is_taken_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "added_tokens.json").write_text(json.dumps({"<brand>": 99_999}))
    with pytest.raises(CheckpointError, match=r"'<brand>' has the id 99999 in the files"):
        load_tokenizer(str(folder))
