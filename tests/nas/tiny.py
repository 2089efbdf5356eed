"""A study whose trials take less than a second: few digits, a narrow network, few epochs."""

from __future__ import annotations

from typing import Any

from nas.definition.study import StudyDefinition, parse_study
from nas.trial import TrialKind, TrialSpec

LEARNS = {"name": "digits", "train_limit": 300}
"""Images from which a network learns in a few epochs: for tests that look at how well it classifies."""


def tiny(**changes: Any) -> StudyDefinition:
    """Return the definition; a changed key replaces the whole entry."""
    return parse_study(
        {
            "name": "tiny",
            "data": {"name": "digits", "train_limit": 200},
            "model": {
                "name": "micro", "embed_dim": 8, "depths": [1, 1, 1, 1], "patch_size": 2, "merge_strides": [1, 2, 1],
                "feature_dim": 32,
            },
            "training": {"epochs": 5, "finetune_epochs": 2, "batch_size": 40, "learning_rate": 0.01},
            "sweep": {"trials": 2, "seed": 3},
            "latency": None,
            "final": {"candidates": 0},
            **changes,
        }
    )  # fmt: skip


def search(number: int = 0, seed: int = 11, **parameters: Any) -> TrialSpec:
    """Return a search trial at b = 4."""
    return TrialSpec(number, TrialKind.SEARCH, {"target": 4.0, "penalty": 0.9, **parameters}, seed)


def baseline(ratio: float = 0.25, number: int = 1, seed: int = 11) -> TrialSpec:
    """Return a uniform trial."""
    return TrialSpec(number, TrialKind.BASELINE, {"ratio": ratio}, seed)
