"""The classes of every framework with other vocabularies, embeddings and heads answer as they should."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.frameworks import Classes, each, each_with
from tests.models.tiny import near, token_ids


def table_of(embeddings: Any) -> Any:
    """The table itself: torch and TensorFlow have a layer around it."""
    return getattr(embeddings, "weight", embeddings)


@each_with("tied", [True, False])
def test_a_resized_vocabulary_keeps_the_old_words(framework: Classes, tied: bool) -> None:
    model, batch = framework.build("ForMaskedLM", tie_word_embeddings=tied), token_ids(3, 9)
    before = framework.call(model, batch).logits
    table = table_of(model.resize_token_embeddings(70))
    bias = framework.tensors(model)["lm_head.bias"]
    assert (tuple(table.shape), model.config.vocab_size, bias.shape) == ((70, 32), 70, (70,))
    assert (table_of(model.get_output_embeddings()) is table_of(model.get_input_embeddings())) == tied
    near(framework.call(model, batch).logits[..., :61], before)
    assert table_of(model.resize_token_embeddings(pad_to_multiple_of=64)).shape[0] == 128
    model.resize_token_embeddings(61)
    near(framework.call(model, batch).logits, before)
    gradients = framework.gradients(model, {"input_ids": batch, "labels": batch})
    assert {name: gradient.shape for name, gradient in gradients.items()} == model.expected_tensors()


@each()
def test_pruned_heads_answer_as_masked_ones_and_are_remembered(framework: Classes, tmp_path: Path) -> None:
    model, batch = framework.build("ForTokenClassification", num_hidden_layers=3), token_ids(3, 9)
    mask = np.ones((3, 4), np.float32)
    mask[0, [1, 2]] = mask[2, 0] = 0
    # A masked head adds nothing but its share of the output bias, and so does a pruned one.
    masked = framework.call(model, batch, head_mask=mask).logits
    model.prune_heads({0: [1], 2: [0]})
    model.prune_heads({0: [2]})
    assert model.config.pruned_heads == {0: [1, 2], 2: [0]}
    near(framework.call(model, batch).logits, masked)
    model.save_pretrained(str(tmp_path))
    near(framework.call(framework.load("ForTokenClassification", tmp_path), batch).logits, masked)
    with pytest.raises(ValueError, match="layer 0 would keep no head"):
        model.prune_heads({0: [0, 3]})


@each("torch")
def test_an_embedding_put_in_place_is_tied_again(framework: Classes) -> None:
    import torch

    model = framework.build("ForMaskedLM")
    table = torch.nn.Embedding(61, 32)
    model.set_input_embeddings(table)
    assert model.get_output_embeddings().weight is table.weight
    decoder = torch.nn.Linear(32, 61)
    model.set_output_embeddings(decoder)
    assert model.get_output_embeddings() is decoder
    assert framework.kept("ForTokenClassification").get_output_embeddings() is None


@each("flax")
def test_embeddings_can_be_put_in_place(framework: Classes) -> None:
    tied, untied = framework.build("ForMaskedLM"), framework.build("ForMaskedLM", tie_word_embeddings=False)
    table = framework.array(np.ones((61, 32), np.float32))
    tied.set_input_embeddings(table)
    assert (tied.get_output_embeddings() == 1).all()
    untied.set_output_embeddings(table)
    assert (untied.params["lm_head"]["decoder"]["kernel"] == 1).all()
    assert framework.kept("ForTokenClassification").get_output_embeddings() is None
    with pytest.raises(ValueError, match="has no decoder of its own; call set_input_embeddings"):
        tied.set_output_embeddings(table)
    with pytest.raises(ValueError, match=r"'embeddings/word_embeddings/embedding' is \(61, 32\), \(9, 32\) was given"):
        framework.build().set_input_embeddings(table[:9])


@each_with("tied", [True, False])
def test_new_words_start_at_the_mean_of_the_old_as_in_the_reference(framework: Classes, tied: bool) -> None:
    model = framework.build("ForMaskedLM", tie_word_embeddings=tied)
    model.resize_token_embeddings(61)
    words = "roberta_prelayernorm.embeddings.word_embeddings.weight"
    before = framework.tensors(model)
    model.resize_token_embeddings(64)
    after = framework.tensors(model)
    # The reference draws from the mean and a billionth of the covariance: a spread of about 1e-5 here.
    names = [words] if tied else [words, "lm_head.decoder.weight"]
    for name in names:
        near(after[name][61:], np.repeat(before[name].mean(axis=0, keepdims=True), 3, axis=0), 5e-5)
        assert np.ptp(after[name][61:], axis=0).max() > 0
    # A tied decoder's bias is padded with zeros, an untied one's with the mean: zero as well where no bias was learnt.
    near(after["lm_head.bias"][61:], np.full(3, before["lm_head.bias"].mean() if not tied else 0.0))
    model.resize_token_embeddings(500, mean_resizing=False)
    assert 0.15 < framework.tensors(model)[words][64:].std() < 0.25, "N(0, initializer_range 0.2)"
