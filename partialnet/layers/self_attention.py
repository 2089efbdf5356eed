"""Multi-head self-attention with relative positions: what the convolution leaves over in the last stage (PAT_sf).

Source: PartialNet (arXiv 2502.01303); relative positions after iRPE (arXiv 2107.14222), bias mode, Euclidean distance.
"""

# No postponed annotations: torch.fx hands the types of forward to TorchScript, which takes no strings.
import math
from typing import Any, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partialnet.errors import ArchitectureError
from partialnet.layers.folding import Folding, NormBefore
from partialnet.layers.recording import is_exporting, is_recorded, is_scripting

BUCKETS = 81  # columns of the authors' table; of them only 40 to 80 are reached, since a distance has no sign
_ZERO = 40
_LINEAR = 20  # distances up to here have a bucket each
_FARTHEST = 160
_CACHED_SIZES = 8

_T = TypeVar("_T")


def distance_buckets(height: int, width: int) -> Tensor:
    """Return the bucket of the distance of every two positions of a map, row by row.

    With r the Euclidean distance, rounded: bucket 40 + r up to r = 20, logarithmic beyond, 80 at most.

    Args:
        height: Of the map, in pixels.
        width: Of the map, in pixels.

    Returns:
        [H * W, H * W], int64.
    """
    # NumPy, so that an exported network holds the indices as constants and not the way to them; of NumPy, only what
    # torch.compile can follow.
    position = np.arange(height * width)
    rows, columns = position // width, position % width
    distance = np.sqrt((rows[:, None] - rows) ** 2.0 + (columns[:, None] - columns) ** 2.0).round()
    return torch.from_numpy(_bucket_of(distance))


def _bucket_of(distance: Any) -> Any:
    far = _LINEAR + _LINEAR * np.log(np.maximum(distance, 1) / _LINEAR) / math.log(_FARTHEST / _LINEAR)
    bucket = np.where(distance <= _LINEAR, distance, np.minimum(_ZERO, far.round()))
    return bucket.astype(np.int64) + _ZERO


def scripted_distance_buckets(height: int, width: int, bucket_of: list[int]) -> Tensor:
    """Return what :func:`distance_buckets` returns, by operations that TorchScript knows.

    Args:
        height: Of the map, in pixels.
        width: Of the map, in pixels.
        bucket_of: Bucket of every distance; the last one holds beyond.
    """
    position = torch.arange(height * width)
    rows, columns = position.div(width, rounding_mode="floor"), position % width
    square = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
    return torch.tensor(bucket_of)[square.double().sqrt().round().long().clamp(max=len(bucket_of) - 1)]


class RelativePositionBias(nn.Module):
    """A learned number per head and distance bucket, to be added to the attention logits.

    Indices are computed once per map size. Outside of autograd the bias itself is kept too, until the table changes.

    Args:
        num_heads: Rows of the table.
    """

    __jit_ignored_attributes__ = ("_indices", "_biases")

    bucket_of: list[int]
    _indices: dict[tuple[int, int], Tensor]
    _biases: dict[tuple[int, int], tuple[tuple[object, ...], Tensor]]

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.bucket_of = _bucket_of(np.arange(_FARTHEST + 1)).tolist()  # what TorchScript knows of NumPy
        self.table = nn.Parameter(torch.zeros(num_heads, BUCKETS))
        self._indices = {}
        self._biases = {}

    def forward(self, height: int, width: int) -> Tensor:
        """Return the bias of a map: [heads, H * W, H * W]."""
        if is_scripting():
            return self.table[:, scripted_distance_buckets(height, width, self.bucket_of).to(self.table.device)]
        size = (int(height), int(width))
        # Tensors of a tracer must not outlive the trace.
        tracing = is_recorded()
        if tracing or self.training or (torch.is_grad_enabled() and self.table.requires_grad):
            return self._lookup(size, keep=not tracing)
        version = None if self.table.is_inference() else self.table._version
        inference = torch.is_inference_mode_enabled()
        state = (version, inference, self.table.data_ptr(), self.table.device, self.table.dtype)
        kept = self._biases.get(size)
        if kept is None or kept[0] != state:
            kept = (state, self._lookup(size, keep=True))
            _keep(self._biases, size, kept)
        return kept[1]

    def _lookup(self, size: tuple[int, int], *, keep: bool) -> Tensor:
        index = self._indices.get(size)
        if index is None or index.device != self.table.device:
            index = distance_buckets(*size).to(self.table.device)
            if keep and not index.is_inference():  # else a training that comes after an evaluation could not use it
                _keep(self._indices, size, index)
        return self.table[:, index]

    def train(self, mode: bool = True) -> Self:
        """Set the mode; forgets kept biases, so that no change of the table goes unnoticed."""
        self._biases.clear()
        super().train(mode)
        return self

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_indices": {}, "_biases": {}}

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        return f"num_heads={self.num_heads}"


def _keep(cache: dict[tuple[int, int], _T], size: tuple[int, int], value: _T) -> None:
    # A detector meets many map sizes; its caches must not grow with every one of them.
    cache.pop(size, None)
    while len(cache) >= _CACHED_SIZES:
        del cache[next(iter(cache))]
    cache[size] = value


class SelfAttentionRest(nn.Module):
    """Layer normalisation over channels, then multi-head self-attention over positions.

    Args:
        channels: Width of input and output: those that the convolution leaves.
        num_heads: Must divide ``channels``.
        attn_drop: Dropout on the attention and on the output while training.

    Raises:
        ArchitectureError: If the heads do not divide the channels.
    """

    def __init__(self, channels: int, num_heads: int = 4, *, attn_drop: float = 0.1) -> None:
        super().__init__()
        if num_heads < 1 or channels % num_heads:
            raise ArchitectureError(
                f"self-attention over {channels} channels with num_heads={num_heads}: heads must divide the channels"
            )
        self.channels = channels
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.position = RelativePositionBias(num_heads)
        self.proj = nn.Linear(channels, channels)
        self.proj_drop = nn.Dropout(attn_drop)

    def foldings(self) -> list[Folding]:
        """What :func:`partialnet.fuse.fuse` may fold here."""
        return [NormBefore("norm", "qkv")]

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        batch, channels, height, width = x.shape
        # Tokens of all images are rows of one matrix: linear layers of exported graphs need not be told so each time.
        tokens = self.norm(x.permute(0, 2, 3, 1).reshape(-1, channels))
        query, key, value = self._queries_keys_values(tokens, batch)
        drop = self.attn_drop if self.training else 0.0
        out = _attend(query, key, value, self.position(height, width).unsqueeze(0), drop)
        out = self.proj_drop(self.proj(out.transpose(1, 2).reshape(-1, channels)))
        maps: Tensor = out.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return maps

    def _queries_keys_values(self, tokens: Tensor, batch: int) -> list[Tensor]:
        """Return three tensors [B, heads, H * W, head_dim] for tokens [B * H * W, C]."""
        heads, dim = self.num_heads, self.channels // self.num_heads
        if is_exporting():
            # One transposition instead of three; the order of the rows is a constant of the graph.
            weight = self.qkv.weight.view(3, heads, dim, -1).transpose(0, 1).reshape(-1, self.channels)
            bias = None if self.qkv.bias is None else self.qkv.bias.view(3, heads, dim).transpose(0, 1).reshape(-1)
            return F.linear(tokens, weight, bias).view(batch, -1, heads, 3 * dim).transpose(1, 2).chunk(3, dim=-1)  # type: ignore[return-value]
        # qkv's outputs are laid out as (3, heads, head_dim): [3, B, heads, H * W, head_dim] here
        # (a list for TorchScript, whatever it is in Python)
        return self.qkv(tokens).view(batch, -1, 3, heads, dim).permute(2, 0, 3, 1, 4).unbind(0)  # type: ignore[no-any-return]


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, drop: float) -> Tensor:
    """Return softmax(query key^T / sqrt(head_dim) + bias) value: [B, heads, H * W, head_dim]."""
    if not is_exporting():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=drop)
    # Spelt out: a graph relies on how the fused operation lays out its output, which its ONNX form does otherwise.
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + bias
    return F.dropout(logits.softmax(-1), drop, training=drop > 0) @ value
