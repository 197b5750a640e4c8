"""The module that is trained: several heads over one encoder, built from a checkpoint or a config, and saved as folders.

Legend: B batch, S sequence, H hidden size, V vocabulary, G guessed tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import models
from jobs.training.batches import Padded
from jobs.training.examples import IGNORED, NO_LABELS, Labels
from jobs.training.spec import ENCODER, HEAD_OF, TaskName
from models.boundary import Head
from models.checkpoint import Checkpoint
from models.checkpoint_copy import BASE_FIELD
from models.checkpoint_writer import write_checkpoint
from models.config import RobertaPreLayerNormConfig
from models.families import every_family
from models.named_heads import head_folder
from models.roberta_torch.weights import neutral_parameters, to_numpy
from models.safetensors_file import AnyArray
from models.tensors import ARCHITECTURES, PREFIX, architecture, expected_tensors
from pipeline.store.storage import join

NUMPY_TYPES = {"float32": "float32", "float16": "float16", "bfloat16": "bfloat16"}


@dataclass(frozen=True)
class HeadPlan:
    """The plan of a head."""

    task: TaskName
    labels: Labels = NO_LABELS

    @property
    def head(self) -> Head:
        """Its name at the model's boundary."""
        return HEAD_OF[self.task]

    def config(self, base: RobertaPreLayerNormConfig) -> RobertaPreLayerNormConfig:
        """The encoder's config with this head's labels."""
        fields = base.to_dict()
        for name in ("id2label", "label2id", "num_labels", "problem_type", "architectures"):
            fields.pop(name, None)
        if self.labels.names:
            fields["id2label"] = dict(enumerate(self.labels.names))
        elif self.labels.kind == "regression":
            fields["id2label"] = {0: "score"}
        if self.task == "text-classification":
            fields["problem_type"] = self.labels.kind
        fields["architectures"] = [architecture(head=self.head, family=base.family)]
        return RobertaPreLayerNormConfig.from_dict(fields)


class Network(nn.Module):
    """heads: task's name -> a model of the matching class; all hold the same encoder module."""

    def __init__(self, plans: Mapping[str, HeadPlan], built: Mapping[str, Any]) -> None:
        super().__init__()
        self.plans = dict(plans)
        self.heads = nn.ModuleDict(built)
        with_pooler = [name for name, plan in plans.items() if plan.task == "multiple-choice"]
        shared = built[with_pooler[0] if with_pooler else next(iter(plans))].roberta_prelayernorm
        for model in built.values():
            model.roberta_prelayernorm = shared
            model.tie_weights()
        self.encoder = shared

    def loss(self, task: str, batch: Padded) -> tuple[Tensor, Tensor, Tensor]:
        """(mean loss, right answers, answers) of a batch; for numbers the last two are squared errors and their count."""
        ids, mask = (torch.from_numpy(array).to(self.device) for array in (batch.input_ids, batch.attention_mask))
        labels = torch.from_numpy(np.asarray(batch.labels)).to(self.device)
        seen = None if bool((batch.attention_mask == 1).all()) else mask
        model = self.heads[task]
        if self.plans[task].task == "fill-mask":
            return self._guess(model, ids, seen, labels)
        if self.plans[task].task == "question-answering":
            output = model(input_ids=ids, attention_mask=seen, start_positions=labels[:, 0], end_positions=labels[:, 1])
            hidden = -1e4 * (1 - mask)
            found = [(logits + hidden).argmax(-1) for logits in (output.start_logits, output.end_logits)]
            right = (found[0] == labels[:, 0]) & (found[1] == labels[:, 1])
            return output.loss.float(), right.sum(), torch.tensor(len(ids))
        output = model(input_ids=ids, attention_mask=seen, labels=labels)
        right, count = _right(output.logits.float(), labels, kind=self.plans[task].labels.kind)
        return output.loss.float(), right, count

    def _guess(self, model: Any, ids: Tensor, seen: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Only guessed tokens reach the vocabulary, whose product would cost as much as the encoder.
        picked = labels != IGNORED
        hidden_GH = self.encoder(ids, attention_mask=seen).last_hidden_state[picked]
        logits_GV = model.lm_head(hidden_GH).float()
        gold_G = labels[picked]
        return (
            functional.cross_entropy(logits_GV, gold_G),
            (logits_GV.argmax(-1) == gold_G).sum(),
            torch.tensor(len(gold_G)),
        )

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device


def _right(logits: Tensor, labels: Tensor, *, kind: str | None) -> tuple[Tensor, Tensor]:
    if kind == "regression":
        return ((logits.squeeze(-1) - labels) ** 2).sum(), torch.tensor(labels.numel())
    if kind == "multi_label_classification":
        return ((logits > 0) == (labels > 0.5)).sum(), torch.tensor(labels.numel())
    known = labels != IGNORED
    return ((logits.argmax(-1) == labels) & known).sum(), known.sum()


def build(
    plans: Mapping[str, HeadPlan], *, base: RobertaPreLayerNormConfig, checkpoint: str | None, seed: int
) -> Network:
    """The heads, started from the checkpoint where it has them, else afresh from the seed."""
    torch.manual_seed(seed)
    built = {}
    for name, plan in plans.items():
        kind = getattr(models, ARCHITECTURES[plan.head])
        config = plan.config(base)
        with every_family():
            built[name] = (
                kind(config)
                if checkpoint is None
                else kind.from_pretrained(
                    head_folder(checkpoint=checkpoint, name=name), config=config, ignore_mismatched_sizes=True
                )
            )
    return Network(plans, built)


def opened_config(url: str, *, fields: Mapping[str, Any]) -> RobertaPreLayerNormConfig:
    """A checkpoint's config with some fields instead of its own."""
    return RobertaPreLayerNormConfig.from_dict({**Checkpoint.open(url).config.to_dict(), **fields})


def write_network(network: Network, *, url: str, tokenizer_files: Mapping[str, bytes], dtype: str) -> list[str]:
    """Write the checkpoint folders: one head as a whole folder at `url`; several as url/NAME beside url/encoder.

    Every head's folder can be named as a checkpoint in every framework. Returns the folders.
    """
    if len(network.plans) == 1:
        name = next(iter(network.plans))
        _write(network, name, url=url, base=None, tokenizer_files=tokenizer_files, dtype=dtype)
        return [url]
    folders = [join(url, name) for name in network.plans]
    bare = {
        name.removeprefix(PREFIX): _stored(parameter, dtype)
        for name, parameter in neutral_parameters(network.encoder, bare=True).items()
    }
    config = HeadPlan(task="fill-mask").config(network.encoder.config)
    config.architectures, config.dtype = [architecture(head="encoder", family=config.family)], dtype
    write_checkpoint(url=join(url, ENCODER), config=config, tensors=bare, tokenizer_files=tokenizer_files)
    for name, folder in zip(network.plans, folders, strict=True):
        _write(network, name, url=folder, base=ENCODER, tokenizer_files=tokenizer_files, dtype=dtype)
    return folders


def _write(
    network: Network, name: str, *, url: str, base: str | None, tokenizer_files: Mapping[str, bytes], dtype: str
) -> None:
    model: Any = network.heads[name]
    fields = json.loads(model.config.to_json_string())
    named = architecture(head=network.plans[name].head, family=model.config.family)
    fields |= {"dtype": dtype, "architectures": [named]}
    if base is not None:
        fields[BASE_FIELD] = base
    parameters = neutral_parameters(model, bare=False)
    wanted = expected_tensors(config=model.config, head=network.plans[name].head)
    kept = [tensor for tensor in wanted if base is None or not tensor.startswith(PREFIX)]
    write_checkpoint(
        url=url,
        config=RobertaPreLayerNormConfig.from_dict(fields),
        tensors={tensor: _stored(parameters[tensor], dtype) for tensor in kept},
        tokenizer_files=tokenizer_files,
    )


def _stored(parameter: nn.Parameter, dtype: str) -> AnyArray:
    return to_numpy(parameter.detach().to(getattr(torch, NUMPY_TYPES[dtype])))
