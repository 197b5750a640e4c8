"""Specials with other ids, a decoder of its own and two token types: as some published checkpoints have them."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from models.boundary import Ask, Framework, Tokens
from models.checkpoint import Checkpoint
from models.convert import convert
from models.families import every_family
from models.load import load
from models.tokenizer import load_tokenizer
from tests.models.frameworks import CLASSES, INSTALLED
from tests.pipeline.tasks.in_process import Row, annotate, job_spec
from tests.pipeline.tasks.test_families import HERE
from tests.pipeline.tasks.test_frameworks_agree import assert_agree

IDS = {"<s>": 3, "</s>": 4, "<pad>": 1, "<unk>": 0, "<mask>": 2}
FRAMEWORKS = cast("list[Framework]", INSTALLED)
families = pytest.mark.parametrize("model_type", ["roberta-prelayernorm", "roberta", "xlm-roberta-xl"])


def write_tokenizer(folder: Path) -> None:
    """RoBERTa's kind of tokenizer with the specials at these ids."""
    for path in (HERE / "roberta").glob("*token*.json"):
        shutil.copyfile(path, folder / path.name)
    told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    told["model"]["vocab"] |= IDS
    for token in told["added_tokens"]:
        token["id"] = IDS[token["content"]]
    told["added_tokens"].sort(key=lambda token: token["id"])
    post = told["post_processor"]
    assert post["type"] == "RobertaProcessing"
    post["sep"], post["cls"] = ["</s>", 4], ["<s>", 3]
    (folder / "tokenizer.json").write_text(json.dumps(told), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.pop("added_tokens_decoder", None)
    path.write_text(json.dumps(settings), encoding="utf-8")


def odd_checkpoint(folder: Path, model_type: str) -> Any:
    """The folder's model: bos 3, eos 4, pad 1, an untied decoder, two token types."""
    sizes = {"vocab_size": 480, "max_position_embeddings": 62, "type_vocab_size": 2}
    odd = {"bos_token_id": 3, "eos_token_id": 4, "pad_token_id": 1, "tie_word_embeddings": False}
    with every_family():
        model = CLASSES[INSTALLED[0]].build("ForMaskedLM", model_type=model_type, **sizes, **odd)
    model.save_pretrained(str(folder))
    write_tokenizer(folder)
    return model


def scores(folder: Path, framework: Framework) -> list[Row]:
    """Two tasks' rows: what stands at a mask, and how likely each token is."""
    fills = annotate(
        spec=job_spec(task={"name": "fill-mask", "top_k": 4}, checkpoint=folder),
        columns={"text": ["The wolf <mask> at the moon.", "<mask>"]},
        framework=framework,
    )
    likely = annotate(
        spec=job_spec(task="text-scoring", checkpoint=folder), columns={"text": ["The wolf"]}, framework=framework
    )
    assert all(row["error"] is None for row in (*fills, *likely))
    return [*fills, *likely]


def log_probs(folder: Path, framework: Framework) -> Any:
    """Of a pair with both token types."""
    ids = np.array([3, 40, 300, 4, 4, 51, 52, 4, 3, 9, 4], np.int32)
    types = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0], np.int32)
    tokens = Tokens(ids, np.array([0, 8, 11], np.int32), types)
    model = load(checkpoint=str(folder), framework=framework, heads=["masked-lm"], device="cpu")
    asked = Ask(np.arange(len(ids), dtype=np.int32), gold_G=ids)
    return model(tokens, {"masked-lm": asked})["masked-lm"]["log_probs"]


@families
def test_it_answers_alike_in_every_framework_and_from_every_format(model_type: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    model = odd_checkpoint(source, model_type)
    tokenizer = load_tokenizer(str(source))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.mask_id) == (3, 4, 1, 2)
    assert [tokenizer.backend.encode("The wolf").ids[place] for place in (0, -1)] == [3, 4]
    tensors = dict(Checkpoint.open(str(source)).stream())
    assert not np.array_equal(
        tensors["lm_head.decoder.weight"], tensors["roberta_prelayernorm.embeddings.word_embeddings.weight"]
    )
    first, rows = log_probs(source, FRAMEWORKS[0]), scores(source, FRAMEWORKS[0])
    for framework in FRAMEWORKS[1:]:
        np.testing.assert_allclose(log_probs(source, framework), first, rtol=0, atol=1e-4)
        assert_agree(scores(source, framework), rows)
    for weights_format in ("safetensors-tf", "safetensors-flax", "h5", "msgpack", "bin"):
        there, back = tmp_path / weights_format, tmp_path / f"{weights_format}-back"
        convert(source=str(source), destination=str(there), weights_format=weights_format)
        convert(source=str(there), destination=str(back), allow_pickle=True)
        again = Checkpoint.open(str(back))
        assert (again.config.model_type, again.config.bos_token_id, again.config.eos_token_id) == (model_type, 3, 4)
        assert again.config.tie_word_embeddings is False
        assert again.weights_digest() == Checkpoint.open(str(source)).weights_digest()
    np.testing.assert_array_equal(log_probs(back, FRAMEWORKS[0]), first)
    with every_family():
        answered = (
            CLASSES[INSTALLED[0]]
            .answer(
                model,
                {
                    "input_ids": np.array([[3, 40, 300, 4, 4, 51, 52, 4], [3, 9, 4, 1, 1, 1, 1, 1]]),
                    "attention_mask": np.array([[1] * 8, [1] * 3 + [0] * 5]),
                    "token_type_ids": np.array([[0] * 4 + [1] * 4, [0] * 8]),
                },
            )["logits"]
            .astype(np.float64)
        )
    likely = answered - np.log(np.exp(answered).sum(-1, keepdims=True))
    expected = [likely[0, place, gold] for place, gold in enumerate([3, 40, 300, 4, 4, 51, 52, 4])]
    np.testing.assert_allclose(first[:8], expected, rtol=0, atol=1e-4)
