"""A network by its registered name, its architecture file or its exported folder. Loads torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from nas.errors import InputError, NotFoundError
from partialnet.architecture import Architecture
from partialnet.errors import ArchitectureError
from partialnet.layers.levels import uniform_channels
from partialnet.models.partialnet import PartialNet
from partialnet.networks import create
from partialnet.package import Preprocessing, load_package
from partialnet.retrofit import convert_to_patconv
from partialnet.variants import VARIANTS, model_name

_FAMILIES = ("partialnet_", "patnet_")


@dataclass(frozen=True)
class LoadedNetwork:
    """A fixed network in eval mode with its title, preprocessing and notes.

    Args:
        title: Description of the network in a few words.
        network: Network in the training form.
        preprocessing: Preprocessing of its images; the class names are empty if they are unknown.
        trained: Whether its weights were learned; otherwise they are random.
        notes: Notes on changes to the network, for people.
    """

    title: str
    network: nn.Module
    preprocessing: Preprocessing
    trained: bool
    notes: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of one image."""
        return self.preprocessing.input_shape


def load_network(
    reference: str, *, size: int | None = None, ratio: float | None = None, options: Mapping[str, Any] | None = None
) -> LoadedNetwork:
    """Build or read a network.

    Args:
        reference: Name of a variant (``t2``, ``partialnet_t2``, ``patnet_t2``, ``micro``) or of any network of timm,
            path of an architecture.json, or path of an exported folder.
        size: Height and width of its images in pixels; None for its own size.
        ratio: Uniform split ratio, for names only; a network of another family gets its convolutions converted.
        options: Constructor arguments, for names only.

    Raises:
        NotFoundError: If there is no such name or file; the message suggests the closest names.
        InputError: If the network does not accept the ratio or the options.
        PartialNetError: If a file cannot be read, or the network cannot be built.
    """
    path = Path(reference)
    if path.exists() or path.suffix == ".json" or len(path.parts) > 1:
        if ratio is not None or options:
            given = "--ratio" if ratio is not None else "--option"
            raise InputError(f"{given} works only with a network's name; {reference} is a file that already fixes it")
        if not path.exists():
            raise NotFoundError(f"{reference}: there is no such file, and no network has a name like that")
        return _from_folder(path, size) if path.is_dir() else _from_architecture(path, size)
    return _from_name(reference, size, ratio, dict(options or {}))


def known_names() -> list[str]:
    """Return all names that :func:`load_network` accepts."""
    return [*VARIANTS, *timm.list_models()]


def _from_folder(path: Path, size: int | None) -> LoadedNetwork:
    package = load_package(path)
    preprocessing = package.preprocessing
    title = f"{path} ({package.architecture.model}, trained on {preprocessing.name})"
    return LoadedNetwork(title, package.model, _resized(preprocessing, size), trained=True)


def _from_architecture(path: Path, size: int | None) -> LoadedNetwork:
    architecture = Architecture.load(path)
    try:
        network = create(architecture)
    except ArchitectureError as error:
        raise ArchitectureError(f"{path}: {error}") from error
    title = f"{path} ({architecture.model})"
    return LoadedNetwork(title, network.eval(), _usual_preprocessing(network, size), trained=False)


def _from_name(name: str, size: int | None, ratio: float | None, options: dict[str, Any]) -> LoadedNetwork:
    if name.lower() in VARIANTS or name.lower().startswith(_FAMILIES):
        try:
            model_name(name)
        except ArchitectureError:
            raise _unknown(name) from None
        network, notes = _of_our_family(name, ratio, options)
    elif timm.is_model(name):
        network, notes = _of_timm(name, ratio, options)
    else:
        raise _unknown(name)
    return LoadedNetwork(name, network.eval(), _usual_preprocessing(network, size), trained=False, notes=notes)


def _unknown(name: str) -> NotFoundError:
    near = difflib.get_close_matches(name.lower(), known_names(), n=5)
    hint = f"did you mean {', '.join(near)}?" if near else f"ours: {', '.join(VARIANTS)}; others: those of timm"
    return NotFoundError(f"there is no network and no file {name!r}; {hint}")


def _of_our_family(name: str, ratio: float | None, options: dict[str, Any]) -> tuple[nn.Module, tuple[str, ...]]:
    active = {}
    if ratio is not None:
        with torch.device("meta"):
            active = uniform_channels(create(Architecture(name, options)), ratio)
    return create(Architecture(name, options, active)), ()


def _of_timm(name: str, ratio: float | None, options: dict[str, Any]) -> tuple[nn.Module, tuple[str, ...]]:
    try:
        network: nn.Module = timm.create_model(name, **options)
    except Exception as error:  # constructors of a thousand networks raise whatever they like
        shown = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise InputError(f"{name} cannot be built with {shown or 'its defaults'}: {error}") from error
    if ratio is None:
        return network, ()
    converted, report = convert_to_patconv(network, ratio)
    spatial = str(report).splitlines()[-1]
    return converted, (f"convolutions made partial at ratio {ratio:.4g}: {spatial}",)


def _usual_preprocessing(network: nn.Module, size: int | None) -> Preprocessing:
    """Return the preprocessing of the configuration that timm gave the network, without class names."""
    config: Mapping[str, Any] = getattr(network, "pretrained_cfg", {})
    channels = int(getattr(network, "in_chans", config.get("input_size", (3,))[0]))
    mean, std = (tuple(float(value) for value in config.get(key, (0.5,))) for key in ("mean", "std"))
    if len(mean) != channels:
        mean, std = ((sum(values) / len(values),) * channels for values in (mean, std))
    _, height, width = config.get("input_size", (channels, 224, 224))
    whole = Preprocessing("", (), (channels, height, width), mean, std)
    return _resized(whole, size)


def _resized(preprocessing: Preprocessing, size: int | None) -> Preprocessing:
    if size is None:
        return preprocessing
    return replace(preprocessing, input_shape=(preprocessing.input_shape[0], size, size))


def is_ours(network: nn.Module) -> bool:
    """Return whether ``network`` belongs to the PartialNet family."""
    return isinstance(network, PartialNet)
