"""The cells of the tables: the runs of one method on one benchmark under one protocol, over the seeds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from benchmarks.evaluation.statistics import Summary, summarise
from benchmarks.report.collect import Row, read_rows

MARKS = {
    "a": "seeds trained by different commits",
    "c": "trained with uncommitted changes of the code",
    "d": "not all runs on this benchmark used the same images",
    "e": "seeds, or attempts at one, trained on different devices, in different precisions, by different versions of PyTorch or, "
    "on a CPU, with different numbers of threads",
    "f": "an earlier attempt, or a stage that it builds on, was trained by another commit",
}


@dataclass(frozen=True)
class Cell:
    """All planned runs of a method on a benchmark under a protocol: one a seed."""

    rows: tuple[Row, ...]
    images_differ: bool = False  # among all runs on this benchmark under this protocol

    @property
    def done(self) -> list[Row]:
        return [row for row in self.rows if row.status == "done"]

    @property
    def title(self) -> str:
        return self.rows[0].method

    def by_seed(self, score: str) -> dict[int, float]:
        """Score of each seed that has one."""
        return {row.seed: getattr(row, score) for row in self.done if getattr(row, score) is not None}

    @property
    def absence(self) -> str:
        """Why there is no mean to print; "" if there is one. A part of the seeds is never averaged."""
        counts = Counter(row.status for row in self.rows)
        if counts["skipped"] == len(self.rows):
            return f"not run: {self.rows[0].reason}"
        if counts["done"] < len(self.rows):
            word = "failed" if counts["failed"] else "missing"
            if counts["done"]:
                return f"{word} ({counts['done']} of {len(self.rows)} done)"
            return "failed" if counts["failed"] else "not run"
        return "" if self.by_seed("acc") else "no labels"

    def summary(self, score: str) -> Summary | None:
        """Mean over the seeds; None if a planned seed is not done or has no such score."""
        values = self.by_seed(score)
        return summarise(values.values()) if not self.absence and len(values) == len(self.rows) else None

    def mean(self, name: str) -> float | None:
        """Mean of a measurement that needs no labels (seconds, memory): of the done runs if all are done."""
        values = [getattr(row, name) for row in self.rows]
        if any(row.status != "done" for row in self.rows) or None in values:
            return None
        return sum(values) / len(values)

    @property
    def marks(self) -> str:
        """Letters of MARKS that hold for the runs behind this cell."""

        def distinct(*names, rows=self.done):
            return len({tuple(getattr(row, name) for name in names) for row in rows}) > 1

        on_cpu = [row for row in self.done if row.on_cpu]  # on a GPU the threads of the CPU change no result

        holds = {
            "a": distinct("commit"),
            "c": any(row.dirty for row in self.done),
            "d": self.images_differ and bool(self.done),
            "e": distinct("device", "precision", "torch") or distinct("threads", rows=on_cpu)
            or any(row.other_devices for row in self.done),
            "f": any(row.other_commits for row in self.done),
        }
        return "".join(letter for letter in MARKS if holds[letter])


@dataclass(frozen=True)
class Grid:
    """The cells of a study: [protocol][benchmark][stage], in the study's order."""

    rows: tuple[Row, ...]
    cells: dict[str, dict[str, dict[str, Cell]]]

    def stages(self, protocol: str) -> dict[str, str]:
        """stage -> title of the methods planned under a protocol."""
        return {
            stage: cell.title
            for by_stage in self.cells[protocol].values()
            for stage, cell in by_stage.items()
        }


def read_grid(study, folder) -> Grid:
    """The cells of the study, from `folder`/runs.csv."""
    rows = tuple(read_rows(folder))
    protocols = dict.fromkeys(row.protocol for row in rows)
    return Grid(
        rows,
        {
            protocol: _benchmarks(study, [row for row in rows if row.protocol == protocol])
            for protocol in protocols
        },
    )


def _benchmarks(study, rows: list[Row]) -> dict[str, dict[str, Cell]]:
    order = list(study.methods)
    found = {}
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        here = [row for row in rows if row.benchmark == benchmark]
        differ = len({row.images_sha256 for row in here if row.status == "done"}) > 1
        stages = sorted(dict.fromkeys(row.stage for row in here), key=order.index)
        found[benchmark] = {
            stage: Cell(tuple(row for row in here if row.stage == stage), differ) for stage in stages
        }
    return found
