"""Evaluation of a run's files: what is scored, what is kept separate, and what is refused."""

import json

import numpy as np
import pytest
from conftest import flip_a_bit

from benchmarks.evaluation.evaluate import evaluate_run
from benchmarks.evaluation.metrics import clustering_scores
from scl.engine.identity import fingerprint
from scl.engine.io import Damaged, sha256

LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2], dtype=np.int64)
SPLITS = {"train": [0, 6], "test": [6, 8]}
IDENTITY = {"settings": {}, "engine": 1, "images": {"sha256": "11", "clusters": 3, "splits": SPLITS}, "weights": None}


def roles(assign):
    return {"fit": ["train"], "represent": ["train"], "assign": assign}


def prepared(folder, labels=LABELS):
    folder.mkdir(parents=True)
    benchmark = {
        "name": "toy",
        "count": 8,
        "clusters": 3,
        "classes": ["a", "b", "c"],
        "images_sha256": "11",
        "splits": SPLITS,
        "protocols": {"joint": roles(["train", "test"]), "heldout": roles(["test"])},
        "size": [8, 8],
    }
    if labels is not None:
        np.save(folder / "labels.npy", labels)
        benchmark["labels_sha256"] = sha256(folder / "labels.npy")
    else:
        benchmark["classes"] = None
    (folder / "benchmark.json").write_text(json.dumps(benchmark))
    return folder


def trained(folder, *, protocol="joint", **changed):
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
        **{
            "dirty": False,
            "versions": {},
            "counts": {},
            "attempts": [],
            "identity": IDENTITY,
            "fingerprint": fingerprint(IDENTITY),
        },
        **{"protocol": protocol, "images_sha256": "11"},
        "files": {"weights.pt": "-", "history.csv": "-", "assignments.npz": sha256(folder / "assignments.npz")},
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
    assert (metrics["images"], metrics["classes"], metrics["clusters"], metrics["unlabeled"]) == (8, 3, 3, 0)
    assert metrics["scores"]["mean_confidence"] == 0.5
    assert metrics["neighbor_purity"] is None
    assert metrics["of"]["assignments_sha256"] == sha256(tmp_path / "run" / "assignments.npz")


def test_a_run_without_epochs_or_confidence_has_neither_curve_nor_oracle(tmp_path):
    """Like the controls: k-means assigns without training and without probabilities."""
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


def test_confidence_is_that_of_the_labeled_images(tmp_path):
    labels = np.where(np.arange(8) < 3, -1, LABELS)
    run = trained(tmp_path / "run", confidence=np.array([0, 0, 0, 1, 1, 1, 1, 0.5]))
    metrics = evaluated(run, prepared(tmp_path / "data", labels))
    assert metrics["scores"]["mean_confidence"] == pytest.approx(0.9) and metrics["unlabeled"] == 3


def test_heldout_scores_only_the_test_images(tmp_path):
    metrics = evaluated(trained(tmp_path / "run", protocol="heldout"), prepared(tmp_path / "data"))
    assert metrics["images"] == 2 and metrics["scores"]["acc"] == 1


def test_unlabeled_images_are_left_out_and_counted(tmp_path):
    labels = LABELS.copy()
    labels[3] = -1  # the one that the last epoch gets wrong
    metrics = evaluated(trained(tmp_path / "run"), prepared(tmp_path / "data", labels))
    assert (metrics["scores"]["acc"], metrics["unlabeled"]) == (1, 1)


def test_purity_is_recorded_when_the_run_kept_its_neighbors(tmp_path):
    kept = {"neighbors": np.array([[0, 1], [3, 0]], dtype=np.int32), "neighbor_rows": np.array([0, 3])}
    metrics = evaluated(trained(tmp_path / "run", **kept), prepared(tmp_path / "data"))
    assert metrics["neighbor_purity"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "neighbors, rows, words",
    [
        ([[0, 1], [8, 0]], [0, 3], "8 is no row of the 8 images"),
        ([[0, 1], [-1, 0]], [0, 3], "-1 is no row of the 8 images"),  # as from a library that found no neighbor
        ([[0, 1], [3, 0]], [0, 8], "8 is no row of the 8 images"),
        ([[0, 1]], [0, 3], r"of the shapes \(1, 2\) and \(2,\)"),  # numpy would broadcast it to both images
        ([0, 1], [0, 3], r"of the shapes \(2,\) and \(2,\)"),
        ([[0, 1], [3, 0]], None, "`neighbor_rows` is missing"),
    ],
)
def test_neighbors_of_a_method_that_are_no_rows_of_the_data_set_are_refused(tmp_path, neighbors, rows, words):
    kept = {"neighbors": np.array(neighbors)} | ({} if rows is None else {"neighbor_rows": np.array(rows)})
    with pytest.raises(ValueError, match=f"arrays of the method: neighbors: .*{words}"):
        evaluate_run(trained(tmp_path / "run", **kept), prepared(tmp_path / "data"))


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"clusters": 5}, "found 3 clusters, not the 5 of"),
        ({"splits": {"train": [0, 5], "test": [5, 8]}}, "trained on other images"),
        ({"images_sha256": "99"}, "trained on other images"),
    ],
)
def test_a_benchmark_prepared_otherwise_since_is_refused(tmp_path, changed, words):
    run, data = trained(tmp_path / "run"), prepared(tmp_path / "data")
    facts = json.loads((data / "benchmark.json").read_text())
    (data / "benchmark.json").write_text(json.dumps(facts | changed))
    with pytest.raises(ValueError, match=words):
        evaluate_run(run, data)
    assert not (run / "metrics.json").exists()


@pytest.mark.parametrize("labels", [None, np.full(8, -1)])
def test_a_data_set_without_labels_gets_no_scores_and_a_reason(tmp_path, labels):
    metrics = evaluated(trained(tmp_path / "run"), prepared(tmp_path / "data", labels))
    assert metrics["scores"] is None and "no labels" in metrics["reason"]


def test_labels_that_benchmark_json_does_not_list_are_ignored(tmp_path):
    data = prepared(tmp_path / "data", labels=None)
    np.save(data / "labels.npy", LABELS)
    assert evaluated(trained(tmp_path / "run"), data)["scores"] is None


@pytest.mark.parametrize(
    "changed",
    [
        {"assignments": np.zeros(8, dtype=np.int64)},
        {"epochs": np.arange(3), "per_epoch": np.array([LABELS, [0, 0, 0, 0, 1, 1, 2, 2], LABELS])},
    ],
)
def test_assignments_that_are_not_those_of_the_last_epoch_are_refused(tmp_path, changed):
    run, data = trained(tmp_path / "run", **changed), prepared(tmp_path / "data")
    with pytest.raises(ValueError, match="not those of the last epoch"):
        evaluate_run(run, data)
    assert not (run / "metrics.json").exists()


@pytest.mark.parametrize(
    "name, spoil",
    [
        ("assignments.npz", flip_a_bit),
        ("assignments.npz", lambda path: path.write_bytes(path.read_bytes()[:100])),
        ("record.json", lambda path: path.write_text("null")),
        ("record.json", lambda path: path.write_text('{"seed": "one"}')),
    ],
)
def test_a_damaged_file_of_the_run_is_set_aside_by_name(tmp_path, name, spoil):
    run, data = trained(tmp_path / "run"), prepared(tmp_path / "data")
    spoil(run / name)
    with pytest.raises(
        Damaged, match=f"{name}: .*damaged.*; set aside as {name}.damaged, the same command recreates it"
    ):
        evaluate_run(run, data)
    assert {path.name for path in run.iterdir()} == {"assignments.npz", "record.json"} - {name} | {f"{name}.damaged"}


@pytest.mark.parametrize(
    "there, words",
    [(True, "labels.npy: damaged .*; set aside as labels.npy.damaged"), (False, "labels.npy is missing")],
)
def test_changed_or_lost_labels_are_refused(tmp_path, there, words):
    run, data = trained(tmp_path / "run"), prepared(tmp_path / "data")
    np.save(data / "labels.npy", LABELS[::-1])
    if not there:
        (data / "labels.npy").unlink()
    with pytest.raises(Damaged, match=words):
        evaluate_run(run, data)
    assert not (data / "benchmark.json").exists()  # so it is prepared again
    assert {path.name for path in data.glob("labels*")} == ({"labels.npy.damaged"} if there else set())


@pytest.mark.parametrize("file", ["labels.npy", "assignments.npz"])
def test_files_are_not_unpickled(tmp_path, file):
    """Loading an object array can run arbitrary code."""
    pickled = np.array([None] * 8)
    changed = {"confidence": pickled} if file == "assignments.npz" else {}
    run = trained(tmp_path / "run", **changed)
    data = prepared(tmp_path / "data", pickled if file == "labels.npy" else LABELS)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        evaluate_run(run, data)


def test_an_unfinished_run_is_not_evaluated(tmp_path):
    run, data = trained(tmp_path / "run"), prepared(tmp_path / "data")
    (run / "record.json").unlink()
    with pytest.raises(ValueError, match="missing; train this run first"):
        evaluate_run(run, data)


def test_a_truncated_benchmark_json_is_named_with_a_hint(tmp_path):
    run, data = trained(tmp_path / "run"), prepared(tmp_path / "data")
    (data / "benchmark.json").write_text('{"prot')
    with pytest.raises(ValueError, match="benchmark.json: damaged .not JSON.; rerun the study to prepare"):
        evaluate_run(run, data)
