"""The workflow as a user starts it: `snakemake` and `scl` in separate processes, in a separate folder."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from forked import CPU_ONLY, ROOT, Process

TINY = {
    "benchmarks": {"tiny": {"dataset": "digits", "subset": 60, "size": 8}},
    "protocols": ["joint"],
    "seeds": 1,
    "network": {"width": 8, "layers": [1, 1, 1]},
    "training": {"batch_size": 32, "curve_points": 1, "precision": "fp32"},
    "machine": {"threads": 1},
    "results": "results",
    "data": "data",
}


def start(folder, study, *flags, before=(), merged=True):
    """Start the workflow on `study` (a mapping, or the text of a configuration) in `folder`, on the CPU and two cores,
    as leader of a process group. It is forked (forked.py) unless `before`, a command that starts it, is given."""
    text = study if isinstance(study, str) else yaml.safe_dump(study, sort_keys=False)
    (folder / "study.yaml").write_text(text)
    options = ["--snakefile", ROOT / "Snakefile", "--cores", "2", "--configfile", "study.yaml"]
    options += ["--workflow-profile", ROOT / "profiles" / "default", *flags]
    if not before:
        return Process("snakemake", options, folder, merged=merged)
    return subprocess.Popen(
        [*before, Path(sys.executable).with_name("snakemake"), *options],
        cwd=folder,
        env=os.environ | CPU_ONLY | {"PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in background jobs
    )


def snakemake(folder, study, *flags):
    """Run the workflow to its end; return the completed process."""
    process = start(folder, study, *flags, merged=False)
    output, error = process.communicate(timeout=900)
    return subprocess.CompletedProcess(flags, process.returncode, output, error)


def scl(folder, *arguments):
    """Run an `scl` command in `folder` on the CPU, forked; return the completed process."""
    process = start_scl(folder, *arguments)
    output, error = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, output, error)


def start_scl(folder, *arguments):
    return Process("scl", arguments, folder)


def run_of(folder, stage="simclr"):
    return folder / "results" / "runs" / "tiny" / "joint" / stage / "seed0"


def outcome(run):
    """The results of a run, without times: its arrays, weights, and scores."""
    with np.load(run / "assignments.npz") as file:
        found = {name: file[name].tobytes() for name in file.files}
    weights = torch.load(run / "weights.pt", weights_only=True)
    found |= {name: value.numpy().tobytes() for name, value in weights.items()}
    return found | {"scores": json.loads((run / "metrics.json").read_text())["scores"]}


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copy2)


def planned(done) -> dict:
    """{rule: number of jobs} of a dry run, {} if there is nothing to do."""
    assert done.returncode == 0, done.stderr
    table = (done.stdout + done.stderr).rpartition("Job stats:")[2]
    counts = re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)
    return {rule: int(count) for rule, count in counts if rule not in ("all", "total")}


def column(tables, protocol, name) -> dict:
    """{title: cell} of a column of the first table of a protocol, without footnote marks."""
    lines = tables.partition(f"## Protocol: {protocol}")[2].partition("\n## ")[0].splitlines()
    first = itertools.takewhile(is_row, itertools.dropwhile(lambda line: not is_row(line), lines))
    rows = [[cell.strip(" ᵃᵇᶜᵈᵉᶠᵍʰ†") for cell in line.strip("|").split("|")] for line in first]
    place = rows[0].index(name)
    return {row[0]: row[place] for row in rows[2:]}


def is_row(line):
    return line.startswith("|")
