"""Figures for the pages as inline SVG: line charts, the map of a run's features (a dot per image, colored by cluster
or, with a switch, by class), and matplotlib figures recolored to match the page."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from benchmarks.evaluation.clusters import Clusters

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 200, 58, 12, 20, 36
MOST_POINTS = 120  # of a line: one every two or three pixels
COLORS = 10  # --m0 to --m9 of page.css; further clusters and classes reuse them
MARGIN = 15  # of a map
MOST_TITLES = 300  # maps with at most this many paths have a tooltip on each, with its cluster and class
THEMED = {"#ffffff": "var(--paper)", "#666666": "var(--soft)", "#000000": "var(--ink)", "#e3e3e3": "var(--line)",
          "black": "var(--ink)", "white": "var(--paper)"}  # fmt: skip


def line_chart(label: str, series: dict[str, list]) -> Markup | None:
    """A line per series of (epoch, value), with a legend if there are several; None without a finite value."""
    lines = {name: _thinned(points) for name, points in series.items()}
    lines = {name: points for name, points in lines.items() if len(points)}
    if not lines:
        return None
    low, high = (bound(np.concatenate(list(lines.values())), axis=0) for bound in (np.min, np.max))
    y_ticks = MaxNLocator(4).tick_values(low[1], high[1])
    x_ticks = [x for x in MaxNLocator(5, integer=True).tick_values(low[0], high[0]) if low[0] <= x <= high[0]]

    def place(x: float, y: float) -> tuple[str, str]:
        across = (x - low[0]) / (high[0] - low[0]) if high[0] > low[0] else 0.5
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return f"{LEFT + across * (WIDTH - LEFT - RIGHT):.1f}", f"{HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, label)]
    for y in y_ticks:
        height = place(low[0], y)[1]
        parts.append(Markup(f'<path class="grid" d="M{LEFT} {height}H{WIDTH - RIGHT}"></path>'))
        parts.append(Markup(f'<text class="left" x="{LEFT - 6}" y="{height}" dy="3.5">{y:.4g}</text>'))
    for x in x_ticks:
        parts.append(Markup(f'<text x="{place(x, low[1])[0]}" y="{HEIGHT - BOTTOM + 14}">{x:g}</text>'))
    parts.append(Markup(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}">epoch</text>'))
    for number, (name, points) in enumerate(lines.items()):
        places = [place(*point) for point in points]
        drawn = f'<path class="line s{number % 3}" d="M{"L".join(map(" ".join, places))}"></path>'
        end = f'<circle class="end s{number % 3}" cx="{places[-1][0]}" cy="{places[-1][1]}" r="2.5"></circle>'
        parts.append(Markup(drawn + end))
        if len(lines) > 1:
            legend = Markup('<text class="legend s{}" x="{}" y="{}">{}</text>')
            parts.append(legend.format(number % 3, WIDTH - RIGHT - 70 * (len(lines) - 1 - number), 11, name))
    return Markup("").join([*parts, Markup("</svg>")])


def _thinned(points) -> np.ndarray:
    """The finite points [n, 2], at most about MOST_POINTS, including the last one."""
    values = np.asarray(points, float).reshape(-1, 2)
    values = values[np.isfinite(values).all(axis=1)]
    return values[:: -max(1, len(values) // MOST_POINTS)][::-1]


def scatter(data: Clusters) -> Markup | None:
    """The map of a run, with one path for all images of the same cluster and class; None if there is none."""
    if data.map is None:
        return None
    x, y, clusters = data.map.x, data.map.y, data.map.clusters
    labels = data.map.labels or [-1] * len(x)
    order = sorted(range(len(x)), key=lambda i: (clusters[i], labels[i], i))
    paths = {key: "".join(f"M{x[i]} {y[i]}h0" for i in found)
             for key, found in groupby(order, key=lambda i: (clusters[i], labels[i]))}  # fmt: skip
    box = f"{-MARGIN} {-MARGIN} {max(x) + 2 * MARGIN} {max(y) + 2 * MARGIN}"
    label = f"Map of {len(x)} images by their features, colored by cluster or class"
    parts = [Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(box, label)]
    for (cluster, of_class), path in paths.items():
        name = f"cluster {cluster}" + (f", {data.classes[of_class]}" if of_class >= 0 else "")
        title = Markup("<title>{}</title>").format(name) if len(paths) <= MOST_TITLES else ""
        color = f"c{of_class % COLORS}" if of_class >= 0 else ""
        drawn = Markup('<path class="k{} {}" data-k="{}" data-c="{}" d="{}">{}</path>')
        parts.append(drawn.format(cluster % COLORS, color, cluster, of_class, path, title))
    return Markup("").join([*parts, Markup("</svg>")])


def inline_figure(path: Path) -> Markup:
    """A matplotlib SVG file for use within HTML: identifiers begin with its name, colors are those of the page."""
    svg, name = path.read_text(encoding="utf-8"), path.stem
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:xlink)?|version)="[^"]*"', "", svg)
    svg = re.sub(r'(\sid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"\b(fill|stroke): ?(#\w{6}|black|white)\b", lambda m: f"{m[1]}: {THEMED.get(m[2], m[2])}", svg)
    return Markup(svg.replace("<svg", f'<svg class="figure" role="img" aria-labelledby="{name}-caption"', 1))
