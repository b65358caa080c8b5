"""The map of a run's features as inline SVG: a dot per image, colored by cluster or, by a switch, by class."""

from __future__ import annotations

from itertools import groupby

from markupsafe import Markup

from benchmarks.evaluation.clusters import Clusters

COLORS = 10  # --m0 to --m9 of page.css; further clusters and classes reuse them
MARGIN = 15
MOST_TITLES = 300  # paths up to which each has a tooltip with its cluster and class


def scatter(data: Clusters) -> Markup | None:
    """The map, with one path for all images of the same cluster and class; None if there is none."""
    if data.map is None:
        return None
    x, y, clusters = data.map.x, data.map.y, data.map.clusters
    labels = data.map.labels or [-1] * len(x)
    order = sorted(range(len(x)), key=lambda i: (clusters[i], labels[i], i))
    paths = {key: "".join(f"M{x[i]} {y[i]}h0" for i in found)
             for key, found in groupby(order, key=lambda i: (clusters[i], labels[i]))}  # fmt: skip
    box = f"{-MARGIN} {-MARGIN} {max(x) + 2 * MARGIN} {max(y) + 2 * MARGIN}"
    label = f"Map of {len(x)} images by their features, colored by cluster or class"
    parts = [Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(box, label)]
    for (cluster, of_class), path in paths.items():
        drawn = Markup('<path class="k{} {}" data-k="{}" data-c="{}" d="{}">').format(
            cluster % COLORS, f"c{of_class % COLORS}" if of_class >= 0 else "", cluster, of_class, path
        )
        title = f"cluster {cluster}" + (f", {data.classes[of_class]}" if of_class >= 0 else "")
        parts += [
            drawn,
            Markup("<title>{}</title>").format(title) if len(paths) <= MOST_TITLES else Markup(""),
            Markup("</path>"),
        ]
    return Markup("").join([*parts, Markup("</svg>")])
