"""Some networks side by side: settings, scores with intervals, and splits, of one study or several. Loads no torch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from nas.candidate import Candidate, Split
from nas.findings.uncertainty import Interval, evaluation_interval, measurement_interval
from nas.metrics import METRICS
from nas.study import Study
from nas.trial import Trial

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Side(NamedTuple):
    """A network of the comparison.

    Args:
        study: Study of the trial.
        trial: Trial with its history.
        position: Index of the network; None if the trial has one network at most.
        candidate: The network; None if the trial has settled on none.
    """

    study: Study
    trial: Trial
    position: int | None
    candidate: Candidate | None

    @property
    def within(self) -> str:
        """Name within the study: ``12``, or ``0.3``."""
        return str(self.trial.number) if self.position is None else f"{self.trial.number}.{self.position}"

    @property
    def name(self) -> str:
        """Name across studies: ``digits:12``."""
        return f"{self.study.name}:{self.within}"


class Value(NamedTuple):
    """A score with its 95 % interval and its spread over repetitions, as far as they are known."""

    value: float
    interval: Interval | None = None
    std: float | None = None


class Setting(NamedTuple):
    """A row of settings: a value for each side, None where a side has none."""

    name: str
    values: tuple[Any, ...]
    differs: bool


class Scores(NamedTuple):
    """A row of scores that can be compared with one another.

    Args:
        metric: Key of the metric.
        on: Weights and data of an evaluation (``finetuned, validation``), or circumstances of a measurement.
        values: Score of each side; None where a side has none.
    """

    metric: str
    on: str
    values: tuple[Value | None, ...]


class LayerRow(NamedTuple):
    """A layer with the split of each side; None where a network lacks the layer."""

    layer: str
    splits: tuple[Split | None, ...]


class SideBySide(NamedTuple):
    """A whole comparison."""

    sides: tuple[Side, ...]
    settings: tuple[Setting, ...]
    scores: tuple[Scores, ...]
    layers: tuple[LayerRow, ...]


def side_by_side(sides: Sequence[Side]) -> SideBySide:
    """Return the rows that compare ``sides``; a row stands if one of them has a value."""
    settings = [
        Setting(name, values, len({str(value) for value in values}) > 1)
        for name, values in _rows([_settings(side) for side in sides])
    ]
    scores = [Scores(*key, values) for key, values in _rows([_scores(side) for side in sides])]
    scores.sort(key=lambda row: list(METRICS).index(row.metric))
    return SideBySide(tuple(sides), tuple(settings), tuple(scores), layer_rows(sides))


def layer_rows(sides: Sequence[Side]) -> tuple[LayerRow, ...]:
    """Return the layers of all networks in forward order."""
    found = [{split.layer: split for split in side.candidate.splits} if side.candidate else {} for side in sides]
    rows = [LayerRow(layer, splits) for layer, splits in _rows(found)]
    rows.sort(key=lambda row: min(split.index for split in row.splits if split is not None))
    return tuple(rows)


def _rows(columns: Sequence[Mapping[K, T]]) -> list[tuple[K, tuple[T | None, ...]]]:
    keys = dict.fromkeys(key for column in columns for key in column)
    return [(key, tuple(column.get(key) for column in columns)) for key in keys]


def _settings(side: Side) -> dict[str, Any]:
    definition = side.study.definition
    return {
        "study": side.study.name,
        "data": definition.data.name,
        "network": definition.model.model,
        "method": definition.method,
        "kind": side.trial.label,
        "state": side.trial.state.value,
        "seed": side.trial.seed,
        **side.trial.spec.stored_parameters,
    }


def _scores(side: Side) -> dict[tuple[str, str], Value]:
    if side.candidate is None:
        return {}
    images = side.study.data.counts if side.study.data is not None else {}
    found: dict[tuple[str, str], Value] = {}
    for item in side.candidate.evaluations:  # the newest comes last
        interval = evaluation_interval(item, images)
        found[item.metric, f"{item.kind.value}, {item.data_split}"] = Value(item.value, interval, item.std)
    for measured in side.candidate.measurements:
        found[measured.metric, measured.fingerprint] = Value(measured.value, measurement_interval(measured))
    return found

