"""Flat tokens and asks in, NumPy answers out: the encoder run without padding, behind models.boundary.

On a CPU one graph serves every number of tokens, sequences and lengths: linears run over [T, H], attention over groups of
equal length. On a GPU sequences lie end to end in rows of few shapes, which XLA compiles (models.roberta_tf.flat_rows). Both
go through the seed classes' own layers, and run the last layer's feed-forward for the asked tokens only.
Legend: B sequences, T packed tokens, U tokens asked by any head, G positions asked by one, H hidden size, A = heads x width
of one head.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow import Tensor

from models.boundary import Answers, Ask, DeviceFacts, Done, Dtype, Head, IntArray, Pending, Tokens
from models.config import RobertaPreLayerNormConfig
from models.families import every_family
from models.flat_tokens import (
    asked_once,
    check_asks,
    flat_positions,
    length_order,
    sequence_of_positions,
    token_order,
)
from models.named_heads import NamedHead, encoder_config
from models.roberta_tf.base import TFRobertaPreLayerNormModel
from models.roberta_tf.device import claim_device, device_facts, exact_float32
from models.roberta_tf.encoder import TFRobertaPreLayerNormLayer
from models.roberta_tf.flat_attention import GroupAttention, Groups, equal_groups
from models.roberta_tf.flat_heads import answer_head
from models.roberta_tf.flat_rows import RowEncoder
from models.roberta_tf.heads import TFRobertaPreLayerNormClassificationHead, TFRobertaPreLayerNormLMHead
from models.roberta_tf.layers import Dense, building
from models.roberta_tf.weights import fill
from models.tensors import expected_tensors
from models.trial import try_out


def load_flat(*, heads: Mapping[str, NamedHead], dtype: Dtype, device: str | None) -> "FlatRoberta":
    """The encoder once, with every head asked for, in this type on this device (None: a GPU if there is one)."""
    place = claim_device(device)
    if dtype == "float32":
        exact_float32()
    config = encoder_config(heads)
    kinds = {name: named.head for name, named in heads.items()}
    with building(dtype=dtype, started=False), tf.device(place), every_family():
        base = TFRobertaPreLayerNormModel(config, add_pooling_layer="multiple-choice" in kinds.values())
        filled: set[str] = set()
        built: dict[str, Any] = {}
        for name, named in heads.items():
            own = named.checkpoint.config
            model = built[name] = build_head(base, named.head, own)
            tensors = [tensor for tensor in expected_tensors(config=own, head=named.head) if tensor not in filled]
            # An encoder's tensors are read once; a head's own may have the same names as another's.
            filled.update(tensor for tensor in tensors if tensor.startswith(base.base_model_prefix))
            fill(model, tensors=named.checkpoint.stream(tensors))
    return FlatRoberta(config=config, base=base, heads=built, kinds=kinds, device=place)


def build_head(base: TFRobertaPreLayerNormModel, head: Head, config: RobertaPreLayerNormConfig) -> Any:
    """The head's network under the name that its class and files give it, beside the shared encoder."""
    model = SimpleNamespace(base_model=base, config=config)
    if head in ("masked-lm", "causal-lm"):
        model.lm_head = TFRobertaPreLayerNormLMHead(config)
        if config.tie_word_embeddings:
            model.lm_head.decoder.tie(base.get_input_embeddings().weight)
    elif head == "sequence-classification":
        model.classifier = TFRobertaPreLayerNormClassificationHead(config)
    elif head == "multiple-choice":
        model.classifier = Dense(config.hidden_size, 1)
    elif head == "token-classification":
        model.classifier = Dense(config.hidden_size, config.num_labels)
    elif head == "question-answering":
        model.qa_outputs = Dense(config.hidden_size, 2)
    return model


class FlatRoberta:
    """One encoder and its heads; answers depend on a sequence alone, not on those packed beside it."""

    def __init__(
        self,
        *,
        config: RobertaPreLayerNormConfig,
        base: TFRobertaPreLayerNormModel,
        heads: Mapping[str, Any],
        kinds: Mapping[str, Head],
        device: str,
    ) -> None:
        self.config = config
        self.base = base
        self.heads = heads
        self.kinds = kinds
        self.device = device
        flat_T = tf.TensorSpec((None,), tf.int32)
        groups = Groups(counts_R=flat_T, lengths_R=flat_T)
        self.graphs = {
            causal: tf.function(
                lambda *arguments, causal=causal: self.encode(*arguments, causal=causal),
                input_signature=(flat_T, flat_T, flat_T, flat_T, groups),
                autograph=False,
            )
            for causal in (False, True)
        }
        self.rows: RowEncoder | None = None
        self.lay_out(few_shapes="GPU" in device)

    def lay_out(self, *, few_shapes: bool, compiled: bool = True) -> None:
        """How tokens are laid out: in rows of few shapes, as a GPU has them, compiled by XLA or not, or in groups of equal
        length, as a CPU has them."""
        self.rows = RowEncoder(self.base, config=self.config, compiled=compiled) if few_shapes else None

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        """One encoder pass for all heads asked; answers in the order of each `Ask.positions_G`.

        Raises ValueError for heads not loaded, positions or ids out of range, and sequences longer than the model.
        """
        check_asks(tokens=tokens, asks=asks, kinds=self.kinds, vocab_size=self.config.vocab_size)
        with tf.device(self.device):
            hidden_UH, ranks = self.by_groups(tokens, asks) if self.rows is None else self.rows(tokens, asks)
            return {head: self.answer(tokens, head, ask, hidden_UH, ranks[head]) for head, ask in asks.items()}

    def by_groups(self, tokens: Tokens, asks: Mapping[str, Ask]) -> tuple[Tensor, dict[str, IntArray]]:
        """(final hidden states [U, H] of all that is asked, for each head which of those are its own)."""
        positions_T = flat_positions(tokens=tokens, config=self.config)
        types_T = np.zeros_like(positions_T) if tokens.token_type_ids_T is None else tokens.token_type_ids_T
        order_B, runs = length_order(lengths_B=tokens.lengths_B)
        order_T = token_order(tokens=tokens, order_B=order_B)
        place_T = np.empty_like(order_T)
        place_T[order_T] = np.arange(len(order_T), dtype=order_T.dtype)
        asked_U, ranks = asked_once(places={head: ask.positions_G for head, ask in asks.items()}, tokens=len(order_T))
        hidden_UH = self.graphs[tokens.causal](
            indices(tokens.input_ids_T[order_T]),
            indices(types_T[order_T]),
            indices(positions_T[order_T]),
            indices(place_T[asked_U]),
            equal_groups(runs),
        )
        return hidden_UH, ranks

    def submit(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Pending:
        """The answers, computed at once: TensorFlow's host thread waits for what it fetches."""
        return Done(self(tokens, asks))

    def try_out(self) -> DeviceFacts:
        """A small pack answered by every head, every shape compiled where they are few, and what this runs on. Where XLA
        can't compile, the same graph runs as it is from now on."""
        dtype = tf.as_dtype(self.base.dtype).name
        attention = "groups of equal lengths"
        if self.rows is not None:
            attention = "packed rows under XLA"
            try:
                self.compile_shapes()
            except tf.errors.ResourceExhaustedError:
                raise
            except tf.errors.OpError as error:  # no libdevice, no ptxas, an operation that it does not know
                attention = f"packed rows without XLA ({' '.join(str(error.message).split())[:200]})"
                self.lay_out(few_shapes=True, compiled=False)
        try_out(self, config=self.config, kinds=self.kinds, dtype=dtype)
        compiled = self.rows is not None and self.rows.compiled
        return {**device_facts(self.device), "attention": attention, "compiled": compiled}

    def compile_shapes(self) -> None:
        """Encode rows of every size once: no later pass waits for the compiler."""
        assert self.rows is not None
        causal = all(kind == "causal-lm" for kind in self.kinds.values())
        with tf.device(self.device):
            self.rows.compile_shapes(causal=causal)

    def probe(self) -> None:
        """Compute something on the device, and wait for it."""
        with tf.device(self.device):
            tf.reduce_sum(tf.ones(8)).numpy()

    def answer(self, tokens: Tokens, head: str, ask: Ask, hidden_UH: Tensor, rank_G: IntArray) -> Answers:
        """One head's answers from the hidden states of all that was asked."""
        asked_GH = tf.gather(hidden_UH, indices(rank_G))
        sequence_G = None
        if ask.reduce == "mean":
            sequence_G = indices(sequence_of_positions(tokens=tokens, ask=ask))
        return answer_head(
            model=self.heads[head], head=self.kinds[head], ask=ask, hidden_GH=asked_GH, sequence_G=sequence_G
        )

    def encode(
        self,
        input_ids_T: Tensor,
        types_T: Tensor,
        positions_T: Tensor,
        asked_U: Tensor,
        groups: Groups,
        *,
        causal: bool,
    ) -> Tensor:
        """Final hidden states [U, H] of the asked tokens; tokens lie in the order of the groups."""
        embeddings = self.base.embeddings
        hidden_TH = embeddings.embed(embeddings.word_embeddings(input_ids_T), types_T, positions_T)
        attend = GroupAttention(groups, causal=causal)
        layers = self.base.encoder.layer
        for layer in layers[:-1]:
            hidden_TH = _run_layer(layer, hidden_TH, attend, None)
        hidden_UH = _run_layer(layers[-1], hidden_TH, attend, asked_U) if layers else tf.gather(hidden_TH, asked_U)
        return self.base.LayerNorm(hidden_UH)


def _run_layer(
    layer: TFRobertaPreLayerNormLayer, hidden_TH: Tensor, attend: GroupAttention, asked_U: Tensor | None
) -> Tensor:
    """[T, H] -> [T, H], or [U, H] of the asked tokens only."""
    normed_TH = layer.attention.LayerNorm.enter(hidden_TH)
    attention = layer.attention.inner
    context_TA = attend(attention, attention.query(normed_TH), attention.key(normed_TH), attention.value(normed_TH))
    if asked_U is not None:
        hidden_TH, context_TA = tf.gather(hidden_TH, asked_U), tf.gather(context_TA, asked_U)
    hidden_TH = layer.attention.LayerNorm.leave(hidden_TH + layer.attention.projection(context_TA))
    return layer.intermediate.LayerNorm.leave(layer.narrow(layer.intermediate(hidden_TH), hidden_TH))


def indices(values: npt.NDArray[Any]) -> Tensor:
    """Indices as TensorFlow takes them."""
    return tf.constant(np.ascontiguousarray(values, dtype=np.int32))
