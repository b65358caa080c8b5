"""What `scl train` says of prepared data that is missing, empty or damaged: one message, and nothing is written."""

import json
import shutil

import numpy as np
import pytest

from benchmarks.cli import main
from scl import images


@pytest.fixture
def folder(digits, tmp_path):
    shutil.copytree(digits / "tiny-digits", tmp_path / "data" / "tiny-digits")
    return tmp_path / "data" / "tiny-digits"


def empty(folder):
    np.save(folder / "images.npy", np.empty((0, 8, 8, 3), np.uint8))


def cut(folder):
    content = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(content[:len(content) // 2])


def too_many_clusters(folder):
    facts = json.loads((folder / "benchmark.json").read_text())
    (folder / "benchmark.json").write_text(json.dumps(facts | {"clusters": 201}))


DAMAGE = {
    "holds no image": empty,
    "not a readable array": cut,
    "images.npy: missing": lambda folder: (folder / "images.npy").unlink(),
    "expected uint8": lambda folder: np.save(folder / "images.npy", np.zeros((200, 8, 8, 3))),
    "images where joint/fit needs 200": lambda folder: np.save(folder / "images.npy", np.zeros((5, 8, 8, 3), np.uint8)),
    "benchmark.json: missing": lambda folder: (folder / "benchmark.json").unlink(),
    "benchmark.json: damaged": lambda folder: (folder / "benchmark.json").write_text("{"),
    "201 clusters cannot be found in 200 images": too_many_clusters,
}


@pytest.mark.parametrize("message", DAMAGE)
def test_damaged_data_is_named(message, folder, tiny_study, capsys):
    study = tiny_study("scl", methods={"scl": {"method": "scl.method.SCL", "augment": {"view": [], "strong": []},
                                               "training": {"epochs": 1}}}, data=folder.parent)
    run = study.runs()[0].directory
    DAMAGE[message](folder)
    assert main(["train", str(run), "--gpus", "0"]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1].startswith("scl: error: ") and message in told[-1]
    assert {path.name for path in run.iterdir()} <= {"run.yaml", ".lock", "failure.json"}


def test_the_images_of_a_protocol(digits):
    facts = images.describe(digits / "tiny-digits")
    train, test = (facts["splits"][name] for name in ("train", "test"))
    fit = images.load(digits / "tiny-digits", "heldout", "fit")
    evaluated = images.load(digits / "tiny-digits", "heldout", "assign")
    assert fit.rows.tolist() == list(range(*train)) and evaluated.rows.tolist() == list(range(*test))
    stored = np.load(digits / "tiny-digits" / "images.npy")
    np.testing.assert_array_equal(evaluated.pixels.numpy(), stored[test[0]:test[1]])
    batch = fit.batch(images.torch.tensor([3]))
    np.testing.assert_allclose(batch[0].permute(1, 2, 0).numpy(), stored[3] / 255, atol=1e-6)
    with pytest.raises(ValueError, match="no protocol 'other'"):
        images.load(digits / "tiny-digits", "other", "fit")
