"""Plans as text."""

import re

from monolith_jax.planning import render
from monolith_jax.planning.chips import CHIPS
from monolith_jax.planning.plan import Plan, TableBytes
from monolith_jax.planning.traffic import Bound, Traffic

SMALL = Plan(
    topology="v5e:1x1",
    chip=CHIPS["v5e"],
    chips=1,
    batch_size=64,
    tables=(TableBytes("user", 100, 8, 4_940, 0),),
    values=4_940,
    slots=0,
    dense=300,
    batch=1 << 21,
    activations=0,
    temporary=1024,
    needs=12 << 30,
    fits=True,
    traffic=Traffic(4_940, 0.0, 0.0, 0.0, 0.0, 0.0, 2_500.0),
    bound=Bound(5.1e-7, 1e-9, 0.0, 64 / 5.1e-7, "memory"),
    engine="xla: train.engine asks for it",
    advice=(),
    compile_seconds=1.0,
)


def test_every_number_has_the_unit_that_it_fills() -> None:
    lines = render([SMALL]).splitlines()
    cells = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines if "  " in line.strip())
    wanted = {
        "tables": "4.82 KiB",
        "slots": "0",
        "dense and its slots": "0.29 KiB",
        "batch": "2.00 MiB",
        "in all, by the compiler": "12.00 GiB",
        "HBM traffic a step": "4.9 kB",
        "operations": "2.5 k",
        "time of memory": "0.51 us",
        "time of compute": "0.00 us",
        "time of links": "0",
    }
    assert {name: cells[name] for name in wanted} == wanted
    assert "  user: 100 x 8: values 4.82 KiB, slots 0" in lines
