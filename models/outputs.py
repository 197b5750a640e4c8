"""The models' output classes: named tensors of any framework, read as a mapping, by attribute or as a tuple.

A subclass of dict without the fields that are None, which are hidden from keys, tuples and indices but readable as attributes.
The order of the fields is the order of the tuple. Each framework registers these classes where it wants (pytrees).
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar


class ModelOutput(dict[str, Any]):
    """Base of the outputs: `out["logits"]`, `out.logits` and `out[0]` are the same tensor.

    fields: every name the class knows, in the order of the tuple.
    """

    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls.fields = tuple(cls.__annotations__)

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **named: Any) -> None:
        given = {**dict(values), **named}
        unknown = [name for name in given if name not in self.fields]
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field '{unknown[0]}'; it has {', '.join(self.fields)}")
        super().__init__((name, given[name]) for name in self.fields if given.get(name) is not None)

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __getattr__(self, name: str) -> Any:
        if name in type(self).fields or name in self:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no field '{name}'; it has {', '.join(self.fields)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.fields:
            raise AttributeError(f"{type(self).__name__} has no field '{name}'; it has {', '.join(self.fields)}")
        self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a field in its place, or put something else behind them all, as the reference's pipelines do."""
        if name not in self.fields:
            super().__setitem__(name, value)
            return
        later = {other: super(ModelOutput, self).pop(other) for other in list(self) if other in self._after(name)}
        super().pop(name, None)
        if value is not None:
            super().__setitem__(name, value)
        super().update(later)

    def _after(self, name: str) -> tuple[str, ...]:
        return (*self.fields[self.fields.index(name) + 1 :], *(other for other in self if other not in self.fields))

    def __reduce__(self) -> tuple[Any, ...]:
        known = {name: self[name] for name in self if name in self.fields}
        return type(self), (known,), None, None, iter([(name, self[name]) for name in self if name not in known])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def to_tuple(self) -> tuple[Any, ...]:
        """What is there, in the order of the fields."""
        return tuple(self.values())


class EncoderOutput(ModelOutput):
    """The stack of layers alone: last residual stream before the final LayerNorm."""

    last_hidden_state: Any
    past_key_values: Any
    hidden_states: Any
    attentions: Any
    cross_attentions: Any


class BaseModelOutputWithPoolingAndCrossAttentions(ModelOutput):
    """The bare model: last_hidden_state [B, S, H] after the final LayerNorm, pooler_output [B, H].

    hidden_states: L + 1 tensors, the embeddings and each layer's residual stream before the final LayerNorm.
    """

    last_hidden_state: Any
    pooler_output: Any
    past_key_values: Any
    hidden_states: Any
    attentions: Any
    cross_attentions: Any


class MaskedLMOutput(ModelOutput):
    """Masked LM: logits [B, S, V]."""

    loss: Any
    logits: Any
    hidden_states: Any
    attentions: Any


class CausalLMOutputWithCrossAttentions(ModelOutput):
    """Causal LM: logits [B, S, V] and the cache."""

    loss: Any
    logits: Any
    past_key_values: Any
    hidden_states: Any
    attentions: Any
    cross_attentions: Any


class SequenceClassifierOutput(ModelOutput):
    """Sequence classification: logits [B, L]."""

    loss: Any
    logits: Any
    hidden_states: Any
    attentions: Any


class MultipleChoiceModelOutput(ModelOutput):
    """Multiple choice: logits [B, C]; hidden_states and attentions have B x C rows."""

    loss: Any
    logits: Any
    hidden_states: Any
    attentions: Any


class TokenClassifierOutput(ModelOutput):
    """Token classification: logits [B, S, L]."""

    loss: Any
    logits: Any
    hidden_states: Any
    attentions: Any


class QuestionAnsweringModelOutput(ModelOutput):
    """Question answering: start_logits and end_logits [B, S]."""

    loss: Any
    start_logits: Any
    end_logits: Any
    hidden_states: Any
    attentions: Any


OUTPUT_CLASSES: tuple[type[ModelOutput], ...] = (
    EncoderOutput,
    BaseModelOutputWithPoolingAndCrossAttentions,
    MaskedLMOutput,
    CausalLMOutputWithCrossAttentions,
    SequenceClassifierOutput,
    MultipleChoiceModelOutput,
    TokenClassifierOutput,
    QuestionAnsweringModelOutput,
)
