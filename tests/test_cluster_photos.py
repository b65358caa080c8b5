"""`scl cluster` under adverse conditions: other formats, earlier results, full disks, missing permissions."""

import errno
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import cluster, digits, table, tiny_settings

from benchmarks import single
from benchmarks.assigner import Assigner
from benchmarks.cluster import cluster_folder, holds_copies
from benchmarks.folder_page import write_page
from benchmarks.folder_study import Request
from benchmarks.study import load_study
from scl.engine.train import train

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def here(here):
    """The working directory, with settings for tiny networks in tiny.yaml."""
    tiny_settings(here / "tiny.yaml")
    return here


def summary():
    return json.loads(Path("photos-clusters/summary.json").read_text())


def last_error(capsys):
    return capsys.readouterr().err.splitlines()[-1].removeprefix("scl: error: ")


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


# formats


def test_photographs_in_other_formats_count_as_unreadable(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # not installed
    digits(here / "photos", 12, classes=False)
    for name in ("phone.HEIC", "camera.dng"):
        (here / "photos" / name).write_bytes(b"of a camera")
    arguments = ("photos", "--clusters", 2, "--method", "kmeans")
    assert cluster(*arguments, "--strict") == 2
    told = (
        "--strict: 2 unreadable image(s), such as camera.dng: DNG is not read here; convert it to JPEG; fix or remove"
    )
    assert last_error(capsys).startswith(told)
    assert cluster(*arguments) == 0
    done = capsys.readouterr()
    assert "left out: 2 unreadable image(s)" in done.out
    assert "phone.HEIC: HEIC needs pillow-heif (pip install pillow-heif), or convert it to JPEG" in done.err
    assert "2 unreadable images were left out" in (here / "photos-clusters" / "index.html").read_text()


# earlier results


def test_results_that_will_be_replaced_are_named_before_the_estimate(here, capsys):
    digits(here / "photos", 20, classes=False)

    def told(*arguments):
        assert cluster("photos", *arguments) == 0
        return capsys.readouterr().err

    replaced = "photos-clusters: its 3 clusters (scl, seed 0) will be replaced; to keep them, stop and name another"
    assert "will be replaced" not in told("--clusters", 3)
    assert "will be replaced" not in told("--clusters", 3)  # nothing is trained
    again = told("--clusters", 4)
    assert 0 < again.index(replaced) < again.index("this will take about")
    assert "will be replaced" not in told("--clusters", 4, "--seed", 1)  # seed 0 is kept for comparison
    for damaged in ("damaged", "[]", "{}"):
        (here / "photos-clusters" / "summary.json").write_text(damaged)
        assert "will be replaced" not in told("--clusters", 3, "--seed", len(damaged))
        assert summary()["clusters"] == 3  # written again


def test_seconds_are_of_all_that_was_trained_whenever_it_was(here, monkeypatch, capsys):
    """The estimate covers the remaining work, so it is only shown beside them if nothing was trained before."""
    digits(here / "photos", 30, classes=False)
    command = ("photos", "--clusters", 3, "--method", "scan")
    with monkeypatch.context() as patch:
        patch.setattr(
            "benchmarks.single.train", lambda run, **more: (interrupted if "scan" in str(run) else train)(run, **more)
        )
        assert cluster(*command) == 130
    assert cluster(*command) == 0
    runs = here / "photos-clusters" / "runs" / "images" / "joint"
    records = [json.loads((runs / stage / "seed0" / "record.json").read_text()) for stage in ("simclr", "scan")]
    made = json.loads((runs / "simclr" / "seed0" / "clustering.json").read_text())
    total = sum(record["seconds"] for record in records) + made["seconds"]
    assert summary()["seconds"] == pytest.approx(total) and summary()["estimated_seconds"] is None
    said = capsys.readouterr().out
    assert "time: " in said and "estimate" not in said
    assert cluster(*command) == 0
    assert summary()["seconds"] == pytest.approx(total) and "time: " in capsys.readouterr().out
    assert cluster("photos", "--clusters", 4, "--method", "scan") == 0
    assert summary()["estimated_seconds"] > 0 and "(estimate: " in capsys.readouterr().out


def test_a_photograph_that_comes_during_the_estimate_is_clustered_too(here, monkeypatch):
    digits(here / "photos", 30, classes=False)
    command = ("photos", "--clusters", 3, "--method", "kmeans")

    def add_and_run(*arguments, **options):
        shutil.copy(here / "photos" / "000.png", here / "photos" / "new.png")
        return single.run_single(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.cluster.run_single", add_and_run)
        assert cluster(*command) == 0
    assert len(table("photos-clusters/clusters.csv")) == summary()["images"] == 31


# sorted/


@pytest.mark.parametrize(
    "how,number,fix",
    [
        ("links", errno.EPERM, "fix this, or use --sort copies where links are not possible, and"),
        ("copies", errno.ENOSPC, "fix this and"),
    ],
)
def test_a_sort_that_fails_leaves_the_results_complete(here, how, number, fix, monkeypatch, capsys):
    digits(here / "photos", 12, classes=False)
    command = ("photos", "--clusters", 2, "--method", "kmeans", "--sort", how)
    calls = []

    def fail(*arguments, **options):
        calls.append(arguments)
        if len(calls) > 3:
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "symlink") if how == "links" else (shutil, "copy2")), fail)
        assert cluster(*command) == 2
    told = last_error(capsys)
    assert re.match(r"--sort: cannot make photos-clusters/sorted/\d/\d\d-\d+.png: ", told)
    assert told.endswith(
        f": {os.strerror(number)}; the clusters are complete in photos-clusters; {fix} give the same command again"
    )
    assert not list(here.glob("photos-clusters/*sorted*")) and (here / "photos-clusters" / "index.html").exists()
    assert len(table("photos-clusters/clusters.csv")) == 12
    assert cluster(*command) == 0 and len(list(here.glob("photos-clusters/sorted/*/*"))) == 12


def test_a_sort_that_is_interrupted_leaves_no_hidden_folder(here, monkeypatch):
    digits(here / "photos", 12, classes=False)
    monkeypatch.setattr(os, "symlink", interrupted)
    assert cluster("photos", "--clusters", 2, "--method", "kmeans", "--sort", "links") == 130
    assert not list(here.glob("photos-clusters/*sorted*"))


def test_hidden_files_of_a_file_manager_are_no_copies(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "1-a.png").symlink_to("a.png")
    for name in (".DS_Store", "0/.directory", "0/._1-a.png"):
        (tmp_path / name).touch()
    assert not holds_copies(tmp_path)
    (tmp_path / "0" / "2-b.png").touch()
    assert holds_copies(tmp_path)


# the page


def test_the_page_says_what_was_left_out_and_what_weights_it_started_from(here):
    tiny_settings(here / "tiny.yaml", curve_points=2)
    digits(here / "photos", 20)
    (here / "photos" / "0" / "broken.png").write_text("no image")
    found = cluster_folder(
        Request(here / "photos", method="simclr", clusters=2, epochs=2, config=here / "tiny.yaml", out=here / "out")
    )
    page = found.paths[-1].read_text()
    assert "1 unreadable image was left out" in page and "compared with the 10 sub-folders" in page
    assert "Labels are used for the scores only, not for training." in page and "The network starts" not in page
    study = load_study(here / "out" / "study.yaml")
    weights = found.summary | {"weights": "starts from resnet18.a1_in1k: made with labels"}
    page = write_page(study, study.runs()[0], found.confidence, weights, here / "page.html").read_text()
    assert "The network starts from resnet18.a1_in1k: made with labels." in page
    assert "The labels of this folder are used for the scores only." in page and "not for training" not in page


# messages


def test_a_folder_for_results_that_cannot_be_written(here, monkeypatch, capsys):
    digits(here / "photos", 12, classes=False)
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and allowed(path, mode))
    assert cluster("photos", "--clusters", 2, "--method", "kmeans", "--out", "deep/er") == 2
    assert last_error(capsys) == f"--out: no permission to write in {here}; name another folder"
    assert not (here / "deep").exists()


def test_a_folder_for_results_below_a_file(here, capsys):
    digits(here / "photos", 12, classes=False)
    assert cluster("photos", "--clusters", 2, "--method", "kmeans", "--out", "tiny.yaml/out") == 2
    assert last_error(capsys).endswith("tiny.yaml is a file; name a folder")


def test_the_encoder_is_loaded_as_the_documentation_says(here):
    """The snippet of docs/your-own.md gives the features from which the clusters were made."""
    digits(here / "photos", 30, classes=False)
    assert cluster("photos", "--clusters", 3, "--method", "scl") == 0
    text = (ROOT / "docs" / "your-own.md").read_text()
    snippet = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "weights.pt" in block)
    names: dict = {}
    exec(snippet, names)
    stored = np.load("photos-clusters/data/images/images.npy")
    images = torch.from_numpy(stored).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        features = names["encoder"](images)
        theirs = Assigner(Path("photos-clusters/runs/images/joint/scl/seed0")).method.encoder.eval()(images)
    assert torch.equal(features, theirs) and features.std(0).max() > 0


# damaged


@pytest.mark.parametrize("name", ["image_names.json", "labels.npy", "images.npy"])
@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"damaged")])
def test_a_prepared_file_that_is_missing_or_damaged_is_made_again(here, name, spoil, capsys):
    digits(here / "photos", 30)
    command = ("photos", "--clusters", 3, "--method", "kmeans")
    assert cluster(*command) == 0
    before = Path("photos-clusters/clusters.csv").read_bytes()
    spoil(here / "photos-clusters" / "data" / "images" / name)
    status = cluster(*command)
    if name == "images.npy":  # only verified when loaded, and then set aside
        status = cluster(*command)
    assert status == 0 and Path("photos-clusters/clusters.csv").read_bytes() == before
    assert f"photos: prepared again ({name} is missing or damaged)" in capsys.readouterr().err or name == "images.npy"
