"""The finished output that these tests draw from."""

from tests.pipeline.outputs import demo_output

__all__ = ["demo_output"]
