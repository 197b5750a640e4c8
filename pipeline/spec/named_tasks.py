"""A job's tasks by name, whether the user wrote `task` or `tasks`."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.tasks import AnyTask


@dataclass(frozen=True, eq=False)
class NamedTask:
    """One task of a job, the input columns it reads and the columns it answers in.

    name: the user's own under `tasks`; that of the task itself where the user wrote `task`.
    of_several: the user wrote `tasks`: the head is the folder of this name, and the name is in the keys of the identity.
    columns: part -> input column. prefix: put before the names of its answer columns.
    """

    name: str
    task: AnyTask
    of_several: bool
    columns: Mapping[str, str]
    prefix: str

    @property
    def key(self) -> str:
        """The job's key for this task's options."""
        return f"tasks.{self.name}" if self.of_several else "task"

    @property
    def head_folder(self) -> str | None:
        """The folder of its head below the checkpoint; None for the checkpoint itself."""
        return self.name if self.of_several else None

    def column(self, part: str) -> str:
        """The input column that plays a part."""
        return self.columns.get(part, part)

    def part_key(self, part: str) -> str:
        """The key of a part below `input.columns`."""
        return f"{self.name}.{part}" if self.of_several else part
