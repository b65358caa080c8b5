"""`scl status --watch`: a bar for each running run, totals, and failures, renewed until the study ends."""

import time

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from benchmarks.overview import Overview, RunNow, Watcher
from benchmarks.status import describe_progress
from scl.util.text import printable

EVERY = 2.0  # seconds
PATIENCE = 30.0  # seconds after the last run until a study with failures counts as over, since runs may be retried


def watch_study(study, console: Console | None = None) -> None:
    """Show the study until every run is done, until only failed runs have remained for PATIENCE seconds, or until
    Ctrl-C."""
    watcher, idle = Watcher(study), 0.0  # seconds
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                overview = watcher.look()
                live.update(render(overview, live.console.width), refresh=True)
                idle = idle + EVERY if overview.is_over else 0.0
                if idle > PATIENCE or (overview.is_over and not overview.count("failed")):
                    return
                time.sleep(EVERY)
    except KeyboardInterrupt:
        return


def render(overview: Overview, width: int) -> RenderableType:
    """The whole display. width: of the terminal in characters."""
    totals = overview.totals
    counted = ", ".join(f"{totals[name]} {name}" for name in ("running", "failed", "left"))
    title = overview.study.title or overview.study.results.name
    parts: list[RenderableType] = [
        Text(printable(f"{title}: {totals['trained']} of {totals['runs']} runs trained, {counted}")),
        Columns([ProgressBar(total=max(1, totals["runs"]), completed=totals["trained"])]),  # ends the line
    ]
    if running := [now for now in overview.runs if now.status == "running"]:
        parts.append(_bars(running, width))
    for now in overview.runs:
        if now.status == "failed":
            log = f"\n  log: {now.log}" if now.log else ""
            parts.append(Text(printable(f"failed: {now.name}: {now.reason}{log}", keep="\n"), style="red"))
    return Group(*parts)


def _bars(running: list[RunNow], width: int) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()  # wraps on a narrow terminal
    table.add_column(width=20 if width > 100 else 5)
    for _ in range(4):
        table.add_column(justify="right", no_wrap=True)
    for now in running:
        bar = ProgressBar(total=now.epoch.get("epochs", 1), completed=now.epoch.get("epoch", 0))
        table.add_row(Text(printable(now.name)), bar, *(describe_progress(now) or ["starting"]))
    return table
