"""A study without Snakemake (`scl run`), and runs carried between machines (`scl pack`, `scl unpack`)."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import yaml
from conftest import TINY_METHODS
from flow import ROOT, TINY, planned, snakemake

from benchmarks.cli import main
from benchmarks.report.runs import read_runs
from benchmarks.runner import by_seed
from benchmarks.study import load_study

STUDY = TINY | {"seeds": 2, "methods": {stage: TINY_METHODS[stage] for stage in ("kmeans", "simclr", "scan")}}
BROKEN = {"training": {"epochs": 4, "learning_rate": 1.0e30}}


def scl(folder, *arguments, wait=True):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.cli", *arguments], cwd=folder, env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # ignored in background jobs
    return (process.communicate(timeout=600)[0], process.returncode) if wait else process


def write(folder, study) -> Path:
    path = Path(folder) / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, output) of a study made by `scl run`."""
    folder = tmp_path_factory.mktemp("without-snakemake")
    write(folder, STUDY)
    output, status = scl(folder, "run", "study.yaml")
    assert status == 0, output
    return folder, output


@pytest.mark.xdist_group("runner")
def test_a_study_runs_without_snakemake_seed_by_seed(finished):
    folder, output = finished
    done = [line.split(":")[0] for line in output.splitlines() if ": done in" in line]
    assert len(done) == 6 and all(name.endswith("seed 0") for name in done[:2])
    assert (folder / "results" / "tables.md").exists() and (folder / "results" / "report" / "index.html").exists()
    output, status = scl(folder, "run", "study.yaml")
    assert status == 0 and output.startswith("0 runs to do")


@pytest.mark.xdist_group("runner")
def test_snakemake_goes_on_where_it_ended(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy", copy_function=shutil.copy2)
    jobs = planned(snakemake(folder, STUDY, "--dry-run"))
    assert "train" not in jobs and "evaluate" not in jobs


def test_one_seed_of_everything_before_a_second_of_anything(tmp_path):
    study = load_study(STUDY | {"seeds": [3, 1]})
    order = by_seed(study)
    assert [run.seed for run in order] == [3] * 3 + [1] * 3
    assert all(run.after is None or order.index(run.after) < order.index(run) for run in order)


def test_a_failing_run_stops_only_those_that_start_from_it(tmp_path):
    methods = STUDY["methods"] | {"simclr": STUDY["methods"]["simclr"] | BROKEN}
    write(tmp_path, STUDY | {"seeds": 1, "methods": methods})
    output, status = scl(tmp_path, "run", "study.yaml")
    assert status == 1 and "simclr seed 0: failed: the loss term" in output and "scan seed 0: started" not in output
    rows = {row.stage: row.status for row in read_runs(tmp_path / "results" / "partial").itertuples()}
    assert rows == {"kmeans": "done", "simclr": "failed", "scan": "missing"}


@pytest.mark.parametrize("how,status", [("minutes", 1), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_study_is_saved(how, status, tmp_path):
    study = STUDY | {"seeds": 1, "methods": {"simclr": STUDY["methods"]["simclr"] | {"training": {"epochs": 3000}}}}
    write(tmp_path, study)
    process = scl(tmp_path, "run", "study.yaml", *(["--minutes", "0.2"] if how == "minutes" else []), wait=False)
    if how != "minutes":
        log = tmp_path / "results" / "logs" / "tiny" / "joint" / "simclr" / "seed0.log"
        while process.poll() is None and not (log.exists() and "epoch 1/" in log.read_text()):
            time.sleep(0.1)
        process.send_signal(how)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == status and "Traceback" not in output, output
    run = tmp_path / "results" / "runs" / "tiny" / "joint" / "simclr" / "seed0"
    assert (run / "checkpoint.pt").exists() and not (run / "record.json").exists()


@pytest.mark.xdist_group("runner")
@pytest.mark.parametrize("weights", [True, False])
def test_packed_runs_arrive_elsewhere(weights, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(finished[0])
    assert main(["pack", "study.yaml", str(tmp_path / "runs.tar"), *(["--weights"] if weights else [])]) == 0
    monkeypatch.chdir(tmp_path)
    write(tmp_path, STUDY)
    assert main(["unpack", "study.yaml", "runs.tar"]) == 0
    assert main(["report", "study.yaml"]) == 0
    for name in ("runs.csv", "claims.md"):
        assert (tmp_path / "results" / name).read_text() == (finished[0] / "results" / name).read_text()
    kept = tmp_path / "results" / "runs" / "tiny" / "joint" / "scan" / "seed1"
    assert (kept / "weights.pt").exists() == weights
    before = (kept / "record.json").stat().st_mtime_ns
    assert main(["unpack", "study.yaml", "runs.tar"]) == 0  # again: what is done here stays
    assert (kept / "record.json").stat().st_mtime_ns == before


@pytest.mark.xdist_group("runner")
def test_a_report_counts_no_run_of_other_settings(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished[0], tmp_path / "copy", copy_function=shutil.copy2)
    monkeypatch.chdir(folder)
    changed = STUDY["methods"]["scan"] | {"options": {"neighbours": 3}}
    write(folder, STUDY | {"methods": STUDY["methods"] | {"scan": changed}})
    assert main(["report", "study.yaml"]) == 0
    found = {(row.stage, row.status, row.reason) for row in read_runs(folder / "results" / "partial").itertuples()}
    assert found == {("kmeans", "done", ""), ("simclr", "done", ""),
                     ("scan", "missing", "made with other settings (options.neighbours): train again")}


@pytest.mark.xdist_group("runner")
@pytest.mark.parametrize("change,named", [
    ({"seeds": 1}, "does not plan"), ({"training": STUDY["training"] | {"batch_size": 16}}, "other settings.*training")])
def test_runs_of_another_study_are_refused(change, named, finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(finished[0])
    assert main(["pack", "study.yaml", str(tmp_path / "runs.tar")]) == 0
    monkeypatch.chdir(tmp_path)
    write(tmp_path, STUDY | change)
    assert main(["unpack", "study.yaml", "runs.tar"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(named, error)
    assert not list((tmp_path / "results").rglob("record.json"))


@pytest.mark.xdist_group("runner")
def test_runs_on_other_images_are_refused(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(finished[0])
    assert main(["pack", "study.yaml", str(tmp_path / "runs.tar")]) == 0
    monkeypatch.chdir(tmp_path)
    write(tmp_path, STUDY)
    mark = tmp_path / "data" / "tiny" / "benchmark.json"
    mark.parent.mkdir(parents=True)
    facts = json.loads((finished[0] / "data" / "tiny" / "benchmark.json").read_text())
    mark.write_text(json.dumps(facts | {"images_sha256": "others"}))
    assert main(["unpack", "study.yaml", "runs.tar"]) == 2
    assert "other images" in capsys.readouterr().err


def test_a_tar_that_pack_did_not_write_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, STUDY)
    (tmp_path / "evil").write_text("x")
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.add(tmp_path / "evil", "../../evil")
    (tmp_path / "torn.tar").write_bytes(b"no tar")
    assert main(["unpack", "study.yaml", "evil.tar"]) == 2
    assert "which no run has" in capsys.readouterr().err
    assert main(["unpack", "study.yaml", "torn.tar"]) == 2
    assert "not a whole tar file" in capsys.readouterr().err
