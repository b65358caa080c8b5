"""Identity of a run: the settings, code version, images and weights that its results belong to.

Everything that decides whether a result counts uses it: training, evaluation, tables, status, plan and the Snakefile.
Planning computes it from recorded checksums; training computes it from what it has loaded, and records that.
"""

from collections.abc import Iterator
from typing import Any

from scl.config import RunSettings
from scl.engine.io import json_sha256

ENGINE = 3  # raise when the mathematics of the training loop, the augmentations or the networks changes
PLACES = ("data", "after")  # folders in run.yaml: they may move, and their content is in the identity
DIFFERENCES = {
    "engine": "by another version of the training loop",
    "images": "on other images than those prepared now",
    "weights": "from other weights of the stage on which it builds",
}


def identity_of(run: RunSettings, images: dict, weights: str | None) -> dict:
    """Identity of a run, as written into its record.

    run: complete settings (scl.config.complete), with the method's version and the checksum of a custom method's file.
    images: the contents of benchmark.json. weights: SHA-256 of the weights that the run starts from.
    """
    return {
        "settings": {k: v for k, v in run.model_dump().items() if k not in PLACES},
        "engine": ENGINE,
        "images": {
            "sha256": stored_at(images, run.image_size)[1],
            "clusters": images["clusters"],
            "splits": images["splits"],
        },
        "weights": weights,
    }


def stored_at(facts: dict, size: int | None) -> tuple[str, str]:
    """Name and SHA-256 of the file with the images of `size` pixels per side, else of the usual size.

    facts: the contents of benchmark.json.
    """
    larger = facts.get("larger")
    if larger and larger["size"] == size:
        return f"images-{size}.npy", larger["sha256"]
    return "images.npy", facts["images_sha256"]


def fingerprint(identity: dict) -> str:
    """SHA-256 of an identity."""
    return json_sha256(identity)


def difference(planned: dict, made: dict) -> str:
    """Describe how results of identity `made` differ from what is planned; "" if they do not."""
    if fingerprint(planned) == fingerprint(made):
        return ""
    for part, words in DIFFERENCES.items():
        if planned[part] != made.get(part):
            return f"made {words}"
    keys = sorted(_differing(planned["settings"], made.get("settings"), ""))
    return f"made with other settings ({', '.join(keys)})"


def _differing(planned: Any, made: Any, where: str) -> Iterator[str]:
    """Dotted keys of nested mappings whose values differ."""
    if not (isinstance(planned, dict) and isinstance(made, dict)):
        if planned != made:
            yield where
        return
    for key in planned.keys() | made.keys():
        yield from _differing(planned.get(key), made.get(key), f"{where}.{key}" if where else key)
