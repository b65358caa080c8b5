"""The study behind `scl cluster`: one folder of images, one method and its stages, a schedule by the number of images.

The only changes to the settings of config/folder.yaml depend on the folder and the device, never on labels.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from benchmarks import rules
from benchmarks.check_images import existing
from benchmarks.compose import chain, merge, resolve
from benchmarks.datasets.catalog import Downloads, dataset_named
from benchmarks.datasets.dataset import RawDataset, Sources
from benchmarks.datasets.folder import read
from benchmarks.study import Benchmark, Study, load_study
from scl.config import RunSettings, in_one_line, options_of
from scl.engine import gpu_lease
from scl.engine.io import sha256
from scl.util.classes import find_class
from scl.util.text import did_you_mean, expanded
from scl.util.yaml_file import load_yaml

ROOT = Path(__file__).resolve().parent.parent
METHODS = ("scl", "scan", "selflabel", "simclr", "pica", "kmeans")
BENCHMARK = "images"
REFERENCE = 10_000  # images that the epochs of config/folder.yaml are meant for
EPOCHS = (5, 1_000)  # of a stage, whatever the number of images
MANY_CLUSTERS = 50  # in trials, SCL left 21 of 50 empty after a short SimCLR (docs/lab-notes.md)
NEIGHBORS_PER_CLUSTER = 0.5  # SCAN's neighbors, as a fraction of a cluster of average size
FINE_TUNING = 0.1  # factor of the learning rate of a first stage that starts from pretrained weights
ARRAY = "scl-fit-"  # prefix of the temporary folder of an array that ImageClustering fits
PLAIN_STEM = 97  # pixels per side from which networks have timm's own stem, which pretrained weights need


@dataclass(frozen=True)
class Request:
    """The options of `scl cluster`. Numbers that are None are derived from the folder and the device."""

    folder: Path
    clusters: int | None = None
    method: str = "scl"
    size: int | None = None
    epochs: int | None = None
    seed: int = 0
    out: Path | None = None
    weights: str | None = None
    config: Path | None = None
    gpus: int = 1
    strict: bool = False  # ValueError, before training, if an image cannot be read
    sort: str | None = None  # "links" or "copies": also make sorted/

    @property
    def results(self) -> Path:
        return self.out or Path(f"{self.folder.resolve().name}-clusters")


def images_in(folder: Path) -> Path:
    """`folder`, which may also be a .npy file. Raises ValueError if there is none."""
    if not (folder.is_dir() or (folder.is_file() and folder.suffix == ".npy")):
        raise ValueError(f"{folder}: not a folder of images, nor a .npy file; check the name")
    try:
        str(folder.absolute()).encode()  # for study.yaml and summary.json
    except UnicodeEncodeError:
        raise ValueError(f"{folder}: this name is not UTF-8; rename it") from None
    return folder


def survey(request: Request) -> tuple[RawDataset, int]:
    """(images of the folder, number of clusters). Raises ValueError naming the option at fault."""
    if request.method not in METHODS:
        raise ValueError(f"--method: unknown {request.method!r}{did_you_mean(request.method, METHODS)}")
    root, out = images_in(request.folder), request.results
    if out.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"--out: {out} is inside the folder of the images; name a folder outside of {root}")
    try:
        rules.folder(out)
    except ValueError as error:
        raise ValueError(f"--out: {error}") from None
    place = existing(out)
    if not place.is_dir():
        raise ValueError(f"--out: {place} is a file; name a folder")
    if not os.access(place, os.W_OK):
        raise ValueError(f"--out: no permission to write in {place}; name another folder")
    if out.is_dir() and any(out.iterdir()):
        _refuse_results_of_others(out, root)
    raw = read(dataset_named("folder"), Sources((), root, out / "data", Downloads()))
    classes = len(raw.classes)
    clusters = classes if request.clusters is None else request.clusters
    if clusters < 2:
        found = f"has {classes} classes" if classes else "has no class sub-folders"
        found += f" ({raw.note})" if raw.note else ""
        raise ValueError(f"--clusters: {request.folder} {found}; give the number of clusters, 2 or more")
    if clusters > sum(raw.splits.values()):
        raise ValueError(f"--clusters: {clusters} clusters cannot be found in {sum(raw.splits.values())} images")
    return raw, clusters


def _refuse_results_of_others(out: Path, root: Path) -> None:
    try:
        before = Path(load_yaml(out / "study.yaml")["benchmarks"][BENCHMARK]["path"])
    except (ValueError, KeyError, TypeError):
        before = Path()
    if not before.is_absolute():  # `scl cluster` writes an absolute path
        raise ValueError(f"--out: {out} holds other files; name another folder")
    if before.parent.name.startswith(ARRAY):
        return  # the folder is new in every fit, and one left by a killed process says nothing about the images
    if before.exists() and not before.samefile(root):
        raise ValueError(f"--out: {out} holds the clusters of {before}; name another folder")


def folder_study(request: Request, *, images: int, clusters: int) -> tuple[Study, dict, str]:
    """(the study, its mapping, its last stage) for a folder with this many images, which replaces the first benchmark
    of the settings."""
    folder = {"dataset": "folder", "path": str(request.folder.absolute()), "clusters": clusters}
    mapping = resolve(request.config or _settings_of_device(request)) | {
        "title": f"{request.folder.resolve().name}, {clusters} clusters",
        "results": str(request.results),
        "data": str(request.results / "data"),
        "seeds": [request.seed],
        "protocols": ["joint"],
        "reference": None,
    }
    sizes = _sizes(mapping)
    given = load_study(mapping | {"benchmarks": dict.fromkeys(sizes, folder)})  # checks all methods
    stages = _stages(given, request)
    replaced, usual = next(iter(sizes.items()))
    size = _size(usual, request)
    network = mapping.get("network", {})
    if size >= PLAIN_STEM:
        network = {key: network[key] for key in ("backbone",) if key in network}
    settings = {stage: given.settings(given.run(replaced, "joint", stage, request.seed)) for stage in stages}
    methods = {}
    for stage in stages:
        block = mapping["methods"][stage]
        block = merge(block, block.get("per_benchmark", {}).get(replaced, {}))
        block.pop("per_benchmark", None)
        methods[stage] = merge(block, _scaled(settings[stage], images, clusters, request.epochs))
    if request.weights:
        rate = settings[stages[0]].training.learning_rate
        network, methods = _start_from_weights(methods, rate, request)
    mapping |= {"network": network, "benchmarks": {BENCHMARK: folder | {"size": size}}, "methods": methods}
    return load_study(mapping), mapping, list(methods)[-1]


def _settings_of_device(request: Request) -> Path:
    import torch  # only for its version: CUDA must not be touched before the lease

    gpu = request.gpus and torch.version.cuda and gpu_lease.visible()
    path = ROOT / "config" / ("folder.yaml" if gpu else "folder-cpu.yaml")
    if not path.exists():  # not a part of the package
        raise ValueError(f"{path}: no such file; run scl from a checkout, or give --config FILE")
    return path


def _sizes(mapping: dict) -> dict[str, int]:
    """{benchmark of the settings: its pixels per side}; the folder replaces the first."""
    try:
        blocks = TypeAdapter(dict[str, Benchmark]).validate_python(mapping.get("benchmarks", {}))
    except ValidationError as error:
        raise ValueError(in_one_line(error, "benchmarks")) from None
    return {name: block.size or 64 for name, block in blocks.items()} or {BENCHMARK: 64}


def _stages(given: Study, request: Request) -> list[str]:
    """The requested method and all stages before it, upstream first."""
    if request.method not in given.methods:
        raise ValueError(
            f"--config: {request.config}: no method {request.method!r}{did_you_mean(request.method, given.methods)}"
        )
    return chain({name: block.after for name, block in given.methods.items()}, request.method, "after")[::-1]


def _size(usual: int, request: Request) -> int:
    """Pixels per side: as requested, else as in the settings, but larger where weights need it."""
    size = request.size
    if size is None:
        size = max(usual, 224 if request.method == "kmeans" else 128) if request.weights else usual
    if request.weights and size < PLAIN_STEM:
        raise ValueError(f"--size: {size} px; pretrained weights need images of {PLAIN_STEM} px or more")
    return size


def _start_from_weights(methods: dict[str, dict], rate: float, request: Request) -> tuple[dict, dict[str, dict]]:
    """(network, methods) with a stage `pretrained` first, or instead of k-means on pixels. rate: the learning rate of
    the first stage without weights."""
    from baselines.pretrained import read_weights

    if request.method == "pica":
        raise ValueError("--weights: pica starts from random weights; choose scl, scan, selflabel, simclr or kmeans")
    file = expanded(str(request.weights))
    weights, options = read_weights(str(file)), {"weights": str(file)}
    if file.is_file():
        options = {"weights": str(file.absolute()), "sha256": sha256(file)}
    first = {
        "method": "baselines.pretrained.Pretrained",
        "title": f"{weights.name} + k-means",
        "note": f"starts from {weights.name}: {weights.labels}",
        "options": options,
    }
    network = {"backbone": weights.backbone}
    if request.method == "kmeans":
        return network, {"pretrained": first}
    start, block = next(iter(methods.items()))
    tuned = merge(block, {"after": "pretrained", "training": {"learning_rate": rate * FINE_TUNING}})
    return network, {"pretrained": first, **methods, start: tuned}


def _scaled(settings: RunSettings, images: int, clusters: int, epochs: int | None) -> dict:
    """The changed settings of a stage: its epochs, for about the same number of steps with this many images, no more
    neighbors than a cluster has, and SCL's options for many clusters, unless the settings have them."""
    from scl.scl import SCL  # imports torch

    changes: dict[str, dict] = {}
    training = settings.training
    if training.epochs:
        if epochs is None:
            steps = training.epochs * max(1, REFERENCE // training.batch_size)
            least, most = EPOCHS
            epochs = round(min(max(steps / max(1, images // training.batch_size), least), most))
        changes["training"] = {"epochs": epochs}
    where = f"methods.{settings.stage}"
    method = find_class(settings.method, f"{where}.method")
    options = options_of(method, settings.options, f"{where}.options")
    neighbors = getattr(options, "neighbors", None)
    if isinstance(neighbors, int):
        few = max(1, min(images - 1, int(NEIGHBORS_PER_CLUSTER * images / clusters)))
        changes["options"] = {"neighbors": min(neighbors, few)}
    if clusters >= MANY_CLUSTERS and issubclass(method, SCL):
        many = {"consistency": "means", "balance_weight": round(2 * math.log10(clusters), 2)}
        changes.setdefault("options", {}).update(
            (name, value) for name, value in many.items() if name not in settings.options
        )
    return changes
