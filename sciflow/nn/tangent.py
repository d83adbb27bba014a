"""A layer with its derivatives along given directions: the forward mode, written out."""

from __future__ import annotations

from typing import Any

import torch

from sciflow.shapes import Float, Tensor


def silu_layer_along(
    h: Float[Tensor, "batch n_in"],
    dh: Float[Tensor, "tangent #batch n_in"],
    weight: Float[Tensor, "n_out n_in"],
    shift: Float[Tensor, "#batch n_out"],
) -> tuple[Float[Tensor, "batch n_out"], Float[Tensor, "tangent batch n_out"]]:
    """``silu(h W^T + shift)`` and its derivatives along the tangents ``dh`` of h.

    Tangents that are the same for the whole batch may have a batch axis of one. The backward
    pass is written out as well, in one node of the graph instead of the dozen that autograd
    would record; higher derivatives exist.
    """
    if torch.is_grad_enabled():
        return _SiLULayerAlong.apply(h, dh, weight, shift)
    new, dnew, *_ = _layer(h, dh, weight, shift)
    return new, dnew


def _layer(h: Tensor, dh: Tensor, weight: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
    """The outputs, and what the backward pass uses again."""
    z, dz = torch.addmm(shift, h, weight.T), dh @ weight.T
    gate = torch.sigmoid(z)
    new = z * gate
    slope = gate + new - new * gate
    return new, dz * slope, z, dz, gate, slope


class _SiLULayerAlong(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        new, dnew, *inner = _layer(*inputs)
        ctx.save_for_backward(*inputs, *inner)
        return new, dnew

    @staticmethod
    def backward(ctx: Any, g: Tensor, dg: Tensor) -> tuple[Tensor | None, ...]:
        h, dh, weight, shift, *inner = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a higher derivative, in terms of the inputs
            inner = list(_layer(h, dh, weight, shift)[2:])
        z, dz, gate, slope = inner
        bend = gate * (1 - gate) * (2 + z - 2 * z * gate)  # the second derivative of silu
        gz = torch.addcmul(g * slope, (dg * dz).sum(0), bend)
        gdz = dg * slope
        need_h, need_dh = ctx.needs_input_grad[:2]
        grad_h = gz @ weight if need_h else None
        grad_dh = (gdz @ weight).sum_to_size(dh.shape) if need_dh else None
        # Tangents shared by the batch take its sum; others are rows like those of the value.
        tangents = gdz.sum_to_size(*dh.shape[:2], len(weight)).flatten(0, 1)
        grad_weight = torch.addmm(gz.T @ h, tangents.T, dh.flatten(0, 1))
        return grad_h, grad_dh, grad_weight, gz.sum_to_size(shift.shape)
