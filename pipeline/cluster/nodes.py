"""Ray's word on its nodes in, kinds of node that a replica could be placed on out: those that are up and those that may come.

A cluster without an autoscaler does not grow. One with an autoscaler may grow: into the node types that are known (Ray's
cluster configuration, or the file that `ray up` leaves on the head node), or into unknown types (KubeRay).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

UNLIMITED = 1_000
"""Nodes that a type without a limit is taken to have at most."""
ACCELERATOR = "accelerator_type:"
ACCELERATOR_AMOUNT = 0.001
"""How much of an accelerator's type Ray asks for, beside the GPU itself, where an actor names one."""


@dataclass(frozen=True)
class Request:
    """What somebody asks of one node, whole, as Ray's autoscaler has it: two are equal only if no part of them differs.

    resources: amounts by Ray's names for them, none of them zero. labels: key, whether the values are refused, the values.
    """

    resources: Mapping[str, float]
    labels: frozenset[tuple[str, bool, frozenset[str]]] = frozenset()

    @classmethod
    def of(cls, *, resources: Mapping[str, float], labels: Iterable[tuple[str, bool, Iterable[str]]] = ()) -> "Request":
        """As Ray counts: four digits, and values of labels in no order."""
        amounts = {name: round(amount, 4) for name, amount in resources.items() if round(amount, 4) > 0}
        found = ((key, refused, frozenset(value.strip() for value in values)) for key, refused, values in labels)
        return cls(amounts, frozenset(found))


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
        """The same as Ray's autoscaler has it."""
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
    """Nodes that are alike. count: how many are up, or, of a type, how many there may be."""

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

    grows: an autoscaler is at work. untold: it is, and its node types are not known. most: nodes that it starts, of all types
    together.
    """

    up: Sequence[NodeKind]
    to_come: Sequence[NodeKind] = ()
    grows: bool = False
    most: int = UNLIMITED

    @property
    def has_unknown_types(self) -> bool:
        """Whether nodes of unknown types may be added."""
        return self.grows and not self.to_come

    @property
    def ever(self) -> Sequence[NodeKind]:
        """All kinds that there are or may be."""
        return [*self.up, *self.to_come]

    def places(self, demand: Demand) -> int:
        """Replicas that the cluster can hold when it is as large as it may become."""
        return max(self.places_now(demand), self._to_come(lambda kind: kind.places(demand)))

    def _to_come(self, worth: Callable[[NodeKind], float]) -> int:
        """What all nodes that may come are worth together: the worthiest first, and no more than may come in all."""
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
        """How much of a resource there can be in all."""
        up = sum(kind.count * kind.resources.get(resource, 0.0) for kind in self.up)
        return max(up, self._to_come(lambda kind: kind.resources.get(resource, 0.0)))

    def __str__(self) -> str:
        up = ", ".join(f"{kind.count} x {kind}" for kind in self.up) or "no nodes"
        if self.to_come:
            limit = "" if self.most >= sum(kind.count for kind in self.to_come) else f", {self.most} in all,"
            return (
                f"{up} up; up to {', '.join(f'{kind.count} x {kind}' for kind in self.to_come)}{limit} may be started"
            )
        return f"{up}; more of types unknown here may be started" if self.grows else up


def label_fits(value: str | None, wanted: str) -> bool:
    """Whether a node's label is what a selector asks for: `a`, `!a`, `in(a,b)`, `!in(a,b)`."""
    refused, values = selected(wanted)
    return (value in values) != refused


def selected(wanted: str) -> tuple[bool, list[str]]:
    """Whether a label selector refuses its values rather than asks for them, and the values."""
    refused, wanted = wanted.startswith("!"), wanted.removeprefix("!")
    listed = wanted[3:-1].split(",") if wanted.startswith("in(") and wanted.endswith(")") else [wanted]
    return refused, [item.strip() for item in listed]
