"""The recipe of a training: one object shared by searches, baselines, fine-tuning and retraining."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule and loss of a training.

    Args:
        optimizer: Name of the optimiser: ``"adamw"`` or ``"sgd"`` (Nesterov).
        learning_rate: Peak rate.
        weight_decay: Decay of weight matrices and kernels only; norms, biases, tables and gates have none.
        momentum: Momentum of ``sgd``.
        warmup_fraction: Share of the steps over which the rate grows linearly from 0.
        final_fraction: Rate at the end of the cosine, relative to the peak.
        label_smoothing: Label smoothing of the cross entropy.
        clip_norm: Largest gradient norm; 0 turns clipping off.
        precision: Precision ``"float32"``, or by autocast ``"bfloat16"`` or ``"float16"``, which also scales gradients.
        compile: Whether ``torch.compile`` compiles the steps: a fixed network as a whole, a searched one block by
            block, separately for each level. Weights and checkpoints are those of the uncompiled network.
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
        """Return plain values of all settings that affect the result; compilation does not."""
        return {key: value for key, value in asdict(self).items() if key != "compile"}


def learning_rate_factor(step: int, steps: int, recipe: Recipe) -> float:
    """Return the rate at ``step`` (zero-based) of ``steps`` relative to the peak: linear warm-up, then a cosine."""
    warmup = recipe.warmup_fraction * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, steps - warmup)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return recipe.final_fraction + (1.0 - recipe.final_fraction) * cosine
