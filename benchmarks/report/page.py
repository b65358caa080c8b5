"""What report/index.html shows beyond the tables: filters, values of single seeds, links to runs, unlabeled data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from markupsafe import Markup

from benchmarks.evaluation.clusters import Clusters, agreement
from benchmarks.evaluation.evaluate import read_assignments
from benchmarks.report.aggregate import KEYS, rows_of
from benchmarks.report.charts import inline_figure
from benchmarks.report.run_page import RunPage, write_run_pages
from benchmarks.report.runs import STATUSES
from benchmarks.report.styles import marker_svg, styles_of
from benchmarks.report.tables import Cell, Table

ABSENT = ("", "–", "no labels")  # a column of nothing else is left out
CAPTIONS = {
    "scores": "ACC of each method: individual seeds, their mean, and, with enough seeds, its t interval.",
    "curves": "ACC during training. Labels are used for this plot only.",
}


class Row(NamedTuple):
    """A row of a table: its cells, its stage, and the statuses of its runs; by cell, the values of single seeds."""

    cells: list[Cell]
    stage: str
    status: str
    seeds: list[str]
    links: dict[int, str]


class Block(NamedTuple):
    """A table of the page; benchmark is "" for a table of several."""

    table: Table
    benchmark: str
    rows: list[Row]


def page_context(study, runs: pd.DataFrame, groups: pd.DataFrame, tables: dict, folder: Path, template) -> dict:
    """Write the pages of the runs; return what index.html needs besides the context of the other templates."""
    pages = write_run_pages(study, runs, folder, template)
    blocks = {
        protocol: [
            _block(study, runs, protocol, table, pages)
            for table in (*found, *_unlabeled(study, groups, protocol, pages))
        ]
        for protocol, found in tables.items()
    }
    shown = {"scores": runs.acc.notna().any(), "curves": runs.oracle_epoch.notna().any()}
    svgs = {
        name: (folder / "figures" / f"{name}.svg").read_text(encoding="utf-8") for name, show in shown.items() if show
    }
    choices = {name: list(dict.fromkeys(runs[name])) for name in ("benchmark", "protocol", "stage")}
    choices["status"] = [status for status in STATUSES if status in set(runs.status)]
    return {
        "blocks": blocks,
        "labeled": bool(shown["scores"]),
        "figures": {name: (CAPTIONS[name], inline_figure(svg, name)) for name, svg in svgs.items()},
        "choices": choices,
        "titles": dict(zip(runs.stage, runs.method)),
        "markers": {stage: marker_svg(style) for stage, style in styles_of(study.methods).items()},
        "pages": {key: page.name for key, page in pages.items()},
        "megabytes": sum(page.path.stat().st_size for page in pages.values()) / 1e6,
    }


def _block(study, runs: pd.DataFrame, protocol: str, table: Table, pages: dict[tuple, RunPage]) -> Block:
    kept = [i for i in range(len(table.columns)) if i == 0 or any(row[i].text not in ABSENT for row in table.rows)]
    here = runs[runs.protocol == protocol]
    if table.benchmark:
        here = here[here.benchmark == table.benchmark]
    rows = []
    for stage, cells in zip(table.stages, table.rows, strict=True):
        mine = here[here.stage == stage]
        of_seed = {seed: pages.get((protocol, table.benchmark, stage, seed)) for seed in mine.seed}
        links = {seed: page.name for seed, page in of_seed.items() if page}
        seeds = [_seeds(mine, table, table.columns[i]) for i in kept]
        rows.append(Row([cells[i] for i in kept], stage, " ".join(dict.fromkeys(mine.status)), seeds, links))
    return Block(replace(table, columns=[table.columns[i] for i in kept]), table.benchmark, rows)


def _seeds(runs: pd.DataFrame, table: Table, column: str) -> str:
    """'seed 0: 95.3, seed 1: 94.1': what a cell was averaged from; "" for other cells."""
    if column not in table.scores:
        return ""
    benchmark, score = table.scores[column]
    values = runs[runs.benchmark == benchmark].set_index("seed")[score].dropna()
    return ", ".join(f"seed {seed}: {100 * value:.2f}" for seed, value in values.items())


def _unlabeled(study, groups: pd.DataFrame, protocol: str, pages: dict[tuple, RunPage]) -> list[Table]:
    """A table per benchmark without labels, of the quantities that need none."""
    columns = ["Method", "n", "clusters in use", "largest share, %", "smallest share, %", "mean confidence, %"]
    columns += ["agreement of seeds, ARI", "agreement of seeds, NMI"]
    tables, of_protocol = [], groups[(groups.protocol == protocol) & (groups.absence == "no labels")]
    for benchmark, part in cast(Any, of_protocol.groupby("benchmark", sort=False)):
        rows, stages = [], []
        for group in rows_of(part):
            key = tuple(getattr(group, name) for name in KEYS)
            data = {name[3]: page.data for name, page in pages.items() if name[:3] == key and page.data is not None}
            if data:
                files = [
                    study.run(benchmark, protocol, group.stage, seed).directory / "assignments.npz" for seed in data
                ]
                stages.append(group.stage)
                rows.append(
                    [Cell(group.title), Cell(str(len(data))), *map(Cell, _without_labels(data.values(), files))]
                )
        note = "Means over seeds. Agreement of seeds: mean over all pairs of seeds; 100 means identical clusters."
        if rows:
            tables.append(Table(f"{benchmark} ({protocol}): clusters found", columns, rows, [note], stages, benchmark))
    return tables


def _without_labels(data: Collection[Clusters], files: list[Path]) -> list[str]:
    """Cells on the runs of a group: clusters in use, shares, confidence, agreement. files: their assignments."""
    means = pd.DataFrame(
        {
            "used": [one.used for one in data],
            "largest": [one.share(max(one.sizes)) for one in data],
            "smallest": [one.share(min(one.sizes)) for one in data],
            "confidence": [one.mean_confidence for one in data],
        },
        dtype=float,
    ).mean()
    agreed = agreement_of(files)
    numbers = [means.largest, means.smallest, means.confidence, agreed.get("ARI"), agreed.get("NMI")]
    texts = ["–" if value is None or np.isnan(value) else f"{100 * value:.1f}" for value in numbers]
    return [f"{means.used:g} of {len(next(iter(data)).sizes)}", *texts]


def agreement_of(files: list[Path]) -> dict[str, float]:
    """{"ARI": mean over all pairs, "NMI": ...} of the assignments of runs on the same images; {} if any is missing."""
    try:
        found = [read_assignments(file) for file in files]
    except (OSError, ValueError, KeyError):
        return {}
    return agreement([arrays["assignments"][np.argsort(arrays["rows"])] for arrays in found])


def preformatted(text: str) -> Markup:
    """Text of several lines for <pre>, escaped; control characters are visible."""
    from scl.util.text import printable

    return Markup("{}").format(printable(text, keep="\n"))
