"""Which dtype `precision: auto` takes."""

import pytest
import torch

from scl.engine import precision


@pytest.mark.parametrize(
    "amx, avx512, expected",
    [(False, False, torch.float32), (True, False, torch.bfloat16), (False, True, torch.bfloat16)],
)
def test_auto_on_a_cpu_follows_what_it_multiplies(monkeypatch, amx, avx512, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert precision.choose("auto", "cpu") == expected


@pytest.mark.parametrize(
    "capability, expected", [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_auto_on_a_gpu_follows_its_generation(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert precision.choose("auto", "cuda") == expected


def test_fp32_is_fp32_also_in_the_convolutions_of_a_gpu():
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        precision.compute_in(torch.bfloat16)
        assert [backend.allow_tf32 for backend in backends] == [True, False]
        precision.compute_in(torch.float32)
        assert [backend.allow_tf32 for backend in backends] == [False, False]
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_float32_is_without_autocast_and_tf32_for_a_while():
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    try:
        cudnn.allow_tf32 = True
        with precision.autocast(torch.bfloat16, "cpu"), precision.float32("cpu"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32 and not cudnn.allow_tf32
        assert cudnn.allow_tf32
    finally:
        cudnn.allow_tf32 = before


def test_what_is_asked_for_is_given():
    assert precision.choose("bf16", "cpu") == torch.bfloat16
    assert precision.choose("fp32", "cuda") == torch.float32
    with precision.autocast(torch.bfloat16, "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with precision.autocast(torch.float32, "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
