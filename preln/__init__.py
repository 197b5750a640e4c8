"""preln in Python: annotate texts in memory, or run the verbs of the command line from a program.

annotate   annotates texts or a table in memory
load       loads a model for many such calls
run        brings a job's output folder up to date, as `preln annotate` does
plan       shows what `run` would do
status     shows what is done in an output folder
verify     checks that every row is in an output folder once
"""

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.in_python import Model as Model
    from jobs.in_python import annotate as annotate
    from jobs.in_python import load as load
    from jobs.in_python import plan as plan
    from jobs.in_python import run as run
    from jobs.in_python import status as status
    from jobs.in_python import verify as verify
    from pipeline.errors import PrelnError as PrelnError

__all__ = ["Model", "PrelnError", "__version__", "annotate", "load", "plan", "run", "status", "verify"]

OWN_PACKAGES = ("models", "pipeline", "jobs")


def _refuse_strangers() -> None:
    """Raise ImportError if another folder of the same name would be imported instead of one of our packages."""
    own = Path(__file__).resolve().parents[1]
    for name in OWN_PACKAGES:
        module = sys.modules.get(name)
        spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or [spec.origin or "?"]) if spec is not None else []
        if places and Path(places[0]).resolve() != own / name:
            raise ImportError(
                f"preln needs its package {name!r} in {own / name}, and this interpreter finds {places[0]} first; rename that "
                "folder, or start Python elsewhere or with -P"
            )


_refuse_strangers()

from pipeline import __version__  # noqa: E402 - only once it is known to be ours


def __getattr__(name: str) -> Any:
    """Import a name on first use, so that `import preln` itself is fast."""
    if name not in __all__:
        raise AttributeError(f"module 'preln' has no attribute {name!r}; it has {', '.join(__all__)}")
    module = importlib.import_module("pipeline.errors" if name == "PrelnError" else "jobs.in_python")
    return getattr(module, name)


def __dir__() -> list[str]:
    return list(__all__)
