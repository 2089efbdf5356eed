"""Whether what a study asks for can be built and reached, and what its costs are measured against. Loads torch."""

from __future__ import annotations

import math

from nas.definition.space import extremes
from nas.definition.study import StudyDefinition
from nas.errors import DefinitionError
from nas.probes.counted import probe_counts
from nas.training.build import WITHOUT_VALUES, budget_for, build_network, build_uniform
from partialnet.data.catalog import DATASETS
from partialnet.errors import ArchitectureError, BudgetError
from partialnet.layers.dpconv import dpconv_layers
from partialnet.models.partialnet import PartialNet
from partialnet.search.budget import reachable_costs

_CLASSES_UNTIL_READ = 1000


def class_count(definition: StudyDefinition) -> int:
    """Return the number of classes as far as it is known before the data set is open; 1000 for an image folder."""
    return DATASETS[definition.data.name].classes or _CLASSES_UNTIL_READ


def check_feasible(definition: StudyDefinition, classes: int | None = None) -> list[str]:
    """Check before anything is trained that the networks can be built and the targets reached.

    Args:
        definition: The study.
        classes: If it is known already.

    Returns:
        Sentences worth telling: which targets are reachable, and what is odd but allowed.

    Raises:
        DefinitionError: If a network cannot be built or split, or no target of the space can be reached.
    """
    known = classes or DATASETS[definition.data.name].classes
    classes = known or class_count(definition)
    network = _sketch(definition, classes)
    with WITHOUT_VALUES:
        for ratio in definition.baselines:
            build_uniform(definition, classes, ratio)
    notes = []
    if known is None:
        notes.append(f"costs are shown for {classes} classes: how many there are, the folder says")
    sizes = network.map_sizes(definition.data.size, definition.data.size)
    if sizes[-1] == (1, 1):
        notes.append(
            f"the maps of the last stage are 1x1 at images of {definition.data.size} pixels: attention there has "
            "nothing to attend to; a smaller patch_size or merge_strides keep larger ones"
        )
    if definition.sweep.trials > 0:
        notes += _check_targets(definition, network)
    return notes


def _sketch(definition: StudyDefinition, classes: int) -> PartialNet:
    """Build the network to be judged: with values only where its inference form is counted."""
    if definition.budget.scope != "conv":
        return build_network(definition, classes)
    with WITHOUT_VALUES:
        network = build_network(definition, classes)
    for layer in dpconv_layers(network).values():
        layer.set_level(0)  # any: gates without values name none
    return network


def _check_targets(definition: StudyDefinition, network: PartialNet) -> list[str]:
    spec, shape = definition.budget, definition.data.input_shape
    targets = [float(target) for target in extremes(definition.space["target"])]
    low, high = min(targets), max(targets)
    try:
        minimum, maximum = reachable_costs(network, budget_for(spec, low, shape))
        costs = sorted(budget_for(spec, target, shape).resolve(network) for target in (low, high))
    except (ArchitectureError, BudgetError) as error:
        raise DefinitionError(f"{definition.name}: budget: {error}") from error
    if spec.scope == "conv":
        reach = f"b from 1 to {math.sqrt(maximum / minimum):.3g}"
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
            f"a part of the targets {given} cannot be reached; such trials settle on the dearest cost "
            "below the target, or on the least, and are marked"
        )
    return notes


def reference_point(definition: StudyDefinition, classes: int | None = None) -> dict[str, float]:
    """Return the worst values worth counting, for the hypervolume: nothing learned, and the costs at n = C.

    Args:
        definition: The study.
        classes: If it is known already.
    """
    classes = classes or class_count(definition)
    network = build_uniform(definition, classes, 1.0)
    costs = {measured.metric: measured.value for measured in probe_counts(network, definition.data.input_shape)}
    return {"top1": 0.0, "top5": 0.0, "loss": math.log(classes), **costs}
