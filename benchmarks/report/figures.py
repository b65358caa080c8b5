"""Figures of a study: the score of every seed, the curves while training. Same runs, same bytes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.report.cells import Cell, Grid, read_grid
from benchmarks.report.formats import number
from benchmarks.report.layout import one_line
from benchmarks.report.published import published_for
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
    "text.parse_math": False,  # a $ in a title is a $
    "figure.dpi": 100,
    "savefig.dpi": 160,
}
COLUMNS = 3  # panels side by side
MOST_BANDS = 5  # in a panel, as many as methods train in config/paper.yaml; more of them all turn brown


def write_figures(study, folder: Path) -> list[Path]:
    """Write figures/scores and figures/curves, each .png and .svg, into `folder` from its runs.csv; return the paths."""
    grid, paths = read_grid(study, folder), []
    for name, draw in (("scores", draw_scores), ("curves", draw_curves)):
        with matplotlib.rc_context(STYLE):
            figure = draw(study, grid)
            for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
                path = folder / "figures" / f"{name}.{kind}"
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
    summaries = [cell.summary("acc") for _, _, cells in places for cell in cells.values()]
    if not any(cell.by_seed("acc") for _, _, cells in places for cell in cells.values()):
        return _nothing("No finished run with labels yet: no score to draw.")
    longest = max(len(cells) for _, _, cells in places)
    figure, panels = _panels(len(places), height=0.9 + 0.3 * longest)
    styles, diamonds, left_out = _styles(study), False, False
    for panel, (protocol, benchmark, cells) in zip(panels, places, strict=True):
        published = {stage: published_for(study, stage, protocol, benchmark) for stage in cells}
        published = {stage: value for stage, value in published.items() if value and not cells[stage].absence}
        outside = off_axis(cells, published)
        for y, (stage, cell) in enumerate(cells.items()):
            _draw_cell(panel, y, cell, styles[stage][0], outside=stage == outside)
            if stage in published:
                at = 100 * published[stage].acc
                panel.plot(at, y - 0.13, "D", ms=5.5, mfc="none", mec="black", mew=0.9, zorder=4)
        _frame_scores(panel, cells, one_line(f"{benchmark} ({protocol})"))
        diamonds, left_out = diamonds or bool(published), left_out or outside is not None
    intervals = any(summary and summary.low is not None for summary in summaries)
    means = "●— mean over the seeds, its 95 % bootstrap interval" if intervals else (
        "● mean over the seeds, too few for an interval"
    )
    legend = ["○ one seed"]
    legend += ["◇ published, at its own schedule"] * diamonds + ["← mean, left of the axis"] * left_out
    legend = f"{means} (numbers: ± standard deviation)\n{'     '.join(legend)}"
    figure.supxlabel(legend, fontsize=8, color=GREY)
    return figure


def off_axis(cells: dict[str, Cell], published: dict) -> str | None:
    """The stage so far below all others that its place takes a third of the axis or more; None if there is none.

    A stage with a published value stays on the axis, and so do all if fewer than three have a mean.
    """
    values = {stage: list(cell.by_seed("acc").values()) for stage, cell in cells.items() if cell.summary("acc")}
    for stage, value in published.items():
        values[stage].append(value.acc)
    if len(values) < 3:
        return None
    lowest, second = sorted(values, key=lambda stage: min(values[stage]))[:2]
    low, edge, high = min(values[lowest]), min(values[second]), max(map(max, values.values()))
    alone = max(values[lowest]) < edge and lowest not in published
    return lowest if alone and edge - low >= (high - low) / 3 else None


def _frame_scores(panel, cells: dict[str, Cell], title: str) -> None:
    first = panel.get_subplotspec().is_first_col()
    panel.set_yticks(range(len(cells)), [one_line(cell.title) for cell in cells.values()] if first else [])
    panel.set_ylim(len(cells) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)
    panel.margins(x=0.08)
    panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    panel.set_title(title)
    panel.set_xlabel("ACC, %")


def _draw_cell(panel, y: int, cell: Cell, colour: str, *, outside: bool) -> None:
    def write(text, x, **style):
        panel.annotate(text, (x, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, **style)

    summary = cell.summary("acc")
    if summary is None:
        write(one_line(cell.absence), 0.02, color=GREY, style="italic")
        return
    write(number(summary), 1.02)
    if outside:
        write(f"← {100 * summary.mean:.1f}", 0.01, color=colour)
        return
    values = [100 * value for value in cell.by_seed("acc").values()]
    if summary.low is not None:
        interval = [100 * summary.low, 100 * summary.high]
        panel.plot(interval, [y - 0.13] * 2, color=colour, lw=2, solid_capstyle="butt")
    panel.plot(100 * summary.mean, y - 0.13, "o", ms=4.2, color=colour, zorder=3)
    panel.plot(values, [y + 0.2] * len(values), "o", ms=3.6, mfc="none", mec=colour, mew=0.9, zorder=3)


def draw_curves(study, grid: Grid) -> Figure:
    """ACC after epochs of training: mean over the seeds; in panels of few curves also lowest and highest seed."""
    places = [
        (protocol, benchmark, {stage: curves_of(study, cell) for stage, cell in cells.items()}, cells)
        for protocol, benchmark, cells in places_of(study, grid)
    ]
    drawn = {stage for _, _, curves, _ in places for stage, found in curves.items() if found}
    names = {stage: _name(study, stage) for stage in study.methods if stage in drawn}
    if not names:
        return _nothing("No finished run with a curve yet.")
    width = _width(len(places))
    beside = max(1, int(width / (0.6 + 0.065 * max(map(len, names.values())))))  # names in a line of the legend
    figure, panels = _panels(len(places), height=2.9, extra=0.3 + 0.2 * math.ceil(len(names) / beside))
    styles, crowded = _styles(study), []
    for panel, (protocol, benchmark, curves, cells) in zip(panels, places, strict=True):
        found = {stage: curve for stage, curve in curves.items() if curve}
        crowded.append(len(found) > MOST_BANDS)
        for stage, curve in found.items():
            _draw_curve(panel, *curve, styles[stage], names[stage], band=not crowded[-1])
        absent = [one_line(f"{cell.title}: {cell.absence}") for cell in cells.values() if cell.absence]
        panel.set_xlabel("\n".join(["epoch of the stage", *absent]))
        panel.set_ylabel("ACC, %")
        panel.set_title(one_line(f"{benchmark} ({protocol})"))
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    bands = "" if all(crowded) else "; band: lowest to highest seed"
    bands += f"; no bands where there are more than {MOST_BANDS} curves" if any(crowded) else ""
    figure.suptitle(
        "Labels are used for this display only; no run sees or follows them.\n"
        f"Line: mean over the seeds{bands}",
        fontsize=8,
        color=GREY,
    )
    _legend(figure, panels, list(names.values()), beside)
    return figure


def _name(study, stage: str) -> str:
    """'SCL (reconstruction), after SimCLR': the title, and of the stage before what stands ahead of '+' or '('."""
    block = study.methods[stage]
    before = block.after and (study.methods[block.after].title or block.after)
    name = one_line((block.title or stage) + (f", after {re.split(r' [+(]', before)[0]}" if before else ""))
    return f" {name}" if name.startswith("_") else name  # matplotlib leaves such names out of a legend


def _legend(figure: Figure, panels, names: list[str], beside: int) -> None:
    handles = {}
    for panel in panels:
        lines, found = panel.get_legend_handles_labels()
        handles |= dict(zip(found, lines, strict=True))
    figure.legend(
        [handles[name] for name in names],
        names,
        loc="outside lower center",
        ncols=min(beside, len(names)),
        frameon=False,
    )


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


def _draw_curve(panel, epochs: np.ndarray, scores: np.ndarray, style: tuple, name: str, *, band: bool) -> None:
    colour, dash, marker = style
    scores = 100 * scores
    if band:
        panel.fill_between(epochs, scores.min(0), scores.max(0), color=colour, alpha=0.18, lw=0)
    line = {"color": colour, "ls": dash, "lw": 1.5, "marker": marker, "ms": 4, "mfc": "white", "mew": 1.1}
    panel.plot(epochs, scores.mean(0), label=name, **line)


def _styles(study) -> dict[str, tuple]:
    """(colour, dash, marker) of each stage, the same in all figures. Of up to eighteen stages no two share
    dash and marker, so that they differ in grey too, and none share colour and marker."""
    return {
        stage: (COLOURS[i % 6], DASHES[i // 6 % 3], MARKERS[(i + i // 6) % 6])
        for i, stage in enumerate(study.methods)
    }


def _panels(count: int, *, height: float, extra: float = 0.25):
    columns = min(count, COLUMNS)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(_width(count), rows * height + extra), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in grid[count:]:
        unused.remove()
    return figure, list(grid[:count])


def _width(count: int) -> float:
    return max(6.2, 1.5 + 3.1 * min(count, COLUMNS))


def _nothing(text: str) -> Figure:
    figure = Figure(figsize=(6, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", color=GREY)
    return figure
