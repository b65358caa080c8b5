"""Files that are either whole or not there, and the errors of a run.

Every file of the harness goes through :func:`atomic`, so that a name which exists holds a complete file,
whatever killed the process or filled the disk. Standard library and PyYAML only: the Snakefile imports this.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scl.engine.locks import locked

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what the block writes there becomes `path`, whole, or not at all.

    The temporary name keeps the suffix (numpy and matplotlib go by it) and is always the same, so that what a
    killed process left is overwritten, not piled up; a second writer of the same path waits for the first.
    The content is on the disk (fsync) before the name is. On any error the temporary file is removed and what
    stood under `path` is untouched; an error of the disk becomes an OSError naming `path` and the way out.
    """
    path = Path(path)
    tmp = path.with_name(f".{path.stem}.tmp{path.suffix}")
    with contextlib.ExitStack() as held:
        try:
            lock = held.enter_context(locked(tmp, path, report=lambda line: None))
            os.ftruncate(lock, 0)
        except OSError as error:
            raise _explained(error, path, error.strerror) from error
        try:
            yield tmp
            with open(tmp, "rb") as file:
                os.fsync(file.fileno())
            os.replace(tmp, path)
            _sync_folder(path.parent)
        except BaseException as error:
            reason = _disk_reason(error, tmp)
            os.ftruncate(lock, 0)  # a writer that the error keeps open would hold on to the room
            tmp.unlink(missing_ok=True)
            if reason:
                raise _explained(error, path, reason) from error
            raise


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _disk_reason(error: BaseException, tmp: Path) -> str | None:
    """The words for a failure of the disk or of permissions, None for any other error.

    On a full disk numpy raises OSError without errno and torch RuntimeError: hence this look at free space.
    """
    if isinstance(error, OSError) and (error.errno in _DISK or str(error.filename) == str(tmp)):
        return error.strerror
    if isinstance(error, (OSError, RuntimeError)):
        with contextlib.suppress(OSError):
            if shutil.disk_usage(tmp.parent).free < 2**20:
                return os.strerror(errno.ENOSPC)
    return None


def _explained(error: BaseException, path: Path, reason: str | None) -> OSError:
    number = getattr(error, "errno", None) or errno.ENOSPC
    way_out = "make room" if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "see to that"
    return OSError(
        number,
        f"cannot write {path}: {reason}. What stood there is untouched; {way_out} and give the same command again",
    )


class RunFailed(Exception):
    """A run failed for a reason of its own, such as a loss that is not finite; failure.json says it too."""


class Damaged(ValueError):
    """An input file is missing or not what was written: the command that runs the study makes it again."""


def set_aside(path: str | Path, problem: object) -> Damaged:
    """Rename a damaged file to `<name>.damaged` and return the Damaged to raise; nothing if another process did."""
    path = Path(path)
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, path.with_name(path.name + ".damaged"))
    return Damaged(f"{path}: {problem}; set aside as {path.name}.damaged. The same command makes it again")


def write_json(path: str | Path, obj: Any) -> None:
    """Write `obj` as JSON: numpy scalars as numbers, NaN and infinities (which JSON lacks) as null."""
    text = json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as tmp:
        tmp.write_text(text + "\n", encoding="utf-8")


def _plain(obj: Any) -> Any:
    if isinstance(obj, dict):
        return {key: _plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_plain(value) for value in obj]
    if hasattr(obj, "item"):  # a numpy scalar or a tensor of one number
        obj = obj.item()
    return None if isinstance(obj, float) and not math.isfinite(obj) else obj


def write_yaml_if_changed(path: str | Path, obj: Any) -> bool:
    """Write `obj` as YAML unless `path` holds it already (Snakemake goes by the time); True if it wrote."""
    path, text = Path(path), yaml_text(obj)
    if path.exists() and path.read_bytes() == text.encode():
        return False
    with atomic(path) as tmp:
        tmp.write_bytes(text.encode())
    return True


def yaml_text(obj: Any) -> str:
    """`obj` as the YAML that is written."""
    return yaml.safe_dump(obj, sort_keys=False, allow_unicode=True, width=110)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
