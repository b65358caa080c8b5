"""Figures of a study: the score of every seed, and the learning curves. The same runs give the same bytes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.report.aggregate import rows_of
from benchmarks.report.formats import number, one_line
from benchmarks.report.styles import styles_of
from scl.engine.io import atomic

GRAY = "#666666"
METADATA: dict[str, dict] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}  # kind: fixed values
STYLE = Path(__file__).with_name("figures.mplstyle")
COLUMNS = 3  # panels side by side
MOST_BANDS = 5  # per panel: the number of trained methods in config/paper.yaml; more bands blend into brown


def write_figures(study, groups: pd.DataFrame, folder: Path) -> list[Path]:
    """Write figures/scores and figures/curves of `groups` (aggregate.py), as .png and .svg, into `folder`."""
    paths = []
    for name, draw in (("scores", draw_scores), ("curves", draw_curves)):
        kinds = [folder / "figures" / f"{name}.{kind}" for kind in METADATA]
        save(kinds, partial(draw, study, groups))
        paths += kinds
    return paths


def save(paths: list[Path], draw: Callable[[], Figure]) -> None:
    """Write the figure that `draw` returns, in the common style, to files of the kinds in METADATA."""
    with matplotlib.style.context(STYLE):
        figure = draw()
        for path in paths:
            kind = path.suffix[1:]
            with atomic(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=METADATA[kind])


def draw_scores(study, groups: pd.DataFrame) -> Figure:
    """ACC: mean with t interval (within 0 and 100 %), a circle per seed, a diamond for the published result."""
    parts = _by_panel(study, groups)
    if not any(any(part.accuracies) for part in parts):
        return _empty("No completed runs with labels yet.")
    figure, panels = panels_of(parts, height=0.9 + 0.3 * max(map(len, parts)))
    styles = styles_of(study.methods)
    outliers = [off_axis(part) for part in parts]
    for panel, part, outlier in zip(panels, parts, outliers, strict=True):
        for y, group in enumerate(rows_of(part)):
            _draw_scores(panel, y, group, styles[group.stage][0], outlier=group.stage == outlier)
        first = panel.get_subplotspec().is_first_col()
        titles = [one_line(title) for title in part.title] if first else []
        set_axes(panel, len(part), titles)
        panel.grid(axis="y", visible=False)
    drawn = pd.concat(parts).dropna(subset="acc")
    intervals = drawn.acc_low.notna().any()
    means = "●— mean over seeds, 95 % t interval" if intervals else "● mean over seeds (too few for an interval)"
    legend = ["○ single seed"]
    legend += ["◇ published, with its own training schedule"] * bool(drawn.published.notna().any())
    legend += ["← mean below the axis range"] * any(outliers)
    text = f"{means}; numbers: mean ± standard deviation\n{'     '.join(legend)}"
    figure.supxlabel(text, fontsize=8, color=GRAY)
    return figure


def set_axes(panel, count: int, names: list[str]) -> None:
    """ACC in percent against `count` rows from top to bottom."""
    panel.set(yticks=range(count), yticklabels=names, ylim=(count - 0.5, -0.5), xlabel="ACC, %")
    panel.tick_params(axis="y", length=0)
    panel.margins(x=0.08)
    panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def write(panel, text: str, x: float, y: float, **style) -> None:
    """Text in row y; x is a fraction of the width of the panel."""
    panel.annotate(text, (x, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, **style)


def off_axis(groups: pd.DataFrame) -> str | None:
    """The stage so far below all others that it would take up at least a third of the axis; None if there is none.

    A stage with a published result stays on the axis, as do all stages if fewer than three have a mean.
    """
    drawn = groups[groups.acc.notna()].set_index("stage")
    if len(drawn) < 3:
        return None
    values = {group.Index: [*group.accuracies.values(), *([group.published.acc] if group.published else [])]
              for group in rows_of(drawn)}  # fmt: skip
    lowest, second = sorted(values, key=lambda stage: min(values[stage]))[:2]
    low, edge, high = min(values[lowest]), min(values[second]), max(map(max, values.values()))
    alone = max(values[lowest]) < edge and not drawn.published[lowest]
    return lowest if alone and edge - low >= (high - low) / 3 else None


def _draw_scores(panel, y: int, group, color: str, *, outlier: bool) -> None:
    if pd.isna(group.acc):
        write(panel, one_line(group.absence), 0.02, y, color=GRAY, style="italic")
        return
    write(panel, number(group.acc, group.acc_sd), 1.02, y)
    if outlier:
        write(panel, f"← {100 * group.acc:.1f}", 0.01, y, color=GRAY)
        return
    above, values = y - 0.13, [100 * value for value in group.accuracies.values()]
    if not pd.isna(group.acc_low):
        ends = [100 * max(0.0, group.acc_low), 100 * min(1.0, group.acc_high)]  # of two seeds, it may be far wider
        panel.plot(ends, [above] * 2, color=color, lw=2, solid_capstyle="butt")
    panel.plot(100 * group.acc, above, "o", ms=4.2, color=color, zorder=3)
    panel.plot(values, [y + 0.2] * len(values), "o", ms=3.6, mfc="none", mec=color, mew=0.9, zorder=3)
    if group.published:
        panel.plot(100 * group.published.acc, above, "D", ms=5.5, mfc="none", mec="black", mew=0.9, zorder=4)


def draw_curves(study, groups: pd.DataFrame) -> Figure:
    """ACC over epochs: mean over seeds and, in panels with few curves, the range of the seeds."""
    parts = _by_panel(study, groups)
    curves = [{group.stage: curve for group in rows_of(part) if (curve := curve_of(study, group)) is not None}
              for part in parts]  # fmt: skip
    names = {stage: _name(study, stage) for stage in study.methods if any(stage in found for found in curves)}
    if not names:
        return _empty("No completed runs with learning curves yet.")
    columns = max(1, int(_width(len(parts)) / (0.6 + 0.065 * max(map(len, names.values())))))  # of the legend
    figure, panels = panels_of(parts, height=2.9, extra=0.3 + 0.2 * math.ceil(len(names) / columns))
    styles, lines = styles_of(study.methods), {}
    crowded = [len(found) > MOST_BANDS for found in curves]
    for panel, part, found, without_bands in zip(panels, parts, curves, crowded, strict=True):
        for stage, curve in found.items():
            color, dash, marker = styles[stage]
            if not without_bands:
                panel.fill_between(curve.index, curve.min(axis=1), curve.max(axis=1), color=color, alpha=0.18, lw=0)
            look = {"color": color, "ls": dash, "lw": 1.5, "marker": marker, "ms": 4, "mfc": "white", "mew": 1.1}
            lines[stage] = panel.plot(curve.index, curve.mean(axis=1), label=names[stage], **look)[0]
        absent = [one_line(f"{group.title}: {group.absence}") for group in rows_of(part) if group.absence]
        panel.set(xlabel="\n".join(["epoch", *absent]), ylabel="ACC, %", xlim=(0, None))
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    bands = "" if all(crowded) else "; band: minimum to maximum"
    bands += f"; no bands in panels of more than {MOST_BANDS} curves" if any(crowded) else ""
    text = f"Labels are used for this plot only, not for training or model selection.\nLine: mean over seeds{bands}"
    figure.suptitle(text, fontsize=8, color=GRAY)
    figure.legend([lines[stage] for stage in names], list(names.values()), loc="outside lower center",
                  ncols=min(columns, len(names)), frameon=False)  # fmt: skip
    return figure


def curve_of(study, group) -> pd.DataFrame | None:
    """ACC in percent, one row per epoch that all seeds evaluated, one column per seed; None without two such epochs."""
    if group.absence:
        return None
    curves = []
    for seed in group.accuracies:
        run = study.run(group.benchmark, group.protocol, group.stage, seed)
        points = json.loads((run.directory / "metrics.json").read_text())["per_epoch"]
        curves.append(pd.DataFrame(points, columns=["epoch", "acc"]).set_index("epoch").acc)
    curve = 100 * pd.concat(curves, axis=1, join="inner").sort_index()
    return curve if len(curve) > 1 else None


def _name(study, stage: str) -> str:
    """'SCL (reconstruction), after SimCLR': the title, and a short title of the upstream stage."""
    block = study.methods[stage]
    before = block.after and (study.methods[block.after].title or block.after)
    name = one_line((block.title or stage) + (f", after {re.split(r' [+(]', before)[0]}" if before else ""))
    return f" {name}" if name.startswith("_") else name  # matplotlib leaves such names out of a legend


def _by_panel(study, groups: pd.DataFrame) -> list[pd.DataFrame]:
    """The groups of each panel: one benchmark, unless skipped or without labels, under one protocol."""
    ran = groups[~groups.benchmark.isin(list(study.skipped))]
    parts = [part for _, part in ran.groupby(["protocol", "benchmark"], sort=False)]
    return [part for part in parts if "no labels" not in set(part.absence)]


def panels_of(parts: list[pd.DataFrame], *, height: float, extra: float = 0.25):
    """A figure and its panels, titled, one for each of `parts`."""
    columns = min(len(parts), COLUMNS)
    rows = math.ceil(len(parts) / columns)
    figure = Figure(figsize=(_width(len(parts)), rows * height + extra), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, part in zip(grid, parts, strict=False):
        panel.set_title(one_line(f"{part.benchmark.iloc[0]} ({part.protocol.iloc[0]})"))
    for unused in grid[len(parts) :]:
        unused.remove()
    return figure, list(grid[: len(parts)])


def _width(count: int) -> float:
    return max(6.2, 1.5 + 3.1 * min(count, COLUMNS))


def _empty(text: str) -> Figure:
    figure = Figure(figsize=(6, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", color=GRAY)
    return figure
