"""Monolith's ``monolith.core.testing_utils``: its one public name, bound to ours.

============== ==================================================================================
``layer_test`` `monolith_jax.testing.layer_test`
============== ==================================================================================
"""

from monolith_jax.testing import layer_test

__all__ = ["layer_test"]
