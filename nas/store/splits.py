"""Conditions on the split of a layer, such as ``3 < 1/4``: they select trials by their ratios."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, select

from nas.definition.space import parse_ratio
from nas.errors import InputError
from nas.store.tables import CandidateTable, SplitTable

_CONDITION = re.compile(r"\s*(?P<layer>\S+?)\s*(?P<op><=|>=|<|>|=)\s*(?P<ratio>[0-9./eE+-]+)\s*")
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq}
)


@dataclass(frozen=True)
class SplitCondition:
    """A condition on the ratio of one layer.

    Args:
        layer: Module name of the layer, or its zero-based index in forward order.
        op: Comparison: ``<``, ``<=``, ``>``, ``>=`` or ``=``.
        ratio: Split ratio n/C to compare with.
    """

    layer: str | int
    op: str
    ratio: float

    @classmethod
    def parse(cls, text: str) -> SplitCondition:
        """Return the condition of a text such as ``3 < 1/4`` or ``stages.0.blocks.1.mixer >= 0.5``.

        Raises:
            InputError: If the text is invalid.
        """
        found = _CONDITION.fullmatch(text)
        try:
            if found is not None:
                layer, ratio = found["layer"], parse_ratio(found["ratio"])
                return cls(int(layer) if layer.isdecimal() else layer, found["op"], float(ratio))
        except ValueError:
            pass
        raise InputError(
            f"split: {text[:80]!r} is no condition; give a layer (index or name), one of {', '.join(_COMPARE)}, and a "
            "ratio, such as '3 < 1/4'"
        )

    def holds(self, study_id: str, shape: str, number: Any, position: Any = None) -> ColumnElement[bool]:
        """Return the condition that a trial has a network with such a split.

        Args:
            study_id: Id of the study.
            shape: Input shape of the study.
            number: Column with the number of the trial.
            position: Column with the index of the network; None if any network of the trial may have the split.
        """
        query = (
            select(CandidateTable.number)
            .join(SplitTable, SplitTable.architecture_id == CandidateTable.architecture_id)
            .where(
                CandidateTable.study_id == study_id, CandidateTable.number == number, SplitTable.input_shape == shape
            )
        )
        if position is not None:
            query = query.where(CandidateTable.position == position)
        named = SplitTable.index if isinstance(self.layer, int) else SplitTable.layer
        return query.where(named == self.layer, _COMPARE[self.op](SplitTable.ratio, self.ratio)).exists()
