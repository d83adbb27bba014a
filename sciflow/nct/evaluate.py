"""How a model of a molecule does on frames it has not seen, beside what one would do instead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from sciflow.metrics import Difference, between, free_energy_difference
from sciflow.nct.baselines import (
    TICA,
    GaussianDensity,
    Information,
    PrincipalComponents,
    distances,
    information_table,
)
from sciflow.nct.model import CanonicalTransformation
from sciflow.shapes import Float, Tensor
from sciflow.systems import Conformations
from sciflow.systems.charts.geometry import torsions as torsions_of

_CHUNK = 10_000


class Arc(NamedTuple):
    """A state: the torsion ``torsion`` is between ``low`` and ``high`` [rad], going up."""

    torsion: str
    low: float
    high: float


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihood of held-out frames in the aligned Cartesian chart, in angstrom.

    Attributes:
        value: nats per frame.
        error: standard error from the spread of runs; nan for a single run.
    """

    value: float
    error: float


@dataclass(frozen=True, eq=False)
class MolecularScores:
    """What `score` measures.

    Attributes:
        likelihoods: of the model, and of Gaussians in both charts, by name.
        information: of the slowest modes of the model, PCA and TICA with the torsions.
        differences: for each state the free energy of it minus that of all else [kT]: of the
            training frames, the held-out frames, and the model.
        frequencies: of the model [cm^-1].
    """

    likelihoods: dict[str, Likelihood]
    information: dict[str, Information]
    differences: dict[str, dict[str, Difference]]
    frequencies: Tensor

    def table(self) -> str:
        """All of it as text."""
        lines = ["held-out -ln p [nats, aligned chart of 3N - 6 coordinates, angstrom]"]
        for name, nll in self.likelihoods.items():
            lines.append(f"  {name:<24}{nll.value:9.3f} +- {nll.error:.3f}")
        names = next(iter(self.information.values())).names
        lines += ["mutual information [nats] with " + ", ".join(names)]
        for name, table in self.information.items():
            for k, (row, error) in enumerate(zip(table.value, table.error, strict=True), start=1):
                cells = "  ".join(
                    f"{v:6.3f} +- {e:.3f}"
                    for v, e in zip(row.tolist(), error.tolist(), strict=True)
                )
                lines.append(f"  {f'{name} {k}':<24}{cells}")
        lines += ["free energy of a state minus that of all else [kT]"]
        for state, row in self.differences.items():
            cells = "  ".join(f"{name} {d.value:.3f} +- {d.error:.3f}" for name, d in row.items())
            lines.append(f"  {state:<24}{cells}")
        slowest = ", ".join(f"{f:.1f}" for f in self.frequencies[:6].tolist())
        lines += [f"frequencies [cm^-1]: {slowest} ... {float(self.frequencies[-1]):.1f}"]
        return "\n".join(lines)


@torch.no_grad()
def score(
    model: CanonicalTransformation,
    train: Conformations,
    held_out: Conformations,
    states: Mapping[str, Arc],
    torsions: tuple[str, ...] = ("phi", "psi"),
    lag: int = 10,
    n_drawn: int = 200_000,
    seed: int = 0,
) -> MolecularScores:
    """Score a model on held-out frames, with baselines fitted to the training frames.

    Args:
        model: fitted to ``train``.
        train: frames the model and the baselines are fitted to.
        held_out: frames of other runs.
        states: whose free energies are compared.
        torsions: names of the torsions that modes are compared with.
        lag: of TICA, in frames.
        n_drawn: samples of the model behind its free-energy differences, at least 100.
        seed: of subsamples and of samples of the model.
    """
    generator = torch.Generator().manual_seed(seed)
    cartesian, internal = train.aligned_frame(), train.internal_coordinates()
    densities = {
        "model": log_prob(model, held_out.positions),
        "Gaussian, internal": GaussianDensity.fit(internal, train.positions).log_prob(
            held_out.positions
        ),
        "Gaussian, Cartesian": GaussianDensity.fit(cartesian, train.positions).log_prob(
            held_out.positions
        ),
    }
    pca = PrincipalComponents.fit(train.positions, train.masses, model.kT)
    tica = TICA.fit(distances(train.positions), train.run, lag)
    angles = held_out.torsions(*torsions)
    modes = {
        "model": model.modes(held_out.positions),
        "PCA": pca.modes(held_out.positions),
        "TICA": tica.modes(distances(held_out.positions)),
    }
    drawn = _drawn_torsions(model, torsions, n_drawn, generator)
    found: dict[str, dict[str, Difference]] = {}
    for name, arc in states.items():
        column = torsions.index(arc.torsion)
        found[name] = {}
        sources = {
            "train": (train.torsions(*torsions), train.run),
            "held-out": (angles, held_out.run),
            "model": (drawn, torch.arange(len(drawn)) // (len(drawn) // 100)),
        }
        for source, (values, run) in sources.items():
            inside = between(values[:, column], arc.low, arc.high)
            if inside.any() and not inside.all():
                found[name][source] = free_energy_difference(~inside, inside, run, generator)
            else:  # no frame in one of the two
                missing = -math.inf if inside.all() else math.inf
                found[name][source] = Difference(missing, math.nan, "kT")
    return MolecularScores(
        {name: likelihood(values, held_out) for name, values in densities.items()},
        {
            name: information_table(values, angles, torsions, generator)
            for name, values in modes.items()
        },
        found,
        model.frequencies.cm1,
    )


@torch.no_grad()
def log_prob(
    model: CanonicalTransformation, q: Float[Tensor, "batch atom 3"]
) -> Float[Tensor, " batch"]:
    """`CanonicalTransformation.log_prob` in pieces that fit into memory."""
    return torch.cat([model.log_prob(part) for part in q.split(_CHUNK)])


def likelihood(log_p: Float[Tensor, " batch"], frames: Conformations) -> Likelihood:
    """Mean of -ln p over frames, for densities per angstrom from those per nm."""
    n_dim = 3 * len(frames.molecule) - 6
    loss = -log_p.double() + n_dim * math.log(10)
    runs = torch.stack([loss[frames.run == run].mean() for run in frames.runs])
    error = float(runs.std()) / math.sqrt(len(runs)) if len(runs) > 1 else math.nan
    return Likelihood(float(loss.mean()), error)


def _drawn_torsions(
    model: CanonicalTransformation, names: tuple[str, ...], n: int, generator: torch.Generator
) -> Float[Tensor, "n torsion"]:
    """Torsions of samples of the model, whose momenta are not needed."""
    assert model.molecule is not None
    rows = torch.tensor([model.molecule.torsion(name) for name in names])
    parts = []
    for first in range(0, n, _CHUNK):
        size = min(_CHUNK, n - first)
        z = torch.randn(size, model.n_dim, generator=generator, dtype=model.mass.dtype)
        q = model.coordinates_inverse(model.latent.coordinates(z.to(model.mass)))[0]
        parts.append(torsions_of(q, rows.to(q.device)).double().cpu())
    return torch.cat(parts)
