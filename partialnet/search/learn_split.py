"""Learning the split ratios of any module that contains ``DPConv2d`` layers, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn

from partialnet.errors import BudgetError, DataError
from partialnet.export import to_fixed
from partialnet.layers.dpconv import dpconv_layers
from partialnet.search.arguments import METHODS, Method, SearchArguments
from partialnet.search.batches import Batches, check_validation
from partialnet.search.budget import Budget, budget_costs
from partialnet.search.fractional import FractionalMethod
from partialnet.search.gates import GatesMethod
from partialnet.search.loop import LossFn, SearchLoop
from partialnet.search.method import SearchMethod, capped
from partialnet.search.phases import PhaseSchedule
from partialnet.search.projection import Projection
from partialnet.search.result import SearchProgress, SplitResult, StepRecord, budget_note
from partialnet.search.state import SearchState
from partialnet.search.supernet import SupernetMethod, SupernetOptions, TrainedSupernet, recalibrate
from partialnet.search.supernet_result import SupernetResult
from partialnet.train.loop import seeded
from partialnet.train.recipe import Recipe

__all__ = ["METHODS", "Batches", "LossFn", "Method", "learn_split"]


def learn_split(
    model: nn.Module,
    batches: Batches,
    loss_fn: LossFn,
    budget: Budget,
    *,
    method: Method = "gates",
    steps: int,
    seed: int = 0,
    recipe: Recipe | None = None,
    complexity_exponent: float = 1.0,
    penalty: float = 0.9,
    gate_learning_rate: float | None = None,
    schedule: PhaseSchedule | None = None,
    probe_every: int = 1,
    max_ratio: float = 0.5,
    near: float = 0.5,
    validation: Iterable[tuple[Tensor, Tensor]] | None = None,
    front: Sequence[Budget] = (),
    supernet: SupernetOptions | None = None,
    resume: SearchState | None = None,
    callback: Callable[[SearchProgress], None] | None = None,
) -> SplitResult:
    """Train ``model`` and the splits of its ``DPConv2d`` layers, and settle on splits within ``budget``.

    Methods: ``"gates"``, the paper's, corrected; ``"fractional"``, one number per layer, kept on the budget at every
    step; ``"supernet"``, one training for every budget. The same seed and batches give the same decisions on one
    machine, interrupted or not (bitwise on a CPU).

    Args:
        model: Trained in place, where it is; left in training mode with its gates at the final splits.
        batches: Yields (inputs, targets); iterated again when it ends. A search that goes on starts at the pass where
            it was interrupted: what a loader draws must come from torch's global generator, which is seeded for every
            step, or follow its ``set_epoch``, not from a generator of its own or from numpy.
        loss_fn: Of (outputs, targets), a scalar: the mean over the batch.
        budget: Met within 2 %, or the result says which costs are nearest.
        method: One of the above.
        steps: Of all phases together.
        seed: Of sampled levels, dropout and stochastic depth. The global generators are put back afterwards.
        recipe: Optimiser, schedule, clipping, precision; label smoothing is the business of ``loss_fn``.
        complexity_exponent: Of ``gates``: how strongly a cost above the target weighs on the task loss (a in
            (R / R*)^a).
        penalty: Factor of the loss that is 0 exactly where the levels are deployable: of ``gates`` the order loss, of
            ``fractional`` the distance from whole levels.
        gate_learning_rate: Root mean square step of gates (0.01 if absent) or fractional levels (0.02).
        schedule: Shares of the phases; those of :class:`PhaseSchedule`, of a supernet sandwich steps alone.
        probe_every: Of ``gates`` and ``fractional``: of the steps whose levels are drawn, each how many-th has probes.
        max_ratio: Largest split ratio that is tried; a larger one where the budget cannot be met without. Levels beyond
            are expensive, seldom chosen, and while they are untrained they spoil the training of all others.
        near: Share of the networks drawn at random that cost about as much as the budget; the others take every level
            with equal chance.
        validation: Of ``supernet``, and needed there: (inputs, targets) on which networks are scored; only read.
        front: Of ``supernet``: further budgets that it is to be good at.
        supernet: How a supernet is trained and selected from.
        resume: Where an interrupted search of the same arguments stood (:meth:`SearchProgress.state`).
        callback: Called after every step; what it raises ends the search.

    Returns:
        Of ``supernet`` a :class:`SupernetResult`, which yields networks for other budgets without further training.

    Raises:
        ArchitectureError: If there is nothing to learn, or the fixed form does not equal the searched one.
        BudgetError: If the budget makes no sense for this network, an argument is out of its range or of another
            method, or ``resume`` belongs to another search.
        DataError: If ``batches`` or ``validation`` yields nothing, or cannot be iterated as often as it must be.
        TrainingDiverged: If the loss is no longer finite.
    """
    arguments = SearchArguments(
        method,
        steps,
        seed,
        complexity_exponent,
        penalty,
        gate_learning_rate,
        probe_every,
        max_ratio,
        near,
        recipe or Recipe(),
        schedule,
        supernet,
    )
    search = _Search(model, loss_fn, budget, arguments)
    if method == "supernet":
        if validation is None:
            raise DataError("method 'supernet' needs validation: batches on which networks are scored")
        return search.supernet(batches, validation, front, resume, callback)
    if validation is not None or front:
        raise BudgetError(f"validation and front go with method 'supernet', not with {method!r}")
    return search.gradients(batches, resume, callback)


class _Search:
    """One call of :func:`learn_split`."""

    def __init__(self, model: nn.Module, loss_fn: LossFn, budget: Budget, arguments: SearchArguments) -> None:
        self.model = model
        self.loss_fn = loss_fn
        self.budget = budget
        self.arguments = arguments
        layers = dpconv_layers(model)
        self.full = budget_costs(model, budget)
        self.layers = [layers[name] for name in self.full.names]
        self.target = budget.resolve(model)
        self.front: list[float] = []
        self.table = capped(self.full, self.layers, arguments.max_ratio, [self.target])

    def gradients(
        self, batches: Batches, resume: SearchState | None, callback: Callable[[SearchProgress], None] | None
    ) -> SplitResult:
        """Search by ``gates`` or ``fractional``."""
        return self._result(*self._steps(self._prober(), batches, resume, callback))

    def supernet(
        self,
        batches: Batches,
        validation: Iterable[tuple[Tensor, Tensor]],
        front: Sequence[Budget],
        resume: SearchState | None,
        callback: Callable[[SearchProgress], None] | None,
    ) -> SupernetResult:
        """Train a supernet and select from it."""
        check_validation(validation, self.arguments.seed, self.layers[0].gates.device)
        options = self.arguments.supernet or SupernetOptions()
        targets = self.front = [self._target_of(other) for other in front]
        self.table = capped(self.full, self.layers, self.arguments.max_ratio, [self.target, *targets])
        trained = TrainedSupernet(
            self.model,
            self.layers,
            self.table,
            recipe=self.arguments.recipe,
            loss_fn=self.loss_fn,
            validation=validation,
            seed=self.arguments.seed,
            options=options,
        )
        learner = SupernetMethod(
            self.layers,
            self.table,
            self.target,
            seed=self.arguments.seed,
            options=options,
            near=self.arguments.near,
            targets=targets,
            select=lambda: trained.choose(self.target, targets),
        )
        projection, history = self._steps(learner, batches, resume, callback)
        recalibrate(self.model, batches, self.arguments.seed, self.layers[0].gates.device)
        return SupernetResult.of(self._result(projection, history), trained, self.budget, batches)

    def _target_of(self, budget: Budget) -> float:
        self.budget.check_comparable(budget)
        return budget.resolve(self.model)

    def _prober(self) -> SearchMethod:
        arguments = self.arguments
        if arguments.method == "gates":
            return GatesMethod(
                self.layers,
                self.table,
                self.target,
                complexity_exponent=arguments.complexity_exponent,
                penalty=arguments.penalty,
                learning_rate=arguments.rate,
                seed=arguments.seed,
                near=arguments.near,
                probe_every=arguments.probe_every,
                horizon=arguments.horizon,
            )
        return FractionalMethod(
            self.layers,
            self.table,
            self.target,
            penalty=arguments.penalty,
            learning_rate=arguments.rate,
            seed=arguments.seed,
            near=arguments.near,
            probe_every=arguments.probe_every,
            horizon=arguments.horizon,
        )

    def _steps(
        self,
        learner: SearchMethod,
        batches: Batches,
        resume: SearchState | None,
        callback: Callable[[SearchProgress], None] | None,
    ) -> tuple[Projection, list[StepRecord]]:
        arguments = self.arguments
        learner.check(arguments.phases)
        plan = {
            **arguments.to_dict(),
            "target": self.target,
            "front": self.front,
            "unit": self.budget.unit,
            "scope": self.budget.scope,
            "input_shape": list(self.budget.input_shape),
        }
        loop = SearchLoop(
            self.model,
            learner,
            self.loss_fn,
            recipe=arguments.recipe,
            schedule=arguments.phases,
            steps=arguments.steps,
            seed=arguments.seed,
            plan=plan,
        )
        try:
            with seeded(arguments.seed, loop.device):
                return loop.run(batches, resume=resume, callback=callback)
        finally:
            loop.release()

    def _result(self, projection: Projection, history: list[StepRecord]) -> SplitResult:
        return SplitResult(
            active_channels=self.table.active_channels(projection.levels),
            fixed=to_fixed(self.model, input_shape=self.budget.input_shape),
            cost=projection.cost,
            target=self.target,
            within_budget=projection.within_budget,
            note=budget_note(self.budget, self.full, self.target, projection),
            history=history,
        )
