"""`scl bench` on tiny networks: well-formed results, fair comparisons, paired ratios. Nothing here is timed."""

import dataclasses
import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_METHODS
from PIL import Image
from torch import nn

from benchmarks.bench import DEVICES, command, count, measure, rivals, table
from benchmarks.bench import subject as subjects
from benchmarks.bench.subject import Plan, Subject, endless
from benchmarks.cli import main
from scl.augment import OPERATIONS
from scl.engine import trainer as training
from scl.engine.io import write_json
from scl.scl import SCL

TINY = {"size": 8, "batch_size": 8, "seconds": 0.0, "rounds": 2, "images": (40, 80), "clusters": (3, 5)}
TINY |= {"workers": (0,), "matrix": 32}
ONE_SIZE = {"images": (40,), "clusters": (3,), "batch_factors": ()}


@pytest.fixture
def subject(tiny_study, tmp_path):
    return lambda *stages, **changes: Subject(
        tiny_study(*stages), Plan(stage=stages[-1], **(TINY | changes)), tmp_path, "cpu"
    )


@pytest.fixture
def measured(subject):
    return lambda *stages, **changes: measure.measure(subject(*stages, **changes))


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
    """Order statistics of the median: of 6 rounds the whole range (1 - 2 / 2^6 = 97 %), of 9 without the extremes."""
    ratio = measure.ratio([2.0, 4.0, 8.0], [2.0, 2.0, 2.0])
    assert ratio == {"median": 2, "low": None, "high": None, "all": [1, 2, 4]}
    six = measure.ratio([6.0, 1.0, 4.0, 3.0, 2.0, 5.0], [1.0] * 6)
    assert (six["median"], six["low"], six["high"]) == (3.5, 1, 6)
    nine = measure.ratio([1.0, 2, 3, 4, 5, 6, 7, 8, 1000], [1.0] * 9)
    assert (nine["median"], nine["low"], nine["high"]) == (5, 2, 8)
    assert json.loads(json.dumps(nine)) == nine


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_every_part_is_timed_under_the_tf32_switches_of_ours(measured, monkeypatch, precision):
    """The standard pipeline is fp32, whose trainer turns TF32 off for the whole process."""
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    seen = []

    def record(work, least, device, turn=1):
        work()
        seen.append([backend.allow_tf32 for backend in backends])
        return 1.0

    monkeypatch.setattr(measure, "_seconds", record)
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
    """A function: a step that takes so many seconds by the clock of the measurement, and the list of its calls."""
    now, calls = [0.0], []

    def make(seconds):
        return lambda: (calls.append(seconds), now.__setitem__(0, now[0] + seconds))

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    return make, calls


@pytest.mark.parametrize("seconds, turn, steps", [(0.125, 1, 4), (0.75, 1, 1), (0.125, 3, 6), (0.75, 3, 1)])
def test_steps_are_timed_for_half_a_second_but_one_at_least(step_of, seconds, turn, steps):
    """And in whole turns of the loader processes, unless a step takes longer: then their queue is full."""
    make, calls = step_of
    assert measure._seconds(make(seconds), 0.5, "cpu", turn=turn) == seconds
    assert len(calls) == steps


def test_the_clock_of_a_gpu_is_read_when_it_is_done(step_of, monkeypatch):
    make, calls = step_of
    monkeypatch.setattr(torch.cuda, "synchronize", make(0.25))
    assert measure._seconds(make(0.125), 0.5, "cuda") == (4 * 0.125 + 0.25) / 4
    assert calls == [0.25, *[0.125] * 4, 0.25]


def test_rivals_are_timed_in_whole_turns_of_their_processes(subject, monkeypatch):
    measurement, turns = measure.Measurement(subject("simclr", **ONE_SIZE)), []
    monkeypatch.setattr(measure, "_seconds", lambda work, least, device, turn=1: turns.append(turn))
    for name, workers in (("step", 0), ("tuned", 0), ("standard", 2)):
        measurement.rivals["standard"].workers = workers
        measurement.time(name)
    assert turns == [1, 1, 2]


def test_the_time_that_a_measurement_takes_is_said_before(subject, capsys):
    """Two rounds of: parts b and c, batches of 2, 4, and 16, two numbers of clusters and of images, and two rivals."""
    measurement = measure.Measurement(subject("simclr", seconds=10.0))
    measurement.first = 8.0
    parts, rivals = [8, 8, 2, 4, 16, 8, 8, 8], (1 + 2 * 2) * (8 + 10)
    assert measurement.expected_seconds() == sum(parts) + 2 * sum(max(10, s) for s in parts) + rivals
    measurement.plan = dataclasses.replace(measurement.plan, seconds=0.0)
    measurement.run()
    assert capsys.readouterr().out.startswith("a step takes 8.0 s; in all at least 4.4 min\n")


def test_losses_of_part_b_are_not_checked_by_the_loop(subject):
    measurement = measure.Measurement(subject("simclr", **ONE_SIZE))
    before = len(measurement.trainer.epoch_losses)
    measurement.time("learn")
    assert len(measurement.trainer.epoch_losses) == before
    measurement.time("step")
    assert len(measurement.trainer.epoch_losses) == before + 1


def test_numbers_of_loader_processes_that_are_tried():
    assert command.worker_counts(16, quick=False) == (0, 1, 2, 4, 8, 16)
    assert command.worker_counts(6, quick=False) == (0, 1, 2, 4, 6)
    assert command.worker_counts(1, quick=False) == (0, 1)
    assert command.worker_counts(6, quick=True) == (6,)


def test_rivals_get_the_best_number_of_loader_processes(subject, monkeypatch):
    measurement = measure.Measurement(subject("simclr", workers=(0, 2, 4), **ONE_SIZE))
    seconds = {0: 4.0, 2: 1.0, 4: 2.0}
    monkeypatch.setattr(measurement, "time", lambda name: seconds[measurement.rivals[name].workers])
    assert measurement.choose_workers() == {0: 2, 2: 8, 4: 4}
    assert {rival.workers for rival in measurement.rivals.values()} == {2}


def test_a_number_of_loader_processes_that_fails_is_left_out(subject, monkeypatch, capsys):
    """Shared memory may be too small, as in a container: that must not cost the whole measurement."""
    measurement = measure.Measurement(subject("simclr", workers=(0, 2, 4), **ONE_SIZE))

    def time(name):
        if workers := measurement.rivals[name].workers:
            raise RuntimeError(f"DataLoader worker (pid {workers}) is killed by signal: Bus error.\nShared memory")
        return 1.0

    monkeypatch.setattr(measurement, "time", time)
    assert measurement.choose_workers() == {0: 8}
    assert {rival.workers for rival in measurement.rivals.values()} == {0}
    assert capsys.readouterr().out.count("left out: DataLoader worker (pid 4) is killed by signal: Bus error.\n") == 1
    measurement.plan = dataclasses.replace(measurement.plan, workers=(2,))
    with pytest.raises(RuntimeError, match="Bus error"):
        measurement.choose_workers()


def test_the_tuned_pipeline_has_every_advantage(subject):
    maker = subject("simclr", precision="bf16")
    tuned = rivals.StandardPipeline(maker.trainer(), ["view"] * 2, tuned=True, workers=2)
    plain = rivals.StandardPipeline(maker.trainer(precision="fp32"), ["view"] * 2, tuned=False, workers=2)
    assert (tuned.trainer.precision, plain.trainer.precision) == ("bf16", "fp32")
    assert tuned.loader().persistent_workers and not plain.loader().persistent_workers
    for rival, memory_format in ((tuned, torch.channels_last), (plain, torch.contiguous_format)):
        weights = [p for p in rival.trainer.method.parameters() if p.dim() == 4 and p.shape[2] > 1]
        assert all(p.is_contiguous(memory_format=memory_format) for p in weights)
        seen, learn = [], rival.trainer.learn
        rival.trainer.learn = lambda views, index, seen=seen, learn=learn: seen.extend(views) or learn(views, index)
        stem = next(module for module in rival.trainer.method.modules() if isinstance(module, nn.Conv2d))
        stem.register_forward_pre_hook(lambda module, images, seen=seen: seen.extend(images))
        rival.train(torch.arange(8), torch.rand(8, 3, 8, 8), torch.rand(8, 3, 8, 8))
        assert len(seen) > 2 and all(images.is_contiguous(memory_format=memory_format) for images in seen)


@pytest.mark.parametrize("workers, loaded", [(0, 3), (2, 6)])
def test_a_session_begins_with_three_batches_per_loader_process(subject, monkeypatch, workers, loaded):
    trainer = subject("simclr").trainer()
    rival = rivals.StandardPipeline(trainer, ["view"] * 2, tuned=True, workers=workers)
    batches, trained, make = [], [], rival._batches
    monkeypatch.setattr(rival, "_batches", lambda: (batches.append((*batch,)) or batch for batch in make()))
    monkeypatch.setattr(rival, "train", lambda *batch: trained.append(batch))
    with rival.session() as step:
        assert len(batches) == loaded and [batch[0] is trained[0][0] for batch in batches] == [False] * (loaded - 1) + [
            True
        ]
        step()
    assert len(batches) == loaded + 1 and trained[1][0] is batches[-1][0] and len(trained) == 2


def test_a_batch_larger_than_the_images_is_refused():
    """The loop of the standard pipeline would wait for a full batch forever."""
    with pytest.raises(ValueError, match="--batch-size: 30 makes batches of up to 60 images, but only 40"):
        Plan(**TINY | {"batch_size": 30})


def test_peers_that_are_not_installed_or_do_not_apply_are_rows(measured, monkeypatch):
    monkeypatch.setattr(rivals, "version_of", {"torchvision": "1", "kornia": "1"}.get)
    monkeypatch.setitem(sys.modules, "kornia", None)
    result = measured("simclr", rounds=2, **ONE_SIZE)
    rows = result["peers"]
    assert rows["lightly"] == rows["lightly_tuned"] == {"problem": "not installed"}
    assert rows["kornia"]["problem"].startswith("cannot be imported: ")
    row, ours = rows["torchvision_v2"], result["parts"]["augment"]
    assert row["ours"] == "augment" and row["share_of_peak"] is None
    assert row["gain"]["all"] == pytest.approx([a / b for a, b in zip(row["all"], ours["all"])])
    assert table.measured(result).count("not installed") == 2


def test_every_operation_has_its_counterparts():
    assert rivals.TORCHVISION.keys() == rivals.KORNIA.keys() == OPERATIONS.keys()


def fake_lightly(monkeypatch):
    """Just what the comparison uses."""
    loss, modules = types.ModuleType("lightly.loss"), types.ModuleType("lightly.models.modules")
    loss.NTXentLoss = lambda temperature: lambda a, b: (a * b).sum() / temperature
    modules.SimCLRProjectionHead = lambda i, h, o, batch_norm: nn.Sequential(nn.Linear(i, h), nn.Linear(h, o))
    packages = [types.ModuleType(name) for name in ("lightly", "lightly.models")]
    for module in (*packages, loss, modules):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(rivals, "version_of", {"lightly": "1"}.get)


def test_lightly_trains_a_copy_of_our_network_with_our_settings(subject, monkeypatch):
    fake_lightly(monkeypatch)
    optimizers, make = [], torch.optim.SGD
    monkeypatch.setattr(torch.optim, "SGD", lambda *a, **k: optimizers.append(make(*a, **k)) or optimizers[-1])
    trainer = subject("simclr").trainer()
    optimizers.clear()
    index = torch.arange(8)
    works = rivals.peer_works(trainer, ["view", "view"], trainer.draw(index))
    before = [p.detach().clone() for p in trainer.method.parameters()]
    for name, optimizer in zip(("lightly", "lightly_tuned"), optimizers, strict=True):
        theirs = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]
        works[name]()
        assert any(not torch.equal(a, b) for a, b in zip(theirs, optimizer.param_groups[0]["params"]))
        assert optimizer.param_groups[0]["lr"] == trainer.run.training.learning_rate
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.method.parameters()))
    pica = subject("pica").trainer()
    assert rivals.peer_works(pica, ["original"], pica.draw(index))["lightly"] == "only compared with SimCLR"


def test_count_of_a_matrix_product_and_its_bound():
    a, b = torch.randn(64, 32), torch.randn(32, 16)
    counted = count.count_work(lambda: (a @ b).view(-1), [], gpu=False)
    assert counted["flops"] == 2 * 64 * 32 * 16 and counted["operators"] == 1
    assert counted["bytes"] == 4 * (64 * 32 + 32 * 16 + 64 * 16)
    assert counted["kernels"] is counted["launches"] is None
    device = {"bf16": 100, "fp32": 10, "memory": 2}
    work = {"flops": 10**12, "bytes": 10**12, "operators": 1000, "launches": None}
    result = count.bound(work, "fp32", device)
    assert result["seconds"] == pytest.approx({"arithmetic": 0.1, "memory": 0.5, "launches": 0.005})
    assert result["limit"] == "memory" and result["bound_seconds"] == pytest.approx(0.5)
    assert count.bound(work | {"launches": 10**6}, "bf16", device)["limit"] == "launches"
    assert all(peaks.keys() == device.keys() for peaks in DEVICES.values())


def test_the_time_of_a_step_is_that_of_its_scopes(subject):
    """Each has what it does, no time counts twice, and nothing outside the network is a convolution.

    That they add up to the whole step cannot be asserted: on a busy machine, time passes between the events.
    """
    result = count.count_step(subject("scl"), "H100")
    spent, scopes = result["time"], result["time"]["scopes"]
    assert list(scopes) == list(count.SCOPES)
    assert sum(row["seconds"] for row in scopes.values()) <= spent["seconds"]
    assert all(row["seconds"] > 0 for name, row in scopes.items())
    assert {name for name, row in scopes.items() if row["products"]} >= {"network", "memory", "backward"}
    assert not scopes["augmentation"]["products"] and not scopes["optimizer"]["products"]
    assert "aten::mm" not in spent["others"] and len(spent["others"]) == 8


def test_the_memory_of_a_step_is_that_of_its_items(subject):
    images = 20_000
    memory = count.count_step(subject("scl", images=(images,)), "H100")["memory"]
    assert memory["peak"] == sum(size for name, size in memory.items() if name != "peak")
    assert memory["images"] == images * 8 * 8 * 3
    assert memory["instance memory"] == images * (128 * 4 + 8)  # rows and pseudo classes
    assert memory["saved for backward"] > images * 16 * 4  # the weights of all rows for both views
    assert memory["gradients"] == memory["optimizer"] > 0 and memory["libraries"] > 1e8


@pytest.mark.parametrize("name, product", [("aten::mm", 1), ("aten::convolution_backward", 1), ("aten::add_", 0)])
def test_times_of_a_gpu_are_those_of_kernels(name, product):
    """Not of their launches, and not of what the profiler calls a kernel but is a scope on the time line of the GPU."""
    from torch.autograd import DeviceType

    def event(name, parent=None, kernels=(), device=DeviceType.CPU):
        kernels = [types.SimpleNamespace(name=n, duration=d) for n, d in kernels]
        return types.SimpleNamespace(
            name=name, cpu_parent=parent, kernels=kernels, device_type=device, self_cpu_time_total=77
        )

    scope = event("network", kernels=[("network", 900)])
    launched = event(name, scope, [("kernel", 100), ("another", 50)])
    events = [scope, launched, event("kernel", device=DeviceType.CUDA), event("aten::view", launched)]
    result = count.times(events, gpu=True)
    assert result["scopes"]["network"] == pytest.approx({"seconds": 150e-6, "products": product * 150e-6})
    assert sum(row["seconds"] for row in result["scopes"].values()) == pytest.approx(150e-6)


def test_the_stage_before_is_built_once_for_all_numbers_of_images(subject, monkeypatch):
    """To build it reads all images, on the CPU."""
    maker, built = subject("simclr", "scan"), []
    make = training.Trainer
    monkeypatch.setattr(subjects, "Trainer", lambda run, *a, **k: built.append(run.stage) or make(run, *a, **k))
    trainers = [maker.trainer(images=images, clusters=3) for images in (40, 80)]
    assert sorted(built) == ["scan", "scan", "simclr"] and [len(t.images) for t in trainers] == [40, 80]
    assert maker.trainer(clusters=5).method.problem.clusters == 5


def test_self_labeling_is_measured_while_it_learns(tiny_study, tmp_path):
    """A random head is confident of no image at the usual threshold, and its steps would end after the forward pass."""
    methods = TINY_METHODS | {"selflabel": TINY_METHODS["selflabel"] | {"options": {"threshold": 0.99}}}
    study = tiny_study("simclr", "scan", "selflabel", methods=methods)
    trainer = Subject(study, Plan(stage="selflabel", **TINY), tmp_path, "cpu").trainer()
    loop = endless(trainer)
    for _ in range(6):
        next(loop)
    assert trainer.method.counts == {} and trainer.method.head.weight.grad.abs().sum() > 0
    assert all(losses.isfinite().all() for losses in trainer.epoch_losses)


def test_stages_that_build_on_another_and_other_numbers_of_views(measured):
    assert measured("simclr", "scan", rounds=1, **ONE_SIZE)["views"] == ["strong", "strong"]
    assert measured("pica", rounds=1, **ONE_SIZE)["views"] == ["original", "perturbed", "perturbed", "perturbed"]


def test_names_of_views_that_are_augmented_in_one_call(subject, monkeypatch):
    """As on a GPU: the rivals must make as many views as ours."""
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


def test_the_loop_measured_is_past_its_warm_up_and_trains(subject):
    trainer = subject("scl").trainer()
    before = [p.detach().clone() for p in trainer.method.parameters()]
    loop = endless(trainer)
    for _ in range(12):  # more than two epochs of five steps
        next(loop)
    assert "semantic" in trainer.term_names and not trainer.method.warming_up
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.method.parameters()))


@pytest.mark.parametrize(
    "spec",
    [
        [
            {"random_resized_crop": {"scale": [0.2, 1.0]}},
            {"flip": {}},
            {"grayscale": {"probability": 0.2}},
            {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "probability": 0.8}},
        ],
        [{"random_crop": {"padding": 2}}, {"scan_strong": {"operations": 4}}, {"cutout": {"largest": 8}}],
        [
            {"affine": {"degrees": 10, "translate": 0.1, "scale": [0.9, 1.1], "shear": 5}},
            {"blur": {}},
            {"noise": {"std": 0.1}},
        ],
    ],
)
def test_the_torchvision_counterpart_of_every_operation(spec):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    chain = rivals.transform(spec, 16)
    assert len(chain.transforms) == len(spec) + 1
    first, second = chain(image), chain(image)
    assert first.shape == (3, 16, 16) and first.min() >= 0 and first.max() <= 1
    assert not torch.equal(first, second)


def test_kernels_and_launches_of_a_gpu():
    from torch.autograd import DeviceType

    def event(name, device, annotation=False):
        return types.SimpleNamespace(name=name, device_type=device, is_user_annotation=annotation)

    gpu, cpu = DeviceType.CUDA, DeviceType.CPU
    events = [event("aten::mm", cpu), event("cudaLaunchKernel", cpu), event("cudaLaunchKernelExC", cpu)]
    events += [event("cuLaunchKernel", cpu), event("cudaMemcpyAsync", cpu), event("Memcpy HtoD", gpu)]
    events += [event("gemm", gpu), event("elementwise", gpu), event("Optimizer.step", gpu, annotation=True)]
    counted = count.count_work(lambda: None, events, gpu=True)
    assert (counted["kernels"], counted["launches"]) == (2, 3)


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


def test_a_gpu_that_is_too_small_is_named_in_one_line(tiny_study, capsys, monkeypatch):
    def measured(subject):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(command, "measure", measured)
    study = str(tiny_study("simclr").results / "study.yaml")
    assert main(["bench", study, "--method", "simclr", "--size", "8", "--batch-size", "8", "--gpus", "0"]) == 2
    assert "--batch-size: 8 needs more memory than the GPU has; lower it" in capsys.readouterr().err


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
