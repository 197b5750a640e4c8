"""Saves a run's whole state atomically as one safetensors object at any URL, and loads the newest.

Weights, both moments of AdamW, the best weights so far, and as metadata the step and the history. Batches, masks and dropout
are functions of seed and step, so nothing else is needed for a resumed run to end with the bits of an unbroken one.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from pipeline.errors import SpecError
from pipeline.store.storage import delete, find, join, put, read_bytes

KEPT = 2
"""Snapshots that stay: the newest, and one before it in case the newest can't be read."""
NAME = re.compile(r"step-(\d{8})\.safetensors$")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """facts: step, history, best loss and the run's fingerprint; tensors by kind and name."""

    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, kind: str) -> dict[str, Tensor]:
        """The tensors of one kind: model, first, second or best."""
        return {name.partition("/")[2]: value for name, value in self.tensors.items() if name.startswith(kind + "/")}


def write_snapshot(
    url: str, *, model: nn.Module, optimizer: torch.optim.Optimizer, best: Mapping[str, Tensor], facts: dict[str, Any]
) -> None:
    """Put a snapshot of this step into the folder, then delete those that are older than the one before it."""
    tensors = {f"best/{name}": value for name, value in best.items()}
    for name, parameter in model.named_parameters():
        tensors[f"model/{name}"] = parameter.detach()
        if state := optimizer.state.get(parameter):
            tensors |= {f"first/{name}": state["exp_avg"], f"second/{name}": state["exp_avg_sq"]}
            tensors[f"updates/{name}"] = torch.as_tensor(state["step"]).reshape(1)
    stored = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    content = save(stored, metadata={"facts": json.dumps(facts)})
    put(join(url, f"step-{facts['step']:08d}.safetensors"), content)
    delete([old for _, old in _listed(url)[:-KEPT]])


def newest(url: str, *, fingerprint: str) -> Snapshot | None:
    """The newest snapshot that can be read; None where there is none. Raises SpecError where it is of another run."""
    for _, place in reversed(_listed(url)):
        content = read_bytes(place)
        try:
            tensors = load(content)
        except SafetensorError:
            continue  # cut off where a store is not atomic: the one before it will do
        length = int.from_bytes(content[:8], "little")
        facts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["facts"])
        if facts["fingerprint"] != fingerprint:
            raise SpecError(f"{url}: holds snapshots of another training run; name another output, or delete them")
        return Snapshot(facts=facts, tensors=tensors)
    return None


def restore(snapshot: Snapshot, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Put a snapshot's values into the model and the optimizer; returns the best weights so far."""
    values = {kind: snapshot.part(kind) for kind in ("model", "first", "second", "updates")}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values["model"][name])
            if name in values["first"]:
                optimizer.state[parameter] = {
                    "step": values["updates"][name].reshape(()),
                    "exp_avg": values["first"][name].to(parameter.device),
                    "exp_avg_sq": values["second"][name].to(parameter.device),
                }
    return snapshot.part("best")


def _listed(url: str) -> list[tuple[int, str]]:
    found = ((NAME.search(info.uri), info.uri) for info in find(url))
    return sorted((int(match[1]), uri) for match, uri in found if match)
