"""What is minimised: the variational free energy of a potential, or the entropy of samples."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from sciflow.nct.latent import base_draws
from sciflow.nct.layers import ChartMap
from sciflow.nct.model import CanonicalTransformation, Potential
from sciflow.shapes import Float, Tensor
from sciflow.train import Loss


class _LogDensity(nn.Module):
    """ln rho of a model in its chart, as a module, so that it can be run with other weights."""

    def __init__(self, model: CanonicalTransformation) -> None:
        super().__init__()
        self.model = model

    def forward(self, xi: Tensor, p_xi: Tensor | None) -> Tensor:
        model = self.model
        if p_xi is None:
            Q, log_det = model.from_chart(xi)
            return model.latent.log_density(Q) + log_det
        Q, P = model.into_latent(xi, p_xi)
        return model.latent.log_density(Q) + model.latent.log_density_momenta(P)


class VariationalFreeEnergy(nn.Module):
    """Bound on the free energy from the model's own samples, E[ln rho + H / kT] >= -ln Z.

    Gradients go along the path of the samples alone: the explicit dependence of ln rho on the
    weights has mean zero and is left out, so that the noise of the gradient vanishes as the model
    becomes exact.

    Args:
        model: the model; its ``strict`` decides whether momenta are those of the oscillators or
            exactly thermal, which are then integrated.
        potential: V of (B, ...) coordinates.
        path: False takes the derivative of the bound itself on the given draws, as a
            quasi-Newton method on a fixed batch needs.

    Source: Li, Dong, Zhang, Wang, PRX 10, 021020 (2020), equation (5); Roeder, Wu, Duvenaud,
    NeurIPS 2017, and Vaitl et al., ICML 2022, for the path gradient.
    """

    def __init__(
        self, model: CanonicalTransformation, potential: Potential, path: bool = True
    ) -> None:
        super().__init__()
        self.model, self.path = model, path
        # in a list, so that a potential that is a module is not trained
        self._potential = [potential]

    def forward(self, batch: tuple[Tensor, Tensor]) -> Loss:
        """Loss in units of kT; ``batch`` is (z, heat): base draws and the excess of temperature.

        Args:
            batch: z (B, n), or (B, 2 n) where momenta are sampled too; heat (B,) is what kT of
                the target is multiplied by.
        """
        model, (z, heat) = self.model, batch
        n = model.n_dim
        Q = model.latent.coordinates(z[:, :n])
        if not model.strict:
            xi, log_det = model.to_chart(Q)
            # Thermal momenta leave a constant, minus the logarithm of their partition function.
            momenta = (2 * math.pi * model.kT * model.mass).log().sum() / 2
            log_rho = self._log_rho(xi, None, model.latent.log_density(Q) - log_det) - momenta
            q = xi
            if model.chart is not None:
                q, log_volume = model.chart.inverse(xi)
                log_rho = log_rho - log_volume
            energy = self._potential[0](q) / model.kT
        else:
            P = model.latent.momenta(z[:, n:])
            xi, p = model.from_latent(Q, P)
            latent = model.latent.log_density(Q) + model.latent.log_density_momenta(P)
            log_rho = self._log_rho(xi, p, latent)
            q = xi
            if model.chart is not None:
                q, p = ChartMap(model.chart, model.mass).inverse(xi, p)
            kinetic = (p.square() / model.mass).flatten(1).sum(1) / 2
            energy = (self._potential[0](q) + kinetic) / model.kT
        entropy, energy = log_rho.mean(), (energy / heat).mean()
        value = entropy + energy
        return Loss(value, {"log_rho": entropy.detach(), "energy": energy.detach()})

    def _log_rho(self, xi: Tensor, p_xi: Tensor | None, direct: Tensor) -> Tensor:
        if not self.path:
            return direct
        density = _LogDensity(self.model)
        fixed = {name: x.detach() for name, x in density.named_parameters()}
        return functional_call(density, fixed, (xi, p_xi))


class DensityOfSamples(nn.Module):
    """Negative log-likelihood of samples, in nats per sample.

    With ``strict`` momenta are drawn afresh from N(0, kT G^-1), for never are those of samples
    used; otherwise the coordinates alone are fitted.

    Args:
        model: the model.

    Source: Li, Dong, Zhang, Wang, PRX 10, 021020 (2020), equation (7).
    """

    generator: torch.Generator | None = None

    def __init__(self, model: CanonicalTransformation) -> None:
        super().__init__()
        self.model = model
        self._density = [_LogDensity(model)]

    def forward(self, batch: Tensor | tuple[Tensor, Tensor]) -> Loss:
        """Loss of xi, or of (xi, factor): chart coordinates, and Cholesky factors of G^-1."""
        model = self.model
        xi, factor = (batch, None) if isinstance(batch, Tensor) else batch
        if not model.strict:
            return Loss(-self._density[0](xi, None).mean())
        noise = torch.randn(xi.shape, generator=self.generator, dtype=xi.dtype, device=xi.device)
        if factor is None:
            p = noise * (model.kT * model.mass).sqrt()
        else:
            p = math.sqrt(model.kT) * (factor @ noise[..., None]).squeeze(-1)
        return Loss(-self._density[0](xi, p).mean())


class BaseDraws:
    """Source of base draws: antithetic, whitened, and hot at the beginning if wished.

    Args:
        n_dim: columns of a draw.
        whiten: see `base_draws`.
        heat: factor of the temperature at the first draw; it falls geometrically to 1.
        draws: number of draws over which it falls.
    """

    def __init__(self, n_dim: int, whiten: bool = True, heat: float = 1.0, draws: int = 1) -> None:
        self.n_dim, self.whiten, self.heat, self.draws = n_dim, whiten, heat, draws
        self._drawn = 0

    def sample(
        self, n: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Base draws (n, n_dim), and the factor of the temperature (n,)."""
        z = base_draws(n, self.n_dim, generator, self.whiten)
        left = max(0.0, 1 - self._drawn / self.draws)
        self._drawn += 1
        return z, torch.full((n,), self.heat**left, dtype=z.dtype, device=z.device)

    def state_dict(self) -> dict[str, Any]:
        """How many draws were made."""
        return {"drawn": self._drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._drawn = state["drawn"]
