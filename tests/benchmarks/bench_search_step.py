"""Cost of the steps of a search over a step of the fixed network at the same levels: forward and backward, one thread.

Bound, in multiply-adds of a block without attention at ratio r = n/C, in units of k^2 H W C^2: its convolution costs
3 r^2 (forward, input gradient, weight gradient), its MLP 12 / k^2. A probe of growth takes the weight gradient on the
grown block, 4 r^2 for r^2, and so 3 r^2 f more if a share f of the images is probed; a probe of removal takes none. At
r = 1/4, k = 3 that is 1.12 times the block for f = 1 and 1.03 for f = 1/4. In bytes: with P = B H W the pixels, a
probe reads x and G once more on at most C channels (2 C P), where the block's forward and backward move about 40 C P
(MLP of twice the width, normalisation, activation, shortcut): 1.05. Channel attention adds one pass over n/2 channels
for their statistics and (C - n/2)^2 multiply-adds a level and image; self-attention adds f forwards at either
neighbour, 2 f / 3 of its own step.

A sandwich is the largest (r = 1/2), the smallest and two random networks: in multiply-adds of blocks 1.37 + 0.88 +
2 x 1.01 = 4.26 steps of the network at r = 1/4, if five levels are equally likely. Where each of the random networks
sees one half of the images, 3.26.

Times are of the process, not of the wall, so that other programs disturb them less.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet import Architecture, create
from partialnet.layers.dpconv import DPConv2d, dpconv_layers
from partialnet.search.supernet import soft_cross_entropy
from tests.benchmarks.timing import interleave, machine, table

CASES = (("partialnet_micro", 32, 128), ("partialnet_t0", 32, 128), ("partialnet_t0", 224, 16))
BASELINE = "fixed, ratio 1/4"
LOWER = 0.85  # share of the lower level among the draws of a fractional level, at its bound


class Searching:
    """The steps of a search on one network and one batch.

    Args:
        name: Name of the model.
        images: Images [B, 3, H, W].
        targets: Classes [B].
    """

    def __init__(self, name: str, images: Tensor, targets: Tensor) -> None:
        self.network = create(Architecture(name, {"num_classes": 10}), searchable=True).train()
        self.layers: list[DPConv2d] = list(dpconv_layers(self.network).values())
        self.start = [layer.level for layer in self.layers]
        self.images = images
        self.targets = targets
        self._random = random.Random(0)

    def run(self, levels: Sequence[int], teacher: Tensor | None = None, part: slice = slice(None)) -> Tensor:
        """Accumulate the gradients of a network on a part of the images; return its outputs."""
        for layer, level in zip(self.layers, levels, strict=True):
            layer.set_level(level)
        outputs = self.network(self.images[part])
        targets = self.targets[part]
        loss = F.cross_entropy(outputs, targets) if teacher is None else soft_cross_entropy(outputs, teacher[part])
        loss.backward()
        return outputs.detach()

    def plain(self) -> None:
        """Take a step at the levels of the start, without probes."""
        self.network.zero_grad(set_to_none=True)
        for layer in self.layers:
            layer.probing = False
        self.run(self.start)

    def probed(self, fraction: float, sides: Callable[[], tuple[bool, bool]]) -> None:
        """Take a step at the levels of the start; ``sides`` tells for a layer whether D- and D+ are wanted."""
        self.network.zero_grad(set_to_none=True)
        for layer in self.layers:
            layer.probing, layer.probe_fraction = True, fraction
            layer.probe_target = torch.zeros(2, requires_grad=True)
            layer.probe_removal, layer.probe_growth = sides()
        self.run(self.start)

    def fractional(self, fraction: float) -> None:
        """Take a step that probes one side of every layer: growth at a lower draw, removal at an upper one."""

        def side() -> tuple[bool, bool]:
            lower = self._random.random() < LOWER
            return not lower, lower

        self.probed(fraction, side)

    def sandwich(self, *, halved: bool = False) -> None:
        """Take a sandwich step; if ``halved``, each of the two random networks has one half of the images."""
        self.network.zero_grad(set_to_none=True)
        for layer in self.layers:
            layer.probing = False
        teacher = self.run([len(layer.levels) - 2 for layer in self.layers])
        self.run([0] * len(self.layers), teacher)
        half = len(self.images) // 2
        for part in (slice(half), slice(half, None)):
            drawn = [self._random.randrange(len(layer.levels) - 1) for layer in self.layers]
            self.run(drawn, teacher, part if halved else slice(None))


def fixed_step(network: nn.Module, images: Tensor, targets: Tensor) -> Callable[[], None]:
    """Return a function that does one forward and backward."""
    network.train()

    def step() -> None:
        network.zero_grad(set_to_none=True)
        F.cross_entropy(network(images), targets).backward()

    return step


def contenders(name: str, images: Tensor, targets: Tensor) -> dict[str, Callable[[], None]]:
    """Return the steps that are compared."""
    search = Searching(name, images, targets)

    def both() -> tuple[bool, bool]:
        return True, True

    return {
        BASELINE: fixed_step(create(Architecture(name, {"num_classes": 10})), images, targets),
        "levels set": search.plain,
        "gates, all images probed": lambda: search.probed(1.0, both),
        "gates, a quarter probed": lambda: search.probed(0.25, both),
        "fractional, all images probed": lambda: search.fractional(1.0),
        "fractional, a quarter probed": lambda: search.fractional(0.25),
        "sandwich, r <= 1/2": search.sandwich,
        "sandwich, a half each": lambda: search.sandwich(halved=True),
    }


def main(rounds: int = 15) -> None:
    """Print one table for each network and image size."""
    torch.set_num_threads(1)
    print(machine())
    for name, size, batch in CASES:
        torch.manual_seed(0)
        images, targets = torch.randn(batch, 3, size, size), torch.randint(10, (batch,))
        timings = interleave(contenders(name, images, targets), rounds=rounds, clock=time.process_time)
        print(f"\n{name}, {size}x{size}, batch {batch}: forward and backward")
        print(table(timings, BASELINE), flush=True)


if __name__ == "__main__":
    main()
