"""The finished outputs that these tests compare."""

from tests.pipeline.outputs import demo_output, other_output, short_output

__all__ = ["demo_output", "other_output", "short_output"]
