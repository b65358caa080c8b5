"""`scl status` of a running study: the same state as text, as JSON, and in the display of --watch."""

import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from benchmarks import cli, watch
from benchmarks.overview import Overview, Watcher, log_of
from benchmarks.status import describe_runs, summarize_study
from benchmarks.watch import render, watch_study
from scl.config import complete, digest
from scl.engine.locks import locked
from scl.engine.progress import NAME
from scl.engine.train import train

pytestmark = pytest.mark.slow


def line(epoch, **rest):
    return {"epoch": epoch, "epochs": 50, "images": 1000, "loss": 1.25, "seconds": 2.0 * epoch} | rest


def write_progress(run, *lines):
    (run.directory / NAME).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"epoch": 99, "lo')


def fail(study, run, error="the loss is nan"):
    failure = {"error": error, "kind": "NonFinite", "permanent": True, "epoch": 2}
    failure["config_sha256"] = digest(complete(study.settings(run)))
    (run.directory / "failure.json").write_text(json.dumps(failure))
    log_of(run.directory).parent.mkdir(parents=True, exist_ok=True)
    log_of(run.directory).write_text("...\n")


def shown(study, width=120):
    console = Console(file=io.StringIO(), width=width)
    console.print(render(Overview(study), width))
    return console.file.getvalue()


@pytest.fixture
def running(tiny_study):
    """A study of five runs: k-means failed, SimCLR is in its fifth epoch, SCL in its first."""
    study = tiny_study("random", "kmeans", "simclr", "scan", "scl", title="My study")
    _, kmeans, simclr, _, scl = study.runs()
    fail(study, kmeans)
    write_progress(simclr, *(line(epoch) for epoch in range(1, 5)))
    with locked(simclr.directory / ".lock", simclr.directory), locked(scl.directory / ".lock", scl.directory):
        yield study


def test_watch_shows_a_bar_per_running_run_totals_and_failures(running):
    told = shown(running)
    assert told.startswith("My study: 0 of 5 runs trained, 2 running, 1 failed, 2 left\n")
    assert all(len(line) <= 120 for line in told.splitlines())
    [bar] = [line for line in told.splitlines() if "simclr" in line]
    for words in ("tiny-digits joint simclr seed 0", "epoch 4/50", "loss 1.250", "500 images/s", "92 s left"):
        assert words in bar
    assert "tiny-digits joint scl seed 0" in told and "starting" in told
    log = log_of(running.runs()[1].directory)
    assert f"failed: tiny-digits joint kmeans seed 0: the loss is nan (epoch 2)\n  log: {log}" in shown(running, 500)
    assert "scan" not in told  # neither running nor failed


def test_text_json_and_plan_agree(running, capsys):
    path = str(running.results / "study.yaml")
    assert cli.main(["status", path, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["totals"] == {"runs": 5, "trained": 0, "running": 2, "failed": 1, "left": 2}
    status = {run["run"]: run["status"] for run in told["runs"]}
    assert list(status.values()) == ["missing", "failed", "running", "missing", "running"]
    [simclr] = [run for run in told["runs"] if run["run"] == "tiny-digits/joint/simclr/0"]
    assert (simclr["epoch"], simclr["epochs"], simclr["loss"]) == (4, 50, 1.25)
    assert (simclr["images_per_second"], simclr["seconds_left"]) == (500, 92)
    summary = "My study: 5 runs, 0 of them trained, 2 running, 1 failed; results in"
    for verb in ("status", "plan"):
        assert cli.main([verb, path]) == 0
        assert capsys.readouterr().out.startswith(summary)
    overview = Overview(running)
    assert summarize_study(overview).startswith(summary)
    assert "running: epoch 4/50, loss 1.250, 500 images/s, 92 s left" in "\n".join(describe_runs(overview))


def test_speed_is_that_of_the_last_epochs(tiny_study):
    """The first epoch, or the machine used before resuming, may have been slower."""
    study = tiny_study("scl")
    [run] = study.runs()
    with locked(run.directory / ".lock", run.directory):
        write_progress(run, line(1, seconds=100.0), *(line(e, seconds=100.0 + e) for e in range(2, 20)))
        assert Overview(study).runs[0].speed == (pytest.approx(1000), pytest.approx(31))
        write_progress(run, line(1, seconds=100.0))
        assert Overview(study).runs[0].speed == (10, 4900)


def test_a_stopped_run_says_where(tiny_study):
    study = tiny_study("scl")
    [run] = study.runs()
    (run.directory / "checkpoint.pt").touch()
    write_progress(run, line(7))
    assert describe_runs(Overview(study))[0].endswith("stopped: epoch 7/50, loss 1.250")
    assert summarize_study(Overview(study)).partition("\n")[0].count("1 stopped") == 1


def test_a_watched_study_is_surveyed_again_only_after_a_change(tiny_study, train_all):
    study = tiny_study("random")
    watcher = Watcher(study)
    survey = watcher.survey
    assert watcher.look().totals["trained"] == 0 and watcher.survey is survey
    train_all(study)
    assert watcher.look().totals["trained"] == 1 and watcher.survey is not survey


def test_a_study_is_over_if_only_failed_runs_are_left_and_what_builds_on_them(tiny_study):
    study = tiny_study("simclr", "scan", "selflabel", "kmeans")
    simclr, _, _, kmeans = study.runs()
    fail(study, simclr)
    assert not Overview(study).is_over  # kmeans is pending
    fail(study, kmeans)
    assert Overview(study).is_over
    with locked(kmeans.directory / ".lock", kmeans.directory):
        assert not Overview(study).is_over


def test_a_failed_kmeans_ends_the_study_once_nothing_else_is_left(tiny_study):
    study = tiny_study("simclr", "scan")
    simclr, scan = study.runs()
    train(simclr.directory, gpus=0, report=lambda line: None)
    fail(study, simclr)
    assert not Overview(study).is_over  # scan can start from simclr
    fail(study, scan)
    assert Overview(study).is_over
    with locked(simclr.directory / ".lock", simclr.directory):  # k-means is tried again
        assert Overview(study).runs[0].status == "clustering" and not Overview(study).is_over


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=300)


def test_watching_ends_with_the_study(tiny_study, train_all, terminal, monkeypatch):
    from benchmarks.single import run_single

    study = tiny_study("random")
    waits = iter([lambda: None, lambda: run_single(study, study.runs()[0], gpus=0, report=lambda *_: None)])
    monkeypatch.setattr(watch, "time", SimpleNamespace(sleep=lambda seconds: next(waits)()))
    watch_study(study, terminal)
    assert next(waits, None) is None and "1 of 1 runs trained, 0 running" in terminal.file.getvalue()


def test_watching_a_failed_study_ends_after_some_patience(tiny_study, terminal, monkeypatch):
    study, waited = tiny_study("kmeans"), []
    fail(study, study.runs()[0], error="bad \x1b[31m[red]news")
    monkeypatch.setattr(watch, "time", SimpleNamespace(sleep=waited.append))
    watch_study(study, terminal)
    assert watch.PATIENCE <= sum(waited) < 2 * watch.PATIENCE
    assert "bad \\x1b[31m[red]news" in terminal.file.getvalue()


def test_ctrl_c_ends_watching_without_an_error(tiny_study, terminal, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "time", SimpleNamespace(sleep=interrupt))
    watch_study(tiny_study("random"), terminal)
    assert "\x1b[?25h" in terminal.file.getvalue()  # the cursor is back


def test_watch_needs_a_terminal_and_json_stands_alone(tiny_study, capsys, monkeypatch):
    path = str(tiny_study("random").results / "study.yaml")
    assert cli.main(["status", path, "--watch"]) == 2
    assert capsys.readouterr().err.startswith("scl: error: --watch: only on a terminal")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert cli.main(["status", path, "--watch", "--json"]) == 2
