"""A framework's name and a device in, what the framework sees there out, or its reason why it can't use it.

`python -m models.devices FRAMEWORK cpu|cuda` prints it as one line of JSON: frameworks are asked in a process of their own,
which takes no memory of the asker's and leaves none behind.
"""

import importlib
import json
import sys

from models.boundary import DeviceFacts, Framework
from models.errors import PrelnError
from models.load import FOLDERS


def device_seen(framework: Framework, device: str) -> DeviceFacts:
    """What the framework knows of a device. Raises PrelnError where it is not installed, or can't use the device."""
    try:
        module = importlib.import_module(f"models.{FOLDERS[framework]}.device")
    except ModuleNotFoundError as error:
        raise PrelnError(
            f"{framework} is not installed (no module '{error.name}'); pip install 'preln[{framework}]'"
        ) from None
    facts: DeviceFacts = module.device_facts(module.claim_device(device))
    return facts


def main() -> None:
    """Print what is seen, or `error`."""
    framework, device = sys.argv[1:]
    try:
        told: dict[str, object] = dict(device_seen(framework, device))  # type: ignore[arg-type]
    except Exception as error:  # whatever a driver or a library does is the answer
        told = {"error": " ".join(str(error).split()) or type(error).__name__}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
