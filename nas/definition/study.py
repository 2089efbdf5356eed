"""Study definitions: what a user writes in YAML, checked completely before anything starts. No torch, no ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from nas.definition.constraints import Constraint, ConstraintText
from nas.definition.faults import NAME, Fault, all_faults, described
from nas.definition.methods import METHODS, SearchMethod
from nas.definition.milliseconds import PREDICTED, check_untimed, spelled_out, told_limits
from nas.definition.model import ModelSpec, NetworkSpec
from nas.definition.parameters import check_parameter
from nas.definition.proposals import check_early_stopping, check_points, grid_points
from nas.definition.recipe import with_named_recipe
from nas.definition.searched import SPLIT_ALONE, check_searched, take_search
from nas.definition.searchers import SEARCHERS
from nas.definition.sections import (
    MAX_TRIALS,
    BudgetSpec,
    DataSpec,
    FinalSpec,
    FrontSpec,
    LatencySpec,
    SweepSpec,
    TrainingSpec,
)
from nas.definition.shapes import check_shapes, shape_options, spread_out
from nas.definition.space import (
    Distribution,
    StrictModel,
    extremes,
    one_of,
    parse_distribution,
    parse_ratio,
    spread_over,
)
from nas.definition.text import dump_yaml, parse_yaml, read_value
from nas.errors import DefinitionError
from nas.metrics import METRICS
from partialnet.kinds import Kind

COSTS: Mapping[str, str] = MappingProxyType(
    {"macs": "macs", "params": "params_inference", "latency": "predicted_ms"}
)
"""Metric of the whole exported network by the unit of a budget."""


class StudyDefinition(StrictModel):
    """A complete search: data, network, search space, training and scoring."""

    name: str = Field(pattern=NAME, description="letters, digits, '-' and '_'")
    question: str = Field(default="", max_length=2000, description="question that the study answers")
    expected_time: str = Field(default="", max_length=200)
    data: DataSpec
    model: NetworkSpec = ModelSpec()
    method: Annotated[str, one_of(METHODS)] = "gates"
    budget: BudgetSpec = BudgetSpec()
    space: dict[str, Distribution | float | int | str] = Field(default_factory=dict)  # see _method_defaults
    searched: tuple[Kind, ...] = Field(default=SPLIT_ALONE, description="written as space: {search: [...]}")
    level_step: int | None = Field(default=None, description="written as space: {level_step: 16}")
    front: FrontSpec | None = None
    training: TrainingSpec = TrainingSpec()
    sweep: SweepSpec = SweepSpec()
    final: FinalSpec = FinalSpec()
    baselines: tuple[float, ...] = (1 / 2, 1 / 4, 1 / 8)
    objectives: tuple[str, ...] = Field(default=("top1", "macs"), min_length=2, max_length=4)
    constraints: tuple[ConstraintText, ...] = Field(default=(), max_length=16)
    latency: LatencySpec | None = LatencySpec()

    @model_validator(mode="before")
    @classmethod
    def _method_defaults(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        name = data.get("method", "gates")
        method = METHODS[name if isinstance(name, str) and name in METHODS else "gates"]
        filled: dict[str, Any] = {"space": dict(method.space), **data}
        if method.yields_front and data.get("front") is None:
            filled["front"] = FrontSpec()
        filled |= spelled_out(data, method.space, yields_front=method.yields_front)
        filled |= take_search(filled, method.space)
        for key, default in method.defaults.items():
            given = data.get(key, {} if isinstance(default, Mapping) else default)
            both = isinstance(default, Mapping) and isinstance(given, Mapping)
            filled[key] = {**default, **given} if both else given
        return filled

    @field_validator("space", mode="before")
    @classmethod
    def _parse_space(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: parse_distribution(key, spread_out(key, entry)) for key, entry in value.items()}

    @model_validator(mode="before")
    @classmethod
    def _name_recipe(cls, value: Any) -> Any:
        """Write out a named recipe, so that a stored definition says all of it, whatever later versions hold."""
        return with_named_recipe(value) if isinstance(value, Mapping) else value

    @field_validator("baselines", mode="before")
    @classmethod
    def _parse_ratios(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"baselines must be a list of ratios such as [1/2, 1/4], but got {value!r}")
        return tuple(parse_ratio(entry) for entry in value)

    @field_validator("objectives", mode="before")
    @classmethod
    def _latency_of_the_table(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        return tuple(PREDICTED if name == "latency" else name for name in value)

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        allowed = [name for name, metric in METRICS.items() if metric.objective]
        for name in value:
            if name not in allowed:
                hint = f"; {METRICS[name].quantity} is measured after the trials" if name in METRICS else ""
                hint += "; 'latency' stands for that of the table" if name == "latency_ms" else ""
                raise ValueError(f"unknown objective {name!r}; known: {', '.join(allowed)}{hint}")
        if len(set(value)) != len(value):
            raise ValueError(f"objectives must differ, but got {list(value)}")
        return value

    @model_validator(mode="after")
    def _check_space(self) -> Self:
        for key, entry in self.space.items():
            check_parameter(key, entry, self.method, self.budget, self.model)
            if key in self.training.model_fields_set:
                raise ValueError(f"space: {key!r} is swept, so it must not stand in 'training' as well")
        if "target" not in self.space:
            raise ValueError("space: 'target' is missing; give a number or a distribution, e.g. {log_uniform: [2, 8]}")
        if self.sweep.trials == 0 and not self.baselines:
            raise ValueError("nothing to run: sweep.trials is 0 and there are no baselines")
        return self

    @model_validator(mode="after")
    def _check_searched(self) -> Self:
        check_searched(self.searched, self.budget, self.model)
        if self.final.ablate and len(self.searched) < 2:
            raise ValueError(
                f"final: ablate needs a space with two kinds of choice, but it searches {self.searched[0]} alone; give "
                "space: {search: [split, mlp_ratio]}, or leave ablate out"
            )
        if self.final.ablate and "uniform" not in self.final.against:
            raise ValueError("final: ablate compares with uniform networks; add uniform to final.against")
        return self

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        check_shapes(self.space, None if self.latency is None else self.latency.table)
        return self

    @model_validator(mode="after")
    def _check_latency(self) -> Self:
        limit, highest = self.budget.at_most, max(map(float, extremes(self.space["target"])))
        if limit is not None and highest > limit:
            raise ValueError(f"space: targets go up to {highest:g} ms, but budget.at_most is {limit:g} ms")
        if self.latency is None or self.latency.table is None:
            check_untimed(self.budget.unit, self.objectives, self.constraints)
        return self

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        method = self.search_method
        if self.front is not None and not method.yields_front:
            others = " or ".join(name for name, known in METHODS.items() if known.yields_front)
            raise ValueError(f"front: a trial of method {self.method} settles on one network; 'front' is for {others}")
        default = TrainingSpec(**method.defaults.get("training", {}))
        for key in method.unused:
            value = getattr(self.training, key)
            if value != getattr(default, key):
                raise ValueError(f"training: method {self.method} ignores {key}={value!r}; leave it out")
        return self

    @model_validator(mode="after")
    def _check_proposals(self) -> Self:
        sweep = self.sweep
        if SEARCHERS[sweep.searcher].grid:
            size = len(self.grid)
            if "trials" not in sweep.model_fields_set:
                # All points, however many the ranges give; written out, so that a stored definition says it as well.
                object.__setattr__(self, "sweep", sweep.model_copy(update={"trials": size}))
            elif sweep.trials > size:
                raise ValueError(
                    f"sweep.trials: the grid has only {size} points, but {sweep.trials} trials are requested; leave "
                    "trials out, or raise sweep.grid"
                )
        elif "grid" in sweep.model_fields_set and sweep.grid != SweepSpec().grid:
            raise ValueError(f"sweep.grid works only with searcher grid, not with {sweep.searcher!r}")
        check_points(self.sampled, self.sweep.points, self.sweep.trials)
        if sweep.early_stopping is not None:
            check_early_stopping(
                sweep.early_stopping, self.objectives, self.method, self.search_method.yields_front, self._least_epochs
            )
        return self

    @property
    def search_method(self) -> SearchMethod:
        """Facts of the method."""
        return METHODS[self.method]

    @property
    def planned(self) -> int:
        """Number of trials that the definition requests, with baselines and the final comparison."""
        return self.sweep.trials + len(self.baselines) + self.planned_final

    @property
    def planned_final(self) -> int:
        """Number of trainings of the final comparison; 0 without a search, since there is nothing to compare."""
        if not self.sweep.trials:
            return 0
        ablated = len(self.searched) if self.final.ablate else 0
        return self.final.trials + self.final.candidates * ablated * self.final.seeds

    @property
    def constants(self) -> dict[str, float | int | str]:
        """Plain values of the space, which hold for each trial and for baselines as well."""
        return {key: entry for key, entry in self.space.items() if isinstance(entry, (int, float, str))}

    @property
    def sampled(self) -> dict[str, Distribution]:
        """Distributions that each trial draws from, by name; without the targets of a front, which one trial meets all.
        """
        drawn = {key: entry for key, entry in self.space.items() if not isinstance(entry, (int, float, str))}
        if self.search_method.yields_front:
            drawn.pop("target", None)
        return drawn

    @property
    def told_constraints(self) -> tuple[Constraint, ...]:
        """Constraints that the searcher learns: those on metrics that are known at the end of a trial."""
        known = tuple(limit for limit in self.constraints if METRICS[limit.metric].objective)
        table = self.latency is not None and self.latency.table is not None
        return (*known, *told_limits(self.constraints, table=table))

    @property
    def grid(self) -> list[dict[str, float | int | str | bool]]:
        """Points of the grid that searcher ``grid`` proposes, in the order of the space."""
        return grid_points(self.sampled, self.sweep.grid)

    @property
    def most_trials(self) -> int:
        """Largest number of search trials that a study can have: each point of a grid is one."""
        return len(self.grid) if SEARCHERS[self.sweep.searcher].grid else MAX_TRIALS

    def epochs_of(self, parameters: Mapping[str, Any]) -> int:
        """Return the number of epochs of a search trial with these parameters, with its fine-tuning."""
        training = self.sampled_training({**self.constants, **parameters})
        return training.epochs + training.finetune_epochs

    def rungs_of(self, parameters: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the epochs after which early stopping decides on a search trial with these parameters."""
        early = self.sweep.early_stopping
        return () if early is None else early.rungs(self.epochs_of(parameters), self._least_epochs)

    @property
    def _least_epochs(self) -> int:
        swept = [extremes(self.space.get(name, getattr(self.training, name))) for name in ("epochs", "finetune_epochs")]
        return sum(int(min(values)) for values in swept)

    @property
    def targets(self) -> tuple[float, ...]:
        """Targets of the front that a trial yields, ascending."""
        return spread_over(self.space["target"], self.front.points if self.front else 1)

    def shaped(self, parameters: Mapping[str, Any]) -> StudyDefinition:
        """Return the study with the network's shape in a trial with these parameters."""
        options = shape_options(self.model, {**self.constants, **parameters})
        return self.model_copy(update={"model": self.model.reshaped(options)}) if options else self

    def sampled_training(self, parameters: Mapping[str, Any]) -> TrainingSpec:
        """Return the training with a trial's sampled parameters."""
        swept = {key: value for key, value in parameters.items() if key in TrainingSpec.model_fields}
        return TrainingSpec(**{**self.training.model_dump(), **swept})

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, with all defaults; :func:`parse_study` reads it back to an equal definition."""
        data = self.model_dump(mode="json")
        for key in self.space:
            data["training"].pop(key, None)
        # As a definition writes it; one that searches the split alone is written as ever.
        searched, step = data.pop("searched"), data.pop("level_step")
        if step is not None:
            data["space"] = {"level_step": step, **data["space"]}
        if self.searched != SPLIT_ALONE:
            data["space"] = {"search": searched, **data["space"]}
        return data

    def to_yaml(self) -> str:
        """Return :meth:`to_dict` as YAML."""
        return dump_yaml(self.to_dict())


def faults_of(data: Any) -> tuple[StudyDefinition | None, list[Fault]]:
    """Check a parsed definition; return it, or all of its faults.

    Args:
        data: Content that YAML or JSON parsing returned.
    """
    if not isinstance(data, Mapping):
        given = "nothing" if data is None else type(data).__name__
        return None, [Fault("", f"a study definition must be a mapping of keys, but got {given}")]
    try:
        return StudyDefinition.model_validate(dict(data)), []
    except ValidationError as error:
        return None, described(all_faults(StudyDefinition.model_validate, data, error))


def parse_study(data: Any, source: str = "definition") -> StudyDefinition:
    """Check a parsed definition.

    Args:
        data: Content that YAML or JSON parsing returned.
        source: Name for messages, such as that of the file.

    Raises:
        DefinitionError: If there are faults, with one line for each: place, fault, value, what would be right.
    """
    definition, faults = faults_of(data)
    if definition is None:
        raise DefinitionError("\n".join(": ".join(filter(None, (source, str(fault)))) for fault in faults))
    return definition


def read_study(read: Callable[[], Any], source: str = "definition", language: str = "YAML") -> StudyDefinition:
    """Read and check a definition.

    Args:
        read: Function that returns the parsed text.
        source: Name for messages, such as that of the file.
        language: Language of the text, for messages.

    Raises:
        DefinitionError: If ``read`` finds invalid text, or the text does not hold a valid definition.
    """
    return parse_study(read_value(read, source, language), source)


def load_study(path: Path) -> StudyDefinition:
    """Read a definition file (YAML).

    Raises:
        DefinitionError: If the file cannot be read, is invalid YAML, or does not hold a valid definition.
    """
    try:
        return read_study(lambda: parse_yaml(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise DefinitionError(f"{path}: cannot be read ({error.strerror})") from None


def cost_metric(definition: StudyDefinition) -> str:
    """Return the metric in which networks have equal cost: the budget's unit, of the whole exported network."""
    return COSTS[definition.budget.unit]
