"""Divergence of a field along its samples: exact, or Hutchinson's estimate.

A field may bring its own rule as a method ``value_and_divergence(t, x) -> (value, divergence)``,
which the exact trace then uses; otherwise the trace is taken by reverse-mode differentiation,
which also works for fields that are gradients themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from sciflow.shapes import Float, Tensor

VectorField = Callable[[Tensor, Tensor], Tensor]


def exact_divergence(
    field: VectorField, t: Tensor, x: Float[Tensor, "batch dim"]
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch"]]:
    """Value and trace of the Jacobian of ``field(t, .)``, sample by sample.

    Costs one evaluation and ``dim`` vector-Jacobian products, batched. Samples must not act on
    each other.
    """
    if hasattr(field, "value_and_divergence"):
        return field.value_and_divergence(t, x)
    track = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if track and x.requires_grad else x.detach().requires_grad_()
        value = field(t, x)
        if not value.requires_grad:  # a constant field
            return value, x.new_zeros(len(x))
        dim = x.shape[-1]
        basis = torch.eye(dim, dtype=x.dtype, device=x.device)[:, None, :].expand(dim, *x.shape)
        (rows,) = torch.autograd.grad(
            value, x, basis, create_graph=track, is_grads_batched=True, allow_unused=True
        )
        # None: the value does not depend on x, only on parameters.
        trace = x.new_zeros(len(x)) if rows is None else torch.einsum("ibi->b", rows)
    return (value, trace) if track else (value.detach(), trace.detach())


def hutchinson_divergence(
    field: VectorField,
    t: Tensor,
    x: Float[Tensor, "batch dim"],
    probe: Float[Tensor, "batch dim"],
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch"]]:
    """Value and unbiased estimate ``e^T J e`` of the trace, for a probe with E[e e^T] = 1.

    Costs one evaluation and one vector-Jacobian product (Hutchinson 1990; Grathwohl et al.,
    ICLR 2019, eq. 7).
    """
    track = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if track and x.requires_grad else x.detach().requires_grad_()
        value = field(t, x)
        if not value.requires_grad:  # a constant field
            return value, x.new_zeros(len(x))
        (product,) = torch.autograd.grad(
            value, x, probe, create_graph=track, materialize_grads=True
        )
        trace = (product * probe).sum(-1)
    return (value, trace) if track else (value.detach(), trace.detach())


def rademacher(
    like: Float[Tensor, "batch dim"], generator: torch.Generator
) -> Float[Tensor, "batch dim"]:
    """Independent signs of the shape of ``like``."""
    bits = torch.randint(0, 2, like.shape, generator=generator, device=generator.device)
    return (bits * 2 - 1).to(device=like.device, dtype=like.dtype)
