"""Handing out a trial's network as a folder that stands on its own."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import ConflictError
from nas.model_card import model_card
from nas.study import Study
from nas.trial import Candidate, Trial
from partialnet.data.catalog import DATASETS

if TYPE_CHECKING:
    from nas.artifacts import Artifacts
    from nas.store import Store
    from partialnet.package import Preprocessing


def exportable(trial: Trial, study: Study) -> Candidate:
    """Return the candidate of ``trial`` that has weights.

    Raises:
        ConflictError: If there is none; says why and what to do.
    """
    name = f"trial {trial.number} of {study.name}"
    if not trial.candidates:
        why = f" ({trial.reason})" if trial.reason else ""
        raise ConflictError(f"{name} is {trial.state.value}{why} and has no network; export a complete one")
    for candidate in trial.candidates:
        if candidate.weights is not None:
            return candidate
    raise ConflictError(
        f"the weights of {name} were not kept; train its architecture again: "
        f"`nas trial {study.name} {trial.number} --architecture FILE`, then `nas train --architecture FILE`"
    )


def export_trial(
    store: Store, artifacts: Artifacts, study_ref: str, number: int, out: Path, *, force: bool = False
) -> Path:
    """Write a trial's network as a package: architecture, weights, preprocessing, model card.

    The folder appears whole or not at all; weights are checked against their checksum and the architecture.

    Args:
        store: Where the trial is.
        artifacts: Where its weights are.
        study_ref: Name, id or ``latest``.
        number: Of the trial.
        out: Must not exist, or be empty.
        force: Replace an earlier export.

    Returns:
        ``out``.

    Raises:
        NotFoundError: If there is no such study or trial.
        ConflictError: If the trial has no weights.
        PackageError: If something is in the way, or the weights are damaged.
    """
    from partialnet.models.partialnet import create
    from partialnet.package import check_target, load_tensors, read_tensors, save_package

    study = store.study(study_ref)
    trial = store.trial(study.id, number)
    candidate = exportable(trial, study)
    assert candidate.weights is not None
    check_target(out, overwrite=force)
    model = create(candidate.architecture)
    with tempfile.TemporaryDirectory(prefix="nas-export-") as scratch:
        weights = artifacts.fetch(candidate.weights, Path(scratch))
        load_tensors(model, read_tensors(weights), candidate.weights.uri)
        preprocessing = _preprocessing(study, weights, model.num_classes)
    card = model_card(study, trial, candidate)
    return save_package(out, model.eval(), preprocessing, readme=card, overwrite=force)


def _preprocessing(study: Study, weights: Path, classes: int) -> Preprocessing:
    from safetensors import safe_open

    from partialnet.package import Preprocessing

    with safe_open(weights, framework="pt") as opened:
        metadata = opened.metadata() or {}
    # Class names travel with the weights: the data set itself may be gone, or elsewhere, when a trial is exported.
    names = json.loads(metadata["class_names"]) if "class_names" in metadata else [str(k) for k in range(classes)]
    facts = DATASETS[study.definition.data.name]
    return Preprocessing(
        study.definition.data.name, tuple(names), study.definition.data.input_shape, facts.mean, facts.std
    )
