"""A search in several processes that share each batch makes the decisions of one process."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from partialnet.errors import DataError
from partialnet.layers.dpconv import DPConv2d
from partialnet.search.batches import BatchStream
from partialnet.search.sharing import Sharing
from partialnet.train import Recipe
from partialnet.train.processes import Processes
from tests.partialnet.several import together

from .search_runs import random_batches, search

pytestmark = pytest.mark.forks

RECIPES = {
    statistics: Recipe(optimizer="sgd", learning_rate=0.05, statistics=statistics)  # type: ignore[arg-type]
    for statistics in ("synchronized", "reduced")
}


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), DPConv2d(32), nn.BatchNorm2d(32), nn.ReLU(),
        DPConv2d(32, rest="channel_attention"), nn.BatchNorm2d(32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip


def part_of(batches: list[tuple[Tensor, Tensor]], processes: Processes) -> list[tuple[Tensor, Tensor]]:
    """Return this process's part of each batch in float64, as unequal as a last batch can be: 5 and 4 images of 9."""
    parts = []
    for inputs, targets in batches:
        ends = [round(len(targets) * (index + 0.1) / processes.count) for index in range(processes.count + 1)]
        place = slice(0 if processes.index == 0 else ends[processes.index], ends[processes.index + 1])
        parts.append((inputs[place].double(), targets[place]) if processes.several else (inputs.double(), targets))
    return parts


def decisions(method: str, statistics: str = "synchronized") -> dict[str, Any]:
    """Return what a search of this process decides at each step, and its network. Its first weights are its own."""
    processes = Processes.current()
    options: dict[str, Any] = {"batches": part_of(random_batches(3, 9), processes), "recipe": RECIPES[statistics]}
    if method == "supernet":
        options["validation"] = part_of(random_batches(2, 7, seed=1), processes)
    else:
        options["gate_learning_rate"] = 0.5  # so that gates and levels move within a few steps
    model = network(processes.index).double()
    result = search(model, method=method, **options)
    return {
        "levels": [record.active_channels for record in result.history],
        "losses": [record.loss for record in result.history],
        "result": result.active_channels,
        "state": {name: value.clone() for name, value in model.state_dict().items()},
    }


def decisions_of(methods: tuple[str, ...]) -> list[dict[str, Any]]:
    return [decisions(method) for method in methods]


@pytest.mark.parametrize("methods", [("gates", "supernet"), pytest.param(("fractional",), marks=pytest.mark.long)])
def test_two_processes_decide_like_one(tmp_path: Path, methods: tuple[str, ...]) -> None:
    """In float64 only the order of sums differs; the outputs of a supernet's teacher are float32."""
    found = together(tmp_path / "run", partial(decisions_of, methods))
    for alone, *each in zip(decisions_of(methods), *found, strict=True):
        for both in each:
            assert both["levels"] == alone["levels"]
            assert both["result"] == alone["result"]
            assert both["losses"] == pytest.approx(alone["losses"], rel=1e-6)
            for name, value in alone["state"].items():
                torch.testing.assert_close(both["state"][name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_reduced_statistics_leave_the_processes_equal(tmp_path: Path) -> None:
    one, other = together(tmp_path / "run", partial(decisions, "gates", "reduced"))
    assert (one["levels"], one["losses"]) == (other["levels"], other["losses"])
    assert all(torch.equal(value, other["state"][name]) for name, value in one["state"].items())


def taken() -> list[int]:
    """Return the sizes of six batches of this process; the first one has a pass of 4, 4 and 1, the other 4, 4 and 0."""
    processes = Processes.current()
    sizes = (4, 4, 1) if processes.first else (4, 4)
    batches = [(torch.zeros(size, 3, 6, 6), torch.zeros(size, dtype=torch.long)) for size in sizes]
    model = network(0)
    stream = BatchStream(
        batches, 0, lambda inputs: len(inputs) == 1, divide=Sharing(model, Recipe(), torch.device("cpu")).divide,
        index=processes.index,
    )  # fmt: skip
    return [len(stream.take(step)[1]) for step in range(6)]


def test_a_batch_that_not_all_share_is_left_out_by_all(tmp_path: Path) -> None:
    assert together(tmp_path / "run", taken) == [[4] * 6] * 2


def test_a_process_without_any_batch_ends_the_search_in_all() -> None:
    with pytest.raises(DataError, match="yields nothing"):
        BatchStream([], 0, divide=lambda images: (images, 3)).take(0)
