"""A study: which benchmarks, methods, protocols and seeds. Read from YAML, checked, and expanded into runs.

Nothing here imports torch: the Snakefile reads this module. benchmarks/check.py looks at the classes of the methods.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from benchmarks import rules
from benchmarks.compose import merge, resolve
from benchmarks.datasets.catalog import Downloads, archives_of, dataset_named, missing_source
from scl import config
from scl.config import Distinct, Network, RunSettings, Settings, Training
from scl.engine.io import write_yaml_if_changed, yaml_text
from scl.util.classes import source_of

SETTINGS = {"network", "training", "augment", "options"}  # of a run, which several parts of a study may set
MOST_SEEDS = 10_000


def _numbered(seeds):
    """A number of seeds stands for those from 0 on."""
    return list(range(min(seeds, MOST_SEEDS + 1))) if type(seeds) is int else seeds


Name = Annotated[str, AfterValidator(rules.name)]
Folder = Annotated[Path, Field(strict=False), AfterValidator(rules.folder)]
Protocols = Annotated[list[Literal["joint", "heldout"]], Field(min_length=1), Distinct]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=MOST_SEEDS), Distinct, BeforeValidator(_numbered)]


class Benchmark(Settings):
    """One column of the tables. The key in the configuration is its name; `dataset` is that name if left out."""

    dataset: str | None = None
    size: int | None = Field(None, ge=8, le=1024)  # pixels a side; the data set's usual one if left out
    larger_size: int | None = Field(None, ge=8, le=1024)  # the images are kept at it too, for methods that ask for it
    subset: int | None = Field(None, ge=2, le=10**9)  # drawn without looking at labels; give it a name of its own
    clusters: int | None = Field(None, ge=2, le=10**6)  # K; the data set's number of classes if left out
    path: str | None = None  # of the user's images (dataset: folder)
    protocols: Protocols | None = None  # of the study's protocols, those to run here


class Differences(Settings):
    """Settings of a method, in its block or in its `per_benchmark`; what is left out stays as it was."""

    note: str = ""  # shown below the table of each benchmark; in `per_benchmark`, of that one
    network: Network = Network()
    training: Training = Training()
    augment: dict[str, list] = {}
    options: dict[str, Any] = {}


class MethodBlock(Differences):
    """One stage of a method, and one row of the tables. `per_benchmark` holds what differs on single benchmarks. In a
    file, `like: other-stage` takes that stage's block as the ground."""

    method: str
    title: str | None = None
    after: str | None = None  # the stage whose weights this one starts from
    origin: str = ""  # where the settings come from: shown below the tables
    per_benchmark: dict[str, Differences] = {}


class Machine(Settings):
    """How runs share a machine. It says how to run, not what, so none of it is part of a run; on a CPU `threads`
    changes the last digits all the same, and so stands in the record of a run."""

    # of a run without GPU (None: the cores, shared out), and of any on a cluster (None: 8)
    threads: int | None = Field(None, ge=1, le=1024)
    runs_per_gpu: int = Field(1, ge=1, le=100)
    checkpoint_seconds: float = Field(300.0, ge=0, le=10**6)
    require_gpu: bool = False  # an error, not a warning, where no GPU is visible


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
    """The whole configuration, checked. `results`: where everything is made; `data`: prepared benchmarks."""

    results: Folder
    benchmarks: dict[Name, Benchmark] = Field(min_length=1)
    methods: dict[Name, MethodBlock] = Field(min_length=1)
    title: str = ""
    data: Folder = Path("data")
    seeds: Seeds = [0, 1, 2, 3, 4]
    protocols: Protocols = ["joint", "heldout"]
    reference: str | None = None  # the stage that the others are compared with (ablation tables)
    network: Network = Network()
    training: Training = Training()
    downloads: Downloads = Downloads()
    machine: Machine = Machine()

    @model_validator(mode="after")
    def _fits_together(self):
        rules.check(self)
        return self

    @cached_property
    def skipped(self) -> dict[str, str]:
        """Benchmarks that cannot be had with this configuration, and why."""
        reasons = {name: missing_source(self.dataset(name), self.downloads) for name in self.benchmarks}
        return {name: reason for name, reason in reasons.items() if reason}

    def dataset(self, benchmark: str):
        named = self.benchmarks[benchmark].dataset
        return dataset_named(benchmark if named is None else named)

    def protocols_of(self, benchmark: str) -> list[str]:
        wanted = self.benchmarks[benchmark].protocols or self.protocols
        return [p for p in wanted if p in self.dataset(benchmark).protocols]

    def runs(self) -> list[Run]:
        """Every planned run, those of skipped benchmarks included; a stage comes after the one it starts from."""
        return [
            self.run(b, p, stage, seed)
            for b in self.benchmarks
            for p in self.protocols_of(b)
            for stage in self.methods
            for seed in self.seeds
        ]

    def run(self, benchmark: str, protocol: str, stage: str, seed: int) -> Run:
        block = self.methods[stage]
        after = self.run(benchmark, protocol, block.after, seed) if block.after else None
        folder = self.results / "runs" / benchmark / protocol / stage / f"seed{seed}"
        return Run(benchmark, protocol, stage, seed, block.title or stage, folder, after)

    def layers(self, stage: str, benchmark: str) -> list[tuple[str, dict]]:
        """(place, the settings written there) of a stage on a benchmark; the later wins, key by key."""
        block = self.methods[stage]
        places = {"study": self, "method block": block, "per_benchmark": block.per_benchmark.get(benchmark)}
        return [
            (place, part.model_dump(include=SETTINGS, exclude_unset=True))
            for place, part in places.items()
            if part is not None
        ]

    def settings(self, run: Run) -> RunSettings:
        """The resolved settings of one run. Raises ValueError naming the place."""
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

    def images_note(self, benchmark: str) -> str:
        """What a reader of this benchmark's table must know of its images; "" if they are the published ones, all."""
        block, dataset = self.benchmarks[benchmark], self.dataset(benchmark)
        notes = [f"a fixed subset of {block.subset:,} images of {dataset.title}"] if block.subset else []
        if not all(archive.official for archive in archives_of(dataset, self.downloads)):
            notes.append("from an archive other than the published one (checksums of the configuration)")
        return ", ".join(notes)

    def origin(self, stage: str) -> str:
        """Where the settings of a stage come from."""
        return self.methods[stage].origin

    def note(self, stage: str, benchmark: str) -> str:
        """What a reader of this benchmark's table must know of the settings of a stage; "" if nothing."""
        block = self.methods[stage]
        return block.per_benchmark.get(benchmark, block).note or block.note


def load_study(source) -> Study:
    """The study in a YAML file, or in a mapping already read. `extends: FILE` takes another file as the ground.

    Raises ValueError naming the key and, for a key unknown, the nearest known one.
    """
    study = config.read(Study, resolve(source))
    for stage in study.methods:  # every run's settings must read, before any job starts
        for benchmark in study.benchmarks:
            study.settings(study.run(benchmark, "joint", stage, study.seeds[0]))
    return study


def write_plan(study: Study, resolved: dict) -> None:
    """`<results>/study.yaml` and every run's complete run.yaml, each rewritten only if its content changes.

    Runs of skipped benchmarks get none. Imports the methods. Raises OSError where the results folder cannot be written.
    """
    write_yaml_if_changed(study.results / "study.yaml", resolved)
    for run in study.runs():
        if run.benchmark not in study.skipped:
            write_run(study, run)


def write_run(study: Study, run: Run) -> None:
    """The complete run.yaml of one run, rewritten only if its content changes."""
    write_yaml_if_changed(run.directory / "run.yaml", config.complete(study.settings(run)).model_dump())


def plan_is_written(study: Study, resolved: dict) -> bool:
    """Whether `<results>/study.yaml` is this study."""
    path = study.results / "study.yaml"
    return path.exists() and path.read_bytes() == yaml_text(resolved).encode()
