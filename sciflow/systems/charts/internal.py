"""Internal coordinates of a molecule: bonds, angles and torsions of a Z-matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from sciflow.shapes import Float, Tensor
from sciflow.systems.charts.chart import Chart
from sciflow.systems.charts.frame import align, center, check_positions, frame_log_volume
from sciflow.systems.charts.geometry import (
    angle_gradients,
    angles,
    bond_gradients,
    bond_lengths,
    place,
    torsion_gradients,
    torsions,
    wrap,
)
from sciflow.systems.charts.zmatrix import ZMatrix

# A torsion that leaves this share of its circle empty is stiff: it has no period.
_STIFF = 0.5
# Angles nearer to a straight line than this leave a torsion undefined.
_STRAIGHT = math.radians(5.0)


class InternalCoordinates(Chart):
    """Bonds [unit of q], angles and torsions [rad] of a molecule, 3N - 6 in all.

    They are invariant under rigid motion. A torsion is returned relative to the middle of its
    range, in [-pi, pi), so that its jump is at a cut where the molecule never is. Rotatable
    torsions have the period 2 pi; stiff ones, whose range is narrow, count as ordinary numbers.

    ``inverse`` returns the molecule aligned to the reference. Its formula holds for all numbers,
    but bonds that are not positive, and angles outside (0, pi), are not what ``forward`` returns.

    Args:
        zmatrix: what is measured and in which order atoms are placed.
        reference: (N, 3) positions that structures are aligned to (see `Chart.forward`).
        cuts: angle [rad] at which each of the N - 3 torsions is cut; -pi where not given.
        stiff: which of the N - 3 torsions have no period; none where not given.
        atom_names: N names for `names`; numbers where not given.

    Raises:
        ValueError: shapes disagree.

    Source: Wilson, Decius, Cross, Molecular Vibrations (1955), chapters 4 and 6; Noé, Olsson,
    Köhler, Wu, Science 365, eaaw1147 (2019), supplement, for internal coordinates in flows.
    """

    reference: Tensor
    middle: Tensor
    bond_atoms: Tensor
    angle_atoms: Tensor
    torsion_atoms: Tensor

    def __init__(
        self,
        zmatrix: ZMatrix | Sequence[Sequence[int]],
        reference: Float[Tensor, "atom 3"] | Sequence[Sequence[float]],
        cuts: Sequence[float] | None = None,
        stiff: Sequence[bool] | None = None,
        atom_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(zmatrix, ZMatrix):
            zmatrix = ZMatrix(tuple(tuple(row) for row in zmatrix))
        n = len(zmatrix.rows)
        if not isinstance(reference, Tensor):
            reference = torch.tensor(reference, dtype=torch.float64)
        reference = check_positions(reference[None], "reference", n)[0].detach().double()
        cuts = [-math.pi] * (n - 3) if cuts is None else list(cuts)
        stiff = [False] * (n - 3) if stiff is None else list(stiff)
        atom_names = [str(i) for i in range(n)] if atom_names is None else list(atom_names)
        for name, value, length in (
            ("cuts", cuts, n - 3),
            ("stiff", stiff, n - 3),
            ("atom_names", atom_names, n),
        ):
            if len(value) != length:
                raise ValueError(f"{name} has {len(value)} entries; expected {length}")
        self.zmatrix, self.atom_names = zmatrix, tuple(atom_names)
        # What the class is made again from, in the words of JSON.
        self.config = {
            "zmatrix": [list(row) for row in zmatrix.rows],
            "reference": reference.tolist(),
            "cuts": [float(cut) for cut in cuts],
            "stiff": [bool(s) for s in stiff],
            "atom_names": list(atom_names),
        }
        self.n_dim = 3 * n - 6
        equal = torch.ones_like(reference[:, 0])
        self.register_buffer("reference", center(reference[None], equal)[0])
        self.register_buffer("middle", wrap(torch.tensor(cuts).to(reference) + math.pi))
        circle = torch.tensor([math.inf if s else 2 * math.pi for s in stiff])
        periods = torch.cat([torch.full((2 * n - 3,), math.inf), circle])
        self.register_buffer("periods", periods.to(reference))
        self._tables()

    @classmethod
    def from_samples(
        cls,
        q: Float[Tensor, "batch atom 3"],
        zmatrix: ZMatrix,
        cuts: Mapping[int, float] | None = None,
        atom_names: Sequence[str] | None = None,
        reference: Float[Tensor, "atom 3"] | None = None,
    ) -> InternalCoordinates:
        """The chart whose cuts lie where no sample is, and whose stiff torsions are so marked.

        Args:
            q: (B, N, 3) structures.
            zmatrix: as for the class.
            cuts: cut [rad] of torsions by their place among the N - 3; the others are cut in the
                middle of the widest stretch of lowest density.
            atom_names: as for the class.
            reference: as for the class; the first structure where not given.

        Raises:
            ValueError: three atoms whose angle is a coordinate are on a line.
        """
        q = check_positions(q, "q", len(zmatrix.rows)).detach().double()
        atom_names = atom_names or [str(i) for i in range(q.shape[1])]
        _refuse_straight(q, zmatrix, atom_names)
        values = torsions(q, torch.tensor(zmatrix.torsions, device=q.device))
        placed = [_emptiest(column) for column in values.unbind(1)]
        chosen = [(cuts or {}).get(i, cut) for i, (cut, _) in enumerate(placed)]
        stiff = [empty > _STIFF for _, empty in placed]
        return cls(zmatrix, q[0] if reference is None else reference, chosen, stiff, atom_names)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each coordinate: its kind and atoms, for instance ``torsion N CA C N``."""
        kinds = (
            ("bond", self.zmatrix.bonds),
            ("angle", self.zmatrix.angles),
            ("torsion", self.zmatrix.torsions),
        )
        return tuple(
            f"{kind} {' '.join(self.atom_names[i] for i in reversed(row))}"
            for kind, rows in kinds
            for row in rows
        )

    def torsion_index(self, atoms: Sequence[int]) -> int:
        """Which coordinate is the torsion of these four atoms, in either direction.

        Raises:
            ValueError: no coordinate is.
        """
        wanted = {tuple(atoms), tuple(reversed(atoms))}
        for i, row in enumerate(self.zmatrix.torsions):
            if row in wanted:
                return 2 * len(self.zmatrix.rows) - 3 + i
        raise ValueError(
            f"atoms {tuple(atoms)} are no torsion of this chart; it has {self.zmatrix.torsions}"
        )

    def angle_of(self, xi: Float[Tensor, "batch dim"], index: int) -> Float[Tensor, " batch"]:
        """The torsion [rad] in (-pi, pi] of a column of ``xi``, without the shift by the cut."""
        return wrap(xi[:, index] + self.middle.to(xi)[index - (2 * len(self.zmatrix.rows) - 3)])

    def forward(
        self, q: Float[Tensor, "batch atom 3"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Coordinates (B, 3N - 6) of positions q (B, N, 3), and ln |det| (see `Chart`)."""
        xi, spherical = self.cartesian(q)
        return xi, spherical + self._log_frame(q)

    def cartesian(
        self, q: Float[Tensor, "batch atom 3"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Coordinates, and ln of their volume per volume of positions (see `Chart`).

        d^3N q is prod r^2 prod sin(theta) dxi dT dR. The first bond and angle lack the factors of
        the rotation: r_1^2, r_2^2 sin(theta_1), and r^2 sin(theta) for each further atom.
        """
        q = check_positions(q, "q", len(self.reference))
        r = bond_lengths(q, self.bond_atoms)
        theta = angles(q, self.angle_atoms)
        phi = wrap(torsions(q, self.torsion_atoms) - self.middle.to(q))
        return torch.cat([r, theta, phi], 1), -_log_spherical(r, theta)

    def inverse(
        self, xi: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch atom 3"], Float[Tensor, " batch"]]:
        """Aligned positions (B, N, 3) of coordinates (B, 3N - 6), and ln |det|."""
        r, theta, phi = self._split(xi)
        phi = phi + self.middle.to(xi)
        x = self._first_three(r, theta)
        # Atoms whose references are all placed are placed together.
        for atoms, references, columns in self._generations:
            b, a, t = (x[:, references[k]] for k in range(3))
            new = place(b, a, t, r[:, columns + 2], theta[:, columns + 1], phi[:, columns])
            x = x.index_copy(1, atoms, new)
        reference = self.reference.to(xi)
        q = align(x, reference, torch.ones_like(reference[:, 0]))
        return q, _log_spherical(r, theta) - self._log_frame(q)

    def metric(
        self, q: Float[Tensor, "batch atom 3"], mass: Float[Tensor, "..."]
    ) -> Float[Tensor, "batch dim dim"]:
        """Wilson's G = B M^-1 B^T from the formulas of B.

        Args:
            q: (B, N, 3) positions.
            mass: of each atom, of a shape that broadcasts against (N, 3).
        """
        b = self.wilson_b(q).flatten(2)
        scaled = b / mass.to(q).expand(q.shape[1:]).flatten().sqrt()
        return scaled @ scaled.mT

    def wilson_b(self, q: Float[Tensor, "batch atom 3"]) -> Float[Tensor, "batch dim atom 3"]:
        """Wilson's B = dxi/dq, shape (B, 3N - 6, N, 3)."""
        q = check_positions(q, "q", len(self.reference))
        b = q.new_zeros(len(q), self.n_dim, q.shape[1], 3)
        first = 0
        for gradients, atoms in (
            (bond_gradients, self.bond_atoms),
            (angle_gradients, self.angle_atoms),
            (torsion_gradients, self.torsion_atoms),
        ):
            rows = torch.arange(first, first + len(atoms), device=q.device)
            b[:, rows[:, None], atoms] = gradients(q, atoms)[1]
            first += len(atoms)
        return b

    def _log_frame(self, q: Float[Tensor, "batch atom 3"]) -> Float[Tensor, " batch"]:
        """Of J in d^3N q = J dy dT dR, y being the aligned molecule."""
        reference = self.reference.to(q)
        return frame_log_volume(q, reference, torch.ones_like(reference[:, 0]))

    def _split(
        self, xi: Float[Tensor, "batch dim"]
    ) -> tuple[
        Float[Tensor, "batch bond"], Float[Tensor, "batch angle"], Float[Tensor, "batch torsion"]
    ]:
        if xi.ndim != 2 or xi.shape[1] != self.n_dim:
            raise ValueError(f"xi has shape {tuple(xi.shape)}; expected (B, {self.n_dim})")
        n = len(self.zmatrix.rows)
        r, theta, phi = xi.split([n - 1, n - 2, n - 3], 1)
        return r, theta, phi

    def _first_three(
        self, r: Float[Tensor, "batch bond"], theta: Float[Tensor, "batch angle"]
    ) -> Float[Tensor, "batch atom 3"]:
        """The first atom at the origin, the second on the x axis, the third in the plane."""
        first, second, third = (row[0] for row in self.zmatrix.rows[:3])
        on_second = self.zmatrix.rows[2][1] == second
        x = r.new_zeros(len(r), len(self.zmatrix.rows), 3)
        x[:, second, 0] = r[:, 0]
        along, across = r[:, 1] * theta[:, 0].cos(), r[:, 1] * theta[:, 0].sin()
        x[:, third, 0] = r[:, 0] - along if on_second else along
        x[:, third, 1] = across
        return x

    def _tables(self) -> None:
        """Indices of the atoms of each coordinate, and of the generations of placement."""
        self.register_buffer("bond_atoms", torch.tensor(self.zmatrix.bonds), persistent=False)
        self.register_buffer("angle_atoms", torch.tensor(self.zmatrix.angles), persistent=False)
        torsions_ = torch.tensor(self.zmatrix.torsions, dtype=torch.long).reshape(-1, 4)
        self.register_buffer("torsion_atoms", torsions_, persistent=False)
        age: dict[int, int] = {}
        for i, (atom, *others) in enumerate(self.zmatrix.rows):
            age[atom] = 0 if i < 3 else 1 + max(age[other] for other in others)
        ages = torch.tensor([age[row[0]] for row in self.zmatrix.rows[3:]])
        for k in range(1, 1 + (int(ages.max()) if len(ages) else 0)):
            self.register_buffer(f"generation_{k}", (ages == k).nonzero()[:, 0], persistent=False)
        self._n_generations = int(ages.max()) if len(ages) else 0

    @property
    def _generations(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Atoms, what they refer to (3, n), and their columns among the torsions."""
        found = []
        for k in range(1, 1 + self._n_generations):
            columns = getattr(self, f"generation_{k}")
            rows = self.torsion_atoms[columns]
            found.append((rows[:, 0], rows[:, 1:].T, columns))
        return found


def _log_spherical(r: Tensor, theta: Tensor) -> Tensor:
    """Of prod r^2 prod sin(theta)."""
    return 2 * r.abs().log().sum(1) + theta.sin().abs().log().sum(1)


def _emptiest(angle: Float[Tensor, " n"], bins: int = 72) -> tuple[float, float]:
    """Middle [rad] of the widest empty stretch of the circle, and its share of the circle.

    Where no bin is empty, the cut is at the bin of the lowest smoothed count.
    """
    place = ((wrap(angle) + math.pi) / (2 * math.pi) * bins).long().clamp(max=bins - 1)
    counts = torch.bincount(place, minlength=bins).double().cpu()
    width = 2 * math.pi / bins
    # A stretch counts as empty where at most one sample in ten thousand is in a bin.
    empty = (counts <= 1e-4 * len(angle)).tolist()
    best, start = 0, 0
    for first in range(bins):
        length = next((k for k in range(bins) if not empty[(first + k) % bins]), bins)
        if length > best:
            best, start = length, first
    if best:
        return float(wrap(torch.tensor(-math.pi + (start + best / 2) * width))), best / bins
    smooth = (counts.roll(1) + 2 * counts + counts.roll(-1)).argmin()
    return -math.pi + (float(smooth) + 0.5) * width, 0.0


def _refuse_straight(
    q: Float[Tensor, "batch atom 3"], zmatrix: ZMatrix, atom_names: Sequence[str]
) -> None:
    theta = angles(q, torch.tensor(zmatrix.angles, device=q.device)).mean(0)
    bad = (theta < _STRAIGHT) | (theta > math.pi - _STRAIGHT)
    if bad.any():
        row = zmatrix.angles[int(bad.nonzero()[0])]
        raise ValueError(
            f"the atoms {', '.join(atom_names[i] for i in row)} are on a line: their angle is no "
            "coordinate; leave one out or give a Z-matrix that avoids the angle"
        )
