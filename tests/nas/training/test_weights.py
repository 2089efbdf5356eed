"""The same weights give the same file."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from nas.training.weights import save_weights

STATE = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2]), "é": torch.ones((), dtype=torch.float16)}
METADATA = {"classes": '["ä", "\\n"]', "architecture": "{}", "more": "x", "and": "y"}


def test_the_file_holds_what_was_given(tmp_path: Path) -> None:
    save_weights(STATE, tmp_path / "w.safetensors", METADATA)
    found = load_file(tmp_path / "w.safetensors")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in STATE.items())
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata() == METADATA


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    for turn in range(20):  # safetensors itself: 2 to 24 different files
        state = dict(reversed(STATE.items())) if turn % 2 else STATE
        metadata = dict(reversed(METADATA.items())) if turn % 2 else METADATA
        save_weights(state, tmp_path / str(turn), metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_the_umask_decides_who_reads(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_weights(STATE, tmp_path / "w", METADATA)
    finally:
        os.umask(before)
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o640
