"""report/index.html: tables, figures, claims and every run with its provenance, in one file without links."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path

from benchmarks.report.cells import Grid, read_grid
from benchmarks.report.claims import Statement, sections
from benchmarks.report.collect import STATUSES, Row
from benchmarks.report.layout import escape_html, to_html
from benchmarks.report.tables import PROTOCOLS, header, origins_of, tables_by_protocol
from scl.record import atomic
from scl.text import duration

FIGURES = {
    "scores": "ACC of each method: mean over the seeds, its bootstrap interval where the seeds are "
    "enough, and every seed.",
    "curves": "ACC of each method while it trains. Labels are used for this display only.",
}
CSS = """
:root { color-scheme: light; --ink: #1d2127; --soft: #5d6672; --line: #dfe3e8; --wash: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 76rem; color: var(--ink); background: #fff;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .6rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
nav a { margin-right: 1.1rem; color: #0b5cad; }
p, li { max-width: 60rem; }
ul { padding-left: 1.2rem; }
.lead { color: var(--soft); margin-top: 0; }
figure { margin: 1.4rem 0 2rem; }
figcaption { font-weight: 600; margin-bottom: .5rem; }
figure img { max-width: 100%; min-width: min(100%, 46rem); height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .32rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--ink); font-weight: 600; }
th:first-child, .runs th, .runs td { text-align: left; }
tbody th { font-weight: 400; }
td.word { white-space: normal; color: var(--soft); font-style: italic; }
tbody tr:hover { background: var(--wash); }
.runs td.number { text-align: right; }
.notes { color: var(--soft); font-size: .85rem; padding-left: 0; list-style: none; margin: .5rem 0 0; }
.status { display: inline-block; min-width: 4.6rem; padding: 0 .5rem; border-radius: .7rem;
  text-align: center;  font-size: .8rem; }
.done { background: #dff2e6; color: #11592d; } .failed { background: #fbdedb; color: #8c1a10; }
.missing { background: #fdf0cf; color: #6b4a00; } .skipped { background: #e9ebee; color: #454c55; }
details { margin: .6rem 0; } summary { cursor: pointer; color: #0b5cad; }
td.why { white-space: normal; min-width: 16rem; } code { font-size: .85em; }
"""


def write_page(study, folder: Path) -> Path:
    """Write and return `folder`/report/index.html, from its runs.csv and figures.

    Raises ValueError if the figures have not been made.
    """
    grid, path = read_grid(study, folder), folder / "report" / "index.html"
    with atomic(path) as temporary:
        temporary.write_text(_page(study, grid, folder), encoding="utf-8")
    return path


def _page(study, grid: Grid, folder: Path) -> str:
    name = escape_html(study.title or study.results.name)
    parts = {
        "Results": _results(study, grid),
        "Figures": _figures(folder),
        "Claims": _claims(study, grid),
        "Settings": _listed(map(escape_html, origins_of(study))),
        "Runs": _runs(grid),
    }
    parts = {title: body for title, body in parts.items() if body}
    links = "".join(f'<a href="#{title.lower()}">{title}</a>' for title in parts)
    body = "\n".join(
        f'<section id="{title.lower()}"><h2>{title}</h2>\n{text}</section>' for title, text in parts.items()
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{name}</title>\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n<header><h1>{name}</h1>\n"
        f'<p class="lead">Study <code>{escape_html(study.results.name)}</code>: deep clustering of images, '
        f"every method trained and evaluated in the same way.</p>\n<nav>{links}</nav></header>\n"
        f"{body}\n</body>\n</html>\n"
    )


def _listed(items) -> str:
    """items: HTML"""
    found = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{found}</ul>\n" if found else ""


def _results(study, grid: Grid) -> str:
    parts = [_listed(map(escape_html, header(study, grid)))]
    for protocol, tables in tables_by_protocol(study, grid).items():
        meaning = f": {PROTOCOLS[protocol]}" if protocol in PROTOCOLS else ""
        parts.append(f"<h3>Protocol {escape_html(protocol + meaning)}</h3>\n")
        parts += [to_html(table) for table in tables]
    return "".join(parts)


def _figures(folder: Path) -> str:
    parts = []
    for name, caption in FIGURES.items():
        path = folder / "figures" / f"{name}.svg"
        if not path.exists():
            raise ValueError(f"{path} is missing: make the figures before the page")
        image = base64.b64encode(path.read_bytes()).decode("ascii")
        parts.append(
            f'<figure><figcaption>{caption}</figcaption>\n<img alt="{caption}" '
            f'src="data:image/svg+xml;base64,{image}"></figure>\n'
        )
    return "".join(parts)


def _claims(study, grid: Grid) -> str:
    return "".join(
        f"<h3>{escape_html(title)}</h3>\n<p>{escape_html(rule)}</p>\n{_listed(map(_stated, found))}"
        for title, rule, found in sections(study, grid)
    )


def _stated(statement: Statement) -> str:
    verdict = f"<strong>{escape_html(statement.verdict)}</strong>." if statement.verdict else ""
    parts = (escape_html(statement.subject), escape_html(statement.finding), verdict, escape_html(statement.caution))
    return " ".join(filter(None, parts))


def _runs(grid: Grid) -> str:
    counts = Counter(row.status for row in grid.rows)
    summary = (
        ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status]) or "none planned"
    )
    names = (
        "benchmark",
        "protocol",
        "method",
        "seed",
        "status",
        "ACC",
        "time",
        "epochs",
        "device",
        "commit",
        "settings",
        "finished",
        "why",
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "\n".join(_run(row) for row in grid.rows)
    return (
        f"<p>{summary}. All columns are in <code>runs.csv</code>; each run's folder holds its settings, its "
        f"record and its assignments.</p>\n<details><summary>Every run</summary>\n"
        f'<div class="scroll"><table class="runs"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>'
        f"</table></div></details>\n"
    )


def _run(row: Row) -> str:
    accuracy = "" if row.acc is None else f"{100 * row.acc:.1f}"
    time = "" if row.seconds is None else duration(row.seconds)
    commit = f"{row.commit[:10]}{' + changes' if row.dirty else ''}"
    epochs = "" if row.epochs is None else row.epochs
    status = escape_html(row.status)
    first = [row.benchmark, row.protocol, row.method, row.seed]
    last = [accuracy, time, epochs, row.device, commit, row.settings, row.finished]
    cells = [*map(escape_html, first), f'<span class="status {status}">{status}</span>', *map(escape_html, last)]
    cells = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr>{cells}<td class="why">{escape_html(row.reason)}</td></tr>'
