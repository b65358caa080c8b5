"""The label guard refuses label files that a method might open by accident, nothing else, and only during training."""

import gzip
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_METHODS
from PIL import Image

from baselines.simclr import SimCLR
from scl.engine.label_guard import forbid_label_access
from scl.engine.train import train

MESSAGE = "cannot be opened while a method trains"


@pytest.fixture
def data(tmp_path):
    """A data folder with two benchmarks and an archives folder, and a finished run beside it."""
    data = tmp_path / "data"
    for name in ("one", "two"):
        (data / name).mkdir(parents=True)
        np.save(data / name / "images.npy", np.zeros((2, 4, 4, 3), np.uint8))
        np.save(data / name / "labels.npy", np.arange(2))
        (data / name / "benchmark.json").write_text("{}")
    (data / "archives" / "ilsvrc").mkdir(parents=True)
    for name in ("index.json", "ilsvrc/n01440764.tar", "cifar-10-python.tar.gz.part"):
        (data / "archives" / name).write_bytes(b"x")
    for folder in (data / "archives", tmp_path / "downloads"):
        folder.mkdir(exist_ok=True)
        with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz"):
            pass
        with zipfile.ZipFile(folder / "tiny-imagenet-200.zip", "w"):
            pass
    run = tmp_path / "results" / "runs" / "one" / "joint" / "scl" / "seed0"
    run.mkdir(parents=True)
    for name in ("metrics.json", "clusters.json", "record.json", "run.yaml", "history.csv"):
        (run / name).write_text("{}")
    return data


def refused(*attempts):
    for attempt in attempts:
        with pytest.raises(PermissionError, match=MESSAGE):
            attempt()


def test_labels_are_refused_however_they_are_opened(data, monkeypatch):
    path = data / "one" / "labels.npy"
    monkeypatch.chdir(path.parent)
    ways = [
        lambda: np.load(path),
        lambda: np.load(path, mmap_mode="r"),
        lambda: np.memmap(path),
        lambda: open(path),
        lambda: open(os.fsencode(path)),
        path.read_bytes,
        lambda: os.open(path, os.O_RDONLY),
        lambda: open("labels.npy"),
        lambda: open("../two/labels.npy", "rb"),
        lambda: np.fromfile(path),
        lambda: shutil.copy(path, "copy.npy"),
        lambda: np.save(path, 0),
        lambda: torch.load(path),
        lambda: open(path.parent / "labels_new.csv", "w"),
    ]
    with forbid_label_access(data / "one"):
        refused(*ways)
    assert np.load(path).tolist() == [0, 1]  # the guard is off, and nothing was written


def test_links_to_labels_are_refused(data, tmp_path):
    (tmp_path / "alias.npy").symlink_to(data / "one" / "labels.npy")
    (tmp_path / "second.npy").symlink_to("alias.npy")
    (tmp_path / "folder").symlink_to(data / "two")
    with forbid_label_access(data / "one"):
        for name in ("alias.npy", "second.npy", "folder/labels.npy"):
            refused(lambda name=name: np.load(tmp_path / name), (tmp_path / name).read_bytes)
    assert np.load(tmp_path / "alias.npy").tolist() == [0, 1]


def test_names_of_images_are_refused(data):
    """They often contain the class: train/n01440764/x.JPEG."""
    path = data / "one" / "image_names.json"
    path.write_text("[]")
    with forbid_label_access(data / "one"):
        refused(path.read_text)
    assert path.read_text() == "[]"


def test_archives_are_refused(data, tmp_path):
    downloads = tmp_path / "downloads"
    (tmp_path / "linked").symlink_to(downloads / "tiny-imagenet-200.zip")
    for name in ("x.tar", "x.tgz", "x.tar.xz", "x.tar.bz2", "X.ZIP"):
        (tmp_path / name).write_bytes(b"")
    with forbid_label_access(data / "one"):
        refused(
            lambda: tarfile.open(downloads / "cifar-10-python.tar.gz"),
            lambda: zipfile.ZipFile(tmp_path / "linked"),
            lambda: zipfile.ZipFile(downloads / "tiny-imagenet-200.zip"),
            lambda: gzip.open(data / "archives" / "cifar-10-python.tar.gz").read(),
        )
        for path in [*(data / "archives").rglob("*.*"), *tmp_path.glob("*.t*"), tmp_path / "X.ZIP"]:
            refused(path.read_bytes)
    assert tarfile.open(downloads / "cifar-10-python.tar.gz").getnames() == []


def test_links_in_the_archives_are_refused(data, tmp_path):
    """A data set of 150 GB may be kept on another disk, under any name."""
    other = tmp_path / "other disk"
    (other / "ilsvrc").mkdir(parents=True)
    for name in ("store", "ilsvrc/index"):
        (other / name).write_bytes(b"x")
    (data / "archives" / "file").symlink_to(other / "store")
    shutil.rmtree(data / "archives" / "ilsvrc")
    (data / "archives" / "ilsvrc").symlink_to(other / "ilsvrc")
    (tmp_path / "data again").symlink_to(data)
    with forbid_label_access(data / "one"):
        for folder in (data, tmp_path / "data again"):
            refused((folder / "archives" / "file").read_bytes, (folder / "archives" / "ilsvrc" / "index").read_bytes)
    assert (data / "archives" / "file").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["metrics.json", "clusters.json"])
def test_scores_of_runs_are_refused(data, tmp_path, name):
    (path,) = (tmp_path / "results").rglob(name)
    (tmp_path / "m").symlink_to(path)
    with forbid_label_access(data / "one"):
        refused(path.read_text, (tmp_path / "m").read_text)
    assert path.read_text() == "{}"


def test_a_package_installed_as_a_zip_is_imported(data, tmp_path, monkeypatch):
    """Otherwise, such an import during training would end it."""
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as package:
        package.writestr("from_a_zip.py", "x = 3")
    monkeypatch.syspath_prepend(str(tmp_path / "package.zip"))
    with forbid_label_access(data / "one"):
        import from_a_zip

        refused(lambda: zipfile.ZipFile(data / "archives" / "tiny-imagenet-200.zip"))
    assert from_a_zip.x == 3


def test_ordinary_files_are_opened(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = next((tmp_path / "results").rglob("record.json")).parent
    with forbid_label_access(data / "one"):
        assert len(np.load(data / "one" / "images.npy", mmap_mode="r")) == 2
        for path in [run / "record.json", run / "run.yaml", run / "history.csv", data / "one" / "benchmark.json"]:
            assert path.read_text() is not None
        for name in ("weights.pt", "checkpoint.pt"):
            torch.save({"x": torch.zeros(2)}, run / name)
            assert torch.load(run / name, weights_only=True)["x"].tolist() == [0, 0]
        np.savez_compressed(run / "assignments.npz", rows=np.arange(3))
        assert np.load(run / "assignments.npz")["rows"].tolist() == [0, 1, 2]
        Image.new("RGB", (2, 2)).save(tmp_path / "tarot zipper.png")
        (tmp_path / "my labels.txt").write_text("x")
        (tmp_path / "x.pickle").write_bytes(pickle.dumps(3))
        torch.save({}, tmp_path / "model_best.pth.tar")
        for name in ("tarot zipper.png", "my labels.txt", "x.pickle", "model_best.pth.tar"):
            assert (tmp_path / name).read_bytes()
        with open(os.open(tmp_path / "by number", os.O_CREAT | os.O_RDWR), "w") as file:
            file.write("x")
        with pytest.raises(FileNotFoundError):
            open(tmp_path / "not there")
        with pytest.raises(ValueError, match="null"):
            open("null\0byte")


def test_the_guard_is_off_afterwards_also_after_an_error(data):
    path = data / "one" / "labels.npy"
    with pytest.raises(RuntimeError), forbid_label_access(data / "one"):
        with forbid_label_access(data / "one"):
            refused(path.read_bytes)
        refused(path.read_bytes)
        raise RuntimeError
    assert path.read_bytes() and tarfile.open(data / "archives" / "cifar-10-python.tar.gz")


def test_guards_of_two_threads_end_in_any_order(data):
    """As when two ImageClustering estimators are fitted at the same time."""
    path = data / "one" / "labels.npy"
    first, second = forbid_label_access(data / "one"), forbid_label_access(data / "two")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    refused(path.read_bytes)
    second.__exit__(None, None, None)
    assert path.read_bytes()


def test_a_data_folder_that_is_not_there_does_not_matter(tmp_path):
    with forbid_label_access(tmp_path / "none" / "such"):
        pass


# ---- through the training loop ----------------------------------------------------------------------------


class Peeping(SimCLR):
    """SimCLR that opens a file by accident in `prepare`; test_conformance.py covers `step` and `assign`."""

    path = seen = None

    def prepare(self, images, generator):
        type(self).seen = Path(self.path).read_bytes()


@pytest.fixture
def peep(tiny_study, monkeypatch):
    """A function that trains a method that opens `path`; returns the run's folder."""
    study = tiny_study("peep", methods={"peep": TINY_METHODS["simclr"] | {"method": "test_label_guard.Peeping"}})
    (run,) = study.runs()

    def go(path):
        monkeypatch.setattr(Peeping, "path", path)
        monkeypatch.setattr(Peeping, "seen", None)
        train(run.directory, gpus=0, threads=1, report=lambda *_: None)
        return run.directory

    return go


def failure_of(tmp_path):
    (path,) = tmp_path.rglob("failure.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("what", ["labels", "archives"])
def test_a_method_that_opens_labels_while_it_trains_fails(peep, digits, tmp_path, what):
    labels = place = digits / "tiny-digits" / "labels.npy"
    if what == "archives":
        place = digits / "archives" / "anything"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"x")
    with pytest.raises(PermissionError, match=MESSAGE):
        peep(place)
    if what == "archives":
        place.unlink()  # other tests use the data, too
    error = failure_of(tmp_path)["error"]
    assert Peeping.seen is None and MESSAGE in error and str(place) in error
    assert labels.read_bytes() and not list(tmp_path.rglob("record.json"))


def test_a_method_may_open_its_images_and_trains(peep, digits):
    images = digits / "tiny-digits" / "images.npy"
    assert (peep(images) / "record.json").exists()
    assert Peeping.seen == images.read_bytes()
