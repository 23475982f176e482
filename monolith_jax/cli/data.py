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
    _add_criteo(sources)


def _add_criteo(sources: Any) -> None:
    criteo = add_command(
        sources, "criteo", _data_criteo, "convert Criteo's click logs (train.txt, day_0.gz, ...)"
    )
    criteo.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="tab-separated as published, also .gz; day_N is day N",
    )
    criteo.add_argument("--root", required=True, metavar="DIR", help="the dated folders go here")
    how = criteo.add_mutually_exclusive_group()
    how.add_argument(
        "--buckets", type=int, metavar="N", help="hash each category to N ids; default: 100000"
    )
    how.add_argument(
        "--min-count",
        type=int,
        metavar="N",
        help="make a vocabulary of the values that appear N times, in place of hashing",
    )
    criteo.add_argument(
        "--first-day", metavar="YYYYMMDD", help="the date that day 0 gets; default: 20000101"
    )
    criteo.add_argument(
        "--days",
        type=int,
        default=1,
        metavar="N",
        help="days that one file is cut into; default: 1",
    )


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


def _data_criteo(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax data criteo`."""
    from monolith_jax.tasks import criteo_data

    bar = ProgressLine("lines")
    done = criteo_data.convert(
        options.files,
        options.root,
        buckets=criteo_data.BUCKETS if options.buckets is None else options.buckets,
        min_count=options.min_count,
        first_day=options.first_day or criteo_data.FIRST_DAY,
        days=options.days,
        progress=bar.show,
    )
    bar.end()
    print(f"{done.records:,} records in {len(done.days)} days under {options.root}")
    flags = [f"--input.root {options.root}"]
    flags += [f"--input.start_date {done.days[0]} --input.end_date {done.days[-1]}"]
    flags += [
        f"--tables.{name}.vocab_size {rows}"
        for name, rows in done.sizes.items()
        if rows != criteo_data.BUCKETS
    ]
    print(f"monolith-jax train criteo.DLRM --model-dir MODEL_DIR {' '.join(flags)}")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)
