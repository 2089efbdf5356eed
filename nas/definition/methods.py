"""The methods that learn split ratios: what a study must know of each before anything runs. No torch, no ray.

A new method is a module with its trainer, and an entry in :data:`METHODS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from nas.definition.space import Distribution, LogUniform
from nas.metrics import EvaluationKind

_TARGET, _PENALTY = LogUniform(log_uniform=(2.0, 8.0)), LogUniform(log_uniform=(0.1, 2.0))
_EXPONENT = LogUniform(log_uniform=(0.01, 2.0))


@dataclass(frozen=True)
class SearchMethod:
    """What a study must know of a method.

    Args:
        trainer: Place of the function that runs one trial of it, as ``module:name``; see :mod:`nas.training.run_trial`.
        space: Parameters of its own, with what they range over where a definition has no ``space``.
        ends_with: Kind of evaluation that its trials end with; the searcher is told these scores.
        yields_front: Whether one trial yields a network for each target, instead of one network for one target.
        defaults: What a definition holds where it says nothing else: section or key to its value.
        unused: Keys of the training that mean nothing to it.
        levels_stay: Whether it trains all levels at once, so that none is learned before the end.
    """

    trainer: str
    space: Mapping[str, Distribution]
    ends_with: EvaluationKind = EvaluationKind.FINETUNED
    yields_front: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    levels_stay: bool = False


METHODS: Mapping[str, SearchMethod] = MappingProxyType(
    {
        "gates": SearchMethod(
            trainer="nas.training.gates:train_gates",
            space=MappingProxyType({"target": _TARGET, "complexity_exponent": _EXPONENT, "penalty": _PENALTY}),
        ),
        "fractional": SearchMethod(
            trainer="nas.training.gates:train_fractional",
            space=MappingProxyType({"target": _TARGET, "penalty": _PENALTY}),
        ),
        "supernet": SearchMethod(
            trainer="nas.training.supernet:train_supernet",
            space=MappingProxyType({"target": _TARGET}),
            ends_with=EvaluationKind.INHERITED,  # its networks are retrained by the final comparison instead
            yields_front=True,
            defaults=MappingProxyType({"baselines": (), "sweep": {"trials": 1}, "training": {"finetune_epochs": 0}}),
            unused=("finetune_epochs", "finetune_learning_rate", "gate_learning_rate"),
            levels_stay=True,
        ),
    }
)
