"""What a configuration may state: anything else is refused in one line that names the key, before anything runs."""

import copy

import pytest
from conftest import TINY_METHODS

from benchmarks.check import check_methods
from benchmarks.study import load_study

NAN, INFINITE = float("nan"), float("inf")
GOOD = {
    "results": "r",
    "benchmarks": {"digits": {}},
    "methods": {stage: TINY_METHODS[stage] for stage in ("simclr", "scan")},
}


def put(path, value):
    """Return GOOD with `value` at the dotted path."""
    mapping = inner = copy.deepcopy(GOOD)
    *way, last = path.split(".")
    for key in way:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return mapping


def refused(source):
    """The error message for a configuration that cannot be read: one line."""
    with pytest.raises(ValueError) as error:
        load_study(source)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "text,told",
    [
        ("seeds: 010\n", "line 1: not valid YAML: the number 010: write it without a leading zero, ':' and '_'"),
        (
            "title: a\nseeds: 1:30\n",
            "line 2: not valid YAML: the number 1:30: write it without a leading zero, ':' and '_'",
        ),
        ("methods: {}\nseeds: 1\nmethods: {}\n", "line 3: not valid YAML: 'methods' is given twice; keep one"),
        ("methods:\n  scl: {}\n  pica: {}\n  scl: {}\n", "line 4: not valid YAML: 'scl' is given twice; keep one"),
        ("methods: {scl: {options: {a: 1, a: 2}}}\n", "line 1: not valid YAML: 'a' is given twice; keep one"),
    ],
)
def test_what_yaml_would_read_otherwise_is_refused(text, told, tmp_path):
    (tmp_path / "study.yaml").write_text(text)
    assert refused(tmp_path / "study.yaml") == f"{tmp_path / 'study.yaml'} {told}"


def test_a_merged_key_may_be_given_again(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "results: r\nbenchmarks: {digits: {}}\nmethods:\n  one: &one {method: baselines.controls.Random, title: one}\n"
        "  two: {<<: *one, title: two}\n"
    )
    assert load_study(tmp_path / "study.yaml").methods["two"].title == "two"


@pytest.mark.parametrize(
    "path,value,told",
    [
        ("protocols", ["joint", "joint"], "protocols: ['joint', 'joint'] has duplicates"),
        ("protocols", [], "protocols: must have at least 1 item"),
        ("benchmarks.digits.protocols", [], "benchmarks.digits.protocols: must have at least 1 item"),
        ("benchmarks.digits.protocols", ["joint"] * 2, "benchmarks.digits.protocols: ['joint', 'joint'] has"),
        ("seeds", [1, 1], "seeds: [1, 1] has duplicates"),
        ("benchmarks", {1: {"dataset": "digits"}}, "benchmarks.1: must be a string, got 1; write the name in quotes"),
        ("methods", {True: TINY_METHODS["random"]}, "methods.True: must be a string"),
        ("extends", ["a.yaml", "b.yaml"], "extends: expected the name of one file, got ['a.yaml', 'b.yaml']"),
        ("extends", 3, "extends: expected the name of one file, got 3"),
        ("training.learning_rate", NAN, "training.learning_rate: must be a finite number, got nan"),
        ("machine.checkpoint_seconds", INFINITE, "machine.checkpoint_seconds: must be a finite number"),
        ("machine.checkpoint_seconds", -1, "machine.checkpoint_seconds: must be greater than or equal to 0, got -1"),
        ("results", "results/{a}", "results: 'results/{a}': { and } mean wildcards to Snakemake; name another folder"),
        ("machine.threads", -2, "machine.threads: must be greater than or equal to 1, got -2"),
        ("machine.runs_per_gpu", 0, "machine.runs_per_gpu: must be greater than or equal to 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(path, value, told):
    assert told in refused(put(path, value))


@pytest.mark.parametrize(
    "path,value,told",
    [
        (
            "methods.scan.training.epochs",
            0,
            "methods.scan.training.epochs on digits: none given, but SCAN trains; give",
        ),
        ("methods.scan.training", {}, "methods.scan.training.epochs on digits: none given, but SCAN trains"),
        (
            "methods.scan.per_benchmark",
            {"digits": {"training": {"epochs": 0}}},
            "scan.training.epochs on digits: none given",
        ),
        (
            "methods.random",
            {**TINY_METHODS["random"], "training": {"epochs": 3}},
            "methods.random.training.epochs on digits: 3, but Random has no step() to train with; write 0",
        ),
        (
            "methods.scan.options",
            {"entropy_weight": INFINITE},
            "scan.options.entropy_weight: must be a finite number, got inf",
        ),
        (
            "methods.scan.augment.strong",
            [{"noise": {"std": NAN}}],
            "scan.augment.strong: noise.std: must be a finite number",
        ),
    ],
)
def test_a_plan_is_of_what_can_be_trained(path, value, told):
    with pytest.raises(ValueError) as error:
        check_methods(load_study(put(path, value)))
    assert told in str(error.value)


def test_a_file_may_not_extend_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, base in (("a", "a"), ("b", "c"), ("c", "b")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {base}.yaml\n")
    assert refused("a.yaml") == "extends: a circle: a.yaml -> a.yaml"
    assert refused({"extends": "b.yaml"}) == "extends: a circle: b.yaml -> c.yaml -> b.yaml"


def test_checksum_of_another_length_is_refused_in_plain_words():
    told = refused(put("downloads.checksums", {"cifar-10-python.tar.gz": {"md5": "0"}}))
    assert told == "downloads.checksums.cifar-10-python.tar.gz.md5: must be 32 hexadecimal digits, got '0'"


def test_a_study_without_a_run_is_refused():
    told = refused(GOOD | {"benchmarks": {"tiny-imagenet": {}}, "protocols": ["heldout"]})
    assert told == "protocols: no benchmark of this study has heldout, so there is nothing to run"


def test_results_of_a_benchmark_without_a_source_are_told(tmp_path):
    """Such as results on ImageNet-10 that were copied from a machine that has the images."""
    study = {
        "results": str(tmp_path),
        "benchmarks": {"imagenet10": {}, "digits": {}},
        "methods": {"random": TINY_METHODS["random"]},
    }
    assert load_study(study).skipped == {"imagenet10": "no ImageNet source"}
    run = tmp_path / "runs" / "imagenet10" / "joint" / "random" / "seed0"
    run.mkdir(parents=True)
    assert load_study(study).skipped["imagenet10"] == "no ImageNet source"
    (run / "metrics.json").touch()
    assert load_study(study).skipped["imagenet10"] == "no ImageNet source, although there are results"
