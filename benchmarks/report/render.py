"""From runs.csv to the figures, tables.md, tables.tex, claims.md, and report/index.html, with templates/."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from benchmarks.report import claims, formats, inference, significance
from benchmarks.report.aggregate import FOOTNOTES, aggregate, rows_of
from benchmarks.report.figures import write_figures
from benchmarks.report.page import page_context
from benchmarks.report.published import published_scores
from benchmarks.report.run_page import MOST_BYTES, page_name, write_run_page
from benchmarks.report.runs import STATUSES, read_runs, runs_of, unfinished
from benchmarks.report.tables import Table, citation, header, origins, tables_by_protocol
from benchmarks.study import find_run
from scl.engine.io import atomic
from scl.util.text import duration

SUPERSCRIPT = str.maketrans("abcdefgh", "ᵃᵇᶜᵈᵉᶠᵍʰ")
ESCAPES = {".md": formats.escape_markdown, ".tex": formats.escape_latex, ".html": formats.escape_html}


def write_report(study, folder: Path, *, page: bool = True) -> list[Path]:
    """Write everything made from `folder`/runs.csv into `folder`, the page only if requested; return the paths."""
    runs = read_runs(study, folder)
    groups = aggregate(study, runs)
    pairs = significance.comparisons(study, runs, groups)
    verdicts = significance.verdicts(study, pairs)
    gains, without_gains = claims.gains(study, pairs)
    figures = write_figures(study, groups, folder)
    context = {
        "name": study.results.name,
        "title": study.title,
        "header": header(study, runs),
        "origins": origins(study),
        "protocols": tables_by_protocol(study, runs, groups, pairs),
        "reference": study.reference,
        "comparisons": list(pairs.itertuples()),
        "verdicts": verdicts,
        "statements": claims.statements(study, verdicts),
        "gains": gains,
        "without_gains": without_gains,
        "skipped": [f"Not run: {name} ({reason})." for name, reason in study.skipped.items()],
        "descriptions": claims.across_benchmarks(study, groups, pairs),
        "without_verdict": list(dict.fromkeys((v.protocol, v.reason) for v in verdicts if not v.benchmarks)),
        "published": list(groups[groups.published.notna() & (groups.absence == "")].itertuples()),
        "statuses": {status: count for status in STATUSES if (count := (runs.status == status).sum())},
        "runs": list(runs.astype(object).where(runs.notna(), None).itertuples()),
    }
    paths = [folder / "tables.md", folder / "tables.tex", folder / "claims.md"]
    if page:
        context |= page_context(study, runs, groups, context["protocols"], folder, template("run.html"))
        paths.append(folder / "report" / "index.html")
    for path in paths:
        with atomic(path) as temporary:
            temporary.write_text(template(path.name).render(context), encoding="utf-8")
    return paths + figures


def add_gallery(study, name: str, *, partial: bool = False) -> Path:
    """Rewrite the page of the run called `name`, with its gallery, in the existing report; return its path.

    The report is the partial one if a run of the study is not done, or if `partial`. Raises ValueError if there is no
    such run, or no page of it because it is not done.
    """
    run, runs = find_run(study, name), runs_of(study)
    folder = study.results / "partial" if partial or unfinished(runs) else study.results
    path = folder / "report" / "runs" / page_name(run)
    row = next(row for planned, row in zip(study.runs(), rows_of(runs)) if planned == run)
    if row.status != "done" or not path.exists():
        why = "it has no page yet" if row.status == "done" else row.reason
        raise ValueError(f"--gallery: {name}: {why}; run `scl report` once the run is done")
    write_run_page(study, run, row, path, template("run.html"), MOST_BYTES)
    return path


@cache
def template(name: str) -> jinja2.Template:
    """The template of a file. Printed values are plain text and escaped for its format, unless marked as safe."""
    escape = ESCAPES[Path(name).suffix]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmarks.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(escape(value)),
    )
    environment.globals |= {"FOOTNOTES": FOOTNOTES} | {
        name: getattr(inference, name) for name in ("LEVEL", "POWER", "EXACT_UP_TO")
    }
    environment.filters |= {
        "aligned": aligned,
        "citation": citation,
        "code": lambda text: Markup(formats.code(text)),
        "duration": duration,
        "interval": lambda pair: formats.interval(pair.low, pair.high),
        "number": formats.number,
        "one_line": formats.one_line,
        "p_value": formats.p_value,
        "points": formats.points,
        "preformatted": formats.preformatted,
        "published_scores": published_scores,
        "smallest_p": inference.smallest_p,
        "superscript": lambda letters: letters.translate(SUPERSCRIPT),
    }
    return environment.get_template(name)


def aligned(table: Table) -> list[Markup]:
    """The lines of a GitHub Markdown table, columns padded so that the source is readable."""
    lines = [[formats.escape_markdown(column) for column in table.columns]]
    for row in table.rows:
        texts = ((formats.escape_markdown(cell.text), cell.footnotes.translate(SUPERSCRIPT)) for cell in row)
        lines.append([" ".join(filter(None, text)) for text in texts])
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    return [Markup(f"| {' | '.join(map(str.ljust, line, widths))} |") for line in lines]
