"""The settings of `scl cluster`: what follows from the folder and the device, and what is refused."""

from types import SimpleNamespace

import pytest
from folders import digits, tiny_settings

from benchmarks.cli import main
from benchmarks.folder_study import Request, folder_study


@pytest.fixture
def here(here):
    """The working directory, with settings for tiny networks in tiny.yaml."""
    tiny_settings(here / "tiny.yaml")
    return here


SCL = "methods: {scl: {method: scl.scl.SCL}}\n"


@pytest.mark.parametrize(
    "text,told",
    [
        ("training: {epochs: 1}", "methods: missing"),
        ("methods: {simclr: {method: baselines.simclr.SimCLR}}", "--config: own.yaml: no method 'scl' (did you mean"),
        ("methods: [scl]", "methods: must be keys and values"),
        ("methods: {scl: hello}", "methods.scl: must be keys and values"),
        (SCL.replace("SCL", "SCL, options: null"), "methods.scl.options: must be keys and values, got None"),
        (SCL.replace("SCL", "SCL, options: {neighbors: x}"), "methods.scl.options.neighbors: unknown key"),
        (SCL.replace("SCL", "SCL, training: 5"), "methods.scl.training: must be keys and values, got 5"),
        (SCL.replace("SCL", "SCL, training: {epochs: 1e1}"), "methods.scl.training.epochs: must be an integer"),
        (SCL + "training: null", "training: must be keys and values, got None"),
        (SCL + "benchmarks: [images]", "benchmarks: must be keys and values"),
        (SCL + "benchmarks: {a: {size: big}}", "benchmarks.a.size: must be an integer"),
    ],
)
def test_bad_settings_are_one_line(here, text, told, capsys):
    digits(here / "flat", 20, classes=False)
    (here / "own.yaml").write_text(text)
    assert main(["cluster", "flat", "--clusters", "3", "--config", "own.yaml"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"scl: error: {told}")


def schedule(tmp_path, images, **changes):
    request = Request(tmp_path, clusters=10, **changes)
    study, _, stage = folder_study(request, images=images, clusters=10)
    runs = [study.run("images", "joint", name, 0) for name in study.methods]
    return {run.stage: study.settings(run) for run in runs}, stage


def test_the_schedule_follows_the_number_of_images(tmp_path, monkeypatch):
    """The same number of steps from 1,000 to a million images, within the bounds on epochs, on any device."""
    monkeypatch.setattr("torch.version.cuda", "13.0")
    for visible in ("", "0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        reference = {name: s.training.epochs for name, s in schedule(tmp_path, 10_000)[0].items()}
        for images in (50, 300, 3_000, 30_000, 10**6):
            for name, settings in schedule(tmp_path, images)[0].items():
                training = settings.training
                steps = training.epochs * max(1, images // training.batch_size)
                wanted = reference[name] * (10_000 // training.batch_size)
                assert training.epochs in (5, 1_000) or abs(steps / wanted - 1) < 0.2
                assert 5 <= training.epochs <= 1_000
        assert [s.training.epochs for s in schedule(tmp_path, 50, epochs=7)[0].values()] == [7, 7]


def test_the_device_decides_on_network_and_size(tmp_path, monkeypatch):
    sizes = {}
    monkeypatch.setattr("torch.version.cuda", "13.0")
    for visible in ("", "0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        request = Request(tmp_path, clusters=10)
        study, mapping, _ = folder_study(request, images=1_000, clusters=10)
        sizes[visible] = study.benchmarks["images"].size, study.network.width
    assert sizes == {"": (32, 32), "0": (96, 64)}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    study, _, _ = folder_study(Request(tmp_path, clusters=10, size=128), images=1_000, clusters=10)
    assert (study.network.width, study.network.layers) == (64, None)  # narrow networks are for small images


@pytest.mark.parametrize("config", [None, "tiny.yaml"])
def test_scan_asks_for_no_more_neighbors_than_a_cluster_has(here, config):
    """Also for a file that leaves them to the method."""
    changes = {"method": "selflabel", "config": config and here / config}
    found = {n: schedule(here, n, **changes)[0]["scan"].options["neighbors"] for n in (12, 100, 1_000)}
    assert found == {12: 1, 100: 5, 1_000: 20}


def test_scl_has_other_options_for_many_clusters_unless_the_settings_have_them(here):
    (here / "own.yaml").write_text("extends: tiny.yaml\nmethods: {scl: {options: {balance_weight: 3.0}}}\n")
    found = {}
    for config, clusters in (("tiny.yaml", 49), ("tiny.yaml", 50), ("tiny.yaml", 200), ("own.yaml", 200)):
        request = Request(here, clusters=clusters, config=here / config)
        study, _, last = folder_study(request, images=1_000, clusters=clusters)
        options = study.settings(study.run("images", "joint", last, 0)).options
        found[config, clusters] = (options.get("consistency"), options.get("balance_weight"))
    assert found == {
        ("tiny.yaml", 49): (None, None),
        ("tiny.yaml", 50): ("means", 3.4),
        ("tiny.yaml", 200): ("means", 4.6),
        ("own.yaml", 200): ("means", 3.0),
    }


def test_the_home_folder_is_expanded_for_weights_too(here, monkeypatch):
    """In `--weights=~/x.pth`, which the shell does not expand."""
    monkeypatch.setenv("HOME", str(here))
    (here / "x.pth").write_text("weights")
    asked = []
    weights = SimpleNamespace(name="resnet18.x", backbone="resnet18", labels="no labels")
    monkeypatch.setattr("baselines.pretrained.read_weights", lambda name: asked.append(name) or weights)
    request = Request(here, clusters=10, weights="~/x.pth", method="kmeans", config=here / "tiny.yaml")
    _, mapping, _ = folder_study(request, images=100, clusters=10)
    assert asked == [f"{here}/x.pth"] and mapping["methods"]["pretrained"]["options"]["weights"] == f"{here}/x.pth"


@pytest.mark.parametrize(
    "place",
    [
        "training: {epochs: 100, batch_size: 50, learning_rate: 0.5}\nmethods: {scl: {method: scl.scl.SCL}}",
        "methods: {scl: {method: scl.scl.SCL, training: {epochs: 100, batch_size: 50, learning_rate: 0.5}}}",
        "methods: {scl: {method: scl.scl.SCL, training: {epochs: 3}, "
        "per_benchmark: {mine: {training: {epochs: 100, batch_size: 50, learning_rate: 0.5}}}}}",
    ],
)
def test_settings_count_wherever_the_file_gives_them(here, place, monkeypatch):
    """Epochs are for 10,000 images, and --epochs and --weights change them; the folder replaces `mine`."""
    (here / "own.yaml").write_text(
        f"protocols: [heldout]\nbenchmarks: {{mine: {{dataset: folder, size: 128}}, other: {{}}}}\n{place}"
    )
    weights = SimpleNamespace(name="resnet18.x", backbone="resnet18", labels="no labels")
    monkeypatch.setattr("baselines.pretrained.read_weights", lambda name: weights)
    own = here / "own.yaml"
    for images, changes, epochs, rate in (
        (10_000, {}, 100, 0.5),
        (5_000, {}, 200, 0.5),
        (5_000, {"epochs": 7}, 7, 0.5),
        (10_000, {"weights": "resnet18.x"}, 100, 0.05),
    ):
        training = schedule(here, images, config=own, **changes)[0]["scl"].training
        assert (training.epochs, training.batch_size) == (epochs, 50)
        assert training.learning_rate == pytest.approx(rate)


def test_an_installation_without_the_settings_says_what_to_do(tmp_path, monkeypatch):
    """The settings are part of a checkout, not of the package."""
    monkeypatch.setattr("benchmarks.folder_study.ROOT", tmp_path)
    with pytest.raises(ValueError, match="folder-cpu.yaml: no such file; run scl from a checkout, or give --config"):
        folder_study(Request(tmp_path, gpus=0), images=100, clusters=2)
