"""A training of a fixed network, as ``nas train`` writes it into its folder. Loads neither torch nor ray."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nas.definition.sections import DataSpec
from nas.definition.words import first_in_words
from nas.errors import InputError
from partialnet.architecture import Architecture
from partialnet.json_text import parse_json
from partialnet.train.recipe import Recipe

REQUEST = "training.json"
SCHEMA = 1


@dataclass(frozen=True)
class TrainRequest:
    """The request of a training: everything that a resumed training needs.

    Args:
        architecture: Architecture of the network; the data set decides its number of classes and image channels.
        data: Data set, image size, augmentation.
        recipe: Optimiser, schedule and loss.
        epochs: Number of epochs in total.
        batch_size: Number of images in a step.
        seed: Seed of initialisation, validation split, shuffling and dropout.
        weights: Safetensors file with the first weights; None for random ones.
        split_seed: Seed of the validation split; None for ``seed``. Weights of a study are judged on its split, since
            they know the other images.
    """

    architecture: Architecture
    data: DataSpec
    recipe: Recipe
    epochs: int
    batch_size: int
    seed: int = 0
    weights: Path | None = None
    split_seed: int | None = None

    @property
    def validation_seed(self) -> int:
        """Seed of the validation split."""
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def origin(self) -> str:
        """Origin of the first weights, for people."""
        return "random weights" if self.weights is None else str(self.weights)

    def save(self, folder: Path) -> None:
        """Write the request into the folder of its training."""
        content = {
            "schema": SCHEMA,
            "architecture": self.architecture.to_dict(),
            "data": self.data.model_dump(mode="json"),
            "recipe": asdict(self.recipe),
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "weights": None if self.weights is None else str(self.weights.absolute()),
            "split_seed": self.split_seed,
        }
        (folder / REQUEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> TrainRequest:
        """Read the request of a training.

        Raises:
            InputError: If the folder holds no training, or the request is damaged.
        """
        path = folder / REQUEST
        try:
            content: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
            if content.pop("schema") != SCHEMA:
                raise InputError(f"{path}: another version wrote it; start the training again")
            weights = content.pop("weights")
            return cls(
                Architecture.from_dict(content.pop("architecture")),
                DataSpec.model_validate(content.pop("data")),
                _recipe(content.pop("recipe")),
                weights=None if weights is None else Path(weights),
                **content,
            )
        except FileNotFoundError:
            raise InputError(f"{folder}: holds no training ({REQUEST} is missing)") from None
        except ValidationError as error:
            raise InputError(f"{path}: damaged, cannot be continued from (data: {first_in_words(error)})") from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path}: damaged, cannot be continued from ({error})") from error


def _recipe(values: dict[str, Any]) -> Recipe:
    """Read a recipe from JSON, which knows no tuples."""
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Recipe(**plain)
