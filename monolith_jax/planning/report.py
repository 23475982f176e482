"""Plans as text: one table whose columns are the topologies."""

from collections.abc import Sequence

from monolith_jax.planning._units import held, in_units, lasting, moved
from monolith_jax.planning.chips import GIB, Chip
from monolith_jax.planning.plan import Plan

LARGEST = 5
"""Tables that are listed by name."""


def render(plans: Sequence[Plan]) -> str:
    """Returns the plans side by side, then the advice, the formula and the chips' figures."""
    rows = [("per chip", *(plan.topology for plan in plans))]
    rows += [(name, *(cell(plan) for plan in plans)) for name, cell in _ROWS]
    parts = [_grid(rows), _largest(plans[0])]
    for plan in plans:
        parts += [f"{plan.topology}: {line}" for line in plan.advice]
    engines = [f"{plan.topology}: engine {plan.engine}" for plan in plans]
    saved = [f"{plan.topology}: step saved to {plan.saved}" for plan in plans if plan.saved]
    parts += [*engines, *saved, _NOTES, _figures([plan.chip for plan in plans])]
    return "\n".join(parts)


def _or_unknown(plan: Plan, value: int) -> str:
    return held(value) if plan.fits else "does not fit"


_ROWS = (
    ("chips", lambda p: f"{p.chips:,} x {p.chip.name}"),
    ("examples a step", lambda p: f"{p.batch_size / p.chips:,.0f} of {p.batch_size:,}"),
    ("tables", lambda p: held(p.values)),
    ("slots", lambda p: held(p.slots)),
    ("dense and its slots", lambda p: held(p.dense)),
    ("batch", lambda p: held(p.batch)),
    ("temporaries", lambda p: _or_unknown(p, p.temporary)),
    ("  activations of these", lambda p: held(p.activations)),
    ("in all, by the compiler", lambda p: held(p.needs)),
    ("memory", lambda p: held(p.chip.hbm_bytes)),
    ("fits", lambda p: "yes" if p.fits else "NO"),
    ("HBM traffic a step", lambda p: moved(p.traffic.hbm)),
    ("  touched rows", lambda p: moved(p.traffic.rows)),
    ("  exchange", lambda p: moved(p.traffic.exchange)),
    ("  ids' rows", lambda p: moved(p.traffic.ids)),
    ("  dense", lambda p: moved(p.traffic.dense)),
    ("rows sent to others", lambda p: moved(p.traffic.sent)),
    ("gradients' sum", lambda p: moved(p.traffic.reduced)),
    ("operations", lambda p: in_units(p.traffic.flops, 1000, ("k", "M", "G"), 1)),
    ("time of memory", lambda p: lasting(p.bound.memory)),
    ("time of links", lambda p: lasting(p.bound.links)),
    ("time of compute", lambda p: lasting(p.bound.compute)),
    ("samples/s at most", lambda p: f"{p.bound.samples:,.0f}"),
    ("  limited by", lambda p: p.bound.limit),
    ("samples/s, all chips", lambda p: f"{p.bound.samples * p.chips:,.0f}"),
    ("compiled in", lambda p: f"{p.compile_seconds:.0f} s"),
)

_NOTES = (
    "samples/s at most = (examples a step) / max(times): every resource busy all the time; a real "
    "run is slower.\ntimes: HBM bytes / HBM rate; bytes on the links, at what a chip can send or "
    "at what the narrowest cut of the torus lets by; operations / bfloat16 rate. Ids are taken "
    "as even, which touches the most rows."
)


def _largest(plan: Plan) -> str:
    lines = [f"largest tables on {plan.topology}, per chip:"]
    lines += [
        f"  {table.name}: {table.rows:,} x {table.dim}: values {held(table.values)}, slots "
        f"{held(table.slots)}"
        for table in plan.tables[:LARGEST]
    ]
    return "\n".join(lines)


def _figures(chips: Sequence[Chip]) -> str:
    rows = [("chip", "memory", "HBM rate", "bfloat16", "ICI", "published at")]
    rows += [
        (
            chip.name,
            f"{chip.hbm_bytes // GIB} GiB",
            f"{chip.hbm_rate / 1e9:,.0f} GB/s",
            f"{chip.flops / 1e12:,.0f} TFLOP/s",
            f"{chip.ici_rate / 1e9:,.0f} GB/s",
            chip.source,
        )
        for chip in dict.fromkeys(chips)
    ]
    return _grid(rows)


def _grid(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
