"""Extract what an SVG by matplotlib plots: its texts and coordinates, regardless of other differences in its bytes."""

import re
from xml.etree import ElementTree

import numpy as np

PLACES = ("d", "x", "y", "transform", "width", "height", "viewBox")


def plotted(svg: str) -> tuple[list[str], list[str], np.ndarray]:
    """Texts, drawn shapes without their numbers, and all numbers of the shapes, in points, in the order of the file."""
    texts, shapes, numbers = [], [], []
    for element in ElementTree.fromstring(svg).iter():
        name = element.tag.rsplit("}", 1)[-1]
        if name in ("metadata", "style", "RDF"):
            continue
        texts += [element.text.strip()] if element.text and element.text.strip() else []
        for key in PLACES:
            if found := element.get(key):
                number = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")
                numbers += map(float, number.findall(found))
                shapes.append(f"{name} {key} {' '.join(number.sub('', found).split())}")
        shapes += re.findall(r"(?:fill|stroke): #\w+", element.get("style", ""))
    return texts, shapes, np.array(numbers)


def assert_plots_the_same(found: str, expected: str) -> None:
    """Assert that texts, shapes, and colors are equal, and coordinates within a tenth of a point."""
    texts, shapes, numbers = plotted(found)
    other_texts, other_shapes, other_numbers = plotted(expected)
    assert texts == other_texts
    assert shapes == other_shapes
    np.testing.assert_allclose(numbers, other_numbers, atol=0.1)
