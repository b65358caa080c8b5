"""The work of a run, in numbers: the part of its cost that does not depend on a device. Imports no torch."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmarks.check_images import published_counts
from benchmarks.study import Run, Study
from scl.config import RunSettings
from scl.engine.io import Damaged
from scl.engine.prepared import describe


@dataclass(frozen=True)
class Work:
    """A run and its images. fit: images that are clustered; unlabeled: others that representation learning may use;
    evaluated: images that are scored; size: pixels per side."""

    run: Run
    settings: RunSettings
    size: int
    clusters: int
    fit: int
    unlabeled: int
    evaluated: int

    @cached_property
    def kind(self) -> dict[str, Any]:
        """What the time of a step depends on; equal for runs that can be measured together."""
        return kind_of(self.settings, self.size)

    @property
    def points(self) -> int:
        """Assignments of all evaluated images: at each point of the curve, or once without training."""
        training = self.settings.training
        return min(training.curve_points, training.epochs) or 1


def kind_of(settings: RunSettings, size: int) -> dict[str, Any]:
    """The kind of a run on images of `size` pixels per side: its method, network, and batches."""
    kind: dict[str, Any] = {"method": settings.method, "size": size}
    if settings.training.epochs:
        kind |= {"network": settings.network.model_dump(mode="json")}
        kind |= settings.training.model_dump(include={"batch_size", "precision", "compile"})
    return kind


def work_of(study: Study, run: Run, counts: dict[str, int]) -> Work:
    """The work of a run on a benchmark with this number of images in each split."""
    block, dataset = study.benchmarks[run.benchmark], study.dataset(run.benchmark)
    roles = dataset.protocols[run.protocol]
    fit, represent, evaluated = (sum(counts[split] for split in roles[use]) for use in ("fit", "represent", "assign"))
    return Work(
        run,
        study.settings(run),
        block.size or dataset.size,
        block.clusters or dataset.clusters or 0,
        fit,
        represent - fit,
        evaluated,
    )


def counts_of(study: Study, benchmark: str) -> dict[str, int] | None:
    """Number of images in each split, as prepared or else as published; None if neither is known (custom archive)."""
    try:
        return {split: stop - start for split, (start, stop) in describe(study.data / benchmark)["splits"].items()}
    except Damaged:  # not prepared yet
        return published_counts(study, benchmark)
