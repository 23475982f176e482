"""`monolith-jax data`: one source a subcommand."""

import argparse
import sys
from typing import Any

from monolith_jax.cli._common import add_command
from monolith_jax.progress import ProgressLine


def add(commands: Any) -> None:
    """Adds the command to the parser's commands."""
    data = add_command(commands, "data", None, "fetch or convert data into dated TFRecords")
    sources = data.add_subparsers(title="sources", metavar="SOURCE", required=True)
    movielens = add_command(
        sources, "movielens", _data_movielens, "fetch MovieLens-100K (research use, see its terms)"
    )
    movielens.add_argument("--root", metavar="DIR", help="where to; default: a cache folder")
    movielens.add_argument(
        "--from", dest="from_file", metavar="FILE", help="a local ml-100k.zip, or RecBole's wheel"
    )
    convert = add_command(
        sources, "convert", _data_convert, "convert CSV or parquet files by a schema file"
    )
    convert.add_argument("files", nargs="+", metavar="FILE", help=".csv, .tsv, .txt or .parquet")
    convert.add_argument(
        "--schema", required=True, metavar="FILE", help=".toml or .json; docs/data.md explains it"
    )
    convert.add_argument("--root", required=True, metavar="DIR", help="the dated folders go here")


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
