"""Any of Keras's inputs in, the model's outputs, losses and metrics out: what makes the seven classes a keras.Model.

call(), fit(), evaluate(), predict() and save_weights() work, with labels among the inputs or as `y`.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import optree
from tensorflow import Tensor

from models.config import RobertaPreLayerNormConfig
from models.outputs import OUTPUT_CLASSES, ModelOutput
from models.roberta_tf.cache import KeyValueCache, flatten_cache, unflatten_cache
from models.roberta_tf.inputs import named_inputs
from models.roberta_tf.layers import BUILDING, Seeds

LABELS = ("labels", "start_positions", "end_positions")
# A loss has no row for each input, and nobody goes on from a cache that predict() gathered.
NOT_PREDICTED = ("loss", "past_key_values")


def _register_outputs() -> None:
    """Keras takes nested values apart by optree, tf.nest knows mappings and __tf_flatten__ by itself."""
    register: Any = optree.register_pytree_node
    for output_class in OUTPUT_CLASSES:
        register(
            output_class,
            lambda output: (tuple(output.values()), (type(output), tuple(output)), tuple(output)),
            lambda kind, values: kind[0](zip(kind[1], values, strict=True)),
            namespace="keras",
        )
    register(
        KeyValueCache,
        lambda cache: (flatten_cache(cache)[1], flatten_cache(cache)[0]),
        lambda sizes, values: unflatten_cache(sizes, values),
        namespace="keras",
    )


_register_outputs()


class KerasModel(keras.Model):
    """A keras.Model whose variables exist from the start, with inputs and losses as the reference's."""

    def __init__(self, config: RobertaPreLayerNormConfig, *, name: str | None = None) -> None:
        super().__init__(name=name, dtype=BUILDING.get().dtype)
        self.config = config
        self.seed_generator = keras.random.SeedGenerator()
        self.built = True

    def __dir__(self) -> list[str]:
        """All names but `base_model`: Keras's load_weights walks them, and would go round where that is the model."""
        return [name for name in super().__dir__() if name != "base_model"]

    def __call__(self, inputs: Any = None, *more: Any, **named: Any) -> Any:
        """call() with inputs by keyword, place, mapping, list or tuple; None counts as not given."""
        order = [name for name in inspect.signature(self.call).parameters if name != "self"]
        arguments = named_inputs(order=order, model=type(self).__name__, inputs=inputs, more=more, named=named)
        return super().__call__(**arguments)

    def seeds(self, training: Any) -> Seeds | None:
        """Dropout's seeds for one pass in training, None otherwise."""
        return Seeds(self.seed_generator.next()) if training else None

    def loss_of(self, output: ModelOutput, labels: Any) -> Tensor:
        """The head's loss of an output and labels given as `y`."""
        raise ValueError(
            f"{type(self).__name__} has no loss of its own; give compile() one, or take a class with a head"
        )

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = False,
        auto_scale_loss: bool = True,
    ) -> None:
        """Keras's compile(), but without XLA unless it is asked for: it compiles again for every length."""
        super().compile(
            optimizer=optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """compile()'s loss on the scores where both it and `y` are given; else the head's own loss.

        Raises ValueError without any labels, and for sample_weight with the head's own loss.
        """
        if y is not None and self._compile_loss is not None:
            return super().compute_loss(x=x, y=y, y_pred=scores(y_pred), sample_weight=sample_weight)
        if sample_weight is not None:
            raise ValueError(f"{type(self).__name__}: sample_weight needs a loss of yours; pass loss= to compile()")
        if y is not None:
            return self.loss_of(y_pred, y)
        loss = y_pred.get("loss") if isinstance(y_pred, ModelOutput) else None
        if loss is None:
            raise ValueError(
                f"{type(self).__name__}: nothing to learn from; give labels among the inputs "
                "({'input_ids': …, 'labels': …}) or as y"
            )
        return loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """compile()'s metrics on the scores, with labels from `y` or among the inputs."""
        if y is None and isinstance(x, Mapping):
            found = [x[name] for name in LABELS if x.get(name) is not None]
            y = found[0] if len(found) == 1 else found or None
        return super().compute_metrics(x, y, scores(y_pred), sample_weight)

    def predict_step(self, data: Any) -> Any:
        """An output without what has no rows to be gathered."""
        output = super().predict_step(data)
        if not isinstance(output, ModelOutput):
            return output
        return type(output)({name: value for name, value in output.items() if name not in NOT_PREDICTED})

    def get_config(self) -> dict[str, Any]:
        """Keras's description of the model, e.g. for save("model.keras")."""
        return {"config": self.config.to_dict(), "name": self.name}


def scores(output: Any) -> Any:
    """What losses and metrics of compile() look at: the logits, or (start_logits, end_logits)."""
    if not isinstance(output, ModelOutput):
        return output
    if "start_logits" in output:
        return output["start_logits"], output["end_logits"]
    return output["logits"] if "logits" in output else output["last_hidden_state"]
