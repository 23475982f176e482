"""Model name -> model class -> config.

A model class registers itself; its name is then good for the command line and for `GetParams`:

    @RegisterSingleTaskModel
    class DeepFM(SingleTaskModelParams):
        "One line that `monolith-jax models` shows."

        def task(self) -> TaskConfig:
            return TaskConfig(...)

Names are `<module>.<Class>`, the short form without `monolith_jax.tasks.`, `monolith.tasks.` and
`params.`, or any dotted suffix that one model alone has. Three kinds of modules are looked into:
those under `monolith_jax.tasks` (`monolith.tasks` if a name begins with it), those that installed
packages declare in the entry-point group `monolith_jax.models`, and those that the user names as
modules (`import_module`, `ImportParams`, `ImportAllParams`, `--module`). A model's name alone never
imports anything else.

Nothing here needs jax. The names are Monolith's (`core/model_registry.py`, `model_imports.py`),
whose originals are Lingvo's.
"""

from monolith_jax.registry._describe import ModelInfo, describe_models
from monolith_jax.registry._entry_points import GROUP as ENTRY_POINTS
from monolith_jax.registry._errors import DuplicateModelError, ModelImportError, UnknownModelError
from monolith_jax.registry._imports import ImportAllParams, ImportParams, import_module
from monolith_jax.registry._keys import full_key, short_key
from monolith_jax.registry._lookup import GetAllRegisteredClasses, GetClass, GetParams
from monolith_jax.registry._params import SingleTaskModelParams
from monolith_jax.registry._table import RegisterSingleTaskModel

__all__ = [
    "DuplicateModelError",
    "ENTRY_POINTS",
    "GetAllRegisteredClasses",
    "GetClass",
    "GetParams",
    "ImportAllParams",
    "ImportParams",
    "ModelImportError",
    "ModelInfo",
    "RegisterSingleTaskModel",
    "SingleTaskModelParams",
    "UnknownModelError",
    "describe_models",
    "full_key",
    "import_module",
    "short_key",
]
