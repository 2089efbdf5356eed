"""Export of a trial's network as a folder that needs neither the study nor the database."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
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
    from torch import nn

    from nas.artifacts import Artifacts
    from nas.definition.sections import DataSpec, LatencySpec
    from nas.store import Store
    from partialnet.package import Int8Form, Preprocessing


MAX_DROP = 1.0
"""Usual largest fall of top-1 by an 8-bit form, in points."""


@dataclass(frozen=True)
class Int8Wish:
    """The wish for an 8-bit form.

    Args:
        max_drop: Largest fall of top-1 on validation images, as a fraction.
        data_roots: Folders to search for the data set.
        seed: Seed of the division into training and validation images, which is that of the network's training.
        tell: Function that receives a sentence about each step.
    """

    max_drop: float
    data_roots: tuple[Path, ...]
    seed: int = 0
    tell: Callable[[str], None] = lambda _text: None


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
    program: bool = False,
    int8: Int8Wish | None = None,
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
        program: Whether it is also written as a program of ``torch.export``.
        int8: Wish for the 8-bit form as well; None for none.

    Returns:
        The folder ``out``.

    Raises:
        NotFoundError: If there is no such study, trial or network.
        InputError: If the trial has several networks and none is named.
        ConflictError: If the network has no weights, or its 8-bit form loses too much.
        ArchitectureError: If the ONNX form or the program computes other outputs.
        PackageError: If ``out`` is not free, or the weights are damaged.
        DataError: If the data set for the 8-bit form is missing or damaged.
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
        form, section = None, ""
        if int8 is not None:
            known = study.definition
            wish = replace(int8, seed=known.sweep.seed)
            form, section = _int8(model.eval(), preprocessing, known.data, known.latency, wish, scratch)
        card = model_card(study, trial, chosen, onnx=onnx, program=program, int8=section)
        return save_package(
            out, model.eval(), preprocessing, readme=card, overwrite=force, onnx=onnx, program=program, int8=form
        )


def export_package(
    package: Path,
    out: Path,
    data: DataSpec | None,
    *,
    force: bool = False,
    onnx: bool = False,
    program: bool = False,
    int8: Int8Wish | None = None,
) -> Path:
    """Write a package anew with its ONNX form, its 8-bit form, or both.

    Args:
        package: Folder of the package, such as one that ``nas train`` wrote.
        out: Folder to write, which is missing or empty.
        data: Data set for the 8-bit form; None without one.
        force: Whether an earlier export is replaced.
        onnx: Whether the inference form is written as ONNX.
        program: Whether it is written as a program of ``torch.export``.
        int8: Wish for the 8-bit form; None for none.

    Returns:
        The folder ``out``.

    Raises:
        ConflictError: If the 8-bit form loses too much.
        InputError: If the data are not those of the network.
        ArchitectureError: If the ONNX form or the program computes other outputs.
        PackageError: If ``out`` is not free, or the package is damaged.
        DataError: If the data set is missing or damaged.
    """
    from nas.networks.int8 import with_section
    from partialnet.package import README, check_target, load_package, save_package

    check_target(out, overwrite=force)
    loaded = load_package(package)
    card_file, seen = package / README, loaded.preprocessing
    card = card_file.read_text(encoding="utf-8") if card_file.is_file() else ""
    form, section = None, ""
    with scratch_folder("export") as scratch:
        if int8 is not None:
            assert data is not None
            form, section = _int8(loaded.model, seen, data, None, int8, scratch)
        card = with_section(card, section)
        return save_package(
            out, loaded.model, seen, readme=card, overwrite=force, onnx=onnx, program=program, int8=form
        )


def _int8(
    network: nn.Module,
    preprocessing: Preprocessing,
    data: DataSpec,
    latency: LatencySpec | None,
    wish: Int8Wish,
    scratch: Path,
) -> tuple[Int8Form, str]:
    """Return the 8-bit form of a network, and the section of the model card about it."""
    from nas.networks.int8 import Int8Request, int8_section, quantized
    from partialnet.data import load

    splits = load(
        data.name,
        wish.data_roots,
        seed=wish.seed,
        validation_fraction=data.validation_fraction,
        train_limit=data.train_limit,
        image_size=data.image_size,
        folder=data.folder,
        crop=preprocessing.crop,
        interpolation="bicubic" if preprocessing.interpolation == "bicubic" else "bilinear",
        skip_broken=data.skip_broken,
    )
    form = quantized(network, preprocessing, Int8Request(splits, wish.max_drop, latency, wish.tell), scratch)
    return form, int8_section(form.report)


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
