"""Flat tokens and asks in, NumPy answers out: the encoder run on packed rows of few static shapes, behind models.boundary.

XLA compiles per shape. So sequences lie end to end in rows of one width under a segment mask, rows go in pieces of 1, 2,
4, … at a time, and asked positions are padded to powers of two. The last layer's feed-forward runs for the asked only.
Legend: B sequences, T packed tokens, R rows of a piece, S width of a row, X = R x S slots, U slots asked by any head,
G positions asked by one, H hidden size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from models.boundary import Answers, Ask, DeviceFacts, Dtype, Head, IntArray, Tokens
from models.config import RobertaPreLayerNormConfig
from models.flat_tokens import check_asks, sequence_of_positions
from models.named_heads import NamedHead, encoder_config
from models.packed_rows import (
    FEW_ASKED,
    PIECE_ROWS,
    PackedRows,
    asked_slots,
    gpu_rows,
    gpu_width,
    pack_rows,
    power_of_two,
    powers_up_to,
    row_inputs,
    row_pieces,
)
from models.roberta_flax.attention import KERNEL
from models.roberta_flax.base import FlaxRobertaPreLayerNormModule
from models.roberta_flax.callable_model import exact_matmul
from models.roberta_flax.causal_lm import FlaxRobertaPreLayerNormForCausalLMModule
from models.roberta_flax.classification import (
    FlaxRobertaPreLayerNormForMultipleChoiceModule,
    FlaxRobertaPreLayerNormForQuestionAnsweringModule,
    FlaxRobertaPreLayerNormForSequenceClassificationModule,
    FlaxRobertaPreLayerNormForTokenClassificationModule,
)
from models.roberta_flax.device import claim_device, device_facts
from models.roberta_flax.flat_heads import HeadAnswers, Slices
from models.roberta_flax.layers import Array
from models.roberta_flax.masked_lm import FlaxRobertaPreLayerNormForMaskedLMModule
from models.roberta_flax.weights import Params, flax_dtype, nested, param_path, to_params
from models.tensors import expected_tensors
from models.trial import try_out

MODULES: Mapping[Head, Any] = {
    "masked-lm": FlaxRobertaPreLayerNormForMaskedLMModule,
    "causal-lm": FlaxRobertaPreLayerNormForCausalLMModule,
    "sequence-classification": FlaxRobertaPreLayerNormForSequenceClassificationModule,
    "multiple-choice": FlaxRobertaPreLayerNormForMultipleChoiceModule,
    "token-classification": FlaxRobertaPreLayerNormForTokenClassificationModule,
    "question-answering": FlaxRobertaPreLayerNormForQuestionAnsweringModule,
}
BASE = "roberta_prelayernorm"  # where the encoder lies in a head's tree
Flat: TypeAlias = dict[tuple[str, ...], Array]
LEAST_WIDTH = 16
# A CPU pays for every slot of a row that a token can't see, so rows are no wider there than they need be.
CPU_WIDTHS = (128, 192, 256, 384, 512)
# What attention costs in a row of one slot a unit of width, in parts of all else, on a CPU (measured at width 768).
ATTENTION_SHARE = 0.4
CPU_PIECE = 2_048  # slots at a time
CUDNN_WIDTH_STEP, CUDNN_WIDEST = 8, 128  # widths of a head that cuDNN's attention takes on any GPU


def load_flat(*, heads: Mapping[str, NamedHead], dtype: Dtype, device: str | None) -> "FlatRoberta":
    """The encoder once, with every head asked for, in this type on this device (None: a GPU if there is one)."""
    place, wanted = claim_device(device), flax_dtype(dtype)
    encoder: Flat = {}
    answering: dict[str, HeadAnswers] = {}
    for name, named in heads.items():
        config = named.checkpoint.config
        paths = {tensor: param_path(tensor, bare=False) for tensor in expected_tensors(config=config, head=named.head)}
        absent = [tensor for tensor, path in paths.items() if path not in encoder]
        flat = to_params(tensors=named.checkpoint.stream(absent), bare=False, dtype=wanted, device=place)
        encoder |= {path: values for path, values in flat.items() if path[0] == BASE}
        params = nested({path: encoder[path] if path in encoder else flat[path] for path in paths.values()})
        module = None if named.head == "encoder" else MODULES[named.head](config, dtype=wanted)
        answering[name] = HeadAnswers(head=named.head, module=module, params=params)
    return FlatRoberta(
        config=encoder_config(heads), params=nested(encoder)[BASE], heads=answering, dtype=wanted, device=place
    )


def no_cudnn(config: RobertaPreLayerNormConfig, *, dtype: Any, device: Any) -> str | None:
    """Why cuDNN's attention can't be had here; None where it can."""
    width = config.head_size
    if device.platform == "cpu":
        return "on a CPU"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return "not in half precision"
    if config.position_embedding_type != "absolute":
        return f"{config.position_embedding_type} positions"
    if width % CUDNN_WIDTH_STEP or width > CUDNN_WIDEST:
        return f"heads of width {width}, which is no multiple of {CUDNN_WIDTH_STEP} up to {CUDNN_WIDEST}"
    return None


class Collecting:
    """Answers on their way: by head, who asked, how many rows, and its slices."""

    def __init__(self, waiting: Mapping[str, tuple[HeadAnswers, int, list[Slices]]]) -> None:
        self._waiting = waiting

    def result(self) -> dict[str, Answers]:
        """The answers, fetched from the device. Raises what the computation raised."""
        return {head: asked.collect(rows=rows, slices=slices) for head, (asked, rows, slices) in self._waiting.items()}


class FlatRoberta:
    """One encoder and its heads; answers depend on a sequence alone, not on those packed beside it.

    params: the encoder's tree; each head has its own, which holds the encoder's arrays too.
    """

    def __init__(
        self,
        *,
        config: RobertaPreLayerNormConfig,
        params: Params,
        heads: Mapping[str, HeadAnswers],
        dtype: Any,
        device: Any,
    ) -> None:
        self.config = config
        self.params = params
        self.dtype = dtype
        self.device = device
        self.few_shapes, self.largest_piece = False, CPU_PIECE
        self.kernel: Literal["cudnn"] | None = None
        self.no_cudnn: str | None = no_cudnn(config, dtype=dtype, device=device)
        self.base = FlaxRobertaPreLayerNormModule(config, dtype=dtype, add_pooling_layer=False)
        self.heads = heads
        self.kinds = {name: answering.head for name, answering in heads.items()}
        self.lay_out(few_shapes=device.platform != "cpu", kernel=None if self.no_cudnn else "cudnn")

    def lay_out(self, *, few_shapes: bool, kernel: Literal["cudnn"] | None) -> None:
        """How rows are shaped, and by which kernel they attend: few shapes of full rows, as a GPU has them, or rows as narrow
        as they may be, as a CPU has them."""
        self.few_shapes, self.kernel = few_shapes, kernel
        self.encode = jax.jit(self._encode, static_argnames="causal")

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        """One encoder pass for all heads asked; answers in the order of each `Ask.positions_G`.

        Raises ValueError for heads not loaded, positions or ids out of range, and sequences longer than the model.
        """
        return self.submit(tokens, asks).result()

    def submit(self, tokens: Tokens, asks: Mapping[str, Ask]) -> "Collecting":
        """The same without a wait: JAX's arrays are promises."""
        check_asks(tokens=tokens, asks=asks, kinds=self.kinds, vocab_size=self.config.vocab_size)
        with jax.default_device(self.device), exact_matmul(self.dtype):
            rows = self._rows(tokens)
            asked = {head: _AskedSlots.of(tokens, ask, rows) for head, ask in asks.items()}
            waiting: dict[str, list[Slices]] = {head: [] for head in asks}
            # Nothing is fetched before everything is on its way: the device works while the host goes on.
            for piece in self._pieces(tokens, rows, asked):
                for head, ask in asks.items():
                    index_G, slot_G, sequence_G = asked[head].within(piece.first, piece.stop)
                    if len(index_G) or (not len(ask.positions_G) and piece.first == 0):
                        slot_G = piece.rank_X[slot_G - piece.first]
                        waiting[head].append(
                            self.heads[head].ask(
                                ask=ask,
                                hidden_UH=piece.hidden_UH,
                                slot_G=slot_G,
                                index_G=index_G,
                                sequence_G=sequence_G,
                            )
                        )
        return Collecting({head: (self.heads[head], asked[head].rows, waiting[head]) for head in asks})

    def try_out(self) -> DeviceFacts:
        """A small pack answered by every head, every shape compiled where they are few, and what this runs on. Where cuDNN's
        attention fails, XLA's is used from now on."""
        dtype = jnp.dtype(self.dtype).name
        try:
            try_out(self, config=self.config, kinds=self.kinds, dtype=dtype)
        except Exception as error:  # cuDNN that is not there, too old, or refuses the shape, in as many words
            if self.kernel is None:
                raise
            self.no_cudnn = f"cuDNN failed: {' '.join(str(error).split())[:200]}"
            self.lay_out(few_shapes=self.few_shapes, kernel=None)
            try_out(self, config=self.config, kinds=self.kinds, dtype=dtype)
        if self.few_shapes:
            self.compile_shapes()
        attention = "cuDNN, packed rows" if self.kernel else f"XLA, packed rows ({self.no_cudnn})"
        return {**device_facts(self.device), "attention": attention, "compiled": True}

    def compile_shapes(self) -> None:
        """Encode rows of every size once, for few asked and for all: no later pass waits for the compiler."""
        width = gpu_width(self.config)
        causal = all(kind == "causal-lm" for kind in self.kinds.values())
        with jax.default_device(self.device), exact_matmul(self.dtype):
            for rows in PIECE_ROWS:
                slots_X = np.zeros((rows, width), np.int32)
                for asked in (rows * width // FEW_ASKED, rows * width):
                    inputs = (slots_X, slots_X, slots_X, slots_X)
                    hidden_UH = self.encode(self.params, *inputs, np.zeros(asked, np.int32), causal=causal)
                    hidden_UH.block_until_ready()

    def probe(self) -> None:
        """Compute something on the device, and wait for it."""
        with jax.default_device(self.device):
            jnp.ones(8).sum().block_until_ready()

    def _rows(self, tokens: Tokens) -> PackedRows:
        """Rows of the width that costs least, of few; small packs take the power of two that holds them."""
        if self.few_shapes:
            return gpu_rows(tokens=tokens, config=self.config)
        longest, total = int(tokens.lengths_B.max()), len(tokens.input_ids_T)
        most = min(CPU_WIDTHS[-1], power_of_two(self.config.max_tokens))
        # `<pad>`s typed in a text take slots but no positions, so a text may be longer than the model's positions.
        most = min(max(most, power_of_two(longest)), power_of_two(total, least=LEAST_WIDTH))
        widths = {most, *(width for width in CPU_WIDTHS if longest <= width <= most)}
        choices = [pack_rows(tokens=tokens, width=width) for width in widths]
        return min(choices, key=lambda rows: rows.rows * rows.width * self._slot_cost(rows.width))

    def _slot_cost(self, width: int) -> float:
        """What a slot costs in rows of such a width, in parts of what it costs without attention."""
        return 1 + ATTENTION_SHARE * width / self.config.hidden_size

    def _pieces(self, tokens: Tokens, rows: PackedRows, asked: Mapping[str, "_AskedSlots"]) -> list["_Piece"]:
        """Run the encoder over the rows in pieces of few distinct shapes, each of which JAX compiles once.

        A piece with few asked slots returns only those, padded to a fixed number; one with many returns all of its slots.
        """
        inputs = row_inputs(tokens=tokens, rows=rows, config=self.config)
        mark_X = np.zeros(len(rows.sequence_X), np.bool_)
        for slots in asked.values():
            mark_X[slots.slot_G] = True
        pieces = []
        sizes = PIECE_ROWS if self.few_shapes else powers_up_to(self.largest_piece // rows.width)
        for row, count in row_pieces(rows=rows.rows, sizes=sizes):
            first, stop = row * rows.width, (row + count) * rows.width
            mine_X = mark_X[first:stop]
            slots_U = asked_slots(mine_X)
            hidden_UH = self.encode(
                self.params, *(values[row : row + count] for values in inputs), slots_U, causal=tokens.causal
            )
            rank_X = np.cumsum(mine_X, dtype=np.int32) - 1
            pieces.append(_Piece(first=first, stop=stop, rank_X=rank_X, hidden_UH=hidden_UH))
        return pieces

    def _encode(
        self,
        params: Params,
        input_ids_RS: Array,
        types_RS: Array,
        positions_RS: Array,
        sequence_RS: Array,
        slots_U: Array,
        *,
        causal: bool,
    ) -> Array:
        """Final hidden states [U, H] of the asked slots of some rows."""
        chosen = KERNEL.set(self.kernel)
        try:
            return self.base.apply(
                {"params": params},
                input_ids_RS,
                types_RS,
                positions_RS,
                segment_bias(sequence_RS, causal=causal, dtype=self.dtype),
                slots_U,
                method=encode_rows,
            )
        finally:
            KERNEL.reset(chosen)


def encode_rows(
    base: FlaxRobertaPreLayerNormModule,
    input_ids_RS: Array,
    types_RS: Array,
    positions_RS: Array,
    bias_R1SS: Array,
    slots_U: Array,
) -> Array:
    """Final hidden states [U, H] of the slots, through the seed classes' own layers."""
    embeddings = base.embeddings
    hidden_RSH = embeddings.embed(embeddings.word_embeddings(input_ids_RS), types_RS, positions_RS)
    layers = base.encoder.layer.layers
    for layer in layers:
        hidden_RSH, _, _ = layer.attention(hidden_RSH, bias_B1SK=bias_R1SS)
        if layer is layers[-1]:
            hidden_RSH = _picked(hidden_RSH, slots_U)
        fed_RSH = layer.output(layer.intermediate(hidden_RSH), hidden_RSH)
        hidden_RSH = layer.intermediate.LayerNorm.leave(fed_RSH)
    return base.LayerNorm(hidden_RSH if layers else _picked(hidden_RSH, slots_U))


def segment_bias(sequence_RS: Array, *, causal: bool, dtype: Any) -> Array:
    """[R, 1, S, S], 0 where query and key are of one sequence (and the key not later), else the type's minimum."""
    seen_RSS = sequence_RS[:, :, None] == sequence_RS[:, None, :]
    if causal:
        place_S = jnp.arange(sequence_RS.shape[1])
        seen_RSS = seen_RSS & (place_S[None, :] <= place_S[:, None])
    return jnp.where(seen_RSS, 0.0, jnp.finfo(dtype).min).astype(dtype)[:, None]


def _picked(hidden_RSH: Array, slots_U: Array) -> Array:
    return hidden_RSH.reshape(-1, hidden_RSH.shape[-1])[slots_U]


@dataclass(frozen=True, eq=False)
class _Piece:
    """Rows first … stop (in slots) computed at once: hidden_UH of the asked ones, padded at the end.

    rank_X: which of those a slot is.
    """

    first: int
    stop: int
    rank_X: IntArray
    hidden_UH: Array


@dataclass(frozen=True, eq=False)
class _AskedSlots:
    """One head's asked positions as slots, and for a mean the sequence of each."""

    slot_G: IntArray
    sequence_G: IntArray | None

    @property
    def rows(self) -> int:
        """How many answers there are: one a position, or one a sequence for a mean."""
        return len(self.slot_G) if self.sequence_G is None else int(self.sequence_G.max()) + 1

    @classmethod
    def of(cls, tokens: Tokens, ask: Ask, rows: PackedRows) -> "_AskedSlots":
        sequence_G = None
        if ask.reduce == "mean":
            sequence_G = sequence_of_positions(tokens=tokens, ask=ask)
        return cls(slot_G=rows.slot_T[ask.positions_G], sequence_G=sequence_G)

    def within(self, first: int, stop: int) -> tuple[IntArray, IntArray, IntArray | None]:
        """(index among the asked, slot, sequence) of those between two slots."""
        index_G = np.flatnonzero((self.slot_G >= first) & (self.slot_G < stop)).astype(np.int32)
        sequence_G = None if self.sequence_G is None else self.sequence_G[index_G]
        return index_G, self.slot_G[index_G], sequence_G
