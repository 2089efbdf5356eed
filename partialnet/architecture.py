"""The architecture of a fixed-ratio network as data: the result of a search and the start of a training.

It loads no torch, since the service's API process reads architectures without torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from partialnet.errors import ArchitectureError
from partialnet.files import whole_file
from partialnet.json_text import parse_json

SCHEMA = 1
"""Schema of the networks of this package's family."""

EXTENDED_SCHEMA = 2
"""Schema of networks that need more words: a conversion, or choices of single blocks."""

_KEYS = frozenset({"schema", "model", "options", "active_channels"})
_OF_BLOCKS = ("hidden_channels", "absent_blocks", "kernel_sizes", "attended_channels")
_MORE_KEYS = frozenset({"conversion", *_OF_BLOCKS})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class ConversionRules:
    """Which spatial convolutions of a network become partial ones, and of which kind.

    Module names are matched by patterns, in which ``*`` stands for any text (``"layer4.*.conv2"``).

    Args:
        convert: Patterns of the convolutions to replace; those among them that cannot be replaced stay.
        keep: Patterns of convolutions that stay, whatever ``convert`` says.
        rest: Operation on the channels that are not convolved.
        num_heads: Number of heads of the self-attention.
        attn_drop: Dropout of the self-attention in training.
        min_ratio: Lowest share of convolved channels in a search, by pattern; the first that matches counts. Layers
            without one may go down to the odd part of their width.
        max_ratio: Highest share of convolved channels in a search, by pattern; the first that matches counts.

    Raises:
        ArchitectureError: If a pattern is no text, or a share is not in (0, 1].
    """

    convert: tuple[str, ...] = ("*",)
    keep: tuple[str, ...] = ()
    rest: str = "channel_attention"
    num_heads: int = 4
    attn_drop: float = 0.1
    min_ratio: Mapping[str, float] = field(default_factory=dict)
    max_ratio: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("convert", "keep"):
            patterns = getattr(self, key)
            if isinstance(patterns, str) or not all(isinstance(pattern, str) and pattern for pattern in patterns):
                raise ArchitectureError(f"conversion key {key!r} is {patterns!r}, but must be a list of patterns")
            object.__setattr__(self, key, tuple(patterns))
        for key in ("min_ratio", "max_ratio"):
            ratios = getattr(self, key)
            for pattern, ratio in ratios.items():
                if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
                    raise ArchitectureError(f"{key}[{pattern!r}] is {ratio!r}, but must be above 0 and at most 1")
            object.__setattr__(self, key, MappingProxyType(dict(ratios)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; without upper bounds it, and so an architecture's id, is as before there were any."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values |= {"convert": list(self.convert), "keep": list(self.keep), "min_ratio": dict(self.min_ratio)}
        return {**values, "max_ratio": dict(self.max_ratio)} if values.pop("max_ratio") else values

    @classmethod
    def from_dict(cls, data: Any) -> ConversionRules:
        """Build the rules from their JSON form; a missing key has its default.

        Raises:
            ArchitectureError: If a key is unknown or a value has the wrong type.
        """
        known = {item.name for item in fields(cls)}
        if not isinstance(data, Mapping) or set(data) - known:
            found = sorted(set(data) - known) if isinstance(data, Mapping) else type(data).__name__
            raise ArchitectureError(f"the conversion has {found}, but must be an object of the keys {sorted(known)}")
        for key in ("min_ratio", "max_ratio"):
            if not isinstance(data.get(key, {}), Mapping):
                raise ArchitectureError(f"conversion key {key!r} is {data[key]!r}, but must be an object")
        return cls(**data)

    def selects(self, name: str) -> bool:
        """Return whether the convolution with this module name is to be replaced."""
        return _matches(name, self.convert) and not _matches(name, self.keep)

    def lowest(self, name: str, channels: int) -> int | None:
        """Return the lowest number of convolved channels in a search; None if there is no bound."""
        ratio = _first(name, self.min_ratio)
        return None if ratio is None else max(1, math.ceil(ratio * channels - 1e-9))

    def highest(self, name: str, channels: int) -> int | None:
        """Return the highest number of convolved channels in a search; None if there is no bound."""
        ratio = _first(name, self.max_ratio)
        return None if ratio is None else math.floor(ratio * channels + 1e-9)


def _first(name: str, ratios: Mapping[str, float]) -> float | None:
    return next((ratio for pattern, ratio in ratios.items() if fnmatchcase(name, pattern)), None)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Architecture:
    """A network, with the number of active channels of each partial convolution.

    Args:
        model: Model name in timm's registry, such as ``"partialnet_t0"``; or for a network of another family its source
            and name, such as ``"timm/resnet18"`` or ``"torchvision/mobilenet_v2"``.
        options: Constructor arguments that differ from the variant's defaults or complete them (``num_classes``,
            ``patch_size``, ...): JSON scalars and lists of them.
        active_channels: Number of convolved channels by module name (``"stages.0.blocks.0.mixer"``). Empty means the
            model's default, a quarter of each width.
        conversion: Rules by which the convolutions of another family are replaced; None for this package's family.
        hidden_channels: Hidden width by module name of the MLP (``"stages.0.blocks.0.mlp"``), where it differs from the
            option ``mlp_ratio``; for this package's family only.
        absent_blocks: Module names of the blocks that are left out (``"stages.0.blocks.0"``); for this package's family
            only. Their layers have no active channels.
        kernel_sizes: Kernel size by module name of the partial convolution (``"stages.0.blocks.0.mixer"``), where it
            differs from the option ``kernel_size``; for this package's family only.
        attended_channels: Number of channels that the attention serves by module name of the partial convolution, where
            it leaves some out; for this package's family only.

    Raises:
        ArchitectureError: If a name is empty or a number of channels is not a positive integer, or if only one of
            source and conversion is given.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    active_channels: Mapping[str, int] = field(default_factory=dict)
    conversion: ConversionRules | None = None
    hidden_channels: Mapping[str, int] = field(default_factory=dict)
    absent_blocks: Collection[str] = ()
    kernel_sizes: Mapping[str, int] = field(default_factory=dict)
    attended_channels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.model:
            raise ArchitectureError("an architecture needs a model name, but got an empty one")
        if ("/" in self.model) != (self.conversion is not None):
            raise ArchitectureError(
                f"model {self.model!r}: a network of another family has a source (timm/..., torchvision/..., "
                "installed/...) and a conversion; one of this package's family has neither"
            )
        for key in ("active_channels", "hidden_channels", "kernel_sizes", "attended_channels"):
            least = 0 if key == "attended_channels" else 1
            for name, count in getattr(self, key).items():
                if isinstance(count, bool) or not isinstance(count, int) or count < least:
                    raise ArchitectureError(f"{key}[{name!r}] is {count!r}, but must be an integer of at least {least}")
        self._check_blocks()
        options = {key: _frozen(value) for key, value in sorted(self.options.items())}
        object.__setattr__(self, "options", MappingProxyType(options))
        object.__setattr__(self, "active_channels", MappingProxyType(dict(self.active_channels)))
        object.__setattr__(self, "hidden_channels", MappingProxyType(dict(self.hidden_channels)))
        object.__setattr__(self, "kernel_sizes", MappingProxyType(dict(self.kernel_sizes)))
        object.__setattr__(self, "attended_channels", MappingProxyType(dict(self.attended_channels)))
        object.__setattr__(self, "absent_blocks", tuple(sorted(self.absent_blocks)))

    def _check_blocks(self) -> None:
        absent = self.absent_blocks
        if isinstance(absent, str) or not all(isinstance(name, str) for name in absent):
            raise ArchitectureError(f"absent_blocks is {absent!r}, but must be a list of module names")
        if len(set(absent)) != len(absent):
            raise ArchitectureError(f"absent_blocks is {list(absent)}, but must name each block once")
        if self.conversion is not None and (given := [key for key in _OF_BLOCKS if getattr(self, key)]):
            raise ArchitectureError(
                f"model {self.model!r}: {', '.join(given)}: only for networks of this package's family"
            )

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        chosen = (
            dict(self.hidden_channels), self.absent_blocks, dict(self.kernel_sizes), dict(self.attended_channels),
        )  # fmt: skip
        return type(self), (self.model, dict(self.options), dict(self.active_channels), self.conversion, *chosen)

    @property
    def id(self) -> str:
        """SHA-256 of the canonical JSON form: equal architectures have equal ids."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; what schema 1 can say, and so its id, is as before schema 2."""
        more: dict[str, Any] = {}
        if self.conversion is not None:
            more["conversion"] = self.conversion.to_dict()
        for key in _OF_BLOCKS:
            if value := getattr(self, key):
                more[key] = dict(value) if isinstance(value, Mapping) else list(value)
        return {
            "schema": EXTENDED_SCHEMA if more else SCHEMA,
            "model": self.model,
            "options": {key: list(value) if isinstance(value, tuple) else value for key, value in self.options.items()},
            "active_channels": dict(self.active_channels),
            **more,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Build an architecture from its JSON form.

        Raises:
            ArchitectureError: If a key is unknown or missing, or the schema is unknown.
        """
        if not isinstance(data, Mapping):
            raise ArchitectureError(f"an architecture must be a JSON object, but got {type(data).__name__}")
        schema = data.get("schema")
        if schema not in (SCHEMA, EXTENDED_SCHEMA) or isinstance(schema, bool):
            raise ArchitectureError(
                f"architecture schema is {schema!r}, but must be {SCHEMA}, or {EXTENDED_SCHEMA} with any of "
                f"{', '.join(sorted(_MORE_KEYS))}"
            )
        known = _KEYS | _MORE_KEYS if schema == EXTENDED_SCHEMA else _KEYS
        unknown = sorted(set(data) - known)
        if unknown:
            raise ArchitectureError(f"unknown keys in the architecture: {', '.join(unknown)}; known: {sorted(known)}")
        present = {"hidden_channels": {}, "absent_blocks": [], "kernel_sizes": {}, "attended_channels": {}, **data}
        for key, kind in (
            ("model", str), ("options", Mapping), ("active_channels", Mapping), ("hidden_channels", Mapping),
            ("absent_blocks", list), ("kernel_sizes", Mapping), ("attended_channels", Mapping),
        ):  # fmt: skip
            if not isinstance(present.get(key), kind):
                raise ArchitectureError(f"architecture key {key!r} is {data.get(key)!r}, but must be a {kind.__name__}")
        chosen = any(present[key] for key in _OF_BLOCKS)
        converted = schema == EXTENDED_SCHEMA and not chosen
        rules = ConversionRules.from_dict(data.get("conversion")) if converted or "conversion" in data else None
        return cls(
            data["model"],
            data["options"],
            data["active_channels"],
            rules,
            present["hidden_channels"],
            present["absent_blocks"],
            present["kernel_sizes"],
            present["attended_channels"],
        )

    def save(self, path: Path) -> None:
        """Write the JSON form to ``path``, whole or not at all."""
        with whole_file(path) as fresh:
            fresh.write_text(json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Architecture:
        """Read an architecture written by :meth:`save`.

        Raises:
            ArchitectureError: If the file is missing, invalid JSON, or not an architecture; the message names the file.
        """
        try:
            return cls.from_dict(parse_json(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ArchitectureError(f"{path}: cannot be read ({error.strerror})") from error
        except ArchitectureError as error:
            raise ArchitectureError(f"{path}: {error}") from error
        except ValueError as error:
            raise ArchitectureError(f"{path}: not valid JSON: {error}") from error
