"""`DIR/report.html`: the curves of a run, and its last numbers, in one file to look at."""

import html
import io
import json
from typing import Any

from monolith_jax import storage
from monolith_jax.training.writers import TIMES, read_rows


def write_report(directory: str, name: str) -> str | None:
    """Draws every metric of `directory/metrics.jsonl` over the steps into `report.html`.

    Args:
      directory: a model dir, local or gs://.
      name: the model's key, for the title.

    Returns:
      The file, or None if there is no row to draw.
    """
    rows = read_rows(storage.join(directory, "metrics.jsonl"))
    if not rows:
        return None
    last = {row["split"]: row for row in rows}
    tables = "".join(_table(split, row) for split, row in sorted(last.items()))
    config = json.loads(storage.read_bytes(storage.join(directory, "config.json")))
    page = (
        f"<!doctype html><html><head><meta charset='utf-8'><title>{html.escape(name)}</title>"
        "<style>body{font:15px/1.5 sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}"
        "td,th{padding:2px 12px 2px 0;text-align:left}svg{width:100%;height:auto}"
        "pre{background:#f4f4f4;padding:1em;overflow:auto}</style></head><body>"
        f"<h1>{html.escape(name)}</h1>{tables}{_curves(rows)}"
        f"<h2>config.json</h2><pre>{html.escape(json.dumps(config, indent=1))}</pre>"
        "</body></html>\n"
    )
    file = storage.join(directory, "report.html")
    storage.write_bytes(file, page.encode())
    return file


def _table(split: str, row: dict[str, Any]) -> str:
    cells = "".join(
        f"<tr><th>{html.escape(metric)}</th><td>{value:,.5g}</td></tr>"
        for metric, value in row.items()
        if metric not in ("step", "split")
    )
    return f"<h2>last {html.escape(split)}, step {row['step']:,}</h2><table>{cells}</table>"


def _curves(rows: list[dict[str, Any]]) -> str:
    """Returns one SVG with a panel a metric, a line a split."""
    from matplotlib.figure import Figure

    skipped = {"step", "split", "examples", "seconds"}
    names = [n for n in dict.fromkeys(key for row in rows for key in row) if n not in skipped]
    figure = Figure(figsize=(10, 2.6 * ((len(names) + 1) // 2)), layout="constrained")
    panels = figure.subplots((len(names) + 1) // 2, 2, squeeze=False).flat
    for panel, name in zip(panels, names, strict=False):
        for split, style in (("train", "-"), ("eval", "o-")):
            if split == "eval" and name in TIMES:
                continue
            points = [(r["step"], r[name]) for r in rows if r["split"] == split and name in r]
            if points:
                panel.plot(*zip(*points, strict=True), style, label=split, markersize=3)
        panel.set_title(name.replace("_", " "), fontsize=10)
        panel.set_xlabel("step", fontsize=8)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    for panel in list(panels):
        panel.axis("off")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue().split("?>", 1)[-1].split(">", 1)[-1]
