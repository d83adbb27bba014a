"""The exporters of canonical transformations, and of biases on their modes."""

from __future__ import annotations

import math

import torch

from sciflow.bridges.bias import ModeBias
from sciflow.bridges.maps import Map, Parts, Settings, agreed, normal, with_forces
from sciflow.nct import CanonicalTransformation
from sciflow.nct.layers import Linear, PointMap
from sciflow.shapes import Float, Tensor


class SolvedLinear(Linear):
    """A linear layer that keeps its inverse, which a program then need not compute."""

    inverse_basis: Tensor
    log_volume: Tensor

    def __init__(self, layer: Linear) -> None:
        super().__init__(**layer.config)
        self.to(layer.basis)
        self.set_modes(layer.center, layer.basis)
        self.register_buffer("inverse_basis", torch.linalg.inv(self.basis).contiguous())
        self.register_buffer("log_volume", torch.linalg.slogdet(self.basis).logabsdet.clone())

    def coordinates(
        self, q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Mode coordinates Q = basis^-1 (q - center)."""
        Q = (self.columns.take(q) - self.center) @ self.inverse_basis.T
        return self.columns.put(q, Q), -self._log_det(q)

    def inverse(
        self, Q: Float[Tensor, "batch dim"], P: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Positions and momenta of modes."""
        p = self.columns.take(P) @ self.inverse_basis
        return self.coordinates_inverse(Q)[0], self.columns.put(P, p)

    def _log_det(self, x: Tensor) -> Tensor:
        return self.log_volume.expand(len(x))


def solve_linear(model: CanonicalTransformation) -> None:
    """Put `SolvedLinear` in the place of each linear layer."""
    for i, layer in enumerate(model.layers):
        if type(layer) is Linear:
            model.layers[i] = SolvedLinear(layer).requires_grad_(False)


def canonical_maps(model: CanonicalTransformation, settings: Settings) -> Parts:
    """Both directions of phase space; with a map of coordinates also modes, density, energy.

    The density of a molecule is that of its 3N positions, as a simulation samples them (see
    `Chart.cartesian`): the Boltzmann density of ``energy`` is the model.
    """
    solve_linear(model)
    units = agreed("units", model.units if model.units != "reduced" else None, settings.units)
    kT = agreed("kT", model.kT, settings.kT)
    point = lambda n: tuple(model.sample(n))
    latent = lambda n: tuple(model.to_latent(*model.sample(n)))
    maps = {
        "to_latent": Map(("q", "p"), ("Q", "P"), model.to_latent, point),
        "to_physical": Map(("Q", "P"), ("q", "p"), model.to_physical, latent),
    }

    def log_prob(q: Tensor) -> Tensor:
        if model.chart is None:
            return model.log_prob(q)
        xi, log_volume = model.chart.cartesian(q)
        Q, log_det = model.from_chart(xi)
        return model.latent.log_density(Q) + log_det + log_volume

    if all(isinstance(layer, PointMap) for layer in model.layers):
        q = lambda n: (model.sample(n).q,)
        noise = lambda n: (normal(n, model.n_dim, model.mass),)
        maps |= {
            "collective_variables": Map(("q",), ("Q",), lambda q: model.coordinates(q)[:1], q),
            "sample": Map(
                ("noise",),
                ("q",),
                lambda z: model.coordinates_inverse(model.latent.coordinates(z))[:1],
                noise,
                "noise: independent standard normal numbers",
            ),
            "log_prob": Map(("q",), ("log_prob",), lambda q: (log_prob(q),), q),
            "energy": Map(
                ("q",), ("energy", "forces"), with_forces(lambda q: -model.kT * log_prob(q)), q
            ),
        }
    else:
        maps["log_prob"] = Map(
            ("q", "p"), ("log_prob",), lambda q, p: (model.log_prob(q, p),), point
        )
    rigid = model.chart is not None and model.chart.n_dim < math.prod(model.mass.shape)
    return Parts(maps, units or "reduced", kT, "rigid" if rigid else "none", model.molecule)


def bias_maps(bias: ModeBias, settings: Settings) -> Parts:
    """The biased modes, and the energy with its forces."""
    model = bias.model
    solve_linear(model)
    units = agreed("units", model.units if model.units != "reduced" else None, settings.units)
    q = lambda n: (model.sample(n).q,)
    maps = {
        "collective_variables": Map(("q",), ("Q",), lambda q: (bias.modes(q),), q),
        "energy": Map(("q",), ("energy", "forces"), with_forces(bias), q),
    }
    kT = agreed("kT", model.kT, settings.kT)
    rigid = model.chart is not None and model.chart.n_dim < math.prod(model.mass.shape)
    return Parts(maps, units or "reduced", kT, "rigid" if rigid else "none", model.molecule)
