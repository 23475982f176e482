"""`python -m monolith_jax.cli`, the same as `monolith-jax`."""

import sys

from monolith_jax.cli import main

sys.exit(main())
