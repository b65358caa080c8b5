"""Progress of downloads, preparation, assignment, and reports: a bar on a terminal, lines in a log file."""

import sys

import pytest

from benchmarks import bars
from benchmarks.bars import ProgressBar
from scl.util.text import say


@pytest.fixture
def clock(monkeypatch):
    """A clock that only tests advance: clock[0] += 1."""
    now = [100.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    return now


def test_a_log_file_gets_a_line_every_15_seconds_and_one_at_the_end(clock, capsys):
    with ProgressBar("prepare", 4000, unit="images") as bar:
        for _ in range(40):
            clock[0] += 1
            bar.update(100)
    assert capsys.readouterr().err.splitlines() == [
        "prepare: 1,500 of 4,000 images, 100 images/s, 25 s left",
        "prepare: 3,000 of 4,000 images, 100 images/s, 10 s left",
        "prepare: 4,000 of 4,000 images, 100 images/s",
    ]


def test_bytes_of_a_resumed_download_do_not_count_in_its_rate(clock, capsys):
    with ProgressBar("archive", 10_000_000, unit="B", start=8_000_000) as bar:
        clock[0] += 2
        bar.update(1_000_000)
    assert capsys.readouterr().err == "archive: 9.0 MB of 10.0 MB, 500.0 kB/s, 2.0 s left\n"


def test_an_unknown_total(clock, capsys):
    with ProgressBar("index", None, unit="B") as bar:
        clock[0] += 1
        bar.update(2000)
    assert capsys.readouterr().err == "index: 2.0 kB, 2.0 kB/s\n"


def test_a_terminal_gets_bars_below_each_other_and_lines_above_them(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with ProgressBar("outer", 2, unit="classes") as outer, ProgressBar("inner", 3, unit="images") as inner:
        inner.update(3)
        outer.update()
        say("a line")
    told = capsys.readouterr().err
    assert "━" in told and "3 of 3 images" in told and "1 of 2 classes" in told and "a line\n" in told


def test_assigning_reports_each_batch(monkeypatch):
    import torch

    from scl.engine import assign

    monkeypatch.setattr(assign, "BATCH", 2)

    class Images:
        pixels = torch.zeros(5, 1)

        def __len__(self):
            return 5

        def batch(self, index):
            return self.pixels[index]

    class Method(torch.nn.Module):
        def assign(self, batch):
            return batch

    counts = []
    assign.outputs(Method(), Images(), autocast=torch.no_grad, advance=counts.append)
    assert counts == [2, 2, 1]
