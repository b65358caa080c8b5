"""`scl plan --show`: the settings of a run as YAML, and where each value is set."""

import operator
from functools import reduce

import yaml

from benchmarks.compose import files_of
from benchmarks.study import SETTINGS, Study
from scl import config
from scl.util.text import did_you_mean

OF_THE_REST = {
    "method": "method block",
    "after": "method block",
    "version": "class of the method",
    "image_size": "class of the method",
    "method_source": "file of the method",
}


def describe_settings(source, study: Study, wanted: str) -> str:
    """run.yaml of BENCHMARK/PROTOCOL/STAGE, from the first seed; behind each value the part of the study, and the file,
    that sets it. source: what the study was read from. Raises ValueError for a run that the study does not plan."""
    planned = {f"{run.benchmark}/{run.protocol}/{run.stage}": run for run in study.runs() if run.seed == study.seeds[0]}
    if wanted not in planned:
        raise ValueError(
            f"--show: {wanted!r} is no BENCHMARK/PROTOCOL/STAGE of this study{did_you_mean(wanted, planned)}"
        )
    run, files = planned[wanted], files_of(source)
    lines = []
    for key, value in config.complete(study.settings(run)).model_dump().items():
        if key not in SETTINGS:
            lines.append(_line(f"{key}: {_yaml(value)}", OF_THE_REST.get(key, "this run")))
            continue
        lines.append(f"{key}:" if value else f"{key}: {{}}")
        lines += [
            _line(f"  {_yaml(name)}: {_yaml(one)}", _place(files, study, run, key, name)) for name, one in value.items()
        ]
    return "\n".join(lines)


def _yaml(value) -> str:
    return yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=float("inf")).strip()[1:-1]


def _line(text: str, where: str) -> str:
    return f"{text:40}  # {where}"


def _place(files, study: Study, run, *keys) -> str:
    """The part of the study that sets the value at `keys` of a run, and the file it is in."""
    section, name = keys
    places = [place for place, part in study.layers(run.stage, run.benchmark) if name in part.get(section, {})]
    if not places:
        return "default"
    stage = run.stage
    while stage is not None:
        path = {
            "study": keys,
            "method block": ("methods", stage, *keys),
            "per_benchmark": ("methods", stage, "per_benchmark", run.benchmark, *keys),
        }[places[-1]]
        for file, mapping in reversed(files):
            if _at(mapping, path):
                return f"{places[-1]}, {file}"
        likes = [_at(mapping, ("methods", stage, "like")) for _, mapping in reversed(files)]
        stage = next((like[0] for like in likes if like), None)  # what is not set here is set in the block it is like
    return places[-1]


def _at(mapping: dict, path) -> list:
    """[the value at a path of keys], or [] if there is none."""
    try:
        return [reduce(operator.getitem, path, mapping)]
    except (KeyError, TypeError):
        return []
