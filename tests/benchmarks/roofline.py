"""What a network must move and multiply on a GPU: bytes and multiply-adds of every block, and the least time they take.

Counted operation by operation on tensors without numbers (the meta device), so that no GPU and no memory is needed:
bfloat16, channels last, our networks in inference form, others as timm builds them, eager.

* plain: bytes of torch's operations without the kernels of ``partialnet.layers.kernels``;
* eager: bytes of what runs on a GPU;
* least: every convolution, linear layer and attention reads its input once and writes its output once, weights
  included; statistics read their map once, and a shortcut its block's input. All else happens on the way.

Two things that torch does on a GPU and no operation shows are counted as well: a convolution copies an input that is
not dense, and adds its bias in a pass over its output. Caches are left out, so that eager bytes are an upper estimate.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop

import partialnet  # noqa: F401 (registers the networks)
from partialnet.fuse import fuse
from partialnet.layers import kernels

BYTES_PER_SECOND = 3.0e12  # an H100's memory
MULTIPLY_ADDS_PER_SECOND = 400e12  # an H100's dense bfloat16: 800 TFLOP/s, two to a multiply-add
SIZES = ("t0", "t1", "t2", "s")
# What only allocates, or shows the same numbers in another shape though its schema does not say so.
_FREE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view")
_ADDMM = torch.ops.aten.addmm
_MATRIX_PRODUCTS = {**flop_registry, torch.ops.aten._addmm_activation: flop_registry[_ADDMM]}
_OVERWRITTEN = ("copy_", "fill_", "zero_")  # in place, without a look at what was there
_BLOCK = re.compile(r"stages\.\d+\.blocks\.\d+")  # has a shortcut, in our networks and in timm's FasterNet


@dataclass(frozen=True)
class Row:
    """A block of a network, or what lies between blocks, for a whole batch.

    Args:
        network: timm's name.
        block: Module name.
        macs: Multiply-adds.
        plain: Bytes of torch's operations alone.
        eager: Bytes of what runs on a GPU.
        least: Bytes that ideal fusion leaves.
    """

    network: str
    block: str
    macs: int
    plain: int
    eager: int
    least: int

    @property
    def bound(self) -> float:
        """The time that no implementation beats, in seconds."""
        return max(self.least / BYTES_PER_SECOND, self.macs / MULTIPLY_ADDS_PER_SECOND)


@dataclass
class _Count:
    macs: int = 0
    moved: int = 0
    least: int = 0


@dataclass
class _Counter:
    """Counts of the block that runs at present, by block."""

    block: str = "head"
    counts: dict[str, _Count] = field(default_factory=dict)

    def add(self, macs: int, moved: int, least: int) -> None:
        count = self.counts.setdefault(self.block, _Count())
        count.macs += macs
        count.moved += moved
        count.least += least


class _Operations(TorchDispatchMode):
    def __init__(self, counter: _Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if not func.is_view and name not in _FREE:
            read, written = _traffic(func, name, args, kwargs, out)
            macs, moved, least = 0, read + written, 0
            if func.overloadpacket in _MATRIX_PRODUCTS:
                macs = _MATRIX_PRODUCTS[func.overloadpacket](*args, **kwargs, out_val=out) // 2
                least = moved
                moved += _hidden_passes(name, args, out)
                if name == "convolution":  # as cuDNN does, and the meta device does not
                    out = torch.empty_like(out, memory_format=torch.channels_last)
            elif name == "channel_statistics":
                least = moved
            self._counter.add(macs, moved, least)
        return out


class _Attention(TorchFunctionMode):
    """Counts attention as one operation, which it is on a GPU and not on the meta device."""

    def __init__(self, counter: _Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = args
        moved = sum(_bytes(x) for x in (query, key, value, query, *tree_leaves(kwargs)) if isinstance(x, Tensor))
        self._counter.add(sdpa_flop(query.shape, key.shape, value.shape) // 2, moved, moved)
        return torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)


def _bytes(x: Tensor) -> int:
    """Return the bytes of the numbers of ``x``; what is repeated without a copy counts once."""
    return x.itemsize * math.prod(size for size, stride in zip(x.shape, x.stride(), strict=True) if stride)


def _traffic(func: Any, name: str, args: Any, kwargs: Any, out: Any) -> tuple[int, int]:
    """Return bytes that are read and written."""
    read: dict[tuple[object, ...], int] = {}
    written, in_place = 0, False
    for index, argument in enumerate(func._schema.arguments):
        given = args[index] if index < len(args) else kwargs.get(argument.name)
        tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        writes = argument.alias_info is not None and argument.alias_info.is_write
        if writes:
            in_place = True
            written += sum(map(_bytes, tensors))
        if not writes or (not argument.kwarg_only and name not in _OVERWRITTEN):
            place = ((x.untyped_storage()._cdata, x.storage_offset(), x.shape, x.stride()) for x in tensors)
            read |= dict(zip(place, map(_bytes, tensors), strict=True))
    if not in_place:
        written = sum(_bytes(leaf) for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
    return sum(read.values()), written


def _hidden_passes(name: str, args: Any, out: Tensor) -> int:
    if name != "convolution":
        return 0
    x, _, bias = args[:3]
    copied = 0 if x.is_contiguous(memory_format=torch.channels_last) else 2 * _bytes(x)
    return copied + (0 if bias is None else 2 * _bytes(out))


def _follow(model: nn.Module, counter: _Counter) -> None:
    """Have ``counter`` know which block runs, and count what its shortcut reads."""

    def enter(name: str, shortcut: bool) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            counter.block = name
            counter.add(0, 0, _bytes(inputs[0]) if shortcut else 0)

        return hook

    def leave(*_: object) -> None:
        counter.block = "head"

    for name, module in model.named_modules():
        shortcut = _BLOCK.fullmatch(name) is not None
        if shortcut or name == "patch_embed" or name.endswith(".downsample"):
            module.register_forward_pre_hook(enter(name, shortcut))
            module.register_forward_hook(leave)


@contextmanager
def _gpu(pretend: bool) -> Iterator[None]:
    with mock.patch.object(kernels, "on_gpu", return_value=pretend), mock.patch.object(kernels, "_INSTALLED", True):
        yield


def _counts(name: str, batch: int, size: int, *, pretend: bool) -> dict[str, _Count]:
    model = timm.create_model(name).eval()
    model = fuse(model) if name.startswith(("partialnet", "patnet")) else model
    model = model.to(device="meta", dtype=torch.bfloat16, memory_format=torch.channels_last)
    x = torch.empty(batch, 3, size, size, device="meta", dtype=torch.bfloat16)
    x = x.to(memory_format=torch.channels_last)
    counter = _Counter()
    _follow(model, counter)
    with torch.no_grad(), _gpu(pretend), _Operations(counter), _Attention(counter):
        model(x)
    return counter.counts


def roofline(names: Iterable[str], *, batch: int = 256, size: int = 224) -> list[Row]:
    """Return the blocks of networks, in the order in which they run.

    Args:
        names: Of timm's networks; those of this package are counted in inference form.
        batch: Images.
        size: Height and width of an image, in pixels.
    """
    rows = []
    for name in names:
        plain = _counts(name, batch, size, pretend=False)
        for block, count in _counts(name, batch, size, pretend=True).items():
            rows.append(Row(name, block, count.macs, plain[block].moved, count.moved, count.least))
    return rows


def totals(rows: Iterable[Row]) -> dict[str, Row]:
    """Return one row for each network, the sum of its blocks; its bound is not the sum of theirs."""
    sums: dict[str, Row] = {}
    for row in rows:
        seen = sums.get(row.network, Row(row.network, "all", 0, 0, 0, 0))
        sums[row.network] = Row(
            row.network, "all", seen.macs + row.macs, seen.plain + row.plain, seen.eager + row.eager,
            seen.least + row.least,
        )  # fmt: skip
    return sums


def bounds(rows: Iterable[Row]) -> dict[str, float]:
    """Return the sum of the blocks' bounds for each network, in seconds."""
    sums: dict[str, float] = {}
    for row in rows:
        sums[row.network] = sums.get(row.network, 0.0) + row.bound
    return sums


def table(rows: Sequence[Row], *, blocks: bool = False, batch: int = 256) -> list[str]:
    """Return a text table: each network with its shares of FasterNet of the same size, and its blocks if asked for."""
    sums, times = totals(rows), bounds(rows)
    lines = [f"{'':38} multiply-adds (G)  plain (MB)  eager (MB)  least (MB)  bound (us)"]
    for name, total in sums.items():
        parts = [row for row in rows if row.network == name] if blocks else []
        for row, seconds in [*((row, row.bound) for row in parts), (total, times[name])]:
            label = f"{name} {row.block if row is not total else ''}".strip()
            numbers = f"{row.macs / 1e9:17.2f} {row.plain / 1e6:11.1f} {row.eager / 1e6:11.1f} {row.least / 1e6:11.1f}"
            lines.append(f"{label:38} {numbers} {1e6 * seconds:11.1f}")
    lines += ["", f"{'of FasterNet':38} multiply-adds  plain  eager  least  bound   images/s at the bound"]
    for name, total in sums.items():
        peer = sums.get(name.replace("partialnet", "fasternet"))
        if peer is None or peer is total:
            continue
        shares = [total.macs / peer.macs, total.plain / peer.plain, total.eager / peer.eager, total.least / peer.least]
        shares.append(times[name] / times[peer.network])
        lines.append(f"{name:38} {shares[0]:13.3f} " + " ".join(f"{share:6.3f}" for share in shares[1:]))
        lines[-1] += f" {batch / times[name]:12.0f}, FasterNet {batch / times[peer.network]:.0f}"
    return lines


def main(arguments: Sequence[str] = ()) -> None:
    """Print the table of our networks and FasterNet."""
    pairs = [f"{family}_{size}" for size in SIZES for family in ("partialnet", "fasternet")]
    parser = argparse.ArgumentParser(prog="roofline")
    parser.add_argument("--networks", nargs="+", default=pairs)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--blocks", action="store_true", help="every block as well")
    given = parser.parse_args(arguments)
    rows = roofline(given.networks, batch=given.batch, size=given.size)
    print(f"torch {torch.__version__}, timm {timm.__version__}, bfloat16, batch {given.batch}, {given.size} pixels")
    print("\n".join(table(rows, blocks=given.blocks, batch=given.batch)))


if __name__ == "__main__":
    main(sys.argv[1:])
