"""Psiformer: electrons attend to each other."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sciflow.nn.laplacian import mixture, products, spread
from sciflow.wqmc.ansatz.base import Wavefunction, bias_of_spin, linear
from sciflow.wqmc.molecule import Molecule


class Attention(nn.Module):
    """Self-attention of several heads and a tanh layer, each added to its input."""

    def __init__(self, width: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.project = linear(width, 3 * width, generator, bias=False)
        self.mix = linear(width, width, generator, bias=False)
        self.perceive = linear(width, width, generator)

    def forward(self, h: Any) -> Any:
        """``h`` (B, N, width), tensor or jet; in the first layer a jet of each electron."""
        # A product for each: of jets, one for all three takes twice as long.
        q, k, v = (
            F.linear(h, weight).unflatten(-1, (self.heads, self.size)).transpose(-3, -2)
            for weight in self.project.weight.chunk(3)
        )
        weights = torch.softmax(products(q, k) * self.size**-0.5, -1)
        h = spread(h) + self.mix(mixture(weights, v).transpose(-3, -2).flatten(-2))
        return h + torch.tanh(self.perceive(h))


class Psiformer(Wavefunction):
    """Attention network of von Glehn, Spencer and Pfau, ICLR 2023, arXiv:2211.13672.

    No layer norm; orbitals, envelopes and cusps are those of `Wavefunction`.

    Args:
        molecule: nuclei and electrons.
        determinants: number of determinants.
        width: width of the network, a multiple of ``heads``.
        depth: number of attention layers.
        heads: number of attention heads.
        generator: source of the initial weights.

    Raises:
        ValueError: a size is not positive, or ``width`` is no multiple of ``heads``.
    """

    name = "psiformer"

    def __init__(
        self,
        molecule: Molecule,
        determinants: int = 4,
        width: int = 32,
        depth: int = 2,
        heads: int = 4,
        generator: torch.Generator | None = None,
    ) -> None:
        generator = generator or torch.Generator("cpu").manual_seed(0)
        config = {"depth": depth, "heads": heads}
        super().__init__(molecule, determinants, width, generator, config)
        if width % heads:
            raise ValueError(f"width = {width} is not a multiple of heads = {heads}")
        self.embed = linear(self.n_features, width, generator)
        self.spins = nn.Parameter(torch.randn(2, width, generator=generator, device="cpu"))
        self.layers = nn.ModuleList(Attention(width, heads, generator) for _ in range(depth))

    def network(self, features: Any, x: Any) -> Any:
        """Embed each electron, then let them attend to each other."""
        h = bias_of_spin(self.embed, features, self.spins, self.spin)
        for layer in self.layers:
            h = layer(h)
        return h
