"""k-means after training (`scl kmeans`): features are kept, clustered, and deleted, or the run is trained again.

tests/test_resume.py kills the two steps; tests/test_workflow.py has the rule of the Snakefile.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY_METHODS, flip_a_bit
from sklearn.cluster import KMeans

from baselines.simclr import SimCLR
from benchmarks import cli
from benchmarks.assigner import Assigner
from benchmarks.check import check_methods
from benchmarks.evaluation.evaluate import evaluate_run, read_assignments
from benchmarks.report.runs import row_of
from benchmarks.single import run_single
from benchmarks.state import Survey
from benchmarks.workflow import share_machine
from scl import images
from scl.engine import artifacts, assign, clustering
from scl.engine.assign import outputs
from scl.engine.clustering import cluster_run, write_assignments
from scl.engine.train import train
from scl.method import clustered_by_kmeans
from scl.scl import SCL

ROOT = Path(cli.__file__).parent.parent
quiet = functools.partial(train, gpus=0, threads=1, report=lambda line: None)


def status_of(study):
    return Survey(study).state(study.runs()[0])


def arrays_of(directory, name="assignments.npz"):
    with np.load(directory / name) as file:
        return {key: file[key] for key in file.files}


def assert_same_arrays(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


@pytest.fixture
def trained(tiny_study, trained_simclr):
    """(study, folder) of SimCLR, trained and not clustered."""
    study = tiny_study("simclr")
    (run,) = study.runs()
    shutil.copytree(trained_simclr, run.directory, dirs_exist_ok=True)
    return study, run.directory


@pytest.mark.parametrize("protocol", ["joint", "heldout"])
def test_clusters_are_those_of_scikit_learn_on_the_features_of_the_last_epoch(protocol, tiny_study):
    study = tiny_study("simclr", protocols=[protocol])
    (run,) = study.runs()
    quiet(run.directory)
    record = artifacts.load(run.directory)
    assert sorted(path.name for path in (run.directory / "features").iterdir()) == ["1.npz", "2.npz", "further.npz"]
    cluster_run(run.directory)
    assert not (run.directory / "features").exists()
    assigner = Assigner(run.directory)
    data = study.data / "tiny-digits"
    fit, evaluated = (
        outputs(assigner.method, images.load(data, protocol, use), autocast=torch.no_grad) for use in ("fit", "assign")
    )
    model = KMeans(10, n_init=1, random_state=record.kmeans.seed % 2**32).fit(fit)
    np.testing.assert_array_equal(arrays_of(run.directory)["assignments"], model.predict(evaluated))


def test_status_tells_training_from_clustering(trained, capsys):
    study, run = trained
    assert status_of(study).status == "unclustered" and status_of(study).record
    assert cli.main(["evaluate", str(run)]) == 2
    assert "trained, not clustered; give `scl kmeans" in capsys.readouterr().err
    assert cli.main(["kmeans", str(run)]) == 0
    assert status_of(study).status == "trained"
    made = json.loads((run / "clustering.json").read_text())
    assert made["threads"] == 1 and made["versions"]["scikit-learn"]


def test_what_has_its_assignments_is_left_alone(trained, tiny_study, train_all):
    _, run = trained
    cluster_run(run)
    (scl,) = train_all(tiny_study("pica", results="heads"))
    for directory in (run, scl.directory):
        before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
        cluster_run(directory)
        assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before
    assert not (scl.directory / "features").exists() and not (scl.directory / "clustering.json").exists()


@pytest.mark.parametrize("name, spoil", [("1.npz", Path.unlink), ("2.npz", flip_a_bit), ("further.npz", flip_a_bit)])
def test_lost_features_are_trained_again(name, spoil, trained, capsys):
    study, run = trained
    clean = shutil.copytree(run, run.parent / "clean")
    spoil(run / "features" / name)
    assert status_of(study).status == ("damaged" if spoil is Path.unlink else "unclustered")
    assert cli.main(["kmeans", str(run)]) == 2
    assert f"{name}: {'missing' if spoil is Path.unlink else 'damaged'}" in capsys.readouterr().err
    assert not (run / "assignments.npz").exists() and status_of(study).status == "damaged"
    quiet(run)
    for directory in (run, clean):
        cluster_run(directory)
    assert_same_arrays(arrays_of(run), arrays_of(clean))


def test_lost_assignments_are_trained_again_as_their_features_are_gone(trained, capsys):
    study, run = trained
    cluster_run(run)
    before = arrays_of(run)
    flip_a_bit(run / "assignments.npz")
    assert status_of(study).status == "damaged" and "assignments.npz is" in status_of(study).reason
    assert cli.main(["kmeans", str(run)]) == 2 and "further.npz: missing" in capsys.readouterr().err
    quiet(run)
    cluster_run(run)
    assert_same_arrays(arrays_of(run), before)


def test_lost_weights_are_written_again_without_training_or_clustering(trained):
    study, run = trained
    cluster_run(run)
    before = arrays_of(run)
    for name in ("weights.pt", "record.json", "history.csv"):  # as Snakemake does before it makes the first one again
        (run / name).unlink()
    said = []
    train(run, gpus=0, threads=1, report=said.append)
    assert said[-1].startswith("resumed at epoch 3,")
    assert status_of(study).status == "trained" and not (run / "features").exists()
    assert_same_arrays(arrays_of(run), before)


class Rounding(SimCLR):
    """Keeps an array that depends on the machine."""

    machine = 0.0

    def arrays(self, images):
        return {"further": np.array([self.machine])}


def test_arrays_that_another_machine_rounds_differently_remain_those_of_the_assignments(tiny_study, monkeypatch):
    study = tiny_study("simclr", methods={"simclr": TINY_METHODS["simclr"] | {"method": f"{__name__}.Rounding"}})
    (run,) = study.runs()
    quiet(run.directory)
    cluster_run(run.directory)
    before = arrays_of(run.directory)
    monkeypatch.setattr(Rounding, "machine", 1e-7)
    (run.directory / "weights.pt").unlink()
    quiet(run.directory)
    assert status_of(study).status == "trained" and not (run.directory / "features").exists()
    assert_same_arrays(arrays_of(run.directory), before)


def test_a_finished_training_is_not_begun_again_before_it_is_clustered(trained):
    _, run = trained
    said = []
    train(run, gpus=0, threads=1, report=said.append)
    assert said == [f"{run}: already done"]


def test_a_run_by_hand_clusters_its_whole_chain(tiny_study):
    study = tiny_study("simclr", "scan", plan=False)
    run = study.run("tiny-digits", "joint", "scan", 0)
    run_single(study, run, gpus=0, threads=1, report=lambda line: None)
    assert Survey(study).state(run.after).status == "trained"
    assert not list(study.results.rglob("features"))


def test_a_run_by_hand_resumes_between_training_and_clustering(trained):
    study, run = trained
    said = []
    run_single(study, study.runs()[0], gpus=0, threads=1, report=said.append)
    assert said[0] == "k-means of simclr on tiny-digits (joint), seed 0" and status_of(study).status == "done"


def test_the_step_sees_no_label(trained, monkeypatch):
    study, run = trained
    labels = study.data / "tiny-digits" / "labels.npy"
    monkeypatch.setattr(clustering, "kmeans", lambda *_, **__: np.load(labels))
    with pytest.raises(PermissionError, match=r"labels\.npy"):
        cluster_run(run)
    assert not (run / "assignments.npz").exists()


def test_the_step_needs_no_torch(trained):
    _, run = trained
    code = "import sys; from benchmarks import cli; cli.main(sys.argv[1:]); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code, "kmeans", str(run)], cwd=ROOT).returncode == 0


def test_threads_are_limited_in_a_process_that_has_yet_to_load_openmp(trained):
    _, run = trained
    code = """
import sys
from scl.engine import clustering

kmeans = clustering.kmeans

def counted(*arguments, **options):
    from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

    print(_openmp_effective_n_threads())
    return kmeans(*arguments, **options)

clustering.kmeans = counted
clustering.cluster_run(sys.argv[1], threads=1)
"""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code, str(run)]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n1\n")


def test_the_cost_of_a_run_includes_its_kmeans(trained):
    study, run = trained
    alone = artifacts.read_record(run).seconds
    cluster_run(run)
    made = json.loads((run / "clustering.json").read_text())
    assert made["seconds"] > 0 and status_of(study).record.seconds == alone + made["seconds"]


def test_the_record_tells_which_scikit_learn_clustered_it_and_whether_its_code_was_committed(trained):
    study, run = trained
    cluster_run(run)
    path = run / "clustering.json"
    made = json.loads(path.read_text())
    made["versions"]["scikit-learn"] = "99"
    path.write_text(json.dumps(made | {"dirty": True}))
    record = status_of(study).record
    assert record.versions["scikit-learn"] == "99" and record.dirty


def test_the_row_of_a_run_names_the_commit_of_its_kmeans(trained):
    """The code may be updated between training and k-means."""
    study, run = trained
    cluster_run(run)
    evaluate_run(run, study.data / "tiny-digits")
    [planned] = study.runs()
    assert row_of(planned, Survey(study))["other_commits"] == ""
    path = run / "clustering.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "feed"}))
    row = row_of(planned, Survey(study))
    assert (row["status"], row["other_commits"]) == ("done", "feed")


def test_features_that_another_method_left_are_deleted(trained, tiny_study):
    _, run = trained
    methods = {"simclr": TINY_METHODS["pica"]}
    (now,) = tiny_study("simclr", methods=methods).runs()
    assert now.directory == run and (run / "features").exists()
    quiet(run)
    assert (run / "assignments.npz").exists() and not (run / "features").exists()


def test_features_that_are_not_finite_fail_the_training(tiny_study, monkeypatch):
    monkeypatch.setattr(SimCLR, "assign", lambda self, x: torch.full((len(x), 4), torch.nan))
    (run,) = tiny_study("simclr", training={"batch_size": 64, "curve_points": 1, "precision": "fp32"}).runs()
    with pytest.raises(Exception, match="outputs of the trained method are not finite"):
        quiet(run.directory)
    assert not (run.directory / "record.json").exists()
    assert "epoch" not in json.loads((run.directory / "failure.json").read_text())  # it failed after the last epoch


def test_features_of_training_images_that_are_not_finite_fail_the_training_too(tiny_study, monkeypatch):
    def outputs_of(method, images, *, index=None, **options):
        return np.full((len(images), 4), 0.0 if index is None else np.nan, np.float32)

    monkeypatch.setattr(assign, "outputs", outputs_of)
    (run,) = tiny_study("simclr", protocols=["heldout"]).runs()
    with pytest.raises(Exception, match="outputs of the trained method are not finite"):
        quiet(run.directory)


def test_clusters_beyond_the_range_of_16_bits_are_kept_as_they_are(tmp_path):
    clusters = np.arange(40_000)
    write_assignments(tmp_path, clusters, clusters, np.empty(0, np.float32), [(1, clusters)], {})
    assert np.array_equal(read_assignments(tmp_path / "assignments.npz")["per_epoch"], [clusters])


# --- which methods -----------------------------------------------------------------------------------------------


class Restless(SimCLR):
    """SimCLR without the option that k-means needs."""

    class Options(SCL.Options.__base__):
        pass


def test_methods_are_asked_before_they_are_built():
    assert clustered_by_kmeans(SimCLR, SimCLR.Options())
    assert clustered_by_kmeans(SCL, SCL.Options(assignment="kmeans"))
    assert not clustered_by_kmeans(SCL, SCL.Options())


def test_a_method_for_kmeans_needs_its_option(tiny_study):
    methods = {"restless": TINY_METHODS["simclr"] | {"method": "test_clustering.Restless", "options": {}}}
    with pytest.raises(ValueError, match=r"methods\.restless: Restless\.Options has no kmeans_restarts"):
        check_methods(tiny_study(methods=methods, plan=False))


@pytest.mark.parametrize("gpus,limit,threads", [(0, None, 16), (1, None, 8), (3, None, 4), (3, 1, 8), (3, 0, 16)])
def test_cores_are_left_for_kmeans_beside_runs_on_gpus(gpus, limit, threads, monkeypatch):
    """limit: N of `--resources gpu=N`; 0 trains on the CPU, with as many threads as on a machine without GPUs."""
    monkeypatch.setattr("scl.engine.gpu_lease.visible", lambda: [f"GPU-{i}" for i in range(gpus)])
    limits = {"_cores": SimpleNamespace(value=16)}
    if limit is not None:
        limits["gpu"] = SimpleNamespace(value=limit)
    workflow = SimpleNamespace(nodes=None, remote_exec=False, is_main_process=True, global_resources=limits)
    workflow.register_resource = lambda name, value: limits.update({name: SimpleNamespace(value=value)})
    study = SimpleNamespace(machine=SimpleNamespace(threads=None, runs_per_gpu=1))
    assert share_machine(workflow, study) == threads


# --- the sample for a map ----------------------------------------------------------------------------------------


def test_a_sample_of_features_is_kept_of_methods_with_an_encoder(tiny_study, train_all, monkeypatch):
    monkeypatch.setattr("scl.engine.assign.SAMPLE", 50)
    runs = {run.stage: run.directory for run in train_all(tiny_study("random", "kmeans", "simclr", "pica"))}
    assert not any((runs[stage] / "sample.npz").exists() for stage in ("random", "kmeans"))
    for stage in ("simclr", "pica"):
        sample = arrays_of(runs[stage], "sample.npz")
        rows = sample["sample_rows"]
        assert (rows[0], rows[-1], len(rows)) == (0, 199, 50) and set(np.diff(rows)) <= {4, 5}
        method = Assigner(runs[stage]).method.eval()
        found = images.load(tiny_study("pica").data / "tiny-digits", "joint", "assign")
        with torch.no_grad():
            batch = found.batch(torch.from_numpy(rows))
            expected = method.assign(batch) if stage == "simclr" else method.encoder(batch)
        assert sample["sample_features"].dtype == np.float16
        np.testing.assert_allclose(sample["sample_features"], expected, atol=0.02)
        assert "sample.npz" in artifacts.load(runs[stage]).files


def test_a_lost_sample_changes_nothing(trained):
    study, run = trained
    (run / "sample.npz").unlink()
    assert status_of(study).status == "unclustered"
    said = []
    train(run, gpus=0, threads=1, report=said.append)
    assert said == [f"{run}: already done"]


def test_committed_records_are_read():
    """Including those from before `scl kmeans` existed, except the oldest, which have no identity."""
    records = Path(cli.__file__).parents[1].glob("results/reference/*/runs/**/record.json")
    found = [artifacts.load(path.parent) for path in records if "identity" in json.loads(path.read_bytes())]
    assert found and all(artifacts.ASSIGNMENTS in record.files for record in found)
