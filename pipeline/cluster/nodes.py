"""The kinds of node that a replica could be placed on: those that are up and those that may come.

A cluster without an autoscaler does not grow. One with an autoscaler may grow: into the node types that are known (Ray's
cluster configuration, or the file that `ray up` leaves on the head node), or into unknown types (KubeRay).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

UNLIMITED = 1_000
"""Nodes that a type without a limit is taken to have at most."""
ACCELERATOR = "accelerator_type:"
ACCELERATOR_AMOUNT = 0.001
"""How much of an accelerator's type Ray asks for, beside the GPU itself, where an actor names one."""


@dataclass(frozen=True)
class Request:
    """A complete request for one node as Ray's autoscaler has it; two are equal only if they are in every part.

    resources: Ray's name -> amount, none of them zero. labels: key, whether the values are excluded, the values.
    """

    resources: Mapping[str, float]
    labels: frozenset[tuple[str, bool, frozenset[str]]] = frozenset()

    @classmethod
    def of(cls, *, resources: Mapping[str, float], labels: Iterable[tuple[str, bool, Iterable[str]]] = ()) -> "Request":
        """A request rounded as Ray rounds: to four digits. Values of a label have no order."""
        amounts = {name: round(amount, 4) for name, amount in resources.items() if round(amount, 4) > 0}
        selectors = ((key, excluded, frozenset(value.strip() for value in values)) for key, excluded, values in labels)
        return cls(amounts, frozenset(selectors))


@dataclass(frozen=True)
class Demand:
    """What one replica asks of a node.

    accelerator: the name of a GPU as Ray knows it, such as A10G. labels: as in Ray's label selectors.
    """

    cpus: float
    gpus: float
    accelerator: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def request(self) -> Request:
        """The demand as Ray's autoscaler has it."""
        kind = {ACCELERATOR + self.accelerator: ACCELERATOR_AMOUNT} if self.accelerator else {}
        labels = [(key, *selected(wanted)) for key, wanted in self.labels.items()]
        return Request.of(resources={"CPU": self.cpus, "GPU": self.gpus, **kind}, labels=labels)

    def __str__(self) -> str:
        parts = [f"{self.gpus:g} GPU{'s' if self.gpus > 1 else ''}"] if self.gpus else []
        parts += [f"{self.cpus:g} CPU{'s' if self.cpus > 1 else ''}"]
        where = [f"an accelerator {self.accelerator}"] if self.accelerator else []
        where += [f"the label {key}={value}" for key, value in sorted(self.labels.items())]
        return " and ".join(parts) + (f" on a node with {' and '.join(where)}" if where else "")


@dataclass(frozen=True)
class NodeKind:
    """Nodes that are alike. count: how many are up, or how many of a type there may be."""

    name: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    count: int

    @property
    def cpus(self) -> float:
        """CPUs of one node."""
        return self.resources.get("CPU", 0.0)

    @property
    def gpus(self) -> float:
        """GPUs of one node."""
        return self.resources.get("GPU", 0.0)

    def suits(self, demand: Demand) -> bool:
        """Whether the node is of the kind asked for, however large it is."""
        if demand.accelerator and not any(name == ACCELERATOR + demand.accelerator for name in self.resources):
            return False
        return all(label_fits(self.labels.get(key), value) for key, value in demand.labels.items())

    def places(self, demand: Demand) -> int:
        """Replicas that one node can hold."""
        if not self.suits(demand):
            return 0
        places = math.inf if demand.cpus == 0 else math.floor(self.cpus / demand.cpus + 1e-6)
        if demand.gpus >= 1:
            places = min(places, math.floor(self.gpus / demand.gpus))
        elif demand.gpus > 0:  # a fraction never spans two GPUs
            places = min(places, math.floor(1 / demand.gpus + 1e-6) * math.floor(self.gpus))
        return int(places) if math.isfinite(places) else 1

    def __str__(self) -> str:
        named = [name.removeprefix(ACCELERATOR) for name in self.resources if name.startswith(ACCELERATOR)]
        gpus = f", {self.gpus:g} GPU{'s' if self.gpus > 1 else ''}{' ' + '/'.join(named) if named else ''}"
        return f"{self.name} ({self.cpus:g} CPUs{gpus if self.gpus else ''})"


@dataclass(frozen=True)
class Nodes:
    """A cluster's nodes. up: those that are alive. to_come: types that an autoscaler may start, each with its limit.

    grows: whether an autoscaler is at work; None if unknown. most: how many nodes it may start, of all types together.
    """

    up: Sequence[NodeKind]
    to_come: Sequence[NodeKind] = ()
    grows: bool | None = False
    most: int = UNLIMITED

    @property
    def has_unknown_types(self) -> bool:
        """Whether nodes of unknown types may be added, or it is unknown whether any may."""
        return self.grows is not False and not self.to_come

    @property
    def ever(self) -> Sequence[NodeKind]:
        """All kinds that are up or may come."""
        return [*self.up, *self.to_come]

    def places(self, demand: Demand) -> int:
        """Replicas that the cluster can hold at its largest."""
        return max(self.places_now(demand), self._to_come(lambda kind: kind.places(demand)))

    def _to_come(self, worth: Callable[[NodeKind], float]) -> int:
        """The total worth of the nodes that may come: the most valuable first, and no more nodes than `most`."""
        left, found = self.most, 0.0
        for kind in sorted(self.to_come, key=worth, reverse=True):
            found += min(kind.count, left) * worth(kind)
            left -= min(kind.count, left)
        return int(found)

    def less(self, reserve: Callable[[float], float]) -> "Nodes":
        """The same nodes, each without the CPUs that `reserve` says are not for replicas."""

        def smaller(kind: NodeKind) -> NodeKind:
            cpus = max(0.0, kind.cpus - reserve(kind.cpus))
            return replace(kind, resources={**kind.resources, "CPU": cpus})

        return replace(self, up=[smaller(kind) for kind in self.up], to_come=[smaller(kind) for kind in self.to_come])

    def places_now(self, demand: Demand) -> int:
        """Replicas that the nodes that are up can hold."""
        return sum(kind.count * kind.places(demand) for kind in self.up)

    def total(self, resource: str) -> float:
        """The most of a resource that the cluster can have."""
        up = sum(kind.count * kind.resources.get(resource, 0.0) for kind in self.up)
        return max(up, self._to_come(lambda kind: kind.resources.get(resource, 0.0)))

    def __str__(self) -> str:
        up = ", ".join(f"{kind.count} x {kind}" for kind in self.up) or "no nodes"
        if self.to_come:
            limit = "" if self.most >= sum(kind.count for kind in self.to_come) else f", {self.most} in all,"
            return (
                f"{up} up; up to {', '.join(f'{kind.count} x {kind}' for kind in self.to_come)}{limit} may be started"
            )
        if self.grows is None:
            return f"{up}; whether more may be started is unknown"
        return f"{up}; more of types unknown here may be started" if self.grows else up


def label_fits(value: str | None, wanted: str) -> bool:
    """Whether a node's label fits a selector: `a`, `!a`, `in(a,b)`, `!in(a,b)`."""
    excluded, values = selected(wanted)
    return (value in values) != excluded


def selected(wanted: str) -> tuple[bool, list[str]]:
    """Whether a label selector excludes its values rather than asks for them, and the values."""
    excluded, wanted = wanted.startswith("!"), wanted.removeprefix("!")
    listed = wanted[3:-1].split(",") if wanted.startswith("in(") and wanted.endswith(")") else [wanted]
    return excluded, [item.strip() for item in listed]


def kinds_of_config(config: Mapping[str, Any]) -> list[NodeKind]:
    """The node types of a cluster file, each with the most nodes that it may have; the head's own is left out."""
    most = int(config.get("max_workers", UNLIMITED))
    return [
        NodeKind(
            name=name,
            resources={key: float(amount) for key, amount in (kind.get("resources") or {}).items()},
            labels=dict(kind.get("labels") or {}),
            count=min(int(kind.get("max_workers", most)), most),
        )
        for name, kind in config.get("available_node_types", {}).items()
        if name != config.get("head_node_type") and kind.get("max_workers", most) != 0
    ]
