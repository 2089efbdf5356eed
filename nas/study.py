"""Study definitions: what a user writes in YAML, checked completely before anything starts. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from nas.errors import DefinitionError
from nas.space import (
    Distribution,
    LogUniform,
    StrictModel,
    Uniform,
    extremes,
    parse_distribution,
    parse_ratio,
    plain_message,
)
from nas.trial import METRICS
from partialnet.data.catalog import DATASETS
from partialnet.errors import ArchitectureError
from partialnet.train.recipe import Recipe
from partialnet.variants import VARIANTS, Variant, model_name

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_FOLDER = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_CHARACTERS: Mapping[str, str] = MappingProxyType(
    {_NAME: "at most 64 letters, digits, '-' and '_'", _FOLDER: "letters, digits, '-', '_' and '.'"}
)
SEARCHED = ("target", "complexity_exponent", "penalty")


class StudyState(StrEnum):
    """Where a study stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


class DataSpec(StrictModel):
    """Which images: a data set's name, never a path."""

    name: str = Field(description="a name of the catalogue: digits, cifar10, ...")
    folder: Annotated[str, Field(pattern=_FOLDER)] | None = Field(
        default=None, description="image_folder only: the folder's name under a data root"
    )
    image_size: int | None = Field(default=None, ge=4, le=1024, description="pixels; the native size if absent")
    train_limit: int | None = Field(default=None, ge=10, description="training images used, stratified; all if absent")
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    augment: Literal["none", "standard"] = "standard"

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.name not in DATASETS:
            raise ValueError(f"unknown data set {self.name!r}; known: {', '.join(DATASETS)}")
        if self.name == "image_folder" and self.folder is None:
            raise ValueError("image_folder needs 'folder', the name of a folder under a data root")
        if self.name != "image_folder" and self.folder is not None:
            raise ValueError(f"'folder' goes with image_folder only, not with {self.name!r}")
        if self.name == "image_folder" and self.image_size is None:
            raise ValueError("image_folder needs 'image_size', in pixels (224 is usual)")
        return self

    @property
    def size(self) -> int:
        """Height and width of the images that the network sees, in pixels."""
        size = self.image_size or DATASETS[self.name].size
        assert size is not None
        return size

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (DATASETS[self.name].channels, self.size, self.size)


class ModelSpec(StrictModel):
    """Which network: a variant's name and the options that differ from it."""

    name: str = "micro"
    embed_dim: int | None = Field(default=None, ge=8, le=1024)
    depths: tuple[Annotated[int, Field(ge=1, le=64)], ...] | None = Field(default=None, min_length=4, max_length=4)
    patch_size: int | None = Field(default=None, ge=1, le=32)
    merge_strides: tuple[Annotated[int, Field(ge=1, le=4)], ...] | None = Field(
        default=None, min_length=3, max_length=3
    )
    feature_dim: int | None = Field(default=None, ge=8, le=8192)
    drop_path_rate: float | None = Field(default=None, ge=0, lt=1)
    act_layer: Literal["gelu", "relu"] | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            model_name(value)
        except ArchitectureError as error:
            raise ValueError(str(error)) from None
        return value

    @property
    def model(self) -> str:
        """Registered model name."""
        return model_name(self.name)

    @property
    def variant(self) -> Variant:
        """The variant's own values."""
        return VARIANTS[self.model.removeprefix("partialnet_")]

    @property
    def options(self) -> dict[str, Any]:
        """Options that were given."""
        return self.model_dump(exclude={"name"}, exclude_none=True)

    def value(self, option: str) -> Any:
        """Return ``option`` as given, else the variant's."""
        given = getattr(self, option)
        return getattr(self.variant, option) if given is None else given


class BudgetSpec(StrictModel):
    """What a ``target`` counts.

    In scope ``conv`` the target is the paper's b: b = 4 costs as much as the uniform ratio 1/4. In scope ``network`` it
    is an absolute cost of the whole exported network in its inference form.
    """

    unit: Literal["macs", "params"] = "macs"
    scope: Literal["conv", "network"] = "conv"


class TrainingSpec(StrictModel):
    """How a trial is trained: search phases on the network with gates, then fine-tuning of the fixed network.

    A uniform baseline is trained for ``epochs + finetune_epochs`` by the same recipe.
    """

    epochs: int = Field(default=20, ge=1, le=10_000, description="of the gate training, all phases together")
    finetune_epochs: int = Field(default=10, ge=0, le=10_000, description="of the fixed network afterwards")
    batch_size: int = Field(default=128, ge=2, le=65_536)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0, le=10)
    finetune_learning_rate: float | None = Field(default=None, gt=0, le=10, description="learning_rate if absent")
    gate_learning_rate: float = Field(default=1e-2, gt=0, le=10)
    weight_decay: float = Field(default=0.05, ge=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    clip_norm: float = Field(default=5.0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"

    def recipe(self, learning_rate: float | None = None) -> Recipe:
        """Return the recipe of the gate training, or with another ``learning_rate``."""
        return Recipe(
            optimizer=self.optimizer,
            learning_rate=learning_rate or self.learning_rate,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            warmup_fraction=self.warmup_fraction,
            label_smoothing=self.label_smoothing,
            clip_norm=self.clip_norm,
            precision=self.precision,
        )


class SweepSpec(StrictModel):
    """How many trials, chosen how, on what."""

    trials: int = Field(default=16, ge=0, le=100_000, description="search trials; baselines come on top")
    seconds: float | None = Field(default=None, gt=0, description="no new trial is started after this time")
    searcher: Literal["tpe", "random"] = "tpe"
    seed: int = Field(default=0, ge=0, lt=2**31)
    concurrent: int | None = Field(default=None, ge=1, le=10_000, description="at once; as many as fit if absent")
    cpus_per_trial: float = Field(default=1, gt=0, le=1024)
    gpus_per_trial: float = Field(default=0, ge=0, le=64)


class LatencySpec(StrictModel):
    """How latency is measured after the trials; absent means not at all."""

    runtime: Literal["torch"] = "torch"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(default=1, ge=1, le=1024)
    batch: int = Field(default=1, ge=1, le=4096)
    warmup: int = Field(default=10, ge=1, le=10_000)
    n: int = Field(default=50, ge=10, le=100_000)


def _default_space() -> dict[str, Distribution | float | int | str]:
    return {
        "target": LogUniform(log_uniform=(2.0, 8.0)),
        "complexity_exponent": LogUniform(log_uniform=(0.01, 2.0)),
        "penalty": LogUniform(log_uniform=(0.1, 2.0)),
    }


class StudyDefinition(StrictModel):
    """A search, complete: data, network, what is swept, how it is trained and scored."""

    name: str = Field(pattern=_NAME, description="letters, digits, '-' and '_'")
    question: str = Field(default="", max_length=2000, description="what the study is to answer")
    expected_time: str = Field(default="", max_length=200)
    data: DataSpec
    model: ModelSpec = ModelSpec()
    method: Literal["gates"] = "gates"
    budget: BudgetSpec = BudgetSpec()
    space: dict[str, Distribution | float | int | str] = Field(default_factory=_default_space)
    training: TrainingSpec = TrainingSpec()
    sweep: SweepSpec = SweepSpec()
    baselines: tuple[float, ...] = (1 / 2, 1 / 4, 1 / 8)
    objectives: tuple[str, ...] = Field(default=("top1", "macs"), min_length=2, max_length=4)
    latency: LatencySpec | None = LatencySpec()

    @field_validator("space", mode="before")
    @classmethod
    def _parse_space(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: parse_distribution(key, entry) for key, entry in value.items()}

    @field_validator("baselines", mode="before")
    @classmethod
    def _parse_ratios(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"baselines must be a list of ratios such as [1/2, 1/4], but got {value!r}")
        return tuple(parse_ratio(entry) for entry in value)

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        allowed = [name for name in METRICS if name != "latency_ms"]
        for name in value:
            if name not in allowed:
                hint = "; latency is measured after the trials" if name == "latency_ms" else ""
                raise ValueError(f"unknown objective {name!r}; known: {', '.join(allowed)}{hint}")
        if len(set(value)) != len(value):
            raise ValueError(f"objectives must differ, but got {list(value)}")
        return value

    @model_validator(mode="after")
    def _check_space(self) -> Self:
        allowed = [*SEARCHED, *TrainingSpec.model_fields]
        for key, entry in self.space.items():
            if key not in allowed:
                raise ValueError(f"space: unknown parameter {key!r}; known: {', '.join(allowed)}")
            if key in self.training.model_fields_set:
                raise ValueError(f"space: {key!r} is swept, so it must not stand in 'training' as well")
            for value in extremes(entry):
                self._check_value(key, value)
            if isinstance(entry, (Uniform, LogUniform)) and key not in SEARCHED:
                _check_continuous(key, entry)
        if "target" not in self.space:
            raise ValueError("space: 'target' is missing; give a number or a distribution, e.g. {log_uniform: [2, 8]}")
        if self.sweep.trials == 0 and not self.baselines:
            raise ValueError("nothing to run: sweep.trials is 0 and there are no baselines")
        return self

    def _check_value(self, key: str, value: Any) -> None:
        if key in SEARCHED:
            if isinstance(value, (bool, str)):
                raise ValueError(f"space: {key} must be a number, but got {value!r}")
            low = 1.0 if key == "target" and self.budget.scope == "conv" else 0.0
            if value < low or (key == "target" and value == 0):
                meaning = " (b in scope 'conv': 1 keeps every channel)" if low else ""
                raise ValueError(f"space: {key} must be at least {low:g}{meaning}, but got {value:g}")
            return
        try:
            TrainingSpec(**{key: value})
        except ValidationError as error:
            raise ValueError(f"space: {key}={value!r}: {error.errors()[0]['msg']}") from None

    @property
    def planned(self) -> int:
        """Trials that are asked for, baselines included."""
        return self.sweep.trials + len(self.baselines)

    def sampled_training(self, parameters: Mapping[str, Any]) -> TrainingSpec:
        """Return the training with a trial's sampled parameters in it."""
        swept = {key: value for key, value in parameters.items() if key in TrainingSpec.model_fields}
        return TrainingSpec(**{**self.training.model_dump(), **swept})

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, complete with defaults; :func:`parse_study` reads it back to an equal definition."""
        data = self.model_dump(mode="json")
        for key in self.space:
            data["training"].pop(key, None)
        return data

    def to_yaml(self) -> str:
        """Return :meth:`to_dict` as YAML."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


@dataclass(frozen=True)
class Study:
    """A study as the store keeps it.

    Args:
        id: UUID, hexadecimal with dashes.
        name: Unique.
        state: Where it stands.
        definition: What it runs.
        reference_point: Metric to value, for the hypervolume: fixed at creation (top1 0, costs at n = C).
        created_at: UTC.
        updated_at: UTC.
        reason: Why it failed or stopped.
        report: What the search found, in sentences; empty until it ended.
    """

    id: str
    name: str
    state: StudyState
    definition: StudyDefinition
    reference_point: Mapping[str, float]
    created_at: datetime
    updated_at: datetime
    reason: str | None = None
    report: tuple[str, ...] = ()


def _check_continuous(key: str, entry: Uniform | LogUniform) -> None:
    # Its bounds may be whole numbers; what is drawn between them is none, and would fail trial after trial.
    if TrainingSpec.model_fields[key].annotation is int:
        low, high = extremes(entry)
        raise ValueError(f"space: {key} takes whole numbers: use {{int: [{low:g}, {high:g}]}} or {{choice: [...]}}")


def _explain(source: str, error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "definition"
        text = plain_message(item["msg"])
        value = item.get("input")
        if item["type"] == "string_pattern_mismatch":
            text = f"must consist of {_CHARACTERS[item['ctx']['pattern']]}, and begin with a letter or a digit"
        if item["type"] == "extra_forbidden":
            text = "unknown key"
            value = None
        shown = f" (got {value!r})" if isinstance(value, (str, int, float, bool)) else ""
        lines.append(f"{source}: {where}: {text}{shown}")
    return "\n".join(lines)


def parse_study(data: Any, source: str = "definition") -> StudyDefinition:
    """Check a parsed definition.

    Args:
        data: What YAML or JSON gave.
        source: Name for messages, such as the file's.

    Raises:
        DefinitionError: One line for each fault: where, what, the value, what would be right.
    """
    if not isinstance(data, Mapping):
        given = "nothing" if data is None else type(data).__name__
        raise DefinitionError(f"{source}: a study definition is a mapping of keys, but got {given}")
    try:
        return StudyDefinition.model_validate(dict(data))
    except ValidationError as error:
        raise DefinitionError(_explain(source, error)) from None


def explain_yaml(error: yaml.YAMLError) -> str:
    """Return what is wrong with a YAML text, and where, in one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def load_study(path: Path) -> StudyDefinition:
    """Read a definition file (YAML).

    Raises:
        DefinitionError: If the file cannot be read, is no YAML, or does not hold a valid definition.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise DefinitionError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise DefinitionError(f"{path}: not valid YAML: {explain_yaml(error)}") from None
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path}: not valid YAML: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:  # of a date that is none, such as 2026-13-01
        raise DefinitionError(f"{path}: not valid YAML: {error}") from None
    except RecursionError:
        raise DefinitionError(f"{path}: nested too deeply") from None
    return parse_study(data, str(path))
