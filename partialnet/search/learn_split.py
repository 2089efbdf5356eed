"""Learning the split ratios of any module that contains ``DPConv2d`` layers, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor, nn

from partialnet.errors import BudgetError, DataError
from partialnet.search.arguments import SearchArguments
from partialnet.search.batches import Batches
from partialnet.search.budget import Budget
from partialnet.search.fractional import FractionalOptions
from partialnet.search.gates import GatesOptions
from partialnet.search.loop import LossFn
from partialnet.search.options import MethodOptions
from partialnet.search.phases import PhaseSchedule
from partialnet.search.result import SearchProgress, SplitResult
from partialnet.search.state import SearchState
from partialnet.search.supernet_options import SupernetOptions
from partialnet.search.task import SearchTask
from partialnet.train.recipe import Recipe

__all__ = ["METHODS", "OPTIONS", "Batches", "LossFn", "Method", "learn_split"]

Method = Literal["gates", "fractional", "supernet"]
OPTIONS: Mapping[str, type[MethodOptions]] = MappingProxyType(
    {options.name: options for options in (GatesOptions, FractionalOptions, SupernetOptions)}
)
"""Name of a method to its options, for those who give the name alone."""
METHODS: tuple[str, ...] = tuple(OPTIONS)
# What states of searches say of options that a method does not have.
_ABSENT: Mapping[str, Any] = MappingProxyType(
    {"complexity_exponent": 1.0, "penalty": 0.9, "gate_learning_rate": 2e-2, "probe_every": 1, "supernet": None}
)


def learn_split(
    model: nn.Module,
    batches: Batches,
    loss_fn: LossFn,
    budget: Budget,
    *,
    method: Method | MethodOptions = "gates",
    steps: int,
    seed: int = 0,
    recipe: Recipe | None = None,
    complexity_exponent: float | None = None,
    penalty: float | None = None,
    gate_learning_rate: float | None = None,
    schedule: PhaseSchedule | None = None,
    probe_every: int | None = None,
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
        method: Options of a method (:class:`GatesOptions`, :class:`FractionalOptions`, :class:`SupernetOptions`), or
            its name, which stands for its options as they are by default.
        steps: Number of steps of all phases together.
        seed: Seed of sampled levels, dropout and stochastic depth. The global generators are put back afterwards.
        recipe: Optimiser, schedule, clipping, precision; label smoothing is the business of ``loss_fn``.
        complexity_exponent: Option of ``gates``, where the method is given by its name.
        penalty: Option of ``gates`` and ``fractional``, where the method is given by its name.
        gate_learning_rate: Option ``learning_rate`` of these two, where the method is given by its name.
        schedule: Shares of the phases; those of the method if absent.
        probe_every: Option of ``gates`` and ``fractional``, where the method is given by its name.
        max_ratio: Largest split ratio that is tried; a larger one where the budget cannot be met without. Levels beyond
            are expensive, seldom chosen, and while they are untrained they spoil the training of all others.
        near: Share of the networks drawn at random that cost about as much as the budget; the others take every level
            with equal chance.
        validation: Batches (inputs, targets) on which ``supernet`` scores networks, and needed there; only read.
        front: Further budgets that a ``supernet`` is to be good at.
        supernet: Options of ``supernet``, where the method is given by its name.
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
    given = {
        "complexity_exponent": complexity_exponent,
        "penalty": penalty,
        "gate_learning_rate": gate_learning_rate,
        "probe_every": probe_every,
    }
    options = _options(method, {key: value for key, value in given.items() if value is not None}, supernet)
    _check_validation(options, validation, front)
    task = SearchTask(
        model,
        batches,
        loss_fn,
        budget,
        SearchArguments(steps, seed, max_ratio, near, recipe or Recipe(), schedule or options.schedule),
        plan={"method": options.name, **_ABSENT, **options.plan()},
        validation=validation,
        front=front,
        resume=resume,
        callback=callback,
    )
    return options.search(task)


def _options(
    method: Method | MethodOptions, given: Mapping[str, Any], supernet: SupernetOptions | None
) -> MethodOptions:
    """Return the options of a method, whether they are given or its name and keywords are.

    Raises:
        BudgetError: If the method is unknown, or a keyword belongs to another one.
    """
    name = method if isinstance(method, str) else method.name
    if supernet is not None and (supernet.name != name or not isinstance(method, str)):
        raise BudgetError(f"supernet options go with method {supernet.name!r}, not with {name!r}")
    if isinstance(method, MethodOptions):
        if given:
            raise BudgetError(f"{', '.join(given)} belong into the options of the method, beside {method!r}")
        return method
    if method not in OPTIONS:
        raise BudgetError(f"method is {method!r}, but must be one of {', '.join(OPTIONS)}, or options such as theirs")
    kind = OPTIONS[method]
    foreign = [keyword for keyword in given if keyword not in kind.keywords]
    if foreign:
        own = ", ".join(kind.keywords) or "none"
        raise BudgetError(f"method {method!r} has no use for {', '.join(foreign)}; keywords of its own: {own}")
    return supernet or kind(**{kind.keywords[keyword]: value for keyword, value in given.items()})


def _check_validation(
    options: MethodOptions, validation: Iterable[tuple[Tensor, Tensor]] | None, front: Sequence[Budget]
) -> None:
    if options.needs_validation and validation is None:
        raise DataError(f"method {options.name!r} needs validation: batches on which networks are scored")
    if not options.needs_validation and (validation is not None or front):
        others = " or ".join(repr(name) for name, kind in OPTIONS.items() if kind.needs_validation)
        raise BudgetError(f"validation and front go with method {others}, not with {options.name!r}")
