"""What one would do instead: principal components, TICA, Gaussian densities.

Each is fitted to the training frames alone, and is scored as a model is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from sciflow.metrics import mutual_information
from sciflow.shapes import Float, Int, Tensor
from sciflow.systems.charts import Chart, EckartFrame

# Eigenvalues of a covariance below this share of the largest are directions without data.
_SINGULAR = 1e-10


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Quasi-harmonic modes: principal components of mass-weighted aligned positions.

    Attributes:
        frame: what structures are aligned by, every atom counting alike.
        mean: (N, 3) mean aligned structure [nm].
        vectors: (3N, 3N - 6) modes of mass-weighted positions as columns, widest first.
        variances: (3N - 6,) [nm^2 dalton], descending.
        masses: (N,) [dalton].
        kT: thermal energy [kJ/mol].

    Source: Karplus, Kushick, Macromolecules 14, 325 (1981).
    """

    frame: EckartFrame
    mean: Tensor
    vectors: Tensor
    variances: Tensor
    masses: Tensor
    kT: float

    @classmethod
    def fit(
        cls, q: Float[Tensor, "batch atom 3"], masses: Float[Tensor, " atom"], kT: float
    ) -> PrincipalComponents:
        """Modes of structures ``q`` [nm] of atoms of these masses [dalton]."""
        frame = EckartFrame.from_samples(q)
        aligned, _ = frame.inverse(frame(q.double())[0])
        mean, masses = aligned.mean(0), masses.double()
        weighted = ((aligned - mean) * masses.sqrt()[:, None]).flatten(1)
        values, vectors = torch.linalg.eigh(torch.cov(weighted.T))
        # Rigid motion leaves six directions without data.
        return cls(frame, mean, vectors.flip(1)[:, :-6], values.flip(0)[:-6], masses, kT)

    def modes(self, q: Float[Tensor, "batch atom 3"]) -> Float[Tensor, "batch dim"]:
        """Components of structures ``q`` [nm], in units of their standard deviations."""
        aligned, _ = self.frame.inverse(self.frame(q.double())[0])
        weighted = ((aligned - self.mean) * self.masses.sqrt()[:, None]).flatten(1)
        return weighted @ self.vectors / self.variances.sqrt()

    @property
    def frequencies(self) -> Float[Tensor, " dim"]:
        """Quasi-harmonic angular frequencies sqrt(kT / variance) [rad/ps], ascending."""
        return (self.kT / self.variances).sqrt()


@dataclass(frozen=True, eq=False)
class TICA:
    """Time-lagged independent components: the slowest linear functions of the features.

    Attributes:
        mean: (d,) mean of the features.
        vectors: (d, k) functions as columns, slowest first, of unit variance.
        correlations: (k,) their correlations at the lag, descending.
        lag: number of frames.

    Source: Molgedey, Schuster, Phys. Rev. Lett. 72, 3634 (1994); Pérez-Hernández et al.,
    J. Chem. Phys. 139, 015102 (2013), equations (11) to (14).
    """

    mean: Tensor
    vectors: Tensor
    correlations: Tensor
    lag: int

    @classmethod
    def fit(cls, x: Float[Tensor, "batch dim"], run: Int[Tensor, " batch"], lag: int) -> TICA:
        """Components of features ``x`` in the order of time within each run.

        Pairs of frames are counted in both directions, as in equilibrium.

        Raises:
            ValueError: the lag is less than one, or no run is longer than it.
        """
        if lag < 1:
            raise ValueError(f"lag must be at least 1, got {lag}")
        x = x.double()
        same = run[lag:] == run[:-lag] if lag < len(run) else run[:0].bool()
        first, second = x[: len(same)][same], x[lag:][same]
        if not len(first):
            raise ValueError(f"lag is {lag}: no run has so many frames")
        mean = (first.mean(0) + second.mean(0)) / 2
        a, b = first - mean, second - mean
        still = (a.T @ a + b.T @ b) / (2 * len(a))
        moved = (a.T @ b + b.T @ a) / (2 * len(a))
        values, vectors = torch.linalg.eigh(still)
        kept = values > _SINGULAR * values.max()
        white = vectors[:, kept] / values[kept].sqrt()
        correlations, rotation = torch.linalg.eigh(white.T @ moved @ white)
        return cls(mean, (white @ rotation).flip(1), correlations.flip(0), lag)

    def modes(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch mode"]:
        """Components of features ``x``, slowest first."""
        return (x.double() - self.mean) @ self.vectors

    @property
    def timescales(self) -> Float[Tensor, " mode"]:
        """Relaxation times -lag / ln correlation, in frames; nan where it is not positive."""
        return -self.lag / self.correlations.log()


def distances(q: Float[Tensor, "batch atom 3"]) -> Float[Tensor, "batch pair"]:
    """All distances between atoms, N (N - 1) / 2 of them: features that rigid motion leaves."""
    first, second = torch.triu_indices(q.shape[1], q.shape[1], 1, device=q.device)
    return (q[:, first] - q[:, second]).norm(dim=2)


@dataclass(frozen=True, eq=False)
class GaussianDensity:
    """One Gaussian in the coordinates of a chart.

    Attributes:
        chart: the coordinates, whose volume enters the density of q.
        mean: (d,) of the coordinates.
        covariance: (d, d) of the coordinates.
    """

    chart: Chart
    mean: Tensor
    covariance: Tensor

    @classmethod
    def fit(cls, chart: Chart, q: Float[Tensor, "batch *shape"]) -> GaussianDensity:
        """The Gaussian of the mean and covariance of the coordinates of ``q``.

        Raises:
            ValueError: the covariance is singular: too few samples, or a fixed coordinate.
        """
        xi, _ = chart(q.double())
        covariance = torch.cov(xi.T)
        values = torch.linalg.eigvalsh(covariance)
        if not float(values[0]) > 1e-14 * float(values[-1]):
            raise ValueError(
                f"q: the covariance of its {xi.shape[1]} coordinates is singular "
                f"({len(xi)} samples); a density needs more samples and no fixed coordinate"
            )
        return cls(chart, xi.mean(0), covariance)

    def log_prob(self, q: Float[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
        """Logarithm of the density with respect to q (see `Chart.forward` for a molecule)."""
        xi, log_det = self.chart(q.double())
        factor = torch.linalg.cholesky(self.covariance)
        white = torch.linalg.solve_triangular(factor, (xi - self.mean).T, upper=False)
        constant = factor.diagonal().log().sum() + len(self.mean) / 2 * math.log(2 * math.pi)
        return log_det - white.square().sum(0) / 2 - constant


class Information(NamedTuple):
    """Mutual information [nats] of modes with observables.

    Attributes:
        value: (modes, observables) mean over subsamples.
        error: (modes, observables) standard error of that mean, from the spread of subsamples.
        names: of the observables.
    """

    value: Tensor
    error: Tensor
    names: tuple[str, ...]


def information_table(
    modes: Float[Tensor, "batch mode"],
    angles: Float[Tensor, "batch angle"],
    names: Sequence[str],
    generator: torch.Generator,
    n_modes: int = 4,
    size: int = 1000,
    repeats: int = 5,
) -> Information:
    """Mutual information of the first modes with angles, each as (cos, sin), on random frames.

    Args:
        modes: (n, k) modes in their order.
        angles: (n, m) [rad] of the same frames.
        names: m names of the angles.
        generator: which frames are drawn.
        n_modes: how many modes are looked at.
        size: frames in each subsample, drawn without replacement.
        repeats: number of subsamples, at least two.

    Raises:
        ValueError: shapes disagree, or there are too few frames.

    Source: Kraskov, Stögbauer, Grassberger, Phys. Rev. E 69, 066138 (2004), with k = 5.
    """
    n = len(modes)
    if angles.shape != (n, len(names)):
        raise ValueError(f"angles has shape {tuple(angles.shape)}; expected ({n}, {len(names)})")
    if size > n or repeats < 2:
        raise ValueError(f"size must be at most {n} and repeats at least 2; got {size}, {repeats}")
    modes = modes[:, :n_modes]
    rows = []
    for _ in range(repeats):
        chosen = torch.randperm(n, generator=generator, device=generator.device)[:size]
        chosen = chosen.to(modes.device)
        circle = torch.stack([angles[chosen].cos(), angles[chosen].sin()], 2)
        rows.append(
            [
                [mutual_information(mode, angle) for angle in circle.unbind(1)]
                for mode in modes[chosen].unbind(1)
            ]
        )
    table = torch.tensor(rows, dtype=torch.float64, device="cpu")
    return Information(table.mean(0), table.std(0) / math.sqrt(repeats), tuple(names))
