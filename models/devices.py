"""A framework's name and a device in, what the framework sees there out, or its reason why it can't use it.

`python -m models.devices FRAMEWORK cpu|cuda` prints it as one line of JSON: frameworks are asked in a process of their own,
which takes no memory of the asker's and leaves none behind. `build-cpu` and `build-cuda` look at what is installed alone, where
there is no device: while an image is built.
"""

import importlib
import json
import sys

from models.boundary import DeviceFacts, Framework
from models.errors import PrelnError
from models.load import FOLDERS

BUILD = "build-"


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


def build_of(framework: Framework, device: str) -> DeviceFacts:
    """The CUDA that an installed framework was built with, on a machine without a GPU: an image's build. Raises PrelnError
    where it has none, and device is "cuda"."""
    module = importlib.import_module(f"models.{FOLDERS[framework]}.device")
    cuda: str | None = module.built_for()
    if device == "cuda" and not cuda:
        raise PrelnError(f"{framework} as installed has no CUDA in it; this image would compute on CPUs")
    return {"framework": framework, "build": cuda or "no CUDA"}


def main() -> None:
    """Print what is seen, or `error`, with exit code 1 for a build that is not what was wanted."""
    framework, device = sys.argv[1:]
    build = device.startswith(BUILD)
    code = 0
    try:
        found = build_of if build else device_seen
        told: dict[str, object] = dict(found(framework, device.removeprefix(BUILD)))  # type: ignore[arg-type]
    except Exception as error:  # whatever a driver or a library does is the answer
        told = {"error": " ".join(str(error).split()) or type(error).__name__}
        code = int(build)
    print(json.dumps(told))
    sys.exit(code)


if __name__ == "__main__":
    main()
