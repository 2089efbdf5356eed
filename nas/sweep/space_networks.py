"""Networks of a study's space in two forms: values of choices by module name, and what a finalist holds."""

from __future__ import annotations

from collections.abc import Mapping

from nas.definition.study import StudyDefinition
from nas.training.build import WITHOUT_VALUES, build_network
from partialnet.architecture import Architecture
from partialnet.blocks import BlockChoices
from partialnet.layers.choice import choices_of
from partialnet.networks import architecture_of

KERNEL, ATTENDED = ".kernel", ".attended"
"""Ends of the module names of a kernel size and of attended channels, after the name of their layer."""


class SpaceNetworks:
    """The choices of a study's network, and their values as published.

    Args:
        definition: Definition of the study.
        classes: Number of classes of the data set.

    Attributes:
        published: Values of all choices by module name before a search.
        quantity: Quantity of each choice by module name.
        kinds: Kind of choice by quantity.
    """

    def __init__(self, definition: StudyDefinition, classes: int) -> None:
        with WITHOUT_VALUES:
            network = build_network(definition, classes)
        choices = choices_of(network)
        self.published = {name: choice.chosen for name, choice in choices.items()}
        self.quantity = {name: choice.quantity for name, choice in choices.items()}
        self._channels = {name: choice.channels for name, choice in choices.items()}
        self.kinds = {choice.quantity: choice.kind for choice in choices.values()}
        self._active = dict(architecture_of(network).active_channels)

    def network(self, settings: Mapping[str, int]) -> tuple[tuple[int, ...], str | None]:
        """Return active channels of the present layers, and the other choices as JSON text.

        Args:
            settings: Values of choices by module name; those that are not given are the published ones.
        """
        of_kind: dict[str, dict[str, int]] = {}
        for name, value in {**self.published, **settings}.items():
            of_kind.setdefault(self.quantity[name], {})[name] = value
        absent = tuple(sorted(name for name, value in of_kind.get("presence", {}).items() if not value))
        place = BlockChoices({}, absent)

        def changed(quantity: str) -> dict[str, int]:
            return {
                name.removesuffix(KERNEL): value
                for name, value in of_kind.get(quantity, {}).items()
                if value != self.published[name] and not place.is_absent(name)
            }

        # A layer whose split is not searched keeps its usual one.
        active = {**self._active, **of_kind.get("active_channels", {})}
        present = tuple(n for name, n in active.items() if not place.is_absent(name))
        attended = {
            layer: count
            for name, count in of_kind.get("attended_channels", {}).items()
            if count < self._channels[name] - active[layer := name.removesuffix(ATTENDED)]
            and not place.is_absent(name)
        }
        return present, BlockChoices(changed("hidden_channels"), absent, changed("kernel_size"), attended).to_json()

    def settings(self, architecture: Architecture) -> dict[str, int]:
        """Return the values of all choices of an architecture, without those in absent blocks."""
        blocks = BlockChoices.of(architecture)
        kernels = {f"{name}{KERNEL}": size for name, size in blocks.kernel_sizes.items()}
        attended = {f"{name}{ATTENDED}": count for name, count in blocks.attended_channels.items()}
        given = {**self.published, **architecture.active_channels, **blocks.hidden_channels, **kernels, **attended}
        found = {}
        for name, quantity in self.quantity.items():
            if quantity == "presence":
                found[name] = int(name not in blocks.absent_blocks)
            elif not blocks.is_absent(name):
                found[name] = given[name]
        return found
