"""Cost of a gate-training step over a fixed-ratio step at the same levels.

Bound, in convolution multiply-adds at ratio r = n/C of a layer (unit k^2 H W): a fixed step costs 3 n^2 (forward,
input gradient, weight gradient); the probe of the next level adds one forward of 4 n^2, so 7/3 of the convolution,
which is an eighth of a block at r = 1/4: 1.16 times the block without attention. With attention the whole branch is
evaluated at both neighbouring levels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from partialnet import Architecture, create
from partialnet.layers.dpconv import dpconv_layers
from tests.benchmarks.timing import interleave, machine, table

CASES = (("partialnet_micro", 32, 128), ("partialnet_t0", 32, 128), ("partialnet_t0", 224, 16))


def stepper(network: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> Callable[[], None]:
    """Return a function that does one forward and backward."""
    network.train()

    def step() -> None:
        network.zero_grad(set_to_none=True)
        F.cross_entropy(network(images), targets).backward()

    return step


def searching(name: str, probing: bool) -> nn.Module:
    """Return a searchable network at ratio 1/4, with or without the probes of the neighbouring levels."""
    network = create(Architecture(name, {"num_classes": 10}), searchable=True)
    for layer in dpconv_layers(network).values():
        layer.probing = probing
    return network


def main(rounds: int = 15) -> None:
    """Print one table for each network and image size."""
    torch.set_num_threads(1)
    print(machine())
    for name, size, batch in CASES:
        torch.manual_seed(0)
        images, targets = torch.randn(batch, 3, size, size), torch.randint(10, (batch,))
        networks = {
            "fixed, ratio 1/4": create(Architecture(name, {"num_classes": 10})),
            "DPConv, level set": searching(name, probing=False),
            "DPConv, gates probed": searching(name, probing=True),
        }
        steps = {label: stepper(network, images, targets) for label, network in networks.items()}
        print(f"\n{name}, {size}x{size}, batch {batch}: forward and backward")
        print(table(interleave(steps, rounds=rounds), "fixed, ratio 1/4"), flush=True)


if __name__ == "__main__":
    main()
