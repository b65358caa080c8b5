"""`scl cluster` and `scl assign`: a folder of images to clusters, by the same steps as a run of a study."""

import csv
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.assigner import Assigner, assign_images, run_of
from benchmarks.check import check_methods
from benchmarks.datasets.prepare import NAMES, describe_unreadable, prepare_for, read_names
from benchmarks.evaluation.evaluate import read_assignments
from benchmarks.folder_page import advice, agreement_with_other_seeds, describe_clusters, write_page
from benchmarks.folder_study import BENCHMARK, Request, folder_study, images_in, survey
from benchmarks.plan.measure import estimate
from benchmarks.single import chain_of, run_single
from benchmarks.state import Metrics, Survey, untrained_runs
from benchmarks.study import Run, Study
from scl import images
from scl.engine import gpu_lease
from scl.engine.artifacts import read, read_record
from scl.engine.io import Damaged, atomic, sha256, write_json, write_yaml_if_changed
from scl.engine.locks import locked
from scl.engine.prepared import describe
from scl.engine.provenance import cores
from scl.util.text import Report, duration, say

import torch  # isort: skip


@dataclass(frozen=True)
class Clustering:
    """Images in clusters: file names, cluster and confidence of each. paths: files of `scl cluster`, the page last."""

    files: list[str]
    clusters: np.ndarray
    confidence: np.ndarray
    summary: dict
    assigner: Assigner
    paths: tuple[Path, ...] = ()

    def table(self) -> pd.DataFrame:
        """file, cluster, confidence, rank: by cluster, the most confident image first (rank 1), ties by name."""
        images = pd.DataFrame({"file": self.files, "cluster": self.clusters, "confidence": self.confidence})
        images = images.sort_values(["cluster", "confidence", "file"], ascending=[True, False, True])
        return images.assign(rank=images.groupby("cluster").cumcount() + 1)


def cluster_folder(request: Request, *, threads: int | None = None, report: Report = say) -> Clustering:
    """Prepare, train, assign and write everything into `request.results`. The same call resumes. Raises ValueError for
    bad input, and whatever training raises."""
    if request.sort:
        check_sortable(request.folder, request.results / "sorted")
    raw, clusters = survey(request)
    study, mapping, _ = folder_study(request, images=sum(raw.splits.values()), clusters=clusters)
    check_methods(study)
    out = request.results
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "study.yaml").exists():  # else it may belong to a command that is running
        write_yaml_if_changed(out / "study.yaml", mapping)  # from now on the folder is ours
    with locked(out / ".lock", out, report=report):  # against another command with the same --out
        facts = _prepared(study, report)
        if request.strict and facts["unreadable"]:
            name, why = sorted(facts["unreadable"].items())[0]
            raise ValueError(
                f"--strict: {len(facts['unreadable'])} unreadable image(s), such as {name}: {why}; fix or remove them"
            )
        study, mapping, stage = folder_study(request, images=facts["count"], clusters=clusters)  # now that it is known
        write_yaml_if_changed(out / "study.yaml", mapping)
        run = study.run(BENCHMARK, "joint", stage, request.seed)
        return _run(study, run, request, threads or study.machine.threads or cores(), report)


def _run(study: Study, run: Run, request: Request, threads: int, report: Report) -> Clustering:
    """Do the remaining steps of a run whose images are prepared, all on one device, and write the results."""
    torch.set_num_threads(threads)
    untrained, machine, estimated = untrained_runs(Survey(study), run), study.machine, None
    if untrained:
        _announce_replacement(study, run, report)
    required = machine.require_gpu and any(study.settings(step).training.epochs for step in untrained)
    with gpu_lease.lease(request.gpus, required=required, runs_per_gpu=machine.runs_per_gpu, report=report) as leased:
        device = gpu_lease.torch_device(leased, required=required, report=report)
        if untrained:
            estimated = _announce(study, untrained, device, threads, report)
        metrics = run_single(study, run, threads=threads, leased=leased, report=report)
        found = _collect(study, run, metrics, device, estimated)
    return replace(found, paths=_write(study, run, request, found, report))


def _prepared(study: Study, report: Report) -> dict:
    """benchmark.json of the folder as it is now."""
    facts, problem = Survey(study).prepared(BENCHMARK)
    if facts and not problem:
        problem = _lost(study.data / BENCHMARK, facts)
    if facts is None or problem:
        if problem:
            report(f"{study.benchmarks[BENCHMARK].path}: prepared again ({problem})")
        prepare_for(study, BENCHMARK)
        return describe(study.data / BENCHMARK)
    if facts["unreadable"]:
        report(describe_unreadable(facts["unreadable"]))
    return facts


def _lost(folder: Path, facts: dict) -> str:
    """Which of the files besides the images is missing or damaged, or ""; images are verified later."""
    labels, listed = folder / "labels.npy", facts.get("labels_sha256")
    if listed and not (labels.exists() and sha256(labels) == listed):
        return f"{labels.name} is missing or damaged"
    try:
        read_names(folder)
    except Damaged:
        return f"{NAMES} is missing or damaged"
    return ""


def _announce_replacement(study: Study, run: Run, report: Report) -> None:
    """Report which clusters of an earlier command will be lost. Those of another seed are not: their run is kept."""
    try:
        found = json.loads((study.results / "summary.json").read_bytes())
        what = f"its {found['clusters']} clusters ({found['title']}, seed {found['seed']})"
        same = (found["method"], found["clusters"]) == (run.stage, study.benchmarks[BENCHMARK].clusters)
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged: it is rewritten
        return
    if not same or found["seed"] == run.seed:
        report(f"{study.results}: {what} will be replaced; to keep them, stop and name another folder by --out")


def _announce(study: Study, untrained: list[Run], device: str, threads: int, report: Report) -> float | None:
    """Report how long it will take; returns the seconds, None if unknown or if a part is already trained."""
    where = torch.cuda.get_device_name() if device == "cuda" else f"the CPU ({threads} threads)"
    try:
        parts = [estimate(study, run, device) for run in untrained]
    except torch.OutOfMemoryError:
        report(f"no estimate: a step does not fit into the memory of {where}")
        return None
    total = sum(part.seconds for part in parts)
    report(f"this will take about {duration(total)} on {where}: {'; '.join(map(str, parts))}")
    begun = any(part.epochs < study.settings(run).training.epochs for part, run in zip(parts, untrained))
    return None if begun or untrained[0].after else total


def _collect(study: Study, run: Run, metrics: Path, device: str, estimated: float | None) -> Clustering:
    """The finished run as files, clusters and a summary."""
    data = study.data / run.benchmark
    assigner = Assigner(run.directory, data, device=device)
    facts = assigner.facts  # of the images trained on, which may be newer than those of the estimate
    arrays = read_assignments(run.directory / "assignments.npz")
    rows, assigned, confidence = arrays["rows"], arrays["assignments"], arrays["confidence"]
    if not confidence.size:
        found = images.load(data, "joint", "assign", size=assigner.image_size, facts=facts, device=device)
        confidence = assigner(found, assigned)[1]
    names = read_names(data)
    scored = read(metrics, Metrics)
    summary = {
        "folder": study.benchmarks[run.benchmark].path,
        "run": run.directory.relative_to(study.results).as_posix(),
        **_summary(assigner, run.title, assigned, confidence, facts),
        "weights": study.methods["pretrained"].note if "pretrained" in study.methods else None,
        "scores": scored.scores.model_dump() if scored and scored.scores else None,
        "classes": len(facts["classes"]),
        "epochs": assigner.record.epochs,
        "agreement": agreement_with_other_seeds(study, run),
        "estimated_seconds": estimated,
        # over all stages, whichever command trained them
        "seconds": sum(read_record(step.directory).seconds for step in chain_of(run)),
    }
    summary["advice"] = advice(summary)
    return Clustering([names[row] for row in rows], assigned, confidence, summary, assigner)


def _summary(assigner: Assigner, title: str, assigned: np.ndarray, confidence: np.ndarray, facts: dict) -> dict:
    return {
        "method": assigner.record.stage,
        "title": title,
        "seed": assigner.record.seed,
        **describe_clusters(assigned, confidence, assigner.clusters),
        "confidence": assigner.measure,
        "unreadable": len(facts["unreadable"]),
    }


def _write(study: Study, run: Run, request: Request, found: Clustering, report: Report) -> tuple[Path, ...]:
    """Write clusters.csv, weights.pt, summary.json, index.html and, if requested or to renew earlier links,
    sorted/<cluster>/; returns their paths, the page last. Raises ValueError if only sorted/ cannot be made."""
    out = request.results
    paths = [write_csv(found, out / "clusters.csv"), out / "weights.pt"]
    with atomic(paths[1]) as temporary:
        shutil.copyfile(run.directory / "weights.pt", temporary)
    write_json(out / "summary.json", found.summary)
    page = write_page(study, run, found.confidence, found.summary, out / "index.html")
    target = out / "sorted"
    if not request.sort and holds_copies(target):
        report(f"{target}: holds copies made by an earlier command, which are not updated; move or remove them")
    elif request.sort or target.is_dir():
        paths.append(sort_images(found, request.folder, target, copies=request.sort == "copies"))
    return *paths, out / "summary.json", page


def write_csv(found: Clustering, path: Path) -> Path:
    """The table of `found` as CSV; returns `path`."""
    carriage_return = any("\r" in name for name in found.files)  # some versions of Python do not quote it
    options: dict = {"quoting": csv.QUOTE_ALL} if carriage_return else {}
    with atomic(path) as temporary:
        found.table().to_csv(
            temporary, index=False, float_format="%.6f", lineterminator="\n", compression=None, **options
        )
    return path


LONGEST = 255  # bytes of a file name


def sort_images(found: Clustering, folder: Path, target: Path, *, copies: bool) -> Path:
    """One folder per cluster, with links to the images or copies, named by rank. Replaces earlier links."""
    check_sortable(folder, target)
    fresh = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    width, digits, place = len(str(found.summary["clusters"] - 1)), len(str(len(found.files))), fresh
    try:
        for name, cluster, rank in found.table()[["file", "cluster", "rank"]].itertuples(index=False):
            end = Path(name).name.encode()[digits + 1 - LONGEST :].decode(errors="ignore")  # of whole characters
            place = fresh / f"{cluster:0{width}}" / f"{rank:0{digits}}-{end}"
            place.parent.mkdir(parents=True, exist_ok=True)
            if copies:
                shutil.copy2(folder / name, place)
            else:
                place.symlink_to((folder / name).absolute())
        shutil.rmtree(target, ignore_errors=True)
        os.replace(fresh, target)
    except OSError as error:
        fix = "fix this" if copies else "fix this, or use --sort copies where links are not possible,"
        raise ValueError(
            f"--sort: cannot make {target / place.relative_to(fresh)}: {error.strerror or error}; the clusters are "
            f"complete in {target.parent}; {fix} and give the same command again"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def check_sortable(folder: Path, target: Path) -> None:
    """Raise ValueError if `target` contains files that are not links and would have to be overwritten."""
    if not folder.is_dir():
        raise ValueError(f"--sort: {folder} is not a folder of images")
    if holds_copies(target):
        raise ValueError(f"--sort: {target}: holds files of an earlier command; move or remove it")


def holds_copies(target: Path) -> bool:
    """Whether `target`, which may not exist, contains files that are not links. Hidden ones are the file manager's."""
    return any(path.is_file() and not path.is_symlink() for path in target.rglob("[!.]*"))


# --- scl assign --------------------------------------------------------------------------------------------------


def assign_folder(
    place: Path, folder: Path, *, gpus: int = 1, threads: int | None = None, report: Report = say
) -> Clustering:
    """The images in `folder` in the clusters of a finished run. place: the folder of the run, or one that `scl cluster`
    made. Raises ValueError if either is unusable; unreadable images are listed and left out."""
    directory, data = run_of(place)
    images_in(folder)  # before the run is loaded
    torch.set_num_threads(threads or cores())
    with gpu_lease.lease(gpus, report=report) as leased, tempfile.TemporaryDirectory(prefix="scl-assign-") as temporary:
        assigner = Assigner(directory, data, device=gpu_lease.torch_device(leased, report=report))
        files, assigned, confidence, facts = assign_images(assigner, folder, Path(temporary))
    summary = _summary(assigner, assigner.record.stage, assigned, confidence, facts)
    summary["folder"] = str(folder.absolute())
    return Clustering(files, assigned, confidence, summary, assigner)
