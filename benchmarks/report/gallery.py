"""The images of each cluster as one sprite per cluster: most confident, least confident, misassigned."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.evaluation.clusters import Clusters, Line

LEVELS = ((12, 64), (12, 48), (10, 32), (6, 32), (3, 32), (1, 24))  # (images per line, pixels of each), until it fits
SMALLEST_SHOWN = 40  # pixels on the page: smaller images are enlarged
LARGEST_AS_PNG = 28  # pixels; JPEG blurs such small images and saves nothing


class Cluster(NamedTuple):
    """A cluster, the class that it is matched with ("" if none), and its sprite (None for an empty cluster)."""

    number: int
    size: int
    match: str
    source: str | None
    width: int
    height: int
    lines: list[Line]


def gallery(data: Clusters, images: np.ndarray, budget: int) -> tuple[list[Cluster], int]:
    """The clusters of a run with as many and as large images as `budget` bytes allow, and the number of bytes.

    images: of the whole data set [N, H, W, 3]. If not even the smallest sprites fit, the last clusters are left out.
    """
    for level in LEVELS:
        clusters, total = list[Cluster](), 0
        while len(clusters) < len(data.sizes):
            cluster = _cluster(data, images, len(clusters), *level)
            if total + _bytes(cluster) > budget:
                break
            clusters.append(cluster)
            total += _bytes(cluster)
        else:
            break
    return clusters, total


def _bytes(cluster: Cluster) -> int:
    return len(cluster.source or "") + sum(len(name) + 10 for line in cluster.lines for name in line.names)


def _cluster(data: Clusters, images: np.ndarray, number: int, count: int, pixels: int) -> Cluster:
    lines = [Line(kind=line.kind, rows=line.rows[:count], names=line.names[:count]) for line in data.shown[number]]
    title = data.title(number)
    if not lines:
        return Cluster(number, 0, title, None, 0, 0, [])
    side = min(images.shape[1], pixels)
    sheet = Image.new("RGB", (side * max(len(line.rows) for line in lines), side * len(lines)), "white")
    for down, line in enumerate(lines):
        for across, row in enumerate(line.rows):
            tile = Image.fromarray(np.asarray(images[row]))
            sheet.paste(tile if tile.size == (side, side) else tile.resize((side, side)), (side * across, side * down))
    scale = max(1, -(-SMALLEST_SHOWN // side))
    size = sheet.width * scale, sheet.height * scale
    return Cluster(number, data.sizes[number], title, _encoded(sheet, side), *size, lines)


def _encoded(sheet: Image.Image, side: int) -> str:
    kind, options = ("PNG", {"optimize": True}) if side <= LARGEST_AS_PNG else ("JPEG", {"quality": 85})
    buffer = io.BytesIO()
    sheet.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
