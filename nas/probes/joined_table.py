"""One latency table of a network in several shapes, such as widths and resolutions that a study sweeps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from nas.findings.milliseconds import TableCheck
from nas.probes.table import DeviceTable
from partialnet.search.latency_parts import Constant, RowKey, Timing
from partialnet.search.latency_table import LatencyTable

_Time = TypeVar("_Time", Timing, Constant)


def joined(tables: Mapping[str, DeviceTable]) -> DeviceTable:
    """Return the tables of several shapes as one, whose constants are those of the shapes; one table as it is.

    All times are those of a device on which the reference network takes as long as in the first table. The check is
    the worst of all shapes.

    Args:
        tables: Tables of one device by the shape of the network; the study's own shape is the first.
    """
    first, *others = tables.values()
    if not others:
        return first
    rows: dict[RowKey, Timing] = {}
    shapes: dict[str, Constant] = {}
    for name, device in tables.items():
        scale = first.reference_ms / device.reference_ms
        for key, timing in device.table.rows.items():
            rows.setdefault(key, _scaled(timing, scale))
        if device.table.constant is not None:
            shapes[name] = _scaled(device.table.constant, scale)
    table = LatencyTable(first.table.circumstances, rows, first.table.constant, shapes)
    faults = tuple(f"{name}: {fault}" for name, device in tables.items() for fault in device.faults)
    network = joined_hash(device.network for device in tables.values())
    return DeviceTable(first.fingerprint, network, first.title, first.reference_ms, _worst(tables), faults, table)


def joined_hash(networks: Iterable[str]) -> str:
    """Return the hash of several networks from their hashes; that of one network is its own."""
    first, *others = networks
    return hashlib.sha256("\n".join([first, *others]).encode()).hexdigest()[:16] if others else first


def _scaled(part: _Time, scale: float) -> _Time:
    return replace(part, ms=part.ms * scale, spread_ms=part.spread_ms * scale)


def _worst(tables: Mapping[str, DeviceTable]) -> TableCheck | None:
    checks = [device.check for device in tables.values() if device.check is not None]
    if len(checks) < len(tables):
        return None
    return TableCheck(
        sum(check.networks for check in checks),
        max(check.median_error for check in checks),
        max(check.largest_error for check in checks),
        min(check.rank_correlation for check in checks),
    )
