"""Checkpoint folders: written, read back, digested and refused for what they lack."""

import json
from pathlib import Path
from typing import Any

import fsspec
import ml_dtypes
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from safetensors.numpy import load_file, save_file

from models import checkpoint
from models.boundary import Head
from models.checkpoint import Checkpoint, check
from models.checkpoint_writer import parse_size, write_checkpoint
from models.checks import MOST_LAYERS
from models.config import RobertaPreLayerNormConfig
from models.errors import CheckpointError
from models.safetensors_file import HEADER_LIMIT, MOST_TENSORS, AnyArray, read_header
from models.tensors import CROSS_LAYER, LAYER, PREFIX, expected_tensors

TOKENIZER = {"vocab.json": b"{}", "merges.txt": b"#version: 0.2\n"}


def config(**overrides: Any) -> RobertaPreLayerNormConfig:
    sizes: dict[str, Any] = {
        "vocab_size": 30,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "max_position_embeddings": 20,
    }
    return RobertaPreLayerNormConfig(**{**sizes, **overrides})


def tensors(head: Head = "masked-lm", dtype: Any = np.float32, **overrides: Any) -> dict[str, AnyArray]:
    draw = np.random.default_rng(1)
    shapes = expected_tensors(config=config(**overrides), head=head)
    return {name: draw.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def write(url: Any, head: Head = "masked-lm", **options: Any) -> dict[str, AnyArray]:
    given = tensors(head)
    write_checkpoint(url=str(url), config=config(), tensors=given, tokenizer_files=TOKENIZER, **options)
    return given


def same(found: dict[str, AnyArray], expected: dict[str, AnyArray]) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("size", ["5GB", "1KB"])
def test_a_folder_reads_back_bit_for_bit_whole_and_in_shards(dtype: Any, size: str, tmp_path: Path) -> None:
    given = tensors(dtype=dtype)
    write_checkpoint(url=str(tmp_path), config=config(), tensors=given, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "1KB")
    same(dict(Checkpoint.open(str(tmp_path)).stream()), given)


def test_our_files_are_the_safetensors_library_s_and_the_other_way_round(tmp_path: Path) -> None:
    given = write(tmp_path)
    same(load_file(tmp_path / "model.safetensors"), given)
    save_file(given, tmp_path / "model.safetensors", metadata={"format": "pt"})
    same(dict(Checkpoint.open(str(tmp_path)).stream()), given)


def test_a_folder_at_a_url_is_read_range_by_range() -> None:
    given = write("memory://bucket/model", max_shard_size="2KB")
    same(dict(Checkpoint.open("memory://bucket/model").stream()), given)
    fsspec.filesystem("memory").rm("bucket", recursive=True)


def test_writing_again_leaves_no_old_shards(tmp_path: Path) -> None:
    write(tmp_path, max_shard_size="1KB")
    given = write(tmp_path)
    assert not list(tmp_path.glob("model-*"))
    same(dict(Checkpoint.open(str(tmp_path)).stream()), given)


def test_the_bare_model_s_names_and_old_names_are_understood(tmp_path: Path) -> None:
    given = tensors("encoder")
    old = {
        name.removeprefix(PREFIX)
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in given.items()
    }
    old["embeddings.position_ids"] = np.arange(20)[None]
    write_checkpoint(url=str(tmp_path), config=config(), tensors=old)
    same(dict(Checkpoint.open(str(tmp_path)).stream()), given)


def test_a_head_may_name_the_folder_of_its_encoder(tmp_path: Path) -> None:
    given = write(tmp_path / "base", "encoder")
    head = {name: array for name, array in tensors("token-classification").items() if not name.startswith(PREFIX)}
    settings = config(base_model_name_or_path="base")
    write_checkpoint(url=str(tmp_path / "ner"), config=settings, tensors=head, tokenizer_files=TOKENIZER)
    opened = check(checkpoint=str(tmp_path / "ner"), heads=["token-classification", "encoder"])
    same(dict(opened.stream()), {**given, **head})


def test_a_circle_of_base_models_is_refused(tmp_path: Path) -> None:
    write_checkpoint(url=str(tmp_path / "a"), config=config(base_model_name_or_path="a"), tensors=tensors())
    with pytest.raises(CheckpointError, match="circular"):
        Checkpoint.open(str(tmp_path / "a"))


def test_the_digest_follows_the_content_and_not_its_layout(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two", max_shard_size="1KB")
    one, two = (Checkpoint.open(str(tmp_path / name)) for name in ("one", "two"))
    assert one.digest() == two.digest()
    changed = {**tensors(), "lm_head.bias": np.zeros(30, np.float32)}
    write_checkpoint(url=str(tmp_path / "two"), config=config(), tensors=changed, tokenizer_files=TOKENIZER)
    two = Checkpoint.open(str(tmp_path / "two"))
    assert one.weights_digest() != two.weights_digest()
    assert one.tokenizer_digest() == two.tokenizer_digest()
    (tmp_path / "two" / "merges.txt").write_bytes(b"a b\n")
    assert one.tokenizer_digest() != two.tokenizer_digest()
    relabelled = config(id2label={0: "no", 1: "yes"})
    write_checkpoint(url=str(tmp_path / "two"), config=relabelled, tensors=changed)
    assert one.config_digest() != Checkpoint.open(str(tmp_path / "two")).config_digest()


def test_second_names_of_tied_tensors_change_nothing(tmp_path: Path) -> None:
    given = write(tmp_path / "once")
    words = given[PREFIX + "embeddings.word_embeddings.weight"]
    twice = {**given, "lm_head.decoder.weight": words, "lm_head.decoder.bias": given["lm_head.bias"]}
    write_checkpoint(url=str(tmp_path / "twice"), config=config(), tensors=twice, tokenizer_files=TOKENIZER)
    once, both = (Checkpoint.open(str(tmp_path / name)) for name in ("once", "twice"))
    same(dict(both.stream()), given)
    assert once.digest() == both.digest()


def test_the_stamp_changes_when_a_file_does(tmp_path: Path) -> None:
    write(tmp_path)
    before = Checkpoint.open(str(tmp_path)).stamp()
    assert Checkpoint.open(str(tmp_path)).stamp() == before
    write_checkpoint(url=str(tmp_path), config=config(), tensors=tensors("encoder"))
    assert Checkpoint.open(str(tmp_path)).stamp() != before


def test_a_missing_head_is_refused_naming_those_there(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(CheckpointError, match=r"no head 'token-classification' .*it has heads: masked-lm, causal-lm"):
        check(checkpoint=str(tmp_path), heads=["token-classification"])
    check(checkpoint=str(tmp_path), heads=["masked-lm", "encoder"])


def test_another_size_is_refused_naming_both(tmp_path: Path) -> None:
    write_checkpoint(url=str(tmp_path), config=config(hidden_size=4), tensors=tensors())
    with pytest.raises(
        CheckpointError, match=r"'roberta.*word_embeddings.weight' is \(30, 8\), config.json says \(30, 4\)"
    ):
        check(checkpoint=str(tmp_path), heads=["masked-lm"], tokenizer=False)


def test_what_is_not_a_checkpoint_is_refused_naming_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such checkpoint folder"):
        Checkpoint.open(str(tmp_path / "nowhere"))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CheckpointError, match=r"no config.json; found notes.txt"):
        Checkpoint.open(str(tmp_path))
    (tmp_path / "config.json").write_text(config().to_json_string())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"no model.safetensors .*pytorch_model.bin is a pickle, which can run code"
    ):
        Checkpoint.open(str(tmp_path))
    write_checkpoint(url=str(tmp_path), config=config(), tensors=tensors())
    with pytest.raises(CheckpointError, match=r"no tokenizer: neither tokenizer.json nor vocab.json"):
        check(checkpoint=str(tmp_path), heads=["masked-lm"])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="model_type 'bert'"):
        Checkpoint.open(str(tmp_path))


def test_plain_roberta_s_names_and_mixed_names_are_refused(tmp_path: Path) -> None:
    named = {name.replace(PREFIX, "roberta."): array for name, array in tensors().items()}
    write_checkpoint(url=str(tmp_path), config=config(), tensors=named)
    with pytest.raises(CheckpointError, match="plain RoBERTa or DinkyTrain"):
        Checkpoint.open(str(tmp_path))
    mixed = {name.removeprefix(PREFIX): array for name, array in tensors().items()}
    write_checkpoint(url=str(tmp_path), config=config(), tensors=mixed)
    with pytest.raises(CheckpointError, match="corrupted"):
        Checkpoint.open(str(tmp_path))


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    for size in (0, 5, 400, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"cut off|not a safetensors"):
            Checkpoint.open(str(tmp_path))


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "model.safetensors"
    for entry in (
        '{"dtype":"F32","shape":[-2,-2],"data_offsets":[0,16]}',
        '{"dtype":"F32","shape":[9],"data_offsets":[0,4]}',
    ):
        header = f'{{"lm_head.bias":{entry}}}'.encode()
        file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
        with pytest.raises(CheckpointError, match="damaged"):
            Checkpoint.open(str(tmp_path))
    file.write_bytes((4).to_bytes(8, "little") + b"nope" + bytes(16))
    with pytest.raises(CheckpointError, match="header can't be read"):
        Checkpoint.open(str(tmp_path))


def test_a_place_that_can_t_be_listed_is_refused_with_the_reason() -> None:
    with pytest.raises(CheckpointError, match="nosuchprotocol://x: can't be listed"):
        Checkpoint.open("nosuchprotocol://x")


def test_a_file_with_the_decoder_s_bias_only_keeps_it(tmp_path: Path) -> None:
    given = tensors()
    renamed = {name.replace("lm_head.bias", "lm_head.decoder.bias"): array for name, array in given.items()}
    write_checkpoint(url=str(tmp_path), config=config(), tensors=renamed)
    same(dict(Checkpoint.open(str(tmp_path)).stream()), given)


@pytest.mark.storage
def test_a_folder_on_s3_is_written_checked_digested_and_read(s3_bucket: str, tmp_path: Path) -> None:
    given = write(f"{s3_bucket}/models/mlm", max_shard_size="1KB")
    write(tmp_path)
    opened = check(checkpoint=f"{s3_bucket}/models/mlm", heads=["masked-lm"])
    same(dict(opened.stream()), given)
    assert opened.digest() == Checkpoint.open(str(tmp_path)).digest()
    assert opened.stamp() == Checkpoint.open(f"{s3_bucket}/models/mlm").stamp()
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        Checkpoint.open(f"{s3_bucket}/models/other")
    write_checkpoint(url=f"{s3_bucket}/models/tf", config=config(), tensors=given, weights_format="h5")
    same(dict(Checkpoint.open(f"{s3_bucket}/models/tf").stream()), given)


def test_sizes_of_shards_are_read_as_people_write_them() -> None:
    assert [parse_size(text) for text in (7, "2KB", "1.5 MiB", "5gb")] == [7, 2000, 1572864, 5 * 10**9]
    with pytest.raises(ValueError, match="give bytes as a number"):
        parse_size("many")


def test_a_header_of_tens_of_thousands_of_tensors_is_refused_from_its_size_or_their_number(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    for count, wanted in ((40_000, "40000 tensors"), (100_000, "its header has")):
        header = json.dumps({f"e{number}": entry for number in range(count)}).encode()
        (tmp_path / "many.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(CheckpointError, match=wanted):
            read_header(system=LocalFileSystem(), path=str(tmp_path / "many.safetensors"))


def test_a_header_that_is_too_large_is_not_read_at_all(tmp_path: Path) -> None:
    (tmp_path / "many.safetensors").write_bytes((HEADER_LIMIT + 1).to_bytes(8, "little") + bytes(HEADER_LIMIT + 2))
    read: list[tuple[int, int]] = []

    class Watched(LocalFileSystem):
        cachable = False

        def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: object) -> object:
            read.append((start or 0, end or 0))
            return super().cat_file(path, start=start, end=end, **options)

    with pytest.raises(CheckpointError, match="no model of ours"):
        read_header(system=Watched(), path=str(tmp_path / "many.safetensors"))
    assert read == [(0, 8)]


def test_layers_that_a_config_invents_are_refused_before_their_tensors_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first layer that the weights lack is named, and no head's table of tensors is made."""
    write(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**stored, "num_hidden_layers": MOST_LAYERS}))
    opened = Checkpoint.open(str(tmp_path))

    def never(**_: object) -> dict[str, tuple[int, ...]]:
        raise AssertionError("a name was made for every tensor")

    monkeypatch.setattr(checkpoint, "expected_tensors", never)
    with pytest.raises(CheckpointError, match=r"layer\.2\..* is missing, which config\.json asks for"):
        opened.check(heads=["masked-lm"])
    assert opened.heads() == []
    (tmp_path / "config.json").write_text(json.dumps({**stored, "num_hidden_layers": MOST_LAYERS + 1}))
    with pytest.raises(CheckpointError, match=f"at most {MOST_LAYERS} are built"):
        Checkpoint.open(str(tmp_path)).check(heads=["encoder"])


def test_every_layer_that_may_be_built_fits_into_a_header() -> None:
    per_layer = len(LAYER) + len(CROSS_LAYER) + 1
    assert MOST_LAYERS * per_layer < MOST_TENSORS
    longest = {"dtype": "F32", "shape": [10_000, 10_000], "data_offsets": [10**12, 10**12]}
    name = PREFIX + max([*LAYER, *CROSS_LAYER], key=len).format(i=999)
    assert MOST_TENSORS * len(json.dumps({name: longest}, separators=(",", ":"))) < 1.2 * HEADER_LIMIT
