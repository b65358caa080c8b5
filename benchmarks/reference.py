"""Regenerate the reports of committed studies, results/reference/<study>/, from their runs (`make reference`).

A committed run is a copy of its record and its metrics and, in small studies, of its history, its settings, and its
clusters.json; weights, assignments, and images are not copied. The code that makes every other report makes runs.csv,
tables, claims, figures, and the page from these, so a changed default, statistic, or template shows as a difference
from the committed files.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from benchmarks.compose import resolve
from benchmarks.datasets.catalog import archives_of
from benchmarks.datasets.prepare import prepare_for
from benchmarks.evaluation.clusters import FILE
from benchmarks.report.render import write_report
from benchmarks.report.runs import Unfinished, collect, runs_of, unfinished
from benchmarks.study import load_study
from scl.engine.artifacts import CLUSTERING
from scl.engine.io import write_yaml_if_changed

FOLDER = Path("results/reference")
KEPT = ("record.json", "metrics.json", CLUSTERING)  # of every run; the last only if `scl kmeans` made the assignments
KEPT_OF_FEW = ("history.csv", "run.yaml", FILE)  # as well, in studies of at most FEW runs, which get a page
FEW = 100


def studies(folder: Path = FOLDER) -> list[Path]:
    """The folders of the committed studies: those with a study.yaml."""
    return sorted(path.parent for path in folder.glob("*/study.yaml"))


def remake(folder: Path) -> list[Path]:
    """Make runs.csv, tables, claims, figures, and, for few runs, the page of a committed study in place; return paths.

    Images for the page are prepared if they need no download. Raises ValueError if the code or the configuration no
    longer describes the runs.
    """
    study = load_study(folder / "study.yaml").model_copy(update={"results": folder})
    try:
        runs = collect(study, folder, committed=True)
    except Unfinished as error:
        raise ValueError(f"{folder}: {error}, and add it anew; or retire it") from None
    with_page = all((run.directory / FILE).exists() for run in study.available_runs())
    with tempfile.TemporaryDirectory() as data:
        study = study.model_copy(update={"data": Path(data)})
        for name in study.available if with_page else ():
            if not archives_of(study.dataset(name), study.downloads):
                prepare_for(study, name)
        return [runs, *write_report(study, folder, page=with_page)]


def add(source: Path, folder: Path = FOLDER) -> Path:
    """Copy the finished study of a configuration to `folder`, replacing an earlier copy; return the new folder.

    Runs without a record in the results are taken from the earlier copy, so that a study can grow by seeds or
    benchmarks. Raises Unfinished, a ValueError, if a run is not done.
    """
    study = load_study(source)
    target = folder / study.results.name
    earlier = {run: target / run.directory.relative_to(study.results) for run in study.runs()}
    kept = {run for run, copy in earlier.items() if is_trained(copy) and not is_trained(run.directory)}
    rows = runs_of(study)
    rows.loc[[run in kept for run in study.runs()], "status"] = "done"
    if problem := unfinished(rows):
        raise Unfinished(problem)
    runs = study.available_runs()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as parent:
        copy = Path(parent) / target.name
        for run in runs:
            origin = earlier[run] if run in kept else run.directory
            to = copy / run.directory.relative_to(study.results)
            to.mkdir(parents=True)
            wanted = KEPT + (KEPT_OF_FEW if len(runs) <= FEW else ())
            if json.loads((origin / "record.json").read_bytes())["counts"]:
                wanted += ("history.csv",)  # tables give the number of steps
            for name in wanted:
                if (origin / name).exists():
                    shutil.copyfile(origin / name, to / name)
        write_yaml_if_changed(copy / "study.yaml", resolve(source))
        remake(copy)
        shutil.rmtree(target, ignore_errors=True)
        copy.rename(target)
    return target


def is_trained(directory: Path) -> bool:
    return (directory / "record.json").exists()


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description="Regenerate the reports of all committed studies.")
    text = "configuration of a finished study, which is added first"
    parser.add_argument("studies", nargs="*", metavar="FILE", type=Path, help=text)
    try:
        for source in parser.parse_args(arguments).studies:
            add(source)
        for folder in studies():
            print(*remake(folder), sep="\n")
    except (ValueError, OSError) as error:
        parser.exit(2, f"reference: error: {error}\n")


if __name__ == "__main__":
    main()
