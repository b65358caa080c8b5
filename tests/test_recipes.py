"""The settings of config/paper.yaml and config/official.yaml against an independently written table of facts.

Sources: "official" the authors' code of SCAN (van Gansbeke et al., ECCV 2020) and PICA (Huang, Gong & Zhu,
CVPR 2020), "paper" the publication. docs/methods.md describes each of them.
"""

import ast
import re
from pathlib import Path

import pytest
import yaml

from baselines.pica import PICA
from benchmarks.check import check_methods
from benchmarks.study import load_study

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"cifar10": 32, "cifar100-20": 32, "stl10": 96, "imagenet10": 96, "imagenet-dogs": 96, "tiny-imagenet": 64}
STAGES = ("random", "kmeans", "simclr", "scan", "selflabel", "pica", "scl")
CONTROLS = ("random", "kmeans")  # which have no network
SIMCLR_VIEW = [
    {"random_resized_crop": {"scale": [0.2, 1.0]}},
    {"flip": {"probability": 0.5}},
    {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "probability": 0.8}},
    {"grayscale": {"probability": 0.2}},
]
PICA_PERTURBED = [  # after the crop
    {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.4, "probability": 1.0}},
    {"grayscale": {"probability": 0.2}},
    {"flip": {"probability": 0.5}},
]


def scan_strong(largest):
    return [
        {"flip": {"probability": 0.5}},
        {"random_crop": {}},
        {"scan_strong": {"operations": 4}},
        {"cutout": {"largest": largest}},
    ]


@pytest.fixture(params=["paper", "official"])
def study(request, monkeypatch):
    monkeypatch.chdir(ROOT)
    return load_study(f"config/{request.param}.yaml")


def is_official(study):
    return study.results == Path("results/official")


def resolved(study, stage, benchmark):
    return study.settings(study.run(benchmark, "joint", stage, 0))


def facts(settings, *names):
    t = settings.training
    return tuple(getattr(t, name) for name in names)


ADAM = ("adam", 1e-4, 1e-4, "constant")
OPTIMIZER = ("optimizer", "learning_rate", "weight_decay", "schedule")


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "config").glob("*.yaml")))
def test_every_committed_configuration_reads(name, monkeypatch):
    monkeypatch.chdir(ROOT)  # `extends` is relative to the working directory
    study = load_study(f"config/{name}")
    check_methods(study)
    assert study.runs() and study.title


@pytest.mark.parametrize("benchmark", SIZES)
def test_simclr(study, benchmark):
    """Official: SCAN's pretext task, the same for CIFAR-10, CIFAR-100-20, and STL-10; used here for all six."""
    s = resolved(study, "simclr", benchmark)
    assert facts(s, "epochs", "batch_size", *OPTIMIZER) == (500, 512, "sgd", 0.4, 1e-4, "cosine")
    assert (s.training.momentum, s.training.final_learning_rate) == (0.9, pytest.approx(0.4 * 0.1**3))
    assert s.augment == {"view": SIMCLR_VIEW}
    layer = "encoder" if "imagenet" in benchmark else "projection"  # as the authors answered for CIFAR-10 and ImageNet
    assert s.options == {
        "temperature": 0.1,
        "anchors": "first",
        "projection_hidden": 512,
        "projection": 128,
        "layer": layer,
        "kmeans_restarts": 1 if benchmark == "tiny-imagenet" else 10,
    }


@pytest.mark.parametrize(
    "benchmark,epochs,batch,hole",
    [
        ("cifar10", 50, 128, 16),
        ("cifar100-20", 100, 512, 16),
        ("stl10", 100, 128, 32),  # official
        ("imagenet10", 100, 128, 32),
        ("imagenet-dogs", 100, 128, 32),
        ("tiny-imagenet", 100, 512, 21),
    ],
)  # ours
def test_scan(study, benchmark, epochs, batch, hole):
    s = resolved(study, "scan", benchmark)
    assert facts(s, "epochs", "batch_size", *OPTIMIZER) == (epochs, batch, *ADAM)
    assert s.options == {"neighbors": 20, "entropy_weight": 5.0, "projection_hidden": 512, "projection": 128}
    assert s.augment == {"strong": scan_strong(hole)}
    assert study.methods["scan"].after == "simclr"


@pytest.mark.parametrize(
    "benchmark,epochs,hole",
    [
        ("cifar10", 200, 16),
        ("cifar100-20", 200, 16),
        ("stl10", 100, 32),  # official
        ("imagenet10", 100, 32),
        ("imagenet-dogs", 100, 32),
        ("tiny-imagenet", 200, 21),
    ],
)  # ours
def test_self_label(study, benchmark, epochs, hole):
    s = resolved(study, "selflabel", benchmark)
    assert facts(s, "epochs", "batch_size", *OPTIMIZER) == (epochs, 1000, *ADAM)
    assert s.options == {"threshold": 0.99, "balanced": True}
    assert s.augment == {"weak": [], "strong": scan_strong(hole)}  # the weak view is the unaugmented image
    assert study.methods["selflabel"].after == "scan"


@pytest.mark.parametrize(
    "benchmark,batch,overclusters,resized",
    [
        ("cifar100-20", 256, 70, 40),
        ("stl10", 128, 70, 112),  # official; Tiny-ImageNet's 700 is the paper's
        ("cifar10", 256, 70, 40),
        ("imagenet10", 128, 70, 112),
        ("imagenet-dogs", 128, 70, 112),
        ("tiny-imagenet", 256, 700, 75),
    ],
)  # ours: 64 * 112 / 96, rounded
def test_pica(study, benchmark, batch, overclusters, resized):
    """Windows of the benchmark's size from the resized image; for ImageNet subsets, from stored pixels."""
    s = resolved(study, "pica", benchmark)
    assert facts(s, "epochs", "batch_size", *OPTIMIZER) == (2 * 200, batch, "adam", 1e-4, 0.0, "constant")
    options = {"balance_weight": 2.0, "perturbations": 3, "overclusters": overclusters, "resize": resized}
    assert s.options == options | ({"sobel": True} if is_official(study) else {})
    assert s.augment["original"] == [{"resize": {"size": resized}}, {"random_crop": {"size": SIZES[benchmark]}}]
    crop, *others = s.augment["perturbed"]
    stored = study.benchmarks[benchmark].larger_size
    assert crop == {"random_resized_crop": {"scale": [0.2, 1.0]} | ({"size": SIZES[benchmark]} if stored else {})}
    assert others == PICA_PERTURBED and stored == (112 if benchmark.startswith("imagenet") else None)
    assert (PICA.keeps_last_batch, PICA.zero_idle_gradients) == (True, True)  # 60,000 images at 256: 235 steps


@pytest.mark.parametrize("benchmark", SIZES)
def test_networks(study, benchmark):
    """The common comparison uses one backbone; config/official.yaml changes PICA's and pads the max-pool at 96 px, as
    the official codes do (7 x 7 pixels at the end)."""
    networks = {stage: resolved(study, stage, benchmark).network for stage in STAGES if stage not in CONTROLS}
    pica = networks.pop("pica")
    (common,) = set(map(repr, networks.values()))
    one = networks["scl"]
    assert (one.backbone, one.width, one.layers, one.pool) == ("resnet18", 64, None, None)
    assert (one.initialization, one.pool_padding) == ("timm", int(is_official(study) and SIZES[benchmark] == 96))
    if is_official(study):
        assert (pica.backbone, pica.pool, pica.pool_padding) == ("resnet34", True, 1)
        assert pica.initialization == "torch"
    else:
        assert repr(pica) == common


@pytest.mark.parametrize("benchmark", SIZES)
def test_the_same_data_and_size_for_all(study, benchmark):
    assert study.benchmarks[benchmark].size == SIZES[benchmark]
    assert {resolved(study, stage, benchmark).data for stage in STAGES} == {f"data/{benchmark}"}
    assert study.benchmarks[benchmark].subset is None


def test_scl_is_the_same_on_all_benchmarks(study):
    """Its hyper-parameters were fixed on digits and a CIFAR-10 subset; it uses SimCLR's view and SCAN's, and starts
    from SimCLR, as SCAN does."""
    seen = {repr((s.training, s.options)) for s in (resolved(study, "scl", benchmark) for benchmark in SIZES)}
    assert len(seen) == 1
    for benchmark in SIZES:
        scl, simclr, scan = (resolved(study, stage, benchmark) for stage in ("scl", "simclr", "scan"))
        assert scl.augment == simclr.augment | scan.augment
        assert study.methods["scl"].after == study.methods["scan"].after == "simclr"


def test_the_grid_is_whole_and_its_settings_have_an_origin(study):
    assert tuple(study.methods) == STAGES and tuple(study.benchmarks) == tuple(SIZES)
    assert study.seeds == [0, 1, 2, 3, 4] and study.reference == "scl"
    protocols = {benchmark: study.protocols_of(benchmark) for benchmark in SIZES}
    assert [b for b, p in protocols.items() if p == ["joint", "heldout"]] == ["cifar10", "cifar100-20", "stl10"]
    assert all(study.methods[stage].origin for stage in STAGES)
    check_methods(study)


def test_absence_of_official_settings_is_said(study):
    """In notes on each benchmark: SCAN has no settings for ImageNet subsets, PICA has two files of settings."""
    without = {stage: [b for b in SIZES if "no official settings" in study.note(stage, b)] for stage in STAGES}
    subsets = ["imagenet10", "imagenet-dogs", "tiny-imagenet"]
    assert without == {
        "random": [],
        "kmeans": [],
        "simclr": subsets,
        "scan": subsets,
        "selflabel": subsets,
        "pica": ["cifar10", *subsets],
        "scl": list(SIZES) if is_official(study) else [],
    }


def test_the_official_comparison_changes_networks_alone(monkeypatch):
    """It also adds the Sobel filters before PICA's network."""
    monkeypatch.chdir(ROOT)
    paper, official = load_study("config/paper.yaml"), load_study("config/official.yaml")
    assert official.results != paper.results and official.title != paper.title
    for name in ("benchmarks", "seeds", "protocols", "reference", "data", "downloads", "machine"):
        assert getattr(official, name) == getattr(paper, name)
    for run in paper.runs():
        one, other = (
            study.settings(study.run(run.benchmark, run.protocol, run.stage, run.seed)) for study in (paper, official)
        )
        after = one.after and one.after.replace("results/", "results/official/", 1)
        options = one.options | ({"sobel": True} if run.stage == "pica" else {})
        assert other == one.model_copy(update={"network": other.network, "options": options, "after": after})


def test_the_ablation_changes_one_thing_a_row(monkeypatch):
    monkeypatch.chdir(ROOT)
    study = load_study("config/ablation.yaml")
    smoke = load_study("config/smoke.yaml")
    reference = smoke.settings(smoke.run("digits", "joint", "scl", 0))
    changes = {}
    assert study.methods["scl"].after == "simclr"  # the stage from which all rows start
    for stage in study.methods.keys() - {"simclr"}:
        s = study.settings(study.run("digits", "joint", stage, 0))
        assert (s.method, s.network, s.training, s.augment) == (
            reference.method,
            reference.network,
            reference.training,
            reference.augment,
        )
        changes[stage] = {k: v for k, v in s.options.items() if reference.options.get(k) != v}
    assert changes == {
        "scl": {},
        "scl-no-semantic": {"semantic_weight": 0.0},
        "scl-no-consistency": {"consistency": "view"},
        "scl-boundaries": {"consensus": "boundaries"},
        "scl-similarities": {"consensus": "similarities"},
        "scl-sums": {"mean_similarities": False},
        "scl-no-instance": {"instance_weight": 0.0},
        "scl-kmeans": {"assignment": "kmeans"},
    }
    assert len({block.title for block in study.methods.values()}) == len(changes) + 1
    assert study.reference == "scl" and len(study.seeds) == 5 and study.protocols == ["joint"]


def test_what_the_documentation_names_is_there():
    named = re.findall(r"`([a-z_/]+\.py):(\w+)`", (ROOT / "docs" / "methods.md").read_text())
    assert len(set(named)) > 25
    for file, name in named:
        found = {n.name for n in ast.parse((ROOT / file).read_text()).body if hasattr(n, "name")}
        assert name in found, f"docs/methods.md names {file}:{name}"


# --- how blocks combine -----------------------------------------------------------------------------------------

SCL = {
    "method": "scl.scl.SCL",
    "augment": {"view": [], "strong": []},
    "training": {"epochs": 1, "batch_size": 10},
    "origin": "ours",
    "title": "SCL",
}


def small(**changes):
    return {"results": "r", "benchmarks": {"digits": {}, "cifar10": {}}, "methods": {"scl": {**SCL, **changes}}}


def test_the_benchmark_wins_over_the_block():
    study = load_study(small(per_benchmark={"cifar10": {"training": {"epochs": 2, "batch_size": 20}, "note": "two"}}))
    found = {
        benchmark: facts(resolved(study, "scl", benchmark), "epochs", "batch_size") for benchmark in study.benchmarks
    }
    assert found == {"digits": (1, 10), "cifar10": (2, 20)}
    assert (study.note("scl", "digits"), study.note("scl", "cifar10")) == ("", "two")


def test_a_benchmark_that_is_left_out_needs_no_settings_of_methods(tmp_path):
    """Those in the extended file, from which they cannot be removed."""
    base = small(per_benchmark={"mine": {"training": {"epochs": 2}}, "digits": {"training": {"epochs": 3}}})
    base["benchmarks"] |= {"mine": {"dataset": "digits"}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "less.yaml").write_text("extends: base.yaml\nbenchmarks: {mine: null}\n")
    study = load_study(tmp_path / "less.yaml")
    assert "mine" not in study.benchmarks and facts(resolved(study, "scl", "digits"), "epochs") == (3,)


def test_what_is_null_wins_too():
    study = load_study({**small(network={"layers": None}), "network": {"layers": [1, 1, 1], "pool": True}})
    network = resolved(study, "scl", "digits").network
    assert (network.layers, network.pool) == (None, True)


@pytest.mark.parametrize(
    "changes,message",
    [
        (
            {"per_benchmark": {"cifar10": {"trainig": {}}}},
            r"methods\.scl\.per_benchmark\.cifar10\.trainig: unknown key \(did you mean 'training'",
        ),
        (
            {"per_benchmark": {"cifar10": {"training": {"epochs": -1}}}},
            r"cifar10\.training\.epochs: must be greater than or equal to 0, got -1",
        ),
        ({"per_benchmark": {"digit": {}}}, r"methods\.scl\.per_benchmark\.digit: no such benchmark"),
        ({"per_benchmark": {"stl10": {}}}, r"methods\.scl\.per_benchmark\.stl10: no such benchmark"),
        ({"recipes": {"official": {}}}, r"methods\.scl\.recipes: unknown key"),
    ],
)
def test_what_differs_on_a_benchmark_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        load_study(small(**changes))


def test_like_takes_the_other_block_but_not_its_words():
    mapping = small()
    mapping["methods"] |= {"b": {"like": "a", "training": {"epochs": 7}}, "a": {"like": "scl", "title": "A"}}
    study = load_study(mapping)
    assert facts(resolved(study, "b", "digits"), "epochs", "batch_size") == (7, 10)
    assert (study.methods["a"].title, study.methods["b"].title, study.methods["a"].origin) == ("A", None, "")


@pytest.mark.parametrize("like,message", [("scm", "unknown 'scm'.*did you mean 'scl'"), ("x", "circle: x -> x")])
def test_like_must_lead_somewhere(like, message):
    mapping = small()
    mapping["methods"]["x"] = {"like": like}
    with pytest.raises(ValueError, match=message):
        load_study(mapping)


def derived(tmp_path, monkeypatch, changes, base=None):
    """The study of a file that extends `small(...)` with `changes`."""
    (tmp_path / "config").mkdir()
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(small(**base or {})))
    (tmp_path / "config" / "mine.yaml").write_text(yaml.safe_dump({"extends": "base.yaml", **changes}))
    monkeypatch.chdir(tmp_path)
    return load_study("config/mine.yaml")


@pytest.mark.parametrize(
    "block,origin",
    [
        ({"options": {"warm_up": 0.1}, "training": {"batch_size": 5}}, ""),
        ({"augment": {"view": [{"flip": {}}]}}, ""),
        ({"per_benchmark": {"digits": {"training": {"epochs": 2}}}}, ""),
        ({"title": "SCL again", "training": {"epochs": 1}, "per_benchmark": {"digits": {"note": "one"}}}, "ours"),
        ({"options": {"warm_up": 0.1}, "origin": "mine"}, "mine"),
    ],
)
def test_an_inherited_origin_is_dropped_with_changed_settings(block, origin, tmp_path, monkeypatch):
    base = {"per_benchmark": {"digits": {"note": "none"}}}
    study = derived(tmp_path, monkeypatch, {"methods": {"scl": block}}, base)
    assert (study.methods["scl"].origin, study.methods["scl"].title) == (origin, block.get("title", "SCL"))


@pytest.mark.parametrize("changes,origin", [({"network": {"width": 8}}, ""), ({"seeds": 1, "training": {}}, "ours")])
def test_an_inherited_origin_is_dropped_with_changed_settings_of_the_study(changes, origin, tmp_path, monkeypatch):
    assert derived(tmp_path, monkeypatch, changes).methods["scl"].origin == origin


def test_inherited_notes_do_not_stand_for_other_settings(tmp_path, monkeypatch):
    base = {
        "note": "all",
        "per_benchmark": {"digits": {"options": {"warm_up": 0.1}, "note": "one"}, "cifar10": {"note": "two"}},
    }
    block = {"per_benchmark": {"cifar10": {"options": {"warm_up": 0.2}, "note": "mine"}}}
    study = derived(tmp_path, monkeypatch, {"methods": {"scl": block}}, base)
    assert (study.note("scl", "digits"), study.note("scl", "cifar10")) == ("", "mine")
    kept = load_study({"extends": "base.yaml"})
    assert (kept.note("scl", "digits"), kept.note("scl", "cifar10")) == ("one", "two")


def test_an_origin_does_not_outlive_the_settings_it_takes_by_like(tmp_path, monkeypatch):
    (tmp_path / "rows.yaml").write_text(
        yaml.safe_dump(
            {
                "extends": "base.yaml",
                "methods": {"a": {"like": "scl", "origin": "as scl"}, "b": {"like": "a", "origin": "as a"}},
            }
        )
    )
    changes = {"extends": "rows.yaml", "methods": {"scl": {"training": {"epochs": 9}}, "b": {"origin": "mine"}}}
    study = derived(tmp_path, monkeypatch, changes)
    assert [study.methods[stage].origin for stage in ("scl", "a", "b")] == ["", "", "mine"]


def test_like_takes_no_words_of_the_other_files(tmp_path, monkeypatch):
    changes = {"methods": {"again": {"like": "scl", "options": {"warm_up": 0.1}}}}
    study = derived(tmp_path, monkeypatch, changes, {"per_benchmark": {"digits": {"note": "one"}}})
    assert (study.methods["again"].origin, study.note("again", "digits"), study.note("scl", "digits")) == (
        "",
        "",
        "one",
    )
