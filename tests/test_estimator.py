"""`ImageClustering`: `scl cluster` with scikit-learn's interface."""

import contextlib
import csv
import doctest
import pickle
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from folders import STAGES, digits, mixed, tiny_settings
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks

from benchmarks import ImageClustering
from benchmarks.cli import main

ROOT = Path(__file__).resolve().parent.parent
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 12, 8, 3), dtype=np.uint8)
FITTING_NOTHING = (  # scikit-learn's checks that need no numeric array as input
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_mixin_order",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimators_unfitted",
)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A function that makes an estimator with tiny networks."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    settings = tiny_settings(tmp_path / "tiny.yaml")

    def make(n_clusters=3, **parameters):
        return ImageClustering(n_clusters, **{"epochs": 1, "config": settings, "threads": 1, "gpus": 0, **parameters})

    return make


@pytest.mark.parametrize("check", FITTING_NOTHING)
def test_a_check_of_scikit_learn(check):
    if not hasattr(estimator_checks, check):
        pytest.skip(f"this scikit-learn has no {check}")
    getattr(estimator_checks, check)("ImageClustering", ImageClustering())


@pytest.mark.slow
@pytest.mark.parametrize("method", STAGES)
def test_fit_predict_and_labels(tiny, method, capfd):
    """For every method, labels_ equals what predict returns for the same images."""
    model = tiny(method=method, random_state=3)
    before = model.get_params()
    labels = model.fit_predict(IMAGES)
    model.predict(IMAGES)
    assert capfd.readouterr() == ("", "")  # without verbose=True
    assert labels.shape == (40,) and labels.dtype == np.int64 and set(labels) <= {0, 1, 2}
    assert np.array_equal(labels, model.labels_) and np.array_equal(model.predict(IMAGES), labels)
    assert np.array_equal(model.predict(IMAGES[::-1][:7]), labels[::-1][:7])
    assert model.files_ == [str(i) for i in range(40)] and model.n_clusters_ == 3
    assert ((model.confidence_ >= 0) & (model.confidence_ <= 1)).all()
    assert model.get_params() == before
    again = clone(model)
    assert not hasattr(again, "labels_") and np.array_equal(again.fit_predict(IMAGES, y=np.arange(40)), labels)
    copied = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copied.predict(IMAGES), labels)


def test_it_does_what_the_command_does(tiny, tmp_path, monkeypatch):
    """The same clusters and confidence as in clusters.csv, also for an array, and files_ sorted by name."""
    monkeypatch.chdir(tmp_path)
    digits(tmp_path / "photos", 40)
    model = tiny(None, method="scl", random_state=1, out=tmp_path / "out").fit(tmp_path / "photos")
    assert model.n_clusters_ == 10 and model.files_ == sorted(model.files_)
    command = ["--config", "tiny.yaml", "--epochs", "1", "--threads", "1", "--seed", "1"]
    assert main(["cluster", "photos", *command]) == 0

    def content(path):
        with open(path, newline="") as file:
            return {row["file"]: (int(row["cluster"]), float(row["confidence"])) for row in csv.DictReader(file)}

    expected = content("photos-clusters/clusters.csv")
    assert content("out/clusters.csv") == expected
    assert dict(zip(model.files_, model.labels_)) == {n: k for n, (k, _) in expected.items()}
    assert np.allclose(model.confidence_, [expected[name][1] for name in model.files_], atol=1e-6)
    assert np.array_equal(model.predict(str(tmp_path / "photos")), model.labels_)
    np.save("array.npy", IMAGES)
    assert main(["cluster", "array.npy", "--clusters", "3", *command]) == 0
    labels = tiny(method="scl", random_state=1).fit_predict(IMAGES)
    assert {name: k for name, (k, _) in content("array.npy-clusters/clusters.csv").items()} == dict(
        zip(map(str, range(40)), labels)
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/your-own.md"])
def test_the_examples_of_the_documentation_run(page, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text().replace("```", "")  # so that a fence is not taken for part of the output before it
    example = doctest.DocTestParser().get_doctest(text, {}, page, page, 0)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def test_before_fit_there_is_nothing_to_predict(tiny):
    with pytest.raises(NotFittedError):
        tiny().predict(IMAGES)


def test_fit_in_a_thread(tiny):
    """Signals are left to the main thread."""
    with ThreadPoolExecutor() as pool:
        labels = pool.submit(tiny(method="simclr").fit_predict, IMAGES).result()
    assert np.array_equal(labels, tiny(method="simclr").fit_predict(IMAGES))


def test_the_home_folder_is_expanded(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    digits(tmp_path / "photos", 20)
    model = tiny(method="kmeans", config="~/tiny.yaml", out="~/out").fit("~/photos")
    assert (tmp_path / "out" / "clusters.csv").is_file()
    assert model.files_ == sorted(model.files_) and len(model.files_) == 20
    assert np.array_equal(model.predict("~/photos"), model.labels_)


def test_an_array_is_fitted_again_after_the_process_was_killed(tiny, tmp_path, monkeypatch):
    """A killed fit leaves its temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = tiny(method="kmeans", out=tmp_path / "out")
    with monkeypatch.context() as patch, contextlib.suppress(InterruptedError):
        patch.setattr(tempfile.TemporaryDirectory, "cleanup", lambda self: self._finalizer.detach())
        patch.setattr("benchmarks.cluster._run", Mock(side_effect=InterruptedError))
        model.fit(IMAGES)
    assert list(tmp_path.glob("scl-fit-*/array.npy"))
    assert np.array_equal(model.fit_predict(IMAGES), tiny(method="kmeans").fit_predict(IMAGES))


def test_unreadable_images_are_a_warning(tiny, tmp_path):
    broken = mixed(tmp_path / "photos")
    with pytest.warns(UserWarning, match="3 unreadable image.s. of .*photos were left out"):
        model = tiny(method="kmeans").fit(tmp_path / "photos")
    assert len(model.labels_) == 12 and not set(model.files_) & set(broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny(np.int64(3), method="kmeans").fit(IMAGES)


@pytest.mark.parametrize(
    "changes,images,told",
    [
        ({}, IMAGES.astype(np.float32), r"X: float32 \(40, 12, 8, 3\); images are uint8, N x H x W x 3, or a folder"),
        ({}, IMAGES[..., 0], r"X: uint8 \(40, 12, 8\); images are uint8"),
        ({}, IMAGES[:0], r"X: uint8 \(0, 12, 8, 3\)"),
        ({}, "nowhere", "nowhere: not a folder of images"),
        ({"n_clusters": None}, IMAGES, "--clusters: .* has no class sub-folders"),
        ({"n_clusters": 41}, IMAGES, "--clusters: 41 clusters cannot be found in 40 images"),
        ({"n_clusters": 2.5}, IMAGES, "n_clusters: 2.5 is not an integer"),
        ({"n_clusters": 0}, "photos", "--clusters: photos has 10 classes; give the number of clusters, 2"),
        ({"size": 0}, IMAGES, "benchmarks.images.size: must be greater than or equal to 8, got 0"),
        ({"n_clusters": 1}, IMAGES, "give the number of clusters, 2 or more"),
        ({"random_state": None}, IMAGES, "random_state: None is not an integer"),
        ({"random_state": -1}, IMAGES, "random_state: -1 is not an integer of 0 or more"),
        ({"threads": -1}, IMAGES, "threads: -1 is not an integer of 0 or more"),
        ({"method": "kmean"}, IMAGES, "--method: unknown 'kmean'.*did you mean 'kmeans'"),
    ],
)
def test_bad_input(tiny, changes, images, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits(tmp_path / "photos", 20)
    with pytest.raises(ValueError, match=told):
        tiny(**changes).fit(images)
