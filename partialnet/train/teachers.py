"""Teachers of a distillation: networks of timm, or packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from partialnet.errors import PackageError, PartialNetError
from partialnet.networks import output_count
from partialnet.package import load_package

_TIMM = "timm/"


class Teacher(nn.Module):
    """A trained network that takes the inputs of another data set's normalisation.

    Args:
        network: Network that maps inputs [B, C, H, W] to logits [B, classes].
        mean: Mean for each channel that the inputs are normalised with.
        std: Standard deviation for each channel that the inputs are normalised with.
        own_mean: Mean that the network was trained with.
        own_std: Standard deviation that the network was trained with.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        own_mean: Sequence[float],
        own_std: Sequence[float],
    ) -> None:
        super().__init__()
        self.network = network
        given_mean, given_std, wanted_mean, wanted_std = (
            torch.tensor(values)[:, None, None] for values in (mean, std, own_mean, own_std)
        )
        self.same = tuple(mean) == tuple(own_mean) and tuple(std) == tuple(own_std)
        self.register_buffer("scale", given_std / wanted_std)
        self.register_buffer("shift", (given_mean - wanted_mean) / wanted_std)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, classes] of inputs [B, C, H, W]."""
        out: Tensor = self.network(x if self.same else x * self.scale + self.shift)
        return out


def load_teacher(name: str, classes: int, mean: Sequence[float], std: Sequence[float]) -> Teacher:
    """Load the teacher that a recipe names.

    Args:
        name: ``"timm/NAME"`` for timm's published weights, or the folder of a package.
        classes: Number of classes of the data set.
        mean: Mean for each channel that inputs are normalised with.
        std: Standard deviation for each channel that inputs are normalised with.

    Raises:
        PartialNetError: If there is no such teacher, its weights are not available, or has other classes or channels.
    """
    network, own_mean, own_std = _from_timm(name) if name.startswith(_TIMM) else _from_package(name)
    found = network.num_classes if name.startswith(_TIMM) else output_count(network)
    if found != classes:
        raise PartialNetError(f"teacher {name}: it has {found} classes, but the data set has {classes}")
    if len(own_mean) != len(mean):
        raise PartialNetError(f"teacher {name}: it has {len(own_mean)} image channels, but the data {len(mean)}")
    return Teacher(network.eval(), mean, std, own_mean, own_std)


def _from_package(folder: str) -> tuple[nn.Module, Sequence[float], Sequence[float]]:
    try:
        package = load_package(Path(folder))
    except PackageError as error:
        raise PartialNetError(f"teacher {folder}: neither timm/NAME nor a package ({error})") from error
    return package.model, package.preprocessing.mean, package.preprocessing.std


def _from_timm(name: str) -> tuple[nn.Module, Sequence[float], Sequence[float]]:
    short = name.removeprefix(_TIMM)
    if not timm.is_model(short):
        raise PartialNetError(f"teacher {name}: timm has no network {short!r}")
    try:
        network: nn.Module = timm.create_model(short, pretrained=True)
    except Exception as error:  # hubs and file systems raise errors of many types
        raise PartialNetError(
            f"teacher {name}: its weights are not available ({str(error).splitlines()[0]}); download them once, "
            "or name a package"
        ) from error
    config = timm.data.resolve_model_data_config(network)
    return network, config["mean"], config["std"]
