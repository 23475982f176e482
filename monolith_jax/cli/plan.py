"""`monolith-jax plan`."""

import argparse
import dataclasses
import json
import os
from typing import Any

from monolith_jax.cli._common import add_model_command, resolve


def add(commands: Any) -> None:
    """Adds the command to the parser's commands."""
    command = add_model_command(
        commands, "plan", _plan, "tell what a model needs on TPUs, without a TPU", model_dir=False
    )
    command.add_argument(
        "--topology",
        metavar="NAME[,NAME...]",
        default="",
        help="v5e:16x16, v5p:4x4x4, v6e:8x8, tpu7x:2x2x2, ...; several are compared",
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument(
        "--save",
        metavar="DIR",
        default="",
        help="keep the compiled steps there, local or gs://, for `train --compiled DIR`",
    )


def _plan(options: argparse.Namespace, rest: list[str]) -> int:
    """`monolith-jax plan`."""
    # Before jax looks for devices: those of a plan are not there, and its own are not needed.
    os.environ["JAX_PLATFORMS"] = "cpu"
    resolved = resolve(options, rest)
    if resolved is None:
        return 0
    name, _, task = resolved
    from monolith_jax.planning import render
    from monolith_jax.planning.plan import plans, save_on_cpus, split
    from monolith_jax.planning.topology import cpus_of

    names = split(options.topology)
    if options.save and len(names) == 1 and (cpus := cpus_of(names[0])):
        saved = save_on_cpus(task, names[0], cpus, name, options.save)
        print(json.dumps([{"saved": saved}]) if options.json else f"saved {saved}")
        return 0
    found = plans(task, options.topology, name=name, save=options.save)
    if options.json:
        print(json.dumps([{"model": name} | dataclasses.asdict(each) for each in found], indent=1))
    else:
        print(f"{name}\n{render(found)}")
    return 0
