"""One URL to one file: resumed, timed out, retried. Whether the bytes are the right ones is `download`'s
matter.

pooch and torchvision's utilities start again from byte 0 when a connection is cut, and torchvision waits for
ever on a silent one; at 50 kB/s for 170 MB, or for STL-10's 2.6 GB, neither will do.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from benchmarks.datasets.connection import Pace, TransferError, host, network_errors, plain, request
from benchmarks.datasets.progress import progress
from scl.util.text import say

ATTEMPTS = 3  # in a row at one URL without a new byte
PAUSE = 1.0  # seconds before the second attempt; doubled before the third
MINIMUM_RATE = 1_000  # bytes a second; www.cs.toronto.edu, throttled, has 50,000
WINDOW = 60.0  # seconds over which the rate is taken
PIECE = 1 << 18
NUMBER = "[0-9]{1,18}"


def transfer(
    url: str,
    part: Path,
    *,
    size: int | None,
    timeout: float,
    start: int | None = None,
    header: str | None = None,
    label: str | None = None,
) -> None:
    """Bring the bytes of `url` to `part`, going on from what `part` holds; TransferError if that fails.

    size: the expected number of bytes, None if unknown. start: where in the remote file they begin, for a
    piece out of a large file (None = the whole file). A server without range requests sends the whole file
    again.
    """
    pace = Pace(MINIMUM_RATE, WINDOW, timeout)

    def attempt() -> None:
        try:
            _stream(url, part, size, pace, start, header, label or part.name)
        except TransferError as error:
            if error.status == 416:  # what we hold reaches beyond the source's file: it is another file
                part.unlink(missing_ok=True)
            raise

    _with_retries(url, attempt, lambda: _size(part), pace)


def read_range(url: str, start: int, count: int, *, timeout: float, header: str | None = None) -> tuple[bytes, int]:
    """(bytes start .. start+count of `url`, the remote file's size); fewer bytes only at the file's end."""

    def attempt() -> tuple[bytes, int]:
        wanted = f"bytes={start}-{start + count - 1}"
        with request(url, Pace(MINIMUM_RATE, WINDOW, timeout), header=header, wanted=wanted) as response:
            _, total = _content_range(response, url)
            with network_errors():
                data = response.read(count)
        if len(data) != min(count, total - start):
            raise TransferError(f"sent {len(data)} of {count} bytes", again=True)
        return data, total

    return _with_retries(url, attempt)


def _with_retries(url: str, attempt, position=lambda: 0, pace: Pace | None = None):
    """What `attempt()` returns. Raises TransferError if trying again cannot help, or after ATTEMPTS in a row without a
    new byte. position: how many there are."""
    longest, failures = position(), 0
    while True:
        try:
            return attempt()
        except TransferError as error:
            failures = 0 if position() > longest else failures + 1
            longest = max(longest, position())
            if not error.again or failures >= ATTEMPTS:
                raise
            pause = PAUSE * 2 ** max(failures - 1, 0)
            say(f"{plain(url)}: {error}; again in {pause:g} s, from byte {position():,}")
            time.sleep(pause)
            if pace:
                pace.waited += pause


def _stream(url, part, size, pace, start, header, label) -> None:
    have = _size(part)
    if size is not None and have > size:
        part.unlink()
        have = 0
    if have == size:
        return
    note = part.with_name(part.name + ".url")  # which source the part is from, and that source's version of the file
    whole = start is None
    wanted = None
    if not whole:
        wanted = f"bytes={start + have}-{start + size - 1}"
    elif have:
        wanted = f"bytes={have}-"
    validator = _validator(note, url) if have else None
    with request(url, pace, header=header, wanted=wanted, validator=validator) as response:
        if response.status == 206:
            begin, total = _content_range(response, url)
            if begin != (start or 0) + have or (whole and size not in (None, total)):
                part.unlink(missing_ok=True)
                raise TransferError(
                    f"sent bytes from {begin} of a file of {total}, which is not what was asked for", again=False
                )
            expected = total if whole else size
        else:
            if not whole:
                raise _no_ranges(url)
            have, expected = 0, _whole_length(response, size)
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        note.write_text(f"{plain(url)}\n{tag}\n", encoding="utf-8")
        bar = progress(f"{label} from {host(url)}", expected, unit="B", start=have)
        _receive(response, part, have, expected, bar, pace)


def _receive(response, part, have, expected, bar, pace) -> None:
    with open(part, "r+b" if have else "wb") as file:
        file.seek(have)
        while True:
            with network_errors():
                piece = response.read1(PIECE)
            if not piece:
                break
            file.write(piece)
            have += len(piece)
            pace.came += len(piece)
            bar.update(len(piece))
            if expected is not None and have > expected:
                raise TransferError(f"sent more than the {expected:,} bytes expected", again=False)
    bar.close()
    if expected is not None and have < expected:
        raise TransferError(f"the connection ended after {have:,} of {expected:,} bytes", again=True)


def _content_range(response, url) -> tuple[int, int]:
    match = re.fullmatch(rf"bytes ({NUMBER})-{NUMBER}/({NUMBER})", response.headers.get("Content-Range", ""))
    if response.status != 206 or not match:
        raise _no_ranges(url)
    return int(match[1]), int(match[2])


def _no_ranges(url) -> TransferError:
    return TransferError(
        f"{host(url)} answers no range requests, so a piece of the file cannot be had without the whole", again=False
    )


def _whole_length(response, size) -> int | None:
    """The length of a whole file that is about to come; refused now if it cannot be the right file."""
    announced = response.headers.get("Content-Length")
    if announced is None:
        return size
    if not re.fullmatch(NUMBER, announced):
        raise TransferError("announces a length (Content-Length) that is no number", again=False)
    if size is not None and int(announced) != size:
        raise TransferError(
            f"offers {int(announced):,} bytes ({response.headers.get_content_type()}) where {size:,} are expected",
            again=False,
        )
    return int(announced)


def _validator(note: Path, url: str) -> str | None:
    """The strong validator that `url` gave with the bytes we hold; None where they came from elsewhere."""
    lines = note.read_text("utf-8", errors="replace").splitlines() if note.exists() else []
    if len(lines) > 1 and lines[0] == plain(url) and re.fullmatch(r"(?!W/)[\x20-\x7e]+", lines[1]):
        return lines[1]
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
