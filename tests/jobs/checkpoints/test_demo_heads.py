"""The demo's entities head learns from running text too, over an encoder that stays as it is."""

import numpy as np
import pytest
import torch

from jobs.checkpoints.demo_recipe.frozen_encoder import FrozenEncoder, TokenRow
from jobs.checkpoints.demo_recipe.heads import Words, fit, tagged_tokens
from jobs.checkpoints.demo_recipe.running_text import joined, marked
from jobs.embedded import DEMO

pytestmark = pytest.mark.torch

WORDS = ["Elena", "Petrova", "(", "from", "Graz", ")", "did", "n't", "see", "Izmir", ",", "Ankara", "."]
TAGS = ["B-PER", "I-PER", "O", "O", "B-LOC", "O", "O", "O", "O", "B-LOC", "O", "B-LOC", "O"]
TEXT = "Elena Petrova (from Graz) didn't see Izmir, Ankara."
TOLERANCE = 1e-4
"""Between a text alone and in a padded batch, in float32."""


@pytest.fixture(scope="module")
def encoder() -> FrozenEncoder:
    return FrozenEncoder(str(DEMO))


def test_words_are_joined_as_they_would_be_typed_and_entities_keep_their_places() -> None:
    assert joined(WORDS) == TEXT
    for found in (marked(words=WORDS, tags=TAGS), marked(words=WORDS, tags=TAGS, text=TEXT)):
        assert [(one.kind, found.text[one.start : one.end]) for one in found.entities] == [
            ("PER", "Elena Petrova"),
            ("LOC", "Graz"),
            ("LOC", "Izmir"),
            ("LOC", "Ankara"),
        ]
    spaced = marked(words=["Izmir", "."], tags=["B-LOC", "O"], text="  Izmir  .")
    assert [(one.start, one.end) for one in spaced.entities] == [(2, 7)]
    with pytest.raises(ValueError, match="substring"):
        marked(words=["Izmir", "Izmir"], tags=["O", "O"], text="Izmir.")


def test_a_full_stop_in_running_text_is_a_word_without_an_entity(encoder: FrozenEncoder) -> None:
    found = marked(words=WORDS, tags=TAGS)
    entities = [{"entity_group": one.kind, "start": one.start, "end": one.end} for one in found.entities]
    row, tags = tagged_tokens({"text": found.text, "entities": entities}, encoder)
    words = [encoder.tokenizer.id_to_token(int(row.ids[place])) for place in row.picked]
    assert (words[-1], tags[-1]) == (".", "O"), "it has no space before it, as in a list of words"
    assert [tag for tag in tags if tag != "O"] == ["B-PER", "I-PER", "B-LOC", "B-LOC", "B-LOC"]
    listed, their_tags = tagged_tokens({"text": " ".join(WORDS), "words": WORDS, "tags": TAGS}, encoder)
    assert their_tags == TAGS
    assert encoder.tokenizer.id_to_token(int(listed.ids[listed.picked[-1]])) == "\u0120."


def test_outputs_come_in_the_order_of_the_rows_whatever_their_lengths(encoder: FrozenEncoder) -> None:
    texts = ["Izmir is far from here, and so is everything else.", "Izmir."]
    rows = [
        TokenRow(np.asarray(encoding.ids, np.int32), (0, len(encoding.ids) - 1))
        for encoding in encoder.tokenizer.encode_batch(texts)
    ]
    apart = np.concatenate([encoder.outputs([row]) for row in rows])
    np.testing.assert_allclose(encoder.outputs(rows), apart, atol=TOLERANCE)


def test_a_head_is_fitted_to_the_least_cross_entropy() -> None:
    random = np.random.default_rng(5)
    label_W = random.integers(0, 3, 600)
    vectors_WH = random.normal(size=(600, 8)).astype(np.float32)
    vectors_WH[np.arange(600), label_W] += 4
    start = (torch.zeros(3, 8), torch.zeros(3))
    weight_LH, bias_L = fit(Words(vectors_WH, label_W, np.ones(600, np.float32)), start=start, near=1e-3)
    found = (torch.from_numpy(vectors_WH) @ weight_LH.T + bias_L).argmax(1).numpy()
    assert (found == label_W).mean() > 0.97
    assert start[0].abs().max() == 0
