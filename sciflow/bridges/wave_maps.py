"""The exporter of wave functions: what other codes of quantum Monte Carlo ask of one."""

from __future__ import annotations

from typing import Any

import torch

from sciflow.bridges.maps import Map, Parts, Settings, Tensors, agreed, seeded
from sciflow.shapes import Tensor
from sciflow.wqmc import Wavefunction
from sciflow.wqmc.physics import Coulomb, local_energy


def wave_maps(psi: Wavefunction, settings: Settings) -> Parts:
    """Sign and logarithm of psi, and its local energy with the score, of electrons (B, N, 3)."""
    units = agreed("units", "electron", settings.units)
    potential = Coulomb(psi.molecule)

    def walkers(n: int) -> Tensors:
        shape = (n, psi.molecule.n_electrons, 3)
        x = torch.randn(shape, generator=seeded(psi.nuclei), device=psi.nuclei.device)
        return (x.to(psi.nuclei),)

    def energy(x: Tensor) -> tuple[Any, ...]:
        return tuple(local_energy(psi.log_psi, potential, x))

    maps = {
        "log_psi": Map(("x",), ("sign", "log_psi"), psi.sign_log, walkers, "up to a constant"),
        "local_energy": Map(
            ("x",), ("energy", "score"), energy, walkers, "score: gradient of ln psi^2"
        ),
    }
    return Parts(maps, units)
