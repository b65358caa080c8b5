"""Damaged files of a run or a benchmark: reported, never counted, and made again by the steps of the workflow.

Every state is one file of a finished, evaluated chain of two stages, damaged in one way. Inspecting the study must
neither fail nor count a run with a damaged file; the steps that Snakemake would then take (train and evaluate what does
not count, prepare what is missing) must reproduce the original results.
"""

import errno
import io
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TINY_METHODS
from flow import TINY

from benchmarks.cli import main
from benchmarks.datasets.prepare import prepare_for
from benchmarks.report.runs import runs_of
from benchmarks.state import Survey
from benchmarks.study import load_study, write_plan
from scl.engine import artifacts
from scl.engine.artifacts import Record
from scl.engine.io import Damaged

pytestmark = pytest.mark.slow

JSON = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "not JSON": b"{'a': 1}",
    "not UTF-8": b"\xff\xfe{}",
    "deep": b"[" * 100_000,
    "zeros": bytes(500),
}


def flip(content: bytes) -> bytes:
    spoiled = bytearray(content)
    spoiled[len(spoiled) // 2] ^= 1
    return bytes(spoiled)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def with_key(key, value):
    def spoil(content):
        return json.dumps(json.loads(content) | {key: value}).encode()

    return spoil


def without_key(key):
    def spoil(content):
        return json.dumps({k: v for k, v in json.loads(content).items() if k != key}).encode()

    return spoil


def states():
    """(file, name of the damage, function on its bytes or None to delete it)"""
    for file in ("record.json", "clustering.json", "metrics.json", "failure.json", "benchmark.json"):
        for name in JSON if file == "record.json" else ("empty", "object"):
            yield file, name, lambda _, content=JSON[name]: content
    for file in (
        "record.json",
        "metrics.json",
        "history.csv",
        "assignments.npz",
        "weights.pt",
        "checkpoint.pt",
        "benchmark.json",
        "images.npy",
        "labels.npy",
    ):
        yield file, "flipped", flip
        yield file, "missing", None
    yield "record.json", "cut", cut
    yield "clustering.json", "cut", cut
    yield "clustering.json", "missing", None
    yield "clustering.json", "of another run", with_key("fingerprint", "0" * 64)
    yield "clustering.json", "of other features", with_key("features", {"2.npz": "0" * 64})
    for file, key in (("record.json", "identity"), ("metrics.json", "scores"), ("benchmark.json", "splits")):
        yield file, f"{key} is text", with_key(key, "x")
        yield file, f"without {key}", without_key(key)
    yield "record.json", "epochs is true", with_key("epochs", True)
    yield "record.json", "files is empty", with_key("files", {})
    yield "benchmark.json", "protocols is of texts", with_key("protocols", {"joint": "train"})
    yield "benchmark.json", "splits is empty", with_key("splits", {})


STATES = list(states())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(configuration, folder) of a finished study of SimCLR and SCAN."""
    folder = tmp_path_factory.mktemp("finished")
    mapping = TINY | {"methods": {stage: TINY_METHODS[stage] for stage in ("simclr", "scan")}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "study.yaml").write_text(yaml.safe_dump(mapping))
        write_plan(load_study(mapping), mapping)
        finish(load_study(mapping))
    return mapping, folder


def finish(study):
    """Do what the workflow does with a study; failed steps are left for the next call. Return their messages."""
    said, survey = [], Survey(study)
    for path in survey.outdated():
        path.unlink()  # as Snakemake does before a job
    for run in study.runs():
        if survey.state(run).status == "done":
            continue
        try:
            if not (study.data / "tiny" / "benchmark.json").exists():
                prepare_for(study, "tiny")
            for directory in (
                [run.after.directory] if run.after and not (run.after.directory / "weights.pt").exists() else []
            ):
                assert main(["train", str(directory), "--gpus", "0"]) == 0
            for verb in (["train", "--gpus", "0"], ["kmeans"], ["evaluate"]):
                if main([verb[0], str(run.directory), *verb[1:]]):
                    raise Damaged(f"{verb[0]} {run.stage}")
        except Damaged as error:
            said.append(str(error))
            break
    return said


def results(folder):
    found = {}
    for run in sorted((folder / "results" / "runs").rglob("seed0")):
        with np.load(run / "assignments.npz") as file:
            found |= {(run.parent.name, name): file[name].tobytes() for name in file.files}
        found[run.parent.name, "scores"] = json.loads((run / "metrics.json").read_text())["scores"]
        found[run.parent.name, "weights"] = json.loads((run / "record.json").read_text())["files"]["weights.pt"]
    return found


RUN = "results/runs/tiny/joint/simclr/seed0"


def place(folder, file):
    data = file in ("benchmark.json", "images.npy", "labels.npy")
    return folder / ("data/tiny" if data else RUN) / file


def counted() -> dict:
    return {row.stage: row for row in runs_of(load_study("study.yaml")).itertuples()}


UNSEEN = ("weights.pt", "checkpoint.pt", "images.npy", "labels.npy")  # hashed when loaded, not when inspected


@pytest.mark.parametrize("file", sorted({file for file, _, _ in STATES}))
def test_a_damaged_file_is_named_and_made_again(file, finished, tmp_path, monkeypatch, capsys):
    """All states of one file in turn; of those that damage a single key, only every fifth is repaired."""
    mapping, origin = finished
    outcomes, expected = Counter(), results(origin)
    for number, (_, name, spoil) in enumerate(state for state in STATES if state[0] == file):
        folder = tmp_path / str(number)
        shutil.copytree(origin, folder)
        monkeypatch.chdir(folder)
        path = place(folder, file)
        if file == "failure.json":  # only read if there is no result
            place(folder, "record.json").unlink()
            path.write_bytes(spoil(b"{}"))
        elif spoil is None:
            path.unlink()
        else:
            before = path.read_bytes()
            path.write_bytes(spoil(before))
            assert path.read_bytes() != before, name
        study = load_study(mapping)
        assert main(["status", "study.yaml"]) == 0, name
        if number == 0 and file in ("record.json", "benchmark.json", "assignments.npz"):
            assert main(["report", "study.yaml", "--partial"]) == 0
        if file not in UNSEEN and not (file == "benchmark.json" and spoil is None):
            row = counted()["simclr"]
            assert row.status != "done" and np.isnan(row.acc), name
            assert file in row.reason or name == "missing", (name, row.reason)
        if (" " in name or name in JSON) and number % 5:  # a key, a JSON file: all take the same code path
            outcomes["named"] += 1
            shutil.rmtree(folder)
            continue
        for _ in range(3):  # a step that finds a damaged file sets it aside; the next call makes it again
            if not finish(study) and all(state.status == "done" for state in Survey(study).states().values()):
                break
        assert {row.status for row in counted().values()} == {"done"}, (name, capsys.readouterr())
        assert results(folder) == expected, name
        if file in ("weights.pt", "images.npy", "labels.npy"):
            assert reload_sound(study, file), name
        assert "Traceback" not in capsys.readouterr().err
        outcomes["named, made again, the same to the bit"] += 1
        shutil.rmtree(folder)
    print(f"{file}: {dict(outcomes)}")


@pytest.mark.parametrize("file", ["record.json", "metrics.json", "benchmark.json", "assignments.npz", "history.csv"])
def test_a_file_that_cannot_be_read_at_the_moment_stops_the_command_and_costs_no_result(
    file, finished, tmp_path, monkeypatch, capsys
):
    """No permission, or a network file system that does not answer: the result is not damaged."""
    shutil.copytree(finished[1], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    path = place(tmp_path / "copy", file)
    before, opened = path.read_bytes(), io.open

    def denied(name, *arguments, **options):
        if path == Path(str(name)).absolute():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name))
        return opened(name, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", denied)
        patch.setattr("io.open", denied)
        for command in (["status", "study.yaml"], ["report", "study.yaml"], ["train", RUN, "--gpus", 0]):
            if command[0] == "train" and file in ("metrics.json", "benchmark.json", "history.csv"):
                continue
            assert main([*map(str, command)]) == 2, command
            assert f"Permission denied: '{path.relative_to(tmp_path / 'copy')}'" in capsys.readouterr().err, command
    assert path.read_bytes() == before and not [*path.parent.glob("*.damaged")]
    assert {row.status for row in counted().values()} == {"done"}


def reload_sound(study, file):
    """Damage that inspection does not see is found on loading, and repaired."""
    run = study.runs()[1]
    shutil.rmtree(run.directory)
    write_plan(study, yaml.safe_load(open("study.yaml")))
    for _ in range(3):
        finish(study)
    simclr = run.after.directory
    record = artifacts.read(simclr / "record.json", Record)
    return Survey(study).state(run).status == "done" and not artifacts.damage(simclr, record)
