"""Walkers distributed by psi^2: Metropolis, Langevin, and exchanges of spin."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from sciflow.shapes import Float, Tensor
from sciflow.train import Walkers
from sciflow.wqmc.ansatz import Wavefunction
from sciflow.wqmc.molecule import Molecule
from sciflow.wqmc.physics import distances


class Sampler(NamedTuple):
    """A kind of proposal; a sampler is one entry of ``SAMPLERS``.

    Attributes:
        drifts: along grad log|psi|.
        single: one electron at a time moves, in turn.
        target: the acceptance that moves furthest.
    """

    drifts: bool
    single: bool
    target: float


SAMPLERS: dict[str, Sampler] = {
    "metropolis": Sampler(drifts=False, single=False, target=0.5),
    "one-electron": Sampler(drifts=False, single=True, target=0.5),
    "langevin": Sampler(drifts=True, single=False, target=0.6),
}


class _Point(NamedTuple):
    """Walkers, and what a move needs to know of them."""

    x: Tensor  # (B, N, 3)
    log: Tensor  # (B,), log|psi|
    drift: Tensor  # (B, N, 3), mean displacement of the proposal
    width: Tensor  # (B, N, 1), its standard deviation


class ElectronWalkers(Walkers):
    """Walkers whose every batch follows ``moves`` moves, and one exchange of spins.

    The width of a proposal grows with the distance from the nearest nucleus, where cores are
    small, and is corrected for by the ratio of Hastings. The Langevin drift is bounded near
    nuclei and nodes as in Umrigar, Nightingale and Runge, J. Chem. Phys. 99, 2865 (1993), eq. 35.
    The exchange swaps an electron of either spin, which no small move does where a bond is
    stretched.

    The moves are not solved by `sciflow.integrate`: a proposal is accepted or not by the ratio of
    the densities of the step and of its reverse, of which an integrator tells only where it ends.

    Args:
        psi: wave function; while it is trained, the walkers follow it.
        n: number of walkers.
        generator: of their first positions, on the device of ``psi``.
        sampler: key of ``SAMPLERS``.
        moves: proposals per batch.

    Attributes:
        tau: scale of the width, adapted at every batch while ``adapting``.
        acceptance: mean over the moves of the last batch.
        exchanged: share of walkers whose exchange was accepted.
        correlation: of log|psi| of the walkers before and after the moves of the last batch.

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
        self.kind = SAMPLERS[sampler]
        self.tau, self.adapting, self.turn = 0.3, True, 0
        self.acceptance, self.exchanged, self.correlation = 0.0, 0.0, 0.0
        place = psi.nuclei
        x0 = initial(psi.molecule, n, generator).to(place)
        super().__init__(x0, self._walk)

    def figures(self) -> dict[str, float]:
        """Of the last batch: acceptance, autocorrelation, and the samples it is worth.

        The latter is B (1 - c) / (1 + c), for batches whose correlation c decays exponentially.
        """
        c = min(max(self.correlation, 0.0), 1.0)
        return {
            "acceptance": self.acceptance,
            "exchanged": self.exchanged,
            "autocorrelation": self.correlation,
            "ess": len(self.x) * (1 - c) / (1 + c),
        }

    def _walk(self, x: Tensor, generator: torch.Generator) -> Tensor:
        point, accepted = self._at(x), 0.0
        before = point.log
        for _ in range(self.moves):
            point, share = self._move(point, generator)
            accepted += share / self.moves
        self.acceptance = accepted
        self.correlation = _correlation(before, point.log)
        if self.adapting:
            self.tau *= min(1.1, max(0.9, accepted / self.kind.target))
        if self.psi.molecule.n_up and self.psi.molecule.n_down:
            point = self._exchange(point, generator)
        return point.x

    def _move(self, old: _Point, generator: torch.Generator) -> tuple[_Point, float]:
        x = old.x
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        step = old.drift + old.width * noise
        if self.kind.single:  # without drift, what does not move has no part in the ratio
            mine = torch.arange(x.shape[1], device=x.device) == self.turn % x.shape[1]
            step = step * mine[:, None]
            noise = noise * mine[:, None]
            self.turn += 1
        new = self._at(x + step)
        back = (x - new.x - new.drift) / new.width
        ratio = 3 * (old.width / new.width).log() + 0.5 * (noise**2 - back**2).sum(-1, True)
        return _accepted(old, new, ratio.sum((1, 2)), generator)

    def _exchange(self, old: _Point, generator: torch.Generator) -> _Point:
        """Swap an electron of spin up with one of spin down."""
        x, (n_up, n_down) = old.x, (self.psi.molecule.n_up, self.psi.molecule.n_down)
        u = torch.rand(2, len(x), generator=generator, dtype=torch.float64, device=x.device)
        i, j = (u[0] * n_up).long(), n_up + (u[1] * n_down).long()
        walker = torch.arange(len(x), device=x.device)
        y = x.clone()
        y[walker, i], y[walker, j] = x[walker, j], x[walker, i]
        point, self.exchanged = _accepted(old, self._at(y), torch.zeros_like(old.log), generator)
        return point

    def _at(self, x: Tensor) -> _Point:
        psi = self.psi
        r = distances(x, psi.nuclei)
        size = ((r + 0.6 / psi.charges) / (1 + 0.5 * r)).amin(-1, keepdim=True)
        width = self.tau * size
        if not self.kind.drifts:
            with torch.inference_mode():  # 5 to 10 % faster walks than by no_grad
                log = psi.log_psi(x)
            return _Point(x, log, torch.zeros_like(x), width)
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
        return super().state_dict() | {"tau": self.tau, "turn": self.turn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put walkers and width back."""
        super().load_state_dict(state)
        self.tau, self.turn = state["tau"], state["turn"]


def _accepted(
    old: _Point, new: _Point, log_ratio: Tensor, generator: torch.Generator
) -> tuple[_Point, float]:
    """Metropolis: the new point with probability min(1, q_new / q_old exp(log_ratio))."""
    log_ratio = 2 * (new.log - old.log) + log_ratio
    shape, device = log_ratio.shape, log_ratio.device
    u = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
    accept = u.log() < log_ratio  # not so for nan
    chosen = [
        torch.where(accept.view(-1, *[1] * (a.ndim - 1)), a, b)
        for a, b in zip(new, old, strict=True)
    ]
    return _Point(*chosen), float(accept.double().mean())


def _correlation(a: Tensor, b: Tensor) -> float:
    """Of two quantities over walkers; 0 for a single walker."""
    a, b = a - a.mean(), b - b.mean()
    size = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / size if size > 0 else 0.0


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
