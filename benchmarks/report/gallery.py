"""The images of each cluster as one sprite per cluster: most confident, least confident, misassigned."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

LEVELS = ((12, 64), (12, 48), (10, 32), (6, 32), (3, 32), (1, 24))  # (images per line, pixels of each), until it fits
SMALLEST_SHOWN = 40  # pixels on the page: smaller images are enlarged
LARGEST_AS_PNG = 28  # pixels; JPEG blurs such small images and saves nothing


class Line(NamedTuple):
    """A line of a sprite: what its images have in common, and their names."""

    kind: str
    names: list[str]


class Cluster(NamedTuple):
    """A cluster, the class that it is matched with ("" if none), and its sprite (None for an empty cluster)."""

    number: int
    size: int
    match: str
    source: str | None
    width: int
    height: int
    lines: list[Line]


def gallery(data, budget: int) -> tuple[list[Cluster], int]:
    """The clusters of a run (run_data.RunData) with as many and as large images as `budget` bytes allow, and the bytes.

    If not even the smallest sprites fit, the last clusters are left out.
    """
    clusters: list[Cluster] = []
    for level in LEVELS:
        clusters, total = [], 0
        for number in range(data.clusters):
            clusters.append(_cluster(data, number, *level))
            total += _bytes(clusters[-1])
            if total > budget and level != LEVELS[-1]:  # the next level, without drawing the others
                break
        else:
            break
    fits = np.cumsum([_bytes(cluster) for cluster in clusters]) <= budget
    return clusters[: int(fits.sum())], int(sum(map(_bytes, clusters)))


def _bytes(cluster: Cluster) -> int:
    return len(cluster.source or "") + sum(len(name) + 10 for line in cluster.lines for name in line.names)


def _cluster(data, number: int, count: int, pixels: int) -> Cluster:
    members = np.flatnonzero(data.assignments == number)  # positions in the run's arrays
    lines = {kind: chosen for kind, chosen in _lines(data, number, members, count).items() if len(chosen)}
    match = data.match.get(number)
    title = data.classes[match] if match is not None else ""
    named = [Line(kind, [_name(data, position) for position in chosen]) for kind, chosen in lines.items()]
    if not lines:
        return Cluster(number, 0, title, None, 0, 0, [])
    side = min(data.images.shape[1], pixels)
    sheet = Image.new("RGB", (side * max(map(len, lines.values())), side * len(lines)), "white")
    for row, chosen in enumerate(lines.values()):
        for column, position in enumerate(chosen):
            tile = Image.fromarray(np.asarray(data.images[data.rows[position]]))
            sheet.paste(tile if tile.size == (side, side) else tile.resize((side, side)), (side * column, side * row))
    scale = max(1, -(-SMALLEST_SHOWN // side))
    return Cluster(number, len(members), title, _encoded(sheet, side), sheet.width * scale, sheet.height * scale, named)


def _lines(data, number: int, members: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """{kind: positions of the chosen members}. Without confidence, images are in the order of the data set."""
    if data.confidence is None:
        chosen = {"first images": members[:count]}
    else:
        members = members[np.argsort(-data.confidence[members], kind="stable")]
        chosen = {"most confident": members[:count], "least confident": members[count:][::-1][:count]}
    if data.labels is not None and number in data.match:
        labels = data.labels[members]
        chosen["misassigned"] = members[(labels >= 0) & (labels != data.match[number])][:count]
    return chosen


def _name(data, position: int) -> str:
    row = int(data.rows[position])
    name = data.names[row] if data.names else f"row {row}"
    label = -1 if data.labels is None else int(data.labels[position])
    return f"{name} ({data.classes[label]})" if label >= 0 else name


def _encoded(sheet: Image.Image, side: int) -> str:
    kind, options = ("PNG", {"optimize": True}) if side <= LARGEST_AS_PNG else ("JPEG", {"quality": 85})
    buffer = io.BytesIO()
    sheet.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
