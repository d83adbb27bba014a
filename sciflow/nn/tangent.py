"""SiLU with its derivatives along given directions: forward-mode differentiation written out."""

from __future__ import annotations

from typing import Any

import torch

from sciflow.shapes import Float, Tensor


def silu_along(
    z: Float[Tensor, "*#batch width"], dz: Float[Tensor, "tangent *#batch width"]
) -> tuple[Float[Tensor, "*#batch width"], Float[Tensor, "tangent *#batch width"]]:
    """``silu(z)`` and its derivatives along the tangents ``dz``, which broadcast against z.

    The backward pass is written out as well: half the operations of what autograd records.
    """
    if torch.is_grad_enabled() and (z.requires_grad or dz.requires_grad):
        return _SiLUAlong.apply(z, dz)
    gate = torch.sigmoid(z)
    h = z * gate
    return h, dz * (gate + h * (1 - gate))


class _SiLUAlong(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(z)
        h = z * gate
        slope = torch.addcmul(gate, h, 1 - gate)
        ctx.save_for_backward(z, dz)
        return h, dz * slope

    @staticmethod
    def backward(ctx: Any, gh: Tensor, gdh: Tensor) -> tuple[Tensor, Tensor]:
        z, dz = ctx.saved_tensors
        gate = torch.sigmoid(z)
        rest = 1 - gate
        h = z * gate
        slope = torch.addcmul(gate, h, rest)
        # silu'' = gate rest (2 + z (rest - gate))
        curvature = gate * rest * (2 + z * (rest - gate))
        gz = torch.addcmul(gh * slope, (gdh * dz).sum(0), curvature)
        gdz = gdh * slope
        if dz.shape[1:] != gdz.shape[1:]:  # tangents that were broadcast over the batch
            gdz = gdz.sum_to_size(dz.shape)
        return gz, gdz
