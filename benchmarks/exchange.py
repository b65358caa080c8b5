"""`scl pack` and `scl unpack`: runs carried from one machine to another, so that one study can be made on several.

A packed run is its folder below `<results>/runs`, file by file. Nothing is taken over that this study does not plan
with exactly the same settings, or that was made on other images than those prepared here.
"""

import dataclasses
import shutil
import tarfile
from pathlib import Path

import yaml

from benchmarks.state import Survey
from benchmarks.study import Run, Study
from scl import settings
from scl.prepared import describe
from scl.record import Damaged, atomic
from scl.run_files import Record, parse
from scl.settings import RunSettings

FILES = ("run.yaml", "history.csv", "assignments.npz", "record.json", "metrics.json")  # the record after what it marks
SMALL = ("run.yaml", "record.json")  # what tells whether a run belongs here
HEAVY = ("checkpoint.prev.pt", "checkpoint.pt", "weights.pt")


def pack_runs(study: Study, archive: Path, *, weights: bool = False) -> str:
    """Write `archive` and say what is in it. weights: those of finished runs and the checkpoints of others.

    Raises ValueError if there is nothing to pack.
    """
    packed, done = 0, 0
    with atomic(archive) as temporary, tarfile.open(temporary, "w") as tar:
        for run in study.runs():
            finished = (run.directory / "record.json").exists()
            heavy = ("weights.pt",) if finished else HEAVY[:2]
            names = [name for name in ((*heavy, *FILES) if weights else FILES) if (run.directory / name).exists()]
            if not finished and not set(names) & set(HEAVY):
                continue  # planned, nothing more
            for name in names:
                tar.add(run.directory / name, _place(study, run) + "/" + name, filter=_without_owner)
            packed, done = packed + 1, done + finished
        if not packed:
            raise ValueError(f"{study.results}: no run to pack yet")
    return f"{archive}: {packed} runs, {done} of them finished, {archive.stat().st_size / 1e6:.1f} MB"


def _without_owner(member):
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _place(study: Study, run: Run) -> str:
    return run.directory.relative_to(study.results / "runs").as_posix()


def unpack_runs(study: Study, archive: Path) -> str:
    """Take over what `archive` holds of this study, and say what that was; runs that are done here stay as they are.

    Raises ValueError, before anything is written, if a run is not planned here, has other settings or other images.
    """
    planned = {_place(study, run): run for run in study.runs()}
    try:
        with tarfile.open(archive) as tar:
            found = _members(tar, archive)
            for place, members in found.items():
                if place not in planned:
                    raise ValueError(f"{archive}: holds the run {place}, which this study does not plan")
                small = {name: tar.extractfile(members[name]).read() for name in SMALL if name in members}
                _check(study, planned[place], small, f"{archive}: {place}")
            survey = Survey(study)
            new = [place for place in planned if place in found and survey.state(planned[place]).status != "done"]
            for place in new:  # in the study's order: a run's files are newer than those of the run it starts from
                _take_over(tar, planned[place], found[place])
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{archive}: not a whole tar file ({error}); pack and copy it again") from None
    return f"{len(new)} runs taken over, {len(found) - len(new)} were done here already"


def _members(tar, archive: Path) -> dict[str, dict]:
    """{place of a run: {file name: member}}"""
    found: dict[str, dict] = {}
    for member in tar:
        place, _, name = member.name.rpartition("/")
        if not member.isfile() or name not in (*FILES, *HEAVY):
            raise ValueError(f"{archive}: holds {member.name}, which no run has: not a file that pack wrote")
        found.setdefault(place, {})[name] = member
    return found


def _take_over(tar, run: Run, members: dict) -> None:
    for name in (*HEAVY, *FILES):
        if name in members and name != "run.yaml":  # that one is planned here
            with atomic(run.directory / name) as temporary, open(temporary, "wb") as file:
                shutil.copyfileobj(tar.extractfile(members[name]), file)
    (run.directory / "failure.json").unlink(missing_ok=True)


def _check(study: Study, run: Run, small: dict[str, bytes], where: str) -> None:
    """The packed run is the planned one, on the images that lie here (if any do)."""
    if "run.yaml" not in small:
        raise ValueError(f"{where}: lacks run.yaml; pack it again")
    packed = settings.read(RunSettings, yaml.safe_load(small["run.yaml"]), where)
    planned = settings.complete(study.settings(run))
    if packed != planned:
        differing = [f.name for f in dataclasses.fields(RunSettings) if getattr(packed, f.name) != getattr(planned, f.name)]
        raise ValueError(f"{where}: made with other settings than this study's ({', '.join(differing)})")
    mark = study.data / run.benchmark / "benchmark.json"
    if "record.json" in small and mark.exists():
        try:
            record = parse(small["record.json"], Record)
        except Damaged as error:
            raise ValueError(f"{where}: record.json is {error}; pack it again") from None
        if record.images_sha256 != describe(mark.parent)["images_sha256"]:
            raise ValueError(f"{where}: made on other images than those in {mark.parent}")
