"""An additive model of the loss: the effect of each ring of each choice, fitted to scored networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from partialnet.errors import BudgetError
from partialnet.search.space import SearchSpace

RIDGE = 0.1  # in units of samples without information


@dataclass(frozen=True)
class ValueModel:
    """The loss of a network as a constant plus the values of its options.

    The value of an option is the sum of its rings. In a block that may be absent they count only if it is there, and
    each pair of its layers has one more number, since a wide MLP is worth more behind a good convolution.

    Args:
        space: Units and their options.
        rings: Predicted losses relative to the first option, by unit and option.
        base: Predicted loss with each unit at its first option.
        samples: Samples of the fit: values of the choices by module name, and the loss.
        residual: Root mean square error on the samples.
    """

    space: SearchSpace
    rings: tuple[tuple[float, ...], ...]
    base: float
    samples: tuple[tuple[Mapping[str, int], float], ...] = field(repr=False)
    residual: float

    def predict(self, settings: Mapping[str, int]) -> float:
        """Return the predicted loss of a network.

        Args:
            settings: Values of the choices by module name, such as active channels.

        Raises:
            BudgetError: If a choice is missing, or its value is not one of its levels.
        """
        return self.base + sum(row[place] for row, place in zip(self.rings, self.space.chosen(settings), strict=True))


def fit_values(
    space: SearchSpace, chosen: Sequence[Sequence[int]], losses: Sequence[float], ridge: float = RIDGE
) -> ValueModel:
    """Fit an additive value model by ridge regression on ordinal (cumulative) codes: one number for each ring.

    Args:
        space: Units and their options.
        chosen: Option (an index) of each unit, for each sample.
        losses: Losses of the samples.
        ridge: Pull towards rings without effect, in units of the mean square of a centred code.

    Raises:
        BudgetError: If there is no sample.
    """
    if not chosen:
        raise BudgetError("a value model needs at least one network that was scored")
    blocks = [_codes(space, unit) for unit in range(len(space.names))]
    codes = np.array([np.concatenate([one[place] for one, place in zip(blocks, row, strict=True)]) for row in chosen])
    targets = np.asarray(losses, float)
    mean = codes.mean(0)
    centred = codes - mean
    gram = centred.T @ centred
    # Rings that no sample distinguishes get no value; the pull also keeps the matrix regular.
    pull = ridge * max(float(np.trace(gram)) / max(1, gram.shape[0]), 1e-12)
    weights = np.linalg.solve(gram + pull * np.eye(len(gram)), centred.T @ (targets - targets.mean()))
    base = float(targets.mean() - mean @ weights)
    fitted = codes @ weights + base
    rows, start = [], 0
    for block in blocks:
        # Summed in the order of the rings.
        values = np.cumsum(np.pad(block * weights[start : start + block.shape[1]], ((0, 0), (1, 0))), axis=1)[:, -1]
        base += float(values[0])
        rows.append(tuple((values - values[0]).tolist()))
        start += block.shape[1]
    samples = tuple((space.settings(sample), float(loss)) for sample, loss in zip(chosen, losses, strict=True))
    residual = float(np.sqrt(np.mean((fitted - targets) ** 2)))
    return ValueModel(space, tuple(rows), base, samples, residual)


def _codes(space: SearchSpace, unit: int) -> NDArray[np.float64]:
    """Return the codes [options, rings] of a unit: its presence, the rings of each choice, and pairs of choices."""
    rows = [space.values[index] for index, (owner, _) in enumerate(space.flat) if owner == unit]
    first = int(space.droppable(unit))
    found = []
    for option in space.options[unit]:
        if not space.is_whole(unit, option):
            found.append([0.0] * _length(rows, first))
            continue
        code = [1.0] * first
        for value, row in zip(option[first:], rows[first:], strict=True):
            code += [float(value > lower) for lower in row[:-1]]
        layers = zip(option[first:], rows[first:], strict=True)
        shares = [row.index(value) / max(1, len(row) - 1) - 0.5 for value, row in layers]
        found.append([*code, *(a * b for a, b in combinations(shares, 2))])
    return np.array(found)


def _length(rows: Sequence[Sequence[int]], first: int) -> int:
    layers = len(rows) - first
    return first + sum(len(row) - 1 for row in rows[first:]) + layers * (layers - 1) // 2
