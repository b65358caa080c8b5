"""Metrics against brute force and cases worked by hand."""

import itertools

import numpy as np
import pytest

from benchmarks.evaluation.metrics import clustering_scores, neighbor_purity


def accuracy_over_all_matchings(labels, assignments, classes, clusters):
    """Try every one-to-one map from the smaller side to the larger, without a matching algorithm."""
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
    scores = clustering_scores(labels, assignments, clusters=2)
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


def test_names_of_clusters_and_classes_do_not_matter():
    labels = np.repeat([0, 1, 2], [5, 9, 4])
    scores = clustering_scores(labels + 40, (labels + 1) % 3, clusters=3)
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


def test_confidence_is_averaged():
    assert clustering_scores([0, 1], [0, 1], clusters=2, confidence=[0.5, 1.0])["mean_confidence"] == pytest.approx(
        0.75
    )


def test_two_hundred_clusters_of_many_images_are_matched():
    labels = np.random.default_rng(0).integers(200, size=20_000)
    shuffled = np.random.default_rng(1).permutation(200)[labels]
    assert clustering_scores(labels, shuffled, clusters=200)["acc"] == 1


@pytest.mark.parametrize(
    "labels, assignments, words",
    [
        ([], [], "no image"),
        ([0, -1, -3], [0, 1, 1], "2 of 3 images have no label"),
        ([0, 1], [0, -1], r"cluster -1, but there are only 3 clusters \(0\.\.2\)"),
        ([0, 1], [0, 3], "cluster 3, but there are only 3 clusters"),
    ],
)
def test_what_cannot_be_scored_is_refused(labels, assignments, words):
    with pytest.raises(ValueError, match=words):
        clustering_scores(labels, assignments, clusters=3)


def test_neighbor_purity_leaves_out_the_image_itself_and_the_unlabeled():
    labels = np.array([0, 0, 1, 1, -1])
    rows = np.array([0, 2, 4])
    neighbors = np.array([[0, 1, 2], [2, 3, 4], [4, 0, 1]])  # counted: 0-1 yes, 0-2 no, 2-3 yes
    assert neighbor_purity(labels, neighbors, rows) == pytest.approx(2 / 3)
    assert neighbor_purity(labels, np.array([[4, 2]]), np.array([2])) is None
    assert neighbor_purity(labels, np.empty((0, 3), int), np.empty(0, int)) is None
