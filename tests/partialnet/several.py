"""Several processes of one training or search, inside a test."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
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


def fork_server() -> ForkServerContext:
    """Return what starts processes as forks of one that only loads modules; tests that use it are marked ``forks``.

    Starting Python takes seconds, and a fork of this process could not compute gradients after some of its tests.
    All its processes have ``TRITON_INTERPRET=1``, which counts when Triton is first imported.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([
        "tests.partialnet.interpreting",
        "tests.without_collections",
        __name__,
        "pytest",
        "partialnet.models.partialnet",
        "tests.partialnet.search_runs",
        "tests.with_collections",
    ])  # fmt: skip
    return server


def together(folder: Path, action: Callable[[], Any], count: int = 2) -> list[Any]:
    """Return what each of several processes of :func:`fork_server` returns.

    Args:
        folder: New folder for what they exchange.
        action: Function of a module, or a ``partial`` of one.
        count: Number of processes.
    """
    folder.mkdir()
    server = fork_server()
    children = [server.Process(target=_child, args=(index, count, folder, action)) for index in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * count
    return [torch.load(folder / f"{index}.pt", weights_only=False) for index in range(count)]
