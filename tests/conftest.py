"""Shared fixtures: digits prepared once, tiny runs, and an option that tests a custom method."""

import os
import subprocess
from types import SimpleNamespace

import pytest

# fixtures import torch and our modules themselves: the controller of pytest-xdist loads this file but needs neither

TINY_VIEW = [{"affine": {"degrees": 5, "translate": 0.05}}, {"noise": {"std": 0.05}}]
TINY_METHODS = {
    "random": {"method": "baselines.controls.Random"},
    "kmeans": {"method": "baselines.controls.Pixels", "options": {"kmeans_restarts": 1}},
    "simclr": {
        "method": "baselines.simclr.SimCLR",
        "training": {"epochs": 2},
        "augment": {"view": TINY_VIEW},
        "options": {"kmeans_restarts": 1},
    },
    "scan": {
        "method": "baselines.scan.SCAN",
        "after": "simclr",
        "augment": {"strong": TINY_VIEW},
        "training": {"epochs": 2, "optimizer": "adam", "learning_rate": 0.001},
    },
    "selflabel": {
        "method": "baselines.scan.SelfLabel",
        "after": "scan",
        "options": {"threshold": 0.2},
        "augment": {"weak": TINY_VIEW, "strong": TINY_VIEW},
        "training": {"epochs": 2, "optimizer": "adam", "learning_rate": 0.001},
    },
    "pica": {
        "method": "baselines.pica.PICA",
        "augment": {"original": TINY_VIEW, "perturbed": TINY_VIEW},
        "training": {"epochs": 2, "optimizer": "adam", "learning_rate": 0.001},
        "options": {"overclusters": 12},
    },
    "scl": {"method": "scl.scl.SCL", "augment": {"view": TINY_VIEW, "strong": TINY_VIEW}, "training": {"epochs": 3}},
}
TINY_BENCH = {
    "size": 8,
    "batch_size": 8,
    "seconds": 0.0,
    "rounds": 2,
    "images": (40, 80),
    "clusters": (3, 5),
    "workers": (0,),
    "matrix": 32,
}
ONE_SIZE = {"images": (40,), "clusters": (3,), "batch_factors": ()}


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def pytest_addoption(parser):
    parser.addoption("--method", default=None, help="your method, for the conformance tests: FILE.CLASS or YAML:STAGE")


def pytest_collection_modifyitems(items):
    """Run the longest tests first, so that all pytest-xdist workers finish at about the same time."""
    items.sort(key=lambda item: [item.get_closest_marker(mark) is None for mark in ("workflow", "slow")])


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Seed torch, so that failures of tests that draw unseeded random numbers are reproducible."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """Skip fsync: no test simulates a power failure, and a killed process loses nothing that it has written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def few_timed_steps():
    """Time as few steps as possible for estimates, as no test checks their seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.plan.measure.SECONDS", 0.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def short_tsne():
    """The fewest iterations that scikit-learn accepts, as only one test checks what a map shows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.evaluation.clusters.ITERATIONS", 250)
        yield


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A data folder with 200 digits of 8 px, prepared once: <folder>/tiny-digits."""
    from benchmarks.datasets.prepare import prepare

    data = tmp_path_factory.mktemp("data")
    prepare(
        "tiny-digits", dataset="digits", folder=data / "tiny-digits", archives=data / "archives", size=8, subset=200
    )
    return data


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The folder of long_study.STUDY after a run without interruptions."""
    from long_study import STUDY, snakemake

    folder = tmp_path_factory.mktemp("undisturbed")
    status, output = snakemake(folder, STUDY)
    assert status == 0, output
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The test's own folder, as the working directory, without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


@pytest.fixture
def small_disk(request, tmp_path):
    """A separate file system of a given size, such as "4m", if this machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "none", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def tiny_mapping(data, results, methods, **rest):
    """The configuration of a study with tiny runs on the prepared digits."""
    return {
        "results": str(results),
        "data": str(data),
        "seeds": [0],
        "protocols": ["joint"],
        "benchmarks": {"tiny-digits": {"dataset": "digits", "subset": 200, "size": 8}},
        "network": {"width": 8, "layers": [1, 1, 1]},
        "training": {"batch_size": 64, "curve_points": 2, "precision": "fp32"},
        "methods": methods,
        **rest,
    }


@pytest.fixture
def tiny_study(digits, tmp_path):
    """A function that makes a study of tiny runs below the test's own folder: tiny_study('scl', seeds=[0])."""
    from benchmarks.study import load_study, write_plan

    def make(
        *stages,
        seeds=(0,),
        methods=TINY_METHODS,
        results="results",
        protocols=("joint",),
        data=digits,
        plan=True,
        **rest,
    ):
        chosen = {stage: methods[stage] for stage in stages or methods}
        rest = {"seeds": list(seeds), "protocols": list(protocols)} | rest
        mapping = tiny_mapping(data, tmp_path / results, chosen, **rest)
        study = load_study(mapping)
        if plan:
            write_plan(study, mapping)
        return study

    return make


@pytest.fixture(scope="session")
def trained_simclr(digits, tmp_path_factory):
    """The folder of a run of SimCLR, trained and not clustered; tests copy it to a run of their own."""
    from benchmarks.study import load_study, write_plan
    from scl.engine.train import train

    mapping = tiny_mapping(digits, tmp_path_factory.mktemp("simclr"), {"simclr": TINY_METHODS["simclr"]})
    study = load_study(mapping)
    write_plan(study, mapping)
    (run,) = study.runs()
    train(run.directory, gpus=0, threads=1, report=lambda *_: None)
    return run.directory


@pytest.fixture(scope="session")
def train_all():
    """Train and cluster every run of a study in this process, on the CPU; returns the runs."""
    from scl.engine.clustering import cluster_run
    from scl.engine.train import train

    def go(study, **options):
        runs = study.runs()
        for run in runs:
            train(run.directory, gpus=0, threads=1, report=lambda *_: None, **options)
            cluster_run(run.directory, report=lambda *_: None)
        return runs

    return go


@pytest.fixture
def subject(tiny_study, tmp_path):
    """A function that makes the Subject of `scl bench` for the last of the given stages."""
    from benchmarks.bench.subject import Plan, Subject

    return lambda *stages, **changes: Subject(
        tiny_study(*stages), Plan(stage=stages[-1], **(TINY_BENCH | changes)), tmp_path, "cpu"
    )


@pytest.fixture
def measured(subject):
    from benchmarks.bench.measure import measure

    return lambda *stages, **changes: measure(subject(*stages, **changes))


@pytest.fixture(scope="session")
def decisive_study(tmp_path_factory):
    """fake_study.decisive, with its `groups` (and runs), `pairs`, and the text of claims.md; tests do not change it."""
    from fake_study import claims_of, decisive, groups_of

    from benchmarks.report.significance import comparisons

    study = decisive(tmp_path_factory.mktemp("results"))
    runs, groups = groups_of(study)
    return SimpleNamespace(
        study=study, runs=runs, groups=groups, pairs=comparisons(study, runs, groups), claims=claims_of(study)
    )
