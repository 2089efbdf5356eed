"""Networks from their architectures: those of this package's family, and converted ones of any other.

A network of another family is built by its source and then converted by :mod:`partialnet.retrofit`. It remembers its
architecture, so that it can be exported, packaged and trained like one of the family.

Sources: ``timm/NAME``, ``torchvision/NAME``, and ``installed/NAME``, a function that an installed package offers as the
entry point ``NAME`` of the group ``partialnet.models``. A name is all that a definition or a package can give: code
comes from packages that the user has installed.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import timm
from torch import Tensor, nn

from partialnet.architecture import Architecture, ConversionRules
from partialnet.errors import ArchitectureError
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.gates import split_levels
from partialnet.layers.levels import nearest_level
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.models.chosen import searched_kinds
from partialnet.models.partialnet import PartialNet
from partialnet.models.partialnet import create as create_partialnet
from partialnet.retrofit import Conversion, convert_to_patconv, replaceable
from partialnet.state_dicts import faults, in_words, plain_names

GROUP = "partialnet.models"
"""Group of entry points by which installed packages offer networks."""

_REMEMBERED = "_partialnet_architecture"
_QUARTER = 0.25


def create(
    architecture: Architecture,
    *,
    searchable: bool | Collection[str] = False,
    level_step: int | None = None,
    weights: Mapping[str, Tensor] | None = None,
    fresh: Sequence[str] = (),
) -> nn.Module:
    """Build the network that ``architecture`` describes.

    Args:
        architecture: Architecture to build; its missing options are the network's own.
        searchable: Kinds of choices to learn: ``"split"``, and for this package's family also ``"attention"``,
            ``"kernel"``, ``"mlp_ratio"`` and ``"depth"``; True means the split. The choices start from those of the
            architecture.
        level_step: Step between the numbers of active channels to choose from; None for halvings of a layer's width.
        weights: State dict of the network before its conversion, for other families only. Converted layers start from
            their part of its kernels. Without it all weights are new.
        fresh: Patterns of the tensors that start new although there are weights, such as ``("fc.*",)``.

    Raises:
        ArchitectureError: If the network or an option is unknown, a layer cannot be built, or the weights do not fit;
            the message says which.
    """
    rules = architecture.conversion
    if rules is None:
        if weights is not None:
            raise ArchitectureError(f"{architecture.model}: weights can be given for networks of other families only")
        return create_partialnet(architecture, searchable=searchable, level_step=level_step)
    kinds = searched_kinds(searchable)
    if others := [kind for kind in kinds if kind != "split"]:
        raise ArchitectureError(f"{architecture.model}: only the split is learned here, but not {', '.join(others)}")
    step = level_step if kinds else None
    network, _ = _convert(architecture, rules, searchable=bool(kinds), level_step=step, weights=weights, fresh=fresh)
    network.__dict__[_REMEMBERED] = architecture
    return network


def conversion_of(architecture: Architecture) -> Conversion:
    """Return which convolutions of a network of another family are replaced, and why the others stay.

    Raises:
        ArchitectureError: If the network cannot be built or converted, or belongs to this package's family.
    """
    if architecture.conversion is None:
        raise ArchitectureError(f"{architecture.model} has partial convolutions of its own, so nothing is converted")
    return _convert(architecture, architecture.conversion, searchable=False, weights=None)[1]


def _convert(
    architecture: Architecture,
    rules: ConversionRules,
    *,
    searchable: bool,
    weights: Mapping[str, Tensor] | None,
    level_step: int | None = None,
    fresh: Sequence[str] = (),
) -> tuple[nn.Module, Conversion]:
    base = base_network(architecture.model, architecture.options)
    if weights is not None:
        load_base(base, weights, fresh, architecture.model)
    levels = _levels(base, rules, architecture.model, level_step)
    if searchable:
        _check_choices(levels, rules, architecture.model)
    if unknown := sorted(set(architecture.active_channels) - set(levels)):
        raise ArchitectureError(
            f"{architecture.model}: active_channels names {', '.join(unknown[:3])}, which the conversion does not "
            f"replace; it replaces {', '.join(list(levels)[:4])}{' and more' if len(levels) > 4 else ''}"
        )
    highest = {name: rules.highest(name, known[-1]) or known[-1] for name, known in levels.items()}
    within = {name: tuple(n for n in known if n <= highest[name]) or known for name, known in levels.items()}
    active = {name: nearest_level(within[name], known[-1], _QUARTER) for name, known in levels.items()}
    return convert_to_patconv(
        base,
        {},
        active_channels={**active, **architecture.active_channels},
        searchable=searchable,
        rest=rules.rest,  # type: ignore[arg-type]  # convert_to_patconv checks it
        num_heads=rules.num_heads,
        attn_drop=rules.attn_drop,
        min_channels={name: known[0] for name, known in levels.items()} if searchable else None,
        max_channels=highest if searchable else None,
        level_step=level_step,
        keep_weights=weights is not None,
    )


def architecture_of(network: nn.Module) -> Architecture:
    """Return the architecture of a network that :func:`create` built, with its present active channels.

    Raises:
        ArchitectureError: If the network has no architecture.
    """
    if isinstance(network, PartialNet):
        return network.architecture()
    known = network.__dict__.get(_REMEMBERED)
    if not isinstance(known, Architecture):
        raise ArchitectureError(
            f"a {type(network).__name__} has no architecture: build it with partialnet.create, which remembers how"
        )
    active = {
        name: int(layer.active_channels)
        for name, layer in network.named_modules()
        if isinstance(layer, (DPConv2d, PartialConv2d))
    }
    return replace(known, active_channels=active)


def output_count(network: nn.Module) -> int:
    """Return the number of outputs of a network that :func:`create` built.

    Raises:
        ArchitectureError: If neither the network nor its architecture says it.
    """
    if isinstance(network, PartialNet):
        return network.num_classes
    architecture = architecture_of(network)
    count = architecture.options.get("num_classes", getattr(network, "num_classes", None))
    if not isinstance(count, int):
        raise ArchitectureError(f"{architecture.model}: the options do not say num_classes")
    return count


def base_network(model: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a network of another family without conversion.

    Args:
        model: Source and name, such as ``"timm/resnet18"``.
        options: Constructor arguments; ``in_chans`` and ``num_classes`` have these names for each source.

    Raises:
        ArchitectureError: If source or name is unknown, or the network does not take the options.
    """
    source, _, name = model.partition("/")
    builders: Mapping[str, Callable[[str], Callable[..., Any]]] = {
        "timm": _of_timm, "torchvision": _of_torchvision, "installed": _installed,
    }  # fmt: skip
    if source not in builders:
        raise ArchitectureError(f"unknown source of networks {source!r} in {model!r}; known: {', '.join(builders)}")
    build = builders[source](name)
    given = dict(options)
    if source == "torchvision" and given.pop("in_chans", 3) != 3:
        raise ArchitectureError(
            f"{model}: networks of torchvision take images of 3 channels, not of {options['in_chans']}; take a network "
            "of timm, or images in colour"
        )
    try:
        network = build(**given)
    except Exception as error:  # constructors of a thousand networks raise whatever they like
        shown = ", ".join(f"{key}={value!r}" for key, value in given.items())
        raise ArchitectureError(f"{model} cannot be built with {shown or 'its defaults'}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ArchitectureError(f"{model} is a {type(network).__name__}, but must be a torch.nn.Module")
    return network


def _of_timm(name: str) -> Callable[..., Any]:
    if not timm.is_model(name):
        raise _unknown(f"timm/{name}", timm.list_models())
    return lambda **options: timm.create_model(name, pretrained=False, **options)


def _of_torchvision(name: str) -> Callable[..., Any]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise _unknown(f"torchvision/{name}", known)
    return lambda **options: models.get_model(name, weights=None, **options)


def _installed(name: str) -> Callable[..., Any]:
    offered: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=GROUP)}
    if name not in offered:
        raise _unknown(f"installed/{name}", offered)
    try:
        build = offered[name].load()
    except Exception as error:  # an import of somebody's module
        raise ArchitectureError(f"installed/{name}: {offered[name].value} cannot be imported: {error}") from error
    if not callable(build) or inspect.ismodule(build):
        raise ArchitectureError(f"installed/{name}: {offered[name].value} must be a function that returns a network")
    found: Callable[..., Any] = build
    return found


def _unknown(model: str, known: Iterable[str]) -> ArchitectureError:
    source, _, name = model.partition("/")
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=5)
    if near:
        hint = f"did you mean {', '.join(near)}?"
    elif source == "installed":
        hint = f"installed packages offer {', '.join(names) or 'none'} (entry points of the group {GROUP})"
    else:
        hint = f"{source} has {len(names)} others"
    return ArchitectureError(f"there is no network {model!r}; {hint}")


def load_base(base: nn.Module, weights: Mapping[str, Tensor], fresh: Sequence[str], model: str) -> None:
    """Load weights into a network before its conversion.

    Args:
        base: Network of another family; without values (on the meta device) the weights are only checked.
        weights: State dict, possibly with names of wrappers.
        fresh: Patterns of the tensors that keep the network's own values.
        model: Name of the network for messages.

    Raises:
        ArchitectureError: If the weights do not fit, or a pattern names no tensor; the message names the first of them.
    """
    own, tensors = base.state_dict(), plain_names(weights)
    for pattern in fresh:
        if not any(fnmatchcase(name, pattern) for name in own):
            raise ArchitectureError(f"{model}: fresh: no tensor of the network is named {pattern!r}")
    kept = {name for name in own if any(fnmatchcase(name, pattern) for pattern in fresh)}
    given = {name: tensor for name, tensor in tensors.items() if name not in kept}
    if found := faults({name: tensor for name, tensor in own.items() if name not in kept}, given):
        raise ArchitectureError(f"{model}: the given weights do not fit: {in_words(found)}")
    if not any(tensor.is_meta for tensor in own.values()):
        base.load_state_dict({**own, **given}, strict=True)


def _check_choices(levels: Mapping[str, tuple[int, ...]], rules: ConversionRules, model: str) -> None:
    """Refuse bounds that leave a search no choice between two levels of a layer."""
    for name, known in levels.items():
        highest = rules.highest(name, known[-1])
        left = [n for n in known if highest is None or n <= highest]
        if len(left) < 2:
            raise ArchitectureError(
                f"{model}: {name}: max_ratio allows at most {highest} of {known[-1]} channels, which leaves "
                f"{f'only {left[0]}' if left else 'none'} of the levels {', '.join(map(str, known))}; raise it, lower "
                "min_ratio, or name the layer under 'keep'"
            )


def _levels(
    base: nn.Module, rules: ConversionRules, model: str, level_step: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the levels of each convolution that the rules replace; one whose width cannot be split stays."""
    widths = replaceable(base)
    chosen = {name: width for name, width in widths.items() if rules.selects(name)}
    found, refused = {}, []
    for name, width in chosen.items():
        levels = partial(
            split_levels, width, rest=rules.rest, num_heads=rules.num_heads, min_channels=rules.lowest(name, width)
        )
        try:
            # Halvings decide what is replaced, so that the fixed network, which knows no step, replaces the same.
            found[name] = levels()
        except ArchitectureError as error:
            refused.append(f"{name}: {error}")
        else:
            found[name] = levels(level_step=level_step)
    if found:
        return found
    if refused:
        raise ArchitectureError(f"{model}: no convolution can be split: {refused[0]}")
    if widths:
        raise ArchitectureError(
            f"{model}: the patterns select none of the convolutions that can be replaced: "
            f"{', '.join(list(widths)[:6])}{' and more' if len(widths) > 6 else ''}"
        )
    # Its message counts the reasons.
    convert_to_patconv(base)
    raise AssertionError("a network without replaceable convolutions was converted")
