"""The tables of a study as data: groups of runs (aggregate.py) as text cells, with the notes below each table.

All texts are plain: render.py and its templates escape them for Markdown, LaTeX, and HTML.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import starmap
from typing import Any, NamedTuple, cast

import pandas as pd

from benchmarks.report.aggregate import FOOTNOTES, KEYS, on_cpu, rows_of
from benchmarks.report.formats import interval, memory, number
from benchmarks.report.published import RECONSTRUCTED, STATISTICS
from scl.util.text import duration

DIFFERENCES = (
    "Paired, runs of one seed that share an encoder: mean ± standard deviation (n − 1) of the differences per seed, "
    "and the 95 % t interval of the mean. Unpaired, all others: the difference of the means, and Welch's 95 % "
    "interval. This table describes; the tests, and what these seeds can detect, are in claims.md."
)
TUNED = "†: hyper-parameters were chosen on this data set, so it is not part of the study's verdicts."


class Cell(NamedTuple):
    """The text of a table cell, the letters of its footnotes, and the values of single seeds that it averages."""

    text: str
    footnotes: str = ""
    seeds: str = ""


@dataclass(frozen=True)
class Table:
    """A caption, column names (the first names the rows), rows of one cell per column, and notes below.

    stages: one per row. benchmark: that of all columns, or "".
    """

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str]
    stages: list[str] = field(default_factory=list)
    benchmark: str = ""

    @property
    def footnotes(self) -> dict[str, str]:
        """The footnotes in use: letter -> meaning."""
        used = "".join(cell.footnotes for row in self.rows for cell in row)
        return {letter: meaning for letter, meaning in FOOTNOTES.items() if letter in used}


def header(study, runs: pd.DataFrame) -> list[str]:
    """Facts shared by all tables of a study, one per line."""
    if runs.empty:
        return ["No runs are planned: the study has no benchmark, method, or seed."]
    counts = runs.status.value_counts()
    others = ", ".join(f"{counts[name]} {name}" for name in ("failed", "missing", "skipped") if name in counts)
    lines = [f"Runs: {counts.get('done', 0)} of {len(runs)} done{others and f'; {others}'}."]
    lines += [f"Not run: {name} ({reason})." for name, reason in study.skipped.items()]
    done = runs[runs.status == "done"]
    if len(done):
        cpu = on_cpu(done)
        commits = done.commit.str[:10] + done.dirty.map({True: " with uncommitted changes", False: ""})
        threads = ", " + done.threads.astype(str) + (done.threads > 1).map({True: " threads", False: " thread"})
        devices = done.device + threads.where(cpu, "")
        hours = {"GPU": done.seconds[~cpu].sum() / 3600, "CPU": done.seconds[cpu].sum() / 3600}
        spent = ", ".join(f"{value:.2f} {kind}-hours" for kind, value in hours.items() if value)
        lines.append(f"Commit: {_counted(commits)}. Device: {_counted(devices)}. PyTorch: {_counted(done.torch)}.")
        lines += [f"Packages: {_counted(done.packages)}."] if done.packages.any() else []
        lines.append(f"Total time for training and assignment: {spent}.")
    return lines


def _counted(values: pd.Series) -> str:
    counts = Counter(value or "unknown" for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count} run{'s' if count > 1 else ''})" for value, count in counts.most_common())


def origins(study) -> list[str]:
    """Where the settings of each method come from, according to the configuration."""
    texts = [(block.title or stage, " ".join(block.origin.split())) for stage, block in study.methods.items()]
    return [f"{title}: {text}" for title, text in texts if text]


def tables_by_protocol(study, runs: pd.DataFrame, groups: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, list[Table]]:
    """For each protocol: ACC on all benchmarks, one table per benchmark, and the differences to the reference."""
    found: dict[str, list[Table]] = {}
    runs_by_group = dict(iter(runs.groupby(KEYS)))
    for protocol, part in cast(Any, groups.groupby("protocol", sort=False)):
        ran = part[~part.benchmark.isin(list(study.skipped))]
        compared = pairs[pairs.protocol == protocol]
        found[protocol] = tables = []
        if part.benchmark.nunique() > 1:
            n = int(part.planned.iloc[0])
            seeds = f", n = {n} seed{'s' * (n != 1)}" if part.planned.nunique() == 1 else ""
            tables.append(_by_benchmark(study, f"ACC on all benchmarks ({protocol}){seeds}", part, part, _acc))
        tables += [_by_method(study, group, runs_by_group) for _, group in ran.groupby("benchmark", sort=False)]
        if (compared.absence == "").any():
            caption = f"ACC difference to {compared.reference.iloc[0].title} in percentage points ({protocol})"
            tables.append(_by_benchmark(study, caption, compared, ran, _difference, DIFFERENCES))
    return {protocol: tables for protocol, tables in found.items() if tables}


def _by_benchmark(study, caption: str, items: pd.DataFrame, groups: pd.DataFrame, cell, *notes: str) -> Table:
    """One row per stage of `items`, one column per benchmark of `groups`. cell: function from an item to a Cell."""
    rows, stages, benchmarks = [], [], list(groups.benchmark.unique())
    for stage, of_stage in cast(Any, items.groupby("stage", sort=False)):
        stages.append(stage)
        cells = {item.benchmark: cell(item) for item in rows_of(of_stage)}
        rows.append([Cell(of_stage.title.iloc[0]), *(cells.get(name, Cell("not planned")) for name in benchmarks)])
    tuned = [study.tuned(name) for name in benchmarks]
    columns = [f"{name} †" if marked else name for name, marked in zip(benchmarks, tuned, strict=True)]
    return Table(caption, ["Method", *columns], rows, [*notes, *[TUNED] * any(tuned)], stages)


def _acc(group) -> Cell:
    return Cell(group.absence or number(group.acc, group.acc_sd), group.footnotes, _seeds(group.accuracies))


def _mean(group, runs: pd.DataFrame, score: str) -> Cell:
    text = number(getattr(group, score), getattr(group, f"{score}_sd"))
    return Cell(text, seeds=_seeds(runs.set_index("seed")[score].dropna()))


def _seeds(values: dict[int, float] | pd.Series) -> str:
    """Scores in percent, such as 'seed 0: 95.30, seed 1: 94.12'."""
    return ", ".join(f"seed {seed}: {100 * value:.2f}" for seed, value in values.items())


def _difference(pair) -> Cell:
    if pair.absence:
        return Cell("–")
    mean = number(-pair.acc, pair.acc_sd if pair.paired else float("nan"), signed=True)
    return Cell(f"{mean} ({interval(-pair.high, -pair.low)})", "" if pair.paired else "f")


def _by_method(study, groups: pd.DataFrame, runs_by_group: dict) -> Table:
    """All results on one benchmark under one protocol, one row per stage."""
    protocol, benchmark = groups.protocol.iloc[0], groups.benchmark.iloc[0]
    images = study.images_note(benchmark)
    rows, notes = [], [f"Images: {images}."] * bool(images) + [TUNED] * study.tuned(benchmark)
    for group in rows_of(groups):
        runs = runs_by_group[protocol, benchmark, group.stage]
        cells = {
            "Method": Cell(group.title),
            "n": Cell(str(group.n)),
            "ACC": _acc(group),
            "95 % interval": Cell(interval(group.acc_low, group.acc_high, signed=False)),
            "NMI": _mean(group, runs, "nmi"),
            "ARI": _mean(group, runs, "ari"),
            "oracle": _mean(group, runs, "oracle_acc"),
            "epochs": Cell(str(group.epochs or "–")),
            "time / run": Cell(duration(group.chain_seconds)),
            "time / epoch": Cell(duration(group.seconds / group.epochs if group.epochs else None)),
            "memory": Cell(memory(group.peak_memory)),
            "published ACC / NMI / ARI": Cell(""),
        }
        if published := group.published:
            scores = " / ".join(map(number, (published.acc, published.nmi, published.ari)))
            cells["published ACC / NMI / ARI"] = Cell(f"{scores} ({published.statistic})")
            notes.append(f"Published result for {group.title}: {citation(group)}.")
        rows.append(list(cells.values()))
    notes += _notes(study, groups, runs_by_group)
    shown = len(cells) - groups.published.isna().all()
    caption = f"{benchmark}{' †' if study.tuned(benchmark) else ''} ({protocol})"
    return Table(caption, list(cells)[:shown], [row[:shown] for row in rows], notes, list(groups.stage), benchmark)


def citation(group) -> str:
    """Source and kind of a published result: 'PICA (CVPR 2020) Table 1 (mean over runs; 400 epochs there, 80 here)'."""
    published, here = group.published, group.epochs
    details = [STATISTICS[published.statistic]]
    if published.nmi_average == "geometric":
        details.append("NMI with the geometric mean of the entropies")
    if published.epochs and here not in (0, published.epochs):
        details.append(f"{published.epochs} epochs there, {here} here")
    return f"{published.source} ({'; '.join(details)})"


def _notes(study, groups: pd.DataFrame, runs_by_group: dict) -> list[str]:
    """Why runs are not done, empty clusters, counted events, and notes on settings; identical notes are merged."""
    subjects: dict[str, dict[str, list[int]]] = {}  # {text: {method: seeds}}
    for group in rows_of(groups):
        for run in rows_of(runs_by_group[group.protocol, group.benchmark, group.stage]):
            reason = f"{run.status}: {run.reason}" if run.status != "done" and run.reason not in ("", "not run") else ""
            for text in filter(None, (reason, _empty(run), run.counts)):
                subjects.setdefault(f"{text}.", {}).setdefault(group.title, []).append(run.seed)
        reconstructed = RECONSTRUCTED.get(study.methods[group.stage].method, "")
        for text in filter(None, (reconstructed, study.note(group.stage, group.benchmark))):
            subjects.setdefault(" ".join(text.split()), {})[group.title] = []
    return [f"{'; '.join(starmap(_subject, of_text.items()))}: {text}" for text, of_text in subjects.items()]


def _empty(run) -> str:
    return f"{run.clusters - run.clusters_used} of {run.clusters} clusters empty" if run.smallest_share == 0 else ""


def _subject(method: str, seeds: list[int]) -> str:
    return f"{method}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else method
