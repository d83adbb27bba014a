"""Systems of units of simulation codes, and the factors between them."""

from __future__ import annotations

from typing import NamedTuple

from sciflow.units import convert


class UnitSystem(NamedTuple):
    """Units of length and energy; the unit of a force is their ratio."""

    length: str
    energy: str


#: OpenMM, GROMACS and PLUMED speak "md", ASE "metal"; "metal", "real", "electron" and "lj" are the
#: styles of LAMMPS. "reduced" has no units.
UNIT_SYSTEMS: dict[str, UnitSystem] = {
    "reduced": UnitSystem("1", "1"),
    "md": UnitSystem("nm", "kJ/mol"),
    "metal": UnitSystem("angstrom", "eV"),
    "real": UnitSystem("angstrom", "kcal/mol"),
    "electron": UnitSystem("bohr", "hartree"),
}


def unit_system(name: str) -> UnitSystem:
    """The system of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in UNIT_SYSTEMS:
        raise ValueError(f"units must be one of {', '.join(UNIT_SYSTEMS)}; got {name!r}")
    return UNIT_SYSTEMS[name]


def unit_factors(of: str, to: str) -> tuple[float, float]:
    """Lengths and energies of one system in units of another.

    Raises:
        ValueError: a system is unknown, or one of them alone has no units.
    """
    source, target = unit_system(of), unit_system(to)
    if (of == "reduced") != (to == "reduced"):
        raise ValueError(
            f"the model was exported with units {of!r}, and units {to!r} are expected: export it "
            f"with units={to!r} if that is what its numbers are"
        )
    return (
        convert(1.0, source.length, target.length),
        convert(1.0, source.energy, target.energy),
    )
