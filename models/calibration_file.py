"""calibration.json of a checkpoint folder: temperatures and thresholds that make a classifier's scores mean something.

`preln calibrate` writes it beside config.json, and every framework's answers go by it, since it is applied to logits. It belongs
to the folder's sequence classification head and its labels.

Legend: G rows, L labels.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from models.errors import CheckpointError

CALIBRATION_NAME = "calibration.json"
FORMAT = "preln-calibration"
VERSION = 1
FUNCTIONS = ("softmax", "sigmoid")
Floats: TypeAlias = npt.NDArray[np.float32]
ScoreFunction: TypeAlias = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class Calibration:
    """What is fitted to a head's logits.

    labels: in the order of their ids. function: from logits to scores. temperatures: by which logits are divided: one for
    softmax, one a label for sigmoid. thresholds: label -> the score from which it is listed. fitted: on what, and what it
    changed; for the reader only.
    """

    labels: tuple[str, ...]
    function: ScoreFunction
    temperatures: tuple[float, ...]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    fitted: Mapping[str, Any] = field(default_factory=dict)

    def applied(self, logits_GL: npt.NDArray[Any]) -> Floats:
        """Logits [G, L] divided by their temperatures."""
        return np.asarray(logits_GL.astype(np.float32) / np.array(self.temperatures, np.float32))

    def identity(self) -> bytes:
        """All that answers depend on, for the checkpoint's digest."""
        values = {key: value for key, value in asdict(self).items() if key != "fitted"}
        return json.dumps(values, sort_keys=True).encode()

    def to_json(self) -> bytes:
        """The content of calibration.json."""
        values = {"format": FORMAT, "version": VERSION, "head": "sequence-classification", **asdict(self)}
        return json.dumps(values, indent=1, ensure_ascii=False).encode() + b"\n"


def parse_calibration(content: bytes, *, url: str, id2label: Mapping[Any, Any]) -> Calibration:
    """From the content of a folder's calibration.json. Raises CheckpointError where it is malformed, not preln's, or of a model
    with other labels."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _refusal(url, f"is not JSON ({error})") from None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise _refusal(url, f'was not written by `preln calibrate` (no "format": "{FORMAT}")')
    if fields.get("version") != VERSION:
        raise _refusal(url, f"is of version {fields.get('version')!r}, and this preln reads {VERSION}")
    own = [id2label.get(index) for index in range(len(id2label))]
    labels, function = fields.get("labels"), fields.get("function")
    if labels != own:
        raise _refusal(url, "is of a model with other labels than config.json's id2label")
    if function not in FUNCTIONS:
        raise _refusal(url, f"has the function {function!r}; it must be one of {', '.join(FUNCTIONS)}")
    temperatures, wanted = fields.get("temperatures"), 1 if function == "softmax" else len(own)
    if not isinstance(temperatures, list) or len(temperatures) != wanted or not all(map(_positive, temperatures)):
        raise _refusal(url, f"must have {wanted} positive temperatures for {function} over {len(own)} labels")
    thresholds, fitted = fields.get("thresholds", {}), fields.get("fitted", {})
    if not isinstance(thresholds, dict) or not all(_number(value) and 0 <= value <= 1 for value in thresholds.values()):
        raise _refusal(url, "must have thresholds between 0 and 1, by label")
    unknown = next((label for label in thresholds if label not in own), None)
    if unknown is not None:
        raise _refusal(url, f"has a threshold for {unknown!r}, which is no label of this model")
    return Calibration(
        labels=tuple(labels),
        function="softmax" if function == "softmax" else "sigmoid",
        temperatures=tuple(float(value) for value in temperatures),
        thresholds={label: float(value) for label, value in thresholds.items()},
        fitted=fitted if isinstance(fitted, dict) else {},
    )


def _refusal(url: str, fault: str) -> CheckpointError:
    return CheckpointError(
        f"{url}: {CALIBRATION_NAME} {fault}; run `preln calibrate` on this model again, or remove the file"
    )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: object) -> bool:
    """A temperature that float32 can hold and divide by."""
    return _number(value) and isinstance(value, int | float) and 1e-6 <= value <= 1e6
