"""A network that a study retrains at its end. No torch, no ray.

In the tables, in files and over the wire a finalist stands among the parameters of its trial; :func:`with_finalist` and
:func:`without_finalist` alone know by which keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from nas.definition.space import Parameters
from nas.errors import InputError

_KEYS = ("role", "of", "target", "active_channels", "seed_index", "position", "ratio", "draw")


class Role(StrEnum):
    """What a retrained network is in the comparison."""

    LEARNED = "learned"
    UNIFORM = "uniform"
    RANDOM = "random"


@dataclass(frozen=True)
class Finalist:
    """A network of the final comparison; it is trained with every seed, each time as a trial of kind ``retrain``.

    Trainings of one network are equal, whatever their seed.

    Args:
        role: What it is.
        of: Number of the search trial: a learned network comes from it, the others are matched to its cost.
        position: Place of the learned candidate among those of that trial, from 0; None where the trial has but one.
        target: Cost of that candidate: multiply-adds or parameters of the exported network.
        active_channels: Active channels per layer, in forward order.
        ratio: Split ratio of a uniform network.
        draw: Zero-based place of a random network among those of the same candidate.
        seed_index: Zero-based place of the training's seed; trainings of one place share their seed.
    """

    role: Role
    of: int
    position: int | None
    target: float
    active_channels: tuple[int, ...]
    ratio: float | None = None
    draw: int | None = None
    seed_index: int = field(default=0, compare=False)

    @property
    def label(self) -> str:
        """What the network is called.

        ``trial 5`` or, of several networks of a trial, ``trial 0.3``; ``uniform 0.242``; ``random split 1``.
        """
        if self.role is Role.UNIFORM and self.ratio is not None:
            return ratio_label(self.ratio)
        if self.role is Role.RANDOM:
            return f"random split {(self.draw or 0) + 1}"
        return self.candidate_label if self.role is Role.LEARNED else "network"

    @property
    def candidate_label(self) -> str:
        """What the learned network is called that it is, or is compared with."""
        return f"trial {self.of}" + ("" if self.position is None else f".{self.position}")


def with_finalist(parameters: Parameters, finalist: Finalist | None) -> dict[str, float | int | str | bool]:
    """Return the parameters of a trial as they are stored: those of its training, and what it trains."""
    if finalist is None:
        return dict(parameters)
    given = {"position": finalist.position, "ratio": finalist.ratio, "draw": finalist.draw}
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
    """Return the parameters of a training and what it trains from the stored ones of a trial of kind ``retrain``.

    Raises:
        InputError: If they are not those of such a trial.
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
            ratio=float(stored["ratio"]) if "ratio" in stored else None,
            draw=int(stored["draw"]) if "draw" in stored else None,
            seed_index=int(stored["seed_index"]),
        )
    except KeyError as error:
        raise InputError(f"a retrained network needs the parameter {error.args[0]!r}") from None
    except ValueError as error:
        raise InputError(f"the parameters of a retrained network are damaged: {error}") from None


def ratio_label(ratio: float) -> str:
    """Return what a uniform ratio is called: ``uniform 1/4``, or ``uniform 0.242`` where it is no such part."""
    parts = round(1 / ratio)
    return f"uniform 1/{parts}" if math.isclose(parts * ratio, 1.0) else f"uniform {ratio:.3g}"
