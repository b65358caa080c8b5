"""Atomic files, and the errors of a run.

Every file of the harness is written through `atomic`: a file that exists is complete, even if the process was killed or
the disk is full; only progress.jsonl is appended to. Standard library and PyYAML only: the Snakefile imports this.
"""

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scl.engine.locks import NO_LOCKS, try_lock, wait_for

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; if the block succeeds, what it wrote there replaces `path`.

    The temporary name keeps the suffix (numpy and matplotlib choose the format by it) and is always the same, so that
    the next writer overwrites what a killed process left; a second writer waits for the first. On a file system
    without locks, it makes the first one fail (`_temporary`). The content is synced to the disk before the
    rename. On any error the temporary file is removed and `path` is unchanged; a disk error becomes an OSError that
    names `path` and a fix.
    """
    path = Path(path)
    with contextlib.ExitStack() as held:
        try:
            tmp, lock = _temporary(path)
            held.callback(os.close, lock)
            os.ftruncate(lock, 0)
        except OSError as error:
            raise _cannot_write(path, error, error.strerror) from error
        try:
            yield tmp
            with open(tmp, "rb") as file:
                os.fsync(file.fileno())
            os.replace(tmp, path)
        except BaseException as error:
            problem = _disk_problem(error, tmp)
            if tmp.exists() and os.path.samestat(tmp.stat(), os.fstat(lock)):  # else another process has renamed it
                os.ftruncate(lock, 0)  # the error may keep the file open, and it would still occupy the space
                tmp.unlink()
            if problem:
                raise _cannot_write(path, error, problem) from error
            raise


def _temporary(path: Path) -> tuple[Path, int]:
    """The temporary file beside `path`, created if missing, and a descriptor that holds its lock.

    Without file locks, it gets a new name, and those of earlier writers, killed or not, are removed, so that none is
    left over and no two processes write to one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        return tmp, wait_for(lambda: try_lock(tmp), path, "another process is writing it", report=lambda line: None)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    for other in [tmp, *path.parent.glob(f".{glob.escape(path.stem)}.{'[0-9a-f]' * 8}.tmp{glob.escape(path.suffix)}")]:
        other.unlink(missing_ok=True)
    tmp = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    return tmp, os.open(tmp, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _disk_problem(error: BaseException, tmp: Path) -> str | None:
    """The reason if `error` comes from the disk or from permissions, else None.

    On a full disk, numpy raises OSError without errno, and torch RuntimeError, so the free space is checked.
    """
    if isinstance(error, OSError) and (error.errno in _DISK or str(error.filename) == str(tmp)):
        return error.strerror
    if isinstance(error, (OSError, RuntimeError)):
        with contextlib.suppress(OSError):
            if shutil.disk_usage(tmp.parent).free < 2**20:
                return os.strerror(errno.ENOSPC)
    return None


def _cannot_write(path: Path, error: BaseException, problem: str | None) -> OSError:
    number = getattr(error, "errno", None) or errno.ENOSPC
    fix = "make room" if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "fix the error"
    return OSError(number, f"cannot write {path}: {problem}. The existing file is unchanged; {fix} and rerun")


class RunFailed(Exception):
    """A run cannot be finished, for example because its loss is not finite; failure.json has the reason."""


class Damaged(ValueError):
    """An input file is missing or not what was written; the command that runs the study recreates it."""


def set_aside(path: str | Path, problem: object) -> Damaged:
    """Rename a damaged file to `<name>.damaged` and return the Damaged to raise."""
    path = Path(path)
    with contextlib.suppress(FileNotFoundError):  # another process did it
        os.replace(path, path.with_name(path.name + ".damaged"))
    return Damaged(f"{path}: {problem}; set aside as {path.name}.damaged, the same command recreates it")


def write_json(path: str | Path, obj: Any, *, compact: bool = False) -> None:
    """Write `obj` as JSON: numpy scalars as numbers, NaN and infinities (which JSON lacks) as null."""
    layout: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 2}
    text = json.dumps(_plain(obj), **layout, ensure_ascii=False, allow_nan=False)
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


def write_yaml_if_changed(path: str | Path, obj: Any) -> None:
    """Write `obj` as YAML unless `path` already contains it."""
    path, text = Path(path), yaml_text(obj).encode()
    if not path.exists() or path.read_bytes() != text:
        with atomic(path) as tmp:
            tmp.write_bytes(text)


def yaml_text(obj: Any) -> str:
    """`obj` as the YAML text of the files written here."""
    return yaml.safe_dump(obj, sort_keys=False, allow_unicode=True, width=110)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(obj: Any) -> str:
    """SHA-256 of `obj` as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(obj, sort_keys=True).encode()).hexdigest()
