"""Progress of a long task on stderr: one rewritten line on a terminal, a plain line every 15 seconds elsewhere."""

import sys
from types import SimpleNamespace

from tqdm import tqdm

from scl.util.text import printable, say

tqdm.monitor_interval = 0  # no extra thread
_LINES = SimpleNamespace(write=lambda text: say(text.strip()) if text.strip() else None, flush=lambda: None)


def progress(label: str, total: int | None, *, unit: str, start: int = 0) -> tqdm:
    """A bar to `update(amount)` and `close()`. total: None if unknown. unit: "B" for bytes, or the plural of what is
    counted. start: the amount done before (of a resumed file), which does not count in the rate."""
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
        file=sys.stderr if terminal else _LINES,
        bar_format=f"{{desc}}: {count}{{unit}}, {{rate_fmt}}{left}",
    )
