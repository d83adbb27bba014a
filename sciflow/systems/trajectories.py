"""Conformations from trajectories of mdtraj, and back.

Trajectories are read by their attributes, so that mdtraj is imported only to make new ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sciflow.errors import require
from sciflow.shapes import Float, Tensor
from sciflow.systems.molecules import Conformations, Molecule

Selection = str | Sequence[int] | Sequence[str] | None


def is_trajectory(value: object) -> bool:
    """Whether this is what mdtraj calls a Trajectory."""
    return hasattr(value, "xyz") and hasattr(value, "topology")


def molecule_of(topology: Any, chosen: Sequence[int] | None = None) -> Molecule:
    """The chosen atoms of a topology of mdtraj (all by default), with masses and bonds.

    Raises:
        ValueError: an atom has no element, so that its mass is unknown.
    """
    every = list(topology.atoms)
    chosen = range(len(every)) if chosen is None else chosen
    atoms = [every[i] for i in chosen]
    for atom in atoms:
        if atom.element is None or not atom.element.mass > 0:
            raise ValueError(
                f"topology: the atom {atom} has no element with a mass; leave it out by `atoms`"
            )
    place = {old: new for new, old in enumerate(chosen)}
    pairs = [(a.index, b.index) for a, b in topology.bonds]
    return Molecule(
        names=tuple(atom.name for atom in atoms),
        residues=tuple(atom.residue.index for atom in atoms),
        residue_names=tuple(str(atom.residue) for atom in atoms),
        elements=tuple(atom.element.symbol for atom in atoms),
        masses=tuple(float(atom.element.mass) for atom in atoms),
        bonds=tuple((place[a], place[b]) for a, b in pairs if a in place and b in place),
    )


def conformations(
    trajectories: Any, atoms: Selection = None, masses: Sequence[float] | None = None
) -> Conformations:
    """Whole molecules of one or more trajectories, with masses from the topology.

    Args:
        trajectories: one ``mdtraj.Trajectory``; a list of them, each a run; or an iterator of
            the chunks of one run, such as ``mdtraj.iterload`` gives. A list may hold iterators.
        atoms: which atoms: a selection of mdtraj such as ``"not element H"``, numbers, or names;
            all by default. They must be bonded to one molecule for internal coordinates.
        masses: of the chosen atoms [dalton]; from the topology by default.

    Returns:
        Positions in nm. Where there is a box, molecules are made whole along their bonds first.

    Raises:
        ValueError: the topology lacks the atoms named, topologies differ, the number of masses
            is wrong, there are fewer than two frames, or positions are not finite.
        TypeError: something is no trajectory.
    """
    runs = [trajectories] if is_trajectory(trajectories) else trajectories
    if not isinstance(runs, Iterable):
        raise TypeError(f"expected a mdtraj.Trajectory or several, got {type(runs).__name__}")
    if isinstance(runs, Iterator):
        runs = [runs]
    first: Any = None
    chosen: list[int] = []
    positions, labels = [], []
    for number, run in enumerate(runs):
        for chunk in [run] if is_trajectory(run) else run:
            if not is_trajectory(chunk):
                raise TypeError(f"expected a mdtraj.Trajectory, got {type(chunk).__name__}")
            if first is None:
                first, chosen = chunk.topology, select(chunk.topology, atoms)
            elif chunk.topology is not first and chunk.topology != first:
                raise ValueError(
                    f"run {number} has another topology than the first one "
                    f"({chunk.n_atoms} and {first.n_atoms} atoms): all must be the same molecule"
                )
            positions.append(whole_positions(chunk, chosen))
            labels.append(torch.full((len(positions[-1]),), number))
    if first is None:
        raise ValueError("no trajectories were given")
    molecule = molecule_of(first, chosen)
    if masses is not None:
        if len(masses) != len(chosen):
            raise ValueError(f"masses has {len(masses)} entries for {len(chosen)} atoms")
        molecule = replace(molecule, masses=tuple(float(mass) for mass in masses))
    return Conformations(molecule, torch.cat(positions), torch.cat(labels))


def whole_positions(trajectory: Any, atoms: Selection = None) -> Float[Tensor, "frame atom 3"]:
    """Positions [nm] of the chosen atoms in float64, molecules made whole where there is a box.

    Raises:
        ValueError: the topology lacks the atoms named, or a box has no volume.
    """
    chosen = select(trajectory.topology, atoms)
    x = torch.from_numpy(np.asarray(trajectory.xyz, dtype=np.float64))
    if trajectory.unitcell_vectors is not None:
        box = torch.from_numpy(np.asarray(trajectory.unitcell_vectors, dtype=np.float64))
        bonds = [(a.index, b.index) for a, b in trajectory.topology.bonds]
        x = make_whole(x, box, bonds, chosen)
    return x[:, chosen]


def select(topology: Any, atoms: Selection) -> list[int]:
    """Numbers of the chosen atoms, ascending for a selection string, else in the order given.

    Raises:
        ValueError: the topology lacks them, or none or one twice is chosen.
    """
    labels = [f"{atom.residue}-{atom.name}" for atom in topology.atoms]
    names = [atom.name for atom in topology.atoms]
    if atoms is None:
        return list(range(len(labels)))
    if isinstance(atoms, str):
        try:
            chosen = [int(i) for i in topology.select(atoms)]
        except Exception as error:  # mdtraj raises what its parser raises
            raise ValueError(f"atoms: {atoms!r} is no selection of mdtraj: {error}") from error
    else:
        chosen = []
        for atom in atoms:
            if isinstance(atom, str):
                found = [i for i in range(len(labels)) if atom in (labels[i], names[i])]
                if len(found) != 1:
                    raise ValueError(
                        f"atoms: the topology has {len(found) or 'no'} atoms called {atom!r}; it "
                        f"has {', '.join(labels[:40])}"
                    )
                chosen += found
            elif 0 <= int(atom) < len(labels):
                chosen.append(int(atom))
            else:
                raise ValueError(f"atoms: no atom {atom}; the topology has {len(labels)}")
    if not chosen or len(set(chosen)) != len(chosen):
        raise ValueError(
            f"atoms: {atoms!r} chooses {len(chosen)} atoms, {len(set(chosen))} "
            f"of them different, of the {len(labels)} in the topology"
        )
    return chosen


def make_whole(
    x: Float[Tensor, "frame atom 3"],
    box: Float[Tensor, "frame 3 3"],
    bonds: Sequence[tuple[int, int]],
    chosen: Sequence[int] | None = None,
) -> Float[Tensor, "frame atom 3"]:
    """Join molecules that a periodic box has broken, bond by bond, in any box.

    Args:
        x: (F, N, 3) positions.
        box: (F, 3, 3) box vectors as rows. Bonds must be shorter than half the box.
        bonds: pairs of atoms.
        chosen: atoms whose molecules are to be made whole; all by default.

    Raises:
        ValueError: a box has no volume.
    """
    if not (torch.linalg.det(box).abs() > 0).all():
        raise ValueError("a frame has a box without volume")
    inverse = torch.linalg.inv(box)
    neighbours: list[list[int]] = [[] for _ in range(x.shape[1])]
    for a, b in bonds:
        neighbours[a].append(b)
        neighbours[b].append(a)
    x = x.clone()
    seen: set[int] = set()
    for start in range(x.shape[1]) if chosen is None else chosen:
        queue = deque([] if start in seen else [start])
        seen.add(start)
        while queue:
            atom = queue.popleft()
            for other in neighbours[atom]:
                if other not in seen:
                    seen.add(other)
                    queue.append(other)
                    step = torch.einsum("fi,fij->fj", x[:, other] - x[:, atom], inverse).round()
                    x[:, other] -= torch.einsum("fi,fij->fj", step, box)
    return x


def to_trajectory(positions: Float[Tensor, "frame atom 3"], molecule: Molecule) -> Any:
    """A ``mdtraj.Trajectory`` of these positions [nm], without a box.

    Raises:
        ValueError: the shape does not fit the molecule.
    """
    if positions.ndim != 3 or positions.shape[1:] != (len(molecule), 3):
        raise ValueError(
            f"positions has shape {tuple(positions.shape)}; expected (frames, {len(molecule)}, 3)"
        )
    md = require("mdtraj")
    topology = md.Topology()
    chain = topology.add_chain()
    residues: dict[int, Any] = {}
    added = []
    for i, number in enumerate(molecule.residues):
        if number not in residues:
            full = molecule.residue_names[i]
            name = full.rstrip("0123456789")
            sequence = int(full[len(name) :]) if full[len(name) :] else None
            residues[number] = topology.add_residue(name, chain, sequence)
        element = md.element.get_by_symbol(molecule.elements[i])
        added.append(topology.add_atom(molecule.names[i], element, residues[number]))
    for a, b in molecule.bonds:
        topology.add_bond(added[a], added[b])
    return md.Trajectory(positions.detach().cpu().float().numpy(), topology)
