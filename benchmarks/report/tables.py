"""tables.md and tables.tex: what the runs of a study scored, with all that is needed to judge the numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from benchmarks.evaluation.statistics import MINIMUM_FOR_INTERVAL, Summary
from benchmarks.report.cells import MARKS, Cell, Grid, read_grid
from benchmarks.report.compare import Pair, pairs_of
from benchmarks.report.formats import number, p_value, points
from benchmarks.report.layout import Table, Text, code, escape_markdown, latex, markdown, one_line
from benchmarks.report.published import Published, published_for, reconstruction_note
from scl.record import atomic
from scl.text import duration

SCORES = {"acc": "ACC", "nmi": "NMI", "ari": "ARI"}
PROTOCOLS = {
    "joint": "trained and evaluated on the same images",
    "heldout": "trained on the training images, evaluated on the test images",
}


def write_tables(study, folder: Path) -> list[Path]:
    """Write tables.md and tables.tex into `folder` from its runs.csv; return their paths."""
    grid = read_grid(study, folder)
    markdown_path, latex_path = folder / "tables.md", folder / "tables.tex"
    with atomic(markdown_path) as temporary:
        temporary.write_text(_markdown_page(study, grid), encoding="utf-8")
    with atomic(latex_path) as temporary:
        head = [f"% {one_line(line)}" for line in header(study, grid)]
        body = [latex(table) for tables in tables_by_protocol(study, grid).values() for table in tables]
        temporary.write_text(
            "\n".join(head + ["% needs \\usepackage{booktabs}", ""] + body), encoding="utf-8"
        )
    return [markdown_path, latex_path]


def _markdown_page(study, grid: Grid) -> str:
    parts = [
        f"# {escape_markdown(study.title or 'Results')} (study {code(study.results.name)})\n",
        "\n".join(f"- {escape_markdown(line)}" for line in header(study, grid)) + "\n",
    ]
    for protocol, tables in tables_by_protocol(study, grid).items():
        parts.append(f"## Protocol: {escape_markdown(protocol)}\n")
        if protocol in PROTOCOLS:
            parts.append(f"{PROTOCOLS[protocol].capitalize()}. Never compared with another protocol.\n")
        parts += [markdown(table) for table in tables]
    if origins := origins_of(study):
        parts += ["## Where the settings come from\n", "\n".join(f"- {escape_markdown(line)}" for line in origins) + "\n"]
    return "\n".join(parts)


def header(study, grid: Grid) -> list[str]:
    """What all tables of a study have in common, one statement a line."""
    done = [row for row in grid.rows if row.status == "done"]
    counts = Counter(row.status for row in grid.rows)
    others = ", ".join(
        f"{counts[status]} {status}" for status in ("failed", "missing", "skipped") if counts[status]
    )
    lines = [
        f"Runs: {counts['done']} of {len(grid.rows)} planned are done"
        + (f"; {others}" if others else "")
        + "."
    ]
    if not grid.rows:
        lines = ["No run is planned: the study names no benchmark, method or seed."]
    lines += [f"Not run: {name} ({reason})." for name, reason in study.skipped.items()]
    if done:
        lines += [
            f"Commit: {_counted(_commit(row) for row in done)}. "
            f"Device: {_counted(map(_device, done))}. PyTorch: {_counted(row.torch for row in done)}.",
            f"Training and assignment of all runs together: {_spent(done)}.",
        ]
    return lines + [
        "Scores in percent: ACC by optimal one-to-one matching, NMI with the arithmetic mean of the "
        "entropies, ARI. Mean over n seeds ± standard deviation (n - 1); a part of the planned seeds is "
        "never averaged.",
        'The evaluated model is that of the last epoch. No label is read before it is trained; "oracle" is '
        "the ACC of the best of the few epochs whose assignments are kept (those of the curves), which only "
        "labels can tell.",
        "Time a run: training and assignment of one seed, with the stages it builds on; epochs and the time of "
        "one: of the stage alone, what comes before and after its epochs included; both times means over the "
        "seeds. "
        "Memory: peak, largest of the seeds; of the device on a GPU, of the process on a CPU.",
    ]


def origins_of(study) -> list[str]:
    """What the configuration says on the origin of each method's settings."""
    return [
        f"{block.title or stage}: {' '.join(study.origin(stage).split())}"
        for stage, block in study.methods.items()
        if study.origin(stage)
    ]


def _commit(row) -> str:
    return row.commit[:10] + (" with uncommitted changes" if row.dirty else "")


def _device(row) -> str:
    threads = f", {row.threads} thread{'s' if row.threads > 1 else ''}" if row.on_cpu else ""
    return row.device + threads


def _spent(done) -> str:
    """'3.1 GPU-hours, 0.2 CPU-hours': of wall-clock time, a run after the other."""
    hours = {"GPU": 0.0, "CPU": 0.0}
    for row in done:
        hours["CPU" if row.on_cpu else "GPU"] += row.seconds / 3600
    return ", ".join(f"{spent:.2f} {kind}-hours" for kind, spent in hours.items() if spent)


def _counted(values) -> str:
    counts = Counter(value or "unknown" for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(
        f"{value} ({count} run{'s' if count > 1 else ''})" for value, count in counts.most_common()
    )


def tables_by_protocol(study, grid: Grid) -> dict[str, list[Table]]:
    """All tables: for each protocol ACC over all benchmarks, the differences, and each benchmark in full."""
    pairs, found = pairs_of(study, grid), {}
    for protocol, by_benchmark in grid.cells.items():
        overview = [_overview(study, grid, protocol)] if len(by_benchmark) > 1 else []
        own = [pair for pair in pairs if pair.protocol == protocol]
        differences = [_differences(study, grid, protocol, own)] if any(pair.acc for pair in own) else []
        ran = [name for name in by_benchmark if name not in study.skipped]
        found[protocol] = (
            overview + [_detail(study, protocol, name, by_benchmark[name]) for name in ran] + differences
        )
    return found


def _overview(study, grid: Grid, protocol: str) -> Table:
    by_benchmark, rows = grid.cells[protocol], []
    for stage, title in grid.stages(protocol).items():
        cells = [by_stage.get(stage) for by_stage in by_benchmark.values()]
        rows.append(
            (Text(title), *(Text("not planned") if cell is None else _score(cell, "acc") for cell in cells))
        )
    sizes = {len(cell.rows) for by_stage in by_benchmark.values() for cell in by_stage.values()}
    seeds = f", n = {sizes.pop()} seeds" if len(sizes) == 1 else ""
    return _table(f"ACC on all benchmarks ({protocol}){seeds}", ("Method", *by_benchmark), rows)


def _detail(study, protocol: str, benchmark: str, by_stage: dict[str, Cell]) -> Table:
    published = {stage: published_for(study, stage, protocol, benchmark) for stage in by_stage}
    shown = any(published.values())
    columns = ("Method", "n", *SCORES.values(), "oracle", "epochs", "time a run", "an epoch", "memory")
    rows, notes = [], []
    for stage, cell in by_stage.items():
        beside = (Text(published_scores(published[stage])),) if shown else ()
        values = (
            _score(cell, "acc"),
            *(Text(number(cell.summary(score))) for score in ("nmi", "ari", "oracle_acc")),
        )
        rows.append(
            (
                Text(cell.title),
                Text(str(len(cell.done))),
                *values,
                Text(epochs(cell)),
                Text(duration(cell.mean("chain_seconds"))),
                Text(duration(an_epoch(cell))),
                Text(memory(cell)),
                *beside,
            )
        )
        notes += _notes_of(cell, published[stage])
    if shown:
        columns += ("published ACC / NMI / ARI",)
    images = study.images_note(benchmark)
    notes = ([f"Images: {images}."] if images else []) + notes + _settings_notes(study, benchmark, by_stage)
    return _table(f"{benchmark} ({protocol})", columns, rows, list(dict.fromkeys(notes)))


def _settings_notes(study, benchmark: str, by_stage: dict[str, Cell]) -> list[str]:
    """What must be said of the methods' forms and settings, once for all methods of which it holds."""
    titles = {}
    for stage, cell in by_stage.items():
        for note in (reconstruction_note(study, stage), study.note(stage, benchmark)):
            if note:
                titles.setdefault(" ".join(note.split()), []).append(cell.title)
    return [f"{', '.join(found)}: {note}" for note, found in titles.items()]


def _notes_of(cell: Cell, published: Published | None) -> list[str]:
    notes = []
    if published:
        average = "; NMI with the geometric mean" if published.nmi_average == "geometric" else ""
        notes.append(
            f"published, {cell.title}: {published.source}, {published.statistic}{average}"
            f"{schedules(cell, published)}."
        )
    reasons = dict.fromkeys(
        f"{cell.title}, seed {row.seed}: {row.status}: {row.reason}."
        for row in cell.rows
        if row.status != "done" and row.reason not in ("", "not run")
    )
    return notes + [*reasons, *_oddities(cell)]


def _oddities(cell: Cell) -> list[str]:
    """What happened while training or came out of it that the scores alone do not tell."""
    empty = [str(row.seed) for row in cell.done if row.smallest_share == 0]
    notes = [f"{cell.title}: a cluster without an image in seed {', '.join(empty)}."] if empty else []
    return notes + [f"{cell.title}, seed {row.seed}: {row.counts}." for row in cell.done if row.counts]


def schedules(cell: Cell, published: Published) -> str:
    """'; 200 epochs there, 80 here', as far as both are known."""
    here = sorted({row.epochs for row in cell.done})
    if published.epochs is None or not here or here == [published.epochs]:
        return ""
    return f"; {published.epochs} epochs there, {' or '.join(map(str, here))} here"


def _differences(study, grid: Grid, protocol: str, pairs: list[Pair]) -> Table:
    title = grid.stages(protocol)[study.reference]
    benchmarks = [name for name in grid.cells[protocol] if name not in study.skipped]
    by_place = {(pair.other.rows[0].stage, pair.benchmark): pair for pair in pairs}
    rows = []
    for stage, name in grid.stages(protocol).items():
        if stage != study.reference:
            places = [by_place.get((stage, benchmark)) for benchmark in benchmarks]
            rows.append(
                (Text(name), *(Text(_difference(pair) if pair else "not planned") for pair in places))
            )
    return _table(
        f"Difference to {title} in ACC, points ({protocol})",
        ("Method", *benchmarks),
        rows,
        [
            "Mean of the differences over the seeds ± standard deviation (n - 1); p: paired "
            "t-test, two-sided, adjusted by Holm's method over all comparisons of the study. claims.md has "
            f"the intervals, from {MINIMUM_FOR_INTERVAL} seeds on."
        ],
    )


def _difference(pair: Pair) -> str:
    if pair.absence:
        return "–"
    change = pair.acc.difference
    turned = Summary(-change.mean, change.sd, change.n, None, None)
    return f"{number(turned, signed=True)} ({p_value(pair.p) if pair.p is not None else 'too few seeds'})"


def _table(caption: str, columns: tuple[str, ...], rows: list, notes: list[str] = ()) -> Table:
    used = {letter for row in rows for cell in row for letter in cell.marks}
    return Table(
        caption, columns, rows, list(notes), {key: text for key, text in MARKS.items() if key in used}
    )


def _score(cell: Cell, score: str) -> Text:
    return Text(cell.absence or number(cell.summary(score)), cell.marks)


def epochs(cell: Cell) -> str:
    """'80', '40 to 80' if the seeds differ, '–' without a finished run or for a method that does not train."""
    counts = sorted({row.epochs for row in cell.done})
    return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if any(counts) else "–"


def an_epoch(cell: Cell) -> float | None:
    """Seconds of a stage by its epochs, mean over the seeds; None where it has no epochs."""
    seconds, epochs = cell.mean("seconds"), cell.mean("epochs")
    return seconds / epochs if seconds is not None and epochs else None


def memory(cell: Cell) -> str:
    """Largest peak of the seeds, in MB (10^6 bytes) or GB."""
    values = [row.peak_memory_mb for row in cell.done if row.peak_memory_mb is not None]
    if not values:
        return "–"
    return f"{max(values):.0f} MB" if max(values) < 1000 else f"{max(values) / 1000:.1f} GB"


def published_scores(published: Published | None) -> str:
    """'64.5 / 56.1 / 46.7 (mean)', '' if nothing is published."""
    if published is None:
        return ""
    values = (
        "–" if value is None else f"{100 * value:.1f}"
        for value in (published.acc, published.nmi, published.ari)
    )
    return f"{' / '.join(values)} ({published.statistic})"
