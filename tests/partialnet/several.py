"""Several processes of one training or search, inside a test."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from partialnet.train.launching import RENDEZVOUS
from partialnet.train.processes import joined


def _child(index: int, count: int, folder: Path, action: Callable[[], Any]) -> None:
    os.environ |= {"RANK": str(index), "WORLD_SIZE": str(count), RENDEZVOUS: f"file://{folder}/meet"}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with joined(torch.device("cpu")):
        torch.save(action(), folder / f"{index}.pt")


def together(folder: Path, action: Callable[[], Any], count: int = 2) -> list[Any]:
    """Return what each of several processes returns; they are forked, because starting Python takes seconds."""
    folder.mkdir()
    children = [
        multiprocessing.get_context("fork").Process(target=_child, args=(index, count, folder, action))
        for index in range(count)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * count
    return [torch.load(folder / f"{index}.pt", weights_only=False) for index in range(count)]
