"""The table of bad configurations: {name: Case}, with the words that the one line must contain.

Data only: tests/test_bad_input_cli.py runs it. The words are keys and file names, so that messages can be reworded.
"""

import copy
from dataclasses import dataclass

import yaml
from conftest import TINY_METHODS
from flow import TINY

GOOD = TINY | {"methods": {name: TINY_METHODS[name] for name in ("random", "simclr", "scan", "pica", "scl")}}
RANDOM = TINY_METHODS["random"]
NAN, INFINITE, HUGE = float("nan"), float("inf"), 10**400
CIFAR10 = "cifar-10-python.tar.gz"


@dataclass(frozen=True)
class Case:
    """files: {name: text, bytes, or None for a folder}; words: expected in the message; command: arguments of `scl`."""

    files: dict
    words: tuple[str, ...] = ()
    command: tuple[str, ...] = ("plan", "study.yaml")


def put(mapping, path, value):
    """Return a copy of `mapping` with `value` at the dotted path."""
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


class _Plain(yaml.CSafeDumper):
    def ignore_aliases(self, data):
        return True


# --- types: every key with a value of another type ---------------------------------------------------------------

# One model reads all keys (scl.config.Settings), so the first key of each type is tried with all values, the others
# only with the first.
OF_TYPE = {  # type: (values that are refused, dotted paths)
    "integer": (
        (True, 1.5, "3", [3], {"a": 1}, HUGE),
        "benchmarks.tiny.size benchmarks.tiny.subset benchmarks.tiny.clusters benchmarks.tiny.larger_size "
        "methods.scl.network.width methods.scl.network.pool_padding methods.scl.training.epochs "
        "methods.scl.training.batch_size methods.scl.training.curve_points methods.scl.options.projection "
        "machine.threads machine.runs_per_gpu downloads.imagenet.images_per_class",
    ),
    "number": (
        ("0.1", True, [0.1], {"a": 1}, NAN, INFINITE, HUGE),
        "methods.scl.training.learning_rate methods.scl.training.final_learning_rate methods.scl.training.momentum "
        "methods.scl.training.weight_decay methods.scl.options.temperature machine.checkpoint_seconds "
        "downloads.timeout",
    ),
    "flag": (
        (1, "yes", [True], {"a": 1}),
        "machine.require_gpu machine.tensorboard methods.scl.network.pool methods.scl.training.compile "
        "methods.scl.options.projection_norm downloads.imagenet.accept_terms",
    ),
    "text": (
        (5, True, ["a"], {"a": 1}),
        "results data title reference benchmarks.tiny.dataset benchmarks.tiny.path methods.scl.method "
        "methods.scl.title methods.scl.after methods.scl.like methods.scl.origin methods.scl.note "
        "methods.scl.network.backbone methods.scl.network.initialization methods.scl.training.optimizer "
        "methods.scl.training.schedule methods.scl.training.precision methods.scl.options.consistency "
        "downloads.archives downloads.imagenet.tar extends",
    ),
    "list": ((5, "joint", {"a": 1}, True), "protocols benchmarks.tiny.protocols methods.scl.network.layers"),
    "mapping": (
        ("text", 5, [1], True),
        "benchmarks benchmarks.tiny methods methods.scl methods.scl.network methods.scl.training methods.scl.options "
        "methods.scl.augment methods.scl.per_benchmark network training downloads downloads.mirrors "
        "downloads.checksums downloads.imagenet machine",
    ),
}
NULL = (  # where null is refused, too
    "results data title seeds protocols benchmarks methods network training downloads machine methods.scl.method "
    "methods.scl.like methods.scl.origin methods.scl.network methods.scl.options methods.scl.per_benchmark "
    "methods.scl.network.width methods.scl.training.epochs methods.scl.training.learning_rate "
    "methods.scl.training.compile methods.scl.options.temperature machine.runs_per_gpu"
)
OTHERS = {
    "seeds": (True, 1.5, "3", {"a": 1}, [1.5], [True], ["0"], [[0]], [None], HUGE, [HUGE]),
    "protocols": ([1], [None], [["joint"]]),
    "methods.scl.per_benchmark": ({"tiny": 5},),
    "methods.scl.network.layers": ([1.5, 1, 1], [True, 1, 1], [[1], 1, 1], ["1", 1, 1], [None, 1, 1]),
    "methods.scl.network.initialization": ("pica",),
    "methods.scl.training.optimizer": ("lars",),
    "methods.scl.training.schedule": ("step",),
    "methods.scl.training.precision": ("fp8",),
    "methods.scl.options.consistency": ("both",),
}


def of_types():
    refused = [(path, None) for path in NULL.split()]
    for values, paths in OF_TYPE.values():
        first, *others = paths.split()
        refused += [(first, value) for value in values] + [(path, values[0]) for path in others]
    refused += [(path, value) for path, values in OTHERS.items() for value in values]
    for path, value in refused:
        yield f"{path}: {value!r:.30}", case({path: value}, path)


# --- values out of range, and values that do not fit together ----------------------------------------------------

RANGES = {
    "results": ("", " ", "-rf", "results/{a}", "a\0b", "a\nb", "..", "~/results", "r" * 300, "study.yaml/below"),
    "data": ("-data", "study.yaml"),
    "seeds": (0, -1, [], [-1], [1, 1], 10**12, 10**6, [2**70], 2**63),
    "protocols": ([], ["jiont"], ["joint", "joint"], [""]),
    "reference": ("sccl",),
    "benchmarks": (
        *({name: {"dataset": "digits"}} for name in ("Tiny", "a/b", "-rf", "", "a b", 1, "t" * 300, "archives", "..")),
        *({}, {"tiny": None}, {"cifar01": {}}),
    ),
    "benchmarks.tiny.dataset": ("cifar01", "", "Digits"),
    "benchmarks.tiny.size": (0, -8, 7, 4096, 10**9),
    "benchmarks.tiny.subset": (0, 1, -1, 1798, 10**9),
    "benchmarks.tiny.larger_size": (0, 7, 8, 4096),
    "benchmarks.tiny.clusters": (0, 1, -1, 61, 10**9),
    "benchmarks.tiny.protocols": ([], ["jiont"], ["joint"] * 2),
    "benchmarks.tiny.sise": (8,),
    "methods": ({}, {"random": None}, {"a/b": RANDOM}, {True: RANDOM}),
    "methods.scl.after": ("simlcr", "scl", ""),
    "methods.scl.like": ("simlcr", "scl", ""),
    "methods.scl.trainig": ({"epochs": 1},),
    "methods.scl.per_benchmark": (
        {"tinny": {}},
        *({"tiny": block} for block in ({"trainig": {}}, {"training": 5}, {"after": "simclr"}, {"per_benchmark": {}})),
    ),
    "methods.scl.network.width": (0, 4, 12, 10**9),
    "methods.scl.network.backbone": ("", "resnet19", "vgg16", "resnetv2_50", "resnet32ts", "resnet51q", "resnet\n18"),
    "methods.scl.network.layers": ([], [1], [1, 1], [1] * 5, [0, 1, 1], [-1, 1, 1], [100000, 1, 1, 1], [10**9] * 4),
    "methods.scl.network.pool_padding": (-1, 2, 10**9),
    "methods.scl.training.epochs": (0, -1, 10**9),
    "methods.scl.training.batch_size": (0, 1, -4, 10**9),
    "methods.scl.training.curve_points": (0, -1, 10**9),
    "methods.scl.training.learning_rate": (-0.1, 1e300, 1e39),
    "methods.scl.training.momentum": (-0.9, -1e-9, 1.0, 1.5),
    "methods.scl.training.final_learning_rate": (-0.1, 1e300),
    "methods.scl.training.weight_decay": (-1.0, 1e300),
    "methods.scl.options.temperature": (0.0, 0.01, -1.0, 1e-300, 1e300),
    "methods.scl.options.memory_momentum": (-0.5, 1.0, 1.5),
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
    "downloads.mirrors": ({"nothing.zip": []}, *({CIFAR10: urls} for urls in ("http://a/b", ["ftp://a/b"], []))),
    "downloads.checksums": ({"nothing.zip": {}}, {CIFAR10: {"md5": "0"}}, {CIFAR10: {"crc": "0"}}),
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
    """Words that the message must contain: the key, without anything that belongs to the value."""
    if path in ("benchmarks", "methods") and value:
        ((name, block),) = value.items()
        return (path,) if block is None else (f"{path}.{name}"[:30],)
    if path in ("methods.scl.like", "methods.scl.after"):
        return ("methods.", path.rpartition(".")[2])
    return (path,)


# --- augmentations -----------------------------------------------------------------------------------------------

AUGMENTATIONS = {  # operation: arguments that are refused
    "flip": (*({"probability": value} for value in (1.5, -0.1, True)), {"probabilty": 1.0}, 5, 0, "", False, [0.5]),
    "random_resized_crop": (
        *({"scale": value} for value in ([0.2], [1.0, 0.2], [0.0, 1.0], [1.0, 1e300], 0.2, [[0.2], 1.0], [NAN, 1.0])),
        *({"size": value} for value in (0, -8, 10**9, 8.0)),
        {"ratio": [1e-300, 1e300]},
    ),
    "resize": ({"size": 0}, {"size": 10**9}, {"size": 8.0}, {"side": 8}),
    "random_crop": (
        *({"size": value} for value in (9, 0, -3)),
        *({"padding": value} for value in (-1, 10**9, 1.5)),
        {"padding": 10**9, "size": 10**9},
    ),
    "affine": (
        *({"degrees": value} for value in (-1, 1e300, "5")),
        *({"translate": value} for value in (-0.1, 1e300)),
        *({"scale": value} for value in ([0.0, 1.0], [1e-300, 1e300], [2.0, 1.0])),
        {"shear": 1e300},
    ),
    "color_jitter": ({"hue": 0.6}, {"contrast": -1}, {"brightness": 1e300}, {"saturation": [0.5]}, {"probability": 2}),
    "grayscale": ({"probability": 2}, {"probability": None}),
    "blur": (
        *({"kernel": value} for value in (4, 0, -3, 17, 10**9 + 1, 3.0)),
        *({"sigma": value} for value in ([2.0, 0.1], [0.0, 1.0], [1e-300, 1e300])),
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
TWO = {"images/a.png": b"", "images/b.png": b""}
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
    "as many neighbors as images": case({"methods.scan.options": {"neighbors": 60}}, "methods.scan.options.neighbors"),
    "no clusters": case(
        {"benchmarks.mine": {"dataset": "folder", "path": "images"}}, "benchmarks.mine.clusters", files=TWO
    ),
    "no path": case({"benchmarks.mine": FOLDER | {"path": None}}, "benchmarks.mine.path"),
    "folder that is not there": case({"benchmarks.mine": FOLDER}, "benchmarks.mine.path", "images"),
    "folder that is a file": case({"benchmarks.mine": FOLDER}, "benchmarks.mine.path", "images", files={"images": "x"}),
    "folder that is empty": case({"benchmarks.mine": FOLDER}, "benchmarks.mine.path", "images", files={"images": None}),
    "folder without images": case({"benchmarks.mine": FOLDER}, "benchmarks.mine.path", files={"images/a.txt": "x"}),
    "subset of a folder": case({"benchmarks.mine": FOLDER | {"subset": 3}}, "benchmarks.mine.subset", files=TWO),
    "clusters of a folder": case({"benchmarks.mine": FOLDER | {"clusters": 3}}, "benchmarks.mine.clusters", files=TWO),
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


NEAREST = {  # dotted path: value, name in the message, name suggested
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
    """{name: Case} for everything that a single configuration states."""
    return dict([*of_types(), *of_ranges(), *of_augmentations(), *of_spelling(), *TOGETHER.items()])
