"""The files of a training whose storage is elsewhere: what ran on a cluster continues without one, and back."""

from __future__ import annotations

from pathlib import Path

from nas.artifacts import Artifacts
from nas.training.files import Elsewhere, stored_checkpoints, working_folder
from nas.trainings import Training, TrainingSource

TRAINING = Training(
    "0" * 36, TrainingSource(package="mine"), {}, recipe="default", data="digits", model=None, seed=0, epochs=3
)


def name(epoch: int, step: int = 0) -> str:
    return f"epoch-{epoch:05d}-step-{step:07d}-0123456789abcdef.pt"


def stored(artifacts: Artifacts, scratch: Path, *uris: str) -> None:
    for uri in uris:
        (scratch / "file").write_text(uri)
        artifacts.put(scratch / "file", f"{TRAINING.folder}/{uri}", "checkpoint")


def test_the_newest_checkpoint_of_a_cluster_is_fetched_beside_the_own_ones(tmp_path: Path) -> None:
    artifacts = Artifacts("memory://of-a-cluster")
    newest = f"ray/ray/checkpoint_2/checkpoints/{name(2, 5)}"
    stored(artifacts, tmp_path, f"checkpoints/{name(1)}", f"ray/ray/checkpoint_1/checkpoints/{name(2)}", newest)
    assert [entry.name for entry in stored_checkpoints(artifacts, TRAINING)] == [name(2, 5), name(2), name(1)]
    with working_folder(artifacts, TRAINING) as files:
        there = files.folder / "checkpoints"
        assert {path.name for path in there.iterdir()} == {name(1), name(2, 5)}
        assert (there / name(2, 5)).read_text() == newest
        files.store()
    assert name(2, 5) in artifacts.names(f"{TRAINING.folder}/checkpoints")


def test_processes_of_a_cluster_fetch_the_newest_own_checkpoint_and_the_first_weights(tmp_path: Path) -> None:
    artifacts = Artifacts("memory://before-a-cluster")
    best = "checkpoints/best-0123456789abcdef.pt"
    stored(artifacts, tmp_path, f"checkpoints/{name(1)}", f"checkpoints/{name(1, 7)}", best)
    (tmp_path / "w").write_text("weights")
    weights = artifacts.put(tmp_path / "w", "studies/w.safetensors", "weights")
    found = Elsewhere("memory://before-a-cluster", TRAINING.folder, weights).fetch(tmp_path)
    assert found is not None
    assert found.read_text() == "weights"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [name(1, 7)]
