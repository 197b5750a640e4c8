"""What a user of models/ can get wrong, as exceptions that name the value, the rule, the place and the next step.

PrelnError                  everything that changing a command, spec, file or checkpoint can fix
└── CheckpointError         a checkpoint that is missing, incomplete, of another size, or in a format that is refused
    ├── MismatchError       tensors of another size than the model's (a RuntimeError too, as in the reference)
    └── ConversionError     a checkpoint that can't be converted whole (models.convert)

Wrong arguments of the model classes are plain `ValueError`s, as in the reference implementation.
"""

from models.printable import one_line


class PrelnError(ValueError):
    """Anything that changing a command, spec, file or checkpoint can fix; `str()` of it is one readable line, whatever the file
    or checkpoint that it quotes holds."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class CheckpointError(PrelnError):
    """A checkpoint folder that can't be used, and why."""


class MismatchError(CheckpointError, RuntimeError):
    """Tensors of a checkpoint that have another size than the model they are loaded into."""
