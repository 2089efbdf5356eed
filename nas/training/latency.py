"""The latency table of a study: measured on this machine, from the user's cache, or from a file under a data root."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from nas.definition.shapes import shapes_of
from nas.definition.study import StudyDefinition
from nas.errors import DefinitionError, InputError
from nas.findings.milliseconds import table_sentences
from nas.probes.device import device_name
from nas.probes.joined_table import joined, joined_hash
from nas.probes.table import DeviceTable, Step, build_local_table, cached_table, local_job, network_hash
from nas.training.build import build_network
from partialnet.errors import BudgetError
from partialnet.search.cost import layer_costs
from partialnet.search.latency_rows import shape_of


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
        DefinitionError: If there is no such file; if its table lacks a layer of the study's network or the constant; or
            if it was measured under other circumstances.
        InputError: If the device is missing, or lacks the runtime.
    """
    spec = definition.latency
    if spec is None or spec.table is None:
        return None
    if spec.table != "auto":
        return _from_file(definition, build_network(definition, classes), spec.table, data_roots)
    networks, tables = _networks(definition, classes), {}
    for place, (name, network) in enumerate(networks.items(), start=1):
        told = tell if len(networks) == 1 else _of_shape(tell, f"{name} ({place} of {len(networks)} shapes)")
        job = local_job(network, definition.data.input_shape, definition.model.model, spec)
        tables[name] = cached_table(job, partial(build_local_table, job, told))[0]
    return joined(tables)


def _networks(definition: StudyDefinition, classes: int) -> dict[str, nn.Module]:
    """Return the searchable networks of a study by their shape: the study's own, which baselines have, is the first."""
    shapes: list[Mapping[str, Any]] = [{}, *shapes_of(definition.space)]
    networks = [build_network(definition.shaped(shape), classes) for shape in shapes]
    return {shape_of(network): network for network in networks}


def _of_shape(tell: Callable[[Step], object], name: str) -> Callable[[Step], object]:
    return lambda step: tell(step._replace(what=f"{name}: {step.what}"))


def _from_file(definition: StudyDefinition, network: nn.Module, name: str, data_roots: Sequence[Path]) -> DeviceTable:
    where = f"{definition.name}: latency.table"
    path = next((root / name for root in data_roots if (root / name).is_file()), None)
    if path is None:
        searched = ", ".join(map(str, data_roots)) or "no folder: give --data-root or NAS_DATA_ROOTS"
        raise DefinitionError(f"{where}: there is no file {name} under the data roots ({searched})")
    try:
        table = DeviceTable.load(path)
        _check_circumstances(definition, table)
        layer_costs(network, definition.data.input_shape, "latency", "network", table.table)
    except (InputError, BudgetError) as error:
        raise DefinitionError(f"{where}: {name}: {error}") from error
    return table


def _check_circumstances(definition: StudyDefinition, table: DeviceTable) -> None:
    """Refuse a table of another runtime, number of threads or batch; or of another device under a hard limit.

    Raises:
        InputError: If a circumstance differs; the message gives both, and what would be right.
    """
    spec, known = definition.latency, table.table.circumstances
    assert spec is not None
    for key, its, mine in (
        ("runtime", known.runtime.partition(" ")[0], spec.runtime),
        ("threads", known.threads, spec.threads),
        ("batch", known.batch, spec.batch),
    ):
        if its != mine:
            raise InputError(
                f"it was measured with {key} {its}, but the study says {key} {mine}; change the study, or measure "
                "another table (nas probe table)"
            )
    if definition.budget.at_most is not None and (elsewhere := _elsewhere(definition, table)):
        raise InputError(
            f"{elsewhere}; a hard limit (budget.at_most) needs measurements on the device itself: run the study there, "
            "or give budget.target instead"
        )


def _elsewhere(definition: StudyDefinition, table: DeviceTable) -> str | None:
    """Return in words that a table was measured on another device than this one; None if it was not."""
    spec, its = definition.latency, table.table.circumstances.device
    assert spec is not None
    mine = device_name(spec.device)
    return None if its == mine else f"it was measured on {its}, but this machine is {mine}"


def table_notes(table: DeviceTable, definition: StudyDefinition, classes: int) -> list[str]:
    """Return sentences on a table for people: origin, error, and what makes it uncertain."""
    notes = table_sentences(table.to_dict())
    if definition.latency is not None and definition.latency.table != "auto":
        elsewhere = _elsewhere(definition, table)
        notes += [] if elsewhere is None else [
            f"the table belongs to another device: {elsewhere}; targets are milliseconds of that device, and latencies "
            "that are measured here are not compared with them"
        ]
    networks = _networks(definition, classes).values()
    if table.network != joined_hash(network_hash(network, definition.data.input_shape) for network in networks):
        notes.append("the table belongs to another network with the same layers, so its constant may be off")
    return notes
