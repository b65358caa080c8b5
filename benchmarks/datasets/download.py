"""Get archives from mirrors, tried in turn, or from a user's folder, and verify them before use."""

import errno
import hashlib
import os
import shutil
from pathlib import Path

from benchmarks.datasets.catalog import Archive, Downloads, is_url
from benchmarks.datasets.connection import TransferError, host, plain
from benchmarks.datasets.transfer import note_of, read_note, size_of, transfer
from scl.engine.locks import locked
from scl.util.text import expanded, say


def fetch(archive: Archive, folder: Path, *, downloads: Downloads) -> Path:
    """Return `folder`/<file>, present and verified (size and checksum). Otherwise raises ValueError with a fix.

    Searched in this order: `folder`, the configuration's `archives` folder (a link is made to it), the sources in
    turn. A killed download resumes from its `.part`; a file that fails its check is renamed to `.corrupt`.
    """
    if not archive.digests:
        raise ValueError(
            f"{archive.file}: no checksum is known, so it is not used; give one under "
            f"downloads.checksums.{archive.file}"
        )
    target = Path(folder) / archive.file
    with locked(target.with_name(f".{target.name}.lock"), target.name):
        if target.exists():
            wrong = mismatch(target, archive)
            if not wrong:
                return target
            _set_aside(target, wrong)
        target.unlink(missing_ok=True)  # a broken link
        if _from_user(archive, target, downloads):
            return target
        return _from_sources(archive, target, downloads)


def mismatch(path: Path, archive: Archive) -> str | None:
    """How `path` differs from the archive in size or checksum; None if it does not."""
    if archive.bytes is not None and (size := path.stat().st_size) != archive.bytes:
        return f"{size:,} bytes instead of {archive.bytes:,}"
    for kind, expected in archive.digests.items():
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != expected:
            return f"{kind} {found} instead of {expected}"
    return None


def part_of(target: Path) -> Path:
    """What has been downloaded of `target` so far."""
    return target.with_name(target.name + ".part")


def source_of(path: Path) -> str | None:
    """The URL, as returned by `plain`, that a downloaded file came from; None if it was placed by hand."""
    lines = read_note(note_of(path))
    return plain(lines[0]) if lines and is_url(lines[0]) else None


def settle(target: Path) -> None:
    """Give the complete `.part` its final name, and keep the note of where it came from."""
    part = part_of(target)
    if note_of(part).exists():
        os.replace(note_of(part), note_of(target))
    os.replace(part, target)


def _from_user(archive: Archive, target: Path, downloads: Downloads) -> bool:
    if not downloads.archives:
        return False
    found = (expanded(downloads.archives) / archive.file).resolve()
    if not found.is_file():
        return False
    wrong = mismatch(found, archive)
    if wrong:
        raise ValueError(
            f"{found}: is not the expected archive: {wrong}; replace or remove it, or give its checksum under "
            f"downloads.checksums.{archive.file} if it is meant to be another file"
        )
    try:
        target.symlink_to(found)
    except OSError:  # a file system without links
        shutil.copyfile(found, part_of(target))
        os.replace(part_of(target), target)
    return True


def _from_sources(archive: Archive, target: Path, downloads: Downloads) -> Path:
    _refuse_small_disk(archive, target)
    failures = ""
    for url in archive.urls:
        try:
            _from_source(url, archive, part_of(target), downloads.timeout)
            settle(target)
            return target
        except TransferError as error:
            say(f"{archive.file}: {plain(url)}: {error}")
            failures += f"\n  {plain(url)}: {error}"
    raise ValueError(_by_hand(archive, target, failures))


def _from_source(url: str, archive: Archive, part: Path, timeout: float) -> None:
    """Transfer and verify; a resumed file that fails the check is downloaded once more from its first byte."""
    for resumed in (True, False) if part.exists() else (False,):
        transfer(url, part, size=archive.bytes, timeout=timeout)
        wrong = mismatch(part, archive)
        if not wrong:
            return
        aside = _set_aside(part, wrong)
        if not resumed:
            raise TransferError(f"sent another file than expected: {wrong} (kept as {aside.name})", retry=False)


def _set_aside(path: Path, wrong: str) -> Path:
    aside = path.with_name(path.name.removesuffix(".part") + ".corrupt")
    os.replace(path, aside)
    note_of(path).unlink(missing_ok=True)
    say(f"{path}: {wrong}; renamed to {aside.name}")
    return aside


def _refuse_small_disk(archive: Archive, target: Path) -> None:
    needed, free = (archive.bytes or 0) - size_of(part_of(target)), shutil.disk_usage(target.parent).free
    if needed > free:
        room = f"{archive.file} needs {needed / 1e6:,.0f} MB and {target.parent} has {free / 1e6:,.0f} MB free"
        raise OSError(errno.ENOSPC, room)


def _by_hand(archive: Archive, target: Path, failures: str) -> str:
    expected = [f"{archive.bytes:,} bytes"] if archive.bytes else []
    expected += [f"{kind} {value}" for kind, value in archive.digests.items()]
    hosts = ", ".join(sorted({host(url) for url in archive.urls})) or "no source"
    return (
        f"{archive.file} could not be downloaded from {hosts}:{failures}\n"
        f"Get the file ({', '.join(expected)}) in another way and put it at {target} (or in the folder that "
        f"downloads.archives names), or name other sources under downloads.mirrors.{archive.file}; "
        "then run the same command again."
    )
