"""Measured milliseconds of layers by their shape, for a budget in latency. Loads no torch.

The model is additive: the time of a network is a constant plus the times of its layers, one for each call of a layer.
The constant covers everything that no split changes, and is fitted to whole networks of one kind
(:meth:`LatencyTable.fitted`). It belongs to that kind of network and input, while the rows serve all networks with
layers of their shapes. Times are kept as measured: latency need not fall with n, and is almost flat below a sixteenth
of the width.

A file is one JSON object::

    {"schema": 1,
     "circumstances": {"device": ..., "threads": 1, "dtype": "float32", "layout": "contiguous", "batch": 1,
                       "runtime": "torch 2.14"},
     "rows": [{"height": 14, "width": 14, "channels": 128, "active_channels": 32, "kernel_size": 3,
               "rest": "channel_attention", "heads": 0, "ms": 0.087, "repetitions": 30, "spread_ms": 0.004}, ...],
     "constant": {"network": "partialnet_t0 3x224x224", "ms": 3.1, "repetitions": 50, "spread_ms": 0.2}}

If MLPs or blocks are searched, MLPs have rows as well, which include the shortcuts of their blocks. An absent block
then costs nothing. Such a file has schema 2 and a further list::

    "mlps": [{"height": 14, "width": 14, "channels": 128, "hidden_channels": 256, "form": "GELU", "ms": 0.21, ...}]

If the attention of layers leaves channels out, these have a third list, and the file has schema 3::

    "three_parts": [{"height": 14, ..., "active_channels": 32, "attended_channels": 64, "kernel_size": 3, ...}]

A table of a network in several shapes has a constant for each shape, and the file has schema 4::

    "shapes": {"width 16": {"network": "partialnet_micro 3x32x32", "ms": 3.1, ...}, ...}
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from partialnet.errors import BudgetError
from partialnet.json_text import read_json, write_json
from partialnet.search.latency_parts import (
    Circumstances,
    Constant,
    LayerKey,
    MlpKey,
    RowKey,
    ThreePartKey,
    Timing,
    check_number,
)

_LISTS: Mapping[str, type[RowKey]] = MappingProxyType({"rows": LayerKey, "mlps": MlpKey, "three_parts": ThreePartKey})
"""Kinds of rows by their list in a file; those of schema n are the first n."""
_SHAPED = len(_LISTS) + 1
"""Schema of a table of several shapes."""

_Part = TypeVar("_Part")


@dataclass(frozen=True)
class LatencyTable:
    """Times of layers by shape and level under one set of circumstances.

    Args:
        circumstances: Circumstances that all times share.
        rows: Times of calls: of partial convolutions in two or three parts, and of MLPs if blocks differ in them.
        constant: Constant of the kind of network whose total is predicted; None suffices for scope ``conv``.
        shapes: Constants by the shape of the network (``latency_rows.shape_of``), if the table serves several.
    """

    circumstances: Circumstances
    rows: Mapping[RowKey, Timing]
    constant: Constant | None = None
    shapes: Mapping[str, Constant] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = [{k: t for k, t in self.rows.items() if isinstance(k, kind)} for kind in _LISTS.values()]
        ordered = {key: kind[key] for kind in kinds for key in sorted(kind)}
        object.__setattr__(self, "rows", MappingProxyType(ordered))
        object.__setattr__(self, "shapes", MappingProxyType(dict(self.shapes)))

    def __hash__(self) -> int:
        return hash((self.circumstances, frozenset(self.rows.items()), self.constant, frozenset(self.shapes.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.circumstances, dict(self.rows), self.constant, dict(self.shapes))

    @property
    def knows_mlps(self) -> bool:
        """Whether MLPs have rows; otherwise they belong to the constant."""
        return any(isinstance(key, MlpKey) for key in self.rows)

    def time(self, key: RowKey, layer: str = "a layer") -> float:
        """Return the time of one call in milliseconds.

        Args:
            key: Shape and level of the layer.
            layer: Name of the layer for the message.

        Raises:
            BudgetError: If there is no such row; the message names the layer and similar rows.
        """
        found = self.rows.get(key)
        if found is None:
            raise BudgetError(
                f"{layer}: the latency table has no row for {key.shape}, at n = {key.level}; "
                f"{self._nearest(key)} (measured on {self.circumstances.device})"
            )
        return found.ms

    def estimate(self, key: RowKey, layer: str = "a layer") -> float:
        """Return the time of one call in milliseconds; between two levels of its shape, by linear interpolation.

        Args:
            key: Shape and level of the layer.
            layer: Name of the layer for the message.

        Raises:
            BudgetError: If no row, and no two rows around it, have this shape; see :meth:`time`.
        """
        same = {known.level: timing.ms for known, timing in self.rows.items() if known.shape == key.shape}
        below = max((n for n in same if n < key.level), default=None)
        above = min((n for n in same if n > key.level), default=None)
        if key in self.rows or below is None or above is None:
            return self.time(key, layer)
        share = (key.level - below) / (above - below)
        return same[below] + share * (same[above] - same[below])

    def _nearest(self, key: RowKey) -> str:
        levels = [known.level for known in self.rows if known.shape == key.shape]
        if levels:
            return f"of this shape it has n = {', '.join(map(str, levels))}"
        shapes = list(dict.fromkeys(known.shape for known in self.rows))
        more = f"; and {len(shapes) - 8} more" if len(shapes) > 8 else ""
        return f"it has {'; '.join(shapes[:8]) or 'no rows'}{more}"

    @property
    def spread_ms(self) -> float:
        """Spread of measured networks around the table, in milliseconds; 0 if none was measured."""
        known = (self.constant, *self.shapes.values())
        return max((constant.spread_ms for constant in known if constant is not None), default=0.0)

    def constant_of(self, shape: str) -> float:
        """Return the milliseconds of a network of this shape that no choice changes.

        Args:
            shape: Shape of the network; it matters if the table serves several.

        Raises:
            BudgetError: If the table has no constant for it.
        """
        if not self.shapes:
            return self.constant_ms
        if shape not in self.shapes:
            known = "; ".join(self.shapes)
            raise BudgetError(f"the latency table has no constant for a network of {shape}, only for {known}")
        return self.shapes[shape].ms

    @property
    def constant_ms(self) -> float:
        """Milliseconds that no split changes.

        Raises:
            BudgetError: If the table has no constant.
        """
        if self.constant is None:
            raise BudgetError(
                "the latency table has no constant for the parts besides the layers: take scope 'conv', or fit one "
                "to measured networks (LatencyTable.fitted)"
            )
        return self.constant.ms

    def total(self, calls: Iterable[RowKey]) -> float:
        """Return the predicted milliseconds of a network with these layer calls.

        Raises:
            BudgetError: If a row or the constant is missing.
        """
        return self.constant_ms + sum(map(self.time, calls))

    def fitted(self, network: str, measured: Sequence[tuple[Iterable[RowKey], float]]) -> LatencyTable:
        """Return this table with the best constant for whole networks: the median of the time that layers do not
        explain.

        Args:
            network: Kind of the measured networks and inputs.
            measured: Calls of the layers and total time in milliseconds, for each network.

        Raises:
            BudgetError: If there are no networks, a time is not a positive number, or a row is missing.
        """
        if not measured:
            raise BudgetError(f"no network of {network!r} was measured, but a constant needs one at least")
        left = []
        for calls, ms in measured:
            check_number(f"the time of a network of {network!r}", ms, 0)
            left.append(ms - sum(map(self.time, calls)))
        low, _, high = statistics.quantiles(left, method="inclusive") if len(left) > 1 else (left[0],) * 3
        return replace(self, constant=Constant(network, statistics.median(left), len(left), high - low))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        lists = {
            name: [asdict(key) | asdict(timing) for key, timing in self.rows.items() if isinstance(key, kind)]
            for name, kind in _LISTS.items()
        }
        schema = max((place for place, rows in enumerate(lists.values(), start=1) if rows), default=1)
        schema = _SHAPED if self.shapes else schema
        shapes = {name: asdict(constant) for name, constant in self.shapes.items()}
        return {
            "schema": schema,
            "circumstances": asdict(self.circumstances),
            **dict(islice(lists.items(), schema)),
            "constant": None if self.constant is None else asdict(self.constant),
            **({"shapes": shapes} if shapes else {}),
        }

    @classmethod
    def from_dict(cls, data: object, source: str = "latency table") -> LatencyTable:
        """Read the JSON form.

        Args:
            data: Content that JSON parsing returned.
            source: Name for messages, such as that of the file.

        Raises:
            BudgetError: If the schema is unknown, or a value is missing, unknown or out of its range; the message names
                the source, the row, the field, the value and what would be right.
        """
        if not isinstance(data, Mapping):
            raise BudgetError(f"{source}: a latency table must be an object, but got {type(data).__name__}")
        schema = data.get("schema")
        if isinstance(schema, bool) or not isinstance(schema, int) or not 1 <= schema <= _SHAPED:
            raise BudgetError(f"{source}: schema is {schema!r}, but this version reads 1 to {_SHAPED}")
        kinds = dict(islice(_LISTS.items(), schema))
        _check_keys(
            source, data, {"schema", "circumstances", *kinds, "constant", *(["shapes"] if schema == _SHAPED else [])}
        )
        rows: dict[RowKey, Timing] = {}
        for name, kind in kinds.items():
            rows |= _read_rows(f"{source}: {name}", data[name], kind)
        constant = None
        if data["constant"] is not None:
            constant = _read_whole(f"{source}: constant", Constant, data["constant"])
        shapes = _read_shapes(f"{source}: shapes", data.get("shapes", {}))
        circumstances = _read_whole(f"{source}: circumstances", Circumstances, data["circumstances"])
        return cls(circumstances, rows, constant, shapes)

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, whole or not at all."""
        write_json(self.to_dict(), Path(path))

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read a file.

        Raises:
            BudgetError: If it is missing, invalid JSON, or not a table; the message names the file, the row, the field
                and the value.
        """
        return cls.from_dict(read_json(Path(path), BudgetError), str(path))


def _check_keys(where: str, data: object, expected: set[str]) -> None:
    if not isinstance(data, Mapping):
        raise BudgetError(f"{where} is {data!r}, but must be an object with the keys {', '.join(sorted(expected))}")
    for verb, keys in (("lacks", expected - set(data)), ("has the unknown", set(data) - expected)):
        if keys:
            raise BudgetError(f"{where} {verb} {', '.join(sorted(keys))}")


def _read_shapes(where: str, data: object) -> dict[str, Constant]:
    if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
        raise BudgetError(f"{where} is {data!r}, but must be an object of constants by shape")
    return {name: _read_whole(f"{where}: {name}", Constant, entry) for name, entry in data.items()}


def _read_rows(where: str, data: object, kind: type[RowKey]) -> dict[RowKey, Timing]:
    if not isinstance(data, list):
        raise BudgetError(f"{where} is {type(data).__name__}, but must be a list")
    rows: dict[RowKey, Timing] = {}
    read: Callable[..., RowKey] = kind
    for place, entry in enumerate(data):
        here = f"{where}[{place}]"
        _check_keys(here, entry, {entry.name for part in (kind, Timing) for entry in fields(part)})
        key, timing = _read(here, read, entry), _read(here, Timing, entry)
        if key in rows:
            raise BudgetError(f"{here}: {key.shape}, at n = {key.level}, was given before")
        rows[key] = timing
    return rows


def _read(where: str, part: Callable[..., _Part], data: Mapping[str, Any]) -> _Part:
    names = [entry.name for entry in fields(part)]  # type: ignore[arg-type]
    try:
        return part(**{name: data[name] for name in names})
    except BudgetError as error:
        raise BudgetError(f"{where}: {error}") from None


def _read_whole(where: str, part: Callable[..., _Part], data: Any) -> _Part:
    _check_keys(where, data, {entry.name for entry in fields(part)})  # type: ignore[arg-type]
    return _read(where, part, data)
