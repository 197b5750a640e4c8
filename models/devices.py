"""What a framework sees of a device, or its reason why it can't use it.

`python -m models.devices FRAMEWORK cpu|cuda` prints it as one line of JSON: each framework is probed in a separate process, so
that the caller does not import it. `build-cpu` and `build-cuda` check only what is installed, without a device: for the build of
an image.
"""

import importlib
import json
import sys

from models.boundary import DeviceFacts, Framework
from models.errors import PrelnError
from models.load import FOLDERS

BUILD = "build-"


def device_seen(framework: Framework, device: str) -> DeviceFacts:
    """What the framework knows about a device. Raises PrelnError if it is not installed or can't use the device."""
    try:
        module = importlib.import_module(f"models.{FOLDERS[framework]}.device")
    except ModuleNotFoundError as error:
        raise PrelnError(
            f"{framework} is not installed (no module '{error.name}'); pip install 'preln[{framework}]'"
        ) from None
    facts: DeviceFacts = module.device_facts(module.claim_device(device))
    return facts


def build_of(framework: Framework, device: str) -> DeviceFacts:
    """The CUDA that an installed framework was built with; works without a GPU, while an image is built. Raises PrelnError if
    device is "cuda" and it has none."""
    module = importlib.import_module(f"models.{FOLDERS[framework]}.device")
    cuda: str | None = module.built_for()
    if device == "cuda" and not cuda:
        raise PrelnError(f"the installed {framework} has no CUDA support, so this image would compute on CPUs")
    return {"framework": framework, "build": cuda or "no CUDA"}


def main() -> None:
    """Print what the framework sees, or `error`; the exit code is 1 for a build without the wanted device."""
    framework, device = sys.argv[1:]
    build = device.startswith(BUILD)
    code = 0
    try:
        found = build_of if build else device_seen
        facts: dict[str, object] = dict(found(framework, device.removeprefix(BUILD)))  # type: ignore[arg-type]
    except Exception as error:  # whatever a driver or a library does is the answer
        facts = {"error": " ".join(str(error).split()) or type(error).__name__}
        code = int(build)
    print(json.dumps(facts))
    sys.exit(code)


if __name__ == "__main__":
    main()
