"""A study: benchmarks, methods, protocols and seeds. Loaded from YAML, checked, and expanded into runs.

Nothing here imports torch, since the Snakefile imports this module. benchmarks/check.py checks the methods' classes.
"""

import difflib
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from benchmarks import rules
from benchmarks.compose import merge, resolve
from benchmarks.datasets.catalog import IMAGES_PER_CLASS, Downloads, dataset_named, is_published, missing_source
from scl import config
from scl.config import Distinct, Network, RunSettings, Settings, Training
from scl.engine.io import write_yaml_if_changed, yaml_text
from scl.util.classes import source_of

SETTINGS = {"network", "training", "augment", "options"}  # keys of a run that several parts of a study may set
MOST_SEEDS = 10_000


def _numbered(seeds):
    """A number n of seeds means 0 to n - 1."""
    return list(range(min(seeds, MOST_SEEDS + 1))) if type(seeds) is int else seeds


Name = Annotated[str, AfterValidator(rules.name)]
Folder = Annotated[Path, Field(strict=False), AfterValidator(rules.folder)]
Protocols = Annotated[list[Literal["joint", "heldout"]], Field(min_length=1), Distinct]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=MOST_SEEDS), Distinct, BeforeValidator(_numbered)]


class Benchmark(Settings):
    """One column of the tables. Its key in the configuration is its name."""

    dataset: str | None = None
    """Data set in the catalog; by default the name of the benchmark."""
    size: int | None = Field(None, ge=8, le=1024)
    """Side of the images in pixels; by default the usual size of the data set."""
    larger_size: int | None = Field(None, ge=8, le=1024)
    """Second side in pixels at which the images are also stored, for methods that ask for it; by default none."""
    subset: int | None = Field(None, ge=2, le=10**9)
    """Number of images of a fixed subset, drawn without looking at labels; by default all images."""
    clusters: int | None = Field(None, ge=2, le=10**6)
    """Number of clusters K; by default the number of classes of the data set."""
    path: str | None = None
    """Folder of your images, or a .npy file of them (uint8, N x H x W x 3), for `dataset: folder` only."""
    protocols: Protocols | None = None
    """Protocols to run on this benchmark; by default those of the study that the data set supports."""
    tuned: bool | None = None
    """Whether hyper-parameters were chosen on it with its labels: it is then marked † and excluded from verdicts; by
    default true for digits and CIFAR-10, on which those of this project were chosen."""


class Differences(Settings):
    """Settings of a method, in its block or in its `per_benchmark`; omitted keys are inherited."""

    note: str = ""
    """Footnote below the table of each benchmark (in `per_benchmark`: of that one); by default none."""
    network: Network = Network()
    """Encoder; omitted keys come from the study's `network`."""
    training: Training = Training()
    """Schedule and optimizer; omitted keys come from the study's `training`."""
    augment: dict[str, list] = {}
    """Augmentations by the names that the method declares, each a list of operations; `[]` changes nothing."""
    options: dict[str, Any] = {}
    """Hyperparameters of the method's class; omitted ones have its defaults."""


class MethodBlock(Differences):
    """One method or stage of a method, and one row of the tables. In a file, `like: STAGE` inherits another block."""

    method: str
    """Dotted path of the class, such as `scl.scl.SCL` or, for a file in the working directory, `my_file.MyMethod`."""
    title: str | None = None
    """Name of the row in tables and figures; by default the name of the block."""
    after: str | None = None
    """Stage whose weights this one starts from; by default none."""
    origin: str = ""
    """Where the settings come from, shown below the tables; by default nothing."""
    per_benchmark: dict[str, Differences] = {}
    """Settings that differ on single benchmarks, by the name of the benchmark."""


class Machine(Settings):
    """How runs share a machine. None of this is part of a run, although `threads` changes the last digits on a CPU."""

    threads: int | None = Field(None, ge=1, le=1024)
    """Threads of a run without a GPU, or of any run on a cluster; default: cores, divided among runs (cluster: 8)."""
    runs_per_gpu: int = Field(1, ge=1, le=100)
    """Number of runs that share a GPU."""
    checkpoint_seconds: float = Field(300.0, ge=0, le=10**6)
    """Seconds between checkpoints."""
    require_gpu: bool = False
    """Fail, rather than warn, where no GPU is visible."""
    tensorboard: bool = False
    """Also write the curves of each run for TensorBoard, into its folder; needs `pip install -e ".[tensorboard]"`."""


@dataclass(frozen=True)
class Run:
    """A planned run; its folder is its name."""

    benchmark: str
    protocol: str
    stage: str
    seed: int
    title: str
    directory: Path
    after: "Run | None" = None


class Study(Settings):
    """The whole configuration, checked."""

    results: Folder
    """Folder of all outputs except the data."""
    benchmarks: dict[Name, Benchmark] = Field(min_length=1)
    """Benchmarks by name; null drops one from an extended file."""
    methods: dict[Name, MethodBlock] = Field(min_length=1)
    """Methods, or stages of them, by name; null drops one from an extended file."""
    title: str = ""
    """Heading of the report; by default none."""
    data: Folder = Path("data")
    """Folder of downloads and prepared benchmarks; studies may share it."""
    seeds: Seeds = [0, 1, 2, 3, 4]
    """Seeds of the runs: a list, or a number n for 0 to n - 1."""
    protocols: Protocols = ["joint", "heldout"]
    """Protocols to run; on each benchmark, those that its data set supports."""
    reference: str | None = None
    """Stage that the others are compared with; by default none."""
    network: Network = Network()
    """Encoder of all methods; blocks of methods override single keys."""
    training: Training = Training()
    """Schedule and optimizer of all methods; blocks of methods override single keys."""
    downloads: Downloads = Downloads()
    """Sources of the data sets; by default their published addresses."""
    machine: Machine = Machine()
    """How runs share the machine; not part of any run."""

    @model_validator(mode="after")
    def _fits_together(self):
        rules.check(self)
        return self

    @cached_property
    def skipped(self) -> dict[str, str]:
        """{benchmark: reason} for benchmarks without a source in this configuration."""
        reasons = {name: missing_source(self.dataset(name), self.downloads) for name in self.benchmarks}
        return {
            name: reason + ", although there are results" * any((self.results / "runs" / name).rglob("metrics.json"))
            for name, reason in reasons.items()
            if reason
        }

    @property
    def available(self) -> list[str]:
        """The benchmarks that are not skipped."""
        return [name for name in self.benchmarks if name not in self.skipped]

    def dataset(self, benchmark: str):
        name = self.benchmarks[benchmark].dataset
        return dataset_named(benchmark if name is None else name)

    def protocols_of(self, benchmark: str) -> list[str]:
        wanted = self.benchmarks[benchmark].protocols or self.protocols
        return [p for p in wanted if p in self.dataset(benchmark).protocols]

    def runs(self) -> list[Run]:
        """Every planned run, skipped benchmarks included, in the order of the configuration."""
        return [
            self.run(b, p, stage, seed)
            for b in self.benchmarks
            for p in self.protocols_of(b)
            for stage in self.methods
            for seed in self.seeds
        ]

    def available_runs(self) -> list[Run]:
        """Every planned run except those of skipped benchmarks."""
        return [run for run in self.runs() if run.benchmark not in self.skipped]

    def run(self, benchmark: str, protocol: str, stage: str, seed: int) -> Run:
        block = self.methods[stage]
        after = self.run(benchmark, protocol, block.after, seed) if block.after else None
        folder = self.results / "runs" / benchmark / protocol / stage / f"seed{seed}"
        return Run(benchmark, protocol, stage, seed, block.title or stage, folder, after)

    def layers(self, stage: str, benchmark: str) -> list[tuple[str, dict]]:
        """(part of the study, the settings it sets) for a stage on a benchmark; later ones win, key by key."""
        block = self.methods[stage]
        parts = {"study": self, "method block": block, "per_benchmark": block.per_benchmark.get(benchmark)}
        return [(name, part.model_dump(include=SETTINGS, exclude_unset=True)) for name, part in parts.items() if part]

    def settings(self, run: Run) -> RunSettings:
        """The resolved settings of one run. Raises ValueError naming the key."""
        method = self.methods[run.stage].method
        merged = {
            "benchmark": run.benchmark,
            "protocol": run.protocol,
            "stage": run.stage,
            "seed": run.seed,
            "method": method,
            "method_source": source_of(method, f"methods.{run.stage}.method"),
            "data": str(self.data / run.benchmark),
            "after": str(run.after.directory) if run.after else None,
        }
        for _, part in self.layers(run.stage, run.benchmark):
            merged = merge(merged, part)
        return config.read(RunSettings, merged, f"methods.{run.stage}")

    def tuned(self, benchmark: str) -> bool:
        """Whether hyper-parameters were chosen on a benchmark by its labels."""
        stated = self.benchmarks[benchmark].tuned
        return self.dataset(benchmark).tuned if stated is None else stated

    def images_note(self, benchmark: str) -> str:
        """Note for the table of a benchmark whose images are not exactly the published ones; otherwise ""."""
        block, dataset = self.benchmarks[benchmark], self.dataset(benchmark)
        notes = [f"a fixed subset of {block.subset:,} images of {dataset.title}"] if block.subset else []
        per_class = self.downloads.imagenet.images_per_class
        if dataset.imagenet and per_class != IMAGES_PER_CLASS:
            notes.append(f"{per_class} images per class, where the published data set has {IMAGES_PER_CLASS}")
        if not is_published(dataset, self.downloads):
            notes.append("from an archive other than the published one (checksums of the configuration)")
        return ", ".join(notes)

    def note(self, stage: str, benchmark: str) -> str:
        """Note on the settings of a stage for the table of a benchmark, or ""."""
        block = self.methods[stage]
        return block.per_benchmark.get(benchmark, block).note or block.note


def load_study(source) -> Study:
    """Load the study from a YAML file or a mapping. Raises ValueError naming the key."""
    study = config.read(Study, resolve(source))
    for stage in study.methods:  # the settings of every run must be valid before any job starts
        for benchmark in study.benchmarks:
            study.settings(study.run(benchmark, "joint", stage, study.seeds[0]))
    return study


def find_run(study: Study, name: str, form: str = "BENCHMARK/PROTOCOL/STAGE/SEED") -> Run:
    """The planned run called `name`; without SEED in `form`, that of the first seed. Raises ValueError."""
    keys = form.lower().split("/")
    planned = {"/".join(str(getattr(run, key)) for key in keys): run for run in reversed(study.runs())}
    if name not in planned:
        near = "".join(difflib.get_close_matches(name, planned, n=1, cutoff=0))
        raise ValueError(f"{name}: not a run of this study; give {form}, such as {near}")
    return planned[name]


def write_plan(study: Study, resolved: dict) -> None:
    """Write `<results>/study.yaml` and the complete run.yaml of every run, each only if its content changes.

    Runs of skipped benchmarks get none. Imports the methods. Raises OSError.
    """
    write_yaml_if_changed(study.results / "study.yaml", resolved)
    for run in study.available_runs():
        write_run(study, run)


def write_run(study: Study, run: Run) -> None:
    """Write the complete run.yaml of one run, only if its content changes."""
    write_yaml_if_changed(run.directory / "run.yaml", config.complete(study.settings(run)).model_dump())


REPORTED = ".reported.yaml"  # beside complete tables: identifies their study


def report_mark(resolved: dict) -> dict[str, str]:
    """The content of REPORTED: a hash, since a configuration may contain a password."""
    return {"study_sha256": hashlib.sha256(yaml_text(resolved).encode()).hexdigest()}


def is_reported(study: Study, resolved: dict) -> bool:
    """Whether the tables in the results belong to this study."""
    path = study.results / REPORTED
    return path.exists() and path.read_bytes() == yaml_text(report_mark(resolved)).encode()
