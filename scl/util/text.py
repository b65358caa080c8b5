"""Text from files, servers and users as messages and paths; durations and suggestions."""

import difflib
import os
import reprlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

Report = Callable[[str], object]  # called with each line on progress or a problem, such as `say`
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def printable(text: object, *, keep: str = "") -> str:
    """Escape every character that is not printable, such as \\x1b or \\n, except those in `keep`.

    Otherwise a terminal would execute an escape sequence in a record or an error message.
    """
    text = str(text)
    if text.isprintable():  # the usual case, made fast: base64 sprites have a hundred thousand characters
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def say(text: object) -> None:
    """Print a line on progress or a problem to stderr, unbuffered."""
    print(printable(text, keep="\n"), file=sys.stderr, flush=True)


def duration(seconds: float | None) -> str:
    """Format seconds as seconds, minutes or hours; '–' for None and NaN."""
    if seconds is None or seconds != seconds:
        return "–"
    if seconds < 0.05:
        return "< 0.1 s"
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def did_you_mean(word: object, known: Iterable) -> str:
    """' (did you mean ...?)', or the list of known names."""
    near = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else f"; known: {', '.join(map(str, known)) or 'none'}"


def shown(value: object) -> str:
    """The repr of `value`, shortened."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        return "a number of thousands of digits"


def expanded(path: str | Path) -> Path:
    """The path with ~ expanded; unchanged for an unknown user, which pathlib refuses."""
    return Path(os.path.expanduser(path))
