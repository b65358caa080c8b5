"""Archives: from mirrors tried in turn or from a folder of the user's, and never used unchecked."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

from benchmarks.datasets.catalog import Archive, Downloads, is_url
from benchmarks.datasets.connection import TransferError, host, plain
from benchmarks.datasets.transfer import transfer
from scl.engine.locks import locked
from scl.util.text import say


def fetch(archive: Archive, folder: Path, *, downloads: Downloads) -> Path:
    """Return `folder`/<file>, present and verified (size and checksum); ValueError says what to do if it
    cannot be.

    Looked for in this order: `folder`, the configuration's `archives` folder (a link is made to it), the
    sources in turn. A killed download goes on from its `.part`; a file that fails its check is set aside as
    `.corrupt`.
    """
    if not (archive.md5 or archive.sha256):
        raise ValueError(
            f"{archive.file}: no checksum is known, so it is not used; give one under "
            f"downloads.checksums.{archive.file}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / archive.file
    with locked(lock_of(target), target.name):
        if target.exists():
            wrong = mismatch(target, archive)
            if not wrong:
                return target
            _set_aside(target, wrong)
        elif _from_user(archive, target, downloads):
            return target
        return _from_sources(archive, target, downloads)


def mismatch(path: Path, archive: Archive) -> str | None:
    """What is wrong with `path`: its size or its checksum; None if it is the archive."""
    size = path.stat().st_size
    if archive.bytes is not None and size != archive.bytes:
        return f"{size:,} bytes instead of {archive.bytes:,}"
    for kind in ("md5", "sha256"):
        expected = getattr(archive, kind)
        if expected and (found := digest(path, kind)) != expected:
            return f"{kind} {found} instead of {expected}"
    return None


def digest(path: Path, kind: str) -> str:
    found = hashlib.new(kind)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


def lock_of(target: Path) -> Path:
    """The file to lock while `target` is downloaded."""
    return target.with_name(f".{target.name}.lock")


def source_of(path: Path) -> str | None:
    """The URL, as `plain` has it, that a downloaded file came from; None if it was placed by hand."""
    note = path.with_name(path.name + ".url")
    lines = note.read_text("utf-8", errors="replace").splitlines() if note.exists() else []
    return plain(lines[0]) if lines and is_url(lines[0]) else None


def settle(part: Path, target: Path) -> None:
    """Give a finished `part` its name, and keep the note of where it came from."""
    note = part.with_name(part.name + ".url")
    if note.exists():
        os.replace(note, target.with_name(target.name + ".url"))
    os.replace(part, target)


def _from_user(archive, target, downloads) -> bool:
    if not downloads.archives:
        return False
    found = (Path(downloads.archives).expanduser() / archive.file).resolve()
    if not found.is_file():
        return False
    wrong = mismatch(found, archive)
    if wrong:
        raise ValueError(
            f"{found} is not the archive that is expected: {wrong}. Replace or remove it, or give its "
            f"checksum under downloads.checksums.{archive.file} if another file is meant"
        )
    target.unlink(missing_ok=True)  # a link whose file is gone
    try:
        target.symlink_to(found)
    except OSError:  # a file system without links
        shutil.copyfile(found, part := target.with_name(target.name + ".part"))
        os.replace(part, target)
    return True


def _from_sources(archive, target, downloads) -> Path:
    part = target.with_name(target.name + ".part")
    _refuse_small_disk(archive, part)
    target.unlink(missing_ok=True)  # a link whose file is gone
    failures = []
    for url in archive.urls:
        try:
            _from_source(url, archive, part, downloads.timeout)
            settle(part, target)
            return target
        except TransferError as error:
            say(f"{archive.file}: {plain(url)}: {error}")
            failures.append(f"\n  {plain(url)}: {error}")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise OSError(
                error.errno,
                f"no room for {archive.file} in {target.parent} ({error.strerror}); make room "
                "and give the same command again: what has come is kept",
            ) from error
    raise ValueError(_by_hand(archive, target, failures))


def _from_source(url, archive, part, timeout) -> None:
    """Transfer and verify; a resumed file that fails the check is fetched once more from its first byte."""
    resumed = part.exists()
    transfer(url, part, size=archive.bytes, timeout=timeout, label=archive.file)
    wrong = mismatch(part, archive)
    if wrong and resumed:
        _set_aside(part, wrong)
        transfer(url, part, size=archive.bytes, timeout=timeout, label=archive.file)
        wrong = mismatch(part, archive)
    if wrong:
        aside = _set_aside(part, wrong)
        raise TransferError(f"sent another file than expected: {wrong} (kept as {aside.name})", again=False)


def _set_aside(path: Path, wrong: str) -> Path:
    aside = path.with_name(path.name.removesuffix(".part") + ".corrupt")
    os.replace(path, aside)
    say(f"{path}: {wrong}; set aside as {aside.name}")
    return aside


def _refuse_small_disk(archive, part) -> None:
    if archive.bytes is None:
        return
    needed = archive.bytes - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"{archive.file} needs {needed / 1e6:,.0f} MB and {part.parent} has {free / 1e6:,.0f} MB free"
        )


def _by_hand(archive, target, failures) -> str:
    expected = [f"{archive.bytes:,} bytes"] if archive.bytes else []
    expected += [f"{kind} {getattr(archive, kind)}" for kind in ("md5", "sha256") if getattr(archive, kind)]
    hosts = ", ".join(sorted({host(url) for url in archive.urls})) or "no source"
    return (
        f"{archive.file} could not be had from {hosts}:{''.join(failures)}\n"
        f"Get the file ({', '.join(expected)}) in another way and put it at {target} (or in the folder that "
        f"downloads.archives names), or name other sources under downloads.mirrors.{archive.file}; "
        "then give the same command again."
    )
