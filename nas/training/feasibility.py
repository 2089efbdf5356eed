"""Whether a study's networks can be built and its targets reached, and its reference point. Loads torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from nas.definition.shapes import shapes_of
from nas.definition.space import extremes
from nas.definition.study import StudyDefinition
from nas.errors import DefinitionError
from nas.probes.counted import probe_counts
from nas.probes.predicted import probe_predicted
from nas.training.build import WITHOUT_VALUES, aim, budget_for, build_largest, build_network, build_uniform
from partialnet.data.catalog import DATASETS
from partialnet.errors import ArchitectureError, BudgetError
from partialnet.models.partialnet import PartialNet
from partialnet.networks import conversion_of
from partialnet.search.cost import all_costs, allowed
from partialnet.search.latency_table import LatencyTable

_CLASSES_UNTIL_READ = 1000


def class_count(definition: StudyDefinition) -> int:
    """Return the number of classes before the data set is open; 1000 for an image folder, whose number is unknown."""
    return DATASETS[definition.data.name].classes or _CLASSES_UNTIL_READ


def check_feasible(
    definition: StudyDefinition, classes: int | None = None, table: LatencyTable | None = None
) -> list[str]:
    """Check before any training that the networks can be built and the targets reached.

    Args:
        definition: Definition of the study.
        classes: Number of classes, if it is already known.
        table: Latency table of the study, if it has one.

    Returns:
        Sentences for people: the reachable targets, and unusual but allowed settings.

    Raises:
        DefinitionError: If a network cannot be built or split, or no target of the space can be reached.
    """
    known = classes or DATASETS[definition.data.name].classes
    classes = known or class_count(definition)
    own = definition.shaped({})
    network = _sketch(own, classes)
    with WITHOUT_VALUES:
        for ratio in definition.baselines:
            build_uniform(own, classes, ratio)
    notes = []
    if known is None:
        notes.append(f"costs are shown for {classes} classes; the folder decides their number")
    if not isinstance(network, PartialNet):
        notes.append(_converted(definition, classes))
    elif network.map_sizes(definition.data.size, definition.data.size)[-1] == (1, 1):
        seen = own.model.options.get("resolution") or definition.data.size
        notes.append(
            f"the maps of the last stage are 1x1 at images of {seen} pixels: attention there has "
            "nothing to attend to; a smaller patch_size or merge_strides keep larger ones"
        )
    if definition.sweep.trials > 0:
        shapes = shapes_of(definition.space)
        if len(shapes) == 1:
            return notes + _check_targets(own, network, table)
        return notes + _check_shapes(definition, classes, shapes, table)
    return notes


def _check_shapes(
    definition: StudyDefinition, classes: int, shapes: Sequence[Mapping[str, Any]], table: LatencyTable | None
) -> list[str]:
    """Check the targets with each swept shape of the network.

    Returns:
        Sentences on each shape.

    Raises:
        DefinitionError: If a shape cannot be built, or none reaches a target.
    """
    notes, refused = [], []
    for shape in shapes:
        study, name = definition.shaped(shape), ", ".join(f"{key} {value:g}" for key, value in shape.items())
        network = _sketch(study, classes)
        try:
            found = _check_targets(study, network, table)
        except DefinitionError as error:
            refused.append(error)
            found = [str(error).removeprefix(f"{definition.name}: space: ")]
        notes += [f"{name}: {note}" for note in found]
    if len(refused) == len(shapes):
        raise DefinitionError("\n".join(map(str, refused)))
    return notes


def _converted(definition: StudyDefinition, classes: int) -> str:
    """Return which convolutions of a network of another family are converted, and why the others stay."""
    channels = definition.data.input_shape[0]
    with WITHOUT_VALUES:
        report = conversion_of(definition.model.architecture({}, in_chans=channels, num_classes=classes))
    stay = Counter(row.reason for row in report.left)
    why = ", ".join(f"{count} x {reason}" for reason, count in stay.most_common())
    learned = f"{len(report.replaced)} of {len(report.rows)} convolutions learn their split"
    return f"{learned}; the others stay: {why}" if why else learned


def _sketch(definition: StudyDefinition, classes: int) -> nn.Module:
    """Build the network to be checked; it has values only if its inference form is counted."""
    if definition.budget.scope != "conv":
        return build_network(definition, classes)
    with WITHOUT_VALUES:
        return build_network(definition, classes)


def _check_targets(definition: StudyDefinition, network: nn.Module, table: LatencyTable | None) -> list[str]:
    spec, shape = definition.budget, definition.data.input_shape
    targets = [float(target) for target in extremes(definition.space["target"])]
    low, high = min(targets), max(targets)
    try:
        every = all_costs(network, shape, spec.unit, spec.scope, table)
        costs = sorted(budget_for(spec, target, shape, table).target_of(every) for target in (low, high))
        reachable = allowed(network, every)
    except (ArchitectureError, BudgetError) as error:
        raise DefinitionError(f"{definition.name}: budget: {error}") from error
    minimum, maximum = reachable.minimum, reachable.maximum
    if spec.unit == "latency":
        return _check_milliseconds(definition, (low, high), (minimum, maximum), aim(spec, table))
    if spec.scope == "conv":
        reach = f"b from {math.sqrt(every.full / maximum):.3g} to {math.sqrt(every.full / minimum):.3g}"
    else:
        reach = f"costs from {minimum:,.0f} to {maximum:,.0f} {spec.unit}"
    given = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    if costs[1] < minimum * 0.98 or costs[0] > maximum * 1.02:
        raise DefinitionError(
            f"{definition.name}: space: target {given} in scope {spec.scope!r} cannot be reached by this network; "
            f"reachable: {reach}"
        )
    notes = [f"reachable targets in scope {spec.scope}: {reach}"]
    if costs[0] < minimum * 0.98 or costs[1] > maximum * 1.02:
        notes.append(
            f"a part of the targets {given} cannot be reached; such trials take the most expensive network "
            "below the target, or the cheapest, and are marked"
        )
    return notes


def _check_milliseconds(
    definition: StudyDefinition, targets: tuple[float, float], reach: tuple[float, float], aimed: float
) -> list[str]:
    """Compare the targets of a study with the fastest and the slowest network by its latency table.

    Args:
        definition: Definition of the study.
        targets: Lowest and highest target in milliseconds.
        reach: Milliseconds of the fastest and of the slowest network.
        aimed: Share of a target at which a search aims.
    """
    (low, high), (fastest, slowest), limit = targets, reach, definition.budget.at_most
    given = f"{low:g} ms" if low == high else f"{low:g} to {high:g} ms"
    what = f"target {given}" if limit is None else f"at_most {limit:g} ms"
    span = f"the fastest network takes {fastest:.3f} ms and the slowest {slowest:.3f} ms, by the latency table"
    top = high if limit is None else limit
    if top < fastest * (0.98 if limit is None else 1):
        raise DefinitionError(
            f"{definition.name}: budget: {what} cannot be reached by this network: {span}; allow more milliseconds, or "
            "take smaller images or a smaller network"
        )
    if low * aimed > slowest * 1.02:
        raise DefinitionError(f"{definition.name}: budget: {what} limits nothing: {span}")
    notes = [f"reachable: {span}"]
    if limit is not None:
        notes.append(
            f"the search aims at {top * aimed:.3f} ms, {1 - aimed:.1%} below the limit of {limit:g} ms: this leaves "
            "room for its tolerance and for the error of the table"
        )
    if low * aimed < fastest * 0.98 or high * aimed > slowest * 1.02:
        notes.append(
            f"a part of the targets {given} cannot be reached; such trials take the slowest network below the target, "
            "or the fastest, and are marked"
        )
    return notes


def reference_point(
    definition: StudyDefinition, classes: int | None = None, table: LatencyTable | None = None
) -> dict[str, float]:
    """Return the reference point of the hypervolume, the worst scores that count: untrained scores and the costs at n =
    C, with the widest MLPs and the largest shape of the space.

    Args:
        definition: Definition of the study.
        classes: Number of classes, if it is already known.
        table: Latency table of the study, if it has one.
    """
    classes = classes or class_count(definition)
    largest = {key: max(shape[key] for shape in shapes_of(definition.space)) for key in shapes_of(definition.space)[0]}
    network, shape = build_largest(definition.shaped(largest), classes), definition.data.input_shape
    costs = {measured.metric: measured.value for measured in probe_counts(network, shape)}
    if table is not None:
        costs["predicted_ms"] = probe_predicted(network, shape, table).value
    return {"top1": 0.0, "top5": 0.0, "loss": math.log(classes), **costs}
