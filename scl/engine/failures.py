"""failure.json: why the last attempt at a run (its training, k-means, or evaluation) or at a benchmark failed.

Imports no torch.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from scl import config
from scl.config import Settings
from scl.engine.artifacts import Strict, read
from scl.engine.io import Damaged, RunFailed, write_json
from scl.engine.provenance import now

NAME = "failure.json"
PASSING = (OSError, RuntimeError, MemoryError)  # of disks, devices, and memory: a retry may succeed


class Failure(Strict):
    """failure.json: why the last attempt failed, and whether another one would fail the same way."""

    error: str
    kind: str
    permanent: bool
    config_sha256: str
    epoch: int | None = None
    step: int | None = None
    term: str | None = None


@contextlib.contextmanager
def recorded(directory: Path, run: Settings, *, attempt: int = 1) -> Iterator[None]:
    """Delete the failure.json of an earlier attempt; write a new one if the block fails.

    run: its settings, or those of a benchmark. attempt: 2 and more are retries. Raises RunFailed for a retry after a
    permanent failure. Damaged files are not recorded: the same command recreates them.
    """
    _refuse_retry(directory, run, attempt)
    (directory / NAME).unlink(missing_ok=True)
    try:
        yield
    except Damaged:
        raise
    except Exception as error:
        with contextlib.suppress(OSError):  # on a full disk
            _write(directory, run, error)
        raise


def _refuse_retry(directory: Path, run: Settings, attempt: int) -> None:
    with contextlib.suppress(Damaged):
        failure = read(directory / NAME, Failure)
        if attempt > 1 and failure and failure.permanent and failure.config_sha256 == config.digest(run):
            raise RunFailed(f"{directory}: not tried again, it would fail as before: {failure.error}")


def _write(directory: Path, run: Settings, error: Exception) -> None:
    write_json(
        directory / NAME,
        {
            "error": (str(error) or type(error).__name__).encode("utf-8", "backslashreplace").decode(),
            "kind": type(error).__name__,
            "permanent": not isinstance(error, PASSING),
            "config_sha256": config.digest(run),
            "time": now(),
            **getattr(error, "where", {}),  # epoch, step and term of NonFinite
        },
    )
