"""The dense Kronecker form of DPConv, as the slow reference that the layers are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CONNECT = torch.ones(2, 2, dtype=torch.float64)
SEPARATE = torch.eye(2, dtype=torch.float64)


def kron(factors: Sequence[Tensor]) -> Tensor:
    """Return the Kronecker product, the first factor outermost."""
    product = factors[0]
    for factor in factors[1:]:
        product = torch.kron(product, factor)
    return product


def relation(gates: Tensor, m: int) -> Tensor:
    """Return U = U_1 x ... x U_K x J_m with U_k = g J + (1 - g) I."""
    return kron([*(g * CONNECT + (1 - g) * SEPARATE for g in gates), torch.ones(m, m, dtype=torch.float64)])


def selection(gates: Tensor, m: int) -> Tensor:
    """Return q = [1, g_1] x ... x [1, g_K] x 1_m."""
    one = torch.ones((), dtype=torch.float64)
    return kron([*(torch.stack((one, g)) for g in gates), torch.ones(m, dtype=torch.float64)])


def mask(gates: Tensor, m: int) -> Tensor:
    """Return the multilinear P = [[1, g], [g, g]] x ... x J_m."""
    one = torch.ones((), dtype=torch.float64)
    factors = [torch.stack((torch.stack((one, g)), torch.stack((g, g)))) for g in gates]
    return kron([*factors, torch.ones(m, m, dtype=torch.float64)])


def dense_output(x: Tensor, weight: Tensor, gates: Tensor, m: int, form: str = "multilinear") -> Tensor:
    """Return conv(x; W o P) + (1 - q) o x over all channels; other forms are the mutants that must not pass.

    Args:
        x: [B, C, H, W], float64.
        weight: [C, C, k, k].
        gates: [K], 0 or 1, with gradient.
        m: Odd part of C.
        form: ``"multilinear"``, ``"product"`` (U o q q^T) or ``"constant"`` (the same with q constant).
    """
    q = selection(gates, m)
    if form == "multilinear":
        p = mask(gates, m)
    elif form == "product":
        p = relation(gates, m) * torch.outer(q, q)
    else:
        q = q.detach()
        p = relation(gates, m) * torch.outer(q, q)
    out = F.conv2d(x, weight * p[:, :, None, None], padding=weight.shape[-1] // 2)
    return out + (1 - q)[:, None, None] * x
