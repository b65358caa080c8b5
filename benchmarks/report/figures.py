"""Figures of a study: the score of every seed, the curves while training. Same runs, same bytes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.report.aggregate import rows_of
from benchmarks.report.formats import number, one_line
from scl.engine.io import atomic

# Okabe & Ito's palette without its black and yellow: told apart with every common color blindness.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (4, 1.2)), (0, (1.5, 1.2)))
GRAY = "#666666"
STYLE = Path(__file__).with_name("figures.mplstyle")
COLUMNS = 3  # panels side by side
MOST_BANDS = 5  # in a panel, as many as methods train in config/paper.yaml; more of them all turn brown


def write_figures(study, cells: pd.DataFrame, folder: Path) -> list[Path]:
    """Write figures/scores and figures/curves, each .png and .svg, into `folder`; return the paths.

    cells: of benchmarks.report.aggregate.
    """
    paths = []
    for name, draw in (("scores", draw_scores), ("curves", draw_curves)):
        with matplotlib.style.context(STYLE):
            figure = draw(study, cells)
            for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
                path = folder / "figures" / f"{name}.{kind}"
                with atomic(path) as temporary:
                    figure.savefig(temporary, format=kind, metadata=metadata)
                paths.append(path)
    return paths


def places_of(study, cells: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(title, cells) of every benchmark that is not skipped, under each protocol: one panel each."""
    ran = cells[~cells.benchmark.isin(list(study.skipped))]
    groups = ran.groupby(["protocol", "benchmark"], sort=False)
    return [(one_line(f"{benchmark} ({protocol})"), group) for (protocol, benchmark), group in groups]


def draw_scores(study, cells: pd.DataFrame) -> Figure:
    """ACC: mean with bootstrap interval, a circle per seed, a diamond for the published."""
    places = places_of(study, cells)
    if not any(any(group.accuracies) for _, group in places):
        return _nothing("No finished run with labels yet: no score to draw.")
    figure, panels = _panels(len(places), height=0.9 + 0.3 * max(len(group) for _, group in places))
    styles, diamonds, outsiders = _styles(study), [], []
    for panel, (title, group) in zip(panels, places, strict=True):
        outside = off_axis(group)
        outsiders += [outside] if outside else []
        for y, cell in enumerate(rows_of(group)):
            _draw_cell(panel, y, cell, styles[cell.stage][0], outside=cell.stage == outside)
            if cell.published and not cell.absence:
                look = {"ms": 5.5, "mfc": "none", "mec": "black", "mew": 0.9, "zorder": 4}
                diamonds += panel.plot(100 * cell.published.acc, y - 0.13, "D", **look)
        _frame_scores(panel, group, title)
    intervals = any(group.acc_low.notna().any() for _, group in places)
    means = (
        "●— mean over the seeds, its 95 % bootstrap interval"
        if intervals
        else ("● mean over the seeds, too few for an interval")
    )
    legend = ["○ one seed"] + ["◇ published, at its own schedule"] * bool(diamonds)
    legend += ["← mean, left of the axis"] * bool(outsiders)
    text = f"{means} (numbers: ± standard deviation)\n{'     '.join(legend)}"
    figure.supxlabel(text, fontsize=8, color=GRAY)
    return figure


def off_axis(cells: pd.DataFrame) -> str | None:
    """The stage so far below all others that its place takes a third of the axis or more; None if there is none.

    A stage with a published value stays on the axis, and so do all if fewer than three have a mean.
    """
    drawn = cells[cells.acc.notna()]
    if len(drawn) < 3:
        return None
    values = [[*found.values()] + ([published.acc] if published else [])
              for found, published in zip(drawn.accuracies, drawn.published)]  # fmt: skip
    lowest, second = sorted(range(len(values)), key=lambda i: min(values[i]))[:2]
    low, edge, high = min(values[lowest]), min(values[second]), max(map(max, values))
    alone = max(values[lowest]) < edge and not drawn.published.iloc[lowest]
    return drawn.stage.iloc[lowest] if alone and edge - low >= (high - low) / 3 else None


def _frame_scores(panel, cells: pd.DataFrame, title: str) -> None:
    first = panel.get_subplotspec().is_first_col()
    panel.set_yticks(range(len(cells)), [one_line(title) for title in cells.title] if first else [])
    panel.set_ylim(len(cells) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)
    panel.margins(x=0.08)
    panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    panel.set_title(title)
    panel.set_xlabel("ACC, %")


def _draw_cell(panel, y: int, cell, color: str, *, outside: bool) -> None:
    def write(text, x, **style):
        panel.annotate(text, (x, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, **style)

    if pd.isna(cell.acc):
        write(one_line(cell.absence), 0.02, color=GRAY, style="italic")
        return
    write(number(cell.acc, cell.acc_sd), 1.02)
    if outside:
        write(f"← {100 * cell.acc:.1f}", 0.01, color=color)
        return
    values = [100 * value for value in cell.accuracies.values()]
    if not pd.isna(cell.acc_low):
        interval = [100 * cell.acc_low, 100 * cell.acc_high]
        panel.plot(interval, [y - 0.13] * 2, color=color, lw=2, solid_capstyle="butt")
    panel.plot(100 * cell.acc, y - 0.13, "o", ms=4.2, color=color, zorder=3)
    panel.plot(values, [y + 0.2] * len(values), "o", ms=3.6, mfc="none", mec=color, mew=0.9, zorder=3)


def draw_curves(study, cells: pd.DataFrame) -> Figure:
    """ACC after epochs of training: mean over the seeds; in panels of few curves also lowest and highest seed."""
    places = places_of(study, cells)
    curves = [{cell.stage: curve for cell in rows_of(group) if (curve := curves_of(study, cell))}
              for _, group in places]  # fmt: skip
    names = {stage: _name(study, stage) for stage in study.methods if any(stage in found for found in curves)}
    if not names:
        return _nothing("No finished run with a curve yet.")
    longest = max(map(len, names.values()))
    beside = max(1, int(_width(len(places)) / (0.6 + 0.065 * longest)))  # names per line of the legend
    figure, panels = _panels(len(places), height=2.9, extra=0.3 + 0.2 * math.ceil(len(names) / beside))
    styles, lines = _styles(study), {}
    crowded = [len(found) > MOST_BANDS for found in curves]
    for panel, (title, group), found, no_bands in zip(panels, places, curves, crowded, strict=True):
        for stage, curve in found.items():
            lines[stage] = _draw_curve(panel, *curve, styles[stage], names[stage], band=not no_bands)
        absent = [one_line(f"{cell.title}: {cell.absence}") for cell in rows_of(group) if cell.absence]
        panel.set_xlabel("\n".join(["epoch of the stage", *absent]))
        panel.set_ylabel("ACC, %")
        panel.set_title(title)
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    bands = "" if all(crowded) else "; band: lowest to highest seed"
    bands += f"; no bands where there are more than {MOST_BANDS} curves" if any(crowded) else ""
    figure.suptitle("Labels are used for this display only; no run sees or follows them.\n"
                    f"Line: mean over the seeds{bands}", fontsize=8, color=GRAY)  # fmt: skip
    figure.legend([lines[stage] for stage in names], list(names.values()), loc="outside lower center",
                  ncols=min(beside, len(names)), frameon=False)  # fmt: skip
    return figure


def _name(study, stage: str) -> str:
    """'SCL (reconstruction), after SimCLR': the title plus a short title of the stage before."""
    block = study.methods[stage]
    before = block.after and (study.methods[block.after].title or block.after)
    name = one_line((block.title or stage) + (f", after {re.split(r' [+(]', before)[0]}" if before else ""))
    return f" {name}" if name.startswith("_") else name  # matplotlib leaves such names out of a legend


def curves_of(study, cell) -> tuple[np.ndarray, np.ndarray] | None:
    """Epochs [E] and ACC [seeds, E] at the epochs that all seeds kept; None if a seed lacks or E < 2."""
    if cell.absence:
        return None
    by_seed = []
    for seed in cell.accuracies:
        run = study.run(cell.benchmark, cell.protocol, cell.stage, seed)
        curve = json.loads((run.directory / "metrics.json").read_text())["per_epoch"]
        by_seed.append({point["epoch"]: point["acc"] for point in curve})
    epochs = sorted(set.intersection(*map(set, by_seed)))
    if len(epochs) < 2:
        return None
    return np.array(epochs), np.array([[curve[epoch] for epoch in epochs] for curve in by_seed])


def _draw_curve(panel, epochs: np.ndarray, scores: np.ndarray, style: tuple, name: str, *, band: bool):
    """Draw a curve with its band and return its line."""
    color, dash, marker = style
    scores = 100 * scores
    if band:
        panel.fill_between(epochs, scores.min(0), scores.max(0), color=color, alpha=0.18, lw=0)
    look = {"color": color, "ls": dash, "lw": 1.5, "marker": marker, "ms": 4, "mfc": "white", "mew": 1.1}
    (line,) = panel.plot(epochs, scores.mean(0), label=name, **look)
    return line


def _styles(study) -> dict[str, tuple]:
    """(color, dash, marker) of each stage, the same in all figures. Of up to eighteen stages no two share
    dash and marker, so that they differ in gray too, and none share color and marker."""
    return {stage: (COLORS[i % 6], DASHES[i // 6 % 3], MARKERS[(i + i // 6) % 6])
            for i, stage in enumerate(study.methods)}  # fmt: skip


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
    figure.text(0.5, 0.5, text, ha="center", va="center", color=GRAY)
    return figure
