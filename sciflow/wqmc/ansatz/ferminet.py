"""FermiNet: electrons see averages over each spin, and each other through pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sciflow.nn.laplacian import convolve, spread
from sciflow.wqmc.ansatz.base import Wavefunction, bias_of_spin, features_of_pairs, linear
from sciflow.wqmc.molecule import Molecule


class Layer(nn.Module):
    """``h + tanh(W h_i + U mean_up h + D mean_down h + b)``."""

    def __init__(self, width: int, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.own = linear(width, width, generator)
        self.means = nn.ModuleList(
            linear(width, width, generator, bias=False) for _ in range(channels)
        )

    def forward(self, h: Any, channels: list[slice]) -> Any:
        """``h`` (B, N, width), tensor or jet; channels: the electrons of each spin."""
        first, *others = (
            layer(h[..., channel, :].mean(-2, keepdim=True))
            for channel, layer in zip(channels, self.means, strict=True)
        )
        shared = first + others[0] if others else first
        return h + torch.tanh(self.own(h) + shared)


class FermiNet(Wavefunction):
    """Network of Pfau et al., Phys. Rev. Research 2, 033429 (2020).

    Pairs enter by one convolution, ``sum_j tanh(A g_ij) * (B h_j)`` with g the features of a pair,
    which does as well as a stream of pairs in every layer (Gerard et al., NeurIPS 2022,
    arXiv:2205.09438). Orbitals, envelopes and cusps are those of `Wavefunction`.

    Args:
        molecule: nuclei and electrons.
        determinants: number of determinants.
        width: width of the one-electron stream.
        depth: number of layers.
        pair_width: width of the convolution over pairs.
        generator: source of the initial weights.

    Raises:
        ValueError: a size is not positive.
    """

    name = "ferminet"

    def __init__(
        self,
        molecule: Molecule,
        determinants: int = 4,
        width: int = 32,
        depth: int = 2,
        pair_width: int = 16,
        generator: torch.Generator | None = None,
    ) -> None:
        generator = generator or torch.Generator("cpu").manual_seed(0)
        config = {"depth": depth, "pair_width": pair_width}
        super().__init__(molecule, determinants, width, generator, config)
        n_up, n = molecule.n_up, molecule.n_electrons
        self.channels = [
            part for part in (slice(0, n_up), slice(n_up, n)) if part.start < part.stop
        ]
        self.embed = linear(self.n_features, width, generator)
        self.spins = nn.Parameter(torch.randn(2, width, generator=generator, device="cpu"))
        self.filter = linear(5, pair_width, generator)
        self.source = linear(width, pair_width, generator, bias=False)
        self.gather = linear(pair_width, width, generator, bias=False)
        self.layers = nn.ModuleList(
            Layer(width, len(self.channels), generator) for _ in range(depth)
        )

    def network(self, features: Any, x: Any) -> Any:
        """Embed each electron, gather from all pairs, then mix with the means of each spin."""
        own = torch.tanh(bias_of_spin(self.embed, features, self.spins, self.spin))
        filters = torch.tanh(self.filter(features_of_pairs(x, self.alike, self.charges)))
        h = spread(own) + self.gather(convolve(filters, self.source(own)))
        for layer in self.layers:
            h = layer(h, self.channels)
        return h
