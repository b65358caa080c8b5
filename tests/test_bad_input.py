"""Bad input to the workflow: refused before any job, in one message that names the place, and nothing is left."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import TINY_METHODS, TINY_VIEW
from flow import TINY, snakemake

GOOD = TINY | {"methods": {stage: TINY_METHODS[stage] for stage in ("random", "simclr", "scan", "scl")}}
SCL = ("methods", "scl")
CASES = {  # name: (path into the configuration, value there, words of the message)
    "unknown key": (("seed",), 3, "seed: unknown key (did you mean 'seeds'?)"),
    "unknown key deep": ((*SCL, "training", "learning_rat"), 0.1,
                         "methods.scl.training.learning_rat: unknown key (did you mean 'learning_rate'?)"),
    "unknown option": ((*SCL, "options"), {"temperatur": 1.0}, "scl.options.temperatur: unknown key (did you mean"),
    "unknown method": ((*SCL, "method"), "scl.method.SLC", "has no class 'SLC' (did you mean 'SCL'?)"),
    "unknown module": ((*SCL, "method"), "my_file.Mine", "cannot import 'my_file'"),
    "unknown benchmark": (("benchmarks",), {"cifar01": {}},
                          "no data set is called 'cifar01' (did you mean 'cifar10'?)"),
    "unknown protocol": (("protocols",), ["jiont"], "protocols: unknown 'jiont' (did you mean 'joint'?)"),
    "unknown network": ((*SCL, "network"), {"backbone": "resnet19"}, "'resnet19' is not a ResNet of timm"),
    "too few layers": (("network", "layers"), [1, 1],
                       "network.layers: [1, 1] are not the blocks of three or four stages"),
    "wrong type": ((*SCL, "training", "epochs"), "ten", "methods.scl.training.epochs: expected a whole number"),
    "text for a number": ((*SCL, "training", "learning_rate"), "1e-3", "expected a number, got the text '1e-3'"),
    "too many clusters": (("benchmarks", "tiny", "clusters"), 61, "61 clusters cannot be found in 60 images"),
    "missing augmentation": ((*SCL, "augment"), {}, "methods.scl.augment.view: missing"),
    "unknown operation": ((*SCL, "augment", "view"), [*TINY_VIEW, {"blurr": {}}], "methods.scl.augment.view: "),
    "unknown stage": (("methods", "scan", "after"), "simlcr", "unknown 'simlcr' (did you mean 'simclr'?)"),
    "circle": (("methods", "simclr", "after"), "scan", "a circle: simclr -> scan -> simclr"),
    "no images": (("benchmarks",), {"mine": {"dataset": "folder", "clusters": 2}}, "benchmarks.mine.path: missing"),
    "unwritable results": (("results",), "study.yaml/below-a-file", "results: cannot write study.yaml/below-a-file: "),
}


def put(mapping, path, value):
    mapping = copy.deepcopy(mapping)
    inner = mapping
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    return mapping


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """{name: (process, folder)} of all cases; two at a time, as most of it is starting up."""
    lock = threading.Lock()

    def refuse(name):
        with lock:
            folder = tmp_path_factory.mktemp("bad")
        return snakemake(folder, put(GOOD, *CASES[name][:2])), folder

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(refuse, CASES)))


@pytest.mark.xdist_group("refusals")
@pytest.mark.parametrize("name", CASES)
def test_bad_configuration_is_one_message_before_any_job(refusals, name):
    done, folder = refusals[name]
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow specific profile")]
    assert len(told) == 1 and told[0].startswith("snakemake: error: "), done.stderr
    assert CASES[name][2] in told[0]
    assert not done.stdout
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"study.yaml"}
    assert not {path for path in left if not path.startswith(".snakemake")}


def test_a_key_given_twice_is_refused(tmp_path):
    """Snakemake itself reads the file first, and keeps the last of the two."""
    done = snakemake(tmp_path, "results: r\nseeds: 1\nseeds: 2\n")
    assert done.returncode == 2
    told = done.stderr.splitlines()[-1]
    assert told.startswith("snakemake: error: study.yaml line 3: ") and "'seeds' is given twice" in told


def test_yaml_that_is_none_is_refused(tmp_path):
    done = snakemake(tmp_path, "seeds: [0\nmethods: {")
    assert done.returncode != 0
    assert "not valid JSON or YAML" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != ".snakemake"] == ["study.yaml"]
