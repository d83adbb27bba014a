"""Molecules, and structures of a molecule from one or more runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from sciflow.shapes import Float, Int, Tensor
from sciflow.systems.charts import EckartFrame, InternalCoordinates, ZMatrix, build_zmatrix
from sciflow.systems.charts.geometry import torsions

# What the atoms of a backbone are called; the caps ACE and NME have some of them too. NME calls
# its carbon C in some files, so that only CA and CH3 can be the end of an omega.
_BACKBONE = {
    "phi": (("C", -1), ("N", 0), ("CA", 0), ("C", 0)),
    "psi": (("N", 0), ("CA", 0), ("C", 0), ("N", 1)),
    "omega": (("CA|CH3", 0), ("C", 0), ("N", 1), ("CA|CH3|C", 1)),
}


@dataclass(frozen=True)
class Molecule:
    """Atoms and bonds.

    Attributes:
        names: N names of atoms, for instance ``"CA"``.
        residues: N numbers of the residue each atom belongs to, counted along the chain.
        residue_names: N names of residues, for instance ``"ALA2"``.
        elements: N symbols.
        masses: N masses [dalton].
        bonds: pairs of atoms, numbered from 0.

    Raises:
        ValueError: the lengths disagree, a mass is not positive, or a bond names no atom.
    """

    names: tuple[str, ...]
    residues: tuple[int, ...]
    residue_names: tuple[str, ...]
    elements: tuple[str, ...]
    masses: tuple[float, ...]
    bonds: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        n = len(self.names)
        for name in ("residues", "residue_names", "elements", "masses"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {n} atoms")
        for atom, mass in zip(self.labels, self.masses, strict=True):
            if not (math.isfinite(mass) and mass > 0):
                raise ValueError(
                    f"masses: {atom} has {mass}; expected a positive mass [dalton]: give masses, "
                    "or leave virtual sites out of the atoms"
                )
        if any(not 0 <= i < n for bond in self.bonds for i in bond):
            raise ValueError(f"bonds must name atoms from 0 to {n - 1}; got {self.bonds}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> tuple[str, ...]:
        """Residue and name of each atom, for instance ``"ALA2-CA"``."""
        pairs = zip(self.residue_names, self.names, strict=True)
        return tuple(f"{residue}-{name}" for residue, name in pairs)

    def index(self, label: str) -> int:
        """The atom called ``label``: its name, or residue and name where there are several.

        Raises:
            ValueError: no atom, or more than one, is called so.
        """
        found = [i for i, full in enumerate(self.labels) if label in (full, self.names[i])]
        if len(found) != 1:
            what = "no atom" if not found else f"{len(found)} atoms"
            raise ValueError(f"{what} called {label!r}; the atoms are {', '.join(self.labels)}")
        return found[0]

    def torsions(self) -> dict[str, tuple[int, int, int, int]]:
        """Backbone torsions whose four atoms are here, in the order of the chain.

        They are called phi, psi and omega; where there are several of a kind, phi1, phi2 ...
        """
        here = {(self.residues[i], self.names[i]): i for i in range(len(self))}
        bonds = {frozenset(bond) for bond in self.bonds}
        found: dict[str, tuple[int, int, int, int]] = {}
        for kind, pattern in _BACKBONE.items():
            rows = []
            for residue in sorted(set(self.residues)):
                options = [
                    [here.get((residue + step, name)) for name in names.split("|")]
                    for names, step in pattern
                ]
                quad = [next((atom for atom in row if atom is not None), -1) for row in options]
                if all(frozenset(pair) in bonds for pair in zip(quad, quad[1:], strict=False)):
                    rows.append((quad[0], quad[1], quad[2], quad[3]))
            for i, row in enumerate(rows):
                found[kind if len(rows) == 1 else f"{kind}{i + 1}"] = row
        return found

    def torsion(self, name: str | Sequence[int | str]) -> tuple[int, int, int, int]:
        """Four atoms of a torsion, from its name or from the atoms' numbers or labels.

        Raises:
            ValueError: there is no such torsion, or no such atom.
        """
        if isinstance(name, str):
            known = self.torsions()
            if name not in known:
                raise ValueError(
                    f"no torsion {name!r} among the atoms {', '.join(self.labels)}; known are "
                    f"{', '.join(known) or 'none'}, and any four atoms"
                )
            return known[name]
        quad = tuple(self.index(atom) if isinstance(atom, str) else atom for atom in name)
        if len(quad) != 4 or len(set(quad)) != 4 or not set(quad) <= set(range(len(self))):
            raise ValueError(f"torsion {name!r}: expected four different atoms of {len(self)}")
        return quad[0], quad[1], quad[2], quad[3]

    def zmatrix(self) -> ZMatrix:
        """See `build_zmatrix`."""
        return build_zmatrix(len(self), self.bonds)


@dataclass(frozen=True, eq=False)
class Conformations:
    """Structures of one molecule, whole and in the order of their runs.

    Attributes:
        molecule: the atoms.
        positions: (F, N, 3) [nm], float64.
        run: (F,) which run each frame is from, numbered from 0: frames of different runs are
            independent, frames of one run follow each other.

    Raises:
        ValueError: shapes disagree, there are fewer than two frames, or a position is not finite.
    """

    molecule: Molecule
    positions: Float[Tensor, "frame atom 3"]
    run: Int[Tensor, " frame"]

    def __post_init__(self) -> None:
        n = len(self.molecule)
        if self.positions.ndim != 3 or self.positions.shape[1:] != (n, 3):
            shape = tuple(self.positions.shape)
            raise ValueError(f"positions has shape {shape}; expected (frames, {n}, 3)")
        if len(self.positions) < 2:
            raise ValueError(
                f"positions has {len(self.positions)} frame: a distribution needs at least two"
            )
        if self.run.shape != self.positions.shape[:1]:
            raise ValueError(f"run has shape {tuple(self.run.shape)}; expected one for each frame")
        bad = ~torch.isfinite(self.positions).all(2)
        if bad.any():
            frame, atom = bad.nonzero()[0].tolist()
            raise ValueError(
                f"positions has {int(bad.sum())} atoms that are not finite; the first is "
                f"{self.molecule.labels[atom]} in frame {frame}"
            )

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def runs(self) -> tuple[int, ...]:
        """Numbers of the runs that are here."""
        return tuple(self.run.unique().tolist())

    @property
    def masses(self) -> Float[Tensor, " atom"]:
        """(N,) masses [dalton], float64."""
        return torch.tensor(self.molecule.masses).to(self.positions)

    def take(self, runs: Iterable[int]) -> Conformations:
        """The frames of these runs.

        Raises:
            ValueError: a run is not here.
        """
        wanted = sorted(set(runs))
        if not set(wanted) <= set(self.runs) or not wanted:
            raise ValueError(f"runs {wanted} are not all among {self.runs}")
        kept = torch.isin(self.run, torch.tensor(wanted, device=self.run.device))
        return Conformations(self.molecule, self.positions[kept], self.run[kept])

    def split(
        self, held_out: float | Iterable[int], seed: int = 0
    ) -> tuple[Conformations, Conformations]:
        """Frames to fit and frames held out, divided between runs and never within them.

        Args:
            held_out: numbers of the runs held out; or the share of them, drawn by ``seed``. Of a
                single run that share at its end is held out, since frames that follow each
                other are not independent.
            seed: of the drawing.

        Raises:
            ValueError: nothing would be left on one side, or a run is not here.
        """
        if isinstance(held_out, float | int):
            share = float(held_out)
            if not 0 < share < 1:
                raise ValueError(f"held_out is {share}; expected a share between 0 and 1")
            if len(self.runs) == 1:
                cut = round(len(self) * (1 - share))
                pieces = [(self.positions[s], self.run[s]) for s in (slice(cut), slice(cut, None))]
                kept, out = (Conformations(self.molecule, *piece) for piece in pieces)
                return kept, out
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(len(self.runs), generator=generator, device="cpu").tolist()
            n = min(max(1, round(share * len(self.runs))), len(self.runs) - 1)
            wanted = {self.runs[i] for i in order[:n]}
        else:
            wanted = set(held_out)
        return self.take(set(self.runs) - wanted), self.take(wanted)

    def torsions(self, *names: str | Sequence[int | str]) -> Float[Tensor, "frame torsion"]:
        """Named torsions [rad] of each frame, in (-pi, pi]; all that have names by default.

        Raises:
            ValueError: there is no such torsion, or the molecule has none with a name.
        """
        rows = [self.molecule.torsion(name) for name in names or self.molecule.torsions()]
        if not rows:
            raise ValueError(f"no named torsions among {', '.join(self.molecule.labels)}")
        return torsions(self.positions, torch.tensor(rows, device=self.positions.device))

    def internal_coordinates(
        self,
        cuts: Mapping[str, float] | None = None,
        zmatrix: ZMatrix | None = None,
    ) -> InternalCoordinates:
        """The chart of internal coordinates whose reference is the mean aligned structure.

        Args:
            cuts: angle [rad] at which a torsion, by its name, is cut; the emptiest place by
                default.
            zmatrix: what to measure; from the bonds by default.

        Raises:
            ValueError: the atoms are not bonded to one molecule, or there is no such torsion.
        """
        zmatrix = zmatrix or self.molecule.zmatrix()
        chosen = {}
        for name, cut in (cuts or {}).items():
            quad = self.molecule.torsion(name)
            rows = zmatrix.torsions
            if quad not in rows and quad[::-1] not in rows:
                raise ValueError(f"cuts: {name!r} is no torsion of the Z-matrix, which has {rows}")
            chosen[rows.index(quad if quad in rows else quad[::-1])] = cut
        return InternalCoordinates.from_samples(
            self.positions,
            zmatrix,
            chosen,
            self.molecule.labels,
            reference=self.aligned_frame().reference,
        )

    def aligned_frame(self, mass_weighted: bool = False) -> EckartFrame:
        """The chart of Cartesian coordinates of the molecule aligned to its mean structure."""
        return EckartFrame.from_samples(self.positions, self.masses if mass_weighted else None)
