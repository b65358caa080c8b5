"""The cost of a study as text of at most 100 columns."""

from collections.abc import Iterator
from typing import Any

from benchmarks.plan.machine import without_instructions
from scl.util.text import duration

WIDTH = 100
STATES = {"there": "there already", "prepared": "not needed: prepared already"}
HINT = "{}: not measured here; `scl plan --calibrate {}` does that in minutes"


def describe_cost(cost: dict[str, Any], source: str) -> str:
    """Downloads, disk, hours by benchmark and method, and time. source: the file of the study."""
    return "\n".join([*_downloads(cost), *_disk(cost), *_hours(cost), *_sources(cost, source)])


def _downloads(cost: dict[str, Any]) -> Iterator[str]:
    missing = [entry for entry in cost["downloads"] if entry["state"] == "missing"]
    more = " and more (of unknown size)" if any(entry["bytes"] is None for entry in missing) else ""
    yield f"download: {_size(sum(entry['bytes'] or 0 for entry in missing)) if missing else 'nothing'}{more}"
    listed = [entry for entry in cost["downloads"] if not entry["file"].startswith("ilsvrc/")]
    for entry in listed:
        what = STATES.get(entry["state"]) or entry["urls"][0]
        name = f"{entry['file']}: " if entry["state"] in STATES else ""
        yield _cut(f"  {_size(entry['bytes']) if entry['bytes'] else '? GB':>8}  {name}{what}")
    if synsets := [entry for entry in cost["downloads"] if entry not in listed]:
        absent = sum(entry["bytes"] for entry in synsets if entry["state"] == "missing")
        yield _cut(f"  {_size(absent):>8}  {len(synsets)} classes of ILSVRC-2012, about; {synsets[0]['urls'][0]}")


def _disk(cost: dict[str, Any]) -> Iterator[str]:
    disk = cost["disk"]
    names = {"archives": "archives", "arrays": "images", "runs": "runs", "temporary": "runs in progress"}
    parts = ", ".join(f"{text} {_size(disk[name])}" for name, text in names.items())
    yield f"disk: {_size(disk['peak'])} at the peak ({parts});"
    lacks = [f"{disk['runs_of_unknown_size']} runs"] * bool(disk["runs_of_unknown_size"]) + disk["unknown"]
    unknown = f"; not counted, of unknown size: {', '.join(lacks)}" if lacks else ""
    short = "" if disk["free"] > disk["peak"] - disk["there"] else ": TOO LITTLE"
    yield _cut(f"  there already: {_size(disk['there'])}; free: {_size(disk['free'])}{short}{unknown}")


def _hours(cost: dict[str, Any]) -> Iterator[str]:
    """A table of methods by benchmarks, split if it would be too wide."""
    unit = "GPU" if cost["device"]["gpus"] else "core"
    known = [row["hours"] for row in cost["rows"] if row["hours"] is not None]
    span, scale = ("minutes", 60) if known and sum(known) < 2 else ("hours", 1)
    yield f"{unit}-{span} of all runs, by benchmark and method:"
    methods = list(dict.fromkeys(row["method"] for row in cost["rows"]))
    labels = ["", *methods, "runs"]
    first = max(map(len, labels))
    columns: list[list[str]] = []
    for benchmark in dict.fromkeys(row["benchmark"] for row in cost["rows"]):
        rows = [row for row in cost["rows"] if row["benchmark"] == benchmark]  # of all methods, in their order
        texts = [benchmark, *(_cell(row, scale, unit) for row in rows), f"{sum(row['runs'] for row in rows)}  "]
        width = max(map(len, texts))
        columns.append([f"{text:>{width}}" for text in texts])
    while columns:
        part = [columns.pop(0)]
        while columns and 2 + first + sum(2 + len(column[0]) for column in [*part, columns[0]]) <= WIDTH:
            part.append(columns.pop(0))
        for label, *cells in zip(labels, *part):
            yield f"  {label:{first}}  {'  '.join(cells)}".rstrip()
    yield from _totals(cost, scale, span)


def _cell(row: dict[str, Any], scale: int, unit: str) -> str:
    if row["hours"] is None:
        return "unknown"
    marks = "".join(source["mark"] for source in row["sources"])
    other = "" if row["unit"].startswith(unit) else "*"
    return f"{_number(row['hours'] * scale)}{other} {marks or ' '}"


def _totals(cost: dict[str, Any], scale: int, span: str) -> Iterator[str]:
    device = cost["device"]
    known: dict[str, float] = {}
    for row in cost["rows"]:
        known[row["unit"]] = known.get(row["unit"], 0.0) + (row["hours"] or 0.0)
        if row["unit"] == "GPU-hours" and row["core_hours"]:
            known["core-hours"] = known.get("core-hours", 0.0) + row["core_hours"]
    parts = [f"{_number(hours * scale)} {unit.replace('hours', span)}" for unit, hours in known.items()]
    without = sum(row["runs"] for row in cost["rows"] if row["seconds_per_run"] is None)
    more = f" and {without} runs of unknown time" if without else ""
    yield f"in all: {', '.join(parts) or 'nothing'}{more}"
    if beside := sum(row["kmeans_core_hours"] or 0.0 for row in cost["rows"]):
        yield f"  k-means after training takes {_number(beside * scale)} core-{span} beside the GPU"
    where = f"{device['gpus']} x " if device["gpus"] else f"{device['cores']} cores of "
    name = without_instructions(device["name"]).removeprefix("CPU: ")
    wall = "unknown" if cost["wall_seconds"] is None else f"about {duration(cost['wall_seconds'])}"
    yield _cut(
        f"time here: {wall} for the {cost['runs_left']} runs left, {device['runs_at_once']} at once on {where}{name}"
    )
    if any(entry["state"] == "missing" for entry in cost["downloads"]):
        yield "  not counted: downloads and the preparation of their images"


def _sources(cost: dict[str, Any], source: str) -> Iterator[str]:
    found = sorted({(one["mark"], one["source"]) for row in cost["rows"] for one in row["sources"]})
    for mark, text in found:
        yield _cut(f"  {mark}: {text}")
    if cost["device"]["gpus"] and any(row["unit"] == "core-hours" for row in cost["rows"]):
        yield "  *: of CPU cores"
    unknown = any(row["seconds_per_run"] is None for row in cost["rows"])
    if elsewhere := ["m"] * any(mark == "m" for mark, _ in found) + ["unknown"] * unknown:
        yield _cut(f"  {HINT.format(', '.join(elsewhere), source)}")


def _number(value: float) -> str:
    """A number with at most three digits, or all before the decimal point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.0f} MB"


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
