"""`scl bench` on tiny networks: what it times, paired ratios, the command. No test depends on real timings."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from conftest import ONE_SIZE, TINY_BENCH, TINY_METHODS, TINY_VIEW

from benchmarks.bench import measure, table
from benchmarks.bench import subject as subjects
from benchmarks.bench.count import count_step
from benchmarks.bench.subject import Plan, Subject, endless
from benchmarks.cli import main
from benchmarks.plan import measure as plan_measure
from benchmarks.study import load_study
from scl import config
from scl.engine import trainer as training
from scl.engine.io import write_json
from scl.method import Method
from scl.scl import SCL
from scl.util.text import duration

PAPER = Path(__file__).parent.parent / "config" / "paper.yaml"


def test_the_parts_the_ratios_and_the_growth(measured, tmp_path):
    result = measured("scl")
    write_json(tmp_path / "bench.json", result)
    assert json.loads((tmp_path / "bench.json").read_text()) == json.loads(json.dumps(result))
    parts = result["parts"]
    assert list(parts) == ["augment", "learn", "step", "standard", "tuned"]
    for name, part in parts.items():
        assert part["images_per_second"] == pytest.approx(8 / part["seconds_per_step"]), name
        assert len(part["all"]) == 2 and min(part["all"]) <= part["seconds_per_step"] <= max(part["all"])
        if name != "augment":
            rate = result["flops_per_step"] / part["seconds_per_step"] / 1e12
            assert part["tflops_per_second"] == pytest.approx(rate)
            assert part["share_of_peak"] == pytest.approx(rate / result["peak_tflops_per_second"])
    for name, over in (("goodput", "learn"), ("gain_standard", "standard"), ("gain_tuned", "tuned")):
        by_round = [a / b for a, b in zip(parts[over]["all"], parts["step"]["all"])]
        assert result["ratios"][name]["all"] == pytest.approx(by_round)
        assert result["ratios"][name]["median"] == pytest.approx(sum(by_round) / 2)
    assert [(row["batch_size"], row["images"], row["clusters"]) for row in result["growth"]] == [
        (8, 40, 3),
        (2, 40, 3),
        (4, 40, 3),
        (16, 40, 3),
        (8, 40, 5),
        (8, 80, 3),
        (8, 80, 5),
    ]
    for row in result["growth"]:
        assert row["relative"]["all"] == pytest.approx([a / b for a, b in zip(row["all"], parts["step"]["all"])])
    assert result["views"] == ["view", "strong"] and result["peak_memory_bytes"] > 1e6
    assert {"commit", "dirty", "versions", "peer_versions", "device", "threads", "precision"} <= result.keys()
    text = table.measured(result)
    assert "goodput c/b" in text and len(text.splitlines()) == 4 + 5 + 4 + 6 + 1 + 7


def test_ratio_interval():
    """Order statistics of the median: the whole range of 6 rounds (1 - 2 / 2^6 = 97 %), without the extremes for 9."""
    ratio = measure.ratio([2.0, 4.0, 8.0], [2.0, 2.0, 2.0])
    assert ratio == {"median": 2, "low": None, "high": None, "all": [1, 2, 4]}
    six = measure.ratio([6.0, 1.0, 4.0, 3.0, 2.0, 5.0], [1.0] * 6)
    assert (six["median"], six["low"], six["high"]) == (3.5, 1, 6)
    nine = measure.ratio([1.0, 2, 3, 4, 5, 6, 7, 8, 1000], [1.0] * 9)
    assert (nine["median"], nine["low"], nine["high"]) == (5, 2, 8)
    assert json.loads(json.dumps(nine)) == nine


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_every_part_is_timed_under_the_tf32_switches_of_ours(measured, monkeypatch, precision):
    """The standard pipeline is fp32, and its trainer turns TF32 off for the whole process."""
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    seen = []

    def record(work, least, device, turn=1):
        work()
        seen.append([backend.allow_tf32 for backend in backends])
        return 1.0

    monkeypatch.setattr(measure, "seconds_per_step", record)
    measured("simclr", precision=precision, rounds=1)
    assert seen and seen == [[precision == "bf16", False]] * len(seen)


def test_prototypes_are_placed_before_the_first_step_that_is_timed(measured, subject, monkeypatch):
    calls, place = [], SCL.place_prototypes
    monkeypatch.setattr(SCL, "place_prototypes", lambda method: calls.append(method) or place(method))
    assert subject("scl").trainer().method.placed
    result = measured("scl", rounds=1, **ONE_SIZE)
    assert len(calls) == 1 and list(result["once"]) == ["place_prototypes_seconds", "first_step_seconds"]
    assert list(measure.Measurement(subject("simclr", **ONE_SIZE)).once) == ["first_step_seconds"]


def test_losses_are_checked_as_often_as_in_training(subject, monkeypatch):
    trainer = subject("simclr").trainer()
    monkeypatch.setattr(training, "CHECK_EVERY", 2)
    checks, check = [], trainer._check_losses
    monkeypatch.setattr(trainer, "_check_losses", lambda: checks.append(len(trainer.epoch_losses)) or check())
    loop = endless(trainer)
    for _ in range(11):  # two epochs of five steps, and one step
        next(loop)
    assert checks == [2, 4, 5, 2, 4, 5]
    trainer.epoch_losses.append(torch.tensor([math.nan]))
    with pytest.raises(training.NonFinite):
        for _ in range(2):
            next(loop)


@pytest.fixture
def step_of(monkeypatch):
    """(make, calls): make(seconds) returns a step that takes this long on the measurement's clock and logs to calls."""
    now, calls = [0.0], []

    def make(seconds):
        return lambda: (calls.append(seconds), now.__setitem__(0, now[0] + seconds))

    monkeypatch.setattr(subjects.time, "perf_counter", lambda: now[0])
    return make, calls


@pytest.mark.parametrize("seconds, turn, steps", [(0.125, 1, 4), (0.75, 1, 1), (0.125, 3, 6), (0.75, 3, 1)])
def test_steps_are_timed_for_half_a_second_but_one_at_least(step_of, seconds, turn, steps):
    """In whole turns of the loader processes, unless a step takes longer: then their queue is full."""
    make, calls = step_of
    assert subjects.seconds_per_step(make(seconds), 0.5, "cpu", turn=turn) == seconds
    assert len(calls) == steps


def test_the_clock_of_a_gpu_is_read_when_it_is_done(step_of, monkeypatch):
    make, calls = step_of
    monkeypatch.setattr(torch.cuda, "synchronize", make(0.25))
    assert subjects.seconds_per_step(make(0.125), 0.5, "cuda") == (4 * 0.125 + 0.25) / 4
    assert calls == [0.25, *[0.125] * 4, 0.25]


def test_the_time_that_a_measurement_takes_is_said_before(subject, capsys):
    """Each part runs once before two rounds. Rivals have one session in the sweep and two in each round."""
    measurement = measure.Measurement(subject("simclr", seconds=10.0))
    measurement.first = 8.0
    parts = len(measurement.works)
    assert measurement.expected_seconds() == parts * (8 + 2 * 10) + (2 * 1 + 2 * 2) * (8 + 10)
    measurement.plan = dataclasses.replace(measurement.plan, seconds=0.0)
    expected = duration(parts * (8 + 2 * 8) + (2 * 1 + 2 * 2) * (8 + 8))
    measurement.run()
    assert capsys.readouterr().out.startswith(f"a step takes 8.0 s; in all about {expected}\n")


def test_losses_of_part_b_are_not_checked_by_the_loop(subject):
    measurement = measure.Measurement(subject("simclr", **ONE_SIZE))
    before = len(measurement.trainer.epoch_losses)
    measurement.time("learn")
    assert len(measurement.trainer.epoch_losses) == before
    measurement.time("step")
    assert len(measurement.trainer.epoch_losses) == before + 1


def test_a_batch_larger_than_the_images_is_refused():
    """The training loop would take a smaller one."""
    with pytest.raises(ValueError, match="--batch-size: 30 makes batches of up to 60 images, but only 40"):
        Plan(**TINY_BENCH | {"batch_size": 30})


@pytest.mark.parametrize("size, benchmark", [(32, "cifar10"), (64, "tiny-imagenet"), (96, "stl10")])
def test_the_settings_are_those_of_the_benchmark_of_this_size(size, benchmark, tmp_path):
    """PICA's windows have 32 px in the settings for CIFAR-10."""
    plan = Plan(stage="pica", size=size, batch_size=2, images=(20,), clusters=(10,), batch_factors=())
    maker = Subject(load_study(PAPER), plan, tmp_path, "cpu")
    trainer = maker.trainer()
    assert (maker.benchmark, trainer.run.benchmark) == (benchmark, benchmark)
    views = trainer.draw(torch.arange(2))
    assert [view.shape for view in views] == [(2, 3, size, size)] * 4


def test_a_size_that_the_study_does_not_have_is_said(measured):
    assert measured("simclr", rounds=1, **ONE_SIZE)["benchmark_size"] == 8
    result = measured("simclr", size=12, rounds=1, **ONE_SIZE)
    assert (result["benchmark"], result["size"], result["benchmark_size"]) == ("tiny-digits", 12, 8)
    assert "settings of tiny-digits, which has 8 px: views of a fixed size keep it" in table.measured(result)


def test_self_labeling_is_measured_while_it_learns(tiny_study, tmp_path):
    """At the usual threshold, a random head is confident of no image, so its steps would end after the forward pass."""
    methods = TINY_METHODS | {"selflabel": TINY_METHODS["selflabel"] | {"options": {"threshold": 0.99}}}
    study = tiny_study("simclr", "scan", "selflabel", methods=methods)
    trainer = Subject(study, Plan(stage="selflabel", **TINY_BENCH), tmp_path, "cpu").trainer()
    loop = endless(trainer)
    for _ in range(6):
        next(loop)
    assert trainer.method.counts == {} and trainer.method.head.weight.grad.abs().sum() > 0
    assert all(losses.isfinite().all() for losses in trainer.epoch_losses)


def test_stages_that_build_on_another_and_other_numbers_of_views(measured):
    assert measured("simclr", "scan", rounds=1, **ONE_SIZE)["views"] == ["strong", "strong"]
    assert measured("pica", rounds=1, **ONE_SIZE)["views"] == ["original", "perturbed", "perturbed", "perturbed"]


def test_names_of_views_that_are_augmented_in_one_call(subject, monkeypatch):
    """As on a GPU: the rivals must make as many views as our pipeline."""
    trainer = subject("simclr").trainer()
    monkeypatch.setattr(
        trainer.method,
        "draw",
        lambda images, index, augment, generator: augment["view"](images.batch(index).repeat(2, 1, 1, 1), generator),
    )
    assert measure.names_drawn(trainer, torch.arange(8)) == ["view", "view"]


def test_a_method_that_does_not_train_is_refused(measured):
    with pytest.raises(ValueError, match="random: does not train"):
        measured("random")


class Queue(Method):
    """A custom method whose parts have names that mean something else in SCL, and no `encoder`."""

    augmentations = ("view",)
    Options = SCL.Options

    def __init__(self, options, problem, network):
        super().__init__(options, problem, network)
        self.net, self.placed = self.encoder_for(network), False
        self.register_buffer("memory", torch.zeros(5, self.net.dimensions))

    def step(self, views, index):
        assert not self.placed
        return {"own": (self.net(views[0]).float() @ self.memory.T - 1).square().mean()}

    def assign(self, images):
        return self.net(images).float().softmax(1)


class Drawn(Queue):
    def draw(self, images, index, augment, generator):
        return (images.batch(index),)


def test_a_custom_method_may_name_its_parts_as_it_likes(tiny_study, tmp_path):
    block = {"augment": {"view": TINY_VIEW}, "training": {"epochs": 1}}
    methods = {"queue": {"method": "test_bench.Queue"} | block, "drawn": {"method": "test_bench.Drawn"} | block}
    study = tiny_study(methods=methods)
    subject = Subject(study, Plan(stage="queue", **(TINY_BENCH | ONE_SIZE | {"rounds": 1})), tmp_path, "cpu")
    result = measure.measure(subject)
    assert result["views"] == ["view", "view"] and "place_prototypes_seconds" not in result["once"]
    counted = count_step(subject, "H100")
    assert counted["memory"]["instance memory"] == 0 and counted["time"]["scopes"]["network"]["seconds"] > 0
    settings = config.complete(study.settings(study.run("tiny-digits", "joint", "queue", 0)))
    assert plan_measure.measure(settings, "cpu", images=5_000).step_seconds > 0
    with pytest.raises(ValueError, match="drawn: makes its views without augmentations"):
        measure.measure(Subject(study, Plan(stage="drawn", **TINY_BENCH), tmp_path, "cpu"))


def test_the_loop_measured_is_past_its_warm_up_and_trains(subject):
    trainer = subject("scl").trainer()
    before = [p.detach().clone() for p in trainer.method.parameters()]
    loop = endless(trainer)
    for _ in range(12):  # more than two epochs of five steps
        next(loop)
    assert "semantic" in trainer.term_names and not trainer.method.warming_up
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.method.parameters()))


def test_committed_measurements_state_device_versions_and_commit():
    paths = sorted((Path(__file__).parent.parent / "results/reference/bench").glob("*.json"))
    assert paths
    for path in paths:
        result = json.loads(path.read_text())
        assert result["device"] and result["versions"]["torch"] and len(result["commit"]) == 40, path
        assert not result["dirty"], path


def test_table_of_a_committed_measurement():
    path = Path(__file__).parent.parent / "results/reference/bench/scl.json"
    lines = table.measured(json.loads(path.read_text())).splitlines()
    assert lines[6] == "  (c) the training loop                                     104.2     1.2279    0.696   73.7%"
    assert lines[9] == "  lightly's SimCLR step, fp32, NCHW                    only compared with SimCLR"
    assert lines[12].endswith("7043.5     0.0182  ours / this 1.955 [1.396, 2.515]")
    assert lines[-1] == "      100000           200    128       93.2     1.3737   1.108 [1.054, 1.183]"


def test_the_command(tiny_study, tmp_path, capsys):
    study, out = tiny_study("simclr"), tmp_path / "bench.json"
    command = ["bench", str(study.results / "study.yaml"), "--method", "simclr", "--size", "8", "--batch-size", "8"]
    command += ["--gpus", "0", "--threads", "1", "--workers", "0", "--out", str(out)]
    assert main([*command, "--quick"]) == 0
    assert "goodput c/b" in capsys.readouterr().out
    assert json.loads(out.read_text())["rounds"] == 1
    assert main([*command, "--count", "H100"]) == 0
    assert "bound on H100 in bf16" in capsys.readouterr().out
    result = json.loads(out.read_text())
    assert result["count"]["flops"] > 0 and {"commit", "device", "versions"} <= result.keys()
    assert main(["bench", str(study.results / "study.yaml"), "--method", "simlr"]) == 2
    assert "simlr: not a method of this study" in capsys.readouterr().err
