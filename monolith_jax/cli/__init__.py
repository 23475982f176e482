"""`monolith-jax`: train, evaluate and list models, and prepare their data.

Exit codes: 0 done, or stopped by SIGTERM with everything saved; 1 a defect of this program (the
traceback is shown); 2 bad usage or bad input (one line says what); 3 training diverged; 130 stopped
by Ctrl-C with everything saved.
"""

import argparse
import logging
import sys
import threading
from collections.abc import Sequence

from monolith_jax.cli import data, evaluate, models, plan, tf_checkpoint, train
from monolith_jax.errors import UserError, did_you_mean


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
    options.own_process = argv is None
    if options.own_process:  # called as a function, the process's hooks are the caller's
        threading.excepthook = _log_thread_error
        sys.unraisablehook = _log_unraisable
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


def _log_unraisable(error: "sys.UnraisableHookArgs") -> None:
    """Keeps for --debug what tensorstore's other writes say once the first one has failed."""
    logging.getLogger(__name__).debug(
        "%s %r",
        error.err_msg or "exception ignored in",
        error.object,
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
    for command in (train, evaluate, models, data, plan, tf_checkpoint):
        command.add(commands)
    return parser


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings]
