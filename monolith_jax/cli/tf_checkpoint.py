"""`monolith-jax import-tf`, `export-tf` and `inspect`: TensorFlow's checkpoints."""

import argparse
import json
from typing import Any

from monolith_jax.cli._common import add_command, resolve, take_fields

_NAMES_HELP = "names file (TOML): docs/tensorflow_checkpoints.md explains it"


def add(commands: Any) -> None:
    """Adds the commands to the parser's commands."""
    text = "make a TensorFlow checkpoint the start of a model dir"
    command = _add_model(commands, "import-tf", _import, text, "the checkpoint, without endings")
    command.add_argument(
        "--partial", action="store_true", help="what it lacks starts as in a new run"
    )
    command.add_argument("--step", type=int, metavar="N", help="its step, if it does not say it")
    command.add_argument(
        "--dry-run", action="store_true", help="only report what would match; write nothing"
    )
    command.add_argument("--json", action="store_true", help="print the report as JSON")

    text = "write a model dir's checkpoint as a TensorFlow checkpoint, PREFIX-STEP"
    command = _add_model(commands, "export-tf", _export, text, "where to, as for a tf.train.Saver")
    command.add_argument(
        "--step", type=int, metavar="N", help="the checkpoint's step; default: the newest"
    )
    command.add_argument(
        "--keep",
        type=int,
        default=0,
        metavar="N",
        help="delete all but the N newest; default: none",
    )
    command.add_argument("--json", action="store_true", help="print the names as JSON")

    text = "list what a TensorFlow checkpoint holds, and Monolith's embedding tables beside it"
    command = add_command(commands, "inspect", _inspect, text)
    command.add_argument("prefix", metavar="PREFIX", help="the checkpoint, without endings")
    command.add_argument(
        "--no-assets",
        dest="assets",
        action="store_false",
        help="leave out PREFIX.assets, whose single tables are read to count their entries",
    )
    command.add_argument("--json", action="store_true", help="print it as JSON")


def _add_model(commands: Any, name: str, run: Any, text: str, prefix_help: str) -> Any:
    """A command that takes a checkpoint, a model by --model, and any of its config's fields."""
    command = add_command(
        commands,
        name,
        run,
        text,
        add_help=False,
        usage=f"monolith-jax {name} PREFIX --model KEY --model-dir DIR [--FIELD VALUE ...]",
        epilog=f"`monolith-jax {name} --model KEY --help` lists that model's config fields.",
    )
    command.add_argument("prefix", metavar="PREFIX", nargs="?", help=prefix_help)
    command.add_argument("--model", dest="key", metavar="KEY", help="the model, see `models`")
    command.add_argument("--model-dir", metavar="DIR", help="the model dir; required")
    command.add_argument("--names", metavar="FILE", help=_NAMES_HELP)
    take_fields(command)
    return command


def _resolve(options: argparse.Namespace, rest: list[str]) -> Any:
    """`resolve`, which may have printed the help; else there must be a prefix."""
    resolved = resolve(options, rest)
    if resolved is not None and options.prefix is None:
        options.command.error("PREFIX is missing")
    return resolved


def _names(options: argparse.Namespace) -> Any:
    if options.names is None:
        return None
    from monolith_jax.checkpoint.tf.names import read_names

    return read_names(options.names)


def _import(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax import-tf`."""
    resolved = _resolve(options, rest)
    if resolved is None:
        return 0
    name, _, task = resolved
    from monolith_jax.training import tf_checkpoint

    names = _names(options)
    report = tf_checkpoint.compare_tf_checkpoint(task, options.prefix, names)
    if options.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        print("\n".join(report.lines()))
    if options.dry_run:
        return 0
    done = tf_checkpoint.import_tf_checkpoint(
        task,
        options.prefix,
        options.model_dir,
        name=name,
        names=names,
        partial=options.partial,
        step=options.step,
    )
    if not options.json:
        print(f"step {done.step:,} imported to {done.path}; `train` goes on from it")
    return 0


def _export(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax export-tf`."""
    resolved = _resolve(options, rest)
    if resolved is None:
        return 0
    name, _, task = resolved
    from monolith_jax.training import tf_checkpoint

    done = tf_checkpoint.export_tf_checkpoint(
        task,
        options.model_dir,
        options.prefix,
        name=name,
        names=_names(options),
        step=options.step,
        max_to_keep=options.keep,
    )
    if options.json:
        print(json.dumps({"prefix": done.prefix, "step": done.step, "names": done.names}, indent=1))
        return 0
    width = max(map(len, done.names))
    for ours, theirs in done.names.items():
        print(f"{ours:{width}}  ->  {theirs}")
    print(f"step {done.step:,} exported to {done.prefix}")
    return 0


def _inspect(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax inspect`."""
    from monolith_jax.checkpoint.tf import open_bundle

    with open_bundle(options.prefix) as bundle:
        rows: list[dict[str, Any]] = [
            {
                "name": name,
                "dtype": "string" if info.dtype.hasobject else str(info.dtype),
                "shape": list(info.shape),
                "parts": len(info.partitions) or 1,
                "bytes": info.size,
            }
            for name, info in bundle.entries.items()
        ]
        files = bundle.shards
    report = _assets(options.prefix) if options.assets else None
    if options.json:
        document = {"prefix": options.prefix, "files": files, "tensors": rows}
        print(json.dumps(document | {"assets": report and report.to_json()}, indent=1))
        return 0
    for line in _table(rows):
        print(line)
    total = sum(row["bytes"] for row in rows)
    print(f"{len(rows):,} tensors, {total:,} bytes, in {files} data file{'s'[: files != 1]}")
    if report is not None:
        print(f"\n{report}")
    return 0


def _assets(prefix: str) -> Any:
    """Returns the report of Monolith's tables beside a checkpoint, None if there are none."""
    from monolith_jax import storage

    if not storage.is_dir(f"{prefix}.assets"):
        return None
    from monolith_jax.checkpoint.monolith_assets import open_assets

    return open_assets(f"{prefix}.assets").report()


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Returns lines of aligned columns: names to the left, numbers to the right."""
    cells = [["name", "dtype", "shape", "parts", "bytes"]]
    for row in rows:
        shape = f"[{', '.join(map(str, row['shape']))}]"
        cells.append([row["name"], row["dtype"], shape, str(row["parts"]), f"{row['bytes']:,}"])
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    return [
        f"{n:{widths[0]}}  {d:{widths[1]}}  {s:{widths[2]}}  {p:>{widths[3]}}  {b:>{widths[4]}}"
        for n, d, s, p, b in cells
    ]
