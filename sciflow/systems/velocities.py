"""Whether velocities of a simulation are those of free atoms at the stated temperature.

Constraints and the removal of the centre of mass take degrees of freedom away, so that the mean
kinetic energy of an atom is below 3/2 kT. A phase-space density fitted to such velocities is
singular, and its frequencies are wrong: momenta are better drawn from N(0, m kT).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sciflow.shapes import Float, Tensor
from sciflow.systems.molecules import Molecule
from sciflow.units import GAS_CONSTANT

# Blocks of consecutive frames that stand for independent draws in the standard error.
_BLOCKS = 10


def equipartition(
    velocities: Float[Tensor, "frame atom 3"], masses: Float[Tensor, " atom"], temperature: float
) -> tuple[Float[Tensor, " atom"], Float[Tensor, " atom"]]:
    """<m v^2> / 3kT of each atom, 1 for free atoms, and its standard error by blocks.

    Args:
        velocities: (F, N, 3) [nm/ps], F at least ten.
        masses: (N,) [dalton].
        temperature: [K].
    """
    kT = GAS_CONSTANT * temperature / 1000
    ratio = masses * velocities.square().mean(2) / kT
    size = len(ratio) // _BLOCKS
    blocks = ratio[: size * _BLOCKS].unflatten(0, (_BLOCKS, size)).mean(1)
    return ratio.mean(0), blocks.std(0) / math.sqrt(_BLOCKS)


def check_velocities(
    velocities: Float[Tensor, "frame atom 3"],
    positions: Float[Tensor, "frame atom 3"],
    molecule: Molecule,
    temperature: float,
) -> None:
    """Refuse velocities from which no momenta can be fitted, with the reason.

    Args:
        velocities: (F, N, 3) [nm/ps], F at least ten.
        positions: (F, N, 3) [nm] of the same frames, whole.
        molecule: the N atoms.
        temperature: [K].

    Raises:
        ValueError: shapes disagree or a number is not finite; the total momentum is zero; bonds
            are constrained; or an atom does not have the kinetic energy 3/2 kT.
    """
    expected = tuple(positions.shape)
    if velocities.shape != positions.shape or expected[1:] != (len(molecule), 3):
        raise ValueError(
            f"velocities has shape {tuple(velocities.shape)}; expected that of the positions, "
            f"{expected}, of {len(molecule)} atoms"
        )
    if len(velocities) < _BLOCKS:
        raise ValueError(f"velocities has {len(velocities)} frames; expected at least {_BLOCKS}")
    if not torch.isfinite(velocities).all():
        raise ValueError("velocities has entries that are not finite")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be positive and finite [K], got {temperature}")
    masses = torch.tensor(molecule.masses).to(velocities)
    kT = GAS_CONSTANT * temperature / 1000
    why = "fit coordinates alone: momenta are then drawn from N(0, m kT)"
    total = (masses[:, None] * velocities).sum(1).square().sum(1).mean()
    if float(total / (3 * masses.sum() * kT)) < 0.1:
        raise ValueError(
            "velocities have no total momentum: the motion of the centre of mass was removed, so "
            f"that they are not those of {len(molecule)} free atoms; {why}"
        )
    stiff = _constrained(velocities, positions, molecule.bonds)
    if stiff:
        names = ", ".join("-".join(molecule.names[i] for i in bond) for bond in stiff[:5])
        raise ValueError(
            f"velocities do not stretch {len(stiff)} bonds ({names} ...): these bonds are "
            f"constrained, and their momenta are no free variables; {why}"
        )
    ratio, error = equipartition(velocities, masses, temperature)
    off = ((ratio - 1).abs() > 5 * error + 0.02).nonzero()[:, 0].tolist()
    if off:
        worst = max(off, key=lambda i: abs(float(ratio[i]) - 1))
        raise ValueError(
            f"velocities break equipartition for {len(off)} of {len(molecule)} atoms: "
            f"<m v^2>/3kT is {ratio[worst]:.3f} +- {error[worst]:.3f} for "
            f"{molecule.labels[worst]} at {temperature:g} K; expected 1. The temperature is "
            f"another one, or degrees of freedom are constrained; {why}"
        )


def _constrained(
    velocities: Float[Tensor, "frame atom 3"],
    positions: Float[Tensor, "frame atom 3"],
    bonds: Sequence[tuple[int, int]],
) -> list[tuple[int, int]]:
    """Bonds along which the two atoms never move against each other."""
    found = []
    for a, b in bonds:
        along = torch.nn.functional.normalize(positions[:, a] - positions[:, b], dim=1)
        relative = velocities[:, a] - velocities[:, b]
        stretch = (relative * along).sum(1).square().mean()
        # A free bond has a third of the relative kinetic energy along itself.
        if float(stretch) < 0.01 * float(relative.square().sum(1).mean()):
            found.append((a, b))
    return found
