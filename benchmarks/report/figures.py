"""Figures of a study: the score of every seed, the curves while training. Same runs, same bytes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.report.cells import Cell, Grid, read_grid
from benchmarks.report.published import published_for
from benchmarks.report.tables import number
from scl.record import atomic

# Okabe & Ito's palette without its black and yellow: told apart with every common colour blindness.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (4, 1.2)), (0, (1.5, 1.2)))
GREY = "#666666"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "svg.hashsalt": "scl",
    "svg.fonttype": "path",
    "figure.dpi": 100,
    "savefig.dpi": 160,
}
COLUMNS = 3  # panels side by side


def write_figures(study) -> list[Path]:
    """Write figures/scores and figures/curves, each .png and .svg, below study.results; return the paths."""
    grid, paths = read_grid(study), []
    for name, draw in (("scores", draw_scores), ("curves", draw_curves)):
        with matplotlib.rc_context(STYLE):
            figure = draw(study, grid)
            for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
                path = study.results / "figures" / f"{name}.{kind}"
                with atomic(path) as temporary:
                    figure.savefig(temporary, format=kind, metadata=metadata)
                paths.append(path)
    return paths


def places_of(study, grid: Grid) -> list[tuple[str, str, dict[str, Cell]]]:
    """(protocol, benchmark, cells by stage) of everything that is not skipped: one panel each."""
    return [
        (protocol, benchmark, by_stage)
        for protocol, by_benchmark in grid.cells.items()
        for benchmark, by_stage in by_benchmark.items()
        if benchmark not in study.skipped
    ]


def draw_scores(study, grid: Grid) -> Figure:
    """ACC: mean with bootstrap interval, a circle a seed, a diamond for the published."""
    places = places_of(study, grid)
    if not any(cell.by_seed("acc") for _, _, cells in places for cell in cells.values()):
        return _nothing("No finished run with labels yet: no score to draw.")
    longest = max(len(cells) for _, _, cells in places)
    figure, panels = _panels(len(places), height=0.9 + 0.3 * longest)
    styles, diamonds = _styles(study), False
    for panel, (protocol, benchmark, cells) in zip(panels, places, strict=True):
        for y, (stage, cell) in enumerate(cells.items()):
            _draw_cell(panel, y, cell, styles[stage][0])
            published = published_for(study, stage, protocol, benchmark)
            if published and not cell.absence:
                panel.plot(
                    100 * published.acc, y - 0.13, "D", ms=5.5, mfc="none", mec="black", mew=0.9, zorder=4
                )
                diamonds = True
        first = panel.get_subplotspec().is_first_col()
        panel.set_yticks(range(len(cells)), [cell.title for cell in cells.values()] if first else [])
        panel.set_ylim(len(cells) - 0.5, -0.5)
        panel.grid(axis="y", visible=False)
        panel.tick_params(axis="y", length=0)
        panel.margins(x=0.08)
        panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        panel.set_title(f"{benchmark} ({protocol})")
        panel.set_xlabel("ACC, %")
    legend = [
        "●— mean over the seeds, its 95 % bootstrap interval (numbers: ± standard deviation)",
        "○ one seed",
    ]
    legend += ["◇ published, at its own schedule"] * diamonds
    figure.supxlabel(
        "\n".join(legend) if len(places) < COLUMNS else "     ".join(legend), fontsize=8, color=GREY
    )
    return figure


def _draw_cell(panel, y: int, cell: Cell, colour: str) -> None:
    values = [100 * value for value in cell.by_seed("acc").values()]
    summary = cell.summary("acc")
    if summary is None:
        panel.annotate(
            cell.absence,
            (0.02, y),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7.5,
            color=GREY,
            style="italic",
        )
        return
    if summary.low is not None:
        panel.plot(
            [100 * summary.low, 100 * summary.high], [y - 0.13] * 2, color=colour, lw=2, solid_capstyle="butt"
        )
    panel.plot(100 * summary.mean, y - 0.13, "o", ms=4.2, color=colour, zorder=3)
    panel.plot(values, [y + 0.2] * len(values), "o", ms=3.6, mfc="none", mec=colour, mew=0.9, zorder=3)
    panel.annotate(number(summary), (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5)


def draw_curves(study, grid: Grid) -> Figure:
    """ACC after epochs of training: mean over the seeds, and a band from the lowest to the highest seed."""
    places = [
        (protocol, benchmark, {stage: curves_of(study, cell) for stage, cell in cells.items()}, cells)
        for protocol, benchmark, cells in places_of(study, grid)
    ]
    drawn = {
        stage: cells[stage].title
        for _, _, curves, cells in places
        for stage, found in curves.items()
        if found
    }
    if not drawn:
        return _nothing("No finished run with a curve yet.")
    beside = min(len(places), COLUMNS) + 1  # names side by side in the legend
    figure, panels = _panels(len(places), height=2.9, extra=0.3 + 0.2 * math.ceil(len(drawn) / beside))
    styles = _styles(study)
    for panel, (protocol, benchmark, curves, cells) in zip(panels, places, strict=True):
        for stage, found in curves.items():
            if found:
                _draw_curve(panel, *found, styles[stage], cells[stage].title)
        absent = [f"{cell.title}: {cell.absence}" for cell in cells.values() if cell.absence]
        panel.set_xlabel("\n".join(["epoch of the stage", *absent]))
        panel.set_ylabel("ACC, %")
        panel.set_title(f"{benchmark} ({protocol})")
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.suptitle(
        "Labels are used for this display only; no run sees or follows them.\n"
        "Line: mean over the seeds; band: lowest to highest seed",
        fontsize=8,
        color=GREY,
    )
    handles = dict(zip(*reversed(_handles(panels)), strict=True))
    figure.legend(
        [handles[title] for title in drawn.values()],
        drawn.values(),
        loc="outside lower center",
        ncols=min(beside, len(drawn)),
        frameon=False,
    )
    return figure


def _handles(panels) -> tuple[list, list]:
    found = [panel.get_legend_handles_labels() for panel in panels]
    return [line for lines, _ in found for line in lines], [name for _, names in found for name in names]


def curves_of(study, cell: Cell) -> tuple[np.ndarray, np.ndarray] | None:
    """Epochs [E] and ACC [seeds, E] at the epochs that all seeds kept; None if a seed lacks or E < 2."""
    if cell.absence:
        return None
    by_seed = []
    for row in cell.rows:
        run = study.run(row.benchmark, row.protocol, row.stage, row.seed)
        curve = json.loads((run.directory / "metrics.json").read_text())["per_epoch"]
        by_seed.append({point["epoch"]: point["acc"] for point in curve})
    epochs = sorted(set.intersection(*map(set, by_seed)))
    if len(epochs) < 2:
        return None
    return np.array(epochs), np.array([[curve[epoch] for epoch in epochs] for curve in by_seed])


def _draw_curve(panel, epochs: np.ndarray, scores: np.ndarray, style: tuple, title: str) -> None:
    colour, dash, marker = style
    if len(scores) > 1:
        panel.fill_between(epochs, 100 * scores.min(0), 100 * scores.max(0), color=colour, alpha=0.18, lw=0)
    panel.plot(
        epochs,
        100 * scores.mean(0),
        color=colour,
        ls=dash,
        lw=1.5,
        label=title,
        marker=marker,
        ms=4,
        mfc="white",
        mew=1.1,
    )


def _styles(study) -> dict[str, tuple]:
    """(colour, dash, marker) of each stage: the same in all figures, different for up to eighteen."""
    return {
        stage: (COLOURS[i % 6], DASHES[i // 6 % 3], MARKERS[i % 6]) for i, stage in enumerate(study.methods)
    }


def _panels(count: int, *, height: float, extra: float = 0.25):
    columns = min(count, COLUMNS)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(6.2, 1.5 + 3.1 * columns), rows * height + extra), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in grid[count:]:
        unused.remove()
    return figure, list(grid[:count])


def _nothing(text: str) -> Figure:
    figure = Figure(figsize=(6, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", color=GREY)
    return figure
