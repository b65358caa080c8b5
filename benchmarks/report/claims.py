"""The statements of SCL's abstract, answered by a study's verdicts, and descriptive statistics across benchmarks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from benchmarks.report.aggregate import rows_of
from benchmarks.report.formats import interval, number, points
from benchmarks.report.inference import normalized_mean, probability_of_improvement
from benchmarks.report.significance import CHANCE, Verdict, counted
from benchmarks.report.tables import Cell, Table
from scl import config

SCL = "scl.scl.SCL"
COMPETITORS = {  # named in the abstract: the classes that implement them
    "SimCLR + k-means": ("baselines.simclr.SimCLR",),
    "SCAN": ("baselines.scan.SCAN", "baselines.scan.SelfLabel"),
    "PICA": ("baselines.pica.PICA",),
}
PARTS: dict[str, tuple[str, tuple]] = {  # option of SCL: the statement, and the values that remove the part it is about
    "semantic_weight": ("The semantic contrast contributes", (0,)),
    "consistency": ("The consistency condition contributes", ("view",)),
    "consensus": ("The consensus contributes", ("boundaries", "similarities")),
}


class Statement(NamedTuple):
    """A statement of the abstract and the verdicts on it. reason: why there is none, else ""."""

    text: str
    verdicts: list[Verdict]
    reason: str


def statements(study, verdicts: list[Verdict]) -> list[Statement]:
    """The statements that tests answer; empty unless the reference is SCL."""
    if not study.reference or study.methods[study.reference].method != SCL:
        return []
    rows = {f"SCL is above {title}": _stages_of(study, classes) for title, classes in COMPETITORS.items()}
    settings: dict[str, list[dict]] = {stage: [] for stage in study.methods}
    for run in study.runs():
        if run.seed == study.seeds[0]:
            settings[run.stage].append(config.complete(study.settings(run)).model_dump(exclude={"stage"}))
    for option, (text, values) in PARTS.items():
        rows[text] = [s for s in study.methods if _removes(option, values, settings[study.reference], settings[s])]
    found = []
    for text, stages in rows.items():
        answers = [verdict for verdict in verdicts if verdict.stage in stages]
        reason = "" if answers else "every benchmark is skipped" if stages else "no row of this study"
        found.append(Statement(text, answers, reason))
    return found


def _stages_of(study, classes: Iterable[str]) -> list[str]:
    return [stage for stage, block in study.methods.items() if block.method in classes]


def _removes(option: str, values: tuple, reference: list[dict], other: list[dict]) -> bool:
    """Whether a stage differs from the reference only in `option`, with one of `values` where that has another.

    reference, other: the complete settings of one seed on every benchmark and protocol.
    """
    for ours, theirs in zip(reference, other, strict=True):
        kept = ours["options"].get(option)
        if kept in values or theirs["options"].get(option) not in values:
            return False
        if ours != theirs | {"options": theirs["options"] | {option: kept}}:
            return False
    return True


def gains(study, pairs: pd.DataFrame) -> tuple[list[str], str]:
    """Where SCL's gains are: a line per protocol and competitor of the abstract, by number of clusters and images; and
    why there is none, else ""."""
    stages = _stages_of(study, {name for names in COMPETITORS.values() for name in names})
    compared, lines = pairs[pairs.stage.isin(stages)], []
    complete = compared[compared.absence == ""]
    for (protocol, _), rows in cast(Any, complete.groupby(["protocol", "stage"], sort=False)):
        cells = sorted(
            (*_size(study, row.benchmark, protocol), f"{row.benchmark}{' †' if row.tuned else ''} {points(row.acc)}")
            for row in rows_of(rows)
        )
        if len({cell[:2] for cell in cells}) > 1:
            texts = [f"{gain} ({count} clusters, {images:,} images)" for count, images, gain in cells]
            lines.append(f"over {rows.title.iloc[0]} ({protocol}): {', '.join(texts)}")
    if lines or not stages:
        return lines, "" if lines else "no row of this study"
    by_protocol = cast(Any, compared.groupby("protocol"))
    differ = any(len({_size(study, name, protocol) for name in rows.benchmark}) > 1 for protocol, rows in by_protocol)
    return [], "too few complete rows" if differ else "no two benchmarks that differ in them"


def _size(study, benchmark: str, protocol: str) -> tuple[int, int]:
    """The numbers of clusters and of training images of a benchmark, 0 if unknown to the catalog."""
    block, dataset = study.benchmarks[benchmark], study.dataset(benchmark)
    images = sum(dataset.counts.get(split, 0) for split in dataset.protocols[protocol]["fit"])
    return block.clusters or dataset.clusters or 0, block.subset or images


def across_benchmarks(study, groups: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, Table]:
    """For each protocol with a tested benchmark: probability of improvement, normalized ACC, and average rank."""
    found: dict[str, Table] = {}
    for protocol, part in cast(Any, counted(pairs).groupby("protocol", sort=False)):
        names = list(part.benchmark.unique())
        rows = groups[(groups.protocol == protocol) & groups.benchmark.isin(names)]
        titles, scores = {}, {}
        for stage, of_stage in cast(Any, rows.groupby("stage", sort=False)):
            titles[stage] = of_stage.title.iloc[0]
            if of_stage.acc.notna().all():
                scores[stage] = {row.benchmark: np.array([*row.accuracies.values()]) for row in rows_of(of_stage)}
        found[protocol] = _description(study, f"ACC over {', '.join(names)} ({protocol})", titles, scores)
    return found


def _description(study, caption: str, titles: dict[str, str], scores: dict[str, dict]) -> Table:
    """One row per method: scores = {stage: {benchmark: ACC per seed}}, without incomplete groups."""
    means = {stage: {name: values.mean() for name, values in of_stage.items()} for stage, of_stage in scores.items()}
    ranks = pd.DataFrame(means).rank(axis=1, ascending=False).mean()  # ties shared (Demšar 2006)
    chance = next((stage for stage in means if study.methods[stage].method == CHANCE), None)
    reference = scores.get(study.reference)
    rows = []
    for stage, title in titles.items():
        cells = dict.fromkeys(["P(improvement)", "normalized ACC", "average rank"], Cell("–"))
        if stage in scores:
            if reference and stage != study.reference:
                cells["P(improvement)"] = _cell(probability_of_improvement(reference, scores[stage]))
            if chance:
                cells["normalized ACC"] = _cell(normalized_mean(scores[stage], means[chance]))
            cells["average rank"] = Cell(f"{ranks[stage]:.1f}")
        if not chance:
            del cells["normalized ACC"]
        rows.append([Cell(title), *cells.values()])
    notes = [
        "P(improvement): probability, in percent, that a run of the reference scores higher than a run of this method, "
        "averaged over benchmarks. Average rank: 1 is best, over the complete methods. In parentheses: 95 % bootstrap "
        "interval, stratified by benchmark, too narrow for few seeds; – where every resample has the same value. "
        "Descriptions, not tests.",
        f"Normalized ACC: (ACC − chance) / (1 − chance), in percent; chance is the mean ACC of {titles[chance]}."
        if chance
        else f"Normalized ACC is left out: it takes a complete row of {CHANCE} as chance.",
    ]
    return Table(caption, ["Method", *cells], rows, notes)


def _cell(estimate) -> Cell:
    """Without the interval if all resamples are equal: that shows how few they are, not how certain the value is."""
    between = "–" if estimate.low == estimate.high else interval(estimate.low, estimate.high, signed=False)
    return Cell(f"{number(estimate.value)} ({between})")
