"""Molecules that a periodic box has cut, joined along their bonds at every step of a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Joined:
    """Positions of one molecule, its bonds no longer than half the box.

    Args:
        n_atoms: number of atoms.
        bonds: pairs of atoms; they must join all of them.

    Raises:
        ValueError: the bonds leave an atom out.
    """

    def __init__(self, n_atoms: int, bonds: Sequence[Sequence[int]]) -> None:
        neighbours: list[list[int]] = [[] for _ in range(n_atoms)]
        for a, b in bonds:
            neighbours[a].append(b)
            neighbours[b].append(a)
        # Row i of `paths` marks the bonds on the way from atom 0 to atom i.
        starts: list[int] = []
        ends: list[int] = []
        paths = np.zeros((n_atoms, n_atoms - 1))
        seen, queue = {0}, [0]
        for atom in queue:
            for other in neighbours[atom]:
                if other not in seen:
                    seen.add(other)
                    queue.append(other)
                    paths[other] = paths[atom]
                    paths[other, len(ends)] = 1.0
                    starts.append(atom)
                    ends.append(other)
        if len(seen) < n_atoms:
            raise ValueError(
                f"in a periodic box all atoms must be joined by bonds; {n_atoms - len(seen)} of "
                f"{n_atoms} are not joined to the first"
            )
        self.starts, self.ends, self.paths = starts, ends, paths

    def __call__(self, x: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Positions (N, 3) joined, in a box whose vectors are the rows of ``box`` (3, 3)."""
        turns = np.rint((x[self.ends] - x[self.starts]) @ np.linalg.inv(box))
        return x - self.paths @ turns @ box
