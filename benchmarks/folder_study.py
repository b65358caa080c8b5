"""The study behind `scl cluster`: one folder of images, one method and its stages, a schedule by the number of images.

What is written here into the settings of config/folder.yaml are facts of the folder and of the device, never labels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from benchmarks.compose import merge, resolve
from benchmarks.datasets.catalog import Downloads, dataset_named
from benchmarks.datasets.dataset import RawDataset, Sources
from benchmarks.datasets.folder import read
from benchmarks.study import Benchmark, MethodBlock, Study, load_study
from scl.config import Network, Training, in_one_line
from scl.engine import gpu_lease
from scl.engine.io import sha256
from scl.util.text import did_you_mean
from scl.util.yaml_file import load_yaml

ROOT = Path(__file__).resolve().parent.parent
METHODS = ("scl", "scan", "selflabel", "simclr", "pica", "kmeans")
BENCHMARK = "images"
REFERENCE = 10_000  # images for which the epochs of config/folder.yaml are meant
EPOCHS = (5, 1_000)  # of a stage, whatever the number of images
NEIGHBORS_PER_CLUSTER = 0.5  # SCAN's neighbors, as a fraction of a cluster of average size
FINE_TUNING = 0.1  # of the learning rate of a first stage that starts from pretrained weights
PLAIN_STEM = 97  # pixels a side: from here on networks have timm's own stem, which pretrained weights need


@dataclass(frozen=True)
class Request:
    """What `scl cluster` is asked for. Numbers that are None follow from the folder and the device."""

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

    @property
    def results(self) -> Path:
        return self.out or Path(f"{self.folder.resolve().name}-clusters")


def images_in(folder: Path) -> Path:
    """The folder, or .npy file, with ~ expanded. Raises ValueError if there is none."""
    path = folder.expanduser()
    if not (path.is_dir() or (path.is_file() and path.suffix == ".npy")):
        raise ValueError(f"{folder}: not a folder of images, nor a .npy file; check the name")
    try:
        str(path.absolute()).encode()  # for study.yaml and summary.json
    except UnicodeEncodeError:
        raise ValueError(f"{folder}: this name is not UTF-8; rename it") from None
    return path


def survey(request: Request) -> tuple[RawDataset, int]:
    """(images of the folder, number of clusters). Raises ValueError naming the option at fault."""
    if request.method not in METHODS:
        raise ValueError(f"--method: unknown {request.method!r}{did_you_mean(request.method, METHODS)}")
    root, out = images_in(request.folder), request.results
    if out.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"--out: {out} is inside the folder of the images; name a folder outside of {root}")
    if out.is_dir() and any(out.iterdir()):
        _refuse_results_of_others(out, root)
    raw = read(dataset_named("folder"), Sources((), root, out / "data", Downloads()))
    classes = len(raw.classes)
    clusters = classes if request.clusters is None else request.clusters
    if clusters < 2:
        found = f"has {classes} class{'es' * (classes > 1)}" if classes else "has no class sub-folders"
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
    if not before.is_absolute():  # which it is where `scl cluster` wrote it
        raise ValueError(f"--out: {out} holds other files; name another folder")
    if before.exists() and not before.samefile(root):
        raise ValueError(f"--out: {out} holds the clusters of {before}; name another folder")


def folder_study(request: Request, *, images: int, clusters: int) -> tuple[Study, dict, str]:
    """(the study, its mapping, its last stage) for a folder of so many images."""
    mapping = resolve(request.config or _settings_of_device(request))
    _check_types(mapping)
    methods = _chain(mapping.get("methods", {}), request)
    size = _size(mapping, request)
    network = mapping.get("network", {})
    if size >= PLAIN_STEM:
        network = {key: network[key] for key in ("backbone",) if key in network}
    if request.weights:
        network, methods = _start_from_weights(methods, request.method, request.weights)
    for block in methods.values():
        block["training"] = _scheduled(mapping.get("training", {}), block.get("training", {}), images, request.epochs)
        if isinstance(neighbors := block.get("options", {}).get("neighbors"), int):
            most = max(1, min(images - 1, int(NEIGHBORS_PER_CLUSTER * images / clusters)))
            block["options"] = block["options"] | {"neighbors": min(neighbors, most)}
    path = str(request.folder.expanduser().absolute())
    mapping |= {
        "title": f"{request.folder.resolve().name}, {clusters} clusters",
        "results": str(request.results),
        "data": str(request.results / "data"),
        "seeds": [request.seed],
        "protocols": ["joint"],
        "reference": None,
        "network": network,
        "benchmarks": {BENCHMARK: {"dataset": "folder", "path": path, "clusters": clusters, "size": size}},
        "methods": methods,
    }
    return load_study(mapping), mapping, list(methods)[-1]


def _check_types(mapping: dict) -> None:
    """Raise ValueError naming the key: what is computed from the settings, before load_study checks all, needs them."""
    blocks = {"benchmarks": dict[str, Benchmark], "methods": dict[str, MethodBlock]}
    parts: dict[str, Any] = {"network": Network, "training": Training, **blocks}
    for part, model in parts.items():
        try:
            TypeAdapter(model).validate_python(mapping.get(part, {}))
        except ValidationError as error:
            raise ValueError(in_one_line(error, part)) from None


def _settings_of_device(request: Request) -> Path:
    import torch  # only its version is asked for: CUDA is not to be touched before the lease

    gpu = request.gpus and torch.version.cuda and gpu_lease.visible()
    path = ROOT / "config" / ("folder.yaml" if gpu else "folder-cpu.yaml")
    if not path.exists():
        raise ValueError(f"{path}: no such file; run scl from a checkout, or give --config FILE")
    return path


def _chain(blocks: dict, request: Request) -> dict[str, dict]:
    """{stage: block} of the requested method and all before it, the first first."""
    if request.method not in blocks:
        raise ValueError(
            f"--config: {request.config}: no method {request.method!r}{did_you_mean(request.method, blocks)}"
        )
    names, stage = list[str](), request.method
    while stage in blocks and stage not in names:  # what is wrong with `after` is said when the study is read
        names.insert(0, stage)
        stage = blocks[stage].get("after")
    return {name: dict(blocks[name]) for name in names}


def _size(mapping: dict, request: Request) -> int:
    """Pixels a side: as asked for, else as in the settings, and larger where weights need it."""
    blocks = [block for block in mapping.get("benchmarks", {}).values() if block]
    usual = blocks[0].get("size") or 64 if blocks else 64
    if not request.weights:
        return usual if request.size is None else request.size
    size = request.size if request.size is not None else max(usual, 224 if request.method == "kmeans" else 128)
    if size < PLAIN_STEM:
        raise ValueError(f"--size: {size} px; pretrained weights need images of {PLAIN_STEM} px or more")
    return size


def _start_from_weights(methods: dict[str, dict], method: str, name: str) -> tuple[dict, dict[str, dict]]:
    """(network, methods) with a stage `pretrained` in front, or in the place of k-means on pixels."""
    from baselines.pretrained import read_weights

    if method == "pica":
        raise ValueError("--weights: pica starts from random weights; choose scl, scan, selflabel, simclr or kmeans")
    weights, file = read_weights(name), Path(name)
    options = {"weights": name}
    if file.is_file():
        options = {"weights": str(file.absolute()), "sha256": sha256(file)}
    first = {
        "method": "baselines.pretrained.Pretrained",
        "title": f"{weights.name} + k-means",
        "note": f"starts from {weights.name}: {weights.labels}",
        "options": options,
    }
    network = {"backbone": weights.backbone}
    if method == "kmeans":
        return network, {"pretrained": first}
    start, block = next(iter(methods.items()))
    rate = block.get("training", {}).get("learning_rate", Training().learning_rate)
    tuned = merge(block, {"after": "pretrained", "training": {"learning_rate": rate * FINE_TUNING}})
    return network, {"pretrained": first, **methods, start: tuned}


def _scheduled(study: dict, own: dict, images: int, epochs: int | None) -> dict:
    """The training settings of a stage with its epochs for so many images: about the same number of steps."""
    if not own.get("epochs"):
        return own
    if epochs is None:
        batch = own.get("batch_size", study.get("batch_size", Training().batch_size))
        steps = own["epochs"] * max(1, REFERENCE // batch)
        least, most = EPOCHS
        epochs = round(min(max(steps / max(1, images // batch), least), most))
    return own | {"epochs": epochs}
