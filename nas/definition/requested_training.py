"""The request of a training that a worker runs: network, data, recipe, resources. Loads neither torch nor ray.

All faults of a request are found at once, each with the key that it is about.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from nas.definition.recipe import TrainSettings, train_settings
from nas.definition.sections import FOLDER, DataSpec
from nas.definition.space import Real, StrictModel, Whole
from nas.definition.words import in_words, place_of
from nas.errors import DefinitionError
from partialnet.data.catalog import sight
from partialnet.train.named_recipes import recipe_names
from partialnet.train.recipe import unused_keys

Start = Literal["scratch", "weights"]
_SIGHT = ("smallest_crop", "test_crop", "interpolation")
_SOURCES = ("study", "architecture", "package")
_PLAIN = 40


class RequestedTraining(StrictModel):
    """The request of a training.

    The network comes from a trial (``study`` and ``trial``), from an ``architecture`` that a trial settled on, or from
    a ``package`` under a data root.
    """

    study: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="id or name of the study whose trial found the network; needs 'trial'"
    )
    trial: Whole | None = Field(default=None, ge=0, lt=2**31, description="number of the trial")
    candidate: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None, description="network of the trial, if it has several: its index, or the beginning of its id"
    )
    architecture: Annotated[str, Field(pattern=r"^[0-9a-f]{6,64}$")] | None = Field(
        default=None, description="id of an architecture, or its first 6 or more characters"
    )
    package: Annotated[str, Field(pattern=FOLDER, max_length=100)] | None = Field(
        default=None, description="name of an exported network's folder under a data root"
    )
    start: Start = Field(
        default="scratch", description="'scratch' for random weights, 'weights' for those of the trial or package"
    )
    data: DataSpec | None = Field(default=None, description="data set; that of the study if absent")
    recipe: str | None = Field(default=None, max_length=64, description="settings by name; the defaults if absent")
    settings: dict[str, Any] = Field(default_factory=dict, description="changes of the recipe, such as epochs: 5")
    seed: Whole = Field(default=0, ge=0, lt=2**31)
    processes: Whole = Field(
        default=1, ge=1, le=64,
        description="processes that share each batch, one for each GPU, on the worker's machine or its Ray cluster",
    )  # fmt: skip
    device: Literal["cpu", "cuda"] | None = Field(default=None, description="a GPU if there is one, if absent")
    checkpoint_minutes: Real = Field(default=10, ge=0, le=100_000, description="between checkpoints within an epoch")

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        given = [key for key in _SOURCES if getattr(self, key) is not None]
        if len(given) != 1:
            shown = " and ".join(given) or "none"
            raise ValueError(f"name one network: study with trial, architecture, or package, but got {shown}")
        if self.study is not None and self.trial is None:
            raise ValueError("study needs trial, the number of the trial that found the network")
        if self.study is None and (self.trial is not None or self.candidate is not None):
            raise ValueError("trial and candidate work only with study")
        if self.package is not None and self.data is None:
            raise ValueError("package needs data, the data set to train on")
        return self

    def chosen(self) -> TrainSettings:
        """Return the settings of the training.

        Raises:
            ValidationError: If a key is unknown or a value is out of its range.
            ValueError: If there is no such recipe.
        """
        return train_settings(self.settings, self.recipe, from_weights=self.start == "weights")

    def label(self, usual: DataSpec | None = None) -> str:
        """Return the name of the recipe with its changes, or a mark of many: equal labels are equal recipes.

        Args:
            usual: Data of the study of the network; other sizes and numbers of images are changes, too.
        """
        name = self.recipe or "default"
        chosen = self.chosen().model_dump(mode="json")
        plain = train_settings({}, self.recipe, from_weights=False).model_dump(mode="json")
        changes = {key: value for key, value in chosen.items() if value != plain[key]}
        if self.start == "weights":
            changes["start"] = self.start
        if self.data is not None and usual is not None:
            own, other = self.data.model_dump(mode="json"), usual.model_dump(mode="json")
            changes |= {f"data.{key}": value for key, value in own.items() if value != other[key]}
        if not changes:
            return name
        shown = ",".join(f"{key}={_short(value)}" for key, value in sorted(changes.items()))
        digest = hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()[:8]
        return f"{name} {shown}" if len(shown) <= _PLAIN else f"{name}+{digest}"

    def resolved(self, data: DataSpec | None = None) -> dict[str, Any]:
        """Return what a worker needs as JSON values: the data and all settings, with ``data`` as the default.

        Raises:
            DefinitionError: If a setting has no effect on these data.
        """
        spec = self.data or data
        assert spec is not None
        settings = self.chosen()
        size = None if self.data is None else self.data.image_size
        if size is None and settings.image_size is not None:
            spec = spec.model_copy(update={"image_size": settings.image_size})
        idle = idle_sight(spec, self.settings)
        if idle is not None:
            raise DefinitionError(f"training: settings.{idle}: {IDLE_SIGHT}")
        return {
            "start": self.start,
            "data": spec.model_dump(mode="json"),
            "recipe": self.recipe,
            "settings": settings.model_dump(mode="json"),
            "seed": self.seed,
            "processes": self.processes,
            "device": self.device,
            "checkpoint_minutes": self.checkpoint_minutes,
        }


IDLE_SIGHT = "has no effect unless the data are image files above 64 pixels"


def idle_sight(spec: DataSpec, given: Collection[str]) -> str | None:
    """Return the first given setting of image files that has no effect on the data; None if there is none."""
    idle = [key for key in _SIGHT if key in given]
    return idle[0] if idle and sight(spec.name, spec.size, 0.5, "bicubic") == (1.0, "bilinear") else None


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


def parse_training(data: Any, source: str = "training") -> RequestedTraining:
    """Check the request of a training.

    Args:
        data: Parsed JSON or YAML.
        source: Name for messages.

    Raises:
        DefinitionError: If there are faults, with one line for each: place, fault, value.
    """
    if not isinstance(data, Mapping):
        raise DefinitionError(f"{source}: must be a mapping of keys, but got {type(data).__name__}")
    faults = [] if not isinstance(data.get("settings", {}), Mapping) else _faults_of_settings(source, data)
    try:
        found = RequestedTraining.model_validate(dict(data))
    except ValidationError as error:
        faults = [*(_line(source, item) for item in error.errors()), *faults]
        raise DefinitionError("\n".join(faults)) from None
    if faults:
        raise DefinitionError("\n".join(faults))
    return found


def _faults_of_settings(source: str, data: Mapping[str, Any]) -> list[str]:
    """Return the faults of the recipe's name and of the settings, whatever else is wrong."""
    recipe, given = data.get("recipe"), dict(data.get("settings", {}))
    faults = []
    if isinstance(recipe, str) and recipe not in recipe_names():
        faults.append(f"{source}: recipe: unknown recipe {recipe!r}; known: {', '.join(recipe_names())}")
    named = recipe if isinstance(recipe, str) and not faults else None
    try:
        settings = train_settings(given, named, from_weights=data.get("start") == "weights")
    except ValidationError as error:
        return [*faults, *(_line(source, {**item, "loc": ("settings", *item["loc"])}) for item in error.errors())]
    faults += [f"{source}: settings: {text}" for text in unused_keys(settings.recipe(), sorted(given))]
    if settings.teacher and not re.fullmatch(rf"timm/[A-Za-z0-9_.]+|{FOLDER[1:-1]}", settings.teacher):
        faults.append(
            f"{source}: settings.teacher: must be timm/NAME, or the name of a package's folder under a data root "
            f"(got {settings.teacher!r})"
        )
    return faults


def _line(source: str, item: Mapping[str, Any]) -> str:
    value, text = item.get("input"), in_words(item)
    if item["type"] == "string_pattern_mismatch":
        text = f"must match {item['ctx']['pattern']}"
    plain = isinstance(value, (str, int, float, bool)) and item["type"] != "extra_forbidden"
    shown = f" (got {value!r:.100})" if plain else ""
    return ": ".join(filter(None, (source, place_of(item), f"{text}{shown}")))


def request_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return recipe, epochs and batch size of stored settings, as :class:`nas.definition.training.TrainRequest` takes
    them.
    """
    found = TrainSettings.model_validate(dict(settings))
    return {"recipe": found.recipe(), "epochs": found.epochs, "batch_size": found.batch_size}


def schema() -> dict[str, Any]:
    """Return the JSON schema of a request, for the description of the API."""
    found = RequestedTraining.model_json_schema()
    parts = found.pop("$defs", {})
    whole: dict[str, Any] = _inlined(found, parts)
    return whole


def _inlined(value: Any, parts: Mapping[str, Any]) -> Any:
    """Return a schema without references, which would not be found within another document."""
    if isinstance(value, Mapping):
        if "$ref" in value:
            return _inlined(parts[str(value["$ref"]).rpartition("/")[2]], parts)
        return {key: _inlined(entry, parts) for key, entry in value.items()}
    return [_inlined(entry, parts) for entry in value] if isinstance(value, list) else value
