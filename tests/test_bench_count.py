"""`scl bench --count`: operations, time, and memory of one step."""

import types

import pytest
import torch

from benchmarks.bench import DEVICES, command, count
from benchmarks.cli import main


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
    """Scopes get the time of their own operations, and no time counts twice.

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
    """Not those of launches, or of scopes on the GPU's timeline, which the profiler also reports as kernels."""
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


def test_a_gpu_that_is_too_small_is_named_in_one_line(tiny_study, capsys, monkeypatch):
    def measured(subject):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(command, "measure", measured)
    study = str(tiny_study("simclr").results / "study.yaml")
    assert main(["bench", study, "--method", "simclr", "--size", "8", "--batch-size", "8", "--gpus", "0"]) == 2
    assert "--batch-size: 8 needs more memory than the GPU has; lower it" in capsys.readouterr().err
