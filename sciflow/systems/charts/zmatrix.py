"""Z-matrices: which bond, angle and torsion place each atom of a molecule."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ZMatrix:
    """The order in which atoms are placed, and what each is placed by.

    Attributes:
        rows: one for each atom: the atom, then those its bond, angle and torsion refer to, all
            placed before. The first row has the atom alone, the second a bond, the third a bond
            and an angle, every other row all three, so that there are 3N - 6 coordinates.

    Raises:
        ValueError: an atom is missing, placed twice, or refers to one that is not yet placed.
    """

    rows: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.rows) < 3:
            raise ValueError(f"rows has {len(self.rows)} atoms; expected at least 3")
        placed: set[int] = set()
        for number, row in enumerate(self.rows):
            if len(row) != min(number + 1, 4):
                raise ValueError(
                    f"rows[{number}] is {row}; expected {min(number + 1, 4)} atoms: the placed "
                    "one and those its bond, angle and torsion refer to"
                )
            atom, *others = row
            if atom in placed or len(set(row)) != len(row) or not placed.issuperset(others):
                raise ValueError(
                    f"rows[{number}] is {row}; expected a new atom, then others, all different "
                    f"and among those placed before: {sorted(placed)}"
                )
            placed.add(atom)
        if placed != set(range(len(self.rows))):
            raise ValueError(
                f"rows place the atoms {sorted(placed)}; expected 0 to {len(self.rows) - 1}"
            )

    @property
    def bonds(self) -> list[tuple[int, ...]]:
        """The N - 1 pairs of atoms whose distance is a coordinate."""
        return [row[:2] for row in self.rows[1:]]

    @property
    def angles(self) -> list[tuple[int, ...]]:
        """The N - 2 triples of atoms whose angle is a coordinate."""
        return [row[:3] for row in self.rows[2:]]

    @property
    def torsions(self) -> list[tuple[int, ...]]:
        """The N - 3 quadruples whose torsion, proper or improper, is a coordinate."""
        return list(self.rows[3:])


def build_zmatrix(n_atoms: int, bonds: Sequence[tuple[int, int]]) -> ZMatrix:
    """A Z-matrix along the bonds of a molecule, from one end of its longest chain.

    The first atom placed on another, that of the longest branch, gets a proper torsion; its
    siblings get improper ones, to the first. So each rotatable bond has one coordinate that turns
    all that is beyond it, and all others are stiff. Bonds that close a ring are left out.

    Args:
        n_atoms: number of atoms N, at least 3.
        bonds: pairs of atoms, numbered from 0.

    Raises:
        ValueError: a bond names no atom, or the atoms are not joined to one molecule by bonds.
    """
    neighbours: list[list[int]] = [[] for _ in range(n_atoms)]
    for a, b in bonds:
        if not (0 <= a < n_atoms and 0 <= b < n_atoms and a != b):
            raise ValueError(f"bonds has ({a}, {b}); expected two different atoms below {n_atoms}")
        neighbours[a].append(b)
        neighbours[b].append(a)
    neighbours = [sorted(set(row)) for row in neighbours]
    far, reached = _farthest(neighbours, 0)
    if len(reached) < n_atoms:
        lost = sorted(set(range(n_atoms)) - reached.keys())
        raise ValueError(
            f"bonds do not join the atoms {lost} to atom 0: choose atoms that are bonded to one "
            "molecule, or give a Z-matrix of your own"
        )
    root = min(far, _farthest(neighbours, far)[0])
    return ZMatrix(_rows(root, _farthest(neighbours, root)[1]))


def _farthest(neighbours: list[list[int]], start: int) -> tuple[int, dict[int, int]]:
    """The atom most bonds away from ``start`` (lowest number), and each atom's parent."""
    parent, depth, queue = {start: -1}, {start: 0}, deque([start])
    while queue:
        atom = queue.popleft()
        for other in neighbours[atom]:
            if other not in parent:
                parent[other], depth[other] = atom, depth[atom] + 1
                queue.append(other)
    return min(depth, key=lambda atom: (-depth[atom], atom)), parent


def _rows(root: int, parents: dict[int, int]) -> tuple[tuple[int, ...], ...]:
    """Rows in the order of breadth-first search, longest branch first among siblings."""
    children: dict[int, list[int]] = {atom: [] for atom in parents}
    height = dict.fromkeys(parents, 0)
    for atom in reversed(parents):  # the dictionary is in the order of the search
        if (parent := parents[atom]) >= 0:
            children[parent].append(atom)
            height[parent] = max(height[parent], height[atom] + 1)
    for branch in children.values():
        branch.sort(key=lambda atom: (-height[atom], atom))
    rows: list[tuple[int, ...]] = []
    queue = deque([root])
    while queue:
        atom = queue.popleft()
        placed = [row[0] for row in rows]
        rows.append((atom, *_references(atom, parents, children, placed)))
        queue.extend(children[atom])
    return tuple(rows)


def _references(
    atom: int, parents: dict[int, int], children: dict[int, list[int]], placed: list[int]
) -> tuple[int, ...]:
    """What the bond, angle and torsion of an atom refer to, as far as atoms are placed."""
    if not placed:
        return ()
    parent = parents[atom]
    siblings = [other for other in children[parent] if other in placed]
    if parents[parent] < 0:  # on the root, everything hangs on its first branch
        first = siblings[:1]
        beyond = [other for other in placed if parents[other] in first]
        return (parent, *(first + siblings[1:] + beyond)[:2])
    grand = parents[parent]
    if siblings:
        return (parent, grand, siblings[0])
    if parents[grand] >= 0:
        return (parent, grand, parents[grand])
    others = [other for other in children[grand] if other in placed and other != parent]
    return (parent, grand, *others[:1])
