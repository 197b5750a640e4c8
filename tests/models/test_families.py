"""The checkpoints of every family answer as the reference does: its outputs lie in tests/golden/families.

All families and heads are compared where ../shared is beside the repository; those committed cover every family.
"""

import functools
import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from models.boundary import Answers, Ask, Framework, Head, Tokens
from models.checkpoint import Checkpoint
from models.checkpoint_writer import write_checkpoint
from models.convert import convert
from models.errors import CheckpointError
from models.families import FAMILIES, every_family
from models.load import load
from models.safetensors_file import write_tensors
from models.weight_files import open_weights
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
    golden.compare(
        found, golden.Case(model=f"{family}/{task}", name=task, inputs=given, names=list(expected), expected=expected)
    )


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
        np.testing.assert_allclose(call()["logits"].reshape(wanted.shape), wanted, rtol=0, atol=golden.LOGITS_TOLERANCE)


def folder_of(tmp_path: Path, family: str, task: str, *, tokenizer: bool = False, **fields: Any) -> Path:
    """A writable checkpoint folder: a task's weights and, if wanted, the family's tokenizer; fields of config.json."""
    folder = tmp_path / family / task
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((FOLDERS / family / task / name).read_bytes())
    if tokenizer:
        for path in (FOLDERS / family).glob("*token*.json"):
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    return folder


FIRST = {family: next((task for name, task in CASES if name == family), "") for family in OTHERS}
families = pytest.mark.parametrize("family", OTHERS)


@families
@pytest.mark.parametrize("framework", INSTALLED)
def test_the_public_classes_refuse_another_family_and_name_what_takes_it(family: str, framework: str) -> None:
    task = FIRST[family]
    with pytest.raises(ValueError, match=rf"is for model_type 'roberta-prelayernorm', this is '{family}'; .*load\(\)"):
        CLASSES[framework].load(KINDS[HEADS[task]], str(FOLDERS / family / task))


def test_an_unknown_model_type_is_refused_by_name_with_the_list(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "roberta", FIRST["roberta"], model_type="deberta-v2")
    with pytest.raises(CheckpointError, match="model_type 'deberta-v2'; known are roberta-prelayernorm, roberta, xlm-"):
        Checkpoint.open(str(folder))


@families
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"position_embedding_type": "relative_key"}, "has only 'absolute' positions"),
        ({"is_decoder": True, "add_cross_attention": True}, "has no cross-attention"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(
    family: str, fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, family, FIRST[family], **fields)
    with pytest.raises(CheckpointError, match=said):
        Checkpoint.open(str(folder))


@pytest.mark.parametrize(("family", "said_to_be"), [("roberta", "xlm-roberta-xl"), ("xlm-roberta-xl", "camembert")])
def test_tensors_of_another_family_than_config_says_are_refused(family: str, said_to_be: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, family, FIRST[family], model_type=said_to_be)
    with pytest.raises(CheckpointError, match=f"is no tensor of model_type '{said_to_be}'"):
        Checkpoint.open(str(folder))


@pytest.mark.parametrize(("family", "task"), [(family, task) for family, task in FIRST.items() if task])
@pytest.mark.parametrize(
    "weights_format", ["safetensors", "safetensors-tf", "safetensors-flax", "h5", "msgpack", "bin"]
)
def test_convert_writes_and_reads_every_format(family: str, task: str, weights_format: Any, tmp_path: Path) -> None:
    source = Checkpoint.open(str(FOLDERS / family / task))
    there, back = str(tmp_path / "there"), str(tmp_path / "back")
    convert(source=source.url, destination=there, weights_format=weights_format)
    convert(source=there, destination=back, allow_pickle=True)
    again = Checkpoint.open(back)
    assert again.config.model_type == family
    assert again.config.architectures == source.config.architectures
    assert again.weights_digest() == source.weights_digest()
    assert sorted(again.sources[0].stored_names.values()) == sorted(source.sources[0].stored_names.values())


@families
def test_old_spellings_are_read(family: str, tmp_path: Path) -> None:
    """gamma and beta, a buffer of positions, a pooler that the head does not use."""

    folder = folder_of(tmp_path, family, FIRST[family])
    old = folder_of(tmp_path / "old", family, FIRST[family])
    (old / "model.safetensors").unlink()
    source = Checkpoint.open(str(folder))
    stored = source.sources[0].stored_names
    arrays = {}
    for name, array in source.stream():
        ending = {"weight": "gamma", "bias": "beta"}
        owner, _, leaf = stored[name].rpartition(".")
        is_norm = owner.lower().endswith("layernorm") or owner.endswith("layer_norm")
        arrays[f"{owner}.{ending[leaf]}" if is_norm else stored[name]] = array
    prefix = "" if FIRST[family] == "feature-extraction" else "roberta."
    arrays[f"{prefix}embeddings.position_ids"] = np.arange(62)[None]
    write_tensors(
        system=fsspec.filesystem("file"),
        path=str(old / "model.safetensors"),
        tensors=arrays,
        metadata={"format": "pt"},
    )
    assert Checkpoint.open(str(old)).weights_digest() == source.weights_digest()
    assert open_weights(url=str(old), names={"model.safetensors"}, family=source.config.family).stored_names


@pytest.mark.parametrize(
    "framework", [pytest.param(one, marks=[] if one == INSTALLED[0] else pytest.mark.slow) for one in INSTALLED]
)
def test_long_position_tables_work(framework: Framework, tmp_path: Path) -> None:
    """8,194 positions take 8,192 tokens, and the last token's answer depends on the last row of the table."""
    source = Checkpoint.open(str(FOLDERS / "roberta" / "token-classification"))
    tensors = {name: array for name, array in source.stream() if ".layer." not in name or ".layer.0." in name}
    name = "roberta_prelayernorm.embeddings.position_embeddings.weight"
    short = tensors[name]
    long = np.concatenate([short, np.random.default_rng(3).normal(size=(8194 - len(short), short.shape[1]))])
    tensors[name] = long.astype(np.float32)
    config = type(source.config).from_dict({**source.config.to_dict(), "max_position_embeddings": 8194})
    config = type(config).from_dict({**config.to_dict(), "num_hidden_layers": 1, "num_attention_heads": 1})
    write_checkpoint(url=str(tmp_path / "long"), config=config, tensors=tensors)
    answers = functools.partial(flat_answers, url=str(tmp_path / "long"), head="token-classification")
    ids = np.full((1, 8192), 7)
    found = answers(framework=framework, ids=ids, mask=np.ones_like(ids))["logits"]
    assert found.shape == (8192, 6)
    with every_family():
        plain = CLASSES[framework].load(KINDS["token-classification"], str(tmp_path / "long"))
        expected = CLASSES[framework].answer(plain, {"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"]
    np.testing.assert_allclose(found, expected[0], rtol=0, atol=golden.LOGITS_TOLERANCE)
    ids = np.full((1, 8193), 7)
    with pytest.raises(ValueError, match="8193"):
        answers(framework=framework, ids=ids, mask=np.ones_like(ids))


@pytest.mark.parametrize(
    ("family", "task"), [(family, task) for family, task in CASES if task == "token-classification"]
)
def test_half_precision_answers_as_single_does_to_its_tolerance(family: str, task: str) -> None:
    given, expected = case_of(family, task)
    real = given["attention_mask"].astype(bool)
    tokens = Tokens(
        input_ids_T=given["input_ids"][real].astype(np.int32),
        cu_seqlens=np.append(0, np.cumsum(real.sum(1))).astype(np.int32),
    )
    ask = Ask(positions_G=np.arange(len(tokens.input_ids_T), dtype=np.int32))
    model = load(
        checkpoint=str(FOLDERS / family / task), heads=["token-classification"], dtype="bfloat16", device="cpu"
    )
    found = model(tokens, {"token-classification": ask})["token-classification"]["logits"]
    wanted = expected["logits"][real]
    # Eight bits of a mantissa, through three layers of large random weights.
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()
