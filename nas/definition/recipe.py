"""The keys of a recipe, with their ranges: for studies and for ``nas train``. Loads neither torch nor ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from nas.definition.space import Real, StrictModel, Whole
from partialnet.data.augmentation import Interpolation
from partialnet.errors import DataError, PartialNetError
from partialnet.train.named_recipes import read_recipe
from partialnet.train.recipe import Precision, Recipe, Statistics, unused_keys


class RecipeSpec(StrictModel):
    """Optimiser, schedule, loss and augmentation. The defaults train small networks; a named recipe replaces them."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Real = Field(default=2e-3, gt=0, le=10)
    weight_decay: Real = Field(default=0.05, ge=0, le=1)
    momentum: Real = Field(default=0.9, ge=0, lt=1)
    warmup_fraction: Real = Field(default=0.1, ge=0, lt=1)
    final_fraction: Real = Field(default=0.01, ge=0, le=1, description="last rate, relative to learning_rate")
    label_smoothing: Real = Field(default=0.1, ge=0, lt=1)
    clip_norm: Real = Field(default=5.0, ge=0)
    precision: Precision = Field(
        default="float32", description="bfloat16 and float16 by autocast; float16 scales gradients as well"
    )
    compile: bool = Field(default=False, description="steps by torch.compile; worth its minutes on a GPU")
    drop_path: Real | None = Field(default=None, ge=0, lt=1, description="that of the network if absent")
    accumulation: Whole = Field(default=1, ge=1, le=65_536, description="parts of a batch whose gradients are added up")
    ema_decay: Real = Field(default=0.0, ge=0, lt=1, description="moving average of the weights; 0 for none")
    ema_warmup: bool = Field(default=True, description="the decay of the average grows from 0")
    channels_last: bool | None = Field(default=None, description="layout of maps; that of the device if absent")
    rand_augment: str = Field(default="", description="in timm's words, such as m7-mstd0.5-inc1")
    erasing: Real = Field(default=0.0, ge=0, le=1, description="probability of random erasing")
    mixup: Real = Field(default=0.0, ge=0, le=100)
    cutmix: Real = Field(default=0.0, ge=0, le=100)
    mix_probability: Real = Field(default=1.0, ge=0, le=1, description="probability that a batch is mixed")
    smallest_crop: Real = Field(default=0.25, gt=0, le=1, description="share of the area, for images above 64 pixels")
    interpolation: Interpolation = "bilinear"
    test_crop: Real = Field(default=1.0, gt=0, le=1, description="part of the shorter side that evaluations see")
    sizes: tuple[Whole, ...] = Field(default=(), description="sizes of training images in pixels")
    size_batches: tuple[Whole, ...] = Field(default=(), description="batch size at each size; batch_size if absent")
    size_epochs: tuple[Whole, ...] = Field(default=(), description="first epoch of each size; drawn if absent")
    statistics: Statistics = Field(default="reduced", description="batch statistics with several processes")
    teacher: str = Field(default="", description="network to distil from: timm/NAME, or a package's folder")
    distillation: Real = Field(default=0.5, gt=0, le=1, description="share of the teacher in the loss")
    temperature: Real = Field(default=1.0, gt=0, le=100)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        recipe = self.recipe()
        try:
            _ = recipe.augmentation, recipe.size_schedule
        except DataError as error:
            raise ValueError(str(error)) from None
        # A stored definition lists all keys, so a default value is no request.
        plain = Recipe()
        given = [key for key in self.model_fields_set if key in _KEYS and getattr(recipe, key) != getattr(plain, key)]
        # Studies of earlier versions may hold a momentum that AdamW ignores.
        idle = unused_keys(recipe, sorted(set(given) - {"momentum"}))
        if idle:
            raise ValueError("; ".join(idle))
        return self

    def recipe(self, learning_rate: float | None = None) -> Recipe:
        """Return the recipe, with ``learning_rate`` instead of its own if given."""
        values = {key: getattr(self, key) for key in _KEYS}
        return Recipe(**values | {"learning_rate": learning_rate or self.learning_rate})


class TrainSettings(RecipeSpec):
    """The settings of one training: a recipe with its length and its batches."""

    epochs: Whole = Field(default=20, ge=1, le=100_000)
    batch_size: Whole = Field(default=128, ge=2, le=1_048_576, description="images in a step, over all processes")
    image_size: Whole | None = Field(default=None, ge=4, le=1024, description="pixels; that of the data if absent")


_KEYS = tuple(entry.name for entry in fields(Recipe))


SCRATCH_RATE, WEIGHTS_RATE = 2e-3, 5e-4


def train_settings(given: Mapping[str, Any], recipe: str | None, *, from_weights: bool) -> TrainSettings:
    """Return the settings of a training.

    Args:
        given: Settings that differ from those of the recipe, by key.
        recipe: Name of a recipe; None for the defaults.
        from_weights: Whether it starts from trained weights, whose default rate is smaller.

    Raises:
        ValidationError: If a key is unknown or a value is out of its range.
        ValueError: If there is no such recipe.
    """
    if recipe is None:
        values = {"learning_rate": WEIGHTS_RATE if from_weights else SCRATCH_RATE, **given}
    else:
        values = with_recipe(given, recipe)
    return TrainSettings.model_validate(values)


def with_recipe(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of the recipe ``name`` with those ``given`` in their place.

    The rate of the recipe is scaled in proportion to the batch size; a rate that is given is not.

    Returns:
        Keys of :class:`RecipeSpec`, and ``epochs``, ``batch_size``, and ``image_size`` if the recipe has one.

    Raises:
        ValueError: If there is no such recipe; the message lists the known ones.
    """
    try:
        settings = read_recipe(name)
    except PartialNetError as error:
        raise ValueError(str(error)) from None
    rate_batch = settings.pop("rate_batch")
    merged = {**settings, **given}
    batch = merged["batch_size"]
    if "learning_rate" not in given and isinstance(batch, int) and batch > 0:
        merged["learning_rate"] = settings["learning_rate"] * batch / rate_batch
    return merged


def with_named_recipe(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the definition of a study with the keys of the recipe that its ``training`` names.

    Searches have phases of their own, and the data section has the size of the images, so these keep their defaults.

    Raises:
        ValueError: If there is no such recipe.
    """
    training = definition.get("training")
    if not isinstance(training, Mapping) or "recipe" not in training:
        return definition
    given = {key: entry for key, entry in training.items() if key != "recipe"}
    swept = definition["space"] if isinstance(definition.get("space"), Mapping) else {}
    settings = with_recipe(given, str(training["recipe"]))
    dropped = {"epochs", "image_size", *swept} - set(given)
    return {**definition, "training": {key: entry for key, entry in settings.items() if key not in dropped}}
