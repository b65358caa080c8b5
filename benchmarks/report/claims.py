"""The statements of SCL's abstract, answered by the verdicts of a study, and descriptions across its benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from benchmarks.report.aggregate import rows_of
from benchmarks.report.formats import interval, number, points
from benchmarks.report.inference import average_ranks, normalized_mean, probability_of_improvement
from benchmarks.report.significance import CHANCE, Verdict, counted
from benchmarks.report.tables import Cell, Table

SCL = "scl.scl.SCL"
COMPETITORS = {  # in the abstract, and the classes that implement them
    "SimCLR + k-means": ("baselines.simclr.SimCLR",),
    "SCAN": ("baselines.scan.SCAN", "baselines.scan.SelfLabel"),
    "PICA": ("baselines.pica.PICA",),
}
PARTS = {  # option of SCL that an ablation changes
    "semantic_weight": "The semantic contrast contributes",
    "consistency": "The consistency condition contributes",
    "consensus": "The consensus contributes",
}


@dataclass(frozen=True)
class Statement:
    """A statement of the abstract and the verdicts on it; none: the study has no run that could answer it."""

    text: str
    verdicts: list[Verdict]


def statements(study, verdicts: list[Verdict]) -> list[Statement]:
    """The statements that tests answer; empty unless the reference is SCL."""
    if not study.reference or study.methods[study.reference].method != SCL:
        return []
    changed = {stage: _changed_option(study, stage) for stage in study.methods}
    found = []
    for title, classes in COMPETITORS.items():
        found.append((f"SCL is above {title}", [s for s, block in study.methods.items() if block.method in classes]))
    for option, text in PARTS.items():
        found.append((text, [stage for stage in study.methods if changed[stage] == option]))
    return [Statement(text, [verdict for verdict in verdicts if verdict.stage in stages]) for text, stages in found]


def _changed_option(study, stage: str) -> str | None:
    """The option in which an ablation of the reference differs from it, if that is the only one."""
    reference, block = study.methods[study.reference], study.methods[stage]
    if (block.method, block.after) != (reference.method, reference.after):
        return None
    names = [k for k in reference.options | block.options if reference.options.get(k) != block.options.get(k)]
    return names[0] if len(names) == 1 else None


def gains(study, pairs: pd.DataFrame) -> list[str]:
    """Where SCL's gains are: a line per protocol and competitor of the abstract, by number of classes and images."""
    classes = {name for names in COMPETITORS.values() for name in names}
    lines = []
    for (protocol, stage), rows in cast(Any, pairs[pairs.absence == ""].groupby(["protocol", "stage"], sort=False)):
        cells = sorted(
            (*_size(study, row.benchmark, protocol), f"{row.benchmark}{' †' if row.tuned else ''} {points(row.acc)}")
            for row in rows_of(rows)
        )
        if study.methods[stage].method in classes and len({cell[:2] for cell in cells}) > 1:
            texts = [f"{gain} ({count} classes, {images:,} images)" for count, images, gain in cells]
            lines.append(f"over {rows.title.iloc[0]} ({protocol}): {', '.join(texts)}")
    return lines


def _size(study, benchmark: str, protocol: str) -> tuple[int, int]:
    """The numbers of clusters and of images of a benchmark, 0 where the catalog cannot know them."""
    block, dataset = study.benchmarks[benchmark], study.dataset(benchmark)
    splits = {split for splits in dataset.protocols[protocol].values() for split in splits}
    images = sum(dataset.counts.get(split, 0) for split in splits if split != "unlabeled")
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
    """A row per method: scores = {stage: {benchmark: ACC per seed}}, without the incomplete ones."""
    means = {stage: {name: values.mean() for name, values in of_stage.items()} for stage, of_stage in scores.items()}
    ranks = average_ranks(means) if means else {}
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
        "interval, stratified by benchmark, too narrow for few seeds. Descriptions, not tests.",
        f"Normalized ACC: (ACC − chance) / (1 − chance), in percent; chance is the mean ACC of {titles[chance]}."
        if chance
        else f"Normalized ACC is left out: it takes a complete row of {CHANCE} as chance.",
    ]
    return Table(caption, ["Method", *cells], rows, notes)


def _cell(estimate) -> Cell:
    return Cell(f"{number(estimate.value)} ({interval(estimate.low, estimate.high, signed=False)})")
