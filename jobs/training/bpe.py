"""Trains a byte-level BPE tokenizer with RoBERTa's special tokens. Imports no framework.

The four first tokens have the ids 0 to 3 and `<mask>` the last, as in RoBERTa's vocabulary. The same texts in the same order
give the same bytes. Source: Radford et al. 2019 (byte-level BPE), Liu et al. 2019 (the special tokens).
"""

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

from pipeline.errors import SpecError

FIRST_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]
MASK = "<mask>"
PAD_ID = FIRST_TOKENS.index("<pad>")
BYTES = 256
SMALLEST = BYTES + len(FIRST_TOKENS) + 1
"""Pieces that every vocabulary has: one a byte, and the special ones."""


def train_tokenizer(
    texts: Iterable[str], *, pieces: int, text_limit: int, prefix_space: bool = False, compact: bool = False
) -> dict[str, bytes]:
    """File name -> content of a tokenizer of exactly `pieces` ids learnt from the texts.

    text_limit: tokens of a text, specials included, written as model_max_length.
    prefix_space: whether a text begins as if after a space (add_prefix_space), which lists of words need.
    compact: tokenizer.json without indentation.
    Raises SpecError where the texts have not so many pieces in them, saying how many they have.
    """
    if pieces < SMALLEST:
        raise SpecError(f"a vocabulary of {pieces} has no room for {BYTES} bytes and 5 special tokens; give {SMALLEST}")
    vocabulary, merges = _learn(texts, pieces=pieces, prefix_space=prefix_space)
    vocabulary[MASK] = len(vocabulary)
    if len(vocabulary) != pieces:
        raise SpecError(
            f"the texts give {len(vocabulary)} pieces and {pieces} were asked for; add texts, or ask for fewer"
        )
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]), trim_offsets=True, add_prefix_space=prefix_space
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=True, special=True) for token in FIRST_TOKENS])
    tokenizer.add_special_tokens([AddedToken(MASK, lstrip=True, normalized=False, special=True)])
    merge_lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    return {
        "tokenizer.json": tokenizer.to_str(pretty=not compact).encode(),
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False).encode(),
        "merges.txt": ("\n".join(merge_lines) + "\n").encode(),
        "tokenizer_config.json": (json.dumps(_settings(text_limit, prefix_space), indent=2) + "\n").encode(),
    }


def _learn(texts: Iterable[str], *, pieces: int, prefix_space: bool) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Pieces with their ids, <mask> not yet among them, and the merges in order."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    trainer = trainers.BpeTrainer(
        vocab_size=pieces - 1,
        special_tokens=FIRST_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    return vocabulary, [(left, right) for left, right in model["merges"]]


def _settings(text_limit: int, prefix_space: bool) -> dict[str, object]:
    return {
        "add_prefix_space": prefix_space,
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "cls_token": "<s>",
        "eos_token": "</s>",
        "mask_token": MASK,
        "model_max_length": text_limit,
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "tokenizer_class": "RobertaTokenizer",
        "trim_offsets": True,
        "unk_token": "<unk>",
    }
