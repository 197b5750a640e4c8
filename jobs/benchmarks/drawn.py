"""Random weights for benchmarks, which measure time and not answers. NumPy only, for a bare GPU machine."""

import numpy as np
import numpy.typing as npt

from models.boundary import Head
from models.config import RobertaPreLayerNormConfig
from models.loading import start_of
from models.tensors import expected_tensors


def drawn_tensors(*, config: RobertaPreLayerNormConfig, head: Head) -> dict[str, npt.NDArray[np.float32]]:
    """A tensor for every name of a checkpoint of this head, as training would start it: the same at every call."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in expected_tensors(config=config, head=head).items():
        kind = start_of(name)
        drawn = rng.standard_normal(shape, np.float32) * np.float32(config.initializer_range)
        tensors[name] = np.full(shape, kind == "ones", np.float32) if kind in ("ones", "zeros") else drawn
    return tensors
