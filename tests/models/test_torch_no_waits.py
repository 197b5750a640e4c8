"""On a device the host waits once a pass: for the answers' copy. Tensors without values are the proof: whoever waits, fails."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

import models.roberta_torch as roberta
from models.boundary import Ask, Done, Head, Tokens
from models.load import load
from models.roberta_torch.flat import FlatRoberta
from tests.models.tiny import tiny_config

pytestmark = pytest.mark.torch

LENGTHS = (5, 9, 2, 9, 30, 5, 1)
HEADS: dict[Head, str] = {
    "encoder": "Model",
    "masked-lm": "ForMaskedLM",
    "causal-lm": "ForCausalLM",
    "sequence-classification": "ForSequenceClassification",
    "multiple-choice": "ForMultipleChoice",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
}


def questions(head: Head, tokens: Tokens) -> list[Ask]:
    """Everything that a task asks of a head."""
    total = len(tokens.input_ids_T)
    everywhere = np.random.default_rng(0).permutation(total).astype(np.int32)
    firsts, some = tokens.cu_seqlens[:-1], everywhere[: total // 2]
    if head == "encoder":
        return [Ask(some), Ask(everywhere, reduce="mean"), Ask(some, reduce="mean"), Ask(np.sort(everywhere))]
    gold = np.full(len(some), 7, np.int32)
    if head == "causal-lm":
        return [Ask(some, gold_G=gold)]
    if head == "masked-lm":
        return [Ask(some, gold_G=gold), Ask(firsts, top_k=3), Ask(firsts, candidates_K=np.array([5, 9, 8], np.int32))]
    return [Ask(firsts), Ask(np.sort(everywhere)), Ask(everywhere)]


@pytest.mark.parametrize("varlen", [False, True])
@pytest.mark.parametrize("head", list(HEADS))
def test_nothing_waits_for_the_device_but_the_answers(
    head: Head, varlen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A meta tensor has no values: .item(), .cpu(), a mask as an index, bincount and nonzero raise for it."""
    config = tiny_config(max_position_embeddings=64, type_vocab_size=1, num_labels=2)
    getattr(roberta, f"RobertaPreLayerNorm{HEADS[head]}")(config).save_pretrained(str(tmp_path))
    flat: Any = load(checkpoint=str(tmp_path), heads=[head], device="cpu")
    expected = {}
    ids = np.random.default_rng(1).integers(4, 50, sum(LENGTHS)).astype(np.int32)
    tokens = Tokens(ids, np.cumsum([0, *LENGTHS]).astype(np.int32))
    asks = questions(head, tokens)
    for number, ask in enumerate(asks):
        expected[number] = {name: values.shape for name, values in flat(tokens, {head: ask})[head].items()}
    on_meta(flat, varlen=varlen, monkeypatch=monkeypatch)
    came_back: list[dict[str, torch.Size]] = []

    def to_host(self: FlatRoberta, answers: dict[str, dict[str, torch.Tensor]]) -> Done:
        assert all(values.is_meta for named in answers.values() for values in named.values())
        came_back.append({name: values.shape for name, values in answers[head].items()})
        return Done({})

    monkeypatch.setattr(FlatRoberta, "to_host", to_host)
    for ask in asks:
        flat(tokens, {head: ask})
    assert came_back == list(expected.values()), "once a pass, and in the shapes that a CPU gives"


def on_meta(flat: Any, *, varlen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move a model to where no values are; varlen: its attention is one kernel, of which only the shape is known."""
    for model in (flat.base, *flat.heads.values()):
        model.to("meta")
    flat.norm_before.__self__.to("meta")
    for layer in flat.layers:
        for name in ("query_key_value", "query", "key_value", "projection", "widen", "narrow"):
            linear = getattr(layer, name, None)
            if linear is None:
                continue
            outputs, inputs = len(linear.bias_O), 0
            inputs = 64 if name == "narrow" else flat.config.hidden_size
            inputs = flat.config.intermediate_size if name == "narrow" else inputs
            linear.packed = None
            linear.weight_OH = torch.empty(outputs, inputs, device="meta")
            linear.bias_O = torch.empty(outputs, device="meta")
    flat.device, flat.varlen, flat.whole_vectors, flat.steps = torch.device("meta"), varlen, False, False
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", lambda query, *rest, **more: torch.empty_like(query))
    with pytest.raises(Exception, match=r"(?i)meta"):
        torch.ones(2, device="meta").sum().item()


def test_answers_leave_the_device_in_the_type_in_which_they_were_computed(tmp_path: Path) -> None:
    from models.roberta_torch.flat_copies import fetched

    values = torch.tensor([[1.5, -2.25]], dtype=torch.bfloat16)
    ids = torch.tensor([3], dtype=torch.int32)
    found = fetched({"a": {"logits": values, "ids": ids}})["a"]
    assert found["logits"].dtype == np.float32
    assert found["ids"].dtype == np.int32
    assert found["logits"].tolist() == [[1.5, -2.25]]
