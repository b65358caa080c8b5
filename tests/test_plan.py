"""`scl plan`: what a study will cost, by records, by a calibration, by the committed table, or unknown."""

import json
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import TINY_METHODS
from threadpoolctl import threadpool_info, threadpool_limits

from benchmarks.cli import main
from benchmarks.datasets.catalog import CATALOG
from benchmarks.plan import cost, machine, sources
from benchmarks.plan.cost import Job, makespan
from benchmarks.plan.machine import Place
from benchmarks.plan.rates import (
    Jobs,
    Measurements,
    Rate,
    counts_of,
    epoch_steps,
    kmeans_seconds,
    run_bytes,
    train_seconds,
    work_of,
)
from benchmarks.plan.space import disk, downloads
from benchmarks.plan.table import describe_cost
from benchmarks.state import State, Survey
from benchmarks.study import load_study
from scl.config import complete
from scl.engine import gpu_lease
from scl.engine.artifacts import clustering, read_record
from scl.engine.clustering import cluster_run
from scl.engine.io import write_json
from scl.engine.provenance import processor, versions
from scl.engine.train import train

ROOT = Path(__file__).resolve().parent.parent
PLACE = Place("CPU: here", "", 0, 2, 2, 1, 1)
GPU_PLACE = Place("CPU: here", "NVIDIA H200", 2, 16, 4, 4, 2)
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
    return work_of(study, run, counts_of(study, benchmark))


def rate(of, **changes):
    """A measurement of a run, in round numbers."""
    numbers = {"images": of.fit, "clusters": of.clusters, "threads": 1, "batch_size": 100, "kmeans": False}
    numbers |= {"step_seconds": 0.1, "assign_seconds": 1.0, "once_seconds": 2.0, "visits": 1.0, "unlabeled": 0.0}
    numbers |= {"last_batch": False, "weight_bytes": 1_000_000, "image_bytes": 0}
    about = {"kind": of.kind, "options": of.settings.options, "benchmark": of.run.benchmark, "stage": of.run.stage}
    return Rate(**(numbers | about | changes))


def run_seconds(of, measured):
    training = train_seconds(of, measured)
    return None if training is None else training + kmeans_seconds(of, measured)


def measurements(*rates, device="CPU: here, AVX512", **changes):
    found = {
        "device": device,
        "versions": versions(),
        "commit": "0" * 40,
        "dirty": False,
        "runs_at_once": 2,
        "finished": "2026-01-02T00:00:00+00:00",
    }
    return Measurements(**(found | {"jobs": Jobs(train=3.0, evaluate=1.0), "rates": list(rates)} | changes))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The test's own folder, as the working directory, without a GPU and with no committed table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return tmp_path


def cost_at(place, study):
    """The cost of the study at `place` by the measurements that `find` has written."""
    found = sources.Sources(study, place, calibrations=Path("calibration"), committed=Path("committed"))
    return cost.cost_of(study, Survey(study), found)


@pytest.fixture
def find(here):
    """A function that finds the measurement of a run: find(work, calibrated=[...], committed=[...])."""

    def go(of, study=None, *, calibrated=(), committed=(), place=PLACE):
        for folder, files in (("calibration", calibrated), ("committed/bench", committed)):
            for number, one in enumerate(files):
                (here / folder).mkdir(parents=True, exist_ok=True)
                write_json(here / folder / f"{number}.json", one.model_dump())
        found = sources.Sources(
            study or study_of(), place, calibrations=here / "calibration", committed=here / "committed"
        )
        return found.find(of)

    return go


# --- sources -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_records_of_finished_runs_come_first_and_scale_with_the_epochs(tiny_study, train_all, find):
    study = tiny_study("random", "simclr", seeds=(0, 1, 2))
    runs = [run for run in train_all(study) if run.stage == "simclr"]
    threads = read_record(runs[0].directory).threads
    place = Place(processor().partition(", AVX")[0], "", 0, threads, 1, threads, 1)
    calibrated = [measurements(rate(work(study, "simclr", "tiny-digits"), threads=threads), device=place.cpu)]
    found = find(work(study, "simclr", "tiny-digits"), study, calibrated=calibrated, place=place)
    assert (found.mark, found.source) == ("r", "3 finished runs on this device")
    records = [(read_record(run.directory), run.directory) for run in runs]
    clustered = [clustering(directory, record.fingerprint).seconds for record, directory in records]
    trained = [record.seconds - seconds for (record, _), seconds in zip(records, clustered)]
    mine = work(study, "simclr", "tiny-digits")
    assert train_seconds(mine, found.rate) == pytest.approx(statistics.median(trained), rel=1e-6)
    assert kmeans_seconds(mine, found.rate) == pytest.approx(statistics.median(clustered), rel=1e-6)
    longer = TINY_METHODS | {"simclr": TINY_METHODS["simclr"] | {"training": {"epochs": 6}}}
    other = tiny_study("simclr", methods=longer, results="results/other", plan=False)
    found = find(work(other, "simclr", "tiny-digits"), other, place=place)  # of another study of this folder
    assert found.mark == "r"
    mine = work(other, "simclr", "tiny-digits")
    assert train_seconds(mine, found.rate) == pytest.approx(3 * statistics.median(trained), rel=1e-6)
    assert kmeans_seconds(mine, found.rate) == pytest.approx(statistics.median(clustered), rel=1e-6)  # 2 points, too


@pytest.mark.slow
def test_a_run_that_is_yet_to_be_clustered_is_no_measurement(tiny_study, find):
    study = tiny_study("simclr")
    (run,) = study.runs()
    train(run.directory, gpus=0, report=lambda line: None)
    place = Place(processor().partition(", AVX")[0], "", 0, 1, 1, read_record(run.directory).threads, 1)
    assert find(work(study, "simclr", "tiny-digits"), study, place=place) is None
    cluster_run(run.directory)
    assert find(work(study, "simclr", "tiny-digits"), study, place=place).mark == "r"


@pytest.mark.slow
def test_records_of_another_device_or_kind_do_not_count(tiny_study, train_all, find):
    study = tiny_study("simclr")
    train_all(study)
    cpu = processor().partition(", AVX")[0]
    threads = read_record(study.runs()[0].directory).threads
    mine = work(study, "simclr", "tiny-digits")
    assert find(mine, study, place=Place(cpu, "", 0, 2, 2, threads, 1)).mark == "r"
    assert find(mine, study, place=Place("CPU: other", "", 0, 2, 2, threads, 1)) is None
    assert find(mine, study, place=Place(cpu, "", 0, 2, 2, threads + 1, 1)) is None
    assert find(mine, study, place=Place(cpu, "NVIDIA H200", 1, 2, 1, threads, 1)) is None
    for changed in ({"network": {"width": 16, "layers": [1, 1, 1]}}, {"training": {"batch_size": 32}}):
        other = tiny_study("simclr", plan=False, **changed)
        assert find(work(other, "simclr", "tiny-digits"), study, place=Place(cpu, "", 0, 2, 2, threads, 1)) is None


def test_a_calibration_counts_on_its_device_with_its_versions(find):
    mine = work(study_of(), "simclr")
    good = measurements(rate(mine))
    found = find(mine, calibrated=[good])
    assert (found.mark, found.source) == ("c", "calibration of this device on 2026-01-02")
    for other in (
        good.model_copy(update={"device": "CPU: hereafter"}),
        good.model_copy(update={"versions": versions() | {"torch": "1.0"}}),
        measurements(rate(mine, threads=2)),
        measurements(rate(work(study_of(), "scan"))),
    ):
        assert find(mine, calibrated=[other]) is None


def test_the_committed_table_is_named_as_such(find):
    mine = work(study_of(), "simclr")
    elsewhere = measurements(rate(mine, step_seconds=0.5), device="CPU: other")
    found = find(mine, committed=[elsewhere])
    assert (found.mark, found.source) == ("m", "measured on CPU: other (results/reference)")
    assert find(mine, committed=[elsewhere], place=GPU_PLACE) is None  # a CPU says nothing of a GPU
    gpu = measurements(rate(mine, threads=16), device="NVIDIA A100")
    assert find(mine, committed=[gpu]) is None
    assert find(mine, committed=[gpu], place=GPU_PLACE).source == "measured on NVIDIA A100 (results/reference)"
    found = find(mine, committed=[elsewhere, measurements(rate(mine, step_seconds=0.2))])
    assert found.rate.step_seconds == 0.2  # this device before another
    both = find(mine, committed=[elsewhere], calibrated=[measurements(rate(mine))])
    assert both.mark == "c"


def test_another_batch_size_will_do_in_the_committed_table_alone(find):
    mine = work(study_of(), "simclr")
    larger = rate(mine, kind=mine.kind | {"batch_size": 200}, batch_size=200, step_seconds=0.2)
    assert find(mine, calibrated=[measurements(larger)]) is None
    found = find(mine, committed=[measurements(larger)])
    assert run_seconds(mine, found.rate) == run_seconds(mine, rate(mine))


def test_results_of_scl_bench_count_as_committed(find, here):
    """Steps of the standard network alone; a study with another network finds nothing in them."""
    bench = {"stage": "simclr", "size": 16, "batch_size": 50, "compile": False, "images": [1000], "clusters": [10]}
    bench |= {"device": "CPU: other", "threads": 1, "parts": {"step": {"seconds_per_step": 0.05}}}
    (here / "committed" / "bench").mkdir(parents=True)
    write_json(here / "committed" / "bench" / "simclr.json", bench)
    mine, narrow = work(study_of(), "simclr"), study_of(network={"width": 16})
    found = find(mine)
    assert (found.mark, found.rate.weight_bytes) == ("m", None)
    assert run_seconds(mine, found.rate) == pytest.approx(2 * 17 * 0.1)
    assert run_bytes(mine, found.rate, seconds=1.0, checkpoint_seconds=1.0) is None
    assert find(work(narrow, "simclr"), narrow) is None
    write_json(here / "committed" / "bench" / "simclr.json", bench | {"parts": {}})
    assert find(mine) is None


def test_the_most_similar_measurement_is_taken(find):
    mine = work(study_of(), "simclr")
    other, same = rate(mine, benchmark="cifar10", step_seconds=9.0), rate(mine, step_seconds=0.3)
    assert find(mine, calibrated=[measurements(other, same)]).rate.step_seconds == 0.3
    assert find(mine, calibrated=[measurements(other)]).rate.step_seconds == 9.0


def test_damaged_and_foreign_files_are_ignored(find, here):
    (here / "calibration").mkdir()
    for number, text in enumerate(("", "{", "[]", '{"device": 3}', "\xff")):
        (here / "calibration" / f"bad{number}.json").write_text(text, encoding="latin-1")
    mine = work(study_of(), "simclr")
    assert find(mine) is None
    assert find(mine, calibrated=[measurements(rate(mine))]).mark == "c"


# --- arithmetic ----------------------------------------------------------------------------------------------------


def test_seconds_of_a_run_are_those_of_its_parts():
    mine = work(study_of(), "simclr")  # 2 epochs of 17 steps; 2 points of the curve
    assert (mine.fit, mine.points) == (1797, 2)
    assert run_seconds(mine, rate(mine)) == pytest.approx(2 + 2 * 17 * 0.1 + 2 * 1.0)
    assert epoch_steps(mine, rate(mine, last_batch=True)) == 18
    half = rate(mine, images=1797 // 2)
    assert run_seconds(mine, half) == pytest.approx(2 * 2 + 2 * 17 * 0.1 + 2 * 2.0, rel=0.01)


def test_k_means_costs_its_images_clusters_and_starts():
    study = study_of(benchmarks={"digits": {}, "twenty": {"dataset": "digits", "clusters": 20}})
    ten, twenty = work(study, "kmeans"), work(study, "kmeans", "twenty")
    measured = rate(ten, kmeans=True, once_seconds=0.0, options={"kmeans_restarts": 10})
    assert ten.settings.options == {"kmeans_restarts": 1}
    assert run_seconds(ten, measured) == pytest.approx(0.1)
    assert run_seconds(twenty, measured) == pytest.approx(0.2)


def test_unlabeled_images_count_where_an_epoch_visits_them():
    study = study_of(benchmarks={"stl10": {}})
    mine = work(study, "simclr", "stl10")
    assert (mine.fit, mine.unlabeled, mine.evaluated) == (13_000, 100_000, 13_000)
    assert epoch_steps(mine, rate(mine, unlabeled=1.0)) == 1130
    assert epoch_steps(mine, rate(mine, unlabeled=0.5)) == 630
    assert run_seconds(mine, rate(mine, unlabeled=None)) is None


def test_more_threads_take_less_time_in_the_committed_table(here, monkeypatch):
    study = study_of()
    place = Place("CPU: here", "", 0, 2, 1, 2, 1)
    mine = work(study, "simclr")
    table = here / "committed" / "bench" / "x.json"
    table.parent.mkdir(parents=True)
    write_json(table, measurements(rate(mine), device="CPU: other").model_dump())
    rows = cost_at(place, study)["rows"]
    row = next(row for row in rows if row["method"] == "simclr")
    assert row["seconds_per_run"] == pytest.approx(run_seconds(mine, rate(mine)) / 2 + 3.0)
    assert row["hours"] == pytest.approx(2 * row["seconds_per_run"] * 2 / 3600)


@pytest.mark.parametrize("at_once,expected", [(1, 19.0), (2, 10.0), (3, 9.0)])
def test_jobs_side_by_side(at_once, expected):
    """b waits for a; the first seed comes first."""
    jobs = [Job("a", None, 4), Job("b", "a", 5), Job("c", None, 1), Job("d", None, 9, priority=1), Job("e", "x", 0)]
    assert makespan(jobs, at_once=at_once, on_gpus=0) == expected


@pytest.mark.parametrize("at_once,on_gpus,expected", [(1, 1, 16.0), (2, 1, 9.0), (3, 2, 6.0), (4, 2, 6.0)])
def test_jobs_on_gpus_beside_others(at_once, on_gpus, expected):
    """a and b take a GPU, c and d only cores."""
    jobs = [Job("a", None, 4, gpu=True), Job("b", None, 5, gpu=True), Job("c", "a", 2, priority=1), Job("d", None, 5)]
    assert makespan(jobs, at_once=at_once, on_gpus=on_gpus) == expected


def test_nothing_to_do_takes_no_time():
    assert makespan([], at_once=2, on_gpus=1) == 0


def test_k_means_is_work_of_cores_beside_the_gpu(here, find):
    """The second run trains on the only GPU while the first one is clustered on two of the four cores."""
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
    assert f"in all: {2 * trained / 60:.2f} GPU-minutes, 0.13 core-minutes;" in text
    assert "k-means after training takes 0.13 core-minutes" in text


@pytest.mark.parametrize("kmeans,seconds", [(True, 2.0), (False, None)])
def test_k_means_that_is_left_takes_time_or_is_unknown(find, kmeans, seconds):
    """Of a trained run; a measurement without assignments, such as that of `scl bench`, says nothing of it."""
    study = study_of(methods={"simclr": TINY_METHODS["simclr"]}, seeds=1)
    find(work(study, "simclr"), calibrated=[measurements(rate(work(study, "simclr"), kmeans=kmeans))])
    measured = sources.Sources(study, PLACE, calibrations=Path("calibration"), committed=Path("committed"))
    record = SimpleNamespace(seconds=9.0, kmeans=True, files={}, unclustered={"1.npz": ""})
    survey = SimpleNamespace(state=lambda run: State("unclustered", "", record), prepared=lambda name: (None, ""))
    found = cost.cost_of(study, survey, measured)
    assert found["runs_left"] == 1
    if seconds is None:
        assert found["wall_seconds"] is found["rows"][0]["seconds_per_run"] is found["core_hours"] is None
    else:
        others = cost.START_SECONDS + found["scoring_seconds"] + cost.REPORT_SECONDS
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
def test_a_run_that_is_yet_to_be_clustered_costs_its_k_means(tiny_study, here, find):
    study = tiny_study("simclr")
    (run,) = study.runs()
    mine = work(study, "simclr", "tiny-digits")
    find(mine, calibrated=[measurements(rate(mine, kmeans=True, assign_seconds=50.0, threads=1))])
    train(run.directory, gpus=0, report=lambda line: None)
    found, trained = cost_at(PLACE, study), read_record(run.directory).seconds + 3.0
    assert found["runs_left"] == 1 and found["rows"][0]["runs_left"] == 1
    assert found["rows"][0]["seconds_per_run"] == pytest.approx(trained + 2 * 50.0)
    starts = cost.START_SECONDS + cost.REPORT_SECONDS
    assert found["wall_seconds"] == pytest.approx(starts + 2 * 50.0 + found["scoring_seconds"])
    cluster_run(run.directory)
    found = cost_at(PLACE, study)
    assert (found["runs_left"], found["wall_seconds"]) == (0, starts)
    assert found["rows"][0]["seconds_per_run"] == pytest.approx(read_record(run.directory).seconds + 3.0)


# --- space ---------------------------------------------------------------------------------------------------------


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
        planned, more = run_bytes(mine, found, seconds=1.0, checkpoint_seconds=300.0)
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
    assert len(found) == 24 and {entry["state"] for entry in found} == {"missing"}  # the Maltese is in both
    assert study_of(benchmarks={"imagenet10": {}}).skipped


# --- the command ---------------------------------------------------------------------------------------------------


def plan(capsys, *arguments):
    status = main(["plan", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out, told.err


@pytest.fixture
def nothing_measured(here, monkeypatch):
    monkeypatch.setattr(sources, "COMMITTED", here / "none")


def test_without_any_measurement_it_says_unknown_and_how_to_measure(nothing_measured, capsys):
    status, out, error = plan(capsys, "study.yaml")
    assert (status, error) == (0, "")
    assert out.count("unknown") >= 5 and "scl plan --calibrate study.yaml" in out
    status, out, _ = plan(capsys, "study.yaml", "--json")
    found = json.loads(out)
    assert found["wall_seconds"] is None and found["core_hours"] is None
    assert {row["hours"] for row in found["rows"]} == {None}


KEYS = {
    "title": str, "results": str, "runs": int, "runs_left": int, "device": dict, "downloads": list, "disk": dict,
    "rows": list, "gpu_hours": (float, type(None)), "core_hours": (float, type(None)), "scoring_seconds": float,
    "wall_seconds": (float, type(None)), "skipped": dict,
}  # fmt: skip
ROW = {
    "benchmark": str, "method": str, "runs": int, "runs_left": int, "unit": str, "hours": (float, type(None)),
    "kmeans_core_hours": (float, type(None)), "seconds_per_run": (float, type(None)), "sources": list,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "config").glob("[!f]*.yaml")))
def test_every_configuration_fits_a_screen_and_json_has_its_keys(name, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    status, out, error = plan(capsys, f"config/{name}")
    assert (status, error) == (0, "")
    lines = out[out.index("download: ") :].splitlines()
    assert max(map(len, lines)) <= 100 and len(out.splitlines()) <= 40
    found = json.loads(plan(capsys, f"config/{name}", "--json")[1])
    assert found.keys() == KEYS.keys() and all(isinstance(found[key], kind) for key, kind in KEYS.items())
    for row in found["rows"]:
        assert row.keys() == ROW.keys() and all(isinstance(row[key], kind) for key, kind in ROW.items())
    assert sum(row["runs"] for row in found["rows"]) == found["runs"]
    assert found["disk"]["peak"] == sum(found["disk"][part] for part in ("archives", "arrays", "runs", "temporary"))


def test_a_machine_with_gpus_has_gpu_hours_and_core_hours(here, capsys, monkeypatch):
    monkeypatch.setattr(gpu_lease, "visible", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr(machine, "_gpu_name", lambda token: "NVIDIA H200")
    monkeypatch.setattr(machine, "cores", lambda: 16)
    study = study_of(machine={"runs_per_gpu": 2})
    (here / "study.yaml").write_text(yaml.safe_dump(STUDY | {"machine": {"runs_per_gpu": 2}}))
    rates = [rate(work(study, stage), threads=4) for stage in study.methods]
    path = here / sources.CALIBRATIONS / "x.json"
    path.parent.mkdir(parents=True)
    write_json(path, measurements(*rates, device="NVIDIA H200").model_dump())
    status, out, _ = plan(capsys, "study.yaml", "--json")
    found = json.loads(out)
    assert found["device"] == {"name": "NVIDIA H200", "gpus": 2, "cores": 16, "runs_at_once": 4, "threads_per_run": 3}
    rows = {row["method"]: row for row in found["rows"]}
    assert rows["simclr"]["unit"] == "GPU-hours" and rows["kmeans"]["unit"] == "core-hours"
    assert rows["simclr"]["hours"] == pytest.approx(2 * rows["simclr"]["seconds_per_run"] / 2 / 3600)
    assert rows["kmeans"]["hours"] == pytest.approx(2 * rows["kmeans"]["seconds_per_run"] * 3 / 3600)
    assert "GPU-minutes" in plan(capsys, "study.yaml")[1]


@pytest.mark.slow
def test_calibrating_measures_every_kind_and_the_plan_uses_it(tiny_study, here, capsys):
    path = tiny_study("kmeans", "simclr", "scl").results / "study.yaml"
    status, out, error = plan(capsys, path, "--calibrate")
    assert status == 0 and "unknown" not in out and "calibration of this device" in out
    assert error.count("assignment of 200 images") == 3
    (file,) = sources.CALIBRATIONS.glob("*.json")
    first = Measurements.model_validate_json(file.read_bytes())
    assert all(rate.step_seconds > 0 for rate in first.rates if rate.stage != "kmeans")
    other = tiny_study("pica", results="results2").results / "study.yaml"
    assert plan(capsys, other, "--calibrate")[0] == 0  # kept in the same file
    assert {rate.stage for rate in Measurements.model_validate_json(file.read_bytes()).rates} == {
        "kmeans", "simclr", "scl", "pica",
    }  # fmt: skip


@pytest.mark.slow
def test_what_is_trained_costs_what_it_took(tiny_study, train_all, here, capsys):
    study = tiny_study("random", "simclr")
    train_all(study)
    found = json.loads(plan(capsys, study.results / "study.yaml", "--json")[1])
    assert (found["runs"], found["runs_left"]) == (2, 0)
    taken = [read_record(run.directory).seconds for run in study.runs()]
    jobs = found["rows"][0]["seconds_per_run"] - taken[0]
    assert found["rows"][1]["seconds_per_run"] == pytest.approx(taken[1] + jobs)


@pytest.mark.parametrize(
    "arguments,words",
    [
        (("nowhere.yaml",), ("nowhere.yaml",)),
        (("nowhere.yaml", "--calibrate"), ("nowhere.yaml",)),
        (("study.yaml", "--show", "digits/joint/simclr", "--json"), ("--show", "--json")),
        (("bad.yaml",), ("methods.simclr.options.temprature", "temperature")),
        (("bad.yaml", "--calibrate"), ("methods.simclr.options.temprature",)),
    ],
)
def test_bad_input_is_one_line(arguments, words, here, capsys):
    bad = STUDY["methods"] | {"simclr": TINY_METHODS["simclr"] | {"options": {"temprature": 1.0}}}
    (here / "bad.yaml").write_text(yaml.safe_dump(STUDY | {"methods": bad}))
    status, out, error = plan(capsys, *arguments)
    assert (status, out) == (2, "") and error.count("\n") == 1 and all(word in error for word in words)
    assert not (here / "results").exists()


@pytest.mark.slow
def test_a_calibration_that_cannot_be_kept_is_one_line(tiny_study, here, capsys):
    path = tiny_study("random", results="elsewhere").results / "study.yaml"
    (here / "results").write_text("a file")
    status, out, error = plan(capsys, path, "--calibrate")
    assert (status, out) == (2, "") and error.splitlines()[-1].startswith("scl: error: ") and "results" in error


def test_a_kind_that_cannot_be_measured_is_named(tiny_study, here, capsys):
    methods = {"scan": TINY_METHODS["scan"] | {"after": None, "options": {"neighbors": 300}}}
    path = tiny_study("scan", methods=methods).results / "study.yaml"
    status, out, error = plan(capsys, path, "--calibrate")
    assert status == 0 and "scan on tiny-digits: cannot be measured: options.neighbors" in error
    assert "unknown" in out
