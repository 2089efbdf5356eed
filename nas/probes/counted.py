"""What is counted on every network when its trial ends. A new probe is a function, and an entry in :data:`PROBES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from torch import nn

from nas.metrics import Measurement
from nas.probes.flops import probe_flops

Probe = Callable[[nn.Module, tuple[int, int, int]], Sequence[Measurement]]
"""Measures a fixed network in its training form, which it leaves as it is, on images [C, H, W]."""

PROBES: Mapping[str, Probe] = MappingProxyType({"flops": probe_flops})


def probe_counts(network: nn.Module, input_shape: tuple[int, int, int]) -> tuple[Measurement, ...]:
    """Return what all probes measure on a fixed network.

    Args:
        network: The training form; it is not changed.
        input_shape: Channels, height, width of one image.
    """
    return tuple(measured for probe in PROBES.values() for measured in probe(network, input_shape))
