"""Energies by name, for command lines and benchmarks; a new one is one line here."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from sciflow.systems.anharmonic_chains import FPUTBeta, Phi4
from sciflow.systems.base import System
from sciflow.systems.harmonic_chain import HarmonicChain
from sciflow.systems.landscapes import DoubleWell, MuellerBrown, Ring
from sciflow.systems.particles import DoubleWellParticles, LennardJones

SYSTEMS: MappingProxyType[str, Callable[..., System]] = MappingProxyType(
    {
        "ring": Ring,
        "harmonic_chain": HarmonicChain,
        "fput": FPUTBeta,
        "phi4": Phi4,
        "double_well": DoubleWell,
        "mueller_brown": MuellerBrown,
        "dw4": DoubleWellParticles,
        "lj13": LennardJones,
    }
)


def make_system(name: str, **parameters: Any) -> System:
    """The system of a name in `SYSTEMS`.

    Args:
        name: one of the names.
        **parameters: fields of its dataclass that differ from their defaults.

    Raises:
        ValueError: the name is unknown, or a parameter is out of its range.
        TypeError: the system has no such parameter.

    Example:
        >>> make_system("harmonic_chain", n=8).n_dim
        8
    """
    if name not in SYSTEMS:
        raise ValueError(f"name is {name!r}; expected one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name](**parameters)
