"""The figure of docs/published.md: published ACC of other methods (context.csv), a panel per benchmark and protocol.

It never shows results of this project, because networks, image sizes, and schedules differ.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.report.aggregate import rows_of
from benchmarks.report.figures import GRAY, panels_of, save, set_axes, write
from benchmarks.report.formats import number
from benchmarks.report.published import load_context

MARKERS = {  # by statistic: marker, whether it is filled, what it means
    "mean": ("●", "o", True, "mean over runs"),
    "best": ("▲", "^", True, "best of several runs"),
    "single": ("◆", "D", True, "single value"),
    "unknown": ("○", "o", False, "the source does not say"),
}
COLOR = "#0072B2"


def write_landscape(path: Path) -> None:
    """Write the figure as SVG."""
    save([path], lambda: draw_landscape(load_context()))


def draw_landscape(context: pd.DataFrame) -> Figure:
    """A row per method, best ACC first. The marker is the statistic, the letter after the name the source."""
    sources = {source: chr(ord("a") + place) for place, source in enumerate(dict.fromkeys(context.source))}
    parts = [
        part.sort_values("acc", ascending=False, kind="stable")
        for _, part in context.groupby(["benchmark", "protocol"], sort=False)
    ]
    key = [f"{letter}: {source}" for source, letter in sources.items()]
    figure, panels = panels_of(parts, height=0.7 + 0.24 * max(map(len, parts)), extra=0.4 + 0.14 * len(key))
    for panel, part in zip(panels, parts, strict=True):
        for y, row in enumerate(rows_of(part)):
            _, marker, filled, _ = MARKERS[row.statistic]
            panel.plot(100 * row.acc, y, marker, ms=5, color=COLOR, mfc=COLOR if filled else "none", mew=0.9)
            write(panel, number(row.acc), 1.02, y)
        set_axes(panel, len(part), [f"{row.method} [{sources[row.source]}]" for row in rows_of(part)])
    used = [f"{sign} {meaning}" for name, (sign, _, _, meaning) in MARKERS.items() if name in set(context.statistic)]
    figure.supxlabel("\n".join(["     ".join(used), *key]), fontsize=8, color=GRAY)
    return figure
