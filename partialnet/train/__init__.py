"""Training of a fixed network: recipe, loop, evaluation, checkpoints.

Names are loaded on first use (PEP 562), so that ``partialnet.train.recipe`` can be imported without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partialnet.lazy import lazy_names

_LOCATIONS = {
    "EpochProgress": "partialnet.train.loop",
    "EvaluationResult": "partialnet.train.evaluation",
    "FitResult": "partialnet.train.loop",
    "Recipe": "partialnet.train.recipe",
    "build_optimizer": "partialnet.train.optimizer",
    "evaluate": "partialnet.train.evaluation",
    "fit": "partialnet.train.loop",
    "learning_rate_factor": "partialnet.train.recipe",
    "schedule_learning_rate": "partialnet.train.optimizer",
    "seeded": "partialnet.train.loop",
    "select_device": "partialnet.train.device",
}

__all__ = [
    "EpochProgress",
    "EvaluationResult",
    "FitResult",
    "Recipe",
    "build_optimizer",
    "evaluate",
    "fit",
    "learning_rate_factor",
    "schedule_learning_rate",
    "seeded",
    "select_device",
]

if TYPE_CHECKING:
    from partialnet.train.device import select_device
    from partialnet.train.evaluation import EvaluationResult, evaluate
    from partialnet.train.loop import EpochProgress, FitResult, fit, seeded
    from partialnet.train.optimizer import build_optimizer, schedule_learning_rate
    from partialnet.train.recipe import Recipe, learning_rate_factor

__getattr__, __dir__ = lazy_names(__name__, _LOCATIONS)
