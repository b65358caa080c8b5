"""Pretrained weights: read from files and by timm's names, and methods that start from them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from folders import digits, tiny_settings
from safetensors.torch import save_file

from baselines.pretrained import read_weights, timm  # after torchvision, which timm needs
from benchmarks import ImageClustering
from benchmarks.cli import main
from benchmarks.compose import resolve

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """resnet18.safetensors and .pth with the same random weights, and files that are not weights."""
    place = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    state = timm.create_model("resnet18", num_classes=3).state_dict()
    save_file(state, place / "resnet18.safetensors")
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, place / "resnet18.pth")
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), place / "vit.pth")
    torch.save(timm.create_model("resnet18"), place / "code.pth")
    (place / "text.pth").write_text("hello")
    (place / "text.safetensors").write_text("hello")
    return place


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    tiny_settings(tmp_path / "tiny.yaml")
    digits(tmp_path / "photos", 12)
    return tmp_path


def cluster(*arguments):
    command = ["cluster", "photos", "--config", "tiny.yaml", "--epochs", "1", "--threads", "1", "--clusters", "3"]
    return main([*command, *map(str, arguments)])


def test_files_of_both_kinds_hold_the_same(folder):
    first, second = (read_weights(str(folder / f"resnet18.{kind}")) for kind in ("safetensors", "pth"))
    assert first.backbone == second.backbone == "resnet18" and first.state.keys() == second.state.keys()
    assert all(torch.equal(value, second.state[name]) for name, value in first.state.items())
    assert "fc.weight" not in first.state and first.labels == "the file does not say whether labels were used"


@pytest.mark.parametrize(
    "name,told",
    [
        ("none.pth", "none.pth: no such file"),
        ("text.pth", "text.pth: not readable as weights"),
        ("text.safetensors", "text.safetensors: not readable as weights"),
        ("code.pth", "code.pth: not readable as weights .*weights_only"),
        ("vit.pth", "vit.pth: not of a ResNet of timm or torchvision .resnet18, "),
    ],
)
def test_a_file_of_something_else(folder, name, told):
    with pytest.raises(ValueError, match=f"^weights: .*{told}") as error:
        read_weights(str(folder / name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name,told",
    [
        ("resnet18.a1_in1", "timm has no pretrained weights 'resnet18.a1_in1' .did you mean 'resnet18.a1_in1k'"),
        ("resnet19", "'resnet19' is neither a file nor a plain ResNet of timm .did you mean 'resnet1"),
        ("vit_base_patch16_224", "neither a file nor a plain ResNet of timm; known: resnet18, "),
    ],
)
def test_an_unknown_name(name, told):
    with pytest.raises(ValueError, match=told):
        read_weights(name)


def test_without_a_network_there_is_one_clear_message(monkeypatch, here, capsys):
    def offline(*_, **__):
        raise ConnectionError("a page\nof reasons")

    monkeypatch.setattr(timm, "create_model", offline)
    assert cluster("--weights", "resnet18.a1_in1k") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "scl: error: weights: resnet18.a1_in1k cannot be fetched (ConnectionError): is there a network?"
    )
    assert not (here / "photos-clusters").exists()


@pytest.mark.parametrize(
    "tag,told",
    [
        ("a1_in1k", "made with labels"),
        ("fb_swsl_ig1b_ft_in1k", "made with labels"),
        ("bamboo", "timm's tag, 'bamboo', does not say whether labels were used"),
    ],
)
def test_what_timms_tag_says_of_labels(monkeypatch, tag, told):
    with torch.device("meta"):
        made = timm.create_model("resnet50", num_classes=0)
    monkeypatch.setattr(timm, "create_model", lambda name, **_: made if name == f"resnet50.{tag}" else None)
    weights = read_weights(f"resnet50.{tag}")
    assert (weights.name, weights.backbone, weights.labels) == (f"resnet50.{tag}", "resnet50", told)


def test_kmeans_on_pretrained_features(folder, here, capsys):
    """No training; features are those of timm's network on images normalized as its weights require. New images need
    the weights of the run, not their file."""
    weights = here / "model_best.pth.tar"  # a common name, which the label guard must not mistake for an archive
    weights.write_bytes((folder / "resnet18.pth").read_bytes())
    assert cluster("--method", "kmeans", "--weights", weights, "--size", 97) == 0
    told = "weights: starts from model_best.pth.tar: the file does not say whether labels were used"
    assert told in capsys.readouterr().out
    summary = json.loads((here / "photos-clusters" / "summary.json").read_text())
    assert summary["run"] == "runs/images/joint/pretrained/seed0" and summary["epochs"] == 0
    net = timm.create_model("resnet18", num_classes=3)
    timm.models.load_checkpoint(net, str(folder / "resnet18.pth"))
    net.reset_classifier(0)
    stored = np.load("photos-clusters/data/images/images.npy")
    images = torch.from_numpy(stored).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(net.eval()((images - mean) / std), dim=1)
    run = here / "photos-clusters" / summary["run"]
    with np.load(run / "assignments.npz") as file:
        assigned = file["assignments"]
    centers = np.stack([expected.numpy()[assigned == k].mean(0) for k in range(3)])
    distances = np.linalg.norm(expected.numpy()[:, None] - centers, axis=2)
    assert (distances.argmin(1) == assigned).all()
    weights.unlink()
    assert main(["assign", "photos-clusters", "photos", "--threads", "1"]) == 0


@pytest.mark.slow
def test_the_first_stage_starts_from_the_weights(folder, here, monkeypatch):
    """It gets a tenth of the learning rate, the network of the weights, and an encoder initialized from them."""
    monkeypatch.setattr("benchmarks.cluster._announce", lambda *_: None)  # its estimate is as slow as training
    assert cluster("--method", "scan", "--weights", folder / "resnet18.safetensors", "--size", 97) == 0
    study = yaml.safe_load((here / "photos-clusters" / "study.yaml").read_text())
    assert list(study["methods"]) == ["pretrained", "simclr", "scan"] and study["network"] == {"backbone": "resnet18"}
    assert study["methods"]["simclr"]["after"] == "pretrained"
    assert study["methods"]["simclr"]["training"]["learning_rate"] == pytest.approx(0.01)
    runs = here / "photos-clusters" / "runs" / "images" / "joint"
    record = json.loads((runs / "simclr" / "seed0" / "record.json").read_text())
    before = json.loads((runs / "pretrained" / "seed0" / "record.json").read_text())
    assert record["identity"]["weights"] == before["files"]["weights.pt"]
    state = torch.load(runs / "pretrained" / "seed0" / "weights.pt", weights_only=True)
    theirs = read_weights(str(folder / "resnet18.safetensors"))
    assert all(torch.equal(state[f"encoder.backbone.{name}"], value) for name, value in theirs.state.items())
    assert torch.allclose(state["encoder.mean"].flatten(), torch.tensor(theirs.mean))


@pytest.mark.parametrize(
    "arguments,told",
    [
        (["--size", "64"], "--size: 64 px; pretrained weights need images of 97 px or more"),
        (["--method", "pica"], "--weights: pica starts from random weights"),
    ],
)
def test_what_weights_do_not_go_with(folder, here, arguments, told, capsys):
    assert cluster("--weights", folder / "resnet18.pth", *arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"scl: error: {told}")


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "config").glob("*.yaml")))
def test_no_committed_configuration_uses_pretrained_weights(name, monkeypatch):
    """A rule of the comparison: every method starts from random weights."""
    monkeypatch.chdir(ROOT)
    for stage, block in resolve(f"config/{name}")["methods"].items():
        assert not block["method"].startswith("baselines.pretrained") and "weights" not in block.get("options", {}), (
            stage
        )


def test_the_estimator_takes_weights_too(folder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    images = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
    model = ImageClustering(2, method="kmeans", size=97, weights=str(folder / "resnet18.pth"), gpus=0, threads=1)
    assert np.array_equal(model.fit_predict(images), model.predict(images))
    assert "resnet18.pth" in model.summary_["weights"]
