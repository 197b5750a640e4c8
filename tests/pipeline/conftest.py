"""Settings for all tests of pipeline/."""

from hypothesis import HealthCheck, settings

# The machine may be busy: how long one example takes says nothing about the product.
settings.register_profile("pipeline", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pipeline")
