"""Download one URL to one file with resume, time-out and retries; download.py verifies checksums.

pooch and torchvision's utilities restart from byte 0 when a connection is cut, and torchvision waits forever for a
silent server; at 50 kB/s for 170 MB, or for STL-10's 2.6 GB, neither is acceptable.
"""

import errno
import re
import time
from pathlib import Path

from benchmarks.bars import ProgressBar
from benchmarks.datasets.connection import Pace, TransferError, host, network_errors, plain, request
from scl.util.text import say

ATTEMPTS = 3  # in a row at one URL without a new byte
PAUSE = 1.0  # seconds before the second attempt; doubled before the third
MINIMUM_RATE = 1_000  # bytes per second; www.cs.toronto.edu, throttled, has 50,000
WINDOW = 60.0  # seconds over which the rate is measured
CHUNK = 1 << 18
NUMBER = "[0-9]{1,18}"


def transfer(
    url: str, part: Path, *, size: int | None, timeout: float, start: int | None = None, header: str | None = None
) -> None:
    """Download `url` to `part`, resuming from what `part` holds. Raises TransferError if that fails, and OSError with
    a fix if the disk is full.

    size: the expected number of bytes, None if unknown. start: for a byte range of a large file, its first byte (None =
    the whole file). A server without range requests sends the whole file again.
    """
    pace = Pace(MINIMUM_RATE, WINDOW, timeout)

    def attempt() -> None:
        try:
            _stream(url, part, size, pace, start, header)
        except TransferError as error:
            if error.status != 416:  # `part` is longer than this source's file, which is a different one
                raise
            if size is None or start is not None:
                part.unlink(missing_ok=True)
                raise
            _stream(url, part, size, pace, start, header, resume=False)  # keeps `part` if the length is wrong

    try:
        _with_retries(url, attempt, lambda: size_of(part), pace)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        problem = f"no room for {part.stem} in {part.parent} ({error.strerror})"
        raise OSError(error.errno, f"{problem}; make room and run the same command again: it resumes") from error


def read_range(url: str, start: int, count: int, *, timeout: float, header: str | None = None) -> tuple[bytes, int]:
    """(bytes start .. start+count of `url`, the remote file's size); fewer bytes only at the file's end."""
    headers = {"Range": f"bytes={start}-{start + count - 1}"}

    def attempt() -> tuple[bytes, int]:
        with request(url, Pace(MINIMUM_RATE, WINDOW, timeout), headers=headers, secret=header) as response:
            _refuse_unexpected(response, (200, 206))
            _, total = _content_range(response, url)
            with network_errors():
                data = response.read(count)
        if len(data) != min(count, total - start):
            raise TransferError(f"sent {len(data)} of {count} bytes", retry=True)
        return data, total

    return _with_retries(url, attempt)


def _with_retries(url: str, attempt, position=lambda: 0, pace: Pace | None = None):
    """The result of `attempt()`. Raises TransferError if a retry cannot help, or after ATTEMPTS in a row without a new
    byte. position: the number of bytes so far."""
    longest, failures = position(), 0
    while True:
        try:
            return attempt()
        except TransferError as error:
            failures = 0 if position() > longest else failures + 1
            longest = max(longest, position())
            if not error.retry or failures >= ATTEMPTS:
                raise
            pause = PAUSE * 2 ** max(failures - 1, 0)
            say(f"{plain(url)}: {error}; trying again in {pause:g} s, from byte {position():,}")
            time.sleep(pause)
            if pace:
                pace.waited += pause


def _stream(url, part, size, pace, start, header, *, resume=True) -> None:
    """One request. If it fails before the first byte, `part` is kept, unless its bytes cannot be used."""
    have = size_of(part) if resume else 0
    if size is not None and have > size:
        part.unlink()
        have = 0
    if have == size:
        return
    first, note, headers = (start or 0) + have, note_of(part), {}
    if start is not None or have:
        headers["Range"] = f"bytes={first}-{'' if start is None else start + size - 1}"
    if have and (validator := _validator(note, url)):
        headers["If-Range"] = validator
    with request(url, pace, headers=headers, secret=header) as response:
        _refuse_unexpected(response, (200, 206) if "Range" in headers else (200,))
        if response.status == 200 and start is not None and "If-Range" in headers:
            part.unlink()
            note.unlink()
            raise TransferError("the file changed on the server", retry=True)
        if response.status == 206 or start is not None:
            begin, total = _content_range(response, url)
            if start is None and size not in (None, total):
                raise TransferError(f"offers {total:,} bytes where {size:,} are expected", retry=False)
            if begin != first:
                part.unlink(missing_ok=True)
                raise TransferError(f"sent bytes from {begin:,} where those from {first:,} were requested", retry=False)
            expected = total if start is None else size
        else:
            have, expected = 0, _whole_length(response, size)
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        note.write_text(f"{plain(url)}\n{tag}\n", encoding="utf-8")
        with ProgressBar(f"{part.stem} from {host(url)}", expected, unit="B", start=have) as bar:
            _receive(response, part, have, expected, bar, pace)


def _receive(response, part, have, expected, bar, pace) -> None:
    with open(part, "r+b" if have else "wb") as file:
        file.seek(have)
        while True:
            with network_errors():
                chunk = response.read1(CHUNK)
            if not chunk:
                break
            file.write(chunk)
            have += len(chunk)
            pace.received += len(chunk)
            bar.update(len(chunk))
            if expected is not None and have > expected:
                raise TransferError(f"sent more than the {expected:,} bytes expected", retry=False)
    if expected is not None and have < expected:
        raise TransferError(f"the connection ended after {have:,} of {expected:,} bytes", retry=True)


def _refuse_unexpected(response, statuses: tuple[int, ...]) -> None:
    """Raise TransferError for a captive portal or login page, and for any status not in `statuses`."""
    if response.status == 200 and response.headers.get_content_type() == "text/html":
        raise TransferError("answers with a web page (a login page?)", retry=False)
    if response.status not in statuses:
        raise TransferError(f"unexpected HTTP status {response.status}", retry=False)


def _content_range(response, url) -> tuple[int, int]:
    """(first byte, size of the whole file) of a partial response."""
    match = re.fullmatch(rf"bytes ({NUMBER})-{NUMBER}/({NUMBER})", response.headers.get("Content-Range", ""))
    if response.status != 206 or not match:
        raise TransferError(
            f"{host(url)} does not answer range requests, so only the whole file can be downloaded", retry=False
        )
    return int(match[1]), int(match[2])


def _whole_length(response, size) -> int | None:
    """The length of the whole file that will follow. Raises TransferError now if it cannot be the right file."""
    announced = response.headers.get("Content-Length")
    if announced is None:
        return size
    if not re.fullmatch(NUMBER, announced):
        raise TransferError("announces a length (Content-Length) that is not a number", retry=False)
    if size is not None and int(announced) != size:
        kind = response.headers.get_content_type()
        raise TransferError(f"offers {int(announced):,} bytes ({kind}) where {size:,} are expected", retry=False)
    return int(announced)


def note_of(path: Path) -> Path:
    """The file that records which source `path` is from, and which version of it."""
    return path.with_name(path.name + ".url")


def read_note(note: Path) -> list[str]:
    return note.read_text("utf-8", errors="replace").splitlines() if note.exists() else []


def _validator(note: Path, url: str) -> str | None:
    """The strong validator that `url` gave with the bytes we hold; None if they came from elsewhere."""
    lines = read_note(note)
    if len(lines) > 1 and lines[0] == plain(url) and re.fullmatch(r"(?!W/)[\x20-\x7e]+", lines[1]):
        return lines[1]
    return None


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
