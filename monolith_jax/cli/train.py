"""`monolith-jax train`."""

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from monolith_jax.cli._cluster import add_cluster, join
from monolith_jax.cli._common import add_model_command, keep_memory, resolve, with_data
from monolith_jax.preemption import Preemption

if TYPE_CHECKING:
    from monolith_jax.compile_cache import CompileCache


def add(commands: Any) -> None:
    """Adds the command to the parser's commands."""
    command = add_model_command(
        commands, "train", _train, "train a model, or go on where a run in DIR stopped"
    )
    command.add_argument("--quiet", action="store_true", help="no progress on standard error")
    command.add_argument(
        "--compiled",
        metavar="DIR",
        default="",
        help="take the step from here if `plan --save DIR` compiled it for these devices",
    )
    command.add_argument(
        "--compile-cache",
        metavar="DIR",
        help="keep compiled programs there, local or gs://, so that a restart does not compile "
        "again; off: nowhere; default: the user's cache folder on TPU and GPU, off on CPU",
    )
    add_cluster(command)


def _train(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax train`."""
    preemption = Preemption().install()
    resolved = resolve(options, rest)
    if resolved is None:
        return 0
    name, params, task = resolved
    join(options)
    keep_memory(options)
    from monolith_jax.training import train

    task = with_data(params, task)
    show = not options.quiet
    with _compile_cache(options.compile_cache) as cache:
        train(
            task,
            options.model_dir,
            name=name,
            preemption=preemption,
            show=show,
            compiled=options.compiled,
        )
    if cache is not None and show:
        print(cache.summary(), file=sys.stderr)
    return preemption.exit_code if preemption.requested else 0


def _compile_cache(option: str | None) -> "contextlib.AbstractContextManager[CompileCache | None]":
    """Returns the cache that --compile-cache asks for; of None, what suits the devices.

    A CPU compiles in seconds, and code for one may not run on another that shares the home folder.
    Of several hosts only the first one writes, so they need a folder that they share.
    """
    import jax

    from monolith_jax import compile_cache
    from monolith_jax._cache import cache_folder

    folder = option
    if folder is None:
        chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
        single = jax.process_count() == 1 and jax.default_backend() != "cpu"
        folder = str(cache_folder("compiled")) if single and not chosen else "off"
    return contextlib.nullcontext() if folder in ("", "off") else compile_cache.kept_in(folder)
