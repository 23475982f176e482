"""The two keys of a model class."""

TASK_ROOT = "monolith_jax.tasks"
# Users who keep their models in Monolith's own tree address them as they always did.
MIGRATED_ROOT = "monolith.tasks"


def full_key(cls: type) -> str:
    """Returns `<module>.<Class>`.

    Example:
      >>> class Model:
      ...     __module__ = "monolith.tasks.ads.params.click"
      >>> full_key(Model)
      'monolith.tasks.ads.params.click.Model'
    """
    return f"{cls.__module__}.{cls.__name__}"


def short_key(cls: type) -> str:
    """Returns the key without `monolith.tasks.`, `monolith_jax.tasks.` and `params.`.

    All occurrences within the module's name go, as in the original; a module outside the task
    roots that has no `params.` in its name has one key only.

    Example:
      >>> class Model:
      ...     __module__ = "monolith.tasks.ads.params.click"
      >>> short_key(Model)
      'ads.click.Model'
    """
    return f"{short_module(cls.__module__)}.{cls.__name__}"


def short_module(module: str) -> str:
    """Returns a module's name as it appears in short keys."""
    for root in (MIGRATED_ROOT, TASK_ROOT):
        module = module.replace(f"{root}.", "")
    return module.replace("params.", "")
