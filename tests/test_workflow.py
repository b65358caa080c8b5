"""The workflow from end to end, as a user runs it.

The first test covers everything from downloads to tables on all six benchmarks and both protocols, with controls, a
stage that another starts from, and SCL; tests/test_resume.py runs all stages.
"""

import base64
import json
import re

import numpy as np
import pytest
from archive_server import ArchiveServer
from conftest import TINY_METHODS, flip_a_bit
from fake_archives import build
from flow import ROOT, TINY, column, planned, run_of, snakemake
from PIL import Image

pytestmark = [pytest.mark.workflow, pytest.mark.network]

SIX = ("cifar10", "cifar100-20", "stl10", "imagenet10", "imagenet-dogs", "tiny-imagenet")
BOTH = ("cifar10", "cifar100-20", "stl10")  # have a test split
CIFAR10, CIFAR100, STL10, TINY_IMAGENET = (
    "cifar-10-python.tar.gz",
    "cifar-100-python.tar.gz",
    "stl10_binary.tar.gz",
    "tiny-imagenet-200.zip",
)


def short(stage):
    """A tiny method, with a single epoch if it trains."""
    block = TINY_METHODS[stage]
    return block | {"training": {**block["training"], "epochs": 1}} if "training" in block else block


def is_score(cell):
    return 0 < float(cell) <= 100


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    return folder, build(folder)


def test_six_benchmarks_from_download_to_tables_over_a_server_that_misbehaves(archives, tmp_path):
    folder, checksums = archives
    stages = ("random", "kmeans", "simclr", "scl")
    with ArchiveServer(folder) as server:
        server.faults = {
            f"a/{CIFAR10}": {"wrong"},
            f"a/{CIFAR100}": {"cut"},
            f"a/{STL10}": {"404"},
            f"a/{TINY_IMAGENET}": {"cut", "no ranges"},
        }
        downloads = {
            "mirrors": {file: [server.url(file), server.url(file, "b")] for file in checksums},
            "checksums": checksums,
            "timeout": 10,
            "imagenet": {"tar": server.url("ILSVRC2012_img_train.tar"), "accept_terms": True, "images_per_class": 6},
        }
        study = TINY | {
            "benchmarks": {name: {"size": 8} for name in SIX},
            "protocols": ["joint", "heldout"],
            "downloads": downloads,
            "methods": {stage: short(stage) for stage in stages},
        }
        done = snakemake(tmp_path, study)
        served = {path for path, _, status in server.requests if status in (200, 206)}
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"b/{CIFAR10}" in served and f"b/{STL10}" in served  # the second mirror, as the first failed
    assert f"b/{CIFAR100}" not in served and f"b/{TINY_IMAGENET}" not in served  # a cut needs no other mirror

    tables = (tmp_path / "results" / "tables.md").read_text()
    assert "Runs: 36 of 36 done." in tables
    for protocol, benchmarks in (("joint", SIX), ("heldout", BOTH)):
        for benchmark in benchmarks:
            cells = column(tables, protocol, benchmark)
            assert set(cells) == set(stages)
            assert all(map(is_score, cells.values())), cells
    cells = column(tables, "joint", "cifar10")  # the synthetic images have the colors of their class
    assert float(cells["kmeans"]) > 2 * float(cells["random"])
    with pytest.raises(ValueError):  # one split, one protocol
        column(tables, "heldout", "tiny-imagenet")
    for name in ("claims.md", "tables.tex", "figures/scores.png", "figures/curves.svg", "report/index.html"):
        assert (tmp_path / "results" / name).stat().st_size > 0
    unlabeled = json.loads((tmp_path / "data" / "stl10" / "benchmark.json").read_text())["protocols"]
    assert "unlabeled" in unlabeled["joint"]["represent"] and "unlabeled" not in unlabeled["joint"]["fit"]


# Failures: one study in which several things fail, and what remains of it.


@pytest.fixture(scope="module")
def broken(archives, tmp_path_factory):
    """(process, folder, study) with a diverging run, a dead server, a broken image, and no ImageNet."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "few").mkdir()
    for i in range(3):
        Image.new("RGB", (9, 9), (80 * i, 0, 0)).save(folder / "few" / f"{i}.png")
    (folder / "few" / "broken.png").write_bytes(b"no image")
    with ArchiveServer(archives[0]) as server:
        server.faults = {f"a/{CIFAR10}": {"404"}, f"b/{CIFAR10}": {"login"}}
        study = TINY | {
            "benchmarks": TINY["benchmarks"]
            | {
                "cifar10": {"size": 8},
                "imagenet10": {"size": 8},
                "few": {"dataset": "folder", "path": "few", "clusters": 3, "size": 8},
            },
            "downloads": {
                "mirrors": {CIFAR10: [server.url(CIFAR10), server.url(CIFAR10, "b")]},
                "checksums": {CIFAR10: archives[1][CIFAR10]},
            },
            "methods": {
                "random": TINY_METHODS["random"],
                "scl": TINY_METHODS["scl"] | {"training": {"epochs": 4, "learning_rate": 1.0e30}},
            },
        }
        return snakemake(folder, study), folder, study


@pytest.mark.xdist_group("broken")
def test_a_failing_run_stops_neither_the_others_nor_a_table_of_them(broken):
    done, folder, _ = broken
    assert done.returncode != 0
    cells = column((folder / "results" / "partial" / "tables.md").read_text(), "joint", "tiny")
    assert is_score(cells["random"]) and cells["scl"] == "failed"
    assert not (folder / "results" / "tables.md").exists()  # a target, which would mark the study as finished
    run = folder / "results" / "runs" / "tiny" / "joint" / "scl" / "seed0"
    assert json.loads((run / "failure.json").read_text())["epoch"] >= 1
    assert not (run / "record.json").exists() and not (run / "weights.pt").exists()
    assert "scl: failed: the loss term" in done.stdout + done.stderr


@pytest.mark.xdist_group("broken")
def test_a_dead_server_is_named_and_the_other_benchmarks_are_done(broken):
    done, folder, _ = broken
    log = (folder / "results" / "logs" / "download" / f"{CIFAR10}.log").read_text()
    assert log.count("scl: error:") == 1 and "could not be downloaded from 127.0.0.1" in log
    assert "put it at data/archives/" in log and "Traceback" not in log
    assert "could not be downloaded" in done.stdout + done.stderr  # shown without looking for the log
    assert "completed successfully, but some output files are missing" not in done.stdout + done.stderr
    assert not (folder / "data" / "archives" / CIFAR10).exists()
    tables = (folder / "results" / "partial" / "tables.md").read_text()
    assert set(column(tables, "joint", "cifar10").values()) == {"not run"}
    assert f"scl, seed 0: missing: no images: {CIFAR10} could not be downloaded from 127.0.0.1" in tables


@pytest.mark.xdist_group("broken")
def test_a_broken_image_is_listed_and_left_out(broken):
    _, folder, _ = broken
    log = (folder / "results" / "logs" / "prepare" / "few.log").read_text()
    assert "broken.png: cannot be read as an image" in log and "Traceback" not in log
    facts = json.loads((folder / "data" / "few" / "benchmark.json").read_text())
    assert list(facts["unreadable"]) == ["broken.png"]
    assert facts["count"] == len(np.load(folder / "data" / "few" / "images.npy")) == 3


@pytest.mark.xdist_group("broken")
def test_without_imagenet_it_is_said_first_and_written_in_the_cells(broken):
    done, folder, _ = broken
    assert "imagenet10: not run: no ImageNet source" in done.stderr.partition("Building DAG")[0]
    cells = column((folder / "results" / "partial" / "tables.md").read_text(), "joint", "imagenet10")
    assert set(cells.values()) == {"not run: no ImageNet source"}


# k-means as a separate job.


def test_kmeans_is_a_job_without_a_gpu_and_its_features_are_gone_at_the_end(tmp_path):
    study = TINY | {"methods": {stage: short(stage) for stage in ("random", "kmeans", "simclr", "scan")}}
    told = snakemake(tmp_path, study, "--dry-run", "--printshellcmds").stdout
    assert set(re.findall(r"^Job \d+: k-means of (\w+) on tiny", told, re.MULTILINE)) == {"kmeans", "simclr"}
    assert not re.search("scl kmeans .*--gpus", told) and re.search("scl train .*simclr.* --gpus 1", told)
    rule = re.search(r"^rule kmeans:\n(.*?)^\S", (ROOT / "Snakefile").read_text(), re.MULTILINE | re.DOTALL)[1]
    assert "shell:" in rule and re.findall("gpu=.", rule) == ["gpu=0"]
    done = snakemake(tmp_path, study)
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "results" / "runs"
    assert len(list(runs.rglob("metrics.json"))) == 4 and not list(runs.rglob("features"))
    assert len(list(runs.rglob("clustering.json"))) == len(list(runs.rglob("clustered"))) == 2


def test_damaged_features_stop_no_other_job_and_the_run_is_trained_again(tmp_path):
    study = TINY | {"methods": {stage: short(stage) for stage in ("simclr", "pica")}}
    assert snakemake(tmp_path, study, "--until", "train").returncode == 0
    flip_a_bit(run_of(tmp_path) / "features" / "1.npz")
    done = snakemake(tmp_path, study)
    assert done.returncode == 1 and "1.npz: missing" in done.stderr and "OSError" not in done.stderr
    assert (run_of(tmp_path, "pica") / "metrics.json").exists()
    assert (tmp_path / "results" / "partial" / "tables.md").exists()
    assert snakemake(tmp_path, study).returncode == 0


def test_a_stage_does_not_wait_for_the_clusters_of_the_one_before(tmp_path):
    study = TINY | {"methods": {stage: short(stage) for stage in ("simclr", "scan")}}
    graph = snakemake(tmp_path, study, "--dag").stdout
    numbers = dict(re.findall(r'(\d+)\[label = "(\w+)', graph))
    edges = {(numbers[a], numbers[b]) for a, b in re.findall(r"(\d+) -> (\d+)", graph)}
    assert {("train", "train"), ("train", "kmeans"), ("kmeans", "evaluate")} <= edges
    assert ("kmeans", "train") not in edges


# Which jobs run again, and which do not.


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, study) of a small, finished study."""
    folder = tmp_path_factory.mktemp("finished")
    methods = {stage: short(stage) for stage in ("random", "simclr", "scan")}
    study = TINY | {"methods": methods, "seeds": [0, 3]}
    done = snakemake(folder, study)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, study


def changed(study, stage, **training):
    """The study with other training settings for one stage."""
    block = study["methods"][stage]
    return study | {"methods": study["methods"] | {stage: block | {"training": block["training"] | training}}}


@pytest.mark.xdist_group("finished")
def test_a_second_run_has_nothing_to_do(finished):
    folder, study = finished
    done = snakemake(folder, study)
    assert done.returncode == 0 and "Nothing to be done" in done.stdout + done.stderr
    assert "6 runs, 6 of them trained" in done.stderr


@pytest.mark.xdist_group("finished")
def test_missing_tables_are_made_after_a_kill_if_the_run_was_finished_by_other_means(finished):
    """Snakemake marks the outputs of a killed job as incomplete; here, the run counts nevertheless."""
    folder, study = finished
    written = (run_of(folder) / "weights.pt").relative_to(folder)
    marks = folder / ".snakemake" / "incomplete"
    marks.mkdir(exist_ok=True)
    (marks / base64.b64encode(str(written).encode()).decode()).write_text('{"external_jobid": null}')
    (folder / "results" / "tables.md").unlink()
    done = snakemake(folder, study)
    assert done.returncode == 0 and (folder / "results" / "tables.md").exists(), done.stdout + done.stderr


@pytest.mark.xdist_group("finished")
def test_a_changed_key_runs_what_it_concerns_and_looking_at_it_runs_nothing(finished):
    folder, study = finished
    last = planned(snakemake(folder, changed(study, "scan", learning_rate=0.002), "--dry-run"))
    assert (last["train"], last["evaluate"], last.get("prepare", 0)) == (2, 2, 0)
    first = planned(snakemake(folder, changed(study, "simclr", batch_size=16), "--dry-run"))
    assert first["train"] == 4  # including SCAN, which starts from it
    renamed = study | {"methods": study["methods"] | {"random": study["methods"]["random"] | {"title": "chance"}}}
    assert "train" not in planned(snakemake(folder, renamed, "--dry-run"))
    assert planned(snakemake(folder, study, "--dry-run")) == {}


@pytest.mark.xdist_group("finished")
def test_a_further_seed_or_method_runs_nothing_else(finished):
    folder, study = finished
    more = planned(snakemake(folder, study | {"seeds": [0, 3, 4]}, "--dry-run"))
    assert (more["train"], more["evaluate"]) == (3, 3)
    added = study | {"methods": study["methods"] | {"kmeans": TINY_METHODS["kmeans"]}}
    assert planned(snakemake(folder, added, "--dry-run"))["train"] == 2


def test_one_seed_of_everything_comes_before_a_second_of_anything(tmp_path):
    """On both benchmarks, in the order of the configuration. (A dry run lists jobs in no particular order.)"""
    two = dict.fromkeys(("tiny", "other"), TINY["benchmarks"]["tiny"])
    study = TINY | {"benchmarks": two, "seeds": [3, 1], "methods": {"random": TINY_METHODS["random"]}}
    done = snakemake(tmp_path, study, "--cores", "1")
    told = done.stdout + done.stderr
    seeds = re.findall(r"^Job \d+: (?:train|evaluate) .*, seed (\d)$", told, re.MULTILINE)
    assert done.returncode == 0 and seeds == ["3"] * 4 + ["1"] * 4
    line = r"^(?:tiny|other) joint random seed \d: .* s, ACC \d+\.\d, NMI .* \(log: results/logs/.*seed\d\.log\)$"
    assert len(re.findall(line, told, re.MULTILINE)) == 4 and "steps (100%) done" in told
    assert not re.search("Reason:|Finished jobid|Select jobs|^Execute", told, re.MULTILINE)


def test_images_are_prepared_before_runs_take_all_cores(tmp_path):
    """`prepare` does not wait until all cores that it could use are free at the same time."""
    two = dict.fromkeys(("tiny", "other"), TINY["benchmarks"]["tiny"])
    done = snakemake(
        tmp_path, TINY | {"benchmarks": two, "methods": {"simclr": short("simclr")}, "seeds": 2}, "--until", "train"
    )
    told = re.findall(r"^Job \d+: (prepare|train)", done.stdout + done.stderr, re.MULTILINE)
    assert done.returncode == 0 and told[:3] == ["prepare", "prepare", "train"]


def test_a_dry_run_explains_itself_and_if_it_is_long_lists_its_jobs_on_request(tmp_path):
    study = TINY | {"methods": {"random": TINY_METHODS["random"]}, "seeds": 40, "title": "A first look"}
    done = snakemake(tmp_path, study, "--dry-run")
    told = done.stdout + done.stderr
    assert planned(done)["train"] == 40 and len(told.splitlines()) < 60
    assert "A first look: 40 runs, 0 of them trained; results in results" in told and "tiny: joint" in told
    listed = snakemake(tmp_path, study, "--dry-run", "--printshellcmds")
    told = listed.stdout + listed.stderr
    assert all(f"train random on tiny (joint), seed {seed}\n" in told for seed in range(40))
    assert "prepare tiny" in told and "write results/tables.md" in told
    assert not (tmp_path / "data").exists() and not list(tmp_path.rglob("record.json"))


OWN_METHOD = '''
import torch

from scl.config import MethodOptions
from scl.method import Method


class Options(MethodOptions):
    darkness: float = 1.0


class Brightness(Method):
    """Clusters by brightness."""

    Options = Options

    def assign(self, images):
        light = images.mean((1, 2, 3))  # B
        centers = torch.linspace(0, 1, self.problem.clusters)
        return torch.softmax(-50 * self.options.darkness * (light[:, None] - centers).abs(), 1)
'''


def test_a_method_and_images_of_ones_own_need_one_file_and_one_block(tmp_path):
    (tmp_path / "mine.py").write_text(OWN_METHOD)
    (tmp_path / "photos").mkdir()
    for i in range(12):
        Image.new("RGB", (20 + i, 15), (20 * i, 20 * i, 20 * i)).save(tmp_path / "photos" / f"{i}.jpg")
    study = TINY | {
        "benchmarks": TINY["benchmarks"]
        | {"photos": {"dataset": "folder", "path": "photos", "size": 8, "clusters": 3}},
        "methods": {"mine": {"method": "mine.Brightness", "options": {"darkness": 0.5}}},
    }
    done = snakemake(tmp_path, study)
    assert done.returncode == 0, done.stdout + done.stderr
    tables = (tmp_path / "results" / "tables.md").read_text()
    assert column(tables, "joint", "photos") == {"mine": "no labels"}
    assert is_score(column(tables, "joint", "tiny")["mine"])
    (tmp_path / "mine.py").write_text(OWN_METHOD + "# an edit\n")
    assert planned(snakemake(tmp_path, study, "--dry-run"))["train"] == 2


def test_studies_that_share_data_leave_each_other_alone(tmp_path):
    first = TINY | {"methods": {"random": TINY_METHODS["random"]}, "data": "my data"}
    second = first | {"results": "the other's"}  # characters that need quoting in a shell
    for study in (first, second):
        done = snakemake(tmp_path, study)
        assert done.returncode == 0, done.stderr
    assert "prepare tiny" not in done.stderr + done.stdout  # already prepared
    assert planned(snakemake(tmp_path, first, "--dry-run")) == {}
