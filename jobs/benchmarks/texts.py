"""Makes the texts and the checkpoint of the benchmarks, the same for every variant."""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

from jobs.benchmarks.ours import VOCABULARY
from jobs.embedded import CHECKPOINT, SAMPLE
from models.boundary import Head
from models.checkpoint import read_tokenizer_files
from models.checkpoint_writer import write_checkpoint
from models.config import RobertaPreLayerNormConfig
from models.families import FAMILIES, PRE_LAYER_NORM
from models.loading import start_of
from models.tensors import architecture, expected_tensors
from models.tokenizer import load_tokenizer

MEDIAN_TOKENS = 60
SHORTEST, LONGEST = 4, 512
LABELS = 5
SEED = 7
TOKENIZER_CONFIG = "tokenizer_config.json"
SHARPNESS = 4.0
"""Weights of a random masked LM's last norm, with which a mask's best tokens differ as much as a trained model's."""
NEVER = -1e4
"""Bias of the ids that the sample's tokenizer lacks: computed, but never among the best."""


@dataclass(frozen=True)
class Corpus:
    """Texts in arrival order, and their token ids with the specials."""

    name: str
    texts: list[str]
    ids: list[list[int]]

    @property
    def tokens(self) -> int:
        """Real tokens, specials included."""
        return sum(map(len, self.ids))


def corpus(*, lengths: str, count: int, masked: bool = False) -> Corpus:
    """Texts of the sample's words whose token counts are as `lengths` says: `sigma0.9` (log-normal around 60), or `fixed512`.

    masked: one word of each text is `<mask>`.
    """
    rng = np.random.default_rng(SEED)
    if lengths.startswith("fixed"):
        wanted = np.full(count, int(lengths.removeprefix("fixed")))
    else:
        sigma = float(lengths.removeprefix("sigma"))
        # Quantiles in random order: a few texts have the whole distribution's mean and tail too.
        places = rng.permutation((np.arange(count) + 0.5) / count)
        wanted = np.array([MEDIAN_TOKENS * math.exp(sigma * NormalDist().inv_cdf(place)) for place in places], int)
    loaded = load_tokenizer(str(CHECKPOINT))
    tokenizer = loaded.backend
    tokenizer.no_truncation()

    def cut(text: str, tokens: int) -> str:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        return text[: encoding.offsets[min(tokens, len(encoding.offsets)) - 1][1]]

    lines = (SAMPLE / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    words = [word for line in lines for word in (json.loads(line)["text"] or "").split()]
    generator = random.Random(SEED)  # noqa: S311 -- an order, not a secret
    texts, ids = [], []
    for length in np.clip(wanted, SHORTEST, LONGEST).tolist():
        chosen = generator.choices(words, k=length)
        text = cut(" ".join(chosen), length - 2)
        if masked:
            # The mask is one token, as few as any word: cut again, the text still has it.
            chosen[generator.randrange(text.count(" ") + 1)] = loaded.mask_token
            text = cut(" ".join(chosen), length - 2)
        texts.append(text)
        ids.append(tokenizer.encode(text).ids[:LONGEST])
    return Corpus(name=lengths, texts=texts, ids=ids)


def random_checkpoint(
    folder: Path,
    *,
    layers: int,
    width: int,
    model_type: str = PRE_LAYER_NORM,
    head: Head = "sequence-classification",
) -> RobertaPreLayerNormConfig:
    """A random model with the sample's tokenizer; weights as a trained model's in size, answers without meaning."""
    known = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config = RobertaPreLayerNormConfig(
        vocab_size=VOCABULARY if head == "masked-lm" else known,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        max_position_embeddings=LONGEST + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        num_labels=LABELS,
        architectures=[architecture(head=head, family=FAMILIES[model_type])],
        model_type=model_type,
    )
    rng = np.random.default_rng(SEED)
    tensors = {}
    for name, shape in expected_tensors(config=config, head=head).items():
        kind = start_of(name)
        drawn = rng.standard_normal(shape, np.float32) * np.float32(config.initializer_range)
        tensors[name] = np.full(shape, kind == "ones", np.float32) if kind in ("ones", "zeros") else drawn
    if head == "masked-lm":
        tensors["lm_head.layer_norm.weight"] *= np.float32(SHARPNESS)
        tensors["lm_head.bias"][known:] = NEVER
    files = read_tokenizer_files(str(CHECKPOINT))
    settings = {**json.loads(files[TOKENIZER_CONFIG]), "model_max_length": LONGEST}
    files[TOKENIZER_CONFIG] = json.dumps(settings).encode()
    write_checkpoint(url=str(folder), config=config, tensors=tensors, tokenizer_files=files)
    return config
