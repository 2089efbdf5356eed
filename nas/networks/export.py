"""Handing out a trial's network as a folder that stands on its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nas.candidate import Candidate
from nas.errors import ConflictError
from nas.findings.candidates import choose_candidate
from nas.networks.card import model_card
from nas.scratch import scratch_folder
from nas.study import Study
from nas.trial import Trial
from partialnet.data.catalog import DATASETS

if TYPE_CHECKING:
    from nas.artifacts import Artifacts
    from nas.store import Store
    from partialnet.package import Preprocessing


def exportable(trial: Trial, study: Study, wanted: str | None = None) -> tuple[int, Candidate]:
    """Return the place and the network that is exported: one with weights.

    Args:
        trial: Whose.
        study: Of the trial.
        wanted: As in :func:`nas.findings.candidates.choose_candidate`.

    Raises:
        ConflictError: If there is none; says why and what to do.
        InputError: If it does not say which.
        NotFoundError: If there is no such network.
    """
    position, candidate = choose_candidate(trial, study.name, wanted)
    if candidate.weights is None:
        which = "" if len(trial.candidates) == 1 else f" --candidate {position}"
        raise ConflictError(
            f"the weights of trial {trial.number} of {study.name} were not kept; train its architecture again: "
            f"`nas trial {study.name} {trial.number}{which} --architecture FILE`, then `nas train --architecture FILE`"
        )
    return position, candidate


def export_trial(
    store: Store,
    artifacts: Artifacts,
    study_ref: str,
    number: int,
    out: Path,
    *,
    candidate: str | None = None,
    force: bool = False,
    onnx: bool = False,
) -> Path:
    """Write a trial's network as a package: architecture, weights, preprocessing, model card.

    The folder appears whole or not at all; weights are checked against their checksum and the architecture.

    Args:
        store: Where the trial is.
        artifacts: Where its weights are.
        study_ref: Name, id or ``latest``.
        number: Of the trial.
        out: Must not exist, or be empty.
        candidate: Which of the trial's networks, as in :func:`nas.findings.candidates.choose_candidate`.
        force: Replace an earlier export.
        onnx: Also write the inference form as ONNX.

    Returns:
        ``out``.

    Raises:
        NotFoundError: If there is no such study, trial or network.
        InputError: If the trial has several networks and none is named.
        ConflictError: If the network has no weights.
        ArchitectureError: If it computes something else as ONNX.
        PackageError: If something is in the way, or the weights are damaged.
    """
    from partialnet.models.partialnet import create
    from partialnet.package import check_target, load_tensors, read_tensors, save_package

    study = store.study(study_ref)
    trial = store.trial(study.id, number)
    _, chosen = exportable(trial, study, candidate)
    assert chosen.weights is not None
    check_target(out, overwrite=force)
    model = create(chosen.architecture)
    with scratch_folder("export") as scratch:
        weights = artifacts.fetch(chosen.weights, scratch)
        load_tensors(model, read_tensors(weights), chosen.weights.uri)
        preprocessing = _preprocessing(study, weights, model.num_classes)
    card = model_card(study, trial, chosen, onnx=onnx)
    return save_package(out, model.eval(), preprocessing, readme=card, overwrite=force, onnx=onnx)


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
