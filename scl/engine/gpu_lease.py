"""GPU leases: lock files that the kernel releases when the process dies, however it dies.

Snakemake counts GPUs but does not name them; a scheduler names them in CUDA_VISIBLE_DEVICES. A run leases
from those it may see, before anything touches CUDA. Standard library only: no torch, no CUDA context.
"""

import contextlib
import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scl.engine.locks import try_lock, wait_for
from scl.util.text import Report, say


def visible() -> list[str]:
    """The GPUs this process may use: the tokens of CUDA_VISIBLE_DEVICES if it is set (as in CUDA, an empty token or -1
    ends the list; SLURM writes NoDevFiles for a job without GPUs), else the UUIDs that nvidia-smi lists."""
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return _uuids()
    tokens = map(str.strip, setting.split(","))
    return list(dict.fromkeys(itertools.takewhile(lambda token: token not in ("", "-1", "NoDevFiles"), tokens)))


def _uuids() -> list[str]:
    """UUIDs of the GPUs in the order of nvidia-smi's index, without those in an error state, such as `[N/A], [N/A]`;
    [] without nvidia-smi or a working driver."""
    query = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = re.findall(r"^ *(\d+) *, *([\w-]+) *$", answer, re.MULTILINE)
    return [uuid for _, uuid in sorted(rows, key=lambda row: int(row[0]))]


def _lock_key(token: str, uuids: list[str]) -> str:
    """The name of a token's lock: the UUID if known, since every SLURM job may see its GPU as 0; without UUIDs an index
    is unique only within one job step, so the step's numbers are part of the name."""
    if token.isdigit() and uuids:
        if int(token) >= len(uuids):
            raise ValueError(
                f"CUDA_VISIBLE_DEVICES: names GPU {token}, but nvidia-smi lists {len(uuids)} "
                f"(0 to {len(uuids) - 1}); name those or unset it"
            )
        return uuids[int(token)]
    matches = [uuid for uuid in uuids if uuid.startswith(token)]  # CUDA accepts a prefix of a UUID
    key = matches[0] if len(matches) == 1 else token
    if token.isdigit():
        key = "-".join([token, *(os.environ[name] for name in ("SLURM_JOB_ID", "SLURM_STEP_ID") if name in os.environ)])
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in key)


@contextlib.contextmanager
def lease(count: int, *, required: bool = False, runs_per_gpu: int = 1, report: Report = say) -> Iterator[str]:
    """Lease `count` GPUs for the block, waiting for them if necessary; yield the new CUDA_VISIBLE_DEVICES.

    count: 0 means the CPU: CUDA_VISIBLE_DEVICES becomes "" and nothing is locked.
    required: without a visible GPU raise ValueError instead of using the CPU with a warning.
    runs_per_gpu: how many leases one GPU may carry; every GPU gets a first run before any gets a second.
    Raises ValueError at once, rather than waiting forever, if some GPUs are visible but fewer than `count`.
    """
    tokens = visible() if count else []
    if count > len(tokens):
        _report_missing(count, tokens, required, report)
    with contextlib.ExitStack() as held:
        chosen: list[str] = []
        if tokens:
            attempt = functools.partial(_try_acquire, count, _lock_paths(tokens), runs_per_gpu)
            what, why = f"{count} of {len(tokens)} GPUs", f"other runs hold them ({runs_per_gpu} per GPU)"
            chosen, locks = wait_for(attempt, what, why, report=report)
            held.enter_context(locks)
        value = ",".join(chosen)
        # nvidia-smi numbers GPUs by bus, CUDA by speed unless told otherwise
        held.enter_context(_environment(CUDA_VISIBLE_DEVICES=value, CUDA_DEVICE_ORDER="PCI_BUS_ID"))
        if chosen and "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
            report(f"warning: CUDA was in use before the lease of {value}; this process keeps its device")
        yield value


def torch_device(leased: str, *, required: bool = False, report: Report = say) -> str:
    """The torch device of a lease: "cuda", or "cpu" without a GPU that torch can use (ValueError if required)."""
    import torch  # not before the lease: it may query GPUs

    if not leased or torch.cuda.is_available():
        return "cuda" if leased else "cpu"
    problem = (
        f"GPU {leased} is there, but torch {torch.__version__} cannot use it: it is built without CUDA, or for a "
        "newer driver than this one (scl doctor; docs/running.md)"
    )
    if required:
        raise ValueError(problem)
    report(f"warning: {problem}; using the CPU")
    return "cpu"


def _report_missing(count: int, tokens: list[str], required: bool, report: Report) -> None:
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = f"nvidia-smi lists {len(tokens)}" if setting is None else f"CUDA_VISIBLE_DEVICES is {setting!r}"
    if required or tokens:
        raise ValueError(
            f"{count} GPU(s) asked for, {len(tokens)} visible ({seen}); "
            "ask for fewer, or for the CPU (--gpus 0; of Snakemake: --resources gpu=0)"
        )
    if setting is None and not shutil.which("nvidia-smi"):
        report("no GPU found; using the CPU")
    else:  # hidden, or a driver that does not answer
        report(f"warning: no GPU visible ({seen}); using the CPU")


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _try_acquire(
    count: int, paths: dict[str, Path], runs_per_gpu: int
) -> tuple[list[str], contextlib.ExitStack] | None:
    """`count` distinct GPUs and their locks, or None: no GPU is held while waiting for another."""
    with contextlib.ExitStack() as locks:
        chosen: list[str] = []
        for slot, (token, path) in itertools.product(range(runs_per_gpu), paths.items()):  # slot 0 of every GPU first
            if len(chosen) < count and token not in chosen:
                descriptor = try_lock(f"{path}.{slot}")
                if descriptor is not None:
                    locks.callback(os.close, descriptor)
                    os.utime(descriptor)  # /tmp cleaners delete files by age
                    chosen.append(token)
        return (chosen, locks.pop_all()) if len(chosen) == count else None


def _lock_paths(tokens: list[str]) -> dict[str, Path]:
    """The lock file of each token, in a temporary folder of the user (mode 0700)."""
    uuids = _uuids() if "CUDA_VISIBLE_DEVICES" in os.environ else tokens
    path = Path(tempfile.gettempdir()) / f"gpu-locks-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        if path.is_symlink():  # perhaps another user's: chmod would follow it into a folder of this user
            raise OSError(0, "is a symbolic link")
        path.chmod(0o700)  # PermissionError if it belongs to another user
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; remove it, or set TMPDIR to a local folder of yours") from None
    return {token: path / _lock_key(token, uuids) for token in tokens}
