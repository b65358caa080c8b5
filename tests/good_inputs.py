"""Valid inputs close to the bad ones: {name: Case}, each accepted by the plan without a message."""

from bad_files import HEAD, TAIL, TEXT, extending
from bad_inputs import FOLDER, Case, case
from fake_archives import encoded, picture


def _at(size, **changes):
    return {"benchmarks.tiny.size": size, **changes}


FEW = {"methods.scan.options.neighbors": 1}
PNG = encoded(picture(0, 0, 8), "PNG")
IMAGES = {f"images/{name}.png": b"" for name in "abc"}
ACCEPTED = {
    "as it is": {},
    "no seeds but one of 2**63 - 1": {"seeds": [2**63 - 1]},
    "random_crop of 32 at 32 px": _at(32, **{"methods.scl.augment.view": [{"random_crop": {"size": 32}}]}),
    "random_crop of 32 at 24 px, padded": _at(
        24, **{"methods.scl.augment.view": [{"random_crop": {"size": 32, "padding": 4}}]}
    ),
    "random_crop of 24 at 32 px": _at(32, **{"methods.simclr.augment.view": [{"random_crop": {"size": 24}}]}),
    "random_resized_crop of 40 at 32 px": _at(
        32, **{"methods.simclr.augment.view": [{"random_resized_crop": {"size": 40}}]}
    ),
    "a crop of a larger view": _at(
        32, **{"methods.simclr.augment.view": [{"random_resized_crop": {"size": 40}}, {"random_crop": {"size": 36}}]}
    ),
    "blur of 23 at 32 px": _at(32, **{"methods.scl.augment.view": [{"blur": {"kernel": 23}}]}),
    "operations without parameters": {
        "methods.scl.augment.view": [
            {name: None}
            for name in (
                "random_resized_crop",
                "random_crop",
                "flip",
                "affine",
                "color_jitter",
                "grayscale",
                "blur",
                "noise",
                "scan_strong",
                "cutout",
            )
        ]
    },
    "no operation of scan_strong": {"methods.scl.augment.view": [{"scan_strong": {"operations": 0}}]},
    "no augmentation": {"methods.scl.augment.view": []},
    "width of 8": {"network": {"width": 8}},
    "width of 24": {"network": {"width": 24}},
    "width of 64": {"network": {"width": 64}},
    "width of 128": {"network": {"width": 128}},
    "four stages": {"network": {"layers": [2, 2, 2, 2], "width": 8}},
    "resnet50": {"network": {"backbone": "resnet50", "width": 8}},
    "resnet34": {"network": {"backbone": "resnet34"}},
    "resnet50d": {"network": {"backbone": "resnet50d", "width": 16}},
    "resnet152": {"network": {"backbone": "resnet152"}},
    "resnetv2_50 above 96 px": _at(128, network={"backbone": "resnetv2_50"}),
    "the ordinary stem above 96 px": _at(224, network={}),
    "pool above 96 px, as the ordinary stem does": _at(224, network={"pool": True}),
    "momentum of 0": {"training.momentum": 0.0},
    "a whole number for a number": {"training.momentum": 0},
    "learning rate of 0": {"training.learning_rate": 0.0},
    "learning rate of 10": {"training.learning_rate": 10.0},
    "batch larger than the images": {"training.batch_size": 4096},
    "ten thousand epochs": {"methods.scl.training.epochs": 10_000},
    "a subset of all images": {"benchmarks.tiny.subset": 1797},
    "one image per cluster": {"benchmarks.tiny.clusters": 60, "protocols": ["joint"]},
    "a folder": {"benchmarks.mine": FOLDER, **FEW},
    "a subset of all of a folder": {"benchmarks.mine": FOLDER | {"subset": 3}, **FEW},
    "a folder in classes": {"benchmarks.mine": FOLDER | {"path": "classes"}, **FEW},
    "results elsewhere": {"results": "../elsewhere", "data": "a/b"},
    "a name with a dash": {"results": "my-results"},
    "a title of a number": {"title": "2026"},
    "null for what is optional": {"benchmarks.tiny.clusters": None, "methods.scl.title": None, "machine.threads": None},
    "checkpoints all the time": {"machine.checkpoint_seconds": 0},
    "settings of one benchmark": {"methods.scl.per_benchmark": {"tiny": {"training": {"epochs": 2}, "note": "two"}}},
}

BELOW = {"sub/base.yaml": "extends: ground.yaml\n", "sub/ground.yaml": TEXT}
ACCEPTED_EXTENDS = {
    "beside the file that says it": extending("sub/base.yaml", BELOW),
    "from another folder": Case({"sub/study.yaml": "extends: base.yaml\n", **BELOW}, (), ("plan", "sub/study.yaml")),
    "the file's own folder before the working directory": extending(
        "sub/base.yaml", {**BELOW, "ground.yaml": "nothing: of use\n"}
    ),
    "from the working directory": Case(
        {"sub/study.yaml": "extends: sub/base.yaml\n", **BELOW}, (), ("plan", "sub/study.yaml")
    ),
}

GOOD_OWN = (
    HEAD
    + """
from typing import Literal, Optional
class Inner(MethodOptions):
    c: float = 1.0
class Options(MethodOptions):
    a: Literal['x', 'y'] = 'x'
    b: Optional[int] = None
    inner: Inner = Inner()
    many: list[int] = []
    anything: dict = {}
    widths: tuple[int, ...] = (64, 32)
    range: Optional[tuple[float, float]] = (0, 1)
"""
    + TAIL
)
ACCEPTED_METHODS = {
    "a method of one's own": case(
        {
            "methods.mine": {
                "method": "own_file.Own",
                "options": {
                    "a": "y",
                    "b": 3,
                    "inner": {"c": 2},
                    "many": [1, 2],
                    "anything": {"x": [1, None, {"y": True}]},
                    "widths": [16],
                },
            }
        },
        files={"own_file.py": GOOD_OWN},
    ),
    "a method in a package": case(
        {"methods.mine.method": "my.file.Own"}, files={"my/__init__.py": "", "my/file.py": GOOD_OWN}
    ),
    # not the package's name: `inspect` remembers that `my` was a package, and fails on a folder of that name
    "a method in a folder": case({"methods.mine.method": "folder.file.Own"}, files={"folder/file.py": GOOD_OWN}),
}


def accepted():
    images = {**IMAGES, "classes/a/a.png": PNG, "classes/b/b.png": PNG}
    settings = {name: case(changes, files=images) for name, changes in ACCEPTED.items()}
    extends = {f"extends {name}": one for name, one in ACCEPTED_EXTENDS.items()}
    return {**settings, **extends, **ACCEPTED_METHODS}
