"""A study that never ran: run folders as training and evaluation leave them, with made-up numbers."""

import csv
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.datasets.catalog import CATALOG, Downloads, dataset_named
from benchmarks.evaluation.evaluate import VERSION
from benchmarks.report import render
from benchmarks.report.aggregate import aggregate
from benchmarks.report.runs import collect, read_runs
from benchmarks.report.significance import comparisons
from benchmarks.study import Study as RealStudy
from scl.config import RunSettings, Training, complete, digest
from scl.engine.identity import fingerprint, identity_of
from scl.engine.io import sha256


def block(title, method, after=None, origin="", **options):
    return SimpleNamespace(title=title, method=method, after=after, origin=origin, options=options)


def benchmark(**keys):
    return SimpleNamespace(**(dict.fromkeys(("dataset", "size", "larger_size", "subset", "clusters", "tuned")) | keys))


METHODS = {
    "pixels": block("k-means on pixels", "baselines.controls.Pixels"),
    "simclr": block("SimCLR + k-means", "baselines.simclr.SimCLR", origin="official; ours: fewer epochs"),
    "scan": block("SCAN (clustering step)", "baselines.scan.SCAN", after="simclr"),
    "pica": block("PICA", "baselines.pica.PICA"),
    "scl": block("SCL", "scl.scl.SCL"),
}
MORE = {  # for tests of claims
    "random": block("random", "baselines.controls.Random"),
    "no-semantic": block("without semantic contrast", "scl.scl.SCL", after="simclr", semantic_weight=0.0),
}
SCL = block("SCL", "scl.scl.SCL", after="simclr", semantic_weight=1.0)
LEVELS = {"random": 0.12, "no-semantic": 0.8, "pixels": 0.23, "simclr": 0.61, "scan": 0.76, "pica": 0.63, "scl": 0.81}
SECONDS = {
    "random": 1.0,
    "no-semantic": 5000.0,
    "pixels": 4.0,
    "simclr": 3000.0,
    "scan": 900.0,
    "pica": 4000.0,
    "scl": 5200.0,
}


@dataclass(frozen=True)
class Run:
    benchmark: str
    protocol: str
    stage: str
    seed: int
    title: str
    directory: Path
    after: "Run | None"
    options: dict = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Study:
    results: Path
    benchmarks: dict = field(default_factory=lambda: {"cifar10": benchmark(), "digits": benchmark()})
    protocols: tuple = ("joint",)
    seeds: tuple = (0, 1, 2)
    methods: dict = field(default_factory=lambda: dict(METHODS))
    skipped: dict = field(default_factory=dict)
    reference: str | None = "scl"
    title: str = "A study that never ran"

    data: Path = Path("no-data")
    downloads: Downloads = Downloads()  # noqa: RUF009 it is frozen

    def dataset(self, benchmark):
        return dataset_named(self.benchmarks[benchmark].dataset or benchmark)

    tuned = RealStudy.tuned
    images_note = RealStudy.images_note

    def settings(self, run):
        return settings_of(run)

    def run(self, benchmark, protocol, stage, seed):
        before = self.methods[stage].after
        after = self.run(benchmark, protocol, before, seed) if before else None
        folder = self.results / "runs" / benchmark / protocol / stage / f"seed{seed}"
        method = self.methods[stage]
        return Run(benchmark, protocol, stage, seed, method.title, folder, after, method.options)

    def origin(self, stage):
        return self.methods[stage].origin

    def note(self, stage, benchmark):
        return ""

    def runs(self):
        return [
            self.run(benchmark, protocol, stage, seed)
            for benchmark in self.benchmarks
            for protocol in self.protocols
            for stage in self.methods
            for seed in self.seeds
        ]


def made_up(run, score="acc"):
    """A number between 0 and 1 that depends on the run alone."""
    name = f"{run.benchmark}/{run.protocol}/{run.stage}/{run.seed}/{score}"
    noise = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little") / 2**32 - 0.5
    level = LEVELS[run.stage] * {"acc": 1, "nmi": 0.9, "nmi_geometric": 0.91, "ari": 0.8}[score]
    return round(level + 0.04 * noise + 0.1 * (run.benchmark == "digits"), 4)


def settings_of(run, epochs=100):
    """The settings that every study here plans for a run."""
    return RunSettings(
        benchmark=run.benchmark,
        protocol=run.protocol,
        stage=run.stage,
        seed=run.seed,
        method=(METHODS | MORE)[run.stage].method,
        data="data",
        after=str(run.after.directory) if run.after else None,
        options=run.options,
        training=Training(epochs=0 if run.stage == "pixels" else epochs),
    )


def finish(run, *, points=10, **changed):
    """Write the files of a trained and evaluated run."""
    run.directory.mkdir(parents=True, exist_ok=True)
    settings = complete(settings_of(run))
    epochs = settings.training.epochs
    (run.directory / "assignments.npz").write_text(f"those of {run.stage}")
    (run.directory / "history.csv").write_text("epoch,steps\n")
    images = {
        "images_sha256": changed.get("images_sha256", f"i-{run.benchmark}"),
        "clusters": dataset_named(run.benchmark).clusters if run.benchmark in CATALOG else 10,
        "splits": {},
    }
    identity = identity_of(settings, images, f"w-{run.after.stage}" if run.after else None)
    hour = {"simclr": 10, "scan": 12}.get(run.stage, 11)
    record = {
        "benchmark": run.benchmark,
        "protocol": run.protocol,
        "stage": run.stage,
        "seed": run.seed,
        "epochs": epochs,
        "seconds": SECONDS[run.stage] + run.seed,
        "peak_memory_bytes": 2_500_000_000,
        "device": "NVIDIA H200",
        "threads": 8,
        "precision": "bf16",
        "commit": "0123456789abcdef",
        "dirty": False,
        "versions": {"torch": "2.13.0"},
        "config_sha256": digest(settings),
        "images_sha256": images["images_sha256"],
        "identity": identity,
        "fingerprint": fingerprint(identity),
        "files": {name: sha256(run.directory / name) for name in ("assignments.npz", "history.csv")}
        | {"weights.pt": f"w-{run.stage}"},
        "counts": {},
        "attempts": [],
        "started": f"2026-11-20T{hour}:00:00+00:00",
        "finished": f"2026-11-20T{hour}:30:00+00:00",
    } | changed
    write(run, "record.json", record)
    acc = made_up(run)
    curve = (
        [
            {"epoch": epochs * (k + 1) // points, "acc": acc * (1 - 0.6 * 0.6**k), "nmi": 0.5, "ari": 0.4}
            for k in range(points)
        ]
        if epochs
        else []
    )
    last = {"epoch": epochs, "acc": acc, "nmi": made_up(run, "nmi"), "ari": made_up(run, "ari")}
    curve = curve[:-1] + [last]
    write(
        run,
        "metrics.json",
        {
            "scores": {name: made_up(run, name) for name in ("acc", "nmi", "nmi_geometric", "ari")}
            | {"clusters_used": images["clusters"], "largest_share": 0.14, "smallest_share": 0.06}
            | {"mean_confidence": 0.9},
            "per_epoch": curve,
            "oracle": {"acc": min(1.0, acc + 0.004), "epoch": 90},
            "neighbor_purity": None,
            "of": {
                "fingerprint": record["fingerprint"],
                "assignments_sha256": record["files"]["assignments.npz"],
                "labels_sha256": None,
                "evaluator": VERSION,
            },
        },
    )


def write(run, name, content):
    run.directory.mkdir(parents=True, exist_ok=True)
    (run.directory / name).write_text(json.dumps(content))


def fail(run, error, **where):
    """Write the files of a failed attempt at a run."""
    config = digest(complete(settings_of(run)))
    write(
        run, "failure.json", {"error": error, "kind": "NonFinite", "permanent": True, "config_sha256": config} | where
    )


def change(run, name, **changed):
    """Change some keys in a JSON file of a run."""
    write(run, name, json.loads((run.directory / name).read_text()) | changed)


def partial(study):
    """Folder of the report of an unfinished study."""
    return study.results / "partial"


def groups_of(study):
    """The runs of a study and their groups, as a report reads them."""
    collect(study, partial(study))
    runs = read_runs(study, partial(study))
    return runs, aggregate(study, runs)


def texts_of(study, *, page=False):
    """{file name: text} of the partial report, rewritten with two empty figures to save time."""
    collect(study, partial(study))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "write_figures", write_no_figures)
        return {path.name: path.read_text() for path in render.write_report(study, partial(study), page=page)}


def claims_of(study):
    return texts_of(study)["claims.md"]


def pairs_of(study):
    return comparisons(study, *groups_of(study))


def write_no_figures(study, groups, folder):
    (folder / "figures").mkdir(exist_ok=True)
    paths = [folder / "figures" / f"{name}.svg" for name in ("scores", "curves")]
    for path in paths:
        path.write_text("<svg/>")
    return paths


def finish_all(study):
    for run in study.runs():
        if run.benchmark not in study.skipped:
            finish(run)
    return study


def lines_of(path):
    with path.open(newline="") as file:
        return {
            (line["benchmark"], line["protocol"], line["stage"], int(line["seed"])): line
            for line in csv.DictReader(file)
        }


def decisive(tmp_path, seeds=(0, 1, 2, 3, 4), **changed):
    """Two benchmarks used for tuning and two that count; chance and an ablation of SCL among the methods."""
    methods = METHODS | MORE | {"scl": SCL}
    names = ("cifar10", "cifar100-20", "digits", "stl10")
    keys = {"benchmarks": dict.fromkeys(names, benchmark()), "methods": methods, "seeds": seeds} | changed
    return finish_all(Study(tmp_path / "decisive", **keys))


def troubled(tmp_path):
    """Two protocols; one benchmark not run, one run failed, one not evaluated, one from a dirty commit."""
    benchmarks = dict.fromkeys(("cifar10", "digits", "imagenet10"), benchmark())
    study = Study(
        tmp_path / "troubled",
        benchmarks=benchmarks,
        protocols=("joint", "heldout"),
        skipped={"imagenet10": "no ImageNet source"},
    )
    finish_all(study)
    failed = study.run("digits", "joint", "pica", 2)
    (failed.directory / "record.json").unlink()
    fail(failed, "loss is nan", epoch=3, step=120, term="balance")
    (study.run("digits", "heldout", "scan", 0).directory / "metrics.json").unlink()
    finish(study.run("cifar10", "joint", "scl", 2), commit="fedcba9876543210", dirty=True)
    return study


def check_golden(text, name):
    """Compare with tests/golden/<name>. To accept a change: delete that file, run twice, review the diff."""
    expected = Path(__file__).parent / "golden" / name
    if not expected.exists():
        expected.write_text(text, encoding="utf-8")
        raise AssertionError(f"{expected.name} was missing and has been written: read it before committing")
    assert text == expected.read_text(encoding="utf-8")
