"""From runs.csv to the figures, tables.md, tables.tex, claims.md and report/index.html, by the templates beside it."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2
from markupsafe import Markup

from benchmarks.report.aggregate import aggregate
from benchmarks.report.claims import sections
from benchmarks.report.figures import write_figures
from benchmarks.report.formats import code, escape_html, escape_latex, escape_markdown, one_line
from benchmarks.report.runs import STATUSES, read_runs
from benchmarks.report.significance import comparisons
from benchmarks.report.tables import PROTOCOLS, Table, header, origins, tables_by_protocol
from scl.engine.io import atomic
from scl.util.text import duration

SUPERSCRIPT = str.maketrans("abcdef", "ᵃᵇᶜᵈᵉᶠ")
ESCAPES = {".md": escape_markdown, ".tex": escape_latex, ".html": escape_html}


def write_report(study, folder: Path) -> list[Path]:
    """Write everything that is made from `folder`/runs.csv into `folder`; return the paths."""
    runs = read_runs(folder)
    cells = aggregate(study, runs)
    pairs = comparisons(study, runs, cells)
    figures = write_figures(study, cells, folder)
    images = {path.stem: base64.b64encode(path.read_bytes()).decode() for path in figures if path.suffix == ".svg"}
    tables = tables_by_protocol(study, runs, cells, pairs)
    context = {
        "name": study.results.name,
        "title": study.title,
        "header": header(study, runs),
        "origins": origins(study),
        "protocols": [(name, PROTOCOLS.get(name), found) for name, found in tables.items()],
        "sections": sections(study, runs, cells, pairs),
        "images": images,
        "statuses": [(status, count) for status in STATUSES if (count := (runs.status == status).sum())],
        "runs": list(runs.astype(object).where(runs.notna(), None).itertuples()),
    }
    paths = [folder / "tables.md", folder / "tables.tex", folder / "claims.md", folder / "report" / "index.html"]
    for path in paths:
        with atomic(path) as temporary:
            temporary.write_text(template(path.name).render(context), encoding="utf-8")
    return paths + figures


def template(name: str) -> jinja2.Template:
    """The template of a file. What it prints is plain text and is escaped for its format, unless marked as safe."""
    suffix = Path(name).suffix
    escape = ESCAPES[suffix]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmarks.report"), undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(escape(value)),
    )  # fmt: skip
    environment.filters |= {
        "code": lambda text: Markup(code(text)),
        "one_line": one_line,
        "aligned": aligned,
        "duration": duration,
        "notes": lambda table: notes(table, superscript=suffix != ".tex"),
    }
    return environment.get_template(name)


def notes(table: Table, *, superscript: bool) -> list[str]:
    """What is written below a table: its footnotes, then its notes."""
    letters = SUPERSCRIPT if superscript else {}
    return [*(f"{letter.translate(letters)} {meaning}." for letter, meaning in table.marks.items()), *table.notes]


def aligned(table: Table) -> list[Markup]:
    """The lines of a GitHub Markdown table, columns padded so that the source can be read as it stands."""
    lines = [[escape_markdown(column) for column in table.columns]]
    for row in table.rows:
        lines.append([escape_markdown(text) + (marks and f" {marks.translate(SUPERSCRIPT)}") for text, marks in row])
    widths = [max(map(len, column)) for column in zip(*lines)]
    padded = [f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines]
    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return [Markup(line) for line in (padded[0], rule, *padded[1:])]
