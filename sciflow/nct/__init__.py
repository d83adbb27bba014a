"""Neural canonical transformations: a symplectic map of a system to independent oscillators.

>>> from sciflow import nct
>>> model = nct.fit_energy(potential, n_dim=32)  # doctest: +SKIP
>>> model.frequencies, model.free_energy()  # doctest: +SKIP
"""

from sciflow.nct.compression import compress
from sciflow.nct.energy import fit_energy
from sciflow.nct.files import load
from sciflow.nct.frequencies import Frequencies
from sciflow.nct.model import CanonicalTransformation, PhasePoints
from sciflow.nct.molecules import mode_trajectory, sample_trajectory
from sciflow.nct.motion import evolve, interpolate, mode_shapes
from sciflow.nct.options import FitOptions
from sciflow.nct.samples import fit_samples

__all__ = [
    "CanonicalTransformation",
    "FitOptions",
    "Frequencies",
    "PhasePoints",
    "compress",
    "evolve",
    "fit_energy",
    "fit_samples",
    "interpolate",
    "load",
    "mode_shapes",
    "mode_trajectory",
    "sample_trajectory",
]
