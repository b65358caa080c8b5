"""`scl plan`: the command, its output, and its errors."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import TINY_METHODS
from planning import STUDY, measurements, rate, run_seconds, study_of, work

from benchmarks.cli import main
from benchmarks.plan import calibrate, machine, measure, sources
from benchmarks.plan.rates import Measurements
from benchmarks.plan.table import describe_cost
from scl.engine import gpu_lease
from scl.engine.artifacts import read_record
from scl.engine.io import write_json
from scl.scl import SCL

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def here(here):
    (here / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return here


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
    "rows": list, "gpu_hours": (float, type(None)), "core_hours": (float, type(None)),
    "wall_seconds": (float, type(None)), "skipped": dict,
}  # fmt: skip
ROW = {
    "benchmark": str, "method": str, "runs": int, "runs_left": int, "unit": str, "hours": (float, type(None)),
    "core_hours": (float, type(None)), "kmeans_core_hours": (float, type(None)),
    "seconds_per_run": (float, type(None)), "sources": list,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "config").glob("[!f]*.yaml")))
def test_every_configuration_fits_a_screen_and_json_has_its_keys(name, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    status, out, error = plan(capsys, f"config/{name}", "--json")
    assert (status, error) == (0, "")
    found = json.loads(out)
    lines = describe_cost(found, f"config/{name}").splitlines()
    assert max(map(len, lines)) <= 100 and len(lines) <= 30
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
    alone = run_seconds(work(study, "simclr"), rates[1])
    assert rows["simclr"]["seconds_per_run"] == pytest.approx(2 * alone + 3)  # two share a GPU: no faster than in turn
    assert rows["simclr"]["hours"] == pytest.approx(2 * rows["simclr"]["seconds_per_run"] / 2 / 3600)
    assert rows["kmeans"]["hours"] == pytest.approx(2 * rows["kmeans"]["seconds_per_run"] * 3 / 3600)
    assert "GPU-minutes" in plan(capsys, "study.yaml")[1]


def test_a_benchmark_prepared_otherwise_counts_as_it_is_planned(here, capsys):
    """Its name previously referred to a subset of digits, which has no split called test."""
    (here / "study.yaml").write_text(yaml.safe_dump(STUDY | {"benchmarks": {"mine": {"dataset": "cifar10"}}}))
    before = json.loads(plan(capsys, "study.yaml", "--json")[1])
    facts = {"images_sha256": "0" * 64, "clusters": 10, "size": [16, 16], "splits": {"train": [0, 200]}}
    path = here / "data" / "mine" / "benchmark.json"
    path.parent.mkdir(parents=True)
    write_json(path, facts | {"dataset": "digits", "protocols": {}})
    status, out, error = plan(capsys, "study.yaml", "--json")
    assert (status, error) == (0, "")
    after = json.loads(out)
    assert after["disk"]["arrays"] == before["disk"]["arrays"] and after["rows"] == before["rows"]


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


def test_a_calibration_that_cannot_be_kept_is_not_begun(here, capsys):
    (here / "study.yaml").write_text(yaml.safe_dump(STUDY | {"results": "elsewhere"}))
    (here / "results").write_text("a file")
    status, out, error = plan(capsys, "study.yaml", "--calibrate")
    assert (status, out) == (2, "") and error.count("\n") == 1 and "results" in error


@pytest.mark.slow
def test_ctrl_c_ends_a_calibration_in_one_line(tiny_study, here, monkeypatch):
    """It also interrupts the measuring processes, even while they start."""
    path = tiny_study("random").results / "study.yaml"
    (here / "sitecustomize.py").write_text(
        "import os, signal, sys\nif '--multiprocessing-fork' in sys.orig_argv: os.killpg(0, signal.SIGINT)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{here}")
    monkeypatch.setenv("TMPDIR", str(here / "temporary"))
    (here / "temporary").mkdir()
    command = [sys.executable, "-m", "benchmarks.cli", "plan", path, "--calibrate"]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in background jobs
    )
    first, *others = ended.stderr.splitlines()
    assert first.startswith("measuring 1 kinds") and others == ["scl: interrupted; the same command resumes"]
    assert (ended.returncode, ended.stdout) == (130, "")
    assert not list((here / "temporary").glob("scl-*"))


class Early(SCL):
    """Reports whether timm, whose import takes seconds, is imported before the measurement. Later ones are short."""

    def __init__(self, *arguments, **options):
        measure.SECONDS = 0.0
        raise RuntimeError(f"timm: {'timm' in sys.modules}")


class Refusing(SCL):
    """SCL that finds the images unfit."""

    def prepare(self, images, generator):
        raise ValueError("too few images")


class Faulty(SCL):
    """SCL with a bug."""

    def step(self, views, index):
        return views.loss


class Silent(SCL):
    """SCL that fails without a message."""

    def step(self, views, index):
        raise RuntimeError


class Killed(SCL):
    """SCL whose process ends, as when the kernel kills it for lack of memory."""

    def step(self, views, index):
        os._exit(1)


def killed_at_once(*arguments):
    os._exit(1)


@pytest.mark.slow
def test_a_calibration_that_measures_nothing_is_not_kept(tiny_study, here, capsys, monkeypatch):
    """Otherwise, its startup time of zero seconds would be used from then on."""
    monkeypatch.setattr(calibrate, "_start", killed_at_once)
    status, out, error = plan(capsys, tiny_study("random").results / "study.yaml", "--calibrate")
    assert status == 0 and "a process was killed" in error and "nothing was measured" in error
    assert not list(sources.CALIBRATIONS.glob("*"))


def test_calibrating_measures_every_kind_and_the_plan_uses_it(tiny_study, here, capsys, monkeypatch):
    """Kinds that cannot be measured are named; a process that is killed ends the calibration."""
    monkeypatch.setattr(machine, "cores", lambda: 1)
    scl = TINY_METHODS["scl"]
    measured = {stage: TINY_METHODS[stage] for stage in ("random", "kmeans", "simclr", "scl")}
    early = {"early": scl | {"method": "test_plan.Early"}}
    bad = {
        "refusing": scl | {"method": "test_plan.Refusing"},
        "faulty": scl | {"method": "test_plan.Faulty"},
        "silent": scl | {"method": "test_plan.Silent"},
        "killed": scl | {"method": "test_plan.Killed"},
    }
    path = tiny_study(methods=early | measured | bad).results / "study.yaml"
    status, out, error = plan(capsys, path, "--calibrate")
    assert status == 0 and "calibration of this device" in out
    lines = error.splitlines()[1:]
    assert lines[1].startswith("  random on tiny-digits: no steps, ")
    assert all(line.endswith(" per assignment of 200 images") for line in lines[1:5])
    words = ["timm: True", "too few images", "AttributeError: ", "RuntimeError", "a process was killed"]
    for line, word in zip([lines[0], *lines[5:-1]], words, strict=True):
        assert "cannot be measured: " in line and word in line
    (file,) = sources.CALIBRATIONS.glob("*.json")
    found = Measurements.model_validate_json(file.read_bytes())
    assert [rate.stage for rate in found.rates] == [*measured]
    assert all(rate.step_seconds > 0 for rate in found.rates if rate.stage in ("simclr", "scl"))
    assert found.jobs["train"] > found.jobs["evaluate"] > 0
    rows = json.loads(plan(capsys, path, "--json")[1])["rows"]
    assert {row["method"] for row in rows if row["hours"] is None} == {"early", *bad}
