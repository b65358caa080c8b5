"""`scl plan --show`: the settings of a run as YAML, with the place where each value is set."""

import operator
from functools import reduce

import yaml

from benchmarks.compose import files_of
from benchmarks.study import SETTINGS, Study, find_run
from scl import config

PLACES = {  # of single keys; those of SETTINGS are searched for, the others identify the run
    "method": "method block",
    "after": "method block",
    "version": "class of the method",
    "image_size": "class of the method",
    "method_source": "file of the method",
}


def describe_settings(source, study: Study, name: str) -> str:
    """run.yaml of the run BENCHMARK/PROTOCOL/STAGE (first seed), with the part of the study and the file that set each
    value as comments. source: the file of the study. Raises ValueError if the run is not planned."""
    run, files = find_run(study, name, "BENCHMARK/PROTOCOL/STAGE"), files_of(source)
    lines = []
    for key, value in config.complete(study.settings(run)).model_dump().items():
        if key not in SETTINGS:
            lines.append(f"{f'{key}: {_yaml(value)}':40}  # {PLACES.get(key, 'this run')}")
            continue
        lines.append(f"{key}:" if value else f"{key}: {{}}")
        for option, one in value.items():
            lines.append(f"{f'  {_yaml(option)}: {_yaml(one)}':40}  # {_place(files, study, run, key, option)}")
    return "\n".join(lines)


def _yaml(value) -> str:
    return yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=float("inf")).strip()[1:-1]


def _place(files, study: Study, run, key: str, option: str) -> str:
    """The part of the study that sets `option` of `key` for a run, and its file."""
    parts = [part for part, values in study.layers(run.stage, run.benchmark) if option in values.get(key, {})]
    if not parts:
        return "default"
    stage = run.stage
    while stage is not None:
        path = {
            "study": (key, option),
            "method block": ("methods", stage, key, option),
            "per_benchmark": ("methods", stage, "per_benchmark", run.benchmark, key, option),
        }[parts[-1]]
        if file := _last_file(files, path):
            return f"{parts[-1]}, {file[0]}"
        like = _last_file(files, ("methods", stage, "like"))  # what the block does not set, it inherits
        stage = like[1] if like else None
    return parts[-1]


def _last_file(files, path):
    """(name, value) of the last of `files` that has a value at the path of keys, or None."""
    for name, mapping in reversed(files):
        try:
            return name, reduce(operator.getitem, path, mapping)
        except (KeyError, TypeError):
            pass
    return None
