"""What `scl cluster` says about its clusters: summary, advice, and index.html, the page of its run."""

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from benchmarks.datasets.prepare import read_names
from benchmarks.evaluation.clusters import FILE, Clusters, agreement, clusters_of
from benchmarks.evaluation.evaluate import clusters_by_row, read_assignments
from benchmarks.state import Survey
from benchmarks.study import Run, Study
from scl.engine.artifacts import read
from scl.engine.io import Damaged
from scl.engine.prepared import describe
from scl.util.text import duration


def write_page(study: Study, run: Run, confidence: np.ndarray, summary: dict, path: Path) -> Path:
    """Write the page of a finished run to `path`, which it returns.

    confidence: of each image, also for k-means, whose assignments.npz has none. summary: the content of summary.json.
    """
    from benchmarks.report.render import template  # matplotlib and jinja2, which take a second
    from benchmarks.report.run_page import MOST_BYTES, write_run_page

    folder = study.data / run.benchmark
    facts, stored = describe(folder), None
    with suppress(Damaged):  # only its map is wanted
        stored = read(run.directory / FILE, Clusters)
    labels = np.load(folder / "labels.npy") if facts.get("labels_sha256") else None
    arrays = read_assignments(run.directory / "assignments.npz") | {"confidence": confidence}
    data = clusters_of(arrays, facts["clusters"], labels=labels, classes=facts["classes"], names=read_names(folder))
    data.map = stored.map if stored else None
    scores = summary["scores"] or dict.fromkeys(("acc", "nmi", "ari"), float("nan"))
    row = SimpleNamespace(status="done", reason="", **scores)
    further = {"title": study.title, "index": "", "downloads": ["clusters.csv", "summary.json"],
               "hint": summary["advice"], "measure": summary["confidence"], "agreement": summary["agreement"],
               "weights": summary["weights"], "left_out": summary["unreadable"]}  # fmt: skip
    write_run_page(study, run, row, path, template("run.html"), MOST_BYTES, data=data, **further)
    return path


def agreement_with_other_seeds(study: Study, run: Run) -> dict:
    """{"seeds": "seeds 1, 2", "ARI": mean, "NMI": mean} between this run and each finished run of another seed in the
    same results; {} if there is none."""
    survey, own = Survey(study), clusters_by_row(run.directory)
    others = {}
    for folder in run.directory.parent.glob("seed*"):
        if not (seed := folder.name.removeprefix("seed")).isdecimal():
            continue  # such as a copy
        other = study.run(run.benchmark, run.protocol, run.stage, int(seed))
        if other.seed != run.seed and survey.state(other).status == "done":
            others[other.seed] = agreement([own, clusters_by_row(other.directory)])
    if not others:
        return {}
    means = {name: float(np.mean([found[name] for found in others.values()])) for name in ("ARI", "NMI")}
    return {"seeds": f"seed{'s' * (len(others) > 1)} {', '.join(map(str, sorted(others)))}", **means}


TINY = 0.1  # of the size of an average cluster


def describe_clusters(assigned: np.ndarray, confidence: np.ndarray, clusters: int) -> dict:
    """What can be said without labels. Shares are fractions of the images, over all K clusters."""
    sizes = np.bincount(assigned, minlength=clusters)
    return {
        "images": len(assigned),
        "clusters": clusters,
        "clusters_used": int((sizes > 0).sum()),
        "tiny_clusters": int((sizes < TINY * len(assigned) / clusters).sum()),  # empty ones included
        "largest_share": float(sizes.max() / len(assigned)),
        "smallest_share": float(sizes.min() / len(assigned)),
        "mean_confidence": float(confidence.mean()),
    }


def summary_lines(s: dict) -> list[str]:
    """The summary s as lines of text."""
    lines = [
        f"{Path(s['folder']).name}: {s['images']:,} images clustered by {s['title']}, seed {s['seed']}",
        f"clusters in use: {s['clusters_used']} of {s['clusters']}; the largest has {s['largest_share']:.1%} of the "
        f"images, the smallest {s['smallest_share']:.1%}",
        f"mean confidence: {s['mean_confidence']:.3f} ({s['confidence']})",
    ]
    if scores := s.get("scores"):
        texts = ", ".join(f"{name.upper()} {scores[name]:.1%}" for name in ("acc", "nmi", "ari"))
        lines.append(f"compared with the {s['classes']} sub-folders: {texts}")
    if agreed := s.get("agreement"):
        lines.append(f"agreement with {agreed['seeds']}: ARI {agreed['ARI']:.1%}, NMI {agreed['NMI']:.1%}")
    if s.get("weights"):
        lines.append(f"weights: {s['weights']}")
    if s["unreadable"]:
        lines.append(f"left out: {s['unreadable']} unreadable image(s)")
    if s.get("seconds") is not None:
        said = "" if s["estimated_seconds"] is None else f" (estimate: {duration(s['estimated_seconds'])})"
        lines.append(f"time: {duration(s['seconds'])}{said}")
    if s.get("advice"):
        lines.append(s["advice"])
    return lines


def advice(summary: dict) -> str:
    """What to try if clusters are empty or tiny; "" if none is."""
    empty, tiny = summary["clusters"] - summary["clusters_used"], summary["tiny_clusters"]
    if not tiny:
        return ""
    counts = {"empty": empty, "almost empty": tiny - empty}
    parts = [f"{n} {'is' if n == 1 else 'are'} {what}" for what, n in counts.items() if n]
    hints = ["more images"]
    if summary["clusters"] > 2:
        hints.insert(0, "fewer clusters")
    if not summary["weights"] and summary["method"] != "pica":  # pica starts from random weights
        hints.insert(0, "a pretrained network (--weights resnet18.a1_in1k; with --method kmeans it takes minutes)")
    why = ", which is common after training on few images" if summary["epochs"] else ""
    found = f"Of {summary['clusters']} clusters, {' and '.join(parts)}{why}."
    *others, last = hints
    return f"{found} Try {', '.join(others)}, or {last}." if others else f"{found} Try {last}."
