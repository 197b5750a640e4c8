"""Each row is encoded once, or has the reason why it can't be."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers

from pipeline.encode import distinct, encode_items, encode_rows
from pipeline.errors import SpecError
from pipeline.reading.text_columns import is_text, is_texts
from pipeline.rows import error_array
from pipeline.tasks.task import Encoding
from tests.pipeline.small import only_facts, only_task, reasons, rows_table, spec

SPEC = spec()
LIMIT = 128
"""Tokens that the embedded checkpoint takes, `<s>` and `</s>` included."""
LONG = "word " * 300


def encoded(values: pa.Array | list[object], **keys: object) -> tuple[pa.Table, pa.Table]:
    chosen = spec(**keys) if keys else SPEC
    return encode_rows(rows_table({"text": values}), task=only_task(chosen), spec=chosen, facts=only_facts(chosen))


def text_of(ids: list[int]) -> str:
    return str(only_facts(SPEC).tokenizer.backend.decode(ids))


def test_a_text_becomes_one_window_between_its_special_tokens() -> None:
    marks, windows = encoded(["Bananas float."])
    facts = only_facts(SPEC)
    (ids,) = windows["input_ids"].to_pylist()
    assert (ids[0], ids[-1]) == (facts.tokenizer.bos_id, facts.tokenizer.eos_id)
    assert text_of(ids) == "Bananas float."
    assert windows["positions"].to_pylist() == [[0]]
    assert marks.to_pylist() == [{"item": 0, "truncated": False, "error": None}]


def test_null_and_blank_texts_are_empty_and_are_not_encoded() -> None:
    marks, windows = encoded([None, "a", "", " \n\t", "\u00a0", "b"])
    assert reasons(marks["error"]) == ["empty", None, "empty", "empty", "empty", None]
    assert marks["item"].to_pylist() == [None, 0, None, None, None, 1]
    assert windows["item"].to_pylist() == [0, 1]


def test_equal_texts_are_encoded_once() -> None:
    marks, windows = encoded(["b", "a", "b", None, "a", "b"])
    assert marks["item"].to_pylist() == [0, 1, 0, None, 1, 0]
    assert [text_of(ids) for ids in windows["input_ids"].to_pylist()] == ["b", "a"]


def test_texts_that_differ_in_white_space_or_case_are_different() -> None:
    marks, _ = encoded(["a", " a", "a ", "A", "a\u0301", "\u00e1"])
    assert marks["item"].to_pylist() == [0, 1, 2, 3, 4, 5]


def test_a_text_longer_than_the_model_is_cut_and_marked() -> None:
    marks, windows = encoded([LONG, "short"])
    assert marks["truncated"].to_pylist() == [True, False]
    ids = windows["input_ids"].to_pylist()[0]
    assert len(ids) == LIMIT
    assert ids[-1] == only_facts(SPEC).tokenizer.eos_id


def test_a_text_longer_than_the_model_is_an_error_where_the_job_says_so() -> None:
    task = {"name": "text-classification", "on_long": "error"}
    marks, windows = encoded([LONG, "short", LONG], task=task)
    assert reasons(marks["error"]) == ["too-long", None, "too-long"]
    assert marks["truncated"].to_pylist() == [False, False, False]
    assert windows["item"].to_pylist() == [marks["item"][1].as_py()]


def test_max_length_shortens_the_model() -> None:
    model = {"checkpoint": SPEC.model.checkpoint, "max_length": 10}
    marks, windows = encoded([LONG, "a b"], model=model)
    assert len(windows["input_ids"][0]) == 10
    assert marks["truncated"].to_pylist() == [True, False]


def test_max_length_beyond_the_model_is_refused() -> None:
    model = {"checkpoint": SPEC.model.checkpoint, "max_length": LIMIT + 1}
    with pytest.raises(SpecError, match=rf"model\.max_length: {LIMIT + 1} tokens .* the {LIMIT} that"):
        only_facts(spec(model=model))


def test_a_text_of_too_many_bytes_is_an_error_before_it_is_tokenized() -> None:
    marks, windows = encoded(["é" * 6, "é" * 5, "x" * 10, "x" * 11], limits={"text_bytes": 10})
    assert reasons(marks["error"]) == ["too-large", None, None, "too-large"]
    assert windows.num_rows == 2


def test_an_error_that_a_row_came_with_is_kept_and_the_row_not_encoded() -> None:
    rows = rows_table({"text": ["a", None, "c"]})
    errors = error_array([("wrong-type", "why"), ("malformed-json", "why"), None])
    rows = rows.set_column(rows.column_names.index("__error__"), "__error__", errors)
    marks, windows = encode_rows(rows, task=only_task(SPEC), spec=SPEC, facts=only_facts(SPEC))
    assert reasons(marks["error"]) == ["wrong-type", "malformed-json", None]
    assert windows.num_rows == 1


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int16(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
)
def test_text_of_any_arrow_type_is_text(kind: pa.DataType) -> None:
    assert is_text(kind)
    values = ["a", None, "é", "a"]
    if pa.types.is_dictionary(kind):
        column = pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        column = pa.array([value and value.encode() for value in values], kind)
    else:
        column = pa.array(values, kind)
    marks, windows = encoded(column)
    assert marks["item"].to_pylist() == [0, None, 1, 0]
    assert [text_of(ids) for ids in windows["input_ids"].to_pylist()] == ["a", "é"]


def test_a_column_of_nothing_but_nulls_is_a_column_of_empty_texts() -> None:
    marks, windows = encoded(pa.nulls(3))
    assert reasons(marks["error"]) == ["empty"] * 3
    assert windows.num_rows == 0


def test_bytes_that_are_no_utf8_are_an_error_of_their_row() -> None:
    marks, _ = encoded(pa.array([b"good", b"\xff", b"good"]))
    assert reasons(marks["error"]) == [None, "invalid-utf8", None]


@pytest.mark.parametrize("kind", [pa.int64(), pa.bool_(), pa.list_(pa.string()), pa.struct([("a", pa.string())])])
def test_other_types_are_no_text(kind: pa.DataType) -> None:
    assert not is_text(kind)


def test_lists_of_text_are_told_from_other_lists() -> None:
    assert is_texts(pa.list_(pa.string()))
    assert is_texts(pa.list_(pa.large_string(), 4))
    assert is_texts(pa.large_list(pa.dictionary(pa.int8(), pa.string())))
    assert not is_texts(pa.list_(pa.int64()))
    assert not is_texts(pa.string())


def test_a_shard_without_rows_has_no_windows() -> None:
    for values in (pa.array([], pa.string()), pa.array(["", None])):
        marks, windows = encoded(values)
        assert marks.num_rows == len(values)
        assert windows.num_rows == 0
        assert {"item", "input_ids", "positions"} <= set(windows.column_names)


def test_the_text_may_be_a_column_of_another_name() -> None:
    chosen = spec(source={"urls": "in", "columns": {"text": "body"}})
    rows = rows_table({"text": ["wrong"], "body": ["right"]})
    _, windows = encode_rows(rows, task=only_task(chosen), spec=chosen, facts=only_facts(chosen))
    assert text_of(windows["input_ids"][0].as_py()) == "right"


def test_a_mean_is_asked_over_all_tokens_and_cls_over_the_first() -> None:
    for pooling, expected in (("mean", None), ("cls", [0])):
        _, windows = encoded(["Bananas float."], task={"name": "feature-extraction", "pooling": pooling})
        (ids,), (positions,) = windows["input_ids"].to_pylist(), windows["positions"].to_pylist()
        assert positions == (expected or list(range(len(ids))))


@given(values=st.lists(st.none() | st.text(max_size=40), max_size=12))
def test_any_text_gets_a_window_or_a_reason_and_every_row_is_there(values: list[str | None]) -> None:
    marks, windows = encoded(pa.array(values, pa.string()))
    assert marks.num_rows == len(values)
    blank = [value is None or not value.strip(" \t\n\r\x0b\x0c") for value in values]
    for value, is_blank, row in zip(values, blank, marks.to_pylist(), strict=True):
        if is_blank:
            assert row["error"]["reason"] == "empty"
        elif row["error"] is None:
            assert row["item"] is not None
            assert value is not None
    given_items = {row["item"] for row in marks.to_pylist() if row["error"] is None}
    assert given_items == set(windows["item"].to_pylist())
    assert len(given_items) == len(
        {value for value, row in zip(values, marks.to_pylist(), strict=True) if not row["error"]}
    )


@given(rows=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", None])), max_size=20))
def test_distinct_pairs_are_numbered_in_the_order_in_which_they_appear(rows: list[tuple[str, str | None]]) -> None:
    parts = {name: pa.array([row[at] for row in rows], pa.large_string()) for at, name in enumerate(["one", "two"])}
    items, numbers = distinct(parts)
    pairs = list(zip(items["one"].to_pylist(), items["two"].to_pylist(), strict=True))
    assert pairs == list(dict.fromkeys(rows))
    assert [pairs[number] for number in numbers] == rows


def test_distinct_lists_are_told_apart_by_all_their_texts() -> None:
    kind = pa.large_list(pa.large_string())
    _, numbers = distinct({"choices": pa.array([["a", "b"], ["ab"], ["a", "b"], None, ["a", None], []], kind)})
    assert np.asarray(numbers).tolist() == [0, 1, 0, 2, 3, 4]


def test_a_text_on_which_the_tokenizers_regular_expression_panics_is_an_error_of_its_row_alone() -> None:
    chosen = spec()
    facts = only_facts(chosen)
    backend = Tokenizer.from_str(facts.tokenizer.backend.to_str())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("(?=(a+)+b)"), "isolated"), pre_tokenizers.ByteLevel()]
    )
    texts = ["one", "two", "a" * 40 + "!", None, "three"]

    def encode(items: Mapping[str, pa.Array]) -> Encoding:
        values = [text for text in items["text"].to_pylist() if text is not None]
        backend.encode_batch(values)
        return only_task(chosen).task.encode(items, facts)

    encoding = encode_items({"text": pa.array([text for text in texts if text], pa.large_string())}, encode=encode)
    assert reasons(encoding.errors) == [None, None, "exception", None]
    assert "retry-limit" in encoding.errors[2].as_py()["message"]
    assert encoding.windows["item"].to_pylist() == [0, 1, 3]
    assert [text_of(ids) for ids in encoding.windows["input_ids"].to_pylist()] == ["one", "two", "three"]


def test_what_interrupts_a_run_while_it_tokenizes_is_no_error_of_a_row() -> None:
    def encode(_: Mapping[str, pa.Array]) -> Encoding:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_items({"text": pa.array(["a", "b"])}, encode=encode)
