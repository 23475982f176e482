"""`monolith-jax`: train, evaluate and list models, and prepare their data.

Exit codes: 0 done, or stopped by SIGTERM with everything saved; 1 a defect of this program (the
traceback is shown); 2 bad usage or bad input (one line says what); 3 training diverged; 130 stopped
by Ctrl-C with everything saved.
"""

import argparse
import json
import logging
import os
import sys
import textwrap
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from monolith_jax import config
from monolith_jax.errors import ConfigError, UserError, did_you_mean
from monolith_jax.preemption import Preemption
from monolith_jax.progress import ProgressLine

if TYPE_CHECKING:
    from monolith_jax.task import SingleTaskModelParams, TaskConfig

MODULE_HELP = "import this module too (dotted name), for models that it registers; repeatable"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not getattr(options, "takes_fields", False):
        parser.error(f"unknown argument {rest[0]}: {did_you_mean(rest[0], _flags(parser))}")
    level = logging.DEBUG if options.debug else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    # orbax logs its failed saves with a traceback; the loop raises them, so here they come once.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG if options.debug else logging.CRITICAL)
    threading.excepthook = _log_thread_error
    try:
        return options.run(options, rest)
    except UserError as error:
        if options.debug:
            raise
        print(f"monolith-jax: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # `monolith-jax models | head` is no error; nothing more can be printed.
        sys.stderr.close()
        return 0


def _log_thread_error(error: threading.ExceptHookArgs) -> None:
    """Keeps the traceback of a background save for --debug: the loop raises the error itself."""
    name = error.thread.name if error.thread else "a thread"
    logging.getLogger(__name__).debug(
        "in %s",
        name,
        exc_info=(error.exc_type, error.exc_value, error.exc_traceback),  # type: ignore[arg-type]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="monolith-jax",
        description="Trains recommendation models, resumes exactly.",
        epilog=(__doc__ or "").split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="log everything, show tracebacks")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_eval(commands)
    _add_models(commands)
    _add_data(commands)
    return parser


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings]


def _add_command(commands: Any, name: str, run: Any, text: str, **kwargs: Any) -> Any:
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


def _add_model_command(commands: Any, name: str, run: Any, text: str) -> Any:
    """A command that takes a model's key and any of its config's fields."""
    command = _add_command(
        commands,
        name,
        run,
        text,
        add_help=False,
        usage=f"monolith-jax {name} KEY --model-dir DIR [--FIELD VALUE ...]",
        epilog=f"`monolith-jax {name} KEY --help` lists every config field of that model.",
    )
    command.add_argument("key", metavar="KEY", nargs="?", help="the model, see `models`")
    command.add_argument("-h", "--help", action="store_true", help="show this, and KEY's fields")
    command.add_argument(
        "--model-dir", metavar="DIR", help="folder of checkpoints, metrics and report; required"
    )
    command.add_argument("--module", action="append", default=[], help=MODULE_HELP)
    command.set_defaults(takes_fields=True)
    return command


def _add_train(commands: Any) -> None:
    command = _add_model_command(
        commands, "train", _train, "train a model, or go on where a run in DIR stopped"
    )
    command.add_argument("--quiet", action="store_true", help="no progress on standard error")


def _add_eval(commands: Any) -> None:
    command = _add_model_command(
        commands, "eval", _eval, "evaluate a checkpoint on the days after training"
    )
    command.add_argument(
        "--step", type=int, metavar="N", help="the checkpoint's step; default: the newest"
    )


def _add_models(commands: Any) -> None:
    command = _add_command(commands, "models", _models, "list the registered models")
    command.add_argument(
        "-v", "--verbose", action="store_true", help="also the full key, source file and line"
    )
    command.add_argument("--module", action="append", default=[], help=MODULE_HELP)


def _add_data(commands: Any) -> None:
    data = _add_command(commands, "data", None, "fetch or convert data into dated TFRecords")
    sources = data.add_subparsers(title="sources", metavar="SOURCE", required=True)
    movielens = _add_command(
        sources, "movielens", _data_movielens, "fetch MovieLens-100K (research use, see its terms)"
    )
    movielens.add_argument("--root", metavar="DIR", help="where to; default: a cache folder")
    movielens.add_argument(
        "--from", dest="from_file", metavar="FILE", help="a local ml-100k.zip, or RecBole's wheel"
    )
    convert = _add_command(
        sources, "convert", _data_convert, "convert CSV or parquet files by a schema file"
    )
    convert.add_argument("files", nargs="+", metavar="FILE", help=".csv, .tsv, .txt or .parquet")
    convert.add_argument(
        "--schema", required=True, metavar="FILE", help=".toml or .json; docs/data.md explains it"
    )
    convert.add_argument("--root", required=True, metavar="DIR", help="the dated folders go here")


def _train(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax train`."""
    preemption = Preemption().install()
    resolved = _resolve(options, rest)
    if resolved is None:
        return 0
    name, params, task = resolved
    from monolith_jax.training import train

    task = _with_data(params, task)
    train(task, options.model_dir, name=name, preemption=preemption, show=not options.quiet)
    return preemption.exit_code if preemption.requested else 0


def _eval(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax eval`."""
    resolved = _resolve(options, rest)
    if resolved is None:
        return 0
    name, params, task = resolved
    from monolith_jax.training import evaluate_checkpoint

    row = evaluate_checkpoint(_with_data(params, task), options.model_dir, name, options.step)
    print(json.dumps(row))
    return 0


def _data_movielens(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax data movielens`."""
    from monolith_jax.tasks import movielens_data

    print(movielens_data.prepare(options.root, options.from_file, progress=_say))
    return 0


def _data_convert(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax data convert`."""
    from monolith_jax.input.convert import convert
    from monolith_jax.input.convert_schema import load_schema

    bar = ProgressLine("rows")
    done = convert(options.files, load_schema(options.schema), options.root, progress=bar.show)
    bar.end()
    print(f"{done.records:,} records in {done.days} days under {options.root}")
    for column, size in done.vocabulary_sizes.items():
        print(f"vocabulary of {column}: {size:,}")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _models(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax models`."""
    from monolith_jax import registry

    _import_modules(options.module)
    models = registry.describe_models()
    width = max((len(model.short_key) for model in models), default=0)
    for model in models:
        print(f"{model.short_key:{width}}  {model.doc_line}")
        if options.verbose:
            print(f"{'':{width}}  {model.key}  {model.file}:{model.line}")
    return 0


def _import_modules(modules: Sequence[str]) -> None:
    """Imports the modules that the user named, from the current folder too, as `python -m` does."""
    from monolith_jax import registry

    if modules and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for module in modules:
        registry.import_module(module)


def _resolve(
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

    _import_modules(options.module)
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
    if options.model_dir is None:
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


def _with_data(params: "SingleTaskModelParams", task: "TaskConfig") -> "TaskConfig":
    """Returns the task with its input root set, fetching the model's own data on first use.

    `prepare_data` says what it does when it has to fetch.
    """
    if task.input.root:
        return task
    return replace(task, input=replace(task.input, root=params.prepare_data()))


if __name__ == "__main__":
    sys.exit(main())
