"""Freed memory stays with the process (Linux with glibc): page faults are counted, not timed."""

import platform
import subprocess
import sys

import pytest
from forked import ROOT

from scl import config
from scl.engine import allocator
from scl.engine.trainer import Trainer

FAULTS = """
import resource, sys
import torch
from scl.engine import allocator

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(10_000_000)  # 40 MB, used and freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

usual = faults()
allocator.keep_freed_memory()
kept = min(faults() for _ in range(4))  # the first ones grow the heap
before = resident()
allocator.return_freed_memory()
print(usual, kept, before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_not_paged_in_again_until_it_is_returned():
    done = subprocess.run([sys.executable, "-c", FAULTS], cwd=ROOT, capture_output=True, text=True, check=True)
    usual, kept, returned = map(int, done.stdout.split())
    assert usual > 100  # at least one per huge page of 2 MB, usually one per page of 4 kB
    assert kept < 20  # a few Python objects
    assert returned > 25_000_000  # of the 40 MB


def test_another_c_library_is_no_error(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    allocator.keep_freed_memory()
    allocator.return_freed_memory()
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    allocator.keep_freed_memory()


def test_training_on_a_cpu_keeps_freed_memory(tiny_study, monkeypatch):
    (run,) = tiny_study("simclr").runs()
    called = []
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: called.append(True))
    Trainer(config.complete(config.load_run(run.directory)), run.directory, device="cpu", report=lambda *_: None)
    assert called
