"""A normaliser that could fill the memory is refused before it reads a text; those of real models are not."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers

from models.errors import CheckpointError
from models.normalizer_growth import MOST_GROWTH, UNICODE_GROWTH, growth
from models.rust_panic import RustPanic, panics_caught
from models.tokenizer import load_tokenizer
from pipeline.errors import OptionError
from pipeline.inference.questions import facts_of
from tests.models import golden
from tests.pipeline.small import CHECKPOINT, only_task, spec

CONTENTS = st.text("aé 中", max_size=4)
PARTS: st.SearchStrategy[Any] = st.one_of(
    st.builds(lambda content: normalizers.Replace("a", content), CONTENTS),
    st.builds(lambda content: normalizers.Replace("ab", content), CONTENTS),
    st.builds(lambda content: normalizers.Replace(Regex("a*"), content), CONTENTS),
    st.builds(lambda content: normalizers.Replace(Regex("(?=a)"), content), CONTENTS),
    st.builds(lambda content: normalizers.Replace(Regex("a{2,}"), content), CONTENTS),
    st.builds(lambda content: normalizers.Replace(Regex("a+"), content), CONTENTS),
    st.builds(normalizers.Prepend, CONTENTS),
    st.sampled_from([normalizers.NFC, normalizers.NFD, normalizers.NFKC, normalizers.NFKD]).map(lambda kind: kind()),
    st.sampled_from([normalizers.Lowercase, normalizers.Strip, normalizers.ByteLevel]).map(lambda kind: kind()),
    st.just(normalizers.BertNormalizer()),
)


def fields_of(normalizer: Any) -> Any:
    """A normaliser as tokenizer.json has it."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizer
    return json.loads(backend.to_str())["normalizer"]


def folder_with(normalizer: Any, folder: Path) -> Path:
    """The embedded checkpoint's tokenizer with a normaliser."""
    fields = json.loads(load_tokenizer(CHECKPOINT).backend.to_str())
    (folder / "tokenizer.json").write_text(json.dumps({**fields, "normalizer": normalizer}))
    return folder


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PARTS, min_size=1, max_size=4), st.text("ab é\u0130\ufdfa\u1e9e中", min_size=1, max_size=30))
def test_no_text_grows_more_than_is_said(parts: list[Any], text: str) -> None:
    whole = normalizers.Sequence(parts)
    try:
        with panics_caught():
            grown = len(whole.normalize_str(text).encode())
    except RustPanic:
        reject()  # Strip panics on what other normalisers leave of a text: an error of its row
    assert grown <= growth(fields_of(whole)) * len(text.encode())


def test_the_largest_character_of_unicode_is_known() -> None:
    assert len(normalizers.NFKC().normalize_str("\ufdfa").encode()) == UNICODE_GROWTH * len("\ufdfa".encode())


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 1_000_000},
        {"type": "Replace", "pattern": {"Regex": ""}, "content": "x" * 300},
        {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}] * 30},
        {
            "type": "Sequence",
            "normalizers": [{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "x" * 20}] * 2}] * 2,
        },
        {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(bytes(4) + b"a\0" + b"b" * 500 + b"\0").decode(),
        },
    ],
    ids=["content", "between characters", "doubled 30 times", "nested", "table"],
)
def test_a_normaliser_that_would_fill_the_memory_is_refused_before_it_reads_a_text(
    tmp_path: Path, normalizer: Any
) -> None:
    with pytest.raises(
        CheckpointError, match=f"times as long, more than {MOST_GROWTH} times, which would fill the memory"
    ):
        load_tokenizer(folder_with(normalizer, tmp_path))


def template(pieces: list[Any], ids: list[int]) -> Any:
    """A post-processor, in a sequence, that puts a special token of these ids around texts."""
    token = {"<s>": {"id": "<s>", "ids": ids, "tokens": ["<s>"] * len(ids)}}
    part = {"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": token}
    return {"type": "Sequence", "processors": [part]}


TEXT, MARK = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<s>", "type_id": 0}}


@pytest.mark.parametrize(
    ("post_processor", "fault"),
    [
        (template([MARK] * 1_000 + [TEXT], [0] * 1_000), "puts 1000000 special tokens around a text"),
        (template([TEXT] * 1_000, [0]), "names it 1000 times"),
        (template([MARK, TEXT], [4_000_000_000]), "the id 4000000000"),
        ({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 4_000_000_000]}, "the id 4000000000"),
    ],
    ids=["tokens", "texts", "template's id", "id"],
)
def test_a_post_processor_that_would_fill_the_memory_is_refused_before_it_reads_a_text(
    tmp_path: Path, post_processor: Any, fault: str
) -> None:
    folder = folder_with(None, tmp_path)
    path = Path(folder) / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": post_processor}))
    with pytest.raises(CheckpointError, match=fault):
        load_tokenizer(folder)


def test_a_normaliser_that_replaces_one_space_by_another_is_read(tmp_path: Path) -> None:
    normalizer = {"type": "Replace", "pattern": {"String": "\u00a0"}, "content": " "}
    assert load_tokenizer(folder_with(normalizer, tmp_path)).ids("a\u00a0b") == load_tokenizer(CHECKPOINT).ids("a b")


def test_the_normalisers_of_real_models_are_read() -> None:
    files = sorted((golden.GOLDEN / "families").rglob("tokenizer.json"))
    assert files
    for file in files:
        assert growth(json.loads(file.read_text()).get("normalizer")) <= MOST_GROWTH // 3


@pytest.mark.parametrize(
    ("task", "option"),
    [
        ({"name": "question-answering", "question": "a" * 40 + "!"}, "question"),
        ({"name": "fill-mask", "targets": ["a" * 40 + "!"]}, "targets"),
    ],
)
def test_a_panic_over_an_options_text_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: dict[str, Any], option: str
) -> None:
    chosen = spec(task=task)
    (facts,) = facts_of(chosen).values()
    before = facts.tokenizer.backend.pre_tokenizer
    part = json.loads(facts.tokenizer.backend.to_str())["pre_tokenizer"]
    split = {"type": "Split", "pattern": {"Regex": "(?=(a+)+b)"}, "behavior": "Isolated", "invert": False}
    fields = {**json.loads(facts.tokenizer.backend.to_str())}
    fields["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, part]}
    try:
        facts.tokenizer.backend.pre_tokenizer = Tokenizer.from_str(json.dumps(fields)).pre_tokenizer
        with pytest.raises(OptionError, match=r"the tokenizer fails on ' ?aaaa") as refused:
            only_task(chosen).task.fields(facts)
    finally:
        facts.tokenizer.backend.pre_tokenizer = before
    assert refused.value.option == option
