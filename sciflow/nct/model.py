"""Neural canonical transformation: a symplectic map of a system to independent oscillators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import nn

from sciflow.metrics import Estimate, reweight
from sciflow.nct.frequencies import Frequencies
from sciflow.nct.latent import Latent, base_draws
from sciflow.nct.layers import CanonicalLayer, ChartMap, PointMap
from sciflow.nct.thermal import log_thermal_density, thermal_momenta
from sciflow.shapes import Float, Tensor
from sciflow.systems import Molecule
from sciflow.systems.charts import Chart
from sciflow.systems.trajectories import is_trajectory, whole_positions
from sciflow.train import History

Potential = Callable[[Tensor], Tensor]
Units = Literal["reduced", "md"]


class PhasePoints(NamedTuple):
    """Points of phase space.

    Attributes:
        q: coordinates, (B, ...).
        p: momenta, (B, ...).
    """

    q: Float[Tensor, "batch *shape"]
    p: Float[Tensor, "batch *shape"]


class CanonicalTransformation(nn.Module):
    """A canonical map (q, p) -> (Q, P) to oscillators, with the density that it implies.

    The map is the same in both readings of the model; they differ in the momenta.

    - ``strict=False``: the density of coordinates is that of the oscillators carried back, and
      given the coordinates the momenta are exactly thermal, p ~ N(0, kT M). The free-energy gap
      is that of the coordinates alone, G_q. Frequencies are thermal widths in natural modes,
      omega_k^2 = kT E[grad Q_k^T M^-1 grad Q_k] / Var Q_k.
    - ``strict=True``: coordinates and momenta are those of independent oscillators,
      P ~ N(0, kT), carried back. The gap is that of phase space, G_qp = G_q + E KL(p | q), and
      frequencies are those of the latent Hamiltonian.

    Coordinates Q are ordered by frequency, slowest first. Tensors are in the unit system of the
    potential or the samples; with ``units="md"``: nm, ps, dalton, kJ/mol.

    Args:
        layers: from the physical side to the latent one; they act on the chart's coordinates.
        latent: the oscillators.
        mass: mass of each entry of q.
        chart: coordinates that the layers act on; those of the system where not given.
        strict: which of the two readings.
        units: "reduced" or "md".

    Source: Li, Dong, Zhang, Wang, Phys. Rev. X 10, 021020 (2020), equations (1) to (7).
    """

    mass: Tensor

    def __init__(
        self,
        layers: Sequence[CanonicalLayer],
        latent: Latent,
        mass: Float[Tensor, "*shape"],
        chart: Chart | None = None,
        strict: bool = False,
        units: Units = "reduced",
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.latent, self.chart, self.strict, self.units = latent, chart, strict, units
        self.register_buffer("mass", mass.detach().clone())
        self.history: History | None = None
        self.interrupted = False
        # A function, so that the potential is no submodule: it is neither saved nor trained here.
        self._potential: Potential | None = None
        # Of a fit to trajectories.
        self.molecule: Molecule | None = None

    # --- what it found -----------------------------------------------------------------------

    @property
    def n_dim(self) -> int:
        """Number of modes."""
        return self.latent.n_dim

    @property
    def kT(self) -> float:
        """Thermal energy."""
        return self.latent.kT

    @property
    def frequencies(self) -> Frequencies:
        """Angular frequencies of the modes, ascending, shape (n,); ``.cm1`` in MD units."""
        return Frequencies.of(self.latent.omega(), self.units)

    @torch.no_grad()
    def modes(self, q: Any) -> Float[Tensor, "batch dim"]:
        """Mode coordinates Q (B, n) of ``q`` (B, ...) or of a trajectory, slowest first."""
        return self.coordinates(self._checked(q, "q"))[0]

    # --- the map -------------------------------------------------------------------------------

    def to_latent(
        self, q: Float[Tensor, "batch *shape"], p: Float[Tensor, "batch *shape"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Latent (Q, P) of physical (q, p)."""
        q, p = self._checked(q, "q"), self._checked(p, "p")
        if self.chart is not None:
            q, p = ChartMap(self.chart, self.mass).forward(q, p)
        return self.into_latent(q, p)

    def to_physical(
        self, Q: Float[Tensor, "batch dim"], P: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, "batch *shape"]]:
        """Physical (q, p) of latent (Q, P)."""
        Q, P = self.from_latent(Q, P)
        return (Q, P) if self.chart is None else ChartMap(self.chart, self.mass).inverse(Q, P)

    def into_latent(
        self, xi: Float[Tensor, "batch dim"], p_xi: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Latent (Q, P) of coordinates and momenta of the chart."""
        for layer in self.layers:
            xi, p_xi = layer(xi, p_xi)
        return xi, p_xi

    def from_latent(
        self, Q: Float[Tensor, "batch dim"], P: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Coordinates and momenta of the chart of latent (Q, P)."""
        for layer in reversed(self.layers):
            Q, P = cast(CanonicalLayer, layer).inverse(Q, P)
        return Q, P

    def coordinates(
        self, q: Float[Tensor, "batch *shape"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Latent coordinates of physical ones, and ln |det dQ/dq|, without momenta."""
        if self.chart is None:
            return self.from_chart(q)
        xi, log_volume = self.chart(q)
        Q, log_det = self.from_chart(xi)
        return Q, log_det + log_volume

    def coordinates_inverse(
        self, Q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
        """Physical coordinates of latent ones, and ln |det dq/dQ|, without momenta."""
        xi, log_det = self.to_chart(Q)
        if self.chart is None:
            return xi, log_det
        q, log_volume = self.chart.inverse(xi)
        return q, log_det + log_volume

    def from_chart(
        self, xi: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Latent coordinates of chart coordinates, and ln |det dQ/dxi|."""
        total = xi.new_zeros(len(xi))
        for layer in self._point_maps():
            xi, log_det = layer.coordinates(xi)
            total = total + log_det
        return xi, total

    def to_chart(
        self, Q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Chart coordinates of latent ones, and ln |det dxi/dQ|."""
        total = Q.new_zeros(len(Q))
        for layer in reversed(self._point_maps()):
            Q, log_det = layer.coordinates_inverse(Q)
            total = total + log_det
        return Q, total

    # --- the density ---------------------------------------------------------------------------

    def log_prob(
        self,
        q: Float[Tensor, "batch *shape"],
        p: Float[Tensor, "batch *shape"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """Log of the density at (q, p), or of that of the coordinates alone without ``p``.

        In a molecular chart it is the density of (xi, p_xi), which is that of the aligned
        molecule's vibrational phase space; without ``p`` that of the chart's aligned q.
        """
        q = self._checked(q, "q")
        if p is None:
            Q, log_det = self.coordinates(q)
            return self.latent.log_density(Q) + log_det
        if self.strict:
            Q, P = self.to_latent(q, p)
            return self.latent.log_density(Q) + self.latent.log_density_momenta(P)
        return self.log_prob(q) + log_thermal_density(
            q, self._checked(p, "p"), self.mass, self.kT, self.chart
        )

    @torch.no_grad()
    def sample(
        self, n: int, seed: int = 0, generator: torch.Generator | None = None
    ) -> PhasePoints:
        """Draw ``n`` independent points (q, p) of the model.

        Args:
            n: number of points.
            seed: of the draw, where no generator is given.
            generator: source of the draw, on any device.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1; got {n}")
        if generator is None:
            generator = torch.Generator(self.mass.device).manual_seed(seed)
        z = self._noise(n, generator)
        Q, noise = self.latent.coordinates(z[0]), z[1]
        if self.strict:
            return PhasePoints(*self.to_physical(Q, self.latent.momenta(noise)))
        q = self.coordinates_inverse(Q)[0]
        return PhasePoints(q, thermal_momenta(q, noise, self.mass, self.kT, self.chart))

    @torch.no_grad()
    def free_energy(
        self,
        n: int = 10_000,
        potential: Potential | None = None,
        strict: bool | None = None,
        seed: int = 0,
    ) -> Estimate:
        """Free energy F = -kT ln Z of coordinates and momenta, bounded and reweighted.

        Args:
            n: number of independent samples of the model.
            potential: V of (B, ...) coordinates, shape (B,), an energy; that of the fit where
                not given.
            strict: whether the momenta are those of the oscillators, so that ``bound`` - F is
                the gap G_qp of phase space, or exactly thermal, so that it is the gap G_q of
                coordinates; ``self.strict`` where not given.
            seed: of the samples.

        Returns:
            ``value`` by reweighting with ``error``, the variational ``bound``, and the share
            ``ess`` of effective samples.

        Raises:
            ValueError: there is no potential, or the chart leaves coordinates out.
        """
        potential = potential or self._potential
        if potential is None:
            raise ValueError("this model was not fitted to a potential: give one")
        if self.mass.numel() != self.n_dim:
            raise ValueError(
                f"the chart has {self.n_dim} coordinates of {self.mass.numel()}: the free energy "
                "of the others is not known to the model"
            )
        strict = self.strict if strict is None else strict
        generator = torch.Generator(self.mass.device).manual_seed(seed)
        z = self._noise(n, generator)
        Q = self.latent.coordinates(z[0])
        if strict:
            P = self.latent.momenta(z[1])
            q, p = self.to_physical(Q, P)
            log_rho = self.latent.log_density(Q) + self.latent.log_density_momenta(P)
            energy = evaluate(potential, q) + (p.square() / self.mass).flatten(1).sum(1) / 2
        else:
            q, log_det = self.coordinates_inverse(Q)
            log_rho = self.latent.log_density(Q) - log_det
            # Thermal momenta cancel from the weights, but for their partition function.
            energy = evaluate(potential, q)
            log_rho = log_rho - (2 * math.pi * self.kT * self.mass).log().sum() / 2
        weights = -energy / self.kT - log_rho
        return reweight(weights, generator, self.kT)

    def save(self, path: str | Path, extra: dict[str, Any] | None = None) -> Path:
        """Write the model as safetensors, with what it is built from as JSON metadata."""
        # The files know the class, so they are imported here.
        from sciflow.nct.files import save

        return save(self, path, extra)

    # --- parts ---------------------------------------------------------------------------------

    def _point_maps(self) -> list[PointMap]:
        out = []
        for layer in self.layers:
            if not isinstance(layer, PointMap):
                raise ValueError(
                    f"{type(layer).__name__} mixes coordinates with momenta, so that the "
                    "coordinates alone have no map: use (q, p), and strict=True"
                )
            out.append(layer)
        return out

    def _noise(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        z = base_draws(2 * n, self.n_dim, generator, whiten=False, dtype=self.mass.dtype)
        return z.to(self.mass.device).tensor_split(2)  # type: ignore[return-value]

    def positions_of(self, trajectory: Any) -> Float[Tensor, "batch atom 3"]:
        """Positions [nm] of the model's atoms in a ``mdtraj.Trajectory``, whole.

        Raises:
            ValueError: the model has no molecule, or the topology lacks its atoms.
        """
        if self.molecule is None:
            raise ValueError("this model was fitted to numbers, not to a molecule")
        atoms = list(self.molecule.labels)
        return whole_positions(trajectory, atoms).to(self.mass)

    def _checked(self, x: Any, name: str) -> Tensor:
        if is_trajectory(x):
            return self.positions_of(x)
        if x.shape[1:] != self.mass.shape:
            expected = ", ".join(("B", *map(str, self.mass.shape)))
            raise ValueError(f"{name} has shape {tuple(x.shape)}; expected ({expected})")
        return x.to(self.mass)


def evaluate(potential: Potential, q: Tensor) -> Tensor:
    """The potential at ``q``, checked.

    Raises:
        ValueError: it is not one number per sample.
    """
    value = potential(q)
    if not isinstance(value, Tensor) or value.shape != q.shape[:1]:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"potential must map {tuple(q.shape)} to ({len(q)},), one energy per sample; got {got}"
        )
    if bool(torch.isnan(value).any()):
        bad = int(torch.isnan(value).nonzero()[0])
        raise ValueError(f"potential is nan at q = {q[bad].tolist()}")
    return value
