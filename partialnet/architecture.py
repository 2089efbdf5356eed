"""The architecture of a fixed-ratio network, as data: what a search settles on and a training starts from.

No torch here: the service's API process reads architectures without loading it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from partialnet.errors import ArchitectureError
from partialnet.files import whole_file
from partialnet.json_text import parse_json

SCHEMA = 1
_KEYS = frozenset({"schema", "model", "options", "active_channels"})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Architecture:
    """A network of one family with the number of active channels of each partial convolution.

    Args:
        model: Registered model name, for example ``"partialnet_t0"``.
        options: Constructor arguments that differ from the variant's defaults or complete them (``num_classes``,
            ``patch_size``, ...): JSON scalars and lists of them.
        active_channels: Module name (``"stages.0.blocks.0.mixer"``) to the number of channels that are convolved.
            Empty means the model's default, a quarter of each width.

    Raises:
        ArchitectureError: If a name is empty or a number of active channels is not a positive integer.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    active_channels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.model:
            raise ArchitectureError("an architecture needs a model name, but got an empty one")
        for name, count in self.active_channels.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ArchitectureError(f"active_channels[{name!r}] is {count!r}, but must be an integer of at least 1")
        options = {key: _frozen(value) for key, value in sorted(self.options.items())}
        object.__setattr__(self, "options", MappingProxyType(options))
        object.__setattr__(self, "active_channels", MappingProxyType(dict(self.active_channels)))

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model, dict(self.options), dict(self.active_channels))

    @property
    def id(self) -> str:
        """SHA-256 of the canonical JSON form: equal architectures have equal ids."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "options": {key: list(value) if isinstance(value, tuple) else value for key, value in self.options.items()},
            "active_channels": dict(self.active_channels),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Build an architecture from its JSON form.

        Raises:
            ArchitectureError: If a key is unknown or missing, or the schema is not known.
        """
        if not isinstance(data, Mapping):
            raise ArchitectureError(f"an architecture is a JSON object, but got {type(data).__name__}")
        unknown = sorted(set(data) - _KEYS)
        if unknown:
            raise ArchitectureError(f"unknown keys in the architecture: {', '.join(unknown)}; known: {sorted(_KEYS)}")
        if data.get("schema") != SCHEMA:
            raise ArchitectureError(f"architecture schema is {data.get('schema')!r}, but must be {SCHEMA}")
        for key, kind in (("model", str), ("options", Mapping), ("active_channels", Mapping)):
            if not isinstance(data.get(key), kind):
                raise ArchitectureError(f"architecture key {key!r} is {data.get(key)!r}, but must be a {kind.__name__}")
        return cls(data["model"], data["options"], data["active_channels"])

    def save(self, path: Path) -> None:
        """Write the JSON form to ``path``, whole or not at all."""
        with whole_file(path) as fresh:
            fresh.write_text(json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Architecture:
        """Read an architecture written by :meth:`save`.

        Raises:
            ArchitectureError: If the file is missing, is not JSON, or is no architecture; names the file.
        """
        try:
            return cls.from_dict(parse_json(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ArchitectureError(f"{path}: cannot be read ({error.strerror})") from error
        except ArchitectureError as error:
            raise ArchitectureError(f"{path}: {error}") from error
        except ValueError as error:
            raise ArchitectureError(f"{path}: not valid JSON: {error}") from error
