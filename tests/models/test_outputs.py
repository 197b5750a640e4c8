"""Outputs read as mappings, by attribute and as tuples, and hide what is not there."""

import copy
import pickle

import pytest

from models.outputs import MaskedLMOutput


def test_one_value_reads_three_ways() -> None:
    output = MaskedLMOutput(logits="l", hidden_states=("h",))
    assert output["logits"] == output.logits == output[0] == "l"
    assert output.to_tuple() == output[:] == ("l", ("h",))


def test_none_is_hidden_but_readable() -> None:
    output = MaskedLMOutput(loss=None, logits="l")
    assert list(output) == ["logits"]
    assert output.loss is None
    assert len(output) == 1


def test_the_order_is_the_fields_however_they_are_set() -> None:
    output = MaskedLMOutput(logits="l", attentions="a")
    output.loss = "x"
    output["hidden_states"] = "h"
    assert output.to_tuple() == ("x", "l", "h", "a")
    output.loss = None
    assert list(output) == ["logits", "hidden_states", "attentions"]


def test_an_unknown_field_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TypeError, match="no field 'logit'; it has loss, logits"):
        MaskedLMOutput(logit=1)
    with pytest.raises(AttributeError, match="no field 'logit'"):
        _ = MaskedLMOutput().logit


def test_an_output_can_be_copied_and_pickled() -> None:
    output = MaskedLMOutput(logits=[1])
    assert copy.deepcopy(output) == pickle.loads(pickle.dumps(output)) == output
    assert type(copy.deepcopy(output)) is MaskedLMOutput


def test_what_a_caller_puts_in_lies_behind_the_fields() -> None:
    output = MaskedLMOutput(logits="l")
    output["input_ids"] = "i"
    output.loss = "x"
    assert output.to_tuple() == ("x", "l", "i")
    assert output.input_ids == "i"
    assert pickle.loads(pickle.dumps(output)) == copy.deepcopy(output) == output
    with pytest.raises(AttributeError, match="no field 'los'"):
        output.los = 1
