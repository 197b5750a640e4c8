"""What is one word: combining marks cut none. And which spellings of label schemes are understood."""

import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest

from models.tokenizer import load_tokenizer
from pipeline.tasks.tags import Tags, plain_names
from pipeline.tasks.token_classification import TokenClassification
from pipeline.tasks.tokens import tokenize
from pipeline.tasks.words import joined_at_marks

RANDOM_TINY = str(Path(__file__).parents[3] / "jobs/checkpoints/random-tiny")


def words_of(text: str) -> list[str]:
    texts = pa.array([text], pa.large_string())
    tokens = joined_at_marks(tokenize(texts, backend=load_tokenizer(RANDOM_TINY).backend), texts=texts)
    words: dict[int, tuple[int, int]] = {}
    for start, end, word in zip(tokens.start_T.tolist(), tokens.end_T.tolist(), tokens.word_T.tolist(), strict=True):
        words[word] = (words.get(word, (start, end))[0], end)
    return [text[start:end].strip() for start, end in words.values()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (unicodedata.normalize("NFD", "Nach Zürich, bitte"), ["Nach", "Zürich", ",", "bitte"]),
        ("हिन्दी में लिखा है।", ["हिन्दी", "में", "लिखा", "है", "।"]),
        ("ที่นี่ กรุงเทพฯ", ["ที่นี่", "กรุงเทพฯ"]),
        ("كَتَبَ الوَلَدُ", ["كَتَبَ", "الوَلَدُ"]),
        ("می‌خواهم", ["می‌خواهم"]),
        ("Plain text, as ever.", ["Plain", "text", ",", "as", "ever", "."]),
    ],
)
def test_a_mark_never_begins_a_word(text: str, words: list[str]) -> None:
    assert [unicodedata.normalize("NFC", word) for word in words_of(text)] == [
        unicodedata.normalize("NFC", word) for word in words
    ]


@pytest.mark.parametrize(
    "labels",
    [
        ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
        ["O", "PER-B", "PER-I", "LOC-B", "LOC-I"],
        ["O", "B_PER", "I_PER", "B_LOC", "I_LOC"],
        ["o", "b-PER", "i-PER", "b-LOC", "i-LOC"],
        ["O", "PER_B", "PER_I", "LOC_B", "LOC_I"],
    ],
)
def test_schemes_are_understood_in_every_common_spelling(labels: list[str]) -> None:
    tags = Tags.of(labels)
    assert [tags.names[tag] for tag in tags.tag_L] == [labels[0], "PER", "PER", "LOC", "LOC"]
    assert tags.begins_L.tolist() == [False, True, False, True, False]


def test_m_is_inside_where_the_other_letters_of_its_scheme_are_used() -> None:
    tags = Tags.of(["O", "B-PER", "M-PER", "E-PER", "S-PER"])
    assert tags.names == ("O", "PER")
    assert tags.ends_L.tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("labels", [["M-SPORT", "B-PER", "I-PER"], ["A_B", "NEWS_I", "LEFT"], ["PLAN_B", "PLAN_A"]])
def test_labels_of_no_scheme_keep_their_names(labels: list[str]) -> None:
    assert set(labels) - {"B-PER", "I-PER"} <= set(Tags.of(labels).names)


def test_a_folder_of_the_first_version_is_answered_by_its_rules() -> None:
    task = TokenClassification()
    assert (task.version, task.at_version(1).version, task.at_version(2).version) == (2, 1, 2)
    assert Tags.of(["O", "PER-B", "PER-I"], answer_version=1).names == ("O", "PER-B", "PER-I")


@pytest.mark.parametrize(
    ("labels", "plain"),
    [
        (["O", "PER", "LOC"], ["PER", "LOC"]),
        (["O", "B-PER", "I-PER", "E-PER"], ["E-PER"]),
        (["O", "I-PER"], []),
        (["o", "b-PER", "i-PER"], []),
        (["O", "PER_B", "PER_I", "[PAD]"], []),
        (["LABEL_0", "LABEL_1"], ["LABEL_0", "LABEL_1"]),
    ],
)
def test_labels_of_no_scheme_are_named(labels: list[str], plain: list[str]) -> None:
    assert plain_names(labels) == plain
