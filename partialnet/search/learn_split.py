"""Learning the split ratios of any module that contains ``DPConv2d`` layers, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, get_args

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
"""Options by name of the method, for callers who give only the name."""
METHODS: tuple[str, ...] = get_args(Method)
# Values of options in states of searches whose method does not have them.
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

    Methods: ``"gates"``, the paper's, corrected; ``"fractional"``, one number for each choice, kept on the budget at
    each step; ``"supernet"``, one training for all budgets. The same seed and batches give the same decisions on one
    machine, interrupted or not (bitwise on a CPU).

    Args:
        model: Network to train in place, on its device; it stays in training mode with its gates at the final splits.
        batches: Batches of (inputs, targets), iterated again at their end. A resumed search starts at the pass of its
            interruption. A loader must therefore draw from torch's global generator, which is seeded for each step, or
            follow its ``set_epoch``; it must not use a generator of its own or that of numpy.
        loss_fn: Function of (outputs, targets) that returns the mean loss of the batch.
        budget: Budget that is met within 2 %; otherwise the result gives the nearest costs.
        method: Options of a method (:class:`GatesOptions`, :class:`FractionalOptions`, :class:`SupernetOptions`), or
            its name, which stands for its default options.
        steps: Number of steps of all phases together.
        seed: Seed of sampled levels, dropout and stochastic depth. The global generators are restored afterwards.
        recipe: Optimiser, schedule, clipping, precision; ``loss_fn`` decides label smoothing.
        complexity_exponent: Option of ``gates``, for a method that is given by its name.
        penalty: Option of ``gates`` and ``fractional``, for a method that is given by its name.
        gate_learning_rate: Option ``learning_rate`` of these two, for a method that is given by its name.
        schedule: Shares of the phases; None for those of the method.
        probe_every: Option of ``gates`` and ``fractional``, for a method that is given by its name.
        max_ratio: Largest split ratio to try, unless the budget needs a larger one. Levels above it are expensive and
            seldom chosen, and while they are untrained they spoil the training of all others.
        near: Share of random networks with a cost close to the budget; the others draw each level with equal
            probability.
        validation: Batches of (inputs, targets) that score networks, for ``supernet``, which needs them; they are only
            read.
        front: Further budgets that a ``supernet`` should serve well.
        supernet: Options of ``supernet``, for a method that is given by its name.
        resume: State of an interrupted search with the same arguments (:meth:`SearchProgress.state`).
        callback: Function to call after each step; an exception that it raises ends the search.

    Returns:
        Result of the search; for ``supernet`` a :class:`SupernetResult`, which offers networks for other budgets
        without further training.

    Raises:
        ArchitectureError: If there is nothing to learn, or the fixed form does not equal the searched one.
        BudgetError: If the budget is impossible for this network, an argument is out of its range or belongs to another
            method, or ``resume`` belongs to another search.
        DataError: If ``batches`` or ``validation`` yields nothing, or cannot be iterated as often as needed.
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
    """Return the options of a method, from the options themselves or from its name and keywords.

    Raises:
        BudgetError: If the method is unknown, or a keyword belongs to another method.
    """
    name = method if isinstance(method, str) else method.name
    if supernet is not None and supernet.name != name:
        raise BudgetError(f"supernet options work only with method {supernet.name!r}, not with {name!r}")
    if isinstance(method, MethodOptions):
        beside = [*given, *(["supernet"] if supernet is not None else [])]
        if beside:
            raise BudgetError(f"method is {method!r} already, so leave out {', '.join(beside)}: give options there")
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
        raise BudgetError(f"validation and front work only with method {others}, not with {options.name!r}")
