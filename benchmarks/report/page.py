"""What report/index.html shows beyond the tables: filters, values of single seeds, links to runs, unlabeled data."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from benchmarks.evaluation.clusters import FILE, Clusters, agreement
from benchmarks.evaluation.evaluate import clusters_by_row
from benchmarks.report.aggregate import rows_of
from benchmarks.report.charts import inline_figure
from benchmarks.report.run_page import write_run_pages
from benchmarks.report.runs import STATUSES
from benchmarks.report.styles import marker_svg, styles_of
from benchmarks.report.tables import Cell, Table
from scl.engine.artifacts import ASSIGNMENTS, read
from scl.engine.io import Damaged

ABSENT = ("", "–", "no labels")  # a column with nothing else is omitted
CAPTIONS = {
    "scores": "ACC of each method: individual seeds, their mean, and, with enough seeds, its t interval.",
    "curves": "ACC during training. Labels are used for this plot only.",
}


class Row(NamedTuple):
    """A row of a table: its cells, its stage, the statuses of its runs, and the pages of its seeds."""

    cells: list[Cell]
    stage: str
    status: str
    links: dict[int, str]


def page_context(study, runs: pd.DataFrame, groups: pd.DataFrame, tables: dict, folder: Path, template) -> dict:
    """Write the pages of the runs; return what index.html needs besides the context of the other templates."""
    pages = write_run_pages(study, runs, folder, template)
    blocks = {
        protocol: [_shown(runs, protocol, table, pages) for table in (*found, *_unlabeled(study, groups, protocol))]
        for protocol, found in tables.items()
    }
    shown = {"scores": runs.acc.notna().any(), "curves": runs.oracle_epoch.notna().any()}
    svgs = [folder / "figures" / f"{name}.svg" for name, show in shown.items() if show]
    choices = {name: list(dict.fromkeys(runs[name])) for name in ("benchmark", "protocol", "stage")}
    choices["status"] = [status for status in STATUSES if status in set(runs.status)]
    return {
        "blocks": blocks,
        "labeled": bool(shown["scores"]),
        "figures": {svg.stem: (CAPTIONS[svg.stem], inline_figure(svg)) for svg in svgs},
        "choices": choices,
        "titles": dict(zip(runs.stage, runs.method)),
        "markers": {stage: marker_svg(style) for stage, style in styles_of(study.methods).items()},
        "pages": {key: page.name for key, page in pages.items()},
        "megabytes": sum(page.stat().st_size for page in pages.values()) / 1e6,
    }


def _shown(runs: pd.DataFrame, protocol: str, table: Table, pages: dict[tuple, Path]) -> tuple[Table, list[Row]]:
    """A table without its empty columns, and its rows."""
    kept = [i for i in range(len(table.columns)) if i == 0 or any(row[i].text not in ABSENT for row in table.rows)]
    here = runs[(runs.protocol == protocol) & (runs.benchmark.eq(table.benchmark) | (not table.benchmark))]
    rows = []
    for stage, cells in zip(table.stages, table.rows, strict=True):
        of_stage = here[here.stage == stage]
        found = {seed: pages.get((protocol, table.benchmark, stage, seed)) for seed in of_stage.seed}
        links = {seed: page.name for seed, page in found.items() if page}
        rows.append(Row([cells[i] for i in kept], stage, " ".join(of_stage.status.unique()), links))
    return replace(table, columns=[table.columns[i] for i in kept]), rows


def _unlabeled(study, groups: pd.DataFrame, protocol: str) -> list[Table]:
    """A table per benchmark without labels, of the quantities that need none."""
    columns = ["Method", "n", "clusters in use", "largest share, %", "smallest share, %", "mean confidence, %"]
    columns += ["agreement of seeds, ARI", "agreement of seeds, NMI"]
    note = "Means over seeds. Agreement of seeds: mean over all pairs of seeds; 100 means identical clusters."
    tables, of_protocol = [], groups[(groups.protocol == protocol) & (groups.absence == "no labels")]
    for benchmark, part in cast(Any, of_protocol.groupby("benchmark", sort=False)):
        caption = f"{benchmark} ({protocol}): clusters found"
        tables.append(table := Table(caption, columns, [], [note], list(part.stage), benchmark))
        for group in rows_of(part):
            runs = [study.run(benchmark, protocol, group.stage, seed) for seed in study.seeds]
            texts = _without_labels([run.directory for run in runs])
            table.rows.append([Cell(group.title), Cell(str(group.n)), *map(Cell, texts)])
    return tables


def _without_labels(folders: list[Path]) -> list[str]:
    """Cells for the runs of a group: clusters in use, shares, confidence, agreement; dashes if a file is missing or
    damaged."""
    data = []
    with suppress(Damaged):  # the page of that run says so
        data = [found for folder in folders if (found := read(folder / FILE, Clusters))]
    if len(data) < len(folders) or not all((folder / ASSIGNMENTS).exists() for folder in folders):
        return ["–"] * 6
    shares = [(one.used, one.share(max(one.sizes)), one.share(min(one.sizes)), one.mean_confidence) for one in data]
    used, *means = pd.DataFrame(shares, dtype=float).mean()
    agreed = agreement([clusters_by_row(folder) for folder in folders])
    numbers = [*means, agreed.get("ARI", np.nan), agreed.get("NMI", np.nan)]
    return [f"{used:g} of {len(data[0].sizes)}", *("–" if np.isnan(x) else f"{100 * x:.1f}" for x in numbers)]
