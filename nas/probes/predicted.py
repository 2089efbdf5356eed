"""Latency as a table predicts it: at the end of a trial, without a clock."""

from __future__ import annotations

from dataclasses import asdict

from torch import nn

from nas.definition.milliseconds import PREDICTED
from nas.findings.milliseconds import predicted_fingerprint
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
    fingerprint = predicted_fingerprint(asdict(table.circumstances), input_shape)
    value = max(0.0, predicted_latency(network, input_shape, table))
    return Measurement(PREDICTED, value, {"input_shape": list(input_shape)}, fingerprint)
