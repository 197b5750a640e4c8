"""The TensorFlow classes with other vocabularies and heads; proof that they answer as they should, out."""

import importlib.util
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("tensorflow is not installed", allow_module_level=True)


from tests.models.tiny_tf import fresh, ids, near

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("tied", [True, False])
def test_a_resized_vocabulary_keeps_the_old_words(tied: bool) -> None:
    model = fresh("ForMaskedLM", tie_word_embeddings=tied)
    batch = ids(2, 5)
    before = model(batch).logits
    table = model.resize_token_embeddings(70)
    assert (table.weight.shape[0], model.config.vocab_size, model.lm_head.bias.shape) == (70, 70, (70,))
    assert (model.get_output_embeddings().weight is table.weight) == tied
    near(model(batch).logits[..., :61], before)
    assert model.resize_token_embeddings(pad_to_multiple_of=64).weight.shape[0] == 128
    model.resize_token_embeddings(61)
    near(model(batch).logits, before)
    assert len(model.trainable_variables) == len(model.expected_tensors())


def test_pruned_heads_answer_as_masked_ones_and_are_remembered(tmp_path: Any) -> None:
    model, batch = fresh("ForTokenClassification"), ids(2, 5)
    mask = np.ones((3, 4), np.float32)
    mask[0, [1, 2]] = mask[2, 0] = 0
    # A masked head adds nothing but its share of the output bias, and so does a pruned one.
    masked = model(batch, head_mask=mask).logits
    model.prune_heads({0: [1], 2: [0]})
    model.prune_heads({0: [2]})
    assert model.config.pruned_heads == {0: [1, 2], 2: [0]}
    near(model(batch).logits, masked)
    model.save_pretrained(str(tmp_path))
    near(type(model).from_pretrained(str(tmp_path))(batch).logits, masked)
    with pytest.raises(ValueError, match="layer 0 would keep no head"):
        model.prune_heads({0: [0, 3]})
