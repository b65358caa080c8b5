"""The work of runs, how fast a device does it, and the seconds and bytes that follow from both. Imports no torch.

All rules are linear: the seconds of a step are proportional to the number of images, those of an assignment to the
numbers of images and, with k-means, of clusters and restarts. For k-means that is rough (docs/running.md). One-time
work of a training (loading, neighbors, first prototypes) is ignored.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmarks.check_images import published_counts
from benchmarks.state import Survey
from benchmarks.study import Run, Study
from scl.config import Network, RunSettings, Training
from scl.engine.artifacts import Strict


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
        return kind_of(self.settings.method, self.size, self.settings.network, self.settings.training)

    @property
    def trains(self) -> bool:
        return self.settings.training.epochs > 0

    @property
    def points(self) -> int:
        """Number of assignments of all evaluated images: one per point of the curve, or one without training."""
        return min(self.settings.training.curve_points, self.settings.training.epochs) or 1


def kind_of(method: str, size: int, network: Network, training: Training) -> dict[str, Any]:
    """The kind of a run on images of `size` pixels per side: its method, network, and batches."""
    kind: dict[str, Any] = {"method": method, "size": size}
    if training.epochs:
        kind |= {"network": network.model_dump(mode="json")}
        kind |= training.model_dump(include={"batch_size", "precision", "compile"})
    return kind


def work_of(study: Study, run: Run, counts: dict[str, int], settings: RunSettings | None = None) -> Work:
    """The work of a run on a benchmark with this number of images in each split. settings: by default as planned."""
    block, dataset = study.benchmarks[run.benchmark], study.dataset(run.benchmark)
    roles = dataset.protocols[run.protocol]
    fit, represent, evaluated = (sum(counts[split] for split in roles[use]) for use in ("fit", "represent", "assign"))
    size, clusters = size_of(study, run.benchmark), block.clusters or dataset.clusters or 0
    return Work(run, settings or study.settings(run), size, clusters, fit, represent - fit, evaluated)


def size_of(study: Study, benchmark: str) -> int:
    """Side of the images of a benchmark in pixels."""
    return study.benchmarks[benchmark].size or study.dataset(benchmark).size


def benchmark_of_size(study: Study, size: int) -> str | None:
    """The first benchmark whose images have this side in pixels."""
    return next((name for name in study.benchmarks if size_of(study, name) == size), None)


def counts_of(survey: Survey, benchmark: str) -> dict[str, int] | None:
    """Number of images in each split, as prepared or else as published; None if neither is known (custom archive)."""
    facts, problem = survey.prepared(benchmark)
    return lengths(facts["splits"]) if facts and not problem else published_counts(survey.study, benchmark)


def lengths(splits: dict[str, list[int]]) -> dict[str, int]:
    """Number of images in each split; splits: {name: [first row, last row + 1]}."""
    return {split: stop - start for split, (start, stop) in splits.items()}


class Rate(Strict):
    """A measurement, as stored in JSON. All seconds are those of one run; on a CPU, with other runs beside it."""

    kind: dict[str, Any]  # kind_of
    options: dict[str, Any]  # complete options of the method
    benchmark: str  # where it was measured
    stage: str
    images: int
    clusters: int
    threads: int
    batch_size: int
    step_seconds: float  # of one step of `batch_size` images
    assign_seconds: float = 0.0  # of one assignment of `images` images
    kmeans: bool = False  # whether assignments are made by k-means
    unlabeled: float | None = None  # fraction of the unlabeled images that an epoch visits; None: no run had any
    weight_bytes: int | None = None  # without those that grow with the images; None: unknown
    image_bytes: int = 0  # of weights that grow with the images, per image (memories, neighbors)
    feature_bytes: int = 0  # kept for k-means, per image and point of the curve


class Measurements(Strict):
    """A file of measurements: what `scl plan --calibrate` writes, and results/reference/bench/plan.json."""

    device: str
    versions: dict[str, str | None]
    commit: str
    dirty: bool | None
    runs_at_once: int
    finished: str
    jobs: dict[str, float]  # seconds to start Python and to import what a job needs: "train", "evaluate"
    rates: list[Rate]


def epoch_steps(work: Work, rate: Rate) -> int:
    """Number of steps per epoch, without a last partial batch."""
    pool = round(work.fit + work.unlabeled * (rate.unlabeled or 0.0))
    return max(1, pool // work.settings.training.batch_size)


def train_seconds(work: Work, rate: Rate) -> float:
    """Seconds to train a run with the rate's number of threads.

    Includes its assignments unless k-means makes them, but not the start of its process.
    """
    training, seconds = work.settings.training, 0.0
    if not rate.kmeans:
        seconds += work.points * rate.assign_seconds * work.evaluated / rate.images
    if work.trains:
        batch = min(training.batch_size, work.fit + work.unlabeled)  # the cost of a step is proportional to its images
        seconds += training.epochs * epoch_steps(work, rate) * rate.step_seconds * batch / rate.batch_size
    return seconds


def kmeans_seconds(work: Work, rate: Rate) -> float:
    """Seconds of the k-means after the training of a run, 0 for a method that needs none.

    Includes computing the features, which takes little time in comparison.
    """
    if not rate.kmeans:
        return 0.0
    starts, measured = (options.get("kmeans_restarts") for options in (work.settings.options, rate.options))
    seconds = work.points * rate.assign_seconds * work.evaluated / rate.images * work.clusters / rate.clusters
    return seconds * (starts / measured if starts and measured else 1)


def run_bytes(work: Work, rate: Rate, *, checkpoint_seconds: float) -> tuple[int, int] | None:
    """(bytes of the folder of a finished run, additional bytes while it trains), None if unknown.

    A finished run has its weights, a checkpoint without the optimizer and, if its training takes longer than
    `checkpoint_seconds`, one with the optimizer. Saving needs space for another one (scl/engine/checkpoint.py).
    """
    if rate.weight_bytes is None:
        return None
    moments = 2 if work.settings.training.optimizer == "adam" else 1
    weights = rate.weight_bytes + rate.image_bytes * work.fit
    with_optimizer = weights + rate.weight_bytes * moments * work.trains
    assignments = work.evaluated * (20 + 2 * work.points)  # compressed, so at most
    kept = 2 * weights + assignments + 20_000
    if work.trains and train_seconds(work, rate) > checkpoint_seconds:
        kept += with_optimizer
    features = rate.feature_bytes * work.evaluated * work.points  # until they are clustered
    return kept, with_optimizer + features
