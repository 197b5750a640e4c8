"""The config: its defaults, its labels, what it refuses and what it writes."""

import json
from pathlib import Path

import pytest

from models.checks import check_config
from models.config import RobertaPreLayerNormConfig
from models.errors import CheckpointError
from tests.models import golden

Config = RobertaPreLayerNormConfig


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
