"""Locks on files: the kernel drops them when the process dies, however it dies. Standard library only."""

import contextlib
import errno
import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from scl.util.text import Report, duration, say

Result = TypeVar("Result")
_POLL = random.Random()  # waiting must not draw from the generators of the run
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextlib.contextmanager
def locked(path: str | Path, what: str | Path, *, report: Report = say) -> Iterator[int]:
    """Hold a lock on the file `path` (made if need be) for the block, and yield its descriptor.

    While another process holds it, wait, with a line on `what`. On a file system without locks, only warn.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = wait_for(lambda: try_lock(path), what, "another process is working on it", report=report)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        report(f"warning: no file locks here ({error.strerror}); let no other process work on {what} meanwhile")
        descriptor = os.open(path, _FLAGS, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(path: str | Path, *, dir_fd: int | None = None) -> int | None:
    """A descriptor that holds a lock on the file `path` until it is closed; None while another process holds one."""
    descriptor, taken = os.open(path, _FLAGS, 0o666, dir_fd=dir_fd), False
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = _same_file(descriptor, path, dir_fd)  # not if it was renamed or removed in between
    finally:
        if not taken:
            os.close(descriptor)
    return descriptor if taken else None


def wait_for(attempt: Callable[[], Result | None], what: str | Path, why: str, *, report: Report = say) -> Result:
    """The first result of `attempt()` that is not None; `report` gets two lines if that is not the first."""
    began = None
    while (result := attempt()) is None:
        if began is None:
            began = time.monotonic()
            report(f"waiting for {what}: {why}")
        time.sleep(_POLL.uniform(0.2, 0.7))
    if began is not None:
        report(f"{what}: free after {duration(time.monotonic() - began)}")
    return result


def is_locked(path: str | Path) -> bool:
    """Whether a process holds a lock on `path`; changes nothing."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or a file system without locks
        pass
    return False


def _same_file(descriptor: int, path: str | Path, dir_fd: int | None) -> bool:
    """Whether `path` still names the file that is open as `descriptor`."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, dir_fd=dir_fd, follow_symlinks=False))
    except FileNotFoundError:
        return False
