"""How many operations a training step launches: fixed network, one level, probes of every image or of a quarter.

On a GPU a step of a small network is bound by the host, which launches one kernel after another. Its number of
operations is then the measure of its time, and can be counted anywhere: all that reaches the dispatcher in forward
and backward, but for views and allocations, which launch nothing. What launches several kernels counts as many.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from partialnet import Architecture, create
from partialnet.layers.dpconv import dpconv_layers

KINDS = ("fixed", "level", "gates", "quarter")
CASES = (("partialnet_t0", 224), ("partialnet_t2", 224))
_ALLOCATIONS = ("empty", "empty_strided", "new_empty", "new_empty_strided", "empty_like", "lift_fresh", "_unsafe_view")
_KERNELS = {"constant_pad_nd": 2, "slice_backward": 2, "select_backward": 2, "split_with_sizes_copy": 2}


class LaunchCounter(TorchDispatchMode):
    """Counts operations while it is entered.

    Attributes:
        found: Name of the operation to how many kernels it launches.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if not func.is_view and name not in _ALLOCATIONS:
            self.found[name] += _KERNELS.get(name, 1)
        return func(*args, **(kwargs or {}))


def network(name: str, kind: str) -> nn.Module:
    """Return a network of 10 classes in training mode, its layers set up for steps of ``kind``."""
    model = create(Architecture(name, {"num_classes": 10}), searchable=kind != "fixed").train()
    for layer in dpconv_layers(model).values() if kind != "fixed" else ():
        layer.set_level(layer.level)
        layer.probing = kind != "level"
        layer.probe_fraction = 0.25 if kind == "quarter" else 1.0
    return model


def operations(name: str, size: int, kind: str, images: int = 4) -> Counter[str]:
    """Return what a forward and backward of ``kind`` launches, by operation; in bfloat16 and channels last."""
    torch.manual_seed(0)
    model = network(name, kind).to(memory_format=torch.channels_last)
    inputs, targets = torch.randn(images, 3, size, size), torch.randint(10, (images,))
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    layers = list(dpconv_layers(model).values()) if kind in ("gates", "quarter") else []
    pairs = torch.zeros(len(layers), 2, requires_grad=True)
    for layer, pair in zip(layers, pairs.unbind(), strict=True):
        layer.probe_target = pair
    with LaunchCounter() as counter:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(inputs)
        F.cross_entropy(outputs.float(), targets).backward()
    return counter.found


def launches(name: str, size: int, kind: str) -> int:
    """Return how many kernels a forward and backward launches.

    Args:
        name: Of the model.
        size: Of the images, in pixels.
        kind: One of ``KINDS``: the fixed network; a searchable one at its levels; with probes of all images, or of a
            quarter of them.
    """
    return operations(name, size, kind).total()


def main() -> None:
    """Print the numbers of both networks, and their ratio to the fixed network's."""
    for name, size in CASES:
        found = {kind: launches(name, size, kind) for kind in KINDS}
        print(name, *(f"{kind} {count} ({count / found['fixed']:.3f})" for kind, count in found.items()), sep="  ")


if __name__ == "__main__":
    main()
