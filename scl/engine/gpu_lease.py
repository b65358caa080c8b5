"""GPUs lent to runs: a lease is a lock file that the kernel drops when the process dies, however it dies.

Snakemake counts GPUs but does not name them; a scheduler names them in CUDA_VISIBLE_DEVICES. A run leases
among those it may see, before anything touches CUDA. Standard library only: no torch, no CUDA context.
"""

import contextlib
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scl.engine.locks import try_lock, wait_for
from scl.util.text import Report, say


def visible() -> list[str]:
    """The GPUs this process may use, as tokens of CUDA_VISIBLE_DEVICES.

    Those of the variable if it is set (as in CUDA, an empty token or -1 ends the list), else the UUIDs that
    nvidia-smi lists; [] without nvidia-smi or a working driver.
    """
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return _uuids()
    tokens: list[str] = []
    for token in (part.strip() for part in setting.split(",")):
        if token in ("", "-1"):
            break
        if token not in tokens:
            tokens.append(token)
    return tokens


def _uuids() -> list[str]:
    """UUIDs of the GPUs in the order of nvidia-smi's index; [] without nvidia-smi or a working driver."""
    query = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(",") for line in answer.splitlines() if line.count(",") == 1]
    return [uuid.strip() for _, uuid in sorted(rows, key=lambda row: int(row[0]))]


def _lock_key(token: str, uuids: list[str]) -> str:
    """The name a token is locked by: the UUID if known, since every job of SLURM may see its GPU as 0; without UUIDs
    an index means something within one job step alone, so their numbers belong to the name."""
    if token.isdigit() and uuids:
        if int(token) >= len(uuids):
            raise ValueError(
                f"CUDA_VISIBLE_DEVICES names GPU {token}, but nvidia-smi lists {len(uuids)} "
                f"(0 to {len(uuids) - 1}); name those or unset it"
            )
        return uuids[int(token)]
    matches = [uuid for uuid in uuids if uuid.startswith(token)]  # CUDA accepts the beginning of a UUID
    key = matches[0] if len(matches) == 1 else token
    if token.isdigit():
        key = "-".join([token, *(os.environ[name] for name in ("SLURM_JOB_ID", "SLURM_STEP_ID") if name in os.environ)])
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in key)


@contextlib.contextmanager
def lease(
    count: int, *, required: bool = False, runs_per_gpu: int = 1, report: Report = say, folder: str | Path | None = None
) -> Iterator[str]:
    """Lease `count` GPUs for the block, waiting for them if need be; yield the new CUDA_VISIBLE_DEVICES.

    count: 0 asks for the CPU: CUDA_VISIBLE_DEVICES becomes "" and nothing is locked.
    required: no GPU visible is a ValueError; otherwise the run goes on the CPU and `report` gets one line.
    runs_per_gpu: how many leases one GPU may carry; every GPU gets a first run before any gets a second.
    folder: of the lock files, on a disk of this machine; default gpu-locks-<user id> in the temporary folder.
    Fewer GPUs visible than asked for (but some) is a ValueError at once, not an endless wait.
    """
    if count < 0 or runs_per_gpu < 1:
        raise ValueError(f"a lease needs count >= 0 (is {count}) and runs_per_gpu >= 1 (is {runs_per_gpu})")
    tokens = visible() if count else []
    if count > len(tokens):
        _say_missing(count, tokens, required, report)
    with contextlib.ExitStack() as held:
        chosen = _acquire(count, tokens, runs_per_gpu, report, folder, held) if tokens else []
        value = ",".join(chosen)
        held.enter_context(_environment("CUDA_VISIBLE_DEVICES", value))
        held.enter_context(_environment("CUDA_DEVICE_ORDER", "PCI_BUS_ID"))  # nvidia-smi's; CUDA's own is by speed
        if chosen and "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
            report(f"warning: CUDA was in use before the lease of {value}; this process stays where it was")
        yield value


def of_lease(leased: str, *, required: bool = False, report: Report = say) -> str:
    """ "cuda" if a GPU is leased and torch can use it, else "cpu". ValueError if it cannot and a GPU is required."""
    import torch  # not before the lease: it may look for GPUs

    if not leased or torch.cuda.is_available():
        return "cuda" if leased else "cpu"
    problem = (
        f"GPU {leased} is there, but torch {torch.__version__} cannot use it: it is a build without CUDA, or for a "
        "newer driver than this one (scl doctor; docs/running.md)"
    )
    if required:
        raise ValueError(problem)
    report(f"warning: {problem}; training on the CPU")
    return "cpu"


def _say_missing(count: int, tokens: list[str], required: bool, report: Report) -> None:
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = "nvidia-smi lists no more" if setting is None else f"CUDA_VISIBLE_DEVICES is {setting!r}"
    if required or tokens:
        raise ValueError(
            f"{count} GPU(s) asked for, {len(tokens)} visible ({seen}); "
            "ask for fewer, or for the CPU (--resources gpu=0)"
        )
    report(f"warning: no GPU visible ({seen}); training on the CPU")


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _acquire(
    count: int,
    tokens: list[str],
    runs_per_gpu: int,
    report: Report,
    folder: str | Path | None,
    held: contextlib.ExitStack,
) -> list[str]:
    """Lock `count` distinct GPUs, all or none (no hold-and-wait), and leave the locks to the stack `held`."""
    uuids = _uuids() if os.environ.get("CUDA_VISIBLE_DEVICES") is not None else tokens
    keys = {token: _lock_key(token, uuids) for token in tokens}
    where = held.enter_context(_private_folder(folder))

    def attempt() -> list[str] | None:
        with contextlib.ExitStack() as locks:
            chosen: list[str] = []
            for slot in range(runs_per_gpu):  # slot 0 of every GPU first
                for token in tokens:
                    wanted = len(chosen) < count and token not in chosen
                    if wanted and _take(f"{keys[token]}.{slot}", where, locks):
                        chosen.append(token)
            if len(chosen) < count:
                return None
            held.enter_context(locks.pop_all())
            return chosen

    return wait_for(
        attempt, f"{count} of {len(tokens)} GPUs", f"other runs hold them ({runs_per_gpu} a GPU)", report=report
    )


def _take(name: str, folder: int, stack: contextlib.ExitStack) -> bool:
    """Try to lock the file `name` in the open folder; True if `stack` now holds it."""
    descriptor = try_lock(name, dir_fd=folder)
    if descriptor is None:
        return False
    stack.callback(os.close, descriptor)
    os.utime(descriptor)  # cleaners of /tmp go by age
    return True


@contextlib.contextmanager
def _private_folder(folder: str | Path | None) -> Iterator[int]:
    """Open (and make) the folder of the locks: ours, mode 0700, never through a symbolic link."""
    path = Path(folder or Path(tempfile.gettempdir()) / f"gpu-locks-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise ValueError(
            f"{path} must be a folder of yours for GPU locks ({error.strerror}); "
            "remove it, or set TMPDIR to another local folder"
        ) from error
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid():
            raise ValueError(
                f"{path} belongs to user {status.st_uid}: GPU locks there could be forged; "
                "set TMPDIR to a local folder of yours"
            )
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.fchmod(descriptor, 0o700)
        yield descriptor
    finally:
        os.close(descriptor)
