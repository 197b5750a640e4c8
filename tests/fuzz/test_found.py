"""What the fuzzer found, a small case each: every one is refused in one line, or costs its own file alone."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.checkpoint import Checkpoint, beside
from models.embedder_folder import read_embedder
from models.errors import CheckpointError
from models.load import load
from models.origin import open_origin
from models.sentencepiece_file import tokenizer_json
from models.tokenizer import load_tokenizer
from tests.fuzz.reading import check_message, lay_out, read
from tests.fuzz.seeds import GOOD, Seed, seeds
from tests.pipeline.small import CHECKPOINT

pytestmark = pytest.mark.torch


def seed_of(reader: str) -> Seed:
    """The good folder of a reader."""
    return next(seed for seed in seeds() if seed.reader == reader)


def refusal(folder: Path, reader: str, change: Callable[[bytes], bytes], read_it: Callable[[str], object]) -> str:
    """What is said of a good folder whose file is changed."""
    seed = seed_of(reader)
    lay_out({**seed.files, seed.damaged: change(seed.files[seed.damaged])}, folder)
    with pytest.raises(CheckpointError) as refused:
        read_it(str(folder))
    check_message(str(refused.value))
    return str(refused.value)


def fields(**changes: object) -> Callable[[bytes], bytes]:
    """A JSON object with other values."""
    return lambda content: json.dumps({**json.loads(content), **changes}).encode()


def test_an_arrow_file_whose_offsets_lead_out_of_it_fails_alone(tmp_path: Path) -> None:
    """Arrow takes buffers from a file as they are, and crashed the process that asked for the size of a text inside a list."""
    table = pa.table({"text": ["A good text."] * 50, "tags": [[{"b": "some"}]] * 50})
    offsets = np.arange(0, 51 * 4, 4, dtype=np.int32).tobytes()
    wrong = np.full(51, 2**30, dtype=np.int32)
    wrong[0] = 0
    content = arrow_file(table)
    assert offsets in content
    lay_out({"a.arrow": content.replace(offsets, wrong.tobytes()), "good.jsonl": GOOD}, tmp_path / "in")
    assert read("input", tmp_path) == "failed files"


def arrow_file(table: pa.Table) -> bytes:
    """A table as an Arrow file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize("inner", [pa.struct, lambda fields: pa.list_(pa.struct(fields))])
def test_a_bad_json_line_beside_a_parquet_file_of_structs_without_nulls_fails_alone(
    tmp_path: Path, inner: Callable[[list[pa.Field]], pa.DataType]
) -> None:
    """Arrow's JSON parser makes the fields of a struct nullable, whatever the schema says; the run ended with its error."""
    kind = inner([pa.field("b", pa.string(), nullable=False)])
    value: object = {"b": "x"} if pa.types.is_struct(kind) else [{"b": "x"}]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["one"], "tags": pa.array([value], kind)}), tmp_path / "in/a.parquet")
    lines = json.dumps({"text": "two", "tags": value}).encode() + b"\n{broken\n"
    (tmp_path / "in/b.jsonl").write_bytes(lines)
    assert read("input", tmp_path) == "rows with errors"
    tags = [pq.read_table(path)["tags"].to_pylist() for path in sorted((tmp_path / "out/data").iterdir())]
    assert tags == [[value], [value, None]]


def test_a_column_whose_name_is_not_utf_8_fails_its_file_alone(tmp_path: Path) -> None:
    content = arrow_file(pa.table({"text": ["A good text."], "namename": [1]})).replace(b"namename", b"name\xff\xfeme")
    lay_out({"a.arrow": content, "good.jsonl": GOOD}, tmp_path / "in")
    assert read("input", tmp_path) == "failed files"


def test_a_saved_data_set_whose_state_is_nested_deep_is_refused(tmp_path: Path) -> None:
    seed = seed_of("saved data set")
    lay_out({**seed.files, "state.json": b"[" * 100_000 + b"]" * 100_000}, tmp_path / "in")
    assert read("input", tmp_path) == "refused"


def test_a_unigram_vocabulary_without_an_unknown_token_is_refused(tmp_path: Path) -> None:
    def change(content: bytes) -> bytes:
        tree = json.loads(content)
        tree["model"]["unk_id"] = None
        return json.dumps(tree).encode()

    assert "unk_id" in refusal(tmp_path, "tokenizer.json, Unigram", change, load_tokenizer)


def test_a_value_nested_so_deep_that_only_reading_it_works_is_an_error_of_its_row(tmp_path: Path) -> None:
    """Python reads JSON nested deeper than it writes."""
    for depth in range(900, 1_000, 10):
        lines = b'{"text": "A good text.", "id": 1}\n{"text": ' + b"[" * depth + b"]" * depth + b', "id": "x"}\n'
        place = tmp_path / str(depth)
        lay_out({"a.jsonl": lines}, place / "in")
        assert read("input", place) == "rows with errors"


def test_a_panic_of_the_tokenizers_library_is_a_refusal(tmp_path: Path) -> None:
    """An empty piece, where a merge makes a longer one: the library slices behind its end."""

    def change(content: bytes) -> bytes:
        vocabulary = json.loads(content)
        vocabulary[""] = vocabulary.pop("\u0120neighbour")
        return json.dumps(vocabulary).encode()

    assert "out of range" in refusal(tmp_path, "vocab.json", change, load_tokenizer)


@pytest.mark.parametrize("content", [b"", b"[]", b'"x"', b"{", b'{"a": "\\ud800"}', b"[" * 100_000, b"\xff"])
@pytest.mark.parametrize(
    "reader", ["config.json", "tokenizer_config.json", "vocab.json", "added_tokens.json", "sharded index"]
)
def test_a_json_file_that_is_no_object_is_refused(tmp_path: Path, reader: str, content: bytes) -> None:
    def open_all(url: str) -> None:
        Checkpoint.open(url).digest()
        load_tokenizer(url)

    refusal(tmp_path, reader, lambda _: content, open_all)


@pytest.mark.parametrize(
    ("reader", "changes"),
    [
        ("tokenizer_config.json", {"mask_token": 7}),
        ("tokenizer_config.json", {"model_max_length": "many"}),
        ("tokenizer_config.json", {"model_max_length": [8]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "<x>"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"3": 4}}),
        ("special_tokens_map.json", {"additional_special_tokens": 3}),
        ("added_tokens.json", {"<x>": "many"}),
        ("added_tokens.json", {"<x>": float("inf")}),
        ("vocab.json", {"a": 2**31}),
        ("vocab.json", {"a": -1}),
        ("vocab.json", {"a": None}),
        ("tokenizer.json", {"added_tokens": 3}),
        ("tokenizer.json", {"model": 3}),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {"a": 2**40}, "merges": []}}),
    ],
)
def test_tokenizer_files_with_values_of_another_type_are_refused(
    tmp_path: Path, reader: str, changes: dict[str, object]
) -> None:
    assert str(tmp_path) in refusal(tmp_path, reader, fields(**changes), load_tokenizer)


@pytest.mark.parametrize(
    ("reader", "content"),
    [
        ("sentence_bert_config.json", {"max_seq_length": "long"}),
        ("sentence_bert_config.json", {"max_seq_length": -3}),
        ("config_sentence_transformers.json", [1]),
        ("config_sentence_transformers.json", {"prompts": [1]}),
        ("1_Pooling/config.json", "mean"),
        ("1_Pooling/config.json", {"pooling_mode": 3}),
        ("modules.json", 3),
    ],
)
def test_sentence_transformers_settings_of_another_type_are_refused(
    tmp_path: Path, reader: str, content: object
) -> None:
    refusal(tmp_path, reader, lambda _: json.dumps(content).encode(), read_embedder)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("name", "read_it"), [("tokenizer.json", load_tokenizer), ("config.json", Checkpoint.open)])
def test_a_pipe_in_a_checkpoint_folder_is_no_file_of_it(
    tmp_path: Path, name: str, read_it: Callable[[str], object]
) -> None:
    for file in Path(CHECKPOINT).iterdir():
        if file.name not in (name, "vocab.json"):
            (tmp_path / file.name).symlink_to(file)
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"no (tokenizer: neither )?{name}"):
        read_it(str(tmp_path))


@pytest.mark.parametrize(
    "path", ["../1_Pooling", "/etc", "a/b", "s3://bucket/x", "..", "1_Pooling/../../x", "x" * 5_000, "字" * 100]
)
def test_a_module_leads_nowhere_but_into_its_own_folder(tmp_path: Path, path: str) -> None:
    kinds = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": path}]
    assert "plain name" in refusal(tmp_path, "modules.json", lambda _: json.dumps(kinds).encode(), read_embedder)


@pytest.mark.parametrize(
    "name",
    [
        "reference://::http://127.0.0.1:1/x",
        "simplecache::s3://models/a",
        "s3://other/encoder",
        "http://models/encoder",
        "file:///etc",
        "/etc",
        "memory://x",
        7,
        ["encoder"],
        "a\0b",
    ],
)
def test_a_checkpoint_names_no_encoder_in_another_store(name: object) -> None:
    with pytest.raises(CheckpointError, match="base_model_name_or_path"):
        beside(url="s3://models/tags", name=name)


@pytest.mark.parametrize(
    ("url", "name", "found"),
    [
        ("s3://models/tags", "encoder", "s3://models/encoder"),
        ("s3://models/tags/", "s3://models/other/encoder", "s3://models/other/encoder"),
        ("/data/tags", "encoder", "/data/encoder"),
        ("/data/tags", "/models/encoder", "/models/encoder"),
        ("file:///data/tags", "/models/encoder", "/models/encoder"),
        ("tags", "encoder", "encoder"),
    ],
)
def test_an_encoder_beside_a_checkpoint_or_in_its_store_is_found(url: str, name: str, found: str) -> None:
    assert beside(url=url, name=name) == found


def test_a_name_at_the_root_of_a_bucket_leads_into_no_other_bucket() -> None:
    with pytest.raises(CheckpointError, match="another store or bucket"):
        beside(url="s3://models", name="other")


def test_a_safetensors_header_with_other_metadata_is_refused(tmp_path: Path) -> None:
    header = b'{"__metadata__": 3}'
    content = len(header).to_bytes(8, "little") + header
    assert "header can't be read" in refusal(tmp_path, "safetensors", lambda _: content, Checkpoint.open)


def test_an_h5_file_stored_in_other_files_is_refused(tmp_path: Path) -> None:
    """HDF5 follows such a dataset to any file of this machine."""

    def change(_: bytes) -> bytes:
        with h5py.File(tmp_path / "made.h5", "w") as file:
            file.create_dataset("a/b/c", (4,), "f4", external=[("/etc/hostname", 0, 16)])
        return (tmp_path / "made.h5").read_bytes()

    assert "stored in other files" in refusal(tmp_path, "h5", change, Checkpoint.open)


@pytest.mark.parametrize("place", ["e{}", "a/b/e{}", "a{}/b"])
def test_an_h5_file_of_very_many_tensors_is_refused_before_they_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Groups count too, and so do links that lead nowhere."""
    monkeypatch.setattr("models.h5_file.MOST_TENSORS", 50)

    def change(_: bytes) -> bytes:
        with h5py.File(tmp_path / "made.h5", "w") as file:
            for number in range(51):
                file[place.format(number)] = h5py.SoftLink("/nothing")
        return (tmp_path / "made.h5").read_bytes()

    assert "more than 50 tensors" in refusal(tmp_path, "h5", change, Checkpoint.open)


def test_damaged_weights_of_every_format_are_refused(tmp_path: Path) -> None:
    def open_it(url: str) -> None:
        origin = open_origin(url=url, allow_pickle=True)
        for _ in origin.read(list(origin.tensors)):
            pass

    for reader in ("pytorch_model.bin", "h5", "msgpack", "safetensors"):
        for number, change in enumerate(
            (lambda x: x[: len(x) // 2], lambda x: x[:8] + b"\xff" * 64 + x[72:], lambda x: b"")
        ):
            said = refusal(tmp_path / f"{reader}-{number}", reader, change, open_it)
            assert "weights_only` set to `False`" not in said, "no advice to run the file's code"


@pytest.mark.parametrize("content", [b"\x08\x01", b"\x0a\x02\x08\x01", b"\x12\x02\x1a\x00", b"\x0a\x00", b"\xff" * 40])
def test_a_sentencepiece_model_with_fields_of_another_kind_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="SentencePiece"):
        tokenizer_json(content, model_type="xlm-roberta")


@pytest.mark.parametrize("name", ["../../other.safetensors", "/etc/passwd", "s3://bucket/x", "", "a/../x"])
def test_an_index_that_names_a_file_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    index = {"weight_map": {"a": name}}
    said = refusal(tmp_path, "sharded index", lambda _: json.dumps(index).encode(), Checkpoint.open)
    assert "which is missing" in said


def test_code_that_a_config_names_is_never_imported(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    changes = {
        "auto_map": {"AutoModel": "trap.Model", "AutoConfig": "trap--trap.Config"},
        "architectures": ["trap.Model"],
    }
    seed = seed_of("config.json")
    code = f"import pathlib\npathlib.Path({str(trap)!r}).touch()\nModel = Config = object\n".encode()
    files = {**seed.files, "trap.py": code, "config.json": fields(**changes)(seed.files["config.json"])}
    lay_out(files, tmp_path / "model")
    assert read("checkpoint", tmp_path / "model") == "read"
    model = load(checkpoint=str(tmp_path / "model"), heads=["sequence-classification"], device="cpu")
    assert model is not None
    assert not trap.exists()
