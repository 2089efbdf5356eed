"""Bodies of a comparison side by side, and of the importance of parameters. Loads neither torch nor ray."""

from __future__ import annotations

from typing import Any

from nas.findings.importance import Importances
from nas.findings.side_by_side import Side, SideBySide, Value
from nas.trial import TrialKind, TrialState
from nas.wire.bodies import Body


class SideBody(Body):
    """A network of a comparison.

    Args:
        name: Name across studies, such as ``digits:12``.
        position: Index of the network; None if the trial has one network at most.
        architecture_id: Id of the architecture; None if the trial has settled on no network.
    """

    name: str
    study_id: str
    study: str
    number: int
    position: int | None
    kind: TrialKind
    label: str
    state: TrialState
    architecture_id: str | None


class ValueBody(Body):
    """A score.

    Args:
        value: Value in the unit of the metric: fractions, never percent.
        interval: Ends of its 95 % interval: of an accuracy by the number of images, of a latency by its repetitions.
        std: Standard deviation over repetitions.
    """

    value: float
    interval: tuple[float, float] | None
    std: float | None


class SettingBody(Body):
    """A setting or sampled parameter: a value for each network, in their order.

    Args:
        differs: Whether the values differ.
    """

    name: str
    values: tuple[Any, ...]
    differs: bool


class ScoresBody(Body):
    """Scores of one metric that can be compared with one another.

    Args:
        on: Weights and data of an evaluation, or circumstances of a measurement.
        values: Score of each network, in their order.
    """

    metric: str
    on: str
    values: tuple[ValueBody | None, ...]


class LayerBody(Body):
    """The splits of one layer; None where a network lacks it."""

    layer: str
    channels: tuple[int | None, ...]
    active_channels: tuple[int | None, ...]
    ratios: tuple[float | None, ...]


class SideBySideBody(Body):
    """Networks side by side."""

    trials: tuple[SideBody, ...]
    settings: tuple[SettingBody, ...]
    scores: tuple[ScoresBody, ...]
    layers: tuple[LayerBody, ...]


class ShareBody(Body):
    """The importance of a parameter for an objective.

    Args:
        share: Share in what separates the best trials from all; those of all parameters sum to 1.
        chance: Share that trials with shuffled values reach in one of ten cases.
        clear: Whether the share is above that of chance.
    """

    parameter: str
    share: float
    chance: float
    clear: bool


class ImportancesBody(Body):
    """The importance of the sampled parameters of a study for each of its objectives, by PED-ANOVA.

    Args:
        trials: Number of complete search trials with all objectives.
        used: Number of them that the shares are computed from.
        best: Part of these that counts as the best.
        objectives: Shares by objective, the largest first; empty if there is a reason.
        reason: Reason why nothing is computed; None if something is.
    """

    study_id: str
    study: str
    trials: int
    used: int
    best: float
    objectives: dict[str, tuple[ShareBody, ...]]
    reason: str | None


def side_by_side_from(found: SideBySide) -> SideBySideBody:
    """Build the body of a comparison."""
    return SideBySideBody(
        trials=tuple(_side_from(side) for side in found.sides),
        settings=tuple(SettingBody(name=row.name, values=row.values, differs=row.differs) for row in found.settings),
        scores=tuple(
            ScoresBody(metric=row.metric, on=row.on, values=tuple(_value_from(value) for value in row.values))
            for row in found.scores
        ),
        layers=tuple(
            LayerBody(
                layer=row.layer,
                channels=tuple(split and split.channels for split in row.splits),
                active_channels=tuple(split and split.active_channels for split in row.splits),
                ratios=tuple(split and split.ratio for split in row.splits),
            )
            for row in found.layers
        ),
    )


def _side_from(side: Side) -> SideBody:
    return SideBody(
        name=side.name,
        study_id=side.study.id,
        study=side.study.name,
        number=side.trial.number,
        position=side.position,
        kind=side.trial.kind,
        label=side.trial.label,
        state=side.trial.state,
        architecture_id=None if side.candidate is None else side.candidate.architecture.id,
    )


def _value_from(value: Value | None) -> ValueBody | None:
    return None if value is None else ValueBody(value=value.value, interval=value.interval, std=value.std)


def importances_from(study_id: str, study: str, found: Importances) -> ImportancesBody:
    """Build the body of importances."""
    return ImportancesBody(
        study_id=study_id,
        study=study,
        trials=found.trials,
        used=found.used,
        best=found.best,
        objectives={
            name: tuple(
                ShareBody(parameter=parameter, share=share.value, chance=share.chance, clear=share.clear)
                for parameter, share in shares.items()
            )
            for name, shares in found.shares.items()
        },
        reason=found.reason or None,
    )
