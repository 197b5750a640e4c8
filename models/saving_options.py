"""save_pretrained's keywords of the reference; those that ask for something unsupported are refused by name."""

from collections.abc import Mapping
from typing import Any

UPLOAD = "save to a folder, and upload it with `hf upload` or huggingface_hub.upload_folder"
# (values that change nothing, why any other is refused)
REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "push_to_hub": ((False,), UPLOAD),
    "variant": ((), "files have the names without a variant; save to a folder of its own"),
    "saved_model": ((False,), "use Keras's model.export()"),
    "signatures": ((), "use Keras's model.export()"),
    "create_pr": ((False,), UPLOAD),
    "repo_id": ((), UPLOAD),
    "commit_message": ((), UPLOAD),
}
IDLE = ("token", "use_auth_token", "save_peft_format", "version")
"""Of uploads, of adapters and of exports, which are refused or not there."""


def refuse_saving(keywords: Mapping[str, Any]) -> None:
    """Raise ValueError for the reference's keywords that can't be honoured, TypeError for others than the reference's."""
    for name, value in keywords.items():
        if name in IDLE:
            continue
        if name not in REFUSED:
            raise TypeError(f"save_pretrained() knows no argument '{name}'")
        harmless, reason = REFUSED[name]
        if not any(value is one for one in (None, *harmless)):
            raise ValueError(f"save_pretrained({name}={value!r}) is not supported: {reason}")
