"""The interface of a search method for :func:`partialnet.learn_split`: an object of options that can search.

A new method is a module with a class of options; ``learn_split(..., method=Options(...))`` takes any.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from partialnet.errors import BudgetError
from partialnet.search.phases import PhaseSchedule
from partialnet.search.result import SplitResult
from partialnet.search.task import SearchTask


class MethodOptions(ABC):
    """Options of a method, and the search by it.

    Attributes:
        name: Name of the method.
        schedule: Default shares of the phases.
        needs_validation: Whether it scores networks on validation batches, and serves further budgets.
        keywords: Options by keyword of ``learn_split``, for a method that is given by its name.
    """

    name: ClassVar[str]
    schedule: ClassVar[PhaseSchedule] = PhaseSchedule()
    needs_validation: ClassVar[bool] = False
    keywords: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def plan(self) -> dict[str, Any]:
        """Return plain values that an interrupted search and its resumption must share, under their keywords."""
        return {keyword: getattr(self, option) for keyword, option in self.keywords.items()}

    @abstractmethod
    def search(self, task: SearchTask) -> SplitResult:
        """Train the task's network and settle on splits within its budget."""


def check_positive(name: str, value: float) -> None:
    """Refuse a number that is not positive and finite.

    Raises:
        BudgetError: If it is not; the message gives its name and value.
    """
    if not (math.isfinite(value) and value > 0):
        raise BudgetError(f"{name} is {value}, but must be positive and finite")


def check_factor(name: str, value: float) -> None:
    """Refuse a factor that is negative or not finite.

    Raises:
        BudgetError: If it is; the message gives its name and value.
    """
    if not (math.isfinite(value) and value >= 0):
        raise BudgetError(f"{name} is {value}, but must be finite and not negative")


def check_count(name: str, value: int) -> None:
    """Refuse a count below 1.

    Raises:
        BudgetError: If it is; the message gives its name and value.
    """
    if value < 1:
        raise BudgetError(f"{name} is {value}, but must be at least 1")
