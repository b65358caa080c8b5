"""Provenance of a result: commit, package versions, device."""

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow")
ROOT = Path(__file__).resolve().parents[2]
# a custom method's file is not among them: the run's settings hold its checksum
CODE = ("scl/*.py", "baselines/*.py", "benchmarks/*.py", "Snakefile", "pyproject.toml", "constraints.txt")


def provenance(root: str | Path = ROOT, *, device: str) -> dict[str, Any]:
    """{"commit", "dirty", "versions", "device", "threads"} of this process; no host name.

    root: the folder of the code. If git is absent or does not track it, commit is "unknown" and dirty None.
    dirty: whether the code differs from the commit, new files included. Looked up once per process.
    device: "cpu" or "cuda"; in the result the name of the hardware (see `processor`).
    threads: those of torch or, if torch is not loaded, those available to the process.
    """
    commit, dirty = _commit(str(root))
    torch: Any = sys.modules.get("torch")
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": versions(),
        "device": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads() if torch else cores(),
    }


def now() -> str:
    """Current time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@functools.cache
def _commit(root: str) -> tuple[str, bool | None]:
    others = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set inside the git hooks of another repository
    environment = {name: value for name, value in os.environ.items() if name not in others}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # runs start in parallel: none may lock the index

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", root, *arguments], capture_output=True, text=True, check=True, env=environment, timeout=60
        )
        return done.stdout.strip()

    try:
        if not git("ls-files", "--", "."):  # unpacked inside another repository
            return "unknown", None
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", *CODE))
    except (OSError, subprocess.SubprocessError):
        return "unknown", None


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version()} | {package: version_of(package) for package in PACKAGES}


@functools.cache
def version_of(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """CPU name and, if torch is loaded, instruction set, by which CPUs of the same name can differ in results."""
    facts = ""
    with contextlib.suppress(OSError):
        facts = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*:(.*)", facts, re.MULTILINE)
    name = found[1].strip() if found else platform.processor() or platform.machine()
    torch: Any = sys.modules.get("torch")
    return f"CPU: {name}, {_instructions(torch.backends.cpu.get_cpu_capability(), facts)}" if torch else f"CPU: {name}"


def _instructions(capability: str, facts: str) -> str:
    """'AVX512 with bf16 and AMX': the instruction set, as torch names it; facts: the text of /proc/cpuinfo, or ""."""
    found = re.search(r"^flags\s*:(.*)", facts, re.MULTILINE)
    if capability != "AVX512" or not found:
        return capability
    flags = found[1].split()
    if "avx512_bf16" not in flags:
        return f"{capability} without bf16"
    return f"{capability} with bf16{' and AMX' if 'amx_bf16' in flags else ''}"


def cores() -> int:
    """Number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
