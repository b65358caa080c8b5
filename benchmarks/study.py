"""A study: which benchmarks, methods, protocols and seeds. Read from YAML, checked, and expanded into runs.

Nothing here imports torch: the Snakefile reads this module. benchmarks/check.py looks at the classes of the methods.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks import rules
from benchmarks.compose import WORDS, merge, resolve
from benchmarks.datasets.catalogue import Downloads, archives_of, dataset_named, missing_source
from scl import settings
from scl.classes import source_of
from scl.record import write_yaml_if_changed, yaml_text
from scl.settings import RunSettings, check_range, check_ranges


@dataclass(frozen=True)
class Benchmark:
    """One column of the tables. The key in the configuration is its name; `dataset` is that name if left out."""

    dataset: str | None = None
    size: int | None = None  # pixels a side; the data set's usual one if left out
    larger_size: int | None = None  # pixels a side at which the images are kept too, for methods that ask for it
    subset: int | None = None  # as many images, drawn without looking at labels; then give it a name of its own
    clusters: int | None = None  # K; the data set's number of classes if left out
    path: str | None = None  # of the user's images (dataset: folder)
    protocols: list[str] | None = None  # of the study's protocols, those to run here

    def __post_init__(self):
        check_ranges(self, size=(8, 1024), larger_size=(8, 1024), subset=(2, 10**9), clusters=(2, 10**6))


@dataclass(frozen=True)
class MethodBlock:
    """One stage of a method, and one row of the tables. `per_benchmark` holds what differs on single
    benchmarks, `recipes` named sets of differences, with a `per_benchmark` of their own (`recipe: official` at the
    top of the study chooses one, which wins over the block's `per_benchmark`). In a file, `like: other-stage` takes
    that stage's block as the ground."""

    method: str
    title: str | None = None
    after: str | None = None  # the stage whose weights this one starts from
    origin: str = ""  # where the settings come from: shown below the tables
    note: str = ""  # shown below the table of each benchmark; in `per_benchmark`, of that one
    network: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    augment: dict[str, list] = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    recipes: dict[str, dict] = field(default_factory=dict)
    per_benchmark: dict[str, dict] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """How runs share a machine. It says how to run, not what, so none of it is part of a run; on a CPU `threads`
    changes the last digits all the same, and so stands in the record of a run."""

    threads: int | None = None  # of a run without GPU (None: the cores, shared out), and of any on a cluster (None: 8)
    runs_per_gpu: int = 1
    checkpoint_seconds: float = 300.0
    require_gpu: bool = False  # an error, not a warning, where no GPU is visible

    def __post_init__(self):
        check_ranges(self, threads=(1, 1024), runs_per_gpu=(1, 100), checkpoint_seconds=(0, 10**6))


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


@dataclass(frozen=True)
class Study:
    """The whole configuration, checked. `results`: where everything is made; `data`: prepared benchmarks."""

    results: Path
    benchmarks: dict[str, Benchmark]
    methods: dict[str, MethodBlock]
    title: str = ""
    data: Path = Path("data")
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    protocols: list[str] = field(default_factory=lambda: list(rules.PROTOCOLS))
    recipe: str | None = None
    reference: str | None = None  # the stage that the others are compared with (ablation tables)
    network: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    downloads: Downloads = field(default_factory=Downloads)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self):
        rules.check(self)

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
        return [self.run(b, p, stage, seed) for b in self.benchmarks for p in self.protocols_of(b)
                for stage in self.methods for seed in self.seeds]

    def run(self, benchmark: str, protocol: str, stage: str, seed: int) -> Run:
        block = self.methods[stage]
        after = self.run(benchmark, protocol, block.after, seed) if block.after else None
        folder = self.results / "runs" / benchmark / protocol / stage / f"seed{seed}"
        return Run(benchmark, protocol, stage, seed, block.title or stage, folder, after)

    def resolved(self, stage: str, benchmark: str) -> dict:
        """Block of a stage on a benchmark. The later wins: block, its per_benchmark, recipe, the recipe's."""
        block = self.methods[stage]
        merged = {key: getattr(block, key) for key in ("method", "augment", "options", *WORDS)}
        merged |= {key: merge(getattr(self, key), getattr(block, key)) for key in ("network", "training")}
        recipe = dict(block.recipes.get(self.recipe) or {})
        last = recipe.pop("per_benchmark", {})
        for differences in (block.per_benchmark.get(benchmark), recipe, last.get(benchmark)):
            merged = merge(merged, differences or {})
        return merged

    def settings(self, run: Run) -> RunSettings:
        """The resolved settings of one run. Raises ValueError naming the place."""
        merged = {k: v for k, v in self.resolved(run.stage, run.benchmark).items() if k not in WORDS}
        merged |= {"benchmark": run.benchmark, "protocol": run.protocol, "stage": run.stage, "seed": run.seed,
                   "data": str(self.data / run.benchmark), "after": str(run.after.directory) if run.after else None,
                   "method_source": source_of(merged["method"], f"methods.{run.stage}.method")}
        return settings.read(RunSettings, merged, f"methods.{run.stage}")

    def images_note(self, benchmark: str) -> str:
        """What a reader of this benchmark's table must know of its images; "" if they are the published ones, all."""
        block, dataset = self.benchmarks[benchmark], self.dataset(benchmark)
        notes = [f"a fixed subset of {block.subset:,} images of {dataset.title}"] if block.subset else []
        if not all(archive.official for archive in archives_of(dataset, self.downloads)):
            notes.append("from an archive other than the published one (checksums of the configuration)")
        return ", ".join(notes)

    def origin(self, stage: str) -> str:
        """Where the settings of a stage come from, under the recipe chosen."""
        block = self.methods[stage]
        return (block.recipes.get(self.recipe) or {}).get("origin", block.origin)

    def note(self, stage: str, benchmark: str) -> str:
        """What a reader of this benchmark's table must know of the settings of a stage; "" if nothing."""
        found = self.resolved(stage, benchmark)
        if self.recipe and self.recipe not in self.methods[stage].recipes and found["training"].get("epochs"):
            return f"no recipe '{self.recipe}' is known; the common settings are used. {found['note']}".strip()
        return found["note"]


def load_study(source) -> Study:
    """The study in a YAML file, or in a mapping already read. `extends: FILE` takes another file as the ground.

    Raises ValueError naming the key and, for a key unknown, the nearest known one.
    """
    mapping = resolve(source)
    settings.refuse_odd_values(mapping)
    if type(mapping.get("seeds")) is int:
        check_range("seeds", mapping["seeds"], 1, rules.MOST_SEEDS)
        mapping["seeds"] = list(range(mapping["seeds"]))
    study = settings.read(Study, mapping)
    for stage, block in study.methods.items():  # every run's settings must read, before any job starts
        for recipe in dict.fromkeys([study.recipe, *block.recipes]):
            chosen = dataclasses.replace(study, recipe=recipe)
            for benchmark in study.benchmarks:
                chosen.settings(study.run(benchmark, "joint", stage, study.seeds[0]))
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
    write_yaml_if_changed(run.directory / "run.yaml", settings.as_mapping(settings.complete(study.settings(run))))


def plan_is_written(study: Study, resolved: dict) -> bool:
    """Whether `<results>/study.yaml` is this study."""
    path = study.results / "study.yaml"
    return path.exists() and path.read_bytes() == yaml_text(resolved).encode()
