"""Small real studies, and what two runs of one of them must have in common."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from nas.candidate import Candidate
from nas.definition.study import StudyDefinition, parse_study
from nas.store import Store
from nas.trial import EpochRecord, Trial


def small_study(**changes: Any) -> StudyDefinition:
    """Return a study of one baseline and five searches of 3 short epochs, one at a time, the last by TPE's model."""
    base = {
        "name": "faults",
        "data": {"name": "digits", "train_limit": 60, "augment": "none"},
        "model": {"name": "micro", "patch_size": 2, "merge_strides": [2, 1, 1], "depths": [1, 1, 1, 1]},
        "training": {"epochs": 2, "finetune_epochs": 1, "batch_size": 30},
        "sweep": {"trials": 5, "seed": 5, "concurrent": 1, "searcher": "tpe"},
        "baselines": ["1/4"],
        "latency": None,
        "final": {"candidates": 0},
    }
    return parse_study({**base, **changes})


def timeless(record: EpochRecord) -> EpochRecord:
    """Leave out what the clock says."""
    return replace(record, metrics={key: value for key, value in record.metrics.items() if key != "images_per_second"})


def essence(store: Store, study_id: str, storage: Path) -> list[dict[str, Any]]:
    """Return what a fault must not change: decisions, states, epochs, scores and weights, trial by trial."""
    return [_essence(trial, storage) for trial in store.trials(study_id, history=True)]


def _essence(trial: Trial, storage: Path) -> dict[str, Any]:
    return {
        "trial": (trial.number, trial.kind.value, trial.state.value, trial.seed, dict(trial.parameters)),
        "epochs": [timeless(record) for record in trial.history],
        "networks": [replace(candidate, weights=None) for candidate in trial.candidates],
        "weights": [_weights(candidate, storage) for candidate in trial.candidates],
    }


def _weights(candidate: Candidate, storage: Path) -> str:
    """Return a digest of the tensors that are stored."""
    assert candidate.weights is not None
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(storage / candidate.weights.uri).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
