"""Molecules: fits to trajectories of mdtraj, and structures along a mode as a trajectory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from sciflow.nct.model import CanonicalTransformation
from sciflow.nct.motion import interpolate
from sciflow.systems import Conformations, conformations, to_trajectory
from sciflow.systems.trajectories import Selection, is_trajectory

# What differs for molecules from the defaults of a fit: coordinates correlate, so that couplings
# act on their normal modes; slow torsions are to be functions of torsions alone.
DEFAULTS: dict[str, Any] = {
    "space": "modes",
    "torsion_first": True,
    "couplings": 2,
    "batch_size": 512,
    "steps": 900,
    "ema": 0.98,
    "validation": 0.05,
    "dtype": "float32",
}


def is_molecular(q: Any) -> bool:
    """Whether ``q`` is frames of a molecule: conformations, or trajectories of mdtraj."""
    if isinstance(q, list | tuple) and q:
        q = q[0]
    return isinstance(q, Conformations | Iterator) or is_trajectory(q)


def frames_of(
    q: Any, atoms: Selection = None, masses: Sequence[float] | None = None
) -> Conformations:
    """Conformations as they are, or those of trajectories (see `conformations`)."""
    return q if isinstance(q, Conformations) else conformations(q, atoms, masses)


def mode_trajectory(
    model: CanonicalTransformation,
    mode: int,
    n: int = 21,
    width: float = 2.0,
    q: Any = None,
) -> Any:
    """Structures along one mode as a ``mdtraj.Trajectory``.

    Args:
        model: a model fitted to a molecule.
        mode: which, counted from the slowest, 0.
        n: number of frames.
        width: how far to either side, in thermal standard deviations.
        q: where the other modes are: positions (N, 3) [nm], or a trajectory whose first frame
            counts; all at rest where not given.

    Raises:
        ValueError: the model has no molecule, there is no such mode, or ``n`` or ``width`` is out
            of range.
    """
    if model.molecule is None:
        raise ValueError("this model was fitted to numbers, not to a molecule: use interpolate")
    if is_trajectory(q):
        q = model.positions_of(q)[0]
    return to_trajectory(interpolate(model, mode, n, width, q), model.molecule)


def sample_trajectory(model: CanonicalTransformation, n: int, seed: int = 0) -> Any:
    """Independent structures of the model as a ``mdtraj.Trajectory``.

    Raises:
        ValueError: the model has no molecule.
    """
    if model.molecule is None:
        raise ValueError("this model was fitted to numbers, not to a molecule: use sample")
    generator = torch.Generator(model.mass.device).manual_seed(seed)
    z = torch.randn(
        n, model.n_dim, generator=generator, dtype=model.mass.dtype, device=model.mass.device
    )
    with torch.no_grad():
        q = model.coordinates_inverse(model.latent.coordinates(z))[0]
    return to_trajectory(q, model.molecule)
