"""How the tests run: two host devices, CPU, and a Hypothesis profile that's named and never silently derandomized.

JAXNET_HYPOTHESIS=quick (25 examples, the default) or hunt (1,000; scripts/test-long).
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"

from hypothesis import HealthCheck, settings

common = {
    "deadline": None,  # the first use of a shape compiles
    "derandomize": False,  # explicitly: CI=true would turn it on
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("quick", max_examples=25, **common)
settings.register_profile("hunt", max_examples=1000, **common)
settings.load_profile(os.environ.get("JAXNET_HYPOTHESIS", "quick"))

# Finite differences in float32 are no evidence, and no minimum is met to 1e-6.
collect_ignore = [] if os.environ.get("JAX_ENABLE_X64") == "1" else ["test_differences.py", "test_linear_models.py"]
