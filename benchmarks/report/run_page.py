"""A page for each run: settings, provenance, curves, confusion matrix, a map, and a gallery of its clusters."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.bars import ProgressBar
from benchmarks.evaluation.clusters import FILE, Clusters
from benchmarks.overview import log_of
from benchmarks.report.aggregate import KEYS, rows_of
from benchmarks.report.charts import line_chart, scatter
from benchmarks.report.gallery import gallery
from benchmarks.state import Metrics
from scl.engine.artifacts import ASSIGNMENTS, CLUSTERING, Record, load, read
from scl.engine.io import Damaged, atomic
from scl.engine.prepared import describe

ALL_GALLERIES = 50  # up to this many runs, each gets a gallery; in larger studies, one seed per cell does
ALL_BYTES, MOST_BYTES = 10_000_000, 1_500_000  # of the galleries of a study, of one
MOST_CELLS = 900  # of a confusion matrix; of larger ones, only the largest errors are shown
MOST_ERRORS = 30
LINKED = ("run.yaml", "record.json", CLUSTERING, "metrics.json", FILE, "history.csv", ASSIGNMENTS, "failure.json")


def write_run_pages(study, runs: pd.DataFrame, folder: Path, template) -> dict[tuple, Path]:
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
            path = pages / page_name(run)
            write_run_page(study, run, row, path, template, budget if row.Index in chosen.index else None)
            written[row.protocol, row.benchmark, row.stage, row.seed] = path
            bar.update()
    for stale in set(pages.glob("[!.]*.html")) - set(written.values()):
        stale.unlink(missing_ok=True)
    return written


def page_name(run) -> str:
    return f"{run.benchmark}-{run.protocol}-{run.stage}-seed{run.seed}.html"


def write_run_page(
    study, run, row, path: Path, template, budget: int | None, *, data: Clusters | None = None, **further
) -> None:
    """Write the page of a run to `path`.

    row: of runs.csv. budget: bytes of the gallery, None for a page without one. data: by default that of clusters.json.
    further: variables of run.html; `downloads` are names of files beside the page, `index` is the page of all runs.
    """
    files = [*(run.directory / name for name in LINKED), log_of(run.directory)]
    settings = run.directory / "run.yaml"
    context: dict[str, Any] = {
        "run": run, "row": row, "charts": {}, "record": None, "data": None, "gallery": [], "problem": "",
        "links": {file.name: os.path.relpath(file, path.parent) for file in files if file.exists()},
        "settings": settings.read_text(encoding="utf-8", errors="replace") if settings.exists() else "",
        "index": "../index.html", "title": "", "downloads": [], "hint": "", "measure": "", "agreement": {}, "map": None,
        "weights": "", "left_out": 0,
    }  # fmt: skip
    if row.status == "done":
        context |= _found(study, run, data, budget)
    with atomic(path) as temporary:
        temporary.write_text(template.render(context | further), encoding="utf-8")


def _found(study, run, data: Clusters | None, budget: int | None) -> dict:
    """What run.html shows of a finished run."""
    context: dict[str, Any] = {}
    folder = study.data / run.benchmark
    try:
        record, metrics = load(run.directory), read(run.directory / "metrics.json", Metrics)
        assert record and metrics  # of a done run
        context |= {"record": record, "charts": _charts(run.directory / "history.csv", metrics)}
        data = data or read_clusters(run.directory, metrics)
    except (OSError, ValueError) as error:
        return context | {"problem": str(error)}
    images, absence = read_images(record, folder) if budget else (None, "")
    clusters, size = gallery(data, images, budget) if budget and images is not None else ([], 0)
    context |= {"data": data, "gallery": clusters, "gallery_mb": size / 1e6, "absence": absence}
    return context | {"with_gallery": budget is not None, "map": scatter(data), **_confusion(data)}


def _charts(history: Path, metrics: Metrics) -> dict:
    """{title: SVG}: each term of the loss, the learning rate, the scores."""
    table = pd.read_csv(history)
    names = [name for name in table.columns if name not in ("epoch", "steps", "seconds")]
    points = {name: list(zip(table["epoch"], pd.to_numeric(table[name], "coerce"))) for name in names}
    charts = {name.replace("_", " "): line_chart(name, {name: values}) for name, values in points.items()}
    if len(metrics.per_epoch) > 1:
        scores = {name.upper(): [(p.epoch, 100 * getattr(p, name)) for p in metrics.per_epoch]
                  for name in ("acc", "nmi", "ari")}  # fmt: skip
        charts = {"scores, %": line_chart("scores in percent", scores)} | charts
    return {title: chart for title, chart in charts.items() if chart}


def _confusion(data: Clusters) -> dict:
    """The confusion matrix with clusters in the order of their classes, or the largest errors of a large one."""
    if not data.confusion:
        return {"matrix": [], "errors": []}
    table = np.array(data.confusion)
    order = sorted(range(len(table)), key=lambda k: (data.match[k] if data.match[k] >= 0 else len(table[0]), k))
    if table.size <= MOST_CELLS:
        most = table.max()
        rows = [(cluster, [(int(n), round(55 * n / most), data.match[cluster] == c)
                           for c, n in enumerate(table[cluster])]) for cluster in order]  # fmt: skip
        return {"matrix": rows, "errors": []}
    matched = [cluster for cluster in order if data.match[cluster] >= 0]
    table[matched, [data.match[cluster] for cluster in matched]] = 0
    largest = np.argsort(-table, axis=None, kind="stable")[:MOST_ERRORS]
    places = [(int(c), int(k)) for c, k in zip(*np.unravel_index(largest, table.shape))]
    return {"matrix": [], "errors": [(c, data.classes[k], int(table[c, k])) for c, k in places if table[c, k]]}


def read_clusters(directory: Path, metrics: Metrics) -> Clusters:
    """clusters.json of a finished run. Raises ValueError if it is damaged or was not written with its metrics."""
    found = None
    with suppress(Damaged):
        found = read(directory / FILE, Clusters)
    if found is None or found.of != metrics.of.model_dump():
        raise ValueError(
            f"{FILE} is missing, damaged, or of another evaluation; evaluate this run again (scl evaluate)"
        )
    return found


def read_images(record: Record, folder: Path) -> tuple[np.ndarray | None, str]:
    """(the images in the data folder [N, H, W, 3] or None, why there are none)"""
    if not folder.exists():  # without the path: a committed page must be the same on every machine
        return None, f"{folder.name} is not prepared on this machine (scl prepare {folder.name})"
    try:
        if describe(folder)["images_sha256"] != record.images_sha256:
            return None, "the data folder contains other images than those of this run"
        return np.load(folder / "images.npy", mmap_mode="r"), ""
    except (OSError, ValueError) as error:
        return None, str(error)
