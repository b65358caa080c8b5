"""What a run is: results with this identity are results of this run, and no others are.

Used by everything that asks whether a result counts: training, evaluation, tables, status, plan and the Snakefile.
Planning computes it from recorded checksums; training from what it has loaded, and that is what it records.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from scl import config
from scl.config import RunSettings

ENGINE = 3  # raise when the mathematics of the training loop, the augmentations or the networks changes
PLACES = ("data", "after")  # of run.yaml: folders, which may be moved; what they hold is part of the identity
WORDS = {
    "engine": "by another version of the training loop",
    "images": "on other images than those prepared now",
    "weights": "from other weights of the stage on which it builds",
}


def identity_of(run: RunSettings, images: dict, weights: str | None) -> dict:
    """The parts of a run's identity, as they are written into its record.

    run: complete settings (scl.config.complete), which hold the version of the method and the checksum of a
    user's own file. images: the contents of benchmark.json. weights: SHA-256 of the weights that the run starts from.
    """
    return {
        "settings": {k: v for k, v in config.as_mapping(run).items() if k not in PLACES},
        "engine": ENGINE,
        "images": {
            "sha256": stored_at(images, run.image_size)[1],
            "clusters": images["clusters"],
            "splits": images["splits"],
        },
        "weights": weights,
    }


def stored_at(facts: dict, size: int | None) -> tuple[str, str]:
    """The name and the SHA-256 of the file that holds the images at `size` pixels a side, or at the usual size.

    facts: the contents of benchmark.json.
    """
    larger = facts.get("larger")
    if larger and larger["size"] == size:
        return f"images-{size}.npy", larger["sha256"]
    return "images.npy", facts["images_sha256"]


def fingerprint(identity: dict) -> str:
    """SHA-256 of an identity, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def difference(planned: dict, made: dict) -> str:
    """How results of the identity `made` differ from what is planned, in words; "" where they do not."""
    if fingerprint(planned) == fingerprint(made):
        return ""
    for part, words in WORDS.items():
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
