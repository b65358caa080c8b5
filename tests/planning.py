"""Shared by the tests of `scl plan`: a study on digits, made-up measurements, and where `scl plan` finds them."""

from pathlib import Path

from conftest import TINY_METHODS

from benchmarks.plan import cost, sources
from benchmarks.plan.machine import Place
from benchmarks.plan.rates import Measurements, Rate, counts_of, kmeans_seconds, train_seconds, work_of
from benchmarks.state import Survey
from benchmarks.study import load_study
from scl.engine.io import write_json
from scl.engine.provenance import versions

PLACE = Place("CPU: here, AVX512", "", 0, 2, 2, 1, 1)
GPU_PLACE = Place("CPU: here, AVX512", "NVIDIA H200", 2, 16, 4, 4, 2)
STUDY = {
    "results": "results/mine",
    "seeds": 2,
    "protocols": ["joint"],
    "benchmarks": {"digits": {}},
    "training": {"batch_size": 100, "curve_points": 4},
    "machine": {"threads": 1},
    "methods": {name: TINY_METHODS[name] for name in ("kmeans", "simclr", "scan")},
}


def study_of(**changes):
    return load_study(STUDY | changes)


def work(study, stage, benchmark="digits", protocol="joint"):
    run = study.run(benchmark, protocol, stage, study.seeds[0])
    return work_of(study, run, counts_of(Survey(study), benchmark))


def rate(of, **changes):
    """A measurement of a run, with round numbers."""
    numbers = {"images": of.fit, "clusters": of.clusters, "threads": 1, "batch_size": 100, "kmeans": False}
    numbers |= {"step_seconds": 0.1, "assign_seconds": 1.0, "unlabeled": 0.0}
    numbers |= {"weight_bytes": 1_000_000}
    about = {"kind": of.kind, "options": of.settings.options, "benchmark": of.run.benchmark, "stage": of.run.stage}
    return Rate(**(numbers | about | changes))


def run_seconds(of, measured):
    return train_seconds(of, measured) + kmeans_seconds(of, measured)


def measurements(*rates, device="CPU: here, AVX512", **changes):
    found = {
        "device": device,
        "versions": versions(),
        "commit": "0" * 40,
        "dirty": False,
        "runs_at_once": 2,
        "finished": "2026-01-02T00:00:00+00:00",
    }
    return Measurements(**(found | {"jobs": {"train": 2.0, "evaluate": 1.0}, "rates": list(rates)} | changes))


def find(of, study=None, *, calibrated=(), committed=(), place=PLACE):
    """Write these files to the working directory (the fixture `here`) and find the measurement for a run."""
    for folder, files in (("calibration", calibrated), ("committed/bench", committed)):
        for number, one in enumerate(files):
            Path(folder).mkdir(parents=True, exist_ok=True)
            write_json(Path(folder) / f"{number}.json", one.model_dump())
    return measured_at(place, study or study_of()).find(of)


def measured_at(place, study):
    """The measurements that `find` has written, for a study on a machine."""
    return sources.Sources(study, place, calibrations=Path("calibration"), committed=Path("committed"))


def cost_at(place, study):
    """The cost of the study on a machine according to the measurements that `find` has written."""
    return cost.cost_of(study, Survey(study), measured_at(place, study))
