"""What is asked: nuclei in space, the charge, and how many electrons have which spin."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sciflow.shapes import Float, Tensor
from sciflow.units import convert
from sciflow.wqmc.elements import GEOMETRIES, GROUND_SPIN, SYMBOLS

logger = logging.getLogger(__name__)

Position = tuple[float, float, float]

# Two nuclei this close [bohr] are a mistake, two further than this from all others look like one.
_COINCIDENT, _SHORT, _FAR = 0.1, 0.9, 12.0


@dataclass(frozen=True, init=False)
class Molecule:
    """Nuclei and electrons, in bohr.

    Args:
        symbols: a name (``"LiH"``: see `GEOMETRIES`; any element, ``"Be"``, is that atom), a
            formula whose atoms are given in its order (``"H2O"`` with three positions), or a
            sequence of element symbols.
        positions: (A, 3), one row per nucleus. None for a name.
        charge: total charge in units of e.
        spin: number of unpaired electrons, n_up - n_down. None takes the ground state of an atom,
            and 0 or 1 for a molecule.
        unit: of ``positions``: "bohr" or "angstrom".

    Attributes:
        symbols: element of each nucleus.
        positions: of the nuclei [bohr], one triple each.
        charge: total charge [e].
        spin: n_up - n_down.

    Raises:
        ValueError: an unknown element or name, positions that do not fit or coincide, a charge or
            spin that the electrons cannot have.

    Example:
        >>> mol = Molecule("LiH")
        >>> mol.n_up, mol.n_down
        (2, 2)
        >>> Molecule("H2", [[0, 0, 0], [0, 0, 0.74]], unit="angstrom").n_electrons
        2
    """

    symbols: tuple[str, ...]
    positions: tuple[Position, ...]
    charge: int
    spin: int

    def __init__(
        self,
        symbols: str | Sequence[str],
        positions: Any = None,
        charge: int = 0,
        spin: int | None = None,
        unit: str = "bohr",
    ) -> None:
        if positions is None:
            elements, rows = _named(symbols)
        else:
            elements = parse_formula(symbols) if isinstance(symbols, str) else tuple(symbols)
            rows = _rows(positions, len(elements), unit)
        for element in elements:
            if element not in SYMBOLS:
                raise ValueError(
                    f"symbols has the unknown element {element!r}; known are "
                    f"{SYMBOLS[0]} to {SYMBOLS[-1]}"
                )
        n = sum(SYMBOLS.index(element) + 1 for element in elements) - _whole("charge", charge)
        if n < 1:
            raise ValueError(f"charge = {charge} leaves {n} electrons; expected at least 1")
        if spin is None:
            atom = len(elements) == 1 and n <= len(GROUND_SPIN)
            spin = GROUND_SPIN[n - 1] if atom else n % 2
        if abs(_whole("spin", spin)) > n or (n - spin) % 2:
            raise ValueError(
                f"spin = {spin} (n_up - n_down) does not fit {n} electrons (charge {charge}); "
                f"expected {'an odd' if n % 2 else 'an even'} number, at most {n} in size"
            )
        for name, value in zip(
            ("symbols", "positions", "charge", "spin"),
            (elements, rows, charge, spin),
            strict=True,
        ):
            object.__setattr__(self, name, value)
        self._check_distances()

    def _check_distances(self) -> None:
        for i, a in enumerate(self.positions):
            distances = [math.dist(a, b) for j, b in enumerate(self.positions) if j != i]
            nearest = min(distances, default=1.0)
            if nearest < _COINCIDENT:
                j = distances.index(nearest)
                j += j >= i
                raise ValueError(
                    f"positions of nuclei {i} ({self.symbols[i]}) and {j} ({self.symbols[j]}) "
                    f"are {nearest:.3g} bohr apart; expected at least {_COINCIDENT}"
                )
            if not _SHORT <= nearest <= _FAR and nearest != 1.0:
                looks = "angstrom" if nearest < _SHORT else "pm, or bohr read as nm"
                logger.warning(
                    "nucleus %d (%s) is %.3g bohr from its nearest neighbour: were the positions "
                    "given in %s?",
                    i,
                    self.symbols[i],
                    nearest,
                    looks,
                )

    @classmethod
    def from_xyz(
        cls, path: str | Path, charge: int = 0, spin: int | None = None, unit: str = "angstrom"
    ) -> Molecule:
        """Read a file: number of atoms, a comment, then symbol and position of each.

        Raises:
            ValueError: names the line that cannot be read.
            FileNotFoundError: there is no such file.
        """
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        if not lines or not lines[0].strip().isdigit():
            found = lines[0] if lines else "an empty file"
            raise ValueError(f"{path}, line 1: expected the number of atoms, got {found!r}")
        count = int(lines[0])
        symbols, rows = [], []
        for number in range(3, 3 + count):
            words = lines[number - 1].split() if number <= len(lines) else []
            try:
                rows.append([float(word) for word in words[1:4]])
                if len(rows[-1]) != 3:
                    raise ValueError
            except ValueError:
                line = lines[number - 1] if number <= len(lines) else "the end of the file"
                raise ValueError(
                    f"{path}, line {number}: expected symbol x y z, got {line!r}"
                ) from None
            symbols.append(words[0].capitalize())
        return cls(symbols, rows, charge, spin, unit)

    @classmethod
    def from_pyscf(cls, mole: Any) -> Molecule:
        """Take nuclei, charge and spin of a ``pyscf.gto.Mole`` that was built.

        Raises:
            ValueError: the molecule has ghost atoms or pseudopotentials.
        """
        if mole.has_ecp():
            raise ValueError("mole has pseudopotentials; expected all electrons")
        symbols = [mole.atom_pure_symbol(i) for i in range(mole.natm)]
        return cls(symbols, mole.atom_coords(unit="Bohr"), int(mole.charge), int(mole.spin))

    @property
    def n_electrons(self) -> int:
        """Number of electrons N."""
        return sum(self.charges) - self.charge

    @property
    def n_up(self) -> int:
        """Number of electrons of spin up; they come first in every array."""
        return (self.n_electrons + self.spin) // 2

    @property
    def n_down(self) -> int:
        """Number of electrons of spin down."""
        return (self.n_electrons - self.spin) // 2

    @property
    def charges(self) -> tuple[int, ...]:
        """Charge of each nucleus [e]."""
        return tuple(SYMBOLS.index(symbol) + 1 for symbol in self.symbols)

    def coordinates(self) -> Float[Tensor, "nucleus 3"]:
        """Positions of the nuclei [bohr] in float64, (A, 3)."""
        return torch.tensor(self.positions, dtype=torch.float64, device="cpu")

    def repulsion(self) -> float:
        """Coulomb energy of the nuclei [hartree]."""
        pairs = [(i, j) for i in range(len(self.symbols)) for j in range(i)]
        z, r = self.charges, self.positions
        return float(sum(z[i] * z[j] / math.dist(r[i], r[j]) for i, j in pairs))


def parse_formula(formula: str) -> tuple[str, ...]:
    """The atoms of ``"H2O"``, in the order in which the formula has them.

    Raises:
        ValueError: it is no formula.
    """
    parts = re.findall(r"([A-Z][a-z]?)(\d*)", formula)
    if not parts or "".join(symbol + count for symbol, count in parts) != formula:
        raise ValueError(f"symbols {formula!r} is no chemical formula, such as 'H2O'")
    return tuple(s for symbol, count in parts for s in [symbol] * int(count or 1))


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(f"{name} must be a whole number; got {value!r}")
    return int(value)


def _named(symbols: str | Sequence[str]) -> tuple[tuple[str, ...], tuple[Position, ...]]:
    name = symbols if isinstance(symbols, str) else "".join(symbols)
    if name in SYMBOLS:
        return (name,), ((0.0, 0.0, 0.0),)
    if name not in GEOMETRIES:
        raise ValueError(
            f"there is no molecule {name!r}; known are {', '.join(GEOMETRIES)} and the elements "
            f"{SYMBOLS[0]} to {SYMBOLS[-1]}. Give positions for any other"
        )
    return parse_formula(name), GEOMETRIES[name]


def _rows(positions: Any, n: int, unit: str) -> tuple[Position, ...]:
    if unit not in ("bohr", "angstrom"):
        raise ValueError(f"unit must be 'bohr' or 'angstrom'; got {unit!r}")
    rows = torch.as_tensor(positions, dtype=torch.float64, device="cpu")
    if rows.shape != (n, 3):
        raise ValueError(
            f"positions has shape {tuple(rows.shape)}; expected ({n}, 3), a row per nucleus"
        )
    if not bool(torch.isfinite(rows).all()):
        raise ValueError("positions has entries that are not finite numbers")
    return tuple((x, y, z) for x, y, z in convert(rows, unit, "bohr").tolist())
