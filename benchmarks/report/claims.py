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
from scl import config

SCL = "scl.scl.SCL"
COMPETITORS = {  # in the abstract, and the classes that implement them
    "SimCLR + k-means": ("baselines.simclr.SimCLR",),
    "SCAN": ("baselines.scan.SCAN", "baselines.scan.SelfLabel"),
    "PICA": ("baselines.pica.PICA",),
}
PARTS: dict[str, tuple[str, tuple]] = {  # option of SCL: the statement, and the values that remove what it is about
    "semantic_weight": ("The semantic contrast contributes", (0,)),
    "consistency": ("The consistency condition contributes", ("view",)),
    "consensus": ("The consensus contributes", ("boundaries", "similarities")),
}


@dataclass(frozen=True)
class Statement:
    """A statement of the abstract and the verdicts on it. reason: why there is none, else ""."""

    text: str
    verdicts: list[Verdict]
    reason: str


def statements(study, verdicts: list[Verdict]) -> list[Statement]:
    """The statements that tests answer; empty unless the reference is SCL."""
    if not study.reference or study.methods[study.reference].method != SCL:
        return []
    removed = {stage: _removed_part(study, stage) for stage in study.methods}
    found = []
    for title, classes in COMPETITORS.items():
        found.append((f"SCL is above {title}", [s for s, block in study.methods.items() if block.method in classes]))
    for option, (text, _) in PARTS.items():
        found.append((text, [stage for stage in study.methods if removed[stage] == option]))
    return [_statement(text, stages, verdicts) for text, stages in found]


def _statement(text: str, stages: list[str], verdicts: list[Verdict]) -> Statement:
    answers = [verdict for verdict in verdicts if verdict.stage in stages]
    reason = "" if answers else "every benchmark is skipped" if stages else "no row of this study"
    return Statement(text, answers, reason)


def _removed_part(study, stage: str) -> str | None:
    """The option of PARTS by which an ablation removes a part of the reference, if they differ in nothing else."""
    found = {
        _removing_option(first, second)
        for first, second in zip(_settings(study, study.reference), _settings(study, stage), strict=True)
    }
    return found.pop() if len(found) == 1 else None


def _settings(study, stage: str) -> list[dict]:
    """The complete settings of one seed on every benchmark and protocol."""
    runs = [run for run in study.runs() if (run.stage, run.seed) == (stage, study.seeds[0])]
    return [config.complete(study.settings(run)).model_dump(exclude={"stage"}) for run in runs]


def _removing_option(reference: dict, other: dict) -> str | None:
    ours, theirs = reference["options"], other["options"]
    changed = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
    if len(changed) != 1 or reference | {"options": {}} != other | {"options": {}}:
        return None
    removing = PARTS.get(changed[0], ("", ()))[1]
    return changed[0] if theirs.get(changed[0]) in removing and ours.get(changed[0]) not in removing else None


def gains(study, pairs: pd.DataFrame) -> list[str]:
    """Where SCL's gains are: a line per protocol and competitor of the abstract, by number of clusters and images."""
    classes = {name for names in COMPETITORS.values() for name in names}
    lines = []
    for (protocol, stage), rows in cast(Any, pairs[pairs.absence == ""].groupby(["protocol", "stage"], sort=False)):
        cells = sorted(
            (*_size(study, row.benchmark, protocol), f"{row.benchmark}{' †' if row.tuned else ''} {points(row.acc)}")
            for row in rows_of(rows)
        )
        if study.methods[stage].method in classes and len({cell[:2] for cell in cells}) > 1:
            texts = [f"{gain} ({count} clusters, {images:,} images)" for count, images, gain in cells]
            lines.append(f"over {rows.title.iloc[0]} ({protocol}): {', '.join(texts)}")
    return lines


def without_gains(study) -> str:
    """Why `gains` is empty."""
    planned = {block.method for block in study.methods.values()}
    if not planned.intersection(name for names in COMPETITORS.values() for name in names):
        return "no row of this study"
    of_protocol: dict[str, set] = {}
    for run in study.runs():
        if run.benchmark not in study.skipped:
            of_protocol.setdefault(run.protocol, set()).add(_size(study, run.benchmark, run.protocol))
    differ = any(len(sizes) > 1 for sizes in of_protocol.values())
    return "too few complete rows" if differ else "no two benchmarks that differ in them"


def _size(study, benchmark: str, protocol: str) -> tuple[int, int]:
    """The numbers of clusters and of training images of a benchmark, 0 where the catalog cannot know them."""
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
        "interval, stratified by benchmark, too narrow for few seeds; – where every resample has the same value. "
        "Descriptions, not tests.",
        f"Normalized ACC: (ACC − chance) / (1 − chance), in percent; chance is the mean ACC of {titles[chance]}."
        if chance
        else f"Normalized ACC is left out: it takes a complete row of {CHANCE} as chance.",
    ]
    return Table(caption, ["Method", *cells], rows, notes)


def _cell(estimate) -> Cell:
    """Without the interval where all resamples are alike: that says how few they are, not how sure the value is."""
    between = "–" if estimate.low == estimate.high else interval(estimate.low, estimate.high, signed=False)
    return Cell(f"{number(estimate.value)} ({between})")
