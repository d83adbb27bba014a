"""Facts of atoms: symbols, spins of ground states, Slater's rules; and geometries by name."""

from __future__ import annotations

from typing import NamedTuple

SYMBOLS = tuple("H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar".split())

# n_up - n_down of the ground state of an atom with 1, 2, ... electrons (Hund).
GROUND_SPIN = (1, 0, 1, 0, 1, 2, 3, 2, 1, 0, 1, 0, 1, 2, 3, 2, 1, 0)

# Positions [bohr] at the bond lengths of the reference energies of the literature: H2 Kolos and
# Wolniewicz (1968); LiH Cencek and Rychlewski (2000); Li2, N2 Filippi and Umrigar (1996); H10
# Motta et al., PRX 7, 031059 (2017), and H4 with the same bonds.
GEOMETRIES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "H2": ((0.0, 0.0, -0.7), (0.0, 0.0, 0.7)),
    "LiH": ((0.0, 0.0, 0.0), (0.0, 0.0, 3.015)),
    "Li2": ((0.0, 0.0, -2.5255), (0.0, 0.0, 2.5255)),
    "N2": ((0.0, 0.0, -1.034), (0.0, 0.0, 1.034)),
    "H4": tuple((0.0, 0.0, 1.8 * i - 2.7) for i in range(4)),
    "H10": tuple((0.0, 0.0, 1.8 * i - 8.1) for i in range(10)),
}


class Shell(NamedTuple):
    """One shell of an atom by Slater's rules, Phys. Rev. 36, 57 (1930).

    Attributes:
        n: principal quantum number.
        l: 0 or 1.
        exponent: (Z - screening) / n [1/bohr].
    """

    n: int
    l: int
    exponent: float


def shells(z: int) -> list[Shell]:
    """Shells of the neutral atom, s and p to each occupied n; for n = 1 a p shell of polarisation.

    The p shell of H and He, and that of Li and Be, is empty in the atom: it lets a wave function
    begin with angular correlation.
    """
    groups = [(1, 2), (2, 8), (3, 8)]  # (n, electrons that s and p of this n hold)
    left = z
    inner: list[tuple[int, int]] = []  # (n, electrons) of the shells below
    found: list[Shell] = []
    for n, capacity in groups:
        own = min(left, capacity)
        if own == 0:
            break
        same = (0.30 if n == 1 else 0.35) * (own - 1)
        below = sum(count * (0.85 if m == n - 1 else 1.0) for m, count in inner)
        exponent = (z - same - below) / n
        found.append(Shell(n, 0, exponent))
        if n > 1:
            found.append(Shell(n, 1, exponent))
        inner.append((n, own))
        left -= own
    if len(inner) == 1:
        found.append(Shell(2, 1, found[0].exponent))
    return found
