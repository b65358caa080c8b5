"""What a result was made with: commit, versions, processor, device."""

import contextlib
import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn")
CODE = ("*.py", "*.smk", "Snakefile", "pyproject.toml", "constraints.txt", ":(exclude)results")


def provenance(root: str | Path, *, device: str | None = None) -> dict[str, Any]:
    """What made this run: {"commit", "dirty", "versions", "device", "threads"}; no host name.

    root: the folder of the code. If git is absent or does not track it, commit is "unknown" and dirty None.
    dirty: the code (not results or texts) differs from the commit, new files included. Asked once a process.
    device: "cpu", "cuda" or "cuda:1"; None takes the one torch would use. The answer names the hardware; a CPU also
    with the instructions that torch uses on it, because processors of one name can differ in them, and so in results.
    threads: those of torch, or those allowed to the process if torch is not loaded.
    """
    commit, dirty = _commit(str(root))
    torch: Any = sys.modules.get("torch")
    if device is None:
        device = "cuda" if torch and torch.cuda.is_available() else "cpu"
    cuda = str(device).startswith("cuda")
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": _versions(),
        "device": torch.cuda.get_device_name(device) if cuda else _processor() + _instructions(torch),
        "threads": torch.get_num_threads() if torch else cores(),
    }


@functools.cache
def _commit(root: str) -> tuple[str, bool | None]:
    others = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set inside git hooks: another repository's
    environment = {name: value for name, value in os.environ.items() if name not in others}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # runs start side by side: none may hold the index

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", root, *arguments], capture_output=True, text=True, check=True, env=environment, timeout=60
        )
        return done.stdout.strip()

    try:
        if not git("ls-files", "--", "."):  # unpacked inside a repository that is not ours
            return "unknown", None
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", *CODE))
    except (OSError, subprocess.SubprocessError):
        return "unknown", None


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


@functools.cache
def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return "CPU: " + line.partition(":")[2].strip()
    return "CPU: " + (platform.processor() or platform.machine())


def _instructions(torch: Any) -> str:
    return f", {torch.backends.cpu.get_cpu_capability()}" if torch else ""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
