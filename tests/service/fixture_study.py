"""A study as a search leaves it, written through the real store: 12 search trials and 3 baselines, made-up figures."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

from nas.artifacts import Artifacts
from nas.candidate import Artifact, Candidate, Split
from nas.definition.study import StudyDefinition, parse_study
from nas.jobs import JobKind
from nas.metrics import Evaluation, EvaluationKind, Measurement
from nas.store import Store
from nas.study import Study, StudyState
from nas.trial import EpochRecord, TrialKind, TrialSpec, TrialState
from partialnet.architecture import Architecture

LAYERS = (  # name, stage, block, width, height and width of the map
    ("stages.0.blocks.0.mixer", 0, 0, 16, 8),
    ("stages.1.blocks.0.mixer", 1, 0, 32, 4),
    ("stages.2.blocks.0.mixer", 2, 0, 64, 4),
    ("stages.2.blocks.1.mixer", 2, 1, 64, 4),
    ("stages.3.blocks.0.mixer", 3, 0, 128, 4),
)
OPTIONS = {"patch_size": 1, "merge_strides": [2, 1, 1], "num_classes": 10, "in_chans": 1}
FINISHED, RUNNING = "digits-fixture", "running"
"""Names of the two studies."""
FAILED, UNKEPT = 11, 10
"""Numbers of a failed trial, and of one whose weights were not kept."""
REPORT = (
    "Learned ratios beat uniform ones at equal cost: at 1.31 M multiply-adds they reach 95.1 %, uniform 1/4 93.0 %.",
    "The front has 5 networks.",
)


def definition(name: str = FINISHED, **changes: object) -> StudyDefinition:
    """Return a small valid definition."""
    data: dict[str, object] = {
        "name": name,
        "question": "Do learned ratios beat uniform ones <b>at equal cost</b>?",
        "data": {"name": "digits"},
        "model": {"name": "micro", "patch_size": 1, "merge_strides": [2, 1, 1]},
        "training": {"epochs": 4, "finetune_epochs": 2},
        "sweep": {"trials": 12},
        "baselines": ["1/2", "1/4", "1/8"],
        "final": {"candidates": 0},
    }
    return parse_study(data | changes)


def widths(number: int, ratio: float | None = None) -> dict[str, int]:
    """Return the active channels of trial ``number``: different for each, or uniform."""
    if ratio is not None:
        return {layer: round(channels * ratio) for layer, _, _, channels, _ in LAYERS}
    return {
        layer: max(1, channels * (1 + (3 * number + 5 * index) % 13) // 16)
        for index, (layer, _, _, channels, _) in enumerate(LAYERS)
    }


def candidate(number: int, active: dict[str, int], *, weights: Artifact | None, latency: bool) -> Candidate:
    """Return a candidate whose cost grows with its widths, and whose top-1 grows with the cost."""
    splits = tuple(
        Split(layer, index, channels, active[layer], 9 * size * size * active[layer] ** 2, stage, block)
        for index, (layer, stage, block, channels, size) in enumerate(LAYERS)
    )
    conv = sum(split.macs for split in splits)
    top1 = 0.97 - 0.06 * (1e5 / (conv + 1e5)) - 0.012 * ((number * 7) % 5) / 5
    measurements = [
        Measurement("params", 120_000.0 + conv / 10),
        Measurement("params_inference", 110_000.0 + conv / 10),
        Measurement("macs", 1_000_000.0 + conv, {"uncounted": {"aten::gelu": 12, "aten::softmax": 1}}),
        Measurement("conv_macs", float(conv)),
        Measurement("activations", 51_200.0),
    ]
    if latency:
        figures = {
            "n": 50, "warmup": 10, "median": 1.21 + conv / 4e6, "p90": 1.4, "interval": [1.19, 1.24], "device": "cpu",
            "threads": 1, "batch": 1, "resolution": [1, 8, 8], "runtime": "torch 2.14.1",
        }  # fmt: skip
        measurements.append(Measurement("latency_ms", figures["median"], figures, "cpu-1-1-torch"))
    return Candidate(
        architecture=Architecture("partialnet_micro", OPTIONS, active),
        splits=splits,
        evaluations=(
            Evaluation(EvaluationKind.INHERITED, "top1", top1 - 0.08, epochs=4, seed=number),
            Evaluation(EvaluationKind.FINETUNED, "top1", top1, epochs=6, seed=number),
            Evaluation(EvaluationKind.FINETUNED, "top5", min(1.0, top1 + 0.025), epochs=6, seed=number),
        ),
        measurements=tuple(measurements),
        weights=weights,
        within_budget=number != 5,
        note="target 4 needs 1.2 M, the nearest reachable cost is 1.1 M" if number == 5 else None,
    )


def epochs(active: dict[str, int], count: int = 6) -> list[EpochRecord]:
    """Return the history of a training."""
    phases = ("warmup", "uniform", "gates", "gates", "finetune", "finetune")
    return [
        EpochRecord(
            epoch,
            phases[epoch - 1],
            {
                "loss": 2.4 / epoch,
                "task_loss": 2.2 / epoch,
                "order_loss": 0.1 / epoch,
                "top1": 1 - 0.9 / (epoch + 1),
                "cost": 3e5 + 2e5 / epoch,
                "target": 3e5,
                "learning_rate": 1e-3,
                "images_per_second": 812.5,
            },
            active,
        )
        for epoch in range(1, count + 1)
    ]


def run_trial(store: Store, study: Study, spec: TrialSpec) -> None:
    """Start a trial, report its epochs and end it, as a search does."""
    store.start_trial(study.id, spec.number)
    ratio = spec.parameters.get("ratio")
    active = widths(spec.number, None if ratio is None else float(ratio))
    for record in epochs(active):
        store.record_epoch(study.id, spec.number, record)
    if spec.number == FAILED:
        store.end_trial(study.id, spec.number, TrialState.FAILED, reason="the training diverged: loss is nan at step 7")
        return
    sha256 = hashlib.sha256(str(spec.number).encode()).hexdigest()
    weights = Artifact(f"studies/{study.id}/{spec.number}/model.safetensors", sha256, 1000, "weights")
    kept = None if spec.number == UNKEPT else weights
    network = candidate(spec.number, active, weights=kept, latency=spec.number % 2 == 0)
    store.end_trial(study.id, spec.number, TrialState.COMPLETE, candidates=[network])


def parameters(index: int) -> dict[str, float]:
    """Return what a sweep could have sampled."""
    return {"target": 2.0 + 0.4 * index, "complexity_exponent": 0.1 * (index + 1), "penalty": 0.9}


def finished_study(store: Store, name: str = FINISHED) -> Study:
    """Fill a study and finish it."""
    study, job = store.submit_study(definition(name), {"top1": 0.0, "macs": 12e6})
    specs = store.add_trials(
        study.id,
        [(TrialKind.SEARCH, parameters(index)) for index in range(12)]
        + [(TrialKind.BASELINE, {"ratio": ratio}) for ratio in study.definition.baselines],
    )
    leased = store.lease_job("fixture", seconds=600)
    assert leased is not None
    assert leased.id == job.id
    store.set_study_state(study.id, StudyState.RUNNING)
    for spec in specs:
        run_trial(store, study, spec)
    store.set_study_state(study.id, StudyState.FINISHED, report=REPORT)
    store.finish_job(leased.id, leased.epoch, type(leased.state).FINISHED)
    return store.study(study.id)


def running_study(store: Store, name: str = RUNNING) -> Study:
    """Start a study: two trials ended, one running, the rest queued; its search is leased."""
    study, _ = store.submit_study(definition(name), {"top1": 0.0})
    specs = store.add_trials(study.id, [(TrialKind.SEARCH, parameters(index)) for index in range(12)])
    # Longer than all tests take: the file is filled once, and who leases next would be given what has expired.
    assert store.lease_job("fixture", seconds=86_400) is not None
    store.set_study_state(study.id, StudyState.RUNNING)
    for spec in specs[:2]:
        run_trial(store, study, spec)
    store.start_trial(study.id, 2)
    store.record_epoch(study.id, 2, epochs(widths(2))[0])
    return store.study(study.id)


def finish_export(store: Store, artifacts: Artifacts, folder: Path, **found: Any) -> bytes:
    """Do an export as a worker would, with a small zip, and more in its result; return the zip's bytes."""
    job = store.lease_job("fixture", kinds=[JobKind.EXPORT], seconds=600)
    assert job is not None
    path = folder / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("network/architecture.json", "{}")
    artifact = artifacts.put(path, f"exports/{job.id}.zip", "export")
    result = {"uri": artifact.uri, "sha256": artifact.sha256, "size": artifact.size, **found}
    store.finish_job(job.id, job.epoch, type(job.state).FINISHED, result=result)
    return path.read_bytes()
