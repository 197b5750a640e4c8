"""The config: its defaults, its labels, what it refuses and what it writes."""

import json
import shutil
from pathlib import Path

import pytest

from models.checkpoint import Checkpoint, check
from models.checks import check_config
from models.config import RobertaPreLayerNormConfig
from models.errors import CheckpointError
from models.tokenizer import load_tokenizer
from tests.models import golden

Config = RobertaPreLayerNormConfig
TINY = Path(__file__).parents[2] / "jobs/checkpoints/random-tiny"


def test_defaults_are_the_reference_s() -> None:
    config = Config()
    assert (config.vocab_size, config.max_position_embeddings, config.type_vocab_size) == (50265, 512, 2)
    assert (config.layer_norm_eps, config.num_labels, config.id2label) == (1e-12, 2, {0: "LABEL_0", 1: "LABEL_1"})
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (1, 0, 2)


def test_the_longest_input_leaves_out_the_rows_up_to_the_pad_s() -> None:
    assert Config(max_position_embeddings=514).max_tokens == 512


def test_labels_follow_their_number_and_their_names_win() -> None:
    assert Config(num_labels=3).label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    config = Config(id2label={"0": "no", "1": "yes"})
    assert config.id2label == {0: "no", 1: "yes"}
    assert config.label2id == {"no": 0, "yes": 1}
    with pytest.warns(UserWarning, match="num_labels=3, but id2label names 2 labels"):
        assert Config(num_labels=3, id2label={0: "a", 1: "b"}).num_labels == 2


def test_a_wrong_problem_type_is_refused() -> None:
    with pytest.raises(ValueError, match="problem_type is 'ranking'; it must be one of None, 'regression'"):
        Config(problem_type="ranking")


def test_sizes_that_do_not_divide_are_refused_where_a_model_is_built() -> None:
    with pytest.raises(ValueError, match="hidden_size is 10, not a multiple of num_attention_heads 4"):
        check_config(Config(hidden_size=10, num_attention_heads=4))
    with pytest.raises(ValueError, match="add_cross_attention is set but is_decoder is not"):
        check_config(Config(add_cross_attention=True))


def test_unknown_fields_are_kept_and_written() -> None:
    config = Config(my_field=[1, 2])
    assert config.my_field == [1, 2]  # type: ignore[attr-defined]
    assert json.loads(config.to_json_string())["my_field"] == [1, 2]


def test_only_own_fields_and_changed_ones_are_written() -> None:
    written = json.loads(Config(is_decoder=True).to_json_string())
    assert written["is_decoder"] is True
    assert written["hidden_dropout_prob"] == 0.1
    assert not {"add_cross_attention", "tie_word_embeddings", "id2label", "problem_type"} & set(written)


def test_a_config_reads_back_equal(tmp_path: Path) -> None:
    config = Config(num_labels=5, is_decoder=True, pruned_heads={1: [0, 2]}, dtype="bfloat16", extra="x")
    config.save_pretrained(str(tmp_path))
    assert Config.from_pretrained(str(tmp_path)) == config
    assert Config.from_pretrained(str(tmp_path), num_labels=3).num_labels == 3
    assert "num_hidden_layers" in repr(config)


def test_the_older_name_of_dtype_is_read() -> None:
    assert Config.from_dict({"torch_dtype": "float16"}).dtype == "float16"


@pytest.mark.parametrize("model", golden.model_names())
def test_the_reference_s_files_are_written_as_the_reference_wrote_them(model: str) -> None:
    text = (golden.MODELS / model / "config.json").read_text()
    assert json.loads(Config.from_json(text).to_json_string()) == json.loads(text)


def test_a_folder_without_config_or_with_broken_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        Config.from_pretrained(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        Config.from_pretrained(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("layer_norm_eps", float("nan"), "layer_norm_eps is nan"),
        ("layer_norm_eps", -1.0, "0 or more"),
        ("layer_norm_eps", "x", "must be a number"),
        ("hidden_size", None, "must be a whole number"),
        ("hidden_size", 64.0, "must be a whole number"),
        ("num_hidden_layers", 10**7, "at most 1000 "),
        ("is_decoder", "no", "must be true or false"),
        ("hidden_act", 5, "hidden_act is '5'"),
        ("num_labels", 10**8, "at most 1000000"),
        ("model_type", ["roberta"], "model_type"),
    ],
)
def test_a_value_that_no_model_can_have_is_refused_at_once(tmp_path: Path, name: str, value: object, says: str) -> None:
    fields = json.loads((TINY / "config.json").read_text())
    fields = {key: kept for key, kept in fields.items() if name != "num_labels" or key not in ("id2label", "label2id")}
    shutil.copytree(TINY, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps({**fields, name: value}))
    with pytest.raises(CheckpointError, match=says) as caught:
        check(checkpoint=str(tmp_path / "model"), heads=["sequence-classification"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors"])
def test_json_that_is_nested_too_deep_is_refused_by_name(tmp_path: Path, name: str) -> None:
    deep = b'{"a":' * 3_000 + b"1" + b"}" * 3_000
    shutil.copytree(TINY, tmp_path / "model")
    content = len(deep).to_bytes(8, "little") + deep if name == "model.safetensors" else deep
    (tmp_path / "model" / name).write_bytes(content)
    read = load_tokenizer if name.startswith("tokenizer") else Checkpoint.open
    with pytest.raises(CheckpointError, match="model"):
        read(str(tmp_path / "model"))
