"""One color, dash and marker per method name: the same in all figures and tables of all studies."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from markupsafe import Markup

# After Okabe & Ito, distinct under every common color blindness; each has a contrast of 3 or more with the white and
# the dark background of the page (WCAG 2.2, 1.4.11).
COLORS = ("#0072B2", "#B87A00", "#00916A", "#C0608F", "#8273D9", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (4, 1.2)), (0, (1.5, 1.2)))
SHAPES = {  # paths of MARKERS in a square of 12
    "o": "M6 1a5 5 0 1 0 .01 0Z", "s": "M1.5 1.5h9v9h-9Z", "^": "M6 1 11 10.5H1Z", "D": "M6 .5 11.5 6 6 11.5.5 6Z",
    "v": "M6 11 1 1.5h10Z", "P": "M4 1h4v3h3v4H8v3H4V8H1V4h3Z",
}  # fmt: skip
FIXED = ("scl", "simclr", "scan", "selflabel", "pica", "kmeans")  # slots 0 to 5; other names are hashed to a slot
SLOTS = 18  # no two share dash and marker, so that they differ in gray too, and none share color and marker


def styles_of(stages: Iterable[str]) -> dict[str, tuple]:
    """(color, dash, marker) of each stage. Depends on the names alone, not on their order."""
    taken: dict[int, str] = {}
    for name in sorted(stages, key=lambda name: (name not in FIXED, name)):
        slot = FIXED.index(name) if name in FIXED else zlib.crc32(name.encode()) % SLOTS
        free = [(slot + step) % SLOTS for step in range(SLOTS) if (slot + step) % SLOTS not in taken]
        taken[free[0] if free else slot + SLOTS * len(taken)] = name
    return {
        name: (COLORS[slot % 6], DASHES[slot // 6 % 3], MARKERS[(slot + slot // 6) % 6]) for slot, name in taken.items()
    }


def marker_svg(style: tuple) -> Markup:
    """The marker of a method as inline SVG."""
    color, _, marker = style
    return Markup(
        '<svg class="marker" viewBox="0 0 12 12" aria-hidden="true"><path d="{}" fill="{}"></path></svg>'
    ).format(SHAPES[marker], color)
