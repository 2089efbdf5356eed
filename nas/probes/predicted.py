"""Latency as a table predicts it: at the end of a trial, without a clock."""

from __future__ import annotations

from torch import nn

from nas.metrics import Measurement
from partialnet.search.latency_rows import predicted_latency
from partialnet.search.latency_table import LatencyTable


def probe_predicted(network: nn.Module, input_shape: tuple[int, int, int], table: LatencyTable) -> Measurement:
    """Return the latency that a table predicts for a fixed network; the fingerprint names the table's circumstances.

    Args:
        network: Network whose partial convolutions are fixed.
        input_shape: Channels, height, width of one image.
        table: Table with a constant.

    Raises:
        BudgetError: If the table lacks a layer of the network, or the constant.
    """
    where = table.circumstances
    resolution = "x".join(map(str, input_shape))
    settings = (f"t{where.threads}", f"b{where.batch}", resolution)
    fingerprint = "/".join(("table", where.runtime, *settings, where.device))[:255]
    value = max(0.0, predicted_latency(network, input_shape, table))
    return Measurement("predicted_ms", value, {"input_shape": list(input_shape)}, fingerprint)
