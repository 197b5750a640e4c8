"""The checkpoints of every family annotate as the Hugging Face pipelines do, in each framework."""

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from models.boundary import Framework
from models.families import FAMILIES
from pipeline.errors import SpecError
from pipeline.inference.questions import facts_of
from pipeline.output.job import identity_of
from pipeline.prepare import checked_tasks
from pipeline.tasks.characters import tokenize_texts
from tests.models.frameworks import INSTALLED
from tests.pipeline.tasks.in_process import annotate, job_spec
from tests.pipeline.tasks.reference_calls import expected_rows, found_answers, job_of
from tests.pipeline.tasks.test_reference_answers import assert_alike

HERE = Path(__file__).resolve().parents[2] / "golden" / "families"
SHARED = Path(__file__).resolve().parents[4] / "shared" / "golden" / "families"
FOLDERS = SHARED if SHARED.is_dir() else HERE
OTHERS = [name for name in FAMILIES if name != "roberta-prelayernorm"]


@functools.cache
def calls_of(family: str) -> list[dict[str, Any]]:
    """The reference's calls of a family for which there is a model."""
    path = FOLDERS / family / "annotations.json"
    cases: list[dict[str, Any]] = json.loads(path.read_text())["cases"] if path.is_file() else []
    return [case for case in cases if (FOLDERS / family / case["task"]).is_dir()]


@functools.cache
def checkpoint(family: str, task: str) -> Path:
    """A checkpoint folder: a task's weights and the family's tokenizer."""
    folder = Path(tempfile.mkdtemp(prefix="families-")) / family / task
    folder.mkdir(parents=True)
    for path in (*(FOLDERS / family).iterdir(), *(FOLDERS / family / task).iterdir()):
        if path.is_file() and path.name not in ("annotations.json", "cases.npz"):
            shutil.copyfile(path, folder / path.name)
    return folder


CALLS = [(family, number) for family in OTHERS for number in range(len(calls_of(family)))]


@pytest.mark.parametrize("framework", INSTALLED)
@pytest.mark.parametrize(("family", "number"), CALLS)
def test_a_recorded_call_is_answered_as_the_reference_did(family: str, number: int, framework: Framework) -> None:
    call = calls_of(family)[number]
    job = job_of(call)
    spec = job_spec(task=job.task, checkpoint=checkpoint(family, call["task"]))
    rows = annotate(spec=spec, columns=job.columns, framework=framework)
    for row, wanted in zip(rows, expected_rows(call, rows=len(rows)), strict=True):
        assert row["error"] is None
        assert_alike(found_answers(call["task"], row, ranked="top_k" in job.task), wanted)


METASPACE = [
    (family, task)
    for family in OTHERS
    for task in ("token-classification", "question-answering", "fill-mask")
    if (FOLDERS / family / task).is_dir() and (FOLDERS / family / "sentencepiece.bpe.model").is_file()
]
TEXTS = [
    "John Smith works at Microsoft Corporation in New York City, isn't it?",
    "  Two  spaces\tand tabs ",
    "naïve café — 東京 ﬁne ½ ① ＦＵＬＬ",
    "e\u0301te\u0301 au cafe\u0301, l'été à Noël",
    "Привет, мир! 🙂👩‍👩‍👧",
    "吾輩は猫である。名前はまだ無い。Tokyo 2024年、東京で。",
    "a\u00a0b\u200bc\r\nd",
    "▁ literal ▁mark",
]


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("family", [family for family, task in METASPACE if task == "token-classification"])
def test_a_space_belongs_to_no_entity(family: str, aggregation: str) -> None:
    task = {"name": "token-classification", "aggregation": aggregation, "ignore_labels": []}
    spec = job_spec(task=task, checkpoint=checkpoint(family, "token-classification"))
    for text, row in zip(TEXTS, annotate(spec=spec, columns={"text": TEXTS}), strict=True):
        assert row["error"] is None
        assert row["entities"]
        for entity in row["entities"]:
            assert entity["word"] == text[entity["start"] : entity["end"]]
            assert entity["word"] == entity["word"].strip()
            assert entity["word"]


@pytest.mark.parametrize("family", [family for family, task in METASPACE if task == "token-classification"])
def test_words_of_metaspace_are_those_of_byte_level_bpe(family: str) -> None:
    """Punctuation is apart where a token ends before it; an accent stays on its letter."""
    task = {"name": "token-classification"}
    facts = facts_of(job_spec(task=task, checkpoint=checkpoint(family, "token-classification")))["token-classification"]
    text = "City, isn't it? cafe\u0301s (abc) l'été"
    tokens = tokenize_texts(pa.array([text], pa.large_string()), facts=facts, reference=False)
    words: dict[int, list[int]] = {}
    for start, end, word in zip(tokens.start_T.tolist(), tokens.end_T.tolist(), tokens.word_T.tolist(), strict=True):
        if end > start:
            words.setdefault(word, []).extend((start, end))
    found = [text[min(places) : max(places)] for places in words.values()]
    assert "".join(found) == text.replace(" ", "")
    assert {"City", ",", "it", "?", "cafe\u0301s"} <= set(found) | {found[0] + found[1]}


@pytest.mark.parametrize("family", [family for family, task in METASPACE if task == "question-answering"])
def test_a_space_belongs_to_no_answer(family: str) -> None:
    task = {"name": "question-answering", "question": "Where?", "top_k": 5}
    spec = job_spec(task=task, checkpoint=checkpoint(family, "question-answering"))
    for text, row in zip(TEXTS, annotate(spec=spec, columns={"context": TEXTS}), strict=True):
        for answer in row["answers"]:
            assert answer["answer"] == text[answer["start"] : answer["end"]]
            assert answer["answer"] == answer["answer"].strip()


@pytest.mark.parametrize("family", [family for family, task in METASPACE if task == "fill-mask"])
def test_a_fill_brings_its_space_and_a_target_is_found_with_and_without_its_mark(family: str) -> None:
    spec = job_spec(
        task={"name": "fill-mask", "targets": ["ca", "▁ca", "C"]}, checkpoint=checkpoint(family, "fill-mask")
    )
    texts = ["Paris is the <mask> of France.", "<mask> is the capital."]
    for text, row in zip(texts, annotate(spec=spec, columns={"text": texts}), strict=True):
        fills = row["masks"][0]["fills"]
        assert {fill["target"] for fill in fills} <= {"ca", "▁ca", "C"}
        for fill in fills:
            begin = text.index("<mask>")
            assert row["masks"][0]["start"] == begin
            before, behind = text[:begin].rstrip(), text[begin + len("<mask>") :]
            piece = fill["sequence"][len(before) : len(fill["sequence"]) - len(behind)]
            assert fill["sequence"] == before + piece + behind
            assert piece.strip() == fill["token_str"].strip()
            assert begin or not piece.startswith(" ")


@pytest.mark.parametrize("family", [family for family in OTHERS if (FOLDERS / family / "fill-mask").is_dir()])
def test_a_decoder_is_refused_by_every_task_but_text_scoring(family: str, tmp_path: Path) -> None:
    if not (FOLDERS / family / "tokenizer.json").is_file():
        pytest.skip("no tokenizer committed")
    folder = tmp_path / "decoder"
    shutil.copytree(checkpoint(family, "fill-mask"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "is_decoder": True}))
    with pytest.raises(SpecError, match=r"is a decoder of model_type .* only text-scoring takes, not fill-mask"):
        checked_tasks(job_spec(task="fill-mask", checkpoint=folder))
    checked_tasks(job_spec(task="text-scoring", checkpoint=folder))


def embedder(tmp_path: Path, *, modules: list[str], pooling: dict[str, Any], **files: Any) -> Path:
    """A folder of sentence-transformers around an encoder."""
    family = "roberta"
    task = "token-classification"
    folder = tmp_path / "embedder"
    shutil.copytree(checkpoint(family, task), folder)
    listed = [
        {
            "idx": place,
            "name": str(place),
            "path": "" if place == 0 else f"{place}_{name}",
            "type": f"sentence_transformers.models.{name}",
        }
        for place, name in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
THREE = ["Transformer", "Pooling", "Normalize"]
WORDS = ["John Smith works at Microsoft.", "The wolf howls at the moon near the river, and so on."]


def vectors(folder: Path, texts: list[str], **options: Any) -> npt.NDArray[np.float32]:
    spec = job_spec(task={"name": "feature-extraction", **options}, checkpoint=folder)
    return np.array([row["embedding"] for row in annotate(spec=spec, columns={"text": texts})], np.float32)


def test_a_folder_of_sentence_transformers_brings_its_defaults(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "query"}
    folder = embedder(
        tmp_path,
        modules=THREE,
        pooling=CLS,
        config_sentence_transformers=prompts,
        sentence_bert_config={"max_seq_length": 12, "do_lower_case": False},
    )
    found = vectors(folder, WORDS)
    states = [vectors(folder, [f"query: {text}"], pooling="none", prompt="")[0] for text in WORDS]
    assert max(map(len, states)) == 12
    first = np.stack([state[0] for state in states])
    np.testing.assert_allclose(found, first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-6)
    passage = vectors(folder, WORDS, prompt="passage")
    np.testing.assert_allclose(passage, vectors(folder, WORDS, prompt="passage: "), atol=1e-6)
    assert np.abs(passage - found).max() > 1e-3


def test_the_identity_says_which_defaults_an_embedder_brought(tmp_path: Path) -> None:
    folder = embedder(tmp_path, modules=THREE, pooling=CLS)
    identities = []
    for task in ({"name": "feature-extraction"}, {"name": "feature-extraction", "pooling": "mean"}):
        spec = job_spec(task=task, checkpoint=folder)
        identities.append(identity_of(spec=spec, facts=facts_of(spec), digest="d", dtype="float32"))
    assert [identity["task.pooling"] for identity in identities] == ["cls", "mean"]
    assert [identity["task.normalize"] for identity in identities] == [True, False]
    spec = job_spec(task="feature-extraction", checkpoint=checkpoint("roberta", "token-classification"))
    plain = identity_of(spec=spec, facts=facts_of(spec), digest="d", dtype="float32")
    assert "task.prompt" not in plain


@pytest.mark.parametrize(
    ("modules", "pooling", "files", "said"),
    [
        ([*THREE[:2], "Dense"], CLS, {}, "the module 'Dense'"),
        (THREE, {"pooling_mode_max_tokens": True}, {}, "pooling_mode_max_tokens"),
        (
            THREE,
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            {},
            "cls_token with pooling_mode_mean",
        ),
        (THREE, CLS, {"sentence_bert_config": {"do_lower_case": True}}, "do_lower_case"),
    ],
)
def test_an_embedder_of_another_kind_is_refused_by_name(
    modules: list[str], pooling: dict[str, Any], files: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = embedder(tmp_path, modules=modules, pooling=pooling, **files)
    with pytest.raises(SpecError, match=said):
        checked_tasks(job_spec(task="feature-extraction", checkpoint=folder))
    checked_tasks(job_spec(task={"name": "feature-extraction", "pooling": "mean"}, checkpoint=folder))
