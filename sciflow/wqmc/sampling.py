"""Walkers distributed by psi^2: Metropolis and Langevin moves of all electrons."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from sciflow.shapes import Float, Tensor
from sciflow.train import Walkers
from sciflow.wqmc.ansatz import Wavefunction
from sciflow.wqmc.molecule import Molecule
from sciflow.wqmc.physics import distances

# Whether the proposal drifts along grad log|psi|, and the acceptance that moves furthest.
SAMPLERS: dict[str, tuple[bool, float]] = {"metropolis": (False, 0.5), "langevin": (True, 0.6)}


class _Point(NamedTuple):
    """Walkers, and what a move needs to know of them."""

    x: Tensor  # (B, N, 3)
    log: Tensor  # (B,), log|psi|
    drift: Tensor  # (B, N, 3), mean displacement of the proposal
    width: Tensor  # (B, N, 1), its standard deviation


class ElectronWalkers(Walkers):
    """Walkers whose every batch follows ``moves`` moves of all electrons.

    The width of a proposal grows with the distance from the nearest nucleus, where cores are
    small, and is corrected for by the ratio of Hastings. The Langevin drift is bounded near
    nuclei and nodes as in Umrigar, Nightingale and Runge, J. Chem. Phys. 99, 2865 (1993), eq. 35.

    Args:
        psi: wave function; while it is trained, the walkers follow it.
        n: number of walkers.
        generator: of their first positions, on the device of ``psi``.
        sampler: key of ``SAMPLERS``.
        moves: moves per batch.

    Attributes:
        tau: scale of the width, adapted at every batch while ``adapting``.
        acceptance: mean over the moves of the last batch.

    Raises:
        ValueError: an unknown sampler, or a number that is not positive.
    """

    def __init__(
        self,
        psi: Wavefunction,
        n: int,
        generator: torch.Generator,
        sampler: str = "metropolis",
        moves: int = 10,
    ) -> None:
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}; got {sampler!r}")
        if n < 1 or moves < 1:
            raise ValueError(f"walkers and moves must be at least 1; got {n} and {moves}")
        self.psi, self.moves = psi, moves
        self.drifts, self.target = SAMPLERS[sampler]
        self.tau, self.acceptance, self.adapting = 0.3, 0.0, True
        place = psi.nuclei
        x0 = initial(psi.molecule, n, generator).to(place)
        super().__init__(x0, self._walk)

    def _walk(self, x: Tensor, generator: torch.Generator) -> Tensor:
        point, accepted = self._at(x), 0.0
        for _ in range(self.moves):
            point, share = self._move(point, generator)
            accepted += share / self.moves
        self.acceptance = accepted
        if self.adapting:
            self.tau *= min(1.1, max(0.9, accepted / self.target))
        return point.x

    def _move(self, old: _Point, generator: torch.Generator) -> tuple[_Point, float]:
        noise = torch.randn(
            old.x.shape, generator=generator, dtype=old.x.dtype, device=old.x.device
        )
        new = self._at(old.x + old.drift + old.width * noise)
        back = (old.x - new.x - new.drift) / new.width
        ratio = 3 * (old.width / new.width).log() + 0.5 * (noise**2 - back**2).sum(-1, True)
        log_ratio = 2 * (new.log - old.log) + ratio.sum((1, 2))
        u = torch.rand(len(old.x), generator=generator, dtype=torch.float64, device=old.x.device)
        accept = u.log() < log_ratio  # not so for nan
        chosen = [
            torch.where(accept.view(-1, *[1] * (a.ndim - 1)), a, b)
            for a, b in zip(new, old, strict=True)
        ]
        return _Point(*chosen), float(accept.double().mean())

    def _at(self, x: Tensor) -> _Point:
        psi = self.psi
        r = distances(x, psi.nuclei)
        size = ((r + 0.6 / psi.charges) / (1 + 0.5 * r)).amin(-1, keepdim=True)
        width = self.tau * size
        if not self.drifts:
            with torch.no_grad():
                return _Point(x, psi.log_psi(x), torch.zeros_like(x), width)
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            log = psi.log_psi(point)
            (v,) = torch.autograd.grad(log.sum(), point)
        reach = (v**2).sum(-1, keepdim=True) * width**2
        # (sqrt(1 + 2 reach) - 1) / reach, without the cancellation at reach = 0
        limited = 2 / (1 + torch.sqrt(1 + 2 * reach))
        return _Point(x, log.detach(), width**2 * v * limited, width)

    def state_dict(self) -> dict[str, Any]:
        """The walkers, whose turn it is, and the adapted width."""
        return super().state_dict() | {"tau": self.tau}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put walkers and width back."""
        super().load_state_dict(state)
        self.tau = state["tau"]


def initial(
    molecule: Molecule, n: int, generator: torch.Generator
) -> Float[Tensor, "walker electron 3"]:
    """Electrons around the nuclei, as many as these have protons; float64, (n, N, 3) [bohr]."""
    # Each nucleus takes up and down in turn; the next begins with the spin the last left open.
    slots = [a for a, z in enumerate(molecule.charges) for _ in range(z)]
    left, homes = [molecule.n_up, molecule.n_down], ([], [])  # type: ignore[var-annotated]
    for k in range(molecule.n_electrons):
        spin = k % 2 if left[k % 2] else 1 - k % 2
        left[spin] -= 1
        homes[spin].append(slots[k % len(slots)])
    center = molecule.coordinates()[homes[0] + homes[1]].to(generator.device)
    noise = torch.randn(
        n, *center.shape, generator=generator, dtype=torch.float64, device=generator.device
    )
    return center + noise
