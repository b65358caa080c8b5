"""`scl train` with prepared data that is missing, empty, or damaged: one message, and nothing is written."""

import copy
import json
import shutil

import numpy as np
import pytest
from conftest import TINY_METHODS

from benchmarks.cli import main
from benchmarks.datasets.prepare import prepare
from benchmarks.evaluation.evaluate import evaluate_run
from scl import config, images
from scl.engine import train
from scl.engine.io import Damaged
from scl.engine.prepared import describe
from scl.engine.trainer import Trainer


@pytest.fixture
def folder(digits, tmp_path):
    shutil.copytree(digits / "tiny-digits", tmp_path / "data" / "tiny-digits")
    return tmp_path / "data" / "tiny-digits"


def empty(folder):
    np.save(folder / "images.npy", np.empty((0, 8, 8, 3), np.uint8))


def cut(folder):
    content = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(content[: len(content) // 2])


def too_many_clusters(folder):
    facts = json.loads((folder / "benchmark.json").read_text())
    (folder / "benchmark.json").write_text(json.dumps(facts | {"clusters": 201}))


def blank(folder):
    images = np.load(folder / "images.npy")
    np.save(folder / "images.npy", np.zeros_like(images))


def flip_a_bit(folder):
    content = bytearray((folder / "images.npy").read_bytes())
    content[-5] ^= 1
    (folder / "images.npy").write_bytes(content)


DAMAGE = [  # (damage, words of the message, whether the file is set aside)
    (empty, "0 images where 200 are needed", True),
    (cut, "not a readable array", True),
    (blank, "its checksum is not the one in benchmark.json", True),
    (flip_a_bit, "its checksum is not the one in benchmark.json", True),
    (lambda folder: np.save(folder / "images.npy", np.zeros((200, 8, 8, 3))), "expected uint8", True),
    (lambda folder: (folder / "images.npy").unlink(), "images.npy: missing", False),
    (lambda folder: (folder / "benchmark.json").unlink(), "benchmark.json: missing", False),
    (lambda folder: (folder / "benchmark.json").write_text("{"), "benchmark.json: damaged", False),
    (lambda folder: (folder / "benchmark.json").write_text("null"), "benchmark.json: damaged", False),
    (too_many_clusters, "201 clusters cannot be found in 200 images", False),
]


def test_a_protocol_of_splits_that_do_not_exist_is_damage(tmp_path):
    """A single flipped bit changes the name of a split, and benchmark.json stays valid JSON."""
    text = json.dumps(
        {
            "images_sha256": "0",
            "clusters": 2,
            "size": [8, 8],
            "splits": {"train": [0, 9]},
            "protocols": {"joint": {"fit": ["train"], "represent": [], "assign": ["train"]}},
        }
    )
    (tmp_path / "benchmark.json").write_text(text)
    assert describe(tmp_path)["clusters"] == 2
    (tmp_path / "benchmark.json").write_text(text.replace('{"train"', '{"tsain"'))
    with pytest.raises(Damaged, match="benchmark.json: damaged .*protocols.joint: names a split that does not exist"):
        describe(tmp_path)


@pytest.mark.parametrize("damage, message, aside", DAMAGE)
def test_damaged_data_is_named_and_never_trained_on(damage, message, aside, folder, tiny_study, capsys):
    study = tiny_study(
        "scl",
        methods={"scl": {"method": "scl.scl.SCL", "augment": {"view": [], "strong": []}, "training": {"epochs": 1}}},
        data=folder.parent,
    )
    run = study.runs()[0].directory
    damage(folder)
    assert main(["train", str(run), "--gpus", "0"]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1].startswith("scl: error: ") and message in told[-1] and str(folder) in told[-1]
    assert {path.name for path in run.iterdir()} <= {"run.yaml", ".lock", "failure.json"}
    assert (folder / "images.npy.damaged").exists() == aside
    if aside:  # the completion marker is gone too, so the same command prepares the benchmark again
        assert not (folder / "images.npy").exists() and not (folder / "benchmark.json").exists()


def test_a_benchmark_prepared_again_while_it_is_loaded_is_not_called_damaged(folder):
    facts = describe(folder) | {"images_sha256": "of the images before"}
    with pytest.raises(Damaged, match="prepared again while it was loaded"):
        images.load(folder, "joint", "fit", facts=facts)
    assert (folder / "images.npy").exists() and (folder / "benchmark.json").exists()


def test_the_record_names_the_images_that_were_loaded(folder, tiny_study, monkeypatch):
    """Not those on disk when the run ends."""
    study = tiny_study("random", data=folder.parent)
    [run] = study.runs()
    before = describe(folder)["images_sha256"]
    finish = train.finish

    def prepared_again(trainer):
        facts = describe(folder)
        (folder / "benchmark.json").write_text(json.dumps(facts | {"images_sha256": "others"}))
        return finish(trainer)

    monkeypatch.setattr(train, "finish", prepared_again)
    train.train(run.directory, gpus=0)
    record = json.loads((run.directory / "record.json").read_text())
    assert record["images_sha256"] == record["identity"]["images"]["sha256"] == before


@pytest.mark.parametrize("chunk", [1, 1000, 2**20])
def test_images_are_the_same_whatever_is_read_at_a_time(chunk, digits, monkeypatch):
    whole = np.load(digits / "tiny-digits" / "images.npy")
    monkeypatch.setattr(images, "CHUNK", chunk)
    for use in ("fit", "assign"):
        loaded = images.load(digits / "tiny-digits", "heldout", use)
        np.testing.assert_array_equal(loaded.pixels.numpy(), whole[loaded.rows])


def test_the_images_of_a_protocol(digits):
    facts = describe(digits / "tiny-digits")
    train, test = (facts["splits"][name] for name in ("train", "test"))
    fit = images.load(digits / "tiny-digits", "heldout", "fit")
    evaluated = images.load(digits / "tiny-digits", "heldout", "assign")
    assert fit.rows.tolist() == list(range(*train)) and evaluated.rows.tolist() == list(range(*test))
    stored = np.load(digits / "tiny-digits" / "images.npy")
    np.testing.assert_array_equal(evaluated.pixels.numpy(), stored[test[0] : test[1]])
    batch = fit.batch(images.torch.tensor([3]))
    np.testing.assert_allclose(batch[0].permute(1, 2, 0).numpy(), stored[3] / 255, atol=1e-6)
    with pytest.raises(ValueError, match="no protocol 'other'"):
        images.load(digits / "tiny-digits", "other", "fit")


# --- images stored at two sizes ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_sizes(tmp_path_factory):
    """<folder>/tiny-digits at 8 and at 12 px."""
    data = tmp_path_factory.mktemp("two-sizes")
    prepare(
        "tiny-digits",
        dataset="digits",
        folder=data / "tiny-digits",
        archives=data / "archives",
        size=8,
        larger_size=12,
        subset=200,
    )
    return data


def of_two_sizes(tiny_study, data, *stages):
    methods = copy.deepcopy(TINY_METHODS)
    methods["pica"]["options"]["resize"] = 12
    methods["pica"]["augment"] = {
        "original": [{"resize": {"size": 12}}, {"random_crop": {"size": 8}}],
        "perturbed": [{"random_resized_crop": {"size": 8}}],
    }
    return tiny_study(*stages, methods=methods, data=data)


def test_a_method_gets_the_larger_images_where_it_asks_for_them(two_sizes, tiny_study, train_all):
    """PICA sees windows of the larger images; the other methods see the same images as without them."""
    study = of_two_sizes(tiny_study, two_sizes, "simclr", "pica")
    seen = {}
    for run in study.runs():
        if run.seed == 0:
            settled = config.complete(config.load_run(run.directory))
            trainer = Trainer(settled, run.directory, device="cpu", report=lambda *_: None)
            seen[run.stage] = trainer.images.pixels.numpy(), trainer.method.problem.size
    stored = two_sizes / "tiny-digits"
    for stage, file in (("simclr", "images.npy"), ("pica", "images-12.npy")):
        np.testing.assert_array_equal(seen[stage][0], np.load(stored / file))
        assert seen[stage][1] == 8
    simclr, pica = train_all(study)
    facts = describe(stored)
    assert {
        run.stage: json.loads((run.directory / "record.json").read_text())["identity"]["images"]["sha256"]
        for run in (simclr, pica)
    } == {"simclr": facts["images_sha256"], "pica": facts["larger"]["sha256"]}
    evaluate_run(pica.directory, stored)  # which identifies them by the usual images


def test_damaged_larger_images_are_set_aside(two_sizes, tiny_study, tmp_path, capsys):
    shutil.copytree(two_sizes, tmp_path / "data")
    content = bytearray((tmp_path / "data/tiny-digits/images-12.npy").read_bytes())
    content[-5] ^= 1
    (tmp_path / "data/tiny-digits/images-12.npy").write_bytes(content)
    simclr, pica = of_two_sizes(tiny_study, tmp_path / "data", "simclr", "pica").runs()
    assert main(["train", str(simclr.directory), "--gpus", "0"]) == 0
    assert main(["train", str(pica.directory), "--gpus", "0"]) == 2
    assert "images-12.npy" in capsys.readouterr().err
    assert not (tmp_path / "data/tiny-digits/benchmark.json").exists()
