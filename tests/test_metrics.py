"""Metrics against brute force and cases worked by hand; evaluation of a run's files."""

import itertools
import json

import numpy as np
import pytest

from benchmarks.evaluation.evaluate import evaluate_run
from benchmarks.evaluation.metrics import clustering_scores, matched_accuracy, neighbour_purity
from scl.identity import fingerprint
from scl.record import Damaged, sha256


def accuracy_over_all_matchings(labels, assignments, classes, clusters):
    """Every one-to-one map of the smaller side into the larger; no matching algorithm."""
    best = 0
    if clusters <= classes:
        for image_of in itertools.permutations(range(classes), clusters):
            best = max(best, sum(image_of[a] == y for a, y in zip(assignments, labels)))
    else:
        for image_of in itertools.permutations(range(clusters), classes):
            best = max(best, sum(image_of[y] == a for a, y in zip(assignments, labels)))
    return best / len(labels)


@pytest.mark.parametrize("classes, clusters", [(2, 2), (4, 4), (5, 3), (3, 5), (6, 6), (1, 4), (4, 1)])
def test_accuracy_is_the_best_over_all_matchings(classes, clusters):
    generator = np.random.default_rng(classes * 10 + clusters)
    for count in (1, 7, 60):
        labels = generator.integers(classes, size=count)
        assignments = generator.integers(clusters, size=count)
        expected = accuracy_over_all_matchings(labels, assignments, classes, clusters)
        assert clustering_scores(labels, assignments, clusters=clusters)["acc"] == pytest.approx(expected)


def test_scores_of_a_case_worked_by_hand():
    # clusters {0: 2 of class 0, 1: 1 of class 0 and 3 of class 1}: 5 of 6 matched
    labels, assignments = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]
    scores = clustering_scores(labels, assignments)
    assert scores["acc"] == pytest.approx(5 / 6)
    entropy_y = np.log(2)
    entropy_a = -(2 / 6 * np.log(2 / 6) + 4 / 6 * np.log(4 / 6))
    joint = -(2 / 6 * np.log(2 / 6) + 1 / 6 * np.log(1 / 6) + 3 / 6 * np.log(3 / 6))
    information = entropy_y + entropy_a - joint
    assert scores["nmi"] == pytest.approx(information / ((entropy_y + entropy_a) / 2))
    assert scores["nmi_geometric"] == pytest.approx(information / np.sqrt(entropy_y * entropy_a))
    # pairs: together in both 1 + 3 = 4; in labels 6; in clusters 1 + 6 = 7; of 15
    expected = 6 * 7 / 15
    assert scores["ari"] == pytest.approx((4 - expected) / ((6 + 7) / 2 - expected))
    assert (scores["clusters_used"], scores["largest_share"]) == (2, pytest.approx(4 / 6))
    assert scores["mean_confidence"] is None


def test_information_and_pairs_are_those_of_scikit_learn():
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    generator = np.random.default_rng(0)
    for case in range(300):
        count, classes, clusters = generator.integers(1, [200, 12, 12])
        labels, other = generator.integers(classes, size=count), generator.integers(clusters, size=count)
        assignments = [other, np.where(generator.random(count) < 0.7, labels, other), labels, np.arange(count)][case % 4]
        scores = clustering_scores(labels, assignments)
        assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(labels, assignments), abs=1e-9)
        geometric = normalized_mutual_info_score(labels, assignments, average_method="geometric")
        assert scores["nmi_geometric"] == pytest.approx(geometric, abs=1e-9)
        assert scores["ari"] == pytest.approx(adjusted_rand_score(labels, assignments), abs=1e-9)


def test_names_of_clusters_and_classes_do_not_matter():
    labels = np.repeat([0, 1, 2], [5, 9, 4])
    scores = clustering_scores(labels + 40, (labels + 1) % 3)
    assert (scores["acc"], scores["nmi"], scores["ari"]) == pytest.approx((1, 1, 1))


def test_empty_clusters_count_in_the_smallest_share_only():
    labels, assignments = [0, 0, 1, 1], [0, 0, 3, 3]
    scores = clustering_scores(labels, assignments, clusters=6)
    assert scores["acc"] == 1
    assert (scores["clusters_used"], scores["smallest_share"], scores["largest_share"]) == (2, 0, 0.5)
    full = clustering_scores(labels, [0, 0, 1, 1], clusters=2)
    assert full["smallest_share"] == 0.5
    alone = clustering_scores(labels, [0, 1, 1, 1], clusters=3)  # a cluster of one image is not empty
    assert (alone["clusters_used"], alone["largest_share"]) == (2, 0.75)


def test_one_cluster_scores_the_largest_class_and_no_information():
    scores = clustering_scores([0, 0, 0, 1], [2, 2, 2, 2], clusters=3)
    assert (scores["acc"], scores["nmi"], scores["ari"]) == pytest.approx((0.75, 0, 0))


def test_independent_clusters_have_no_information_exactly():
    labels, assignments = [0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]
    scores = clustering_scores(labels, assignments)
    assert (scores["nmi"], scores["nmi_geometric"]) == (0, 0) and scores["ari"] < 0


def test_one_image_in_one_cluster_is_perfect():
    scores = clustering_scores([3], [0])
    assert (scores["acc"], scores["nmi"], scores["nmi_geometric"], scores["ari"]) == (1, 1, 1, 1)


def test_a_class_alone_in_many_clusters_has_no_information():
    scores = clustering_scores([0, 0, 0], [0, 1, 1])
    assert (scores["nmi"], scores["nmi_geometric"]) == (0, 0)


def test_confidence_is_averaged():
    assert clustering_scores([0, 1], [0, 1], confidence=[0.5, 1.0])["mean_confidence"] == pytest.approx(0.75)


def test_two_hundred_clusters_of_many_images_are_matched():
    labels = np.random.default_rng(0).integers(200, size=20_000)
    shuffled = np.random.default_rng(1).permutation(200)[labels]
    assert matched_accuracy(labels, shuffled) == 1


@pytest.mark.parametrize(
    "labels, assignments, options, words",
    [
        ([0, 1], [0], {}, "2 labels for 1 assignments"),
        ([], [], {}, "no image"),
        ([0, -1], [0, 1], {}, "1 of 2 images have no label"),
        ([0, -1, -3], [0, 1, 1], {}, "2 of 3 images have no label"),
        ([0, 1], [0, -1], {}, "cluster -1 is negative"),
        ([0, 1], [0, 5], {"clusters": 3}, r"cluster 5, but there are only 3 clusters \(0\.\.2\)"),
        ([0, 1], [0, 3], {"clusters": 3}, r"cluster 3, but there are only 3 clusters"),
        ([0, 1], [0.0, 1.0], {}, "integers, not float64"),
        ([[0], [1]], [0, 1], {}, "labels must be one number an image"),
        ([0, 1], [0, 1], {"confidence": [0.5]}, "confidence must be 2 values"),
    ],
)
def test_what_cannot_be_scored_is_refused(labels, assignments, options, words):
    with pytest.raises(ValueError, match=words):
        clustering_scores(labels, assignments, **options)


def test_neighbour_purity_leaves_out_the_image_itself_and_the_unlabelled():
    labels = np.array([0, 0, 1, 1, -1])
    rows = np.array([0, 2, 4])
    neighbours = np.array([[0, 1, 2], [2, 3, 4], [4, 0, 1]])  # counted: 0-1 yes, 0-2 no, 2-3 yes
    assert neighbour_purity(labels, neighbours, rows) == pytest.approx(2 / 3)
    assert neighbour_purity(labels, [[4, 2]], [2]) is None
    for neighbours, rows, words in [([[5]], [0], "neighbours point outside the 5 images"),
                                    ([[-1]], [0], "neighbours point"), ([[0]], [-1], "rows point"),
                                    ([[0]], [5], "rows point outside the 5 images")]:
        with pytest.raises(ValueError, match=words):
            neighbour_purity(labels, neighbours, rows)
    for neighbours in ([[1]], [1, 2], [[[1]], [[2]]]):
        with pytest.raises(ValueError, match="2 x k"):
            neighbour_purity(labels, neighbours, [0, 1])
    assert neighbour_purity(labels, np.empty((0, 3), int), np.empty(0, int)) is None


# ---- evaluate_run ----------------------------------------------------------------------------------------

LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2], dtype=np.int64)


def prepared(folder, labels=LABELS):
    folder.mkdir(parents=True)
    benchmark = {
        "name": "toy",
        "count": 8,
        "clusters": 3,
        "classes": ["a", "b", "c"],
        "images_sha256": "11",
        "splits": {"train": [0, 6], "test": [6, 8]},
        "protocols": {"joint": {"assign": ["train", "test"]}, "heldout": {"assign": ["test"]}},
    }
    if labels is not None:
        np.save(folder / "labels.npy", labels)
        benchmark["labels_sha256"] = sha256(folder / "labels.npy")
    else:
        benchmark["classes"] = None
    (folder / "benchmark.json").write_text(json.dumps(benchmark))
    return folder


def trained(folder, *, protocol="joint", images_sha256="11", **changed):
    folder.mkdir(parents=True)
    rows = np.arange(8) if protocol == "joint" else np.array([6, 7])
    per_epoch = np.array([LABELS, [0, 0, 0, 0, 1, 1, 2, 2]], dtype=np.int16)[:, rows]
    arrays = {
        "rows": rows,
        "assignments": per_epoch[-1].astype(np.int64),
        "confidence": np.full(len(rows), 0.5),
        "epochs": np.array([1, 2]),
        "per_epoch": per_epoch,
    } | changed
    np.savez(folder / "assignments.npz", **arrays)
    record = {
        **dict.fromkeys(("benchmark", "stage", "precision", "commit", "device", "config_sha256", "finished"), "-"),
        **dict.fromkeys(("seed", "epochs", "seconds", "peak_memory_bytes", "threads"), 1),
        **{"dirty": False, "versions": {}, "counts": {}, "attempts": [], "identity": {}, "fingerprint": fingerprint({})},
        **{"protocol": protocol, "images_sha256": images_sha256},
        "files": {"assignments.npz": sha256(folder / "assignments.npz")},
    }
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def evaluated(run, data):
    return json.loads(evaluate_run(run, data).read_text())


def test_evaluation_scores_the_last_epoch_and_keeps_the_best_apart(tmp_path):
    metrics = evaluated(trained(tmp_path / "run"), prepared(tmp_path / "data"))
    assert metrics["scores"]["acc"] == pytest.approx(7 / 8)
    assert metrics["oracle"] == {"acc": 1.0, "epoch": 1}
    assert [point["epoch"] for point in metrics["per_epoch"]] == [1, 2]
    assert (metrics["images"], metrics["classes"], metrics["clusters"], metrics["unlabelled"]) == (8, 3, 3, 0)
    assert metrics["scores"]["mean_confidence"] == 0.5
    assert metrics["neighbour_purity"] is None
    assert metrics["of"]["assignments_sha256"] == sha256(tmp_path / "run" / "assignments.npz")


def test_a_run_without_epochs_or_confidence_has_neither_curve_nor_oracle(tmp_path):
    """As the controls: k-means assigns without training and without probabilities."""
    none = {"epochs": np.array([], np.int64), "per_epoch": np.empty((0, 8), np.int16), "confidence": np.empty(0)}
    metrics = evaluated(trained(tmp_path / "run", assignments=LABELS, **none), prepared(tmp_path / "data"))
    assert (metrics["scores"]["acc"], metrics["scores"]["mean_confidence"]) == (1, None)
    assert (metrics["per_epoch"], metrics["oracle"]) == ([], None)


def test_the_curve_has_the_scores_of_each_epoch(tmp_path):
    metrics = evaluated(trained(tmp_path / "run"), prepared(tmp_path / "data"))
    for point, assigned in zip(metrics["per_epoch"], (LABELS, [0, 0, 0, 0, 1, 1, 2, 2])):
        scores = clustering_scores(LABELS, assigned, clusters=3)
        assert point == {"epoch": point["epoch"]} | {name: scores[name] for name in ("acc", "nmi", "ari")}
    assert metrics["scores"] == scores | {"mean_confidence": 0.5}


def test_confidence_is_that_of_the_labelled_images(tmp_path):
    labels = np.where(np.arange(8) < 3, -1, LABELS)
    run = trained(tmp_path / "run", confidence=np.array([0, 0, 0, 1, 1, 1, 1, 0.5]))
    metrics = evaluated(run, prepared(tmp_path / "data", labels))
    assert metrics["scores"]["mean_confidence"] == pytest.approx(0.9) and metrics["unlabelled"] == 3


def test_heldout_scores_only_the_test_images(tmp_path):
    metrics = evaluated(trained(tmp_path / "run", protocol="heldout"), prepared(tmp_path / "data"))
    assert metrics["images"] == 2 and metrics["scores"]["acc"] == 1


def test_unlabelled_images_are_left_out_and_counted(tmp_path):
    labels = LABELS.copy()
    labels[3] = -1  # the one that the last epoch has wrong
    metrics = evaluated(trained(tmp_path / "run"), prepared(tmp_path / "data", labels))
    assert (metrics["scores"]["acc"], metrics["unlabelled"]) == (1, 1)


def test_purity_is_recorded_when_the_run_kept_its_neighbours(tmp_path):
    kept = {"neighbours": np.array([[0, 1], [3, 0]], dtype=np.int32), "neighbour_rows": np.array([0, 3])}
    metrics = evaluated(trained(tmp_path / "run", **kept), prepared(tmp_path / "data"))
    assert metrics["neighbour_purity"] == pytest.approx(0.5)


@pytest.mark.parametrize("labels", [None, np.full(8, -1)])
def test_a_data_set_without_labels_gets_no_scores_and_a_reason(tmp_path, labels):
    metrics = evaluated(trained(tmp_path / "run"), prepared(tmp_path / "data", labels))
    assert metrics["scores"] is None and "no labels" in metrics["reason"]


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"images_sha256": "99"}, "other images"),
        ({"rows": np.arange(1, 9)}, "not the 8 of the joint protocol"),
        ({"assignments": np.zeros(8, dtype=np.int64)}, "not those of the last epoch"),
        (
            {"epochs": np.arange(3), "per_epoch": np.array([LABELS, [0, 0, 0, 0, 1, 1, 2, 2], LABELS])},
            "not those of the last epoch",
        ),
        ({"assignments": np.zeros(7, dtype=np.int64)}, "assignments do not fit its 8 rows and 2 epochs"),
        ({"epochs": np.arange(3)}, "per_epoch do not fit its 8 rows and 3 epochs"),
    ],
)
def test_files_that_do_not_agree_are_refused_and_nothing_is_written(tmp_path, changed, words):
    run, data = trained(tmp_path / "run", **changed), prepared(tmp_path / "data")
    with pytest.raises(ValueError, match=words):
        evaluate_run(run, data)
    assert not (run / "metrics.json").exists()


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name, spoil", [
    ("assignments.npz", flip_a_bit),
    ("assignments.npz", lambda path: path.write_bytes(path.read_bytes()[:100])),
    ("record.json", lambda path: path.write_text("null")),
    ("record.json", lambda path: path.write_text('{"seed": "one"}')),
])
def test_a_damaged_file_of_the_run_is_set_aside_by_name(tmp_path, name, spoil):
    run, data = trained(tmp_path / "run"), prepared(tmp_path / "data")
    spoil(run / name)
    with pytest.raises(Damaged, match=f"{name}: .*damaged.*; set aside as {name}.damaged. The same command makes it again"):
        evaluate_run(run, data)
    assert {path.name for path in run.iterdir()} == {"assignments.npz", "record.json"} - {name} | {f"{name}.damaged"}


def test_changed_or_lost_labels_are_refused(tmp_path):
    run, data = trained(tmp_path / "run"), prepared(tmp_path / "data")
    np.save(data / "labels.npy", LABELS[::-1])
    with pytest.raises(Damaged, match="labels.npy: damaged .*; set aside as labels.npy.damaged"):
        evaluate_run(run, data)
    assert not (data / "labels.npy").exists() and not (data / "benchmark.json").exists()  # so it is prepared again
    data = prepared(tmp_path / "again")
    (data / "labels.npy").unlink()
    with pytest.raises(Damaged, match="lists it"):
        evaluate_run(run, data)
    assert not (data / "benchmark.json").exists()


@pytest.mark.parametrize("file", ["labels.npy", "assignments.npz"])
def test_files_are_not_unpickled(tmp_path, file):
    """An array of objects may run code of whoever made it."""
    pickled = np.array([None] * 8)
    changed = {"confidence": pickled} if file == "assignments.npz" else {}
    run = trained(tmp_path / "run", **changed)
    data = prepared(tmp_path / "data", pickled if file == "labels.npy" else LABELS)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        evaluate_run(run, data)


def test_labels_of_another_number_of_images_are_refused(tmp_path):
    run, data = trained(tmp_path / "run"), prepared(tmp_path / "data", np.append(LABELS, 2))
    with pytest.raises(ValueError, match="9 labels for 8 images"):
        evaluate_run(run, data)


def test_an_unfinished_run_is_not_evaluated(tmp_path):
    run, data = trained(tmp_path / "run"), prepared(tmp_path / "data")
    (run / "record.json").unlink()
    with pytest.raises(ValueError, match="not finished"):
        evaluate_run(run, data)


def test_a_description_that_is_cut_off_is_named_with_the_way_out(tmp_path):
    run, data = trained(tmp_path / "run"), prepared(tmp_path / "data")
    (data / "benchmark.json").write_text('{"prot')
    with pytest.raises(ValueError, match="benchmark.json is not JSON .*prepare"):
        evaluate_run(run, data)
