"""The latency table of a study: measured on this machine, from the user's cache, or from a file under a data root."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from nas.definition.study import StudyDefinition
from nas.errors import DefinitionError, InputError
from nas.probes.table import DeviceTable, Step, build_local_table, cached_table, local_job, network_hash
from nas.training.build import build_network
from partialnet.errors import BudgetError
from partialnet.search.cost import layer_costs


def study_table(
    definition: StudyDefinition,
    classes: int,
    data_roots: Sequence[Path],
    tell: Callable[[Step], object] = lambda _: None,
) -> DeviceTable | None:
    """Return the latency table that a study asks for; None if it asks for none.

    Args:
        definition: Definition of the study.
        classes: Number of classes of its data.
        data_roots: Folders to search for the file of a table.
        tell: Function to call before each timing, if the table is measured now.

    Raises:
        DefinitionError: If there is no such file, or its table lacks a layer of the study's network or the constant.
        InputError: If the device is missing, or lacks the runtime.
    """
    spec = definition.latency
    if spec is None or spec.table is None:
        return None
    network, shape = build_network(definition, classes), definition.data.input_shape
    if spec.table == "auto":
        job = local_job(network, shape, definition.model.model, spec)
        return cached_table(job, lambda: build_local_table(job, tell))[0]
    return _from_file(definition, network, spec.table, data_roots)


def _from_file(definition: StudyDefinition, network: nn.Module, name: str, data_roots: Sequence[Path]) -> DeviceTable:
    where = f"{definition.name}: latency.table"
    path = next((root / name for root in data_roots if (root / name).is_file()), None)
    if path is None:
        searched = ", ".join(map(str, data_roots)) or "no folder: give --data-root or NAS_DATA_ROOTS"
        raise DefinitionError(f"{where}: there is no file {name} under the data roots ({searched})")
    try:
        table = DeviceTable.load(path)
        layer_costs(network, definition.data.input_shape, "latency", "network", table.table)
    except (InputError, BudgetError) as error:
        raise DefinitionError(f"{where}: {error}") from error
    return table


def table_notes(table: DeviceTable, definition: StudyDefinition, classes: int) -> list[str]:
    """Return sentences on a table for people: origin, error, and what makes it uncertain."""
    notes = [f"latency table: {table.title} on {table.fingerprint}"]
    notes.append(table.check.sentence() if table.check else "its error is unknown: no whole networks corrected it")
    notes += [f"the table is uncertain: {fault}" for fault in table.faults]
    if table.network != network_hash(build_network(definition, classes), definition.data.input_shape):
        notes.append("the table belongs to another network with the same layers, so its constant may be off")
    return notes
