"""`scl plan`: time of parallel jobs, k-means, disk, and downloads."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY_METHODS
from planning import PLACE, cost_at, find, measured_at, measurements, rate, run_seconds, study_of, work
from threadpoolctl import threadpool_info, threadpool_limits

from benchmarks.datasets.catalog import CATALOG
from benchmarks.plan import cost
from benchmarks.plan.cost import Job, makespan
from benchmarks.plan.machine import Place
from benchmarks.plan.rates import kmeans_seconds, run_bytes, train_seconds
from benchmarks.plan.sources import JOBS
from benchmarks.plan.space import disk, downloads
from benchmarks.plan.table import describe_cost
from benchmarks.state import State, Survey
from benchmarks.study import Run
from scl.config import complete
from scl.engine.artifacts import read_record
from scl.engine.clustering import cluster_run
from scl.engine.io import write_json
from scl.engine.train import train


def test_more_threads_take_less_time_in_the_committed_table(here):
    study = study_of()
    place = Place("CPU: here", "", 0, 2, 1, 2, 1)
    mine = work(study, "simclr")
    table = here / "committed" / "bench" / "x.json"
    table.parent.mkdir(parents=True)
    write_json(table, measurements(rate(mine), device="CPU: other").model_dump())
    found = cost_at(place, study)
    assert "m, unknown: not measured here; `scl plan --calibrate study.yaml`" in describe_cost(found, "study.yaml")
    row = next(row for row in found["rows"] if row["method"] == "simclr")
    assert row["seconds_per_run"] == pytest.approx(run_seconds(mine, rate(mine)) / 2 + sum(JOBS.values()))
    assert row["hours"] == pytest.approx(2 * row["seconds_per_run"] * 2 / 3600)


def test_a_table_of_many_benchmarks_is_split(here):
    names = [f"digits-with-another-size-{size}" for size in range(8, 17)]
    study = study_of(benchmarks={name: {"dataset": "digits", "size": int(name.split("-")[-1])} for name in names})
    lines = describe_cost(cost_at(PLACE, study), "study.yaml").splitlines()
    assert max(map(len, lines)) <= 100
    heads = [line.split() for line in lines if line.split()[0] in names]
    assert [name for head in heads for name in head] == names and len(heads) > 1
    assert sum(line.startswith("  kmeans ") for line in lines) == len(heads)


def run_of(stage, after=None):
    return Run("digits", "joint", stage, 0, stage, Path(stage), after)


@pytest.mark.parametrize("slots,expected", [(1, 19.0), (2, 10.0), (3, 9.0)])
def test_jobs_side_by_side(slots, expected):
    """b waits for a; d starts as soon as c is done."""
    a = run_of("a")
    jobs = [Job(run_of("b", a), 5), Job(a, 4), Job(run_of("c"), 1), Job(run_of("d"), 9)]
    assert makespan(jobs, gpu_slots=0, cpu_slots=slots) == expected
    assert makespan(jobs[:1], gpu_slots=0, cpu_slots=slots) == 5  # a is done


@pytest.mark.parametrize("gpu_slots,cpu_slots,expected", [(1, 1, 9.0), (1, 2, 9.0), (2, 1, 7.0), (2, 2, 6.0)])
def test_jobs_on_gpus_beside_others(gpu_slots, cpu_slots, expected):
    """a and b take a GPU; the k-means of a and d take only cores."""
    a = run_of("a")
    jobs = [Job(a, 4, gpu=True), Job(a, 2, kmeans=True), Job(run_of("b"), 5, gpu=True), Job(run_of("d"), 5)]
    assert makespan(jobs, gpu_slots=gpu_slots, cpu_slots=cpu_slots) == expected


def test_nothing_to_do_takes_no_time():
    assert makespan([], gpu_slots=1, cpu_slots=2) == 0


def test_k_means_is_work_of_cores_beside_the_gpu(here):
    """The second run trains on the only GPU while the first is clustered on two of the four cores."""
    study = study_of(methods={"simclr": TINY_METHODS["simclr"]})
    place = Place("CPU: here", "NVIDIA H200", 1, 4, 1, 2, 1)
    mine = work(study, "simclr")
    gpu = rate(mine, kmeans=True, threads=2, options={"kmeans_restarts": 1})
    find(mine, calibrated=[measurements(gpu, device="NVIDIA H200")])
    found = cost_at(place, study)
    trained, clustered = train_seconds(mine, gpu) + 3.0, kmeans_seconds(mine, gpu)
    assert clustered == 2.0 < trained
    (row,) = found["rows"]
    assert row["seconds_per_run"] == pytest.approx(trained + clustered)
    assert row["hours"] == found["gpu_hours"] == pytest.approx(2 * trained / 3600)
    assert row["kmeans_core_hours"] == found["core_hours"] == pytest.approx(2 * clustered * 2 / 3600)
    assert found["wall_seconds"] == pytest.approx(cost.START_SECONDS + 2 * trained + clustered + cost.REPORT_SECONDS)
    text = describe_cost(found, "study.yaml")
    assert f"in all: {2 * trained / 60:.2f} GPU-minutes, 0.13 core-minutes\n" in text
    assert "k-means after training takes 0.13 core-minutes" in text


@pytest.mark.parametrize("on_cpu", [1, 2])
def test_runs_finished_on_a_cpu_took_cores_and_no_gpu(on_cpu, here):
    """Of two runs; the others are left, for the GPU."""
    study = study_of(methods={"scan": TINY_METHODS["scan"] | {"after": None}})
    place = Place("CPU: here", "NVIDIA H200", 1, 4, 1, 2, 1)
    mine = work(study, "scan")
    find(mine, calibrated=[measurements(rate(mine), device="NVIDIA H200")])
    done = State("done", "", SimpleNamespace(seconds=57.0, kmeans=None, unclustered={}, device="CPU: a", threads=3))
    states = dict(zip(study.runs(), [done] * on_cpu + [State("missing")]))
    survey = SimpleNamespace(study=study, state=states.get, prepared=lambda name: (None, ""))
    found = cost.cost_of(study, survey, measured_at(place, study))
    (row,), trained = found["rows"], (2 - on_cpu) * (train_seconds(mine, rate(mine)) + 3.0)
    assert found["gpu_hours"] == pytest.approx(trained / 3600)
    assert row["core_hours"] == found["core_hours"] == pytest.approx(on_cpu * 60 * 3 / 3600)
    own = ("GPU-hours", found["gpu_hours"]) if trained else ("core-hours", found["core_hours"])
    assert (row["unit"], row["hours"], row["kmeans_core_hours"]) == (*own, 0.0)
    total = f"in all: {trained / 60:.2g} GPU-minutes, 3.0 core-minutes\n" if trained else "in all: 6.0 core-minutes\n"
    assert total in describe_cost(found, "study.yaml")


@pytest.mark.parametrize("kmeans,seconds", [(True, 2.0), (False, None)])
def test_k_means_that_is_left_takes_time_or_is_unknown(here, kmeans, seconds):
    """For a trained run; a measurement without assignments, such as that of `scl bench`, does not cover k-means."""
    study = study_of(methods={"simclr": TINY_METHODS["simclr"]}, seeds=1)
    find(work(study, "simclr"), calibrated=[measurements(rate(work(study, "simclr"), kmeans=kmeans))])
    record = SimpleNamespace(seconds=9.0, kmeans=True, files={}, unclustered={"1.npz": ""}, threads=1)
    state = State("unclustered", "", record)
    survey = SimpleNamespace(study=study, state=lambda run: state, prepared=lambda name: (None, ""))
    found = cost.cost_of(study, survey, measured_at(PLACE, study))
    assert found["runs_left"] == 1
    if seconds is None:
        assert found["wall_seconds"] is found["rows"][0]["seconds_per_run"] is found["core_hours"] is None
    else:
        others = cost.START_SECONDS + cost.REPORT_SECONDS
        assert found["wall_seconds"] == pytest.approx(seconds + others)
        assert found["rows"][0]["seconds_per_run"] == pytest.approx(9.0 + 3.0 + seconds)


def test_k_means_is_measured_on_the_threads_of_a_run(tiny_study, monkeypatch):
    from benchmarks.plan import measure

    study, threads, kmeans = tiny_study("kmeans", plan=False), set(), measure.kmeans

    def spy(*arguments, **options):
        threads.update(library["num_threads"] for library in threadpool_info())
        return kmeans(*arguments, **options)

    monkeypatch.setattr(measure, "kmeans", spy)
    with threadpool_limits(2):
        torch.set_num_threads(1)
        measure.measure(complete(study.settings(study.runs()[0])), "cpu")
    assert threads == {1}


@pytest.mark.slow
def test_a_run_that_is_yet_to_be_clustered_costs_its_k_means(tiny_study, here):
    study = tiny_study("simclr")
    (run,) = study.runs()
    mine = work(study, "simclr", "tiny-digits")
    find(mine, calibrated=[measurements(rate(mine, kmeans=True, assign_seconds=50.0, threads=1))])
    train(run.directory, gpus=0, report=lambda line: None)
    found, trained = cost_at(PLACE, study), read_record(run.directory).seconds + 3.0
    assert found["runs_left"] == 1 and found["rows"][0]["runs_left"] == 1
    assert found["rows"][0]["seconds_per_run"] == pytest.approx(trained + 2 * 50.0)
    starts = cost.START_SECONDS + cost.REPORT_SECONDS
    assert found["wall_seconds"] == pytest.approx(starts + 2 * 50.0)
    cluster_run(run.directory)
    found = cost_at(PLACE, study)
    assert (found["runs_left"], found["wall_seconds"]) == (0, starts)
    assert found["rows"][0]["seconds_per_run"] == pytest.approx(read_record(run.directory).seconds + 3.0)


# --- disk and downloads ------------------------------------------------------------------------------------------


def test_features_that_wait_for_kmeans_are_space_in_use(here):
    study, folder = study_of(), here / "run"
    (folder / "features").mkdir(parents=True)
    for path in (folder / "weights.pt", folder / "features" / "1.npz"):
        path.write_bytes(bytes(1_000))
    assert disk(study, Survey(study), {}, [(folder, 0, 0)], at_once=1)["there"] == 2_000


@pytest.mark.slow
def test_bytes_of_runs_are_those_on_the_disk(tiny_study, train_all):
    from benchmarks.plan.measure import measure

    study = tiny_study("simclr", "scan", "scl")
    for run in train_all(study):
        mine = work(study, run.stage, "tiny-digits")
        found = measure(complete(study.settings(run)), "cpu")
        planned, more = run_bytes(mine, found, checkpoint_seconds=300.0)
        real = sum(path.stat().st_size for path in run.directory.iterdir())
        assert 0.8 * real < planned < 1.5 * real, run.stage
        assert more >= (run.directory / "weights.pt").stat().st_size * 0.8


def test_downloads_name_their_sources_without_passwords(here):
    mirrors = {"cifar-10-python.tar.gz": ["https://me:s3cret@mirror.example/c.tar.gz?token=s3cret"]}
    study = study_of(benchmarks={"cifar10": {}, "tiny-imagenet": {}}, downloads={"mirrors": mirrors}, data="data")
    (here / "data" / "archives").mkdir(parents=True)
    (here / "data" / "archives" / "tiny-imagenet-200.zip").write_bytes(b"x")
    first, second = downloads(study, Survey(study))
    assert first["urls"] == ["https://mirror.example/c.tar.gz"] and first["state"] == "missing"
    assert first["bytes"] == CATALOG["cifar10"].archives[0].bytes
    assert second["state"] == "there" and second["urls"] == list(CATALOG["tiny-imagenet"].archives[0].urls)


def test_classes_of_ilsvrc_are_downloaded_once(here):
    source = {"tar": "https://mirror.example/train.tar", "accept_terms": True}
    study = study_of(benchmarks={"imagenet10": {}, "imagenet-dogs": {}}, downloads={"imagenet": source})
    found = downloads(study, Survey(study))
    assert len(found) == 24 and {entry["state"] for entry in found} == {"missing"}  # Maltese is in both
    assert study_of(benchmarks={"imagenet10": {}}).skipped
