"""Flax Linen models: layers, and the rankers made of them.

A ranker is called as `module.apply(variables, embeddings, dense, train=...)` with the embeddings
by feature name, `[batch, dim]`, and dense values, `[batch, n]`; it returns `[batch]` logits or
values. Its config is what a model's `task()` puts into `TaskConfig.model`.

Example:
  >>> from monolith_jax.models import DeepFMConfig
  >>> type(DeepFMConfig(vectors=("user", "item")).instantiate()).__name__
  'DeepFM'
"""

from monolith_jax.models.dcn import CrossNet, DCNv2, DCNv2Config
from monolith_jax.models.deepfm import DeepFM, DeepFMConfig
from monolith_jax.models.dlrm import DLRM, DLRMConfig, pairwise_products
from monolith_jax.models.layers import Mlp, factorization_machine
from monolith_jax.models.matrix_factorization import MatrixFactorization, MatrixFactorizationConfig

__all__ = [
    "CrossNet",
    "DCNv2",
    "DCNv2Config",
    "DLRM",
    "DLRMConfig",
    "DeepFM",
    "DeepFMConfig",
    "MatrixFactorization",
    "MatrixFactorizationConfig",
    "Mlp",
    "factorization_machine",
    "pairwise_products",
]
