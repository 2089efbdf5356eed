"""A network that a study retrains at its end, in the words of its trials' parameters. No torch, no ray."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from nas.definition.space import Parameters
from nas.errors import InputError


class Role(StrEnum):
    """What a retrained network is in the comparison."""

    LEARNED = "learned"
    UNIFORM = "uniform"
    RANDOM = "random"


@dataclass(frozen=True)
class Finalist:
    """A network of the final comparison; it is trained with every seed, each time as a trial of kind ``retrain``.

    Args:
        role: What it is.
        of: Number of the trial whose candidate it is, or is compared with.
        position: Of that candidate among the trial's, from 0; None where the trial has but one.
        target: Cost of that candidate: multiply-adds or parameters of the exported network.
        active_channels: Per layer, in forward order.
        ratio: Of a uniform network.
        draw: Zero-based place of a random network among those of the same candidate.
    """

    role: Role
    of: int
    position: int | None
    target: float
    active_channels: tuple[int, ...]
    ratio: float | None = None
    draw: int | None = None

    def parameters(self, seed_index: int) -> dict[str, float | int | str]:
        """Return the parameters of the trial that trains it with seed ``seed_index``."""
        given = {"position": self.position, "ratio": self.ratio, "draw": self.draw}
        return {
            "role": self.role.value,
            "of": self.of,
            "target": self.target,
            "active_channels": ",".join(map(str, self.active_channels)),
            "seed_index": seed_index,
            **{key: value for key, value in given.items() if value is not None},
        }

    @classmethod
    def parse(cls, parameters: Parameters) -> Finalist:
        """Return the network that a trial of kind ``retrain`` trains.

        Raises:
            InputError: If the parameters are not those of such a trial.
        """
        try:
            channels = tuple(int(n) for n in str(parameters["active_channels"]).split(","))
            return cls(
                Role(str(parameters["role"])),
                int(parameters["of"]),
                int(parameters["position"]) if "position" in parameters else None,
                float(parameters["target"]),
                channels,
                float(parameters["ratio"]) if "ratio" in parameters else None,
                int(parameters["draw"]) if "draw" in parameters else None,
            )
        except KeyError as error:
            raise InputError(f"a retrained network needs the parameter {error.args[0]!r}") from None
        except ValueError as error:
            raise InputError(f"the parameters of a retrained network are damaged: {error}") from None


def ratio_label(ratio: float) -> str:
    """Return what a uniform ratio is called: ``uniform 1/4``, or ``uniform 0.242`` where it is no such part."""
    parts = round(1 / ratio)
    return f"uniform 1/{parts}" if math.isclose(parts * ratio, 1.0) else f"uniform {ratio:.3g}"


def retrain_label(parameters: Parameters) -> str:
    """Return what a network of the final comparison is called.

    ``trial 5`` or, of several networks of a trial, ``trial 0.3``; ``uniform 0.242``; ``random split 1``.
    """
    match parameters.get("role"):
        case Role.LEARNED:
            return f"trial {parameters.get('of')}" + (f".{parameters['position']}" if "position" in parameters else "")
        case Role.UNIFORM if "ratio" in parameters:
            return ratio_label(float(parameters["ratio"]))
        case Role.RANDOM:
            return f"random split {int(parameters.get('draw', 0)) + 1}"
    return "network"
