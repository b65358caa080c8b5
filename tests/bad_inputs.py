"""The table of bad configurations: {name: Case}, with the words that the one line must contain.

Only data: tests/test_bad_input_cli.py runs it. The words are keys and file names, which outlive a change of wording.
"""

import copy
from dataclasses import dataclass

import yaml
from conftest import TINY_METHODS
from flow import TINY

GOOD = TINY | {"methods": {name: TINY_METHODS[name] for name in ("random", "simclr", "scan", "pica", "scl")}}
RANDOM = TINY_METHODS["random"]
NAN, INFINITE, HUGE = float("nan"), float("inf"), 10**400


@dataclass(frozen=True)
class Case:
    """files: {name: text, bytes, or None for a folder}; words: of the message; command: of `scl`."""

    files: dict
    words: tuple[str, ...] = ()
    command: tuple[str, ...] = ("plan", "study.yaml")


def put(mapping, path, value):
    """A copy of `mapping` with `value` at the dotted path."""
    mapping = inner = copy.deepcopy(mapping)
    *way, last = path.split(".")
    for key in way:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return mapping


def case(changes, *words, files=None, **more):
    """GOOD with {dotted path: value} changed."""
    mapping = GOOD
    for path, value in changes.items():
        mapping = put(mapping, path, value)
    return Case({"study.yaml": dump(mapping), **(files or {})}, words, **more)


def dump(mapping):
    return yaml.dump(mapping, Dumper=_Plain, sort_keys=False)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


# --- types: every key with values of other types -----------------------------------------------------------------

INTEGER = (True, 1.5, "3", [3], {"a": 1}, HUGE)
NUMBER = (True, "0.1", [0.1], {"a": 1}, NAN, INFINITE, HUGE)
FLAG = (1, "yes", [True], {"a": 1})
TEXT = (5, True, ["a"], {"a": 1})
LIST = (5, "joint", {"a": 1}, True)
MAPPING = (5, "text", [1], True)
TYPES = {  # dotted path: values that are refused there
    "results": (None, *TEXT),
    "data": (None, *TEXT),
    "title": (None, *TEXT),
    "reference": TEXT,
    "seeds": (None, True, 1.5, "3", {"a": 1}, [1.5], [True], ["0"], [[0]], [None], HUGE, [HUGE]),
    "protocols": (None, *LIST, [1], [None], [["joint"]]),
    "benchmarks": (None, *MAPPING),
    "methods": (None, *MAPPING),
    "network": (None, *MAPPING),
    "training": (None, *MAPPING),
    "downloads": (None, *MAPPING),
    "machine": (None, *MAPPING),
    "benchmarks.tiny": MAPPING,
    "benchmarks.tiny.dataset": TEXT,
    "benchmarks.tiny.path": TEXT,
    "benchmarks.tiny.size": INTEGER,
    "benchmarks.tiny.subset": INTEGER,
    "benchmarks.tiny.clusters": INTEGER,
    "benchmarks.tiny.larger_size": INTEGER,
    "benchmarks.tiny.protocols": (*LIST, [1], [[]]),
    "methods.scl": MAPPING,
    "methods.scl.method": (None, *TEXT),
    "methods.scl.title": TEXT,
    "methods.scl.after": TEXT,
    "methods.scl.origin": (None, *TEXT),
    "methods.scl.note": (None, *TEXT),
    "methods.scl.network": (None, *MAPPING),
    "methods.scl.training": (None, *MAPPING),
    "methods.scl.options": (None, *MAPPING),
    "methods.scl.augment": (None, *MAPPING),
    "methods.scl.per_benchmark": (None, *MAPPING, {"tiny": 5}),
    "methods.scl.like": (None, 5, True, ["simclr"], {"a": 1}),
    "methods.scl.network.backbone": (None, *TEXT),
    "methods.scl.network.width": (None, *INTEGER),
    "methods.scl.network.layers": (*LIST, [1.5, 1, 1], [True, 1, 1], [[1], 1, 1], ["1", 1, 1], [None, 1, 1]),
    "methods.scl.network.pool": FLAG,
    "methods.scl.network.initialization": (None, *TEXT, "pica"),
    "methods.scl.network.pool_padding": (None, *INTEGER),
    "methods.scl.training.epochs": (None, *INTEGER),
    "methods.scl.training.batch_size": (None, *INTEGER),
    "methods.scl.training.curve_points": (None, *INTEGER),
    "methods.scl.training.learning_rate": (None, *NUMBER),
    "methods.scl.training.final_learning_rate": (None, *NUMBER),
    "methods.scl.training.momentum": (None, *NUMBER),
    "methods.scl.training.weight_decay": (None, *NUMBER),
    "methods.scl.training.optimizer": (None, *TEXT, "lars"),
    "methods.scl.training.schedule": (None, *TEXT, "step"),
    "methods.scl.training.precision": (None, *TEXT, "fp8"),
    "methods.scl.training.compile": (None, *FLAG),
    "methods.scl.options.temperature": (None, *NUMBER),
    "methods.scl.options.consistency": (None, *TEXT, "both"),
    "methods.scl.options.projection": (None, *INTEGER),
    "methods.scl.options.projection_norm": (None, *FLAG),
    "machine.threads": INTEGER,
    "machine.runs_per_gpu": (None, *INTEGER),
    "machine.checkpoint_seconds": (None, *NUMBER),
    "machine.require_gpu": (None, *FLAG),
    "machine.tensorboard": (None, *FLAG),
    "downloads.archives": TEXT,
    "downloads.timeout": (None, *NUMBER),
    "downloads.mirrors": (None, *MAPPING),
    "downloads.checksums": (None, *MAPPING),
    "downloads.imagenet": (None, *MAPPING),
    "downloads.imagenet.tar": TEXT,
    "downloads.imagenet.folder": TEXT,
    "downloads.imagenet.accept_terms": (None, *FLAG),
    "downloads.imagenet.images_per_class": (None, *INTEGER),
    "extends": (5, True, ["study.yaml"], {"a": 1}),
}


def of_types():
    for path, values in TYPES.items():
        for value in values:
            yield f"{path}: {value!r:.30}", case({path: value}, path)


# --- values out of range, and values that do not fit together ----------------------------------------------------

RANGES = {
    "results": (
        "",
        " ",
        "-rf",
        "results/{a}",
        "a\0b",
        "a\nb",
        ".",
        "..",
        "~/results",
        "r" * 300,
        "study.yaml",
        "study.yaml/below",
    ),
    "data": ("", "-data", "data/{a}", "a\0b", "study.yaml", "study.yaml/below"),
    "seeds": (0, -1, [], [-1], [1, 1], 10**12, 10**6, [2**70], 2**63),
    "protocols": ([], ["jiont"], ["joint", "joint"], [""]),
    "reference": ("sccl",),
    "benchmarks": (
        {},
        {"tiny": None},
        {"Tiny": {"dataset": "digits"}},
        {"a/b": {"dataset": "digits"}},
        {"-rf": {"dataset": "digits"}},
        {"": {"dataset": "digits"}},
        {"a b": {"dataset": "digits"}},
        {1: {"dataset": "digits"}},
        {"t" * 300: {"dataset": "digits"}},
        {"archives": {"dataset": "digits"}},
        {"..": {"dataset": "digits"}},
        {"cifar01": {}},
    ),
    "benchmarks.tiny.dataset": ("cifar01", "", "Digits"),
    "benchmarks.tiny.size": (0, -8, 7, 4096, 10**9),
    "benchmarks.tiny.subset": (0, 1, -1, 1798, 10**9),
    "benchmarks.tiny.larger_size": (0, 7, 8, 4096),
    "benchmarks.tiny.clusters": (0, 1, -1, 61, 10**9),
    "benchmarks.tiny.protocols": ([], ["jiont"], ["joint"] * 2),
    "benchmarks.tiny.sise": (8,),
    "methods": (
        {},
        {"random": None},
        {"Random": RANDOM},
        {"a/b": RANDOM},
        {True: RANDOM},
        {"s" * 300: RANDOM},
        {"-x": RANDOM},
    ),
    "methods.scl.after": ("simlcr", "scl", ""),
    "methods.scl.like": ("simlcr", "scl", ""),
    "methods.scl.trainig": ({"epochs": 1},),
    "methods.scl.per_benchmark": (
        {"tinny": {}},
        {"tiny": {"trainig": {}}},
        {"tiny": {"training": 5}},
        {"tiny": {"seed": 5}},
        {"tiny": {"after": "simclr"}},
        {"tiny": {"title": "x"}},
        {"tiny": {"training": {"epochs": -1}}},
        {"tiny": {"per_benchmark": {}}},
    ),
    "methods.scl.network.width": (0, 1, 2, 4, 6, 7, 9, 12, 33, -8, 10**9),
    "methods.scl.network.backbone": (
        "",
        "resnet",
        "resnet19",
        "vgg16",
        "ResNet18",
        "resnet18 ",
        "resnetv2_50",
        "resnetv2_50x1_bit",
        "resnet32ts",
        "resnet50_clip",
        "resnet51q",
        "resnet\n18",
    ),
    "methods.scl.network.layers": ([], [1], [1, 1], [1] * 5, [0, 1, 1], [-1, 1, 1], [100000, 1, 1, 1], [10**9] * 4),
    "methods.scl.network.pool_padding": (-1, 2, 10**9),
    "methods.scl.training.epochs": (0, -1, 10**9),
    "methods.scl.training.batch_size": (0, 1, -4, 10**9),
    "methods.scl.training.curve_points": (0, -1, 10**9),
    "methods.scl.training.learning_rate": (-0.1, 1e300, 1e39),
    "methods.scl.training.momentum": (-0.9, -1e-9, 1.0, 1.5),
    "methods.scl.training.final_learning_rate": (-0.1, 1e300),
    "methods.scl.training.weight_decay": (-1.0, 1e300),
    "methods.scl.options.temperature": (0.0, -1.0, 1e-300, 1e300),
    "methods.scl.options.memory_momentum": (-0.5, 1.5),
    "methods.scl.options.semantic_weight": (-1.0, 1e300),
    "methods.scl.options.projection": (0, -1, 10**9),
    "methods.scl.options.projection_hidden": (0, 10**9),
    "methods.scl.options.kmeans_restarts": (0, 10**9),
    "methods.scl.options.warm_up": (-0.5, 2.0),
    "methods.scl.options.temperatur": (1.0,),
    "methods.simclr.options.temperature": (0.0, 1e300),
    "methods.simclr.options.projection": (0, 10**9),
    "methods.simclr.options.kmeans_restarts": (0,),
    "methods.scan.options.neighbors": (0, 10**9),
    "methods.scan.options.entropy_weight": (-1.0, 1e300),
    "methods.pica.options.overclusters": (1, 10**9),
    "methods.pica.options.perturbations": (0, 10**9),
    "methods.pica.options.resize": (0, -8, 10**9),
    "machine.threads": (0, -2, 10**9),
    "machine.runs_per_gpu": (0, -1, 10**9),
    "machine.checkpoint_seconds": (-1.0, 1e300),
    "downloads.timeout": (0.0, -1.0, 1e300),
    "downloads.imagenet.images_per_class": (0, -1, 10**9),
    "downloads.mirrors": (
        {"nothing.zip": []},
        {"cifar-10-python.tar.gz": "http://a/b"},
        {"cifar-10-python.tar.gz": ["ftp://a/b"]},
        {"cifar-10-python.tar.gz": []},
    ),
    "downloads.checksums": (
        {"nothing.zip": {}},
        {"cifar-10-python.tar.gz": {"md5": "0"}},
        {"cifar-10-python.tar.gz": {"crc": "0"}},
    ),
    "unknown": (1,),
    "network.widht": (8,),
    "training.epoch": (3,),
    "machine.thread": (1,),
    "downloads.mirror": ({},),
}


def of_ranges():
    for path, values in RANGES.items():
        for value in values:
            yield f"{path}: {value!r:.40}", case({path: value}, *_told(path, value))


def _told(path, value):
    """What is named: the key, without the words that are of the value."""
    if path in ("benchmarks", "methods") and value:
        ((name, block),) = value.items()
        return (path,) if block is None else (f"{path}.{name}"[:30],)
    if path in ("methods.scl.like", "methods.scl.after"):
        return ("methods.", path.rpartition(".")[2])
    return (path,)


# --- augmentations -----------------------------------------------------------------------------------------------

AUGMENTATIONS = {  # operation: what is refused
    "flip": (
        {"probability": 1.5},
        {"probability": -0.1},
        {"probability": True},
        {"probabilty": 1.0},
        5,
        0,
        "",
        False,
        [0.5],
    ),
    "random_resized_crop": (
        {"scale": [0.2]},
        {"scale": [1.0, 0.2]},
        {"scale": [0.0, 1.0]},
        {"scale": [1.0, 1e300]},
        {"scale": 0.2},
        {"scale": [[0.2], 1.0]},
        {"ratio": [1e-300, 1e300]},
        {"size": 0},
        {"size": -8},
        {"size": 10**9},
        {"size": 8.0},
        {"scale": [NAN, 1.0]},
    ),
    "resize": ({"size": 0}, {"size": 10**9}, {"size": 8.0}, {"side": 8}),
    "random_crop": (
        {"size": 9},
        {"size": 0},
        {"size": -3},
        {"padding": -1},
        {"padding": 10**9},
        {"padding": 1.5},
        {"padding": 10**9, "size": 10**9},
    ),
    "affine": (
        {"degrees": -1},
        {"degrees": 1e300},
        {"translate": -0.1},
        {"translate": 1e300},
        {"shear": 1e300},
        {"scale": [0.0, 1.0]},
        {"scale": [1e-300, 1e300]},
        {"scale": [2.0, 1.0]},
        {"degrees": "5"},
    ),
    "color_jitter": ({"hue": 0.6}, {"contrast": -1}, {"brightness": 1e300}, {"saturation": [0.5]}, {"probability": 2}),
    "grayscale": ({"probability": 2}, {"probability": None}),
    "blur": (
        {"kernel": 4},
        {"kernel": 0},
        {"kernel": -3},
        {"kernel": 17},
        {"kernel": 10**9 + 1},
        {"sigma": [2.0, 0.1]},
        {"sigma": [0.0, 1.0]},
        {"sigma": [1e-300, 1e300]},
        {"kernel": 3.0},
    ),
    "noise": ({"std": -1}, {"std": 1e300}, {"std": NAN}, {"std": "0.1"}),
    "scan_strong": ({"operations": -1}, {"operations": 10**9}, {"operations": 2.5}, {"operations": True}),
    "cutout": ({"largest": 0}, {"largest": 10**9}, {"largest": HUGE}, {"fill": 1e300}, {"fill": -1.0}, {"fill": [0.5]}),
    "crop_boxes": ({},),
    "flipp": ({},),
}
WHOLE = {
    "none": None,
    "number": 5,
    "text": "flip",
    "no mapping": ["flip"],
    "two operations": [{"flip": {}, "noise": {}}],
    "empty operation": [{}],
    "key that is no text": [{1: {}}],
    "nested": [[{"flip": {}}]],
    "null in it": [None],
    "second does not fit": [{"random_resized_crop": {"size": 8}}, {"random_crop": {"size": 16}}],
    "kernel of a small view": [{"random_resized_crop": {"size": 4}}, {"blur": {"kernel": 11}}],
}


def of_augmentations():
    place = "methods.scl.augment.view"
    for name, values in AUGMENTATIONS.items():
        for value in values:
            key = next(iter(value)) if isinstance(value, dict) and value else ""
            yield f"{name}: {value!r:.50}", case({place: [{name: value}]}, place, name, key)
    for name, value in WHOLE.items():
        yield f"augmentation: {name}", case({place: value}, place)
    yield "augmentation missing", case({"methods.scl.augment": {"view": []}}, "methods.scl.augment.strong")
    misspelled = {"methods.simclr.augment": {"views": []}}
    yield "augmentation misspelled", case(misspelled, "methods.simclr.augment.views", "(did you mean 'view'?)")
    weak = {"view": [], "weak": []}
    yield "augmentation unknown", case({"methods.simclr.augment": weak}, "methods.simclr.augment.weak")


# --- settings that do not fit together ---------------------------------------------------------------------------

FOLDER = {"dataset": "folder", "clusters": 2, "path": "images", "size": 8}
TOGETHER = {
    "path of a data set with an archive": case({"benchmarks.tiny.path": "images"}, "benchmarks.tiny.path"),
    "subset under the name of the data set": case(
        {"benchmarks": {"digits": {"subset": 60}}}, "benchmarks.digits.subset"
    ),
    "subset below the splits": case(
        {"benchmarks.tiny": {"dataset": "stl10", "subset": 2, "clusters": 2}}, "benchmarks.tiny.subset"
    ),
    "subset of cifar10": case({"benchmarks.tiny": {"dataset": "cifar10", "subset": 60_001}}, "benchmarks.tiny.subset"),
    "protocol that the data set lacks": case(
        {"benchmarks.tiny": {"dataset": "tiny-imagenet", "subset": 500, "protocols": ["heldout"]}},
        "benchmarks.tiny.protocols",
    ),
    "clusters of the half that is clustered": case(
        {"benchmarks.tiny.clusters": 50, "protocols": ["heldout"]}, "benchmarks.tiny.clusters"
    ),
    "no clusters": case(
        {"benchmarks.mine": {"dataset": "folder", "path": "images"}},
        "benchmarks.mine.clusters",
        files={"images/a.png": b"", "images/b.png": b""},
    ),
    "no path": case({"benchmarks.mine": FOLDER | {"path": None}}, "benchmarks.mine.path"),
    "folder that is not there": case({"benchmarks.mine": FOLDER}, "benchmarks.mine.path", "images"),
    "folder that is a file": case({"benchmarks.mine": FOLDER}, "benchmarks.mine.path", "images", files={"images": "x"}),
    "folder that is empty": case({"benchmarks.mine": FOLDER}, "benchmarks.mine.path", "images", files={"images": None}),
    "folder without images": case({"benchmarks.mine": FOLDER}, "benchmarks.mine.path", files={"images/a.txt": "x"}),
    "subset of a folder": case(
        {"benchmarks.mine": FOLDER | {"subset": 3}},
        "benchmarks.mine.subset",
        files={"images/a.png": b"", "images/b.png": b""},
    ),
    "clusters of a folder": case(
        {"benchmarks.mine": FOLDER | {"clusters": 3}},
        "benchmarks.mine.clusters",
        files={"images/a.png": b"", "images/b.png": b""},
    ),
    "archives that are not there": case(
        {"downloads.archives": "nowhere", "benchmarks.cifar10": {}}, "downloads.archives", "nowhere"
    ),
    "tar that is not there": case(
        {"downloads.imagenet": {"tar": "nowhere.tar"}, "benchmarks.imagenet10": {}},
        "downloads.imagenet.tar",
        "nowhere.tar",
    ),
    "folder of ImageNet that is not there": case(
        {"downloads.imagenet": {"folder": "nowhere"}, "benchmarks.imagenet10": {}},
        "downloads.imagenet.folder",
        "nowhere",
    ),
    "tar and folder": case({"downloads.imagenet": {"tar": "a", "folder": "b"}}, "downloads.imagenet"),
    "header without a colon": case(
        {"downloads.imagenet": {"tar": "http://a/b", "accept_terms": True, "header": "x"}}, "downloads.imagenet.header"
    ),
    "width above 96 px": case({"benchmarks.tiny.size": 128}, "methods.", "network", "tiny"),
    "layers above 96 px": case({"benchmarks.tiny.size": 128, "network": {"layers": [1, 1, 1]}}, "network", "layers"),
    "no pool above 96 px": case({"benchmarks.tiny.size": 128, "network": {"pool": False}}, "network", "pool"),
    "features of a backbone that are not what it says": case(
        {"benchmarks.tiny.size": 128, "network": {"backbone": "resnet50_mlp"}}, "network.backbone", "resnet50_mlp"
    ),
    "more parameters than any machine holds": case({"network": {"width": 1024, "layers": [100] * 4}}, "network"),
    "epochs without a step": case({"methods.random.training": {"epochs": 3}}, "methods.random.training.epochs"),
    "a circle": case({"methods.simclr.after": "scan"}, "methods.", ".after"),
    "a circle of like": case({"methods.a": {"like": "b"}, "methods.b": {"like": "a"}}, "methods.", ".like"),
    "option of a set that is not plain": case({"methods.scl.options": {1: 2}}, "methods.scl.options.1"),
    "per_benchmark that is no text": case({"methods.scl.per_benchmark": {1: {}}}, "methods.scl.per_benchmark.1"),
    "training with a key that is no text": case({"training": {1: 2}}, "training.1"),
}


NEAREST = {  # dotted path: value, what is named, what was meant
    "seed": (3, "seed:", "'seeds'"),
    "methods.scl.training.learning_rat": (0.1, "learning_rat:", "'learning_rate'"),
    "methods.scl.options.temperatur": (1.0, "methods.scl.options.temperatur:", "'temperature'"),
    "methods.scl.method": ("scl.scl.SLC", "methods.scl.method:", "'SCL'"),
    "benchmarks.cifar01": ({}, "'cifar01'", "'cifar10'"),
    "protocols": (["jiont"], "protocols[0]:", "'joint'"),
    "methods.scan.after": ("simlcr", "methods.scan.after:", "'simclr'"),
    "methods.scl.augment.view": ([{"blurr": {}}], "methods.scl.augment.view:", "'blur'"),
    "methods.simclr.augment": ({"veiw": []}, "methods.simclr.augment.", "view"),
    "training.learning_rate": ("1e-3", "training.learning_rate:", "1.0e-4"),
    "benchmarks.tiny.clusters": (61, "benchmarks.tiny.clusters:", "60 images"),
    "methods.scl.network.layers": ([1, 1], "methods.scl.network.layers:", "[2, 2, 2, 2]"),
}


def of_spelling():
    for path, (value, *words) in NEAREST.items():
        yield f"meant: {path}", case({path: value}, *words)


def configurations():
    """{name: Case} of everything that is said in one configuration."""
    return dict([*of_types(), *of_ranges(), *of_augmentations(), *of_spelling(), *TOGETHER.items()])
