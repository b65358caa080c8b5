"""The workflow as a user starts it: `snakemake` as a process of its own, in a folder of its own."""

import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
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


def snakemake(folder, study, *flags):
    """Run the workflow on `study` (a mapping, or the text of a configuration) in `folder`, on the CPU and two cores;
    returns the completed process."""
    text = study if isinstance(study, str) else yaml.safe_dump(study, sort_keys=False)
    (folder / "study.yaml").write_text(text)
    command = [
        Path(sys.executable).with_name("snakemake"),
        "--snakefile",
        ROOT / "Snakefile",
        "--cores",
        "2",
        "--workflow-profile",
        ROOT / "profiles" / "default",
        "--configfile",
        "study.yaml",
        *flags,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


def scl(folder, *arguments, wait=True):
    """Run an `scl` command in `folder` on the CPU; the completed process, or the one just started."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.cli", *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,  # SIGINT is ignored in background jobs
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    if not wait:
        return process
    output, error = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, output, error)


def planned(done) -> dict:
    """{rule: number of jobs} of a dry run, {} if there is nothing to do."""
    assert done.returncode == 0, done.stderr
    table = (done.stdout + done.stderr).rpartition("Job stats:")[2]
    counts = re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)
    return {rule: int(count) for rule, count in counts if rule not in ("all", "total")}


def column(tables, protocol, name) -> dict:
    """{title: cell} of a column of the first table of a protocol, without marks."""
    lines = tables.partition(f"## Protocol: {protocol}")[2].partition("\n## ")[0].splitlines()
    first = itertools.takewhile(is_row, itertools.dropwhile(lambda line: not is_row(line), lines))
    rows = [[cell.strip(" ᵃᵇᶜᵈᵉᶠ") for cell in line.strip("|").split("|")] for line in first]
    place = rows[0].index(name)
    return {row[0]: row[place] for row in rows[2:]}


def is_row(line):
    return line.startswith("|")
