"""Settings of one run as pydantic models, and `read`, which validates them with one-line errors.

`RunSettings` is the content of `run.yaml`, which fully describes a run. Torch is not imported here.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from scl.engine.io import json_sha256
from scl.util.classes import FAILURES, describe_error, find_class, source_of, was_edited
from scl.util.text import did_you_mean, shown
from scl.util.yaml_file import load_yaml

# pydantic's terms -> YAML's terms
PLAIN = {
    "a valid dictionary.*": "keys and values",
    "a valid (number|string|list)": r"a \1",
    "a valid integer": "an integer",
    "a valid tuple": "a list",
    "a valid boolean": "true or false",
    " after validation": "",
    r"String should match pattern '\^\[0-9a-fA-F\]\{(\d+)\}\$'": r"must be \1 hexadecimal digits",
}


class Settings(BaseModel):
    """Base of all settings: strictly typed, immutable, unknown keys refused."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=True,  # the string below a field is its entry on the page of configuration keys
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:
        for key in given if isinstance(given, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"{key}: unknown key{did_you_mean(key, cls.model_fields)}")
        return given


class MethodOptions(Settings):
    """Base of a method's `Options`, its hyper-parameters: typed fields with defaults and ranges, such as
    `temperature: float = Field(0.1, gt=0)`, each with a docstring."""

    @field_validator("*", mode="before")
    @classmethod
    def _read_lists_as_tuples(cls, given: Any, info: ValidationInfo) -> Any:
        """YAML has no tuples, so one is a list in a configuration and in run.yaml."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        kinds = {get_origin(kind) or kind for kind in (annotation, *get_args(annotation))}
        return tuple(given) if isinstance(given, list) and tuple in kinds and list not in kinds else given


class Network(Settings):
    """Encoder of every method."""

    backbone: str = "resnet18"
    """Name of a ResNet in timm."""
    width: int = Field(default=64, ge=8, le=1024, multiple_of=8)  # other values have crashed torch's convolutions
    """Channels of the stem; 64 is the standard network."""
    layers: list[Annotated[int, Field(ge=1, le=100)]] | None = None
    """Residual blocks in each of layer1 to layer3 or layer4; null keeps those of the backbone."""
    pool: bool | None = None
    """Whether the stem has a 2x2 max-pool; null: for images of 33 px or more."""
    pool_padding: int = Field(default=0, ge=0, le=1)
    """Padding of that max-pool in pixels; 1 in the official code of SCAN and of PICA."""
    initialization: Literal["timm", "torch"] = "timm"
    """Initial weights of convolutions: timm's N(0, sqrt(2 / fan out)), or torch's as in PICA's official code."""

    @field_validator("layers")
    @classmethod
    def _check_stages(cls, layers: list[int] | None) -> list[int] | None:
        if layers is not None and len(layers) not in (3, 4):
            raise ValueError(f"must be the blocks of three or four layers, such as [2, 2, 2, 2], got {shown(layers)}")
        return layers


class Training(Settings):
    """Optimization. The learning rate changes once per epoch, as in the official code."""

    epochs: int = Field(default=0, ge=0, le=1_000_000)
    """Passes over the training images; 0 for methods that do not train."""
    batch_size: int = Field(default=256, ge=2, le=1_000_000)
    """Images per step."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimizer, with torch's defaults for everything that has no key here."""
    learning_rate: float = Field(default=0.1, ge=0, le=1e30)  # more overflows float32
    """Learning rate of the first epoch."""
    final_learning_rate: float = Field(default=0.0, ge=0, le=1e30)
    """Learning rate that the cosine schedule approaches; unused by the constant schedule."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate over the epochs: half a cosine from learning_rate to final_learning_rate, or constant."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of sgd; unused by adam."""
    weight_decay: float = Field(default=0.0, ge=0, le=1000)
    """Weight decay (L2 penalty) of all trained parameters."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Data type of the network's arithmetic; auto is bf16 where the hardware has it natively, else fp32."""
    compile: bool = False
    """Whether to apply torch.compile to the encoder."""
    curve_points: int = Field(default=10, ge=1, le=1_000_000)
    """Number of epochs, evenly spaced, whose assignments are kept for the curves."""


class RunSettings(Settings):
    """One run: a stage of a method, on one benchmark under one protocol, from one seed."""

    benchmark: str
    """Name of the benchmark in the study."""
    protocol: str
    """Protocol: joint (train on and evaluate the same images) or heldout (evaluate images of the test set)."""
    stage: str
    """Name of the method in the study: a run is one stage of a chain of methods."""
    seed: int = Field(ge=0, lt=2**63)
    """Seed from which all random streams of the run are derived."""
    method: str
    """Dotted path of the class, derived from scl.method.Method."""
    data: str
    """Folder of the prepared benchmark (images.npy and benchmark.json)."""
    after: str | None = None
    """Folder of the upstream run whose weights this one starts from; null for a first stage."""
    network: Network = Network()
    """The encoder."""
    training: Training = Training()
    """The optimization."""
    augment: dict[str, list] = {}
    """Operations of each augmentation, by the names that the method lists in `augmentations`."""
    options: dict[str, Any] = {}
    """Options of the method; complete, with every default, in run.yaml."""
    version: int | None = None
    """Version of the method, raised when its mathematics changes; null before the settings are completed."""
    image_size: int | None = None
    """Pixels per side that the method asks for, if the benchmark is also stored at this size; null: the usual size."""
    method_source: str | None = None
    """SHA-256 of the file of a custom method; null for a built-in one, which the commit identifies."""


def _distinct(values: list) -> list:
    if len(set(values)) != len(values):
        raise ValueError(f"{shown(values)} has duplicates; list each once")
    return values


Distinct = AfterValidator(_distinct)  # a list without duplicates
Model = TypeVar("Model", bound=Settings)


def read(model: type[Model], mapping: Any, where: str = "") -> Model:
    """Validate `mapping` as the model. Raises a one-line ValueError that begins with `where`, however a custom class
    fails."""
    try:
        return model.model_validate(mapping)
    except ValidationError as error:
        raise ValueError(in_one_line(error, where)) from None
    except FAILURES as error:
        raise ValueError(f"{where}: {model.__qualname__} failed: {describe_error(error)}") from None


def in_one_line(error: ValidationError, where: str = "") -> str:
    """The first error of a model in one line: key path, requirement, value."""
    first = error.errors(include_url=False)[0]
    path, bad_name = first["loc"], first["loc"][-1:] == ("[key]",)
    for key in (*path[:-2], str(first["input"])) if bad_name else path:
        where = f"{where}[{key}]" if isinstance(key, int) else _join(where, key[:80])
    if first["type"] == "value_error":  # raised by a validator; its message may begin with a key
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
    """Settings of the run in `directory`."""
    path = Path(directory) / "run.yaml"
    return read(RunSettings, load_yaml(path), str(path))


def options_of(method: type[Any], given: dict, where: str) -> MethodOptions:
    """Options of a method, with its defaults. Raises ValueError naming the key."""
    if not (isinstance(method.Options, type) and issubclass(method.Options, MethodOptions)):
        raise ValueError(
            f"{where}: {method.__name__}.Options: must be a class derived from scl.config.MethodOptions, "
            f"got {shown(method.Options)}"
        )
    return read(method.Options, given, where)


def complete(run: RunSettings) -> RunSettings:
    """Settings with every option of the method, its version and its image size filled in, so that a changed default or
    a raised version makes it a different run. Imports the method. Raises ValueError for unknown options."""
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


def digest(run: Settings) -> str:
    """SHA-256 of settings."""
    return json_sha256(run.model_dump())


def check_planned(run: RunSettings) -> None:
    """Raise ValueError if the method's file or version has changed since the run was planned, or the file since this
    process imported it."""
    if was_edited(run.method):
        raise ValueError(f"{run.method}: its file has changed since this process imported it; start the process again")
    if run.method_source != source_of(run.method):
        changed = "file"
    elif run.version not in (None, find_class(run.method).version):
        changed = "version"
    else:
        return
    raise ValueError(
        f"{run.method}: its {changed} has changed since this run was planned; plan again with "
        "the same snakemake or scl run command"
    )
