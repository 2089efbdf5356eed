"""The latency table that a study keeps from its first run on, so that all its trials use the same one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.store import Store
from nas.study import Study

if TYPE_CHECKING:
    from nas.probes.table import DeviceTable, Step


def recorded_table(
    store: Store,
    study: Study,
    data_roots: Sequence[Path],
    classes: int | None = None,
    tell: Callable[[Step], object] = lambda _: None,
) -> DeviceTable | None:
    """Return the latency table of a study, which the first call records; None if the study asks for none.

    Args:
        store: Store of the study.
        study: Study with its definition.
        data_roots: Folders to search for the file of a table.
        classes: Number of classes of its data; None if its data are recorded, or were never looked at.
        tell: Function to call before each timing, if the table is measured now.

    Raises:
        DefinitionError: If the table's file is missing or does not fit the study's network.
        InputError: If the device is missing, or lacks the runtime.
    """
    spec = study.definition.latency
    if spec is None or spec.table is None:
        return None
    from nas.probes.table import DeviceTable
    from nas.training.feasibility import class_count
    from nas.training.latency import study_table

    known = store.latency_table(study.id)
    if known is not None:
        return DeviceTable.from_dict(known, f"the latency table of {study.name}")
    if classes is None:
        classes = class_count(study.definition) if study.data is None else len(study.data.classes)
    table = study_table(study.definition, classes, data_roots, tell)
    assert table is not None
    store.record_latency_table(study.id, table.to_dict())
    return table
