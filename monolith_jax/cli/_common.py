"""What the commands share: their parsers, and the model that a key and its overrides name."""

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from monolith_jax import config
from monolith_jax.errors import ConfigError

if TYPE_CHECKING:
    from monolith_jax.task import SingleTaskModelParams, TaskConfig

MODULE_HELP = "import this module too (dotted name), for models that it registers; repeatable"


def add_command(commands: Any, name: str, run: Any, text: str, **kwargs: Any) -> Any:
    """Adds a command that runs `run(options, rest)`; `text` is its line of help."""
    command = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **kwargs,
    )
    command.set_defaults(run=run, command=command)
    # On either side of the command's name; SUPPRESS keeps the one from undoing the other.
    command.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    return command


def add_model_command(
    commands: Any, name: str, run: Any, text: str, *, model_dir: bool = True
) -> Any:
    """A command that takes a model's key, any of its config's fields, and perhaps a model dir."""
    flag = "--model-dir DIR" if model_dir else "[OPTIONS]"
    command = add_command(
        commands,
        name,
        run,
        text,
        add_help=False,
        usage=f"monolith-jax {name} KEY {flag} [--FIELD VALUE ...]",
        epilog=f"`monolith-jax {name} KEY --help` lists every config field of that model.",
    )
    command.add_argument("key", metavar="KEY", nargs="?", help="the model, see `models`")
    if model_dir:
        command.add_argument(
            "--model-dir", metavar="DIR", help="folder of checkpoints, metrics and report; required"
        )
    take_fields(command)
    return command


def take_fields(command: Any) -> None:
    """Lets a command take any config field of the model that it names, and --module."""
    command.add_argument("-h", "--help", action="store_true", help="show this, and KEY's fields")
    command.add_argument("--module", action="append", default=[], help=MODULE_HELP)
    command.set_defaults(takes_fields=True)


def import_modules(modules: Sequence[str]) -> None:
    """Imports the modules that the user named, from the current folder too, as `python -m` does."""
    from monolith_jax import registry

    if modules and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for module in modules:
        registry.import_module(module)


def resolve(
    options: argparse.Namespace, rest: list[str]
) -> "tuple[str, SingleTaskModelParams, TaskConfig] | None":
    """Returns the model's short key, its class and its overridden config; None after --help."""
    command: argparse.ArgumentParser = options.command
    if options.key is None:
        if options.help:
            command.print_help()
            return None
        command.error("KEY is missing: `monolith-jax models` lists them")
    from monolith_jax import registry
    from monolith_jax.task import TaskConfig

    import_modules(options.module)
    cls = registry.GetClass(options.key)
    params = cls()
    task = params.task()
    if not isinstance(task, TaskConfig):
        raise ConfigError(
            f"{options.key}: task() returned {type(task).__name__}; the trainer wants a TaskConfig"
        )
    if options.help:
        command.print_help()
        print(f"\nfields of {options.key} (--FIELD VALUE), with their values:\n\n{_fields(task)}")
        return None
    if getattr(options, "model_dir", "") is None:
        command.error("--model-dir is missing")
    return registry.short_key(cls), params, config.override(task, _changes(rest))


def _fields(task: "TaskConfig") -> str:
    lines = []
    for info in config.describe(task):
        lines.append(f"  --{info.path} {info.type} = {info.value!r}")
        free = " (May change when a run goes on.)" if info.restart == "free" else ""
        doc = f"{info.doc}{free}"
        lines.append(textwrap.fill(doc, 96, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(lines)


def _changes(rest: list[str]) -> dict[str, str]:
    """Parses `--a.b value` and `--a.b=value` pairs."""
    changes: dict[str, str] = {}
    arguments = iter(rest)
    for argument in arguments:
        if not argument.startswith("--") or len(argument) == 2:
            raise ConfigError(f"expected --FIELD, got {argument!r}")
        path, equals, value = argument[2:].partition("=")
        if not equals:
            following = next(arguments, None)
            if following is None:
                raise ConfigError(f"--{path} needs a value")
            value = following
        if path in changes:
            raise ConfigError(f"--{path} is given twice")
        changes[path] = value
    return changes


def with_data(params: "SingleTaskModelParams", task: "TaskConfig") -> "TaskConfig":
    """Returns the task with its input root set, fetching the model's own data on first use.

    `prepare_data` says what it does when it has to fetch.
    """
    if task.input.root:
        return task
    from monolith_jax.distributed import primary_first

    root = primary_first(params.prepare_data)
    return replace(task, input=replace(task.input, root=root))


def keep_memory(options: argparse.Namespace) -> None:
    """Has malloc keep what steps on CPUs free, and has those run one at a time (`cpu_memory`).

    On TPUs and GPUs steps do not use malloc. Call it before jax makes its first array. A process
    that called the command as a function keeps its own ways.
    """
    import jax

    from monolith_jax.cpu_memory import keep_freed_memory, one_step_at_a_time

    if not options.own_process:
        return
    one_step_at_a_time()
    if jax.default_backend() == "cpu":
        keep_freed_memory()
