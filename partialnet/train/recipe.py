"""How a network is trained: one object shared by searches, baselines, fine-tuning and retraining."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule and loss of a training.

    Args:
        optimizer: ``"adamw"`` or ``"sgd"`` (Nesterov).
        learning_rate: Peak rate.
        weight_decay: Applied to weight matrices and kernels only; never to norms, biases, tables or gates.
        momentum: Of ``sgd``.
        warmup_fraction: Share of the steps over which the rate grows linearly from 0.
        final_fraction: Rate at the end of the cosine, relative to the peak.
        label_smoothing: Of the cross entropy.
        clip_norm: Largest gradient norm; 0 turns clipping off.
        precision: ``"float32"``, or by autocast ``"bfloat16"`` or ``"float16"``, which scales gradients as well.
        compile: Whether ``torch.compile`` makes the steps: of a fixed network the whole, of a searched one the blocks,
            anew for every level. Weights and checkpoints are those of the network as it is.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    warmup_fraction: float = 0.1
    final_fraction: float = 0.01
    label_smoothing: float = 0.1
    clip_norm: float = 5.0
    precision: Precision = "float32"
    compile: bool = False

    def decisive(self) -> dict[str, Any]:
        """Return plain values of all that makes it another training; compilation does not."""
        return {key: value for key, value in asdict(self).items() if key != "compile"}


def learning_rate_factor(step: int, steps: int, recipe: Recipe) -> float:
    """Return the rate at ``step`` (zero-based) of ``steps`` relative to the peak: linear warm-up, then a cosine."""
    warmup = recipe.warmup_fraction * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, steps - warmup)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return recipe.final_fraction + (1.0 - recipe.final_fraction) * cosine
