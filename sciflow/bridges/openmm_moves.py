"""A flow as a global Monte Carlo move inside a run of OpenMM, accepted exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciflow.bridges.exported import Exported
from sciflow.bridges.units import unit_factors
from sciflow.errors import require
from sciflow.systems.charts.frame import align
from sciflow.units import kT as thermal_energy


class FlowMonteCarlo:
    """Proposals from a model for some of the particles, accepted by Metropolis and Hastings.

    A proposal x' of density rho is accepted with the probability
    min(1, exp(-(U(x') - U(x)) / kT) rho(x) / rho(x')), U being the energy of all forces of the
    context. Where the model knows no place (or no orientation), those of the present structure
    stay. Velocities stay too: they are independent of positions. So the run keeps sampling the
    canonical ensemble, however good or bad the model is; only the share of accepted moves tells.

    Args:
        folder: exported maps ``sample`` and ``log_prob``, in units of length that convert to nm.
        context: the ``openmm.Context`` of the run, for instance ``simulation.context``.
        temperature: of the run [K].
        atoms: the particles that move, in the order of the model; all by default.
        seed: of proposals and decisions.

    Attributes:
        proposed: number of proposals.
        accepted: number of those accepted.

    Raises:
        MissingPackageError: OpenMM is not installed.
        DataError: the folder lacks the maps, or a file is damaged.
        ValueError: units, atoms or particles do not fit, or constraints bind the particles.

    Example:
        >>> moves = FlowMonteCarlo("exported", simulation.context, 300.0)  # doctest: +SKIP
        >>> for _ in range(100):  # doctest: +SKIP
        ...     simulation.step(500)
        ...     moves.step()
    """

    def __init__(
        self,
        folder: str | Path,
        context: Any,
        temperature: float,
        atoms: Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        self._unit = require("openmm.unit", "md")
        self.kT = thermal_energy(temperature)
        model = Exported(folder)
        self._sample, self._log_prob = model["sample"], model["log_prob"]
        self._length, _ = unit_factors(model.metadata.units, "md")
        self._invariance = model.metadata.invariance
        self._context = context
        system = context.getSystem()
        n = system.getNumParticles()
        self._atoms = list(range(n)) if atoms is None else [int(i) for i in atoms]
        if len(set(self._atoms)) != len(self._atoms) or not set(self._atoms) <= set(range(n)):
            raise ValueError(f"atoms must be different particles of 0 to {n - 1}; got {atoms}")
        (shape,) = self._log_prob.record.inputs.values()
        if math.prod(shape) != 3 * len(self._atoms):
            raise ValueError(
                f"the model has {math.prod(shape)} coordinates; {len(self._atoms)} particles "
                f"have {3 * len(self._atoms)}"
            )
        self._shape = shape
        bound = {
            i
            for k in range(system.getNumConstraints())
            for i in system.getConstraintParameters(k)[:2]
        } | {i for i in range(n) if system.isVirtualSite(i)}
        if bound & set(self._atoms):
            raise ValueError(
                f"the particles {sorted(bound & set(self._atoms))[:5]} have constraints, which a "
                "proposal would break: make the system without"
            )
        self._generator = torch.Generator().manual_seed(seed)
        self.proposed = self.accepted = 0

    @property
    def acceptance(self) -> float:
        """Share of the proposals that were accepted."""
        return self.accepted / max(1, self.proposed)

    def step(self, n: int = 1) -> int:
        """Propose ``n`` times; gives the number of accepted proposals."""
        before = self.accepted
        everything = self._positions()
        weight = self._log_weight(everything)
        for _ in range(n):
            proposal = everything.copy()
            proposal[self._atoms] = self._proposed(everything[self._atoms])
            self._context.setPositions(proposal)
            new = self._log_weight(proposal)
            chance = float(torch.rand((), generator=self._generator, dtype=torch.float64))
            self.proposed += 1
            if math.log(max(chance, 1e-300)) < new - weight:
                everything, weight = proposal, new
                self.accepted += 1
        self._context.setPositions(everything)
        return self.accepted - before

    def _positions(self) -> np.ndarray:
        state = self._context.getState(getPositions=True)
        return state.getPositions(asNumpy=True).value_in_unit(self._unit.nanometer)

    def _log_weight(self, everything: np.ndarray) -> float:
        """-U / kT - ln rho of the positions that the context has now."""
        state = self._context.getState(getEnergy=True)
        energy = state.getPotentialEnergy().value_in_unit(self._unit.kilojoule_per_mole)
        x = torch.from_numpy(everything[self._atoms] / self._length)
        log_rho = float(self._log_prob(x.reshape(1, *self._shape))[0])
        weight = -energy / self.kT - log_rho
        return weight if math.isfinite(weight) else -math.inf

    def _proposed(self, now: np.ndarray) -> np.ndarray:
        """A structure of the model, where and as the present one lies."""
        noise_shape = next(iter(self._sample.record.inputs.values()))
        noise = torch.randn((1, *noise_shape), generator=self._generator, dtype=torch.float64)
        new = self._sample(noise)[0].double().cpu().reshape(-1, 3) * self._length
        old = torch.from_numpy(now)
        if self._invariance == "none":
            return new.numpy()
        center = old.mean(0)
        new = new - new.mean(0)
        if self._invariance == "rigid":
            # Turned as the model's own structure of the present frame would be: the rotation that
            # aligns the present structure to the model's frame, undone.
            frame = self._frame()
            equal = torch.ones(len(old), dtype=torch.float64)
            new = align(new[None], frame, equal)[0]
            turned = align(old[None], frame, equal)[0]
            u, _, vh = torch.linalg.svd(turned.T @ (old - center))
            new = new @ (u @ vh)
        return (new + center).numpy()

    def _frame(self) -> torch.Tensor:
        """A fixed structure that orientations are told by: that of no noise."""
        if not hasattr(self, "_reference"):
            shape = next(iter(self._sample.record.inputs.values()))
            zero = torch.zeros((1, *shape), dtype=torch.float64)
            x = self._sample(zero)[0].double().cpu().reshape(-1, 3) * self._length
            self._reference = x - x.mean(0)
        return self._reference
