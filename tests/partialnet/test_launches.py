"""How many operations a step of a search has, and that channels-last maps are not copied for it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.benchmarks.launches import KINDS, launches, network


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("partialnet_micro", (1.1, 1.7, 1.73)),
        pytest.param("partialnet_t0", (1.12, 1.75, 1.78), marks=pytest.mark.long),
    ],
)
def test_a_searched_step_has_few_more_operations_than_a_fixed_one(name: str, most: tuple[float, ...]) -> None:
    fixed, level, gates, quarter = (launches(name, 32, kind) for kind in KINDS)
    assert fixed < level < most[0] * fixed
    assert level < gates < most[1] * fixed
    assert gates <= quarter < most[2] * fixed


class MapCopies(TorchDispatchMode):
    """Counts copies of maps and of their tokens, by shape."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images
        self.found: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        copies = func._schema.name in ("aten::clone", "aten::_to_copy", "aten::copy_")
        if copies and isinstance(result, Tensor) and result.ndim in (3, 4) and len(result) == self.images:
            self.found[tuple(result.shape)] += 1
        return result


def copies(kind: str, layout: torch.memory_format) -> int:
    """Return how many maps a forward and backward in bfloat16 copies."""
    torch.manual_seed(0)
    images = 7  # of nothing else
    model = network("partialnet_micro", kind).to(memory_format=layout)
    inputs = torch.randn(images, 3, 32, 32).contiguous(memory_format=layout)
    with MapCopies(images) as counter:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(inputs)
        F.cross_entropy(outputs.float(), torch.arange(images)).backward()
    return counter.found.total()


def test_channels_last_maps_are_copied_no_more_often() -> None:
    fixed, level = (copies(kind, torch.channels_last) for kind in ("fixed", "level"))
    assert level <= fixed
    assert copies("gates", torch.channels_last) <= copies("gates", torch.contiguous_format)
