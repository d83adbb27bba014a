"""What an exporter makes of a model: its maps, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from sciflow.bridges.metadata import Invariance
from sciflow.shapes import Float, Tensor
from sciflow.systems import Molecule

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Map:
    """One map of a model.

    Attributes:
        inputs: names of its inputs (B, ...), in order.
        outputs: names of its outputs (B, ...), in order.
        function: tensors to a tuple of tensors.
        example: inputs of a batch of this size, such as the model meets them.
        note: how it differs from the model.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    function: Callable[..., Tensors]
    example: Callable[[int], Tensors]
    note: str = ""


@dataclass(frozen=True)
class Settings:
    """What a model does not know of itself.

    Attributes:
        units: its system of units; None for what the model says, or reduced.
        kT: thermal energy in those units; None for the model's own.
        tolerance: error of a flow by its constant steps, see `constant_steps`.
    """

    units: str | None = None
    kT: float | None = None
    tolerance: float = 1e-7


@dataclass(frozen=True)
class Parts:
    """What an exporter makes of a model.

    Attributes:
        maps: by name.
        units: system of units.
        kT: thermal energy.
        invariance: rigid motions that leave the density as it is.
        molecule: atoms, where they are known.
    """

    maps: dict[str, Map]
    units: str = "reduced"
    kT: float | None = None
    invariance: Invariance = "none"
    molecule: Molecule | None = field(default=None, repr=False)


def with_forces(
    energy: Callable[[Tensor], Float[Tensor, " batch"]],
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Energies (B,) and forces -dE/dq (B, ...) of ``q``."""

    def function(q: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            q = q.detach().requires_grad_()
            value = energy(q)
            (gradient,) = torch.autograd.grad(value.sum(), q)
        return value.detach(), -gradient

    return function


def agreed(name: str, own: Any, given: Any) -> Any:
    """The model's own value, or the one given where it has none.

    Raises:
        ValueError: they differ.
    """
    if own is not None and given is not None and own != given:
        raise ValueError(f"{name} is {given!r}, and the model says {own!r}")
    return given if own is None else own


def seeded(like: Tensor) -> torch.Generator:
    """A generator on the device of ``like``, always the same."""
    return torch.Generator(like.device).manual_seed(0)


def normal(n: int, size: int, like: Tensor) -> Tensor:
    """Standard normal numbers (n, size), always the same, in the type of ``like``."""
    noise = torch.randn(n, size, generator=seeded(like), dtype=torch.float64, device=like.device)
    return noise.to(like)
