"""`scl plan`: which measurement counts for a run (records, a calibration, the committed table), and what follows."""

import statistics

import pytest
from conftest import TINY_METHODS
from planning import GPU_PLACE, find, measurements, rate, run_seconds, study_of, work

from benchmarks.plan.machine import Place
from benchmarks.plan.rates import epoch_steps, run_bytes
from scl.engine.artifacts import clustering, read_record
from scl.engine.clustering import cluster_run
from scl.engine.io import write_json
from scl.engine.provenance import processor, versions
from scl.engine.train import train


@pytest.mark.slow
def test_records_of_finished_runs_come_first_and_scale_with_the_epochs(tiny_study, train_all, here):
    study = tiny_study("random", "simclr", seeds=(0, 1, 2))
    runs = [run for run in train_all(study) if run.stage == "simclr"]
    threads = read_record(runs[0].directory).threads
    place = Place(processor(), "", 0, threads, 1, threads, 1)
    calibrated = [measurements(rate(work(study, "simclr", "tiny-digits"), threads=threads), device=place.cpu)]
    found = find(work(study, "simclr", "tiny-digits"), study, calibrated=calibrated, place=place)
    assert (found.mark, found.source) == ("r", "3 finished runs on this device")
    records = [(read_record(run.directory), run.directory) for run in runs]
    clustered = [clustering(directory, record.fingerprint).seconds for record, directory in records]
    trained = [record.seconds - seconds for (record, _), seconds in zip(records, clustered)]
    mine = work(study, "simclr", "tiny-digits")
    took = statistics.median(record.seconds for record, _ in records)
    assert run_seconds(mine, found.rate) == pytest.approx(took, rel=1e-6)
    longer = TINY_METHODS | {"simclr": TINY_METHODS["simclr"] | {"training": {"epochs": 6}}}
    other = tiny_study("simclr", methods=longer, results="results/other", plan=False)
    found = find(work(other, "simclr", "tiny-digits"), other, place=place)  # from another study in this folder
    assert found.mark == "r"
    mine = work(other, "simclr", "tiny-digits")
    longer = statistics.median(3 * training + clustering for training, clustering in zip(trained, clustered))
    assert run_seconds(mine, found.rate) == pytest.approx(longer, rel=1e-6)  # 2 points, too


@pytest.mark.slow
def test_records_of_another_device_or_kind_or_of_unclustered_runs_do_not_count(tiny_study, here):
    study, cpu = tiny_study("simclr"), processor()
    (run,) = study.runs()
    train(run.directory, gpus=0, report=lambda line: None)
    threads = read_record(run.directory).threads
    mine = work(study, "simclr", "tiny-digits")
    assert find(mine, study, place=Place(cpu, "", 0, 2, 2, threads, 1)) is None
    cluster_run(run.directory)
    assert find(mine, study, place=Place(cpu, "", 0, 2, 2, threads, 1)).mark == "r"
    assert find(mine, study, place=Place("CPU: other", "", 0, 2, 2, threads, 1)) is None
    assert find(mine, study, place=Place(cpu, "", 0, 2, 2, threads + 1, 1)) is None
    assert find(mine, study, place=Place(cpu, "NVIDIA H200", 1, 2, 1, threads, 1)) is None
    for changed in ({"network": {"width": 16, "layers": [1, 1, 1]}}, {"training": {"batch_size": 32}}):
        other = tiny_study("simclr", plan=False, **changed)
        assert find(work(other, "simclr", "tiny-digits"), study, place=Place(cpu, "", 0, 2, 2, threads, 1)) is None


@pytest.mark.slow
def test_records_count_without_a_plan_but_not_with_a_damaged_history(tiny_study, here):
    """As written by `scl run`, or in a copy of results/runs: there is no study.yaml yet."""
    study = tiny_study("simclr")
    (run,) = study.runs()
    train(run.directory, gpus=0, report=lambda line: None)
    cluster_run(run.directory)
    (study.results / "study.yaml").unlink()
    threads, mine = read_record(run.directory).threads, work(study, "simclr", "tiny-digits")
    place = Place(processor(), "", 0, threads, 1, threads, 1)
    found = find(mine, study, place=place)
    assert found and found.mark == "r"
    history = run.directory / "history.csv"
    header, *lines = history.read_text().splitlines(keepends=True)
    for damaged in ("", header, header + lines[0] + "2", header + "\0"):
        history.write_text(damaged)
        assert find(mine, study, place=place) is None, damaged


def test_a_calibration_counts_on_its_device_with_its_versions(here):
    mine = work(study_of(), "simclr")
    good = measurements(rate(mine))
    found = find(mine, calibrated=[good])
    assert (found.mark, found.source) == ("c", "calibration of this device on 2026-01-02")
    for other in (
        good.model_copy(update={"device": "CPU: here, AVX2"}),
        good.model_copy(update={"versions": versions() | {"torch": "1.0"}}),
        measurements(rate(mine, threads=2)),
        measurements(rate(work(study_of(), "scan"))),
    ):
        assert find(mine, calibrated=[other]) is None
    newer = measurements(rate(work(study_of(), "scan")), finished="2026-01-03T00:00:00+00:00")
    assert find(mine, calibrated=[newer, good]) == found  # the newer one did not measure this kind
    again = measurements(rate(mine, step_seconds=0.2), finished="2026-01-03T00:00:00+00:00")
    assert find(mine, calibrated=[good, again]).rate.step_seconds == 0.2


def test_the_committed_table_is_named_as_such(here):
    mine = work(study_of(), "simclr")
    elsewhere = measurements(rate(mine, step_seconds=0.5), device="CPU: other")
    found = find(mine, committed=[elsewhere])
    assert (found.mark, found.source) == ("m", "measured on CPU: other (results/reference)")
    assert find(mine, committed=[elsewhere], place=GPU_PLACE) is None  # measurements of a CPU do not apply to a GPU
    gpu = measurements(rate(mine, threads=16), device="NVIDIA A100")
    assert find(mine, committed=[gpu]) is None
    assert find(mine, committed=[gpu], place=GPU_PLACE).source == "measured on NVIDIA A100 (results/reference)"
    found = find(mine, committed=[elsewhere, measurements(rate(mine, step_seconds=0.2))])
    assert found.rate.step_seconds == 0.2  # this device takes precedence
    both = find(mine, committed=[elsewhere], calibrated=[measurements(rate(mine))])
    assert both.mark == "c"


def test_another_batch_size_will_do_in_the_committed_table_alone(here):
    mine = work(study_of(), "simclr")
    larger = rate(mine, kind=mine.kind | {"batch_size": 200}, batch_size=200, step_seconds=0.2)
    assert find(mine, calibrated=[measurements(larger)]) is None
    found = find(mine, committed=[measurements(larger)])
    assert run_seconds(mine, found.rate) == run_seconds(mine, rate(mine))


def test_results_of_scl_bench_count_as_committed(here):
    """They only measure steps of the standard network, so they do not apply to studies with other networks."""
    bench = {"stage": "simclr", "size": 16, "batch_size": 50, "compile": False, "images": [1000], "clusters": [10]}
    bench |= {"device": "CPU: other", "threads": 1, "parts": {"step": {"seconds_per_step": 0.05}}}
    (here / "committed" / "bench").mkdir(parents=True)
    write_json(here / "committed" / "bench" / "simclr.json", bench)
    mine, narrow = work(study_of(), "simclr"), study_of(network={"width": 16})
    found = find(mine)
    assert (found.mark, found.rate.weight_bytes) == ("m", None)
    assert run_seconds(mine, found.rate) == pytest.approx(2 * 17 * 0.1)
    assert run_bytes(mine, found.rate, checkpoint_seconds=1.0) is None
    assert find(work(narrow, "simclr"), narrow) is None
    write_json(here / "committed" / "bench" / "simclr.json", bench | {"parts": {}})
    assert find(mine) is None


def test_the_most_similar_measurement_is_taken(here):
    mine = work(study_of(), "simclr")
    other, same = rate(mine, benchmark="cifar10", step_seconds=9.0), rate(mine, step_seconds=0.3)
    assert find(mine, calibrated=[measurements(other, same)]).rate.step_seconds == 0.3
    assert find(mine, calibrated=[measurements(other)]).rate.step_seconds == 9.0


def test_damaged_and_foreign_files_are_ignored(here):
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
    assert run_seconds(mine, rate(mine)) == pytest.approx(2 * 17 * 0.1 + 2 * 1.0)
    half = rate(mine, images=1797 // 2)
    assert run_seconds(mine, half) == pytest.approx(2 * 17 * 0.1 + 2 * 2.0, rel=0.01)


def test_k_means_costs_its_images_clusters_and_starts():
    study = study_of(benchmarks={"digits": {}, "twenty": {"dataset": "digits", "clusters": 20}})
    ten, twenty = work(study, "kmeans"), work(study, "kmeans", "twenty")
    measured = rate(ten, kmeans=True, options={"kmeans_restarts": 10})
    assert ten.settings.options == {"kmeans_restarts": 1}
    assert run_seconds(ten, measured) == pytest.approx(0.1)
    assert run_seconds(twenty, measured) == pytest.approx(0.2)


def test_unlabeled_images_count_where_an_epoch_visits_them(here):
    study = study_of(benchmarks={"stl10": {}})
    mine = work(study, "simclr", "stl10")
    assert (mine.fit, mine.unlabeled, mine.evaluated) == (13_000, 100_000, 13_000)
    assert epoch_steps(mine, rate(mine, unlabeled=1.0)) == 1130
    assert epoch_steps(mine, rate(mine, unlabeled=0.5)) == 630
    assert find(mine, study, calibrated=[measurements(rate(mine, unlabeled=None))]) is None
