"""File locks that the kernel releases when the process dies, however it dies. Standard library only."""

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
_POLL = random.Random()  # polling must not draw from the run's generators
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextlib.contextmanager
def locked(path: str | Path, what: str | Path, *, report: Report = say) -> Iterator[int]:
    """Hold a lock on the file `path`, created if missing, for the block; yield its descriptor.

    Waits while another process holds it, reporting one line about `what`. On a file system without locks, only warns.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = wait_for(lambda: try_lock(path), what, "another process is working on it", report=report)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        report(f"warning: no file locks here ({error.strerror}); do not let another process work on {what} meanwhile")
        descriptor = os.open(path, _FLAGS, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(path: str | Path) -> int | None:
    """Return a descriptor that holds a lock on the file `path` until it is closed, None if another process holds it."""
    descriptor, taken = os.open(path, _FLAGS, 0o666), False
    try:
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # a file that was renamed or removed in between protects nothing
            taken = os.path.samestat(os.fstat(descriptor), os.lstat(path))
    finally:
        if not taken:
            os.close(descriptor)
    return descriptor if taken else None


def wait_for(attempt: Callable[[], Result | None], what: str | Path, why: str, *, report: Report = say) -> Result:
    """Call `attempt` until it returns something; `report` gets one line before and one after the waiting, if any."""
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
