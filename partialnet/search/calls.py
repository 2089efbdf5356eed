"""The calls of a network's layers in a forward: sizes of their maps, in the order of the calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor, nn

from partialnet.errors import ArchitectureError, BudgetError
from partialnet.layers.dpconv import DPConv2d
from partialnet.layers.partial_conv import PartialConv2d
from partialnet.search.choices import all_present
from partialnet.search.operations import example_input
from partialnet.train.evaluation import evaluation_mode


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put each module of ``model`` into evaluation mode inside the block, without autograd."""
    with evaluation_mode(model), torch.no_grad():
        yield


def map_sizes(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, list[tuple[int, int]]]:
    """Return height and width of the map in each call of each partial convolution, in forward order.

    Args:
        model: Searchable or fixed network.
        input_shape: Channels, height, width of one input.

    Raises:
        ArchitectureError: If there is no partial convolution, or one is never called.
        BudgetError: If the network cannot process such an input.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (DPConv2d, PartialConv2d))}
    if not layers:
        raise ArchitectureError(f"{type(model).__name__} contains no partial convolution")
    found = called_sizes(model, layers, input_shape)
    missing = sorted(set(layers) - set(found))
    if missing:
        raise ArchitectureError(f"partial convolutions that the forward never calls: {', '.join(missing)}")
    return found


def called_sizes(
    model: nn.Module, layers: Mapping[str, nn.Module], input_shape: tuple[int, int, int]
) -> dict[str, list[tuple[int, int]]]:
    """Return height and width of the input in each call of each of ``layers``, in the order of their first call.

    Raises:
        BudgetError: If the network cannot process such an input.
    """
    sizes: dict[str, list[tuple[int, int]]] = {}

    def record(name: str, inputs: tuple[Tensor, ...]) -> None:
        height, width = inputs[0].shape[2:]
        sizes.setdefault(name, []).append((height, width))

    handles = [
        layer.register_forward_pre_hook(lambda _module, inputs, name=name: record(name, inputs))
        for name, layer in layers.items()
    ]
    try:
        with evaluating(model), all_present(model):
            model(example_input(model, input_shape))
    except (RuntimeError, ValueError) as error:
        raise BudgetError(f"the network cannot process an input of shape {input_shape}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    return sizes


def map_positions(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Return H * W of the map at each partial convolution, summed over its calls, in forward order.

    Raises:
        ArchitectureError: If there is no partial convolution, or one is never called.
        BudgetError: If the network cannot process such an input.
    """
    return {name: sum(map(prod, calls)) for name, calls in map_sizes(model, input_shape).items()}
