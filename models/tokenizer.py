"""Loads a checkpoint folder's tokenizer with RoBERTa's template: byte-level BPE, or Unigram.

tokenizer.json is used if it exists, else vocab.json and merges.txt. A folder that has only SentencePiece's model is
refused: `preln convert` makes tokenizer.json from it. Truncation and padding are always off: what to do with long texts is the
caller's decision. Source: spec of RobertaTokenizerFast.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE

from models.added_tokens import add_tokens
from models.checkpoint import SENTENCEPIECE_NAME, TOKENIZER_NAMES, check_tokenizer_files, read_tokenizer_files
from models.encoded_texts import Texts, encode_texts
from models.errors import CheckpointError
from models.hub import HubOptions, checkpoint_folder
from models.json_object import json_object
from models.normalizer_growth import MOST_GROWTH, growth
from models.rust_panic import panics_caught

SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
TRIAL = "A trial. \U0010fffd"
"""The last is a character that no vocabulary has."""
LARGEST_ID = 10**7
"""Of a token. The largest vocabularies have 250,000."""
ENDLESS = 10**9  # a model_max_length above this is the reference's way to say "none"


@dataclass(frozen=True, eq=False)
class CheckpointTokenizer:
    """A tokenizer and the ids of its special tokens; `-1` for one that the vocabulary lacks.

    backend: encodes "A" as `<s> A </s>` and a pair as `<s> A </s></s> B </s>`, with character offsets.
    model_max_length: tokens with specials, None where the folder names no limit.
    byte_level: False where `▁` in a piece stands for a space (Metaspace); offsets may then include spaces.
    """

    backend: Tokenizer
    bos_id: int
    eos_id: int
    pad_id: int
    unk_id: int
    mask_id: int
    mask_token: str
    model_max_length: int | None
    add_prefix_space: bool
    clean_up_tokenization_spaces: bool
    byte_level: bool = True

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens among them."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def ids(self, text: str) -> list[int]:
        """The ids of a text without special tokens. Raises ValueError for a text on which the tokenizers library fails."""
        try:
            with panics_caught():
                return list(self.backend.encode(text, add_special_tokens=False).ids)
        except Exception as error:  # its own are bare
            why = " ".join(str(error).split())[:200]
            raise ValueError(f"the tokenizer fails on {text[:60]!r}: {why}") from None

    def __call__(
        self,
        texts: Texts,
        pairs: Texts | None = None,
        *,
        padding: bool | Literal["longest", "max_length"] = True,
        truncation: bool = False,
        max_length: int | None = None,
        add_special_tokens: bool = True,
        is_split_into_words: bool = False,
        return_tensors: Literal["np", "pt", "tf", "jax"] | None = None,
    ) -> dict[str, Any]:
        """input_ids [B, S], attention_mask [B, S] and offset_mapping [B, S, 2] of a text or several, or of pairs, as NumPy
        arrays of int64; return_tensors: as PyTorch's, TensorFlow's or JAX's.

        padding: to the longest, or to max_length; False gives lists. truncation: cut to max_length, or to
        model_max_length, of a pair first the longer text. is_split_into_words: texts are lists of words, whose offsets
        count within the word; they need add_prefix_space=True at loading.
        Raises ValueError for truncation without a limit.
        """
        limit = max_length or self.model_max_length
        if truncation and limit is None:
            raise ValueError("truncation=True needs max_length=: the folder names no model_max_length")
        if is_split_into_words and not self.add_prefix_space:
            raise ValueError("is_split_into_words=True needs load_tokenizer(…, add_prefix_space=True)")
        return encode_texts(
            self.backend,
            texts,
            pairs,
            pad_id=max(self.pad_id, 0),
            padding=padding,
            limit=limit if truncation else None,
            max_length=limit,
            add_special_tokens=add_special_tokens,
            words=is_split_into_words,
            return_tensors=return_tensors,
        )


def load_tokenizer(
    url: str | os.PathLike[str], *, add_prefix_space: bool | None = None, **keywords: Any
) -> CheckpointTokenizer:
    """The tokenizer of a checkpoint folder, or of a model of the Hub's.

    add_prefix_space: overrides tokenizer_config.json; True is what lists of words need.
    keywords: how the Hub is asked (models.hub.HubOptions).
    Raises CheckpointError where the files are missing or can't be read.
    """
    options, unknown = HubOptions.take(keywords)
    if unknown:
        raise TypeError(f"load_tokenizer() knows no argument '{next(iter(unknown))}'")
    url = checkpoint_folder(url, options=options, choose=lambda names: names & {*TOKENIZER_NAMES, SENTENCEPIECE_NAME})
    check_tokenizer_files(url)
    files = read_tokenizer_files(url)
    try:
        with panics_caught():
            return _from_files(url, files, add_prefix_space=add_prefix_space)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{url}: the tokenizer's files can't be read: {error}; copy them again") from None
    except Exception as error:  # tokenizers raises bare Exception for bad JSON
        raise CheckpointError(f"{url}: the tokenizers library refuses the files: {error}; copy them again") from None


def _from_files(url: str, files: dict[str, bytes], *, add_prefix_space: bool | None) -> CheckpointTokenizer:
    def read(name: str) -> dict[str, Any]:
        return json_object(files.get(name, b"{}"), where=f"{url}: {name}")

    settings = read("tokenizer_config.json")
    specials = _special_tokens(settings, read("special_tokens_map.json"))
    prefix_space = bool(settings.get("add_prefix_space", False)) if add_prefix_space is None else add_prefix_space
    if "tokenizer.json" in files:
        backend = _from_json(read("tokenizer.json"), prefix_space=prefix_space, wanted="add_prefix_space" in settings)
    else:
        vocabulary = read("vocab.json")
        backend = _from_vocabulary(vocabulary, files, specials=specials, prefix_space=prefix_space)
    add_tokens(backend, files)
    limit = _limit(settings.get("model_max_length"))
    _refuse_unread(settings, backend)
    backend.no_truncation()
    backend.no_padding()
    backend.encode(TRIAL)  # a vocabulary without bytes and without an unknown token fails at some row
    part = json.loads(backend.to_str())["pre_tokenizer"] or {}
    metaspace = _part_of_type(part, "Metaspace")
    ids = {name: -1 if (i := backend.token_to_id(token)) is None else i for name, token in specials.items()}
    return CheckpointTokenizer(
        backend=backend,
        bos_id=ids["bos_token"],
        eos_id=ids["eos_token"],
        pad_id=ids["pad_token"],
        unk_id=ids["unk_token"],
        mask_id=ids["mask_token"],
        mask_token=specials["mask_token"],
        model_max_length=limit,
        add_prefix_space=prefix_space if metaspace is None else metaspace.get("prepend_scheme") == "always",
        byte_level=metaspace is None,
        clean_up_tokenization_spaces=bool(settings.get("clean_up_tokenization_spaces", False)),
    )


def _limit(value: Any) -> int | None:
    """`model_max_length` as a number, even if written as text; None if there is no limit. Raises ValueError."""
    if value is None:
        return None
    limit = float(value)
    if not limit >= 1:
        raise ValueError(f"model_max_length is {value}; it must be 1 or more")
    return int(limit) if limit < ENDLESS else None


def _refuse_unread(settings: dict[str, Any], backend: Tokenizer) -> None:
    """Raise ValueError for settings that would change the tokens but are not supported."""
    for name, plain in (("truncation_side", "right"), ("split_special_tokens", False)):
        if settings.get(name, plain) != plain:
            raise ValueError(f"tokenizer_config.json says {name}: {settings[name]!r}, which is not read; leave it out")
    if backend.post_processor is None:
        raise ValueError(
            "tokenizer.json has no post_processor, which puts <s> and </s> around a text; save it with one"
        )


def _special_tokens(settings: dict[str, Any], mapped: dict[str, Any]) -> dict[str, str]:
    tokens = {}
    for name, default in SPECIAL_TOKENS.items():
        value = settings.get(name) or mapped.get(name) or default
        tokens[name] = value["content"] if isinstance(value, dict) else value
        if not isinstance(tokens[name], str):
            raise TypeError(f"{name} is {tokens[name]!r}, which is no text")
    return tokens


def _check_ids(ids: Iterable[Any]) -> None:
    """Raise ValueError for ids that no vocabulary has: the tokenizers library makes room for all ids up to the largest."""
    wrong = next((one for one in ids if not isinstance(one, int) or not 0 <= one <= LARGEST_ID), None)
    if wrong is not None:
        raise ValueError(f"the vocabulary has the id {wrong!r}; ids are whole numbers from 0 to {LARGEST_ID}")


MOST_TEMPLATE_TOKENS = 1_000
"""Special tokens that a post-processor may put around a text; those of real models put two to four."""


def _check_templates(part: dict[str, Any]) -> None:
    """Raises ValueError where a post-processor would repeat texts, or fill the memory with special tokens."""
    for inner in part.get("processors") or ():
        _check_templates(inner)
    _check_ids(part[name][1] for name in ("sep", "cls") if name in part)
    tokens = part.get("special_tokens")
    if part.get("type") != "TemplateProcessing" or not isinstance(tokens, dict):
        return
    for token in tokens.values():
        _check_ids(token["ids"])
    for name in ("single", "pair"):
        pieces = part.get(name) or ()
        sequences = [piece["Sequence"]["id"] for piece in pieces if "Sequence" in piece]
        names = [piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece]
        count = sum(len(tokens[token]["ids"]) for token in names)
        if count > MOST_TEMPLATE_TOKENS or len(sequences) > len(set(sequences)):
            raise ValueError(
                f"the post_processor of tokenizer.json puts {count} special tokens around a text and names it "
                f"{len(sequences)} times; at most {MOST_TEMPLATE_TOKENS} tokens and each text once are read"
            )


def _from_json(fields: dict[str, Any], *, prefix_space: bool, wanted: bool) -> Tokenizer:
    model, added = fields.get("model") or {}, fields.get("added_tokens") or ()
    if isinstance(model.get("vocab"), dict):
        _check_ids(model["vocab"].values())
    _check_ids(token.get("id") for token in added)
    if (grown := growth(fields.get("normalizer"))) > MOST_GROWTH:
        raise ValueError(
            f"the normalizer of tokenizer.json can make a text {grown} times as long, more than {MOST_GROWTH} times, which would "
            "fill the memory"
        )
    _check_templates(fields.get("post_processor") or {})
    parts = [part for part in (fields.get("pre_tokenizer"), fields.get("post_processor")) if part]
    # tokenizer_config.json wins over tokenizer.json, as in the reference.
    for part in parts:
        # Metaspace's own is how the checkpoint was trained, and no setting of the reference.
        if "add_prefix_space" in part and part.get("type") != "Metaspace" and (wanted or prefix_space):
            part["add_prefix_space"] = prefix_space
    return Tokenizer.from_str(json.dumps(fields))


def _part_of_type(part: dict[str, Any], wanted: str) -> dict[str, Any] | None:
    """The pre-tokenizer of a type, alone or in a sequence."""
    if part.get("type") == wanted:
        return part
    found = (_part_of_type(inner, wanted) for inner in part.get("pretokenizers", ()))
    return next((inner for inner in found if inner is not None), None)


def _from_vocabulary(
    vocabulary: dict[str, int], files: dict[str, bytes], *, specials: dict[str, str], prefix_space: bool
) -> Tokenizer:
    """The tokenizer that transformers builds from vocab.json and merges.txt; `<mask>` takes the space before it."""
    _check_ids(vocabulary.values())
    merges = [
        (pair[0], pair[2])
        for pair in (line.partition(" ") for line in files["merges.txt"].decode().split("\n"))
        if pair[2] and pair[0] != "#version:"
    ]
    backend = Tokenizer(
        BPE(vocab=vocabulary, merges=merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(
        (specials["sep_token"], vocabulary[specials["sep_token"]]),
        (specials["cls_token"], vocabulary[specials["cls_token"]]),
        trim_offsets=True,
        add_prefix_space=prefix_space,
    )
    plain = [
        AddedToken(specials[name], normalized=True) for name in ("bos_token", "pad_token", "eos_token", "unk_token")
    ]
    mask = AddedToken(specials["mask_token"], lstrip=True, normalized=False)
    backend.add_special_tokens([*plain, mask])
    return backend
