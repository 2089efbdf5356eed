"""Searchable layers and networks for tests, with nothing left at its initial value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.level_norm import LevelBatchNorm2d
from partialnet.layers.partial_conv import PartialConv2d


@torch.no_grad()
def scramble(model: nn.Module, seed: int = 0) -> None:
    """Give every norm, table and bias of ``model`` random values, per level where there are levels."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm, LevelBatchNorm2d)):
            uniform(module.weight, 0.5, 1.5)
            uniform(module.bias, -0.5, 0.5)
        if isinstance(module, (nn.BatchNorm2d, LevelBatchNorm2d)):
            assert module.running_mean is not None
            assert module.running_var is not None
            uniform(module.running_mean, -0.5, 0.5)
            uniform(module.running_var, 0.5, 1.5)
    for name, parameter in model.named_parameters():
        if name.endswith(("position.table", "proj.bias")):
            uniform(parameter, -0.5, 0.5)


def make_layer(channels: int, rest: str, **options: Any) -> DPConv2d:
    """Return a scrambled layer without dropout."""
    layer = DPConv2d(channels, rest=rest, **{"attn_drop": 0.0, **options})  # type: ignore[arg-type]
    scramble(layer)
    return layer


@torch.no_grad()
def embed(layer: DPConv2d, fixed: PartialConv2d) -> None:
    """Put the weights of ``fixed`` where ``layer`` has them at that split, and NaN where only other splits have any."""
    n, left = fixed.active_channels, fixed.channels - fixed.active_channels
    layer.set_active_channels(n)
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    for key, value in state.items():
        if key != "gates" and value.is_floating_point():
            value.fill_(torch.nan)
    state["conv.weight"][:n, :n] = fixed.conv.weight
    # The fixed layer keeps the channels of a head together; here channel c belongs to head c mod num_heads.
    order = n + torch.arange(left).view(-1, fixed.num_heads).T.flatten() if "rest.qkv.weight" in state else None
    for name, value in fixed.rest.state_dict().items() if left else ():
        whole = state[f"rest.{name}"]
        if name == "qkv.weight":
            whole.view(3, fixed.channels, fixed.channels)[:, order, n:] = value.view(3, left, left)
        elif name == "proj.weight":
            whole[n:, order] = value
        elif name == "attention.conv.weight":
            whole[n:, n:] = value
        elif name.endswith(("running_mean", "running_var")):
            whole[layer.level, n:] = value
        elif name == "position.table":
            whole.copy_(value)
        elif not name.endswith("num_batches_tracked"):
            whole[n:] = value
    layer.load_state_dict(state)


class SmallNet(nn.Module):
    """Two searchable layers with norms between, on 3-channel images: any module will do, not only a PartialNet."""

    def __init__(self, width: int = 16, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.first = DPConv2d(width, rest="channel_attention")
        self.norm = nn.BatchNorm2d(width)
        self.second = DPConv2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.norm(self.first(x)).relu()
        x = x + self.second(x)
        out: Tensor = self.head(x.mean((2, 3)))
        return out
