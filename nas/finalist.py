"""A network that a study retrains at its end. Loads neither torch nor ray.

In the tables, in files and over HTTP a finalist is part of its trial's parameters. Only :func:`with_finalist` and
:func:`without_finalist` know its keys.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nas.definition.space import Parameters
from nas.errors import InputError
from partialnet.blocks import BlockChoices

_FIGURES = ("ratio", "width", "depth", "mlp", "cost")
_TEXTS = ("options", "blocks", "kind")
_GIVEN = ("position", "ratio", "draw", "width", "depth", "mlp", "cost", *_TEXTS)
_KEYS = ("role", "of", "target", "active_channels", "seed_index", *_GIVEN)


class Role(StrEnum):
    """The role of a retrained network in the comparison."""

    LEARNED = "learned"
    UNIFORM = "uniform"
    RANDOM = "random"
    SCALED = "scaled"
    ABLATED = "ablated"


@dataclass(frozen=True)
class Finalist:
    """A network of the final comparison; each seed trains it once, as a trial of kind ``retrain``.

    Trainings of one network are equal for any seed.

    Args:
        role: Role in the comparison.
        of: Number of the search trial: a learned network comes from it, the others are matched to its cost.
        position: Index of the learned candidate among those of that trial, from 0; None if the trial has only one.
        target: Cost of that candidate: multiply-adds or parameters of the exported network.
        active_channels: Active channels of each layer, in forward order, without layers of absent blocks.
        ratio: Split ratio of a uniform network, or of a scaled one.
        draw: Zero-based index of a random network among those matched to the same candidate.
        width: Width of a scaled network, relative to the published shape.
        depth: Number of blocks of a scaled network, relative to the published shape.
        options: Constructor arguments in which a network of another shape differs from the study's, as JSON text.
        mlp: Hidden width of all MLPs of a uniform network, relative to the usual one.
        kind: Kind of choice that is as learned in an ablated network; its other kinds are uniform.
        cost: Cost of a scaled network if it was measured, in the unit of ``target``.
        seed_index: Zero-based index of the training's seed; trainings with the same index share their seed.
        blocks: Choices of the blocks of a network of a wider space, as JSON text.
    """

    role: Role
    of: int
    position: int | None
    target: float
    active_channels: tuple[int, ...]
    ratio: float | None = None
    draw: int | None = None
    width: float | None = None
    depth: float | None = None
    options: str | None = None
    mlp: float | None = None
    kind: str | None = None
    cost: float | None = field(default=None, compare=False)
    seed_index: int = field(default=0, compare=False)
    blocks: str | None = None

    @property
    def label(self) -> str:
        """Name of the network.

        It is ``trial 5`` or, for one of several networks, ``trial 0.3``; ``uniform 0.242``; ``random split 1``;
        ``width x1.12``; ``mlp_ratio alone``.
        """
        if self.role is Role.UNIFORM and self.ratio is not None:
            return ratio_label(self.ratio) + ("" if self.mlp in (None, 1.0) else f", MLPs x{self.mlp:.3g}")
        if self.role is Role.ABLATED:
            return f"{self.kind} alone"
        if self.role is Role.RANDOM:
            return f"random {'split' if self.blocks is None else 'network'} {(self.draw or 0) + 1}"
        if self.role is Role.SCALED:
            return self._shape
        return self.candidate_label if self.role is Role.LEARNED else "network"

    @property
    def _shape(self) -> str:
        scales = [f"{name} x{scale:.3g}" for name, scale in (("width", self.width), ("depth", self.depth))
                  if scale is not None and scale != 1]  # fmt: skip
        return ", ".join(scales) or "published shape"

    @property
    def shape_options(self) -> dict[str, Any]:
        """Constructor arguments in which the network differs from the study's network."""
        return dict(json.loads(self.options)) if self.options else {}

    @property
    def block_choices(self) -> BlockChoices:
        """Hidden widths, kernel sizes and absent blocks."""
        return BlockChoices.from_json(self.blocks)

    @property
    def candidate_label(self) -> str:
        """Name of the learned network that it is, or is compared with."""
        return f"trial {self.of}" + ("" if self.position is None else f".{self.position}")


def with_finalist(parameters: Parameters, finalist: Finalist | None) -> dict[str, float | int | str | bool]:
    """Return the parameters of a trial in their stored form: those of its training, and its network."""
    if finalist is None:
        return dict(parameters)
    given = {name: getattr(finalist, name) for name in _GIVEN}
    return {
        **parameters,
        "role": finalist.role.value,
        "of": finalist.of,
        "target": finalist.target,
        "active_channels": ",".join(map(str, finalist.active_channels)),
        "seed_index": finalist.seed_index,
        **{key: value for key, value in given.items() if value is not None},
    }


def without_finalist(stored: Parameters) -> tuple[dict[str, float | int | str | bool], Finalist]:
    """Return the parameters of the training and the network, from the stored ones of a trial of kind ``retrain``.

    Raises:
        InputError: If they do not belong to such a trial.
    """
    return {key: value for key, value in stored.items() if key not in _KEYS}, _parse(stored)


def _parse(stored: Parameters) -> Finalist:
    try:
        return Finalist(
            role=Role(str(stored["role"])),
            of=int(stored["of"]),
            position=int(stored["position"]) if "position" in stored else None,
            target=float(stored["target"]),
            active_channels=tuple(int(n) for n in str(stored["active_channels"]).split(",")),
            draw=int(stored["draw"]) if "draw" in stored else None,
            **{name: float(stored[name]) for name in _FIGURES if name in stored},  # type: ignore[arg-type]  # figures
            **{name: str(stored[name]) for name in _TEXTS if name in stored},  # type: ignore[arg-type]  # texts only
            seed_index=int(stored["seed_index"]),
        )
    except KeyError as error:
        raise InputError(f"a retrained network needs the parameter {error.args[0]!r}") from None
    except ValueError as error:
        raise InputError(f"the parameters of a retrained network are damaged: {error}") from None


def ratio_label(ratio: float) -> str:
    """Return the name of a uniform ratio: ``uniform 1/4``, or ``uniform 0.242`` if it is no unit fraction."""
    parts = round(1 / ratio)
    return f"uniform 1/{parts}" if math.isclose(parts * ratio, 1.0) else f"uniform {ratio:.3g}"
