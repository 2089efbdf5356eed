"""``python -m nas.training.precheck``: checks the data and the targets of a study for a process without torch.

It reads a definition as JSON from standard input, and writes one JSON object to standard output: ``faults``, a line
for each with the key that it is about, ``reference_point`` if there is none, and ``notes``, sentences about the
networks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nas.definition.study import StudyDefinition, parse_study
from nas.errors import DefinitionError
from nas.settings import Settings
from nas.training.data import open_data
from nas.training.feasibility import check_feasible, reference_point
from partialnet.errors import PartialNetError

T = TypeVar("T")


def precheck(definition: StudyDefinition, data_roots: Sequence[Path]) -> dict[str, Any]:
    """Return all faults of a study's data and targets, its reference point if there is none, and notes on its networks.

    A study with a latency table is checked by its search, which measures the table.

    Args:
        definition: Definition of the study.
        data_roots: Folders to search for the data set.
    """
    faults: list[str] = []

    def attempt(place: str, check: Callable[[], T]) -> T | None:
        try:
            return check()
        except DefinitionError as error:
            faults.append(str(error).removeprefix(f"{definition.name}: "))
        except PartialNetError as error:
            faults.append(f"{place}: {error}")
        return None

    splits = attempt("data.name", lambda: open_data(definition, data_roots))
    classes = None if splits is None else len(splits.info.class_names)
    if definition.latency is None or definition.latency.table is None:
        notes = attempt("model", lambda: check_feasible(definition, classes)) or []
        point = None if faults else reference_point(definition, classes)
    else:
        point, notes = None, ["the search measures the latency table first, and then checks the targets with it"]
    return {"faults": faults, "reference_point": point, "notes": notes}


def main() -> None:
    """Check the definition of standard input."""
    definition = parse_study(json.load(sys.stdin))
    json.dump(precheck(definition, Settings().data_roots), sys.stdout)


if __name__ == "__main__":
    main()
