"""What a model will need on TPUs that are not there: compiled for them, measured, compared.

`plan` compiles a task's train step for a topology on any machine and tells the bytes on each chip,
whether they fit, the traffic, and a bound on the speed. Tables are shapes here and never memory.
"""

from monolith_jax.planning.chips import CHIPS, Chip
from monolith_jax.planning.plan import Plan, plan
from monolith_jax.planning.report import render

__all__ = ["CHIPS", "Chip", "Plan", "plan", "render"]
