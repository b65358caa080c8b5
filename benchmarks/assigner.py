"""Assign new images to the clusters of a finished run, each with a confidence."""

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.bars import ProgressBar
from benchmarks.datasets.prepare import prepare, read_names
from benchmarks.folder_study import BENCHMARK, images_in
from scl import config, images
from scl.config import RunSettings
from scl.engine import artifacts, precision
from scl.engine.assign import outputs
from scl.engine.io import Damaged, sha256
from scl.engine.prepared import describe
from scl.engine.weights import read_weights
from scl.images import Images
from scl.method import Problem
from scl.util.classes import find_class

MEASURES = {False: "probability of the cluster", True: "simplified silhouette"}


class Assigner:
    """The network of a finished run with its weights, and its cluster centers if they come from k-means."""

    def __init__(self, directory: Path, data: Path | None = None, *, device: str = "cpu"):
        """directory: of the run. data: its prepared benchmark (default: where the run found it). Raises ValueError or
        Damaged if either is incomplete."""
        self.device, self.record = device, artifacts.read_record(directory)
        planned = config.load_run(directory)
        # of the weights: run.yaml and the data may already belong to another command that has not trained yet
        made = self.record.identity
        run = config.read(RunSettings, {**made.settings, "data": planned.data}, str(directory / "record.json"))
        config.check_planned(run)
        run = config.complete(run)
        data = Path(run.data) if data is None else data
        self.facts = facts = describe(data)
        if facts["images_sha256"] != self.record.images_sha256:
            raise ValueError(f"{data}: holds other images than those that {directory} was trained on")
        self.size, self.image_size, self.clusters = facts["size"][0], run.image_size, made.images.clusters
        dtype = precision.choose(run.training.precision, device)
        precision.compute_in(dtype)
        self._autocast = partial(precision.autocast, dtype, device)
        self.method = self._load(directory, run)
        self.by_kmeans = self.method.clusters_by_kmeans
        self.centers = self._centers(directory, data, run) if self.by_kmeans else None

    @property
    def measure(self) -> str:
        """What the confidence is, in words."""
        return MEASURES[self.by_kmeans]

    def _load(self, directory: Path, run):
        roles = self.facts["protocols"][run.protocol]
        counts = {name: stop - start for name, (start, stop) in self.facts["splits"].items()}
        problem = Problem(
            images=sum(counts[name] for name in roles["fit"]),
            unlabeled=0,
            clusters=self.clusters,
            size=self.size,
            epochs=run.training.epochs,
            mean=(0.0,) * 3,  # the weights contain those of the training images
            std=(1.0,) * 3,
        )
        method_class = find_class(run.method)
        options = config.options_of(method_class, run.options, f"{run.stage}.options")
        method = method_class(options, problem, run.network)
        content, _ = read_weights(directory)
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        method.load_state_dict(weights, strict=False)  # weights.pt contains only the tensors of the state
        return method.to(self.device, memory_format=torch.channels_last)

    def _centers(self, directory: Path, data: Path, run) -> np.ndarray:
        """K x D: the mean features of the images that the run assigned to each cluster; NaN where there are none."""
        with np.load(artifacts.assignments_of(directory, self.record)) as file:
            rows, assigned = file["rows"], file["assignments"]
        evaluated = images.load(data, run.protocol, "assign", size=run.image_size, facts=self.facts, device=self.device)
        if not np.array_equal(evaluated.rows, rows):
            raise Damaged(f"{directory}: assigned other images than those in {data}; train the run again")
        features = outputs(self.method, evaluated, autocast=self._autocast)
        centers = np.full((self.clusters, features.shape[1]), np.nan, np.float32)
        for cluster in np.unique(assigned):
            centers[cluster] = features[assigned == cluster].mean(0)
        return centers

    def __call__(self, found: Images, assigned: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(cluster, confidence in [0, 1]) of every image, N each. assigned: their clusters, if known.

        Confidence is the probability of the cluster or, for k-means, the simplified silhouette 1 - a / b: a is the
        distance to the center of the cluster, b that to the nearest other one (Hruschka et al. 2004).
        """
        with ProgressBar("assign", len(found), unit="images") as bar:
            result = outputs(self.method, found, autocast=self._autocast, advance=bar.update)
        if self.centers is None:
            assigned = result.argmax(1) if assigned is None else assigned
            return assigned.astype(np.int64), result[np.arange(len(result)), assigned]
        distances = torch.cdist(torch.from_numpy(result), torch.from_numpy(self.centers)).numpy()  # N x K
        distances = np.where(np.isnan(distances), np.inf, distances)
        assigned = distances.argmin(1) if assigned is None else assigned
        return assigned.astype(np.int64), _silhouettes(distances, assigned)


def _silhouettes(distances: np.ndarray, assigned: np.ndarray) -> np.ndarray:
    rows, others = np.arange(len(distances)), distances.copy()
    others[rows, assigned] = np.inf
    own, nearest = distances[rows, assigned], others.min(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        confidence = np.where(nearest > 0, 1 - own / nearest, 0)
    return np.nan_to_num(confidence).clip(0, 1).astype(np.float32)


def assign_images(assigner: Assigner, folder: Path, temporary: Path) -> tuple[list[str], np.ndarray, np.ndarray, dict]:
    """(names, clusters, confidence, benchmark.json) of the images in `folder`, which are prepared in `temporary`."""
    path = images_in(folder)
    larger = assigner.image_size if assigner.image_size and assigner.facts.get("larger") else None
    prepare(
        folder.name or "images",
        dataset="folder",
        folder=temporary,
        archives=temporary,
        size=assigner.size,
        larger_size=larger,
        clusters=1,
        path=path.absolute(),
    )
    facts = describe(temporary)
    found = images.load(temporary, "joint", "assign", size=larger, facts=facts, device=assigner.device)
    return read_names(temporary), *assigner(found), facts


def run_of(place: Path) -> tuple[Path, Path | None]:
    """(run, its data or None for the path in run.yaml) of a folder that `scl cluster` made, or of a run."""
    if (place / "summary.json").is_file():
        try:
            run = place / json.loads((place / "summary.json").read_bytes())["run"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{place / 'summary.json'}: damaged; give the scl cluster command again") from None
        data = place / "data" / BENCHMARK
        if _half_replaced(place, run, data):
            raise ValueError(
                f"{place}: another scl cluster command was interrupted here; give that command again first"
            )
        return run, data
    if (place / "run.yaml").is_file():
        return place, None
    raise ValueError(f"{place}: not a folder that scl cluster has finished, nor one of a finished run (with run.yaml)")


def _half_replaced(place: Path, run: Path, data: Path) -> bool:
    """Whether the prepared images, the weights or the clusters of the run no longer match the results in `place`."""
    record, weights = artifacts.read_record(run), place / artifacts.WEIGHTS
    try:
        facts = describe(data)
    except Damaged:  # or missing
        return True
    trained_again = weights.is_file() and sha256(weights) != record.files[artifacts.WEIGHTS]
    return trained_again or bool(record.unclustered) or facts["images_sha256"] != record.images_sha256
