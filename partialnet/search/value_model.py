"""An additive model of the loss: the effect of each ring of each layer, fitted to scored networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from partialnet.errors import BudgetError

RIDGE = 0.1  # in units of samples without information


@dataclass(frozen=True)
class ValueModel:
    """The loss of a network as a constant plus the values of its rings.

    Args:
        names: Module names in forward order.
        levels: Active channels at the levels of each layer, ascending.
        rings: Predicted losses relative to the lowest level, by layer and level.
        base: Predicted loss with each layer at its lowest level.
        samples: Samples of the fit: active channels by module name, and the loss.
        residual: Root mean square error on the samples.
    """

    names: tuple[str, ...]
    levels: tuple[tuple[int, ...], ...]
    rings: tuple[tuple[float, ...], ...]
    base: float
    samples: tuple[tuple[Mapping[str, int], float], ...] = field(repr=False)
    residual: float

    def predict(self, active_channels: Mapping[str, int]) -> float:
        """Return the predicted loss of a network.

        Raises:
            BudgetError: If a layer is missing, or its number of active channels is not one of its levels.
        """
        total = self.base
        for name, levels, rings in zip(self.names, self.levels, self.rings, strict=True):
            n = active_channels.get(name)
            if n not in levels:
                shown = ", ".join(map(str, levels))
                raise BudgetError(f"{name}: active_channels is {n}, but the value model knows {shown}")
            total += rings[levels.index(n)]
        return total


def fit_values(
    names: Sequence[str],
    levels: Sequence[Sequence[int]],
    chosen: Sequence[Sequence[int]],
    losses: Sequence[float],
    ridge: float = RIDGE,
) -> ValueModel:
    """Fit an additive value model by ridge regression on ordinal (cumulative) codes: one number for each ring.

    Args:
        names: Module names of the layers.
        levels: Active channels at the levels of each layer, ascending.
        chosen: Level (an index) of each layer, for each sample.
        losses: Losses of the samples.
        ridge: Pull towards rings without effect, in units of the mean square of a centred code.

    Raises:
        BudgetError: If there is no sample.
    """
    if not chosen:
        raise BudgetError("a value model needs at least one network that was scored")
    codes = np.array([_code(levels, row) for row in chosen])
    targets = np.asarray(losses, float)
    mean = codes.mean(0)
    centred = codes - mean
    gram = centred.T @ centred
    # Rings that no sample distinguishes get no value; the pull also keeps the matrix regular.
    pull = ridge * max(float(np.trace(gram)) / max(1, gram.shape[0]), 1e-12)
    weights = np.linalg.solve(gram + pull * np.eye(len(gram)), centred.T @ (targets - targets.mean()))
    base = float(targets.mean() - mean @ weights)
    fitted = codes @ weights + base
    rows = []
    start = 0
    for row in levels:
        rows.append((0.0, *np.cumsum(weights[start : start + len(row) - 1]).tolist()))
        start += len(row) - 1
    samples = tuple(
        ({name: row[level] for name, row, level in zip(names, levels, sample, strict=True)}, float(loss))
        for sample, loss in zip(chosen, losses, strict=True)
    )
    residual = float(np.sqrt(np.mean((fitted - targets) ** 2)))
    return ValueModel(tuple(names), tuple(map(tuple, levels)), tuple(rows), base, samples, residual)


def _code(levels: Sequence[Sequence[int]], chosen: Sequence[int]) -> list[float]:
    return [float(level > ring) for row, level in zip(levels, chosen, strict=True) for ring in range(len(row) - 1)]


