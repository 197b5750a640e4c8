"""Reads a training spec's network and examples."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.training.bpe import PAD_ID
from jobs.training.examples import PARTS, Example, Examples, Labels, labels_of
from jobs.training.loop import Data
from jobs.training.network import HeadPlan, Network, build, opened_config
from jobs.training.records import read_records
from jobs.training.spec import TrainSpec
from models.checkpoint import Checkpoint, read_tokenizer_files
from models.config import RobertaPreLayerNormConfig
from models.tokenizer import CheckpointTokenizer, load_tokenizer
from pipeline.errors import SpecError

FRESH = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
"""A model that starts afresh: what a laptop trains; model.config says otherwise."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that a run needs. tokenizer_files: name -> content, for the output's folders."""

    plans: Mapping[str, HeadPlan]
    config: RobertaPreLayerNormConfig
    data: Data
    tokenizer_files: Mapping[str, bytes]
    fingerprint: str
    spec: TrainSpec

    def network(self) -> Network:
        """The network as it starts; the same for the same seed."""
        return build(self.plans, base=self.config, checkpoint=self.spec.model.checkpoint, seed=self.spec.seed)


def prepare(spec: TrainSpec) -> Prepared:
    """Read the data and the tokenizer, and settle the config. Raises SpecError, and CheckpointError of the folders."""
    source = spec.model.checkpoint or spec.model.tokenizer
    assert source is not None
    tokenizers = {
        task.task: load_tokenizer(source, add_prefix_space=True if task.task == "token-classification" else None)
        for task in spec.tasks.values()
    }
    tokenizer = next(iter(tokenizers.values()))
    config = _config(spec, tokenizer)
    limit = min(config.max_tokens, spec.max_length or config.max_tokens)
    plans: dict[str, HeadPlan] = {}
    train: dict[str, list[Example]] = {}
    evaluation: dict[str, list[Example]] = {}
    for name, task in spec.tasks.items():
        records = read_records(task.data)
        label_part = "tags" if task.task == "token-classification" else "label"
        labels = Labels()
        if label_part in PARTS[task.task]:
            labels = labels_of(
                records, task=task.task, column=task.columns.get(label_part, label_part), wanted=task.labels
            )
        plans[name] = HeadPlan(task=task.task, labels=labels)
        examples = Examples(
            task=task.task, tokenizer=tokenizers[task.task], limit=limit, columns=task.columns, labels=labels
        )
        train[name] = _told(name, examples, records)
        if task.eval is not None:
            evaluation[name] = _told(name, examples, read_records(task.eval))
    data = Data(
        train=train,
        evaluation=evaluation,
        pad_id=config.pad_token_id,
        mask_id=tokenizer.mask_id,
        vocabulary=config.vocab_size,
    )
    return Prepared(
        plans=plans,
        config=config,
        data=data,
        tokenizer_files=read_tokenizer_files(source),
        fingerprint=_fingerprint(spec, data, config),
        spec=spec,
    )


def _told(name: str, examples: Examples, records: list[dict[str, object]]) -> list[Example]:
    try:
        return examples.of(records)
    except SpecError as error:
        raise SpecError(f"tasks.{name}: {error}") from None


def _config(spec: TrainSpec, tokenizer: CheckpointTokenizer) -> RobertaPreLayerNormConfig:
    try:
        if spec.model.checkpoint is not None:
            return opened_config(spec.model.checkpoint, fields=spec.model.config)
        limit = spec.max_length or tokenizer.model_max_length or 512
        fields = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": limit + PAD_ID + 1, **FRESH}
        fields |= {"pad_token_id": tokenizer.pad_id, "bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
        return RobertaPreLayerNormConfig.from_dict({**fields, **spec.model.config})
    except (ValueError, TypeError) as error:
        raise SpecError(f"model.config: {error}") from None


def _fingerprint(spec: TrainSpec, data: Data, config: RobertaPreLayerNormConfig) -> str:
    """Hash over what a run's numbers depend on: the spec, the model's sizes and every example."""
    fields = spec.model_dump(mode="json", exclude={"output", "resources"})
    whole = hashlib.sha256(json.dumps([fields, config.to_dict()], sort_keys=True, default=str).encode())
    if spec.model.checkpoint is not None:
        whole.update(Checkpoint.open(spec.model.checkpoint).digest().encode())
    for name in sorted(data.train):
        for example in data.train[name]:
            whole.update(b"".join(row.tobytes() for row in example.rows))
            whole.update(repr(example.target).encode())
    return whole.hexdigest()
