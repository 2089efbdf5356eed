"""The form of a definition: the keys that people change, each with its label, its help and its choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import get_args

from pydantic import BaseModel

from nas.definition.early_stopping import EarlyStoppingSpec
from nas.definition.methods import METHODS
from nas.definition.searchers import SEARCHERS
from nas.definition.sections import BudgetSpec, DataSpec, FinalSpec, FrontSpec, SweepSpec, TrainingSpec
from nas.definition.study import StudyDefinition
from partialnet.data.catalog import DATASETS
from partialnet.variants import VARIANTS

_SECTIONS: Mapping[str, type[BaseModel]] = MappingProxyType({
    "data": DataSpec, "budget": BudgetSpec, "front": FrontSpec, "training": TrainingSpec, "sweep": SweepSpec,
    "final": FinalSpec,
})  # fmt: skip


class Kind(StrEnum):
    """Kind of a field, which says how its text becomes a value."""

    TEXT = "text"
    WHOLE = "whole"
    REAL = "real"
    CHOICE = "choice"
    LIST = "list"
    """A list with commas."""
    RANGE = "range"
    """A distribution with two bounds, or one value."""


@dataclass(frozen=True)
class Field:
    """A field of the form.

    Args:
        key: Key of the definition, such as ``training.epochs``.
        label: Label for people.
        kind: Kind of the field.
        help: Help in one line.
        options: Values to choose from.
        absent: Label of the choice that removes the key; None if there is no such choice.
        methods: Methods that have the key.
    """

    key: str
    label: str
    kind: Kind
    help: str
    options: tuple[str, ...] = ()
    absent: str | None = None
    methods: tuple[str, ...] = tuple(METHODS)

    @property
    def id(self) -> str:
        """Id of the field in the page."""
        return f"field-{self.key.replace('.', '-')}"


def _field(
    key: str, label: str, kind: Kind, hint: str = "", *, options: tuple[str, ...] = (), absent: str | None = None
) -> Field:
    section, _, name = key.partition(".")
    model = _SECTIONS.get(section)
    described = model.model_fields[name].description if model is not None and name in model.model_fields else None
    return Field(key, label, kind, hint or described or "", options, absent, _methods(section, name))


def _methods(section: str, name: str) -> tuple[str, ...]:
    """Return the methods that have a key."""
    return tuple(
        method
        for method, facts in METHODS.items()
        if not (section == "space" and name not in facts.space)
        and not (section == "training" and name in facts.unused)
        and not (section == "front" and not facts.yields_front)
    )


def _choices(model: type[BaseModel], name: str) -> tuple[str, ...]:
    annotation = model.model_fields[name].annotation
    assert annotation is not None
    return tuple(map(str, get_args(annotation)))


def fields() -> dict[str, tuple[Field, ...]]:
    """Return the fields of the form by the title of their group."""
    question = StudyDefinition.model_fields["question"].description or ""
    return {
        "Study": (
            _field("name", "Name", Kind.TEXT, "letters, digits, '-' and '_'"),
            _field("question", "Question", Kind.TEXT, question),
        ),
        "Data and network": (
            _field("data.name", "Data set", Kind.CHOICE, "image folders also need keys in the YAML: folder, image_size",
                   options=tuple(DATASETS)),
            _field("data.train_limit", "Training images", Kind.WHOLE, "the first ones of each class; empty for all"),
            _field("data.augment", "Augmentation", Kind.CHOICE, "standard shifts images, and mirrors them where it may",
                   options=_choices(DataSpec, "augment")),
            _field("model.name", "Network", Kind.CHOICE, "a variant of PartialNet; other families are written in YAML",
                   options=tuple(VARIANTS)),
        ),
        "What is searched": (
            _field("method", "Method", Kind.CHOICE, "how the choices are learned", options=tuple(METHODS)),
            _field("budget.unit", "Targets count", Kind.CHOICE, "multiply-adds, parameters, or milliseconds by a table",
                   options=_choices(BudgetSpec, "unit")),
            _field("budget.scope", "Targets cover", Kind.CHOICE,
                   "conv: 4 costs as much as the uniform ratio 1/4; network: the cost of the whole network",
                   options=_choices(BudgetSpec, "scope")),
            _field("space.target", "Target", Kind.RANGE, "the cost that learned networks should have"),
            _field("space.penalty", "Penalty", Kind.RANGE, "factor on the distance from the target"),
            _field("space.complexity_exponent", "Complexity exponent", Kind.RANGE, "exponent of the cost in the loss"),
            _field("front.points", "Points of the front", Kind.WHOLE),
            _field("baselines", "Uniform baselines", Kind.LIST, "ratios of networks to compare with, such as 1/2, 1/4"),
        ),
        "Training": (
            _field("training.epochs", "Epochs", Kind.WHOLE, "epochs of the search in each trial"),
            _field("training.finetune_epochs", "Fine-tuning epochs", Kind.WHOLE),
            _field("training.batch_size", "Batch size", Kind.WHOLE, "images of a step"),
            _field("training.learning_rate", "Learning rate", Kind.REAL, "largest rate of the schedule"),
        ),
        "Trials": (
            _field("sweep.trials", "Trials", Kind.WHOLE),
            _field("sweep.seconds", "Seconds", Kind.REAL),
            _field("sweep.concurrent", "At the same time", Kind.WHOLE, "trials at once; empty for as many as fit"),
            _field("sweep.searcher", "Searcher", Kind.CHOICE, "what proposes the trials", options=tuple(SEARCHERS)),
            _field("sweep.early_stopping.method", "Early stopping", Kind.CHOICE,
                   EarlyStoppingSpec.model_fields["method"].description or "",
                   options=_choices(EarlyStoppingSpec, "method"), absent="none"),
            _field("sweep.seed", "Seed", Kind.WHOLE, "of proposals, data order and first weights"),
        ),
        "Final comparison": (
            _field("final.candidates", "Learned networks", Kind.WHOLE),
            _field("final.seeds", "Seeds", Kind.WHOLE),
            _field("final.random", "Random networks", Kind.WHOLE),
        ),
    }  # fmt: skip
