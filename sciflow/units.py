"""Physical constants and conversions: one table for the whole package.

Every unit is a number of SI units and the powers of length, mass and time in it. Three readings
of everyday physics are built in:

- ``mol`` is the pure number of Avogadro, so that kJ/mol, eV and hartree are the same dimension;
- ``K`` is the energy kB times one kelvin, so that 300 K is 2.494 kJ/mol;
- ``cm^-1``, ``THz`` and ``Hz`` are angular frequencies, 2 pi c / (1 cm) and 2 pi times the number
  of cycles, because frequencies in this package are angular (rad/ps).

Source: CODATA 2018, Tiesinga et al., Rev. Mod. Phys. 93, 025010 (2021), tables XXXI to XXXIII.
"""

from __future__ import annotations

import math
import re
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from torch import Tensor

# Exact by the definition of the SI.
SPEED_OF_LIGHT = 299_792_458.0  # m/s
PLANCK = 6.626_070_15e-34  # J s
HBAR = PLANCK / (2 * math.pi)  # J s
ELEMENTARY_CHARGE = 1.602_176_634e-19  # C
BOLTZMANN = 1.380_649e-23  # J/K
AVOGADRO = 6.022_140_76e23  # 1/mol
GAS_CONSTANT = BOLTZMANN * AVOGADRO  # J/(mol K)

# Measured.
HARTREE = 4.359_744_722_2071e-18  # J, relative uncertainty 1.9e-12
BOHR = 5.291_772_109_03e-11  # m, 1.5e-10
ELECTRON_MASS = 9.109_383_7015e-31  # kg, 3.0e-10
DALTON = 1.660_539_066_60e-27  # kg, 3.0e-10

_ENERGY = (2, 1, -2)
_FREQUENCY = (0, 0, -1)


class Unit(NamedTuple):
    """A unit in terms of the SI.

    Attributes:
        scale: how many SI units it is.
        powers: of metre, kilogram and second.
    """

    scale: float
    powers: tuple[int, int, int]


UNITS = MappingProxyType(
    {
        "1": Unit(1.0, (0, 0, 0)),
        "rad": Unit(1.0, (0, 0, 0)),
        "mol": Unit(AVOGADRO, (0, 0, 0)),
        "m": Unit(1.0, (1, 0, 0)),
        "cm": Unit(1e-2, (1, 0, 0)),
        "nm": Unit(1e-9, (1, 0, 0)),
        "angstrom": Unit(1e-10, (1, 0, 0)),
        "bohr": Unit(BOHR, (1, 0, 0)),
        "kg": Unit(1.0, (0, 1, 0)),
        "g": Unit(1e-3, (0, 1, 0)),
        "dalton": Unit(DALTON, (0, 1, 0)),
        "electron_mass": Unit(ELECTRON_MASS, (0, 1, 0)),
        "s": Unit(1.0, (0, 0, 1)),
        "ns": Unit(1e-9, (0, 0, 1)),
        "ps": Unit(1e-12, (0, 0, 1)),
        "fs": Unit(1e-15, (0, 0, 1)),
        "atomic_time": Unit(HBAR / HARTREE, (0, 0, 1)),
        "J": Unit(1.0, _ENERGY),
        "kJ": Unit(1e3, _ENERGY),
        "cal": Unit(4.184, _ENERGY),  # the thermochemical calorie, exact by definition
        "kcal": Unit(4184.0, _ENERGY),
        "eV": Unit(ELEMENTARY_CHARGE, _ENERGY),
        "hartree": Unit(HARTREE, _ENERGY),
        "K": Unit(BOLTZMANN, _ENERGY),
        "cm^-1": Unit(2 * math.pi * SPEED_OF_LIGHT * 100, _FREQUENCY),
        "THz": Unit(2e12 * math.pi, _FREQUENCY),
        "Hz": Unit(2 * math.pi, _FREQUENCY),
    }
)

Value = TypeVar("Value", float, Tensor)


def unit(expression: str) -> Unit:
    """The unit that an expression such as ``"kJ/mol/nm"`` or ``"dalton*nm^2/ps^2"`` means.

    Args:
        expression: names of `UNITS` joined by ``*`` and ``/``, each with a whole power. A name of
            the table is read as it stands, so ``"cm^-1"`` is a frequency.

    Raises:
        ValueError: a name is unknown or the expression cannot be read.
    """
    if expression in UNITS:
        return UNITS[expression]
    scale, powers = 1.0, (0, 0, 0)
    # The first factor has no operator before it: it is one to multiply with.
    for operator, factor in re.findall(r"([*/])([^*/]*)", f"*{expression}"):
        match = re.fullmatch(r"\s*(\w+)(?:\^(-?\d+))?\s*", factor)
        if match is None or match[1] not in UNITS:
            raise ValueError(
                f"unit {expression!r} has the unknown part {factor!r}; expected names joined by "
                f"* and /, out of {', '.join(UNITS)}"
            )
        power = int(match[2] or 1) * (1 if operator == "*" else -1)
        base = UNITS[match[1]]
        scale *= base.scale**power
        length, mass, time = (
            old + power * new for old, new in zip(powers, base.powers, strict=True)
        )
        powers = (length, mass, time)
    return Unit(scale, powers)


def convert(value: Value, from_unit: str, to_unit: str) -> Value:
    """Express a quantity in another unit of the same dimension.

    Args:
        value: number or tensor of any shape, in ``from_unit``.
        from_unit: expression that `unit` reads, for instance ``"kcal/mol"``.
        to_unit: the same.

    Returns:
        The quantity in ``to_unit``, of the type, shape and dtype of ``value``.

    Raises:
        ValueError: a unit is unknown, or the two differ in dimension.

    Example:
        >>> round(convert(1.0, "hartree", "kcal/mol"), 4)
        627.5095
    """
    source, target = unit(from_unit), unit(to_unit)
    if source.powers != target.powers:
        raise ValueError(
            f"to_unit {to_unit!r} is {_dimension(target)} while from_unit {from_unit!r} is "
            f"{_dimension(source)}; expected units of one dimension"
        )
    return value * (source.scale / target.scale)


def kT(temperature: float) -> float:
    """Thermal energy [kJ/mol] at ``temperature`` [K].

    Raises:
        ValueError: the temperature is not positive and finite.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be positive and finite [K], got {temperature}")
    return GAS_CONSTANT * temperature / 1000


def _dimension(of: Unit) -> str:
    names = zip(("length", "mass", "time"), of.powers, strict=True)
    return " ".join(f"{name}^{power}" for name, power in names if power) or "a pure number"
