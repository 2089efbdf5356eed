"""Counts of each network at the end of its trial. A new probe is a function, and an entry in :data:`PROBES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from torch import nn

from nas.metrics import Measurement
from nas.probes.flops import probe_flops

Probe = Callable[[nn.Module, tuple[int, int, int]], Sequence[Measurement]]
"""Measures a fixed network in its training form, which stays unchanged, on images [C, H, W]."""

PROBES: Mapping[str, Probe] = MappingProxyType({"flops": probe_flops})


def probe_counts(network: nn.Module, input_shape: tuple[int, int, int]) -> tuple[Measurement, ...]:
    """Return the measurements of a fixed network by all probes.

    Args:
        network: Network in the training form, which stays unchanged.
        input_shape: Shape of one image: channels, height, width.
    """
    return tuple(measured for probe in PROBES.values() for measured in probe(network, input_shape))
