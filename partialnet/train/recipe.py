"""The recipe of a training: one object shared by searches, baselines, fine-tuning and retraining."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

from partialnet.data.augmentation import Augmentation, Interpolation, SizeSchedule

Precision = Literal["float32", "bfloat16", "float16"]
Statistics = Literal["reduced", "synchronized"]


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule, loss and augmentation of a training.

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
        drop_path: Stochastic depth rate of the last block, which grows linearly from 0; None for that of the network.
        accumulation: Number of equal parts of a batch whose gradients are added up before a step; batch normalisations
            see one part.
        ema_decay: Decay of the moving average of the weights; 0 for none.
        ema_warmup: Whether the decay grows from 0, so that a short training forgets its first weights.
        channels_last: Whether maps are in channels-last layout; None for the layout that the device prefers.
        rand_augment: RandAugment of each image in timm's words, such as ``"m7-mstd0.5-inc1"``; empty for none.
        erasing: Probability that a random part of an image becomes noise.
        mixup: Parameter of mixup's Beta distribution; 0 turns it off.
        cutmix: Parameter of cutmix's Beta distribution; 0 turns it off. With both, a batch gets one of them.
        mix_probability: Probability that a batch is mixed.
        smallest_crop: Smallest share of the area in random crops of images above 64 pixels.
        interpolation: Filter that scales image files above 64 pixels, ``"bilinear"`` or ``"bicubic"``.
        test_crop: Share of the shorter side that evaluations see of an image above 64 pixels.
        sizes: Sizes of training images; empty for that of the data. See :class:`SizeSchedule`.
        size_batches: Number of images in a batch of each size; empty for the batch size at all sizes.
        size_epochs: First epoch (zero-based) of each size; empty to draw a size for each batch.
        statistics: Statistics of batch normalisations with several processes: ``"reduced"`` averages them after each
            epoch, ``"synchronized"`` computes them over the whole batch in each step.
        teacher: Network to distil from: ``"timm/NAME"``, or the folder of a package; empty for none.
        distillation: Share of the teacher in the loss.
        temperature: Temperature of both distributions in the teacher's part of the loss.
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
    drop_path: float | None = None
    accumulation: int = 1
    ema_decay: float = 0.0
    ema_warmup: bool = True
    channels_last: bool | None = None
    rand_augment: str = ""
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    smallest_crop: float = 0.25
    interpolation: Interpolation = "bilinear"
    test_crop: float = 1.0
    sizes: tuple[int, ...] = ()
    size_batches: tuple[int, ...] = ()
    size_epochs: tuple[int, ...] = ()
    statistics: Statistics = "reduced"
    teacher: str = ""
    distillation: float = 0.5
    temperature: float = 1.0

    @property
    def augmentation(self) -> Augmentation:
        """Augmentation beyond the standard one.

        Raises:
            DataError: If a value is out of its range.
        """
        return Augmentation(**{entry.name: getattr(self, entry.name) for entry in fields(Augmentation)})

    @property
    def size_schedule(self) -> SizeSchedule | None:
        """Sizes of training images; None for that of the data.

        Raises:
            DataError: If the lengths or values do not fit.
        """
        return SizeSchedule(self.sizes, self.size_batches, self.size_epochs) if self.sizes else None

    def for_search(self) -> Recipe:
        """Return the part of the recipe that a search uses: optimiser, schedule, loss, precision, compilation, and how
        several processes share batch statistics.
        """
        return Recipe(**{key: getattr(self, key) for key in (*_FIRST, "compile", "statistics")})

    def decisive(self) -> dict[str, Any]:
        """Return plain values of all settings that affect the result; compilation does not.

        Settings that older versions lack are left out where they have no effect.
        """
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if key != "compile" and (key in _FIRST or value != _DEFAULTS[key])
        }


# Settings of the first version, which a search uses as well.
_FIRST = (
    "optimizer", "learning_rate", "weight_decay", "momentum", "warmup_fraction", "final_fraction", "label_smoothing",
    "clip_norm", "precision",
)  # fmt: skip
_DEFAULTS = MappingProxyType({entry.name: entry.default for entry in fields(Recipe)})

_NEEDS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "momentum": ("optimizer", "sgd"),
    "ema_warmup": ("ema_decay", "above 0"),
    "mix_probability": ("mixup or cutmix", "above 0"),
    "size_batches": ("sizes", "given"),
    "size_epochs": ("sizes", "given"),
    "distillation": ("teacher", "given"),
    "temperature": ("teacher", "given"),
})  # fmt: skip


def only_for_fixed(recipe: Recipe) -> list[str]:
    """Return the settings of ``recipe`` that a search would not use, as ``key=value``."""
    plain = recipe.for_search()
    return [
        f"{key}={value!r}" for key, value in asdict(recipe).items() if value != getattr(plain, key)
    ]


def unused_keys(recipe: Recipe, given: Collection[str]) -> list[str]:
    """Return a sentence for each of the keys ``given`` that has no effect in ``recipe``."""
    idle = {
        "momentum": recipe.optimizer != "sgd",
        "ema_warmup": not recipe.ema_decay,
        "mix_probability": not (recipe.mixup or recipe.cutmix),
        "size_batches": not recipe.sizes,
        "size_epochs": not recipe.sizes,
        "distillation": not recipe.teacher,
        "temperature": not recipe.teacher,
    }
    return [
        f"{key} has no effect unless {_NEEDS[key][0]} is {_NEEDS[key][1]}" for key in given if idle.get(key, False)
    ]


def learning_rate_factor(step: int, steps: int, recipe: Recipe) -> float:
    """Return the rate at ``step`` (zero-based) of ``steps`` relative to the peak: linear warm-up, then a cosine."""
    warmup = recipe.warmup_fraction * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, steps - warmup)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return recipe.final_fraction + (1.0 - recipe.final_fraction) * cosine
