"""The search by a supernet: sandwich steps, then selection for its budget and for further ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from partialnet.search.batches import check_validation
from partialnet.search.options import MethodOptions
from partialnet.search.phases import PhaseSchedule
from partialnet.search.supernet import SupernetMethod, SupernetSettings, TrainedSupernet, recalibrate
from partialnet.search.supernet_result import SupernetResult
from partialnet.search.task import SearchTask


@dataclass(frozen=True)
class SupernetOptions(SupernetSettings, MethodOptions):
    """Options of a supernet's training and selection; see :class:`SupernetSettings`.

    Args:
        sampled: Number of random networks in a step, besides the largest and the smallest.
        distillation: Whether smaller networks learn from the outputs of the largest: ``"auto"`` does if targets are
            class indices.
        samples: Number of networks that are scored for the value model.
        best: Number of best networks by the value model that are truly validated.
        refine: Number of neighbours of the best network that are validated too: it moves to better ones within the
            budget that differ in one or two units. None for two fifths of ``samples``.
        images: Share of a batch, in (0, 1], for each random network, which take turns; the largest and the smallest see
            all images. At 1/2 a step costs a quarter less.

    Raises:
        BudgetError: If a number is out of its range.
    """

    name: ClassVar[str] = "supernet"
    schedule: ClassVar[PhaseSchedule] = PhaseSchedule(0.0, 1.0, 0.0, 0.0)
    needs_validation: ClassVar[bool] = True
    keywords: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def plan(self) -> dict[str, Any]:
        """Return the options under the method's name; ``refine`` changes no step, so a resumption may differ in it."""
        return {"supernet": {name: value for name, value in asdict(self).items() if name != "refine"}}

    def search(self, task: SearchTask) -> SupernetResult:
        """Train a supernet and select from it."""
        assert task.validation is not None  # learn_split has checked this
        arguments, device = task.arguments, task.layers[0].gates.device
        check_validation(task.validation, arguments.seed, device)
        trained = TrainedSupernet(
            task.model,
            task.layers,
            task.table,
            recipe=arguments.recipe,
            loss_fn=task.loss_fn,
            validation=task.validation,
            seed=arguments.seed,
            options=self,
        )
        learner = SupernetMethod(
            task.layers,
            task.table,
            task.target,
            seed=arguments.seed,
            options=self,
            near=arguments.near,
            targets=task.targets,
            select=lambda: trained.choose(task.target, task.targets),
        )
        projection, history = task.run(learner)
        recalibrate(task.model, task.batches, arguments.seed, device, arguments.recipe.statistics)
        return SupernetResult.of(task.result(projection, history), trained, task.budget, task.batches)
