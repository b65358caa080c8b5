"""Progress of a long task on stderr: a bar on a terminal, elsewhere a plain line every 15 seconds and at the end."""

import sys
import time
from functools import cache
from typing import Any

from rich.filesize import decimal

from scl.util.text import duration, printable, say

LINE_SECONDS, FRAME_SECONDS = 15.0, 0.1


@cache
def _console() -> Any:
    """One console for all bars, so that a bar can be shown below another one."""
    from rich.console import Console

    return Console(stderr=True)


class ProgressBar:
    """A progress bar with `update(amount)` and `close()`; also a context manager."""

    def __init__(self, label: str, total: int | None, *, unit: str, start: int = 0):
        """total: None if unknown. unit: "B" for bytes, or a plural noun for what is counted. start: the amount done
        earlier (of a resumed file), which the rate does not include."""
        self.label, self.total, self.unit, self.start, self.done = printable(label), total, unit, start, start
        self._began = self._shown = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=_console(), auto_refresh=False)  # no thread: others fork
            self._task = self._bar.add_task(self.label, total=total, completed=start, text="")
            self._bar.start()

    def update(self, amount: int = 1) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self._shown >= (FRAME_SECONDS if self._bar else LINE_SECONDS):
            self._shown = now
            self._show()

    def close(self) -> None:
        self._show()
        if self._bar:
            self._bar.stop()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _show(self) -> None:
        if self._bar:
            self._bar.update(self._task, completed=self.done, text=str(self), refresh=True)
        else:
            say(f"{self.label}: {self}")

    def __str__(self) -> str:
        rate = (self.done - self.start) / max(time.monotonic() - self._began, 1e-3)
        if self.total is None:
            return f"{self._count(self.done)}, {self._count(rate)}/s"
        amount = f"{self._count(self.done, unit=self.unit == 'B')} of {self._count(self.total)}"
        left = f", {duration((self.total - self.done) / rate)} left" if rate and self.done < self.total else ""
        return f"{amount}, {self._count(rate)}/s{left}"

    def _count(self, number: float, *, unit: bool = True) -> str:
        if self.unit == "B":
            return decimal(int(number))
        return f"{number:,.0f}{f' {self.unit}' if unit else ''}"
