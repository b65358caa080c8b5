"""`scl plan --calibrate`: what is measured, and how. No test depends on real timings."""

import contextlib

import pytest
from planning import GPU_PLACE, PLACE, rate, study_of, work

from baselines.scan import SCAN
from benchmarks.plan import calibrate, measure
from benchmarks.plan.rates import Measurements
from scl.config import complete
from scl.engine import gpu_lease
from scl.engine.provenance import ROOT


def test_a_calibration_of_before_is_read():
    """A calibration of an earlier version, which measured more, can still be read."""
    before = Measurements.model_validate_json((ROOT / "results/reference/bench/plan.json").read_bytes())
    assert before.rates


def test_a_step_of_scl_is_measured_with_the_memory_of_all_images(tiny_study, monkeypatch):
    """A step compares a batch with every image, and a calibration has only two thousand of them."""
    study, rows = tiny_study("scl"), []

    def spy(trainer):
        loop = endless(trainer)
        while True:
            next(loop)
            yield rows.append(trainer.method.memory.rows.norm(dim=1))

    endless = measure.endless
    monkeypatch.setattr(measure, "endless", spy)
    settings = complete(study.settings(study.runs()[0]))
    found = measure.measure(settings, "cpu", images=5_000)
    assert rows and all(len(norms) == 5_000 and norms.min() > 0.99 for norms in rows)
    assert found.image_bytes == 128 * 4 + 8 and found.images == 200


@pytest.mark.parametrize("seconds, prepared", [(1.0, 1), (0.1, 0)])
def test_neighbors_are_not_mined_where_that_would_take_longer_than_all_that_is_timed(
    tiny_study, monkeypatch, seconds, prepared
):
    """On a CPU, a pass over five thousand images takes minutes, and does not affect the time of a step."""
    study, calls = tiny_study("simclr", "scan"), []
    monkeypatch.setattr(SCAN, "prepare", lambda *_: calls.append("prepare"))
    monkeypatch.setattr(measure, "PREPARATION", seconds)
    monkeypatch.setattr(measure, "seconds_per_step", lambda work, *_: [work(), 0.1][1])
    settings = complete(study.settings(study.run("tiny-digits", "joint", "scan", 0)))
    assert measure.measure(settings, "cpu").step_seconds > 0
    assert len(calls) == prepared


@pytest.mark.parametrize("place, at_once", [(PLACE, 2), (GPU_PLACE, 1)])
def test_runs_are_measured_one_by_one_on_a_gpu(here, monkeypatch, place, at_once):
    """Runs that share a GPU would not train at the same time here; the cost of sharing is assumed (cost.py)."""
    seen, mine = [], work(study_of(), "simclr")
    monkeypatch.setattr(gpu_lease, "lease", lambda gpus, report: contextlib.nullcontext(""))
    monkeypatch.setattr(gpu_lease, "torch_device", lambda leased, report: "cpu")
    monkeypatch.setattr(calibrate, "write_json", lambda path, content: seen.append(content["runs_at_once"]))
    monkeypatch.setattr(calibrate, "_measured", lambda *arguments: seen.append(arguments[3]) or (1.0, [rate(mine)]))
    calibrate.calibrate([mine], place, here, report=lambda line: None)
    assert seen == [at_once] * 2
