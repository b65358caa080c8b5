"""clusters.json: what a run's page shows about its clusters, and the gallery and map made from it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import flip_a_bit

from benchmarks.evaluation import clusters as module
from benchmarks.evaluation.clusters import FILE, GRID, ITERATIONS, Clusters, agreement, clusters_of, map_of
from benchmarks.evaluation.evaluate import evaluate_run
from benchmarks.report.charts import COLORS, scatter
from benchmarks.report.gallery import gallery
from benchmarks.report.run_page import read_clusters
from benchmarks.report.styles import COLORS as METHOD_COLORS
from benchmarks.state import Metrics
from scl.engine.artifacts import SAMPLE, read
from scl.engine.io import Damaged

ROWS = 12


def arrays_of(**changed):
    """Twelve images in two of three clusters; confidence decreases with the row."""
    return {
        "rows": np.arange(ROWS),
        "assignments": np.repeat([0, 2], 6),
        "confidence": np.linspace(1, 0.5, ROWS),
    } | changed


def data_of(**changed):
    """Labels: two images are in the wrong cluster, and one has no label."""
    labels = np.array([1, 1, 1, 1, 0, 1, 0, 0, 0, 1, 0, -1])
    return clusters_of(arrays_of(), 3, **({"labels": labels, "classes": ["cat", "dog"]} | changed))


def images_of(size=48):
    return np.random.default_rng(0).integers(0, 256, (ROWS, size, size, 3), dtype=np.uint8)


def test_a_gallery_shows_extremes_and_errors():
    found, size = gallery(data_of(), images_of(), 10**6)
    assert [(c.number, c.size, c.match) for c in found] == [(0, 6, "dog"), (1, 0, ""), (2, 6, "cat")]
    lines = {line.kind: line.names for line in found[0].lines}
    assert lines["most confident"][0] == "row 0 (dog)" and lines["misassigned"] == ["row 4 (cat)"]
    assert found[1].source is None and size < 10**6
    assert {line.kind: line.names for line in found[2].lines}["misassigned"] == ["row 9 (dog)"]


def test_a_gallery_without_confidence_and_labels_is_in_the_order_of_the_data():
    names = [f"<{i}>.jpg" for i in range(ROWS)]
    found = clusters_of(arrays_of(confidence=np.empty(0)), 3, names=names)
    assert [(line.kind, line.rows, line.names) for line in found.shown[0]] == [
        ("first images", list(range(6)), names[:6])
    ]
    assert found.mean_confidence is None and found.confusion == [] and found.match == [-1] * 3


@pytest.mark.parametrize("budget", [30_000, 8_000, 1_000, 0])
def test_a_gallery_keeps_to_its_budget(budget):
    found, size = gallery(data_of(), images_of(64), budget)
    assert sum(len(cluster.source or "") for cluster in found) <= size <= budget


def test_many_clusters_show_fewer_images_each():
    arrays = arrays_of(rows=np.arange(4000), assignments=np.arange(4000) % 200, confidence=np.ones(4000))
    found = clusters_of(arrays, 200)
    assert {len(line.rows) for lines in found.shown for line in lines} == {module.LEAST_SHOWN}
    assert max(len(line.rows) for lines in data_of().shown for line in lines) == 6


def test_a_confusion_matrix_may_be_rectangular():
    data = data_of()
    assert data.confusion == [[1, 5], [0, 0], [4, 1]] and data.match == [1, -1, 0]


def test_agreement_is_the_mean_over_pairs():
    one, other = np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0])
    assert agreement([one, other]) == {"ARI": 1.0, "NMI": 1.0}
    third = np.array([0, 1, 0, 1])
    assert agreement([one, other, third])["ARI"] == pytest.approx((1 - 0.5 - 0.5) / 3)
    assert agreement([one]) == {}


# ---- the map ---------------------------------------------------------------------------------------------


def sample_of(count=60, dimensions=16, seed=0):
    """(rows, features, arrays): two well-separated groups of images from a data set of twice the size."""
    rng = np.random.default_rng(seed)
    rows = np.arange(count) * 2
    side = np.arange(count) % 2
    features = (rng.normal(size=(count, dimensions)) + 20 * side[:, None]).astype(np.float16)
    arrays = {"rows": np.arange(2 * count), "assignments": np.arange(2 * count) // 2 % 2, "confidence": np.empty(0)}
    return rows, features, arrays


def test_a_map_separates_what_the_features_separate(monkeypatch):
    monkeypatch.setattr("benchmarks.evaluation.clusters.ITERATIONS", ITERATIONS)
    rows, features, arrays = sample_of()
    found = map_of(rows, features, arrays, None)
    points, clusters = np.array([found.x, found.y]).T, np.array(found.clusters)
    assert points.min() == 0 and points.max() == GRID - 1 and found.labels == []
    centers = np.stack([points[clusters == k].mean(axis=0) for k in (0, 1)])
    nearest = np.linalg.norm(points[:, None] - centers, axis=2).argmin(axis=1)
    assert np.array_equal(nearest, clusters)


def test_a_map_is_the_same_each_time():
    assert map_of(*sample_of(), None) == map_of(*sample_of(), None)


def test_a_map_has_the_clusters_and_labels_of_its_images():
    rows, features, arrays = sample_of()
    labels = np.where(np.arange(len(arrays["rows"])) % 4 == 0, -1, np.arange(len(arrays["rows"])) % 3)
    found = map_of(rows, features, arrays, labels)
    assert found.labels == labels[rows].tolist() and found.clusters == arrays["assignments"][rows].tolist()


@pytest.mark.parametrize("features", [np.ones((60, 4)), np.full((60, 4), np.inf), np.eye(60)[:, :0]])
def test_features_without_differences_give_no_map(features):
    rows, _, arrays = sample_of()
    assert map_of(rows, features.astype(np.float16), arrays, None) is None


def test_one_feature_is_enough_for_a_map():
    rows, features, arrays = sample_of(dimensions=1)
    assert len(map_of(rows, features, arrays, None).x) == 60


def test_every_image_of_a_map_is_drawn_once_with_its_cluster_and_class():
    data = data_of()
    data.map = module.Map(x=[0, 1, 2, 999], y=[5, 6, 7, 8], clusters=[0, 0, 2, 2], labels=[1, 0, -1, 0])
    svg = scatter(data)
    drawn = re.findall(r'data-k="(\d+)" data-c="(-?\d+)" d="M(\d+) (\d+)h0"', svg)
    assert sorted(drawn) == sorted(
        [("0", "1", "0", "5"), ("0", "0", "1", "6"), ("2", "-1", "2", "7"), ("2", "0", "999", "8")]
    )
    assert "<title>cluster 0, dog</title>" in svg and "<title>cluster 2</title>" in svg
    assert scatter(data_of()) is None


# ---- the file --------------------------------------------------------------------------------------------


@pytest.fixture
def run(tiny_study, train_all):
    (run,) = train_all(tiny_study("kmeans", seeds=(0,)))
    return run


@pytest.fixture
def data(digits):
    return digits / "tiny-digits"


def test_an_evaluated_run_has_its_clusters(run, data):
    evaluate_run(run.directory, data)
    found = read(run.directory / FILE, Clusters)
    scores = json.loads((run.directory / "metrics.json").read_text())["scores"]
    matched = sum(found.confusion[cluster][label] for cluster, label in enumerate(found.match))
    assert matched / sum(found.sizes) == pytest.approx(scores["acc"])
    assert found.used == scores["clusters_used"] and found.map is None
    assert Path(run.directory / FILE).stat().st_size < 30_000


def test_features_that_training_kept_become_a_map(tiny_study, train_all, data):
    """If they are damaged, there is no map, and the scores stay the same."""
    (run,) = train_all(tiny_study("scl", seeds=(0,)))
    evaluate_run(run.directory, data)
    metrics, found = (run.directory / "metrics.json").read_bytes(), read(run.directory / FILE, Clusters)
    with np.load(run.directory / SAMPLE) as file:
        rows = file["sample_rows"]
    assert found.map.labels == np.load(data / "labels.npy")[rows].tolist()
    flip_a_bit(run.directory / SAMPLE)
    evaluate_run(run.directory, data)
    assert read(run.directory / FILE, Clusters) == found.model_copy(update={"map": None})
    assert (run.directory / "metrics.json").read_bytes() == metrics


def test_clusters_of_a_run_are_those_of_its_metrics(run, data):
    """The metrics are sufficient: images, labels, and assignments may be gone."""
    metrics = read(evaluate_run(run.directory, data), Metrics)
    (run.directory / "assignments.npz").unlink()
    assert sum(read_clusters(run.directory, metrics).sizes) == 200
    of_another = metrics.model_copy(update={"of": metrics.of.model_copy(update={"evaluator": 0})})
    with pytest.raises(ValueError, match="of another evaluation"):
        read_clusters(run.directory, of_another)
    (run.directory / FILE).unlink()
    with pytest.raises(ValueError, match="clusters.json is missing"):
        read_clusters(run.directory, metrics)


@pytest.mark.parametrize(
    "changed",
    [
        {"sizes": [6, 6]},
        {"match": [1, -1, 2]},
        {"confusion": [[1], [2], [3]]},
        {"shown": []},
        {"map": {"x": [1], "y": [1, 2], "clusters": [0], "labels": []}},
        {"map": {"x": [1], "y": [1], "clusters": [3], "labels": []}},
        {"map": {"x": [1], "y": [1], "clusters": [0], "labels": [2]}},
    ],
)
def test_a_file_that_contradicts_itself_is_damaged(tmp_path, changed):
    """A report would otherwise fail with an IndexError."""
    whole = data_of().model_dump()
    (tmp_path / FILE).write_text(json.dumps(whole))
    assert read(tmp_path / FILE, Clusters) == data_of()
    (tmp_path / FILE).write_text(json.dumps(whole | changed))
    with pytest.raises(Damaged):
        read(tmp_path / FILE, Clusters)


# ---- colors ----------------------------------------------------------------------------------------------


def luminance(color):
    values = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colors_of_text_and_dots_have_the_contrast_of_wcag_aa(scheme):
    """4.5 for text, also on shaded rows, and 3 for dots, lines, and markers (WCAG 2.2, 1.4.3 and 1.4.11)."""
    css = (Path(module.__file__).parents[1] / "report" / "templates" / "page.css").read_text()
    colors = dict(re.findall(r"--(\w+): (#\w{6})", re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme]))
    for name in ("ink", "soft", "link"):
        assert min(contrast(colors[name], colors[back]) for back in ("paper", "wash")) >= 4.5, name
    for name in [f"m{i}" for i in range(COLORS)] + ["s0", "s1", "s2"]:
        assert contrast(colors[name], colors["paper"]) >= 3, name
    assert len({colors[f"m{i}"] for i in range(COLORS)}) == COLORS
    assert min(contrast(color, colors["paper"]) for color in METHOD_COLORS) >= 3
