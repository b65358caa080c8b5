"""How far a long thing is, on stderr: one rewritten line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from scl.text import duration, printable, say


class Progress:
    """Counts up to `total` (None: unknown) in units of `scale`; says the rate and the time that remains.

    `start` is what was there before (a resumed file): shown, but not counted in the rate.
    """

    def __init__(self, label: str, total: int | None, *, unit: str, scale: float = 1, start: int = 0) -> None:
        self.label, self.total, self.unit, self.scale = label, total, unit, scale
        self.start = self.done = start
        self.began = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.interval = 0.25 if self.terminal else 15.0

    def add(self, amount: int) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.shown >= self.interval:
            self.shown = now
            self._print(now)

    def close(self) -> None:
        self._print(time.monotonic(), last=True)

    def _print(self, now: float, last: bool = False) -> None:
        rate = (self.done - self.start) / max(now - self.began, 1e-9)
        digits = 1 if 1 < self.scale and (self.total or self.done) < 100 * self.scale else 0
        text = f"{self.label}: {self.done / self.scale:,.{digits}f}"
        text += f" of {self.total / self.scale:,.{digits}f} {self.unit}" if self.total else f" {self.unit}"
        text += f", {rate / self.scale:,.1f} {self.unit}/s"
        if last:
            text += f", took {duration(now - self.began)}"
        elif self.total and rate > 0:
            text += f", {duration((self.total - self.done) / rate)} left"
        if self.terminal:
            print(f"\r\033[K{printable(text)}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            say(text)
