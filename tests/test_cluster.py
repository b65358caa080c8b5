"""`scl cluster`: a folder of images in one command."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import long_study
import numpy as np
import pytest
import yaml
from flow import planned, scl, snakemake, start_scl
from folders import cluster, digits, mixed, table, tiny_settings

import benchmarks.cluster
from benchmarks.cli import main
from benchmarks.datasets.prepare import read_names
from benchmarks.folder_page import advice, describe_clusters
from benchmarks.folder_study import Request
from scl.engine import gpu_lease
from scl.engine.locks import is_locked, locked
from scl.engine.train import train


@pytest.fixture
def here(here):
    """The working directory, with settings for tiny networks in tiny.yaml."""
    tiny_settings(here / "tiny.yaml")
    return here


def test_class_folders_are_scored_and_the_csv_names_every_image(here, capsys):
    """K is the number of classes; ranks start at 1, by decreasing confidence; sorted/ has a link to every image. The
    clusters are those of the run."""
    digits(here / "photos")
    assert cluster("photos", "--method", "scan", "--sort", "links") == 0
    done = capsys.readouterr()
    rows = table("photos-clusters/clusters.csv")
    assert list(rows[0]) == ["file", "cluster", "confidence", "rank"]
    assert sorted(row["file"] for row in rows) == sorted(f"{p.parent.name}/{p.name}" for p in here.glob("photos/*/*"))
    for cluster_id in {row["cluster"] for row in rows}:
        members = [row for row in rows if row["cluster"] == cluster_id]
        assert [int(row["rank"]) for row in members] == list(range(1, len(members) + 1))
        sure = [float(row["confidence"]) for row in members]
        assert sure == sorted(sure, reverse=True) and 0 < sure[-1] <= sure[0] <= 1
    summary = json.loads((here / "photos-clusters" / "summary.json").read_text())
    assert summary["clusters"] == 10 and summary["run"] == "runs/images/joint/scan/seed0"
    assert summary["scores"]["acc"] > 0 and summary["estimated_seconds"] > 0
    assert "compared with the 10 sub-folders: ACC" in done.out and "clusters in use: " in done.out
    assert done.out.startswith("photos: 60 images clustered by scan, seed 0\n")
    run = here / "photos-clusters" / summary["run"]
    names = read_names(here / "photos-clusters" / "data" / "images")
    with np.load(run / "assignments.npz") as file:
        assigned = {names[row]: int(k) for row, k in zip(file["rows"], file["assignments"])}
    assert {row["file"]: int(row["cluster"]) for row in rows} == assigned
    assert (here / "photos-clusters" / "weights.pt").read_bytes() == (run / "weights.pt").read_bytes()
    links = list(here.glob("photos-clusters/sorted/*/*"))
    assert len(links) == 60 and all(link.is_symlink() and link.resolve().is_file() for link in links)
    first = next(row for row in rows if row["rank"] == "1")
    link = here / "photos-clusters" / "sorted" / first["cluster"] / f"01-{os.path.basename(first['file'])}"
    assert link.resolve() == (here / "photos" / first["file"]).resolve()
    before, trained = done.err.index("this will take about"), done.err.index("train simclr")
    assert before < trained and done.err.count("\nepoch 1/1") == 2


def test_names_of_folders_and_files_with_spaces_and_other_letters(here):
    """Names that are too long with a rank are cut at the start."""
    digits(here / "my photos é", 20, classes=False)
    (here / "my photos é" / "000.png").rename(here / "my photos é" / 'a "b",\nc.png')
    (here / "my photos é" / "001.png").rename(here / "my photos é" / "d\re.png")
    (here / "my photos é" / "002.png").rename(here / "my photos é" / f"{'é' * 125}.png")  # a name of 254 bytes
    assert cluster("my photos é", "--clusters", 2, "--method", "kmeans", "--sort", "copies") == 0
    rows = table("my photos é-clusters/clusters.csv")
    assert {'a "b",\nc.png', "d\re.png"} < {row["file"] for row in rows} and len(rows) == 20
    names = [path.name for path in here.glob("my photos é-clusters/sorted/*/*")]
    assert len(names) == 20 and sum(name.endswith(f"-{'é' * 124}.png") for name in names) == 1


def test_the_page_shows_every_cluster_with_the_names_of_its_images(here, capsys):
    """A single file without external resources. It also lists labeled images that are in the wrong cluster."""
    digits(here / "photos")
    assert cluster("photos", "--method", "scl", "--out", "out") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "out/index.html"
    page = (here / "out" / "index.html").read_text()
    rows = table("out/clusters.csv")
    for cluster_id in {row["cluster"] for row in rows}:
        members = [row["file"] for row in rows if row["cluster"] == cluster_id]
        assert f"Cluster {cluster_id}, matched with" in page and f"{len(members)} images</h3>" in page
        assert f"most confident: {members[0]} (" in page
    assert "misassigned: " in page and "compared with the 10 sub-folders" in page
    assert 'href="clusters.csv"' in page and "All results" not in page and 'src="data:image' in page
    assert "http" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


def test_an_unlabeled_folder_has_no_scores_and_no_trace_of_labels_on_its_page(here, capsys):
    """k-means runs have no confidence, but the command computes one and orders the images by it."""
    digits(here / "photos", 30, classes=False)
    assert cluster("photos", "--clusters", 3, "--method", "kmeans", "--out", "out") == 0
    summary = json.loads((here / "out" / "summary.json").read_text())
    assert summary["scores"] is None and summary["clusters"] == 3
    assert summary["confidence"] == "simplified silhouette" and 0 < summary["mean_confidence"] < 1
    assert "sub-folders" not in capsys.readouterr().out
    assert not (here / "out" / "data" / "images" / "labels.npy").exists()
    page = (here / "out" / "index.html").read_text()
    first = next(row["file"] for row in table("out/clusters.csv") if row["rank"] == "1")
    assert f"most confident: {first}" in page and "simplified silhouette" in page
    assert not [word for word in ("ACC", "isassigned", "Confusion", "matched with", "sub-folders") if word in page]


def test_a_second_seed_in_the_same_results_is_compared(here, capsys):
    digits(here / "photos", classes=False)
    arguments = ("photos", "--clusters", 4, "--method", "kmeans", "--out", "out", "--seed")
    assert cluster(*arguments, 0) == 0
    assert "agreement" not in capsys.readouterr().out
    run = here / "out/runs/images/joint/kmeans/seed0"
    shutil.copytree(run, run.with_name("seed0 copy"))  # as a user may make
    assert cluster(*arguments, 1) == 0
    assert "agreement with seed 0: ARI " in capsys.readouterr().out
    assert "Agreement with seed 0: ARI " in (here / "out" / "index.html").read_text()


def test_results_of_another_folder_or_study_are_not_overwritten(here, capsys):
    """Folders with the same name have the same default --out. A folder that was moved or renamed is still the same."""
    digits(here / "2023" / "photos", 20, classes=False)
    digits(here / "2024" / "photos", 20, classes=False)
    arguments = ("--clusters", 2, "--method", "kmeans")
    assert cluster("2023/photos", *arguments) == 0
    capsys.readouterr()
    assert cluster("2024/photos", *arguments) == 2
    told = f"--out: photos-clusters holds the clusters of {here}/2023/photos; name another folder"
    assert capsys.readouterr().err.splitlines()[-1] == f"scl: error: {told}"
    (here / "2023").rename(here / "moved")
    assert cluster("moved/photos", *arguments) == 0
    (here / "results").mkdir()
    shutil.copy(here / "tiny.yaml", here / "results" / "study.yaml")
    assert cluster("moved/photos", *arguments, "--out", "results") == 2
    assert "--out: results holds other files; name another folder" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["run_single", "write_page"])
def test_another_command_in_the_same_results_waits(here, step, monkeypatch):
    """It waits until the first one has written its results."""
    digits(here / "photos", 30, classes=False)
    seen = []

    def look(*arguments, **options):
        seen.append(is_locked("out/.lock"))
        return function(*arguments, **options)

    function = getattr(benchmarks.cluster, step)
    monkeypatch.setattr(benchmarks.cluster, step, look)
    assert cluster("photos", "--method", "kmeans", "--out", "out", "--clusters", 3) == 0
    assert seen == [True] and not is_locked("out/.lock")


def test_a_command_that_is_interrupted_while_it_waits_changes_nothing(here):
    """study.yaml remains that of the running command."""
    digits(here / "photos", 30, classes=False)
    assert cluster("photos", "--method", "kmeans", "--out", "out", "--clusters", 3) == 0
    before = (here / "out" / "study.yaml").read_bytes()

    def interrupted(line):
        assert line.startswith("waiting for out: another process")
        raise KeyboardInterrupt

    other = Request(here / "photos", clusters=4, method="kmeans", out=Path("out"), config=here / "tiny.yaml")
    with locked("out/.lock", "out"), pytest.raises(KeyboardInterrupt):
        benchmarks.cluster.cluster_folder(other, report=interrupted)
    assert (here / "out" / "study.yaml").read_bytes() == before


@pytest.mark.parametrize("method", ["scl", "kmeans"])
def test_a_photograph_that_is_added_during_the_training_is_of_the_next_command(here, method, monkeypatch):
    digits(here / "photos", 30, classes=False)
    command = ("photos", "--method", method, "--clusters", 3)

    def train_and_add(*arguments, **options):
        train(*arguments, **options)
        shutil.copy(here / "photos" / "000.png", here / "photos" / "new.png")

    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.single.train", train_and_add)
        assert cluster(*command) == 0
    assert len(table("photos-clusters/clusters.csv")) == 30
    assert cluster(*command) == 0
    assert len(table("photos-clusters/clusters.csv")) == 31


def test_empty_clusters_are_said_with_what_to_try():
    sizes = [100, 96, 1, 1, 2, 0]
    found = describe_clusters(np.repeat(range(6), sizes), np.ones(200), 6)
    found |= {"weights": None, "epochs": 40, "method": "scl"}
    assert advice(found).startswith("Of 6 clusters, 1 is empty and 3 are almost empty") and "--weights" in advice(found)
    assert "--weights" not in advice(found | {"weights": "resnet18"}) and "fewer clusters" in advice(found)
    assert advice(found | {"clusters_used": 6}).startswith("Of 6 clusters, 4 are almost empty")
    assert advice(found | {"clusters_used": 6, "tiny_clusters": 0}) == ""


def test_nothing_is_advised_that_the_command_would_refuse():
    """PICA does not support --weights, and 2 is the smallest number of clusters."""
    found = describe_clusters(np.array([0] * 99 + [1]), np.ones(100), 2)
    found |= {"weights": None, "epochs": 40, "method": "pica"}
    assert advice(found).endswith("Try more images.")
    assert advice(found | {"clusters": 3}).endswith("Try fewer clusters, or more images.")
    told = advice(found | {"method": "scl"})
    assert "--weights" in told and told.endswith(", or more images.") and "fewer" not in told


def test_images_beside_sub_folders_are_clustered_without_classes(here, capsys):
    digits(here / "photos")
    (here / "photos" / "stray.png").write_bytes(next(here.glob("photos/0/*.png")).read_bytes())
    assert cluster("photos", "--method", "kmeans") == 2
    error = capsys.readouterr().err
    assert (
        "1 of 61 images, such as stray.png, are in no sub-folder" in error
        and "--clusters: photos has no class" in error
    )
    assert cluster("photos", "--method", "kmeans", "--clusters", 4) == 0
    assert "ACC" not in capsys.readouterr().out
    assert len(table("photos-clusters/clusters.csv")) == 61


def test_the_home_folder_is_expanded_for_sorted_images_too(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    digits(here / "photos", 12, classes=False)
    assert cluster("~/photos", "--clusters", 2, "--method", "kmeans", "--sort", "links") == 0
    assert all(link.resolve().is_file() for link in here.glob("photos-clusters/sorted/*/*"))


def test_mixed_formats_with_broken_files(here, capsys):
    broken = mixed(here / "photos")
    arguments = ("photos", "--clusters", 3, "--method", "kmeans")
    assert cluster(*arguments, "--strict") == 2
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith(
        "scl: error: --strict: 3 unreadable image(s), such as cut.jpg: cannot be read as an image"
    )
    assert not (here / "photos-clusters" / "runs").exists()
    assert cluster(*arguments) == 0
    done = capsys.readouterr()
    assert "left out: 3 unreadable image(s)" in done.out
    assert [line.split(":")[0].strip() for line in done.err.splitlines() if line.startswith("  ")] == broken
    rows = table("photos-clusters/clusters.csv")
    assert len(rows) == 12 and not {row["file"] for row in rows} & set(broken)


def test_copies_are_not_overwritten(here, capsys):
    digits(here / "photos", 20)
    arguments = ("photos", "--method", "kmeans", "--clusters", 2, "--sort", "copies")
    assert cluster(*arguments) == 0
    copies = list(here.glob("photos-clusters/sorted/*/*.png"))
    assert len(copies) == 20 and not any(copy.is_symlink() for copy in copies)
    capsys.readouterr()
    assert cluster(*arguments) == 2
    assert "photos-clusters/sorted: holds files of an earlier command; move or remove it" in capsys.readouterr().err


def test_a_gpu_that_the_settings_require_is_missing(here, capsys):
    digits(here / "photos", 20)
    settings = tiny_settings(here / "settings.yaml")
    settings.write_text(settings.read_text().replace("threads: 1", "require_gpu: true"))
    arguments = ["cluster", "photos", "--clusters", "2", "--config", "settings.yaml", "--epochs", "1"]
    assert main(arguments) == 2
    assert "1 GPU(s) asked for, 0 visible" in capsys.readouterr().err
    assert not (here / "photos-clusters" / "runs").exists()
    assert main([*arguments, "--method", "kmeans"]) == 0  # trains nothing


def test_the_machine_of_the_settings_is_that_of_the_lease(here, monkeypatch):
    digits(here / "photos", 20)
    settings = tiny_settings(here / "settings.yaml")
    settings.write_text(settings.read_text().replace("threads: 1", "{require_gpu: true, runs_per_gpu: 3}"))
    leases, devices, lease = [], [], gpu_lease.lease
    monkeypatch.setattr(gpu_lease, "lease", lambda count, **given: leases.append(given) or lease(0))
    monkeypatch.setattr(gpu_lease, "torch_device", lambda leased, **given: devices.append(given) or "cpu")
    for method, required in (("scl", True), ("kmeans", False)):
        arguments = ["--clusters", "2", "--config", "settings.yaml", "--epochs", "1", "--method", method]
        assert main(["cluster", "photos", *arguments, "--out", method]) == 0
        first = leases[0]  # the others belong to the steps
        assert (first["required"], first["runs_per_gpu"], devices[0]["required"]) == (required, 3, required)
        leases.clear(), devices.clear()


def test_sorted_images_are_those_of_the_last_command(here, capsys):
    """Links are updated even without `--sort`; copies are left alone, with a message."""
    digits(here / "photos", 20)
    folders = here / "photos-clusters" / "sorted"

    def run(clusters, *sort):
        assert cluster("photos", "--method", "kmeans", "--clusters", clusters, *sort) == 0
        return sorted(path.name for path in folders.glob("*")), "".join(capsys.readouterr())

    assert run(2)[0] == [] and run(2, "--sort", "links")[0] == ["0", "1"]
    names, output = run(3)
    assert names == ["0", "1", "2"] and "photos-clusters/sorted\n" in output
    shutil.rmtree(folders)
    assert run(2, "--sort", "copies")[0] == ["0", "1"]
    names, output = run(3)
    assert names == ["0", "1"]
    assert (
        "photos-clusters/sorted: holds copies made by an earlier command, which are not updated; move or remove them\n"
        in output
    )


def test_the_same_command_trains_nothing_again_and_a_changed_folder_all(here, capsys):
    """Added, removed, or changed images are prepared and trained again; touched ones are only prepared again."""
    digits(here / "photos", 40, classes=False)
    arguments = ("photos", "--clusters", 3, "--method", "simclr")

    def again():
        assert cluster(*arguments) == 0
        error = capsys.readouterr().err
        return "prepared again" in error, "train simclr" in error

    assert again() == (False, True)
    assert again() == (False, False)
    os.utime(here / "photos" / "000.png", (0, 0))
    assert again() == (True, False)
    shutil.copy(here / "photos" / "000.png", here / "photos" / "new.png")
    assert again() == (True, True)
    assert len(table("photos-clusters/clusters.csv")) == 41
    (here / "photos" / "new.png").unlink()
    assert again() == (True, True)
    shutil.copy(here / "photos" / "001.png", here / "photos" / "000.png")
    assert again() == (True, True)


@pytest.mark.workflow
def test_a_changed_folder_in_plan_status_and_snakemake(here, capsys):
    """All three agree: out of date after a change of the folder, done after the same command."""
    digits(here / "photos", 30, classes=False)
    assert cluster("photos", "--clusters", 3, "--method", "simclr", "--out", "out") == 0
    text = (here / "out" / "study.yaml").read_text()
    study = yaml.safe_load(text)

    def states():
        told = []
        for verb in ("plan", "status"):
            capsys.readouterr()
            assert main([verb, "out/study.yaml"]) == 0
            told.append(capsys.readouterr().out)
        return told

    plan, status = states()
    assert "1 of them trained" in plan and "done in" in status
    digits(here / "photos", 31, classes=False)
    plan, status = states()
    jobs = planned(snakemake(here, study, "--dry-run"))
    assert "0 of them trained, 1 out of date" in plan and jobs["prepare"] == jobs["train"] == 1
    assert "images are to be prepared again (images were added, removed or changed in its folder)" in status
    assert cluster("photos", "--clusters", 3, "--method", "simclr", "--out", "out") == 0
    capsys.readouterr()
    assert main(["status", "out/study.yaml"]) == 0 and "done in" in capsys.readouterr().out


@pytest.mark.workflow
def test_ctrl_c_and_the_same_command(here):
    """Stopped while training, the command resumes and ends with the results of an uninterrupted one."""
    digits(here / "photos", 40, classes=False)
    settings = yaml.safe_load((here / "tiny.yaml").read_text())
    settings["methods"]["simclr"] = long_study.SIMCLR
    (here / "tiny.yaml").write_text(yaml.safe_dump(settings))
    (here / "gated.py").write_text(long_study.GATED)
    command = ["cluster", "photos", "--clusters", "3", "--method", "simclr", "--config", "tiny.yaml", "--epochs", "4"]
    (here / "gate").touch()
    process = start_scl(here, *command)
    long_study.wait_for(process, process.logs[1], long_study.AT_THE_GATE)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=600)[1]
    long_study.open_gate(here)
    assert process.returncode == 130 and "the same command resumes" in error and "Traceback" not in error
    assert not (here / "photos-clusters" / "clusters.csv").exists()
    done = scl(here, *command)
    assert done.returncode == 0 and "resumed at epoch" in done.stderr, done.stderr
    assert re.search(r"simclr [^(]*\(1 epoch of", done.stderr)  # the estimate covers the remaining epochs
    undisturbed = scl(here, *command, "--out", "undisturbed")
    assert undisturbed.returncode == 0
    assert (here / "photos-clusters/clusters.csv").read_bytes() == (here / "undisturbed/clusters.csv").read_bytes()


@pytest.mark.parametrize(
    "arguments,told",
    [
        (["nowhere"], "nowhere: not a folder of images, nor a .npy file; check the name"),
        (["tiny.yaml"], "tiny.yaml: not a folder of images"),
        (["empty", "--clusters", "3"], "empty: holds no images"),
        (["flat"], "--clusters: flat has no class sub-folders; give the number of clusters, 2 or more"),
        (["one"], "--clusters: one has no class sub-folders (all images are in one sub-folder, only, so"),
        (["flat", "--clusters", "21"], "--clusters: 21 clusters cannot be found in 20 images"),
        (["flat", "--clusters", "1"], "argument --clusters: 1 is not within 2 .. 1000000"),
        (["flat", "--clusters", "3", "--method", "scn"], "--method: unknown 'scn' (did you mean 'scan'?)"),
        (["flat", "--clusters", "3", "--out", "flat/out"], "--out: flat/out is inside the folder of the images"),
        (["flat", "--clusters", "3", "--out", "empty/.."], "--out: empty/.. holds other files; name another folder"),
        (["flat", "--clusters", "3", "--size", "4"], "argument --size: 4 is not within 8 .. 1024"),
        ([os.fsdecode(b"caf\xe9"), "--clusters", "3", "--out", "out"], "caf\\udce9: this name is not UTF-8; rename it"),
        (["text", "--clusters", "3"], "images: only 0 of 3 images can be read, too few for 3 clusters"),
        (["~nouser/photos", "--clusters", "3"], "~nouser/photos: not a folder of images"),
        (["flat", "--clusters", "3", "--out", "tiny.yaml"], "--out: tiny.yaml is a file; name a folder"),
        (["{flat}", "--clusters", "3"], "--out: '{flat}-clusters': { and } mean wildcards to Snakemake; name another"),
    ],
)
def test_bad_input_is_one_line(here, arguments, told, capsys):
    digits(here / "flat", 20, classes=False)
    (here / "empty").mkdir()
    (here / "one" / "only").mkdir(parents=True)
    shutil.copy(here / "flat" / "000.png", here / "one" / "only")
    digits(here / os.fsdecode(b"caf\xe9"), 5, classes=False)
    digits(here / "{flat}", 5, classes=False)
    (here / "text").mkdir()
    for i in range(3):
        (here / "text" / f"{i}.jpg").write_text("text")
    try:
        status = main(["cluster", *arguments, "--config", "tiny.yaml"])
    except SystemExit as stop:
        status = stop.code
    lines = capsys.readouterr().err.splitlines()
    assert status == 2 and lines[-1].startswith(f"scl: error: {told}") and "Traceback" not in "".join(lines)
    assert not (here / "flat-clusters" / "runs").exists()
