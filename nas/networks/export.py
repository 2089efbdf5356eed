"""Export of a trial's network as a folder that needs neither the study nor the database."""

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
from partialnet.data.catalog import DATASETS, sight

if TYPE_CHECKING:
    from nas.artifacts import Artifacts
    from nas.store import Store
    from partialnet.package import Preprocessing


def exportable(trial: Trial, study: Study, wanted: str | None = None) -> tuple[int, Candidate]:
    """Return the index and the network to export, which has weights.

    Args:
        trial: Trial of the network.
        study: Study of the trial.
        wanted: Name of the network, as in :func:`nas.findings.candidates.choose_candidate`.

    Raises:
        ConflictError: If no network has weights; the message says why and what to do.
        InputError: If ``wanted`` leaves several networks to choose from.
        NotFoundError: If the trial has no such network.
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

    The folder appears whole or not at all. The weights must match their checksum and the architecture.

    Args:
        store: Store of the trial.
        artifacts: Storage of its weights.
        study_ref: Name or id of the study, or ``latest``.
        number: Number of the trial.
        out: Folder to write, which is missing or empty.
        candidate: Name of the network within the trial, as in :func:`nas.findings.candidates.choose_candidate`.
        force: Whether an earlier export is replaced.
        onnx: Whether the inference form is also written as ONNX.

    Returns:
        The folder ``out``.

    Raises:
        NotFoundError: If there is no such study, trial or network.
        InputError: If the trial has several networks and none is named.
        ConflictError: If the network has no weights.
        ArchitectureError: If the ONNX form computes other outputs.
        PackageError: If ``out`` is not free, or the weights are damaged.
    """
    from partialnet.networks import create, output_count
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
        preprocessing = _preprocessing(study, weights, output_count(model))
    card = model_card(study, trial, chosen, onnx=onnx)
    return save_package(out, model.eval(), preprocessing, readme=card, overwrite=force, onnx=onnx)


def _preprocessing(study: Study, weights: Path, classes: int) -> Preprocessing:
    from safetensors import safe_open

    from partialnet.package import Preprocessing

    with safe_open(weights, framework="pt") as opened:
        metadata = opened.metadata() or {}
    # Class names travel with the weights: at the time of an export the data set itself may be gone, or elsewhere.
    names = json.loads(metadata["class_names"]) if "class_names" in metadata else [str(k) for k in range(classes)]
    facts = DATASETS[study.definition.data.name]
    data, training = study.definition.data, study.definition.training
    seen = sight(data.name, data.size, training.test_crop, training.interpolation)
    return Preprocessing(data.name, tuple(names), data.input_shape, facts.mean, facts.std, *seen)
