"""`monolith-jax models`."""

import argparse
from typing import Any

from monolith_jax.cli._common import MODULE_HELP, add_command, import_modules


def add(commands: Any) -> None:
    """Adds the command to the parser's commands."""
    command = add_command(commands, "models", _models, "list the registered models")
    command.add_argument(
        "-v", "--verbose", action="store_true", help="also the full key, source file and line"
    )
    command.add_argument("--module", action="append", default=[], help=MODULE_HELP)


def _models(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax models`."""
    from monolith_jax import registry

    import_modules(options.module)
    models = registry.describe_models()
    width = max((len(model.short_key) for model in models), default=0)
    for model in models:
        print(f"{model.short_key:{width}}  {model.doc_line}")
        if options.verbose:
            print(f"{'':{width}}  {model.key}  {model.file}:{model.line}")
    return 0
