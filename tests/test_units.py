"""The table of units against scipy's, and against published conversion factors."""

import math

import pytest
import torch
from scipy import constants

from sciflow import units
from sciflow.units import UNITS, convert, kT


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (units.SPEED_OF_LIGHT, "speed of light in vacuum"),
        (units.PLANCK, "Planck constant"),
        (units.HBAR, "reduced Planck constant"),
        (units.ELEMENTARY_CHARGE, "elementary charge"),
        (units.BOLTZMANN, "Boltzmann constant"),
        (units.AVOGADRO, "Avogadro constant"),
        (units.GAS_CONSTANT, "molar gas constant"),
        (units.HARTREE, "Hartree energy"),
        (units.BOHR, "Bohr radius"),
        (units.ELECTRON_MASS, "electron mass"),
        (units.DALTON, "atomic mass constant"),
        (UNITS["atomic_time"].scale, "atomic unit of time"),
    ],
)
def test_constants(ours, name):
    # scipy may carry a later adjustment than 2018: the measured values moved by up to 1.4e-9.
    assert ours == pytest.approx(constants.value(name), rel=2e-9)


def test_exact_constants_are_exact():
    assert units.GAS_CONSTANT == pytest.approx(8.314_462_618_153_24, rel=1e-15)
    assert units.BOLTZMANN == constants.k and units.AVOGADRO == constants.N_A
    assert units.PLANCK == constants.h and units.SPEED_OF_LIGHT == constants.c


@pytest.mark.parametrize(
    ("value", "source", "target", "expected", "digits"),
    [
        # CODATA 2018 values of the energy equivalents, and what follows from definitions.
        (1.0, "hartree", "eV", 27.211_386_245_988, 1e-13),
        (1.0, "hartree", "kJ/mol", 2625.499_639_479_9, 1e-12),
        (1.0, "hartree", "kcal/mol", 627.509_474_063_1, 1e-12),
        (1.0, "hartree", "K", 3.157_750_248_040_7e5, 1e-13),
        (1.0, "eV", "kJ/mol", 96.485_332_123_31, 1e-12),
        (1.0, "kcal/mol", "kJ/mol", 4.184, 1e-14),
        (1.0, "bohr", "angstrom", 0.529_177_210_903, 1e-12),
        (0.1, "nm", "angstrom", 1.0, 1e-14),
        (1.0, "atomic_time", "fs", 2.418_884_326_585_7e-2, 1e-13),
        (1.0, "dalton", "electron_mass", 1822.888_486_209, 1e-10),
        (1.0, "cm^-1", "rad/ps", 0.188_365_156_730_885_3, 1e-13),
        (33.356_409_519_815_2, "cm^-1", "THz", 1.0, 1e-13),
        (1.0, "hartree/bohr", "kJ/mol/nm", 49_614.752_58, 1e-9),
        (1.0, "dalton*nm^2/ps^2", "kJ/mol", 0.999_999_999_65, 1e-11),
        (2.0, "ns", "ps", 2000.0, 1e-14),
    ],
)
def test_conversions(value, source, target, expected, digits):
    assert convert(value, source, target) == pytest.approx(expected, rel=digits)
    assert convert(expected, target, source) == pytest.approx(value, rel=digits)


def test_every_unit_converts_to_itself_and_back():
    for name, one in UNITS.items():
        assert convert(3.0, name, name) == 3.0
        for other, two in UNITS.items():
            if one.powers == two.powers:
                assert convert(convert(1.7, name, other), other, name) == pytest.approx(1.7)


def test_tensors_keep_their_type():
    value = torch.tensor([[1.0, 2.0]], dtype=torch.float32)
    result = convert(value, "nm", "angstrom")
    assert result.dtype == torch.float32
    assert torch.allclose(result, 10 * value)


def test_thermal_energy():
    assert kT(300.0) == pytest.approx(2.494_338_785_445_97, rel=1e-13)
    assert kT(298.15) == pytest.approx(convert(298.15, "K", "kJ/mol"), rel=1e-14)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be positive"):
            kT(bad)


def test_refused():
    with pytest.raises(ValueError, match="to_unit 'kJ/mol' is length.2 mass.1 time.-2 while"):
        convert(1.0, "nm", "kJ/mol")
    with pytest.raises(ValueError, match="a pure number"):
        convert(1.0, "rad", "ps")
    for bad in ("parsec", "kJ//mol", "", "nm^x", "nm^1.5"):
        with pytest.raises(ValueError, match="unknown part"):
            convert(1.0, bad, "nm")
