"""The settings of one run as pydantic models, and `read`, which fills any of them from YAML.

A run is fully described by its `run.yaml`; `RunSettings` is that file. What a model refuses becomes one line that
names the place, what was found and what is wanted. Torch is not imported here.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from scl.util.classes import FAILURES, described, find_class, source_of
from scl.util.text import did_you_mean, shown
from scl.util.yaml_file import load_yaml

# words of pydantic -> words of YAML
PLAIN = {
    "a valid dictionary.*": "keys and values",
    "a valid (number|string|list)": r"a \1",
    "a valid integer": "an integer",
    "a valid tuple": "a list",
    "a valid boolean": "true or false",
    " after validation": "",
}


class Settings(BaseModel):
    """Base of all settings: other types and unknown keys are refused, and nothing changes once it is read."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=True,  # the string below a field is its entry in the page of configuration keys
    )

    @model_validator(mode="before")
    @classmethod
    def _knows_its_keys(cls, given: Any) -> Any:
        for key in given if isinstance(given, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"{key}: unknown key{did_you_mean(key, cls.model_fields)}")
        return given


class MethodOptions(Settings):
    """Base of a method's `Options`, the hyper-parameters of its own: typed fields with defaults and ranges, such as
    `temperature: float = Field(0.1, gt=0)`."""


class Network(Settings):
    """Encoder of every method. backbone: a timm ResNet; width: channels of the stem (64 = the ordinary net)."""

    backbone: str = "resnet18"
    width: int = Field(default=64, ge=8, le=1024, multiple_of=8)  # narrower and odd have crashed convolutions of torch
    layers: list[Annotated[int, Field(ge=1, le=100)]] | None = None  # blocks a stage; None = the backbone's own
    pool: bool | None = None  # a 2x2 max-pool in the stem; None = by image size: from 33 px on
    pool_padding: int = Field(default=0, ge=0, le=1)  # of that max-pool; 1 in the official codes of SCAN and PICA
    initialization: Literal["timm", "torch"] = "timm"  # convolutions N(0, sqrt(2 / fan out)) | as PICA's official code

    @field_validator("layers")
    @classmethod
    def _are_of_all_stages(cls, layers: list[int] | None) -> list[int] | None:
        if layers is not None and len(layers) not in (3, 4):
            raise ValueError(f"{shown(layers)} are not the blocks of three or four stages, such as [2, 2, 2, 2]")
        return layers


class Training(Settings):
    """How long, how large, how fast. Learning-rate schedules step once an epoch, as in the official codes."""

    epochs: int = Field(default=0, ge=0, le=1_000_000)
    batch_size: int = Field(default=256, ge=2, le=1_000_000)
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(default=0.1, ge=0, le=1e30)  # more is no number of float32
    final_learning_rate: float = Field(default=0.0, ge=0, le=1e30)
    schedule: Literal["cosine", "constant"] = "cosine"
    momentum: float = Field(default=0.9, ge=0, lt=1)  # sgd only
    weight_decay: float = Field(default=0.0, ge=0, le=1000)
    precision: Literal["auto", "fp32", "bf16"] = (
        "auto"  # auto: bf16 where the hardware has it, see scl.engine.precision
    )
    compile: bool = False  # torch.compile of the encoder
    curve_points: int = Field(default=10, ge=1, le=1_000_000)  # assignments kept on the way, for the curves


class RunSettings(Settings):
    """One run: a stage of a method, on one benchmark under one protocol, from one seed."""

    benchmark: str
    protocol: str
    stage: str
    seed: int = Field(ge=0, lt=2**63)
    method: str  # dotted path of a scl.method.Method
    data: str  # folder that holds images.npy and benchmark.json
    after: str | None = None  # folder of the run whose weights this one starts from
    network: Network = Network()
    training: Training = Training()
    augment: dict[str, list] = {}
    options: dict[str, Any] = {}
    version: int | None = None  # of the method: raised when its mathematics changes
    image_size: int | None = None  # pixels a side that the method asks for, where the benchmark is stored at them too
    method_source: str | None = None  # SHA-256 of the file of a user's own method: the commit tells only ours


def _distinct(values: list) -> list:
    if len(set(values)) != len(values):
        raise ValueError(f"{shown(values)} names one twice")
    return values


Distinct = AfterValidator(_distinct)  # of a list: no value twice
Model = TypeVar("Model", bound=Settings)


def read(model: type[Model], mapping: Any, where: str = "") -> Model:
    """`mapping` as the model; `where` is the place named in messages. Raises ValueError of one line, also for a class
    of the user's own that fails in any way."""
    try:
        return model.model_validate(mapping)
    except ValidationError as error:
        raise ValueError(in_one_line(error, where)) from None
    except FAILURES as error:
        raise ValueError(f"{where}: {model.__qualname__} cannot be made: {described(error)}") from None


def in_one_line(error: ValidationError, where: str = "") -> str:
    """The first thing that a model refuses: key path, what is wanted, what was found."""
    first = error.errors(include_url=False)[0]
    path, bad_name = first["loc"], first["loc"][-1:] == ("[key]",)
    for key in (*path[:-2], str(first["input"])) if bad_name else path:
        where = f"{where}[{key}]" if isinstance(key, int) else _join(where, key[:80])
    if first["type"] == "value_error":  # raised by a validator, whose message may begin with a key
        message = str(first["ctx"]["error"])
        if re.match(r"[\w.\[\]-]+: ", message):
            return _join(where, message)
    elif first["type"] == "missing":
        message = "missing"
    else:
        message = re.sub(r"^.* should (be|have)", r"must \1", first["msg"])
        for pattern, plain in PLAIN.items():
            message = re.sub(pattern, plain, message)
        message += f", got {shown(first['input'])}"
        if first["type"] == "float_type" and isinstance(first["input"], str):
            message += " (YAML reads 1e-4 as a string: write 1.0e-4)"
        elif bad_name:
            message += "; write the name in quotes"
    return f"{where}: {message}" if where else message


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def load_run(directory: str | Path) -> RunSettings:
    """The settings of the run that lives in `directory`."""
    path = Path(directory) / "run.yaml"
    return read(RunSettings, load_yaml(path), str(path))


def options_of(method: type[Any], given: dict, where: str) -> MethodOptions:
    """The options of a method, with its defaults. Raises ValueError naming the key."""
    if not (isinstance(method.Options, type) and issubclass(method.Options, MethodOptions)):
        raise ValueError(
            f"{where}: {method.__name__}.Options: {shown(method.Options)} is not a class derived from "
            "scl.config.MethodOptions"
        )
    return read(method.Options, given, where)


def complete(run: RunSettings) -> RunSettings:
    """The settings with every option of the method, its version and the size of image it asks for written out, so that
    a changed default or a raised version is another run. Imports the method. Raises ValueError for unknown options."""
    method = find_class(run.method)
    if type(method.version) is not int:
        raise ValueError(f"{run.method}.version: must be an integer, got {shown(method.version)}")
    options = options_of(method, run.options, f"{run.stage}.options")
    return run.model_copy(
        update={
            "options": options.model_dump(mode="json"),
            "version": method.version,
            "image_size": method.image_size(options),
        }
    )


def as_mapping(run: RunSettings) -> dict:
    """What stands in run.yaml."""
    return run.model_dump()


def digest(run: RunSettings) -> str:
    """SHA-256 of the settings, whatever the order of the keys in the file."""
    return hashlib.sha256(json.dumps(as_mapping(run), sort_keys=True).encode()).hexdigest()


def check_planned(run: RunSettings) -> None:
    """Raises ValueError if the run's method is not the one that the run was planned with: its file or version."""
    changed = "file" if run.method_source != source_of(run.method) else ""
    if not changed and run.version not in (None, find_class(run.method).version):
        changed = "version"
    if changed:
        raise ValueError(
            f"{run.method}: its {changed} has changed since this run was planned; plan again with "
            f"the same snakemake or scl run command"
        )
