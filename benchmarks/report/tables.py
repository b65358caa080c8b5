"""What the tables of a study say, as data: what the runs scored, with all that is needed to judge the numbers.

All texts are plain: render.py and its templates escape them for Markdown, LaTeX and HTML.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import pandas as pd

from benchmarks.report.aggregate import KEYS, MARKS, MINIMUM_FOR_INTERVAL, on_cpu, rows_of
from benchmarks.report.formats import memory, number, p_value
from benchmarks.report.published import RECONSTRUCTED
from scl.util.text import duration

PROTOCOLS = {
    "joint": "trained and evaluated on the same images",
    "heldout": "trained on the training images, evaluated on the test images",
}
EXPLAINED = [
    "Scores in percent: ACC by optimal one-to-one matching, NMI with the arithmetic mean of the entropies, ARI. Mean "
    "over n seeds ± standard deviation (n - 1); a part of the planned seeds is never averaged.",
    'The evaluated model is that of the last epoch. No label is read before it is trained; "oracle" is the ACC of the '
    "best of the few epochs whose assignments are kept (those of the curves), which only labels can tell.",
    "Time a run: training and assignment of one seed, with the stages it builds on; epochs and the time of one: of the "
    "stage alone, what comes before and after its epochs included; both times means over the seeds. "
    "Memory: peak, largest of the seeds; of the device on a GPU, of the process on a CPU.",
]
DIFFERENCES = (
    "Mean of the differences over the seeds ± standard deviation (n - 1); p: paired t-test, two-sided, adjusted by "
    f"Holm's method over all comparisons of the study. claims.md has the intervals, from {MINIMUM_FOR_INTERVAL} seeds "
    "on."
)


class Text(NamedTuple):
    """What a cell of a table says, and the letters of its footnotes."""

    text: str
    marks: str = ""


@dataclass(frozen=True)
class Table:
    """A caption, columns (the first is the name of the row), rows of as many texts, and notes below."""

    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[Text, ...]]
    notes: tuple[str, ...] = ()

    @property
    def marks(self) -> dict[str, str]:
        """The footnotes in use: letter -> what it means."""
        used = {letter for row in self.rows for cell in row for letter in cell.marks}
        return {letter: meaning for letter, meaning in MARKS.items() if letter in used}


def header(study, runs: pd.DataFrame) -> list[str]:
    """What all tables of a study have in common, one statement a line."""
    counts = runs.status.value_counts()
    others = ", ".join(f"{counts[name]} {name}" for name in ("failed", "missing", "skipped") if name in counts)
    lines = [f"Runs: {counts.get('done', 0)} of {len(runs)} planned are done{others and f'; {others}'}."]
    if runs.empty:
        lines = ["No run is planned: the study names no benchmark, method or seed."]
    lines += [f"Not run: {name} ({reason})." for name, reason in study.skipped.items()]
    done = runs[runs.status == "done"]
    if len(done):
        commits = done.commit.str[:10] + done.dirty.map({True: " with uncommitted changes", False: ""})
        threads = ", " + done.threads.astype(str) + (done.threads > 1).map({True: " threads", False: " thread"})
        cpu = on_cpu(done)
        devices = done.device + threads.where(cpu, "")
        hours = {"GPU": done.seconds[~cpu].sum() / 3600, "CPU": done.seconds[cpu].sum() / 3600}
        spent = ", ".join(f"{value:.2f} {kind}-hours" for kind, value in hours.items() if value)
        lines += [f"Commit: {_counted(commits)}. Device: {_counted(devices)}. PyTorch: {_counted(done.torch)}.",
                  f"Training and assignment of all runs together: {spent}."]  # fmt: skip
    return lines + EXPLAINED


def _counted(values: pd.Series) -> str:
    counts = Counter(value or "unknown" for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count} run{'s' if count > 1 else ''})" for value, count in counts.most_common())


def origins(study) -> list[str]:
    """What the configuration says on the origin of each method's settings."""
    return [f"{block.title or stage}: {' '.join(study.origin(stage).split())}" for stage, block in study.methods.items()
            if study.origin(stage)]  # fmt: skip


def tables_by_protocol(study, runs: pd.DataFrame, cells: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, list[Table]]:
    """All tables: for each protocol ACC over all benchmarks, each benchmark in full, and the differences."""
    groups, found = dict(iter(runs.groupby(KEYS))), {}
    for protocol, part in cast(Any, cells.groupby("protocol", sort=False)):
        found[protocol] = [_overview(protocol, part)] if part.benchmark.nunique() > 1 else []
        ran = part[~part.benchmark.isin(list(study.skipped))]
        found[protocol] += [_detail(study, group, groups) for _, group in ran.groupby("benchmark", sort=False)]
        own = pairs[pairs.protocol == protocol]
        if (own.absence == "").any():
            found[protocol].append(_differences(own, ran))
    return found


def _overview(protocol: str, cells: pd.DataFrame) -> Table:
    benchmarks = list(cells.benchmark.unique())
    seeds = f", n = {cells.planned.iloc[0]} seeds" if cells.planned.nunique() == 1 else ""
    return Table(f"ACC on all benchmarks ({protocol}){seeds}", ("Method", *benchmarks), _rows(cells, benchmarks, _acc))


def _rows(items: pd.DataFrame, benchmarks: list[str], text) -> list[tuple[Text, ...]]:
    """A row per stage: its title and, for each benchmark, the `text` of its item there."""
    rows = []
    for _, group in items.groupby("stage", sort=False):
        texts = {item.benchmark: text(item) for item in rows_of(group)}
        rows.append((Text(group.title.iloc[0]), *(texts.get(name, Text("not planned")) for name in benchmarks)))
    return rows


def _acc(cell) -> Text:
    return Text(cell.absence or number(cell.acc, cell.acc_sd), cell.marks)


def _detail(study, cells: pd.DataFrame, groups: dict) -> Table:
    columns = ["Method", "n", "ACC", "NMI", "ARI", "oracle", "epochs", "time a run", "an epoch", "memory"]
    published = cells.published.notna().any()
    columns += ["published ACC / NMI / ARI"] if published else []
    protocol, benchmark = cells.protocol.iloc[0], cells.benchmark.iloc[0]
    images = study.images_note(benchmark)
    rows, notes = [], [f"Images: {images}."] if images else []
    for cell in rows_of(cells):
        an_epoch = cell.seconds / cell.epochs if cell.epochs else float("nan")
        texts = (number(cell.nmi, cell.nmi_sd), number(cell.ari, cell.ari_sd),
                 number(cell.oracle_acc, cell.oracle_acc_sd), _epochs(cell), duration(cell.chain_seconds),
                 duration(an_epoch), memory(cell.peak_memory), _published_scores(cell.published))  # fmt: skip
        row = (Text(cell.title), Text(str(cell.n)), _acc(cell), *map(Text, texts))
        rows.append(row[: len(columns)])
        notes += _notes(cell, groups[protocol, benchmark, cell.stage])
    notes += _settings_notes(study, benchmark, cells)
    return Table(f"{benchmark} ({protocol})", tuple(columns), rows, tuple(dict.fromkeys(notes)))


def _epochs(cell) -> str:
    """'80', '40 to 80' if the seeds differ, '–' without a finished run or for a method that does not train."""
    counts = dict.fromkeys((cell.first_epochs, cell.last_epochs))
    return " to ".join(map(str, counts)) if cell.n and cell.last_epochs else "–"


def _published_scores(published) -> str:
    """'64.5 / 56.1 / 46.7 (mean)', '' if nothing is published."""
    if published is None:
        return ""
    return f"{' / '.join(map(number, (published.acc, published.nmi, published.ari)))} ({published.statistic})"


def _notes(cell, runs: pd.DataFrame) -> list[str]:
    """Of the published values, of runs that are not done, and of what the scores alone do not tell."""
    notes = []
    if cell.published:
        average = "; NMI with the geometric mean" if cell.published.nmi_average == "geometric" else ""
        source = f"{cell.published.source}, {cell.published.statistic}"
        notes = [f"published, {cell.title}: {source}{average}{schedules(cell, runs)}."]
    told = runs[(runs.status != "done") & ~runs.reason.isin(["", "not run"])]
    notes += [f"{cell.title}, seed {run.seed}: {run.status}: {run.reason}." for run in rows_of(told)]
    done = runs[runs.status == "done"]
    if empty := ", ".join(map(str, done.seed[done.smallest_share == 0])):
        notes.append(f"{cell.title}: a cluster without an image in seed {empty}.")
    return notes + [f"{cell.title}, seed {run.seed}: {run.counts}." for run in rows_of(done) if run.counts]


def schedules(cell, runs: pd.DataFrame) -> str:
    """'; 200 epochs there, 80 here', as far as both are known."""
    here = sorted(runs.epochs.dropna().unique())
    if not cell.published.epochs or not here or here == [cell.published.epochs]:
        return ""
    return f"; {cell.published.epochs} epochs there, {' or '.join(map(str, here))} here"


def _settings_notes(study, benchmark: str, cells: pd.DataFrame) -> list[str]:
    """Notes on methods and settings, identical ones merged."""
    titles: dict[str, list[str]] = {}
    for cell in rows_of(cells):
        for note in (RECONSTRUCTED.get(study.methods[cell.stage].method), study.note(cell.stage, benchmark)):
            if note:
                titles.setdefault(" ".join(note.split()), []).append(cell.title)
    return [f"{', '.join(found)}: {note}" for note, found in titles.items()]


def _differences(pairs: pd.DataFrame, cells: pd.DataFrame) -> Table:
    reference, benchmarks = pairs.reference.iloc[0].title, list(cells.benchmark.unique())
    caption = f"Difference to {reference} in ACC, points ({pairs.protocol.iloc[0]})"
    return Table(caption, ("Method", *benchmarks), _rows(pairs, benchmarks, _difference), (DIFFERENCES,))


def _difference(pair) -> Text:
    test = "too few seeds" if pd.isna(pair.p) else p_value(pair.p)
    return Text("–" if pair.absence else f"{number(-pair.acc, pair.acc_sd, signed=True)} ({test})")
