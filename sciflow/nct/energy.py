"""The fit to a potential, by the variational free energy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from sciflow.nct.build import Architecture, Modes, build_layers, hessian_modes
from sciflow.nct.latent import base_draws
from sciflow.nct.layers import Linear, Scale
from sciflow.nct.model import CanonicalTransformation, Potential, Units, evaluate
from sciflow.nct.objective import BaseDraws, VariationalFreeEnergy
from sciflow.nct.options import FitOptions, check_kT, check_mass, finish
from sciflow.shapes import Float, Tensor
from sciflow.systems.charts import Chart
from sciflow.train import Trainer


def fit_energy(
    potential: Potential,
    n_dim: int,
    mass: float | Sequence[float] | Tensor = 1.0,
    kT: float = 1.0,
    *,
    chart: Chart | None = None,
    strict: bool = False,
    start: Tensor | None = None,
    units: Units = "reduced",
    **options: Any,
) -> CanonicalTransformation:
    """Fit independent oscillators to a potential, by the variational free energy.

    The linear map starts from the normal modes at the nearest minimum, is brought to the best
    Gaussian by L-BFGS, and the networks around it, which start at the identity, are trained by
    Adam on path gradients.

    Args:
        potential: V of coordinates (B, n), shape (B,), an energy; differentiable.
        n_dim: number of coordinates n.
        mass: one mass, or n of them.
        kT: thermal energy, in the unit of the potential.
        chart: coordinates in which the system is simpler; angles become free rotors.
        strict: fit phase space, with the momenta of independent oscillators: the gap of the
            bound is then G_qp, and the frequencies are those of the latent Hamiltonian. By
            default the coordinates are fitted (gap G_q), momenta are exactly thermal, and
            frequencies are thermal widths of natural modes.
        start: (n,) coordinates where the search for a minimum begins; the origin (of the chart)
            where not given.
        units: "md" where the potential is in kJ/mol, coordinates in nm and masses in dalton.
        **options: fields of `FitOptions`.

    Returns:
        The model in eval mode, with ``history``.

    Raises:
        ValueError: masses of another number, a potential that gives another shape or nan, or a
            chart that does not fit.
        TrainingError: the loss is not finite.

    Example:
        >>> from sciflow.systems import HarmonicChain
        >>> chain = HarmonicChain(4)
        >>> model = fit_energy(chain.potential, 4, steps=0, progress=False)
        >>> bool((model.frequencies - chain.frequencies).abs().max() < 1e-6)
        True
    """
    settings = FitOptions(**options)
    mass = check_mass(mass, (n_dim,))
    check_kT(kT)
    if chart is not None and chart.n_dim != n_dim:
        raise ValueError(f"chart has {chart.n_dim} coordinates; expected n_dim = {n_dim}")
    chart = chart.double() if chart is not None else None
    periods = [math.inf] * n_dim if chart is None else chart.periods.tolist()
    line = torch.tensor([i for i, x in enumerate(periods) if math.isinf(x)], dtype=torch.long)
    xi0 = _start_of(start, n_dim, chart)
    evaluate(potential, xi0 if chart is None else chart.inverse(xi0)[0])

    def energy(xi: Tensor) -> Tensor:
        """Of chart coordinates: its canonical density is theirs."""
        if chart is None:
            return potential(xi)
        q, log_det = chart.inverse(xi)
        return potential(q) - kT * log_det

    def metric(xi: Tensor) -> Tensor:
        if chart is None:
            return torch.diag(1 / mass)[None]
        return chart.metric(chart.inverse(xi)[0], mass)

    minimum, modes = hessian_modes(energy, xi0[0], metric, line)
    generator = torch.Generator().manual_seed(settings.seed)

    def model_of(modes: Modes, shape: Architecture) -> CanonicalTransformation:
        layers, latent = build_layers(periods, modes, kT, shape, False, generator)
        model = CanonicalTransformation(layers, latent, mass, chart, strict, units).double()
        # Without momenta a frequency is only a scale of its coordinate, which the layers have.
        latent.requires_grad_(strict)
        return model

    linear = Architecture(couplings=0, splines=False)
    if settings.linear_steps and len(line):
        modes = best_gaussian(model_of(modes, linear), modes, potential, settings)
    model = model_of(modes, settings if settings.steps else linear)
    if settings.steps:
        objective = VariationalFreeEnergy(model, potential)
        columns = 2 * n_dim if strict else n_dim
        draws = max(1, settings.steps // 2)
        source = BaseDraws(columns, settings.whiten, settings.temper, draws)
        result = settings.trainer().fit(objective, source, resume=settings.resume)
        assert isinstance(result.model, CanonicalTransformation)
        model = result.model
        model.history, model.interrupted = result.history, result.interrupted
    finish(model, None, generator)
    model._potential = potential
    return model


def best_gaussian(
    model: CanonicalTransformation, modes: Modes, potential: Potential, settings: FitOptions
) -> Modes:
    """The linear map that minimises the bound on fixed draws, as modes."""
    columns = model.n_dim * (2 if model.strict else 1)
    generator = torch.Generator().manual_seed(settings.seed)
    count = max(settings.linear_draws, 8 * columns)
    z = base_draws(count, columns, generator)
    heat = torch.full((len(z),), settings.temper, dtype=z.dtype)
    trainer = Trainer(
        steps=settings.linear_steps,
        batch_size=len(z),
        lr=1.0,
        ema=0.0,
        decay="constant",
        update="lbfgs",
        device=settings.device,
        dtype="float64",
        progress=False,
    )
    objective = VariationalFreeEnergy(model, potential, path=False)
    best = trainer.fit(objective, _Fixed((z, heat))).model.cpu()
    assert isinstance(best, CanonicalTransformation)
    scale, last = best.layers[0], best.layers[-1]
    assert isinstance(scale, Scale) and isinstance(last, Linear)
    spread = scale.log_scale.exp().detach()
    basis = spread[:, None] * last.basis.detach()
    offset = last.center.detach() + last.basis.detach() @ best.latent.center.detach()
    center = scale.center.detach() + spread * offset
    return Modes(center, basis, best.latent.log_omega.detach().exp())


class _Fixed:
    """A source of one batch."""

    def __init__(self, batch: tuple[Tensor, ...]) -> None:
        self.batch = batch

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return self.batch


def _start_of(start: Tensor | None, n_dim: int, chart: Chart | None) -> Float[Tensor, "1 dim"]:
    """Chart coordinates of a start, (1, n) in float64.

    Raises:
        ValueError: it is not n finite numbers.
    """
    if start is None:
        return torch.zeros(1, n_dim, dtype=torch.float64)
    point = torch.as_tensor(start, dtype=torch.float64).detach().cpu()
    if point.shape != (n_dim,) or not bool(torch.isfinite(point).all()):
        raise ValueError(f"start must be {n_dim} finite numbers; got {point}")
    return point[None] if chart is None else chart(point[None])[0]
