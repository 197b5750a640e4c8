"""Several tasks over one encoder in one job: each answers as in a job of its own, and what they share is computed once."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.boundary import Answers, Ask, Framework, HeadAsk, Tokens
from models.errors import CheckpointError
from models.load import load
from models.named_heads import HeadFolders
from models.tensors import PREFIX
from models.weight_files import WeightFiles
from pipeline.errors import SpecError
from pipeline.inference.answers import AnsweredWindows
from pipeline.inference.questions import facts_of
from pipeline.inference.windows import numbered, sequences_of
from pipeline.output.job import fingerprint_of, identity_of
from pipeline.prepare import checked_tasks
from pipeline.spec.job_spec import JobSpec
from tests.pipeline.tasks.in_process import Row, annotate
from tests.pipeline.tasks.several import HEADS, write_heads
from tests.pipeline.tasks.test_frameworks_agree import assert_agree
from tests.pipeline.tasks.test_reference_answers import FRAMEWORKS

TASKS: dict[str, Any] = {
    "intents": {"name": "text-classification", "top_k": "all"},
    "mood": "text-classification",
    "entities": "token-classification",
    "masks": {"name": "fill-mask", "top_k": 2},
    "questions": {"name": "question-answering", "question": "Who was there?"},
    "encoder": "feature-extraction",
}
TEXTS = [
    "Samuel Okafor opened his second <mask> in Bristol last spring.",
    "Bananas float, and so do <mask>.",
    "A text without what is asked for.",
    "",
    None,
    "Samuel Okafor opened his second <mask> in Bristol last spring.",
    "A train <mask> stood in a field for two hours and then went backwards. " * 20,
]
TAIL = ("truncated", "error")


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_heads(tmp_path_factory.mktemp("heads"))


def several(heads: Path, tasks: Mapping[str, Any] = TASKS, **sections: Any) -> JobSpec:
    values = {"input": {"urls": "in", "columns": {"context": "text"}}, "model": str(heads), "output": "out"}
    return JobSpec.parse({**values, "tasks": dict(tasks), **sections})


def alone(heads: Path, name: str, framework: Framework) -> list[Row]:
    task = TASKS[name]
    columns = {"context": "text"} if name == "questions" else {}
    values = {"input": {"urls": "in", "columns": columns}, "model": str(heads / name), "task": task, "output": "out"}
    return annotate(spec=JobSpec.parse(values), columns={"text": pa.array(TEXTS)}, framework=framework)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_of_several_tasks_answers_as_in_a_job_of_its_own(heads: Path, framework: Framework) -> None:
    together = annotate(spec=several(heads), columns={"text": pa.array(TEXTS)}, framework=framework)
    for name in TASKS:
        for row, wanted in zip(together, alone(heads, name, framework), strict=True):
            answers = {key: value for key, value in wanted.items() if key not in (*TAIL, "text", "source", "row")}
            assert_agree({key: row[f"{name}_{key}"] for key in answers}, answers)
            assert row["truncated"] >= wanted["truncated"]


def test_a_row_says_the_first_task_that_could_not_answer_and_the_others_answer(heads: Path) -> None:
    rows = annotate(spec=several(heads), columns={"text": pa.array(TEXTS)})
    assert [row["error"] and row["error"]["reason"] for row in rows] == [
        None, None, "no-mask", "empty", "empty", None, "too-long",
    ]  # fmt: skip
    without = rows[2]
    assert without["error"]["message"].startswith("masks: ")
    assert without["masks_masks"] is None
    assert without["intents_label"]
    assert without["mood_label"] in ("glad", "sad", "neither")
    assert without["entities_entities"] is not None
    assert rows[3]["error"]["message"].startswith("intents: ")
    assert rows[6]["truncated"]
    assert all(value is None for key, value in rows[4].items() if key.split("_")[0] in TASKS)


class Counting:
    """A model whose tokens are counted."""

    def __init__(self, heads: Path) -> None:
        self.model = load(checkpoint=str(heads), heads={**HEADS, "encoder": "encoder"}, device="cpu")
        self.tokens = 0

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        self.tokens += len(tokens.input_ids_T)
        return self.model(tokens, asks)


def test_what_tasks_encode_alike_is_computed_once(heads: Path) -> None:
    texts = {"text": pa.array(TEXTS[:3])}
    counted = {}
    for names in (("intents",), ("intents", "mood", "entities", "masks", "encoder"), ("questions",), tuple(TASKS)):
        model = Counting(heads)
        annotate(spec=several(heads, {name: TASKS[name] for name in names}), columns=texts, model=model)
        counted[names] = model.tokens
    one, five, pairs, every = counted.values()
    assert one == five
    assert every == one + pairs


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_heads_of_one_kind_have_names_and_labels_of_their_own(heads: Path, framework: Framework) -> None:
    kinds = {"intents": HEADS["intents"], "mood": HEADS["mood"]}
    model = load(checkpoint=str(heads), framework=framework, heads=kinds, device="cpu")
    tokens = Tokens(input_ids_T=np.array([0, 20, 30, 2], np.int32), cu_seqlens=np.array([0, 4], np.int32))
    first = np.zeros(1, np.int32)
    found = model(tokens, {name: Ask(first) for name in kinds})
    assert {name: answers["logits"].shape for name, answers in found.items()} == {"intents": (1, 4), "mood": (1, 3)}
    (own,) = load(checkpoint=str(heads / "mood"), framework=framework, heads=[HEADS["mood"]], device="cpu")(
        tokens, {HEADS["mood"]: Ask(first)}
    ).values()
    np.testing.assert_allclose(found["mood"]["logits"], own["logits"], atol=1e-5)


def test_heads_without_a_common_encoder_are_refused(heads: Path, tmp_path: Path) -> None:
    for folder, names in (("a", ["intents"]), ("b", ["entities"])):
        write_heads(tmp_path / folder, {name: HEADS[name] for name in names})
    (tmp_path / "both").mkdir()
    for folder, name in (("a", "intents"), ("b", "entities")):
        (tmp_path / folder / name).rename(tmp_path / "both" / name)
        config = tmp_path / "both" / name / "config.json"
        config.write_text(config.read_text().replace('"encoder"', f'"../{folder}/encoder"'))
    with pytest.raises(CheckpointError, match="have different encoders: their weights are in different files"):
        checked_tasks(several(tmp_path / "both", {"intents": TASKS["intents"], "entities": TASKS["entities"]}))
    config = heads / "entities" / "config.json"
    kept = config.read_text()
    config.write_text(
        kept.replace('"gelu"', '"relu"') if '"gelu"' in kept else kept.replace("{", '{"hidden_act": "relu",', 1)
    )
    try:
        with pytest.raises(CheckpointError, match="hidden_act is gelu for 'intents' and relu for 'entities'"):
            load(checkpoint=str(heads), heads={name: HEADS[name] for name in ("intents", "entities")})
    finally:
        config.write_text(kept)


def test_what_a_head_lacks_is_said_of_its_folder(heads: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"intents: no head 'question-answering' \('qa_outputs.weight' is missing"
    ):
        checked_tasks(several(heads, {"mood": "text-classification", "intents": "question-answering"}))
    topics = several(heads, {"mood": "text-classification", "topics": "text-classification"})
    with pytest.raises(
        CheckpointError, match=r"no head 'topics': there is no .*/topics/config\.json, .* holds .*intents"
    ):
        checked_tasks(topics)
    (heads / "topics").mkdir()
    (heads / "topics" / "model.safetensors").write_bytes(b"half")
    try:
        with pytest.raises(CheckpointError, match=r"/topics/config\.json; .*/topics holds model\.safetensors"):
            checked_tasks(topics)
    finally:
        shutil.rmtree(heads / "topics")
    with pytest.raises(SpecError, match=r"^tasks\.questions: doc_stride \(500\) is larger"):
        checked_tasks(
            several(heads, {"mood": "text-classification", "questions": {**TASKS["questions"], "doc_stride": 500}})
        )


def test_two_tasks_that_would_answer_in_one_column_are_refused(heads: Path) -> None:
    shutil.copytree(heads / "mood", heads / "questions_null")
    spec = several(heads, {"questions": TASKS["questions"], "questions_null": "text-classification"})
    try:
        with pytest.raises(SpecError, match="two of them answer in a column 'questions_null_score'"):
            checked_tasks(spec)
    finally:
        shutil.rmtree(heads / "questions_null")


def test_a_task_that_may_see_only_what_is_before_a_token_is_refused_beside_others(tmp_path: Path) -> None:
    folder = write_heads(tmp_path / "heads", {"mood": HEADS["mood"], "scores": "masked-lm"})
    scoring = {"name": "text-scoring", "method": "causal"}
    with pytest.raises(SpecError, match=r"tasks\.scores: reads texts from left to right only, unlike the other tasks"):
        checked_tasks(several(folder, {"mood": "text-classification", "scores": scoring}))


def test_a_blank_text_of_one_task_hides_no_error_of_another(heads: Path) -> None:
    tasks = {"mood": "text-classification", "masks": TASKS["masks"]}
    spec = several(heads, tasks, input={"urls": "in", "columns": {"mood.text": "title"}})
    columns = {"title": pa.array(["", "A title.", None]), "text": pa.array(["no mask", "A <mask>.", ""])}
    rows = annotate(spec=spec, columns=columns)
    assert [row["error"] and row["error"]["reason"] for row in rows] == ["no-mask", None, "empty"]
    assert [row["mood_label"] is None for row in rows] == [True, False, True]


def test_the_order_of_the_tasks_is_part_of_what_a_folder_is(heads: Path) -> None:
    tasks = [{name: TASKS[name] for name in names} for names in (("mood", "intents"), ("intents", "mood"))]
    specs = [several(heads, one) for one in tasks]
    one, other = (identity_of(spec=spec, facts=facts_of(spec), digest="d", dtype="float32") for spec in specs)
    assert fingerprint_of(one) != fingerprint_of(other)


def test_the_shared_encoder_is_digested_once(heads: Path) -> None:
    read: list[str] = []

    def counted(source: WeightFiles) -> WeightFiles:
        def reading(names: Sequence[str]) -> Iterator[tuple[str, Any]]:
            read.extend(names)
            return iter(source.read(names))

        return replace(source, read=reading)

    opened = HeadFolders.open(checkpoint=str(heads), names=list(HEADS))
    whole = {name: replace(one, sources=tuple(map(counted, one.sources))) for name, one in opened.checkpoints.items()}
    assert replace(opened, checkpoints=whole).digest() == opened.digest()
    encoder = [name for name in read if name.startswith(PREFIX)]
    assert len(encoder) == len(set(encoder)) > 0


def test_a_task_that_reads_from_left_to_right_is_refused_beside_others(heads: Path, tmp_path: Path) -> None:
    folder = write_heads(tmp_path / "heads", {**HEADS, "scores": "causal-lm"})
    with pytest.raises(
        CheckpointError, match="is_decoder is False for 'mood' and True for 'scores'; run them as two jobs"
    ):
        checked_tasks(several(folder, {"mood": "text-classification", "scores": "text-scoring"}))


WINDOW = st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=3), st.sampled_from([[0], [], [0, 0]]))
WINDOWS = st.lists(WINDOW, max_size=6)
Window = tuple[list[int], list[int]]


def windows_table(windows: list[Window]) -> pa.Table:
    columns = {"input_ids": [ids for ids, _ in windows], "positions": [asked for _, asked in windows]}
    return pa.table({name: pa.array(values, pa.list_(pa.int32())) for name, values in columns.items()})


@given(shards=st.lists(st.lists(WINDOWS, min_size=1, max_size=3), min_size=1, max_size=3))
def test_equal_sequences_are_read_once_and_every_window_has_its_answers(shards: list[list[list[Window]]]) -> None:
    names = [str(number) for number in range(min(map(len, shards)))]
    tables = [numbered({name: windows_table(shard[int(name)]) for name in names}) for shard in shards]
    sequences = sequences_of(tables, {name: HeadAsk(head="encoder", name=name) for name in names})
    read = [sequences.input_ids_T[start:stop].tolist() for start, stop in pairwise(sequences.token_offsets)]
    given_windows = {name: [window for shard in shards for window in shard[int(name)]] for name in names}
    fewest = 0
    for shard in shards:
        different = [{(tuple(ids), tuple(asked)) for ids, asked in shard[int(name)]} for name in names]
        kinds: Counter[tuple[int, ...]] = Counter()
        for task in different:
            kinds |= Counter(ids for ids, _ in task)
        fewest += sum(kinds.values())
    assert len(read) == fewest
    assert sum(sequences.shard_tokens) == len(sequences.input_ids_T)
    tokens, asks = sequences.question(range(len(read))) if read else (None, {})
    for name, windows in given_windows.items():
        asked = sequences.asked[name]
        assert [read[place] for place in asked.sequence_W] == [ids for ids, _ in windows]
        answered = AnsweredWindows(asked)
        if name in asks and tokens is not None:
            # This model answers with the place of the token in the pack.
            answered.take(np.arange(len(read)), {name: {"hidden": asks[name].positions_G.astype(np.float32)}})
            ((answers, failures),) = answered.split([len(windows)])
            starts = tokens.cu_seqlens[asked.sequence_W]
            expected = [start + position for start, (_, own) in zip(starts, windows, strict=True) for position in own]
            assert answers["hidden"].to_pylist() == expected
            assert failures["error"].null_count == len(windows)
