"""The sections of a study definition: data, network, budget, training, sweep, latency. Loads neither torch nor ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from nas.definition.early_stopping import EarlyStoppingSpec
from nas.definition.recipe import RecipeSpec
from nas.definition.searchers import SEARCHERS
from nas.definition.space import Real, StrictModel, Whole, one_of
from partialnet.data.catalog import DATASETS

MAX_TRIALS = 100_000
"""Greatest number of search trials of a study."""

Rival = Literal["uniform", "random", "scaled"]
"""Kind of network that a final comparison sets learned ones against."""

FOLDER = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class DataSpec(StrictModel):
    """The data set, by its name and never by a path."""

    name: str = Field(description="a name of the catalogue: digits, cifar10, ...")
    folder: Annotated[str, Field(pattern=FOLDER)] | None = Field(
        default=None, description="the folder's name under a data root; only for images of your own (image_...)"
    )
    image_size: Whole | None = Field(default=None, ge=4, le=1024, description="pixels; the native size if absent")
    train_limit: Whole | None = Field(default=None, ge=10, description="training images, stratified; all if absent")
    validation_fraction: Real = Field(default=0.1, gt=0, lt=0.5)
    augment: Literal["none", "standard"] = "standard"
    skip_broken: bool = Field(default=False, description="leave images out that cannot be read; otherwise an error")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.name not in DATASETS:
            raise ValueError(f"unknown data set {self.name!r}; known: {', '.join(DATASETS)}")
        own = DATASETS[self.name].in_folder
        if own and self.folder is None:
            raise ValueError(f"{self.name} needs 'folder', the name of a folder under a data root")
        if not own and (self.folder is not None or self.skip_broken):
            key = "folder" if self.folder is not None else "skip_broken"
            allowed = ", ".join(name for name, facts in DATASETS.items() if facts.in_folder)
            raise ValueError(f"{key!r} works only with {allowed}, not with {self.name!r}")
        if own and self.image_size is None:
            raise ValueError(f"{self.name} needs 'image_size', in pixels (224 is usual)")
        return self

    @property
    def size(self) -> int:
        """Height and width of the images that the network sees, in pixels."""
        size = self.image_size or DATASETS[self.name].size
        assert size is not None
        return size

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of one image."""
        return (DATASETS[self.name].channels, self.size, self.size)


class BudgetSpec(StrictModel):
    """The quantity that a ``target`` counts.

    In scope ``conv`` the target is the paper's b: b = 4 allows the cost of the uniform ratio 1/4. In scope ``network``
    the target is an absolute cost of the whole exported network in its inference form. Unit ``latency`` is always the
    whole network, in milliseconds of the table that the section ``latency`` names. With it, ``target``, ``runtime``,
    ``device``, ``threads``, ``batch`` and ``table`` may stand here as well (:mod:`nas.definition.milliseconds`).
    """

    unit: Literal["macs", "params", "latency"] = "macs"
    scope: Literal["conv", "network"] = "conv"
    at_most: Real | None = Field(
        default=None, gt=0, description="unit latency only: hard limit in milliseconds, which no chosen network exceeds"
    )

    @model_validator(mode="before")
    @classmethod
    def _whole_network(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("unit") == "latency":
            return {"scope": "network", **data}
        return data

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.unit == "latency" and self.scope == "conv":
            raise ValueError("unit 'latency' counts the whole network: use scope 'network', or leave it out")
        if self.unit != "latency" and self.at_most is not None:
            raise ValueError("at_most works only with unit 'latency'; for other units, give a constraint")
        return self


class TrainingSpec(RecipeSpec):
    """The training of a trial: search phases on the network with gates, then fine-tuning of the fixed network.

    The same recipe trains a uniform baseline for ``epochs + finetune_epochs``. Searches use its
    augmentation, but neither stochastic depth, accumulation, averages, teachers nor sizes: fixed networks do.
    """

    epochs: Whole = Field(default=20, ge=1, le=10_000, description="epochs of the gate training, over all phases")
    finetune_epochs: Whole = Field(default=10, ge=0, le=10_000, description="epochs of fine-tuning the fixed network")
    batch_size: Whole = Field(default=128, ge=2, le=65_536)
    finetune_learning_rate: Real | None = Field(default=None, gt=0, le=10, description="learning_rate if absent")
    gate_learning_rate: Real | None = Field(
        default=None, gt=0, le=10, description="rate of gates or fractional levels; that of the method if absent"
    )


class FrontSpec(StrictModel):
    """The networks that one trial of some methods yields: targets lie evenly over the range of ``target``."""

    points: Whole = Field(default=8, ge=1, le=256, description="targets; one network may be best for several")


class SweepSpec(StrictModel):
    """Number of trials, searcher, and resources of each trial."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)  # `from` is a keyword of Python

    trials: Whole = Field(default=16, ge=0, le=MAX_TRIALS, description="number of search trials; baselines come on top")
    seconds: Real | None = Field(
        default=None, gt=0, description="no search trial starts after this time; the final comparison comes on top"
    )
    searcher: Annotated[str, one_of(SEARCHERS)] = "tpe"
    grid: Whole | dict[str, Whole] = Field(
        default=3, description="searcher grid only: values of each parameter, or of each by name; a choice has all"
    )
    points: tuple[dict[str, float | int | str | bool], ...] = Field(
        default=(), description="parameters of the first trials; the searcher completes a point that lacks some"
    )
    warm_start: str | None = Field(
        default=None, alias="from", min_length=1, description="earlier study whose results the searcher receives"
    )
    early_stopping: EarlyStoppingSpec | None = None
    seed: Whole = Field(default=0, ge=0, lt=2**31)
    concurrent: Whole | None = Field(default=None, ge=1, le=10_000, description="at the same time; if absent, all")
    cpus_per_trial: Real = Field(default=1, gt=0, le=1024)
    gpus_per_trial: Real = Field(default=0, ge=0, le=64)


class FinalSpec(StrictModel):
    """The trainings of the final comparison: learned networks of the front, next to other networks of equal cost.

    The recipe of the baselines trains all of them from scratch with the same seeds, and test images score them.
    """

    candidates: Whole = Field(default=2, ge=0, le=100, description="learned networks of the front; 0: no comparison")
    seeds: Whole = Field(default=3, ge=1, le=100, description="trainings of each network; an interval needs two")
    random: Whole = Field(default=2, ge=0, le=100, description="random networks of equal cost beside each learned one")
    against: tuple[Rival, ...] = Field(
        default=("uniform", "random", "scaled"),
        description="kinds of networks of equal cost to compare with: uniform ones, random ones, and the published "
        "shape scaled in width or depth",
    )
    show: Real | None = Field(
        default=None,
        gt=0,
        description="difference that the comparison should be able to show, in points for top-1 and top-5; a study "
        "with too few seeds says how many it needs",
    )
    pilot: str | None = Field(
        default=None,
        min_length=1,
        description="earlier study whose final comparison says how much trainings differ by their seed; without one, "
        "the first seeds of the uniform network say it",
    )
    ablate: bool = Field(
        default=False,
        description="train networks, of equal cost, in which only one kind of choice is as learned and all others are "
        "uniform; for a space of several kinds",
    )
    epochs: Whole | None = Field(
        default=None, ge=1, le=10_000, description="epochs of each training; epochs + finetune_epochs if absent"
    )

    @property
    def trials(self) -> int:
        """Number of trainings that the definition requests: learned networks and their rivals, with each seed."""
        beside = {"uniform": 1, "random": self.random, "scaled": 1}
        return self.candidates * (1 + sum(beside[kind] for kind in self.against)) * self.seeds

    @field_validator("against")
    @classmethod
    def _different(cls, value: tuple[Rival, ...]) -> tuple[Rival, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"kinds must differ, but got {list(value)}")
        return value


class LatencySpec(StrictModel):
    """Settings of the latency measurement after the trials; without this section, there is none.

    A network takes turns with a reference network, pass by pass, until the 95 % interval of their ratio is narrow
    enough. With ``table``, each trial also gets the latency that a table predicts (metric ``predicted_ms``).
    """

    runtime: Literal["torch", "compile", "onnx"] = Field(
        default="torch", description="eager torch, torch.compile, or ONNX Runtime"
    )
    device: Literal["cpu", "cuda"] = "cpu"
    threads: Whole = Field(default=1, ge=1, le=1024)
    batch: Whole = Field(default=1, ge=1, le=4096)
    warmup: Whole = Field(default=10, ge=1, le=10_000)
    n: Whole = Field(default=50, ge=10, le=100_000, description="passes at least; more until the interval is narrow")
    interval: Real = Field(default=0.02, gt=0, le=1, description="width of the 95 % interval, as a share of the figure")
    seconds: Real = Field(default=10, gt=0, le=3600, description="a measurement ends after this time in any case")
    table: Annotated[str, Field(pattern=FOLDER)] | None = Field(
        default=None,
        description="'auto' measures a table of this device, or takes it from the cache; or the name of a table's file "
        "(*.json) under a data root",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.runtime == "onnx" and self.device == "cuda":
            raise ValueError("runtime 'onnx' runs on the processor: use device 'cpu', or runtime 'compile'")
        if self.table not in (None, "auto") and not str(self.table).endswith(".json"):
            raise ValueError("table must be 'auto', or the name of a file *.json under a data root")
        return self
