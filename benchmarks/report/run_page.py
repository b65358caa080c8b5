"""A page for each run: settings, provenance, curves, confusion matrix, and a gallery of its clusters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.overview import log_of
from benchmarks.progress import ProgressBar
from benchmarks.report.aggregate import KEYS, rows_of
from benchmarks.report.charts import line_chart
from benchmarks.report.gallery import gallery
from benchmarks.report.run_data import RunData, read_run_data
from benchmarks.state import Metrics
from scl.engine.artifacts import Record, read
from scl.engine.io import atomic

ALL_GALLERIES = 50  # runs up to which each gets a gallery; in larger studies one seed per cell does
ALL_BYTES, MOST_BYTES = 18_000_000, 1_500_000  # of the galleries of a study, of one
MOST_CELLS = 900  # of a confusion matrix; larger ones are given by their largest errors
MOST_ERRORS = 30
LINKED = (
    "run.yaml",
    "record.json",
    "clustering.json",
    "metrics.json",
    "history.csv",
    "assignments.npz",
    "failure.json",
)


class RunPage(NamedTuple):
    """A page that was written and, if its run has no scores, what the run found."""

    name: str
    path: Path
    data: RunData | None


def write_run_pages(study, runs: pd.DataFrame, folder: Path, template) -> dict[tuple, RunPage]:
    """Write folder/report/runs/*.html for each done or failed run; {(protocol, benchmark, stage, seed): its page}.

    Pages of runs that are no longer in the study are removed.
    """
    pages, written = folder / "report" / "runs", {}
    done = runs[runs.status == "done"]
    chosen = done if len(done) <= ALL_GALLERIES else done.drop_duplicates(KEYS)
    budget = min(MOST_BYTES, ALL_BYTES // max(1, len(chosen)))
    rows = list(rows_of(runs[runs.status.isin(["done", "failed"])]))
    with ProgressBar("report", len(rows), unit="pages") as bar:
        for row in rows:
            run = study.run(row.benchmark, row.protocol, row.stage, row.seed)
            name = f"{row.benchmark}-{row.protocol}-{row.stage}-seed{row.seed}.html"
            context, data = _context(study, run, row, pages, budget if row.Index in chosen.index else None)
            with atomic(pages / name) as temporary:
                temporary.write_text(template.render(context), encoding="utf-8")
            kept = data if pd.isna(row.acc) else None  # of all runs of a large study: gigabytes
            written[row.protocol, row.benchmark, row.stage, row.seed] = RunPage(name, pages / name, kept)
            bar.update()
    for stale in set(pages.glob("*.html")) - {page.path for page in written.values()}:
        stale.unlink()
    return written


def _context(study, run, row, folder: Path, budget: int | None) -> tuple[dict, RunData | None]:
    """What run.html prints. budget: bytes for the gallery, None for a page without one."""
    files = [run.directory / name for name in LINKED] + [log_of(run.directory)]
    settings = run.directory / "run.yaml"
    context: dict[str, Any] = {
        "run": run, "row": row, "after": run.after, "charts": {}, "record": None, "data": None,
        "gallery": [], "problem": "",
        "links": {path.name: os.path.relpath(path, folder) for path in files if path.exists()},
        "settings": settings.read_text(encoding="utf-8", errors="replace") if settings.exists() else "",
    }  # fmt: skip
    if row.status != "done":
        return context, None
    try:
        record, metrics = read(run.directory / "record.json", Record), read(run.directory / "metrics.json", Metrics)
        context |= {"record": record, "charts": _charts(run.directory / "history.csv", metrics)}
        data = read_run_data(run.directory, record, study.data / run.benchmark)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return context | {"problem": str(error)}, None
    clusters, size = gallery(data, budget) if budget and data.images is not None else ([], 0)
    context |= {"data": data, "summary": data.summary(), "gallery": clusters, "gallery_mb": size / 1e6}
    context |= {"with_gallery": budget is not None, **_confusion(data)}
    return context, data


def _charts(history: Path, metrics: Metrics | None) -> dict:
    """{title: SVG}: each term of the loss, the learning rate, the scores."""
    table = pd.read_csv(history)
    names = [name for name in table.columns if name not in ("epoch", "steps", "seconds")]
    points = {name: list(zip(table.epoch, pd.to_numeric(table[name], "coerce"))) for name in names}
    charts = {name.replace("_", " "): line_chart(name, {name: values}) for name, values in points.items()}
    if metrics and len(metrics.per_epoch) > 1:
        scores = {name.upper(): [(p.epoch, 100 * getattr(p, name)) for p in metrics.per_epoch]
                  for name in ("acc", "nmi", "ari")}  # fmt: skip
        charts = {"scores, %": line_chart("scores in percent", scores)} | charts
    return {title: chart for title, chart in charts.items() if chart}


def _confusion(data: RunData) -> dict:
    """The confusion matrix with clusters in the order of their classes, or the largest errors of a large one."""
    table = data.confusion
    if table is None:
        return {"matrix": [], "errors": []}
    order = sorted(range(data.clusters), key=lambda cluster: (data.match.get(cluster, len(table[0])), cluster))
    if table.size <= MOST_CELLS:
        most = table.max()
        rows = [(cluster, [(int(n), round(55 * n / most), data.match.get(cluster) == c)
                           for c, n in enumerate(table[cluster])]) for cluster in order]  # fmt: skip
        return {"matrix": rows, "errors": []}
    wrong = table.copy()
    for cluster, label in data.match.items():
        wrong[cluster, label] = 0
    largest = np.argsort(-wrong, axis=None, kind="stable")[:MOST_ERRORS]
    places = [(int(c), int(k)) for c, k in zip(*np.unravel_index(largest, wrong.shape))]
    return {"matrix": [], "errors": [(c, data.classes[k], int(wrong[c, k])) for c, k in places if wrong[c, k]]}
