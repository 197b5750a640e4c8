"""The checkpoints of every family answer as the reference does: its outputs lie in tests/golden/families.

All families and heads are compared where ../shared is beside the repository; those committed cover every family.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.boundary import Answers, Ask, Framework, Head, Tokens
from models.families import FAMILIES, every_family
from models.load import load
from tests.models import golden
from tests.models.frameworks import CLASSES, INSTALLED

HERE = Path(__file__).resolve().parents[1] / "golden" / "families"
SHARED = golden.GOLDEN / "families"
FOLDERS = SHARED if SHARED.is_dir() else HERE
OTHERS = [name for name in FAMILIES if name != "roberta-prelayernorm"]

HEADS: dict[str, Head] = {
    "causal": "causal-lm",
    "feature-extraction": "encoder",
    "fill-mask": "masked-lm",
    "multiple-choice": "multiple-choice",
    "question-answering": "question-answering",
    "text-classification": "sequence-classification",
    "token-classification": "token-classification",
}
KINDS = {
    "causal-lm": "ForCausalLM",
    "encoder": "Model",
    "masked-lm": "ForMaskedLM",
    "multiple-choice": "ForMultipleChoice",
    "question-answering": "ForQuestionAnswering",
    "sequence-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
}
CASES = [(family, task) for family in OTHERS for task in HEADS if (FOLDERS / family / task / "cases.npz").is_file()]
frameworks = pytest.mark.parametrize("framework", INSTALLED)
cases = pytest.mark.parametrize(("family", "task"), CASES)


@functools.cache
def case_of(family: str, task: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(inputs, expected outputs)."""
    with np.load(FOLDERS / family / task / "cases.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    given = {name[3:]: array for name, array in arrays.items() if name.startswith("in/")}
    return given, {name[4:]: array for name, array in arrays.items() if name.startswith("out/")}


@frameworks
@cases
def test_the_network_answers_as_the_reference(family: str, task: str, framework: str) -> None:
    classes = CLASSES[framework]
    given, expected = case_of(family, task)
    with every_family():
        model = classes.load(KINDS[HEADS[task]], str(FOLDERS / family / task))
        found = classes.answer(model, {**given, "use_cache": False} if task == "causal" else given)
    golden.compare(found, expected)


def flat_answers(*, url: str, head: Head, framework: Framework, ids: Any, mask: Any, **ask: Any) -> Answers:
    """A head's answers at every real token of padded ids, through load()."""
    real = mask.astype(bool)
    tokens = Tokens(
        input_ids_T=ids[real].astype(np.int32),
        cu_seqlens=np.append(0, np.cumsum(real.sum(1))).astype(np.int32),
        causal=head == "causal-lm",
    )
    positions = np.arange(len(tokens.input_ids_T), dtype=np.int32)
    if head in ("sequence-classification", "multiple-choice"):
        positions = tokens.cu_seqlens[:-1]
    model = load(checkpoint=url, framework=framework, heads=[head])
    return model(tokens, {head: Ask(positions_G=positions, **ask)})[head]


@frameworks
@cases
def test_flat_tokens_are_answered_as_the_reference_answers_padded_ones(
    family: str, task: str, framework: Framework
) -> None:
    head = HEADS[task]
    given, expected = case_of(family, task)
    ids, mask = (given[name].reshape(-1, given[name].shape[-1]) for name in ("input_ids", "attention_mask"))
    real = mask.astype(bool)
    call = functools.partial(
        flat_answers, url=str(FOLDERS / family / task), head=head, framework=framework, ids=ids, mask=mask
    )
    if head in ("masked-lm", "causal-lm"):
        gold = ids[real].astype(np.int32)
        logits = expected["logits"][real].astype(np.float64)
        logits -= np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) + logits.max(
            -1, keepdims=True
        )
        np.testing.assert_allclose(
            call(gold_G=gold)["log_probs"],
            logits[np.arange(len(gold)), gold],
            rtol=0,
            atol=2 * golden.LOGITS_TOLERANCE,
        )
    elif head == "question-answering":
        found = call()
        for name in ("start_logits", "end_logits"):
            np.testing.assert_allclose(found[name], expected[name][real], rtol=0, atol=golden.LOGITS_TOLERANCE)
    elif head == "encoder":
        wanted = expected["last_hidden_state"][real]
        np.testing.assert_allclose(call()["hidden"], wanted, rtol=0, atol=golden.LAST_HIDDEN_TOLERANCE)
    else:
        wanted = expected["logits"][real] if head == "token-classification" else expected["logits"]
        found = call()["logits"].reshape(wanted.shape)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=golden.LOGITS_TOLERANCE)
