"""How far a long task is, on stderr: one rewritten line on a terminal, a plain line every 15 seconds elsewhere."""

import sys

from tqdm import tqdm

from scl.util.text import printable, say

tqdm.monitor_interval = 0  # no thread: image decoding forks


class _Lines:
    """The stream of a bar that is shown on no terminal."""

    def write(self, text: str) -> None:
        if text.strip():
            say(text.strip())

    def flush(self) -> None:
        pass


def progress(label: str, total: int | None, *, unit: str, start: int = 0) -> tqdm:
    """A bar to `update(amount)` and `close()`. total: None if unknown. unit: "B" for bytes, or the plural of what is
    counted. start: what was there before (of a resumed file): shown, but not counted in the rate."""
    terminal, count = sys.stderr.isatty(), "{n_fmt}" if total is None else "{n_fmt} of {total_fmt}"
    left = "" if total is None else ", {remaining} left"
    return tqdm(
        desc=printable(label),
        total=total,
        initial=start,
        unit=unit if unit == "B" else f" {unit}",
        unit_scale=unit == "B",
        miniters=1,
        mininterval=0.25 if terminal else 15,
        file=sys.stderr if terminal else _Lines(),
        bar_format=f"{{desc}}: {count}{{unit}}, {{rate_fmt}}{left}",
    )
